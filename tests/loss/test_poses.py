"""SimCC, residual log-likelihood and DSNT: closed forms, where others go wrong, and points back."""

import math

import pytest
import torch
from torch.distributions import Laplace, MultivariateNormal, Normal
from torch.nn import functional as F

from aptt.core.divergence import SOFT
from aptt.core.labels import gaussian_logits
from aptt.core.likelihood import GAUSSIAN, LAPLACE
from aptt.loss import (
    DSNTLoss,
    RLELoss,
    SimCCLoss,
    cross_entropy,
    decode_heatmaps,
    dsnt_loss,
    dsnt_terms,
    render_heatmaps,
    rle_loss,
    simcc_decode,
    simcc_loss,
    simcc_targets,
)
from aptt.loss.heat.moments import DISTANCES, REGULARIZERS, TOGETHER, Grid
from aptt.loss.keypoint.simcc import _SIMCC

SEEN = torch.ones(1, 1)


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------------- SimCC


def _kl(log_p, t):
    return (t * (t.log() - log_p)).sum(-1)


def test_the_divergence_is_that_of_the_labels():
    x, y = _random(2, 3, 16), _random(2, 3, 12, seed=1)
    points = 3 + _random(2, 3, 2, seed=2)
    options = {"sigma": (2.0, 1.5), "split": 1.5, "temperature": 0.5}
    labels = simcc_targets(points, (16, 12), split=1.5, sigma=(2.0, 1.5))
    wanted = sum(_kl((v / 0.5).log_softmax(-1), t) for v, t in zip((x, y), labels, strict=True))
    got = simcc_loss((x, y), points, torch.ones(2, 3), reduction="none", **options)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-14)


def test_without_knowledge_it_costs_what_the_labels_lack_of_the_largest_entropy():
    labels = simcc_targets([[[3.0]]], (9,), sigma=1.0)
    entropy = -(labels[0] * labels[0].log()).sum()
    got = simcc_loss([torch.zeros(1, 1, 9)], [[[3.0]]], [[1]], sigma=1.0)
    torch.testing.assert_close(got, math.log(9) - entropy)


@pytest.mark.parametrize("x", [0.0, 0.3, 7.5, -1.2, 8.4])
def test_a_label_sums_to_one_at_the_border_too_and_the_loss_is_least_there(x):
    """mmpose cuts a Gaussian off, whose sum is then 0.5 in a corner: no softmax is that."""
    point = torch.tensor([[[x]]], dtype=torch.float64)
    (label,) = simcc_targets(point, (16,), sigma=2.0)
    torch.testing.assert_close(label.sum(), torch.tensor(1.0).double())
    logits = label.log().requires_grad_()
    loss = simcc_loss([logits], point, SEEN, sigma=2.0)
    (slope,) = torch.autograd.grad(loss, logits)
    assert loss < 1e-15
    assert slope.abs().max() < 1e-15


def test_points_beyond_three_sigma_are_removed_and_nearer_ones_are_not():
    x = [_random(1, 3, 10), _random(1, 3, 10, seed=1)]
    points = torch.tensor([[[2.0, 2.0], [2.0, 7.6], [2.0, 7.4]]])
    values = simcc_loss(x, points, torch.ones(1, 3), sigma=2.0, reduction="none")
    assert values[0, 1] == 0
    assert values[0, 2] > 0
    mean = simcc_loss(x, points, torch.ones(1, 3), sigma=2.0)
    torch.testing.assert_close(mean, values.sum() / 2)
    (far, _) = simcc_targets(points, (10, 10), sigma=2.0)
    assert far[0, :, :].sum(1).tolist() == pytest.approx([1, 0, 1])


def test_a_coordinate_that_is_no_number_is_not_removed():
    loss = simcc_loss([torch.zeros(1, 1, 5)], [[[math.nan]]], [[1]])
    assert loss.isnan()


def test_the_value_depends_on_no_number_of_bins_and_on_no_batch():
    """mmpose takes the mean over bins, and divides by points after a sum over samples."""
    point = torch.full((1, 1, 1), 20.0, dtype=torch.float64)
    few, many = (
        simcc_loss([-0.02 * (torch.arange(n).double() - 44).square()[None, None]], point, SEEN)
        for n in (80, 160)
    )
    torch.testing.assert_close(few, many, rtol=1e-6, atol=0)
    x = _random(1, 2, 30)
    one = simcc_loss([x], torch.full((1, 2, 1), 7.0), torch.ones(1, 2))
    three = simcc_loss([x.repeat(3, 1, 1)], torch.full((3, 2, 1), 7.0), torch.ones(3, 2))
    torch.testing.assert_close(one, three)


def test_sharp_labels_are_exact_in_single_precision():
    point = torch.tensor([[[5.2]]])
    x = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(1))
    for sigma in (1e-3, 0.05, 6.0):
        got = simcc_loss([x], point, SEEN, sigma=sigma)
        wanted = simcc_loss([x.double()], point.double(), SEEN, sigma=sigma)
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-6)


def test_other_labels_are_for_cross_entropy():
    """Here as RTMPose has them: the softmax of 10 times the Gaussian."""
    x, points = _random(2, 3, 20), torch.full((2, 3, 1), 4.0, dtype=torch.float64)
    (label,) = simcc_targets(points, (20,), sigma=3.0)
    again = label / label.amax(-1, keepdim=True)
    published = (10 * again).softmax(-1)
    got = cross_entropy(x, published, class_dim=-1) + (published * published.log()).sum() / 6
    torch.testing.assert_close(got, _kl(x.log_softmax(-1), published).mean())


@pytest.mark.parametrize("method", ["argmax", "parabola", "soft-argmax"])
def test_points_come_back(method):
    points = torch.tensor([[[6.3, 4.05], [5.0, 7.5]]])
    bars = simcc_targets(points, (32, 28), sigma=1.5)
    found = simcc_decode([bar.log() for bar in bars], method=method)
    within = {"argmax": 0.25, "parabola": 1e-4, "soft-argmax": 1e-2}[method]
    assert (found.points - points).abs().max() <= within
    assert found.scores.shape == (1, 2)
    assert ((found.scores > 0.2) & (found.scores < 0.3)).all()


def test_scores_are_those_of_the_less_certain_coordinate():
    sure, unsure = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)
    sure[..., 1] = 100
    found = simcc_decode([sure, unsure])
    assert found.scores.item() == 0.25
    assert found.points[0, 0, 0] == 0.5


def test_its_steps(same_as_autograd):
    y = torch.tensor([0.2, 5.0, 9.9, -1.0]).double()
    same_as_autograd(_SIMCC, 3 * _random(4, 10), y, sigma=1.5, temperature=0.4)
    assert _SIMCC.in_one is not None


def test_logits_of_a_gaussian_have_their_digits():
    y = torch.tensor([700.5])
    got = gaussian_logits(y, 1024, 0.01)[0]
    wanted = gaussian_logits(y.double(), 1024, 0.01)[0]
    torch.testing.assert_close(got.double(), wanted, rtol=1e-6, atol=0)
    assert got[700] == got[701] == 0


def test_what_is_no_list_of_logits_is_refused():
    x, point = torch.zeros(1, 1, 5), torch.zeros(1, 1, 1)
    with pytest.raises(TypeError, match="logits_list: got Tensor, wanted a list of tensors"):
        simcc_loss(x, point, SEEN)
    with pytest.raises(ValueError, match="logits_list: got no tensor"):
        simcc_loss([], point, SEEN)
    with pytest.raises(ValueError, match=r"target: .* should be \(\*N, K, 2\)"):
        simcc_loss([x, x], point, SEEN)
    with pytest.raises(ValueError, match=r"logits_list\[0\]: got \(1, 1, 0\)"):
        simcc_loss([x[..., :0]], point, SEEN)
    with pytest.raises(ValueError, match="bins: got 0"):
        simcc_targets(point, (0,))
    with pytest.raises(TypeError, match="bins: got 3"):
        simcc_targets(point, 3)


# ------------------------------------------------------------------- residual log-likelihood


def _one(x, log_scale, **options):
    point = torch.tensor([[x]], dtype=torch.float64)
    return rle_loss(
        point, torch.zeros_like(point), torch.full_like(point, log_scale), SEEN, **options
    )


def test_a_laplace_point_costs_its_density_once():
    """The authors' code adds log sigma twice: -2.912023 and -2.025729 here."""
    torch.testing.assert_close(_one([0.1], math.log(0.1)).item(), math.log(0.2) + 1)
    assert _one([0.1], math.log(0.1)).item() == pytest.approx(-0.609438, abs=1e-6)
    assert _one([0.1], math.log(0.2)).item() == pytest.approx(-0.416291, abs=1e-6)
    assert _one([0.1], math.log(0.05)) > _one([0.1], math.log(0.1))


def test_a_normal_point_costs_its_density():
    got = _one([1.0, 0.5], 0.0, distribution="gaussian").item()
    wanted = -MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(torch.tensor([1.0, 0.5]))
    assert got == pytest.approx(wanted.item(), abs=1e-6)
    assert got == pytest.approx(2.462877, abs=1e-6)


@pytest.mark.parametrize(("distribution", "density"), [("laplace", Laplace), ("gaussian", Normal)])
def test_without_a_flow_it_is_a_density_of_torch(distribution, density):
    x, t, s = (_random(2, 3, 2, seed=seed) for seed in range(3))
    got = rle_loss(x, t, s, torch.ones(2, 3), distribution=distribution, reduction="none")
    torch.testing.assert_close(got, -density(x, s.exp()).log_prob(t).sum(-1))


def test_a_flow_is_asked_once_for_errors_in_scales_and_learns():
    flow = torch.nn.Linear(2, 1).double()
    x, t, s = (_random(2, 3, 2, seed=seed) for seed in range(3))
    weight = torch.rand(2, 3, generator=torch.Generator().manual_seed(4)).double()
    loss = RLELoss(flow=lambda e: flow(e)[:, 0])(x, t, s, torch.ones(2, 3), weight=weight)
    e = (x - t) / s.exp()
    density = Laplace(x, s.exp()).log_prob(t).sum(-1) + flow(e)[..., 0]
    torch.testing.assert_close(loss, -(weight * density).sum() / weight.sum())
    loss.backward()
    assert flow.weight.grad.abs().min() > 0


def test_a_flow_that_is_a_module_is_one_of_the_loss():
    class Flow(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.width = torch.nn.Parameter(torch.zeros(()))

        def forward(self, e):
            return Normal(0.0, self.width.exp()).log_prob(e).sum(1)

    loss = RLELoss(flow=Flow())
    assert [name for name, _ in loss.named_parameters()] == ["flow.width"]
    loss(torch.randn(1, 2, 2), torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), torch.ones(1, 2))


def test_hidden_points_reach_no_flow():
    x, s = torch.full((1, 2, 2), math.nan), torch.full((1, 2, 2), math.nan)
    x[0, 0], s[0, 0] = 1.0, 0.0
    x.requires_grad_()
    seen = []

    def flow(e):
        seen.append(e.detach())
        return -e.square().sum(1)

    loss = rle_loss(x, torch.zeros(1, 2, 2), s, torch.tensor([[2, 0]]), flow=flow)
    loss.backward()
    assert seen[0].tolist() == [[1, 1], [0, 0]]
    assert loss.item() == pytest.approx(2 * (math.log(2) + 1) + 2)
    assert x.grad.isfinite().all()


def test_an_offset_and_no_clamp_keeps_what_is_learnt():
    """ultralytics clamps at 0, beyond which a sharp point learns nothing."""
    x = torch.tensor([[[0.01, 0.0]]], dtype=torch.float64, requires_grad=True)
    s = torch.full((1, 1, 2), math.log(0.02), dtype=torch.float64)
    plain = rle_loss(x, torch.zeros(1, 1, 2), s, SEEN)
    shifted = rle_loss(x, torch.zeros(1, 1, 2), s, SEEN, least_scale=0.01)
    assert plain < 0 < shifted
    torch.testing.assert_close(shifted - plain, torch.tensor(-2 * math.log(0.02)).double())
    slopes = [torch.autograd.grad(loss, x)[0] for loss in (plain, shifted)]
    assert torch.equal(*slopes)
    assert slopes[0][0, 0, 0] == pytest.approx(50)


@pytest.mark.parametrize("distribution", ["laplace", "gaussian"])
def test_at_its_least_scale_a_right_point_costs_nothing(distribution):
    got = _one([0.0, 0.0], math.log(0.3), distribution=distribution, least_scale=0.3)
    assert abs(got.item()) < 1e-15


def test_densities_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"flow: got log-densities of shape \(1, 2\)"):
        _one([0.0, 0.0], 0.0, flow=lambda e: e)


def test_its_formulas(same_as_autograd):
    x, t = _random(30, 2), _random(30, seed=1)
    same_as_autograd(LAPLACE, x, t, constant=0.4)
    same_as_autograd(GAUSSIAN, x, t, beta=0.0, constant=0.4)


# ----------------------------------------------------------------------------------------- DSNT


def _line(*logits):
    return torch.tensor(logits, dtype=torch.float64).view(1, 1, 1, -1)


def test_the_mean_and_the_width_of_a_line():
    """p = (0.2, 0.2, 0.4, 0.2): mean 1.6, variance 1.04."""
    logits, target = _line(0.0, 0.0, math.log(2), 0.0), torch.tensor([[[1.0, 0.0]]])
    options = {"unit": "cell", "regularizer": "variance", "sigma": 0.5}
    terms = dsnt_terms(logits, target, **options)
    assert terms["distance"].item() == pytest.approx(0.6)
    assert terms["regularizer"].item() == pytest.approx((1.04 - 0.25) ** 2 + 0.25**2)
    found = decode_heatmaps(logits, method="soft-argmax").points[0, 0]
    torch.testing.assert_close(found, torch.tensor([1.6, 0.0]).double())


def test_a_distance_in_cells():
    """The mean of a level map is its middle, at (1, 0.5)."""
    options = {"unit": "cell", "regularizer_weight": 0.0}
    for target, distance in (([4.0, 4.5], 5.0), ([4.0, 0.5], 3.0), ([1.0, 4.5], 4.0)):
        found = dsnt_loss(torch.zeros(1, 1, 2, 3).double(), [[target]], **options)
        assert found.item() == pytest.approx(distance, rel=1e-15)


def test_the_divergence_is_at_most_log_two():
    far = dsnt_terms(_line(*[0.0] * 30, 90.0), [[[0.0, 0.0]]])["regularizer"]
    assert far.item() == pytest.approx(math.log(2), rel=1e-12)


def test_half_of_what_is_shared():
    """JS((1/2, 1/2, 0), (0, 1/2, 1/2)) = log(2) / 2; the label lies half way between two cells."""
    got = dsnt_terms(_line(90.0, 90.0, 0.0), [[[1.5, 0.0]]], sigma=0.05)["regularizer"]
    assert got.item() == pytest.approx(math.log(2) / 2, abs=1e-12)


@pytest.mark.parametrize("regularizer", ["js", "variance"])
@pytest.mark.parametrize("distance", ["euclidean", "l1"])
def test_it_is_the_published_sum(distance, regularizer):
    x, t = _random(3, 2, 5, 7), 2 + _random(3, 2, 2, seed=1)
    p = (x / 0.5).flatten(2).softmax(2).view_as(x)
    column, row = torch.arange(7.0).double(), torch.arange(5.0).double()
    mu = torch.stack(((p.sum(2) * column).sum(2), (p.sum(3) * row).sum(2)), 2)
    off = (mu - t) * torch.tensor([2 / 7, 2 / 5])
    wanted = off.norm(dim=2) if distance == "euclidean" else off.abs().sum(2)
    if regularizer == "js":
        q = render_heatmaps(t, (5, 7), sigma=1.3)
        q = q / q.sum((2, 3), keepdim=True)
        m = (p + q) / 2
        held = ((p * (p / m).log()).sum((2, 3)) + (q * (q / m).log()).sum((2, 3))) / 2
    else:
        across = (p.sum(2) * (column - mu[..., :1]).square()).sum(2)
        down = (p.sum(3) * (row - mu[..., 1:]).square()).sum(2)
        held = (across - 1.69).square() + (down - 1.69).square()
    options = {"distance": distance, "regularizer": regularizer, "sigma": 1.3, "temperature": 0.5}
    terms = dsnt_terms(x, t, reduction="none", **options)
    torch.testing.assert_close(terms["distance"], wanted)
    torch.testing.assert_close(terms["regularizer"], held)
    loss = DSNTLoss(regularizer_weight=0.3, **options)
    torch.testing.assert_close(loss(x, t), (wanted + 0.3 * held).mean())
    assert loss.terms(x, t).keys() == terms.keys()


def test_maps_that_are_sure_have_a_divergence_and_its_gradient():
    """mmpose's epsilon of 1e-24 is 0 in half precision, and its slope is NaN in single."""
    for dtype in (torch.float16, torch.float32):
        logits = _line(0.0, 0.0, 0.0, 60.0).to(dtype).requires_grad_()
        loss = dsnt_loss(logits, [[[1.0, 0.0]]])
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


def test_a_level_of_logits_costs_no_digits():
    """Labels lie near 0, and differences of logits and labels are to have their digits."""
    x = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    point = torch.tensor([[[0.26, 1.1], [2.0, 0.7]]])
    seen = torch.ones(1, 2)
    for loss in (
        lambda x: dsnt_terms(x, point)["regularizer"],
        lambda x: simcc_loss([x[..., 0, :], x[..., 1, :]], point, seen),
    ):
        slopes = []
        for level in (0.0, 8192.0):
            leaf = (x.mul(64).round() / 64 + level).requires_grad_()
            slopes.append(torch.autograd.grad(loss(leaf), leaf)[0])
        torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-8)


def test_a_map_that_is_right_has_no_slope_of_its_distance():
    logits = _line(0.0, 3.0, 0.0).requires_grad_()
    loss = dsnt_loss(logits, [[[1.0, 0.0]]], regularizer_weight=0.0)
    loss.backward()
    assert loss == 0
    assert logits.grad.abs().max() == 0


GRID = Grid(3, 4, 0.7, (0.5, 2.0), 0.8)


@pytest.mark.parametrize("formula", [*DISTANCES.values(), *REGULARIZERS.values()])
def test_the_steps_of_its_terms(formula, same_as_autograd):
    same_as_autograd(formula, 2 * _random(6, 12), 1 + _random(6, 2, seed=1), grid=GRID)


@pytest.mark.parametrize("pair", TOGETHER)
def test_the_steps_of_both_in_one_walk(pair, same_as_autograd):
    x, y = 2 * _random(6, 12), 1 + _random(6, 2, seed=1)
    same_as_autograd(TOGETHER[pair], x, y, grid=GRID, share=0.3)


# ----------------------------------------------------------------------- what all of them share


def _calls():
    x = _random(2, 2, 3, 4)
    point = 1 + _random(2, 2, 2, seed=1)
    return {
        "simcc": lambda **o: simcc_loss([x[..., 0, :], x[..., 1, :]], **{"target": point} | o),
        "rle": lambda **o: rle_loss(
            x[..., 0, :2], log_scale=x[..., 1, :2], **{"target": point} | o
        ),
        "dsnt": lambda **o: dsnt_loss(x, **{"target": point} | o),
    }


@pytest.mark.parametrize("name", ["simcc", "rle", "dsnt"])
def test_a_weight_of_two_is_the_point_twice_and_counted(name):
    call, seen = _calls()[name], torch.ones(2, 2)
    values = call(visibility=seen, reduction="none")
    weight = torch.tensor([[2.0, 1.0], [0.5, 0.0]])
    wanted = (2 * values[0, 0] + values[0, 1] + 0.5 * values[1, 0]) / 3.5
    for given in (weight, weight.tolist(), weight.numpy()):
        torch.testing.assert_close(call(visibility=seen, weight=given), wanted)


@pytest.mark.parametrize("name", ["simcc", "rle", "dsnt"])
def test_whole_numbers_serve_as_points(name):
    call, whole = _calls()[name], torch.tensor([[[1, 2], [0, 1]], [[2, 0], [1, 1]]])
    seen = torch.tensor([[1, 2], [1, 0]])
    for target in (whole, whole.to(torch.int16), whole.tolist(), whole.numpy()):
        got = call(target=target, visibility=[[1, 2], [1, 0]])
        assert torch.equal(got, call(target=whole.double(), visibility=seen))


def test_modules_say_what_they_hold():
    assert repr(SimCCLoss(sigma=(4.9, 5.66))) == (
        "SimCCLoss(split=2.0, sigma=(4.9, 5.66), temperature=1.0, reduction='mean')"
    )
    with pytest.raises(ValueError, match="least_scale: got 0"):
        RLELoss(least_scale=0.0)
    with pytest.raises(TypeError, match="flow: got int"):
        RLELoss(flow=3)
    assert SOFT["jsd"].block == REGULARIZERS["js"].block


def test_logsigmoid_is_the_published_scale():
    """mmpose takes the sigmoid of an output, of which -90 is 0 and its logarithm -inf."""
    out = torch.tensor([[[-90.0, -20.0]]])
    loss = rle_loss(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), F.logsigmoid(out), SEEN)
    assert loss.item() == pytest.approx(-110 + 2 * math.log(2), abs=1e-4)
