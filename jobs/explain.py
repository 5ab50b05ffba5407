"""Show how one example was made, down to the bytes of its source files.

    bertloom explain DATASET 73851
    bertloom explain DATASET 73851 --json

INDEX is the number of an example among all of the data set, in the order of shards.parquet. The report shows it for the
examples it prints, and training for those whose loss is not finite or a spike. The bucket of the example is read again from
its source files and made again from the seed, and the result is compared with the shard, column by column. Exit status 1
if they differ. Sentences, tokens and bytes are counted from 0, and the end of a range is not part of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import tyro

from bertloom.arrays import I64
from jobs.support.config import parse
from jobs.support.outputs import json_line

if TYPE_CHECKING:
    from pipeline.checks.replay import Bucket, Woven
    from pipeline.examples.decoding import Span
    from pipeline.text.offsets import Encode
    from pipeline.tokenizer import DocumentTokenizer

CONTEXT_SENTENCES = 2
"""Sentences shown before and after a segment."""
KEPT_TEXTS = 4
"""Documents that are kept with the places of their tokens."""


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Show how one example was made, down to the bytes of its source files."""

    dataset: Annotated[str, tyro.conf.Positional]
    """A finished data set. Its source files must still be at the paths in its manifest."""
    index: Annotated[int, tyro.conf.Positional]
    """Number of the example, in the order of shards.parquet."""
    json: bool = False
    """Print one JSON object instead of text."""


def main(argv: Sequence[str]) -> int:
    config = parse(ExplainConfig, argv, prog="bertloom explain")
    from jobs.support.explanation import explanation_lines

    found = Explainer(config.dataset).explain(config.index)
    if config.json:
        print(json_line(found, sys.stdout.encoding, indent=1), end="")
    else:
        print("\n".join(explanation_lines(found)))
    return 1 if found["agrees"] is False else 0


class SourceText(NamedTuple):
    """The text of a document, read from its source, and where its tokens are."""

    text: str
    last_record: int | None
    """See `Document`."""
    sentences: I64
    """The first token of each sentence, and the number of tokens: (sentences + 1,)."""
    offsets: I64
    """First character and end of each token: (tokens, 2)."""


class Explainer:
    """Explains examples of one data set; keeps the bucket of the last one."""

    def __init__(self, dataset: str):
        from bertloom.manifest import read_dataset
        from pipeline.dataset import vocabulary_of
        from pipeline.job import JobConfig

        self.dataset = dataset
        self.manifest, shards = read_dataset(dataset)
        self.rows = shards.to_pylist()
        self.vocabulary = vocabulary_of(dataset, self.manifest)
        self.job = JobConfig.from_manifest(self.manifest)
        self.inputs = {row["name"]: row for row in self.manifest["inputs"]}
        self._kept: tuple[tuple[str, int], Bucket] | None = None
        self._texts: dict[int, SourceText] = {}

    @property
    def num_examples(self) -> int:
        return sum(row["examples"] for row in self.rows)

    def explain(self, index: int) -> dict[str, Any]:
        """Return everything that the command prints, as plain values; `agrees` is None if the sources are missing."""
        shard, place = self._locate(index)
        example, found = self._read(shard, place)
        bucket = self.bucket(shard["split"], shard["number"])
        woven = None
        try:
            woven = bucket.weave(shard["max_seq_length"], shard["copy"])
        except ValueError as error:
            found["not_recomputed"] = str(error)
        b, size = example["segment_b_start"], len(example["input_ids"])
        found["a"] = self._segment(bucket, example["document_a"], example["token_a"], b - 2)
        if size > b:
            found["b"] = self._segment(bucket, example["document_b"], example["token_b"], size - b - 1)
        found["drawn"] = self._drawn(woven, place, shard) if woven and place < len(woven.pairs) else []
        found["masking"] = self.job.examples.scheme.summary
        found |= _compare(example, woven, place, shard) if woven else {"agrees": None}
        return {"index": index, **found}

    def _locate(self, index: int) -> tuple[dict[str, Any], int]:
        """Return (the row of the example's shard, its index there)."""
        if not 0 <= index < self.num_examples:
            raise ValueError(f"{self.dataset} has no example {index}: expected 0 to {self.num_examples - 1}")
        firsts = np.cumsum([0, *(row["examples"] for row in self.rows)])
        number = int(np.searchsorted(firsts, index, side="right")) - 1
        return self.rows[number], index - int(firsts[number])

    def _read(self, shard: dict[str, Any], place: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return (the example's row, what is shown of it)."""
        from pipeline.checks.sample import read_members
        from pipeline.examples.decoding import decode, segments

        firsts = np.cumsum([0, *shard["member_examples"]])
        member = int(np.searchsorted(firsts, place, side="right")) - 1
        at = place - int(firsts[member])
        (batch,) = read_members(self.dataset, shard, len(self.vocabulary.words), [member])
        example = batch.slice(at, 1).to_pylist()[0]
        shown = {
            "example": decode(example, self.vocabulary, self.job.examples.objective.labels),
            "masks": _masks(example, segments(example, self.vocabulary)),
        }
        names = {name: shard[name] for name in ("split", "max_seq_length", "copy")}
        return example, {"shard": shard["path"], "member": member, "row": at, **names, **shown}

    def bucket(self, split: str, number: int) -> Bucket:
        """Return a bucket. Only the last one is kept: its texts and tokens may take 100 MB."""
        from bertloom.manifest import DAMAGED
        from pipeline.checks.replay import Bucket
        from pipeline.checks.sample import read_documents_page
        from pipeline.dataset import repeated_lines_of
        from pipeline.inputs.sources import source_of

        if self._kept is None or self._kept[0] != (split, number):
            self._kept = None
            page = read_documents_page(self.dataset, split, number, self.manifest)
            has_lines = self.job.tokenize.max_line_repeats is not None
            repeated_lines = repeated_lines_of(self.dataset, self.manifest) if has_lines else None
            names = {*page["source"].to_pylist()}
            if unknown := sorted(name for name in names if source_of(name, self.inputs) is None):
                raise ValueError(
                    f"documents/ names the input {unknown[0]!r}, which manifest.json does not list; {DAMAGED}"
                )
            bucket = Bucket(
                page=page,
                inputs=self.inputs,
                job=self.job,
                vocabulary=self.vocabulary,
                split=split,
                number=number,
                repeated_lines=repeated_lines,
            )
            self._kept = ((split, number), bucket)
        return self._kept[1]

    @cached_property
    def _encode(self) -> Encode:
        return self.vocabulary.encoder(self.job.tokenize.casing)

    @cached_property
    def _tokenizer(self) -> DocumentTokenizer:
        from pipeline.tokenizer import make_document_tokenizer

        return make_document_tokenizer(self.job.tokenize, self.vocabulary)

    def text_of(self, bucket: Bucket, place: int) -> SourceText:
        """Return the text of a document of a bucket; ValueError where it cannot be read again."""
        from pipeline.text.offsets import token_offsets

        number = bucket.page["id"][place].as_py()
        if number not in self._texts:
            while len(self._texts) >= KEPT_TEXTS:
                del self._texts[next(iter(self._texts))]
            document = bucket.document(place)
            block, text = self._tokenizer([document]), document.text.decode()
            offsets = token_offsets(text, block.ids, self._encode)
            sentences = np.cumsum([0, *block.sentence_lengths])
            self._texts[number] = SourceText(text, document.last_record, sentences, offsets)
        return self._texts[number]

    def source_of(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return where a document is. row: of documents/."""
        from pipeline.inputs.formats.registry import position_unit
        from pipeline.inputs.sources import source_of

        name = source_of(row["source"], self.inputs)
        assert name is not None
        source = self.inputs[name]
        return {
            **{name: row[name] for name in ("source", "position", "piece", "num_sentences")},
            "path": source["path"] + row["source"][len(name) :],
            "unit": position_unit(name, source["format"], row["source"]),
        }

    def _segment(self, bucket: Bucket, document: int, first: int, size: int) -> dict[str, Any]:
        """Return where a segment comes from: its document, its bytes there, and the text around it."""
        place = bucket.place(document)
        if place is None:
            return {"document": f"{document:016x}", "not_read": "documents/ does not hold it"}
        row = bucket.page.slice(place, 1).to_pylist()[0]
        found = {"document": f"{document:016x}", **self.source_of(row), "tokens": [first, first + size]}
        try:
            whole, last_record, edges, offsets = self.text_of(bucket, place)
        except ValueError as error:
            return found | {"not_read": str(error)}
        if first + size > len(offsets):
            return found | {"not_read": f"its text has {len(offsets)} tokens"}
        one, last = (int(at) for at in np.searchsorted(edges, [first, first + size - 1], side="right") - 1)
        begin, end = int(offsets[first, 0]), int(offsets[first + size - 1, 1])
        before = offsets[edges[max(0, one - CONTEXT_SENTENCES)], 0]
        after = offsets[edges[min(len(edges) - 1, last + 1 + CONTEXT_SENTENCES)] - 1, 1]
        if last_record is not None:
            found["last_record"] = last_record
        start = len(whole[:begin].encode())
        return found | {
            "bytes": [start, start + len(whole[begin:end].encode())],
            "sentences": [one, last + 1],
            "before": whole[before:begin],
            "text": whole[begin:end],
            "after": whole[end:after],
        }

    def _drawn(self, woven: Woven, place: int, shard: dict[str, Any]) -> list[str]:
        """Describe how the example was drawn, in sentences."""
        from pipeline.examples.objectives.objective import DrawnPair

        config, s, pair = self.job.examples, woven.sentences, woven.pairs.take(slice(place, place + 1))
        drawn = DrawnPair(
            sentences=s,
            pair=pair,
            max_seq_length=shard["max_seq_length"],
            copy=shard["copy"],
            seed=config.seed,
            short_seq_prob=config.short_seq_prob,
        )
        document = int(pair.document_a[0])
        count = int(s.first[document + 1] - s.first[document])
        begin = (
            f"its text begins at sentence {pair.sentence[0]} of {count}, where a piece of a long sentence counts as one"
        )
        return [begin, *config.objective.explain(drawn)]


def _masks(example: dict[str, Any], spans: tuple[list[Span], list[Span]]) -> list[dict[str, Any]]:
    a, b = spans
    placed = {**dict(enumerate(a, 1)), **dict(enumerate(b, example["segment_b_start"]))}
    return [
        {"position": at, "truth": placed[at].truth, "kind": placed[at].kind, "there": placed[at].there}
        for at in example["masked_lm_positions"]
    ]


def _compare(example: dict[str, Any], woven: Woven, place: int, shard: dict[str, Any]) -> dict[str, Any]:
    """Compare the example of the shard with the one made now, column by column."""
    made = woven.table.slice(place, 1).to_pylist()
    made_now = made[0] if made else {}
    differ = {
        name: {"shard": value, "made_now": made_now.get(name)}
        for name, value in example.items()
        if made_now.get(name) != value
    }
    whole = woven.sha256 == shard["sha256"]
    return {"agrees": not differ and whole, "columns": list(example), "differ": differ, "shard_agrees": whole}
