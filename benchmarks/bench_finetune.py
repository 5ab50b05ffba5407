"""Compare a step of fine-tuning with a plain loop around transformers, on the same rows.

    python benchmarks/bench_finetune.py --task pair --train train.jsonl --model RUN --preset small
    python benchmarks/bench_finetune.py

Both have the same random weights in the preset's shape, the model's vocabulary, AdamW, and the same rows in a batch. The
losses must agree. transformers gets rows padded to the longest of the batch: once in training order, and once grouped by
length, as its `group_by_length` does. Grouped rows need almost no padding. bertloom does not train on them, because their
order is not random. Rounds are interleaved, and the first two are a warm-up. Without arguments: sentences of the shipped
sample in two classes.
"""

import argparse
import json
import statistics
import sys
import tempfile
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import bertloom  # noqa: F401  (sets OMP_WAIT_POLICY, before torch is imported)

# isort: split
import numpy as np
import torch
from bench_train import timed
from setting import SAMPLE, header, run_command, spread, write_report

from model.bert_config import BertShape
from model.hub.pretrained import open_pretrained
from model.hub.tokenizer import TextTokenizer, load_tokenizer
from model.hub.weights import to_hugging_face
from model.loading.order import TrainingOrder
from model.shape import EncoderConfig
from model.tasks.data import TaskData, Windowing
from model.tasks.registry import make_task
from model.tasks.rows import read_task
from model.tasks.training import BETAS, EPSILON, build_optimizer, micro_batches, train_step

GROUPED_BATCHES = 50
"""Number of batches that are sorted by length together, as transformers' `group_by_length` does."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["classify", "pair", "regress"], default="classify")
    parser.add_argument("--train", type=Path, help="file of rows; default: sentences of the shipped sample")
    parser.add_argument("--model", type=Path, help="model whose vocabulary to use; default: one made from the sample")
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--max-seq-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--name", default="finetune", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = arguments.train or sample_rows(Path(folder))
        tokenizer = open_pretrained(arguments.model).tokenizer if arguments.model else sample_tokenizer(Path(folder))
        lines = measure(arguments, rows, tokenizer)
    write_report(arguments.name, lines, not arguments.train)


def sample_rows(folder: Path) -> Path:
    """Write sentences of the sample in two classes, short and long, and return the file."""
    texts = [json.loads(line)["text"] for line in Path(SAMPLE).read_text(encoding="utf-8").splitlines()]
    sentences = [sentence for text in texts for sentence in text.replace("\n", " ").split(". ") if sentence.strip()]
    lines = [json.dumps({"text": sentence, "label": int(len(sentence) > 100)}) + "\n" for sentence in sentences]
    path = folder / "rows.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def sample_tokenizer(folder: Path) -> TextTokenizer:
    run_command("build-vocab", "--input", SAMPLE, "--vocab-size", "8000", "--out", str(folder / "vocab.txt"))
    return load_tokenizer(folder, 8000)


def measure(arguments: argparse.Namespace, rows_file: Path, tokenizer: TextTokenizer) -> list[str]:
    from transformers import BertConfig as TheirConfig
    from transformers import BertForSequenceClassification

    windowing = Windowing(max_seq_length=arguments.max_seq_length, stride=None, max_windows=1)
    task = make_task(arguments.task, windowing)
    rows, _ = read_task(rows_file, task.forms(True), task.parse, {}, "skip")
    task = task.learn(rows)
    data = task.tokenize(rows, tokenizer)

    shape = tomllib.loads((files("jobs") / "presets" / f"{arguments.preset}.toml").read_text())["model"]
    config = EncoderConfig(shape=BertShape(**shape), vocab_size=tokenizer.vocab_size)
    ours = task.model_class(config, task.num_outputs)
    ours.encoder.initialize_weights(ours, 1)
    their_config = TheirConfig(**config.values(), num_labels=task.num_outputs, attn_implementation="sdpa")
    theirs = BertForSequenceClassification(their_config).train()
    theirs.load_state_dict(to_hugging_face(ours.state_dict(), config, ours.form), strict=False)
    optimizer = build_optimizer(ours, 0.01, 1.0)
    their_optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.0, betas=BETAS, eps=EPSILON, fused=True)

    def our_step(items: np.ndarray) -> float:
        batches = micro_batches(data, items, len(items))
        return train_step(ours, optimizer, batches, learning_rate=0.0, max_gradient_norm=1.0, seed=1, step=0).loss

    def their_step(items: np.ndarray) -> float:
        inputs = pad(data, items)
        their_optimizer.zero_grad()
        loss = theirs(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        their_optimizer.step()
        return loss.item()

    size = arguments.batch_size
    order = TrainingOrder([data.num_items], 1, arguments.max_seq_length)
    _, items = order.items(0, GROUPED_BATCHES * size)
    batches = items.reshape(GROUPED_BATCHES, size)
    grouped = items[np.argsort(-data.num_tokens(items), kind="stable")].reshape(GROUPED_BATCHES, size)
    grouped = np.random.default_rng(1).permutation(grouped)
    timings: dict[str, list[tuple[float, float]]] = {}
    tokens: dict[str, int] = {}
    for number in range(arguments.rounds + 2):
        calls = {
            "bertloom": (our_step, batches[number]),
            "transformers, rows in training order": (their_step, batches[number]),
            "transformers, rows grouped by length": (their_step, grouped[number]),
        }
        losses = {}
        for name, (step, chosen) in calls.items():
            losses[name], *timing = timed(lambda step=step, chosen=chosen: step(chosen))  # type: ignore[misc]
            if number > 1:
                count = int(data.num_tokens(chosen).sum())
                timings.setdefault(name, []).append((timing[0] / count, timing[1] / count))
                tokens[name] = tokens.get(name, 0) + count
        first, second, _ = losses.values()
        if abs(first - second) > 1e-4:
            raise SystemExit(f"the losses differ: {losses}")

    lengths = data.num_tokens(np.arange(data.num_items))
    what = (
        f"{arguments.task}, {arguments.preset}, {size} rows a step with {lengths.mean():.0f} tokens on average and at most "
        f"{lengths.max()}, {arguments.rounds} rounds, fp32, {torch.get_num_threads()} CPU threads; forward, backward and "
        f"update. Seconds per thousand real tokens."
    )
    report = [
        *header("A step of fine-tuning against transformers", what, "torch", "transformers"),
        "| | wall | CPU time | ratio of CPU times |",
        "|---|---|---|---|",
    ]
    base = statistics.median(cpu for _, cpu in timings["bertloom"])
    for name, values in timings.items():
        wall, cpu = ([1000 * pair[kind] for pair in values] for kind in (0, 1))
        report.append(f"| {name} | {spread(wall)} | {spread(cpu)} | {statistics.median(cpu) / 1000 / base:.2f} |")
    return report


def pad(data: TaskData, items: np.ndarray) -> dict[str, Any]:
    """Return a batch in the form of transformers, padded to its longest row."""
    batch = data.batch(items)

    def padded(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(values.split(batch.lengths), batch_first=True)

    names = {"input_ids": batch.input_ids, "token_type_ids": batch.token_type_ids}
    names["attention_mask"] = torch.ones_like(batch.input_ids)
    return {name: padded(values) for name, values in names.items()} | {"labels": batch.labels}


if __name__ == "__main__":
    main()
