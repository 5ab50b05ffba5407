"""A duel with run_mlm: from raw text to a masked language model in the same wall-clock time, on one core each.

    make .venv-rivals/run_mlm/.installed
    python benchmarks/bench_duel.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt

Two pairs run, each for --minutes. The two sides of a pair run at the same time, each on a core of its own with one thread.

1. The Hugging Face way (duel/rival.py) against `bertloom preprocess` and `bertloom pretrain --budget`, with the same model,
   initial weights of the same distribution, AdamW with the same constants, dropout, masking, peak learning rate and shape
   of schedule: a linear warm-up over 6 % of the training time, then a linear decay to 0.
2. bertloom with a recipe of its own (Muon, no dropout, initial weights for the width) against the Hugging Face way once
   more, with the cores exchanged. The second run of the rival shows how much results vary.

The budget is wall-clock time from the start of the first process: imports, tokenization, examples and training. A side ends
its training with the step in which the budget is over, and exports. transformers then judges all exported models on the
same held-out text with the same masks (duel/held_out.py, duel/judge.py).

The whole takes twice --minutes, and about five minutes for the judge: half an hour with the default of 12 minutes. Without
arguments the text is the shipped sample. It needs Linux (taskset) and two cores, which should have nothing else to do.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from glob import glob
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from duel.held_out import make_pieces, read_texts, save_pieces, split_texts
from duel.sides import MATCHING_TRAINING, OWN_TRAINING, Contest, Result, run_bertloom, run_rival, side_by_side
from setting import CORES, ROOT, add_text_arguments, header, inputs_of, vocabulary_of, write_report

HERE = Path(__file__).parent
STAGES = {
    "imported": "imports",
    "loaded": "reading the file",
    "tokenized": "tokenization",
    "grouped": "chunks",
    "preprocessed": "`bertloom preprocess`",
    "step": "set-up and first step",
    "trained": "the other steps",
    "saved": "export, after the budget",
}
Judged = dict[str, dict[str, dict[str, float]]]
"""Loss, accuracy and number of masked words by model and form of text."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument("--minutes", type=float, default=12, help="budget of each side")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak, of both sides")
    parser.add_argument("--held-out", type=float, default=0.02, help="share of the documents that the judge reads")
    parser.add_argument(
        "--pieces", type=int, default=1024, help="pieces of 128 tokens that the judge reads in each form"
    )
    parser.add_argument("--rival-python", type=Path, default=ROOT / ".venv-rivals/run_mlm/bin/python")
    parser.add_argument("--keep", type=Path, help="folder for the models and logs; default: a temporary one")
    arguments = parser.parse_args()
    if not arguments.rival_python.exists():
        raise SystemExit(
            f"{arguments.rival_python} does not exist: run `make .venv-rivals/run_mlm/.installed`, or give --rival-python"
        )
    if len(CORES) < 2:
        raise SystemExit("the duel needs two cores, and a system that can keep a process on one of them")
    if arguments.keep and arguments.keep.exists() and any(arguments.keep.iterdir()):
        raise SystemExit(f"--keep {arguments.keep} is not empty: give a new folder")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        lines = measure(arguments, folder)
    write_report("duel", lines, not arguments.input)


def measure(arguments: argparse.Namespace, folder: Path) -> list[str]:
    vocab = str(Path(vocabulary_of(arguments, folder)).resolve())
    paths = sorted(path for pattern in inputs_of(arguments) for path in files_of(pattern))
    train = folder / "train.jsonl"
    held_out = split_texts(read_texts(paths), arguments.held_out, train)
    save_pieces(make_pieces(held_out, vocab, arguments.pieces), folder / "pieces.npz")
    contest = Contest(
        train=train,
        vocab=vocab,
        seconds=60 * arguments.minutes,
        learning_rate=arguments.learning_rate,
        rival_python=str(arguments.rival_python.absolute()),
    )
    first, second = CORES[:2]
    pairs = [
        side_by_side(
            partial(run_rival, contest, folder / "rival", first),
            partial(run_bertloom, contest, folder / "bertloom", second, "bertloom", MATCHING_TRAINING),
        ),
        side_by_side(
            partial(run_rival, contest, folder / "rival-2", second),
            partial(run_bertloom, contest, folder / "own", first, "bertloom, own recipe", OWN_TRAINING),
        ),
    ]
    results = [result for pair in pairs for result in pair]
    words = [str(arguments.rival_python), str(HERE / "duel/judge.py"), str(folder / "pieces.npz")]
    judged = json.loads(
        subprocess.run([*words, *(str(result.model) for result in results)], stdout=subprocess.PIPE, check=True).stdout
    )
    return report(arguments, contest, results, judged, f"{train.stat().st_size / 1e6:.1f} MB", len(held_out))


def files_of(pattern: str) -> list[str]:
    """Return the files of one --input."""
    if found := glob(pattern):
        return found
    raise SystemExit(f"--input {pattern} matches no file: expected JSON Lines, .jsonl or .jsonl.gz")


def report(
    arguments: argparse.Namespace,
    contest: Contest,
    results: Sequence[Result],
    judged: Judged,
    size: str,
    num_held_out: int,
) -> list[str]:
    names = "datasets, torch, transformers"
    program = f"import {names}\nprint(*(module.__version__ for module in ({names})))"
    versions = subprocess.check_output([contest.rival_python, "-c", program], text=True).split()
    what = (
        f"From {size} of raw text to a masked language model in {arguments.minutes:g} minutes of wall-clock time, one core "
        f"and one thread each, side by side: 4 layers of 256, 4 heads, batches of 32 × 128, peak learning rate "
        f"{contest.learning_rate:g} (Muon in bertloom's own recipe: 2e-3). "
        f"The rival has datasets {versions[0]}, torch {versions[1]}, transformers {versions[2]}, "
        f"which judges all models on {num_held_out:,} held-out documents with the same masks."
    )
    lines = header("A duel with run_mlm", what, "torch", "tokenizers", "apache-beam", "pyarrow")
    for title, pair in [("Same recipe", results[:2]), ("bertloom's own recipe", results[2:])]:
        lines += [f"## {title}", "", *table(pair, judged), ""]
    return lines + ["## Where the time goes", "", "Seconds of each stage.", "", *time_table(results)]


def table(pair: Sequence[Result], judged: Judged) -> list[str]:
    """Return the table of two sides that ran at the same time."""
    rows: dict[str, list[str]] = {"| |": [f" {result.name} |" for result in pair], "|---|": ["---|" for _ in pair]}
    rows["| seconds until the first step is done |"] = [f" {result.stages['step']:.1f} |" for result in pair]
    rows["| steps |"] = [f" {result.steps:,} |" for result in pair]
    rows["| real tokens trained on |"] = [f" {result.tokens:,} |" for result in pair]
    rows["| seconds until training ended |"] = [f" {result.stages['trained']:.1f} |" for result in pair]
    for form in next(iter(judged.values())):
        values = [judged[str(result.model)][form] for result in pair]
        name = f"| held out, {form}: MLM loss, accuracy of {values[0]['masked']:,} words |"
        rows[name] = [f" {value['loss']:.3f}, {value['accuracy']:.1%} |" for value in values]
    return [name + "".join(cells) for name, cells in rows.items()]


def time_table(results: Sequence[Result]) -> list[str]:
    """Return the table of the seconds that each stage took."""
    lines = ["| |" + "".join(f" {result.name} |" for result in results), "|---|" + "---|" * len(results)]
    spent = [durations(result.stages) for result in results]
    for stage, name in STAGES.items():
        cells = [f" {stages[stage]:.1f} |" if stage in stages else " – |" for stages in spent]
        lines.append(f"| {name} |{''.join(cells)}")
    return lines


def durations(ends: dict[str, float]) -> dict[str, float]:
    """Return the seconds that each stage took, from the seconds at which each one was over."""
    return {name: end - before for (name, end), before in zip(ends.items(), [0.0, *ends.values()])}


if __name__ == "__main__":
    main()
