"""tag: each word of a text has a class, such as named entities or parts of speech.

The class of a word is predicted from its first token. A long text is read in windows, and each word is predicted in the
window with most context around it.
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from bertloom.counts import counted
from model.hub.tokenizer import TextTokenizer
from model.tasks.data import DataBuilder, TaskData, best_windows
from model.tasks.entities import entities, entity_scores, has_entities
from model.tasks.heads import TokenModel
from model.tasks.sequence import ROWS_AT_ONCE
from model.tasks.task import Task, label_of, string_of, text_of
from model.tasks.values import BadRow

CHINESE = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"

LETTER = rf"[^\W{CHINESE}]"
RUN = f"{LETTER}+(?:\u0301+{LETTER}*)*"
WORD = re.compile(rf"{RUN}|[{CHINESE}]\u0301*|\u0301+(?:{RUN})?|[^\w\s\u200b]\u0301*")
"""The words of a text in which U+0301 stands for all joined characters."""


@functools.cache
def joined_characters() -> dict[int, str]:
    """Return a table that replaces what belongs to the character before it by U+0301: marks and format characters.

    They are vowel signs, accents, joiners and the like (rule WB4 of Unicode's UAX 29). The zero-width space separates words,
    as it does in Thai and Khmer.
    """
    codes = (*range(0x20000), *range(0xE0000, 0xE0200))  # no other code points are joined
    kinds = ("Mn", "Mc", "Me", "Cf")
    return {code: "\u0301" for code in codes if unicodedata.category(chr(code)) in kinds and code != 0x200B}


def words_in(text: str) -> list[tuple[int, int]]:
    """Return the begin and the end of each word of a text that is not given as words.

    As in BERT's tokenizer, each Chinese character is a word, and so is each sign. A word has a visible character.

    >>> words_in("राम हैं।"), words_in("北京 2024")
    ([(0, 3), (4, 7), (7, 8)], [(0, 1), (1, 2), (3, 7)])
    """
    places = [match.span() for match in WORD.finditer(text.translate(joined_characters()))]
    return [(begin, end) for begin, end in places if any(map(str.isprintable, text[begin:end]))]


class TagRow(NamedTuple):
    """A row of tag."""

    place: str
    """Its place in the file, such as "line 3"."""
    id: Any
    """Its `id`, if it has one."""
    tokens: list[str]
    """The words."""
    places: list[tuple[int, int]] | None
    """Begin and end of each word in the text, if the row was a text."""
    tags: list[str] | None
    """The class of each word; None if unknown."""


@dataclass(frozen=True, kw_only=True)
class TagTask(Task[TagRow]):
    """A class for each word."""

    name = "tag"
    model_class = TokenModel
    written = ("tags",)
    baselines = ("majority", "word memory")

    def __post_init__(self) -> None:
        if self.windowing.max_windows is not None:
            raise ValueError("max_windows: every word gets a tag, so the whole text is read: omit it")

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("f1", "precision", "recall", "accuracy") if has_entities(self.labels) else ("accuracy", "macro_f1")

    def forms(self, labelled: bool) -> list[tuple[str, ...]]:
        return [("tokens", "tags")] if labelled else [("tokens",), ("text",)]

    def parse(self, place: str, values: Mapping[str, Any]) -> TagRow:
        if "text" in values:
            text = text_of(values["text"], "text")
            places = words_in(text)
            return TagRow(place, values["id"], [text[begin:end] for begin, end in places], places, None)
        tokens = [string_of(token, "a token") for token in words_of(values["tokens"], "tokens")]
        if not tokens:
            raise BadRow("has no tokens")
        tags = None
        if "tags" in values:
            tags = [label_of(tag, "a tag") for tag in words_of(values["tags"], "tags")]
            if len(tags) != len(tokens):
                raise BadRow(f"has {counted(len(tokens), 'token')} and {counted(len(tags), 'tag')}")
            for tag in tags:
                self.check_label(tag)
        return TagRow(place, values["id"], tokens, None, tags)

    def label_counts(self, rows: Sequence[TagRow]) -> Mapping[str, int]:
        return Counter(tag for row in rows for tag in row.tags or ())

    def tokenize(self, rows: Sequence[TagRow], tokenizer: TextTokenizer) -> TaskData:
        builder = DataBuilder(tokenizer)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            chunk = [row.tokens for row in rows[start : start + ROWS_AT_ONCE]]
            for number, (ids, words) in enumerate(tokenizer.word_ids(chunk), start):
                windows = self.windowing.windows(len(ids), self.windowing.max_seq_length - 2)
                best = best_windows(windows, len(ids))[words]
                for window, (begin, end) in enumerate(windows):
                    positions = words[best == window] - begin + 1  # after [CLS]
                    if len(positions):
                        builder.add_sequence(ids[begin:end])
                        builder.add_item(number, len(positions), positions)
        ids_of = {label: number for number, label in enumerate(self.labels)}
        labels = [ids_of[tag] for row in rows for tag in row.tags or ()]
        return builder.build(np.array(labels or [0] * sum(len(row.tokens) for row in rows)))

    def measure(self, rows: Sequence[TagRow], data: TaskData, logits: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import accuracy_score, f1_score

        predicted = logits.argmax(1)
        accuracy = {"accuracy": float(accuracy_score(data.labels, predicted))}
        if not has_entities(self.labels):
            return accuracy | {"macro_f1": float(f1_score(data.labels, predicted, average="macro", zero_division=0))}
        found = [[self.labels[number] for number in part] for part in per_row(rows, predicted)]
        return entity_scores([row.tags or [] for row in rows], found) | accuracy

    def answer(self, rows: Sequence[TagRow], data: TaskData, logits: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        answers = []
        for row, chances in zip(rows, per_row(rows, softmax(logits.astype(np.float64), axis=1))):
            tags = [self.labels[number] for number in chances.argmax(1)]
            answer: dict[str, Any] = {
                "tokens": row.tokens,
                "tags": tags,
                "probabilities": chances.max(1).round(6).tolist(),
            }
            if row.places is not None and has_entities(self.labels):
                found = [(kind, row.places[begin][0], row.places[end - 1][1]) for kind, begin, end in entities(tags)]
                answer["entities"] = [{"kind": kind, "start": start, "end": end} for kind, start, end in found]
            answers.append(answer)
        return answers

    def cells(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        return {name: answer[name] for name in ("tokens", "tags")}  # the words, too, for rows that are texts


def per_row(rows: Sequence[TagRow], values: np.ndarray) -> Iterator[np.ndarray]:
    """Return the values of each row, from one value for each word of all rows."""
    ends = np.cumsum([len(row.tokens) for row in rows])
    return iter(np.split(values, ends[:-1]))


def words_of(value: Any, name: str) -> Sequence[Any]:
    """Return the words of a list, or of a string with spaces between words; raise BadRow for other values."""
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, list):
        raise BadRow(f"{name} is {value!r:.40}, expected a list of words, or words with spaces between them")
    return value
