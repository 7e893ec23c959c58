"""The hardest positions: ties share, ignored ones are not counted, and nothing hangs on a sort."""

import inspect

import pytest
import torch
from torch.nn import functional as F

from aptt.loss import TopKCrossEntropyLoss, cross_entropy, top_k_cross_entropy_loss

P = torch.tensor([0.8, 0.6, 0.8, 0.6], dtype=torch.float64)  # of the right class


def _logits(p):
    return torch.stack((p, 1 - p), 1).log()


def _random(*shape, seed=0):
    return 2 * torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def _classes(*shape, seed=1, classes=3):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def top_k(p, **options):
    target = torch.zeros(len(p), dtype=torch.long)
    return top_k_cross_entropy_loss(_logits(p), target, **options).item()


def test_by_hand():
    assert top_k(P, fraction=0.5) == pytest.approx(0.510826, abs=1e-6)
    assert top_k(P, fraction=0.75) == pytest.approx(0.414932, abs=1e-6)
    assert top_k(P, fraction=1.0) == pytest.approx(-P.log().mean().item())
    assert top_k(P, fraction=0.0) == pytest.approx(0.510826, abs=1e-6)


def test_ties_share_what_is_left_whatever_their_order():
    logits = _logits(P).requires_grad_()
    target = torch.zeros(4, dtype=torch.long)
    loss = top_k_cross_entropy_loss(logits, target, fraction=0.75)
    (slope,) = torch.autograd.grad(loss, logits)
    assert slope[1, 0] == slope[3, 0]
    assert slope[0, 0] == slope[2, 0] != 0
    all_alike = top_k_cross_entropy_loss(torch.zeros(4, 2), target, fraction=0.5, reduction="none")
    torch.testing.assert_close(all_alike, torch.full((4,), 0.5 * torch.tensor(2.0).log().item()))


def test_it_is_the_mean_of_the_k_largest():
    logits, target = _random(2, 3, 7, 7), _classes(2, 7, 7)
    losses = F.cross_entropy(logits, target, reduction="none")
    want = losses.flatten().topk(10).values.mean()
    torch.testing.assert_close(top_k_cross_entropy_loss(logits, target), want)
    each = losses.flatten(1).topk(5).values.mean()
    torch.testing.assert_close(top_k_cross_entropy_loss(logits, target, pool="sample"), each)


def test_what_is_ignored_is_not_counted_as_it_is_in_nnu_net():
    p = torch.cat((P, torch.full((16,), 0.01).double()))
    target = torch.zeros(20, dtype=torch.long)
    target[4:] = -100
    loss = top_k_cross_entropy_loss(_logits(p), target, fraction=0.5)
    assert loss.item() == pytest.approx(0.510826, abs=1e-6)
    none = top_k_cross_entropy_loss(_logits(p), torch.full_like(target, -100))
    assert none.item() == 0


def test_a_threshold_takes_all_below_it_and_a_fraction_is_the_least():
    p = torch.tensor([0.9, 0.6, 0.5, 0.2], dtype=torch.float64)
    assert top_k(p, threshold=0.7) == pytest.approx(-p[1:].log().mean().item())
    assert top_k(p, threshold=0.1, fraction=0.5) == pytest.approx(-p[2:].log().mean().item())
    alike = torch.full((4,), 0.6, dtype=torch.float64)  # of which mmsegmentation keeps none
    assert top_k(alike, threshold=0.6, fraction=0.5) == pytest.approx(-alike[0].log().item())


def test_more_than_there_are_is_all():
    assert top_k(P[:1], fraction=0.01) == pytest.approx(-P[0].log().item())


def test_weights_multiply_before_the_hardest_are_found():
    logits, target = _random(40, 3), _classes(40)
    by = torch.tensor([0.2, 5.0, 1.0]).double()
    losses = F.cross_entropy(logits, target, by, reduction="none")
    hard = losses.topk(4)
    want = hard.values.sum() / by[target[hard.indices]].sum()
    got = top_k_cross_entropy_loss(logits, target, class_weight=by)
    torch.testing.assert_close(got, want)


def test_indices_of_which_none_is_ignored_and_their_one_hot_targets_are_the_same():
    logits, target = _random(9, 5), torch.arange(9) % 5
    want = top_k_cross_entropy_loss(logits, target, fraction=0.4)
    found = top_k_cross_entropy_loss(logits, target, fraction=0.4, ignore_index=None)
    torch.testing.assert_close(found, want)
    soft = torch.nn.functional.one_hot(target, 5).double()
    torch.testing.assert_close(top_k_cross_entropy_loss(logits, soft, fraction=0.4), want)


def test_nan_is_not_lost_among_the_easy():
    logits = _random(10, 3)
    logits[3, 1] = torch.nan
    assert top_k_cross_entropy_loss(logits, _classes(10)).isnan()


def test_all_of_them_is_cross_entropy():
    logits, target = _random(2, 3, 5), _classes(2, 5)
    target[0, :2] = -100
    want = cross_entropy(logits, target, label_smoothing=0.1)
    got = top_k_cross_entropy_loss(logits, target, fraction=1.0, label_smoothing=0.1)
    torch.testing.assert_close(got, want)


def test_the_gradient_is_that_of_the_value():
    target = _classes(12)
    loss = TopKCrossEntropyLoss(fraction=0.4)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), _random(12, 3).requires_grad_())


def test_a_normalizer_hears_that_the_hardest_of_a_batch_are_not_those_of_its_parts(told):
    for pool in ("batch", "sample"):
        loss = TopKCrossEntropyLoss(pool=pool, reduction=told)
        loss(_random(4, 3), _classes(4))
    assert told.heard == [("top_k_cross_entropy", False), ("top_k_cross_entropy", True)]


def test_compiled_it_is_one_graph(same_when_compiled):
    same_when_compiled(
        top_k_cross_entropy_loss, _random(2, 3, 7, 8), _classes(2, 7, 8), threshold=0.2
    )


def test_it_has_all_options_of_cross_entropy():
    """What ``keep=`` in cross_entropy would give: weights that multiply first, and are counted."""
    logits, target = _random(4, 3, 7), _classes(4, 7)
    target[0, :3] = -100
    weight = torch.linspace(0, 2, 28, dtype=torch.float64).view(4, 7)
    options = {
        "sample_weight": weight,
        "label_smoothing": 0.1,
        "z_loss": 1e-2,
        "softcap": 5.0,
        "logit_adjustment": torch.tensor([0.5, 0.0, -1.0], dtype=torch.float64),
    }
    losses = cross_entropy(logits, target, reduction="none", **options).flatten()
    order = losses.argsort(descending=True)[:7]  # a quarter of the 25 that count, rounded up
    expected = losses[order].sum() / weight.flatten()[order].sum()
    found = top_k_cross_entropy_loss(logits, target, fraction=0.25, **options)
    torch.testing.assert_close(found, expected)
    del options["sample_weight"]
    module = TopKCrossEntropyLoss(fraction=0.25, **options)
    torch.testing.assert_close(module(logits, target, sample_weight=weight), expected)
    signature = inspect.signature(cross_entropy).parameters
    own = inspect.signature(top_k_cross_entropy_loss).parameters
    assert {"class_weight" if n == "weight" else n for n in signature} <= set(own)


def test_a_weight_of_0_removes_and_may_hold_what_it_likes():
    logits, target = _random(6, 3), _classes(6)
    weight = torch.ones(6).double()
    weight[2] = 0
    logits[2] = torch.nan
    logits.requires_grad_()
    loss = top_k_cross_entropy_loss(logits, target, fraction=0.4, sample_weight=weight)
    rest = torch.tensor([0, 1, 3, 4, 5])
    expected = top_k_cross_entropy_loss(logits.detach()[rest], target[rest], fraction=0.4)
    torch.testing.assert_close(loss, expected)
    (slope,) = torch.autograd.grad(loss, logits)
    assert (slope[2] == 0).all()
