"""The softmax seen from the right class: exact however confident, and the quick exponential."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aptt.core.softmax import margin, on_class_axis, shifted, softmax_gradient_
from aptt.core.streaming import Work, exp_

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("low", [-50.0, -800.0])  # without underflow, and with
def test_the_quick_exponential_is_exact_within_a_rounding_of_its_argument(dtype, low):
    limits = torch.finfo(dtype)
    x = torch.linspace(low, 0, 20_001, dtype=dtype)
    truth = [math.exp(v) for v in x.tolist()]
    got = exp_(x.clone()).double()
    truth = torch.tensor(truth, dtype=torch.float64)
    allowed = truth * limits.eps * (x.double().abs() + 2) + limits.tiny
    assert bool(((got - truth).abs() <= allowed).all())


@pytest.mark.parametrize("beside", [-1.0, -1000.0])
def test_the_quick_exponential_of_its_ends_is_exact(beside):
    got = exp_(torch.tensor([0.0, -torch.inf, beside]))
    assert got[:2].tolist() == [1.0, 0.0]


def test_the_quick_exponential_keeps_nan():
    assert exp_(torch.tensor([float("nan"), -1000.0]))[0].isnan()


def _rows(n=40, classes=6):
    g = torch.Generator().manual_seed(0)
    z = 5 * torch.randn(n, classes, dtype=torch.float64, generator=g)
    return z, torch.randint(classes, (n,), generator=g)


def test_the_margin_is_the_log_odds_of_the_class():
    z, y = _rows()
    p = z.softmax(1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(margin(z, y), (p / (1 - p)).log(), rtol=1e-9, atol=0)


@given(st.floats(0, 700), st.integers(0, 3))
def test_the_chance_of_being_wrong_is_exact_however_confident(gap, y):
    z = torch.zeros(1, 4, dtype=torch.float64)
    z[0, y] = gap
    wrong = torch.sigmoid(-margin(z, torch.tensor([y]))).item()
    assert wrong == pytest.approx(3 / (3 + math.exp(gap)), rel=1e-12)


def test_one_class_alone_is_certain():
    z = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    nll = torch.nn.functional.softplus(-margin(z, torch.zeros(2, dtype=torch.int64)))
    nll.sum().backward()
    assert nll.tolist() == [0.0, 0.0]
    assert z.grad.tolist() == [[0.0], [0.0]]


def test_masked_classes_leave_the_margin_finite():
    z = torch.tensor([[1.0, -torch.inf, 3.0], [1.0, -torch.inf, -torch.inf]], requires_grad=True)
    m = margin(z, torch.tensor([0, 0]))
    torch.nn.functional.softplus(-m).sum().backward()
    assert m[0].item() == pytest.approx(-2)
    assert m.isfinite().all()
    assert z.grad.isfinite().all()


def test_by_hand_the_pieces_of_a_row_are_those_of_its_softmax():
    z, y = _rows()
    top, mine, rest = shifted(z, y, Work(CPU))
    assert torch.equal(top, z.amax(1, keepdim=True))
    p = z.softmax(1).gather(1, y[:, None])
    torch.testing.assert_close(mine / (mine + rest), p, rtol=1e-13, atol=0)
    torch.testing.assert_close(rest / (mine + rest), 1 - p, rtol=1e-9, atol=1e-15)


def test_by_hand_the_gradient_of_each_row_is_scaled_and_its_class_replaced():
    z, y = _rows()
    slope, chosen = torch.rand(40, 1, dtype=torch.float64), torch.rand(40, 1, dtype=torch.float64)
    out, top = torch.empty_like(z), z.amax(1, keepdim=True)
    softmax_gradient_(out, z, y, top, slope, chosen)
    want = ((z - top).exp() * slope).scatter(1, y[:, None], chosen)
    torch.testing.assert_close(out, want, rtol=1e-13, atol=0)


def test_numbers_per_class_line_up_with_axis_1():
    values = torch.arange(3.0)
    for z in (torch.ones(2, 3), torch.ones(2, 3, 4)):
        scaled = on_class_axis(values, z) * z
        assert [scaled.select(1, c).unique().tolist() for c in range(3)] == [[0.0], [1.0], [2.0]]
