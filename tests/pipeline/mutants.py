"""Mutated input files, each read in a process of its own with limits on memory and time.

    python -m tests.pipeline.mutants arrow 1000 7    1000 mutants of the Arrow files, from seed 7

A mutant may give documents, rejects, or one line of error that names it. Anything else is printed and its file is kept.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.splitting import split_source
from pipeline.tokens import PartRecord, read_documents_table, read_finished, read_range
from tests.jobs.corpus import as_jsonl, documents, run_job, write_vocabulary

MEMORY_BYTES, SECONDS = 3_000_000_000, 20  # of address space and of time, for one mutant
EXTREMES = [0, 1, 7, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]
TEXTS = [f"Text {i} has a sentence. " + "And one more, of words. " * (i % 5) for i in range(12)]

Seeds = dict[str, bytes]  # name of a file -> what it holds


def tables() -> list[pa.Table]:
    """Tables with every kind of text column and of id."""
    text = pa.array([*TEXTS, None])
    nested = pa.array([[i, i + 1] if i % 3 else None for i in range(13)])
    times = pa.array(range(13), pa.timestamp("us", "Asia/Tokyo"))
    kinds = [pa.string(), pa.large_string(), pa.binary(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
    ids = [text, nested, times, pa.array(range(13), pa.date32()), text.dictionary_encode()]
    texts = [text.dictionary_encode() if pa.types.is_dictionary(kind) else text.cast(kind) for kind in kinds]
    return [pa.table({"n": range(13), "text": texts[i], "id": ids[i]}) for i in range(5)]


def arrow() -> Seeds:
    seeds = {}
    for i, table in enumerate(tables()):
        for compression in (None, "lz4", "zstd"):
            for kind, new in (("file", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
                sink = io.BytesIO()
                with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
                    writer.write_table(table, max_chunksize=13 if i == 4 else 5)
                seeds[f"{kind}-{i}-{compression}.arrow"] = sink.getvalue()
    return seeds


def parquet() -> Seeds:
    seeds = {}
    for i, table in enumerate(tables()):
        for version, page, codec in (("1.0", "1.0", "none"), ("2.6", "2.0", "zstd"), ("2.6", "1.0", "snappy")):
            sink = io.BytesIO()
            pq.write_table(
                table.cast(
                    pa.schema([(f.name, pa.string() if f.type == pa.string_view() else f.type) for f in table.schema])
                ),
                sink,
                row_group_size=5,
                version=version,
                data_page_version=page,
                compression=codec,
                use_dictionary=i % 2 == 0,
                write_page_index=True,
            )
            seeds[f"{i}-{codec}.parquet"] = sink.getvalue()
    return seeds


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


def parts() -> Seeds:
    """The files that a job leaves in its work folder: parts, and records of finished buckets."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "a.jsonl"
        source.write_bytes(as_jsonl(documents(20)))
        work = Path(folder) / "work"
        run_job(source, Path(folder) / "out", write_vocabulary(Path(folder) / "vocab.txt"), work_dir=work)
        return {path.name: path.read_bytes() for path in work.rglob("*.part")}


def use_part(path: Path) -> None:
    """Use a part as the next start of a job does. A part that was changed is not used."""
    part = read_finished(str(path), PartRecord)
    if part is not None:
        block = read_range(str(path), part, 0, 1 << 64)
        assert len(block.documents) == part.num_documents and len(read_documents_table(str(path), part))


def read_input(path: Path) -> None:
    """Read all documents of an input file, as the stages do."""
    for source in find_sources([str(path)]):
        for split in split_source(source, 200):
            for _ in read_documents(split):
                pass


TARGETS: dict[str, tuple[Callable[[], Seeds], Callable[[Path], None]]] = {
    "parts": (parts, use_part),
    **{name.__name__: (name, read_input) for name in (arrow, parquet, packed, web, dump)},
}


def mutate(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """Return the file with a few bytes, numbers, or pieces changed; half of the changes are near an end of the file."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 8))):
        size = len(changed)
        at = draw.randrange(size or 1)
        if size > 100 and draw.random() < 0.5:
            at = draw.choice((at % 100, size - 1 - at % min(size, 400)))
        kind = draw.randrange(8)
        if kind <= 1:
            changed[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 2:
            changed[at : at + 1] = bytes([changed[at] ^ 1 << draw.randrange(8)]) if size else b""
        elif kind <= 4:
            width = draw.choice((2, 4, 8))
            at -= at % width if draw.random() < 0.7 else 0
            value = (draw.choice(EXTREMES) + draw.randrange(-2, 3)) % (1 << 8 * width)
            changed[at : at + width] = value.to_bytes(width, "little")
        elif kind == 5:
            del changed[at : at + draw.randrange(1, 40)]
        elif kind == 6:
            other = draw.choice(others)
            begin = draw.randrange(len(other))
            changed[at : at + draw.randrange(40)] = other[begin : begin + draw.randrange(40)]
        elif draw.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def faults(target: str, number: int, seed: int, folder: Path) -> Iterator[str]:
    """Yield what is wrong with each mutant that is not handled well; its file stays in the folder."""
    make, use = TARGETS[target]
    seeds = make()
    draw = random.Random(seed)
    for i in range(number):
        name = draw.choice(sorted(seeds))
        path = folder / f"{i:06d}-{name}"
        path.write_bytes(mutate(seeds[name], list(seeds.values()), draw))
        if found := fault(path, use):
            yield f"{path}: {found}"
        else:
            path.unlink(missing_ok=True)


def fault(path: Path, use: Callable[[Path], None]) -> str:
    """Return what is wrong, or nothing, with how a file is used in a process of its own."""
    with tempfile.TemporaryFile() as said:
        if (child := os.fork()) == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            os._exit(_use(path, use))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
    return "" if status == 0 else f"{signal.Signals(-status).name if status < 0 else 'error'} {text[-1500:]}"


def _use(path: Path, use: Callable[[Path], None]) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(SECONDS)
    try:
        use(path)
    except ValueError as error:
        if path.name in str(error) and "\n" not in str(error):
            return 0
        traceback.print_exc(file=sys.__stderr__)
        return 1
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        return 1
    return 0


def main() -> None:
    target, number, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    folder = Path(sys.argv[4] if len(sys.argv) > 4 else tempfile.mkdtemp())
    found = 0
    for line in faults(target, number, seed, folder):
        found += 1
        print(line, flush=True)
    print(f"{target}: {number} mutants, {found} faults")
    sys.exit(found > 0)


if __name__ == "__main__":
    main()
