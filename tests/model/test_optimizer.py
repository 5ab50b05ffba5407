import pytest
import torch
from torch import nn

from model.heads import PretrainingModel
from model.optimizer import BETAS, EPSILON, LAMB_BETAS, build_optimizer, moment_names, orthogonal, set_learning_rate
from tests.model.small_model import random_model, small_config


def test_biases_and_layer_norms_do_not_decay_and_nothing_is_left_out():
    model = PretrainingModel(small_config(num_hidden_layers=1))
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


def test_an_update_of_lamb_is_the_published_formula_written_out():
    layer = nn.Linear(3, 2)
    optimizer = build_optimizer(layer, 0.1, "lamb")
    weights = {name: p.detach().clone() for name, p in layer.named_parameters()}
    first = {name: torch.zeros_like(p) for name, p in weights.items()}
    second = {name: torch.zeros_like(p) for name, p in weights.items()}
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 6):
        set_learning_rate(optimizer, 0.01 * step)
        for name, parameter in layer.named_parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = gradient.clone()
            first[name] = LAMB_BETAS[0] * first[name] + (1 - LAMB_BETAS[0]) * gradient
            second[name] = LAMB_BETAS[1] * second[name] + (1 - LAMB_BETAS[1]) * gradient**2
            mean, square = first[name] / (1 - LAMB_BETAS[0] ** step), second[name] / (1 - LAMB_BETAS[1] ** step)
            update = mean / (square.sqrt() + EPSILON)
            ratio = 1.0
            if name == "weight":  # biases neither decay nor are they scaled
                update = update + 0.1 * weights[name]
                ratio = float(weights[name].norm() / update.norm())
            weights[name] = weights[name] - 0.01 * step * ratio * update
        optimizer.step()
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(parameter.detach(), weights[name], atol=1e-6, rtol=1e-5)


def test_lamb_leaves_a_parameter_of_zeros_unscaled_and_skips_one_without_a_gradient():
    layer = nn.Linear(2, 2)
    nn.init.zeros_(layer.weight)
    before = layer.bias.detach().clone()
    optimizer = build_optimizer(layer, 0.1, "lamb")
    set_learning_rate(optimizer, 0.5)
    layer.weight.grad = torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), torch.full((2, 2), -0.5), atol=1e-4, rtol=0)
    assert layer.bias.detach().equal(before)


def one_after_the_other(name: str, parameters, moments, group, learning_rate: float) -> None:
    """Updates of LAMB or Muon, one parameter after the other, as the papers' own code makes them."""
    for parameter in parameters:
        if parameter.grad is None:
            continue
        gradient, state = parameter.grad, moments.setdefault(parameter, {})
        if name == "muon":
            kept = state.setdefault("momentum_buffer", torch.zeros_like(parameter)).lerp_(gradient, 0.05)
            update = slow_orthogonal(gradient.lerp(kept, 0.95)) * 0.2 * max(parameter.shape) ** 0.5
            parameter.mul_(1 - learning_rate * group["weight_decay"])
        else:
            state["step"] = state.get("step", 0) + 1
            first = state.setdefault("exp_avg", torch.zeros_like(parameter)).lerp_(gradient, 1 - LAMB_BETAS[0])
            second = state.setdefault("exp_avg_sq", torch.zeros_like(parameter)).mul_(LAMB_BETAS[1])
            second.addcmul_(gradient, gradient, value=1 - LAMB_BETAS[1])
            update = first / (1 - LAMB_BETAS[0] ** state["step"])
            update /= (second / (1 - LAMB_BETAS[1] ** state["step"])).sqrt() + EPSILON
            if group["weight_decay"]:
                update += group["weight_decay"] * parameter
                update *= parameter.norm() / update.norm()
        parameter.sub_(learning_rate * update)


@pytest.mark.parametrize("piece", [1, 2000, 2**25])
@pytest.mark.parametrize("name", ["lamb", "muon"])
@torch.no_grad()
def test_many_parameters_at_once_are_updated_as_one_after_the_other(name, piece, monkeypatch):
    monkeypatch.setattr("model.optimizer.LAMB_NUMBERS", piece)
    model, twin = random_model(), random_model()
    optimizer = build_optimizer(model, 0.1, name)
    theirs = dict(zip(model.parameters(), twin.parameters()))
    moments: dict = {}
    groups = optimizer.param_groups if name == "lamb" else optimizer.param_groups[:1]
    ours = [parameter for group in groups for parameter in group["params"]]
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 7):
        for number, parameter in enumerate(ours):
            gradient = torch.randn(parameter.shape, generator=generator)
            # Some have no gradient in some steps.
            parameter.grad = None if (number + step) % 5 == 0 else gradient
            theirs[parameter].grad = None if parameter.grad is None else gradient.clone()
        before = [parameter.clone() for parameter in ours]
        set_learning_rate(optimizer, 0.01 * step)
        optimizer.step()
        for group in groups:
            one_after_the_other(name, [theirs[p] for p in group["params"]], moments, group, 0.01 * step)
        for parameter, old in zip(ours, before):
            other = theirs[parameter]
            assert (parameter - other).norm() <= 1e-5 * (other - old).norm() + 1e-6 * other.norm()
            if parameter.grad is None:
                assert parameter.equal(old)
            for key, moment in moments.get(other, {}).items():
                torch.testing.assert_close(
                    optimizer.state[parameter][key], torch.as_tensor(moment, dtype=torch.float32)
                )


def slow_orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Jordan's iteration for Muon as published, in 32 bits."""
    if len(matrix) > len(matrix.T):
        return slow_orthogonal(matrix.T).T
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def test_muon_takes_the_matrices_of_the_layers_and_both_parts_are_as_torchs():
    model, twin, slow = random_model(), random_model(), dict(random_model().named_parameters())
    optimizer = build_optimizer(model, 0.1, "muon")
    names = ("qkv", "attention_output", "intermediate", "output")
    matrices = {f"encoder.layers.{layer}.{name}.weight" for layer in range(2) for name in names}
    kept = {name: moment_names(optimizer)[parameter] for name, parameter in model.named_parameters()}
    assert {name for name, moments in kept.items() if moments == ("momentum_buffer",)} == matrices
    assert all(moments == ("step", "exp_avg", "exp_avg_sq") for name, moments in kept.items() if name not in matrices)

    theirs = dict(twin.named_parameters())
    muon = torch.optim.Muon([theirs.pop(name) for name in matrices], weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in theirs.values() if p.ndim == 2], "weight_decay": 0.1},
            {"params": [p for p in theirs.values() if p.ndim == 1], "weight_decay": 0.0},
        ],
        betas=BETAS,
        eps=EPSILON,
        fused=True,
    )
    generator = torch.Generator().manual_seed(1)
    momentum = {name: torch.zeros_like(slow[name]) for name in matrices}
    first = {name: slow[name].detach().clone() for name in matrices}
    for step in range(1, 6):
        for ours, other in zip(model.parameters(), twin.parameters()):
            ours.grad = torch.randn(ours.shape, generator=generator)
            other.grad = ours.grad.clone()
        for name, parameter in model.named_parameters():
            if name in matrices:
                momentum[name] = 0.95 * momentum[name] + 0.05 * parameter.grad
                update = slow_orthogonal(0.05 * parameter.grad + 0.95 * momentum[name])
                update *= 0.2 * max(parameter.shape) ** 0.5
                slow[name] = (1 - 0.01 * step * 0.1) * slow[name] - 0.01 * step * update
        set_learning_rate(optimizer, 0.01 * step)
        for part in (muon, adamw):
            set_learning_rate(part, 0.01 * step)
            part.step()
        optimizer.step()
    for (name, ours), other in zip(model.named_parameters(), twin.parameters()):
        if name in matrices:
            torch.testing.assert_close(ours, slow[name], rtol=1e-5, atol=1e-6)
            # torch orthogonalises in 16 bits
            assert (ours - other).norm() < 0.02 * (ours - first[name]).norm()
        else:
            torch.testing.assert_close(ours, other, rtol=1e-6, atol=1e-7)
    assert all(
        set(optimizer.state[parameter]) == set(moments) for parameter, moments in moment_names(optimizer).items()
    )


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_an_orthogonal_matrix_keeps_the_directions_and_brings_the_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    (made,) = orthogonal(matrix[None], 5)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    values = left.T @ made @ right.T  # diagonal: the directions are those of the matrix
    torch.testing.assert_close(values, values.diagonal().diag(), rtol=0, atol=1e-4)
    assert (values.diagonal() > 0.3).all() and (values.diagonal() < 1.3).all()
