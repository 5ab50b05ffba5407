"""The mark-up of MediaWiki pages: wikitext to plain text, by mwparserfromhell.

Tables, references, templates, files and categories are left out. Every paragraph, list item and heading becomes a line. A
heading without text below it is left out, too.

mwparserfromhell reads to the end of the page for each mark that is never closed. These marks are counted first, and a page
with too many is rejected, so that no page takes more than seconds.
"""

import re
from collections import defaultdict
from collections.abc import Iterator

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.parser import ParserError
from mwparserfromhell.wikicode import Wikicode

from pipeline.inputs.formats.apostrophes import without_quotes
from pipeline.inputs.formats.language_variants import with_one_variant

MAX_READ_AGAIN = 10_000_000  # characters that the parser may read again: under 1 µs each; real pages need 0.4 million
MAX_NESTED = 40  # the parser's own limit: it takes deeper marks for unclosed ones

_HIDDEN_TAGS = frozenset(
    "ref references table gallery math chem ce timeline score syntaxhighlight source imagemap mapframe maplink graph "
    "templatedata includeonly categorytree inputbox hiero".split()
)
_BLOCK_TAGS = frozenset("p div br hr li dt dd ul ol dl blockquote center poem".split())
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*|simple")
_SPACES = re.compile(r"[ \t\xa0]+")
# tables that the parser did not recognize
_LEFTOVER = re.compile(r"^(?:[^\S\n]|\x02)*+(\{\||\||!|\}\}).*", re.MULTILINE)
_SHOWN = "\1"  # around what is not bare text: it may begin with a character that looks like mark-up
_LITERAL = "\2"  # around an apostrophe or brace that is text; in place of what is left out
_EDGE = "\3\n"  # of a block: a line ends here, but not for bold and italic
_WIKITEXT_LINE = re.compile("(?<!\3)\n")
_HEADING = "\0"  # precedes a heading, repeated as many times as its level
_LITERAL_TAGS = frozenset(("nowiki", "pre"))
_REPLACEMENTS = (
    (re.compile(r"__[A-Z]+__"), ""),  # __NOTOC__
    (re.compile(r" ?[(（][\s,;:–，；：、]*[)）]"), ""),  # brackets that held only a template
    (re.compile(r"(?<! ) +([,.;])(?=\s|\Z)"), r"\1"),
)
_MARKS = re.compile(
    r"(?P<open>\{\{|\{\||\[\[|\[(?=\w*:?//|\w+:)|<!--)"
    r"|(?P<close>\}\}|\|\}(?!\})|\]\]|\]|-->)"
    r"|<(?P<slash>/?)(?P<tag>[a-zA-Z]++)(?P<rest>[^<>]*+>?)"
)
_OPENED_BY = {"}}": "{{", "|}": "{|", "]]": "[[", "]": "[", "-->": "<!--"}
_SINGLE_TAGS = frozenset("br wbr hr meta link img li dt dd th td tr".split())  # need no end


def plain_text(wikitext: str, hidden: frozenset[str]) -> str:
    """Return the text of an article, with a line for each paragraph, list item and heading.

    hidden: namespaces, in lower case; links to their pages are left out. Raises ValueError for text that cannot be parsed.

    >>> plain_text("'''Paris''' ({{IPA|paʁi}}) is the [[capital city|capital]] of [[France]].<ref>x</ref>", frozenset())
    'Paris is the capital of France.'
    """
    num_unclosed, again = read_again(wikitext)
    if again > MAX_READ_AGAIN:
        raise ValueError(f"{num_unclosed} marks such as {{{{, [[ or <b> are not closed or are nested too deeply")
    try:
        code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    except ParserError as error:
        raise ValueError(str(error)) from error
    text = _LEFTOVER.sub("", "".join(_texts_of(code, hidden)))  # while bold is still marked: '''!Kung''' is text
    text = with_one_variant(_without_quotes(text).replace(_SHOWN, "").replace(_EDGE, "\n")).replace(_LITERAL, "")
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
            yield _SHOWN + _literal(node.normalize()) + _SHOWN
        elif isinstance(node, nodes.Wikilink):
            if _is_hidden(node, hidden):
                yield _LITERAL
            else:
                shown = "".join(_texts_of(node.title if node.text is None else node.text, hidden))
                if node.text is not None:  # apostrophes in a title are text
                    shown = _without_quotes(shown)
                yield _SHOWN + _literal(shown.removeprefix(":"), "'") + _SHOWN  # [[:Category:Cities]]
        elif isinstance(node, nodes.ExternalLink):
            if node.title is None:
                yield _LITERAL
            else:
                yield _SHOWN
                yield from _texts_of(node.title, hidden)
                yield _SHOWN
        elif isinstance(node, nodes.Heading):
            yield "\n" + _HEADING * node.level + "".join(_texts_of(node.title, hidden)).replace("\n", " ") + "\n"
        elif isinstance(node, nodes.Tag):
            name = str(node.tag).strip().lower()
            if name in _HIDDEN_TAGS:
                yield _LITERAL
            else:
                edge = _EDGE if name in _BLOCK_TAGS else ""
                yield edge + _SHOWN
                if node.contents and name in _LITERAL_TAGS:
                    yield _literal("".join(_texts_of(node.contents, hidden)))
                elif node.contents:  # a list item has none: its text comes after the tag
                    yield from _texts_of(node.contents, hidden)
                    yield edge
        elif not isinstance(node, nodes.Comment):  # templates and their parameters
            yield _LITERAL


def _is_hidden(link: nodes.Wikilink, hidden: frozenset[str]) -> bool:
    """Return whether a link is a picture, a category, or the same article in another language."""
    prefix, colon, _ = str(link.title).partition(":")
    return bool(colon) and (
        " ".join(prefix.replace("_", " ").lower().split()) in hidden
        or (link.text is None and _LANGUAGE.fullmatch(prefix) is not None)
    )


def _without_quotes(text: str) -> str:
    return "\n".join(map(without_quotes, _WIKITEXT_LINE.split(text))) if "''" in text else text


def _literal(text: str, characters: str = "'{}") -> str:
    """Return a text with its apostrophes and braces protected, so that no later step takes them for markup."""
    for character in characters:
        text = text.replace(character, _LITERAL + character + _LITERAL)
    return text


def read_again(wikitext: str) -> tuple[int, int]:
    """Return (marks that are not closed or nested too deeply, characters from each of them to the end of the page).

    >>> read_again("[[a]] <b> {{c")
    (2, 10)
    """
    opened: defaultdict[str, list[int]] = defaultdict(list)  # where each kind of mark was opened
    closed: list[tuple[int, int]] = []  # where marks begin and end
    num_open = most_open = 0
    for match in _MARKS.finditer(wikitext):
        mark, opening = match["open"], _OPENED_BY.get(match["close"] or "")
        if tag := match["tag"]:
            rest = match["rest"]
            if not rest.endswith(">"):
                mark = "<"  # of a tag that has no end itself
            elif match["slash"]:
                opening = tag.lower()
            elif not rest.endswith("/>") and tag.lower() not in _SINGLE_TAGS:
                mark = tag.lower()
        if mark:
            opened[mark].append(match.start())
            num_open += 1
            most_open = max(most_open, num_open)
        elif opening and opened[opening]:
            closed.append((opened[opening].pop(), match.start()))
            num_open -= 1
    starts = [start for kind in opened.values() for start in kind]
    if most_open > MAX_NESTED:
        starts += _nested_too_deeply(closed)
    return len(starts), len(wikitext) * len(starts) - sum(starts)


def _nested_too_deeply(closed: list[tuple[int, int]]) -> list[int]:
    starts = []
    depth = 0
    for at, step in sorted([(start, 1) for start, _ in closed] + [(end, -1) for _, end in closed]):
        depth += step
        if step > 0 and depth > MAX_NESTED:
            starts.append(at)
    return starts
