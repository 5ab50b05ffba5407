"""embed: texts that belong together have similar vectors, for search.

A row is a pair of texts, such as a query and a text that answers it, perhaps with hard negatives: texts that look like the
answer and are not. In training, each first text must find its partner among the texts of all rows of the batch (InfoNCE,
van den Oord et al. 2018; MultipleNegativesRankingLoss of sentence-transformers). If there are only single texts, each is
read twice with different dropout, and the two vectors belong together (SimCSE, Gao et al. 2021).

A text that answers a query is never a wrong answer: texts of the batch that equal the query, its partner, or the partner of
an equal query are left out of the softmax.

Dimensions in the comments: I items, N texts, M candidates, C hidden_size.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertloom.counts import counted
from model.encoders import names_of
from model.hub.tokenizer import TextTokenizer
from model.packing import pooled
from model.pooling import Pooling, VectorForm
from model.shape import EncoderConfig
from model.tasks.columns import Column
from model.tasks.data import DataBuilder, TaskBatch, TaskData
from model.tasks.heads import TaskModel
from model.tasks.regress import correlations, number_of
from model.tasks.sequence import ROWS_AT_ONCE
from model.tasks.similarity import SEARCH_METRICS, Search, cosines, search_metrics
from model.tasks.task import Task, text_of
from model.tasks.values import BadRow, Parts, from_cell

ANCHOR = Column("anchor", "anchor", "query", "question")
POSITIVE = Column("positive", "positive", "answer", "passage", "document", "context")
NEGATIVES = Column("negatives", "negative", "negatives", parts=r"negative_?\d+")
SCORE = Column("score", "score", "similarity")
PAIRS = [(ANCHOR, POSITIVE, NEGATIVES), (ANCHOR, POSITIVE)]
SCORED = [("text_a", "text_b", SCORE)]
TEXTS = [("text",)]


class EmbedRow(NamedTuple):
    """A row of embed."""

    place: str
    """Its place in the file, such as "line 3"."""
    id: Any
    """Its `id`, if it has one."""
    texts: tuple[str, ...]
    """One text; or two that belong together, or have a score; and the hard negatives of the first one."""
    score: float | None = None
    """How similar two texts are."""


class EmbedModel(TaskModel):
    """The vector of each text."""

    form = "Model"
    relates_items = True

    def __init__(self, config: EncoderConfig, pooling: Pooling, temperature: float) -> None:
        super().__init__(config, 0)
        self.pooling, self.temperature = pooling, temperature

    def build_head(self) -> nn.Module:
        """Return the pooler of transformers' class, which vectors do not use, if it has one."""
        has_pooler = len(names_of(self.config).heads[self.form]) > 0
        return self.encoder.build_sequence_head().requires_grad_(False) if has_pooler else nn.Identity()

    def forward(self, batch: TaskBatch) -> Tensor:
        """Return vectors (N, C)."""
        return pooled(self.encoder(batch).float(), batch, self.pooling)

    def losses(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """Return the cross-entropies (N,) of finding the partner of a text among all texts; 0 if its weight is 0."""
        counts = torch.bincount(batch.item_of, minlength=batch.num_items)
        first = (counts.cumsum(0) - counts)[counts > 1]
        is_first = torch.zeros_like(batch.labels, dtype=torch.bool).index_fill(0, first, True)
        partner = torch.full_like(batch.labels, -1).index_copy(0, first, first + 1).index_copy(0, first + 1, first)
        vectors = F.normalize(logits, dim=1)
        losses = logits.new_zeros(len(logits))
        for queries, is_candidate in ((first, ~is_first), (first + 1, is_first)):
            queries = queries[batch.weights[queries] > 0]
            if len(queries):
                found = self._cross_entropies(vectors, batch.labels, partner, queries, is_candidate.nonzero()[:, 0])
                losses = losses.index_copy(0, queries, found)
        return losses

    def _cross_entropies(
        self, vectors: Tensor, texts: Tensor, partner: Tensor, queries: Tensor, candidates: Tensor
    ) -> Tensor:
        """Return the cross-entropies of finding the partners of the queries among the candidates.

        Args:
            vectors: (N, C), of length 1.
            texts: int64 (N,), the same number for equal texts.
            partner: int64 (N,), the index of the other text of a pair; -1 for a hard negative.
            queries, candidates: their indices.
        """
        scores = vectors[queries] @ vectors[candidates].T / self.temperature  # (I, M)
        own = partner[queries]
        is_own = candidates == own[:, None]
        partner_text = torch.where(partner < 0, -1, texts[partner])
        belongs = (texts[candidates] == texts[queries][:, None]) | (texts[candidates] == texts[own][:, None])
        belongs |= partner_text[candidates] == texts[queries][:, None]
        scores = scores.masked_fill(belongs & ~is_own, -torch.inf)
        return F.cross_entropy(scores, is_own.long().argmax(1), reduction="none")


@dataclass(frozen=True, kw_only=True)
class EmbedTask(Task[EmbedRow]):
    """A vector for each text."""

    pooling: Pooling = "mean"
    """How the vectors of the tokens become that of the text."""
    normalize: bool = True
    """Whether the finished vectors have length 1. The loss compares cosines in any case."""
    temperature: float = 0.05
    """What cosines are divided by in the softmax. SimCSE and sentence-transformers use 0.05."""
    symmetric: bool = False
    """Whether the second text of a pair must also find the first one. The loss is then the mean of both directions."""
    is_of_texts: bool = False
    """Whether the training rows are single texts."""
    is_scored: bool = False
    """Whether the dev rows have scores."""

    name = "embed"
    model_class = EmbedModel
    has_classes = False
    trains_vectors = True
    baselines = ("tf-idf vectors",)
    flags = ("pooling", "normalize", "temperature", "symmetric")

    def __post_init__(self) -> None:
        """Check what a config.json may hold."""
        VectorForm(pooling=self.pooling, normalize=self.normalize, max_seq_length=self.windowing.max_seq_length)
        if not isinstance(self.temperature, int | float) or not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature!r:.40} must be above 0, such as 0.05")
        for name in ("normalize", "symmetric"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r:.40}, expected true or false")
        for name in ("stride", "max_windows"):
            if (value := getattr(self.windowing, name)) is not None:
                raise ValueError(f"{name}={value}: embed reads the beginning of a text and no windows: leave it out")

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("spearman", "pearson") if self.is_scored else SEARCH_METRICS

    @property
    def vectors(self) -> VectorForm:
        return VectorForm(pooling=self.pooling, normalize=self.normalize, max_seq_length=self.windowing.max_seq_length)

    def build_model(self, config: EncoderConfig) -> EmbedModel:
        if self.is_of_texts and all(getattr(config.shape, name) == 0 for name in config.shape.hidden_dropouts):
            raise ValueError(
                "dropout=0: the training rows are single texts, and only dropout makes their two vectors differ: give "
                "--dropout 0.1, or rows of two texts"
            )
        return EmbedModel(config, self.pooling, self.temperature)

    def forms(self, labelled: bool) -> Sequence[Sequence[str]]:
        return [*PAIRS, *SCORED, *TEXTS] if labelled else TEXTS

    def parse(self, place: str, values: Mapping[str, Any]) -> EmbedRow:
        return parse_row(place, values)

    def label_counts(self, rows: Sequence[EmbedRow]) -> Mapping[str, int]:
        return {}

    def learn(self, rows: Sequence[EmbedRow]) -> Self:
        if rows[0].score is not None:
            raise ValueError(
                "the training rows have scores, which embed does not learn from: give pairs that belong together (anchor "
                "and positive), or single texts; rows with scores are for --dev"
            )
        return replace(self, is_of_texts=len(rows[0].texts) == 1)

    def learn_dev(self, rows: Sequence[EmbedRow]) -> Self:
        if len(rows[0].texts) == 1:
            raise ValueError(
                "the dev rows are single texts, which show nothing about vectors: give pairs that belong together (anchor "
                "and positive), or two texts with a score"
            )
        return replace(self, is_scored=rows[0].score is not None)

    def tokenize(self, rows: Sequence[EmbedRow], tokenizer: TextTokenizer) -> TaskData:
        builder = DataBuilder(tokenizer)
        room = self.windowing.max_seq_length - 2
        numbers: dict[str, int] = {}
        labels: list[int] = []
        weights: list[float] = []
        num_cut = 0
        for start in range(0, len(rows), ROWS_AT_ONCE):
            chunk = [
                row.texts * 2 if self.is_of_texts and len(row.texts) == 1 else row.texts
                for row in rows[start : start + ROWS_AT_ONCE]
            ]
            ids = iter(tokenizer.ids([text for texts in chunk for text in texts]))
            for number, texts in enumerate(chunk, start):
                own = [next(ids) for _ in texts]
                for part in own:
                    builder.add_sequence(part[:room])
                builder.add_item(number, num_targets=len(own))
                num_cut += max(map(len, own)) > room
                labels += [numbers.setdefault(text, len(numbers)) for text in texts]
                pair = (0.5, 0.5) if self.symmetric else (1.0, 0.0)
                is_learned = len(texts) > 1 and rows[number].score is None
                weights += [*pair, *[0.0] * (len(texts) - 2)] if is_learned else [0.0] * len(texts)
        data = builder.build(np.array(labels), num_cut=num_cut)
        return replace(data, weights=np.array(weights, dtype=np.float32))

    def remarks(self, data: TaskData) -> list[str]:
        if self.is_of_texts:
            return ["the rows are single texts: each is read twice, with different dropout"]
        second = data.labels[data.target_starts[:-1] + 1]
        shared = int((np.bincount(second)[second] > 1).sum())
        if not shared:
            return []
        return [
            f"{counted(shared, 'row')} of {len(second):,} {'has' if shared == 1 else 'have'} the positive of another row, "
            f"too: equal texts are never wrong answers to each other"
        ]

    def check_batches(self, data: TaskData, batch_size: int) -> None:
        if np.diff(data.item_starts).max() > 2:
            return  # hard negatives
        first = data.item_starts[:-1]
        number = min(len(np.unique(data.labels[places])) for places in (first, first + 1))
        if number == 1:
            raise ValueError(
                f"{counted(data.num_items, 'training row')} with one text, or one anchor or positive, in all of them: no "
                f"text is a wrong one, so there is nothing to learn; give more rows, or rows with a negative"
            )
        if batch_size == 1:
            raise ValueError(
                "batch_size=1: a text is compared with the other texts of its batch, and there are none: give 2 or more, "
                "such as 256, or rows with a negative"
            )

    def logits_of(self, found: np.ndarray, data: TaskData) -> np.ndarray:
        """`found` are vectors (N, C) of another kind."""
        return found

    def measure(self, rows: Sequence[EmbedRow], data: TaskData, logits: np.ndarray) -> dict[str, float]:
        first = data.item_starts[:-1]
        if self.is_scored:
            scores = np.array([row.score for row in rows])
            return dict(sorted(correlations(scores, cosines(logits[first], logits[first + 1])).items(), reverse=True))
        others = np.delete(np.arange(logits.shape[0]), first)
        _, query_places, query_of = np.unique(data.labels[first], return_index=True, return_inverse=True)
        known, text_places = np.unique(data.labels[others], return_index=True)
        relevant: list[dict[int, float]] = [{} for _ in query_places]
        for query, text in zip(query_of.tolist(), np.searchsorted(known, data.labels[first + 1]).tolist()):
            relevant[query][text] = 1.0
        search = Search(logits[first[query_places]])
        search.add(logits[others[text_places]])
        return search_metrics(search.best, relevant)

    def answer(self, rows: Sequence[EmbedRow], data: TaskData, logits: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        vectors = torch.from_numpy(logits[data.item_starts[:-1]])
        return [{"vector": vector} for vector in (F.normalize(vectors, dim=1) if self.normalize else vectors).tolist()]

    def configuration(self) -> dict[str, Any]:
        content = super().configuration()
        return content | {"bertloom": content["bertloom"] | {name: getattr(self, name) for name in self.flags}}


def parse_row(place: str, values: Mapping[str, Any]) -> EmbedRow:
    """Return a row from its values by purpose; raise BadRow if they are unusable."""
    if "text" in values:
        return EmbedRow(place, values["id"], (text_of(values["text"], "text"),))
    if "score" in values:
        texts = tuple(text_of(values[name], name) for name in ("text_a", "text_b"))
        return EmbedRow(place, values["id"], texts, number_of(values["score"], "score"))
    if values.get("is_impossible") in (True, "true"):
        raise BadRow("is_impossible is true: the context does not answer the question")
    pair = tuple(text_of(values[name], name) for name in ("anchor", "positive"))
    negatives = texts_of(values.get("negatives"), "a negative")
    if same := set(pair) & set(negatives):
        raise BadRow(f"a negative is also the anchor or the positive: {same.pop()!r:.60}")
    return EmbedRow(place, values["id"], (*pair, *negatives))


def texts_of(value: Any, name: str) -> tuple[str, ...]:
    """Return the texts in a list, in columns, in a list as JSON in a cell of a table, or one text.

    Empty ones are left out. `name` is what a text is, for errors.
    """
    found = list(value.values()) if isinstance(value, Parts) else from_cell(value)
    texts = found if isinstance(found, list) else [value]
    return tuple(text_of(text, name) for text in texts if text not in (None, ""))
