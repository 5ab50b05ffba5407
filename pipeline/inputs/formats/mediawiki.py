"""MediaWiki dumps (`pages-articles*.xml.bz2`): their articles as text.

Read as a stream, page by page; a page's position is the byte where its `<page>` begins. Only articles count: other
namespaces and redirects are passed over. Mark-up becomes text by mwparserfromhell; tables, references, templates, files and
categories are left out; every paragraph, list item and heading is a line, and a heading without text below it goes, too.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.wikicode import Wikicode

from pipeline.text.records import (
    SHOWN_CHARACTERS,
    PassedOver,
    Record,
    Reject,
    decoded,
    first_characters,
    paragraphs,
    whole_or_pieces,
)

MAX_PAGE_BYTES = 100_000_000  # MediaWiki's own limit is 2 MB of text

_PAGE, _PAGE_END = b"<page>", b"</page>"
_HIDDEN_TAGS = frozenset(
    "ref references table gallery math chem ce timeline score syntaxhighlight source imagemap mapframe maplink graph "
    "templatedata includeonly categorytree inputbox hiero".split()
)
_BLOCK_TAGS = frozenset("p div br hr li dt dd ul ol dl blockquote center poem".split())
_REDIRECT = re.compile(r"\s*#\w+\s*:?\s*\[\[")  # #REDIRECT, #WEITERLEITUNG, #重定向
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*|simple")
_SPACES = re.compile(r"[ \t\xa0]+")
_LEFTOVER = re.compile(r"^[^\S\n]*(\{\||\||!|\}\}).*", re.MULTILINE)  # tables that the parser could not make out
_SHOWN = "\1"  # before what is no bare text: a list item, or a link, may begin with such a mark
_HEADING = "\0"  # begins the line of a heading, as often as its level says, until it is known whether text follows


@dataclass(frozen=True)
class Site:
    """What the head of a dump says of its wiki."""

    namespaces: frozenset[str] = frozenset()
    """All names of namespaces, in lower case: a title that begins with one and a colon is no article."""
    hidden: frozenset[str] = frozenset(("file", "image", "category", "media"))
    """Of these: links to a page in one of them are pictures and categories, not text."""


def read_site(head: bytes) -> Site:
    """The wiki's names for its namespaces, from the bytes before the first page."""
    begin, end = head.find(b"<siteinfo>"), head.find(b"</siteinfo>")
    if begin < 0 or end < 0:
        return Site()
    try:
        root = ElementTree.fromstring(head[begin : end + len(b"</siteinfo>")])
    except ElementTree.ParseError:
        return Site()
    names = {entry.get("key"): (entry.text or "").lower() for entry in root.iter("namespace")}
    hidden = {names.get(key, "") for key in ("-2", "6", "14")}
    return Site(frozenset(names.values()) - {""}, Site.hidden | hidden - {""})


def read_pages(chunks: Iterable[bytes], start: int, site: Site, whole: bool) -> Iterator[Record]:
    """The articles in these bytes, and the pages that are none. whole: they go on to the end of the file."""
    held, at, too_long = b"", start, False  # bytes not yet used, the position of the first
    for chunk in chunks:
        searched = max(0, len(held) - len(_PAGE_END) + 1)
        held += chunk
        begin = 0
        while (end := held.find(_PAGE_END, searched)) >= 0:
            end = searched = end + len(_PAGE_END)
            page = held.find(_PAGE, begin, end)
            if page >= 0:
                yield from _read_page(held[page:end], at + page, site)
            elif not too_long:
                shown = first_characters(held[begin:end])
                yield Reject(at + begin, "damaged-file", "a page that has no beginning", shown)
            begin, too_long = end, False
        held, at = held[begin:], at + begin
        if len(held) > MAX_PAGE_BYTES:
            if not too_long:
                yield Reject(at, "page-too-long", f"over {MAX_PAGE_BYTES} bytes", first_characters(held))
            keep = len(held) - len(_PAGE_END)
            held, at, too_long = held[keep:], at + keep, True
    if whole and b"</mediawiki>" not in held:
        detail = "the file ends before </mediawiki>: what came before it was kept"
        yield Reject(at, "damaged-file", detail, first_characters(held))


def _read_page(raw: bytes, position: int, site: Site) -> Iterator[Record]:
    data, num_replaced = decoded(raw)
    try:
        page = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        yield Reject(position, "not-xml", str(error), first_characters(raw))
        return
    title, wikitext = page.findtext("title", ""), page.findtext("revision/text") or ""
    prefix, colon, _ = title.partition(":")
    named = colon and prefix.lower() in site.namespaces
    if page.findtext("ns", "other" if named else "0") != "0":  # dumps before 2009 lack it
        yield PassedOver(position, "not-an-article")
    elif page.find("redirect") is not None or _REDIRECT.match(wikitext):
        yield PassedOver(position, "redirect")
    elif (model := page.findtext("revision/model", "wikitext")) != "wikitext":
        yield Reject(position, "not-wikitext", model, wikitext[:SHOWN_CHARACTERS], title)
    else:
        try:
            lines = plain_text(wikitext, site)
        except mwparserfromhell.parser.ParserError as error:
            yield Reject(position, "not-wikitext", str(error), wikitext[:SHOWN_CHARACTERS], title)
            return
        text, num_surrogates = paragraphs(lines.replace("\n", "\n\n"))  # wikitext may hold &#xD800; and &#13;
        documents = list(whole_or_pieces(text, position, num_replaced + num_surrogates, title))
        if not documents:
            yield Reject(position, "empty-text", "", wikitext[:SHOWN_CHARACTERS], title)
        yield from documents


def plain_text(wikitext: str, site: Site) -> str:
    """The text of an article, a paragraph, list item or heading a line.

    >>> plain_text("'''Paris''' ({{IPA|paʁi}}) is the [[capital city|capital]] of [[France]].<ref>x</ref>", Site())
    'Paris is the capital of France.'
    """
    text = "".join(_texts_of(mwparserfromhell.parse(wikitext, skip_style_tags=True), site))
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    kept: list[str] = []  # from the end, for a heading stays where text stands below it
    level = 0  # of the last heading kept, while no text came before it; 99: text comes next
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


def _texts_of(code: Wikicode, site: Site) -> Iterator[str]:
    for node in code.nodes:
        if isinstance(node, nodes.Text):
            yield node.value
        elif isinstance(node, nodes.HTMLEntity):
            yield _SHOWN + node.normalize()
        elif isinstance(node, nodes.Wikilink):
            if not _is_hidden(node, site):
                shown = "".join(_texts_of(node.title if node.text is None else node.text, site))
                yield _SHOWN + shown.removeprefix(":")  # [[:Category:Cities]]
        elif isinstance(node, nodes.ExternalLink):
            if node.title is not None:
                yield _SHOWN
                yield from _texts_of(node.title, site)
        elif isinstance(node, nodes.Heading):
            yield "\n" + _HEADING * node.level + "".join(_texts_of(node.title, site)).replace("\n", " ") + "\n"
        elif isinstance(node, nodes.Tag):
            name = str(node.tag).strip().lower()
            if name not in _HIDDEN_TAGS:
                edge = "\n" if name in _BLOCK_TAGS else ""
                yield edge + _SHOWN
                if node.contents:  # not in a list item: its text comes behind it
                    yield from _texts_of(node.contents, site)
                    yield edge


def _is_hidden(link: nodes.Wikilink, site: Site) -> bool:
    """Is it a picture, a category, or the same article in another language?"""
    prefix, colon, _ = str(link.title).partition(":")
    return bool(colon) and (
        prefix.strip().lower() in site.hidden or (link.text is None and _LANGUAGE.fullmatch(prefix) is not None)
    )


def _one_variant(match: re.Match[str]) -> str:
    """The first of the variants of a word in Chinese articles: -{zh-hans:博客; zh-hant:網誌}- is 博客."""
    flags, bar, body = match[1].rpartition("|")
    if bar and set("HT-") & set(flags):  # rules and titles, which are not shown
        return ""
    first = body.strip().partition(";")[0]
    return first.rpartition(":")[2].strip() if first.startswith("zh") else body


_REPLACEMENTS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (_LEFTOVER, ""),  # before bold is gone: '''!Kung''' is text
    (re.compile(_SHOWN), ""),
    (re.compile(r"'{2,}"), ""),  # bold and italic
    (re.compile(r"__[A-Z]+__"), ""),  # __NOTOC__
    (re.compile(r"-\{([^{}]*)\}-"), _one_variant),
    (re.compile(r" ?[(（][\s,;:–，；：、]*[)）]"), ""),  # what templates leave behind
    (re.compile(r" +([,.;])(?=\s|\Z)"), r"\1"),
)
