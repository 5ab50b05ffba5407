"""The tests on the fake CUDA device, tested: each mistake in a copy of the code, which a CPU does not notice, fails one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_cuda.library import missing
from tests.fake_cuda.report import ROOT

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

PRETRAIN = "tests/jobs/test_pretrain_on_cuda.py"
PARITY, FLASH, WAITS, COMPILED, GRAPHS, OLD, RANKS = (
    f"{PRETRAIN}::{name}"
    for name in (
        "test_losses_in_32_bits_are_those_of_a_cpu",
        "test_attention_in_16_bits_is_one_call_of_flash_attention_per_layer_and_micro_batch",
        "test_a_step_waits_twice_for_the_device_once_for_the_losses_and_once_for_the_norm",
        "test_a_layer_is_compiled_once_for_each_length_and_never_again",
        "test_losses_by_cuda_graphs_are_those_without_them",
        "test_a_gpu_before_ampere_trains_in_fp16_without_flash_attention",
        "test_two_ranks_on_two_devices_have_the_losses_of_one_and_resume_with_the_same_bits",
    )
)
MODERN = "tests/jobs/test_modern_bert_on_cuda.py"
WINDOWS = f"{MODERN}::test_flash_attention_gets_the_window_in_two_layers_of_three"
MISTAKES = {
    "a tensor is left on the CPU": (
        "model/step.py",
        "sums = torch.zeros(4 + num_sources, dtype=torch.float64, device=device)",
        "sums = torch.zeros(4 + num_sources, dtype=torch.float64)",
        FLASH,
    ),
    "the starts of sequences have 64 bits": ("model/packing.py", ".astype(np.int32)", ".astype(np.int64)", FLASH),
    "the longest length is too small": ("model/packing.py", "lengths.max(initial=0)", "lengths.mean()", FLASH),
    "the precision is that of a CPU": ("model/step.py", 'device.type != "cuda"', 'device.type == "cuda"', FLASH),
    "FlashAttention gets columns": (
        "model/attention.py",
        "varlen_attn(query, key, value,",
        "varlen_attn(*(part.mT.contiguous().mT for part in (query, key, value)),",
        FLASH,
    ),
    "FlashAttention gets no window": (
        "model/attention.py",
        "window_size=(reach, reach)",
        "window_size=(-1, -1)",
        WINDOWS,
    ),
    "a copy to the device waits": (
        "model/packing.py",
        "v.to(device, non_blocking=True)",
        "v.to(device)",
        WAITS,
    ),
    "a copy comes from memory that is not pinned": (
        "model/packing.py",
        "k: v.pin_memory() for",
        "k: v for",
        WAITS,
    ),
    "the loss is read in each micro-batch": (
        "model/step.py",
        "sums += output.metrics()",
        "sums += float(output.loss) * 0 + output.metrics()",
        WAITS,
    ),
    "an optimizer reads numbers": (
        "model/optimizer.py",
        "(updates, ratios.unbind())",
        "(updates, ratios.tolist())",
        WAITS,
    ),
    "a graph depends on the lengths of a batch": (
        "model/loading/padding.py",
        "longest=shape.max_seq_length",
        "longest=shape.max_seq_length + tokens % 7",
        COMPILED,
    ),
    "only the CPU gets the seed of dropout": (
        "model/step.py",
        "torch.manual_seed(",
        "torch.default_generator.manual_seed(",
        PARITY,
    ),
    "an old GPU gets FlashAttention": ("model/attention.py", "if capability < (8, 0):", "if capability < (7, 0):", OLD),
    "a CUDA graph is captured but not replayed": ("model/cuda_graphs.py", "found.graph.replay()", "", GRAPHS),
    "a rank does not choose its device": ("model/distributed.py", "torch.cuda.set_device(device)", "", RANKS),
    "all ranks use the first GPU": (
        "model/distributed.py",
        'torch.device("cuda", local)',
        'torch.device("cuda", 0)',
        RANKS,
    ),
    "NCCL gets integers that it does not have": (
        "model/distributed.py",
        "size, dtype=torch.uint8",
        "size, dtype=torch.uint16",
        RANKS,
    ),
    "NCCL gets a transposed matrix": (
        "model/distributed.py",
        "dist.broadcast(tensor, 0)",
        "dist.broadcast(tensor.mT if tensor.ndim > 1 else tensor, 0)",
        RANKS,
    ),
}
"""File, its text, the mistake in its place, and the test that must fail."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy of the code and its tests."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("bertloom", "jobs", "model", "pipeline", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def outcome(repository: Path, test: str) -> subprocess.CompletedProcess[str]:
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "slow or not slow"]
    command = [sys.executable, "-m", "pytest", *options, test]
    environment = os.environ | {"PYTHONPATH": str(repository), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_text_that_a_mistake_replaces_is_in_the_code(mistake):
    name, text, _, test = MISTAKES[mistake]
    assert text in (ROOT / name).read_text(encoding="utf-8"), f"{name} has changed: write this mistake anew"
    file, _, function = test.partition("::")
    assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_about_cuda_fails_a_test(repository, mistake):
    name, text, wrong, test = MISTAKES[mistake]
    path = repository / name
    source = path.read_text(encoding="utf-8")
    path.write_text(source.replace(text, wrong), encoding="utf-8")
    try:
        done = outcome(repository, test)
    finally:
        path.write_text(source, encoding="utf-8")
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_the_copy_passes_without_a_mistake(repository):
    done = outcome(repository, FLASH)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
