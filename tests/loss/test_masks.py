"""Squared Dice, Matthews' correlation, Wasserstein Dice: values by hand, limits, peers."""

import pytest
import torch

from aptt.loss import DiceLoss, dice_loss, engine, mcc_loss, wasserstein_dice_loss

P = torch.tensor([[0.8, 0.6, 0.2, 0.4]], dtype=torch.float64).logit()
T = torch.tensor([[1, 1, 0, 0]])
FAR = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.5], [1.0, 0.5, 0.0]])


def _random(*shape, seed=0, scale=2.0):
    return scale * torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def _classes(*shape, seed=1, classes=3):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------- squared Dice


def test_squared_and_plain_by_hand():
    assert dice_loss(P, T, mode="binary").item() == pytest.approx(0.3)
    assert dice_loss(P, T, mode="binary", squared=True).item() == pytest.approx(0.125)
    smoothed = dice_loss(P, T, mode="binary", squared=True, smooth=0.4)
    assert smoothed.item() == pytest.approx(0.4 / 4.0)


def test_squared_is_the_product_form_of_v_net():
    logits, target = _random(2, 3, 4, 5), _classes(2, 4, 5)
    p = logits.softmax(1)
    t = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()
    sums = [(v).sum((0, 2, 3)) for v in (p * t, p.square(), t.square())]
    want = (1 - 2 * sums[0] / (sums[1] + sums[2])).mean()
    torch.testing.assert_close(dice_loss(logits, target, squared=True), want)


def test_squared_is_0_at_soft_targets_where_the_product_form_is_not():
    t = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    assert dice_loss(t.logit(), t, mode="binary", squared=True).item() == 0
    product = 1 - 2 * t.square().sum() / (2 * t.square().sum())
    assert product.item() == 0  # of p = t; but it is less elsewhere:
    sharper = torch.tensor([[0.9, 0.25]], dtype=torch.float64)
    assert dice_loss(sharper.logit(), t, mode="binary", squared=True).item() > 0


def test_squared_keeps_its_digits_near_0():
    logits = torch.tensor([[12.0, -12.0, 12.0]])
    got = dice_loss(logits, torch.tensor([[1, 0, 1]]), mode="binary", squared=True).item()
    miss = torch.sigmoid(torch.tensor(-12.0).double())
    want = 3 * miss**2 / (2 * (1 - miss) ** 2 + miss**2 + 2)
    assert got == pytest.approx(want.item(), rel=1e-5)


def test_squared_monai_agrees():
    monai = pytest.importorskip("monai.losses")
    logits, target = _random(2, 1, 4, 5), _classes(2, 4, 5, classes=2)
    theirs = monai.DiceLoss(sigmoid=True, squared_pred=True, smooth_nr=0, smooth_dr=0)
    want = theirs(logits, target.unsqueeze(1).double())
    got = dice_loss(logits, target, mode="binary", squared=True, pool="sample")
    torch.testing.assert_close(got, want)


def test_a_logarithm_of_squares_is_refused():
    with pytest.raises(ValueError, match="log: got True with squared=True"):
        DiceLoss(squared=True, log=True)


# ------------------------------------------------------------------------------------- MCC


def test_mcc_by_hand():
    assert mcc_loss(P, T, mode="binary").item() == pytest.approx(0.6)
    sure = 1e4 * (2 * T - 1).double()
    assert mcc_loss(sure, T, mode="binary").item() == 0
    assert mcc_loss(-sure, T, mode="binary").item() == 2
    assert mcc_loss(sure * 0, T, mode="binary").item() == pytest.approx(1)


def test_mcc_is_one_less_the_correlation():
    logits, target = _random(2, 3, 4, 5), _classes(2, 4, 5)
    p = logits.softmax(1).transpose(0, 1).flatten(1)
    t = torch.nn.functional.one_hot(target, 3).double().movedim(-1, 0).flatten(1)
    got = mcc_loss(logits, target, reduction="none")
    for c in range(3):
        i, size = (p[c] * t[c]).sum(), len(t[c])
        both = p[c].sum() * (size - p[c].sum()) * t[c].sum() * (size - t[c].sum())
        want = 1 - (size * i - p[c].sum() * t[c].sum()) / both.sqrt()
        torch.testing.assert_close(got[c], want)


def test_mcc_keeps_its_digits_near_0():
    logits = torch.tensor([[10.0, 10.0, -10.0, -10.0]])
    got = mcc_loss(logits, T, mode="binary").item()
    want = mcc_loss(logits.double(), T, mode="binary").item()
    assert want == pytest.approx(2 * torch.sigmoid(torch.tensor(-10.0)).item(), rel=1e-3)
    assert got == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_mcc_of_a_large_image_does_not_overflow(dtype):
    logits = torch.full((1, 512, 512), -4.0, dtype=dtype).requires_grad_()
    target = torch.zeros(1, 512, 512, dtype=torch.long)
    target[:, :64, :64] = 1
    loss = mcc_loss(logits, target, mode="binary")
    (slope,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(1, abs=1e-3)  # it says the same everywhere
    assert slope.isfinite().all()


@pytest.mark.parametrize("level", [-1e4, 1e4])
def test_mcc_of_a_class_that_is_nowhere_or_everywhere_is_1_with_a_finite_slope(level):
    logits = torch.full((1, 4), level).double().requires_grad_()
    loss = mcc_loss(logits, T, mode="binary")
    assert loss.item() == 1
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


@pytest.mark.parametrize("full", [0, 1])
def test_mcc_of_one_class_alone_has_a_policy_where_monai_has_no_gradient(full):
    logits = torch.full((1, 4), 3.0 - 6 * full).double().requires_grad_()
    target = torch.full((1, 4), full)
    assert mcc_loss(logits, target, mode="binary").item() == 0
    loss = mcc_loss(logits, target, mode="binary", absent="penalize")
    assert loss.item() == pytest.approx(torch.sigmoid(torch.tensor(3.0)).item())
    (slope,) = torch.autograd.grad(loss, logits)
    assert (slope.sign() == 1 - 2 * full).all()


# ----------------------------------------------------------------------------- Wasserstein


def test_wasserstein_by_hand():
    p = torch.tensor([[[0.7, 0.1], [0.2, 0.6], [0.1, 0.3]]], dtype=torch.float64)
    target = torch.tensor([[0, 1]])
    loss = wasserstein_dice_loss(p.log(), target, class_distance=FAR)
    assert loss.item() == pytest.approx(0.55 / 2.05)  # W = .3 and .25, TP = .75: 0.268293
    other = torch.tensor([[1, 0]])  # one sample does not meet another, as it did in MONAI
    both = wasserstein_dice_loss(
        torch.cat((p, p)).log(),
        torch.cat((target, other)),
        class_distance=FAR,
        pool="sample",
        reduction="none",
    )
    alone = wasserstein_dice_loss(p.log(), other, class_distance=FAR)
    torch.testing.assert_close(both, torch.stack((loss, alone)))


def test_wasserstein_with_all_classes_equally_far_counts_what_is_wrong():
    logits, target = _random(2, 3, 4, 5), _classes(2, 4, 5)
    even = 1 - torch.eye(3)
    miss = 1 - logits.softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    hit = ((1 - miss) * (target > 0)).sum()
    want = miss.sum() / (2 * hit + miss.sum())
    torch.testing.assert_close(wasserstein_dice_loss(logits, target, class_distance=even), want)


def test_wasserstein_monai_agrees():
    monai = pytest.importorskip("monai.losses")
    logits, target = _random(3, 3, 4, 5), _classes(3, 4, 5)
    theirs = monai.GeneralizedWassersteinDiceLoss(
        dist_matrix=FAR.numpy(), weighting_mode="default", smooth_nr=0, smooth_dr=0
    )
    want = theirs(logits.float(), target.unsqueeze(1)).double()
    got = wasserstein_dice_loss(logits, target, class_distance=FAR, pool="sample")
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)


# --------------------------------------------------------------------------------- the step

LOSSES = [
    (dice_loss, {"squared": True}),
    (mcc_loss, {}),
    (wasserstein_dice_loss, {"class_distance": FAR.double()}),
]


@pytest.mark.parametrize(("loss", "options"), LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_step_is_the_gradient(loss, options, weighted):
    x, target = _random(2, 3, 4, 5).requires_grad_(), _classes(2, 4, 5)
    weight = _random(2, 4, 5, seed=3).relu() if weighted else None
    options = options | {"weight": weight, "pool": "sample", "reduction": "none"}
    with engine("plain"):
        want = loss(x, target, **options)
    got = loss(x, target, **options)
    up = _random(*want.shape, seed=9)
    slopes = [torch.autograd.grad(value, x, up)[0] for value in (got, want)]
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-13)


def test_wasserstein_without_distances_has_all_classes_equally_far():
    logits, target = _random(2, 3, 4), _classes(2, 4)
    even = wasserstein_dice_loss(logits, target, class_distance=1 - torch.eye(3))
    assert wasserstein_dice_loss(logits, target) == even


# --------------------------------------------------------------------------------- compiled


@pytest.mark.parametrize(("loss", "options"), LOSSES)
def test_compiled_it_is_one_graph(loss, options, same_when_compiled):
    same_when_compiled(loss, _random(2, 3, 4, 5), _classes(2, 4, 5), **options)
