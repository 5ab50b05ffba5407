"""The linear layer whose bias gradient is summed in blocks of tokens when it is compiled for CUDA."""

import pytest
import torch
from torch import nn

from model.linear import BLOCK, BlockSum, Linear, in_blocks
from tests.fake_cuda.library import missing
from tests.fake_cuda.runs import on_devices


def gradients(function, *tensors):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    result = function(*leaves)
    result.backward(torch.linspace(-1, 2, result.numel()).view_as(result).to(result.dtype))
    return [result.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sums_in_blocks_give_the_gradients_of_torch(dtype):
    generator = torch.Generator().manual_seed(1)
    shapes = [(3 * BLOCK, 5), (7, 5), (7,)]
    tensors = [torch.randn(shape, dtype=dtype, generator=generator) for shape in shapes]
    for ours, theirs in zip(gradients(BlockSum.apply, *tensors), gradients(nn.functional.linear, *tensors)):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-5)


def test_the_gradient_of_a_bias_in_16_bits_is_summed_in_32_bits():
    """Sums in bfloat16 stop growing at 256."""
    tensors = [torch.ones(shape, dtype=torch.bfloat16) for shape in [(64 * BLOCK, 2), (3, 2), (3,)]]
    leaves = [tensor.requires_grad_() for tensor in tensors]
    BlockSum.apply(*leaves).sum().backward()
    assert leaves[2].grad.tolist() == [64 * BLOCK] * 3


def test_on_a_cpu_nothing_is_seen_in_blocks():
    layer, hidden = Linear(5, 7), torch.ones(2 * BLOCK, 5)
    assert layer(hidden).equal(nn.functional.linear(hidden, layer.weight, layer.bias))
    assert in_blocks(hidden) is hidden
    assert layer(hidden.view(2, BLOCK, 5)).shape == (2, BLOCK, 7)


@pytest.mark.skipif(bool(missing()), reason=missing())
@on_devices()
def test_a_compiled_layer_on_cuda_sums_in_blocks_and_has_the_gradients_of_an_uncompiled_one():
    import torch

    from model.bert import BertLayer
    from model.bert_config import BertShape
    from model.linear import BLOCK, in_blocks
    from tests.fake_cuda.report import replace_compiler

    replace_compiler()
    torch.manual_seed(1)
    layer = BertLayer(BertShape(hidden_size=16, num_attention_heads=2, intermediate_size=32)).cuda()
    shapes = []

    def found(*tensors, function=layer.after_attention):
        for parameter in layer.parameters():
            parameter.grad = None
        function(*tensors).square().sum().backward()
        return {name: parameter.grad for name, parameter in layer.named_parameters() if parameter.grad is not None}

    for rows in (2 * BLOCK, 2 * BLOCK + 1):
        hidden, mixed = torch.randn(2, rows, 16).cuda().unbind()
        expected = found(hidden, mixed)
        compiled = torch.compile(layer.after_attention, dynamic=False)
        for name, gradient in found(hidden, mixed, function=compiled).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-5)
        shapes.append(torch.compile(lambda x: in_blocks(x), dynamic=False)(hidden).shape)
    assert shapes == [(2, BLOCK, 16), (2 * BLOCK + 1, 16)]
