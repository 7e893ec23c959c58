"""Find the smallest input that breaks a promise, with hypothesis.

A check takes its inputs from its :class:`Trial`. Here it is given one with fewer samples, and with
plain numbers in the prediction, as long as it still fails, and in the same way.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from aptt.audit.promise import Promise
from aptt.audit.spec import Inputs, Spec, Trial

__all__ = ["smallest", "written"]

_PLAIN = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0, 10.0, -10.0, 100.0, -100.0)
_MOST = 4  # samples
_SECONDS = 3.0
_EXAMPLES = 60


@dataclass(frozen=True)
class Small(Trial):
    """A case with fewer samples, and with numbers of our choice in the prediction."""

    most: int = 1
    numbers: tuple[float | None, ...] = ()
    extreme: int = 0

    def inputs(self, n: int = 11, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Inputs:
        """At most ``most`` samples; a number that is None stays as it was made."""
        made = super().inputs(min(n, self.most), dtype=dtype, seed=seed)
        name = self.prediction(made)
        x = made[name].clone()
        flat = x.view(-1)
        low, high = (float(x.min()), float(x.max())) if x.numel() else (0.0, 0.0)
        for i, number in enumerate(self.numbers[: len(flat)]):
            if number is not None and min(low, 0) <= number <= max(high, 0):
                flat[i] = number
        return {**made, name: x}

    def extremes(self) -> Inputs:
        """One of the hard inputs."""
        made = super().extremes()
        return self.take(made, torch.tensor([self.extreme % self.many(made)]))


def smallest(spec: Spec, promise: Promise, device: torch.device | str = "cpu") -> str:
    """The smallest input found that breaks a promise of each case, in words; '' if none is.

    Needs hypothesis, from the extra ``audit``.
    """
    if promise.of_row:  # says itself what it was that was let through
        return ""
    for trial in spec.trials(device):
        small = _smallest(trial, promise)
        if small is not None:
            what = small.extremes() if "extremes" in promise.needs else small.inputs()
            why = _broken(small, promise) or ""
            if promise.name == "nothing_left_is_zero" and "empty" in why:
                what = small.inputs(0)
            return f"{written(what)}: {why}"
    return ""


def _smallest(trial: Trial, promise: Promise) -> Small | None:
    import hypothesis
    from hypothesis import strategies as st

    why = _broken(trial, promise)
    if why is None:
        return None
    end = time.process_time() + _SECONDS
    tried: dict[object, bool] = {}
    best: list[Small] = []
    numbers = st.lists(st.sampled_from((*_PLAIN, None)), max_size=24).map(tuple)
    hard = st.integers(0, 63) if "extremes" in promise.needs else st.just(0)

    def made(drawn: tuple[int, tuple[float | None, ...], int]) -> Small:
        most, plain, extreme = drawn
        return Small(trial.spec, trial.label, trial.case, trial.device, most, plain, extreme)

    def fails(small: Small) -> bool:
        key = (small.most, small.numbers, small.extreme)
        if key not in tried:  # after the time, nothing new is tried, and the old stays as it was
            late = time.process_time() > end
            broken = None if late else _broken(small, promise)
            tried[key] = broken is not None and _key(broken) == _key(why)
        if not tried[key]:
            return False
        if not best or (small.most, _odd(small)) <= (best[-1].most, _odd(best[-1])):
            best.append(small)
        return True

    quiet = hypothesis.settings(
        max_examples=_EXAMPLES,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    strategy = st.tuples(st.integers(1, _MOST), numbers, hard).map(made)
    with suppress(hypothesis.errors.NoSuchExample):
        hypothesis.find(strategy, fails, settings=quiet)
    return best[-1] if best else None


def _broken(trial: Trial, promise: Promise) -> str | None:
    try:
        promise.try_(trial)
    except AssertionError as broken:
        return str(broken)
    return None


def _key(why: str) -> str:
    """How it is broken, without the numbers."""
    return re.sub(r"\[.*?\]|\(.*?\)|-?\b(\d[\d.e+-]*|nan|inf)", "#", why)


def _odd(small: Small) -> int:
    """How many numbers of the prediction are not round."""
    inputs = small.inputs()
    x = inputs[small.prediction(inputs)]
    return int((x != x.round()).sum())


def written(inputs: Inputs) -> str:
    """Tensors as one would type them; an empty one by its shape."""
    return ", ".join(f"{name}={_tensor(t)}" for name, t in inputs.items())


def _tensor(t: Tensor) -> str:
    if not t.numel() or t.numel() > 64:
        return f"a tensor of shape {tuple(t.shape)}"
    return re.sub(r"(\d\.\d{4})\d+", r"\1", str(t.tolist()))
