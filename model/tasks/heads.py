"""Models for fine-tuning: a classifier of texts, of words, or of the first and last token of an answer.

Each is a class of transformers, named by `form`, on packed tokens. Differences: the logits of a text in several windows are
the mean over the windows, and the softmax over the tokens of an answer does not include padding. A model for one task alone
is in the file of that task.

Dimensions in the comments:
    T  real tokens in the batch     N  sequences     I  items     U  targets     L  labels     C  hidden_size
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.encoders import build_encoder
from model.packing import MAX_TOKENS, PackedSequences, pooled
from model.shape import EncoderConfig
from model.tasks.data import TaskBatch


class TaskModel(nn.Module):
    """An encoder, its head for this form, and a classifier."""

    form: str
    """Second part of the class's name in transformers."""
    relates_items: bool = False
    """Whether the losses of an item depend on the other items of the global batch. `forward` then returns a vector (N, C),
    from which `losses` are computed for all items at once."""

    def __init__(self, config: EncoderConfig, num_labels: int) -> None:
        """num_labels: number of outputs of the classifier; 0 for a model without one."""
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config)
        if num_labels:
            self.classifier = nn.Linear(config.shape.hidden_size, num_labels)
        self.head = self.build_head()

    @abstractmethod
    def build_head(self) -> nn.Module:
        """Return the encoder's module before the classifier."""

    @abstractmethod
    def forward(self, batch: TaskBatch) -> Tensor:
        """Return the logits."""

    @abstractmethod
    def losses(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """Return the losses of the targets, from logits in 32 bits: in the shape of `batch.weights`, (U,) for most tasks."""


class SequenceModel(TaskModel):
    """Classes, or a number, for a text or a pair of texts, from the vector of [CLS] or the mean over all tokens."""

    form = "ForSequenceClassification"

    def build_head(self) -> nn.Module:
        return self.encoder.build_sequence_head()

    def forward(self, batch: TaskBatch) -> Tensor:
        """Return logits (I, L)."""
        logits = self.sequence_logits(batch)
        if batch.num_items == len(logits):
            return logits
        sums = logits.new_zeros(batch.num_items, logits.shape[1]).index_add(0, batch.item_of, logits)
        return sums / torch.bincount(batch.item_of, minlength=batch.num_items).unsqueeze(1)

    def sequence_logits(self, batch: TaskBatch) -> Tensor:
        """Return the logits of each sequence, (N, L)."""
        parts = batch.parts(MAX_TOKENS) if batch.num_items == 1 else [batch]
        return torch.cat([self._logits_of(part, in_parts=len(parts) > 1) for part in parts])

    def _logits_of(self, part: PackedSequences, in_parts: bool) -> Tensor:
        """Return (N, L). For a text in several parts, the backward pass reads each part again instead of keeping it."""
        if in_parts and self.training:
            logits = checkpoint(self._read, part, use_reentrant=False)
            assert isinstance(logits, Tensor)
            return logits
        return self._read(part)

    def _read(self, part: PackedSequences) -> Tensor:
        """Return (N, L)."""
        hidden = pooled(self.encoder(part), part, self.config.shape.pooling)  # (N, C)
        return self.classifier(self.head(hidden)).float()

    def losses(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """Return squared errors if the labels are numbers, otherwise cross-entropies."""
        if batch.labels.is_floating_point():
            return (logits.squeeze(1) - batch.labels).square()
        return F.cross_entropy(logits, batch.labels, reduction="none")


class TokenModel(TaskModel):
    """A class for each word, from its first token."""

    form = "ForTokenClassification"

    def build_head(self) -> nn.Module:
        return self.encoder.build_token_head()

    def forward(self, batch: TaskBatch) -> Tensor:
        """Return logits (U, L)."""
        return self.classifier(self.head(self.encoder(batch)[batch.positions])).float()

    def losses(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        return F.cross_entropy(logits, batch.labels, reduction="none")


class SpanModel(TaskModel):
    """The first and the last token of an answer; [CLS] for both if the window has no answer."""

    form = "ForQuestionAnswering"

    def build_head(self) -> nn.Module:
        return self.encoder.build_span_head()

    def forward(self, batch: TaskBatch) -> Tensor:
        """Return logits (T, 2)."""
        return self.classifier(self.head(self.encoder(batch))).float()

    def losses(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """Return the mean of the cross-entropies of the first and the last token, over the tokens of each sequence."""
        rows = nn.utils.rnn.pad_sequence(logits.split(batch.lengths), batch_first=True, padding_value=-torch.inf)
        return F.cross_entropy(rows, batch.labels, reduction="none").mean(1)  # (N, S, 2) and (N, 2)
