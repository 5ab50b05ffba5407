"""Makes tests/golden/dataset, the bytes that the contract test holds both halves to: `python tests/golden/make.py`.

To be run, and its result committed, only when the shard format or what preprocessing does with a text changes on purpose.
The texts are a few paragraphs of the shipped sample, in the public domain.
"""

import os
import shutil
import sys
from pathlib import Path

from pipeline.options import compose

HERE = Path(__file__).parent
INPUTS = ("texts.txt", "more.jsonl")
OPTIONS = {
    "max_seq_length": (8, 24),
    "dupe_factor": 2,
    "validation_fraction": 0.25,
    "seed": 1,
    "line_breaks": "space",  # one of the records has a wrapped line
}


def make(out: Path) -> None:
    """Preprocesses the texts into `out`. The name, size and time of every input are the same wherever it is made."""
    from jobs.preprocess import PreprocessConfig, preprocess

    out = out.resolve()
    work = out.parent / f"{out.name}.texts"
    work.mkdir()
    before = os.getcwd()
    try:
        for name in (*INPUTS, "vocab.txt"):
            shutil.copyfile(HERE / name, work / name)
            os.utime(work / name, (0, 0))
        os.chdir(work)  # the manifest names the inputs as they were given
        preprocess(compose(PreprocessConfig, input=INPUTS, vocab="vocab.txt", out=str(out), **OPTIONS))
    finally:
        os.chdir(before)
        shutil.rmtree(work)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent.parent))
    shutil.rmtree(HERE / "dataset", ignore_errors=True)
    make(HERE / "dataset")
