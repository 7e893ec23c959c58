"""The softmax seen from the right class: exact however confident, and the quick exponential."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aptt.core.softmax import (
    against,
    exp_of_gaps,
    of_class,
    on_class_axis,
    put_class_,
    with_class,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("low", [-50.0, -800.0])  # without underflow, and with
def test_the_quick_exponential_is_exact_within_a_rounding_of_its_argument(dtype, low):
    limits = torch.finfo(dtype)
    x = torch.linspace(low, 0, 20_001, dtype=dtype)
    truth = [math.exp(v) for v in x.tolist()]
    got = exp_of_gaps(x).double()
    truth = torch.tensor(truth, dtype=torch.float64)
    allowed = truth * limits.eps * (x.double().abs() + 2) + limits.tiny
    assert bool(((got - truth).abs() <= allowed).all())


@pytest.mark.parametrize("beside", [-1.0, -1000.0])
def test_the_quick_exponential_of_its_ends_is_exact(beside):
    got = exp_of_gaps(torch.tensor([0.0, -torch.inf, beside]))
    assert got[:2].tolist() == [1.0, 0.0]


def test_the_quick_exponential_keeps_nan_and_its_argument():
    gaps = torch.tensor([float("nan"), -1000.0])
    assert exp_of_gaps(gaps)[0].isnan()
    assert gaps[1] == -1000


def _rows(n=40, classes=6):
    g = torch.Generator().manual_seed(0)
    z = 5 * torch.randn(n, classes, dtype=torch.float64, generator=g)
    return z, torch.randint(classes, (n,), generator=g)


def test_the_odds_are_those_against_the_class():
    z, y = _rows()
    p = z.softmax(1).gather(1, y[:, None])
    wrong = against(z, y)
    torch.testing.assert_close(wrong.odds, (1 - p) / p, rtol=1e-9, atol=0)
    torch.testing.assert_close(wrong.miss, 1 - p, rtol=1e-9, atol=0)
    torch.testing.assert_close(wrong.nll, -p.log(), rtol=1e-9, atol=0)
    each = exp_of_gaps(z - wrong.top) * wrong.share
    put_class_(each, y, 1 - wrong.miss)
    torch.testing.assert_close(each, z.softmax(1), rtol=1e-12, atol=1e-15)


@given(st.floats(-700, 700), st.integers(0, 3))
def test_the_chance_of_being_wrong_is_exact_however_confident(gap, y):
    z = torch.zeros(1, 4, dtype=torch.float64)
    z[0, y] = gap
    wrong = against(z, torch.tensor([y]))
    assert wrong.miss.item() == pytest.approx(3 / (3 + math.exp(gap)), rel=1e-12)
    nll = math.log1p(3 * math.exp(-gap)) if gap > -40 else math.log(3) - gap
    assert wrong.nll.item() == pytest.approx(nll, rel=1e-12)


@pytest.mark.parametrize("gap", [-60.0, -40.0, -39.0, 0.0, 40.0, 60.0])
def test_the_derivative_of_the_cost_is_minus_the_chance_of_being_wrong(gap):
    # on either side of where the lift is bounded, and there
    z = torch.tensor([[gap, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    against(z, torch.tensor([0])).nll.sum().backward()
    miss = 2 / (2 + math.exp(gap))
    assert z.grad[0].tolist() == pytest.approx([-miss, miss / 2, miss / 2], rel=1e-12)


def test_single_precision_is_as_exact_at_large_logits_and_when_confident():
    g = torch.Generator().manual_seed(1)
    z = torch.randn(200, 30, generator=g) * 20
    y = z.argmax(1)
    for shift in (0.0, 6e4):
        x = z + shift
        single, double = against(x, y), against(x.double(), y)
        torch.testing.assert_close(single.miss.double(), double.miss, rtol=1e-6, atol=0)
        torch.testing.assert_close(single.nll.double(), double.nll, rtol=1e-6, atol=0)


def test_one_class_alone_is_certain():
    z = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    nll = against(z, torch.zeros(2, dtype=torch.int64)).nll
    nll.sum().backward()
    assert nll.tolist() == [[0.0], [0.0]]
    assert z.grad.tolist() == [[0.0], [0.0]]


def test_masked_classes_leave_the_rest_finite():
    z = torch.tensor([[1.0, -torch.inf, 3.0], [1.0, -torch.inf, -torch.inf]], requires_grad=True)
    wrong = against(z, torch.tensor([0, 0]))
    wrong.nll.sum().backward()
    assert wrong.nll[0].item() == pytest.approx(math.log1p(math.exp(2)))
    assert wrong.nll[1].item() == 0
    assert z.grad.isfinite().all()


def test_a_class_is_put_into_a_copy_or_into_its_own_memory():
    z, y = _rows()
    before, value = z.clone(), torch.rand(40, 1, dtype=torch.float64)
    want = z.clone()
    want[torch.arange(40), y] = value[:, 0]
    assert torch.equal(with_class(z, y, value), want)
    assert torch.equal(z, before)
    assert torch.equal(of_class(want, y), value)
    put_class_(z, y, value)
    assert torch.equal(z, want)


def test_numbers_per_class_line_up_with_axis_1():
    values = torch.arange(3.0)
    for z in (torch.ones(2, 3), torch.ones(2, 3, 4)):
        scaled = on_class_axis(values, z) * z
        assert [scaled.select(1, c).unique().tolist() for c in range(3)] == [[0.0], [1.0], [2.0]]
