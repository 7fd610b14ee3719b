"""Muon: its step for every memory layout, the weights that it trains, its learning rate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distill.training import muon, optim
from distill.training.muon import Muon, matrices

pytestmark = pytest.mark.usefixtures("one_thread")


def gradient(shape: torch.Size, seed: int = 0) -> Tensor:
    """Draw matrices with singular values from 1 to 0.01, as in a small net."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(shape[0], shape.numel() // shape[0], generator=generator)
    left, sizes, right = torch.linalg.svd(flat, full_matrices=False)
    return (left * torch.logspace(0, -2, len(sizes)) @ right).view(shape)


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (8, 16, 1, 1), (24, 6, 1, 1), (10, 20)])
@pytest.mark.parametrize("native", [True, False])
def test_all_directions_of_a_gradient_get_equal_steps(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], native: bool
) -> None:
    monkeypatch.setattr(muon, "has_bf16", lambda device: native)
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = gradient(weight.shape)
    Muon([weight], lr=0.5).step()
    step = -weight.detach().flatten(1) / 0.5 / max(1, shape[0] / weight[0].numel()) ** 0.5
    left, sizes, right = torch.linalg.svd(gradient(weight.shape).flatten(1), full_matrices=False)
    along = torch.einsum("ok,oi,ki->k", left, step, right)
    assert along.max() < 1.3
    assert along[sizes > 0.1].min() > 0.6
    assert along.min() > 0.06  # The smallest is a hundredth of the largest in the gradient.


@pytest.mark.parametrize("shape", [(16, 24), (24, 16)])
def test_the_step_equals_that_of_torch(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    monkeypatch.setattr(muon, "has_bf16", lambda device: True)
    ours, theirs = (nn.Parameter(torch.eye(*shape)) for _ in range(2))
    pairs = ((ours, Muon([ours], lr=0.1)), (theirs, torch.optim.Muon([theirs], lr=0.1)))
    for weight, optimizer in pairs:
        for seed in range(3):
            weight.grad = gradient(weight.shape, seed)
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)


def test_a_zero_gradient_gives_only_weight_decay() -> None:
    weight = nn.Parameter(torch.ones(3, 4))
    weight.grad = torch.zeros(3, 4)
    Muon([weight], lr=0.5).step()
    assert torch.allclose(weight, torch.full((3, 4), 1 - 0.5 * muon.WEIGHT_DECAY))


def test_the_memory_layout_does_not_change_the_step() -> None:
    plain = nn.Parameter(torch.randn(16, 8, 3, 3))
    last = nn.Parameter(plain.detach().clone(memory_format=torch.channels_last))
    assert not last.is_contiguous()
    last_of_plain = gradient(plain.shape).contiguous(memory_format=torch.channels_last)
    for weight, grad in ((plain, last_of_plain), (last, gradient(plain.shape))):
        optimizer = Muon([weight], lr=0.1)
        for _ in range(2):
            weight.grad = grad
            optimizer.step()
            assert weight.grad is grad
    assert last.stride() == last.contiguous(memory_format=torch.channels_last).stride()
    # bfloat16 sums in another order differ.
    torch.testing.assert_close(plain, last, atol=5e-3, rtol=0)


def test_weights_without_a_gradient_stay() -> None:
    moved, still = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    optimizer = Muon([moved, still], lr=0.1)
    moved.grad = torch.eye(4)
    optimizer.step()
    assert torch.equal(still, torch.ones(4, 4))
    assert not torch.equal(moved, torch.ones(4, 4))


def test_muon_trains_the_trainable_layers_that_mix_channels() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Linear(8, 5),
        nn.Linear(5, 4).requires_grad_(False),
        nn.Embedding(3, 4),
    )
    assert [id(weight) for weight in matrices(net)] == [id(net[0].weight), id(net[3].weight)]
    attention = nn.MultiheadAttention(8, 2)
    wanted = [id(attention.in_proj_weight), id(attention.out_proj.weight)]
    assert [id(weight) for weight in matrices(attention)] == wanted


def test_every_weight_has_one_optimizer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5), nn.Linear(5, 5))
    net.to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net[3].parameters())
    sgd = optim.make_optimizers(net, "sgd", adam)
    assert list(sgd) == ["sgd"]
    assert trained_by(sgd["sgd"]) == {id(p) for part in net[:3] for p in part.parameters()}
    both = optim.make_optimizers(net, "muon", adam)
    assert trained_by(both["muon"]) == {id(net[0].weight), id(net[2].weight)}
    assert trained_by(both["sgd"]) == {
        id(p) for p in (net[0].bias, net[2].bias, *net[1].parameters())
    }
    optim.set_learning_rate(both, 0.3)
    assert {group["lr"] for optimizer in both.values() for group in optimizer.param_groups} == {0.3}
    assert adam.param_groups[0]["lr"] == 0.001


def trained_by(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def test_weights_in_one_optimizer_get_the_steps_of_separate_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(muon, "has_bf16", lambda device: False)
    shapes = [(8, 4, 3, 3), (16, 8), (8, 36), (8, 4, 3, 3), (16, 8)]
    together = [nn.Parameter(gradient(torch.Size(shape), 9)) for shape in shapes]
    alone = [nn.Parameter(weight.detach().clone()) for weight in together]
    joint, separate = Muon(together, lr=0.1), [Muon([weight], lr=0.1) for weight in alone]
    for seed in range(3):
        for number, (first, second) in enumerate(zip(together, alone, strict=True)):
            first.grad = gradient(first.shape, 10 * number + seed)
            second.grad = first.grad.clone()
        joint.step()
        for optimizer in separate:
            optimizer.step()
    for first, second in zip(together, alone, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
