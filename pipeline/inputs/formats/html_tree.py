"""HTML to a tree. Pages that would take minutes or gigabytes are rejected; a page of 30 KB can.

Deeply nested elements, and thousands of attributes in one tag, take quadratic time, so such pages are rejected. An unclosed
`<b>`, `<i>` or the like is repeated in every later paragraph, as in a browser. In a page with too many of these, they are
read as `<span>`, which is never repeated. All limits are counts, so every machine rejects the same pages.
"""

import re
from typing import Any

MAX_DEPTH = 512  # of nested elements, as in Chrome
MAX_STEPS = 10_000_000  # number of tags times depth: Resiliparse takes up to 0.3 µs for each
LEAST_DEPTH = 32  # allowed in every page
MAX_ATTRIBUTES = 1000  # of a tag; the parser compares each with all before it
MAX_REPEATED = 1_000_000  # elements that the parser adds to repeat those that are not closed, at most
MAX_MOVED = 500_000_000  # links times tags; a link that overlaps with other elements is moved through them

_ATTRIBUTE = r"""[\s/]*+[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s"'>][^\s>]*+)?+)?+"""
_FORMATTING = "b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u"
_FORMATTING_TAG = re.compile(rf"<(?:{_FORMATTING})(?=[\s/>])(?:{_ATTRIBUTE})*+", re.IGNORECASE)
_LINK_TAG = re.compile(r"<a(?=[\s/>])", re.IGNORECASE)
_BRACKET_IN_VALUE = re.compile(r"""=\s*+["'][^"'<>]*+[<>]""")
_COMMENT_OR_TAG = re.compile(
    rf"<!--(?:-?>|.*?(?:--!?>|\Z))|<[a-z][^\s/>]*+(?P<attributes>(?:{_ATTRIBUTE})*+)", re.IGNORECASE | re.DOTALL
)


def parse_html(html: str) -> Any:
    """Return resiliparse's tree of a page. Raises ValueError for a page that takes too long."""
    from resiliparse.parse.html import HTMLTree

    num_attributes = _most_attributes(html)
    if num_attributes > MAX_ATTRIBUTES:
        raise ValueError(f"a tag has {num_attributes} attributes, the limit is {MAX_ATTRIBUTES}")
    num_tags = html.count("<")
    if num_tags**2 > MAX_REPEATED and 3 * len(set(_FORMATTING_TAG.findall(html))) * num_tags > MAX_REPEATED:
        html = _as_spans(html, _FORMATTING)  # a browser repeats at most three that are equal
    if num_tags**2 > MAX_MOVED and len(_LINK_TAG.findall(html)) * num_tags > MAX_MOVED:
        html = _as_spans(html, "a")
    tree: Any = HTMLTree.parse(html)
    most = min(MAX_DEPTH, max(LEAST_DEPTH, MAX_STEPS // max(1, num_tags)))
    if tree.document.query_selector("*>" * most + "*") is not None:
        raise ValueError(f"elements are nested more than {most} deep")
    return tree


def _as_spans(html: str, names: str) -> str:
    return re.sub(rf"<(/?)(?:{names})(?=[\s/>])", r"<\1span", html, flags=re.IGNORECASE)


def _most_attributes(html: str) -> int:
    """Return the number of attributes of a tag with more than MAX_ATTRIBUTES, or 0.

    Nearly all pages have neither a long tag nor many brackets in the values of attributes, and need no closer look.
    """
    least = 2 * MAX_ATTRIBUTES  # characters that so many attributes take
    long = [tag for tag in html.split("<") if len(tag) > least]
    if any(not 0 <= tag.find(">") <= least for tag in long) or len(_BRACKET_IN_VALUE.findall(html)) > 10:
        for tag in _COMMENT_OR_TAG.finditer(html):
            if tag["attributes"] and len(tag["attributes"]) > least:
                num_attributes = sum(1 for _ in re.finditer(_ATTRIBUTE, tag["attributes"]))
                if num_attributes > MAX_ATTRIBUTES:
                    return num_attributes
    return 0
