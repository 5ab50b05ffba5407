"""How many floating-point operations a training step takes, counted from its shapes, and what a device could do.

Only matrix products count, forward once and backward twice; recomputed activations do not. Model FLOP/s utilisation
(MFU; Chowdhery et al. 2022, PaLM) is this count over the time and the device's stated peak.

Dimensions in the comments: C hidden_size, F intermediate_size, V vocab_size.
"""

import torch

from model.bert import BertConfig

PEAK_TFLOPS = {"H200": 989, "H100": 989, "GH200": 989, "B200": 2250, "A100": 312, "L40S": 362, "L4": 121, "A10": 125}
"""Makers' peaks of dense bf16 matrix products by a word of the device's name, in TFLOP/s. A long product reaches about
four fifths of them: 790 on an H200."""


def step_flops(config: BertConfig, num_tokens: int, num_squared: int, num_masked: int, num_pairs: int) -> int:
    """Operations of one update.

    Args:
        num_tokens: real tokens.
        num_squared: sum of the squares of the examples' lengths; attention's share.
        num_masked: positions that the MLM head runs on.
        num_pairs: examples that the NSP head runs on.
    """
    C, F, V = config.hidden_size, config.intermediate_size, config.vocab_size
    layer = 2 * num_tokens * (4 * C * C + 2 * C * F) + 4 * C * num_squared
    heads = 2 * num_masked * (C * C + C * V) + 2 * num_pairs * (C * C + 2 * C)
    return 3 * (config.num_hidden_layers * layer + heads)


def peak_flops(device: torch.device, stated_tflops: float | None) -> float | None:
    """Operations per second that the device could do: what is stated, else the maker's figure, None if unknown."""
    if stated_tflops is not None:
        return stated_tflops * 1e12
    if device.type == "cuda":
        words = torch.cuda.get_device_name(device).replace("-", " ").split()
        return next((peak * 1e12 for word, peak in PEAK_TFLOPS.items() if word in words), None)
    return None
