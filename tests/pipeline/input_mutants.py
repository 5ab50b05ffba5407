"""Input files and token parts to change and read, see `tests/mutants.py`: documents, rejects, or a line that names the file.

python -m tests.pipeline.input_mutants arrow 1000 7
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import zstandard

from pipeline.inputs.corpora import corpora
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import TextConfig, read_documents
from pipeline.inputs.formats.registry import FORMATS
from pipeline.inputs.sources import Split
from pipeline.inputs.splitting import split_source
from pipeline.options import compose, option_names
from pipeline.tokens import read_documents_table, read_finished, read_range
from tests.jobs.corpus import as_jsonl, documents, run_job, write_vocabulary
from tests.mutants import Seeds, Use, arrow_files, main, mutate, parquet_files, target_of_files
from tests.pipeline.archive_files import METHODS, TEXTS, files_of_all_formats, make_tar, make_zip
from tests.pipeline.text_mutants import CLEANING, some_options


def tables() -> dict[str, pa.Table]:
    """Tables with every kind of text column and of id."""
    text = pa.array([*TEXTS, None])
    nested = pa.array([[i, i + 1] if i % 3 else None for i in range(13)])
    times = pa.array(range(13), pa.timestamp("us", "Asia/Tokyo"))
    kinds = [pa.string(), pa.large_string(), pa.binary(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
    ids = [text, nested, times, pa.array(range(13), pa.date32()), text.dictionary_encode()]
    texts = [text.dictionary_encode() if pa.types.is_dictionary(kind) else text.cast(kind) for kind in kinds]
    return {str(i): pa.table({"n": range(13), "text": texts[i], "id": ids[i]}) for i in range(5)}


def packed() -> Seeds:
    lines = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)).encode()
    halves = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    frames: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    }
    return {f"{n}.jsonl.{name}": b"".join(map(pack, halves[:n])) for name, pack in frames.items() for n in (1, 2)}


def delimited() -> Seeds:
    rows = [["id", "text"], *([i, f'{text}\n"{i}", said' if i % 3 else text] for i, text in enumerate(TEXTS))]
    seeds = {}
    for name, delimiter in (("a.csv", ","), ("b.csv", ";")):
        csv.writer(sink := io.StringIO(newline=""), delimiter=delimiter).writerows(rows)
        seeds[name] = sink.getvalue().encode()
    seeds["c.csv"] = seeds["a.csv"].decode().encode("utf-16")
    seeds["d.tsv"] = "".join(f"{i}\t{text}\r\n" for i, text in [("id", "text"), *enumerate(TEXTS)]).encode()
    return seeds | {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in seeds.items()}


def json_by_other_names() -> Seeds:
    objects = [{"id": i, "text": text, "more": [{"a": [i, '"\\']}]} for i, text in enumerate(TEXTS)]
    array = json.dumps(objects, indent=1).encode()
    lines = "".join(json.dumps(one) + "\n" for one in objects).encode()
    return {"a.json": array, "b.json": lines, "part-00000": lines, "c.json.gz": gzip.compress(array, mtime=0)}


def web() -> Seeds:
    page = b"<html><body><p>A page of a site. It has words.</p></body></html>"
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
    bodies = [http + b"\r\n" + page]
    bodies.append(http + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(page, mtime=0))
    bodies.append(http + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(page), page))
    records = [(b"warcinfo", b"software: none\r\n")] + [(b"response", body) for body in bodies]
    records.append((b"conversion", b"Plain text of a page.\nAnother line."))
    data = b"".join(
        b"WARC/1.0\r\nWARC-Type: %s\r\nWARC-Target-URI: http://a.b/\r\nContent-Type: application/http\r\n"
        b"Content-Length: %d\r\n\r\n%s\r\n\r\n" % (kind, len(body), body)
        for kind, body in records
    )
    return {"a.warc": data, "b.warc.gz": gzip.compress(data, mtime=0)}


def dump() -> Seeds:
    pages = "".join(
        f"<page><title>Page {i}</title><ns>0</ns><revision><text>{text} [[a|b]] &lt;ref&gt; ''x''</text></revision></page>\n"
        for i, text in enumerate(TEXTS)
    )
    site = '<siteinfo><namespaces><namespace key="6">File</namespace></namespaces></siteinfo>'
    return {"a.xml": f"<mediawiki>\n{site}\n{pages}</mediawiki>\n".encode()}


def extracted() -> Seeds:
    """What WikiExtractor writes, in both forms."""
    tags = "".join(
        f'<doc id="{i}" url="u" title="T {i}">\nT {i}\n\n{text} &amp;\n\n</doc>\n' for i, text in enumerate(TEXTS)
    )
    rows = [{"id": str(i), "revid": "1", "url": "u", "title": "T", "text": text} for i, text in enumerate(TEXTS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    return {"wiki_00": tags.encode(), "wiki_01": lines.encode(), "wiki_02.bz2": bz2.compress(tags.encode())}


MARKDOWN = r"""---
a: b
---
# *A* title

1. one
2. two
   - [x] [a](b "c") ![d](e)

> [!NOTE]
> `x` $y$ {{< z >}}

| a |
|---|
| b |

```
c
```

    d

<div>e</div>

f[^1] **g** <b>h</b>\
i

[^1]: j

!!! note
    k

::: l
m
:::
"""
RST = """=====
Title
=====

:a: b

A *b* ``c`` `d <e>`_ |f| [1]_ :g:`h`.

.. |f| replace:: i
.. [1] j

1. k
2. l

  m

.. note:: n
   :o: p

   q

.. r::

   s

t
  u

+---+
| v |
+---+

=== ===
a   b
=== ===

| w

:x: y

>>> z

-a  b

c::

  d
"""
GUTENBERG = """The Project Gutenberg eBook of A

*** START OF THE PROJECT GUTENBERG EBOOK A ***

 = A title =
One line. Another
line of it.

*** END OF THE PROJECT GUTENBERG EBOOK A ***
"""
HTML = """<html><head><meta charset=utf-8></head><body><h1>A</h1><p>B <a href='c'>d</a> &amp; e</p><table><tr><td>f</table>
<ul><li>g</ul></body></html>"""


def pages() -> Seeds:
    """A page in each of the formats whose files are one document."""
    return {"a.md": MARKDOWN.encode(), "a.rst": RST.encode(), "a.html": HTML.encode()}


def tars() -> Seeds:
    files = list(files_of_all_formats().items())
    inner = make_tar(files[:3], ".xz")
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    return {
        f"{name}.tar": make_tar([*files[i::3], ("n/" * 60 + "in.xz", inner)], "", form)
        for i, (name, form) in enumerate(formats.items())
    }


def zips() -> Seeds:
    files = list(files_of_all_formats().items())
    inner = make_zip(files[:3])
    return {f"{method}.zip": make_zip([*files[i::4], ("in.zip", inner)], method) for i, method in enumerate(METHODS)}


def parts() -> Seeds:
    """The files that a job leaves in its work folder: parts, and records of finished buckets."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "a.jsonl"
        source.write_bytes(as_jsonl(documents(20)))
        work = Path(folder) / "work"
        run_job(source, Path(folder) / "out", write_vocabulary(Path(folder) / "vocab.txt"), work_dir=work)
        return {path.name: path.read_bytes() for path in work.rglob("*.part")}


READING: dict[str, list[Any]] = {
    "format": [form.name for form in FORMATS],
    "encoding": ["utf-8", "utf-16", "latin-1", "gb18030", "shift_jis", "utf-8-sig", "cp1252"],
    "text_layout": ["line", "file"],
    "line_breaks": ["paragraph", "space"],
    "strip_gutenberg": [True],
    "text_column": ["content", "id", "0", "1", "n"],
    "id_column": ["text", "n", "0"],
    "header": ["yes", "no"],
    "records": ["sentences", "lines"],
    "document_column": ["id", "0", "n"],
    "records_per_document": [1, 3, 64],
    "document_start": ["^ = ", "i", "^$"],
    "skip_lines": ["^ =.*= $", "A", "."],
}


def some_text_config(draw: random.Random) -> TextConfig:
    """Return options for reading and cleaning: of a well-known corpus, or any that fit together."""
    names = option_names(TextConfig)
    while True:
        options = {name: draw.choice(values) for name, values in READING.items() if draw.random() < 0.25}
        options |= some_options(CLEANING, draw) if draw.random() < 0.3 else {}
        if draw.random() < 0.4:
            options = dict(draw.choice(list(corpora().values())).options)
        with suppress(ValueError):
            return compose(TextConfig, **{name: value for name, value in options.items() if name in names})


def read_with_options(config: TextConfig, path: Path) -> None:
    """Read an input file with options that need not fit it, at times from the middle on."""
    for source in find_sources([str(path)], None, config.read):
        for split in split_source(source, 200):
            records = list(read_documents(split, None, config.clean))
            for item in records[len(records) // 2 :][:1]:
                rest = list(read_documents(split, item.position, config.clean))
                assert rest[-1:] == records[-1:]


def use_with_options(original: Seeds, path: Path, draw: random.Random) -> list[Use]:
    return [partial(read_with_options, some_text_config(draw), path)]


def of_all_formats() -> Seeds:
    """Small files of every format, and a few longer ones."""
    seeds = {name: make() for name, make in SEEDS.items() if name not in ("arrow", "parquet")}
    tables_ = {f"t-{name}": data for make in (arrow_files, parquet_files) for name, data in make(tables()).items()}
    texts = {"a.txt": "\n\n".join(TEXTS).encode(), "b.txt": GUTENBERG.encode(), "c.txt": GUTENBERG.encode("utf-16")}
    found = {f"{kind}-{name}": data for kind, files in seeds.items() for name, data in files.items()}
    return found | tables_ | texts


def use_part(path: Path) -> None:
    """Use a part as the next start of a job does. A part that was changed is not used."""
    part = read_finished(str(path))
    if part is not None:
        block = read_range(str(path), part, 0, 1 << 64)
        assert len(block.documents) == part.num_documents and len(read_documents_table(str(path), part))


def read_input(path: Path) -> None:
    """Read all documents of an input file, as the stages do."""
    for source in find_sources([str(path)]):
        for split in split_source(source, 200):
            for _ in read_documents(split):
                pass


def read_archive(path: Path) -> None:
    """Read an archive whole and in splits, which give the same records in the same order."""
    for source in find_sources([str(path)]):
        whole = list(read_documents(Split(source, 0, None)))
        positions = [item.position for item in whole]
        assert positions == sorted(positions) and max(positions, default=0) < 1 << 63
        assert [item for split in split_source(source, 200) for item in read_documents(split)] == whole


def mutate_tar(original: Seeds, place: Path, draw: random.Random) -> Path:
    """Change a tar, most often in a header. Headers get the right checksum again, so that what they say is used."""
    name = draw.choice(sorted(original))
    data = bytearray(original[name])
    headers = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    if draw.random() < 0.7:
        at = draw.choice(headers)
        fields = mutate(bytes(data[at : at + 512]), list(original.values()), draw)
        data[at : at + 512] = fields.ljust(512, b"\0")[:512]
    else:
        data = bytearray(mutate(bytes(data), list(original.values()), draw))
    for at in headers:
        block = data[at : at + 512]
        if len(block) == 512 and draw.random() < 0.95:
            block[148:156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    path = place.with_name(f"{place.name}-{name}")
    path.write_bytes(data)
    return path


def one_use(use: Callable[[Path], None]) -> Callable[[Path], list[Use]]:
    return lambda path: [partial(use, path)]


SEEDS = {
    "arrow": lambda: arrow_files(tables()),
    "parquet": lambda: parquet_files(tables()),
    "packed": packed,
    "delimited": delimited,
    "json": json_by_other_names,
    "web": web,
    "dump": dump,
    "extracted": extracted,
    "pages": pages,
}
TARGETS = {
    "parts": target_of_files(parts, one_use(use_part), 500),
    **{name: target_of_files(seeds, one_use(read_input), 500) for name, seeds in SEEDS.items()},
    "tar": replace(target_of_files(tars, one_use(read_archive), 500), mutate=mutate_tar),
    "zip": target_of_files(zips, one_use(read_archive), 500),
    "options": replace(target_of_files(of_all_formats, one_use(read_input), 500), uses=use_with_options),
}

if __name__ == "__main__":
    main(TARGETS)
