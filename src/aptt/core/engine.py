"""The one choice: how a formula is evaluated, and the switch that overrules it.

    plain    the definition under autograd: serves everything, keeps what autograd keeps
    walk     the formula's own gradient, in blocks, eagerly             :mod:`aptt.core.streaming`
    traced   the formula's own gradient, inside ``torch.compile``          :mod:`aptt.core.traced`

All give the same value and gradient. :func:`evaluate` is the only entry.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from aptt.core.formula import Call, Formula, Gather, Sides
from aptt.core.ordinary import bare, inside_functorch, ordinary
from aptt.core.precision import wide
from aptt.core.streaming import Walk
from aptt.core.traced import traced

__all__ = [
    "Decision",
    "against_step",
    "asks",
    "at_once",
    "block_of",
    "divided",
    "engine",
    "evaluate",
    "note",
    "obstacle",
    "walking",
]


class _Here(threading.local):
    """What this thread asked for."""

    mode: Literal["auto", "plain"] = "auto"
    block: int | None = None  # of the audit: blocks so small that a test has many
    watch: Callable[[list[int]], None] | None = None
    in_one: bool = False  # of the audit: as on an accelerator
    log: list[Decision] | None = None


_here = _Here()


class engine:
    """How losses are evaluated from here on, in this thread: as a call, or in a ``with`` block.

    Args:
        mode: ``"auto"`` takes the fastest way that gives what is asked for. ``"plain"`` takes
            plain PyTorch under autograd always: slower, with more memory, and open to every
            transform, hook and tracer that PyTorch has.

    Raises:
        ValueError: an unknown mode.

    A loss reads the switch when it is called; backward follows the way its forward took. Inside
    ``torch.compile`` a change of the switch compiles once more.

    Example:
        >>> import torch
        >>> from aptt.loss import cross_entropy
        >>> logits, target = torch.zeros(2, 4), torch.tensor([0, 3])
        >>> with engine("plain"):
        ...     round(cross_entropy(logits, target).item(), 4)
        1.3863
    """

    def __init__(self, mode: Literal["auto", "plain"]) -> None:
        if mode not in ("auto", "plain"):
            raise ValueError(f"mode: got {mode!r}, wanted 'auto' or 'plain'")
        self._before = _here.mode
        _here.mode = mode

    def __enter__(self) -> engine:
        return self

    def __exit__(self, *error: object) -> None:
        _here.mode = self._before

    @staticmethod
    def explain(loss: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Decision]:
        """Which way each formula of a call takes, and what speaks against the others.

        Args:
            loss: a loss of this package, as a function or a module.
            args: what it is called with; the call is made.
            kwargs: likewise.

        Returns:
            One :class:`Decision` for each formula that was evaluated; print them.

        Example:
            >>> import torch
            >>> from aptt.loss import giou_loss
            >>> boxes = torch.rand(3, 4).cumsum(1)
            >>> print(*engine.explain(giou_loss, boxes, boxes + 1))
            (3, 4) torch.float32 on cpu: walk in 1 block; traced inside torch.compile
        """
        before, _here.log = _here.log, []
        try:
            loss(*args, **kwargs)
            return _here.log
        finally:
            _here.log = before


@contextmanager
def walking(
    block: int | None, watch: Callable[[list[int]], None], *, in_one: bool = False
) -> Iterator[None]:
    """Walk in blocks of so many elements, and say how each walk was cut: for tests.

    ``in_one``: as on an accelerator, in one block and without a look at values.
    """
    before = _here.block, _here.watch, _here.in_one
    _here.block, _here.watch, _here.in_one = block, watch, in_one
    try:
        yield
    finally:
        _here.block, _here.watch, _here.in_one = before


def block_of(formula: Formula) -> int:
    """Elements in a block of a walk of this formula on a CPU."""
    return _here.block or formula.block


class Decision(NamedTuple):
    """How one prediction was evaluated, and why not otherwise."""

    prediction: str
    way: Literal["plain", "walk"]
    """What was taken."""
    blocks: int
    compiled: Literal["plain", "traced"]
    """What the same call takes inside ``torch.compile``."""
    against_walk: str | None
    against_traced: str | None

    def __str__(self) -> str:
        """As a sentence."""
        taken = self.way + (f" ({self.against_walk})" if self.against_walk else "")
        if self.way == "walk":
            taken += f" in {self.blocks} block" + "s" * (self.blocks > 1)
        inside = self.compiled + (f" ({self.against_traced})" if self.against_traced else "")
        return f"{self.prediction}: {taken}; {inside} inside torch.compile"


def evaluate(
    formula: Formula,
    x: Tensor,
    *sides: Tensor | None,
    gather: Gather,
    weight: Tensor | None = None,
    over: Tensor | float | None = None,
    **options: Any,
) -> Tensor:
    """The formula's values over all of ``x``, gathered; differentiable in ``x``.

    ``sides`` are cut with ``x``; ``options`` are passed whole to each block. ``weight`` has the
    shape of the values: it multiplies them, and where it is 0 or False the element counts as
    removed, whatever it holds. A total is divided by ``over``; over 0 it is 0. The result is
    float32 where ``x`` is a half type, and has the dtype of ``x`` otherwise. A gradient that
    another tensor than ``x`` asks for is given, by the definition.
    """
    x, weight, *rest = map(bare, (x, weight, *sides))
    sides, options = (*rest,), {name: bare(value) for name, value in options.items()}
    if weight is not None and weight.is_floating_point():
        weight = weight.to(wide(x.dtype))
    call = Call(formula, gather, options)
    others = (weight, *sides, *options.values())
    if torch.compiler.is_compiling():
        learns = torch.is_grad_enabled() and x.requires_grad
        if learns and formula.step is not None and against_step(x, others) is None:
            return divided(traced(call, x, weight, sides), over)
        return divided(call.plain(x, weight, sides), over)
    reason = obstacle(x, (over, *others))
    if _here.log is not None:
        against_traced = against_step(x, others)
        if against_traced is None and formula.step is None:
            against_traced = "autograd of this formula compiles as well"
        cut = formula.block if x.device.type == "cpu" else max(x.numel(), 1)
        note(x, reason, against_traced, -(-x.numel() // cut))
    if reason is not None:
        return divided(call.plain(x, weight, sides), over)
    return _walked(call, x, weight, sides, over)


def _walked(
    call: Call, x: Tensor, weight: Tensor | None, sides: Sides, over: Tensor | float | None
) -> Tensor:
    """By hand, in blocks; a small prediction on a CPU by the form for few, if that is finite."""
    removes, watch = weight is not None, _here.watch
    if not x.is_cpu or _here.in_one:
        number = None if isinstance(over, Tensor) else over
        way, block = (call.in_one(), None) if _here.block is None else (call, _here.block)
        value = Walk(way, call, number, removes, block, watch)(x, weight, sides)
        return divided(value, over) if isinstance(over, Tensor) else value
    # here a look costs no host sync
    if weight is not None and bool(weight.all()):
        removes, weight = False, None if weight.dtype == torch.bool else weight
    over = over.item() if isinstance(over, Tensor) else over
    few, block = call.formula.few, _here.block or call.formula.block
    if few is not None and at_once(x):
        value = Walk(call.of(few), call, over, removes, block, watch)(x, weight, sides)
        if math.isfinite((value.detach().sum() if value.ndim else value).item()):
            return value
    return Walk(call, call, over, removes, block, watch)(x, weight, sides)


_FEW = 2**15  # elements: on a CPU a launch, some 3 us, costs as much as 2000 exponentials


def at_once(x: Tensor) -> bool:
    """Whether launches cost more than the elements of ``x``: in one block, eagerly.

    On an accelerator they do, and on a CPU where ``x`` is small. A formula may have a form for this
    case, and one for blocks and for a compiler; its author asks here which one to evaluate.
    """
    if torch.compiler.is_compiling() or _here.block is not None:
        return False
    return not x.is_cpu or x.numel() <= _FEW


def divided(total: Tensor, over: Tensor | float | None) -> Tensor:
    """``total / over``; over nothing it is 0, on the graph."""
    if over is None:
        return total
    if not isinstance(over, Tensor):
        return total / over if over else total * 0.0
    if not over.is_floating_point():  # a count: in place of nothing, infinity
        return total / torch.nn.functional.threshold(over.to(total.dtype), 0.0, torch.inf)
    nothing = over == 0
    return torch.where(nothing, 0.0, total / torch.where(nothing, 1, over).to(total.dtype))


def obstacle(x: Tensor, others: Iterable[object] = ()) -> str | None:
    """What speaks against a gradient by hand in eager mode; None: nothing."""
    for t in (x, *others):
        if isinstance(t, Tensor) and not ordinary(t):
            return "a tensor is not an ordinary one with values"
    if forward_ad.unpack_dual(x).tangent is not None:
        return "forward mode asks for a tangent"
    return against_step(x, others)


def against_step(x: Tensor, others: Iterable[object]) -> str | None:
    """What speaks against a formula's own gradient, under a compiler too."""
    if _here.mode == "plain":
        return "engine('plain') is set"
    if inside_functorch():
        return "a torch.func transform is running"
    if x.numel() == 0:
        return "there is nothing to evaluate"
    if torch.is_grad_enabled() and asks(others):
        return "another tensor than the prediction asks for a gradient"
    return None


def asks(values: Iterable[object]) -> bool:
    """Whether a tensor among them, or in a tuple of theirs, asks for a gradient."""
    for v in values:
        if v.requires_grad if isinstance(v, Tensor) else isinstance(v, tuple) and asks(v):
            return True
    return False


def note(x: Tensor, against_walk: str | None, against_traced: str | None, blocks: int) -> None:
    """Say how a prediction is evaluated, if anybody listens."""
    if _here.log is not None:
        _here.log.append(
            Decision(
                f"{tuple(x.shape)} {x.dtype} on {x.device.type}",
                "plain" if against_walk else "walk",
                blocks,
                "plain" if against_traced else "traced",
                against_walk,
                against_traced,
            )
        )
