"""The licence of Project Gutenberg before and after a text, found by the lines that have marked it since 1991.

    ***START OF THE PROJECT GUTENBERG EBOOK MOBY DICK***     (may go on in the next lines)
    *END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*
    *** END OF THIS PROJECT GUTENBERG EBOOK MOBY DICK ***
    End of the Project Gutenberg EBook of Moby Dick, by Herman Melville

The text is a stream, of which a bounded piece is held. Where several books are in one file, each is found.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pipeline.text.records import Document, Record

STRIPPED, WITHOUT_MARKS = "strip-gutenberg", "no-gutenberg-marks"
"""What `Document.cleaned` calls a text whose licence was removed, and one that has none of the marks."""

HEAD_BYTES = 200_000  # of a book, in which the mark of its beginning is looked for; a licence has about 20 KB
_MARK_BYTES = 4096  # a mark and its title are shorter

_BEGIN = re.compile(
    rb"\n[ \t]*(?:\*{3}[ \t]*START OF (?:(?:THE|THIS) )?PROJECT GUTENBERG"
    rb"(?:[^*\n]*(?:\n[^*\n]+){0,4}\*{3}[^\n]*|[^\n]*)"
    rb"|\*END[* ][ \t]*THE SMALL PRINT![^\n]*)",
    re.IGNORECASE,
)
_END = re.compile(
    rb"\n[ \t]*(?:\*{3}[ \t]*END OF (?:(?:THE|THIS) )?PROJECT GUTENBERG"
    rb"|End of (?:(?:the|this) )?Project Gutenberg(?:'s|\xe2\x80\x99s|[ \t]+E-?(?:book|text)))",
    re.IGNORECASE,
)


@dataclass(eq=False)
class Licence:
    """What surrounds one text."""

    found: bool = False
    """Whether any mark was found in what was read by now."""

    def strip(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the bytes of the text between the marks; all bytes if there is no mark."""
        held = b"\n"  # bytes that are not decided yet, and the one before them
        state = "head"  # of a book; "body", or "licence" after it
        for chunk in itertools.chain(chunks, [b""]):
            held += chunk
            last = not chunk
            known = len(held) if last else len(held) - _MARK_BYTES  # marks that begin before this byte are complete
            undecided = False
            while not undecided:
                if state == "head":
                    undecided = known < HEAD_BYTES and not last
                    if not undecided:
                        held, state = self._without_head(held), "body"
                elif state == "body":
                    end = _first(_END, held, known)
                    size = end.start() + 1 if end else max(1, known)
                    if size > 1:
                        yield held[1:size]
                    held = held[size - 1 :]
                    undecided, self.found = end is None, self.found or end is not None
                    state = "licence" if end else "body"
                else:
                    begin = _first(_BEGIN, held, known)
                    held = held[begin.start() if begin else max(0, known - 1) :]
                    undecided, state = begin is None, "head" if begin else "licence"
                known = len(held) if last else len(held) - _MARK_BYTES
            if last:
                return

    def strip_text(self, text: str) -> str:
        """Return the text between the marks."""
        return b"".join(self.strip([text.encode(errors="surrogatepass")])).decode(errors="surrogatepass")

    def _without_head(self, held: bytes) -> bytes:
        """Return the bytes after the last mark of the beginning of this book, and the one before them."""
        end = _first(_END, held, HEAD_BYTES)
        begins = [begin for begin in _BEGIN.finditer(held) if begin.start() < (end.start() if end else HEAD_BYTES)]
        if not begins:
            return held
        self.found = True
        return b"\n" + held[begins[-1].end() :]

    def counted(self, records: Iterable[Record], position: int) -> Iterator[Record]:
        """Yield the records of the text, at this position. One of its pieces says whether marks were found."""
        held: Record | None = None
        is_counted = False
        for record in records:
            if held:
                yield held
            held = replace(record, position=position)
            if isinstance(held, Document) and self.found and not is_counted:
                held, is_counted = replace(held, cleaned=(*held.cleaned, STRIPPED)), True
        if isinstance(held, Document) and not is_counted:
            held = replace(held, cleaned=(*held.cleaned, WITHOUT_MARKS))
        if held:
            yield held


def _first(mark: re.Pattern[bytes], held: bytes, known: int) -> re.Match[bytes] | None:
    """Return the first mark that begins before byte `known`."""
    found = mark.search(held)
    return found if found and found.start() < known else None
