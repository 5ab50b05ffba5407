"""A process that measures cases on the GPU. `bench_gpu.py` starts it, and starts another one when it has died.

It reads the names of cases from its standard input, one a line, and writes an answer to each as a line of JSON.
"""

import argparse
import gc
import json
import os
import sys
import traceback
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import torch

from benchmarks.gpu.answers import Answer, Machine
from benchmarks.gpu.cases import REAL, REHEARSAL, Case, Sizes, Speed, all_cases
from benchmarks.gpu.checks import run_check
from benchmarks.gpu.made_data import make_data_set
from benchmarks.gpu.speed import measure_speed
from model import losses
from model.loading.data import DataSet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set, which is made if it is empty")
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    sizes = REHEARSAL if arguments.rehearse else REAL
    if arguments.rehearse:
        losses.GPU_CHUNK = 2**15  # so that there are several chunks
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    send(answers, machine())
    if not torch.cuda.is_available():
        return
    cases = {case.name: case for case in all_cases(sizes)}
    if not any(arguments.data.iterdir()):
        lengths = (sizes.short, sizes.long)
        make_data_set(arguments.data, num_tokens=sizes.num_tokens, num_words=sizes.num_words, lengths=lengths)
    data_set = DataSet(arguments.data)
    for line in sys.stdin:
        answer = answer_to(cases[line.rstrip("\n")], data_set, sizes)
        send(answers, answer)
        if answer.is_fatal:
            return


def send(answers: TextIO, answer: Answer | Machine) -> None:
    """Write a line of JSON."""
    print(json.dumps(asdict(answer)), file=answers, flush=True)


def machine() -> Machine:
    """Return the name of the GPU and the versions of the software."""
    name, cuda = "", ""
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        name = f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}"
        cuda = f" (CUDA {torch.version.cuda})"
    software = f"torch {torch.__version__}{cuda}, transformers {version('transformers')}"
    return Machine(device=name, software=software, is_real=torch.version.cuda is not None)


def answer_to(case: Case, data_set: DataSet, sizes: Sizes) -> Answer:
    """Return the answer to a case; an error becomes an answer."""
    gc.collect()
    torch.compiler.reset()
    torch.cuda.empty_cache()
    try:
        if isinstance(case, Speed):
            return measure_speed(case, data_set, sizes)
        return run_check(case.name, data_set, sizes)
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        is_fatal = "CUDA error" in text and not isinstance(error, torch.OutOfMemoryError)
        return Answer(result=f"failed: {text}", is_failure=True, is_fatal=is_fatal)


if __name__ == "__main__":
    main()
