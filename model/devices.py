"""The peak speed of a device, for model FLOP/s utilisation (MFU; Chowdhery et al. 2022, PaLM)."""

import torch

PEAK_TFLOPS = {"H200": 989, "H100": 989, "GH200": 989, "B200": 2250, "A100": 312, "L40S": 362, "L4": 121, "A10": 125}
"""Makers' peaks of dense bf16 matrix products, in TFLOP/s, by a word of the device's name. A long product reaches about
four fifths of the peak: 790 on an H200."""


def peak_flops(device: torch.device, stated_tflops: float | None) -> float | None:
    """Return the peak of a device in FLOP/s: the stated one, else the maker's figure; None if neither is known."""
    if stated_tflops is not None:
        return stated_tflops * 1e12
    if device.type == "cuda":
        words = torch.cuda.get_device_name(device).replace("-", " ").split()
        return next((peak * 1e12 for word, peak in PEAK_TFLOPS.items() if word in words), None)
    return None
