"""The row of the loss of a language model's head.

Its hidden states are the logits of cross-entropy's own row, and its weight a matrix that gives them
back: what is known of cross-entropy then holds for it. The tests of the head take other weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from aptt.audit.spec import Case, Inputs, Maker, Options, Refused, Spec
from aptt.audit.specs.classes import CLASSES
from aptt.audit.specs.making import BY_CHUNKS
from aptt.loss import linear as heads

__all__ = ["HEADS"]

_CROSS_ENTROPY = next(row for row in CLASSES if row.name == "cross_entropy")
_C = 5


def _weight(hidden: Tensor) -> Tensor:
    return torch.eye(_C, dtype=hidden.dtype, device=hidden.device)


def _with_weight(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``function`` with the weight filled in, and without a bias."""

    @wraps(function)
    def filled(hidden: Tensor, target: Tensor, **options: Any) -> Tensor:
        return function(hidden, _weight(hidden), target, **options)

    signature = inspect.signature(function)
    rest = [p for name, p in signature.parameters.items() if name not in ("weight", "bias")]
    signed: Any = filled
    signed.__signature__ = signature.replace(parameters=rest)
    return filled


class LinearCrossEntropyLoss(heads.LinearCrossEntropyLoss):
    """The module with the weight filled in."""

    def forward(  # type: ignore[override] # the audit has no head
        self,
        hidden: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of ``hidden`` against ``target``."""
        return super().forward(hidden, _weight(hidden), target, sample_weight=sample_weight)


def _hidden(inputs: Inputs) -> Inputs:
    return {"hidden" if name == "logits" else name: t for name, t in inputs.items()}


def _logits(inputs: Inputs) -> Inputs:
    return {"logits" if name == "hidden" else name: t for name, t in inputs.items()}


def _known(options: Options) -> dict[str, Any]:
    """The options by cross-entropy's names."""
    return {"weight" if name == "class_weight" else name: v for name, v in options.items()}


def _made(make: Maker) -> Maker:
    return lambda g, n: _hidden(make(g, n))


def _perfect(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    assert _CROSS_ENTROPY.perfect is not None
    best, value = _CROSS_ENTROPY.perfect(_logits(inputs), _known(options))
    hidden = best["logits"] / options.get("scale", 1.0)
    return {**_hidden(best), "hidden": hidden.clamp_min(-1e3)}, value  # -inf times 0 is no number


def _extremes() -> Inputs:
    assert _CROSS_ENTROPY.extremes is not None
    inputs = _CROSS_ENTROPY.extremes()
    finite = inputs["logits"].isfinite().all(1)  # a class is masked by the bias here
    return _hidden({name: t[finite] for name, t in inputs.items()})


def _through(function: Any) -> Callable[..., Any]:
    def through(inputs: Inputs, options: Options, *more: Any) -> Any:
        found = function(_logits(inputs), _known(options), *more)
        return _hidden(found) if isinstance(found, dict) else found

    return through


def _case(name: str, **changed: Any) -> Case:
    """A case of cross-entropy, with options more."""
    own = _CROSS_ENTROPY.cases[name]
    options = {"class_weight" if k == "weight" else k: v for k, v in own.options.items()}
    make = None if own.inputs is None else _made(own.inputs)
    return replace(own, options={**options, **changed}, inputs=make)


def _refused(own: Refused) -> Refused:
    options = {"class_weight" if k == "weight" else k: v for k, v in own.options.items()}
    naming = "class_weight" if own.naming == "weight" else own.naming
    return replace(
        own, naming=naming, options=options, change=lambda i: _hidden(own.change(_logits(i)))
    )


HEADS = (
    Spec(
        name="linear_cross_entropy",
        function=_with_weight(heads.linear_cross_entropy),
        module=LinearCrossEntropyLoss,
        inputs=_made(_CROSS_ENTROPY.inputs),
        cases={
            "class indices": _case("class indices", chunk=4),
            "smoothed, weighted": _case("smoothed, weighted", scale=0.5),
            "z-loss": _case("z-loss"),
            "capped, adjusted": _case("capped, adjusted", drop_ignored=False),
            "weighted samples": _case("weighted samples", chunk=3),
            "soft": _case("soft"),
        },
        features=1,
        hide=_through(_CROSS_ENTROPY.hide),
        count=_through(_CROSS_ENTROPY.count),
        perfect=_perfect,
        hopeless=_through(_CROSS_ENTROPY.hopeless),
        extremes=_extremes,
        neutral={
            "chunk": "it says how much is multiplied at once",
            "drop_ignored": "it says whether what is ignored is multiplied",
        },
        refused=(
            *(
                _refused(own)
                for own in _CROSS_ENTROPY.refused
                if own.naming != "class_dim" and "two axes" not in own.about
            ),
            Refused("chunks of 0", "chunk", {"chunk": 0}),
            Refused("scale 0", "scale", {"scale": 0.0}),
        ),
        asks=BY_CHUNKS,
        exempt={
            **_CROSS_ENTROPY.exempt,
            "streamed_equals_plain": "it walks on its own; its tests compare every chunk size",
            "autocast": "autocast decides what the head multiplies in, as it does for F.linear",
        },
    ),
)
