"""What a model reads on a page: a text or a pair that somebody typed, or an example of a data set.

The query of an address has `text` and perhaps `second`, or `example=d0:123`, the number of an example in a data set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request

from bertloom.arrays import I64
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.models import LoadedModel

if TYPE_CHECKING:
    from model.hub.tokenizer import TextTokenizer

MAX_CHARACTERS = 20_000
"""Length of the longest text that is tokenized."""


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """A sequence that a model reads, and what pages show of it."""

    ids: I64
    """(tokens,), with special tokens."""
    segment_b_start: int
    """Index of B's first token; the number of tokens if there is no B."""
    words: list[str]
    """The text of each token."""
    truths: dict[int, int]
    """The true ids of masked tokens that are known, by place."""
    num_left_out: int = 0
    """Number of tokens that were left out at the ends of A and B."""

    @property
    def special_places(self) -> set[int]:
        """The places of [CLS] and [SEP]."""
        return {0, self.segment_b_start - 1, len(self.ids) - 1}


def input_of(request: Request, model: LoadedModel, text: str, second: str, most: int) -> ModelInput:
    """Return the example in the query of an address; if there is none, a text or a pair. See the next two functions."""
    example = request.query_params.get("example")
    return example_input(request, model, example, most) if example else text_input(model, text, second, most)


def example_input(request: Request, model: LoadedModel, value: str, most: int) -> ModelInput:
    """Return an example of a data set as training reads it. At most `most` of its tokens are used.

    Raises:
        ValueError: the example does not exist, or its data set has another vocabulary.
    """
    found = re.fullmatch(r"(d[0-9]{1,9}):([0-9]{1,18})", value)
    data_set: BrowsedDataSet | None = request.app.state.targets.data_set(found[1]) if found else None
    if not found or not data_set:
        raise ValueError(f"example={value[:80]}: expected a data set of this page and a number, such as d0:17")
    if list(data_set.vocabulary.words) != model.tokenizer.words:
        raise ValueError(
            f"example={value}: {data_set.name} has another vocabulary than the model in {model.path}: give the data set "
            f"that the model was trained on"
        )
    row = data_set.example(int(found[2]))
    return _cut(model, row, most)


def _cut(model: LoadedModel, row: dict[str, Any], most: int) -> ModelInput:
    """Return a row of a shard, cut to `most` tokens. If A and B are too long, both get the same room."""
    b_start, length = row["segment_b_start"], len(row["input_ids"])
    size_a, size_b = b_start - 2, max(length - b_start - 1, 0)
    room = min(most, model.encoder.config.shape.max_position_embeddings) - (length - size_a - size_b)
    kept_b = min(size_b, max(room // 2, room - size_a))
    kept_a = min(size_a, room - kept_b)
    parts = [range(1 + kept_a), range(b_start - 1, b_start)]
    if b_start < length:
        check_pairs(model)
        parts += [range(b_start, b_start + kept_b), range(length - 1, length)]
    kept = np.concatenate([np.asarray(part) for part in parts])
    truths = dict(zip(row["masked_lm_positions"], row["masked_lm_ids"], strict=True))
    ids = np.array(row["input_ids"], dtype=np.int64)[kept]
    return ModelInput(
        ids=ids,
        segment_b_start=kept_a + 2,
        words=words_of(model.tokenizer, ids),
        truths={new: truths[int(old)] for new, old in enumerate(kept) if int(old) in truths},
        num_left_out=length - len(kept),
    )


def text_input(model: LoadedModel, text: str, second: str, most: int) -> ModelInput:
    """Return a text, or a pair of texts if the second is not empty. The name of the mask token is the mask.

    Raises:
        ValueError: the first text is empty, or there are more than `most` tokens, or more than the model reads.
    """
    if not text.strip():
        raise ValueError("the text is empty: type a sentence")
    if len(text) + len(second) > MAX_CHARACTERS:
        raise ValueError(
            f"the text has {len(text) + len(second):,} characters, at most {MAX_CHARACTERS:,} are read: give a shorter one"
        )
    tokenizer = model.tokenizer
    first, sep = tokenizer.ids_with_masks(text), np.array([tokenizer.sep_id])
    parts = [np.array([tokenizer.cls_id]), first, sep]
    if second.strip():
        check_pairs(model)
        parts += [tokenizer.ids_with_masks(second), sep]
    ids = np.concatenate(parts).astype(np.int64)
    longest = min(most, model.encoder.config.shape.max_position_embeddings)
    if len(ids) > longest:
        raise ValueError(f"the text has {len(ids):,} tokens, this page shows up to {longest:,}: give a shorter one")
    return ModelInput(ids=ids, segment_b_start=len(first) + 2, words=words_of(tokenizer, ids), truths={})


def check_pairs(model: LoadedModel) -> None:
    """Raise ValueError if a model does not read pairs."""
    if not model.encoder.config.shape.reads_pairs:
        raise ValueError(f"the model in {model.path} has one token type and reads no pairs: give one text")


def words_of(tokenizer: TextTokenizer, ids: I64) -> list[str]:
    """Return the text of each token. A token that is only a part of a character is shown by its name."""
    shown = [tokenizer.shown(int(number)).strip() for number in ids]
    return [
        word if word and "\ufffd" not in word else tokenizer.words[number] for word, number in zip(shown, ids.tolist())
    ]
