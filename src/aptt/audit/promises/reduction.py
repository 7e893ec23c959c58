"""Promises about what is summed, counted and left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aptt.audit.figures import about, exact, fed, finite, require, same
from aptt.audit.promise import promise
from aptt.audit.spec import Inputs, Trial

__all__ = [
    "counts_what_it_says",
    "ignoring_is_removing",
    "none_sums_to_sum",
    "nothing_left_is_zero",
    "samples_stand_alone",
    "size_changes_nothing",
    "split_invariance",
]

_LARGE = 2**15  # elements, more than what is small enough to be treated otherwise
_POISONS = (math.nan, math.inf, -math.inf)


@promise("hide")
def ignoring_is_removing(trial: Trial) -> None:
    """Ignored positions count for nothing, whatever they, their targets and weights hold: NaN too.

    Limits: of a joint statistic whole samples are ignored, of others positions here and there too.
    """
    inputs = trial.inputs()
    some = torch.rand(trial.many(inputs), generator=torch.Generator().manual_seed(1)) < 0.6
    index = some.nonzero().squeeze(1)
    axis = trial.case.axis
    by_target = (False, True) if trial.marks(inputs) else (False,)
    left = trial.take(inputs, index)
    wanted = {reduction: trial.gradient(left, reduction=reduction) for reduction in ("mean", "sum")}
    for poison, weights in itertools.product(_POISONS, by_target):
        hidden = trial.hidden(inputs, trial.samples(inputs, some), poison, weights=weights)
        too = ", weights too," if weights else ""
        for reduction, (want, want_grad) in wanted.items():
            with about(f"{reduction!r}, samples that hold {poison}{too} ignored"), fed(hidden):
                value, grad = trial.gradient(hidden, reduction=reduction)
                same(value, want, "value")
                there = grad.index_select(axis, index.to(grad.device))
                same(there, want_grad, "gradient of those left")
                gone = grad.index_select(axis, (~some).nonzero().squeeze(1).to(grad.device))
                exact(gone, 0.0, "gradient of those ignored")
    if not trial.spec.joint:
        _scattered(trial, inputs)


def _scattered(trial: Trial, inputs: Inputs) -> None:
    """Positions anywhere: the others keep their values, and their gradients."""
    shape = trial.positions(inputs)
    keep = torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.6
    keep = keep.to(trial.device)
    up = _random_like(trial.loss(inputs, reduction="none"))
    value, grad = trial.gradient(trial.hidden(inputs, keep, math.nan), up, reduction="none")
    want, want_grad = trial.gradient(inputs, up * keep, reduction="none")
    same(value, want * keep, "values, where positions here and there are ignored")
    same(grad, want_grad, "gradient, where positions here and there are ignored")


@promise()
def none_sums_to_sum(trial: Trial) -> None:
    """Unreduced values add up to ``"sum"``, in value and gradient."""
    inputs = trial.inputs()
    value, grad = trial.gradient(inputs, reduction="none")
    total, total_grad = trial.gradient(inputs, reduction="sum")
    require(total.shape == (), f"'sum' has shape {tuple(total.shape)}")
    same(value.sum(), total, "sum of 'none' against 'sum'")
    same(grad, total_grad, "gradient of the sum of 'none' against that of 'sum'")
    if not trial.spec.joint:
        shape = trial.positions(inputs)
        require(value.shape == shape, f"'none' has shape {tuple(value.shape)}, wanted {shape}")


@promise()
def samples_stand_alone(trial: Trial) -> None:
    """A sample's value is its own, whatever else is in its batch.

    Limits: of a stranger that always reduces, samples are exchanged for others, as many.
    """
    if trial.spec.always_reduces:
        return _exchanged(trial)
    inputs = trial.inputs()
    cuts = torch.arange(trial.many(inputs)).tensor_split([4, 5])
    parts = [trial.take(inputs, index) for index in cuts]
    value = trial.loss(inputs, reduction=trial.least_reduced)
    if value.ndim and len(value) == trial.many(inputs):
        alone = [trial.loss(part, reduction=trial.least_reduced) for part in parts]
        same(torch.cat(alone), value, "values of a part, against those of the whole batch")
    else:  # terms, or one number
        total = trial.loss(inputs, reduction="sum")
        alone = [trial.loss(part, reduction="sum") for part in parts]
        same(torch.stack(alone).sum(), total, "sum of the parts, against that of the whole batch")
    return None


@promise(ways=("whole",))
def size_changes_nothing(trial: Trial) -> None:
    """A batch repeated until it is large has the same mean, and the same gradient by sample."""
    inputs = trial.inputs()
    name, n = trial.prediction(inputs), trial.many(inputs)
    times = 1 + _LARGE // inputs[name].numel()
    value, grad = trial.gradient(inputs, reduction="mean")
    many = trial.take(inputs, torch.arange(n).repeat(times))
    large, large_grad = trial.gradient(many, reduction="mean")
    same(large, value, f"mean of the batch repeated {times} times", rtol=1e-11)
    for at in (0, n * (times - 1)):
        part = times * large_grad.narrow(trial.case.axis, at, n)
        same(part, grad, f"gradient of the batch repeated {times} times", rtol=1e-11)


def _exchanged(trial: Trial) -> None:
    """What it costs to exchange some samples does not depend on the others."""
    here, there = trial.inputs(), trial.inputs(seed=1)
    some = torch.arange(trial.many(here))
    first, last = some[:4], some[4:]

    def both(a: Inputs, b: Inputs) -> Tensor:
        a, b = trial.take(a, first), trial.take(b, last)
        return trial.loss({k: torch.cat((t, b[k]), trial.case.axis) for k, t in a.items()})

    got, want = both(here, here) + both(there, there), both(here, there) + both(there, here)
    same(got, want, "what some samples cost, beside others and beside others still")


@promise("count")
def counts_what_it_says(trial: Trial) -> None:
    """The mean is the sum over the count, and a normalizer is handed both."""
    inputs, ledger = trial.inputs(), Ledger()
    through, grad = trial.gradient(inputs, reduction=ledger)
    mean, mean_grad = trial.gradient(inputs, reduction="mean")
    require(trial.spec.count, "the row gives no count")
    assert trial.spec.count is not None
    wanted = trial.spec.count(inputs, trial.options())
    if isinstance(wanted, Mapping):
        terms = f"{sorted(ledger.seen)}, wanted {sorted(wanted)}"
        require(set(ledger.seen) == set(wanted), f"the terms are {terms}")
    for term, (total, count) in ledger.seen.items():
        want = wanted[term] if isinstance(wanted, Mapping) else wanted
        want = torch.as_tensor(want, dtype=torch.float64)
        with about(f"term {term!r}"):
            same(count, want.to(count.device), "count", rtol=1e-6)
            if not trial.spec.composite:
                same(total, trial.loss(inputs, reduction="sum").detach(), "total")
                same(mean, total / count, "'mean' against total / count")
    same(through, mean, "through a normalizer")
    same(grad, mean_grad, "gradient through a normalizer")


@promise()
def nothing_left_is_zero(trial: Trial) -> None:
    """An empty or wholly ignored batch gives 0 with a gradient of 0, never NaN."""
    inputs = trial.inputs()
    nothing = torch.zeros(trial.many(inputs), dtype=torch.bool)
    situations = {"empty": trial.inputs(0)}
    if not (
        trial.spec.stranger and "ignoring_is_removing" in {*trial.spec.exempt, *trial.case.exempt}
    ):
        gone = trial.hidden(inputs, trial.samples(inputs, nothing), math.nan)
        situations["all ignored"] = gone
    for situation, given in situations.items():
        for reduction in trial.spec.reductions:
            with about(f"{situation}, {reduction!r}"), fed(given):
                name = trial.prediction(given)
                x = given[name].clone().requires_grad_()
                value = trial.loss({**given, name: x}, reduction=reduction)
                exact(value, 0.0, "value")
                require(value.requires_grad, "value is detached: backward raises, DDP waits")
                value.sum().backward()
                require(x.grad is not None, "the prediction gets no gradient")
                assert x.grad is not None
                exact(x.grad, 0.0, "gradient")


@promise("hide")
def split_invariance(trial: Trial) -> None:
    """Ragged parts with a shared count, or pooled sums, give the whole batch's result.

    Limits: the parts are computed one after another in one process.
    """
    inputs = trial.inputs()
    n = trial.many(inputs)
    cuts = torch.arange(n).tensor_split([4 * n // 11, 5 * n // 11, 5 * n // 11])
    parts = [trial.take(inputs, index) for index in cuts]
    gone = trial.samples(parts[0], torch.zeros(trial.many(parts[0]), dtype=torch.bool))
    value, grad = trial.gradient(inputs, reduction="mean")
    pooled = trial.spec.defaults() | trial.options()
    if pooled.get("pool", "sample") != "sample":
        _pooled(trial, inputs, parts, grad)
        return
    parts.append(trial.hidden(parts[0], gone, math.nan))
    ledgers = [Ledger() for _ in parts]
    for part, ledger in zip(parts, ledgers, strict=True):
        trial.loss(part, reduction=ledger)
    shared = {
        term: torch.stack([ledger.seen[term][1].double() for ledger in ledgers]).sum()
        for term in ledgers[0].seen
    }

    def share(total: Tensor, count: Tensor, *, term: str) -> Tensor:
        return total / shared[term]

    results = [trial.gradient(part, reduction=share) for part in parts]
    same(torch.stack([v for v, _ in results]).sum(), value, "value of the parts together")
    together = torch.cat([g for _, g in results[:-1]], trial.case.axis)
    same(together, grad, "gradient of the parts")
    exact(results[-1][1], 0.0, "gradient of a part that is ignored")


def _pooled(trial: Trial, inputs: Inputs, parts: list[Inputs], grad: Tensor) -> None:
    """As on ranks: each part adds the others' sums to its own, and has the whole's result.

    A composite may have terms beside, whose totals and counts are those of each part alone.
    """
    whole, sums, ledgers, gradients = Ledger(), list[Tensor](), list[Ledger](), list[Tensor]()
    trial.loss(inputs, reduction=whole)

    def note(mine: Tensor) -> Tensor:
        sums.append(mine.detach())
        return mine

    def share(total: Tensor, count: Tensor, *, term: str) -> Tensor:
        return total / whole.seen[term][1]

    for part in parts:
        trial.loss(part, pool=note)
    for i, part in enumerate(parts):
        pool = _adding(torch.stack([s for k, s in enumerate(sums) if k != i]).sum(0))
        ledgers.append(Ledger())
        trial.loss(part, reduction=ledgers[-1], pool=pool)
        gradients.append(trial.gradient(part, reduction=share, pool=pool)[1])
    pooled = False
    for term, all_of_it in whole.seen.items():
        for what, want, *mine in zip(
            ("total", "count"), all_of_it, *(each.seen[term] for each in ledgers), strict=True
        ):
            apart = trial.spec.composite and not torch.allclose(mine[0], want, rtol=1e-9, atol=0.0)
            pooled |= not apart
            if apart:
                same(torch.stack(mine).sum(), want, f"{what} of {term!r}, the parts together")
            else:
                for i, got in enumerate(mine):
                    same(got, want, f"{what} of part {i} with the others' sums")
    require(pooled, "no term is pooled")
    same(torch.cat(gradients, trial.case.axis), grad, "gradient of the parts, pooled")


def _adding(others: Tensor) -> Any:
    return lambda mine: mine + others


class Ledger:
    """A normalizer that takes the mean, and notes what it is given, by term."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, total: Tensor, count: Tensor, *, term: str) -> Tensor:
        """Note, and average."""
        finite(count, f"count of {term!r}")
        self.seen[term] = total.detach(), count.detach()
        return total / count.clamp_min(torch.finfo(torch.float32).tiny)


def _random_like(t: Tensor, seed: int = 3) -> Tensor:
    made = torch.randn(t.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return made.to(t)
