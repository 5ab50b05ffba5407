"""ModernBERT's encoder (Warner et al. 2024) on packed tokens.

Differences from the paper's code and from transformers' ModernBertModel:

- There is no padding, as in `model/bert.py`. The sines and cosines of rotary positions always have 32 bits.
- Segment B has no token type: [SEP] alone separates two texts.

The rest is ModernBERT: pre-norm and no biases, rotary positions, a gated feed-forward block (GeGLU), and attention within a
window of 128 tokens, except in every third layer. The first layer has no norm before attention, because the embeddings have
one.

Dimensions in the comments:
    T  real tokens in the batch     N  sequences in the batch    S  tokens of one sequence
    C  hidden_size                  H  num_attention_heads       D  C / H
    V  vocab_size                   F  intermediate_size
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import attention, num_seen
from model.embedding import Embedding
from model.encoder import Encoder
from model.modern_bert_config import ModernBertShape
from model.normalization import LayerNorm
from model.packing import PackedSequences
from model.shape import EncoderConfig


@dataclass(frozen=True)
class Rotation:
    """The angles by which positions rotate pairs of channels (Su et al. 2021). FSDP2 would round a plain tensor."""

    cos: Tensor
    """float32 (T, 1, 1, D / 2)"""
    sin: Tensor
    """float32 (T, 1, 1, D / 2)"""

    def apply(self, qkv: Tensor) -> Tensor:
        """Return (T, 3, H, D) with rotated queries and keys."""
        rotated = Rotate.apply(qkv, self.cos, self.sin)  # type: ignore[no-untyped-call]
        assert isinstance(rotated, Tensor)
        return rotated


class Rotate(torch.autograd.Function):
    """The rotation of queries and keys. Its gradient is the rotation by the opposite angles, which takes half of the time
    and memory of the gradients of the single products."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return rotated(qkv, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return rotated(gradient, cos, -sin), None, None


def rotated(qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return (T, 3, H, D) with rotated queries and keys, computed in 32 bits."""
    first, second = qkv[:, :2].float().chunk(2, -1)  # (T, 2, H, D / 2): channel i forms a pair with i + D / 2
    parts = (torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin))
    return torch.cat((torch.cat(parts, -1).to(qkv.dtype), qkv[:, 2:]), 1)


def rotation(position_ids: Tensor, theta: float, size: int) -> Rotation:
    """Return the rotation of heads of `size` channels at positions (T,).

    Args:
        theta: ratio of the longest wavelength to the shortest, which is 2 pi positions.
    """
    channels = torch.arange(0, size, 2, dtype=torch.float32, device=position_ids.device)
    angles = position_ids.float()[:, None, None, None] * (1.0 / theta ** (channels / size))
    return Rotation(angles.cos(), angles.sin())


class ModernBertEmbeddings(nn.Module):
    """Word embeddings, normalised."""

    def __init__(self, shape: ModernBertShape, vocab_size: int) -> None:
        super().__init__()
        self.word_embeddings = Embedding(vocab_size, shape.hidden_size)
        self.norm = norm_of(shape)
        self.dropout = nn.Dropout(shape.embedding_dropout)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return (T, C) from (T,)."""
        return self.dropout(self.norm(self.word_embeddings(input_ids)))


class ModernBertLayer(nn.Module):
    """Self-attention and a gated feed-forward block, each with a norm before it and a residual around both."""

    def __init__(self, shape: ModernBertShape, number: int) -> None:
        super().__init__()
        size = shape.hidden_size
        self.num_heads = shape.num_attention_heads
        self.window = shape.window(number)
        self.attention_dropout = shape.attention_dropout
        self.attention_norm = norm_of(shape) if number else nn.Identity()
        self.qkv = nn.Linear(size, 3 * size, bias=False)
        self.attention_output = nn.Linear(size, size, bias=False)
        self.output_dropout = nn.Dropout(shape.attention_dropout)
        self.intermediate_norm = norm_of(shape)
        self.intermediate = nn.Linear(size, 2 * shape.intermediate_size, bias=False)
        self.mlp_dropout = nn.Dropout(shape.mlp_dropout)
        self.output = nn.Linear(shape.intermediate_size, size, bias=False)

    def forward(self, hidden: Tensor, rotation: Rotation, batch: PackedSequences) -> Tensor:
        """Return (T, C) from (T, C)."""
        qkv = self.before_attention(hidden, rotation)
        mixed = attention(qkv, batch, self.attention_dropout if self.training else 0.0, self.window)  # (T, H, D)
        return self.after_attention(hidden, mixed.flatten(1))

    def before_attention(self, hidden: Tensor, rotation: Rotation) -> Tensor:
        """Return queries, keys and values (T, 3, H, D) from (T, C)."""
        return rotation.apply(self.qkv(self.attention_norm(hidden)).unflatten(-1, (3, self.num_heads, -1)))

    def after_attention(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """Return (T, C) from two (T, C)."""
        hidden = hidden + self.output_dropout(self.attention_output(mixed))
        wide, gate = self.intermediate(self.intermediate_norm(hidden)).chunk(2, -1)  # (T, F) each
        return hidden + self.output(self.mlp_dropout(F.gelu(wide) * gate))


class PredictionHead(nn.Module):
    """Dense, GELU, norm and dropout before the classifier of a task."""

    def __init__(self, shape: ModernBertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
        self.norm = norm_of(shape)
        self.dropout = nn.Dropout(shape.classifier_dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (…, C) from (…, C)."""
        return self.dropout(self.norm(F.gelu(self.dense(hidden))))


class ModernBertEncoder(Encoder):
    """The encoder: a vector for each token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        assert isinstance(config.shape, ModernBertShape)
        self.shape = config.shape
        self.embeddings = ModernBertEmbeddings(self.shape, config.vocab_size)
        self.layers = nn.ModuleList(ModernBertLayer(self.shape, i) for i in range(self.shape.num_hidden_layers))
        self.final_norm = norm_of(self.shape)

    def forward(self, batch: PackedSequences) -> Tensor:
        """(T, C)"""
        hidden = self.embeddings(batch.input_ids)
        rotations = self.rotations(batch.position_ids)
        for number, layer in enumerate(self.layers):
            hidden = self.run_block(layer, hidden, rotations[self.shape.is_global(number)], batch)
        return self.final_norm(hidden)

    def rotations(self, position_ids: Tensor) -> tuple[Rotation, Rotation]:
        """Return the rotations in layers that see a window and in those that see the whole sequence, from (T,)."""
        near, far, size = self.shape.local_rope_theta, self.shape.global_rope_theta, self.shape.head_size
        return rotation(position_ids, near, size), rotation(position_ids, far, size)

    def forward_flops(self, lengths: np.ndarray) -> int:
        C, F = self.shape.hidden_size, self.shape.intermediate_size
        products = 2 * int(lengths.sum()) * (4 * C * C + 3 * C * F)
        windows = map(self.shape.window, range(self.shape.num_hidden_layers))
        return sum(products + 4 * C * num_seen(lengths, window) for window in windows)

    def build_norm(self) -> nn.Module:
        return norm_of(self.shape)

    @property
    def has_biases(self) -> bool:
        return False

    def build_sequence_head(self) -> nn.Module:
        return PredictionHead(self.shape)

    def build_token_head(self) -> nn.Module:
        return PredictionHead(self.shape)

    def build_span_head(self) -> nn.Module:
        return PredictionHead(self.shape)

    def initial_deviation(self, name: str) -> float:
        """As transformers' ModernBertPreTrainedModel (Megatron's initialization).

        | matrix                                              | standard deviation                          |
        |-----------------------------------------------------|---------------------------------------------|
        | word embeddings, qkv, intermediate                  | initializer_range                           |
        | attention_output, output; dense layers of heads     | initializer_range / sqrt(2 x layers)        |
        | classifiers                                         | 1 / sqrt(hidden_size)                       |
        """
        last = name.rpartition(".")[2]
        if last == "classifier":
            return 1 / math.sqrt(self.shape.hidden_size)
        is_output = last in ("attention_output", "output", "dense", "pooler")
        return self.shape.initializer_range / (math.sqrt(2 * self.shape.num_hidden_layers) if is_output else 1)

    @property
    def initial_cutoff(self) -> float:
        return self.shape.initializer_cutoff_factor

    @property
    def is_static(self) -> bool:
        return self.uses_flash

    def regions(self) -> list[tuple[nn.Module, str]]:
        """Whole layers with FlashAttention; else all but attention."""
        parts = ["forward"] if self.uses_flash else ["before_attention", "after_attention"]
        return [(self.embeddings, "forward"), *((layer, part) for layer in self.layers for part in parts)]

    def forward_padded(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """(N, S, C)"""
        N, S = input_ids.shape
        hidden = self.embeddings(input_ids)
        place = torch.arange(S, device=input_ids.device)
        rotations = self.rotations(place.expand(N, S).flatten())
        is_seen = attention_mask[:, None, None, :].bool()  # (N, 1, 1, S)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, ModernBertLayer)
            qkv = layer.before_attention(hidden.flatten(0, 1), rotations[self.shape.is_global(number)])
            query, key, value = qkv.view(N, S, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)  # (N, H, S, D) each
            is_near = (place[:, None] - place).abs() <= (S if layer.window is None else layer.window)  # (S, S)
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=is_seen & is_near)
            hidden = layer.after_attention(hidden, mixed.transpose(1, 2).flatten(2))
        return self.final_norm(hidden)


def norm_of(shape: ModernBertShape) -> LayerNorm:
    """Return a new LayerNorm without bias."""
    return LayerNorm(shape.hidden_size, eps=shape.norm_eps, bias=False)
