"""A training step, forward and backward, against transformers' BertForPreTraining with its fastest attention.

    python benchmarks/bench_train.py --data DATASET --preset base --max-seq-length 128 --batch-size 8
    python benchmarks/bench_train.py --data DATASET --preset base --batch-size 256 --device cuda

Both have the same weights and read the same real examples; transformers gets them padded to the longest of the batch,
with SDPA attention, and gives logits for every position, as its stock call does. Losses are compared first. Rounds are
interleaved, each with a batch of its own; the median of the rounds' ratios is quoted beside what the count of
floating-point operations allows at the fill of these batches. Without arguments: a small model on the shipped sample.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from setting import SAMPLE, header, run_command, spread, write_report
from torch import Tensor

from model.bert import BertArchitecture, BertConfig, initialize_weights
from model.data import DataSet, PackedBatch
from model.flops import step_flops
from model.heads import BertForPreTraining
from model.huggingface import to_hugging_face
from model.order import TrainingOrder
from model.training import autocast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a data set; by default one is made of the shipped sample")
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--max-seq-length", type=int, help="the shortest of the data set by default")
    parser.add_argument("--batch-size", type=int, default=8, help="examples in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="bf16 on cuda by default, else fp32")
    parser.add_argument("--compile", action="store_true", help="torch.compile for both")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--name", default="train", help="of the file in benchmarks/results/")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(arguments, Path(arguments.data or sample_data_set(Path(folder))))
    write_report(arguments.name, lines, not arguments.data)


def sample_data_set(folder: Path) -> Path:
    """The shipped sample as a data set, made by the real commands."""
    vocabulary, out = str(folder / "vocab.txt"), folder / "set"
    run_command("build-vocab", "--input", SAMPLE, "--vocab-size", "8000", "--out", vocabulary)
    run_command("preprocess", "--input", SAMPLE, "--vocab", vocabulary, "--out", str(out), "--max-seq-length", "128")
    return out


def measure(arguments: argparse.Namespace, data: Path) -> list[str]:
    from transformers import BertConfig as TheirConfig
    from transformers import BertForPreTraining as TheirModel

    device = torch.device(arguments.device)
    precision = arguments.precision or ("bf16" if device.type == "cuda" else "fp32")
    data_set = DataSet(data)
    examples = data_set.examples("train", arguments.max_seq_length)
    preset = tomllib.loads((files("jobs") / "presets" / f"{arguments.preset}.toml").read_text())
    config = BertConfig(**asdict(BertArchitecture(**preset["model"])), vocab_size=data_set.vocabulary_size)
    ours = BertForPreTraining(config)
    initialize_weights(ours, config.initializer_range, 1)
    theirs = TheirModel(TheirConfig(**asdict(config), hidden_act="gelu", attn_implementation="sdpa"))
    state = to_hugging_face(ours.state_dict(), config.num_hidden_layers)
    theirs.load_state_dict(state, strict=False)
    ours.to(device).train()
    theirs.to(device).train()
    if arguments.compile:
        ours.bert.compile_layers()
        theirs.compile(dynamic=True)

    order = TrainingOrder(examples.rows_per_copy, 1, examples.max_seq_length)
    size = arguments.batch_size
    batches = [examples.gather(*order.items(i * size, (i + 1) * size)) for i in range(arguments.rounds + 1)]

    def our_step(batch: PackedBatch) -> float:
        ours.zero_grad()
        with autocast(device, precision):
            output = ours(batch, len(batch.masked_ids), num_pairs(batch))
        output.loss.backward()
        return output.loss.item()  # waits for the GPU

    def their_step(padded: dict[str, Tensor]) -> float:
        theirs.zero_grad()
        with autocast(device, precision):
            loss = theirs(**padded).loss
        loss.backward()
        return loss.item()

    seconds: tuple[list[float], list[float]] = ([], [])
    allowed, fills, tokens = [], [], 0
    for number, batch in enumerate(batches):
        packed, padded = batch.to(device), {name: value.to(device) for name, value in pad(batch).items()}
        loss, first = timed(our_step, packed)
        their_loss, second = timed(their_step, padded)
        if abs(loss - their_loss) > (1e-4 if precision == "fp32" else 2e-2) * abs(loss):
            raise SystemExit(f"the losses differ: {loss} and {their_loss}")
        if number == 0:
            continue  # warm-up
        seconds[0].append(first)
        seconds[1].append(second)
        lengths, pairs = np.array(batch.lengths), num_pairs(batch)
        longest = int(lengths.max())
        count = step_flops(config, int(lengths.sum()), int((lengths**2).sum()), len(batch.masked_ids), pairs)
        their_count = step_flops(config, size * longest, size * longest**2, size * longest, pairs)
        allowed.append(their_count / count)
        fills.append(lengths.sum() / (size * longest))
        tokens += int(lengths.sum())
    ratio = statistics.median(b / a for a, b in zip(*seconds))
    possible = statistics.mean(allowed)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    what = (
        f"{arguments.preset} at {examples.max_seq_length}, {size} examples a round, {arguments.rounds} interleaved "
        f"rounds, {precision}, {where}{', both compiled' if arguments.compile else ''}; forward and backward."
    )
    return [
        *header("A training step against transformers", what, "torch", "transformers"),
        "| | median seconds [min, max] |",
        "|---|---|",
        f"| bertloom | {spread(seconds[0])} |",
        f"| transformers, SDPA, padded to the batch's longest | {spread(seconds[1])} |",
        "",
        f"Median ratio **{ratio:.2f}**; the count of operations allows {possible:.2f} at a fill of "
        f"{statistics.mean(fills):.2f}: {ratio / possible:.2f} of it. {tokens / sum(seconds[0]):,.0f} real tokens/s.",
    ]


def num_pairs(batch: PackedBatch) -> int:
    return int((batch.next_sentence_label >= 0).sum())


def pad(batch: PackedBatch) -> dict[str, Tensor]:
    """The same examples as transformers takes them."""

    def padded(values: Tensor, value: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(values.split(batch.lengths), batch_first=True, padding_value=value)

    labels = torch.full_like(batch.input_ids, -100)
    labels[batch.masked_positions] = batch.masked_ids
    return {
        "input_ids": padded(batch.input_ids, 0),
        "token_type_ids": padded(batch.token_type_ids, 0),
        "attention_mask": padded(torch.ones_like(batch.input_ids), 0),
        "labels": padded(labels, -100),
        "next_sentence_label": batch.next_sentence_label,
    }


def timed(step: Callable[..., float], argument: object) -> tuple[float, float]:
    start = time.perf_counter()
    value = step(argument)
    return value, time.perf_counter() - start


if __name__ == "__main__":
    main()
