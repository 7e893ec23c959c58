import math

import pytest
import torch
from torch.nn import functional as F

from aptt.loss import asymmetric_loss, binary_cross_entropy, focal_loss


def _answers():
    g = torch.Generator().manual_seed(0)
    x = 4 * torch.randn(40, dtype=torch.float64, generator=g)
    return x, torch.randint(2, (40,), generator=g)


def test_it_is_what_the_paper_says():
    x, t = _answers()
    p = torch.sigmoid(x)
    shifted = (p - 0.05).clamp(min=0)
    negative = -(shifted**4) * (1 - shifted).log()
    want = torch.where(t == 1, -(1 - p) * p.log(), negative)
    found = asymmetric_loss(x, t, gamma_positive=1.0, reduction="none")
    torch.testing.assert_close(found, want)


def test_without_exponents_and_margin_it_is_cross_entropy_and_with_equal_ones_focal():
    x, t = _answers()
    plain = asymmetric_loss(x, t, gamma_negative=0.0, margin=0.0)
    torch.testing.assert_close(plain, binary_cross_entropy(x, t))
    both = asymmetric_loss(x, t, gamma_positive=2.0, gamma_negative=2.0, margin=0.0)
    torch.testing.assert_close(both, focal_loss(x, t, alpha=None))


def test_a_negative_costs_no_more_than_the_docstring_says():
    # 0.95**4 * -log(0.05) = 2.4400, with a gradient that fades
    x = torch.tensor([60.0, 1e4], requires_grad=True)
    loss = asymmetric_loss(x, torch.zeros(2), reduction="none")
    torch.testing.assert_close(loss.detach(), torch.full((2,), 0.95**4 * -math.log(0.05)))
    assert loss[0].item() == pytest.approx(2.4400, abs=1e-4)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    assert (grad.abs() < 1e-20).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_no_epsilon_that_half_types_lose(dtype):
    # log(max(p, 1e-8)) is log(0) in float16: NaN
    x = torch.tensor([-40.0, 40.0, -200.0, 200.0], dtype=dtype, requires_grad=True)
    t = torch.tensor([1, 0, 1, 0])
    loss = asymmetric_loss(x, t)
    (grad,) = torch.autograd.grad(loss, x)
    assert loss.item() == pytest.approx((40 + 200 + 2 * 2.44) / 4, rel=1e-3)
    assert grad[0] == grad[2] == -0.25


def test_easy_negatives_are_free():
    x = torch.tensor([-3.0, -2.9], requires_grad=True)  # p = .0474 and .0522
    loss = asymmetric_loss(x, torch.zeros(2), reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), x)
    assert loss[0] == 0
    assert grad[0] == 0
    assert 0 < loss[1] < F.softplus(x[1])
