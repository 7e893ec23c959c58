"""Losses of the probability of the right class, and weights by the effective number of samples."""

import math

import pytest
import torch
from torch.nn import functional as F

from aptt.loss import (
    class_balanced_weights,
    cross_entropy,
    generalized_cross_entropy_loss,
    poly1_loss,
    symmetric_cross_entropy_loss,
)
from aptt.loss.classification.chance import MIXED, POWER


@pytest.mark.parametrize(
    ("loss", "options", "wanted"),
    [
        (poly1_loss, {"epsilon": 1.0}, 2.136294),
        (poly1_loss, {"epsilon": -1.0}, 0.636294),
        (generalized_cross_entropy_loss, {"q": 0.7}, 0.887244),
        (generalized_cross_entropy_loss, {"q": 1.0}, 0.75),
        (symmetric_cross_entropy_loss, {}, 3.138629),
    ],
)
def test_of_four_classes_alike(loss, options, wanted):
    found = loss(torch.zeros(1, 4, dtype=torch.float64), torch.tensor([1]), **options)
    assert found.item() == pytest.approx(wanted, rel=1e-6)


def test_they_are_functions_of_the_chance():
    g = torch.Generator().manual_seed(0)
    x, y = 3 * torch.randn(9, 5, dtype=torch.float64, generator=g), torch.arange(9) % 5
    p = x.softmax(1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(poly1_loss(x, y, reduction="none"), 1 - p - p.log())
    torch.testing.assert_close(
        generalized_cross_entropy_loss(x, y, q=0.3, reduction="none"), (1 - p**0.3) / 0.3
    )
    torch.testing.assert_close(
        symmetric_cross_entropy_loss(x, y, alpha=6.0, beta=0.1, reduction="none"),
        -6 * p.log() + 0.4 * (1 - p),
    )
    near = generalized_cross_entropy_loss(x, y, q=1e-3)
    torch.testing.assert_close(near, cross_entropy(x, y), rtol=1e-2, atol=0)


@pytest.mark.parametrize("epsilon", [-1.0, -0.5, 0.0, 1.0])
def test_a_right_class_that_is_masked_costs_infinity_whatever_the_first_term_weighs(
    epsilon, same_as_autograd, same_when_compiled
):
    x, y = torch.tensor([[-math.inf, 0.0, 1.0]], requires_grad=True), torch.tensor([0])
    found, entropy = poly1_loss(x, y, epsilon=epsilon), cross_entropy(x, y)
    (grad,), (wanted,) = (torch.autograd.grad(loss, x) for loss in (found, entropy))
    assert found == math.inf
    torch.testing.assert_close(grad, wanted)
    same_when_compiled(poly1_loss, x, y, epsilon=epsilon, reduction="none")
    same_as_autograd(MIXED, x.double(), y, log=1.0, linear=epsilon, less=epsilon < 0)


def test_a_sure_answer_keeps_its_digits():
    # 1 - p is exp(-20) / (1 + exp(-20)), of which float32 has nothing left by subtraction
    x = torch.tensor([[20.0, 0.0]], requires_grad=True)
    miss = math.exp(-20) / (1 + math.exp(-20))
    for loss, wanted in (
        (poly1_loss, math.log1p(math.exp(-20)) + miss),
        (generalized_cross_entropy_loss, -math.expm1(-0.7 * math.log1p(math.exp(-20))) / 0.7),
    ):
        found = loss(x, torch.tensor([0]))
        (grad,) = torch.autograd.grad(found, x)
        assert found.item() == pytest.approx(wanted, rel=1e-6)
        assert grad[0, 0] < 0


def test_effective_numbers():
    for n, wanted in ((10, 9.9955), (1000, 951.67), (100_000, 9999.55)):
        two = class_balanced_weights(torch.tensor([1.0, n], dtype=torch.float64))
        assert (two[0] / two[1]).item() == pytest.approx(wanted, rel=1e-5)
    assert class_balanced_weights([3, 1000, 50]).sum().item() == pytest.approx(3)
    assert class_balanced_weights([3, 7], beta=0.0).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="counts: got 0, wanted at least 1"):
        class_balanced_weights([0, 5])
    for beta in (1.0, -0.1):
        with pytest.raises(ValueError, match=f"^beta: got {beta}"):
            class_balanced_weights([3, 7], beta=beta)
    found = cross_entropy(
        torch.zeros(1, 2), torch.tensor([1]), weight=class_balanced_weights([9, 1])
    )
    assert found.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("hard", [1.0, 30.0])
def test_steps(hard, same_as_autograd):
    g = torch.Generator().manual_seed(0)
    x, y = hard * torch.randn(9, 5, dtype=torch.float64, generator=g), torch.arange(9) % 5
    same_as_autograd(MIXED, x, y, log=0.5, linear=2.0, less=False)
    same_as_autograd(MIXED, x, y, log=1.0, linear=-1.0, less=True)
    same_as_autograd(POWER, x, y, q=0.7)


def test_soft_targets_are_refused():
    with pytest.raises(TypeError, match=r"target: got torch\.float32, wanted class"):
        poly1_loss(torch.zeros(2, 3), F.one_hot(torch.tensor([0, 1]), 3).float())
