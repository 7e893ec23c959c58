"""Varifocal and quality focal: slow formulas, closed forms, and where the field's versions fail."""

import math

import pytest
import torch
from torch.nn import functional as F

from aptt.audit.ways import in_blocks, in_one, plainly
from aptt.loss import QualityFocalLoss, VariFocalLoss, quality_focal_loss, varifocal_loss
from aptt.loss.varifocal.quality_focal import QUALITY_FOCAL
from aptt.loss.varifocal.varifocal import VARIFOCAL


def _scores(n=200, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, generator=g, dtype=torch.float64)
    quality = torch.rand(n, generator=g, dtype=torch.float64)
    there = torch.rand(n, generator=g) < 0.3
    return logits.to(dtype), torch.where(there, quality, 0.0).to(dtype)


def _gradient(loss_fn, x):
    x = x.clone().requires_grad_()
    loss_fn(x).sum().backward()
    return x.grad


def _one_by_one(logits, target, cost):
    return torch.tensor(
        [
            cost(1 / (1 + math.exp(-x)), q)
            for x, q in zip(logits.tolist(), target.tolist(), strict=True)
        ],
        dtype=torch.float64,
    )


def _nll(p, q):
    return -(q * math.log(p) + (1 - q) * math.log(1 - p))


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (1.0, 0.5), (0.5, 0.0)])
def test_varifocal_by_its_formula(way, alpha, gamma):
    logits, target = _scores()

    def cost(p, q):
        return q * _nll(p, q) if q > 0 else -alpha * p**gamma * math.log(1 - p)

    expected = _one_by_one(logits, target, cost)
    with way():
        found = varifocal_loss(logits, target, alpha=alpha, gamma=gamma, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 2.5])
def test_quality_focal_by_its_formula(way, beta):
    # GFocal's first code has no absolute value: NaN for a power such as 2.5
    logits, target = _scores()
    expected = _one_by_one(logits, target, lambda p, q: abs(q - p) ** beta * _nll(p, q))
    with way():
        found = quality_focal_loss(logits, target, beta=beta, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "loss_fn",
    [
        varifocal_loss,
        lambda x, t, **o: varifocal_loss(x, t, detach_factor=True, **o),
        lambda x, t, **o: varifocal_loss(x, t, gamma=0.5, alpha=0.3, **o),
        quality_focal_loss,
        lambda x, t, **o: quality_focal_loss(x, t, beta=1.0, **o),
        lambda x, t, **o: quality_focal_loss(x, t, beta=3.5, **o),
    ],
)
def test_slopes_by_hand_are_those_of_autograd(loss_fn):
    logits, target = _scores(500)
    logits[:8] = torch.tensor([0.0, -0.0, 300.0, -300.0, 40.0, -40.0, 15.0, -15.0])
    up = torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with plainly():
        expected = _gradient(lambda x: loss_fn(x, target, reduction="none") * up, logits)
        total = _gradient(lambda x: 0.3 * loss_fn(x, target, weight=up.abs()), logits)
    with in_blocks(64):
        found = _gradient(lambda x: loss_fn(x, target, reduction="none") * up, logits)
        taken = _gradient(lambda x: 0.3 * loss_fn(x, target, weight=up.abs()), logits)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(taken, total, rtol=1e-10, atol=1e-15)


def test_soft_labels_have_their_minimum_at_the_label():
    # yolov5's focal of soft labels has it elsewhere
    p = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    target = torch.full_like(p, 0.3)
    for loss_fn in (varifocal_loss, quality_focal_loss):
        assert p[loss_fn(p.logit(), target, reduction="none").argmin()].item() == pytest.approx(0.3)


def test_a_positive_of_quality_0_is_no_negative_where_the_mask_says_so():
    # mmdetection and VarifocalNet: the sign of the target decides, and it becomes a negative
    logits, target = torch.tensor([2.0, 2.0]), torch.tensor([0.0, 0.0])
    positive = torch.tensor([True, False])
    negative = 0.75 * torch.sigmoid(logits[1]) ** 2 * F.softplus(logits[1])
    found = varifocal_loss(logits, target, positive=positive, reduction="none")
    assert found[0] == 0
    torch.testing.assert_close(found[1], negative)
    both = varifocal_loss(logits, target, reduction="none")
    torch.testing.assert_close(both, negative.expand(2))


@pytest.mark.parametrize(("detach_factor", "expected"), [(False, 0.576), (True, 0.293)])
def test_whether_the_share_has_a_slope_is_said(detach_factor, expected):
    # VarifocalNet lets it flow, RT-DETR and D-FINE do not: twice the gradient at a logit of 1
    gradient = _gradient(
        lambda x: varifocal_loss(x, torch.zeros(1), detach_factor=detach_factor),
        torch.tensor([1.0]),
    )
    assert gradient.item() == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("loss_fn", [varifocal_loss, quality_focal_loss])
def test_infinitely_sure_and_right_costs_nothing(loss_fn, way):
    # 0 * inf elsewhere: a class masked by -inf makes the loss NaN
    logits = torch.tensor([-math.inf, math.inf, 1.0], dtype=torch.float64)
    target = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    with way():
        found = loss_fn(logits, target, reduction="none")
        slopes = _gradient(lambda x: loss_fn(x, target, reduction="none"), logits)
    assert found[:2].tolist() == [0, 0]
    assert slopes[:2].tolist() == [0, 0]
    torch.testing.assert_close(found[2], loss_fn(logits[2], target[2]))
    assert slopes[2] > 0


def test_what_the_mean_counts():
    logits, target = _scores()
    weight = torch.linspace(0, 2, 200, dtype=torch.float64)
    hits = (target > 0).double()
    for loss_fn in (varifocal_loss, quality_focal_loss):
        total = loss_fn(logits, target, weight=weight, reduction="sum")
        for normalize, count in (("elements", weight), ("positives", hits), ("quality", target)):
            count = count.sum() if normalize == "elements" else (count * weight).sum()
            found = loss_fn(logits, target, weight=weight, normalize=normalize)
            torch.testing.assert_close(found, total / count)


@pytest.mark.parametrize("normalize", ["positives", "quality"])
@pytest.mark.parametrize("module", [VariFocalLoss, QualityFocalLoss])
def test_background_alone_is_penalised_and_nothing_is_zero(module, normalize):
    # mmdetection, VarifocalNet: NaN for no element at all
    loss_fn = module(normalize=normalize)
    logits = torch.zeros(5, requires_grad=True)
    loss = loss_fn(logits, torch.zeros(5))
    torch.testing.assert_close(loss, module(reduction="sum")(logits, torch.zeros(5)))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient > 0).all()
    empty = torch.zeros(0, 3, requires_grad=True)
    assert loss_fn(empty, torch.zeros(0, 3)) == 0
    loss_fn(empty, torch.zeros(0, 3)).backward()
    assert empty.grad.shape == (0, 3)


@pytest.mark.parametrize("logit", [-6e4, -200.0, 200.0, 6e4])
@pytest.mark.parametrize("loss_fn", [varifocal_loss, quality_focal_loss])
def test_a_confident_mistake_costs_its_logit_and_keeps_its_slope(loss_fn, logit):
    target = torch.tensor([1.0 if logit < 0 else 0.0])
    share = 0.75 if loss_fn is varifocal_loss and logit > 0 else 1
    logits = torch.tensor([logit])
    assert loss_fn(logits, target).item() == pytest.approx(share * abs(logit))
    slope = _gradient(lambda x: loss_fn(x, target), logits).item()
    assert slope == pytest.approx(math.copysign(share, logit))


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (torch.full((3,), 1.5), {}, "target.*1.5"),
        (torch.tensor([0.5, 0, 0]), {"positive": torch.tensor([False, True, True])}, "positive"),
        (torch.zeros(3), {"positive": torch.ones(1, dtype=torch.bool)}, "positive"),
        (torch.zeros(3), {"normalize": "boxes"}, "normalize.*'boxes'"),
        (torch.zeros(1), {}, "target"),
    ],
)
def test_wrong_calls_are_told_apart(target, options, words):
    with pytest.raises(ValueError, match=words):
        varifocal_loss(torch.zeros(3), target, **options)


@pytest.mark.parametrize("detach_factor", [False, True])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (1.5, 0.5), (0.0, 0.0), (0.5, 3.0)])
@pytest.mark.parametrize("marked", [False, True])
def test_the_varifocal_step_is_autograd_of_the_definition(
    marked, alpha, gamma, detach_factor, same_as_autograd
):
    x, q = _scores()
    x[:9] = torch.tensor([0.0, -0.0, 300.0, -300.0, 40.0, -40.0, 15.0, -15.0, 1e-3])
    q[:9] = torch.tensor([0.0, 0.5, 1.0, 0.0, 1.0, 1.0, 0.3, 0.7, 0.0])
    positive = (q > 0) | (torch.arange(200) % 7 == 0) if marked else None
    same_as_autograd(
        VARIFOCAL, x, q, positive, alpha=alpha, gamma=gamma, detach_factor=detach_factor
    )


@pytest.mark.parametrize("beta", [0.0, 1.0, 1.5, 2.0, 3.5])
def test_the_quality_step_is_autograd_of_the_definition(beta, same_as_autograd):
    x, q = _scores()
    x[:9] = torch.tensor([0.0, -0.0, 300.0, -300.0, 40.0, -40.0, 15.0, -15.0, 1e-3])
    q[:9] = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.3, 0.7, 0.25])
    same_as_autograd(QUALITY_FOCAL, x, q, beta=beta)


@pytest.mark.parametrize("n", [1, 17])
def test_they_compile_to_one_graph(n, same_when_compiled):
    x, q = _scores(n)
    weight = torch.linspace(0, 2, n, dtype=torch.float64)
    for options in ({}, {"weight": weight, "normalize": "quality"}, {"reduction": "none"}):
        same_when_compiled(varifocal_loss, x, q, **options)
        same_when_compiled(quality_focal_loss, x, q, **options)
    same_when_compiled(varifocal_loss, x, q, positive=q > 0, gamma=0.5, detach_factor=True)


@pytest.mark.parametrize("loss_fn", [varifocal_loss, quality_focal_loss])
def test_what_is_nearly_right_is_exact_in_float32(loss_fn):
    # p - q of a confident answer is no difference of numbers near 1
    x, q = torch.tensor([12.0, 25.0, -12.0, -25.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    results = []
    for dtype in (torch.float32, torch.float64):
        leaf = x.to(dtype).requires_grad_()
        value = loss_fn(leaf, q.to(dtype), reduction="none")
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        results.append((value.detach().double(), gradient.double()))
    torch.testing.assert_close(*results, rtol=1e-6, atol=0)


def test_a_held_share_still_teaches_the_target():
    # detach_factor holds p**gamma, not the quality that a positive weighs
    x = torch.tensor([0.3], dtype=torch.float64)
    q = torch.tensor([0.6], dtype=torch.float64, requires_grad=True)
    varifocal_loss(x, q, detach_factor=True).backward()
    nll = F.softplus(x) - 0.6 * x
    torch.testing.assert_close(q.grad, nll - 0.6 * x)


def test_a_half_target_takes_its_two_gradients_rounded_once():
    x = torch.full((2,), -6e4)
    t = torch.tensor([0.0, 1.0], dtype=torch.float16, requires_grad=True)
    (2 * varifocal_loss(x, t, normalize="quality", detach_factor=False)).backward()
    wide = t.detach().double().requires_grad_()
    (2 * varifocal_loss(x.double(), wide, normalize="quality", detach_factor=False)).backward()
    assert torch.equal(t.grad, wide.grad.half())


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 1, 3)])
def test_a_mask_of_positives_is_laid_out_as_the_logits(shape):
    x, t = torch.zeros(shape), torch.full(shape, 0.5)
    whole = torch.ones(shape, dtype=torch.bool)
    assert varifocal_loss(x, t, positive=whole) == varifocal_loss(x, t)
