"""The memory of the machine, and the peak speed of a device for model FLOP/s utilisation.

MFU is defined by Chowdhery et al. 2022, PaLM.
"""

import resource
from contextlib import suppress
from pathlib import Path

import psutil
import torch

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where Linux states the memory limit of a container."""

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


def memory_bytes() -> int:
    """Return the memory of this machine, or less if this process may not use all of it."""
    limits = [int(psutil.virtual_memory().total), resource.getrlimit(resource.RLIMIT_AS)[0]]
    with suppress(OSError, ValueError):  # the file does not exist, or holds "max"
        limits.append(int(CGROUP_LIMIT.read_text()))
    return min(limit for limit in limits if limit > 0)  # RLIM_INFINITY is -1
