"""Find the smallest input that breaks a promise, with hypothesis.

A check takes its inputs from its :class:`Trial`. Here it is given one with fewer samples, and with
a few plain numbers over and over in the prediction, as long as it still fails in the same way. What
is shown is what the loss was fed when it failed: the perfect prediction, say, or the inputs with
some samples ignored.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from aptt.audit.promise import Promise
from aptt.audit.spec import Inputs, Spec, Trial

__all__ = ["smallest", "written"]

_PLAIN = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0, 10.0, -10.0, 100.0, -100.0)
_MOST = 4  # samples
_SECONDS = 3.0  # of work
_EXAMPLES = 60


@dataclass(frozen=True)
class Small(Trial):
    """A case with fewer samples, and with numbers of our choice in the prediction."""

    most: int = 1
    numbers: Sequence[float] = ()
    """In turn for all of the prediction; none: as it was made."""
    varied: bool = True
    """Whether targets of integers, or of 0 and 1, differ."""
    extreme: int = 0

    def inputs(self, n: int = 11, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Inputs:
        """At most ``most`` samples, plain ones."""
        made = super().inputs(min(n, self.most), dtype=dtype, seed=seed)
        name = self.prediction(made)
        x = made[name]
        if self.numbers and x.numel():
            low, high = min(float(x.min()), 0), max(float(x.max()), 0)
            within = [number if low <= number <= high else 0.0 for number in self.numbers]
            turns = torch.tensor(within).to(x).repeat(-(-x.numel() // len(within)))
            made[name] = turns[: x.numel()].view(x.shape)
        if not self.varied:
            alike = {k: t for k, t in made.items() if k != name and t.numel() and _labels(t)}
            made |= {k: torch.full_like(t, t.flatten()[0].item()) for k, t in alike.items()}
        return made

    def extremes(self) -> Inputs:
        """One of the hard inputs."""
        made = super().extremes()
        return self.take(made, torch.tensor([self.extreme % self.many(made)]))


def smallest(spec: Spec, promise: Promise, device: torch.device | str = "cpu") -> str:
    """The smallest input found that breaks a promise, and how; '' if the promise is of a row.

    Needs hypothesis, from the extra ``audit``.
    """
    if promise.of_row:  # says itself what it was that was let through
        return ""
    for trial in spec.trials(device):
        if promise.name in trial.case.exempt:
            continue
        why = _broken(trial, promise)
        if why is None:
            continue
        hard = "extremes" in promise.needs
        small = _hardest(trial, promise, why) if hard else _plainest(trial, promise, why)
        found = small or trial
        broken = _broken(found, promise) or why
        what = getattr(broken, "inputs", None)
        what = what or (found.extremes() if hard else found.inputs())
        return f"{written(what)}: {broken}"
    return ""


def _hardest(trial: Trial, promise: Promise, why: AssertionError) -> Small | None:
    """The first of the hard inputs that fails alone."""
    for extreme in range(trial.many(trial.extremes())):
        small = _small(trial, _MOST, (), True, extreme)
        if _fails(small, promise, why):
            return small
    return None


def _plainest(trial: Trial, promise: Promise, why: AssertionError) -> Small | None:
    import hypothesis
    from hypothesis import strategies as st

    end = time.process_time() + _SECONDS
    tried: dict[object, bool] = {}

    def fails(small: Small) -> bool:
        key = (small.most, tuple(small.numbers), small.varied)
        if key not in tried:  # after the time, nothing new is tried, and the old stays as it was
            tried[key] = time.process_time() < end and _fails(small, promise, why)
        return tried[key]

    plain = st.lists(st.sampled_from(_PLAIN), min_size=1, max_size=5)
    as_made = st.just(list[float]())
    quiet = hypothesis.settings(
        max_examples=_EXAMPLES,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    for numbers in (plain, as_made):
        drawn = st.tuples(st.integers(1, _MOST), numbers, st.booleans())
        strategy = drawn.map(lambda some: _small(trial, *some))
        with suppress(hypothesis.errors.NoSuchExample):
            return hypothesis.find(strategy, fails, settings=quiet)
    return None


def _small(
    trial: Trial, most: int, numbers: Sequence[float], varied: bool, extreme: int = 0
) -> Small:
    return Small(trial.spec, trial.label, trial.case, trial.device, most, numbers, varied, extreme)


def _fails(small: Small, promise: Promise, why: AssertionError) -> bool:
    broken = _broken(small, promise)
    return broken is not None and _key(str(broken)) == _key(str(why))


def _broken(trial: Trial, promise: Promise) -> AssertionError | None:
    try:
        promise.try_(trial)
    except AssertionError as broken:
        return broken
    return None


def _key(why: str) -> str:
    """How it is broken, without the numbers."""
    return re.sub(r"\[.*?\]|\(.*?\)|-?\b\d[\d.e+-]*", "#", why)


def _labels(t: Tensor) -> bool:
    return not t.is_floating_point() or bool(((t == 0) | (t == 1)).all())


def written(inputs: Inputs) -> str:
    """Tensors as one would type them; a large one by its shape, and its number if it has one."""
    return ", ".join(f"{name}={_tensor(t)}" for name, t in inputs.items())


def _tensor(t: Tensor) -> str:
    if t.numel() > 4 and (t == t.flatten()[0]).all():
        return f"torch.full({tuple(t.shape)}, {t.flatten()[0].item()})"
    if not t.numel() or t.numel() > 64:
        return f"a tensor of shape {tuple(t.shape)}"
    return re.sub(r"(\d\.\d{4})\d+", r"\1", str(t.tolist()))
