"""Show where the processor time of `bertloom preprocess` goes, stage by stage, on one core.

    python benchmarks/bench_stages.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt --name stages_en

The command runs in a process of its own, from its start to its end, in which the functions of STAGES are timed. A stage has
the time of its functions without those of other stages, so the times add up. Timing takes a few per cent itself. Without
arguments the text is made from the shipped sample.
"""

import argparse
import builtins
import importlib
import inspect
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from bench_preprocess import write_text
from setting import ROOT, add_text_arguments, header, inputs_of, pin, vocabulary_of, write_report

STAGES = {
    "flags": ["jobs.preprocess:parse"],
    "checks before the job: vocabulary, inputs, samples of the texts": [
        "jobs.preprocess:check_job",
        "jobs.preprocess:find_groups",
    ],
    "Beam: the graph of the job, and running it": ["pipeline.execution:run"],
    "reading: lines, JSON, paragraphs, cleaning": ["pipeline.stages.tokenization:read_documents"],
    "units, and their codes": ["pipeline.text.units:Interner.cut"],
    "ids of new units": ["pipeline.text.wordpiece:WordPiece._ids_of_units"],
    "ids of all units": ["pipeline.text.wordpiece:WordPiece.tokens"],
    "sentences": ["pipeline.tokenizer:sentence_starts", "pipeline.tokenizer:sentence_borders"],
    "checksums of documents": ["pipeline.tokenizer:document_digest"],
    "other steps from documents to tokens": ["pipeline.tokenizer:DocumentTokenizer.__call__"],
    "token parts: sorting": ["pipeline.stages.parts:write_part"],
    "plan of the buckets": ["pipeline.stages.plan:make_plan"],
    "reading buckets, sorting their documents": ["pipeline.stages.weave:read_bucket"],
    "pairs": [
        "pipeline.examples.configuration:ExamplesConfig.sentences",
        "pipeline.examples.configuration:ExamplesConfig.make_pairs",
    ],
    "examples": ["pipeline.examples.shards:_make_columns", "pipeline.examples.shards:shard_order"],
    "masks": ["pipeline.examples.shards:mask_examples"],
    "Arrow and tar": ["pipeline.examples.shards:_Members.add"],
    "files: checksums, writing, syncing": ["bertloom.storage:write_whole"],
    "manifest": ["pipeline.stages.manifest:write_manifest"],
    "report": ["jobs.support.report:write_report"],
}
"""Name -> its functions, as MODULE:NAME."""
IMPORTS, START, OTHER = "imports", "start and end of Python", "everything else"


class Clock:
    """Adds processor time to the stage whose function was called last."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.stages = [OTHER]
        self.last = time.process_time()

    def switch(self) -> None:
        now = time.process_time()
        self.seconds[self.stages[-1]] += now - self.last
        self.last = now

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, or the generator, whose time counts for the stage."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.switch()
            self.stages.append(stage)
            try:
                return function(*arguments, **options)
            finally:
                self.switch()
                self.stages.pop()

        def steps(*arguments: Any, **options: Any) -> Iterator[Any]:
            steps, end = function(*arguments, **options), object()
            advance = self.timed(stage, lambda: next(steps, end))
            while (item := advance()) is not end:
                yield item

        return wraps(function)(steps if inspect.isgeneratorfunction(function) else call)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return run_timed(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument(
        "--megabytes", type=float, help="make a text of this size from the paragraphs; default for the sample: 40"
    )
    parser.add_argument("--dupe-factor", type=int, nargs="+", default=[1])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--name", default="stages", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    pin(1)
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(arguments, Path(folder))
    write_report(arguments.name, lines, not arguments.input)


def measure(arguments: argparse.Namespace, folder: Path) -> list[str]:
    text = folder / "text.jsonl"
    size = write_text(text, inputs_of(arguments), arguments.megabytes or (0 if arguments.input else 40))
    vocab = vocabulary_of(arguments, folder)
    words = ["preprocess", "--input", str(text), "--vocab", vocab, "--gates.no-fail"]
    found: dict[int, list[Counter[str]]] = {dupe: [] for dupe in arguments.dupe_factor}
    for number in range(arguments.repeat):
        for dupe in arguments.dupe_factor:
            out = str(folder / f"out-{number}-{dupe}")
            found[dupe].append(run_child([*words, "--out", out, "--dupe-factor", str(dupe)]))
    medians = {
        dupe: {stage: statistics.median(run[stage] for run in runs) for stage in (START, IMPORTS, *STAGES, OTHER)}
        for dupe, runs in found.items()
    }
    what = f"{size:.1f} MB of text, L=128, one process on one core; seconds of the processor, medians of {arguments.repeat}."
    lines = [
        *header("Where the time of a job goes", what, "apache-beam", "pyarrow", "numpy", "tokenizers"),
        "| stage |" + "".join(f" dupe factor {dupe} | |" for dupe in medians),
        "|---|" + "---|---|" * len(medians),
    ]
    for stage in (START, IMPORTS, *STAGES, OTHER):
        columns = [(times[stage], times[stage] / sum(times.values())) for times in medians.values()]
        lines.append(f"| {stage} |" + "".join(f" {seconds:.2f} | {share:.0%} |" for seconds, share in columns))
    lines.append("| together |" + "".join(f" {sum(times.values()):.2f} | |" for times in medians.values()))
    return lines


def run_child(words: list[str]) -> Counter[str]:
    """Run the command in a timed process. Return the processor seconds of each stage."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(Path(__file__)), "--child", *words]
    done = subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = Counter(json.loads(done.stdout.splitlines()[-1]))
    total = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds[START] = total - seconds.total()
    return seconds


def run_timed(words: list[str]) -> None:
    """Run the command with all stages timed and print their seconds as JSON. Beam runs in this process."""
    clock = Clock()
    builtins.__import__ = clock.timed(IMPORTS, builtins.__import__)
    from pipeline.local.beam_import import import_beam

    import_beam(connectors=False)
    for stage, names in STAGES.items():
        for name in names:
            module, _, path = name.partition(":")
            owner: Any = importlib.import_module(module)
            *classes, last = path.split(".")
            for part in classes:
                owner = getattr(owner, part)
            setattr(owner, last, clock.timed(stage, getattr(owner, last)))
    from jobs.cli import main as run

    status = run(words)
    clock.switch()
    print()
    print(json.dumps(clock.seconds))
    sys.exit(status)


if __name__ == "__main__":
    main()
