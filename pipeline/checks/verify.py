"""Check that a data set is what its manifest says: checksums, counts, members and values. Every fault names its place."""

import hashlib
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from bertloom import storage
from bertloom.json_files import Damaged, parse_json
from bertloom.manifest import (
    SHARD_ROW_BYTES,
    manifest_sha256,
    manifest_text,
    parse_manifest,
    read_below,
    vocabulary_file,
    what_it_is,
)
from bertloom.members import read_member
from bertloom.parquet_files import parse_parquet
from bertloom.shards import MEMBER_EXAMPLES, SHARDS_SCHEMA, SPLITS, digest_of, shards_faults
from pipeline.checks.members import Page, check_batch
from pipeline.dataset import HeldOut, check_listed, parse_documents, read_rejects, vocabulary_of
from pipeline.examples.configuration import ExamplesConfig
from pipeline.inputs.named_inputs import NamedInput
from pipeline.text.cleaning import CleanConfig
from pipeline.vocabulary import Vocabulary
from pipeline.vocabulary_files import parse_copy

ALWAYS = ("manifest.json", "shards.parquet")
REPORT = ("report.html", "report.json")
EXAMPLES_PAGE = "examples.html"
"""The page of `bertloom report --html-examples`."""
# of a job that was killed after it wrote the manifest; the next start removes them
LEFT_BY_A_KILL = (".lock", ".work/")
_PAGE = re.compile(r"documents/(train|validation)/[0-9]{5,}\.parquet")
Fault = str | None
"""A sentence for a fault, or None after each file that was checked whole, for a progress bar."""


def check_dataset(dataset: str) -> Iterator[Fault]:
    """Yield a sentence for each fault, and None after each file that was checked whole."""
    path = storage.join(dataset, "manifest.json")
    if not storage.exists(path):
        raise ValueError(
            f"{dataset} has no manifest.json: it is not a data set, or an unfinished one; "
            f"start `bertloom preprocess` again to finish it{what_it_is(dataset)}"
        )
    try:
        text = read_below(dataset, "manifest.json")
        manifest = parse_manifest(text, "manifest.json")
        if manifest_text(manifest) != text:
            raise Damaged("manifest.json is not as it was written: its white space is different; copy it again")
    except ValueError as error:
        yield f"{error}. The other files were not checked, because the manifest describes them"
        return
    try:
        yield from _check_contents(dataset, manifest)
    except _Unreadable as fault:
        yield str(fault)


@dataclass
class _Found:
    """What the checks count while they read the files of a data set."""

    pages: dict[str, Page] = field(default_factory=dict)
    """The pages of documents/ by name."""
    num_sentences: int = 0
    num_tokens: int = 0
    labels: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Examples of each (length, label)."""


def _check_contents(dataset: str, manifest: dict[str, Any]) -> Iterator[Fault]:
    try:
        config, found = ExamplesConfig.of(manifest["configuration"]), _Found()
    except ValueError as error:
        yield f"manifest.json: its configuration has an invalid value: {error}"
        return
    yield None
    name = "shards.parquet"
    data = _read_checked(dataset, name, manifest["shards_parquet"]["sha256"])
    try:
        shards = parse_parquet(data, name, SHARDS_SCHEMA, SHARD_ROW_BYTES)
    except ValueError as error:
        raise _Unreadable(str(error)) from None
    impossible = [f"shards.parquet: {fault}" for fault in shards_faults(shards, manifest)]
    yield from impossible
    yield None
    file = vocabulary_file(manifest)
    sha256 = manifest["files"] | {file: manifest["vocabulary"]["sha256"]}
    try:
        vocabulary = parse_copy(file, lambda name: _read_checked(dataset, name, sha256.get(name, "")))
    except ValueError as error:
        yield str(error)
        return
    if len(vocabulary.words) != manifest["vocabulary"]["size"]:
        yield f"{file}: has {len(vocabulary.words)} words, but manifest.json has {manifest['vocabulary']['size']}"
    yield None
    for name, sha256 in manifest["files"].items():
        yield from _of_file(_check_file(dataset, name, sha256, manifest))
    rows = shards.to_pylist()
    if digest_of(rows) != manifest["shards_digest"]:
        yield "shards.parquet: the digest of its shards differs from the one in manifest.json"
    yield from _check_totals(rows, manifest)
    for name, sha256 in manifest["documents"].items():
        yield from _of_file(_check_documents(dataset, name, sha256, found))
    yield from _check_document_totals(found, manifest["counters"])
    yield from _check_places(found.pages, manifest)
    if impossible:
        yield "The shards were not checked, because shards.parquet describes them"
        return
    for row in rows:
        yield from _of_file(_check_shard(dataset, row, config, vocabulary, found))
    yield from _check_use(found, manifest)
    if any(storage.exists(storage.join(dataset, name)) for name in (*REPORT, EXAMPLES_PAGE)):
        yield from _of_file(_check_report(dataset, manifest))
    listed = {file, *manifest["documents"], *manifest["files"]}
    yield from _unlisted(dataset, listed | {row["path"] for row in rows})


class _Unreadable(Exception):
    """What is wrong with a file that cannot be checked further."""


def _of_file(faults: Iterator[str]) -> Iterator[Fault]:
    """Yield the faults of one file, and None after them."""
    try:
        yield from faults
    except _Unreadable as fault:
        yield str(fault)
    yield None


def faults_of_shard(dataset: str, row: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    """Return a sentence for each fault of one shard and its page of documents/, as `check_dataset` yields them.

    row: of shards.parquet.
    """
    found, page = _Found(), f"documents/{row['split']}/{row['number']:05d}.parquet"
    of_page = _of_file(_check_documents(dataset, page, manifest["documents"].get(page, ""), found))
    config, vocabulary = ExamplesConfig.of(manifest["configuration"]), vocabulary_of(dataset, manifest)
    of_shard = _of_file(_check_shard(dataset, row, config, vocabulary, found))
    return [fault for fault in (*of_page, *of_shard) if fault is not None]


def _read_checked(dataset: str, name: str, sha256: str, listed_in: str = "manifest.json") -> bytes:
    """Return a file's bytes."""
    try:
        data = read_below(dataset, name)
    except FileNotFoundError:
        raise _Unreadable(f"{name}: is missing") from None
    except (OSError, ValueError) as error:
        raise _Unreadable(f"{name}: cannot be read ({error})") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _Unreadable(f"{name}: its sha256 differs from the one in {listed_in}")
    return data


def _check_file(dataset: str, name: str, sha256: str, manifest: dict[str, Any]) -> Iterator[str]:
    try:
        check_listed(dataset, name, sha256)
    except ValueError as error:
        raise _Unreadable(str(error)) from None
    if not name.startswith("rejects/"):
        return
    try:
        reasons, in_test_sets = Counter[str](), Counter[str]()
        for reject in read_rejects(dataset, name):
            reasons[reject["reason"]] += 1
            in_test_sets.update(reject.get("test_sets", ()))
    except ValueError as error:
        raise _Unreadable(str(error)) from None
    counts = manifest["counters"]["rejected"]
    if reasons != counts:
        yield f"{name}: holds {dict(sorted(reasons.items()))}, but manifest.json counts {counts}"
    sets = {one["name"]: one["documents"] for one in manifest.get("excluded", {}).get("sets", ())}
    if in_test_sets != Counter(sets):
        yield f"{name}: holds {dict(sorted(in_test_sets.items()))} documents in test sets, but manifest.json counts {sets}"


COUNTS_OF_SOURCES = (
    *("documents_in", "documents_used", "documents_duplicate", "documents_rejected"),
    *("text_bytes", "sentences", "tokens"),
)
"""Counters of a data set that are the sums of those of its sources."""


def _check_sources(manifest: dict[str, Any]) -> Iterator[str]:
    """Yield contradictions within the counters of the sources of --inputs."""
    sources = manifest.get("sources", [])
    named = {source["name"] for source in sources}
    if unknown := [row["name"] for row in manifest["inputs"] if "source" in row and row["source"] not in [*named]]:
        yield f"manifest.json: the input file {unknown[0]} belongs to a source that is not listed"
    for source in sources:
        try:
            NamedInput.of_row(source, CleanConfig())
        except ValueError as error:
            yield f"manifest.json: {error}"
        counters, name = source["counters"], source["name"]
        ends = counters["documents_used"] + counters["documents_rejected"] + counters["documents_duplicate"]
        if ends != counters["documents_in"]:
            yield (
                f"manifest.json: {counters['documents_in']} documents of the source {name} came in, but {ends} are used, "
                f"rejected or duplicate"
            )
        files = sum(row.get("source") == name for row in manifest["inputs"])
        if files != source["files"]:
            yield f"manifest.json: the source {name} has {source['files']} files, but {files} input files name it"
    has_others = any(
        row.get("split") for row in manifest["inputs"]
    )  # files of --validation-input, which have no source
    for count in COUNTS_OF_SOURCES if sources else ():
        total, found = manifest["counters"][count], sum(source["counters"][count] for source in sources)
        if found > total or (found < total and not has_others):
            yield f"manifest.json: {count} is {total}, but the sources have {found} together"


def _check_totals(rows: list[dict[str, Any]], manifest: dict[str, Any]) -> Iterator[str]:
    """Yield contradictions within the manifest, and between it and shards.parquet."""
    configuration, counters = manifest["configuration"], manifest["counters"]
    scheme = ExamplesConfig.of(configuration).scheme
    if manifest["masking"] != {"scheme": scheme.name, "can_be_redrawn": scheme.can_be_redrawn}:
        yield f"manifest.json: masking is {manifest['masking']}, but the configuration means the scheme {scheme.name!r}"
    ends = counters["documents_used"] + counters["documents_rejected"] + counters["documents_duplicate"]
    if ends != counters["documents_in"] or sum(counters["rejected"].values()) != counters["documents_rejected"]:
        yield f"manifest.json: {counters['documents_in']} documents came in, but {ends} are used, rejected or duplicate"
    yield from _check_sources(manifest)
    known = sum(sum(numbers.values()) for numbers in counters.get("duplicates_of", {}).values())
    if known > counters["documents_duplicate"]:
        yield (
            f"manifest.json: {known} documents are duplicates of other data sets, but only "
            f"{counters['documents_duplicate']} are duplicates"
        )
    came = sum(row["documents"] + row["rejected"] for row in manifest["inputs"])
    if came != counters["documents_in"]:
        yield f"manifest.json: the inputs gave {came} documents, but {counters['documents_in']} came in"
    for split, examples in counters["examples"].items():
        found = sum(row["examples"] for row in rows if row["split"] == split)
        if found != examples:
            yield f"shards.parquet: has {found} {split} examples, but manifest.json counts {examples}"


def _check_documents(dataset: str, name: str, sha256: str, found: _Found) -> Iterator[str]:
    """Check a page of documents/ and add it to what was found."""
    if not _PAGE.fullmatch(name):
        raise _Unreadable(f"{name}: manifest.json lists it among the pages of documents/, but its name is not a page's")
    data = _read_checked(dataset, name, sha256)
    try:
        table = parse_documents(data, name)
    except ValueError as error:
        raise _Unreadable(str(error)) from None
    ids = table["id"].to_numpy()
    if (ids[1:] <= ids[:-1]).any():
        yield f"{name}: its documents are out of order, or one is there twice"
    ids, source_keys, num_tokens = (
        table.sort_by("id")[column].to_numpy() for column in ("id", "source_key", "num_tokens")
    )
    found.pages[name] = Page(ids, source_keys, num_tokens.astype(np.int64), np.zeros(len(ids), bool))
    found.num_sentences += int(table["num_sentences"].to_numpy().sum())
    found.num_tokens += int(num_tokens.sum())


def _check_document_totals(found: _Found, counters: dict[str, Any]) -> Iterator[str]:
    num_documents = sum(len(page.ids) for page in found.pages.values())
    for what, number, expected in (
        ("documents", num_documents, counters["documents_used"] + counters["rejected"].get("no-example", 0)),
        ("sentences", found.num_sentences, counters["sentences"]),
        ("tokens", found.num_tokens, counters["tokens"]),
    ):
        if number != expected:
            yield f"documents/: holds {number} {what}, but manifest.json counts {expected}"


def _check_places(pages: dict[str, Page], manifest: dict[str, Any]) -> Iterator[str]:
    """Yield pages with documents whose id belongs in another split or bucket."""
    of_validation = [page.ids for name, page in pages.items() if name.split("/")[1] == "validation"]
    has_validation = bool(of_validation)
    is_given = any(row.get("split") == "validation" for row in manifest["inputs"])  # by --validation-input
    ids = np.unique(np.concatenate([np.zeros(0, np.uint64), *of_validation])) if is_given else None
    is_held_out = HeldOut(manifest["configuration"]["validation_fraction"], ids)
    for split in SPLITS:
        last = -1
        for name, page in sorted(pages.items()):
            if name.split("/")[1] != split or len(page.ids) == 0:
                continue
            if int(page.ids[0]) <= last:
                yield f"{name}: holds documents that belong in the page before it"
            last = int(page.ids[-1])
            held_out = is_held_out(page.ids)
            if has_validation and (held_out != (split == "validation")).any():
                yield f"{name}: holds documents of the other split"


def _check_use(found: _Found, manifest: dict[str, Any]) -> Iterator[str]:
    """Yield differences between the manifest and the documents and labels of the examples."""
    counters = manifest["counters"]
    used = sum(int(page.used.sum()) for page in found.pages.values())
    if used != counters["documents_used"]:
        yield f"shards: {used} documents are in examples, but manifest.json counts {counters['documents_used']}"
    for length in manifest["configuration"]["max_seq_length"]:
        of_length = {label: n for (at, label), n in found.labels.items() if at == length}
        for counter, number in (("pairs", sum(of_length.values())), ("pairs-random", of_length.get(1, 0))):
            expected = counters["pairs"].get(f"{counter}/{length}", 0)
            if number != expected:
                yield f"shards: hold {number} {counter} of length {length}, but manifest.json counts {expected}"


def _check_shard(
    dataset: str, row: dict[str, Any], config: ExamplesConfig, vocabulary: Vocabulary, found: _Found
) -> Iterator[str]:
    """Check a shard and count its labels. row: of shards.parquet."""
    name = row["path"]
    try:
        path = storage.file_below(dataset, name)
        data = storage.read_range(path, None, row["bytes"] + 1)
    except FileNotFoundError:
        yield f"{name}: is missing"
        return
    except (OSError, ValueError) as error:
        yield f"{name}: cannot be read ({error})"
        return
    if len(data) != row["bytes"]:
        yield f"{name}: has {storage.size(path)} bytes, expected {row['bytes']}"
    elif hashlib.sha256(data).hexdigest() != row["sha256"]:
        yield f"{name}: its sha256 differs from the one in shards.parquet"
    offsets, sizes, counts = row["member_offsets"], row["member_bytes"], row["member_examples"]
    if counts[:-1] != [MEMBER_EXAMPLES] * (len(counts) - 1):
        yield f"{name}: members before the last have {sorted(set(counts[:-1]))} examples, expected {MEMBER_EXAMPLES}"
    no_documents = Page(*(np.zeros(0, kind) for kind in (np.uint64, np.uint64, np.int64, bool)))
    page = found.pages.get(f"documents/{row['split']}/{row['number']:05d}.parquet", no_documents)
    tokens = 0
    for number, (offset, size, count) in enumerate(zip(offsets, sizes, counts, strict=True)):
        place = f"{name}: member {number} at byte {offset}"
        try:
            header = tarfile.TarInfo.frombuf(data[offset - tarfile.BLOCKSIZE : offset], "ascii", "strict")
            if header.name != f"{row['number']:05d}-{number:06d}.arrow" or header.size != size:
                yield f"{place}: its tar header has the name {header.name} and {header.size} bytes"
            batch = read_member(pa.py_buffer(data[offset : offset + size]))
            if batch.num_rows != count:
                yield f"{place}: {batch.num_rows} examples, expected {count}"
            tokens += len(batch.column("input_ids").flatten())
            for fault in check_batch(batch, row, config, vocabulary, page):
                yield f"{place}: {fault}"
            values, numbers = np.unique(batch.column("next_sentence_label").to_numpy(), return_counts=True)
            found.labels.update({(row["max_seq_length"], int(v)): int(n) for v, n in zip(values, numbers)})
        except (tarfile.TarError, ValueError) as error:
            yield f"{place}: cannot be read ({error})"
    if tokens != row["tokens"]:
        yield f"{name}: holds {tokens} tokens, expected {row['tokens']}"


def _check_report(dataset: str, manifest: dict[str, Any]) -> Iterator[str]:
    """Check the report, which has its own checksums because it may be made again after the manifest."""
    page, data = REPORT
    for name in REPORT:
        if not storage.exists(storage.join(dataset, name)):
            yield f"{name}: is missing; `bertloom report` makes it again"
            return
    try:
        text = read_below(dataset, data)
        report = parse_json(text, data)
        sha256, of_page, of_manifest = (report[name] for name in ("sha256", "html_sha256", "manifest_sha256"))
    except (OSError, ValueError, KeyError) as error:
        yield f"{data}: cannot be read ({error!r})"
        return
    if manifest_sha256(report) != sha256 or manifest_text(report) != text:
        yield f"{data}: was changed after it was written: its sha256 does not match"
    elif of_manifest != manifest["sha256"]:
        yield f"{data}: belongs to another data set"
    _read_checked(dataset, page, of_page, data)
    if "examples_sha256" in report:
        _read_checked(dataset, EXAMPLES_PAGE, report["examples_sha256"], data)
    elif storage.exists(storage.join(dataset, EXAMPLES_PAGE)):
        yield f"{EXAMPLES_PAGE}: is not listed in {data}; `bertloom report --html-examples N` makes it again"


def _unlisted(dataset: str, listed: set[str]) -> Iterator[str]:
    if storage.is_local(dataset):
        for path in storage.files_below(dataset):
            if (
                path not in listed
                and path not in (*ALWAYS, *REPORT, EXAMPLES_PAGE)
                and not path.startswith(LEFT_BY_A_KILL)
            ):
                yield f"{path}: is not listed in the manifest"
