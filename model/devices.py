"""What the machine can do: its memory, the peak speed of a GPU, and which precisions and kernels fit it."""

import re
import resource
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from model.attention import flash_obstacle
from model.shape import Shape

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where Linux states the memory limit of a container."""
CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux lists the instructions of the CPU."""
BF16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Words for instructions on bf16 in that list, of x86 and of ARM."""

PEAK_TFLOPS = {
    "V100": 125,
    "V100 PCIE": 112,
    "V100S PCIE": 130,
    "T4": 65,
    "A100": 312,
    "A100 PCIE": 312,
    "A800": 312,
    "A800 PCIE": 312,
    "A30": 165,
    "A40": 149.7,
    "A10": 125,
    "A10G": 70,
    "RTX A6000": 154.8,
    "GEFORCE RTX 3090": 71,
    "GEFORCE RTX 3090 TI": 80,
    "L4": 121,
    "L40": 181,
    "L40S": 362,
    "RTX 6000 ADA GENERATION": 364.2,
    "GEFORCE RTX 4080": 97.5,
    "GEFORCE RTX 4080 SUPER": 104.4,
    "GEFORCE RTX 4090": 165.2,
    "H100": 989,
    "H100 PCIE": 756,
    "H100 NVL": 835,
    "H800": 989,
    "H800 PCIE": 756,
    "H20": 148,
    "H200": 989,
    "H200 NVL": 835,
    "GH200": 989,
    "B200": 2250,
    "B300": 2250,
    "GB200": 2500,
    "GB300": 2500,
    "GEFORCE RTX 5080": 112.6,
    "GEFORCE RTX 5090": 209.5,
    "RTX PRO 6000 BLACKWELL WORKSTATION EDITION": 503.8,
}
"""NVIDIA's peaks of dense 16-bit matrix products with sums in 32 bits, in TFLOP/s, by the name that torch reports without
the words in IGNORED_WORDS. They are in fp16 for V100 and T4, and equal in fp16 and bf16 for the others.

They come from NVIDIA's data sheets: half of the figure where that is for sparse matrices (H100 NVL and H200 NVL 1,671,
H100 PCIe 1,513, B200 and B300 4,500 and GB200 and GB300 5,000 for each GPU). Those of GeForce and RTX cards come from the
white papers on GA102, Ada and Blackwell: GeForce cards add in 32 bits at half of the speed that is advertised. A long
product reaches about four fifths of the peak: 790 on an H200.

A name that is not here has no peak: a laptop's GPU and a part of a GPU (MIG) are slower than the card of that name."""
IGNORED_WORDS = re.compile(r"NVIDIA|TESLA|\d+GB?|HBM3E?|SXM\d?|AC")
"""Words in the names of GPUs that make no difference: maker, memory, socket, and air cooling."""


def peak_flops(device: torch.device, stated_tflops: float | None, precision: str) -> float | None:
    """Return the peak of a device in FLOP/s for model FLOP/s utilisation (MFU, Chowdhery et al. 2022, PaLM).

    It is the stated one, else the maker's figure for 16 bits; None if there is none, as in fp32, whose speed depends on
    what `torch.set_float32_matmul_precision` permits.
    """
    if stated_tflops is not None:
        return stated_tflops * 1e12
    if device.type != "cuda" or precision == "fp32":
        return None
    words = torch.cuda.get_device_name(device).upper().replace("-", " ").split()
    peak = PEAK_TFLOPS.get(" ".join(word for word in words if not IGNORED_WORDS.fullmatch(word)))
    return peak and peak * 1e12


def check_precision(precision: str, device: torch.device, shape: Shape, attention_dropout: float = 0.0) -> str | None:
    """Return a warning about what is slow on this machine in this precision, if there is anything.

    Raises:
        ValueError: the device does not have the precision.
    """
    if device.type == "cpu" and precision == "bf16" and not has_bf16_instructions():
        return (
            "precision=bf16: this CPU has no instructions for bf16 (avx512_bf16, amx_bf16), so training is many times "
            "slower than in fp32: use --precision fp32"
        )
    if device.type == "cpu" and precision == "fp16":
        return (
            "precision=fp16: a CPU computes no faster in fp16 than in fp32, and slower without instructions for it: use "
            "--precision fp32, or bf16 on a CPU with avx512_bf16 or amx_bf16"
        )
    if device.type != "cuda" or precision == "fp32":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    if precision == "bf16" and major < 8:
        raise ValueError(
            f"precision=bf16: {torch.cuda.get_device_name(device)} has no bf16 (compute capability {major}.{minor}, "
            f"expected at least 8.0): use --precision fp16 or fp32"
        )
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    obstacle = flash_obstacle(device, dtype, shape.head_size, attention_dropout)
    return f"attention reads padded sequences, which is slower than FlashAttention: {obstacle}" if obstacle else None


def has_bf16_instructions() -> bool:
    """Return whether the CPU computes in bf16; also true where nothing lists its instructions, as on a Mac."""
    try:
        words = set(CPU_INFO.read_text().split())
    except OSError:
        return True
    return bool(words & BF16_INSTRUCTIONS)


def memory_bytes() -> int:
    """Return the memory of this machine, or less if this process may not use all of it."""
    limits = [int(psutil.virtual_memory().total), resource.getrlimit(resource.RLIMIT_AS)[0]]
    with suppress(OSError, ValueError):  # the file does not exist, or holds "max"
        limits.append(int(CGROUP_LIMIT.read_text()))
    return min(limit for limit in limits if limit > 0)  # RLIM_INFINITY is -1
