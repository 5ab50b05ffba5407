"""Compare an update by our Muon with one by torch's, on the matrices of a preset's layers, in one process.

    python benchmarks/bench_muon.py --presets tiny mini base --threads 1

On a CPU, ours orthogonalizes in 32 bits and torch's in 16. Which is faster depends on whether the processor has instructions
for bfloat16. Gradients are random. Rounds are interleaved. The report has the median of the rounds' ratios by CPU time,
with AdamW's update of the same matrices for comparison. Needs no data.
"""

import argparse
import sys
import time
import tomllib
from importlib.resources import files
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from setting import header, spread, write_report

from model.bert import BertLayer
from model.bert_config import BertShape
from model.optimizer import Muon, adamw_of

RATE = 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["tiny", "mini"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="muon", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = header("An update by Muon", f"{arguments.threads} threads, {arguments.rounds} interleaved rounds.", "torch")
    lines += [
        f"`torch.ops.mkldnn._is_mkldnn_bf16_supported()`: {torch.ops.mkldnn._is_mkldnn_bf16_supported()}",
        "",
        "| preset | matrices | ours, CPU seconds | torch.optim.Muon | ratio, theirs over ours | AdamW |",
        "|---|---|---|---|---|---|",
    ]
    lines += [measure(preset, arguments.rounds) for preset in arguments.presets]
    write_report(arguments.name, lines, is_sample=False)


def measure(preset: str, rounds: int) -> str:
    """Return a line of the table."""
    values = tomllib.loads((files("jobs") / "presets" / f"{preset}.toml").read_text())
    shape = BertShape(**values.get("model", {}))
    layers = [BertLayer(shape) for _ in range(shape.num_hidden_layers)]
    matrices = [parameter for layer in layers for parameter in layer.parameters() if parameter.ndim == 2]
    for matrix in matrices:
        matrix.grad = torch.randn_like(matrix)
    ours, fused = Muon(matrices, 0.01), adamw_of([{"params": matrices}])
    ours.param_groups[0]["lr"] = fused.param_groups[0]["lr"] = RATE
    theirs = torch.optim.Muon(matrices, lr=RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    taken = np.array([[seconds_of(optimizer) for optimizer in (ours, theirs, fused)] for _ in range(rounds + 1)])[1:]
    ratio = np.median(taken[:, 1] / taken[:, 0])
    cells = [spread(column.tolist()) for column in taken.T]
    return f"| {preset} | {len(matrices)} | {cells[0]} | {cells[1]} | **{ratio:.2f}** | {cells[2]} |"


def seconds_of(optimizer: torch.optim.Optimizer) -> float:
    begun = time.process_time()
    optimizer.step()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
