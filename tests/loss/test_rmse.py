"""RMSE: closed forms, exact zeros, and ranges that squares overflow."""

import math
from functools import partial

import pytest
import torch

from aptt.audit.ways import in_blocks, plainly
from aptt.loss import RMSELoss, RMSLELoss, rmse_loss, rmsle_loss
from aptt.loss.rmse.formulas import ROOT, SQUARES


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _value_and_gradient(loss_fn, x):
    x = x.clone().requires_grad_()
    loss = loss_fn(x)
    loss.sum().backward()
    return loss.detach(), x.grad


def test_by_its_formula():
    x, t = _random(4, 5), _random(4, 5, seed=1)
    torch.testing.assert_close(RMSELoss()(x, t), (x - t).square().mean().sqrt())
    each = (x - t).square().mean(1).sqrt()
    torch.testing.assert_close(rmse_loss(x, t, pool="sample", reduction="none"), each)
    torch.testing.assert_close(rmse_loss(x, t, pool="sample"), each.mean())


def test_of_logarithms():
    x, t = _random(4, 5).exp(), _random(4, 5, seed=1).exp()
    torch.testing.assert_close(RMSLELoss()(x, t), rmse_loss((1 + x).log(), (1 + t).log()))
    assert rmsle_loss(x, x) == 0


def test_equality_is_exactly_zero_with_a_zero_gradient():
    # sqrt(mse + 1e-6), as in the package that once had this name: 0.001
    x = _random(4, 5)
    loss, gradient = _value_and_gradient(lambda v: rmse_loss(v, x), x)
    assert loss == 0
    assert (gradient == 0).all()


def test_weights_are_a_mask_or_a_weighted_mean():
    x, t = _random(6), _random(6, seed=1)
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0, 0.5, 3.0], dtype=torch.float64)
    expected = ((x - t).square() * weight).sum().div(weight.sum()).sqrt()
    x[1] = torch.nan
    loss, gradient = _value_and_gradient(lambda v: rmse_loss(v, t, weight=weight), x)
    torch.testing.assert_close(loss, expected)
    assert gradient[1] == 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0, 1e18, 1e30])
def test_scale_passes_through(scale):
    x, t = _random(64).float(), _random(64, seed=1).float()
    expected, slope = _value_and_gradient(lambda v: rmse_loss(v, t), x)
    loss, gradient = _value_and_gradient(lambda v: rmse_loss(v, t * scale), x * scale)
    torch.testing.assert_close(loss / scale, expected)
    torch.testing.assert_close(gradient, slope)


def test_the_largest_errors_of_many_elements_keep_their_gradient():
    x = torch.rand(2**20, generator=torch.Generator().manual_seed(0)) * 1e38
    _, expected = _value_and_gradient(lambda v: rmse_loss(v, torch.zeros_like(v)), x.double())
    _, gradient = _value_and_gradient(lambda v: rmse_loss(v, torch.zeros_like(v)), x)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-6, atol=0)


def test_long_signals_in_half_precision():
    x = torch.full((1, 160_000), 400.0, dtype=torch.float16)
    loss, gradient = _value_and_gradient(lambda v: rmse_loss(v, torch.zeros_like(v)), x)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(400.0, rel=1e-6)
    assert gradient.float().mean().item() == pytest.approx(1 / 160_000, rel=2e-3)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_nothing_is_zero_on_the_graph(shape):
    x = torch.zeros(shape, requires_grad=True)
    loss = rmse_loss(x, torch.zeros(shape))
    loss.backward()
    assert loss == 0
    assert x.grad.shape == shape


def test_wrong_calls_are_told_apart():
    with pytest.raises(ValueError, match=r"prediction: \(4, 1\).*target: \(4,\)"):
        rmse_loss(torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(ValueError, match=r"pool.*'all'"):
        RMSELoss(pool="all")
    with pytest.raises(TypeError, match=r"prediction.*int64"):
        rmse_loss(torch.zeros(4, dtype=torch.long), torch.zeros(4))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_step_is_the_gradient_of_the_definition(weighted, log):
    e, t, up = _random(3, 1, 8).abs(), _random(3, 1, 8, seed=1).abs(), _random(3, seed=2)
    w = _random(3, 1, 8, seed=3).abs() if weighted else None
    e[1] = t[1]  # no error
    if w is not None:
        w[0, 0, 2], e[0, 0, 2] = 0, torch.nan
    x = e.clone().requires_grad_()
    value = SQUARES.result(x, SQUARES.stats(x, t, w, log=log), t, w, log=log)
    (want,) = torch.autograd.grad(value, x, up)
    kept = tuple(k.detach() for k in SQUARES.stats(e, t, w, log=log))
    _, got = SQUARES.step(e, up, kept, t, w, log=log)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_step_of_a_root_is_the_gradient_of_its_definition(weighted, log):
    e, t, up = _random(3, 8).abs(), _random(3, 8, seed=1).abs(), _random(3, seed=2)
    w = _random(3, 8, seed=3).abs() if weighted else None
    e[1] = t[1]
    if w is not None:
        w[0, 2], e[0, 2] = 0, torch.nan
    x = e.clone().requires_grad_()
    value = ROOT.result(x, ROOT.stats(x, t, w, log=log), t, w, log=log)
    (want,) = torch.autograd.grad(value, x, up)
    kept = tuple(k.detach() for k in ROOT.stats(e, t, w, log=log))
    for known in (kept, ()):
        v, got = ROOT.step(e, up, known, t, w, log=log)
        assert known or (v - value).abs().max() < 1e-12
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", [rmse_loss, rmsle_loss])
def test_a_long_batch_is_walked_in_parts(loss):
    x, t = _random(2**18 + 99).abs().float(), _random(2**18 + 99, seed=1).abs().float()
    with plainly():
        want, slope = _value_and_gradient(lambda v: loss(v, t.double()), x.double())
    found, gradient = _value_and_gradient(lambda v: loss(v, t), x)
    assert found.item() == pytest.approx(want.item(), rel=1e-6)
    assert (gradient.double() - slope).norm() <= 1e-6 * slope.norm()


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_logarithms_of_close_numbers_keep_their_digits(scale):
    t = scale * (1 + _random(64).abs()).float()
    x = t * (1 + 1e-6 * _random(64, seed=1).float())
    want, slope = _value_and_gradient(
        lambda v: (v.log1p() - t.double().log1p()).square().mean().sqrt(), x.double()
    )
    found, gradient = _value_and_gradient(lambda v: rmsle_loss(v, t), x)
    assert found.item() == pytest.approx(want.item(), rel=1e-6)  # 3 % off at 1e6, before
    assert (gradient.double() - slope).norm() <= 1e-6 * slope.norm()


@pytest.mark.parametrize("bad", [-1.0, -1.5, -torch.inf])
def test_numbers_without_a_logarithm_are_refused_where_they_count(bad):
    x, t = torch.tensor([0.5, 2.0, 3.0]), torch.tensor([1.0, 2.0, 4.0])
    wrong = x.clone()
    wrong[1] = bad
    for reduction in ("mean", "none"):
        with pytest.raises(
            ValueError, match=rf"prediction: got {bad:g}, wanted .* above -1.*softpl"
        ):
            rmsle_loss(wrong, t, reduction=reduction)
    with pytest.raises(ValueError, match=rf"target: got {bad:g}"):
        RMSLELoss(pool="sample")(t, wrong)
    weight = torch.tensor([1.0, 0.0, 2.0])
    want = rmsle_loss(x, t, weight=weight)
    loss, gradient = _value_and_gradient(lambda v: rmsle_loss(v, t, weight=weight), wrong)
    assert loss == want == rmsle_loss(x[[0, 2]], t[[0, 2]], weight=weight[[0, 2]])
    assert gradient[1] == 0
    assert gradient.isfinite().all()
    with pytest.raises(ValueError, match="prediction"):
        rmsle_loss(wrong, t, weight=torch.ones(3))


@pytest.mark.parametrize("pool", ["batch", "sample", lambda sums: 2 * sums])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (2, 2), (3, 17)])
@pytest.mark.parametrize("loss", [rmse_loss, rmsle_loss])
def test_every_way_is_one(loss, shape, weighted, pool):
    x, t = _random(*shape).abs(), _random(*shape, seed=1).abs()
    weight = _random(*shape, seed=2).relu() if weighted else None
    fn = partial(loss, target=t, weight=weight, pool=pool)
    with plainly():
        want = _value_and_gradient(fn, x)
    with in_blocks():
        found = _value_and_gradient(fn, x)
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pool", ["batch", "sample", lambda sums: 2 * sums])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", [rmse_loss, rmsle_loss])
def test_compiled_is_eager(loss, weighted, pool):
    x, t = _random(3, 17).abs(), _random(3, 17, seed=1).abs()
    weight = _random(3, 17, seed=2).relu() if weighted else None
    fn = partial(loss, target=t, weight=weight, pool=pool)
    torch._dynamo.reset()
    compiled = torch.compile(fn, backend="aot_eager", fullgraph=True)
    got, want = _value_and_gradient(compiled, x), _value_and_gradient(fn, x)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_what_is_not_a_number_is_not_taken_for_no_error():
    x = torch.tensor([1.0, torch.nan])
    assert rmse_loss(x, torch.zeros(2)).isnan()


@pytest.mark.parametrize("loss", [rmse_loss, rmsle_loss])
@pytest.mark.parametrize("pool", ["batch", "sample", lambda sums: sums])
def test_weights_of_no_error_have_a_gradient_of_0(loss, pool):
    w = torch.ones(2, requires_grad=True)
    loss(torch.ones(2), torch.ones(2), weight=w, pool=pool).backward()
    assert (w.grad == 0).all()


def test_no_error_goes_back_as_0_whatever_comes():
    x = torch.zeros(17, requires_grad=True)
    loss = rmse_loss(x, torch.zeros(17), pool="sample", reduction="none")
    (gradient,) = torch.autograd.grad(loss, x, torch.full((17,), -2.0))
    assert (gradient == 0).all()


def test_float64_below_the_range_of_float32():
    x = torch.tensor([3e-39], dtype=torch.float64, requires_grad=True)
    rmse_loss(x, torch.zeros(1)).backward()
    assert x.grad.item() == pytest.approx(1.0, rel=1e-12)


def test_logarithms_nearly_equal():
    x, t = torch.tensor([0.294]), torch.tensor([0.293])
    want = math.log1p(x.double().item()) - math.log1p(t.double().item())
    assert rmsle_loss(x, t).item() == pytest.approx(want, rel=1e-6)
