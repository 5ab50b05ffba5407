"""Compressed files that are damaged, or made to take all memory: what is right is kept, the rest is counted."""

import bz2
import gzip
import itertools
import json
import lzma
import re
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs import streams
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats.json_lines import read_json_lines
from pipeline.inputs.formats.plain_text import read_lines_as_texts
from pipeline.inputs.sources import Split
from pipeline.inputs.streams import CHUNK, read_chunks
from pipeline.text.records import Document, Record
from tests.jobs.corpus import run_job, write_vocabulary
from tests.pipeline import twins

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    ".xz": lzma.compress,
}
ALL_CODECS = pytest.mark.parametrize("ending", PACK)
LINES = [f"Line {i} of the text has {twins.mix(i)} and more." for i in range(3000)]
FIRST, SECOND = LINES[:1000], LINES[1000:]


def as_text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n\n" for line in lines).encode()


def read(path: Path, data: bytes) -> list[Record]:
    path.write_bytes(data)
    [source] = find_sources([str(path)])
    return list(read_documents(Split(source, 0, None)))


def texts(items: list[Record]) -> list[str]:
    return [item.text.decode() if isinstance(item, Document) else item.reason for item in items]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("streams")


@ALL_CODECS
@settings(max_examples=40)
@given(share=st.floats(0, 1), change=st.integers(1, 255))
def test_every_text_that_is_kept_of_a_damaged_file_is_one_of_the_file(folder, ending, share, change):
    first, second = bytearray(PACK[ending](as_text(FIRST))), bytearray(PACK[ending](as_text(SECOND)))
    at = min(int(share * len(second)), len(second) - 1)
    second[at] ^= change
    items = read(folder / f"a.txt{ending}", bytes(first + second))
    *kept, last = texts(items)
    if last != "damaged-file":  # a byte that nothing depends on, such as the time in a header
        assert [*kept, last] == LINES
    else:
        assert kept == FIRST or kept[: len(FIRST)] == FIRST and set(kept[:-1]) <= set(LINES)
        assert items[-1].position >= len(as_text(FIRST))


@ALL_CODECS
def test_of_a_frame_with_a_wrong_checksum_nothing_is_kept_and_the_rest_is_counted_in_bytes(folder, ending):
    first, second = PACK[ending](as_text(FIRST)), bytearray(PACK[ending](as_text(SECOND)))
    second[{".gz": -5, ".bz2": 10, ".zst": -1, ".xz": len(second) // 2}[ending]] ^= 1
    items = read(folder / f"b.txt{ending}", first + bytes(second) + first)
    assert texts(items) == [*FIRST, "damaged-file"]
    whole = len(first) * 2 + len(second)
    assert items[-1].position == len(as_text(FIRST))
    assert items[-1].detail.endswith(
        f"{len(second) + len(first)} of {whole} compressed bytes, from byte {len(first)} on, are not used): what came "
        f"before it was kept"
    )


def test_a_damaged_input_is_marked_in_the_manifest(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/bad.txt.gz").write_bytes(PACK[".gz"](as_text(FIRST[:60])) + b"\x1f\x8b\x08 and what is no deflate")
    (tmp_path / "in/good.txt").write_bytes(as_text(SECOND[:60]))
    run_job(tmp_path / "in", tmp_path / "out", write_vocabulary(tmp_path / "vocab.txt"), pairs="none")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [(row["name"], row.get("damaged")) for row in manifest["inputs"]] == [
        ("bad.txt.gz", True),
        ("good.txt", None),
    ]
    assert (
        "bad.txt.gz: damaged. The undamaged parts were used; rejects.jsonl.gz lists what was not" in manifest["notes"]
    )
    lines = gzip.decompress((tmp_path / "out/rejects/rejects.jsonl.gz").read_bytes()).splitlines()
    log = [json.loads(line) for line in lines]
    assert [(row["source"], row["reason"]) for row in log] == [("bad.txt.gz", "damaged-file")]


@pytest.mark.parametrize(
    "ending, most", [(".gz", 8), (".bz2", 60), pytest.param(".xz", 16, marks=pytest.mark.slow), (".zst", 80)]
)
def test_a_bomb_takes_little_memory(tmp_path, ending, most):
    size = 200_000_000
    compressor = {
        ".gz": lambda: zlib.compressobj(wbits=31),
        ".bz2": bz2.BZ2Compressor,
        ".xz": lzma.LZMACompressor,
        ".zst": lambda: zstandard.ZstdCompressor().compressobj(),
    }[ending]()
    zeros = bytes(1_000_000)
    parts = [compressor.compress(zeros) for _ in range(size // len(zeros))]
    (tmp_path / "bomb").write_bytes(b"".join([*parts, compressor.flush()]))
    codec = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}[ending]
    tracemalloc.start()
    try:
        with open(tmp_path / "bomb", "rb") as file:
            assert sum(map(len, read_chunks(file, codec))) == size
        assert tracemalloc.get_traced_memory()[1] < most * CHUNK
    finally:
        tracemalloc.stop()


def test_a_zstandard_file_with_a_long_window_is_read(folder):
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = packer.compress(as_text(LINES)) + packer.flush()
    assert zstandard.get_frame_parameters(data).window_size == 1 << 28
    assert texts(read(folder / "long.txt.zst", data)) == LINES


def test_a_window_over_the_limit_is_a_reject_that_says_so(folder):
    good = PACK[".zst"](as_text(FIRST))
    [*kept, last] = read(folder / "w.txt.zst", good + b"\x28\xb5\x2f\xfd\x00" + bytes([23 << 3]) + b"\x01\x00\x00")
    assert texts(kept) == FIRST and last.reason == "damaged-file"
    assert re.search(
        "its window is larger than the limit of 2048 MB: compress it again with a smaller window", last.detail
    )


def as_json_lines(chunks: Iterable[bytes]) -> Iterator[Record]:
    return read_json_lines(chunks, 0, "text", "id")


def as_plain_lines(chunks: Iterable[bytes]) -> Iterator[Record]:
    return read_lines_as_texts(chunks, 0)


@pytest.mark.slow
@pytest.mark.parametrize("read_lines", [as_json_lines, as_plain_lines])
def test_one_line_of_five_gigabytes_is_a_reject_and_takes_little_memory(read_lines):
    piece = b"x" * CHUNK
    tracemalloc.start()
    try:
        items = list(read_lines(itertools.chain([b'{"text": "'], itertools.repeat(piece, 5000), [b'"}\n'])))
        assert tracemalloc.get_traced_memory()[1] < 80 * CHUNK
    finally:
        tracemalloc.stop()
    assert [(item.position, item.reason) for item in items] == [(0, "line-too-long")]
    assert items[0].detail.startswith(f"{5000 * CHUNK + 13} bytes")


@pytest.mark.parametrize("ending", [".bz2", ".zst"])
def test_a_file_that_expands_without_end_is_read_only_up_to_a_bound(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(streams, "FREE_TEXT", 1 << 20)
    text = bytes(1 << 26)
    packed = bz2.compress(text) if ending == ".bz2" else zstandard.compress(text, 19)
    (tmp_path / "bomb").write_bytes(packed)
    size = 0
    with open(tmp_path / "bomb", "rb") as file, pytest.raises(streams.Damaged, match="over 10,000 times as much"):
        for chunk in streams.read_chunks(file, streams.CODECS[ending]):
            size += len(chunk)
    assert size <= 10_000 * len(packed) < len(text)


def test_the_last_bytes_before_the_damage_are_not_lost_after_a_restart(folder):
    (folder / "short.txt.gz").write_bytes(gzip.compress(b"One.\n\n9", mtime=0)[:-8])
    [source] = find_sources([str(folder / "short.txt.gz")])
    whole = list(read_documents(Split(source, 0, None)))
    assert texts(whole) == ["One.", "9", "damaged-file"]
    assert list(read_documents(Split(source, 0, None), whole[1].position)) == whole[1:]
