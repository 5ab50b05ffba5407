"""span: a question is answered by a part of its context, as in SQuAD 1.1 and 2.0, CMRC 2018 and DRCD.

As in google-research/bert's run_squad.py, each sequence is the question and a window of the context. In windows without the
whole answer, the label is [CLS]. The answer is the best pair of a first and a last token over all windows, where the first
token must be in the window with most context around it. Places count characters (code points) of the context.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.special import softmax

from model.hub.tokenizer import TextTokenizer
from model.tasks.answer_rules import Rules, rules_for, scores
from model.tasks.data import DataBuilder, TaskData, best_windows
from model.tasks.heads import SpanModel
from model.tasks.sequence import ROWS_AT_ONCE
from model.tasks.task import Task, text_of
from model.tasks.values import BadRow, from_cell

NUM_CANDIDATES = 20
"""Number of first and last tokens considered in a window, and of answers kept over all windows; n_best_size of run_squad."""


class SpanRow(NamedTuple):
    """A row of span."""

    place: str
    """Its place in the file, such as "line 3"."""
    id: Any
    """Its `id`, if it has one."""
    question: str
    context: str
    answers: list[tuple[str, int]] | None
    """The true answers and the place in the context where each begins; empty if there is none, None if unknown."""


@dataclass(frozen=True, kw_only=True)
class SpanData(TaskData):
    """Items of span: each is a window."""

    token_places: list[np.ndarray]
    """For each row int32 (tokens of its context, 2), begin and end of each token in the context"""
    windows: np.ndarray
    """int32 (S, 2), begin and end of each sequence's window over the tokens of the context"""


@dataclass(frozen=True, kw_only=True)
class SpanTask(Task[SpanRow]):
    """An answer to each question, as a part of its context."""

    max_answer_length: int = 200
    """Largest length of an answer in characters: that of the longest answer in the training rows."""
    may_be_unanswerable: bool = False
    """Whether the training rows had questions without an answer, so that the model may give none."""
    answer_rules: Rules = "words"
    """Rules of the metrics: SQuAD's by words, or CMRC's by characters for Chinese."""

    name = "span"
    model_class = SpanModel
    metrics = ("f1", "exact_match")
    has_classes = False
    has_two_segments = True
    foreign = {"may_be_unanswerable": True}  # as after SQuAD 2.0

    def __post_init__(self) -> None:
        if self.windowing.max_windows is not None:
            raise ValueError("max_windows: the answer may be anywhere, so the whole context is read: omit it")

    @property
    def num_outputs(self) -> int:
        return 2

    def forms(self, labelled: bool) -> list[tuple[str, ...]]:
        return [("question", "context", "answers") if labelled else ("question", "context")]

    def parse(self, place: str, values: Mapping[str, Any]) -> SpanRow:
        question, context = text_of(values["question"], "question"), text_of(values["context"], "context")
        answers = None
        if "answers" in values:
            is_impossible = parse_bool(values["is_impossible"], "is_impossible")
            answers = [] if is_impossible else answers_of(values["answers"], context)
        return SpanRow(place, values["id"], question, context, answers)

    def label_counts(self, rows: Sequence[SpanRow]) -> Mapping[str, int]:
        return {}

    def learn(self, rows: Sequence[SpanRow]) -> Self:
        first = [row.answers[0][0] for row in rows if row.answers]
        if not first:
            raise ValueError("no question in the training rows has an answer: give rows with answers")
        return replace(
            self,
            max_answer_length=max(map(len, first)),
            may_be_unanswerable=len(first) < len(rows),
            answer_rules=rules_for(first),
        )

    def tokenize(self, rows: Sequence[SpanRow], tokenizer: TextTokenizer) -> SpanData:
        builder = DataBuilder(tokenizer)
        contexts = {context: number for number, context in enumerate(dict.fromkeys(row.context for row in rows))}
        ids, places = read_contexts(list(contexts), tokenizer)
        room = self.windowing.max_seq_length - 3
        labels, windows = [], []
        num_cut = 0
        for start in range(0, len(rows), ROWS_AT_ONCE):
            chunk = rows[start : start + ROWS_AT_ONCE]
            for number, (row, question) in enumerate(zip(chunk, tokenizer.ids([row.question for row in chunk])), start):
                num_cut += len(question) > room // 2
                question = question[: room // 2]
                context = contexts[row.context]
                first, last = answer_tokens(row, places[context])
                for begin, end in self.windowing.windows(len(ids[context]), room - len(question)):
                    builder.add_sequence(question, ids[context][begin:end])
                    builder.add_item(number)
                    windows.append((begin, end))
                    shift = len(question) + 2 - begin
                    labels.append((first + shift, last + shift) if begin <= first and last < end else (0, 0))
        data = builder.build(np.array(labels), num_cut=num_cut)
        return SpanData(
            **vars(data),
            token_places=[places[contexts[row.context]] for row in rows],
            windows=np.array(windows, dtype=np.int32),
        )

    def measure(self, rows: Sequence[SpanRow], data: TaskData, logits: np.ndarray) -> dict[str, float]:
        answers = [answer["answer"] for answer in self.answer(rows, data, logits, 1)]
        pairs = [
            scores(answer, [text for text, _ in row.answers or ()], self.answer_rules)
            for row, answer in zip(rows, answers)
        ]
        exact, f1 = np.array(pairs).mean(0).tolist()
        return {"f1": f1, "exact_match": exact}

    def answer(self, rows: Sequence[SpanRow], data: TaskData, logits: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        assert isinstance(data, SpanData)
        bounds = np.searchsorted(data.row_of, np.arange(len(rows) + 1))  # first item, which is a sequence, of each row
        return [
            self._answer_row(row, data, logits, range(first, last))
            for row, first, last in zip(rows, bounds[:-1].tolist(), bounds[1:].tolist())
        ]

    def _answer_row(self, row: SpanRow, data: SpanData, logits: np.ndarray, sequences: range) -> dict[str, Any]:
        """Return the best answer to a row over its windows."""
        places = data.token_places[data.row_of[sequences[0]]]
        best = best_windows([tuple(data.windows[sequence]) for sequence in sequences], len(places))
        candidates: list[tuple[float, int, int]] = []  # score, first and last character
        no_answer = np.inf
        for window, sequence in enumerate(sequences):
            begin, end = data.windows[sequence]
            part = logits[data.starts[sequence] : data.starts[sequence + 1]].astype(np.float64)  # (tokens, 2)
            no_answer = min(no_answer, part[0].sum())
            shown = part[data.segment_b_start[sequence] :][: end - begin]
            own = np.flatnonzero(best[begin:end] == window)
            starts = own[np.argsort(-shown[own, 0], kind="stable")[:NUM_CANDIDATES]]
            ends = np.argsort(-shown[:, 1], kind="stable")[:NUM_CANDIDATES]
            score = shown[starts, 0][:, None] + shown[ends, 1]  # (20, 20)
            first, last = places[begin + starts, 0][:, None], places[begin + ends, 1]
            fits = (starts[:, None] <= ends) & (last - first <= self.max_answer_length)
            order = np.argsort(np.where(fits, -score, np.inf), axis=None, kind="stable")
            for i, j in zip(*np.unravel_index(order[: min(NUM_CANDIDATES, fits.sum())], fits.shape)):
                candidates.append((score[i, j], int(first[i, 0]), int(last[j])))
        candidates = sorted(candidates, key=lambda candidate: -candidate[0])[:NUM_CANDIDATES]
        if self.may_be_unanswerable or not candidates:
            candidates.append((no_answer, 0, 0))
        chances = softmax(np.array([score for score, _, _ in candidates]))
        chosen = int(chances.argmax())
        _, start, end = candidates[chosen]
        places_found = {"start": start, "end": end} if end else {}
        return {"answer": row.context[start:end], **places_found, "probability": round(float(chances[chosen]), 6)}

    def configuration(self) -> dict[str, Any]:
        content = super().configuration()
        learnt = ("max_answer_length", "may_be_unanswerable", "answer_rules")
        return content | {"bertloom": content["bertloom"] | {name: getattr(self, name) for name in learnt}}


def answers_of(value: Any, context: str) -> list[tuple[str, int]]:
    """Return the true answers to a question; raise BadRow if they are not in the context.

    Answers are a list of objects, as in SQuAD, or an object of two lists ({"text": [], "answer_start": []}), or either as
    JSON in a cell of a table. Two empty lists mean no answer, as in SQuAD 2.0 in columns. An empty list is an error, unless
    the question is marked `is_impossible`.
    """
    value = from_cell(value)
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise BadRow(f"answers is {value!r:.60}, expected lists text and answer_start of the same length")
        found = list(zip(texts, starts))
    elif isinstance(value, list) and all(isinstance(answer, dict) for answer in value):
        found = [(answer.get("text"), answer.get("answer_start")) for answer in value]
        if not found:
            raise BadRow("has no answers and is not marked is_impossible")
    else:
        raise BadRow(f"answers is {value!r:.60}, expected a list of text and answer_start, or that as JSON")
    for text, start in found:
        text_of(text, "an answer")
        if not isinstance(start, int) or isinstance(start, bool):
            raise BadRow(f"answer_start is {start!r:.40}, expected an integer")
        if start < 0 or context[start : start + len(text)] != text:
            place = context.find(text)
            where = f"it begins at {place}" if place >= 0 else "it is not in the context"
            raise BadRow(f"answer {text!r:.40} does not begin at {start} of the context: {where}")
    return found


def parse_bool(value: Any, name: str) -> bool:
    """Return a truth value, also as a table writes it, and False for None; raise BadRow for other values."""
    known = {"": False, "false": False, "0": False, "true": True, "1": True}
    text = "" if value is None else str(value).lower()
    if text not in known:
        raise BadRow(f"{name} is {value!r:.40}, expected true or false")
    return known[text]


def read_contexts(contexts: Sequence[str], tokenizer: TextTokenizer) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the ids of each context, and the places of its tokens, int32 (tokens, 2)."""
    ids, places = [], []
    for start in range(0, len(contexts), ROWS_AT_ONCE):
        for its_ids, its_places in tokenizer.places(contexts[start : start + ROWS_AT_ONCE]):
            ids.append(its_ids)
            places.append(its_places)
    return ids, places


def answer_tokens(row: SpanRow, places: np.ndarray) -> tuple[int, int]:
    """Return the first and the last token of the first true answer; (-1, -1) if there is none."""
    if not row.answers:
        return -1, -1
    text, start = row.answers[0]
    first = int(np.searchsorted(places[:, 1], start, side="right"))
    last = int(np.searchsorted(places[:, 0], start + len(text), side="left")) - 1
    if first > last:
        raise ValueError(f"{row.place}: the answer {text!r:.40} has no tokens: correct it, or remove the row")
    return first, last
