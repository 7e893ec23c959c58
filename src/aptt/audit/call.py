"""How a stranger's loss is called: which tensor goes to which of its arguments, and what it is.

Tensors go by their names where the loss has arguments of these names, and in order where it has
none of them. In between, some name is a slip, and is told.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aptt.audit.spec import Inputs, Options

__all__ = ["Loss", "is_prediction", "is_target"]

_PREDICTION = {
    *("pred", "preds", "prediction", "predictions", "predicted", "input", "inputs", "output"),
    *("outputs", "logit", "logits", "estimate", "estimated", "estimates", "est", "x", "hat"),
    *("yhat", "probs", "probabilities"),
}
_TARGET = {
    *("target", "targets", "tgt", "label", "labels", "y", "t", "true", "truth", "gt", "reference"),
    *("ref", "answer", "answers"),
}
_TAKES = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def is_prediction(name: str) -> bool:
    """Whether an argument of this name is what a model makes."""
    return bool(_PREDICTION & set(name.lower().split("_")))


def is_target(name: str) -> bool:
    """Whether an argument of this name is what should have been made."""
    return not is_prediction(name) and bool(_TARGET & set(name.lower().split("_")))


class Loss:
    """A stranger's loss: a function, a class of modules, or a module; and its options."""

    def __init__(self, target: Any, options: Options) -> None:
        self.target, self.given = target, dict(options)
        self.made = inspect.isclass(target)  # options go to the constructor
        self.name = getattr(target, "__name__", type(target).__name__)
        self.is_module = self.made or isinstance(target, nn.Module)
        taken = _parameters(target.forward if _is_built(target) else target)
        self.options = taken or []
        self.takes = {p.name for p in self.options}
        self.reductions = "reduction" in self.takes
        called = _parameters(_called(target, self.made))
        self.arguments = called[1:] if called and self.made else called  # without self

    def __call__(self, inputs: Inputs, **options: Any) -> Any:
        """The loss of tensors that are named as its arguments are."""
        options = {**self.given, **options}
        if self.made:
            return self.call(self.target(**options), inputs)
        return self.call(self.target, inputs, **options)

    def call(self, loss: Callable[..., Any], inputs: Inputs, **options: Any) -> Any:
        """Call the function, or the module that the class made."""
        first = [p.name for p in self.arguments or () if p.kind is p.POSITIONAL_ONLY]
        by_name = {p.name for p in self.arguments or ()} - set(first)
        loose = any(p.kind is p.VAR_KEYWORD for p in self.arguments or ())
        named = {k: t for k, t in inputs.items() if k in by_name or (loose and k not in first)}
        others = {k: t for k, t in inputs.items() if k not in named}
        order = sorted(others, key=first.index) if set(others) <= set(first) else list(others)
        return loss(*(others[k] for k in order), **named, **options)

    def values(self, inputs: Inputs, options: Options) -> Tensor:
        """What is not reduced; of a loss that always reduces, the loss of each sample alone."""
        n = len(next(iter(inputs.values())))
        if self.reductions or not n:
            asked = {"reduction": "none"} if self.reductions else {}
            return self(inputs, **{**options, **asked})
        alone = ({k: t[i : i + 1] for k, t in inputs.items()} for i in range(n))
        return torch.stack([self(each, **options).squeeze() for each in alone])

    def roles(self, first: str, second: str) -> tuple[str, str]:
        """What the loss calls a prediction and a target; if it does not say, they go in order."""
        if self.arguments is None:
            return first, second
        free = [p for p in self.arguments if p.default is p.empty]
        x = [p.name for p in free if is_prediction(p.name)]
        y = [p.name for p in free if is_target(p.name)]
        if len(x) == len(y) == 1:
            return x[0], y[0]
        names = [p.name for p in self.arguments if p.kind in _TAKES][:2]
        return (names[0], names[1]) if len(names) == 2 else (first, second)

    def bind(self, names: Sequence[str]) -> dict[str, str]:
        """The argument for each tensor.

        Raises:
            ValueError: some of the names are arguments, and some are not, or there are too many.
        """
        itself = {name: name for name in names}
        if self.arguments is None or any(p.kind is p.VAR_KEYWORD for p in self.arguments):
            return itself
        known = [p.name for p in self.arguments if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        matched = [name for name in names if name in known]
        if len(matched) == len(names):
            return itself
        if matched:
            others = [name for name in names if name not in known]
            raise ValueError(
                f"the inputs are {_listed(names)}; {self.name} takes {_listed(known)}: "
                f"{_listed(matched)} matched, {_listed(others)} did not"
            )
        in_order = [p.name for p in self.arguments if p.kind in _TAKES]
        if any(p.kind is p.VAR_POSITIONAL for p in self.arguments) and not in_order:
            return itself
        if len(names) > len(in_order):
            raise ValueError(
                f"the inputs are {_listed(names)}; {self.name} takes {_listed(known)}: no name "
                f"matches, and in order it takes {len(in_order)} only"
            )
        return dict(zip(names, in_order, strict=False))


def _is_built(target: Any) -> bool:
    return isinstance(target, nn.Module)


def _called(target: Any, made: bool) -> Any:
    """What takes the tensors: the function, or the module's ``forward``."""
    if made:
        return target.forward if issubclass(target, nn.Module) else target.__call__
    return target.forward if _is_built(target) else target


def _parameters(call: Any) -> list[inspect.Parameter] | None:
    """The parameters, or None of a builtin, which tells nothing."""
    try:
        return list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        return None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
