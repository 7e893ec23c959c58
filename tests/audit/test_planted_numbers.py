"""Bugs of others, planted in losses of numbers, of errors and of features: the audit finds each."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from aptt.audit import PROMISES, SPECS
from aptt.audit.specs.adversaries import _cut
from aptt.core.reduction import normalize


def _reduced(values, weight, count, reduction, term):
    values = values if weight is None else values * weight
    return values if reduction == "none" else normalize(values.sum(), count, reduction, term=term)


def broadcasts(prediction, target, *, weight=None, reduction="mean"):
    """torch: a column against a row is a warning, and a matrix of differences."""
    values = (prediction.float() - target).abs()
    return _reduced(values, weight, values.numel(), reduction, "l1")


def counts_all(prediction, target, *, weight=None, delta=1.0, reduction="mean"):
    """torch: ``huber_loss(weight=)`` divides by the number of elements."""
    values = F.huber_loss(prediction, target.to(prediction), delta=delta, reduction="none")
    return _reduced(values, weight, values.numel(), reduction, "huber")


def keeps_what_is_removed(prediction, target, *, weight=None, reduction="mean"):
    """torch: NaN under a weight of 0 stays NaN."""
    values = (prediction - target.to(prediction)).square()
    count = values.numel() if weight is None else weight.sum()
    return _reduced(values, weight, count, reduction, "mse")


def adds_an_epsilon(
    estimate, target, *, lengths=None, pre_emphasis=0.0, silent="level", reduction="mean"
):
    """auraloss: 1e-8 beside the energy, so that what is quiet costs less."""
    values = (estimate - target).square().sum(-1) / (target.square().sum(-1) + 1e-8)
    return _reduced(values, None, values.numel(), reduction, "esr")


def overflows(prediction, target, *, weight=None, reduction="mean"):
    """auraloss, torchmetrics: the cosine of 100 is infinite."""
    values = (prediction - target.to(prediction)).cosh().log()
    count = values.numel() if weight is None else weight.sum()
    return _reduced(values, weight, count, reduction, "log_cosh")


def cut_by_zip(
    fake, real, *, weight=None, relative=False, last=True, detach_real=True, over="sum",
    reduction="mean",
):  # fmt: skip
    """HiFi-GAN, DAC: ``zip`` ends with the shorter list."""
    total = 0
    for d, (layers, others) in enumerate(zip(_cut(fake), _cut(real)[:1])):  # noqa: B905 # the bug
        for k, (f, r) in enumerate(zip(layers, others)):  # noqa: B905
            values = (f - r).abs()
            total += normalize(values.sum(), values.numel(), reduction, term=f"features_{d}_{k}")
    return total


PLANTED = [
    ("l1_loss", broadcasts, "bad_input_is_refused"),
    ("huber_loss", counts_all, "counts_what_it_says"),
    ("mse_loss", keeps_what_is_removed, "ignoring_is_removing"),
    ("esr_loss", adds_an_epsilon, "scale_invariance"),
    ("log_cosh_loss", overflows, "finite_at_extremes"),
    ("feature_matching_loss", cut_by_zip, "counts_what_it_says"),
]


@pytest.mark.parametrize(("row", "bug", "promise"), PLANTED)
def test_the_audit_catches(row, bug, promise):
    spec = SPECS[row]
    first = dict(list(spec.cases.items())[:2])
    with pytest.raises(AssertionError):
        PROMISES[promise](replace(spec, function=bug, cases=first))
    if promise != "bad_input_is_refused":  # and nothing of the loss as it is
        PROMISES[promise](replace(spec, cases=first))


def test_the_small_losses_are_right_where_their_bug_is_not():
    x, t = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.5])
    for row, bug, _ in PLANTED[:3]:
        torch.testing.assert_close(bug(x, t), SPECS[row].function(x, t))
