"""The attention weights of a model in one text, or in a pair of texts.

    encoder = Embedder(open_pretrained("run"), device="cpu").encoder
    batch = pack_sequences(ids, np.array([len(ids)]), np.array([segment_b_start]))
    weights = attention_weights(encoder, batch)  # (layers, H, S, S)

Training has no such weights: attention is one fused operation. Here a hook gets the input of a layer and computes its
queries and keys once more, so the forward pass stays as it is.

Dimensions in the comments: S tokens of the text, H num_attention_heads, D hidden_size / H.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from model.encoder import Encoder
from model.packing import PackedSequences

MAX_WEIGHTS = 1 << 26
"""Maximum number of weights that are returned: 256 MB."""


@runtime_checkable
class AttentionLayer(Protocol):
    """A layer of an encoder whose attention can be shown."""

    window: int | None
    """Number of tokens to each side that a token sees; None for all."""

    def before_attention(self, hidden: Tensor, *arguments: Any) -> Tensor:
        """Return queries, keys and values (S, 3, H, D) from the arguments of `forward` without the last, the batch."""


@torch.inference_mode()
def attention_weights(encoder: Encoder, batch: PackedSequences, layers: Sequence[int] | None = None) -> Tensor:
    """Return how much each token attends to each other, float32 (layers, H, S, S): rows are queries and add up to 1.

    They equal the `attentions` of transformers.

    Args:
        encoder: in evaluation mode.
        batch: one sequence, on the device of the encoder.
        layers: numbers of the layers, from 0; None for all.

    Raises:
        ValueError: there is no such layer, the encoder does not show its attention, or there would be too many weights.
    """
    assert len(batch.lengths) == 1 and not encoder.training
    shape = encoder.config.shape
    layers = range(shape.num_hidden_layers) if layers is None else layers
    if wrong := [number for number in layers if not 0 <= number < shape.num_hidden_layers]:
        raise ValueError(f"layer {wrong[0]}: expected a number from 0 to {shape.num_hidden_layers - 1}")
    num_weights = len(layers) * shape.num_attention_heads * batch.lengths[0] ** 2
    if num_weights > MAX_WEIGHTS:
        raise ValueError(
            f"{len(layers)} layers with {shape.num_attention_heads} heads have {num_weights:,} weights in a text of "
            f"{batch.lengths[0]:,} tokens, at most {MAX_WEIGHTS:,} are computed: give fewer layers or a shorter text"
        )
    found: dict[int, Tensor] = {}

    def keep(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(layer, AttentionLayer)
        found[id(layer)] = weights_of(layer.before_attention(*arguments[:-1]), layer.window)

    chosen = [encoder.blocks[1 + number] for number in layers]
    if not all(isinstance(layer, AttentionLayer) for layer in chosen):
        raise ValueError(f"{type(encoder).__name__} does not show its attention: its layers have no `before_attention`")
    hooks = [layer.register_forward_pre_hook(keep) for layer in chosen]
    try:
        encoder(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([found[id(layer)] for layer in chosen])


def weights_of(qkv: Tensor, window: int | None) -> Tensor:
    """Return the weights of a layer, float32 (H, S, S), from its queries, keys and values (S, 3, H, D)."""
    query, key, _ = qkv.float().permute(1, 2, 0, 3)  # (H, S, D) each
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5  # (H, S, S)
    if window is not None:
        place = torch.arange(len(qkv), device=qkv.device)
        scores.masked_fill_((place[:, None] - place).abs() > window, -torch.inf)
    return scores.softmax(-1)
