"""The count table, and the one seam through which every average goes."""

import pytest
import torch

from aptt.core.reduction import check_reduction, count_of, normalize
from aptt.loss import (
    binary_cross_entropy,
    cross_entropy,
    dice_loss,
    focal_loss,
    giou_loss,
    rmse_loss,
)

LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 3.0], [0.0, 0.0, 0.0]])
INDICES = torch.tensor([0, 1, 2, -100])
SOFT = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6], [0.0, 0.0, 0.5]])
BITS = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 9]])
PER_CLASS = torch.tensor([2.0, 3.0, 5.0])
WEIGHT = torch.tensor([1.0, 0.0, 0.5, 2.0])
BOXES = torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 2], [1, 1, 3, 3], [0, 0, 1, 2]])


class Seen:
    """A normalizer that notes what it is handed."""

    def __call__(self, total, count, *, term):
        self.total, self.count, self.term = total.item(), count.item(), term
        return total / count


COUNTS = [
    ("indices: those not ignored", 3, "cross_entropy", cross_entropy, (LOGITS, INDICES), {}),
    (
        "indices: the weights of the classes that took part",
        2 + 3 + 5,
        "cross_entropy",
        cross_entropy,
        (LOGITS, INDICES),
        {"weight": PER_CLASS},
    ),
    (
        "indices: times the weight of the sample",
        2 * 1 + 5 * 0.5,
        "cross_entropy",
        cross_entropy,
        (LOGITS, INDICES),
        {"weight": PER_CLASS, "sample_weight": WEIGHT},
    ),
    ("soft: their mass", 3.5, "cross_entropy", cross_entropy, (LOGITS, SOFT), {}),
    (
        "soft: their mass, weighted by class",
        2 * 1.7 + 3 * 0.7 + 5 * 1.1,
        "cross_entropy",
        cross_entropy,
        (LOGITS, SOFT),
        {"weight": PER_CLASS},
    ),
    (
        "elements: those not ignored",
        11,
        "binary_cross_entropy",
        binary_cross_entropy,
        (LOGITS, BITS),
        {"ignore_index": 9},
    ),
    (
        "pos_weight is not counted",
        9,
        "binary_cross_entropy",
        binary_cross_entropy,
        (LOGITS[:3], BITS[:3]),
        {"pos_weight": PER_CLASS},
    ),
    (
        "alpha is not counted",
        9,
        "focal",
        focal_loss,
        (LOGITS[:3], BITS[:3]),
        {"alpha": PER_CLASS / 10},
    ),
    (
        "positives, where asked for",
        3,
        "focal",
        focal_loss,
        (LOGITS[:3], BITS[:3]),
        {"normalize": "positives"},
    ),
    ("boxes", 4, "giou", giou_loss, (BOXES, BOXES + 1), {}),
    ("boxes: their weights", 3.5, "giou", giou_loss, (BOXES, BOXES + 1), {"weight": WEIGHT}),
    (
        "regions: the classes that are there",
        2,
        "dice",
        dice_loss,
        (LOGITS.T[None], torch.tensor([[0, 2, 0, -100]])),
        {},
    ),
    ("a root over the batch", 1, "rmse", rmse_loss, (LOGITS, SOFT), {}),
    (
        "roots: the samples that have a weight",
        3,
        "rmse",
        rmse_loss,
        (LOGITS, SOFT),
        {"pool": "sample", "weight": WEIGHT[:, None].expand(4, 3)},
    ),
]


@pytest.mark.parametrize(
    ("want", "term", "loss", "inputs", "options"),
    [pytest.param(*row, id=about) for about, *row in COUNTS],
)
def test_what_takes_part_in_the_count(want, term, loss, inputs, options):
    seen = Seen()
    value = loss(*inputs, **options, reduction=seen)
    assert seen.count == pytest.approx(want, rel=1e-6)
    assert seen.term == term
    assert seen.total == pytest.approx(loss(*inputs, **options, reduction="sum").item(), rel=1e-6)
    assert value.item() == pytest.approx(loss(*inputs, **options).item(), rel=1e-6)


def test_what_a_normalizer_returns_is_the_loss():
    def tenth(total, count, *, term):
        return total / 10

    value = cross_entropy(LOGITS, INDICES, reduction=tenth)
    total = cross_entropy(LOGITS, INDICES, reduction="sum")
    assert value.item() == pytest.approx(total.item() / 10)


def test_the_mean_of_nothing_is_the_total_which_is_an_attached_zero():
    total = (torch.ones(3, requires_grad=True) * 0).sum()
    mean = normalize(total, torch.tensor(0), "mean", term="any")
    assert mean.item() == 0
    assert mean.requires_grad


def test_all_in_classes_of_weight_zero_is_nothing_where_torch_has_nan():
    weight, target = torch.tensor([0.0, 1.0, 1.0]), torch.zeros(4, dtype=torch.int64)
    x = LOGITS.clone().requires_grad_()
    value = cross_entropy(x, target, weight=weight)
    value.backward()
    assert value.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))
    assert torch.nn.functional.cross_entropy(LOGITS, target, weight=weight).isnan()


def test_half_weights_are_counted_in_single_precision():
    ones = torch.ones(1000, dtype=torch.bfloat16)
    third = torch.full((1000,), 1 / 3, dtype=torch.bfloat16)
    assert count_of(ones, ones).item() == 1000
    assert count_of(third, third).item() == pytest.approx(third.double().sum().item(), rel=1e-6)
    assert count_of(torch.ones(2, 3), None) == 6


@pytest.mark.parametrize("reduction", ["average", "", None, 1, "Mean"])
def test_an_unknown_reduction_is_refused_with_those_that_are_known(reduction):
    with pytest.raises(ValueError, match=r"reduction: got .*, wanted 'mean', 'sum', 'none' or"):
        check_reduction(reduction)


def test_none_can_be_refused():
    check_reduction("none")
    with pytest.raises(ValueError, match=r"reduction: got .*, wanted 'mean', 'sum' or a callable"):
        check_reduction("none", none=False)
