"""Measure memory and CPU time of a step of `finetune --task embed`, in micro-batches and as one graph.

    python benchmarks/bench_vectors.py --model all-MiniLM-L6-v2 --pairs pairs.jsonl

The model is a directory in transformers' form, and the file has rows with a query and a text. Each batch is one step in a
new process, whose peak memory is that of the step. A batch is compared in micro-batches of 32 texts with the same batch in
one piece. If the model is one of sentence-transformers, its vectors are compared, too.
"""

import argparse
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import bertloom  # noqa: F401  (sets OMP_WAIT_POLICY, before torch is imported)

# isort: split
import numpy as np
import torch
from setting import header, in_process, write_report

from model.hub.pretrained import open_pretrained
from model.inference.embed import Embedder
from model.tasks.data import Windowing
from model.tasks.embed import PAIRS, EmbedTask, parse_row
from model.tasks.initial_weights import load_encoder
from model.tasks.rows import read_task
from model.tasks.training import build_optimizer, micro_batches, train_step

MICRO_BATCH_SIZE, WHOLE = 32, 1 << 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument(
        "--largest-whole", type=int, default=64, help="largest batch that is also computed in one piece"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    what = (
        f"One step of `finetune --task embed` in fp32 on {arguments.threads} CPU thread(s). Peak memory is that of the "
        f"process above what it has before the step. A loss of all pairs from micro-batches needs a second forward pass."
    )
    lines = [
        *header("Vectors", what, "torch", "sentence-transformers"),
        "| pairs | texts in memory | peak memory, MiB | CPU ms per pair | loss | norm of the gradient |",
        "|---|---|---|---|---|---|",
    ]
    for size in arguments.batches:
        for micro_batch_size in [MICRO_BATCH_SIZE] + [WHOLE] * (size <= arguments.largest_whole):
            found = in_process(step, arguments.model, arguments.pairs, size, micro_batch_size, arguments.threads)
            kept = min(micro_batch_size, 2 * size)
            lines.append(f"| {size:,} | {kept} | {found[0]:,.0f} | {found[1]:.0f} | {found[2]:.6f} | {found[3]:.6f} |")
    if (Path(arguments.model) / "modules.json").exists():
        difference = largest_difference(arguments.model, arguments.pairs)
        lines += ["", f"Largest difference to a vector of sentence-transformers, of 200 texts: {difference:.1e}."]
    write_report("vectors", lines, is_sample=False)


def step(model: str, pairs: str, size: int, micro_batch_size: int, threads: int) -> tuple[float, float, float, float]:
    """Return MiB, CPU milliseconds per pair, loss and norm of the gradient of one step without dropout."""
    torch.set_num_threads(threads)
    pretrained = open_pretrained(model)
    windowing = Windowing(max_seq_length=pretrained.max_seq_length, stride=None, max_windows=None)
    task = EmbedTask(windowing=windowing)
    rows, _ = read_task(Path(pairs), PAIRS, task.parse, {}, "stop")
    data = task.tokenize(rows[:size], pretrained.tokenizer)
    shape = pretrained.config.shape.with_dropouts(0.0, 0.0)
    built = task.build_model(replace(pretrained.config, shape=shape))
    load_encoder(built, pretrained, seed=1)
    optimizer = build_optimizer(built, 0.01, 1.0)
    batches = micro_batches(data, np.arange(size), micro_batch_size)
    before, start = peak_bytes(), time.process_time()
    result = train_step(built, optimizer, batches, learning_rate=0.0, max_gradient_norm=1e9, seed=1, step=0)
    seconds = time.process_time() - start
    return (peak_bytes() - before) / 2**20, 1000 * seconds / size, result.loss, result.gradient_norm


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def largest_difference(model: str, pairs: str) -> float:
    from sentence_transformers import SentenceTransformer

    rows, _ = read_task(Path(pairs), PAIRS, parse_row, {}, "stop")
    texts = [text for row in rows[:100] for text in row.texts[:2]]
    ours, _ = Embedder(open_pretrained(model), device="cpu").embed(texts)
    return float(np.abs(ours - SentenceTransformer(model, device="cpu").encode(texts)).max())


if __name__ == "__main__":
    main()
