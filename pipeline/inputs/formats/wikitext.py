"""The mark-up of MediaWiki pages: wikitext to plain text, by mwparserfromhell.

Tables, references, templates, files and categories are left out. Every paragraph, list item and heading becomes a line. A
heading without text below it is left out, too.
"""

import re
from collections.abc import Callable, Iterator

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.parser import ParserError
from mwparserfromhell.wikicode import Wikicode

_HIDDEN_TAGS = frozenset(
    "ref references table gallery math chem ce timeline score syntaxhighlight source imagemap mapframe maplink graph "
    "templatedata includeonly categorytree inputbox hiero".split()
)
_BLOCK_TAGS = frozenset("p div br hr li dt dd ul ol dl blockquote center poem".split())
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*|simple")
_SPACES = re.compile(r"[ \t\xa0]+")
_LEFTOVER = re.compile(r"^[^\S\n]*(\{\||\||!|\}\}).*", re.MULTILINE)  # tables that the parser did not recognize
_SHOWN = "\1"  # precedes what is not bare text: it may begin with a character that looks like mark-up
_HEADING = "\0"  # precedes a heading, repeated as many times as its level


def plain_text(wikitext: str, hidden: frozenset[str]) -> str:
    """Return the text of an article, with a line for each paragraph, list item and heading.

    hidden: namespaces, in lower case; links to their pages are left out. Raises ValueError for text that cannot be parsed.

    >>> plain_text("'''Paris''' ({{IPA|paʁi}}) is the [[capital city|capital]] of [[France]].<ref>x</ref>", frozenset())
    'Paris is the capital of France.'
    """
    try:
        code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    except ParserError as error:
        raise ValueError(str(error)) from error
    text = "".join(_texts_of(code, hidden))
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    kept: list[str] = []  # from the last line up: a heading is kept only when text follows it
    level = 0  # of the heading kept last; 99 when the line kept last is text
    for line in reversed(text.split("\n")):
        depth = len(line) - len(line.lstrip(_HEADING))
        line = _SPACES.sub(" ", line.lstrip(_HEADING)).strip()
        if not line:
            continue
        if depth == 0:
            level = 99
        elif depth >= level:
            continue
        else:
            level = depth
        kept.append(line)
    return "\n".join(reversed(kept))


def _texts_of(code: Wikicode, hidden: frozenset[str]) -> Iterator[str]:
    for node in code.nodes:
        if isinstance(node, nodes.Text):
            yield node.value
        elif isinstance(node, nodes.HTMLEntity):
            yield _SHOWN + node.normalize()
        elif isinstance(node, nodes.Wikilink):
            if not _is_hidden(node, hidden):
                shown = "".join(_texts_of(node.title if node.text is None else node.text, hidden))
                yield _SHOWN + shown.removeprefix(":")  # [[:Category:Cities]]
        elif isinstance(node, nodes.ExternalLink):
            if node.title is not None:
                yield _SHOWN
                yield from _texts_of(node.title, hidden)
        elif isinstance(node, nodes.Heading):
            yield "\n" + _HEADING * node.level + "".join(_texts_of(node.title, hidden)).replace("\n", " ") + "\n"
        elif isinstance(node, nodes.Tag):
            name = str(node.tag).strip().lower()
            if name not in _HIDDEN_TAGS:
                edge = "\n" if name in _BLOCK_TAGS else ""
                yield edge + _SHOWN
                if node.contents:  # a list item has none: its text comes after the tag
                    yield from _texts_of(node.contents, hidden)
                    yield edge


def _is_hidden(link: nodes.Wikilink, hidden: frozenset[str]) -> bool:
    """Return whether a link is a picture, a category, or the same article in another language."""
    prefix, colon, _ = str(link.title).partition(":")
    return bool(colon) and (
        prefix.strip().lower() in hidden or (link.text is None and _LANGUAGE.fullmatch(prefix) is not None)
    )


def _one_variant(match: re.Match[str]) -> str:
    """Return the first variant of a word in a Chinese article: 博客 for -{zh-hans:博客; zh-hant:網誌}-."""
    flags, bar, body = match[1].rpartition("|")
    if bar and set("HT-") & set(flags):  # rules and titles, which are not shown
        return ""
    first = body.strip().partition(";")[0]
    return first.rpartition(":")[2].strip() if first.startswith("zh") else body


_REPLACEMENTS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (_LEFTOVER, ""),  # while bold is still marked: '''!Kung''' is text
    (re.compile(_SHOWN), ""),
    (re.compile(r"'{2,}"), ""),  # bold and italic
    (re.compile(r"__[A-Z]+__"), ""),  # __NOTOC__
    (re.compile(r"-\{([^{}]*)\}-"), _one_variant),
    (re.compile(r" ?[(（][\s,;:–，；：、]*[)）]"), ""),  # brackets that held only a template
    (re.compile(r" +([,.;])(?=\s|\Z)"), r"\1"),
)
