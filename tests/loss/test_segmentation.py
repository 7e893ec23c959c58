"""Region losses: closed forms, peers where they are right, and their known failures."""

import math

import pytest
import torch

from aptt.audit.ways import in_blocks, plainly
from aptt.loss import (
    DiceCELoss,
    DiceFocalLoss,
    DiceLoss,
    FocalTverskyLoss,
    GeneralizedDiceLoss,
    IoULoss,
    LovaszLoss,
    TverskyLoss,
    cross_entropy,
    dice_ce_loss,
    dice_ce_terms,
    dice_focal_loss,
    dice_focal_terms,
    dice_loss,
    focal_tversky_loss,
    generalized_dice_loss,
    lovasz_loss,
    mask_iou_loss,
    mcc_loss,
    tversky_loss,
)
from aptt.loss.segmentation import ratio

RATIOS = [dice_loss, mask_iou_loss, tversky_loss, focal_tversky_loss]
COMPOUNDS = [dice_ce_loss, dice_focal_loss]
FAMILY = [*RATIOS, *COMPOUNDS, generalized_dice_loss, lovasz_loss]
MODULES = [
    DiceLoss,
    IoULoss,
    TverskyLoss,
    FocalTverskyLoss,
    DiceCELoss,
    DiceFocalLoss,
    GeneralizedDiceLoss,
    LovaszLoss,
]
WAYS = [pytest.param(plainly, id="plain"), pytest.param(in_blocks, id="in blocks")]


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


@pytest.mark.parametrize("smooth", [0.0, 2.0])
@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.0, 1.0), (0.3, 2.0)])
def test_the_ratio_as_one_step_is_autograd_of_its_definition(alpha, beta, smooth):
    truth, false, missed = (_random(2, 3, seed=i).abs() + 0.1 for i in range(3))
    sums = [s.requires_grad_() for s in ((truth + missed).detach(), false, missed)]
    up = _random(2, 3, seed=9)

    def slopes(call):
        loss = call(*sums, alpha, beta, smooth)
        first = torch.autograd.grad(loss, sums, up, create_graph=True)
        return loss, *first, *torch.autograd.grad(sum(s.square().sum() for s in first), sums)

    found, wanted = slopes(ratio._Tversky.apply), slopes(ratio._tversky)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    loss = ratio._Tversky.apply(*sums, alpha, beta, smooth)
    several = torch.eye(6, dtype=torch.float64).view(6, 2, 3)
    (rows,) = torch.autograd.grad(loss, sums[1], several, is_grads_batched=True)
    torch.testing.assert_close(
        rows.sum(0),
        torch.autograd.grad(ratio._tversky(*sums, alpha, beta, smooth).sum(), sums[1])[0],
    )
    fixed = ratio._Tversky.apply(sums[0].detach(), *sums[1:], alpha, beta, smooth)
    again = torch.autograd.grad(fixed, sums[1:], up)
    torch.testing.assert_close(again, found[2:4], rtol=1e-12, atol=1e-14)


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


@pytest.mark.parametrize("loss_fn", [*RATIOS, lovasz_loss])
def test_class_weights_are_a_weighted_mean(loss_fn):
    logits, target = _random(2, 3, 4, 4), _classes(2, 4, 4, classes=3)
    weight = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    each = loss_fn(logits, target, reduction="none")
    torch.testing.assert_close(
        loss_fn(logits, target, class_weight=weight), (each * weight).sum() / weight.sum()
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


@pytest.mark.parametrize(
    "loss_fn", [dice_loss, tversky_loss, mcc_loss, mask_iou_loss, generalized_dice_loss]
)
def test_one_pixel_penalized_costs_its_probability(loss_fn):
    found = loss_fn(_logit(0.9).view(1, 1, 1), [[[0]]], mode="binary", absent="penalize")
    assert found.item() == pytest.approx(0.9, rel=1e-12)


def test_absent_classes_are_not_counted():
    # MONAI: a perfect answer with 2 of 5 classes present costs 0.6
    target = torch.tensor([[[0, 1], [1, 0]]])
    logits = 10.0 * torch.nn.functional.one_hot(target, 5).movedim(-1, 1).double()
    present = dice_loss(logits, target)
    assert present < 1e-3
    torch.testing.assert_close(dice_loss(logits, target, absent="zero"), present * 2 / 5)


# Generalised Dice.


@pytest.mark.parametrize(("weighting", "power"), [("square", 2), ("linear", 1), ("uniform", 0)])
@pytest.mark.parametrize("pool", ["batch", "sample"])
def test_generalised_dice_by_its_sums(weighting, power, pool):
    logits, target = _random(3, 4, 30), _classes(3, 30, classes=4)
    p, hot = logits.softmax(1), torch.nn.functional.one_hot(target, 4).movedim(-1, 1).double()
    extra = torch.tensor([1.0, 0.5, 2.0, 3.0], dtype=torch.float64)
    pools = [(p, hot)] if pool == "batch" else [(p[n : n + 1], hot[n : n + 1]) for n in range(3)]
    each = []
    for q, t in pools:
        common, both, truth = ((s).sum((0, 2)) for s in (q * t, q + t, t))
        v = extra / truth**power
        each.append(1 - 2 * (v * common).sum() / (v * both).sum())
    found = generalized_dice_loss(
        logits, target, weighting=weighting, pool=pool, class_weight=extra
    )
    torch.testing.assert_close(found, torch.stack(each).mean())


def test_rarity_is_not_cancelled_by_the_sum():
    # MONAI once divided by the same weights class by class, and had plain Dice (its issue 369)
    target = torch.tensor([[0] * 98 + [1, 1]])
    logits = torch.zeros(1, 2, 100, dtype=torch.float64)
    logits[:, 0] = 2.0  # the rare class is missed
    square, linear, uniform = (
        generalized_dice_loss(logits, target, weighting=w) for w in ("square", "linear", "uniform")
    )
    assert square > linear > uniform


def test_areas_that_overflow_when_squared():
    logits = torch.zeros(1, 2, 2**20)
    target = torch.zeros(1, 2**20, dtype=torch.long)
    target[0, 0] = 1
    loss, gradient = _value_and_gradient(lambda x: generalized_dice_loss(x, target), logits)
    assert loss.item() == pytest.approx(1 - 2 * 0.5 / (0.5 * 2**20 + 1), rel=1e-6)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("absent", "value", "slope"), [("skip", 0, 0), ("zero", 0, 0), ("penalize", 0.9, 1 / 64)]
)
def test_generalised_dice_of_an_empty_mask(absent, value, slope):
    # MONAI: 0 with no gradient
    loss, gradient = _value_and_gradient(
        lambda x: generalized_dice_loss(x, torch.zeros(1, 8, 8), mode="binary", absent=absent),
        _logit(0.9).expand(1, 8, 8).clone(),
    )
    assert loss.item() == pytest.approx(value)
    torch.testing.assert_close(gradient, torch.full_like(gradient, slope * 0.9 * 0.1))


def test_an_absent_class_penalised_weighs_as_the_rarest():
    # as in MONAI, which gives it the largest weight of those that are finite
    losses = pytest.importorskip("monai.losses")
    logits, target = _random(3, 4, 8, 8), _classes(3, 8, 8, classes=3)
    theirs = losses.GeneralizedDiceLoss(softmax=True, to_onehot_y=True, smooth_nr=0, smooth_dr=0)
    ours = generalized_dice_loss(logits, target, pool="sample", absent="penalize")
    torch.testing.assert_close(ours, theirs(logits, target.unsqueeze(1)))
    assert generalized_dice_loss(logits, target, pool="sample") < ours


# Dice with another term.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pool", ["batch", "sample"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_compounds_are_the_sum_of_their_terms(gamma, pool, way):
    logits, target = 2 * _random(3, 4, 30), _classes(3, 30, classes=4)
    weight = torch.tensor([1.0, 0.5, 2.0, 3.0], dtype=torch.float64)
    pixel = torch.rand(3, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target[:, ::7] = -100
    options = {"class_weight": weight, "weight": pixel, "pool": pool}

    def expected(x):
        seen = (target >= 0) * pixel
        y = target.clamp(min=0)
        p = x.softmax(1).gather(1, y[:, None]).squeeze(1)
        each = (1 - p) ** gamma * -p.log() * weight[y] * seen
        return 2 * dice_loss(x, target, **options) + 3 * each.sum() / (weight[y] * seen).sum()

    def found(x):
        if gamma == 0:
            return dice_ce_loss(x, target, dice_weight=2.0, ce_weight=3.0, **options)
        return dice_focal_loss(x, target, gamma=gamma, dice_weight=2.0, focal_weight=3.0, **options)

    with way():
        torch.testing.assert_close(
            _value_and_gradient(found, logits), _value_and_gradient(expected, logits)
        )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["multilabel", "binary"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_labels_have_a_term_of_their_own_each(gamma, mode, way):
    # MONAI DiceCELoss(sigmoid=True): cross-entropy of a softmax over labels that do not exclude
    logits, target = 2 * _random(3, 2, 30), _classes(3, 2, 30, classes=2).double()
    if mode == "binary":
        logits, target = logits[:, 0], target[:, 0]

    def expected(x):
        nll = torch.nn.functional.binary_cross_entropy_with_logits(x, target, reduction="none")
        return dice_loss(x, target, mode=mode) + ((1 - (-nll).exp()) ** gamma * nll).mean()

    def found(x):
        if gamma == 0:
            return dice_ce_loss(x, target, mode=mode)
        return dice_focal_loss(x, target, mode=mode, gamma=gamma)

    with way():
        torch.testing.assert_close(
            _value_and_gradient(found, logits), _value_and_gradient(expected, logits)
        )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_soft_targets_in_both_terms(mode, way):
    logits, soft = 2 * _random(3, 4, 30), _random(3, 4, 30, seed=4).softmax(1)

    def expected(x):
        if mode == "multiclass":
            ce = torch.nn.functional.cross_entropy(x, soft)
        else:
            ce = torch.nn.functional.binary_cross_entropy_with_logits(x, soft)
        return dice_loss(x, soft, mode=mode) + ce

    with way():
        torch.testing.assert_close(
            _value_and_gradient(lambda x: dice_ce_loss(x, soft, mode=mode), logits),
            _value_and_gradient(expected, logits),
        )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss_fn", COMPOUNDS)
@pytest.mark.parametrize("mode", ["multiclass", "binary"])
def test_confident_pixels_keep_their_digits_in_float32(mode, loss_fn, way):
    # 1 - p is 6e-6 to 6e-14 there: as a difference, float32 would keep 2 digits of it, or none
    target = _classes(2, 40, classes=2)
    gap = torch.linspace(12, 30, 40)
    logits = torch.where(target == 1, gap, -gap)
    if mode == "multiclass":
        logits = torch.stack((-logits / 2, logits / 2), 1)
    terms = {dice_ce_loss: dice_ce_terms, dice_focal_loss: dice_focal_terms}[loss_fn]

    def term(x):
        return list(terms(x, target, mode=mode).values())[1]

    with way():
        value, gradient = _value_and_gradient(term, logits)
    truth, slope = _value_and_gradient(term, logits.double())
    assert value.item() == pytest.approx(truth.item(), rel=2e-6)
    torch.testing.assert_close(gradient.double(), slope, rtol=5e-6, atol=1e-38)


def test_terms_come_before_their_weights():
    logits, target = _random(2, 3, 20), _classes(2, 20, classes=3)
    terms = dice_ce_terms(logits, target)
    torch.testing.assert_close(terms["dice"], dice_loss(logits, target))
    torch.testing.assert_close(terms["cross_entropy"], cross_entropy(logits, target))
    both = dice_ce_loss(logits, target, dice_weight=0.5, ce_weight=4.0)
    torch.testing.assert_close(both, 0.5 * terms["dice"] + 4 * terms["cross_entropy"])


def test_a_background_left_out_of_dice_stays_in_the_softmax_and_the_cross_entropy():
    # MONAI once dropped it before the softmax (its issue 5413)
    logits, target = _random(2, 3, 20), _classes(2, 20, classes=3)
    each = dice_loss(logits, target, reduction="none")
    torch.testing.assert_close(dice_loss(logits, target, background=False), each[1:].mean())
    terms = dice_ce_terms(logits, target, background=False)
    torch.testing.assert_close(terms["dice"], each[1:].mean())
    torch.testing.assert_close(terms["cross_entropy"], cross_entropy(logits, target))
    # MONAI wants C - 1 weights for one, C for the other (its issue 7729); here it is C
    weight = torch.tensor([9.0, 1.0, 3.0], dtype=torch.float64)
    found = dice_loss(logits, target, background=False, class_weight=weight)
    torch.testing.assert_close(found, (each[1] + 3 * each[2]) / 4)


def test_monai_agrees_with_the_compound():
    losses = pytest.importorskip("monai.losses")
    logits, target = _random(3, 4, 8, 8), _classes(3, 8, 8, classes=4)
    theirs = losses.DiceCELoss(softmax=True, to_onehot_y=True, lambda_dice=0.5, lambda_ce=2.0)
    ours = dice_ce_loss(logits, target, pool="sample", dice_weight=0.5, ce_weight=2.0)
    expected = theirs(logits, target.unsqueeze(1))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)  # its smoothing of 1e-5


# Lovasz: its definition is tested in tests/core/test_lovasz.py.


def test_lovasz_of_hard_masks_is_their_iou_loss():
    found, target = _classes(2, 40, classes=3), _classes(2, 40, classes=3, seed=5)
    logits = 2000.0 * torch.nn.functional.one_hot(found, 3).movedim(-1, 1)
    pairs = [((found == c), (target == c)) for c in range(3)]
    iou = torch.tensor([(f & t).sum() / (f | t).sum() for f, t in pairs])
    torch.testing.assert_close(lovasz_loss(logits, target), (1 - iou).mean())


def test_the_hinge_of_unit_logits_is_twice_the_iou_loss():
    found, target = _classes(2, 40, classes=2), _classes(2, 40, classes=2, seed=5)
    logits = 2.0 * found - 1
    iou = (found & target).sum() / (found | target).sum()
    torch.testing.assert_close(lovasz_loss(logits, target, mode="binary"), 2 * (1 - iou))


def test_lovasz_agrees_with_kornia():
    losses = pytest.importorskip("kornia.losses")
    logits, target = _random(3, 4, 8, 8), _classes(3, 8, 8, classes=3)
    ours = lovasz_loss(logits, target, pool="sample", absent="penalize")
    torch.testing.assert_close(ours, losses.lovasz_softmax_loss(logits, target))


def test_lovasz_is_never_negative_for_what_is_ignored():
    # kornia: -1.6 with labels of -100
    logits, target = _random(2, 3, 20), torch.full((2, 20), -100)
    target[0, :3] = 1
    assert 0 < lovasz_loss(logits, target) < 1


@pytest.mark.parametrize("absent", ["zero", "penalize"])
def test_lovasz_of_an_ignored_sample_is_not_counted_whatever_absent_classes_cost(absent):
    logits, target = _random(2, 3, 20), torch.full((2, 20), -100)
    target[0] = 1
    found = lovasz_loss(logits, target, pool="sample", absent=absent)
    torch.testing.assert_close(found, lovasz_loss(logits[:1], target[:1], absent=absent))


def test_lovasz_of_a_single_pixel():
    # its authors' code and mmseg: IndexError
    logits, target = _random(1, 3, 20), torch.full((1, 20), -100)
    target[0, 7] = 2
    p = logits.softmax(1)[0, 2, 7]
    torch.testing.assert_close(lovasz_loss(logits, target), 1 - p)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_lovasz_takes_every_dtype(mode, dtype):
    # segmentation-models-pytorch raises on all but float32, the authors' code on float64
    logits, target = _random(2, 3, 20).to(dtype), _classes(2, 20, classes=3)
    if mode == "multilabel":
        target = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    truth = lovasz_loss(logits.double(), target, mode=mode)
    found = lovasz_loss(logits, target, mode=mode)
    torch.testing.assert_close(found.double(), truth, rtol=1e-6, atol=0)


# The logarithm.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", [256, 512, 1024])
def test_the_logarithm_of_a_tiny_overlap(side, way):
    # segmentation-models-pytorch, 512 x 512: 16.1 with a gradient of exactly 0; 9.62 is right
    target = torch.zeros(1, side, side)
    target.view(-1)[:9] = 1

    def expected(x):
        p = x.sigmoid()
        return -torch.log(2 * (p * target).sum() / (p.sum() + 9))

    logits = torch.full((1, side, side), _logit(1e-3).item())
    truth, slope = _value_and_gradient(expected, logits.double())
    block = {} if way is plainly else {"size": 2**16}
    with way(**block):
        loss, gradient = _value_and_gradient(
            lambda x: dice_loss(x, target, mode="binary", log=True), logits
        )
    assert loss.item() == pytest.approx(truth.item(), rel=1e-6)
    if side == 512:
        assert truth.item() == pytest.approx(9.62, abs=0.005)
        assert gradient.abs().sum().item() == pytest.approx(1.965, abs=0.001)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-5, atol=0)


SCORES = {  # of what is predicted right, predicted, and there
    "dice": (dice_loss, lambda right, p, t: 2 * right / (p + t)),
    "iou": (mask_iou_loss, lambda right, p, t: right / (p + t - right)),
    "tversky": (
        lambda x, t, **options: tversky_loss(x, t, alpha=0.3, beta=0.6, **options),
        lambda right, p, t: right / (right + 0.3 * (p - right) + 0.6 * (t - right)),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCORES)
def test_the_logarithm_of_a_ratio_keeps_the_digits_of_a_tiny_overlap(name, way):
    loss_fn, score = SCORES[name]
    logits, target = torch.full((1, 100), -15.0), torch.zeros(1, 100)
    target[:, :9] = 1

    def expected(x):
        p = x.sigmoid()
        return -score((p * target).sum(), p.sum(), 9).log()

    with way():
        found, gradient = _value_and_gradient(
            lambda x: loss_fn(x, target, mode="binary", log=True), logits
        )
    truth, slope = _value_and_gradient(expected, logits.double())
    torch.testing.assert_close(found.double(), truth, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-5, atol=0)


def test_the_logarithm_of_each_ratio_is_its_score_s():
    logits, target = _random(2, 3, 20), _classes(2, 20, classes=3)
    for loss_fn in (dice_loss, mask_iou_loss, tversky_loss):
        score = 1 - loss_fn(logits, target, reduction="none", smooth=1.0)
        found = loss_fn(logits, target, reduction="none", log=True, smooth=1.0)
        torch.testing.assert_close(found, -score.log())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_logarithm_of_no_overlap_ends_at_its_cap(dtype):
    logits, target = torch.full((1, 40), -1000.0, dtype=dtype), torch.ones(1, 40)
    loss, gradient = _value_and_gradient(
        lambda x: dice_loss(x, target, mode="binary", log=True), logits
    )
    assert loss.item() == pytest.approx(-math.log(1e-30), rel=1e-6)
    assert gradient.isfinite().all()
    # up to there every logit that is wrong is pulled back with a full gradient
    _, gradient = _value_and_gradient(
        lambda x: dice_loss(x, target, mode="binary", log=True), logits / 20
    )
    torch.testing.assert_close(gradient, torch.full_like(gradient, -1 / 40), rtol=1e-5, atol=0)


# Failures of peers, each of which passes here.


def test_a_soft_target_is_its_own_best_answer():
    # MONAI, toolbelt: 0.787 at p = t
    p = _random(2, 5, 6, 6).softmax(1)
    loss, _ = _value_and_gradient(lambda x: dice_loss(x, p), p.log())
    assert abs(loss.item()) <= 1e-12
    for step in (-0.1, 0.1):
        moved = p.log() + step * _random(2, 5, 6, 6, seed=3)
        assert dice_loss(moved, p) > 1e-3


WITHOUT_LOG = [focal_tversky_loss, generalized_dice_loss]


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize(
    ("loss_fn", "log"),
    [
        (loss_fn, log)
        for loss_fn in (*RATIOS, generalized_dice_loss)
        for log in ((False,) if loss_fn in WITHOUT_LOG else (False, True))
    ],
)
def test_zero_lies_between_the_one_sided_gradients_at_a_soft_target(loss_fn, mode, log):
    # squares (V-Net's denominator) and products are least elsewhere
    options = {"mode": mode, **({"log": True} if log else {})}
    t = _random(2, 5, 6, 6).softmax(1)
    best = t.log() if mode == "multiclass" else t.logit()
    loss_32 = loss_fn(best.float(), t.float(), **options)
    assert abs(loss_32.item()) <= (1e-6 if loss_fn is not focal_tversky_loss else 1e-6**0.75)
    least = loss_fn(best, t, **options)
    assert abs(least.item()) <= 1e-11
    for seed in range(10):
        along = _random(2, 5, 6, 6, seed=100 + seed)
        for step in (-1e-4, 1e-4):  # the slope to either side leads up
            assert loss_fn(best + step * along, t, **options) > least + 1e-6


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


@pytest.mark.parametrize("pool", ["batch", "sample"])
@pytest.mark.parametrize("mode", ["multiclass", "multilabel", "binary"])
@pytest.mark.parametrize(
    ("loss_fn", "reduction"),
    [
        (loss_fn, reduction)
        for loss_fn in FAMILY
        for reduction in ("mean", "sum", *(() if loss_fn in COMPOUNDS else ("none",)))
    ],
)
def test_nothing_ignored_changes_nothing(loss_fn, mode, pool, reduction):
    # MONAI FocalLoss: C times the loss, as soon as ignore_index is set
    logits, target = _random(2, 3, 20), _classes(2, 20, classes=3)
    if mode != "multiclass":
        target = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    if mode == "binary":
        logits, target = logits[:, 0], target[:, 0]
    options = {"mode": mode, "pool": pool, "reduction": reduction}
    with_it = _value_and_gradient(lambda x: loss_fn(x, target, ignore_index=255, **options), logits)
    without = _value_and_gradient(lambda x: loss_fn(x, target, **options), logits)
    assert with_it[0].equal(without[0])
    torch.testing.assert_close(with_it[1], without[1], rtol=1e-13, atol=0)


@pytest.mark.parametrize("loss_fn", FAMILY)
def test_everything_ignored_is_zero_on_the_graph(loss_fn):
    # kornia's Dice: 1; Lovasz of its authors and of segmentation-models-pytorch: an empty tensor
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
    torch.testing.assert_close(dice_loss(logits, target, weight=weight), expected)


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
        ((2, 3, 4), (2, 4), {"class_weight": torch.ones(2)}, "class_weight"),
        ((2, 3, 4), (2, 4), {"weight": torch.ones(2, 3, 4)}, "weight"),
    ],
)
def test_wrong_calls_are_told_apart(logits, target, options, words):
    with pytest.raises(ValueError, match=words):
        dice_loss(torch.zeros(logits), torch.zeros(target, dtype=torch.long), **options)


@pytest.mark.parametrize("wrong", [-1.0, math.inf, math.nan])
def test_weights_that_weigh_nothing_sensible_are_named(wrong):
    weight = torch.tensor([[1.0, 1.0, wrong, 0.0]])
    with pytest.raises(ValueError, match=r"weight: got .* at least 0"):
        dice_loss(torch.zeros(1, 3, 4), torch.zeros(1, 4, dtype=torch.long), weight=weight)


@pytest.mark.parametrize("loss_fn", FAMILY)
@pytest.mark.parametrize("wrong", [-1.0, math.inf, math.nan])
def test_class_weights_that_weigh_nothing_sensible_are_named(loss_fn, wrong):
    logits, target = _random(1, 2, 4), _classes(1, 4, classes=2)
    with pytest.raises(
        ValueError, match=r"class_weight: got .*, wanted finite numbers of at least 0"
    ):
        loss_fn(logits, target, class_weight=torch.tensor([wrong, 1.0]))
    with pytest.raises(
        ValueError, match=r"class_weight: got .*, wanted finite numbers of at least 0"
    ):
        DiceLoss(class_weight=[wrong, 1.0])


@pytest.mark.parametrize("module", MODULES)
def test_a_binary_loss_has_one_class_to_weigh(module):
    with pytest.raises(
        ValueError, match=r"class_weight: got 2 numbers with mode='binary'.*wanted 1"
    ):
        module(mode="binary", class_weight=[1.0, 2.0])
    assert module(mode="binary", class_weight=[2.0]).class_weight.tolist() == [2.0]


@pytest.mark.parametrize("module", MODULES)
def test_a_call_with_an_argument_that_is_none_says_what_there_is(module):
    logits, target = _random(1, 2, 4), _classes(1, 4, classes=2)
    name = module.__name__
    with pytest.raises(TypeError, match=f"mask: {name} has no such argument; wanted weight"):
        module()(logits, target, mask=target)
    with pytest.raises(TypeError, match=f"mode: {name} takes it when it is constructed"):
        module()(logits, target, mode="binary")
    module()(logits, target=target, weight=torch.ones(1, 4))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int32, torch.bool])
@pytest.mark.parametrize("loss_fn", FAMILY)
def test_a_one_hot_mask_of_integers_is_its_classes(loss_fn, dtype):
    logits, target = _random(2, 3, 5, 4), _classes(2, 5, 4, classes=3)
    mask = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    found = _value_and_gradient(lambda x: loss_fn(x, mask.to(dtype)), logits)
    wanted = _value_and_gradient(lambda x: loss_fn(x, target), logits)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("loss_fn", [lovasz_loss, dice_focal_loss])
def test_a_mask_that_is_not_one_hot_is_no_class(loss_fn):
    logits, mask = _random(1, 3, 4), torch.tensor([[[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]]])
    with pytest.raises(ValueError, match="a pixel of no class or of several"):
        loss_fn(logits, mask)
    known = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert loss_fn(logits, mask, weight=known).isfinite()
    with pytest.raises(ValueError, match=r"one-hot mask of an integer dtype.*target\.long\(\)"):
        loss_fn(logits, mask.double())
    with pytest.raises(ValueError, match="got 2"):
        loss_fn(logits, 2 * mask)


def test_a_float_target_of_no_class_or_of_several_is_not_taken_for_classes():
    logits = _random(1, 3, 4)
    for target in ([[1.0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]], [[1.0] * 4, [0.5] * 4, [0.0] * 4]):
        t = torch.tensor(target, dtype=torch.float64)[None]
        p = logits.softmax(1)
        wanted = 1 - 2 * torch.minimum(p, t).sum(2) / (p + t).sum(2)
        found = dice_loss(logits, t, reduction="none")
        torch.testing.assert_close(found[:2], wanted[0, :2])


def test_the_mean_of_each_class_beside_kornia_s_pooled_one():
    losses = pytest.importorskip("kornia.losses")
    logits, target = _random(2, 4, 8, 8), _classes(2, 8, 8, classes=3)  # class 3 is absent
    micro = losses.dice_loss(logits, target)
    right = logits.softmax(1).gather(1, target[:, None]).mean()
    torch.testing.assert_close(micro, 1 - right)
    options = {"weighting": "uniform", "pool": "sample"}
    ours = generalized_dice_loss(logits, target, absent="penalize", **options)
    torch.testing.assert_close(ours, micro)
    assert generalized_dice_loss(logits, target, **options) < micro - 0.01
    skipped = dice_loss(logits, target, pool="sample")  # both leave out what a sample lacks
    torch.testing.assert_close(skipped, losses.dice_loss(logits, target, average="macro"))
    theirs = losses.tversky_loss(logits, target, alpha=0.3, beta=0.7)
    torch.testing.assert_close(
        tversky_loss(logits, target, alpha=0.3, beta=0.7, pool="sample"), theirs
    )


def test_soft_classes_have_no_value_that_removes_a_pixel():
    # one channel of a softmax cannot be removed alone
    target = torch.full((1, 3, 4), 1 / 3)
    with pytest.raises(ValueError, match="ignore_index: got 255 with soft targets"):
        dice_loss(torch.zeros(1, 3, 4), target, ignore_index=255)


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


@pytest.mark.parametrize("loss_fn", FAMILY)
def test_samples_without_pixel_axes_are_one_pixel_each(loss_fn):
    logits, target = _random(6, 3), _classes(6, classes=3)
    weight = _random(6, seed=2).abs()
    flat = _value_and_gradient(lambda x: loss_fn(x, target, weight=weight), logits)
    spread = _value_and_gradient(
        lambda x: loss_fn(x[..., None], target[:, None], weight=weight[:, None]), logits
    )
    torch.testing.assert_close(flat, spread, rtol=0, atol=0)


@pytest.mark.parametrize("loss_fn", FAMILY)
def test_the_weight_of_an_ignored_pixel_does_not_matter(loss_fn):
    logits, target = _random(2, 3, 20), _classes(2, 20, classes=3)
    target[:, ::4] = -100
    weight = torch.where(target == -100, torch.nan, 1.0)
    with_it = _value_and_gradient(lambda x: loss_fn(x, target, weight=weight), logits)
    without = _value_and_gradient(lambda x: loss_fn(x, target), logits)
    torch.testing.assert_close(with_it, without)


def test_class_indices_of_a_floating_dtype_are_told_what_they_lack():
    with pytest.raises(TypeError, match=r"target: got torch\.float32 .* integer dtype"):
        dice_loss(torch.zeros(2, 3, 4), torch.zeros(2, 4))


@pytest.mark.parametrize("loss", [dice_loss, dice_ce_loss])
def test_class_weights_of_0_alone_have_a_gradient_of_0(loss):
    weight = torch.zeros(2, requires_grad=True)
    loss(torch.zeros(2, 2), torch.tensor([0, 1]), class_weight=weight).backward()
    assert (weight.grad == 0).all()


@pytest.mark.parametrize("unit", [1.0, 640.0])
def test_boxes_are_sent_to_the_loss_of_boxes(unit):
    boxes = unit * torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.3, 0.3, 0.9, 0.7]])
    with pytest.raises(ValueError, match=r"read as boxes.*there is BoxIoULoss"):
        IoULoss()(boxes + 0.01 * unit, boxes)
    soft = torch.tensor([[0.1, 0.2, 0.3, 0.4]])  # four classes are no box
    assert IoULoss()(torch.tensor([[0.0, 0.1, 0.2, 0.3]]), soft).isfinite()
    several = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.5, 0.6]])  # one row alone is more
    assert IoULoss()(several / 2, several).isfinite()
    assert IoULoss()(boxes, torch.tensor([0, 3])).isfinite()
