"""What BERT is fine-tuned with: a classifier of whole texts, of words, or of where an answer begins and ends.

Each is the class of transformers that it is named after in `architecture`, on packed tokens; `model/hub/weights.py` has
the names. Differences: a text in several windows has the mean of their logits, and the softmax over the places of an
answer takes in the sequence alone (transformers' takes in the padding too).

Dimensions in the comments:
    T  real tokens in the batch     N  sequences     I  items     U  targets     L  labels     C  hidden_size
"""

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.bert import BertConfig, BertModel
from model.packing import MAX_TOKENS, PackedSequences
from model.tasks.data import TaskBatch


class TaskModel(nn.Module):
    """An encoder and a classifier on it."""

    architecture: str

    def __init__(self, config: BertConfig, num_labels: int) -> None:
        """num_labels: numbers that the classifier gives."""
        super().__init__()
        self.config = config
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, num_labels)

    def encode(self, batch: TaskBatch) -> Tensor:
        """Hidden states (T, C)."""
        return self.bert(batch.input_ids, batch.token_type_ids, batch.position_ids, batch.lengths, batch.cu_seqlens)

    @abstractmethod
    def forward(self, batch: TaskBatch) -> Tensor:
        """Logits."""

    @abstractmethod
    def losses(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """The loss of each target (U,), from logits in 32 bits."""


class SequenceModel(TaskModel):
    """Classes, or a number, for a text or a pair of texts: BERT's pooler and the classifier on it."""

    architecture = "BertForSequenceClassification"

    def __init__(self, config: BertConfig, num_labels: int) -> None:
        super().__init__(config, num_labels)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, batch: TaskBatch) -> Tensor:
        """(I, L)"""
        parts = batch.parts(MAX_TOKENS) if batch.num_items == 1 else [batch]
        logits = torch.cat([self._logits_of(part, in_parts=len(parts) > 1) for part in parts])  # (N, L)
        if batch.num_items == len(logits):
            return logits
        sums = logits.new_zeros(batch.num_items, logits.shape[1]).index_add(0, batch.item_of, logits)
        return sums / torch.bincount(batch.item_of, minlength=batch.num_items).unsqueeze(1)

    def _logits_of(self, part: PackedSequences, in_parts: bool) -> Tensor:
        """(N, L). Of a text in several parts only the logits are kept: for the gradient each part is read again."""
        packed = (part.input_ids, part.token_type_ids, part.position_ids, part.lengths, part.cu_seqlens)
        if in_parts and self.training:
            return checkpoint(self._read, *packed, use_reentrant=False)
        return self._read(*packed)

    def _read(self, *packed: Any) -> Tensor:
        """(N, L) of sequences as BertModel takes them, whose last argument is where they begin."""
        hidden = self.bert(*packed)[packed[-1][:-1]]  # (N, C), of [CLS]
        return self.classifier(self.dropout(torch.tanh(self.pooler(hidden)))).float()

    def losses(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """Squared error where the labels are numbers, else cross-entropy."""
        if batch.labels.is_floating_point():
            return (logits.squeeze(1) - batch.labels).square()
        return F.cross_entropy(logits, batch.labels, reduction="none")


class TokenModel(TaskModel):
    """A class for each word, read at its first token."""

    architecture = "BertForTokenClassification"

    def forward(self, batch: TaskBatch) -> Tensor:
        """(U, L)"""
        return self.classifier(self.dropout(self.encode(batch)[batch.positions])).float()

    def losses(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        return F.cross_entropy(logits, batch.labels, reduction="none")


class SpanModel(TaskModel):
    """Where an answer begins and where it ends; at [CLS], if the window has none."""

    architecture = "BertForQuestionAnswering"

    def forward(self, batch: TaskBatch) -> Tensor:
        """(T, 2)"""
        return self.classifier(self.encode(batch)).float()

    def losses(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """The mean of two cross-entropies, over the tokens of each sequence."""
        rows = nn.utils.rnn.pad_sequence(logits.split(batch.lengths), batch_first=True, padding_value=-torch.inf)
        return F.cross_entropy(rows, batch.labels, reduction="none").mean(1)  # (N, S, 2) and (N, 2)
