"""Muon in float32 against PyTorch's own, which computes in bfloat16."""

import copy

import pytest
import torch

from p06_training.muon import Muon, orthogonal

SHAPES = [(8, 8), (32, 8), (8, 32), (8, 8), (1, 8)]
SETTINGS = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "ns_steps": 3}


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def step(optimizer, parameters, seed):
    """One step with random gradients from this seed."""
    for parameter, grad in zip(parameters, weights(seed), strict=True):
        parameter.grad = grad.detach()
    optimizer.step()


@pytest.mark.parametrize("changed", [{}, {"nesterov": False}, {"ns_steps": 2, "momentum": 0.5}])
def test_steps_are_torchs_up_to_bfloat16(changed):
    ours, theirs = weights(), weights()
    one = Muon(ours, **SETTINGS | changed)
    other = torch.optim.Muon(theirs, **SETTINGS | changed)
    for seed in (1, 2, 3):
        step(one, ours, seed)
        step(other, theirs, seed)
    for a, b, start in zip(ours, theirs, weights(), strict=True):
        moved = (b - start).norm()
        assert (a - b).norm() < 0.02 * moved, (
            f"{tuple(a.shape)}: the updates differ by {(a - b).norm() / moved:.1%}"
        )


def test_the_state_is_torchs():
    ours, theirs = weights(), weights()
    one, other = Muon(ours, **SETTINGS), torch.optim.Muon(theirs, **SETTINGS)
    step(one, ours, 1)
    step(other, theirs, 1)
    mine, yours = one.state_dict(), other.state_dict()
    assert mine["param_groups"] == yours["param_groups"]
    for i, state in yours["state"].items():
        assert set(mine["state"][i]) == set(state)
        assert torch.allclose(mine["state"][i]["momentum_buffer"], state["momentum_buffer"])


def test_a_loaded_state_continues_bit_for_bit():
    straight = weights()
    optimizer = Muon(straight, **SETTINGS)
    step(optimizer, straight, 1)
    resumed = copy.deepcopy(straight)
    again = Muon(resumed, **SETTINGS)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(optimizer, straight, 2)
    step(again, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_parameters_without_gradient_do_not_change():
    parameters = weights()
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = Muon(parameters, **SETTINGS)
    parameters[1].grad = torch.zeros(SHAPES[1])
    parameters[3].grad = torch.ones(SHAPES[3])
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, parameters, strict=True)]
    assert moved == [False, True, False, True, False], "a zero gradient still has weight decay"
    assert torch.allclose(parameters[1], before[1] * (1 - 0.02 * 0.1))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 48), (2, 48, 16), (1, 1, 5)])
def test_singular_values_come_near_one_and_the_vectors_stay(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    got = u.mT @ orthogonal(x, (3.4445, -4.775, 2.0315), 8, 1e-7) @ vh.mT  # nearly diagonal
    values = got.diagonal(dim1=1, dim2=2)
    assert ((0.6 < values) & (values < 1.3)).all(), values
    assert torch.allclose(got, torch.diag_embed(values), atol=1e-4)
