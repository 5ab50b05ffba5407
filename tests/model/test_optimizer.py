import pytest
import torch
from torch import nn
from transformers import get_linear_schedule_with_warmup

from model.bert import BertConfig
from model.heads import BertForPreTraining
from model.optimizer import BETAS, EPSILON, build_optimizer, learning_rate_at, set_learning_rate


def test_biases_and_layer_norms_do_not_decay_and_nothing_is_left_out():
    model = BertForPreTraining(
        BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )
    decaying, others = build_optimizer(model, 0.01).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert decaying["weight_decay"] == 0.01 and others["weight_decay"] == 0.0
    assert all(names[id(p)].endswith(("bias", "norm.weight")) for p in others["params"])
    assert not any(names[id(p)].endswith(("bias", "norm.weight")) for p in decaying["params"])
    assert len(decaying["params"]) + len(others["params"]) == len(names)


def test_an_update_is_adamw_written_out():
    layer = nn.Linear(3, 2)
    optimizer = build_optimizer(layer, 0.1)
    weight, first, second = layer.weight.detach().clone(), torch.zeros(2, 3), torch.zeros(2, 3)
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 6):
        gradient = torch.randn(2, 3, generator=generator)
        layer.weight.grad, layer.bias.grad = gradient.clone(), torch.zeros(2)
        set_learning_rate(optimizer, 0.01 * step)
        optimizer.step()
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
        unbiased = first / (1 - BETAS[0] ** step), second / (1 - BETAS[1] ** step)
        weight = weight * (1 - 0.01 * step * 0.1) - 0.01 * step * unbiased[0] / (unbiased[1].sqrt() + EPSILON)
        torch.testing.assert_close(layer.weight.detach(), weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("num_warmup_steps", [0, 1, 7])
def test_the_schedule_is_that_of_transformers_but_warms_up_one_step_earlier(num_warmup_steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps, 20)
    theirs = []
    for _ in range(20):
        theirs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    ours = [learning_rate_at(step, 0.5, num_warmup_steps, 20) for step in range(20)]
    assert max(ours) == 0.5  # the peak is reached
    assert ours[num_warmup_steps:] == pytest.approx(theirs[num_warmup_steps:])
    warm = max(num_warmup_steps - 1, 0)
    assert ours[:warm] == pytest.approx(theirs[1 : warm + 1])
    assert ours[-1] > 0  # no step is thrown away
