"""Losses of numbers: closed forms, torch where it is right, and what it and others get wrong."""

import math

import pytest
import torch
from torch.nn import functional as F

from aptt.core import numbers
from aptt.core.engine import engine
from aptt.loss import (
    QuantileLoss,
    charbonnier_loss,
    ensemble_crps_loss,
    gaussian_crps_loss,
    gaussian_nll_loss,
    huber_loss,
    l1_loss,
    laplace_nll_loss,
    log_cosh_loss,
    mse_loss,
    quantile_loss,
    smooth_l1_loss,
)
from aptt.loss.regression import crps, huber, likelihood, quantile, smooth

ERRORS = {
    "l1": l1_loss,
    "mse": mse_loss,
    "huber": huber_loss,
    "smooth_l1": smooth_l1_loss,
    "charbonnier": charbonnier_loss,
    "log_cosh": log_cosh_loss,
}


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _of(loss_fn, x, t=0.0, **options):
    x = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    loss = loss_fn(x, torch.tensor([t], dtype=torch.float64), **options)
    loss.backward()
    return loss.item(), x.grad.item()


# ------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize(
    ("loss_fn", "options", "d", "value", "slope"),
    [
        (l1_loss, {}, -3.0, 3.0, -1.0),
        (l1_loss, {}, 0.0, 0.0, 0.0),
        (mse_loss, {}, -3.0, 9.0, -6.0),
        (huber_loss, {"delta": 0.5}, 2.0, 0.875, 0.5),
        (huber_loss, {"delta": 0.5}, 0.25, 0.03125, 0.25),
        (smooth_l1_loss, {"beta": 0.5}, 2.0, 1.75, 1.0),
        (smooth_l1_loss, {"beta": 0.0}, -2.0, 2.0, -1.0),
        (charbonnier_loss, {}, 3e-3, 0.0031622777 - 0.001, 3 / math.sqrt(10)),
        (charbonnier_loss, {}, 0.0, 0.0, 0.0),
        (log_cosh_loss, {}, 1.0, 0.43378083, math.tanh(1)),
        (log_cosh_loss, {}, 100.0, 99.30685282, 1.0),
        (log_cosh_loss, {}, 1e-4, 5e-9 - 1e-16 / 12, math.tanh(1e-4)),
    ],
)
def test_hand_values(loss_fn, options, d, value, slope):
    found, gradient = _of(loss_fn, d, **options)
    assert found == pytest.approx(value, rel=2e-8)
    assert gradient == pytest.approx(slope, rel=1e-12)


def test_quantiles_by_hand():
    x, t = torch.ones(3, dtype=torch.float64, requires_grad=True), torch.tensor(2.0).double()
    values = quantile_loss(x, t, reduction="none")
    torch.testing.assert_close(values, torch.tensor([0.1, 0.5, 0.9]).double())
    values.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([-0.1, -0.5, -0.9]).double())
    below = quantile_loss(x.detach(), torch.tensor(0.0).double(), reduction="none")
    torch.testing.assert_close(below, torch.tensor([0.9, 0.5, 0.1]).double())
    assert quantile_loss(x, t).item() == pytest.approx(0.5)  # of the three, not their sum


def test_weights_of_rows_may_be_a_list():
    x, t = _random(4, 3), _random(4, seed=1)
    found = quantile_loss(x, t, weight=[2.0, 0.0, 1.0, 1.0])
    rows = quantile_loss(x, t, reduction="none").mean(1)
    torch.testing.assert_close(found, (2 * rows[0] + rows[2] + rows[3]) / 4)


def test_the_median_is_half_the_absolute_error():
    x, t = _random(7), _random(7, seed=1)
    assert quantile_loss(x[:, None], t, quantiles=[0.5]) == l1_loss(x, t) / 2


def test_a_fitted_constant_is_the_quantile():
    t = torch.arange(101.0).double()
    x = torch.arange(0, 101).double()[:, None].expand(101, 101)
    costs = torch.stack([quantile_loss(r[:, None], t, quantiles=(0.2,)) for r in x])
    assert costs.argmin() == 20


def test_widths_by_hand():
    one, zero = torch.ones(1).double(), torch.zeros(1).double()
    assert gaussian_nll_loss(one, zero, zero).item() == 0.5
    assert laplace_nll_loss(one, zero, zero).item() == pytest.approx(1.6931472, abs=5e-8)
    assert gaussian_crps_loss(zero, zero, zero).item() == pytest.approx(0.233695, abs=5e-7)
    assert gaussian_crps_loss(one, zero, zero).item() == pytest.approx(0.602441, abs=5e-7)
    members = torch.tensor([0.0, 2.0])
    assert ensemble_crps_loss(members, torch.tensor(1.0), fair=0).item() == 0.5
    assert ensemble_crps_loss(members, torch.tensor(1.0)).item() == 0.0


def test_likelihoods_are_those_of_torch_distributions():
    x, t, s = _random(9), _random(9, seed=1), _random(9, seed=2)
    normal = -torch.distributions.Normal(x, (s / 2).exp()).log_prob(t).mean()
    torch.testing.assert_close(gaussian_nll_loss(x, t, s, full=True), normal)
    laplace = -torch.distributions.Laplace(x, s.exp()).log_prob(t).mean()
    torch.testing.assert_close(laplace_nll_loss(x, t, s), laplace)


def test_beta_is_a_constant_factor_along_the_width_too():
    x, t, s = _random(5), _random(5, seed=1), _random(5, seed=2).requires_grad_()
    gaussian_nll_loss(x, t, s, beta=0.5, full=True, reduction="sum").backward()
    expected = (0.5 * s).exp() * (1 - (x - t) ** 2 * (-s).exp()) / 2
    torch.testing.assert_close(s.grad, expected.detach(), rtol=1e-12, atol=1e-14)


def test_gaussian_crps_is_the_integral():
    u = torch.linspace(-60, 60, 240_001).double()
    for x, t, s in ((0.3, 1.7, 0.4), (-1.0, 1.0, -2.0), (0.0, 0.0, 2.0)):
        spread = math.exp(s / 2)
        below = torch.special.ndtr((u - x) / spread)
        expected = torch.trapezoid((below - (u >= t).double()) ** 2, u)
        found, _ = _of(lambda p, q, s=s: gaussian_crps_loss(p, q, torch.full_like(p, s)), x, t)
        assert found == pytest.approx(expected.item(), abs=3e-4)


@pytest.mark.parametrize("members", [2, 3, 8])
@pytest.mark.parametrize("fair", [0.0, 0.95, 1.0])
def test_ensembles_are_the_sum_over_pairs(members, fair):
    x, t = _random(40, members), _random(40, seed=1)
    pairs = (x[:, :, None] - x[:, None, :]).abs().sum((1, 2))
    part = (1 - fair) / (2 * members**2) + fair / (2 * members * (members - 1))
    expected = (x - t[:, None]).abs().mean(1) - part * pairs
    found = ensemble_crps_loss(x, t, fair=fair, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    assert (found >= 0).all()


def test_fair_members_score_as_the_distribution_that_they_are_drawn_from():
    """Whatever their number, which the score of few members as all there is does not: 1 / M."""
    g = torch.Generator().manual_seed(0)
    t = torch.randn(20_000, generator=g, dtype=torch.float64)
    for members in (2, 5):
        x = torch.randn(20_000, members, generator=g, dtype=torch.float64)
        of_all = 1 / math.sqrt(math.pi)  # E |x - t| / 2 of two standard normals
        assert ensemble_crps_loss(x, t).item() == pytest.approx(of_all, rel=0.02)
        assert ensemble_crps_loss(x, t, fair=0).item() == pytest.approx(
            of_all * (1 + 1 / members), rel=0.02
        )


@pytest.mark.parametrize("fair", [0.0, 1.0])
def test_equal_members_get_equal_slopes(fair):
    x = torch.tensor([[1.0, 0.0, 1.0, 4.0, 1.0]], dtype=torch.float64, requires_grad=True)
    ensemble_crps_loss(x, torch.tensor([2.0]).double(), fair=fair).backward()
    assert x.grad[0, 0] == x.grad[0, 2] == x.grad[0, 4]
    assert x.grad.sum().item() == pytest.approx((4 * -1 + 1) / 5)  # of a shift of all


def test_one_member_is_an_absolute_error_and_never_fair():
    x, t = _random(6, 1), _random(6, seed=1)
    torch.testing.assert_close(ensemble_crps_loss(x, t, fair=0), l1_loss(x[:, 0], t))
    with pytest.raises(ValueError, match=r"prediction: .*with 1 members; wanted 2 or more, or fai"):
        ensemble_crps_loss(x, t)


# ----------------------------------------------------------------- torch, and where it departs


def test_torch_agrees_without_weights():
    x, t = 3 * _random(50), _random(50, seed=1)
    s = _random(50, seed=2)
    for ours, theirs in (
        (l1_loss(x, t), F.l1_loss(x, t)),
        (mse_loss(x, t), F.mse_loss(x, t)),
        (huber_loss(x, t, delta=0.7), F.huber_loss(x, t, delta=0.7)),
        (smooth_l1_loss(x, t, beta=0.7), F.smooth_l1_loss(x, t, beta=0.7)),
        (smooth_l1_loss(x, t, beta=0), F.smooth_l1_loss(x, t, beta=0.0)),
        (gaussian_nll_loss(x, t, s), F.gaussian_nll_loss(x, t, s.exp())),
        (huber_loss(x, t, delta=0.7), 0.7 * smooth_l1_loss(x, t, beta=0.7)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("loss_fn", ERRORS.values(), ids=ERRORS)
def test_a_weight_multiplies_and_is_counted(loss_fn):
    # torch: huber_loss(weight=) divides by N, mse_loss(weight=) by the sum of the weights
    x, t = torch.tensor([1.0, math.nan, 5.0]), torch.tensor([0.0, 0.0, math.nan])
    alone = loss_fn(x[:1], t[:1])
    assert loss_fn(x, t, weight=[2.0, 0.0, 0.0]) == alone
    assert loss_fn(x[:1], t[:1], weight=[2.0], reduction="sum") == 2 * alone


@pytest.mark.parametrize("loss_fn", ERRORS.values(), ids=ERRORS)
def test_a_column_is_not_compared_with_a_row(loss_fn):
    # torch: a warning, and 16 differences
    with pytest.raises(ValueError, match=r"prediction: \(4, 1\).*target: \(4,\)"):
        loss_fn(torch.zeros(4, 1), torch.zeros(4))


def test_half_precision_holds_differences_that_it_cannot_write():
    x, t = torch.tensor([6e4, 300.0]).half(), torch.tensor([-6e4, 0.0]).half()
    assert F.l1_loss(x, t).isinf()  # of float16
    assert l1_loss(x, t).item() == pytest.approx((2 * x[0].item() + 300) / 2)
    assert F.mse_loss(x[1:], t[1:]).isinf()
    assert mse_loss(x[1:], t[1:]).item() == 9e4


def test_a_variance_of_any_size_has_its_own_slope():
    """torch clamps the variance out of the graph: at 0 its slope is -5e11, whatever the error."""
    zero = torch.zeros(1, requires_grad=True)
    F.gaussian_nll_loss(torch.ones(1), torch.zeros(1), zero).backward()
    assert zero.grad.abs() > 1e11
    for s in (-60.0, -80.0):
        width = torch.tensor([s], dtype=torch.float64, requires_grad=True)
        d = 3 * math.exp(s / 2)  # three sigmas
        x = torch.tensor([d], dtype=torch.float64)
        gaussian_nll_loss(x, torch.zeros(1).double(), width).backward()
        assert width.grad.item() == pytest.approx(-4.0)
    with pytest.raises(ValueError, match=r"log_variance: \(2,\)"):  # there it fits in silence
        gaussian_nll_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2))


@pytest.mark.parametrize("s", [-1e4, -200.0, 0.0, 60.0])
@pytest.mark.parametrize("loss_fn", [gaussian_nll_loss, laplace_nll_loss, gaussian_crps_loss])
def test_no_width_makes_a_nan(loss_fn, s):
    for d in (0.0, 1e-30, 1.0, 1e4):
        x = torch.tensor([d], requires_grad=True)
        width = torch.tensor([s], requires_grad=True)
        loss = loss_fn(x, torch.zeros(1), width)
        loss.backward()
        assert not loss.isnan()
        assert not x.grad.isnan()
        assert not width.grad.isnan()
        if d == 0:
            assert x.grad == 0
    assert gaussian_crps_loss(torch.ones(1), torch.zeros(1), torch.tensor([-1e4])) == 1


def test_log_cosh_keeps_what_others_lose():
    x = torch.tensor([1e-4, 100.0])
    naive, softplus = x.cosh().log(), x + F.softplus(-2 * x) - math.log(2)
    assert naive[1].isinf()  # auraloss, torchmetrics
    assert softplus[0] == 0  # Keras
    found = log_cosh_loss(x, torch.zeros(2), reduction="none")
    torch.testing.assert_close(found.double(), torch.tensor([5e-9, 99.306853]).double(), rtol=1e-6,
                               atol=0)  # fmt: skip
    d = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda v: log_cosh_loss(v, torch.zeros(1).double()), d)


def test_an_ensemble_far_from_0_keeps_its_digits():
    x = torch.tensor([[1e4, 1e4 + 2**-8]])
    loss = ensemble_crps_loss(x, torch.tensor([1e4 + 2**-9]), fair=0)
    assert loss.item() == 2**-10  # sum over i of (2 i - M - 1) x_i cancels, gaps do not


@pytest.mark.parametrize(
    ("quantiles", "error"),
    [((0.9, 0.1), ValueError), ((0.0,), ValueError), ((), ValueError), ("ab", TypeError)],
)
def test_quantiles_are_ascending_shares(quantiles, error):
    with pytest.raises(error, match="quantiles: got"):
        QuantileLoss(quantiles)


def test_a_weight_is_of_targets_or_of_each_quantile():
    x, t, w = _random(4, 3), _random(4, seed=1), _random(4, seed=2).abs()
    each = w[:, None].expand(4, 3)
    assert quantile_loss(x, t, weight=w) == quantile_loss(x, t, weight=each)
    assert quantile_loss(x, t, weight=each[:, :1] * torch.tensor([0, 1, 0])) == pytest.approx(
        (l1_loss(x[:, 1], t, weight=w) / 2).item()
    )


# ------------------------------------------------------------------------------------ the steps

STEPS = [
    (numbers.ABSOLUTE, {}),
    (numbers.SQUARED, {}),
    (huber.HUBER, {"edge": 0.7, "unit": 1.0}),
    (huber.HUBER, {"edge": 0.7, "unit": 0.7}),
    (smooth.CHARBONNIER, {"epsilon": 0.3}),
    (smooth.LOG_COSH, {}),
]


@pytest.mark.parametrize(("formula", "options"), STEPS)
def test_the_step_of_an_error(formula, options, same_as_autograd):
    same_as_autograd(formula, 2 * _random(60), _random(60, seed=1), **options)


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        (likelihood.GAUSSIAN, {"beta": 0.0, "constant": 0.0}),
        (likelihood.GAUSSIAN, {"beta": 0.5, "constant": 0.9}),
        (likelihood.LAPLACE, {"constant": 0.5}),
        (crps.GAUSSIAN, {}),
    ],
)
def test_the_step_of_a_width(formula, options, same_as_autograd):
    same_as_autograd(formula, 2 * _random(30, 2), _random(30, seed=1), **options)


@pytest.mark.parametrize("fair", [0.0, 0.95, 1.0])
def test_the_step_of_an_ensemble(fair, same_as_autograd):
    x = 2 * _random(30, 5)
    x[::3, 1] = x[::3, 4]
    same_as_autograd(crps.ENSEMBLE, x, _random(30, seed=1), fair=fair)


def test_the_step_of_quantiles(same_as_autograd):
    q = torch.rand(60, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    same_as_autograd(quantile.PINBALL, _random(60), _random(60, seed=1), q)


@pytest.mark.parametrize("mode", ["auto", "plain"])
@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_a_variance_beyond_the_range_is_no_nan(mode, beta):
    x = torch.ones(1).requires_grad_()
    width = torch.full((1,), 5e3).requires_grad_()
    with engine(mode):
        value = gaussian_nll_loss(x, torch.zeros(1), width, beta=beta)
        value.backward()
    assert value.item() == math.inf  # exp(beta s) s / 2
    assert x.grad.item() == (1.0 if beta == 1 else 0.0)  # d exp((beta - 1) s)
    assert not width.grad.isnan().any()
