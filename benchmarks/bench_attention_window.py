"""Measure attention in a window on a CPU, forward and backward, against full attention and against a mask on all scores.

    python benchmarks/bench_attention_window.py --heads 8

One sequence of each length, as in a local layer of ModernBERT: heads of 64, and each token sees 64 tokens to each side. A
token's cost should not depend on the length. Times are CPU times, which other programs on the machine change least. Rounds
are interleaved, and the report has the smallest of each. The memory is what one pass adds to the peak of a new process.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import bertloom  # noqa: F401  (sets OMP_WAIT_POLICY, before torch is imported)

# isort: split
import numpy as np
import torch
import torch.nn.functional as F
from setting import header, in_process, write_report
from torch import Tensor

from bertloom.counts import counted
from model.attention import attention
from model.packing import pack_texts

WINDOW, HEAD_SIZE = 64, 64
TOKENS_OF_ROUND = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048, 8192])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    what = (
        f"{arguments.heads} heads of {HEAD_SIZE}, fp32, {counted(arguments.threads, 'CPU thread')}, a window of {WINDOW} "
        f"tokens to each side; forward and backward of one sequence. CPU time per token, the smallest of {arguments.rounds} "
        f"interleaved rounds."
    )
    lines = [
        *header("Attention in a window", what, "torch"),
        "| tokens | full attention, µs | a mask on all scores, µs | in the window, µs | their peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for length in arguments.lengths:
        times = measure(length, arguments.heads, arguments.rounds)
        memory = [in_process(peak_memory, name, length, arguments.heads, arguments.threads) for name in FORMS]
        cells = [f"{length:,}", *(f"{value:.1f}" for value in times), ", ".join(f"{value:,.0f}" for value in memory)]
        lines.append(f"| {' | '.join(cells)} |")
    write_report("attention_window", lines, is_sample=False)


def full(qkv: Tensor) -> Tensor:
    """Attention of all tokens to all tokens."""
    return attention(qkv, pack_texts([np.zeros(len(qkv), np.int64)]))


def masked(qkv: Tensor) -> Tensor:
    """Attention in the window, by a mask on the scores of all pairs."""
    place = torch.arange(len(qkv))
    is_seen = (place[:, None] - place).abs() <= WINDOW
    query, key, value = qkv.permute(1, 2, 0, 3).unsqueeze(1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=is_seen)[0].transpose(0, 1)


def windowed(qkv: Tensor) -> Tensor:
    """Attention in the window, as the encoder computes it."""
    return attention(qkv, pack_texts([np.zeros(len(qkv), np.int64)]), window=WINDOW)


FORMS: dict[str, Callable[[Tensor], Tensor]] = {"full": full, "masked": masked, "windowed": windowed}


def measure(length: int, heads: int, rounds: int) -> list[float]:
    """Return the smallest CPU time in microseconds per token of each form."""
    qkv = torch.randn(length, 3, heads, HEAD_SIZE)
    gradient = torch.randn(length, heads, HEAD_SIZE)
    results = [one_pass(form, qkv, gradient) for form in FORMS.values()]  # a warm-up
    torch.testing.assert_close(results[1], results[2], atol=1e-4, rtol=1e-4)
    seconds: dict[str, list[float]] = {name: [] for name in FORMS}
    repetitions = -(-TOKENS_OF_ROUND // length)
    for _ in range(rounds):
        for name, form in FORMS.items():
            start = time.process_time()
            for _ in range(repetitions):
                one_pass(form, qkv, gradient)
            seconds[name].append(time.process_time() - start)
    return [min(values) / (repetitions * length) * 1e6 for values in seconds.values()]


def one_pass(form: Callable[[Tensor], Tensor], qkv: Tensor, gradient: Tensor) -> Tensor:
    """Run forward and backward and return the gradient."""
    leaf = qkv.clone().requires_grad_()
    form(leaf).backward(gradient)
    assert leaf.grad is not None
    return leaf.grad


def peak_memory(name: str, length: int, heads: int, threads: int) -> float:
    """Return the MiB that one pass adds to this process's peak."""
    torch.set_num_threads(threads)
    one_pass(FORMS[name], torch.randn(200, 3, heads, HEAD_SIZE), torch.randn(200, heads, HEAD_SIZE))  # a warm-up
    qkv, gradient = torch.randn(length, 3, heads, HEAD_SIZE), torch.randn(length, heads, HEAD_SIZE)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: Linux keeps that of the process before
    before = peak_kib()
    one_pass(FORMS[name], qkv, gradient)
    return (peak_kib() - before) / 1024


def peak_kib() -> int:
    """Return this process's peak memory."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main()
