"""Heat maps: formulas written out, rendering and decoding, and the known failures of peers."""

import math

import pytest
import torch
from torch.nn import functional as F

from aptt.audit.ways import in_blocks, in_one, plainly
from aptt.loss import HeatmapLoss, decode_heatmaps, heatmap_loss, render_heatmaps
from aptt.loss.heat.formulas import FORMULAS


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _gradient(loss, x):
    x = x.clone().requires_grad_()
    loss(x).sum().backward()
    return x.grad


def _points(n=4, k=3, size=(20, 30), seed=1):
    share = torch.rand(n, k, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return share * (torch.tensor([size[1], size[0]]) - 1)


def _published(p, y):
    """CenterNet's eq. 1, pixel by pixel, from probabilities."""
    total, peaks = 0.0, 0
    for pi, yi in zip(p.flatten().tolist(), y.flatten().tolist(), strict=True):
        if yi == 1:
            total, peaks = total - (1 - pi) ** 2 * math.log(pi), peaks + 1
        else:
            total -= (1 - yi) ** 4 * pi**2 * math.log1p(-pi)
    return total / max(peaks, 1)


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
def test_focal_by_its_formula(way):
    x, y = _random(2, 3, 20, 30), render_heatmaps(_points(2), (20, 30), snap=True)
    with way():
        found = heatmap_loss(x, y, kind="focal")
    assert found.item() == pytest.approx(_published(x.sigmoid(), y), rel=1e-12)


def test_focal_without_a_peak_is_summed_as_published():
    x, y = _random(2, 1, 4, 4), 0.9 * torch.rand(2, 1, 4, 4, dtype=torch.float64)
    found = heatmap_loss(x, y, kind="focal")
    assert found.item() == pytest.approx(_published(x.sigmoid(), y), rel=1e-12)


def test_squared_error_and_adaptive_wing_by_their_formulas():
    x, y = 0.6 * _random(3, 2, 4, 5), render_heatmaps(_points(3, 2, (4, 5)), (4, 5))
    torch.testing.assert_close(heatmap_loss(x, y), F.mse_loss(x, y))
    total = 0.0
    for xi, yi in zip(x.flatten().tolist(), y.flatten().tolist(), strict=True):
        d, power = abs(xi - yi), 2.1 - yi
        if d < 0.5:
            total += 14 * math.log(1 + d**power)
        else:
            slope = 14 * power * 0.5 ** (power - 1) / (1 + 0.5**power)
            total += slope * d - (0.5 * slope - 14 * math.log(1 + 0.5**power))
    found = heatmap_loss(x, y, kind="awing")
    assert found.item() == pytest.approx(total / x.numel(), rel=1e-12)


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_confident_wrong_pixel_has_a_gradient_of_one_where_centernet_has_none(way, dtype):
    # CenterNet clamps p to [1e-4, 1 - 1e-4]: beyond logits of 9.2 nothing is learnt, and in half
    # precision 1 - 1e-4 is 1, so that the loss is infinite and its gradient NaN
    x = torch.tensor([[[12.0, -12.0]]], dtype=dtype)
    y = torch.tensor([[[0.0, 1.0]]], dtype=dtype)

    def loss(x):
        with way():
            return heatmap_loss(x, y, kind="focal", reduction="sum")

    assert loss(x).item() == pytest.approx(24, abs=0.01)
    grad = _gradient(loss, x)
    torch.testing.assert_close(
        grad.double(), torch.tensor([[[1.0, -1.0]]], dtype=torch.float64), rtol=0, atol=4e-3
    )
    clamped = x.float().requires_grad_()
    p = clamped.sigmoid().clamp(1e-4, 1 - 1e-4)
    (-(p[..., 0] ** 2 * (1 - p[..., 0]).log()) - (1 - p[..., 1]) ** 2 * p[..., 1].log()).backward()
    assert clamped.grad.abs().max() == 0


def test_certainty_is_finite_where_mmpose_is_nan():
    # a prediction of exactly 0 or 1 gives 0 * -inf there
    x, y = torch.tensor([[[1e3, -1e3, 1e3, -1e3]]]), torch.tensor([[[1.0, 0.0, 0.0, 1.0]]])
    assert heatmap_loss(x, y, kind="focal", reduction="none").flatten().tolist() == [0, 0, 1e3, 1e3]
    assert (
        _gradient(lambda x: heatmap_loss(x, y, kind="focal", reduction="sum"), x).isfinite().all()
    )


@pytest.mark.parametrize("how", ["resized", "sub-pixel"])
def test_a_map_without_an_exact_one_still_trains_where_centernet_finds_no_peak(how):
    points = _points(2)
    y = render_heatmaps(points, (20, 30))
    peaks = render_heatmaps(points, (20, 30), snap=True) == 1
    if how == "resized":
        snapped = render_heatmaps(points, (20, 30), snap=True)
        y = F.interpolate(snapped, scale_factor=0.5, mode="bilinear")
        peaks = F.max_pool2d(peaks.double(), 2) == 1
    assert y.max() < 1
    x = torch.full_like(y, -2.19)

    def at_peaks(**how):
        return _gradient(lambda x: heatmap_loss(x, y, kind="focal", **how), x)[peaks]

    assert (at_peaks() > 0).all()  # nothing is a peak: even there the loss pushes down
    assert (at_peaks(positive=peaks) < 0).all()
    found = heatmap_loss(x, y, kind="focal", positive=peaks)
    exact = heatmap_loss(x, torch.where(peaks, 1.0, y), kind="focal")
    torch.testing.assert_close(found, exact)


def test_rounding_makes_no_peak_where_they_are_marked():
    # .999 is 1 in bfloat16
    x = torch.zeros(1, 1, 3)
    y = torch.tensor([[[0.9990, 1.0, 0.5]]])
    peaks = torch.tensor([[[False, True, False]]])
    low = heatmap_loss(x, y.bfloat16(), kind="focal", positive=peaks)
    torch.testing.assert_close(low, heatmap_loss(x, y, kind="focal"), rtol=1e-6, atol=0)
    found = heatmap_loss(x, y.bfloat16(), kind="focal", reduction="none")[0, 0, 0]
    assert found.item() == pytest.approx(0.25 * math.log(2))  # pulled up, as a second peak


@pytest.mark.parametrize("kind", ["mse", "focal", "awing"])
def test_a_weight_multiplies_the_loss_where_mmpose_multiplies_the_maps(kind):
    # there, half the weight gives 0.25 of the squared error and 0.267 of the adaptive wing
    x, y = _random(2, 3, 4, 5), render_heatmaps(_points(2, 3, (4, 5)), (4, 5), snap=True)
    one = heatmap_loss(x, y, kind=kind, reduction="sum")
    half = heatmap_loss(x, y, kind=kind, weight=torch.full_like(y, 0.5), reduction="sum")
    torch.testing.assert_close(half, one / 2)


@pytest.mark.parametrize("kind", ["mse", "focal", "awing"])
def test_hidden_maps_are_not_counted_where_mmpose_divides_by_all(kind):
    x, y = _random(1, 17, 6, 6), render_heatmaps(_points(1, 17, (6, 6)), (6, 6), snap=True)
    visibility = torch.tensor([[2, 1, -1, 2, 2, 1, 2, 2] + 9 * [0]])
    seen = heatmap_loss(x[:, :8], y[:, :8], kind=kind)
    x[:, 8:], y[:, 9:] = torch.nan, torch.inf
    torch.testing.assert_close(heatmap_loss(x, y, kind=kind, visibility=visibility), seen)
    w = torch.ones_like(y)
    torch.testing.assert_close(heatmap_loss(x, y, kind=kind, visibility=visibility, weight=w), seen)


@pytest.mark.parametrize("kind", ["mse", "focal", "awing"])
def test_all_invisible_is_zero_with_a_zero_gradient(kind):
    x, y = torch.full((2, 3, 4, 4), torch.nan), torch.zeros(2, 3, 4, 4)
    hidden = torch.zeros(2, 3)
    x.requires_grad_()
    loss = heatmap_loss(x, y, kind=kind, visibility=hidden)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(y))


@pytest.mark.parametrize("kind", ["mse", "focal", "awing"])
def test_everything_twice_is_everything_once(kind):
    x, y = _random(2, 3, 4, 5), render_heatmaps(_points(2, 3, (4, 5)), (4, 5), snap=True)
    twice = heatmap_loss(torch.cat((x, x)), torch.cat((y, y)), kind=kind)
    torch.testing.assert_close(twice, heatmap_loss(x, y, kind=kind))


def test_known_to_be_absent_is_trained_to_nothing():
    points = torch.tensor([[[2.0, 1.0], [torch.nan, torch.inf]]])
    y = render_heatmaps(points, (4, 5), visibility=torch.tensor([[2, -1]]))
    assert y[0, 1].count_nonzero() == 0
    x = torch.ones(1, 2, 4, 5)
    grad = _gradient(lambda x: heatmap_loss(x, y, visibility=torch.tensor([[2, -1]])), x)
    assert (grad[0, 1] > 0).all()


@pytest.mark.parametrize("exponents", [(1.0, 2.0), (2.0, 0.0), (0.0, 1.0), (0.5, 3.3)])
def test_the_walk_agrees_at_any_exponents(exponents):
    alpha, beta = exponents
    x, y = _random(3, 2, 5, 7), render_heatmaps(_points(3, 2, (5, 7)), (5, 7), snap=True)
    up = _random(*y.shape, seed=2)
    results = []
    for way in (plainly, in_blocks, in_one):
        with way():
            loss = HeatmapLoss("focal", alpha=alpha, beta=beta, reduction="none")
            results.append(_gradient(lambda x, loss=loss: up * loss(x, y), x))
    for got in results[1:]:
        torch.testing.assert_close(got, results[0], rtol=1e-12, atol=1e-14)


# ------------------------------------------------------------------------ rendering, decoding


@pytest.mark.parametrize("size", [(0, 3), (3, 0)])
def test_a_map_without_a_cell_has_no_peak(size):
    with pytest.raises(ValueError, match="with no cell in a map"):
        decode_heatmaps(torch.zeros(1, 1, *size))


def test_what_is_rendered_is_decoded():
    size = (20, 30)
    points = 1 + _points(8, 3, (18, 28))
    for dtype, atol in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        maps = render_heatmaps(points.to(dtype), size, sigma=1.5)
        found = decode_heatmaps(maps, method="gaussian")
        torch.testing.assert_close(found.points, points.to(dtype), rtol=0, atol=atol)
        torch.testing.assert_close(found.scores, maps.amax((2, 3)))
    log = render_heatmaps(points, size).log()
    found = decode_heatmaps(log, method="parabola")
    torch.testing.assert_close(found.points, points, rtol=0, atol=1e-9)
    cells = decode_heatmaps(render_heatmaps(points, size, snap=True), method="argmax")
    assert torch.equal(cells.points, points.round())
    assert torch.equal(cells.scores, torch.ones_like(cells.scores))


def test_at_a_border_or_on_a_plateau_the_cell_stays():
    maps = torch.zeros(1, 3, 4, 4)
    maps[0, 0, 0, 3], maps[0, 1, 1:3, 1:3] = 1, 1
    for method in ("parabola", "gaussian"):
        points = decode_heatmaps(maps, method=method).points[0]
        assert points[0].tolist() == [3, 0]
        assert (points[1] >= 1).all()
        assert (points[1] <= 2).all()
        assert points[2].tolist() == [0, 0]


def test_soft_argmax_agrees_with_kornia():
    subpix = pytest.importorskip("kornia.geometry.subpix")
    maps = 3 * _random(2, 3, 5, 7)
    theirs = subpix.spatial_soft_argmax2d(maps, torch.tensor(2.0), normalized_coordinates=False)
    ours = decode_heatmaps(maps, method="soft-argmax", temperature=2.0).points
    torch.testing.assert_close(ours, theirs)


def test_soft_argmax_is_differentiable():
    maps = _random(1, 2, 3, 4).requires_grad_()
    torch.autograd.gradcheck(lambda m: decode_heatmaps(m, method="soft-argmax").points, maps)


def test_sigma_by_point_and_a_gradient_for_points():
    points = _points(2, 3).requires_grad_()
    sigma = torch.full((2, 3), 2.0, dtype=torch.float64, requires_grad=True)
    maps = render_heatmaps(points, (20, 30), sigma=sigma)
    torch.testing.assert_close(maps, render_heatmaps(points, (20, 30)))
    torch.autograd.gradcheck(lambda p, s: render_heatmaps(p, (4, 5), sigma=s), (points, sigma))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda p: render_heatmaps(p[..., :1], (4, 4)), "points"),
        (lambda p: render_heatmaps(p, (4, 4), sigma=0.0), "sigma"),
        (lambda p: render_heatmaps(p, (4, 4), sigma=torch.ones(3)), "sigma"),
        (lambda p: render_heatmaps(p, (4, 4), visibility=torch.ones(2)), "visibility"),
        (lambda p: decode_heatmaps(p), "heatmaps"),
        (lambda p: decode_heatmaps(torch.zeros(1, 1, 0, 3)), "heatmaps"),
        (lambda p: decode_heatmaps(torch.zeros(1, 1, 2, 3), method="dark"), "method"),
        (lambda p: decode_heatmaps(torch.zeros(1, 1, 2, 3), temperature=0), "temperature"),
    ],
)
def test_what_does_not_fit_is_named(call, name):
    with pytest.raises(ValueError, match=name):
        call(_points(2, 3))


def test_a_masked_cell_is_background_in_blocks_as_well():
    logits = torch.randn(
        2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    logits[:, :, 4:6] = -torch.inf
    target = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
    target[:, :, 10, 10] = 1
    found = []
    for way in (plainly, in_blocks, in_one):
        x = logits.clone().requires_grad_()
        with way():
            loss = heatmap_loss(x, target, kind="focal")
        loss.backward()
        found.append((loss.detach(), x.grad))
    torch.testing.assert_close(found[0], found[1])
    assert found[0][0].isfinite()
    assert (found[0][1][:, :, 4:6] == 0).all()


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_background_that_is_ruled_out_costs_nothing(alpha, way):
    logits = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    logits[0, 0, 0] = torch.tensor([-torch.inf, torch.inf])
    target = torch.tensor([[[[0.0, 1.0], [0.3, 1.0]]]], dtype=torch.float64)
    logits.requires_grad_()
    with way():
        loss = heatmap_loss(logits, target, kind="focal", alpha=alpha, reduction="none")
    loss.sum().backward()
    assert loss[0, 0, 0].tolist() == [0, 0]
    assert logits.grad[0, 0, 0].tolist() == [0, 0]
    assert (logits.grad[0, 0, 1] != 0).all()


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
def test_infinitely_wrong_pixels_have_a_gradient_that_is_no_nan(way):
    logits = torch.tensor([[[torch.inf, -torch.inf, 0.0]]], requires_grad=True)
    with way():
        heatmap_loss(logits, torch.tensor([[[0.0, 1.0, 0.5]]]), kind="focal").backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0, 2] > 0


def test_a_peak_among_masked_cells_stays_where_it_is():
    none = -torch.inf
    maps = torch.tensor([[[[0.0, none, 0.0], [none, 1.0, none], [0.0, none, 0.0]]]])
    for method in ("parabola", "gaussian", "soft-argmax"):
        assert decode_heatmaps(maps, method=method).points.isfinite().all()
    assert decode_heatmaps(maps).points.tolist() == [[[1.0, 1.0]]]
    maps = torch.full((1, 1, 3, 5), none, requires_grad=True)
    points = decode_heatmaps(maps, method="soft-argmax").points
    points.sum().backward()
    assert points.tolist() == [[[2.0, 1.0]]]
    assert maps.grad.isfinite().all()


def test_hidden_points_may_have_any_sigma_and_seen_ones_not():
    points = torch.tensor([[[1.0, 1.0], [2.0, 2.0], [1e38, 0.0]]], requires_grad=True)
    sigma = torch.tensor([[1.0, 0.0, 2.0]], requires_grad=True)
    visibility = torch.tensor([[1, 0, 1]])
    maps = render_heatmaps(points, (4, 4), sigma=sigma, visibility=visibility)
    maps.sum().backward()
    assert points.grad.isfinite().all()
    assert sigma.grad.isfinite().all()
    assert sigma.grad[0, 1] == 0
    for wrong in (0.0, -1.0, torch.nan):
        with pytest.raises(ValueError, match="sigma: got"):
            render_heatmaps(points, (4, 4), sigma=torch.tensor(wrong))


@pytest.mark.parametrize("size", [12, (4,), (1, 2, 3), (-1, 4), (12.5, 14), (True, 4)])
def test_a_size_is_two_whole_numbers(size):
    with pytest.raises(ValueError, match="size: got"):
        render_heatmaps(torch.zeros(1, 1, 2), size)


@pytest.mark.parametrize("exponents", [(2.0, 4.0), (2.0, 0.0), (0.0, 1.0), (0.5, 3.3)])
@pytest.mark.parametrize("marked", [False, True])
def test_the_steps_are_autograd_of_the_definition(exponents, marked, same_as_autograd):
    alpha, beta = exponents
    x, y = 4 * _random(60), torch.rand(60, generator=torch.Generator().manual_seed(2)).double()
    y[::9] = 1.0
    positive = (torch.arange(60) % 7 == 0) if marked else None
    same_as_autograd(FORMULAS["focal"], x, y, positive, alpha=alpha, beta=beta)


@pytest.mark.parametrize("kind", ["mse", "focal", "awing"])
def test_a_weight_of_each_map_is_one_of_all_its_cells(kind):
    g = torch.Generator().manual_seed(5)
    x, y = torch.randn(2, 3, 4, 5, generator=g), torch.rand(2, 3, 4, 5, generator=g)
    weight = torch.tensor([[1.0, 0.5, 0.0], [2.0, 0.0, 1.0]])
    visibility = torch.tensor([[2, 2, 2], [0, 1, 1]])
    got = heatmap_loss(x, y, kind=kind, weight=weight, visibility=visibility)
    every = weight[..., None, None].expand_as(y)
    assert torch.equal(got, heatmap_loss(x, y, kind=kind, weight=every, visibility=visibility))
    with pytest.raises(ValueError, match=r"weight: \(2, 2\) should be \(N, K\)"):
        heatmap_loss(x, y, kind=kind, weight=weight[:, :2])


def test_points_that_are_all_seen_are_as_without_visibility_to_the_last_digit():
    points = 5 * torch.rand(1, 2, 2, dtype=torch.float64)
    seen = render_heatmaps(points, (6, 6), sigma=0.7, visibility=torch.ones(1, 2))
    assert torch.equal(seen, render_heatmaps(points, (6, 6), sigma=0.7))
