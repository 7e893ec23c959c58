"""Cross-entropy of a logit: exact at both ends, where naive forms cancel."""

import math

import pytest
import torch

from aptt.core.logistic import nll, softplus


@pytest.mark.parametrize("logit", [-6e4, -700.0, -30.0, -1e-8, 0.0, 1e-8, 12.0, 30.0, 41.0, 6e4])
def test_softplus_is_exact(logit):
    x = torch.tensor([logit], dtype=torch.float64)
    expected = max(logit, 0.0) + math.log1p(math.exp(-abs(logit)))
    assert softplus(x).item() == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("q", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_cross_entropy_keeps_its_digits(q, dtype):
    # F.binary_cross_entropy_with_logits in float32 at 12 and 1: off by a tenth
    x = torch.tensor([-60.0, -12.0, -0.5, 0.0, 0.5, 12.0, 60.0], dtype=dtype)
    found = nll(x, torch.full_like(x, q))
    for v, f in zip(x.tolist(), found.tolist(), strict=True):
        no, yes = (max(s, 0.0) + math.log1p(math.exp(-abs(s))) for s in (v, -v))
        assert f == pytest.approx((1 - q) * no + q * yes, rel=8 * torch.finfo(dtype).eps)


def test_the_gradient_is_that_of_the_definition():
    x = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    for q in (0.0, 0.3, 0.7, 1.0):
        y = torch.full_like(x, q)
        (slope,) = torch.autograd.grad(nll(x, y).sum(), x)
        torch.testing.assert_close(slope, x.detach().sigmoid() - q)
        assert torch.autograd.gradgradcheck(lambda x, y=y: nll(x, y), x)


def test_what_is_infinitely_sure_and_right_costs_nothing():
    x = torch.tensor([-math.inf, math.inf], requires_grad=True)
    cost = nll(x, torch.tensor([0.0, 1.0]))
    cost.sum().backward()
    assert cost.tolist() == [0, 0]
    assert x.grad.tolist() == [0, 0]
    assert nll(torch.tensor([math.nan]), torch.zeros(1)).isnan()
