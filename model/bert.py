"""BERT's encoder (Devlin et al. 2018) on packed tokens.

Differences from the paper's code and from transformers' BertModel:

- There is no padding. All sequences of a batch are end to end in one flat tensor, and attention stays inside each.
- Query, key and value come from one matrix product (`qkv`). Export splits it; see `model/bert_config.py`.
- GELU is the exact one (erf), as in transformers. The last version of google-research/bert has the tanh approximation.
- The pooler belongs to the heads (`model/heads.py`).

The rest is BERT: post-norm, learned positions, token types, LayerNorm with epsilon 1e-12.

Dimensions in the comments:
    T  real tokens in the batch     N  sequences in the batch    S  tokens of one sequence
    C  hidden_size                  H  num_attention_heads       D  C / H
    V  vocab_size                   F  intermediate_size
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import attention, num_seen
from model.bert_config import BertShape
from model.embedding import Embedding
from model.encoder import Encoder
from model.normalization import build_normalization
from model.packing import PackedSequences
from model.shape import EncoderConfig


class BertEmbeddings(nn.Module):
    """The sum of word, position and token type embeddings, normalised."""

    def __init__(self, shape: BertShape, vocab_size: int) -> None:
        super().__init__()
        self.word_embeddings = Embedding(vocab_size, shape.hidden_size)
        self.position_embeddings = Embedding(shape.max_position_embeddings, shape.hidden_size)
        self.token_type_embeddings = Embedding(shape.type_vocab_size, shape.hidden_size)
        self.norm = build_normalization(shape.normalization, shape.hidden_size, shape.layer_norm_eps)
        self.dropout = nn.Dropout(shape.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Return (T, C) from three (T,)."""
        hidden = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.norm(hidden + self.position_embeddings(position_ids)))


class BertLayer(nn.Module):
    """Self-attention and a feed-forward block, each with its residual and a LayerNorm after it."""

    window: int | None = None
    """A token sees all others of its sequence."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.num_heads = shape.num_attention_heads
        self.attention_dropout = shape.attention_probs_dropout_prob
        self.qkv = nn.Linear(size, 3 * size)
        self.attention_output = nn.Linear(size, size)
        self.attention_norm = build_normalization(shape.normalization, size, shape.layer_norm_eps)
        self.intermediate = nn.Linear(size, shape.intermediate_size)
        self.output = nn.Linear(shape.intermediate_size, size)
        self.output_norm = build_normalization(shape.normalization, size, shape.layer_norm_eps)
        self.dropout = nn.Dropout(shape.hidden_dropout_prob)

    def forward(self, hidden: Tensor, batch: PackedSequences) -> Tensor:
        """Return (T, C) from (T, C)."""
        qkv = self.before_attention(hidden)
        mixed = attention(qkv, batch, self.attention_dropout if self.training else 0.0)  # (T, H, D)
        return self.after_attention(hidden, mixed.reshape(hidden.shape))

    def before_attention(self, hidden: Tensor) -> Tensor:
        """Return queries, keys and values (T, 3, H, D) from (T, C)."""
        T, C = hidden.shape
        return self.qkv(hidden).view(T, 3, self.num_heads, C // self.num_heads)

    def after_attention(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """Return (T, C) from two (T, C): the part of the layer whose cost does not depend on where sequences begin."""
        hidden = self.attention_norm(hidden + self.dropout(self.attention_output(mixed)))
        wide = F.gelu(self.intermediate(hidden))  # (T, F)
        return self.output_norm(hidden + self.dropout(self.output(wide)))


class BertEncoder(Encoder):
    """The encoder: a vector for each token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        assert isinstance(config.shape, BertShape)
        self.shape = config.shape
        self.embeddings = BertEmbeddings(self.shape, config.vocab_size)
        self.layers = nn.ModuleList(BertLayer(self.shape) for _ in range(self.shape.num_hidden_layers))

    def forward(self, batch: PackedSequences) -> Tensor:
        """(T, C)"""
        hidden = self.embeddings(batch.input_ids, batch.token_type_ids, batch.position_ids)
        for layer in self.layers:
            hidden = self.run_block(layer, hidden, batch)
        return hidden

    def forward_flops(self, lengths: np.ndarray) -> int:
        C, F = self.shape.hidden_size, self.shape.intermediate_size
        products = 2 * int(lengths.sum()) * (4 * C * C + 2 * C * F)
        return self.shape.num_hidden_layers * (products + 4 * C * num_seen(lengths))

    def build_norm(self) -> nn.Module:
        return build_normalization(self.shape.normalization, self.shape.hidden_size, self.shape.layer_norm_eps)

    @property
    def is_static(self) -> bool:
        return self.uses_flash

    def regions(self) -> list[tuple[nn.Module, str]]:
        """Whole layers with FlashAttention; else all but attention."""
        part = "forward" if self.uses_flash else "after_attention"
        return [(self.embeddings, "forward"), *((layer, part) for layer in self.layers)]

    def forward_padded(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """(N, S, C)"""
        N, S = input_ids.shape
        hidden = self.embeddings(input_ids, token_type_ids, torch.arange(S, device=input_ids.device)[None])
        is_seen = attention_mask[:, None, None, :].bool()  # (N, 1, 1, S)
        for layer in self.layers:
            assert isinstance(layer, BertLayer)
            qkv = layer.qkv(hidden).view(N, S, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)  # (3, N, H, S, D)
            mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=is_seen)  # (N, H, S, D)
            hidden = layer.after_attention(hidden, mixed.transpose(1, 2).reshape(N, S, -1))
        return hidden
