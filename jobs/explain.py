"""How one example came to be, back to the bytes of its source files.

    bertloom explain DATASET 73851
    bertloom explain DATASET 73851 --json

INDEX is the number of an example among all of the data set, in the order of shards.parquet: the report tells it of those
that it shows, and training of those whose loss is no number or a spike. The bucket of the example is read again from its
source files and made again from the seed; the shard and what was made now are compared column by column. Exit status 1
where they differ. Sentences, tokens and bytes are counted from 0, and the last of a range is the one behind it.
"""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from bertloom import storage
from bertloom.draws import bounded_low, draw
from jobs.support.config import parse
from pipeline.checks.replay import Bucket, Woven
from pipeline.checks.sample import read_documents_page, read_members
from pipeline.examples.decoding import Span, decode, label_name, segments
from pipeline.examples.objectives.nsp import sentence_keys, target_lengths
from pipeline.examples.shards import MEMBER_EXAMPLES
from pipeline.inputs.formats.registry import position_unit
from pipeline.stages.line_repeats import read_repeated
from pipeline.stages.manifest import DAMAGED, JobConfig, read_dataset
from pipeline.stages.tokenization import make_document_tokenizer
from pipeline.text.records import Document
from pipeline.vocabulary import make_tokenizer, parse_vocabulary

AROUND = 2  # sentences shown before and behind a segment


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """How one example came to be, back to the bytes of its source files."""

    dataset: Annotated[str, tyro.conf.Positional]
    """A finished data set. Its source files must be where they were for all to be recomputed."""
    index: Annotated[int, tyro.conf.Positional]
    """Number of the example, in the order of shards.parquet."""
    json: bool = False
    """Print one JSON object instead of text."""


def main(argv: Sequence[str]) -> int:
    config = parse(ExplainConfig, argv, prog="bertloom explain")
    found = Explainer(config.dataset).explain(config.index)
    print(json.dumps(found, ensure_ascii=False, indent=1) if config.json else "\n".join(lines(found)))
    return 1 if found["agrees"] is False else 0


class Explainer:
    """Explains examples of one data set; keeps the buckets that it has made again."""

    def __init__(self, dataset: str):
        self.dataset = dataset
        self.manifest, shards = read_dataset(dataset)
        self.rows = shards.to_pylist()
        self.vocabulary = parse_vocabulary(storage.read(storage.join(dataset, "vocab.txt")), "vocab.txt")
        self.job = JobConfig.of(self.manifest, self.vocabulary)
        self.paths = {row["name"]: row["path"] for row in self.manifest["inputs"]}
        self.formats = {row["name"]: row["format"] for row in self.manifest["inputs"]}
        self._buckets: dict[tuple[str, int], Bucket] = {}
        self._layouts: dict[int, tuple[NDArray[np.int64], list[tuple[int, int]]]] = {}

    @property
    def num_examples(self) -> int:
        return sum(row["examples"] for row in self.rows)

    def explain(self, index: int) -> dict[str, Any]:
        """Everything that the command prints, as plain values; `agrees` is None where the sources are not there."""
        if not 0 <= index < self.num_examples:
            raise ValueError(f"{self.dataset} has no example {index}: expected 0 to {self.num_examples - 1}")
        firsts = np.cumsum([0, *(row["examples"] for row in self.rows)])
        number = int(np.searchsorted(firsts, index, side="right")) - 1
        shard, place = self.rows[number], index - int(firsts[number])
        member, at = divmod(place, MEMBER_EXAMPLES)
        try:
            (batch,) = read_members(self.dataset, shard, [member])
            example = batch.slice(at, 1).to_pylist()[0]
            shown = {
                "example": decode(example, self.vocabulary),
                "masks": _masks(example, segments(example, self.vocabulary)),
            }
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise ValueError(
                f"{shard['path']}: row {at} of member {member} cannot be read ({error}); {DAMAGED}"
            ) from error
        found: dict[str, Any] = {
            "index": index,
            "shard": shard["path"],
            "member": member,
            "row": at,
            **{name: shard[name] for name in ("split", "max_seq_length", "copy")},
            **shown,
        }
        bucket = self._bucket(shard["split"], shard["number"])
        woven = None
        try:
            woven = bucket.weave(shard["max_seq_length"], shard["copy"])
        except ValueError as error:
            found["not_recomputed"] = str(error)
        b = example["segment_b_start"]
        found["a"] = self._segment(bucket, example["document_a"], example["token_a"], b - 2)
        if len(example["input_ids"]) > b:
            size = len(example["input_ids"]) - b - 1
            found["b"] = self._segment(bucket, example["document_b"], example["token_b"], size)
        found["drawn"] = self._drawn(woven, place, shard) if woven and place < len(woven.pairs) else []
        found |= _compared(example, woven, place, shard) if woven else {"agrees": None}
        return found

    def _bucket(self, split: str, number: int) -> Bucket:
        if (split, number) not in self._buckets:
            page = read_documents_page(self.dataset, split, number)
            left_out = self.job.tokenize.max_line_repeats is not None
            repeated_lines = read_repeated(self.dataset) if left_out else None
            self._buckets[split, number] = Bucket(page, self.paths, self.job, split, number, repeated_lines)
        return self._buckets[split, number]

    @cached_property
    def _tokenizers(self):
        tokenize = self.job.tokenize
        return (
            make_document_tokenizer(tokenize, self.vocabulary),
            make_tokenizer(self.vocabulary, tokenize.do_lower_case, tokenize.strip_accents),
        )

    def _segment(self, bucket: Bucket, document: int, first: int, size: int) -> dict[str, Any]:
        """Where a segment lies: its document, its bytes there, and the text around it."""
        place = bucket.place(document)
        if place is None:
            return {"document": f"{document:016x}", "not_read": "documents/ does not hold it"}
        row = bucket.page.slice(place, 1).to_pylist()[0]
        found = {
            "document": f"{document:016x}",
            **{name: row[name] for name in ("source", "position", "piece", "num_sentences")},
            "path": self.paths[row["source"]],
            "unit": position_unit(self.formats[row["source"]]),
            "tokens": [first, first + size],
        }
        try:
            text = bucket.document(place)
        except ValueError as error:
            return found | {"not_read": str(error)}
        if document not in self._layouts:
            self._layouts[document] = self._layout(text)
        edges, offsets = self._layouts[document]
        if first + size > len(offsets):
            return found | {"not_read": f"its text has {len(offsets)} tokens"}
        one, last = (int(at) for at in np.searchsorted(edges, [first, first + size - 1], side="right") - 1)
        begin, end = offsets[first][0], offsets[first + size - 1][1]
        before = offsets[edges[max(0, one - AROUND)]][0]
        after = offsets[edges[min(len(edges) - 1, last + 1 + AROUND)] - 1][1]
        whole = text.text.decode()
        start = len(whole[:begin].encode())
        return found | {
            "bytes": [start, start + len(whole[begin:end].encode())],
            "sentences": [one, last + 1],
            "before": whole[before:begin],
            "text": whole[begin:end],
            "after": whole[end:after],
        }

    def _layout(self, document: Document) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
        """(first token of each sentence, and the number of tokens; first character of each token, and the one behind it)."""
        of_documents, reference = self._tokenizers
        lengths = of_documents([document]).sentence_lengths.tolist()
        return np.cumsum([0, *lengths]), reference.encode(document.text.decode(), add_special_tokens=False).offsets

    def _drawn(self, woven: Woven, place: int, shard: dict[str, Any]) -> list[str]:
        """How the pair came about, in sentences."""
        config, length, s = self.job.weave, shard["max_seq_length"], woven.sentences
        pair = woven.pairs.take(slice(place, place + 1))
        document, ordinal, label = int(pair.document_a[0]), int(pair.sentence[0]), int(pair.label[0])
        kind = config.compat or config.pairs
        count = int(s.first[document + 1] - s.first[document])
        first = int(s.first[document]) + ordinal
        said = [f"its piece of text begins at sentence {ordinal} of {count}, sentences too long for this length cut"]
        if kind in ("nsp", "none"):
            key = sentence_keys(s, length, shard["copy"], config.seed)[first : first + 1]
            room = length - (3 if kind == "nsp" else 2)
            target = int(target_lengths(key, room, config.short_seq_prob)[0])
            short = (
                f" of {room}: a short one, one in {1 / config.short_seq_prob:g}" if target < room else ": all the room"
            )
            said.append(f"it is to fill {target} tokens{short}")
            if kind == "nsp":
                coin = int(bounded_low(draw(key, 1), 2)[0] == 0)
                said.append(_about_label(coin, label))
        if kind == "google":
            said.append("its target was drawn for the whole document, as Google's script does")
        if kind == "sop":
            said.append(f"its halves were parted by a draw, and a coin left them {'swapped' if label else 'in order'}")
        if kind in ("nsp", "google") and (lost := int(pair.a_start[0] - s.edges[first])):
            said.append(f"A lost {lost} tokens from its front, to fit")
        if label == 1 and kind != "sop":
            others = len(s.document) - count
            said.append(f"B was drawn from the {others:,} sentences of the {len(s.source_keys) - 1:,} other documents")
        return said


def _about_label(coin: int, label: int) -> str:
    if coin == label:
        return f"a coin made it a {label_name(label, False)} pair"
    if label == 1:
        return "a single sentence was left of the document, so it is random by force"
    return "a coin said random, but a next pair was owed for one that was random by force"


def _masks(example: dict[str, Any], spans: tuple[list[Span], list[Span]]) -> list[dict[str, Any]]:
    a, b = spans
    placed = {**dict(enumerate(a, 1)), **dict(enumerate(b, example["segment_b_start"]))}
    return [
        {"position": at, "truth": placed[at].truth, "kind": placed[at].kind, "there": placed[at].there}
        for at in example["masked_lm_positions"]
    ]


def _compared(example: dict[str, Any], woven: Woven, place: int, shard: dict[str, Any]) -> dict[str, Any]:
    """Column by column: what the shard says against what was made now."""
    made = woven.table.slice(place, 1).to_pylist()
    made_now = made[0] if made else {}
    differ = {
        name: {"shard": value, "made_now": made_now.get(name)}
        for name, value in example.items()
        if made_now.get(name) != value
    }
    whole = woven.sha256 == shard["sha256"]
    return {"agrees": not differ and whole, "columns": list(example), "differ": differ, "shard_agrees": whole}


# ---- text


def lines(found: dict[str, Any]) -> list[str]:
    """What was found, for people."""
    said = [
        f"example {found['index']}: {found['split']}, length {found['max_seq_length']}, copy {found['copy']}",
        f"  {found['shard']}, member {found['member']}, row {found['row']}",
        "",
        f"  {found['example']['label']}, {found['example']['tokens']} tokens, {found['example']['masks']} masks",
        f"  A {found['example']['a']}",
        *([f"  B {found['example']['b']}"] if "b" in found else []),
    ]
    for name in ("a", "b"):
        if name in found:
            said += ["", *_segment_lines(name.upper(), found[name])]
    if found["drawn"]:
        said += ["", "How it was drawn", *(f"  {sentence}" for sentence in found["drawn"])]
    said += ["", f"Masks: {found['example']['masks']} of {found['example']['tokens']} tokens"]
    for kind, what in (("mask", "[MASK]"), ("random", "another word"), ("kept", "left as it is")):
        of_kind = [mask for mask in found["masks"] if mask["kind"] == kind]
        words = [f"{m['position']} {m['truth']}" + (f" → {m['there']}" if kind == "random" else "") for m in of_kind]
        if words:
            text = f"{what} ({len(words)}): {', '.join(words)}"
            said += textwrap.wrap(text, 118, initial_indent="  ", subsequent_indent="    ")
    return [*said, "", *_agreement_lines(found)]


def _segment_lines(name: str, segment: dict[str, Any]) -> list[str]:
    said = [f"{name} is of document {segment['document']}"]
    if "source" in segment:
        piece = f", piece {segment['piece']} of its text" if segment["piece"] else ""
        said.append(f"  {segment['path']}, the record at {segment['unit']} {segment['position']:,}{piece}")
        said.append(f"  tokens {segment['tokens'][0]:,} to {segment['tokens'][1]:,}")
    if "not_read" in segment:
        return [*said, f"  its text cannot be shown: {segment['not_read']}"]
    first, last = segment["sentences"]
    said[-1] += (
        f", sentences {first} to {last} of {segment['num_sentences']}, "
        f"bytes {segment['bytes'][0]:,} to {segment['bytes'][1]:,} of its cleaned text"
    )
    for title, key in (("before", "before"), (name, "text"), ("after", "after")):
        said.append(f"  {title:<7}{' '.join(segment[key].split())}")
    return said


def _agreement_lines(found: dict[str, Any]) -> list[str]:
    if found["agrees"] is None:
        return [f"Not recomputed: {found['not_recomputed']}"]
    if found["agrees"]:
        return [
            "Made again from the source files and the seed: "
            f"all {len(found['columns'])} columns agree with the shard, and the whole shard has the same sha256"
        ]
    said = [f"Made again from the source files and the seed: {len(found['differ'])} columns DIFFER from the shard"]
    for name, values in found["differ"].items():
        said += [f"  {name}", f"    shard    {values['shard']}", f"    made now {values['made_now']}"]
    if not found["shard_agrees"]:
        said.append(
            "  and the shard made now has another sha256 than shards.parquet says: was it made by another version?"
        )
    return said
