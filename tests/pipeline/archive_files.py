"""Archives for tests, and small files of each input format to put into them."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

TEXTS = [f"Text {i} has a sentence. " + "And one more, of words. " * (i % 5) for i in range(12)]
Files = Iterable[tuple[str, bytes]]
PACK = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflate": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


def make_tar(files: Files, ending: str = "", tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar of these files. ending: of its compression."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tar_format) as tar:
        for name, data in files:
            tar.addfile(entry(name, size=len(data)), io.BytesIO(data))
    return PACK[ending](file.getvalue())


def entry(name: str, **fields: Any) -> tarfile.TarInfo:
    """Return the header of a file in a tar."""
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def make_zip(files: Files, method: str = "deflate") -> bytes:
    """Return a zip of these files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", METHODS[method]) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data, METHODS[method])
    return file.getvalue()


def files_of_all_formats() -> dict[str, bytes]:
    """A small file of each format, some compressed, one in another encoding."""
    lines = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)).encode()
    table = pa.table({"text": [*TEXTS, None], "id": range(13)})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet, row_group_size=5)
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    pages = "".join(
        f"<page><title>{i}</title><ns>{i % 2}</ns><revision><text>{text}</text></revision></page>\n"
        for i, text in enumerate(TEXTS)
    )
    csv = "id,text\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(TEXTS))
    web = "".join(
        f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: {len(text)}\r\n\r\n{text}\r\n\r\n" for text in TEXTS
    )
    files = {
        "books/one.txt": "\n\n".join(TEXTS).encode(),
        "books/western.txt": ("\n\n".join(TEXTS) + " Äpfel, Öl, Übel, größer, süß, früh, spät, schön.").encode(
            "cp1252"
        ),
        "lines.jsonl": lines + b"not json\n",
        "table.parquet": parquet.getvalue(),
        "table.arrow": arrow.getvalue(),
        "dump.xml": f"<mediawiki>\n{pages}</mediawiki>\n".encode(),
        "pages.wet": web.encode(),
        "empty.txt": b"",
        "table.csv": csv.encode(),
        "table.tsv": csv.replace(",", "\t").replace('"', "").encode(),
        "array.json": f"[{','.join(lines.decode().splitlines())}]".encode(),
        "AA/wiki_00": "".join(
            f'<doc id="{i}" url="u" title="T">\nT\n\n{text}\n</doc>\n' for i, text in enumerate(TEXTS)
        ).encode(),
        "page.html": f"<html><body><main><p>{'</p><p>'.join(TEXTS)}</p></main></body></html>".encode(),
        "guide.md": "\n\n".join(["# Title", *TEXTS, "- *item*"]).encode(),
    }
    packed = {
        ".gz": ("lines.jsonl", "table.parquet"),
        ".xz": ("books/one.txt",),
        ".bz2": ("dump.xml",),
        ".zst": ("lines.jsonl", "table.csv"),
    }
    return files | {name + ending: PACK[ending](files[name]) for ending, names in packed.items() for name in names}
