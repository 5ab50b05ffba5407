"""The output of WikiExtractor: files such as AA/wiki_00, with `<doc id=…>` … `</doc>` or, with its --json, an object a line.

In both forms characters are escaped as in HTML, and every line is a paragraph. A line that has only the tag of a beginning
or an end is mark-up; the program escapes such a line in a text.
"""

import html
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import BinaryIO

import orjson

from bertloom import storage
from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.json_lines import read_object
from pipeline.inputs.formats.streamed import (
    LINE_END,
    Chunks,
    find_borders,
    read_each_line,
    read_lines,
    read_stream,
)
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.inputs.streams import first_bytes
from pipeline.text.records import (
    DAMAGED,
    SHOWN_CHARACTERS,
    Item,
    PassedOver,
    Reject,
    Row,
    decode_text,
    first_characters,
    shown_id,
)

MAX_ARTICLE_BYTES = 20_000_000  # MediaWiki allows 2 MB of wikitext; an article is held whole, at ten times its size
MAX_TAG_BYTES = 4096  # addresses and titles have at most 255 bytes, before they are escaped

_BEGIN = re.compile(rb'[ \t]*<doc id="(?P<id>[^"]*)"(?:.*? title="(?P<title>.*)")?[^"]*>\s*')
_BEGINNING = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:"
    rb'<doc id="[^"]*" (?:revid="[^"]*" )?url="[^"\n]*"'
    rb'|\{"id": ?"\d+", ?"revid": ?"|\{(?:"id": ?"\d+", ?)?"url": ?"[^"]*\?curid=\d+"'
    rb")"
)
_END = re.compile(rb"[ \t]*</doc>\s*")
_BORDER = re.compile(rb"\n[ \t]*</doc>[ \t\r]*\n")
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_EMPTY_NOTE = re.compile(r"<ref\b[^<>]*/>", re.IGNORECASE)
_NOTE = re.compile(rf"{_EMPTY_NOTE.pattern}|<ref\b[^<>]*>.*?</ref\s*>", re.IGNORECASE)  # within a line
_TO_LAST_NOTE = re.compile(r"^.*</ref\s*>", re.IGNORECASE | re.MULTILINE)  # where each note has an end
_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def read_articles(chunks: Chunks, start: int, whole: bool) -> Iterator[Item]:
    """Yield an item for each article between its tags. whole: these bytes end where the file ends."""
    article: _Article | None = None  # the lines read since the last tag, if any of them holds anything
    at = start
    for line in read_lines(chunks):
        position, at = at, at + (line if isinstance(line, int) else len(line))
        tag = None if isinstance(line, int) else _tag(line)
        if tag and article:
            yield from article.items(ended=tag.re is _END)
            article = None
        if tag and tag.re is _BEGIN:
            article = _Article(position, tag)
        elif not tag and (article or isinstance(line, int) or line.strip()):
            article = article or _Article(position, None)
            article.add(line)
    if chunks.damage:
        return  # a reject of the damage follows, and the article is part of it
    if article and article.tag and whole:
        detail = "the file ends before </doc>: what came before it was kept"
        yield Reject(article.position, DAMAGED, detail, first_characters(bytes(article.text)))
    elif article:
        yield from article.items(ended=False)


def _tag(line: bytes) -> re.Match[bytes] | None:
    """Return the match of a line that is a tag."""
    if not line.startswith((b"<", b" ", b"\t")) or len(line) > MAX_TAG_BYTES:
        return None  # nearly all lines
    return _BEGIN.fullmatch(line) or _END.fullmatch(line)


class _Article:
    """The lines of an article, or lines outside of any."""

    def __init__(self, position: int, tag: re.Match[bytes] | None):
        self.position, self.tag = position, tag
        self.text = bytearray()
        self.size = 0

    def add(self, line: bytes | int) -> None:
        self.size += line if isinstance(line, int) else len(line)
        if self.size <= MAX_ARTICLE_BYTES and not isinstance(line, int):
            self.text += line

    def items(self, ended: bool) -> Iterator[Item]:
        shown = bytes(self.text[: 4 * SHOWN_CHARACTERS])
        if self.tag is None:
            yield Reject(self.position, "outside-article", "text that no <doc …> begins", first_characters(shown))
            return
        (record_id, _), (title, _) = decode_text(self.tag["id"]), decode_text(self.tag["title"] or b"")
        name = shown_id(record_id.decode())
        if self.size > MAX_ARTICLE_BYTES:
            detail = f"{self.size} bytes, over {MAX_ARTICLE_BYTES}"
            yield Reject(self.position, "page-too-long", detail, first_characters(shown), name)
        elif not ended:
            detail = "no </doc> before the next <doc …>"
            yield Reject(self.position, "no-article-end", detail, first_characters(shown), name)
        else:
            text, num_replaced = decode_text(bytes(self.text))
            self.text.clear()
            yield _row(text.decode(), title.decode(), self.position, shown, num_replaced, name)


def read_json_articles(chunks: Iterable[bytes], start: int) -> Iterator[Item]:
    """Yield an item for each line."""
    return read_each_line(chunks, start, _items_of_line)


def _items_of_line(line: bytes, position: int) -> tuple[Item]:
    item = read_object(line, position, "text", "id", None)
    if not isinstance(item, Row):
        return (item,)
    title = ""
    with suppress(ValueError):
        title = str(orjson.loads(line).get("title", ""))
    return (_row(item.text, title, position, item.shown, item.num_replaced, item.record_id),)


def _row(
    text: str, title: str, position: int, shown: bytes, num_replaced: int, record_id: str | None
) -> Row | PassedOver:
    """Return the row of an article, without the title that is repeated before a blank line."""
    lines = text.strip().split("\n")
    titles = title.strip(), html.unescape(title).strip()
    if html.unescape(lines[0]).strip() in titles and not "".join(lines[1:2]).strip():
        del lines[0]
    paragraphs = "\n\n".join(lines)
    if "&" in paragraphs:
        paragraphs = html.unescape(paragraphs)
    if "<" in paragraphs:  # versions of the program leave some notes and line breaks
        paragraphs = _TO_LAST_NOTE.sub(lambda notes: _NOTE.sub("", notes[0]), paragraphs)
        paragraphs = _LINE_BREAK.sub("\n\n", _EMPTY_NOTE.sub("", paragraphs))
    if not paragraphs.strip():
        return PassedOver(position, "empty-article")
    return Row(paragraphs, position, shown, num_replaced, record_id)


def _read(file: BinaryIO, split: Split, start: int) -> Iterator[Item]:
    is_json = _JSON.match(first_bytes(file, split.source.codec))

    def read(chunks: Chunks, position: int) -> Iterator[Item]:
        if is_json:
            return read_json_articles(chunks, position)
        return read_articles(chunks, position, whole=split.end is None)

    return read_stream(file, split, start, read, keeps_unfinished=True)


def _find_cuts(source: Source, split_bytes: int) -> list[int]:
    with storage.open_read(source.path) as file:
        is_json = _JSON.match(first_bytes(file, None))
    return find_borders(LINE_END if is_json else _BORDER, source, split_bytes)


def _begins(head: bytes, config: ReadConfig) -> bool:
    return _BEGINNING.match(head) is not None


WIKIEXTRACTOR = Format(
    name="wikiextractor",
    description="WikiExtractor's output",
    endings=(),
    shared_endings=(".json",),
    begins=_begins,
    read=_read,
    find_cuts=_find_cuts,
)
