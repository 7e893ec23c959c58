"""What a promise is: a check with a name, run over the cases of a row, both ways.

A promise never passes by being skipped. It applies to a row or the row says, by its name, why not;
and a row that lacks what a promise needs is told so.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from aptt.audit.figures import about, coarse, require
from aptt.audit.spec import Spec, Trial
from aptt.audit.ways import WAYS

__all__ = ["PROMISES", "Held", "Promise", "promise", "promise_of_row"]


_TOOLS = {
    *("traces_without_breaks", "transforms", "checkpointed", "meta_device", "copies"),
    *("every_option_is_exercised", "streamed_equals_plain", "half_matches_truth"),
    "near_perfect_keeps_digits",
    "asks_little_of_the_device",
}
_CONVENTIONS = {
    *("bad_input_is_refused", "nothing_left_is_zero", "autocast", "twin_agrees"),
    "follows_to_dtype_and_device",
}


@dataclass
class Held:
    """Where a promise was checked, and which cases it left out, with the reasons."""

    cases: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Promise:
    """A check that raises ``AssertionError``, with figures, if a row breaks it."""

    name: str
    about: str
    check: Callable[[Any], None]
    limits: str = ""
    """What it does not see, where that is known."""
    of_row: bool = False
    needs: tuple[str, ...] = ()
    ways: tuple[str, ...] = ("plain", "in blocks")
    unless: Callable[[], str | None] = lambda: None
    """Why it cannot be checked where this runs, if it cannot."""
    check_all: Callable[[Sequence[Trial]], None] | None = None
    """The check of several cases at once, if that is cheaper; if it fails, each is checked."""

    @property
    def gravity(self) -> int:
        """0 where breaking it gives wrong numbers, 1 where a tool fails, 2 of a convention."""
        return 1 if self.name in _TOOLS else 2 if self.name in _CONVENTIONS else 0

    def __call__(self, spec: Spec, device: torch.device | str = "cpu") -> Held:
        """Check a row to which the promise applies."""
        reason = self.exemption(spec)
        if reason is not None:
            raise ValueError(f"{self.name} does not apply to {spec.name}: {reason}")
        for need in self.needs:
            given = getattr(spec, need) or any(getattr(c, need, None) for c in spec.cases.values())
            require(given, f"the row gives no {need!r}; give it, or say in 'exempt' why not")
        if self.of_row:
            self.check(spec)
            return Held(cases=["the row"])
        held, trials = Held(), list[Trial]()
        for trial in spec.trials(device):
            reason = self._exempt(trial.case.exempt)
            if reason is None:
                trials.append(trial)
                held.cases.append(trial.label)
            else:
                held.left_out[trial.label] = reason
        require(trials, f"no case to check: {held.left_out}")
        self._try_all(spec, trials)
        return held

    def exemption(self, spec: Spec) -> str | None:
        """Why the promise does not apply to a row; None if it does."""
        return self._exempt(spec.exempt) or self.unless()

    def _exempt(self, exempt: Mapping[str, str]) -> str | None:
        """Where no best prediction is known, neither is what lies near it."""
        known = exempt.get("perfect_is_minimal") if "perfect" in self.needs else None
        return exempt.get(self.name, known)

    def _try_all(self, spec: Spec, trials: Sequence[Trial]) -> None:
        if self.check_all is not None and len(trials) > 1:
            with suppress(Exception):  # each alone says which
                for way in self._ways(spec):
                    with coarse(spec.rounding), WAYS[way]():
                        self.check_all(trials)
                return
        for trial in trials:
            self.try_(trial)

    def try_(self, trial: Trial) -> None:
        """Check one case, in each way that the loss can go."""
        ways = self._ways(trial.spec)
        for way in ways:
            label = f"{trial.label}, {way}" if len(ways) > 1 else trial.label
            with about(label), coarse(trial.spec.rounding), WAYS[way]():
                self.check(trial)

    def _ways(self, spec: Spec) -> tuple[str, ...]:
        if spec.walks:
            return self.ways
        return tuple(way for way in self.ways if way != "in blocks")[:1] or ("plain",)


PROMISES: dict[str, Promise] = {}
"""Every promise by its name, in the order of the contract."""


def promise(
    *needs: str,
    ways: tuple[str, ...] = ("plain", "in blocks"),
    unless: Callable[[], str | None] = lambda: None,
    check_all: Callable[[Sequence[Trial]], None] | None = None,
) -> Callable[[Callable[[Trial], None]], Promise]:
    """Make a promise of a check of one case. ``needs`` names what the row must give.

    ``unless`` and ``check_all`` are as in :class:`Promise`.
    """

    def made(check: Callable[[Trial], None]) -> Promise:
        return _enter(check, needs=needs, ways=ways, unless=unless, check_all=check_all)

    return made


def promise_of_row(*needs: str) -> Callable[[Callable[[Spec], None]], Promise]:
    """Make a promise of a check of a whole row."""

    def made(check: Callable[[Spec], None]) -> Promise:
        return _enter(check, of_row=True, needs=needs)

    return made


def _enter(check: Callable[[Any], None], **how: Any) -> Promise:
    doc = inspect.cleandoc(check.__doc__ or "")
    limits = " ".join(doc.partition("Limits:")[2].split())
    name = check.__name__
    PROMISES[name] = Promise(name, doc.partition("\n")[0], check, limits, **how)
    return PROMISES[name]
