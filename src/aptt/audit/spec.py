"""What the audit is told of a loss: one row, with the cases in which to call it.

A row says only what cannot be read from the loss itself: how to make inputs, which options to set,
what a perfect and a hopeless prediction look like, what is to be refused. Everything else, the
promises do. A promise that does not apply is named in ``exempt``, with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Case", "Inputs", "Maker", "Options", "Refused", "Scaling", "Spec", "Trial", "case"]

Inputs = dict[str, Tensor]
"""The tensors of a call by their names; the first is the prediction."""

Options = Mapping[str, Any]

Maker = Callable[[torch.Generator, int], Inputs]
"""Makes inputs of ``n`` samples, in float64."""


@dataclass(frozen=True)
class Refused:
    """A call that must raise ``error`` with ``naming`` in its message."""

    about: str
    naming: str
    options: Options = field(default_factory=dict)
    change: Callable[[Inputs], Inputs] = dict
    error: type[Exception] = ValueError
    exercises: bool = False
    """Whether to refuse is what its option, with a value that is good in itself, is for."""


@dataclass(frozen=True)
class Scaling:
    """How inputs are measured in another unit, and the power of it that the loss takes."""

    by: Callable[[Inputs, float], Inputs]
    degree: int = 0


@dataclass(frozen=True)
class Case:
    """One way to call a loss. What is None is as the row has it; see :class:`Spec`."""

    options: Options
    inputs: Maker | None = None
    axis: int = 0  # along which the samples lie, and are removed
    features: int | None = None
    perfect: Callable[[Inputs, Options], tuple[Inputs, float | None]] | None = None
    extremes: Callable[[], Inputs] | None = None
    bound: Callable[[Inputs], Tensor] | None = None
    exempt: Mapping[str, str] = field(default_factory=dict)


def case(
    inputs: Maker | None = None,
    *,
    axis: int = 0,
    features: int | None = None,
    perfect: Callable[[Inputs, Options], tuple[Inputs, float | None]] | None = None,
    extremes: Callable[[], Inputs] | None = None,
    bound: Callable[[Inputs], Tensor] | None = None,
    exempt: Mapping[str, str] | None = None,
    **options: Any,
) -> Case:
    """A :class:`Case`, with the options of the loss as keywords."""
    return Case(options, inputs, axis, features, perfect, extremes, bound, exempt or {})


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A row: a loss, and what its promises are checked with."""

    name: str
    function: Callable[..., Tensor]
    module: Callable[..., nn.Module] | None = None
    inputs: Maker
    cases: Mapping[str, Case]
    features: int | None = None
    """The axis of the prediction that makes one value: classes, or the numbers of a box."""
    joint: bool = False
    """Whether a value depends on many positions, as in a ratio of sums."""
    composite: bool = False
    """Whether it is a sum of terms, each with a count of its own: there is no ``"none"``."""
    walks: bool = True
    """Whether it is made with :mod:`aptt.core.streaming`, and so has two ways to go."""
    stranger: bool = False
    """Whether it has conventions of its own: any error refuses, and its state is its business."""
    always_reduces: bool = False
    """Whether it is a stranger without a reduction, whose values are its losses of one sample."""
    rounding: float = 0.0
    """How exact it is at best, relatively; of a stranger that makes float32 of float64."""
    within: tuple[float, float] = (-torch.inf, torch.inf)
    """Where the predictions of a stranger can lie; of probabilities, between 0 and 1."""
    asks: Mapping[str, str] = field(default_factory=dict)
    """What it has to ask of an accelerator, with the reason: ``"kernels"`` that grow with the
    batch, or by its name an operator for which the host waits."""
    weighs: Sequence[str] = ()
    """The options of a stranger, some of which may be weights."""
    notes: Sequence[str] = ()
    """What was deduced of a stranger's inputs, and what is odd about them."""
    terms: int = 1
    """How many terms it adds up, each counted, and walked, by itself."""
    reductions: Sequence[str] = ("mean", "sum", "none")
    """The named reductions that it has; one whose terms differ in shape has no ``"none"``."""
    hide: Callable[[Inputs, Options, Tensor], Inputs] | None = None
    """Mark as ignored, by a target value or a weight, all positions but ``keep``."""
    count: Callable[[Inputs, Options], Tensor | float | Mapping[str, Tensor]] | None = None
    """What the mean divides by; of a composite, each term by its name."""
    perfect: Callable[[Inputs, Options], tuple[Inputs, float | None]] | None = None
    """Inputs with the best prediction, and the value there if it is known exactly."""
    least_within: float = 0.0
    """How far from that value rounding may lead, in the dtype's epsilon; 0 for exactly there."""
    hopeless: Callable[[Inputs, Options], Inputs] | None = None
    """Inputs with predictions that are confidently wrong, in every sample."""
    extremes: Callable[[], Inputs] | None = None
    """The hardest inputs there are, all finite or masked by -inf; at most 64 samples."""
    alive: Callable[[Inputs], Tensor] | None = None
    """Where, at the hardest inputs, the prediction must have a slope: a mask of its shape."""
    bound: Callable[[Inputs], Tensor] | None = None
    """The largest gradient of a value that the loss allows itself, against the prediction."""
    scaling: Scaling | None = None
    frozen: Mapping[str, Callable[[Inputs, Options], Callable[[Tensor], Tensor]]] = field(
        default_factory=dict
    )
    """Factors held constant by definition: the loss, unreduced, with the factor truly fixed."""
    neutral: Mapping[str, str] = field(default_factory=dict)
    """Options that choose how, and never what: setting them must change nothing."""
    refused: Sequence[Refused] = ()
    exempt: Mapping[str, str] = field(default_factory=dict)
    """Promises that do not apply, each with the reason."""

    def trials(self, device: torch.device | str = "cpu") -> list[Trial]:
        """Every case, ready to call."""
        return [
            Trial(self, label, case, torch.device(device)) for label, case in self.cases.items()
        ]

    @property
    def rounds(self) -> bool:
        """Whether it is a stranger that makes float32 of float64."""
        return self.stranger and self.rounding > 0

    def defaults(self) -> dict[str, Any]:
        """The options of the function, each with its default; tensors that come with a call too."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}


@dataclass(frozen=True)
class Trial:
    """One case of a row, on a device."""

    spec: Spec
    label: str
    case: Case
    device: torch.device

    def inputs(self, n: int = 11, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Inputs:
        """Inputs of ``n`` samples, always the same for a seed."""
        make = self.case.inputs or self.spec.inputs
        return self.cast(make(torch.Generator().manual_seed(seed), n), dtype)

    def extremes(self) -> Inputs:
        """The hardest inputs of the case, in float64."""
        made = self.case.extremes or self.spec.extremes
        if made is None:
            raise AssertionError(f"{self.spec.name} does not say what is hard")
        return self.cast(made(), torch.float64)

    def cast(self, inputs: Inputs, dtype: torch.dtype) -> Inputs:
        """Inputs on the device of the trial, the floating ones in ``dtype``."""
        return {
            name: t.to(self.device, dtype if t.is_floating_point() else t.dtype)
            for name, t in inputs.items()
        }

    def options(self, **changed: Any) -> dict[str, Any]:
        """The options of the case, some changed. A composite has its mean for ``"none"``."""
        if self.spec.composite and changed.get("reduction") == "none":
            changed["reduction"] = "mean"
        options = {**self.case.options, **changed}
        return {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in options.items()}

    def loss(self, inputs: Inputs, **changed: Any) -> Tensor:
        """Call the function."""
        return self.spec.function(**inputs, **self.options(**changed))

    def of(self, inputs: Inputs, **changed: Any) -> Callable[[Tensor], Tensor]:
        """The loss as a function of the prediction alone."""
        name, options = self.prediction(inputs), self.options(**changed)
        return lambda x: self.spec.function(**{**inputs, name: x}, **options)

    @property
    def least_reduced(self) -> str:
        """The reduction that adds up as little as the loss allows."""
        return self.spec.reductions[-1]

    def gradient(
        self, inputs: Inputs, up: Tensor | float = 1.0, **changed: Any
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the gradient of ``up * loss`` summed with respect to the prediction."""
        x = inputs[self.prediction(inputs)].detach().requires_grad_()
        value = self.of(inputs, **changed)(x)
        (grad,) = torch.autograd.grad((value * up).sum(), x)
        return value.detach(), grad

    def module(self, **changed: Any) -> nn.Module:
        """The module form, with the options of the case."""
        if self.spec.module is None:
            raise AssertionError(f"{self.spec.name} has no module form")
        return self.spec.module(**self.options(**changed))

    @staticmethod
    def prediction(inputs: Inputs) -> str:
        """The name of the prediction."""
        return next(iter(inputs))

    def take(self, inputs: Inputs, index: Tensor) -> Inputs:
        """Some of the samples."""
        index = index.to(self.device)
        return {name: t.index_select(self.case.axis, index) for name, t in inputs.items()}

    def many(self, inputs: Inputs) -> int:
        """How many samples there are."""
        return inputs[self.prediction(inputs)].shape[self.case.axis]

    def positions(self, inputs: Inputs) -> torch.Size:
        """The shape of what can be ignored: the prediction without its features."""
        x, axis = inputs[self.prediction(inputs)], self._features
        return x.shape if axis is None else x.movedim(axis, 0).shape[1:]

    def samples(self, inputs: Inputs, some: Tensor) -> Tensor:
        """A mask of samples, as a mask of positions."""
        shape = self.positions(inputs)
        view = [1] * len(shape)
        view[self.case.axis] = -1
        return some.to(self.device).view(view).expand(shape)

    def hidden(
        self, inputs: Inputs, keep: Tensor, poison: float, *, weights: bool = False
    ) -> Inputs:
        """Inputs with all positions but ``keep`` ignored, and ``poison`` in all that is there.

        With ``weights`` poisoned too, where it is the target that marks them; see :meth:`marks`.
        """
        if self.spec.hide is None:
            raise AssertionError(f"{self.spec.name} does not say how to hide a position")
        poisoned = {name: self._poisoned(inputs, t, ~keep, poison) for name, t in inputs.items()}
        if not weights:
            return self.spec.hide(poisoned, self.options(), keep)
        rest = {name: t for name, t in poisoned.items() if not _is_weight(name)}
        return {**poisoned, **self.spec.hide(rest, self.options(), keep)}

    def marks(self, inputs: Inputs) -> bool:
        """Whether a position with a weight can be ignored by its target alone."""
        shape = self.positions(inputs)
        rest = {name: t for name, t in inputs.items() if not _is_weight(name)}
        marked = any(not t.is_floating_point() and t.shape == shape for t in rest.values())
        if not marked or len(rest) == len(inputs) or self.spec.hide is None:
            return False
        keep = torch.ones(shape, dtype=torch.bool, device=self.device)
        return set(self.spec.hide(rest, self.options(), keep)) == set(rest)

    def _poisoned(self, inputs: Inputs, t: Tensor, drop: Tensor, poison: float) -> Tensor:
        """A tensor with ``poison`` wherever all that it belongs to is dropped."""
        x, axis = inputs[self.prediction(inputs)], self._features
        if not t.is_floating_point():
            return t
        if axis is not None and t.ndim == x.ndim and t.movedim(axis, 0).shape[1:] == drop.shape:
            return t.masked_fill(drop.unsqueeze(axis), poison)
        if t.ndim and t.shape == drop.shape[: t.ndim]:  # a number for each, or for each sample
            return t.masked_fill(drop.reshape(*t.shape, -1).all(-1), poison)
        return t

    @property
    def _features(self) -> int | None:
        return self.spec.features if self.case.features is None else self.case.features


def _is_weight(name: str) -> bool:
    return "weight" in name.split("_")
