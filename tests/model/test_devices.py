import pytest
import torch

from model import devices
from model.bert_config import BertShape
from model.devices import check_precision, peak_flops

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def name_gpu(monkeypatch, name: str, capability: tuple[int, int] = (9, 0)) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


@pytest.mark.parametrize(
    "name, tflops",
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA H20", 148),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA B300 SXM6 AC", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA GB300", 2500),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA A30", 165),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181),
        ("NVIDIA L40S", 362),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503.8),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 5090", 209.5),
        ("Tesla V100-SXM2-16GB", 125),
        ("Tesla V100-PCIE-32GB", 112),
        ("Tesla T4", 65),
    ],
)
def test_a_gpu_has_the_peak_of_its_own_data_sheet(monkeypatch, name, tflops):
    name_gpu(monkeypatch, name)
    assert peak_flops(CUDA, None, "bf16") == tflops * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA H100 80GB HBM2e",
        "NVIDIA A10-24Q",
        "NVIDIA A800 40GB Active",
        "NVIDIA L400",
        "Quadro RTX 6000",
        "Some new GPU",
    ],
)
def test_a_gpu_that_only_resembles_a_known_one_has_no_peak(monkeypatch, name):
    name_gpu(monkeypatch, name)
    assert peak_flops(CUDA, None, "bf16") is None


def test_a_stated_peak_counts_and_in_fp32_there_is_no_other(monkeypatch):
    name_gpu(monkeypatch, "NVIDIA H200")
    assert peak_flops(CUDA, None, "fp32") is None
    assert peak_flops(CUDA, 60.0, "fp32") == 60e12
    assert peak_flops(CPU, 0.5, "fp32") == 5e11
    assert peak_flops(CPU, None, "bf16") is None


@pytest.mark.parametrize("name, capability", [("Tesla T4", (7, 5)), ("Tesla V100-SXM2-16GB", (7, 0))])
def test_bf16_is_refused_on_a_gpu_without_it_and_fp16_and_fp32_are_not(monkeypatch, name, capability):
    name_gpu(monkeypatch, name, capability)
    with pytest.raises(ValueError, match=f"precision=bf16: {name} has no bf16 .*: use --precision fp16 or fp32"):
        check_precision("bf16", CUDA, BertShape())
    assert check_precision("fp16", CUDA, BertShape()) == (
        f"attention reads padded sequences, which is slower than FlashAttention: {name} is older than Ampere"
    )
    assert check_precision("fp32", CUDA, BertShape()) is None


def test_a_head_size_or_dropout_that_flash_attention_does_not_take_gives_a_warning(monkeypatch):
    name_gpu(monkeypatch, "NVIDIA H200")
    assert check_precision("bf16", CUDA, BertShape()) is None
    shape = BertShape(hidden_size=120, num_attention_heads=6)
    note = check_precision("bf16", CUDA, shape)
    assert "the head size is 20, expected a multiple of 8 up to 256" in note
    note = check_precision("bf16", CUDA, BertShape(), 0.1)
    assert "no dropout of attention weights, which is 0.1 here" in note


@pytest.mark.parametrize(
    "flags, has_bf16",
    [
        ("flags : fpu sse2 avx2 avx512f avx512_bf16 avx512_vnni\n", True),
        ("flags : fpu sse2 avx512f amx_bf16 amx_tile\n", True),
        ("flags : fpu sse2 avx2 avx512f avx512_vnni\n", False),
        ("Features : fp asimd asimdhp bf16 i8mm\n", True),
        ("Features : fp asimd asimdhp\n", False),
    ],
)
def test_bf16_on_a_cpu_without_instructions_for_it_gives_a_warning(monkeypatch, tmp_path, flags, has_bf16):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}")
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
    note = check_precision("bf16", CPU, BertShape())
    assert (note is None) == has_bf16
    assert note is None or note.startswith("precision=bf16: this CPU has no instructions for bf16")
    assert check_precision("fp32", CPU, BertShape()) is None


def test_where_nothing_lists_the_instructions_of_the_cpu_there_is_no_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "missing")
    assert check_precision("bf16", CPU, BertShape()) is None


def test_fp16_on_a_cpu_gives_a_warning():
    note = check_precision("fp16", CPU, BertShape())
    assert note.startswith("precision=fp16: a CPU computes no faster in fp16 than in fp32")
