"""Region losses of data that is labelled in part, and compounds with the generalised Dice."""

import math
import re

import pytest
import torch
from torch.testing import assert_close

from aptt.loss import (
    cl_dice_loss,
    cross_entropy,
    dice_ce_loss,
    dice_ce_terms,
    dice_focal_loss,
    dice_focal_terms,
    dice_loss,
    generalized_dice_loss,
    lovasz_loss,
    mcc_loss,
    merge_unlabelled,
)

SHARES = torch.tensor([[0.5, 0.3, 0.2]]).double()


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_what_has_no_label_may_be_background():
    # softmax (.5, .3, .2) without labels of class 2; Shi et al. 2021
    logits = SHARES.log().requires_grad_()
    merged = merge_unlabelled(logits, [[True, True, False]])
    assert_close(merged.softmax(1), torch.tensor([[0.7, 0.3, 0.0]]).double())
    loss = cross_entropy(merged, torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(0.7))
    posterior = torch.tensor([[5 / 7, 0, 2 / 7]]).double()
    assert_close(logits.grad, SHARES - posterior)


def test_each_sample_has_the_classes_that_were_labelled_in_it():
    logits = torch.randn(2, 4, 5, generator=_seeded(1)).double()
    annotated = torch.tensor([[True, True, True, True], [False, False, True, False]])
    p, merged = logits.softmax(1), merge_unlabelled(logits, annotated)
    assert_close(merged[0], logits[0])
    wanted = torch.stack((1 - p[1, 2], 0 * p[1, 1], p[1, 2], 0 * p[1, 3]))
    assert_close(merged.softmax(1)[1], wanted)
    assert_close(merge_unlabelled(logits, annotated[1])[1], merged[1])
    assert_close(merge_unlabelled(logits.mT, annotated, class_dim=-1), merged.mT)
    target = torch.where(annotated[:, :, None], p, 0).argmax(1)
    for loss in (dice_loss, dice_ce_loss, lovasz_loss):
        x = logits.clone().requires_grad_()
        loss(merge_unlabelled(x, annotated), target).backward()
        assert x.grad.isfinite().all()
        assert x.grad[1, [1, 3]].any()


@pytest.mark.parametrize(
    ("annotated", "class_dim", "error", "words"),
    [
        ([[1, 1, 0]], 1, TypeError, "annotated: got torch.int64, wanted bool"),
        ([[True, False]], 1, ValueError, "annotated: "),
        ([[True, True, False]], 0, ValueError, "class_dim: got 0"),
        ([[True, True, False]], 2, ValueError, "class_dim: got 2"),
    ],
)
def test_what_cannot_be_merged_is_named(annotated, class_dim, error, words):
    with pytest.raises(error, match=re.escape(words)):
        merge_unlabelled(SHARES, annotated, class_dim=class_dim)


@pytest.mark.parametrize(
    "loss_fn", [dice_loss, dice_ce_loss, dice_focal_loss, lovasz_loss, mcc_loss, cl_dice_loss]
)
def test_a_label_that_weighs_nothing_is_as_if_removed(loss_fn):
    logits = torch.randn(2, 3, 4, 5, generator=_seeded(2)).double()
    target = (torch.rand(2, 3, 4, 5, generator=_seeded(3)) > 0.5).double()
    weight = torch.ones(2, 3, 1, 1)
    weight[:, 2] = 0
    logits[:, 2], target[:, 2] = torch.nan, torch.nan
    got = loss_fn(logits, target, mode="multilabel", weight=weight)
    assert_close(got, loss_fn(logits[:, :2], target[:, :2], mode="multilabel"))
    again = loss_fn(logits, target, mode="multilabel", weight=weight.expand(logits.shape))
    assert_close(got, again)
    with pytest.raises(ValueError, match="weight: "):
        loss_fn(logits[:, :2], target[:, :2], mode="multilabel", weight=weight)


@pytest.mark.parametrize("weighting", ["square", "linear", "uniform"])
@pytest.mark.parametrize("terms", [dice_ce_terms, dice_focal_terms])
def test_the_dice_of_a_compound_may_be_the_generalised_one(terms, weighting):
    logits = torch.randn(2, 3, 7, generator=_seeded(4)).double()
    target = torch.randint(3, (2, 7), generator=_seeded(5))
    options = {"pool": "sample", "absent": "penalize", "background": False}
    got = terms(logits, target, weighting=weighting, **options)
    wanted = generalized_dice_loss(logits, target, weighting=weighting, **options)
    assert_close(got.pop("dice"), wanted)
    plain = terms(logits, target, **options)
    plain.pop("dice")
    assert_close(got, plain)
    with pytest.raises(ValueError, match=re.escape("smooth: got 1.0 with")):
        terms(logits, target, weighting=weighting, smooth=1.0)


def test_what_is_ignored_or_masked_has_no_part_in_what_is_merged():
    logits = torch.randn(1, 3, 4, generator=_seeded(6)).double()
    logits[0, :, 3] = torch.nan
    logits.requires_grad_()
    target = torch.tensor([[0, 1, 0, -100]])
    cross_entropy(merge_unlabelled(logits, [True, True, False]), target).backward()
    seen = logits.detach()[..., :3].requires_grad_()
    cross_entropy(
        merge_unlabelled(seen, [True, True, False]), target[:, :3], class_dim=1
    ).backward()
    assert_close(logits.grad[..., :3], seen.grad)
    assert not logits.grad[..., 3].any()


def test_a_background_that_is_masked_stays_so():
    logits = torch.tensor([[-torch.inf, 1.0, 2.0]]).double().requires_grad_()
    cross_entropy(merge_unlabelled(logits, [True, True, True]), torch.tensor([1])).backward()
    p = torch.sigmoid(torch.tensor(1.0).double())  # of class 2
    assert_close(logits.grad, torch.stack((0 * p, -p, p)).unsqueeze(0))
