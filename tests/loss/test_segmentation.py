"""Region losses: closed forms, peers where they are right, and their known failures."""

import math

import pytest
import torch

from aptt.loss import (
    DiceLoss,
    IoULoss,
    dice_loss,
    focal_tversky_loss,
    mask_iou_loss,
    tversky_loss,
)

FAMILY = [dice_loss, mask_iou_loss, tversky_loss, focal_tversky_loss]


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _classes(*shape, classes, seed=1):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def _logit(p):
    return torch.logit(torch.as_tensor(p, dtype=torch.float64))


def _value_and_gradient(loss_fn, x):
    x = x.clone().requires_grad_()
    loss = loss_fn(x)
    loss.sum().backward()
    return loss.detach(), x.grad


def _ratio(p, t, alpha, beta, smooth=0.0):
    """The Tversky score of two maps, in sums."""
    common, p, t = (p * t).sum(), p.sum(), t.sum()
    whole = common + alpha * (p - common) + beta * (t - common)
    return (common + smooth) / (whole + smooth)


@pytest.mark.parametrize("pool", ["batch", "sample"])
@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (1.0, 1.0), (0.3, 0.7)])
def test_by_its_sums(alpha, beta, pool):
    logits, target = 2 * _random(3, 4, 5, 6), _classes(3, 5, 6, classes=4)
    p, hot = logits.softmax(1), torch.nn.functional.one_hot(target, 4).movedim(-1, 1).double()
    if pool == "batch":
        scores = [_ratio(p[:, c], hot[:, c], alpha, beta) for c in range(4)]
    else:
        scores = [_ratio(p[n, c], hot[n, c], alpha, beta) for n in range(3) for c in range(4)]
    expected = 1 - torch.stack(scores).mean()
    found = tversky_loss(logits, target, alpha=alpha, beta=beta, pool=pool)
    torch.testing.assert_close(found, expected)
    named = {(0.5, 0.5): dice_loss, (1.0, 1.0): mask_iou_loss}.get((alpha, beta))
    if named is not None:
        torch.testing.assert_close(named(logits, target, pool=pool), expected)


def test_modules_of_the_brief():
    logits, target = _random(2, 3, 4, 4), _classes(2, 4, 4, classes=3)
    assert DiceLoss()(logits, target) < IoULoss()(logits, target)


def test_focal_is_a_power_of_each_class():
    logits, target = _random(2, 3, 6, 6), _classes(2, 6, 6, classes=3)
    each = tversky_loss(logits, target, reduction="none")
    torch.testing.assert_close(focal_tversky_loss(logits, target, gamma=0.6), (each**0.6).mean())


def test_smoothing_means_what_it_says():
    # 0.75 here and in segmentation-models-pytorch; 5/7 in MONAI and nnU-Net, whose constant is half
    logits = torch.tensor([[40.0, 40.0, -40.0, -40.0]], dtype=torch.float64)
    target = torch.ones(1, 4)
    loss = dice_loss(logits, target, mode="binary", smooth=1.0)
    assert loss.item() == pytest.approx(0.25, abs=1e-12)
    assert mask_iou_loss(logits, target, mode="binary", smooth=1.0).item() == pytest.approx(0.4)


@pytest.mark.parametrize("loss_fn", FAMILY)
def test_class_weights_are_a_weighted_mean(loss_fn):
    logits, target = _random(2, 3, 4, 4), _classes(2, 4, 4, classes=3)
    weight = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    each = loss_fn(logits, target, reduction="none")
    torch.testing.assert_close(
        loss_fn(logits, target, weight=weight), (each * weight).sum() / weight.sum()
    )


# What becomes of a class without target pixels.


@pytest.mark.parametrize(
    ("absent", "value", "slope"),
    [
        ("skip", 0.0, 0.0),
        ("zero", 0.0, 0.0),
        ("smooth", 1 - 1 / (0.5 * 57.6 + 1), 0.5 / (0.5 * 57.6 + 1) ** 2),
        ("penalize", 0.9, 1 / 64),
    ],
)
def test_an_empty_mask_follows_its_policy(absent, value, slope):
    # segmentation-models-pytorch: 0 for any prediction; MONAI: 1 with a gradient of 3e-10
    logits = _logit(0.9).expand(1, 8, 8).clone()
    loss, gradient = _value_and_gradient(
        lambda x: dice_loss(
            x, torch.zeros(1, 8, 8), mode="binary", absent=absent, smooth=float(absent == "smooth")
        ),
        logits,
    )
    assert loss.item() == pytest.approx(value, rel=1e-12)
    expected = torch.full_like(gradient, slope * 0.9 * 0.1)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_absent_classes_are_not_counted():
    # MONAI: a perfect answer with 2 of 5 classes present costs 0.6
    target = torch.tensor([[[0, 1], [1, 0]]])
    logits = 10.0 * torch.nn.functional.one_hot(target, 5).movedim(-1, 1).double()
    present = dice_loss(logits, target)
    assert present < 1e-3
    torch.testing.assert_close(dice_loss(logits, target, absent="zero"), present * 2 / 5)


# Failures of peers, each of which passes here.


def test_a_soft_target_is_its_own_best_answer():
    # MONAI, toolbelt: 0.787 at p = t
    p = _random(2, 5, 6, 6).softmax(1)
    loss, _ = _value_and_gradient(lambda x: dice_loss(x, p), p.log())
    assert abs(loss.item()) <= 1e-12
    for step in (-0.1, 0.1):
        moved = p.log() + step * _random(2, 5, 6, 6, seed=3)
        assert dice_loss(moved, p) > 1e-3


@pytest.mark.parametrize("mode", ["multiclass", "binary"])
@pytest.mark.parametrize("loss_fn", FAMILY)
def test_ignored_pixels_are_as_if_removed(loss_fn, mode):
    # mmseg: 0.33 for a perfect answer with half of the pixels ignored; NaN logits under ignored
    # pixels poison every peer
    if mode == "multiclass":
        logits, target, rest = _random(2, 3, 40), _classes(2, 40, classes=3), (2, 3, 20)
    else:
        logits, target, rest = _random(2, 40), _classes(2, 40, classes=2), (2, 20)
    keep = torch.arange(40) % 2 == 0
    expected, gradient = _value_and_gradient(
        lambda x: loss_fn(x, target[:, keep], mode=mode), logits[..., keep].reshape(rest)
    )
    target[:, ~keep] = 7
    logits[..., ~keep] = torch.nan
    loss, found = _value_and_gradient(
        lambda x: loss_fn(x, target, mode=mode, ignore_index=7), logits
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found[..., keep], gradient)
    assert (found[..., ~keep] == 0).all()


@pytest.mark.parametrize("loss_fn", FAMILY)
def test_nothing_ignored_changes_nothing(loss_fn):
    logits, target = _random(2, 3, 20), _classes(2, 20, classes=3)
    assert loss_fn(logits, target, ignore_index=255) == loss_fn(logits, target)


@pytest.mark.parametrize("loss_fn", FAMILY)
def test_everything_ignored_is_zero_on_the_graph(loss_fn):
    # kornia: 1; segmentation-models-pytorch's Lovasz: no gradient at all
    loss, gradient = _value_and_gradient(
        lambda x: loss_fn(x, torch.full((2, 20), -100)), _random(2, 3, 20)
    )
    assert loss == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("pixels", [9, 16])
def test_tiny_objects_do_not_cancel(pixels):
    # segmentation-models-pytorch in float32: a score of -3.5e-3, through |p - t|
    logits = torch.full((1, 512, 512), _logit(1e-3).item())
    target = torch.zeros(1, 512, 512)
    target.view(-1)[:pixels] = 1
    loss = dice_loss(logits, target, mode="binary")
    score = 2 * pixels * 1e-3 / (512 * 512 * 1e-3 + pixels)
    assert 1 - loss.item() == pytest.approx(score, rel=1e-3)
    assert loss.item() == pytest.approx(1 - score, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss_fn", FAMILY)
def test_large_maps_in_half_precision(loss_fn, dtype):
    # segmentation-models-pytorch, toolbelt, MONAI in fp16: inf / inf
    target = (torch.arange(512 * 512) % 3 == 0).view(1, 512, 512)
    logits = torch.where(target, 20.0, -20.0).to(dtype)
    loss, gradient = _value_and_gradient(lambda x: loss_fn(x, target, mode="binary"), logits)
    assert loss.dtype == torch.float32
    assert 0 <= loss <= 1e-3
    assert gradient.isfinite().all()


def test_underflow_without_smoothing_is_finite():
    # MONAI with smoothing 0: NaN
    logits = torch.full((1, 1, 8, 8), -200.0)
    for absent in ("skip", "zero", "penalize"):
        loss, gradient = _value_and_gradient(
            lambda x, a=absent: dice_loss(x, torch.zeros(1, 1, 8, 8), mode="binary", absent=a),
            logits,
        )
        assert loss == 0
        assert gradient.isfinite().all()


def test_one_softmax_class_is_refused():
    # kornia: 0, with no gradient
    with pytest.raises(ValueError, match="mode='binary'"):
        dice_loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long))


@pytest.mark.parametrize("loss_fn", FAMILY)
def test_a_map_is_the_mean_of_two_copies(loss_fn):
    logits, target = _random(2, 3, 20), _classes(2, 20, classes=3)
    twice = loss_fn(torch.cat([logits] * 2), torch.cat([target] * 2))
    torch.testing.assert_close(twice, loss_fn(logits, target))


def test_pixel_weights_scale_each_sum():
    logits, target = _random(2, 3, 20), _classes(2, 20, classes=3)
    weight = torch.rand(2, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, hot = logits.softmax(1), torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()
    w = weight.unsqueeze(1)
    common, p, t = ((w * v).sum((0, 2)) for v in (p * hot, p, hot))
    expected = (1 - 2 * common / (p + t)).mean()
    torch.testing.assert_close(dice_loss(logits, target, pixel_weight=weight), expected)


def test_pooling_by_a_callable_sees_the_sums_of_the_batch():
    # two ranks with the same batch: twice the sums, the same ratio
    logits, target = _random(2, 3, 20), _classes(2, 20, classes=3)
    seen = []
    loss = dice_loss(logits, target, pool=lambda sums: seen.append(sums) or 2 * sums)
    torch.testing.assert_close(loss, dice_loss(logits, target))
    assert seen[0].shape == (3, 4)
    assert seen[0][:, 3].tolist() == [40.0] * 3


@pytest.mark.parametrize(
    ("logits", "target", "options", "words"),
    [
        ((2, 3, 4, 4), (2, 4, 4, 3), {"mode": "multilabel"}, r"target: \(2, 4, 4, 3\)"),
        ((2, 3, 4, 4), (2, 4, 5), {}, r"target: \(2, 4, 5\)"),
        ((2, 4, 4), (2, 5, 4), {"mode": "binary"}, "target"),
        ((2, 3, 4), (2, 4), {"mode": "multi"}, "mode.*'multi'"),
        ((2, 3, 4), (2, 4), {"absent": "drop"}, "absent.*'drop'"),
        ((2, 3, 4), (2, 4), {"absent": "smooth"}, "smooth"),
        ((2, 3, 4), (2, 4), {"pool": "world"}, "pool.*'world'"),
        ((2, 3, 4), (2, 4), {"weight": torch.ones(2)}, "weight"),
        ((2, 3, 4), (2, 4), {"pixel_weight": torch.ones(2, 3, 4)}, "pixel_weight"),
    ],
)
def test_wrong_calls_are_told_apart(logits, target, options, words):
    with pytest.raises(ValueError, match=words):
        dice_loss(torch.zeros(logits), torch.zeros(target, dtype=torch.long), **options)


def test_targets_out_of_range_are_named():
    with pytest.raises(ValueError, match="class 3, wanted 0 to 2"):
        dice_loss(torch.zeros(1, 3, 4), torch.full((1, 4), 3))
    with pytest.raises(ValueError, match="got 255"):
        dice_loss(torch.zeros(1, 4), torch.full((1, 4), 255), mode="binary")
    assert math.isfinite(
        dice_loss(torch.zeros(1, 4), torch.full((1, 4), 255), mode="binary", ignore_index=255)
    )


def test_kornia_agrees():
    losses = pytest.importorskip("kornia.losses")
    logits, target = _random(1, 4, 8, 8), _classes(1, 8, 8, classes=4)
    theirs = losses.dice_loss(logits, target, average="macro", eps=0.0)
    torch.testing.assert_close(dice_loss(logits, target, pool="sample"), theirs)


def test_monai_agrees():
    losses = pytest.importorskip("monai.losses")
    logits, target = _random(3, 4, 8, 8), _classes(3, 8, 8, classes=4)
    theirs = losses.DiceLoss(softmax=True, to_onehot_y=True, smooth_nr=0.5, smooth_dr=0.5)
    ours = dice_loss(logits, target, pool="sample", absent="smooth", smooth=0.25)
    torch.testing.assert_close(ours, theirs(logits, target.unsqueeze(1)))
