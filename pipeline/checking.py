"""Is a data set what its manifest says? Checksums, counts, members and values; every fault is told with its place."""

import gzip
import hashlib
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import storage
from pipeline.manifest import FORMAT, manifest_sha256, manifest_text
from pipeline.shards import FORMAT_VERSION, MEMBER_EXAMPLES, SHARDS_SCHEMA, digest_of, schema
from pipeline.vocabulary import Vocabulary, parse_vocabulary
from pipeline.weaving import DOCUMENTS_SCHEMA

ALWAYS = ("manifest.json", "shards.parquet", "vocab.txt")
REPORT = ("report.html", "report.json")
LEFT_BY_A_KILL = (".lock", ".work/")  # by a job that was killed behind its manifest: the next start removes them


def check_dataset(dataset: str) -> Iterator[str | None]:
    """Yields a sentence for each fault, and None after each file that was looked at whole, for a progress bar."""
    path = storage.join(dataset, "manifest.json")
    if not storage.exists(path):
        raise ValueError(f"{dataset} has no manifest.json: it is no data set, or one that is not finished")
    text = storage.read(path)
    try:
        manifest = json.loads(text)
        sha256 = manifest["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        yield f"manifest.json: cannot be read ({error!r})"
        return
    if (manifest.get("format"), manifest.get("format_version")) != (FORMAT, FORMAT_VERSION):
        yield (
            f"manifest.json: the format is {manifest.get('format')!r} {manifest.get('format_version')!r}; "
            f"this program knows {FORMAT!r} {FORMAT_VERSION}"
        )
        return
    if manifest_sha256(manifest) != sha256 or manifest_text(manifest) != text:
        yield "manifest.json: is not as it was written: its sha256 is another than it says"
    try:
        yield from _check_contents(dataset, manifest)
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        yield f"manifest.json: has lost a part ({error!r})"


def _check_contents(dataset: str, manifest: dict[str, Any]) -> Iterator[str | None]:
    yield None
    data, fault = _read_checked(dataset, "shards.parquet", manifest["shards_parquet"]["sha256"])
    if fault:
        yield fault
        return
    table = pq.read_table(pa.BufferReader(data))
    if not table.schema.equals(SHARDS_SCHEMA):
        yield f"shards.parquet: has other columns than the format's: {table.schema.names}"
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
    yield from _check_totals(rows, manifest["configuration"], manifest["counters"])
    documents: list[NDArray[np.uint64]] = []
    totals = dict.fromkeys(("num_sentences", "num_tokens"), 0)
    for name, sha256 in manifest["documents"].items():
        yield from _check_documents(dataset, name, sha256, documents, totals)
        yield None
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *documents]))
    counters = manifest["counters"]
    for what, found, expected in (
        ("documents", len(known), counters["documents_used"] + counters["rejected"].get("no-example", 0)),
        ("sentences", totals["num_sentences"], counters["sentences"]),
        ("tokens", totals["num_tokens"], counters["tokens"]),
    ):
        if found != expected:
            yield f"documents/: holds {found} {what}, but manifest.json counts {expected}"
    for row in rows:
        yield from _check_shard(dataset, row, manifest["configuration"], vocabulary, known)
        yield None
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


def _check_rejects(name: str, data: bytes, counters: dict[str, Any]) -> Iterator[str]:
    found: dict[str, int] = {}
    for line in gzip.decompress(data).splitlines():
        reason = json.loads(line)["reason"]
        found[reason] = found.get(reason, 0) + 1
    if dict(sorted(found.items())) != counters["rejected"]:
        yield f"{name}: holds {found}, but manifest.json counts {counters['rejected']}"


def _check_totals(rows: list[dict[str, Any]], configuration: dict[str, Any], counters: dict[str, Any]) -> Iterator[str]:
    ends = counters["documents_used"] + counters["documents_rejected"] + counters["documents_duplicate"]
    if ends != counters["documents_in"] or sum(counters["rejected"].values()) != counters["documents_rejected"]:
        yield f"manifest.json: {counters['documents_in']} documents came in, but {ends} are used, rejected or duplicate"
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
    dataset: str, name: str, sha256: str, documents: list[NDArray[np.uint64]], totals: dict[str, int]
) -> Iterator[str]:
    """Adds the ids of a page to `documents`, and its counts to `totals`."""
    data, fault = _read_checked(dataset, name, sha256)
    if fault:
        yield fault
        return
    table = pq.read_table(pa.BufferReader(data))
    if not table.schema.equals(DOCUMENTS_SCHEMA):
        yield f"{name}: has other columns than the format's: {table.schema.names}"
        return
    ids = table["id"].to_numpy()
    if (ids[1:] <= ids[:-1]).any():
        yield f"{name}: its documents are not in order, or not different"
    documents.append(ids)
    for column in totals:
        totals[column] += int(table[column].to_numpy().sum())


def _check_shard(
    dataset: str, row: dict[str, Any], configuration: dict[str, Any], vocabulary: Vocabulary, known: NDArray[np.uint64]
) -> Iterator[str]:
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
            for fault in check_batch(batch, row, configuration, vocabulary, known):
                yield f"{place}: {fault}"
        except (tarfile.TarError, pa.ArrowException, OSError, IndexError, UnicodeDecodeError) as error:
            yield f"{place}: cannot be read ({error})"
    if tokens != row["tokens"]:
        yield f"{name}: holds {tokens} tokens, expected {row['tokens']}"


def check_batch(
    batch: pa.RecordBatch,
    row: dict[str, Any],
    configuration: dict[str, Any],
    vocabulary: Vocabulary,
    known: NDArray[np.uint64],
) -> Iterator[str]:
    """Every value of a member in its range, every special where it belongs. `known`: document ids, sorted."""
    ids_type = np.dtype(np.uint16 if len(vocabulary.words) < 65536 else np.uint32)
    metadata = {key.decode(): value.decode() for key, value in (batch.schema.metadata or {}).items()}
    expected = {
        "format_version": str(FORMAT_VERSION),
        "max_seq_length": str(row["max_seq_length"]),
        "copy": str(row["copy"]),
        "vocabulary_sha256": vocabulary.sha256,
    }
    if not batch.schema.equals(schema(ids_type)) or metadata != expected:
        yield f"schema {batch.schema.names} with {metadata}, expected {expected}"
        return
    starts, lengths, ids = _list(batch, "input_ids")
    mask_starts, mask_counts, positions = _list(batch, "masked_lm_positions")
    _, truth_counts, truths = _list(batch, "masked_lm_ids")
    b = batch.column("segment_b_start").to_numpy().astype(np.int64)
    label = batch.column("next_sentence_label").to_numpy()
    longest = row["max_seq_length"]
    most = configuration["max_predictions_per_seq"][configuration["max_seq_length"].index(longest)]

    def faults() -> Iterator[tuple[str, NDArray[np.bool_]]]:
        alone = label == -1  # a single segment
        shortest = np.where(alone, 3, 5)
        yield "is longer than max_seq_length or has no room for its segments", (lengths > longest) | (lengths < shortest)
        yield "has B outside of it", (b < 3) | np.where(alone, b != lengths, b > lengths - 2)
        yield "has masks without a word", mask_counts != truth_counts
        whole = configuration.get("do_whole_word_mask") or configuration.get("mask_spans")
        fewest = 0 if whole else 1  # of a few words, all may be too long
        yield "has no masks or too many", (mask_counts < fewest) | (mask_counts > most)
        labels = (-1,) if configuration.get("pairs") == "none" else (0, 1)
        yield f"has a label that is none of {labels}", ~np.isin(label, labels)
        for column, there in (("document_a", True), ("document_b", ~alone)):
            unknown = ~_in_sorted(batch.column(column).to_numpy(), known)
            yield f"has a {column} that documents/ does not hold", unknown & there

    broken = False
    for what, where in faults():
        if where.any():
            broken = True
            yield f"example {int(where.argmax())} {what}"
    if broken:
        return  # what follows reads by these values
    example = np.repeat(np.arange(len(lengths)), mask_counts)
    at = starts[example] + positions
    words = np.concatenate([ids, truths])
    specials = np.zeros(len(ids), np.int64)
    for edge, word in (
        (starts, vocabulary.cls),
        (starts + b - 1, vocabulary.sep),
        (starts + lengths - 1, vocabulary.sep),
    ):
        specials[edge] = 1
        if (wrong := ids[edge] != word).any():
            yield f"example {int(wrong.argmax())} lacks {vocabulary.words[word]} where it belongs"
    if (words >= len(vocabulary.words)).any():
        yield f"holds a word id of {int(words.max())}, but the vocabulary has {len(vocabulary.words)}"
        return
    outside = (positions < 1) | (positions >= lengths[example] - 1)
    if outside.any():
        yield f"example {int(example[outside.argmax()])} has a mask outside of it"
        return
    if specials[at].any():
        yield f"example {int(example[specials[at].argmax()])} has a mask on [CLS] or [SEP]"
    unsorted = (np.diff(positions.astype(np.int64)) <= 0) & (example[1:] == example[:-1])
    if unsorted.any():
        yield f"example {int(example[1:][unsorted.argmax()])} has masks that are not sorted"
    reserved = np.zeros(len(vocabulary.words), bool)
    reserved[[vocabulary.pad, vocabulary.cls, vocabulary.sep, vocabulary.mask]] = True
    stray = reserved[ids] & (specials == 0)
    stray[at] &= (ids[at] != vocabulary.mask) & (configuration.get("compat") != "google")  # which draws them, too
    if stray.any():
        word = vocabulary.words[ids[stray.argmax()]]
        yield f"example {int(np.searchsorted(starts, stray.argmax(), side='right')) - 1} holds {word} inside a segment"
    if reserved[truths].any():
        yield f"example {int(example[reserved[truths].argmax()])} has a special word as the true one behind a mask"


def _list(batch: pa.RecordBatch, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray]:
    """(start of each list, its length, the values of all)."""
    column = batch.column(name)
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets[:-1] - offsets[0], np.diff(offsets), column.flatten().to_numpy()


def _in_sorted(values: NDArray, known: NDArray) -> NDArray[np.bool_]:
    if len(known) == 0:
        return np.zeros(len(values), bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values


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
