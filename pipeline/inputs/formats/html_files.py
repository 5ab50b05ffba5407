"""HTML files: a file is a page. Its text is extracted as that of pages in web archives."""

import re
from functools import partial

from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.html_text import text_of_page
from pipeline.inputs.formats.whole_texts import read_whole
from pipeline.text.records import is_utf8

_META = re.compile(rb"<meta\b[^>]*?\bcharset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_META_BYTES = 1024  # where browsers look for it


def _charset(page: bytes, has_mark: bool) -> str | None:
    """Return the encoding by what browsers look at, or None. has_mark: whether a byte order mark of UTF-8 came before."""
    if has_mark:
        return "utf-8"
    if b"\0" in page[:_META_BYTES]:
        return None  # UTF-16
    if named := _META.search(page[:_META_BYTES]):
        name = named[1].decode("ascii", "replace").lower()
        return "utf-8" if name.startswith("utf-16") else name  # such a page could not be read up to here
    return "utf-8" if is_utf8(page) else None


def _text(page: bytes, has_mark: bool) -> tuple[str, int]:
    return text_of_page(page, _charset(page, has_mark)).replace("\n", "\n\n"), 0


HTML = Format(
    name="html",
    description="a page in HTML",
    endings=(".html", ".htm"),
    read=partial(read_whole, _text),
    is_document=True,
    versions=("resiliparse",),
    packages=("resiliparse",),
)
