"""Evaluate a formula of rows on the logits of a linear head, which never exist at once.

    z = scale * (hidden @ weight.T + bias),    loss = formula(z, *sides) of each row

Two ways to cut, both with the results that the whole matrix would give (:mod:`aptt.core.head`):

* By tokens. The products with the weight and with the hidden states are taken while a chunk's
  gradient is at hand: three matrix products, as many as with all the logits. The gradients stay in
  float32 and un-normalised until the true upstream gradient arrives, then they are scaled and
  rounded once. They are given away with the first backward; a second one, or an upstream gradient
  for each row, multiplies the logits out once more.
* By vocabulary, where products are bfloat16 and rounded on the way out: four products. For
  cross-entropy of class indices; other formulas, and float16, take float32 products by tokens.

Under ``torch.compile`` the walks are one opaque operator, and the chunks stay. What asks for more
than a gradient of hidden states, weight and bias (a second derivative, ``torch.func``, learned
class weights, a head that is a callable) is left to autograd on checkpointed chunks: the logits of
one chunk at a time, except inside ``torch.func``, which knows no checkpoints.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from aptt.core.engine import against_step, asks, note, obstacle
from aptt.core.formula import Formula, widen
from aptt.core.head import ByTokens, ByVocabulary, Gradients, Head, Wants, chunk_of, slices
from aptt.core.ordinary import inside_functorch, ordinary
from aptt.core.streaming import batched
from aptt.core.vocabulary import Form, Stats

__all__ = ["Head", "HeadFormula", "evaluate_linear", "evaluate_projected"]

Sides = Sequence[Tensor | None]


@dataclass(frozen=True)
class HeadFormula:
    """A formula of rows of logits, known by name so that a compiled graph can refer to it."""

    name: str
    formula: Formula
    columns: int | None = None
    """How many values a row has; None: one, without an axis."""
    cross_entropy: bool = False
    """Whether it is that of :mod:`aptt.core.vocabulary`, which can be cut by vocabulary."""

    def __post_init__(self) -> None:
        _KNOWN[self.name] = self


_KNOWN: dict[str, HeadFormula] = {}


def evaluate_linear(
    formula: HeadFormula,
    head: Head,
    *sides: Tensor | None,
    gather: Literal["values", "total"],
    weight: Tensor | None = None,
    teacher: Head | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    **options: Any,
) -> Tensor:
    """The formula's values on the logits of ``head``, one for each row, or their sum.

    ``sides`` are cut with the rows; with a ``teacher``, its logits come before them, and get a
    gradient only by the plain way. ``weight`` is ``(N,)``, finite, and multiplies the values.
    ``chunk`` is a number of rows. The result is float32, or float64 where an input is.
    """
    run = _Run(formula, options, scale, chunk, gather, _product_dtype(head))
    others = (weight, *(teacher or ()), *sides, scale, *options.values())
    if torch.compiler.is_compiling():
        if against_step(head.hidden, others) is None:
            return run.gathered(run.compiled(head, teacher, sides), weight)
        return run.plain(head, teacher, weight, sides)
    reason = obstacle(head.hidden, others)
    if not all(ordinary(t) for t in head if t is not None):
        reason = "the head is not an ordinary tensor with values"
    chunks = -(-len(head.hidden) // (chunk or chunk_of(head.hidden)))
    note(head.hidden, reason, against_step(head.hidden, others), chunks)
    if reason is None:
        if torch.is_grad_enabled() and asks(head):
            walked: Tensor = _Walk.apply(run, *head, *(teacher or _NOBODY), weight, *sides)
            return walked
        return run.gathered(run.values(head, teacher, sides), weight)
    return run.plain(head, teacher, weight, sides)


def evaluate_projected(
    formula: HeadFormula,
    hidden: Tensor,
    project: Callable[[Tensor], Tensor],
    *sides: Tensor | None,
    gather: Literal["values", "total"],
    weight: Tensor | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    **options: Any,
) -> Tensor:
    """As :func:`evaluate_linear`, where ``project`` makes the logits of a chunk: by autograd."""
    run = _Run(formula, options, scale, chunk, gather, hidden.dtype)
    return run.gathered(run.chunks([(hidden, project)], sides), weight)


_NOBODY = (None, None, None)


def _product_dtype(head: Head) -> torch.dtype:
    """What the products are taken in: what autocast says, else what holds both factors."""
    kind = head.hidden.device.type
    dtype = torch.promote_types(head.hidden.dtype, head.weight.dtype)
    if dtype != torch.float64 and kind != "meta" and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    return torch.float32 if dtype == torch.float16 else dtype


@dataclass(frozen=True)
class _Run:
    """All of a call but its tensors."""

    formula: HeadFormula
    options: dict[str, Any]
    scale: float
    chunk: int | None
    gather: Literal["values", "total"]
    product: torch.dtype

    def gathered(self, values: Tensor, weight: Tensor | None) -> Tensor:
        """The values times their weights, or the sum of that."""
        if weight is not None:
            values = torch.where(weight != 0, values * weight, 0.0)  # what is left out may be inf
        if self.gather == "values":
            return values
        widest = values.dtype if values.device.type == "mps" else torch.float64
        return values.sum(dtype=widest).to(values.dtype)

    # --------------------------------------------------------------------------- the two walks

    def by_vocabulary(self, sides: Sides) -> ByVocabulary | None:
        """The cut by vocabulary, where it applies."""
        if not self.formula.cross_entropy or self.product != torch.bfloat16:
            return None
        (target,), form = sides, self.options["form"]
        if target is None or target.is_floating_point() or self.options["adjustment"] is not None:
            return None
        weights = self.options["class_weight"]
        return ByVocabulary(target, form, weights, self.scale, self.chunk, self.product)

    def by_tokens(self) -> ByTokens:
        """The cut by tokens."""
        return ByTokens(self.formula.formula, self.options, self.scale, self.chunk, self._wide)

    def values(self, head: Head, teacher: Head | None, sides: Sides) -> Tensor:
        """The values alone."""
        with _by_itself(head):
            if cut := self.by_vocabulary(sides):
                return cut.values(cut.count(head))
            values = self.room(head)
            self.by_tokens()(head, teacher, sides, values)
            return values

    def gradients(
        self,
        head: Head,
        teacher: Head | None,
        sides: Sides,
        up: Tensor,
        wants: Wants,
        kept: Sequence[Tensor] = (),
    ) -> Gradients:
        """The gradients, given the gradient ``up`` of each value, and what may have been kept."""
        with _by_itself(head):
            if cut := self.by_vocabulary(sides):
                stats = Stats(*kept) if kept else cut.count(head)
                return cut.differentiate(head, stats, up, wants)
            return self.by_tokens()(head, teacher, sides, self.room(head), up, wants)

    def shape(self, head: Head) -> tuple[int, ...]:
        """That of the values."""
        columns = () if self.formula.columns is None else (self.formula.columns,)
        return (len(head.hidden), *columns)

    def room(self, head: Head) -> Tensor:
        """Memory for the values, with arbitrary content."""
        return head.hidden.new_empty(self.shape(head), dtype=self._wide)

    def upstream(self, head: Head, weight: Tensor | None) -> Tensor:
        """What each value adds to the total."""
        if weight is None:
            return head.hidden.new_ones(self.shape(head), dtype=self._wide)
        return weight.to(self._wide)

    @property
    def _wide(self) -> torch.dtype:
        return torch.float64 if self.product == torch.float64 else torch.float32

    # ------------------------------------------------------------------------ by autograd alone

    def plain(
        self, head: Head, teacher: Head | None, weight: Tensor | None, sides: Sides
    ) -> Tensor:
        """A head in a half type is widened whole, so that its gradient is summed in float32."""

        def project(of: Head) -> Callable[[Tensor], Tensor]:
            w, b = of.weight.to(self._wide), None if of.bias is None else of.bias.to(self._wide)

            def logits(h: Tensor) -> Tensor:
                with _by_itself(of):
                    return F.linear(h.to(self._wide), w, b)

            return logits

        heads = [(of.hidden, project(of)) for of in (head, teacher) if of is not None]
        return self.gathered(self.chunks(heads, sides), weight)

    def chunks(
        self, heads: Sequence[tuple[Tensor, Callable[[Tensor], Tensor]]], sides: Sides
    ) -> Tensor:
        """The values; a chunk's logits are multiplied out again for backward, and not kept."""
        projects = [project for _, project in heads]

        def values(hidden: Sequence[Tensor], cut: Sides) -> Tensor:
            z, *taught = (widen(f(h)) for f, h in zip(projects, hidden, strict=True))
            cut = [t.to(z.dtype) if t is not None and t.is_floating_point() else t for t in cut]
            x, sides, formula = z * self.scale, [*taught, *cut], self.formula.formula
            kept = formula.measure(x, sides, self.options)
            return formula.define(x, kept, sides, self.options)

        hidden = [h for h, _ in heads]
        n, step = len(hidden[0]), self.chunk or chunk_of(hidden[0])
        if n <= step or inside_functorch():
            return values(hidden, sides)
        found = []
        for rows in slices(n, step):
            cut = [None if t is None else t[rows] for t in sides]
            some = [h[rows] for h in hidden]
            found.append(checkpoint(values, some, cut, use_reentrant=False))
        return torch.cat(found)

    # --------------------------------------------------------------------------- one operator

    def compiled(self, head: Head, teacher: Head | None, sides: Sides) -> Tensor:
        """The values, by an operator that the compiler does not look into."""
        tensors = {k: v for k, v in self.options.items() if isinstance(v, Tensor)}
        rest = {
            k: tuple(v) if isinstance(v, Form) else v
            for k, v in self.options.items()
            if k not in tensors
        }
        more = [*(teacher or _NOBODY), *sides, *tensors.values()]
        there = tuple(t is not None for t in more)
        numbers: list[float] = []
        plain = _without_numbers((self.scale, tuple(rest.items())), numbers)
        call = repr((self.formula.name, plain, tuple(tensors), there, str(self.product)))
        return _rows(*head, [t for t in more if t is not None], numbers, self.chunk, call)


def _by_itself(head: Head) -> AbstractContextManager[object]:
    """Products in the precision that was chosen for them, not in autocast's."""
    kind = head.hidden.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


class _Walk(torch.autograd.Function):
    """The walks as one differentiable step."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *tensors: Tensor | None) -> Tensor:
        head, teacher, weight, sides = _sorted(tensors)
        wants = ctx.needs_input_grad[1:4]
        ctx.run, ctx.ahead = run, None
        kept: tuple[Tensor, ...] = ()
        with _by_itself(head):
            if cut := run.by_vocabulary(sides):
                stats = cut.count(head)
                values, kept = cut.values(stats), tuple(t for t in stats if t is not None)
            else:
                values, up = run.room(head), None
                if run.gather == "total":
                    up = run.upstream(head, weight)
                ctx.ahead = run.by_tokens()(head, teacher, sides, values, up, wants) or None
        ctx.inputs = len(tensors)
        ctx.save_for_backward(*tensors, *kept)
        return run.gathered(values, weight)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        run: _Run = ctx.run
        saved = ctx.saved_tensors
        tensors, kept = saved[: ctx.inputs], saved[ctx.inputs :]
        head, teacher, weight, sides = _sorted(tensors)
        wants = ctx.needs_input_grad[1:4]
        if torch.is_grad_enabled() or batched(up):  # a gradient of this one, or many at once
            grads = _again(run, tensors, wants, up)
        elif run.gather == "values" or kept:
            up = up.expand(run.shape(head))
            grads = run.gradients(
                head, teacher, sides, up if weight is None else up * weight, wants, kept
            )
        else:
            grads, ctx.ahead = ctx.ahead, None
            if grads is None:  # given away before
                up_of_rows = run.upstream(head, weight)
                grads = run.gradients(head, teacher, sides, up_of_rows, wants)
            for t in grads:
                if t is not None:
                    t.mul_(up)
        return (None, *_rounded(grads, head), *(None for _ in tensors[3:]))


def _rounded(grads: Gradients, head: Head) -> Gradients:
    """Each gradient in the dtype of what it belongs to."""
    pairs = zip(grads, head, strict=True)
    return [None if g is None or t is None else g.to(t.dtype) for g, t in pairs]


def _again(run: _Run, tensors: Sequence[Tensor | None], wants: Wants, up: Tensor) -> Gradients:
    """The gradients by autograd through the plain way, differentiable once more."""
    head, teacher, weight, sides = _sorted(tensors)
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        value = run.plain(head, teacher, weight, sides)
    wanted = [t for t, want in zip(head, wants, strict=True) if want and t is not None]
    found = iter(torch.autograd.grad(value, wanted, up, create_graph=again))
    return [next(found) if want else None for want in wants]


def _sorted(
    tensors: Sequence[Tensor | None],
) -> tuple[Head, Head | None, Tensor | None, Sequence[Tensor | None]]:
    """Head, teacher, weight of the rows, and sides."""
    head, taught, (weight, *sides) = tensors[:3], tensors[3:6], tensors[6:]
    return Head._make(head), None if taught[0] is None else Head._make(taught), weight, sides


# ----------------------------------------------------------------------- the operator, registered


_NUMBER = "#"


def _without_numbers(value: Any, numbers: list[float]) -> Any:
    """A mark for each number, which is put aside: it may be a symbol, and stand for others too."""
    if isinstance(value, tuple):
        return tuple(_without_numbers(v, numbers) for v in value)
    if value is None or isinstance(value, str | bool):
        return value
    numbers.append(float(value))
    return _NUMBER


def _with_numbers(value: Any, numbers: Iterator[float]) -> Any:
    if isinstance(value, tuple):
        return tuple(_with_numbers(v, numbers) for v in value)
    return next(numbers) if value == _NUMBER else value


def _decoded(
    more: Sequence[Tensor], numbers: Sequence[float], chunk: int | None, call: str
) -> tuple[_Run, Head | None, Sides]:
    name, plain, tensors, there, product = ast.literal_eval(call)
    scale, rest = _with_numbers(plain, iter(numbers))
    options = dict(rest)
    if "form" in options:
        options["form"] = Form(*options["form"])
    given = iter(more)
    every = [next(given) if is_there else None for is_there in there]
    taught, sides = every[:3], every[3 : len(every) - len(tensors)]
    options |= dict(zip(tensors, every[len(every) - len(tensors) :], strict=True))
    dtype = getattr(torch, product.removeprefix("torch."))
    teacher = None if taught[0] is None else Head._make(taught)
    return _Run(_KNOWN[name], options, scale, chunk, "values", dtype), teacher, sides


_CALL = "Tensor hidden, Tensor weight, Tensor? bias, Tensor[] more, float[] numbers, SymInt? chunk"


@torch.library.custom_op(
    "aptt::linear_rows", mutates_args=(), schema=f"({_CALL}, str call) -> Tensor"
)
def _rows(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, more: Sequence[Tensor], *call: Any
) -> Tensor:
    run, teacher, sides = _decoded(more, *call)
    return run.values(Head(hidden, weight, bias), teacher, sides)


@_rows.register_fake
def _(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, more: Sequence[Tensor], *call: Any
) -> Tensor:
    return _decoded(more, *call)[0].room(Head(hidden, weight, bias))


@torch.library.custom_op(
    "aptt::linear_rows_backward",
    mutates_args=(),
    schema=f"({_CALL}, str call, Tensor up, bool[] wants) -> Tensor[]",
)
def _rows_backward(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, more: Sequence[Tensor], *call: Any
) -> list[Tensor]:
    *numbers, up, wants = call
    run, teacher, sides = _decoded(more, *numbers)
    head = Head(hidden, weight, bias)
    grads = run.gradients(head, teacher, sides, up, wants)
    return [
        g.to(t.dtype) for g, t in zip(grads, head, strict=True) if g is not None and t is not None
    ]


@_rows_backward.register_fake
def _(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, more: Sequence[Tensor], *call: Any
) -> list[Tensor]:
    head, wants = (hidden, weight, bias), call[-1]
    return [
        torch.empty_like(t) for t, want in zip(head, wants, strict=True) if want and t is not None
    ]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    hidden, weight, bias, more, *ctx.call = inputs
    ctx.save_for_backward(hidden, weight, bias, *more)


def _differentiate(ctx: Any, up: Tensor) -> tuple[Any, ...]:
    hidden, weight, bias, *more = ctx.saved_tensors
    wants = list(ctx.needs_input_grad[:3])
    found = iter(_rows_backward(hidden, weight, bias, more, *ctx.call, up.contiguous(), wants))
    grads = [next(found) if want else None for want in wants]
    return (*grads, [None] * len(more), *(None for _ in ctx.call))


_rows.register_autograd(_differentiate, setup_context=_remember)
