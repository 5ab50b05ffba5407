"""Measure what a job of many splits costs its launcher: size of the job, memory, and time until it is submitted.

    python benchmarks/bench_many_splits.py --splits 1000 100000

The texts are that many files of 600 bytes. They are read once with the default --split-mb, where small files share a group,
and once with one so small that each file is a group of its own. Each launcher is a new process that does all that
`bertloom preprocess` does until the runner would get the job.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from setting import header, in_process, write_report

FILE_BYTES = 600
TINY_MB = 0.0001


class Submitted(BaseException):
    """Raised instead of running a job. Nothing catches it on the way."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, nargs="+", default=[1_000, 100_000])
    arguments = parser.parse_args()
    what = f"Files of {FILE_BYTES} bytes. The launcher's highest memory, and its seconds of the processor."
    lines = [
        *header("Many splits", what, "apache-beam", "pyarrow"),
        "| files | --split-mb | groups | job | list of splits | launcher | until submitted |",
        "|---|---|---|---|---|---|---|",
    ]
    for number in arguments.splits:
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), number)
            for split_mb in (None, TINY_MB):
                lines.append(f"| {number:,} | {split_mb or 'default'} | {in_process(launch, folder, split_mb)} |")
    write_report("many_splits", lines, is_sample=False)


def write_files(folder: Path, number: int) -> None:
    """Write texts, a thousand in each folder, and a vocabulary."""
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", ".", ""]))
    text = ("aa a aaa a. " * (FILE_BYTES // 12 + 1))[: FILE_BYTES - 10]
    for i in range(number):
        path = folder / f"in/{i // 1000:04d}/{i:08d}.txt"
        if i % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_text(f"{text} {i:08d}\n")


def launch(folder: str, split_mb: float | None) -> str:
    """Do what a launcher does and return the cells of a row."""
    from jobs.preprocess import PreprocessConfig, preprocess
    from pipeline import execution
    from pipeline.inputs.split_list import read_split_list

    found: dict[str, int] = {}

    def submit(options, build, *_):
        pipeline = execution.beam.Pipeline(options=options)
        build(pipeline)
        found["job"] = pipeline.to_runner_api().ByteSize()
        raise Submitted

    execution.run = submit
    out = Path(folder) / f"out-{split_mb}"
    try:
        preprocess(
            PreprocessConfig(input=(f"{folder}/in",), vocab=f"{folder}/vocab.txt", out=str(out), split_mb=split_mb)
        )
    except Submitted:
        seconds, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (listed,) = (out / ".work").glob("splits-*")
        groups = read_split_list(str(listed)).num_groups
        size = listed.stat().st_size
        return f"{groups:,} | {found['job'] / 1e3:,.0f} kB | {size / 1e6:,.1f} MB | {memory / 1e3:,.0f} MB | {seconds:.1f} s"
    raise SystemExit("the job was not submitted")


if __name__ == "__main__":
    main()
