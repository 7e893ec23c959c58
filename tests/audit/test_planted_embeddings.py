"""Bugs of contrastive losses as the field has them: each promise catches its own.

Each is written on the whole matrix, as it is found elsewhere; without its bug it keeps the promise.
"""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from aptt.audit import PROMISES, SPECS, case
from aptt.core.vectors import length, unit


def _mean(values, weight, found, reduction):
    weight = found.to(values.dtype) if weight is None else torch.where(found, weight, 0.0)
    values = torch.where(weight != 0, values, 0.0) * weight
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    if callable(reduction):
        return reduction(values.sum(), weight.sum(), term="planted")
    return values.sum() / weight.sum().clamp(min=1e-30)


def supcon(bug=""):
    """Supervised contrastive loss, whose samples of weight 0 are to be no one's pairs."""

    def loss(embeddings, target, *, weight=None, reduction="mean"):
        x = embeddings.float() if embeddings.dtype.itemsize == 2 else embeddings
        there = torch.ones(len(x), dtype=torch.bool) if weight is None else weight != 0
        if bug == "masked by a product":
            x = x * there.to(x.dtype)[:, None]
        else:
            x = x.masked_fill(~there[:, None], 0.0)
        if bug == "an epsilon in the length":
            x = F.normalize(x, eps=1e-8)
        elif bug == "a length of nothing":
            x = x / x.norm(dim=1, keepdim=True)
        else:
            x = unit(x)
        s = (100 * x @ x.T).masked_fill(~there, -torch.inf)
        s = s.masked_fill(torch.eye(len(x), dtype=torch.bool), -torch.inf)
        alike = (target[:, None] == target) & there & ~torch.eye(len(x), dtype=torch.bool)
        found = alike.any(1) & there
        log_p = s.masked_fill(~found[:, None], 0.0).log_softmax(1)
        if bug == "a logarithm and a tiny number":
            log_p = (log_p.exp() + torch.finfo(x.dtype).tiny).log()
        values = -torch.where(alike, log_p, 0.0).sum(1) / alike.sum(1).clamp(min=1)
        if bug == "all samples are counted":
            found = there
        return _mean(values, weight, found, reduction)

    return loss


def triplet(bug=""):
    """The farthest positive against the nearest negative."""

    def loss(embeddings, target, *, weight=None, reduction="mean"):
        x = embeddings.float() if embeddings.dtype.itemsize == 2 else embeddings
        apart = x[:, None] - x
        d = apart.square().sum(2).sqrt() if bug == "a root at 0" else length(apart)
        same = target[:, None] == target
        other = ~torch.eye(len(x), dtype=torch.bool)
        found = (same & other).any(1) & (~same).any(1)
        gap = d.masked_fill(~(same & other), -1e30).amax(1) - d.masked_fill(same, 1e30).amin(1)
        values = torch.where(found, F.softplus(gap), 0.0)
        return _mean(values, weight, found, reduction)

    return loss


_SAMPLES = replace(SPECS["supcon_loss"], module=None, cases={"plain": case()}, neutral={})
_TRIPLES = replace(SPECS["triplet_loss"], module=None, cases={"plain": case()}, neutral={})
PLANTED = [
    (supcon, _SAMPLES, "masked by a product", "TRL's padding", "ignoring_is_removing"),
    (supcon, _SAMPLES, "a length of nothing", "by hand", "finite_at_extremes"),
    (supcon, _SAMPLES, "an epsilon in the length", "torch cosine_similarity", "scale_invariance"),
    (supcon, _SAMPLES, "all samples are counted", "SupContrast 142", "counts_what_it_says"),
    (
        supcon,
        _SAMPLES,
        "a logarithm and a tiny number",
        "PML NTXentLoss",
        "hopeless_keeps_a_gradient",
    ),
    (triplet, _TRIPLES, "a root at 0", "PML 107", "gradient_is_right"),
]


@pytest.mark.parametrize(("made", "row", "bug", "whose", "promise"), PLANTED)
def test_the_audit_catches_it(made, row, bug, whose, promise):
    PROMISES[promise](replace(row, function=made()))
    with pytest.raises(AssertionError):
        PROMISES[promise](replace(row, function=made(bug)))
