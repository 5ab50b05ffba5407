"""The report of a data set, report.html and report.json, from the manifest's counters and a sample of the examples."""

import hashlib
import itertools
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
from markupsafe import Markup

from bertloom import storage
from bertloom.counts import counted
from bertloom.json_files import parse_json
from bertloom.manifest import manifest_sha256, manifest_text, read_dataset
from bertloom.shapes import shaped
from jobs.support.examples_page import MOST_EXAMPLES, examples_page
from jobs.support.figures import draw_documents, draw_length
from pipeline.checks.borders import guess_from_borders
from pipeline.checks.gates import Gate, Gates, SourceGates, check_gates
from pipeline.checks.report import (
    DocumentInputs,
    Examples,
    coverage,
    flatten,
    guess_from_length,
    lengths_of_b,
    mask_rate_by_pieces,
    mask_rate_by_position,
    repeated_lines,
    shape,
    spread,
    treatment,
    word_statistics,
    words_by_source,
)
from pipeline.checks.sample import read_documents_page, read_members, sample_buckets, sample_examples
from pipeline.checks.source_report import about_sources, check_detector, languages_of
from pipeline.checks.verify import EXAMPLES_PAGE
from pipeline.dataset import read_rejects, vocabulary_of
from pipeline.examples.configuration import ExamplesConfig
from pipeline.examples.decoding import decode, segments
from pipeline.vocabulary import Vocabulary

FORMAT = "bertloom-report"
EXAMPLES = 20
COVERAGE_TOKENS = 1_000_000  # of the documents that are searched for in the examples
INPUTS = 30  # files listed by name
REJECTS = 3  # shown per reason
READ_REJECTS = 2000  # lines of the log that these come from


def write_report(
    dataset: str,
    gates: Gates,
    html_examples: int | None = None,
    detects_languages: bool = False,
    source_gates: Mapping[str, dict[str, float]] | None = None,
) -> int:
    """Write report.html and report.json into the data set, print the gates that fail, and return the exit status.

    Args:
        html_examples: the number of examples in examples.html. 0 removes it; None keeps the number in report.json.
        detects_languages: whether to identify the languages of the sample.
        source_gates: name of a source of --inputs -> its own limits. None: those in report.json.
    """
    if detects_languages:
        check_detector()
    if html_examples is not None and not 0 <= html_examples <= MOST_EXAMPLES:
        raise ValueError(
            f"--html-examples {html_examples}: expected 0 to {MOST_EXAMPLES:,}; `bertloom browse` shows every example"
        )
    manifest, shards = read_dataset(dataset)
    vocabulary = vocabulary_of(dataset, manifest)
    if html_examples is None:
        html_examples = examples_before(dataset)
    report, examples = collect(
        dataset, manifest, shards.to_pylist(), vocabulary, html_examples, detects_languages=detects_languages
    )
    if report["sources"]:
        names = {source["name"] for source in report["sources"]}
        limits = gates_before(dataset) if source_gates is None else source_gates
        report["source_gates"] = {name: own for name, own in limits.items() if own and name in names}
    else:
        del report["sources"]
    checked = check_gates(gates, report)
    report["gates"] = [gate.as_dict() for gate in checked]
    files: dict[str, bytes] = {}
    if html_examples:
        report["html_examples"] = html_examples
        files[EXAMPLES_PAGE] = examples_page(report, examples.slice(0, html_examples), vocabulary).encode()
        report["examples_sha256"] = hashlib.sha256(files[EXAMPLES_PAGE]).hexdigest()
    files["report.html"] = render(report, examples.slice(0, EXAMPLES), vocabulary).encode()
    report["html_sha256"] = hashlib.sha256(files["report.html"]).hexdigest()
    report["sha256"] = manifest_sha256(report)
    files["report.json"] = manifest_text(report)
    for name, text in files.items():
        if storage.read_if_there(storage.join(dataset, name)) != text:
            storage.write_whole(storage.join(dataset, name), [text])
    if not html_examples and storage.exists(storage.join(dataset, EXAMPLES_PAGE)):
        storage.remove(storage.join(dataset, EXAMPLES_PAGE))

    if html_examples:
        print(f"{storage.join(dataset, EXAMPLES_PAGE)}: {counted(min(html_examples, examples.num_rows), 'example')}")
    path = storage.join(dataset, "report.html")
    failed = [gate for gate in checked if not gate.passed]
    for gate in failed:
        print(f"bertloom: gate: {sentence(gate)}", file=sys.stderr)
    print(f"{path}: {len(checked) - len(failed)} of {counted(len(checked), 'gate')} passed")
    if not failed or not gates.fail:
        return 0
    print(
        "bertloom: the data set is complete, but check it before you train on it. To accept it as it is, start this again "
        "with a higher limit or with --gates.no-fail",
        file=sys.stderr,
    )
    return 1


def examples_before(dataset: str) -> int:
    """Return the number of examples in examples.html as report.json has it; 0 if there is no such page."""
    number = report_before(dataset).get("html_examples")
    return number if type(number) is int and 0 < number <= MOST_EXAMPLES else 0


def gates_before(dataset: str) -> dict[str, dict[str, float]]:
    """Return the limits of each source of --inputs that report.json has."""
    found = report_before(dataset).get("source_gates", {})
    try:
        return {
            name: shaped(own, SourceGates).given for name, own in shaped(found, dict[str, dict[str, float]]).items()
        }
    except ValueError:
        return {}  # it was changed by hand


def report_before(dataset: str) -> dict[str, Any]:
    """Return the content of report.json; nothing if there is none, or it is damaged: it is written again."""
    try:
        return parse_json(storage.read_if_there(storage.join(dataset, "report.json")) or b"{}", "report.json")
    except ValueError:
        return {}


def sentence(gate: Gate) -> str:
    """Describe a gate that fails."""
    slack = f" and {percent(gate.slack)} for chance" if gate.slack else ""
    of = f"{gate.source}: " if gate.source else ""
    limit = f"at most {percent(gate.threshold)}{slack} ({gate.setting} {gate.threshold:g})"
    return f"{of}{percent(gate.value)} {gate.what}, {limit}: {gate.advice}"


def percent(share: float | None) -> str:
    """Return a share as a percentage with three significant digits.

    >>> percent(0.50234), percent(0.0000355), percent(1.0)
    ('50.2 %', '0.00355 %', '100 %')
    """
    return "" if share is None else f"{100 * share:.3g} %"


# ---- numbers


def collect(
    dataset: str,
    manifest: dict[str, Any],
    shards: list[dict[str, Any]],
    vocabulary: Vocabulary,
    html_examples: int,
    detects_languages: bool = False,
) -> tuple[dict[str, Any], pa.Table]:
    """Return (everything in the report but the gates, the examples that it and examples.html show)."""
    buckets, size = sample_buckets(shards), len(vocabulary.words)
    pages = [read_documents_page(dataset, "train", number, manifest) for number in buckets]
    documents = pa.concat_tables(pages)
    lengths = manifest["configuration"]["max_seq_length"]
    labels = ExamplesConfig.of(manifest["configuration"]).objective.labels
    samples = {length: sample_examples(dataset, shards, buckets, length, size) for length in lengths}
    flat = {length: flatten(table) for length, (table, _) in samples.items()}
    first = flat[lengths[0]]
    table, numbers = samples[lengths[0]]
    most = max(EXAMPLES, html_examples)
    shown = table.slice(0, most).append_column("number", pa.array(numbers[:most]))

    num_tokens = pages[0]["num_tokens"].to_numpy().astype(np.int64)
    few = 1 + int(np.searchsorted(np.cumsum(num_tokens), COVERAGE_TOKENS))

    return {
        "format": FORMAT,
        "manifest_sha256": manifest["sha256"],
        "configuration": manifest["configuration"],
        "versions": manifest["versions"],
        "notes": manifest["notes"],
        "vocabulary": manifest["vocabulary"],
        "counters": manifest["counters"],
        "sample": {
            "buckets": [f"train/{number:05d}" for number in sorted(buckets)],
            "documents": documents.num_rows,
            "examples": sum(len(e.lengths) for e in flat.values()),
            "tokens": sum(len(e.ids) for e in flat.values()),
        },
        "inputs": about_inputs(manifest["inputs"], documents, first, vocabulary),
        "sources": about_sources(manifest, documents, first, vocabulary, detects_languages),
        **({"languages": languages_of(first, range(len(first.lengths)), vocabulary)} if detects_languages else {}),
        "excluded": manifest.get("excluded"),
        "rejects": some_rejects(dataset, manifest),
        "documents": {name: spread(documents[name].to_numpy()) for name in ("num_tokens", "num_sentences")}
        | {"one_sentence": float((documents["num_sentences"].to_numpy() == 1).mean())},
        "words": word_statistics(first, vocabulary),
        "lines": repeated_lines(first, vocabulary),
        "lengths": {
            str(length): about_length(length, flat[length], manifest, shards, vocabulary) for length in lengths
        },
        "coverage": coverage(
            pages[0]["id"].to_numpy()[:few],
            num_tokens[:few],
            [
                read_members(dataset, row, size)
                for row in shards
                if row["split"] == "train" and row["number"] == buckets[0]
            ],
        ),
        "examples": [
            decode(row, vocabulary, labels) | {"number": row["number"]} for row in shown.slice(0, EXAMPLES).to_pylist()
        ],
    }, shown


def about_length(
    length: int, e: Examples, manifest: dict[str, Any], shards: list[dict[str, Any]], vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the numbers of one length. Numbers of examples and tokens are exact, all others are from the sample."""
    configuration, pairs = manifest["configuration"], manifest["counters"]["pairs"]
    rows = [row for row in shards if row["max_seq_length"] == length]
    examples, tokens = (sum(row[name] for row in rows) for name in ("examples", "tokens"))
    objective = ExamplesConfig.of(configuration).objective
    random = pairs.get(f"pairs-random/{length}", 0) / examples if objective.predicts_label else None
    guess, border_guess = guess_from_length(e.b_length, e.label), guess_from_borders(e, vocabulary)
    kept = round(1 - configuration["mask_token_prob"] - configuration["random_token_prob"], 6)
    return {
        "examples": examples,
        "tokens": tokens,
        "padding_avoided": 1 - tokens / (examples * length),
        "random_share": random,
        "one_label": None if random is None else max(random, 1 - random),
        "label_guess": asdict(guess) if guess else None,
        "border_guess": asdict(border_guess) if border_guess else None,
        "pairs": {name.partition("/")[0]: n for name, n in pairs.items() if name.endswith(f"/{length}")},
        "sample": shape(e, objective.labels),
        "b_lengths": lengths_of_b(e, objective.labels),
        "treatment": treatment(e, vocabulary),
        "treatment_wanted": {
            "mask": configuration["mask_token_prob"],
            "random": configuration["random_token_prob"],
            "kept": kept,
        },
        "mask_rate_by_position": mask_rate_by_position(e),
        "mask_rate_by_pieces": mask_rate_by_pieces(e, vocabulary),
    }


def about_inputs(
    inputs: list[dict[str, Any]], documents: pa.Table, e: Examples, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return exact counts of the largest input files, with their script and share of [UNK] in the sample."""
    total = max(1, sum(row["tokens"] for row in inputs))
    largest = sorted(inputs, key=lambda row: (-row["tokens"], row["name"]))[:INPUTS]
    names = {row["name"]: i for i, row in enumerate(largest)}
    words = words_by_source(e, DocumentInputs.of(documents, names).place(e.document_a), vocabulary)
    columns = ("name", "bytes", "documents", "sentences", "tokens", "text_bytes", "rejected")
    return {
        "files": len(inputs),
        "num_empty": sum(row["documents"] == 0 for row in inputs),
        "empty": [row["name"] for row in inputs if row["documents"] == 0][:INPUTS],
        "largest": [
            {name: row[name] for name in columns}
            | {"share": row["tokens"] / total, **words.get(i, {"unknown": None, "script": None})}
            for i, row in enumerate(largest)
        ],
    }


def some_rejects(dataset: str, manifest: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the first few rejects of each reason, from the beginning of the log."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in manifest["files"]:
        if name.startswith("rejects/"):
            for reject in itertools.islice(read_rejects(dataset, name), READ_REJECTS):
                of_reason = found.setdefault(reject["reason"], [])
                if len(of_reason) < REJECTS:
                    of_reason.append(reject)
    return found


# ---- the page


def render(report: dict[str, Any], examples: pa.Table, vocabulary: Vocabulary) -> str:
    """Return report.html, with its figures inside."""
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    page.filters["share"] = percent
    page.filters["number"] = lambda value: f"{value:,}"
    template = page.from_string((files("jobs.support") / "report.html.j2").read_text(encoding="utf-8"))
    objective = ExamplesConfig.of(report["configuration"]).objective
    return template.render(
        r=report,
        label_1=objective.labels.get(1),
        figures={length: Markup(draw_length(int(length), found)) for length, found in report["lengths"].items()},
        documents_figure=Markup(draw_documents(report["documents"])),
        shown=[(row, *segments(row, vocabulary)) for row in examples.to_pylist()],
    )
