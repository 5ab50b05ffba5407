"""Measure what a checkpoint costs the training loop while another thread writes it.

    python benchmarks/bench_checkpoint.py --data DATASET --preset base --batch-size 4 --steps 4

Rounds of steps (forward, backward, update) come in pairs. The second round of a pair saves a checkpoint of all weights and
moments before its first step, as `bertloom pretrain` does. The loop waits only for the copy in memory. The rest is CPU time
of the writing thread, which slows the steps if no core is idle. Without --data: the shipped sample and a small model.
"""

import argparse
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import bertloom  # noqa: F401  (sets OMP_WAIT_POLICY, before torch is imported)

# isort: split
import numpy as np
import torch
from bench_train import add_arguments, batches_of, model_of, num_pairs, run, timed
from setting import header, spread

from model.loading.data import Examples
from model.optimizer import build_optimizer, set_learning_rate
from model.runs.checkpoint_writer import CheckpointWriter
from model.runs.progress import Progress
from model.runs.state import TrainingState


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of a round without a checkpoint and one with it")
    parser.add_argument("--steps", type=int, default=20, help="steps in a round")
    parser.add_argument("--name", default="checkpoint", help="name of the file in benchmarks/results/")
    run(parser, measure)


def measure(arguments: argparse.Namespace, examples: Examples) -> list[str]:
    model = model_of(arguments.preset, examples)
    optimizer = build_optimizer(model, 0.01)
    set_learning_rate(optimizer, 1e-6)
    (batch,) = batches_of(examples, arguments.batch_size, 1)

    def train() -> None:
        for _ in range(arguments.steps):
            optimizer.zero_grad()
            model(batch, len(batch.masked_ids), num_pairs(batch)).loss.backward()
            optimizer.step()

    train()  # warm-up
    plain, with_checkpoint, copies = [], [], []
    with tempfile.TemporaryDirectory(dir=".") as folder, CheckpointWriter(Path(folder), keep=1) as writer:

        def save_and_train() -> None:
            copies.append(timed(partial(writer.save, model, optimizer, state_at(len(copies), model)))[1])
            train()
            writer.wait()

        for _ in range(arguments.rounds):
            plain.append(timed(train)[1:])
            with_checkpoint.append(timed(save_and_train)[1:])
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    wall, cpu = np.median(with_checkpoint, axis=0) - np.median(plain, axis=0)
    what = (
        f"{arguments.preset}, {size / 1e9:.2f} GB a checkpoint; steps of {len(batch.lengths)} examples on "
        f"{torch.get_num_threads()} CPU threads, {arguments.steps} in a round, {arguments.rounds} rounds of each kind."
    )
    return [
        *header("What a checkpoint costs the loop", what, "torch", "safetensors"),
        "| | median seconds [min, max] | of CPU time |",
        "|---|---|---|",
        *(
            f"| {name} | {spread([wall for wall, _ in values])} | {spread([cpu for _, cpu in values])} |"
            for name, values in (("a round", plain), ("a round with a checkpoint", with_checkpoint))
        ),
        f"| the copy in memory, which the loop waits for | {spread(copies)} | |",
        "",
        f"A checkpoint takes {wall:.1f} s of the loop's time, and **{cpu:.1f} s of CPU time**: where no core is idle, a "
        f"checkpoint every {cpu / 0.05:.0f} s or less often takes under 5 % of training.",
    ]


def state_at(step: int, model) -> TrainingState:
    return TrainingState(
        progress=Progress(step=step),
        seed=1,
        order_version=1,
        shards_digest="",
        vocabulary_sha256="",
        model=asdict(model.config),
        schedule={},
        changes=[],
    )


if __name__ == "__main__":
    main()
