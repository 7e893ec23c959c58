"""What a call is drawn from: named choices, each with a random stream of its own.

A choice that is made simpler leaves all others as they are, and so a failure can be shrunk choice
by choice. The simplest of the choices comes first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = [
    "FLOATS",
    "HALVES",
    "INTEGERS",
    "SIZES",
    "Call",
    "Draw",
    "Loss",
    "heaviest",
    "over",
    "pooled",
]

T = TypeVar("T")

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
HALVES = (torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
SIZES = (2, 1, 3, 17, 0, 40)
ASKED = ("ignore_index", "teacher_hidden", "teacher_weight")
LADDER = (1.0, 0.0, 1e-30, 1e-3, 8.0, 88.0, 1e4, 6e4)


def over(total: Tensor, count: Tensor, *, term: str) -> Tensor:
    """A normalizer of no particular meaning."""
    return total / (count + 1.5).to(total.dtype)


def pooled(sums: Tensor) -> Tensor:
    """The sum over ranks, of which there is one."""
    return sums


@dataclass
class Call:
    """A call of one loss, and how it is to be evaluated."""

    name: str
    args: dict[str, Any]
    grads: tuple[str, ...]
    """The arguments whose gradient is asked for; the first is the prediction."""
    engine: str = "auto"
    """"auto", "plain", "in one block", "pretend" or "traced"."""
    module: bool = False
    """Whether the module is called, where it has all that the call says."""
    block: int | None = None
    seed: str = ""
    wrong: tuple[str, type[Exception] | tuple[type[Exception], ...], bool] | None = None
    """An argument that is wrong, what the call is to raise, and whether the error may name another:
    two shapes that do not fit do not tell which is wrong."""
    chosen: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """How calls of one loss are drawn, and what they are held to."""

    draw: Callable[[Draw], Call]
    oracle: Callable[[Any], Any]
    """The value of a call's arguments, in float64 and without what has no part in it."""
    rows: int | None = None
    """The first axis of a gradient along which numbers are sums of each other; None: none is."""
    lengths: Callable[[Call], Tensor] | None = None
    """What the prediction's numbers are lengths beside: along each, gradient times length is what
    is rounded."""
    several: Callable[[Call], bool] | None = None
    """Whether a call has more than one gradient, by ties; it is not compared then."""
    kinked: bool | Callable[[Call], bool] = False
    """Whether gradients meet at an edge, and are differences there of the slopes on either side."""
    alike: Callable[[Call], bool] = lambda call: False
    """Whether all classes may be asked for alike, and a gradient be what rounding leaves of equal
    slopes; how large those are, other targets tell."""
    slack: float = 8.0
    """Times what the rounding of a conceded argument moves the exact result by."""
    products: bool = False
    """Whether a product of matrices comes first, in the dtype of its arguments."""
    limit: Callable[[Call], tuple[float | Tensor, float | Tensor]] | None = None
    """By how much a value, and a number of the gradient, may be off: as the docstring says."""
    passed_on: Callable[[Call], dict[str, Tensor]] = lambda call: {}
    """By what such an error of the logits' gradient is multiplied in that of another argument."""
    beside: Callable[[Call], dict[str, Tensor]] = lambda call: {}
    """What the gradient of an argument but the prediction is a difference of."""
    unit: float = 0.0
    """What a value is a difference of, beside its own size: decibels are of logarithms near 1."""
    slope_unit: float = 0.0
    """The same of a gradient: that of a width is of an error and what was expected of it."""
    conceded: Callable[[Call], set[str]] = lambda call: set()
    """Arguments whose own rounding no formula can undo: those that it subtracts from a rounded
    number. Whole numbers among them are exact."""
    rounded: Callable[[Call], Mapping[str, float]] = lambda call: {}
    """Arguments whose every number, a whole one too, the first operators round, with what it is
    rounded beside: the chances of a softmax are as if each logit were off by a rounding of 1."""
    rigid: tuple[str, ...] = ()
    """Arguments whose numbers belong together, and are not made simpler one by one."""
    dtype: torch.dtype | None = None
    """Of the result, where it is always the same."""
    watched: tuple[str, ...] = ()
    """Results that have no gradient by definition."""
    wrong: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Options by name, and what is out of their range."""


def heaviest(call: Call, name: str) -> float:
    """What a rounding of one value may be multiplied by: all weights, or the largest."""
    weight, reduction = call.args.get(name), call.args.get("reduction", "mean")
    if not isinstance(weight, Tensor) or not weight.numel() or reduction not in ("sum", "none"):
        return 1.0
    size = weight.double().nan_to_num(0.0, 0.0, 0.0).abs()
    return max(1.0, (size.sum() if reduction == "sum" else size.max()).item())


class Draw:
    """One draw: what is forced by name, and for the rest a random stream each."""

    def __init__(self, seed: str, forced: dict[str, int] | None = None) -> None:
        self.seed, self.forced = seed, forced or {}
        self.chosen: dict[str, int] = {}

    def pick(self, label: str, choices: Sequence[T]) -> T:
        at = self.forced.get(label)
        if at is None:
            at = random.Random(f"{self.seed}/{label}").randrange(len(choices))
        self.chosen[label] = at = min(at, len(choices) - 1)
        return choices[at]

    def chance(self, label: str, odds: int) -> bool:
        """True once in so many."""
        return self.pick(label, (False,) * (odds - 1) + (True,))

    def size(self, label: str, *, low: int = 0, high: int = 40) -> int:
        return self.pick(label, [s for s in SIZES if low <= s <= high])

    def stream(self, label: str) -> torch.Generator:
        return torch.Generator().manual_seed(random.Random(f"{self.seed}/{label}").getrandbits(62))

    # ---------------------------------------------------------------------------------- values

    def normal(self, label: str, shape: Sequence[int], scale: float = 1.0) -> Tensor:
        g = self.stream(label)
        return torch.randn(tuple(shape), generator=g, dtype=torch.float64) * scale

    def among(self, label: str, shape: Sequence[int], choices: Sequence[float]) -> Tensor:
        at = torch.randint(len(choices), tuple(shape), generator=self.stream(label))
        return torch.tensor(choices, dtype=torch.float64)[at]

    def mask(self, label: str, shape: Sequence[int], share: float) -> Tensor:
        return torch.rand(tuple(shape), generator=self.stream(label)) < share

    def numbers(self, label: str, shape: Sequence[int], top: float = 6e4) -> Tensor:
        """Numbers of either sign: ordinary ones, one number, or the ladder of nasty ones."""
        kind = self.pick(f"{label} values", ("plain", "zero", "ladder", "some", "constant"))
        if kind == "plain":
            return self.normal(label, shape, self.pick(f"{label} scale", (1.0, 4.0, 1e-3)))
        if kind == "zero":
            return torch.zeros(tuple(shape), dtype=torch.float64)
        ladder = [v for v in LADDER if v <= top] + [-v for v in LADDER if v <= top]
        if kind == "constant":
            return torch.full(tuple(shape), self.pick(f"{label} level", ladder)).double()
        nasty = self.among(label, shape, ladder)
        if kind == "ladder":
            return nasty
        return torch.where(self.mask(f"{label} some", shape, 0.2), nasty, self.normal(label, shape))

    def shares(self, label: str, shape: Sequence[int], *, hard: bool = True) -> Tensor:
        """Numbers from 0 to 1: hard, plain, or close to either end."""
        kinds = ("hard",) * hard + ("plain", "some", "constant", "small")
        kind = self.pick(f"{label} values", kinds)
        ends = self.mask(label, shape, 0.5).double()
        plain = torch.rand(tuple(shape), generator=self.stream(f"{label} share")).double()
        if kind == "hard":
            return ends
        if kind == "plain":
            return plain
        if kind == "small":
            return plain * 1e-6
        if kind == "constant":
            return torch.full(tuple(shape), self.pick(f"{label} level", (0.5, 0.0, 1.0))).double()
        return torch.where(self.mask(f"{label} some", shape, 0.5), ends, plain)

    def weights(self, label: str, shape: Sequence[int]) -> Tensor:
        kind = self.pick(f"{label} values", ("ones", "zeros", "some", "ladder"))
        if kind == "ones":
            return torch.ones(tuple(shape), dtype=torch.float64)
        if kind == "zeros":
            return torch.zeros(tuple(shape), dtype=torch.float64)
        steps = (1.0, 0.0, 0.5, 2.0) if kind == "some" else (1.0, 0.0, 1e-3, 3.7, 1e3)
        return self.among(label, shape, steps)

    # --------------------------------------------------------------------------------- tensors

    def dtype(self, label: str, choices: Sequence[torch.dtype] = FLOATS) -> torch.dtype:
        return self.pick(f"{label} dtype", choices)

    def laid(self, label: str, t: Tensor) -> Tensor:
        """The same numbers, otherwise in memory."""
        kinds = ["contiguous"]
        if t.ndim >= 2:
            kinds += ["transposed"]
        if t.ndim >= 1 and t.numel():
            kinds += ["strided", "offset"]
        if t.ndim == 4:
            kinds += ["channels_last"]
        kind = self.pick(f"{label} layout", kinds)
        if kind == "transposed":
            return t.transpose(0, -1).contiguous().transpose(0, -1)
        if kind == "strided":
            room = t.new_zeros((*t.shape[:-1], 2 * t.shape[-1]))
            room[..., ::2] = t
            return room[..., ::2]
        if kind == "offset":
            room = t.new_zeros(t.numel() + 3)
            room[3:] = t.flatten()
            return room[3:].view(t.shape)
        if kind == "channels_last":
            return t.contiguous(memory_format=torch.channels_last)
        return t.contiguous()

    def tensor(self, label: str, values: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The values in a dtype, in some layout; finite ones stay finite."""
        dtype = self.dtype(label) if dtype is None else dtype
        values = values.double()
        if dtype.is_floating_point:
            top = torch.finfo(dtype).max
            values = torch.where(values.isinf(), values, values.clamp(-top, top))
        return self.laid(label, values.to(dtype))

    def maybe(self, label: str, make: Any, odds: int = 2) -> Any:
        """What ``make`` gives, or None."""
        return make() if self.chance(f"{label} given", odds) else None

    def reduction(self, *, none: bool = True) -> Any:
        return self.pick("reduction", ("mean", "sum", *(("none",) if none else ()), over))

    def way(self) -> str:
        """Most calls as they come, the slow ways for a few."""
        if self.chance("traced", 120):
            return "traced"
        elsewhere = ("auto", "in one block", "pretend")
        return self.pick("engine", ("auto", "plain", self.pick("elsewhere", elsewhere), "auto"))

    def call(self, name: str, args: dict[str, Any], *grads: str, sides: Sequence[str] = ()) -> Call:
        """The call, without arguments that are None; ``sides`` may ask for a gradient too.

        Those stay of which None is no default.
        """
        args = {k: value for k, value in args.items() if value is not None or k in ASKED}
        asked = [side for side in sides if side in args and self.chance(f"{side} learns", 5)]
        return Call(
            name,
            args,
            (*grads, *asked),
            engine=self.way(),
            module=self.chance("module", 4),
            block=self.pick("block", (None, 16, None, 64)),
            seed=self.seed,
            chosen=self.chosen,
        )
