"""Losses of masked words, computed with the decoder in chunks of masked positions.

With 30,000 words, the logits of all masked positions are the largest tensor of a step. In chunks they are never in memory
together. From the logits of a chunk come its losses, its number of correct words and, in training, its gradients; then the
logits are freed. The forward pass computes the gradients of the plain sum of losses, and the backward pass multiplies them
by the gradient of the sum. So no product is computed twice.

Products have the type of the inputs. Sums over words and over chunks have 32 bits: 8 bits of mantissa are too few for a
sum over 30,000 words.

Dimensions in the comments:
    M  masked positions     R  positions of a chunk     C  hidden_size     V  vocab_size
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100
"""The true word at a position that does not count, as in padding. transformers uses the same number."""
CPU_CHUNK = 2**23
"""Logits of a chunk on a CPU: 32 MiB in fp32. Smaller chunks read and write the decoder and its gradient more often;
larger ones leave the caches, and the C library returns them to the system after each use."""
GPU_CHUNK = 2**27
"""Logits of a chunk on other devices: 256 MiB in 16 bits, or 4,397 positions with 30,522 words."""
ROWS_MULTIPLE = 8
"""The positions of a chunk are a multiple of this number, for fast products over positions."""
BLOCK = 128
"""Words in a block, in the search for the most likely word on a CPU."""
FP16_SCALE = 2.0**8
"""Factor of the gradients of logits in fp16, whose numbers are inexact below 6e-5 and end at 6e-8."""


def word_losses(hidden: Tensor, weight: Tensor, bias: Tensor, masked_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of the cross-entropies, the number of correct words, and the cross-entropy of each masked position.

    Args:
        hidden: (M, C), the inputs of the decoder.
        weight: (V, C), a row per word.
        bias: (V,). A word whose entry is -inf is never predicted.
        masked_ids: int64 (M,), the true words. A position with IGNORED does not count.

    Returns:
        The sum in fp32, or in fp64 from inputs in fp64; the number in int64; and the cross-entropies (M,) in the type of
        the sum, without gradient, 0 at positions that do not count.
    """
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad or bias.requires_grad):
        loss_sum, num_correct, losses = WordLosses.apply(hidden, weight, bias, masked_ids)  # type: ignore[no-untyped-call]
        return loss_sum, num_correct, losses
    parts = [predict_words(part, weight, bias, ids)[1:] for part, ids in chunks(hidden, masked_ids, len(bias))]
    losses_of_parts, correct = zip(*parts)
    return summed(losses_of_parts), torch.stack(correct).sum(), torch.cat(losses_of_parts)


def summed(losses: Sequence[Tensor]) -> Tensor:
    """Return the sum of the losses of all chunks, added chunk by chunk."""
    return torch.stack([part.sum() for part in losses]).sum()


def chunks(hidden: Tensor, masked_ids: Tensor, vocab_size: int) -> list[tuple[Tensor, Tensor]]:
    """Cut hidden states and ids into the fewest chunks that the device's limit allows, of about equal size."""
    most = max(1, (CPU_CHUNK if hidden.device.type == "cpu" else GPU_CHUNK) // vocab_size)
    number = max(1, -(-len(hidden) // most))
    rows = min(-(-max(1, len(hidden)) // (number * ROWS_MULTIPLE)) * ROWS_MULTIPLE, most)
    return list(zip(hidden.split(rows), masked_ids.split(rows)))


def predict_words(hidden: Tensor, weight: Tensor, bias: Tensor, masked_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the probabilities (R, V) of a chunk, its losses (R,) and its number of correct words."""
    logits = F.linear(hidden, weight, bias)  # (R, V)
    highest, best = highest_words(logits)  # (R, 1) each
    true = masked_ids.clamp(min=0)[:, None]
    probabilities = softmax(logits, sum_type(hidden))
    # The logarithm of the sum over words, from the largest probability, because that of the true word may be 0.
    log_sums = highest.to(probabilities.dtype) - probabilities.gather(-1, best).log()
    losses = (log_sums - logits.gather(-1, true))[:, 0]
    return probabilities, losses.where(masked_ids != IGNORED, 0.0), (best[:, 0] == masked_ids).sum()


def softmax(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the probabilities (R, V) of words. Compiled, they are computed where they are used and never in memory."""
    if not torch.compiler.is_compiling():
        return torch.softmax(logits, -1, dtype=dtype)
    logits = logits.to(dtype)
    return (logits - logits.logsumexp(-1, keepdim=True)).exp()


def subtract_true(probabilities: Tensor, true: Tensor) -> Tensor:
    """Return the probabilities (R, V), less 1 at the true words (R, 1): the gradients of logits. It may change its input."""
    if not torch.compiler.is_compiling():
        return probabilities.scatter_add_(-1, true, probabilities.new_full(true.shape, -1.0))
    return probabilities - (torch.arange(probabilities.shape[-1], device=true.device) == true).to(probabilities.dtype)


def highest_words(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `logits.max(-1, keepdim=True)` returns: the highest logits and their words, the first of equal ones.

    A CPU has vector instructions for a maximum, but not for its place. So the place is searched among the maxima of blocks,
    and then in one block.
    """
    vocab_size = logits.shape[-1]
    if torch.compiler.is_compiling() or logits.device.type != "cpu" or vocab_size < 2 * BLOCK:
        return torch.max(logits, -1, keepdim=True)
    whole = vocab_size // BLOCK * BLOCK
    maxima = logits[:, :whole].unflatten(-1, (-1, BLOCK)).amax(-1)
    if whole < vocab_size:
        maxima = torch.cat([maxima, logits[:, whole:].amax(-1, keepdim=True)], -1)
    first = maxima.argmax(-1, keepdim=True) * BLOCK
    words = (first + torch.arange(BLOCK)).clamp(max=vocab_size - 1)  # (R, BLOCK)
    highest, place = logits.gather(-1, words).max(-1, keepdim=True)
    return highest, words.gather(-1, place)


def sum_type(values: Tensor) -> torch.dtype:
    """Return the type of sums of these values."""
    return torch.promote_types(values.dtype, torch.float32)


class WordLosses(torch.autograd.Function):
    """`word_losses` with gradients."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, masked_ids: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the results of `word_losses`, and keep the gradients of the sum."""
        ctx.scale = FP16_SCALE if hidden.dtype == torch.float16 else 1.0
        ctx.dtype = hidden.dtype
        losses, correct, of_hidden = [], [], []
        of_weight = of_bias = None
        for part, ids in chunks(hidden, masked_ids, len(bias)):
            of_logits, part_losses, number = predict_words(part, weight, bias, ids)
            of_logits = subtract_true(of_logits, ids.clamp(min=0)[:, None])
            if ctx.scale != 1:
                of_logits *= ctx.scale
            of_logits = of_logits.to(ctx.dtype)  # (R, V)
            counts = (ids != IGNORED).to(ctx.dtype)[:, None]  # (R, 1)
            of_hidden.append((of_logits @ weight) * counts)
            counts = counts / ctx.scale  # here, because sums over positions can leave the range of fp16
            of_weight = add_product(of_weight, of_logits.T, part * counts)  # (V, C)
            of_bias = add_product(of_bias, of_logits.T, counts)  # (V, 1)
            losses.append(part_losses)
            correct.append(number)
        ctx.save_for_backward(torch.cat(of_hidden), of_weight, of_bias)
        num_correct = torch.stack(correct).sum()
        all_losses = torch.cat(losses)
        ctx.mark_non_differentiable(num_correct, all_losses)
        return summed(losses), num_correct, all_losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_sum: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of the inputs, from that of the sum."""
        of_hidden, of_weight, of_bias = ctx.saved_tensors
        return (
            multiply(of_hidden, of_sum / ctx.scale, ctx.dtype),
            multiply(of_weight, of_sum, ctx.dtype),
            multiply(of_bias[:, 0], of_sum, ctx.dtype),
            None,
        )


def multiply(values: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the values times a scalar. They may change, so a second backward pass through one graph is an error of torch.

    In 16 bits torch would round the scalar before the product.
    """
    if values.dtype == dtype == torch.float32 and not torch.compiler.is_compiling():
        return values.mul_(factor)  # no second tensor of the size of the decoder
    return (values.to(factor.dtype) * factor).to(dtype)


def add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """Return total + left @ right. The product has the type of its factors, the sum at least 32 bits."""
    if total is None:
        return left @ right
    if left.dtype == sum_type(left):
        return total.addmm_(left, right)
    return total.to(sum_type(left)).add_(left @ right)
