"""The heads of pretraining, a masked language model and next sentence prediction, and the model that is pretrained.

Differences from transformers' BertForPreTraining:

- The vocabulary-wide decoder runs on the masked positions only. At 15 % of the tokens this is the largest saving there
  is, and it changes no number.
- Both losses are sums divided by counts that the caller gives, those of the *global* batch. So gradients do not depend
  on how that batch is cut into parts.

Dimensions in the comments:
    T  real tokens in the batch     N  sequences     M  masked positions     C  hidden_size     V  vocab_size
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.batch import PackedBatch
from model.encoder import Encoder
from model.encoders import build_encoder
from model.losses import word_losses
from model.shape import EncoderConfig

VOCABULARY_MULTIPLE = 64
"""The compute copy's number of words is a multiple of this, as fast matrix products need."""


class PretrainingOutput(NamedTuple):
    """Losses and counts of one batch. All are on the model's device, and none forces a GPU sync."""

    loss: Tensor
    """This batch's share of the global batch's MLM loss + NSP loss; call backward on it."""
    mlm_loss_sum: Tensor
    """Sum of the cross-entropies of masked positions, in nats, without gradient."""
    mlm_correct: Tensor
    """Number of masked positions whose most likely word is the true one."""
    nsp_loss_sum: Tensor
    """Sum of the cross-entropies of pairs, in nats, without gradient."""
    nsp_correct: Tensor
    """Number of pairs whose label was predicted."""
    mlm_loss_by_source: Tensor
    """float64 (number of sources,), the part of `mlm_loss_sum` of each data set of a mixture"""

    def metrics(self) -> Tensor:
        """Return the sums and numbers, float64 (4 + number of sources,)."""
        totals = torch.stack([value.double() for value in self[1:5]])
        return torch.cat([totals, self.mlm_loss_by_source]) if len(self.mlm_loss_by_source) else totals


class MaskedLanguageModelHead(nn.Module):
    """Dense, GELU, normalisation, then the word embeddings as decoder, with one bias per word."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        size = encoder.config.shape.hidden_size
        self.dense = nn.Linear(size, size, bias=encoder.has_biases)
        self.norm = encoder.build_norm()
        self.bias = nn.Parameter(torch.zeros(encoder.config.vocab_size))

    def forward(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        """Return logits (M, V) from hidden states (M, C) and the tied weight (V, C)."""
        return F.linear(self.transform(hidden), word_embeddings, self.bias)

    def transform(self, hidden: Tensor) -> Tensor:
        """Return the decoder's inputs (M, C) from hidden states (M, C)."""
        return self.norm(F.gelu(self.dense(hidden)))


class NextSentenceHead(nn.Module):
    """BERT's pooler (dense and tanh on [CLS]) and the classifier on it: class 0 = B follows A, 1 = B is random."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.pooler = nn.Linear(hidden_size, hidden_size)
        self.classifier = nn.Linear(hidden_size, 2)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits (N, 2) from the hidden states (N, C) of [CLS]."""
        return self.classifier(torch.tanh(self.pooler(hidden)))


class PretrainingModel(nn.Module):
    """An encoder with both heads."""

    form = "ForPreTraining"
    """Second part of the name of its class in transformers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config)
        self.mlm = MaskedLanguageModelHead(self.encoder)
        self.nsp = NextSentenceHead(config.shape.hidden_size)

    @property
    def trains_pairs(self) -> bool:
        """Whether the head for pairs is trained. If not, it does not run in training."""
        return any(parameter.requires_grad for parameter in self.nsp.parameters())

    def logits(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Return the logits of words at the masked positions (M, V) and of pairs (N, 2)."""
        hidden = self.encoder(batch)  # (T, C)
        words = self.mlm(hidden[batch.masked_positions], self.encoder.word_embeddings)
        return words, self.pair_logits(batch, hidden)

    @torch.no_grad()
    def pad_vocabulary(self) -> None:
        """Add words that no text has and that are never predicted, so that the decoder's size is a multiple of 64.

        Tensor cores multiply matrices of other sizes more slowly. The new words have embeddings of 0 and a bias of minus
        infinity: their probability is 0, and so is their gradient.
        """
        embeddings, bias = self.encoder.word_embeddings, self.mlm.bias
        missing = -len(bias) % VOCABULARY_MULTIPLE
        embeddings.data = F.pad(embeddings.data, (0, 0, 0, missing))
        bias.data = F.pad(bias.data, (0, missing), value=-math.inf)

    def step_flops(self, lengths: np.ndarray, num_masked: int, num_pairs: int) -> int:
        """Return the floating-point operations of one update, counted from its shapes.

        Only matrix products count, forward once and backward twice; recomputed activations do not.

        Args:
            lengths: real tokens of each example.
            num_masked: positions that the head for masked words runs on.
            num_pairs: examples that the head for pairs runs on.
        """
        C, V = self.config.shape.hidden_size, self.config.vocab_size
        heads = 2 * num_masked * (C * C + C * V) + 2 * num_pairs * (C * C + 2 * C)
        return 3 * (self.encoder.forward_flops(lengths) + heads)

    def pair_logits(self, batch: PackedBatch, hidden: Tensor) -> Tensor:
        """Return the logits of pairs (N, 2) from hidden states (T, C)."""
        return self.nsp(hidden[batch.cu_seqlens[:-1]])

    def forward(
        self, batch: PackedBatch, num_masked: int | Tensor, num_pairs: int | Tensor, num_sources: int = 0
    ) -> PretrainingOutput:
        """Return the losses of one batch.

        Args:
            batch: on the model's device. A next_sentence_label of -1 (no pair) does not count in the NSP loss.
            num_masked: masked positions in the global batch, at least 1; divides the MLM loss. `batch` may be a part of
                the global batch.
            num_pairs: pairs in the global batch, labelled 0 or 1; divides the NSP loss. If it is the number 0, the NSP
                head does not run and its weights get no gradient.
            num_sources: data sets of the mixture that the batch is from; 0 if it is from one data set.
        """
        hidden = self.encoder(batch)  # (T, C)
        mlm_loss, mlm_correct, losses = self.word_losses(hidden[batch.masked_positions], batch.masked_ids)
        loss = mlm_loss / num_masked
        nsp_loss, nsp_correct = torch.zeros_like(mlm_loss), torch.zeros_like(mlm_loss)
        if isinstance(num_pairs, Tensor) or num_pairs:  # the value of a tensor would need a sync
            labels = batch.next_sentence_label
            pair_logits = self.pair_logits(batch, hidden)
            nsp_loss = F.cross_entropy(pair_logits.float(), labels, ignore_index=-1, reduction="sum")
            nsp_correct = (pair_logits.argmax(-1) == labels).sum()
            loss = loss + nsp_loss / num_pairs
        return PretrainingOutput(
            loss=loss,
            mlm_loss_sum=mlm_loss.detach(),
            mlm_correct=mlm_correct,
            nsp_loss_sum=nsp_loss.detach(),
            nsp_correct=nsp_correct,
            mlm_loss_by_source=sums_by_source(batch, losses, num_sources),
        )

    def word_losses(self, hidden: Tensor, masked_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the results of `model.losses.word_losses` from hidden states (M, C) at masked positions."""
        return word_losses(self.mlm.transform(hidden), self.encoder.word_embeddings, self.mlm.bias, masked_ids)


def sums_by_source(batch: PackedBatch, losses: Tensor, num_sources: int) -> Tensor:
    """Return the sum of the losses (M,) of masked positions from each source, float64 (num_sources,).

    The order of addition is fixed, so the sums are the same bits in each run. A loss that is not finite stays in the sum
    of its own source.
    """
    if not num_sources:
        return losses.new_zeros(0, dtype=torch.float64)
    assert batch.sources is not None
    example = torch.searchsorted(batch.cu_seqlens[1:], batch.masked_positions.int(), right=True)  # (M,)
    source = batch.sources[example]
    is_of = source[:, None] == torch.arange(num_sources, device=source.device)  # (M, num_sources)
    return losses.double()[:, None].where(is_of, 0.0).sum(0)


def expected_tensors(config: EncoderConfig) -> dict[str, Tensor]:
    """Return the tensors of a pretraining model of this configuration, with names and shapes but no memory."""
    with torch.device("meta"):
        return PretrainingModel(config).state_dict()
