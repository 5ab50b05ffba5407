"""Is a data set what its manifest says? Checksums, counts, members and values; every fault is told with its place."""

import gzip
import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bertloom import storage
from pipeline.checks.members import Page, check_batch
from pipeline.examples.shards import FORMAT_VERSION, MEMBER_EXAMPLES, SHARDS_SCHEMA, SPLITS, digest_of
from pipeline.stages.manifest import FORMAT, manifest_sha256, manifest_text
from pipeline.stages.plan import is_validation
from pipeline.stages.weave import DOCUMENTS_SCHEMA
from pipeline.vocabulary import Vocabulary, parse_vocabulary

ALWAYS = ("manifest.json", "shards.parquet", "vocab.txt")
REPORT = ("report.html", "report.json")
NO_PAGE = Page(*(np.zeros(0, kind) for kind in (np.uint64, np.uint64, np.int64, bool)))
LEFT_BY_A_KILL = (".lock", ".work/")  # by a job that was killed behind its manifest: the next start removes them


def check_dataset(dataset: str) -> Iterator[str | None]:
    """Yields a sentence for each fault, and None after each file that was looked at whole, for a progress bar."""
    path = storage.join(dataset, "manifest.json")
    if not storage.exists(path):
        raise ValueError(f"{dataset} has no manifest.json: it is no data set, or one that is not finished")
    text = storage.read(path)
    try:
        manifest = json.loads(text)
        as_written = manifest_sha256(manifest) == manifest["sha256"] and manifest_text(manifest) == text
    except (ValueError, KeyError, TypeError) as error:
        yield f"manifest.json: cannot be read ({error!r})"
        return
    if (manifest.get("format"), manifest.get("format_version")) != (FORMAT, FORMAT_VERSION):
        yield (
            f"manifest.json: the format is {manifest.get('format')!r} {manifest.get('format_version')!r}; "
            f"this program knows {FORMAT!r} {FORMAT_VERSION}"
        )
        return
    if not as_written:
        yield (
            "manifest.json: is not as it was written: its sha256 is another than it says; nothing else was looked at, as "
            "the manifest says what the other files should be"
        )
        return
    try:
        yield from _check_contents(dataset, manifest)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, StopIteration) as error:
        yield f"manifest.json: has lost a part or holds a value that cannot be ({error!r})"


def _check_contents(dataset: str, manifest: dict[str, Any]) -> Iterator[str | None]:
    yield None
    table, fault = _read_table(dataset, "shards.parquet", manifest["shards_parquet"]["sha256"], SHARDS_SCHEMA)
    if fault:
        yield fault
        return
    rows = table.to_pylist()
    yield None

    words = manifest["vocabulary"]
    data, fault = _read_checked(dataset, "vocab.txt", words["sha256"])
    if fault:
        yield fault
        return
    try:
        vocabulary = parse_vocabulary(data, "vocab.txt")
    except ValueError as error:
        yield str(error)
        return
    if len(vocabulary.words) != words["size"]:
        yield f"vocab.txt: has {len(vocabulary.words)} words, but manifest.json says {words['size']}"
    yield None
    for name, sha256 in manifest["files"].items():
        data, fault = _read_checked(dataset, name, sha256)
        if fault:
            yield fault
        elif name.startswith("rejects/"):
            yield from _check_rejects(name, data, manifest["counters"])
        yield None

    if digest_of(rows) != manifest["shards_digest"]:
        yield "shards.parquet: its shards have another digest than manifest.json says"
    yield from _check_totals(rows, manifest)
    pages: dict[str, Page] = {}
    totals = dict.fromkeys(("num_sentences", "num_tokens"), 0)
    for name, sha256 in manifest["documents"].items():
        yield from _check_documents(dataset, name, sha256, pages, totals)
        yield None
    counters = manifest["counters"]
    num_documents = sum(len(page.ids) for page in pages.values())
    for what, found, expected in (
        ("documents", num_documents, counters["documents_used"] + counters["rejected"].get("no-example", 0)),
        ("sentences", totals["num_sentences"], counters["sentences"]),
        ("tokens", totals["num_tokens"], counters["tokens"]),
    ):
        if found != expected:
            yield f"documents/: holds {found} {what}, but manifest.json counts {expected}"
    yield from _check_places(pages, manifest["configuration"]["validation_fraction"])
    labels: Counter[tuple[int, int]] = Counter()  # (length, label) -> examples
    for row in rows:
        page = pages.get(f"documents/{row['split']}/{row['number']:05d}.parquet", NO_PAGE)
        yield from _check_shard(dataset, row, manifest["configuration"], vocabulary, page, labels)
        yield None
    yield from _check_use(pages, labels, manifest)
    if any(storage.exists(storage.join(dataset, name)) for name in REPORT):
        yield from _check_report(dataset, manifest)
        yield None
    yield from _unlisted(dataset, {row["path"] for row in rows} | {*manifest["documents"], *manifest["files"]})


def _read_checked(dataset: str, name: str, sha256: str, said_by: str = "manifest.json") -> tuple[bytes, str]:
    """(the file's bytes, what is wrong with it)."""
    path = storage.join(dataset, *name.split("/"))
    if not storage.exists(path):
        return b"", f"{name}: is missing"
    data = storage.read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        return data, f"{name}: its sha256 is not that of {said_by}"
    return data, ""


def _read_table(dataset: str, name: str, sha256: str, schema: pa.Schema) -> tuple[pa.Table, str]:
    """(the rows of a Parquet file, what is wrong with it; then there are no rows)."""
    data, fault = _read_checked(dataset, name, sha256)
    if not fault:
        table = pq.read_table(pa.BufferReader(data))
        if table.schema.equals(schema):
            return table, ""
        fault = f"{name}: has other columns than the format's: {table.schema.names}"
    return schema.empty_table(), fault


def _check_rejects(name: str, data: bytes, counters: dict[str, Any]) -> Iterator[str]:
    found: dict[str, int] = {}
    for line in gzip.decompress(data).splitlines():
        reason = json.loads(line)["reason"]
        found[reason] = found.get(reason, 0) + 1
    if dict(sorted(found.items())) != counters["rejected"]:
        yield f"{name}: holds {found}, but manifest.json counts {counters['rejected']}"


def _check_totals(rows: list[dict[str, Any]], manifest: dict[str, Any]) -> Iterator[str]:
    configuration, counters = manifest["configuration"], manifest["counters"]
    ends = counters["documents_used"] + counters["documents_rejected"] + counters["documents_duplicate"]
    if ends != counters["documents_in"] or sum(counters["rejected"].values()) != counters["documents_rejected"]:
        yield f"manifest.json: {counters['documents_in']} documents came in, but {ends} are used, rejected or duplicate"
    came = sum(row["documents"] + row["rejected"] for row in manifest["inputs"])
    if came != counters["documents_in"]:
        yield f"manifest.json: the inputs gave {came} documents, but {counters['documents_in']} came in"
    for split, examples in counters["examples"].items():
        found = sum(row["examples"] for row in rows if row["split"] == split)
        if found != examples:
            yield f"shards.parquet: {found} {split} examples, but manifest.json counts {examples}"
    lengths = {row["max_seq_length"] for row in rows}
    if lengths != set(configuration["max_seq_length"]):
        expected = configuration["max_seq_length"]
        yield f"shards.parquet: has the lengths {sorted(lengths)}, but the configuration says {expected}"
    for length in lengths:
        copies = {row["copy"] for row in rows if row["split"] == "train" and row["max_seq_length"] == length}
        if copies != set(range(configuration["dupe_factor"])):
            expected = configuration["dupe_factor"]
            yield f"shards.parquet: length {length} has the copies {sorted(copies)}, expected {expected} of them"


def _check_documents(
    dataset: str, name: str, sha256: str, pages: dict[str, Page], totals: dict[str, int]
) -> Iterator[str]:
    """Adds a page to `pages`, and its counts to `totals`."""
    table, fault = _read_table(dataset, name, sha256, DOCUMENTS_SCHEMA)
    if fault:
        yield fault
        return
    ids = table["id"].to_numpy()
    if (ids[1:] <= ids[:-1]).any():
        yield f"{name}: its documents are not in order, or not different"
    ids, source_keys, num_tokens = (
        table.sort_by("id")[column].to_numpy() for column in ("id", "source_key", "num_tokens")
    )
    pages[name] = Page(ids, source_keys, num_tokens.astype(np.int64), np.zeros(len(ids), bool))
    for column in totals:
        totals[column] += int(table[column].to_numpy().sum())


def _check_places(pages: dict[str, Page], validation_fraction: float) -> Iterator[str]:
    """Is every document in the split and the bucket where its id belongs?"""
    for split in SPLITS:
        last = -1
        for name, page in sorted(pages.items()):
            if name.split("/")[1] != split or len(page.ids) == 0:
                continue
            if int(page.ids[0]) <= last:
                yield f"{name}: holds documents that belong into the page before it"
            last = int(page.ids[-1])
            held_out = is_validation(page.ids, validation_fraction)
            if (
                any(other.split("/")[1] == "validation" for other in pages)
                and (held_out != (split == "validation")).any()
            ):
                yield f"{name}: holds documents of the other split"


def _check_use(pages: dict[str, Page], labels: Counter[tuple[int, int]], manifest: dict[str, Any]) -> Iterator[str]:
    """Are as many documents in examples, and as many pairs random, as the manifest counts?"""
    counters = manifest["counters"]
    used = sum(int(page.used.sum()) for page in pages.values())
    if used != counters["documents_used"]:
        yield f"shards: {used} documents are in examples, but manifest.json counts {counters['documents_used']}"
    for length in manifest["configuration"]["max_seq_length"]:
        of_length = {label: n for (at, label), n in labels.items() if at == length}
        for counter, found in (("pairs", sum(of_length.values())), ("pairs-random", of_length.get(1, 0))):
            expected = counters["pairs"].get(f"{counter}/{length}", 0)
            if found != expected:
                yield f"shards: hold {found} {counter} of length {length}, but manifest.json counts {expected}"


def _check_shard(
    dataset: str,
    row: dict[str, Any],
    configuration: dict[str, Any],
    vocabulary: Vocabulary,
    page: Page,
    labels: Counter[tuple[int, int]],
) -> Iterator[str]:
    """page: of the shard's bucket. Counts the examples of each (length, label)."""
    name = row["path"]
    path = storage.join(dataset, *name.split("/"))
    if not storage.exists(path):
        yield f"{name}: is missing"
        return
    data = storage.read(path)
    if len(data) != row["bytes"]:
        yield f"{name}: has {len(data)} bytes, expected {row['bytes']}"
    elif hashlib.sha256(data).hexdigest() != row["sha256"]:
        yield f"{name}: its sha256 is not that of shards.parquet"
    offsets, sizes, counts = row["member_offsets"], row["member_bytes"], row["member_examples"]
    if counts[:-1] != [MEMBER_EXAMPLES] * (len(counts) - 1) or sum(counts) != row["examples"]:
        found = f"{sum(counts)} examples in members of {sorted(set(counts))}"
        yield f"{name}: {found}, expected {row['examples']} in members of {MEMBER_EXAMPLES}"
    if offsets and len(data) != (-(-(offsets[-1] + sizes[-1]) // tarfile.BLOCKSIZE) + 2) * tarfile.BLOCKSIZE:
        yield f"{name}: does not end with two blocks of zeros behind its last member"
    tokens = 0
    for number, (offset, size, count) in enumerate(zip(offsets, sizes, counts, strict=True)):
        place = f"{name}: member {number} at byte {offset}"
        try:
            header = tarfile.TarInfo.frombuf(data[offset - tarfile.BLOCKSIZE : offset], "ascii", "strict")
            if header.name != f"{row['number']:05d}-{number:06d}.arrow" or header.size != size:
                yield f"{place}: its tar header says {header.name}, {header.size} bytes"
            reader = pa.ipc.open_file(pa.BufferReader(data[offset : offset + size]))
            batch = reader.get_batch(0)
            batch.validate(full=True)
            if reader.num_record_batches != 1 or batch.num_rows != count:
                yield f"{place}: {batch.num_rows} examples in {reader.num_record_batches} batches, expected {count} in 1"
            tokens += len(batch.column("input_ids").flatten()) if "input_ids" in batch.schema.names else 0
            for fault in check_batch(batch, row, configuration, vocabulary, page):
                yield f"{place}: {fault}"
            if "next_sentence_label" in batch.schema.names:
                values, numbers = np.unique(batch.column("next_sentence_label").to_numpy(), return_counts=True)
                labels.update({(row["max_seq_length"], int(v)): int(n) for v, n in zip(values, numbers)})
        except (tarfile.TarError, pa.ArrowException, OSError, IndexError, UnicodeDecodeError) as error:
            yield f"{place}: cannot be read ({error})"
    if tokens != row["tokens"]:
        yield f"{name}: holds {tokens} tokens, expected {row['tokens']}"


def _check_report(dataset: str, manifest: dict[str, Any]) -> Iterator[str]:
    """The report is made after the manifest and again at will, so it holds its own checksums."""
    page, data = REPORT
    for name in REPORT:
        if not storage.exists(storage.join(dataset, name)):
            yield f"{name}: is missing; `bertloom report` makes it again"
            return
    text = storage.read(storage.join(dataset, data))
    try:
        report = json.loads(text)
        sha256, of_page, of_manifest = (report[name] for name in ("sha256", "html_sha256", "manifest_sha256"))
    except (ValueError, KeyError, TypeError) as error:
        yield f"{data}: cannot be read ({error!r})"
        return
    if manifest_sha256(report) != sha256 or manifest_text(report) != text:
        yield f"{data}: is not as it was written: its sha256 is another than it says"
    elif of_manifest != manifest["sha256"]:
        yield f"{data}: is of another data set"
    yield from filter(None, [_read_checked(dataset, page, of_page, data)[1]])


def _unlisted(dataset: str, listed: set[str]) -> Iterator[str]:
    if storage.is_local(dataset):
        for path in storage.files_below(dataset):
            if path not in listed and path not in ALWAYS + REPORT and not path.startswith(LEFT_BY_A_KILL):
                yield f"{path}: is not listed in the manifest"
