"""What the filters of a list mean for the rows of a member.

Adding a filter takes a field and a parser in `jobs/browser/filters.py`, a function here, and a line in CONDITIONS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertloom.arrays import I64, U64, Bools
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.filters import Filters, Range
from jobs.browser.words import Words
from pipeline.checks.report import PARTS, UNKNOWN, Examples, flatten, scripts
from pipeline.vocabulary import Vocabulary

NO_SCRIPT = ("punctuation", "digits", PARTS, UNKNOWN)
"""Names of kinds of words that are in no script."""
TOKENS = ("input_ids", "masked_lm_ids")
SHOWN_NAMES = 5
"""Names in an error about one that does not exist."""


class MemberRows:
    """The rows of a member, as conditions read them."""

    def __init__(self, batch: pa.RecordBatch, bucket: tuple[str, int]) -> None:
        """bucket: (split, number) of the bucket of its shard."""
        self.batch = batch
        self.bucket = bucket

    def numbers(self, name: str) -> NDArray[Any]:
        """Return a column of numbers: (n,)."""
        return self.batch.column(name).to_numpy()

    def sizes(self, name: str) -> NDArray[Any]:
        """Return the lengths of the lists of a column: (n,)."""
        return self.batch.column(name).value_lengths().to_numpy()

    def items(self, name: str) -> NDArray[Any]:
        """Return the items of all lists of a column, end to end."""
        return self.batch.column(name).flatten().to_numpy()

    def tokens(self) -> list[NDArray[Any]]:
        """Return the columns TOKENS: all tokens of the true texts are among these, and others."""
        return [self.items(name) for name in TOKENS]

    @cached_property
    def flat(self) -> Examples:
        """All columns, with the true text. Only for a whole member that was checked."""
        return flatten(pa.Table.from_batches([self.batch]))


class Condition(NamedTuple):
    """A filter as it is applied to the rows of a member."""

    columns: Sequence[str] | None
    """The columns that it reads. Their values are not checked, so it uses none of them as an index. None: all, checked."""
    holds: Callable[[MemberRows], Bools]
    may_hold: Callable[[MemberRows], bool] | None = None
    """Whether it may hold for a row, by the columns TOKENS alone: reading all columns takes several times as long."""


class Conditions:
    """Filters, applied to the members of a data set."""

    def __init__(self, data_set: BrowsedDataSet, filters: Filters) -> None:
        """
        Raises:
            ValueError: the data set cannot have a value, such as a source that is not one of its inputs.
        """
        self.data_set = data_set
        self.filters = filters
        self.words: Words | None = None
        """What the filter `word` looks for."""
        self.all = [CONDITIONS[name](self, value) for name, value in filters.given().items() if name in CONDITIONS]

    @cached_property
    def columns(self) -> list[str] | None:
        """The columns that all conditions read; None: all, checked."""
        if any(condition.columns is None for condition in self.all):
            return None
        return sorted({name for condition in self.all for name in condition.columns or ()})

    def shards(self) -> Bools:
        """Return which shards may have an example for the filters: (shards,)."""
        f = self.filters
        bucket = None if f.document is None else self.data_set.bucket_of(f.document)
        return np.array(
            [
                f.split in (None, row["split"])
                and f.length in (None, row["max_seq_length"])
                and f.copy in (None, row["copy"])
                and (f.document is None or bucket == (row["split"], row["number"]))
                for row in self.data_set.rows
            ],
            bool,
        )

    def rows(self, shard: int, member: int) -> NDArray[np.intp]:
        """Return the rows of a member for which all conditions hold.

        Raises:
            ValueError: it is damaged or cannot be read.
        """
        names, row = self.columns, self.data_set.rows[shard]
        bucket = row["split"], row["number"]
        if names is None:
            tests = [condition.may_hold for condition in self.all if condition.may_hold]
            if tests:
                tokens = MemberRows(self.data_set.columns(shard, member, TOKENS), bucket)
                if not all(may_hold(tokens) for may_hold in tests):
                    return np.zeros(0, np.intp)
            batch = self.data_set.member(shard, member)
        else:
            batch = self.data_set.columns(shard, member, names)
        rows = MemberRows(batch, bucket)
        return np.flatnonzero(np.logical_and.reduce([condition.holds(rows) for condition in self.all]))


class MainScripts:
    """The main scripts of examples: the script of most of their words. A word has the script of its first token."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.names, self._script = scripts(vocabulary)
        self._has_letter = ~np.isin(self.names, NO_SCRIPT)[self._script]
        self._vocabulary = vocabulary

    def of(self, examples: Examples) -> I64:
        """Return the index of each example's script in `names`, -1 if no word has a letter: (n,)."""
        words = examples.truth
        is_word = self._has_letter[words] & ~self._vocabulary.continues(words) & ~examples.specials()
        example = np.repeat(np.arange(len(examples.lengths)), examples.lengths)
        keys = example[is_word] * len(self.names) + self._script[words[is_word]]
        counts = np.bincount(keys, minlength=len(examples.lengths) * len(self.names)).reshape(-1, len(self.names))
        return np.where(counts.any(axis=1), counts.argmax(axis=1), -1)


# ---- one function per filter that looks at rows


def _label(conditions: Conditions, value: int) -> Condition:
    name = "next_sentence_label"
    return Condition([name], lambda rows: rows.numbers(name) == value)


def _tokens(conditions: Conditions, wanted: Range) -> Condition:
    return Condition(["input_ids"], lambda rows: wanted.holds(rows.sizes("input_ids")))


def _document(conditions: Conditions, document: int) -> Condition:
    names = ["document_a", "document_b"]
    return Condition(names, lambda rows: np.logical_or(*(rows.numbers(name) == document for name in names)))


def _source(conditions: Conditions, source: str) -> Condition:
    from pipeline.inputs.sources import source_of

    data_set = conditions.data_set
    inputs = {row["name"]: None for row in data_set.manifest["inputs"]}
    if source_of(source, inputs) is None:
        shown = ", ".join([*inputs][:SHOWN_NAMES]) + ", …" * (len(inputs) > SHOWN_NAMES)
        raise ValueError(f"source={source:.200}: the data set has no input of this name; it has {shown}")
    kept: dict[tuple[str, int], U64] = {}
    """The documents of the source in the last bucket."""

    def documents(bucket: tuple[str, int]) -> U64:
        ids = kept.get(bucket)
        if ids is None:
            table = data_set.documents(*bucket)
            files = table["source"].combine_chunks().dictionary_encode()
            is_wanted = [source in (file, source_of(file, inputs)) for file in files.dictionary.to_pylist()]
            ids = np.sort(table["id"].to_numpy()[np.array(is_wanted, bool)[files.indices.to_numpy()]])
            kept.clear()
            kept[bucket] = ids
        return ids

    names = ["document_a", "document_b"]
    return Condition(
        names, lambda rows: np.logical_or(*(_among(documents(rows.bucket), rows.numbers(name)) for name in names))
    )


def _word(conditions: Conditions, text: str) -> Condition:
    data_set = conditions.data_set
    words = conditions.words = Words(text, data_set.vocabulary, data_set.job.tokenize.casing)

    def holds(rows: MemberRows) -> Bools:
        found = np.zeros(len(rows.flat.truth), bool)
        for first, _ in words.places(rows.flat.truth):
            found[first] = True
        return _any(found, rows.flat.lengths)

    return Condition(None, holds, lambda rows: words.may_be_in(*rows.tokens()))


def _token(conditions: Conditions, token: int) -> Condition:
    _check_id(conditions, "token", token)
    return Condition(
        None,
        lambda rows: _any(rows.flat.truth == token, rows.flat.lengths),
        lambda rows: any((ids == token).any() for ids in rows.tokens()),
    )


def _masked(conditions: Conditions, token: int) -> Condition:
    _check_id(conditions, "masked", token)
    name = "masked_lm_ids"
    return Condition([name], lambda rows: _any(rows.items(name) == token, rows.sizes(name)))


def _masked_at(conditions: Conditions, wanted: Range) -> Condition:
    name = "masked_lm_positions"
    return Condition([name], lambda rows: _any(wanted.holds(rows.items(name)), rows.sizes(name)))


def _unknown(conditions: Conditions, value: bool) -> Condition:
    unknown = conditions.data_set.vocabulary.unk
    if unknown is None:
        return Condition([], lambda rows: np.zeros(rows.batch.num_rows, bool))
    return _token(conditions, unknown)


def _script(conditions: Conditions, script: str) -> Condition:
    main = MainScripts(conditions.data_set.vocabulary)
    if script not in main.names:
        known = ", ".join(sorted({*main.names} - {*NO_SCRIPT}))
        raise ValueError(f"script={script:.80}: the words of the vocabulary are in {known}")
    return Condition(None, lambda rows: main.of(rows.flat) == main.names.index(script))


CONDITIONS: Mapping[str, Callable[[Conditions, Any], Condition]] = {
    "label": _label,
    "source": _source,
    "document": _document,
    "word": _word,
    "token": _token,
    "masked": _masked,
    "masked_at": _masked_at,
    "tokens": _tokens,
    "unknown": _unknown,
    "script": _script,
}
"""The other filters choose shards: `Conditions.shards`."""


def _check_id(conditions: Conditions, name: str, token: int) -> None:
    if token >= (size := conditions.data_set.manifest["vocabulary"]["size"]):
        raise ValueError(f"{name}={token}: the vocabulary has the ids 0 to {size - 1}")


def _among(ids: U64, values: U64) -> Bools:
    """Return which values are among sorted ids."""
    found: Bools = np.searchsorted(ids, values, "right") > np.searchsorted(ids, values, "left")
    return found


def _any(is_found: Bools, sizes: NDArray[Any]) -> Bools:
    """Return which lists have an item that is found. is_found: the items of all lists. sizes: of each list."""
    found = np.zeros(len(sizes), bool)
    found[np.searchsorted(np.cumsum(sizes, dtype=np.int64), np.flatnonzero(is_found), side="right")] = True
    return found
