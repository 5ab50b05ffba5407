"""MediaWiki dumps (`pages-articles*.xml.bz2`): their articles as text.

A dump is read as a stream, page by page. A page's position is the byte where its `<page>` begins. Pages in other namespaces
and redirects are skipped. Of a page's revisions, the newest is read. `wikitext` converts the mark-up.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO
from xml.etree import ElementTree

from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.streamed import find_borders, read_stream
from pipeline.inputs.formats.wiki_namespaces import HIDDEN
from pipeline.inputs.sources import Source, Split
from pipeline.inputs.streams import first_bytes
from pipeline.text.records import (
    DAMAGED,
    SHOWN_CHARACTERS,
    Item,
    PassedOver,
    Record,
    Reject,
    decode_text,
    first_characters,
    paragraphs,
    whole_or_pieces,
)

MAX_PAGE_BYTES = 100_000_000  # of XML, with one revision
MAX_TAGS = 10_000  # of a page; usual pages have about thirty (markup is escaped). A parsed tag takes 50 times its size
MAX_CHARACTERS = 2_097_152  # of wikitext. MediaWiki's own limit is as many bytes
HELD_BYTES = 8_000_000  # of a page with many revisions; then older revisions are dropped

_PAGE, _PAGE_END = b"<page>", b"</page>"
_REVISION, _REVISION_END = b"<revision>", b"</revision>"
_TIMESTAMP = re.compile(rb"<timestamp>\s*([^<\s]+)")  # 2001-02-03T04:05:06Z
_REDIRECT = re.compile(r"\s*#\w+\s*+(?::\s*+)?\[\[")  # #REDIRECT, #WEITERLEITUNG, #重定向


@dataclass(frozen=True)
class Site:
    """The namespaces of a wiki, as the head of its dump lists them."""

    namespaces: frozenset[str] = frozenset()
    """All names, in lower case. A title that begins with one of them and a colon is not an article."""
    hidden: frozenset[str] = HIDDEN
    """Namespaces of pictures, media and categories: a link to a page in one of them is not text."""


def read_site(head: bytes) -> Site:
    """Return the namespaces that the head of a dump lists: the bytes before the first page."""
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
    """Yield the records of each page, and the number of its older revisions. whole: these bytes end where the file ends."""
    held, at, too_long = b"", start, False  # bytes not used yet, the position of the first
    num_older = num_dropped = 0  # revisions of the page in `held` that were dropped, and their bytes
    most = HELD_BYTES
    for chunk in chunks:
        searched = max(0, len(held) - len(_PAGE_END) + 1)
        held += chunk
        begin = 0
        while (end := held.find(_PAGE_END, searched)) >= 0:
            end = searched = end + len(_PAGE_END)
            page = held.find(_PAGE, begin, end)
            if page >= 0:
                raw, num_more = _newest_revision(held[page:end])
                records = list(_read_page(raw, at + page, site))
                yield from records
                if num_older + num_more:  # after the pieces of the page, so that a part may begin here
                    yield PassedOver(at + page, "older-revision", len(records), num_older + num_more)
            elif not too_long:
                shown = first_characters(held[begin:end])
                yield Reject(at + begin, DAMAGED, "a page without <page>", shown)
            at += num_dropped
            begin, too_long, num_older, num_dropped, most = end, False, 0, 0, HELD_BYTES
        held, at = held[begin:], at + begin
        if len(held) > most:
            kept, num_more = _newest_revision(held)
            num_dropped += len(held) - len(kept)
            held, num_older, most = kept, num_older + num_more, len(kept) + HELD_BYTES
        if len(held) > MAX_PAGE_BYTES:
            if not too_long:
                yield Reject(at, "page-too-long", f"over {MAX_PAGE_BYTES} bytes", first_characters(held))
            keep = len(held) - len(_PAGE_END)
            held, at, too_long = held[keep:], at + keep + num_dropped, True
            num_older, num_dropped, most = 0, 0, HELD_BYTES
    if whole and b"</mediawiki>" not in held:
        detail = "the file ends before </mediawiki>: what came before it was kept"
        yield Reject(at, DAMAGED, detail, first_characters(held))


def _newest_revision(page: bytes) -> tuple[bytes, int]:
    """Return (a page, or its beginning, with only the newest of its whole revisions; number of the others).

    Of two revisions of the same second, the later one in the dump is the newer.
    """
    first = at = page.find(_REVISION)
    num_revisions, newest, newest_time = 0, b"", b""
    while at >= 0 and (end := page.find(_REVISION_END, at)) >= 0:
        end += len(_REVISION_END)
        time = _TIMESTAMP.search(page, at, end)
        if not num_revisions or (time[1] if time else b"") >= newest_time:
            newest, newest_time = page[at:end], time[1] if time else b""
        num_revisions, last = num_revisions + 1, end
        at = page.find(_REVISION, end)
    if num_revisions < 2:
        return page, 0
    return page[:first] + newest + page[last:], num_revisions - 1


def _read_page(raw: bytes, position: int, site: Site) -> Iterator[Record]:
    from pipeline.inputs.formats.wikitext import plain_text  # its parser takes 0.1 s to import

    if raw.count(b"<") > MAX_TAGS:
        yield Reject(position, "not-xml", f"more than {MAX_TAGS} tags", first_characters(raw))
        return
    data, num_replaced = decode_text(raw)
    try:
        page = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        yield Reject(position, "not-xml", str(error), first_characters(raw))
        return
    title, wikitext = page.findtext("title", ""), page.findtext("revision/text") or ""
    prefix, colon, _ = title.partition(":")
    named = colon and prefix.lower() in site.namespaces
    if page.findtext("ns", "other" if named else "0") != "0":  # dumps before 2009 do not have it
        yield PassedOver(position, "not-an-article")
    elif page.find("redirect") is not None or _REDIRECT.match(wikitext):
        yield PassedOver(position, "redirect")
    elif (model := page.findtext("revision/model", "wikitext")) != "wikitext":
        yield Reject(position, "not-wikitext", model, wikitext[:SHOWN_CHARACTERS], title)
    elif len(wikitext) > MAX_CHARACTERS:
        detail = f"{len(wikitext)} characters, over {MAX_CHARACTERS}"
        yield Reject(position, "page-too-long", detail, wikitext[:SHOWN_CHARACTERS], title)
    else:
        try:
            lines = plain_text(wikitext, site.hidden)
        except ValueError as error:
            yield Reject(position, "not-wikitext", str(error), wikitext[:SHOWN_CHARACTERS], title)
            return
        text, num_surrogates = paragraphs(lines.replace("\n", "\n\n"))  # wikitext may hold &#xD800; and &#13;
        documents = list(whole_or_pieces(text, position, num_replaced + num_surrogates, title))
        if not documents:
            yield Reject(position, "empty-text", "", wikitext[:SHOWN_CHARACTERS], title)
        yield from documents


def _read(file: BinaryIO, split: Split, start: int) -> Iterator[Item]:
    site = read_site(first_bytes(file, split.source.codec))

    def read(chunks: Iterable[bytes], position: int) -> Iterator[Record]:
        return read_pages(chunks, position, site, whole=split.end is None)

    return read_stream(file, split, start, read)


def _find_cuts(source: Source, split_bytes: int) -> list[int]:
    return find_borders(re.compile(_PAGE_END), source, split_bytes)


MEDIAWIKI = Format(
    name="mediawiki",
    description="a MediaWiki dump",
    endings=(".xml",),
    name_pattern=r"\.xml-[^/\\.]*",  # pages-articles1.xml-p1p41242
    magic=rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<mediawiki\b",
    read=_read,
    find_cuts=_find_cuts,
    versions=("mwparserfromhell",),
    packages=("mwparserfromhell",),
)
