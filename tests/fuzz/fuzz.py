"""The loop: draw, check, shrink, report."""

from __future__ import annotations

import inspect
import math
import time
import types
import typing
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from aptt.core.checks import Numbers
from tests.fuzz.check import Failure, check, function, leaves, simpler
from tests.fuzz.draw import Call, Draw, Loss
from tests.fuzz.draws import LOSSES
from tests.fuzz.known import known
from tests.fuzz.snippet import snippet
from tests.fuzz.wrong import spoiled

__all__ = ["Find", "Report", "fuzz", "make", "run", "shrunk"]

TRIES = 250
"""Calls that a failure is shrunk by."""


@dataclass
class Find:
    """A failure, shrunk."""

    call: Call
    failure: Failure

    def __str__(self) -> str:
        return snippet(self.call, self.failure)


@dataclass
class Report:
    """What a run did."""

    calls: Counter[str] = field(default_factory=Counter)
    reached: dict[str, set[str]] = field(default_factory=dict)
    finds: list[Find] = field(default_factory=list)
    knowns: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def missed(self, name: str) -> list[str]:
        """Options of a loss that no call has had."""
        return sorted(options(name) - self.reached.get(name, set()))

    def as_json(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "calls": self.calls,
            "options": {
                name: {
                    "reached": len(options(name) & self.reached[name]),
                    "all": len(options(name)),
                    "missed": self.missed(name),
                }
                for name in self.calls
            },
            "known": self.knowns,
            "finds": [
                {
                    "loss": f.call.name,
                    "kind": f.failure.kind,
                    "message": f.failure.message,
                    "snippet": str(f),
                }
                for f in self.finds
            ],
        }


# ------------------------------------------------------------------------------------- options


def options(name: str) -> set[str]:
    """What the signature of a loss offers: ``"argument=choice"``."""
    offered = set()
    hints = typing.get_type_hints(function(name))
    for key, arg in inspect.signature(function(name)).parameters.items():
        if arg.kind is arg.KEYWORD_ONLY or arg.default is not arg.empty:
            offered |= {f"{key}={choice}" for choice in _choices(hints[key], arg.default)}
    refused = LOSSES[name].wrong.items()
    return offered - {f"{key}={choice}" for key, choices in refused for choice in choices}


_AS_TENSORS = set(typing.get_args(Numbers)) - {Tensor}
"""Lists and arrays, which serve as tensors do: tests/loss/test_rules.py holds every loss to it."""


def _choices(hint: Any, default: Any) -> Iterator[str]:
    origin = typing.get_origin(hint)
    if hint is bool:
        yield from ("False", "True")
    elif origin is typing.Literal:
        yield from map(str, typing.get_args(hint))
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            if part not in _AS_TENSORS:
                yield from _choices(part, default)
    elif hint is type(None):
        yield "None"
    elif hint in (int, float):
        yield "number"
    elif hint is str:
        yield "name"
    elif hint is Tensor:
        yield "tensor"
    elif origin in (tuple, list) or "Sequence" in str(origin):
        yield "sequence"
    elif "Mapping" in str(origin):
        yield "mapping"
    else:
        yield "callable"


def had(name: str, args: Mapping[str, Any]) -> set[str]:
    """What of the offer a call takes."""
    offer = options(name)
    taken = set()
    for key, arg in inspect.signature(function(name)).parameters.items():
        value = args.get(key, arg.default)
        named = f"{key}={value}"
        kind = (
            "tensor"
            if isinstance(value, Tensor)
            else "callable"
            if callable(value) or hasattr(value, "_fields")  # a class of its own
            else "sequence"
            if isinstance(value, list | tuple)
            else "mapping"
            if isinstance(value, dict)
            else "name"
            if isinstance(value, str)
            else "number"
            if isinstance(value, int | float)
            else "callable"
        )
        taken.add(named if not isinstance(value, Tensor) and named in offer else f"{key}={kind}")
    return taken & offer


# ---------------------------------------------------------------------------------- the loop


def make(
    name: str, seed: str, forced: dict[str, int] | None = None, losses: Mapping[str, Loss] = LOSSES
) -> Call:
    """The call that a seed stands for; wrong by chance."""
    d = Draw(seed, forced)
    call = losses[name].draw(d)
    return spoiled(d, call, losses[name]) if d.chance("wrong", 8) else call


def tried(call: Call, loss: Loss) -> Failure | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return check(loss, call)


def fuzz(
    seed: str,
    seconds: float,
    names: list[str],
    *,
    watch: Callable[[float, int, int], None] = lambda *_: None,
    losses: Mapping[str, Loss] = LOSSES,
    stop: int = 100,
    calls: float = math.inf,
) -> Report:
    """Calls of each loss in turn, until the time is over, or so many are made, or so much found."""
    report, start, turn = Report(), time.monotonic(), 0
    seen: set[tuple[str, ...]] = set()
    while time.monotonic() - start < seconds and len(report.finds) < stop and turn < calls:
        name = names[turn % len(names)]
        at = f"{seed}/{turn}"
        call = make(name, at, losses=losses)
        report.calls[name] += 1
        reached = report.reached.setdefault(name, set())
        if not call.wrong:
            reached |= had(name, call.args)
        failure = tried(call, losses[name])
        if failure:
            entry = known(call, failure)
            if entry:
                report.knowns[entry.sentence] += 1
            else:
                call, failure = shrunk(name, at, failure, losses=losses)
                key = (name, failure.kind, *sorted(had(name, call.args)))
                if key not in seen:
                    seen.add(key)
                    report.finds.append(Find(call, failure))
        turn += 1
        watch(time.monotonic() - start, turn, len(report.finds))
    report.seconds = time.monotonic() - start
    return report


def shrunk(
    name: str, seed: str, failure: Failure, *, losses: Mapping[str, Loss] = LOSSES
) -> tuple[Call, Failure]:
    """The simplest call found that fails in the same way: choice by choice, number by number."""
    loss, left = losses[name], TRIES
    best = make(name, seed, losses=losses)

    def still(call: Call) -> Failure | None:
        nonlocal left
        left -= 1
        again = tried(call, loss)
        same = again and again.kind == failure.kind and not known(call, again)
        return again if same else None

    simplest = True
    while simplest and left > 0:
        simplest = False
        for label, at in sorted(best.chosen.items()):
            for lower in range(at):
                if left <= 0:
                    break
                call = make(name, seed, best.chosen | {label: lower}, losses)
                if again := still(call):
                    best, failure, simplest = call, again, True
                    break
    for path, t in list(leaves(best.args)):
        if not t.is_floating_point() or path.split("[")[0] in loss.rigid:
            continue
        for plain in (torch.zeros_like(t), torch.ones_like(t), t.round(), _short(t)):
            if left > 0 and not torch.equal(plain, t):
                call = simpler(best, path, plain)
                if again := still(call):
                    best, failure = call, again
                    break
        t = dict(leaves(best.args))[path]
        for i in range(min(t.numel(), 12)):
            for value in (0.0, 1.0):
                flat = t.flatten().clone()
                if left <= 0 or flat[i] == value:
                    break
                flat[i] = value
                call = simpler(best, path, flat.reshape(t.shape))
                if again := still(call):
                    best, failure, t = call, again, flat.reshape(t.shape)
                    break
    return best, failure


def _short(t: Tensor) -> Tensor:
    """Three digits of each number."""
    return torch.tensor([float(f"{v:.3g}") for v in t.flatten().tolist()], dtype=t.dtype).reshape(
        t.shape
    )


def run(name: str, seed: str) -> Failure | None:
    """One call, by its seed."""
    return tried(make(name, seed), LOSSES[name])
