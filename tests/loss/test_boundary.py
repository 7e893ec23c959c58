"""Boundary and Hausdorff losses: values by hand, the published forms, and where others go wrong."""

import pytest
import torch

from aptt.loss import (
    BoundaryLoss,
    boundary_loss,
    hausdorff_loss,
    signed_distance,
)
from aptt.loss.boundary.misses import _MISSED

STRIP = torch.tensor([[0, 1, 1, 1, 0]])
HALF = torch.zeros(1, 5, dtype=torch.float64)


def _random(*shape, seed=0, scale=2.0):
    return scale * torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def _classes(*shape, seed=1, classes=3):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def _blobs(*shape, seed=3):
    """Masks of some pixels in one piece each, with a hole or two."""
    g = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=g).cumsum(-1) % 3 > 1.2).long()


def maps(target, classes, **options):
    return signed_distance(target, num_classes=classes, **options)


def boundary(logits, target, **options):
    return boundary_loss(logits, target, mode="binary", **options).item()


def hausdorff(logits, target, **options):
    return hausdorff_loss(logits, target, mode="binary", **options).item()


# ------------------------------------------------------------------------------- by hand


def test_the_maps_of_a_strip():
    assert maps(STRIP, 2)[0, 1].tolist() == [1, 0, -1, 0, 1]
    assert maps(STRIP, 2, rim="centre")[0, 1].tolist() == [1, -1, -2, -1, 1]
    assert maps(STRIP, 2, spacing=2.0)[0, 1].tolist() == [2, 0, -2, 0, 2]
    assert maps(STRIP, 2, rim="centre", cap=1.0)[0, 1].tolist() == [
        1,
        -1,
        -1,
        -1,
        1,
    ]


def test_the_values_of_a_strip():
    assert boundary(HALF, STRIP) == pytest.approx(0.3)
    assert boundary(HALF, STRIP, rim="centre") == pytest.approx(0.6)
    assert boundary(HALF, STRIP, spacing=2.0) == pytest.approx(0.6)
    assert boundary(1e4 * (2 * STRIP - 1).double(), STRIP) == 0


@pytest.mark.parametrize(("policy", "empty", "full"), [("skip", 0, 0), ("zero", 0, 0)])
def test_a_mask_without_a_boundary_costs_nothing_unless_it_is_told_to(policy, empty, full):
    sure = torch.full((1, 5), -1.0).double()
    for loss in (boundary, hausdorff):
        assert loss(sure, STRIP * 0, absent=policy) == empty
        assert loss(sure, STRIP * 0 + 1, absent=policy) == full


def test_penalized_an_empty_mask_costs_its_mean_probability_and_a_full_one_what_it_lacks():
    p = torch.sigmoid(torch.tensor(-1.0)).item()
    sure = torch.full((1, 5), -1.0).double()
    assert boundary(sure, STRIP * 0, absent="penalize") == pytest.approx(p)
    assert boundary(sure, STRIP * 0 + 1, absent="penalize") == pytest.approx(1 - p)
    assert boundary(HALF, STRIP * 0, absent="penalize") == 0.5
    assert hausdorff(sure, STRIP * 0, absent="penalize") == pytest.approx(p * p)


def test_an_absent_mask_is_counted_or_not():
    logits, target = torch.cat((HALF, HALF)), torch.cat((STRIP, STRIP * 0))
    assert boundary(logits, target) == pytest.approx(0.3)
    assert boundary(logits, target, absent="zero") == pytest.approx(0.15)
    assert boundary(logits, target, absent="penalize") == pytest.approx(0.4)


def test_an_ignored_pixel_is_no_seed():
    ignored = torch.tensor([[0, 1, 1, 1, 255]])
    assert maps(ignored, 2, ignore_index=255)[0, 1].tolist() == [
        1,
        0,
        -1,
        -2,
        0,
    ]
    assert boundary(HALF, ignored, ignore_index=255) == pytest.approx(0.5)
    weight = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    assert boundary(HALF, STRIP, weight=weight) == pytest.approx(0.5)


def test_sides_that_nowhere_touch_are_measured_as_of_centres():
    ignored = torch.tensor([[0, 255, 1, 1, 1]])
    assert maps(ignored, 2, ignore_index=255)[0, 1].tolist() == [
        2,
        0,
        -2,
        -3,
        -4,
    ]


def test_the_values_of_hausdorff():
    assert hausdorff(HALF, STRIP) == pytest.approx(0.4)
    shifted = 1e4 * torch.tensor([[-1.0, -1, 1, 1, 1]]).double()
    assert hausdorff(shifted, STRIP, one_sided=False) == pytest.approx(2.4)
    assert hausdorff(1e4 * (2 * STRIP - 1).double(), STRIP, one_sided=False) == 0


def test_hausdorff_one_sided_is_squared_mistakes_by_the_map_to_a_power():
    logits, target = _random(2, 1, 6, 7), _blobs(2, 6, 7)
    far = signed_distance(target.unsqueeze(1), rim="centre").double()
    miss = (logits.sigmoid() - target.unsqueeze(1)).square()
    for power in (2.0, 1.5):
        want = (miss * far.abs() ** power).mean().item()
        assert hausdorff(logits, target, distance_power=power) == pytest.approx(want, rel=1e-6)
        got = hausdorff(logits, target, distance_power=power, distance_map=far)
        assert got == pytest.approx(want, rel=1e-12)


# -------------------------------------------------------------------- the published form


def test_it_is_the_published_sum_and_a_constant_with_the_same_gradient():
    target = _blobs(2, 6, 7)
    phi = signed_distance(target.unsqueeze(1)).double()
    lower, slopes = [], []
    for seed in range(3):
        x = _random(2, 1, 6, 7, seed=seed).requires_grad_()
        theirs = (phi * x.sigmoid()).mean()
        ours = boundary_loss(x, target, mode="binary")
        lower.append((ours - theirs).item())
        slopes.append([torch.autograd.grad(loss, x)[0] for loss in (ours, theirs)])
    assert lower == pytest.approx([(-phi * target.unsqueeze(1)).mean().item()] * 3)
    for ours, theirs in slopes:
        torch.testing.assert_close(ours, theirs)


def test_it_is_never_negative_where_theirs_is():
    phi = maps(STRIP, 2)[:, 1:]
    theirs = (phi * STRIP).mean().item()  # of a perfect prediction
    assert theirs == pytest.approx(-0.2)
    assert boundary(1e4 * (2 * STRIP - 1).double(), STRIP) == 0


@pytest.mark.parametrize("spacing", [1.0, (1.0, 0.5), (3.0, 1.0)])
def test_the_rim_is_free_at_any_spacing(spacing):
    target = torch.zeros(1, 7, 8, dtype=torch.long)
    target[:, 2:5, 2:6] = 1
    phi = maps(target, 2, spacing=spacing)[0, 1]
    edge = target[0].bool().clone()
    edge[3, 3:5] = False
    assert not phi[edge].any()
    assert (phi[~target[0].bool()] > 0).all()
    inside = [spacing] * 2 if isinstance(spacing, float) else spacing
    assert phi[3, 3].item() == pytest.approx(-min(inside))


def test_a_diagonal_is_as_long_as_it_is():
    t = torch.ones(1, 9, 9, dtype=torch.long)
    t[0, 0, 0] = 0
    phi = maps(t, 2)[0, 1]
    assert maps(t, 2, rim="centre")[0, 1, 3, 3].item() == pytest.approx(-(18**0.5))
    assert phi[3, 3].item() == pytest.approx(-(13**0.5))  # 3.606; their 4.243 - 1 is 3.243


def test_only_the_centres_leave_one_best_prediction():
    x = torch.full((1, 5), 20.0).double() * (2 * STRIP - 1)
    x[0, 1] = -20.0  # on the rim
    assert boundary(x, STRIP) < 1e-8
    assert boundary(x, STRIP, rim="centre") == pytest.approx(0.2)


# ------------------------------------------------------------------- classes, maps, sizes


def test_of_classes_it_is_the_mean_over_pixels_and_classes():
    logits, target = _random(2, 3, 4, 5), _classes(2, 4, 5)
    hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    phi = maps(target, 3)
    weight, by = _random(2, 4, 5).abs(), torch.tensor([0.5, 2.0, 1.0])
    value = phi.abs() * (logits.softmax(1) - hot).abs()
    share = by[:, None, None] * weight.unsqueeze(1).expand(value.shape)
    want = (share * value).sum() / share.sum()
    got = boundary_loss(logits, target, class_weight=by, weight=weight)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)
    none = boundary_loss(logits, target, class_weight=by, weight=weight, reduction="none")
    torch.testing.assert_close(none, share * value, rtol=1e-6, atol=1e-9)


def test_a_map_from_a_data_loader_is_the_loss_s_own():
    logits, target = _random(2, 3, 3, 4, 5), _classes(2, 3, 4, 5)
    spacing = torch.tensor([[3.0, 1.0, 1.0], [1.0, 0.5, 0.5]])
    phi = maps(target, 3, spacing=spacing).double()
    want = boundary_loss(logits, target, spacing=spacing)
    for sign in (1, -1):
        got = boundary_loss(logits, target, distance_map=sign * phi)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=0)
    half = boundary_loss(logits, target, distance_map=phi.half())
    torch.testing.assert_close(half, want, rtol=1e-3, atol=0)


def test_each_sample_has_its_own_spacing():
    logits, target = _random(2, 1, 4, 5), _blobs(2, 4, 5)
    both = torch.tensor([[2.0, 0.7], [1.0, 3.0]])
    values = boundary_loss(logits, target, mode="binary", spacing=both, reduction="none")
    for i in range(2):
        one = slice(i, i + 1)
        alone = boundary_loss(
            logits[one], target[one], mode="binary", spacing=both[i], reduction="none"
        )
        torch.testing.assert_close(values[one], alone)
    module = BoundaryLoss(mode="binary", reduction="none")
    torch.testing.assert_close(module(logits, target, spacing=both), values)


def test_a_crop_keeps_the_boundary_beyond_it():
    phi = maps(STRIP, 2)[:, 1:, :1]  # a crop of the first pixel, which is background
    cropped = boundary(HALF[:, None, :1], STRIP[:, :1], distance_map=phi)
    assert cropped == 0.5  # and not absent


def test_scipy_gives_the_same_maps():
    pytest.importorskip("scipy")
    target = _classes(3, 6, 7)
    target[0] = 0
    for rim, cap in (("zero", 1.5), ("centre", 1.5), ("zero", None)):
        for spacing in (None, (2.0, 0.7), torch.rand(3, 2) + 0.5):
            options = dict(rim=rim, spacing=spacing, cap=cap, ignore_index=2)
            ours, theirs = (maps(target, 4, backend=name, **options) for name in ("torch", "scipy"))
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_without_scipy_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.ndimage", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        maps(STRIP, 2, backend="scipy")


def test_maps_of_masks_and_of_classes():
    hot = torch.nn.functional.one_hot(STRIP, 2).movedim(-1, 1)
    assert torch.equal(signed_distance(hot), maps(STRIP, 2))
    with pytest.raises(ValueError, match="num_classes"):
        signed_distance(STRIP)
    with pytest.raises(TypeError, match="class indices"):
        maps(STRIP.double(), 2)
    with pytest.raises(ValueError, match="target: got class 1"):
        maps(STRIP, 1)


# --------------------------------------------------------- where others go wrong, by name


def test_monai_lets_a_false_positive_in_an_empty_image_go():
    logits = torch.full((1, 1, 6, 6), 5.0)
    empty = torch.zeros(1, 6, 6, dtype=torch.long)
    penalized = logits.requires_grad_()
    loss = boundary_loss(penalized, empty, mode="binary", absent="penalize")
    (slope,) = torch.autograd.grad(loss, penalized)
    assert (slope > 0).all()  # MONAI: a map of 0, and no gradient
    hd = hausdorff_loss(penalized, empty, mode="binary", absent="penalize", one_sided=False)
    assert hd > 0.9  # HausdorffDTLoss: 0, whatever is predicted


def test_monai_s_boundary_loss_where_it_is_right():
    monai = pytest.importorskip("monai.losses")
    theirs = getattr(monai, "BoundaryLoss", None)
    if theirs is None:
        pytest.skip("MONAI before 1.6")
    phi = maps(STRIP, 2)[0, 1].double()
    p = torch.full((1, 1, 5, 1), 0.5).double()  # it takes two axes of an image
    target = STRIP.view(1, 1, 5, 1).double()
    value = theirs(sigmoid=False)(p, target).item()
    constant = (-phi * STRIP[0]).mean().item()
    assert value + constant == pytest.approx(boundary(HALF, STRIP), abs=1e-6)


def test_monai_s_hausdorff_where_it_is_right():
    monai = pytest.importorskip("monai.losses")
    loss = monai.HausdorffDTLoss(include_background=True)
    target = _blobs(1, 6, 7).unsqueeze(1)
    logits = _random(1, 1, 6, 7)
    theirs = loss(logits.sigmoid(), target.double()).item()
    assert hausdorff(logits, target, one_sided=False) == pytest.approx(theirs, rel=1e-5)
    assert loss(logits.sigmoid(), target).item() < 0.99 * theirs  # whole numbers of whole targets


# ------------------------------------------------------------------- the step, the options


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("square", [False, True])
def test_the_step_is_the_gradient(softmax, square, same_as_autograd):
    x, cost, own = _random(2, 3, 5), _random(2, 3, 5, seed=4).abs(), _random(2, 3, 5, seed=5) > 0
    cost[0, 0] = 0
    same_as_autograd(_MISSED, x, cost, own, softmax=softmax, square=square)


@pytest.mark.parametrize("loss", [boundary_loss, hausdorff_loss])
def test_compiled_it_is_one_graph(loss, same_when_compiled):
    logits, target = _random(2, 3, 4, 5), _classes(2, 4, 5)
    same_when_compiled(loss, logits, target, reduction="none")


def test_a_line_of_pixels_is_asked_for():
    with pytest.raises(ValueError, match="without an axis of pixels"):
        boundary_loss(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))


def test_a_map_that_is_not_finite_is_refused_but_where_it_is_ignored():
    far = torch.ones(1, 5)
    far[0, 4] = torch.nan
    with pytest.raises(ValueError, match="distance_map: got a number that is not finite"):
        boundary(HALF, STRIP, distance_map=far)
    ignored = torch.tensor([[0, 1, 1, 1, 255]])
    assert boundary(HALF, ignored, distance_map=far, ignore_index=255) == 0.5
