"""Rows of the adversarial losses: of two discriminators with two layers each, cut from a tensor."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Generator, Tensor

from aptt.audit.spec import Inputs, Options, Refused, Spec, case
from aptt.audit.specs.making import HAS_A_UNIT, NOTHING_FROZEN, grid, normal, uniform, with_
from aptt.loss import adversarial as own

__all__ = ["ADVERSARIES"]

_NO_END = {
    "perfect_is_minimal": "a critic's score has no end: no prediction is the best one",
    "near_perfect_keeps_digits": "a critic's score has no end: no prediction is the best one",
    "hopeless_keeps_a_gradient": "the slope is constant, and shown where it is not",
}
_ONE_SIDED = {"hopeless_keeps_a_gradient": "the case of least squares says it for all"}


def _cut(t: Any) -> Any:
    """Two discriminators of unequal size, each with a layer and a score."""
    if not isinstance(t, Tensor) or t.ndim != 2:
        return t
    return [[t[:, :3], t[:, 3:6]], [t[:, 6:7], t[:, 7:]]]


def _last(t: Any) -> Any:
    cut = _cut(t)
    return [layers[-1] for layers in cut] if isinstance(cut, list) else cut


def _listed(function: Callable[..., Tensor], cut: Callable[[Any], Any]) -> Callable[..., Tensor]:
    """``function`` of tensors, which it is handed in lists."""

    @wraps(function)
    def called(*maps: Tensor, **given: Any) -> Tensor:
        named = {k: cut(v) if k in ("real", "fake", "weight") else v for k, v in given.items()}
        return function(*map(cut, maps), **named)

    signed: Any = called
    signed.__signature__ = inspect.signature(function)
    return called


class DiscriminatorLoss(own.DiscriminatorLoss):
    """The module, handed lists."""

    def forward(self, real: Any, fake: Any, *, weight: Any = None) -> Tensor:
        """The loss of scores of ``real`` and of generated data."""
        return super().forward(_last(real), _last(fake), weight=_last(weight))


class GeneratorLoss(own.GeneratorLoss):
    """The module, handed lists."""

    def forward(self, fake: Any, *, weight: Any = None) -> Tensor:
        """The loss of scores of generated data."""
        return super().forward(_last(fake), weight=_last(weight))


class FeatureMatchingLoss(own.FeatureMatchingLoss):
    """The module, handed lists of lists."""

    def forward(self, fake: Any, real: Any, *, weight: Any = None) -> Tensor:
        """The loss of features of generated data against those of ``real``."""
        return super().forward(_cut(fake), _cut(real), weight=_cut(weight))


def _scores(g: Generator, n: int) -> Inputs:
    return {"real": normal(g, n, 9, scale=2), "fake": normal(g, n, 9, scale=2)}


def _fake(g: Generator, n: int) -> Inputs:
    return {"fake": normal(g, n, 9, scale=2), "weight": uniform(g, n, 9, low=0.25, high=2.0)}


def _features(g: Generator, n: int) -> Inputs:
    return {"fake": normal(g, n, 9), "real": normal(g, n, 9)}


_HARD = grid([0], [1], [-1], [6e4], [-6e4], [1e-30], [90], [-90]).expand(-1, 9)


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    weight = inputs.get("weight", torch.ones_like(inputs["fake"]))
    return {**inputs, "weight": weight.masked_fill(~keep, 0)}


def _weights(inputs: Inputs) -> Tensor:
    return inputs.get("weight", torch.ones_like(inputs["fake"]))


def _each(inputs: Inputs, options: Options) -> dict[str, Any]:
    return {
        f"{name}_{i}": weight.sum()
        for name in inputs
        if name != "weight"
        for i, weight in enumerate(_last(_weights(inputs)))
    }


def _judged(inputs: Inputs, options: Options) -> tuple[Inputs, float]:
    """As right as a score can be, for its kind."""
    yes, no = {"hinge": (1.0, -1.0), "bce": (1e4, -1e4)}.get(options.get("kind", ""), (1.0, 0.0))
    made = {"real": yes, "fake": no if "real" in inputs else yes}
    return {k: torch.full_like(t, made[k]) if k in made else t for k, t in inputs.items()}, 0.0


def _size(inputs: Inputs, options: Options) -> dict[str, Tensor]:
    part = _weights(inputs) * (inputs["real"].abs() if options.get("relative") else 1.0)
    layers = {
        f"features_{d}_{k}": layer.sum()
        for d, cut in enumerate(_cut(part))
        for k, layer in enumerate(cut)
    }
    return {k: v for k, v in layers.items() if options.get("last", True) or k[-1] == "0"}


_UNKNOWN = (
    Refused("an unknown kind", "kind", {"kind": "softmax"}),
    Refused("an unknown sum", "combine", {"combine": "all"}),
)
_ALWAYS: dict[str, Any] = {
    "composite": True,
    "joint": True,
    "reductions": ("mean", "sum"),
    "hide": _hide,
    "exempt": {
        **NOTHING_FROZEN,
        **HAS_A_UNIT,
        "none_sums_to_sum": "terms with counts of their own have no values to sum",
    },
}

ADVERSARIES = (
    Spec(
        name="discriminator_loss",
        function=_listed(own.discriminator_loss, _last),
        module=DiscriminatorLoss,
        inputs=_scores,
        cases={
            "least squares": case(),
            "hinge": case(kind="hinge", exempt=_ONE_SIDED),
            "bce": case(
                with_(_scores, "weight", "real"), kind="bce", combine="mean", reduction="sum"
            ),
            "wasserstein": case(kind="wasserstein", exempt=_NO_END),
        },
        count=_each,
        terms=4,
        perfect=_judged,
        hopeless=lambda i, o: {"real": 0 * i["real"] - 30, "fake": 0 * i["fake"] + 30},
        extremes=lambda: {"real": _HARD.clone(), "fake": _HARD.flip(0)},
        refused=(
            *_UNKNOWN,
            Refused(
                "scores of two shapes", "fake", change=lambda i: {**i, "fake": i["fake"][:, :8]}
            ),
        ),
        **_ALWAYS,
    ),
    Spec(
        name="generator_loss",
        function=_listed(own.generator_loss, _last),
        module=GeneratorLoss,
        inputs=_fake,
        cases={
            "least squares": case(),
            "hinge": case(kind="hinge", exempt=_NO_END),
            "bounded hinge": case(kind="hinge", bounded=True, exempt=_ONE_SIDED),
            "bce": case(kind="bce", combine="mean", reduction="sum"),
            "wasserstein": case(kind="wasserstein", exempt=_NO_END),
        },
        count=_each,
        terms=2,
        perfect=_judged,
        hopeless=lambda i, o: {**i, "fake": 0 * i["fake"] - 30},
        extremes=lambda: {"fake": _HARD.clone(), "weight": torch.ones_like(_HARD)},
        refused=_UNKNOWN,
        **_ALWAYS,
    ),
    Spec(
        name="feature_matching_loss",
        function=_listed(own.feature_matching_loss, _cut),
        module=FeatureMatchingLoss,
        inputs=_features,
        cases={
            "absolute": case(),
            "weighted": case(
                with_(_features, "weight", "real"), last=False, combine="mean", reduction="sum"
            ),
            "relative": case(relative=True, detach_real=False),
            "relative, weighted": case(
                with_(_features, "weight", "real"), relative=True, combine="mean"
            ),
        },
        count=_size,
        neutral={"detach_real": "it says whether the real features' graph is kept"},
        terms=2,
        perfect=lambda i, o: ({**i, "fake": i["real"]}, 0.0),
        hopeless=lambda i, o: {**i, "fake": i["real"] + 300},
        extremes=lambda: {"fake": _HARD.clone(), "real": _HARD.flip(0)},
        refused=(
            _UNKNOWN[1],
            Refused(
                "features of two shapes", "real", change=lambda i: {**i, "real": i["real"][:, :8]}
            ),
        ),
        **_ALWAYS,
    ),
)
