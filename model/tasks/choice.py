"""choice: one of several endings of a context is right, as in SWAG, RACE and C3 (section 4.4 of the BERT paper).

Each ending is read in a sequence of its own, [CLS] context [SEP] ending [SEP], as segments A and B. A question, or the
beginning of a sentence, comes before the ending; if it has one blank (`_`), the ending fills it. The score of an ending is a
single number, and the probabilities are a softmax over the endings of a row. Rows may have different numbers of endings. In
a sequence that is too long, the longer segment is cut: the context at its end; the other one first at its beginning, as far
as all endings of the row share it, so that a long question does not push out the endings.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import Tensor, nn

from bertloom.counts import counted
from model.hub.tokenizer import TextTokenizer
from model.tasks.columns import Column
from model.tasks.data import DataBuilder, TaskBatch, TaskData
from model.tasks.heads import SequenceModel
from model.tasks.sequence import ROWS_AT_ONCE, cut_pair, refuse_windows
from model.tasks.task import PooledTask, text_of
from model.tasks.values import BadRow, ClassName, Parts, from_cell

CONTEXT = Column("context", "context", "article", "sent1", "passage", "ctx", "premise")
QUESTION = Column("question", "question", "sent2")
ENDINGS = Column("endings", "endings", "options", "choices", "choice", parts=r"(ending|option|choice)_?\d+")
ANSWER = Column("answer", "answer", "label")
BLANK = re.compile(r"(?<![A-Za-z0-9])_+|_+(?![A-Za-z0-9])")
"""A place in a question that the ending fills; not the sign inside a name, as in max_len."""
KINDS = ("text", "letter", "number")
"""What an answer may be; of several that fit all rows the first one is meant."""


class ChoiceRow(NamedTuple):
    """A row of choice."""

    place: str
    """Its place in the file, such as "line 3"."""
    id: Any
    """Its `id`, if it has one."""
    context: str
    question: str | None
    endings: list[str]
    answer: int | str | None
    """The right ending as the row writes it: its number from 0, its letter or its text; None if it is not known."""


class ChoiceModel(SequenceModel):
    """A score for each ending."""

    form = "ForMultipleChoice"

    def forward(self, batch: TaskBatch) -> Tensor:
        """Return logits (N,)."""
        return self.sequence_logits(batch).squeeze(1)

    def losses(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """Return the cross-entropies (I,) of the right endings."""
        counts = torch.bincount(batch.item_of, minlength=batch.num_items).tolist()
        rows = nn.utils.rnn.pad_sequence(logits.split(counts), batch_first=True, padding_value=-torch.inf)
        return F.cross_entropy(rows, batch.labels, reduction="none")


@dataclass(frozen=True, kw_only=True)
class ChoiceTask(PooledTask[ChoiceRow]):
    """The right ending of each context."""

    answer_kind: str | None = None
    """What the answers of the training rows are, one of KINDS; None before `learn`."""

    name = "choice"
    model_class = ChoiceModel
    metrics = ("accuracy",)
    has_classes = False
    has_two_segments = True
    written = (ANSWER,)
    baselines = ("majority", "closest ending")
    foreign = {"answer_kind": "number"}

    def __post_init__(self) -> None:
        if self.answer_kind not in (None, *KINDS):
            raise ValueError(f"answer_kind is {self.answer_kind!r:.40}, expected one of {', '.join(KINDS)}")
        refuse_windows(self.windowing, self.name, "context and ending")

    @property
    def num_outputs(self) -> int:
        return 1

    def forms(self, labelled: bool) -> list[tuple[str, ...]]:
        forms: list[tuple[str, ...]] = [(CONTEXT, QUESTION, ENDINGS), (CONTEXT, ENDINGS)]
        return [(*form, ANSWER) for form in forms] if labelled else forms

    def parse(self, place: str, values: Mapping[str, Any]) -> ChoiceRow:
        context = values["context"]
        if isinstance(context, list):
            context = "\n".join(text_of(turn, "a turn of context") for turn in context)
        question = values.get("question")
        endings = [text_of(ending, "an ending").strip() for ending in endings_of(values["endings"])]
        if len(endings) < 2:
            raise BadRow(f"has {counted(len(endings), 'ending')}, expected at least two")
        row = ChoiceRow(
            place=place,
            id=values["id"],
            context=text_of(context, "context"),
            question=None if question is None or question == "" else text_of(question, "question"),
            endings=endings,
            answer=answer_of(values["answer"]) if "answer" in values else None,
        )
        if row.answer is not None:
            self._check_answer(row)
        return row

    def _check_answer(self, row: ChoiceRow) -> None:
        """Raise BadRow if the answer of a row is none of its endings."""
        found = readings(row)
        if not found or self.answer_kind not in (None, *found):
            last = len(row.endings) - 1
            letters = f"a letter from A to {chr(ord('A') + min(last, 25))}"
            expected = {"number": f"a number from 0 to {last}", "letter": letters, "text": "the text of one"}
            wanted = [expected[kind] for kind in KINDS[::-1] if self.answer_kind in (None, kind)]
            like = ", as in the training rows" if self.answer_kind else ""
            advice = "; if the answers count from 1, subtract 1" if str(row.answer) == str(len(row.endings)) else ""
            raise BadRow(
                f"answer is {row.answer!r:.60}, but there are {len(row.endings)} endings: expected "
                f"{' or '.join(wanted)}{like}{advice}"
            )

    def label_counts(self, rows: Sequence[ChoiceRow]) -> Mapping[str, int]:
        return {}

    def learn(self, rows: Sequence[ChoiceRow]) -> Self:
        possible = set(KINDS)
        for row in rows:
            if not (common := possible & set(readings(row))):
                raise ValueError(
                    f"{row.place} of the training rows has the answer {row.answer!r:.40}, but the rows before it have a "
                    f"{' or a '.join(sorted(possible))}, such as {rows[0].answer!r:.40}: write all answers in one way"
                )
            possible = common
        return replace(self, answer_kind=next(kind for kind in KINDS if kind in possible))

    def tokenize(self, rows: Sequence[ChoiceRow], tokenizer: TextTokenizer) -> TaskData:
        builder = DataBuilder(tokenizer)
        room = self.windowing.max_seq_length - 3
        num_cut = 0
        for start in range(0, len(rows), ROWS_AT_ONCE):
            chunk = rows[start : start + ROWS_AT_ONCE]
            contexts = tokenizer.ids([row.context for row in chunk])
            seconds = iter(tokenizer.ids([second_text(row, ending) for row in chunk for ending in row.endings]))
            for number, (row, context) in enumerate(zip(chunk, contexts), start):
                second = [next(seconds) for _ in row.endings]
                num_cut += len(context) + max(map(len, second)) > room
                for parts in cut_row(context, second, room):
                    builder.add_sequence(*parts)
                builder.add_item(number)
        labels = [0 if row.answer is None else readings(row)[str(self.answer_kind)] for row in rows]
        return builder.build(np.array(labels), num_cut=num_cut)

    def logits_of(self, found: np.ndarray, data: TaskData) -> np.ndarray:
        """`found` are numbers of endings (I,); a number above a row's last one is the last."""
        logits = np.zeros(data.item_starts[-1])
        logits[np.minimum(data.item_starts[:-1] + found, data.item_starts[1:] - 1)] = 1
        return logits

    def measure(self, rows: Sequence[ChoiceRow], data: TaskData, logits: np.ndarray) -> dict[str, float]:
        best = np.array([scores.argmax() for scores in scores_of(data, logits)])
        return {"accuracy": float((best == data.labels).mean())}

    def answer(self, rows: Sequence[ChoiceRow], data: TaskData, logits: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        answers = []
        for row, scores in zip(rows, scores_of(data, logits)):
            chances = softmax(scores.astype(np.float64))
            answers.append(
                {
                    "answer": self.written_answer(row, int(chances.argmax())),
                    "probabilities": chances.round(6).tolist(),
                }
            )
        return answers

    def written_answer(self, row: ChoiceRow, number: int) -> int | str:
        """Return the ending of this number in the form of the answers of the training rows."""
        if self.answer_kind == "text":
            return row.endings[number]
        return letter_of(number) if self.answer_kind == "letter" and number < 26 else number

    def configuration(self) -> dict[str, Any]:
        content = super().configuration()
        return content | {"bertloom": content["bertloom"] | {"answer_kind": self.answer_kind}}


def endings_of(value: Any) -> list[Any]:
    """Return the endings of a list, of columns, or of a list as JSON in a cell of a table."""
    if isinstance(value, Parts):  # a row with fewer endings leaves the last columns empty
        found = list(value.values())
        while found and found[-1] in (None, ""):
            found.pop()
        return found
    found = from_cell(value)
    if not isinstance(found, list):
        raise BadRow(f"endings is {value!r:.60}, expected a list, or a column for each: --columns endings=A,B,…")
    return found


def answer_of(value: Any) -> int | str:
    """Return an answer as a number or a string; raise BadRow if it is neither."""
    if isinstance(value, ClassName):
        return value.number
    if isinstance(value, str) and value.strip():
        return value.strip()
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise BadRow(f"answer is {value!r:.40}, expected the number of the right ending, its letter or its text")


def readings(row: ChoiceRow) -> dict[str, int]:
    """Return the number of the ending that the answer of a row stands for, if it is a text, a letter or a number.

    >>> readings(ChoiceRow("line 1", None, "1 + 1 is", None, ["0", "1", "2"], "2"))
    {'text': 2, 'number': 2}
    """
    if isinstance(row.answer, int):
        return {"number": row.answer} if 0 <= row.answer < len(row.endings) else {}
    numbers = range(len(row.endings))
    forms = {
        "text": row.endings,
        "letter": [letter_of(number) for number in numbers[:26]],
        "number": [str(number) for number in numbers],
    }
    return {kind: written.index(row.answer) for kind, written in forms.items() if row.answer in written}


def letter_of(number: int) -> str:
    """Return the letter of an ending: A for 0."""
    return chr(ord("A") + number)


def second_text(row: ChoiceRow, ending: str) -> str:
    """Return the text of segment B for an ending.

    >>> row = ChoiceRow("line 1", None, "Anna is tired.", "She went to _ .", ["bed", "work"], None)
    >>> second_text(row, "bed"), second_text(row._replace(question="Why?"), "It is late.")
    ('She went to bed .', 'Why? It is late.')
    """
    if row.question is None:
        return ending
    parts = BLANK.split(row.question)
    return ending.join(parts) if len(parts) == 2 else f"{row.question} {ending}"


def cut_row(context: np.ndarray, seconds: Sequence[np.ndarray], room: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the segments A and B of each ending, with at most `room` tokens together.

    >>> cut_row(np.array([1]), [np.array([5, 6, 7, 8]), np.array([5, 6, 9, 9])], room=4)
    [(array([1]), array([6, 7, 8])), (array([1]), array([6, 9, 9]))]
    """
    shortest = min(map(len, seconds))
    differs = np.any([second[:shortest] != seconds[0][:shortest] for second in seconds], axis=0)
    num_shared = int(np.append(differs, True).argmax())
    found = []
    for second in seconds:
        first, kept = cut_pair(context, second, room)
        begin = min(len(second) - len(kept), num_shared)
        found.append((first, second[begin : begin + len(kept)]))
    return found


def scores_of(data: TaskData, logits: np.ndarray) -> Iterator[np.ndarray]:
    """Return the scores of the endings of each row."""
    return iter(np.split(logits, data.item_starts[1:-1]))
