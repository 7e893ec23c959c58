"""The form of a formula for few elements on a CPU: the same numbers, and a way out."""

import math

import pytest
import torch

from aptt.core.engine import engine, evaluate
from aptt.core.formula import Formula
from aptt.loss import binary_cross_entropy, cross_entropy, rmse_loss

INF = math.inf


def _both(loss, x, *args):
    """Value and gradient as they come, and by the definition in double precision."""
    found = []
    for mode, dtype in (("auto", x.dtype), ("plain", torch.float64)):
        given = x.to(dtype, copy=True).requires_grad_()
        with engine(mode):
            value = loss(given, *(a.to(dtype) if a.is_floating_point() else a for a in args))
        value.backward()
        found.append((value.detach(), given.grad))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 30.0, 6e4])
def test_cross_entropy_of_few_rows(scale, dtype):
    x = (torch.randn(7, 5, generator=torch.Generator().manual_seed(0)) * scale).to(dtype)
    x[0, 1] = -INF
    (value, grad), (wanted, slope) = _both(cross_entropy, x, torch.tensor([0, 1, 2, 3, 4, 0, 1]))
    # a chance has the rounding of its gap, which is less than 40 where it is above the last digit
    near = {torch.float64: 1e-13, torch.float32: 5e-6, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(value.double(), wanted, rtol=1e-13 if near < 1e-9 else 3e-7, atol=0)
    torch.testing.assert_close(grad.double(), slope, rtol=near, atol=1e-16)


@pytest.mark.parametrize("gap", [16.0, 80.0, 88.0, 95.0, 104.0, 200.0])
@pytest.mark.parametrize("right", [True, False])
def test_a_sure_row_keeps_its_digits_also_where_its_chance_is_no_number(gap, right):
    x, y = torch.tensor([[gap, 0.0]]), torch.tensor([0 if right else 1])
    (value, grad), (wanted, slope) = _both(cross_entropy, x, y)
    torch.testing.assert_close(value.double(), wanted, rtol=3e-7, atol=1e-44)
    torch.testing.assert_close(grad.double(), slope, rtol=3e-7, atol=1e-44)


@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
def test_binary_cross_entropy_of_few_elements_at_any_logit(target):
    x = torch.tensor([0.0, 1e-3, 17.0, -17.0, 90.0, -90.0, 6e4, -6e4])
    (value, grad), (wanted, slope) = _both(binary_cross_entropy, x, torch.full_like(x, target))
    torch.testing.assert_close(value.double(), wanted, rtol=2e-7, atol=0.0)
    torch.testing.assert_close(grad.double(), slope, rtol=5e-7, atol=1e-38)


@pytest.mark.parametrize("logit", [INF, -INF])
def test_an_infinite_logit_that_is_right_costs_nothing(logit):
    x = torch.tensor([logit, 0.5], requires_grad=True)
    loss = binary_cross_entropy(x, torch.tensor([float(logit > 0), 1.0]), reduction="sum")
    loss.backward()
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.5)), rel=1e-6)
    assert x.grad.tolist() == pytest.approx([0.0, -1 / (1 + math.exp(0.5))], rel=1e-6)


@pytest.mark.parametrize("size", [1e-38, 1e-31, 1e-19, 1.0, 1e19, 1e37])
def test_a_root_of_few_errors_of_any_size(size):
    x = torch.tensor([1.0, -2.0, 3.0]) * size
    (value, grad), _ = _both(rmse_loss, x, torch.zeros(3))
    exact = x.double().square().mean().sqrt()
    torch.testing.assert_close(value.double(), exact, rtol=2e-7, atol=1e-45)
    torch.testing.assert_close(grad.double(), x.double() / 3 / exact, rtol=3e-7, atol=0.0)


def test_no_error_has_no_gradient():
    x = torch.ones(3, requires_grad=True)
    rmse_loss(x, torch.ones(3)).backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("at", "calls"), [(1.0, ["few"]), (INF, ["few", "step"])])
@pytest.mark.parametrize("gather", ["total", "values"])
def test_what_is_not_finite_is_evaluated_again(at, calls, gather):
    seen = []

    def step(name, x, up):
        seen.append(name)
        v = x.clamp(max=5.0) if name == "step" else x - 0.0
        return v, torch.ones_like(x) * up

    def made(name, **more):
        return Formula(
            lambda x, kept: step(name, x, 1)[0],
            lambda x, up, kept: step(name, x, up),
            ahead=True,
            **more,
        )

    formula = made("step", few=made("few"))
    x = torch.tensor([2.0, at], requires_grad=True)
    value = evaluate(formula, x, gather=gather).sum()
    assert (seen, value.item()) == (calls, 3.0 if at == 1 else 7.0)


def test_many_elements_are_none_of_few():
    formula = Formula(
        lambda x, kept: x.clone(), ahead=True, few=Formula(lambda x, kept: x * math.nan)
    )
    x = torch.ones(2**15 + 1)
    assert evaluate(formula, x, gather="total").item() == 2**15 + 1
