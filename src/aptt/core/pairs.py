"""Statistics of the rows of a matrix of pairs, which never exists at once.

    s[i, j]  = scale * x[i] . y[j] + bias

Which pairs a row counts, and as what, is said by a few numbers of rows and of columns
(:class:`Sides`) and worked out inside a chunk of rows: memory grows with N and with M, and not with
their product. Forward keeps the statistics, a few numbers a row; backward multiplies the chunk out
again: four products in all, in float32 at least, under autocast too.

Under ``torch.compile`` the walk is one opaque operator, and the chunks stay. What asks for more
than a gradient of x, y, scale and bias is left to autograd on checkpointed chunks, inside
``torch.func`` on the whole matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aptt.core.engine import against_step, asks, note, obstacle
from aptt.core.logistic import softplus
from aptt.core.ordinary import batched, inside_functorch, ordinary
from aptt.core.precision import by_itself
from aptt.core.softmax import exp_of_gaps

__all__ = ["NEGATIVES", "POSITIVES", "QUESTIONS", "PairFormula", "Sides", "evaluate_pairs", "marks"]

_PAIRS, _MANY_PAIRS = 2**22, 2**26  # in a chunk; on an accelerator


class Sides(NamedTuple):
    """What says which pairs are positive, which negative, and which are none."""

    target: Tensor | None = None
    """``(N,)``: the column of a row's positive."""
    row_id: Tensor | None = None
    """``(N,)``; a column of the same id is no negative."""
    column_id: Tensor | None = None
    """``(M,)``."""
    itself: Tensor | None = None
    """``(N,)``: the column that is the row itself, and no pair."""
    open: Tensor | None = None
    """``(M,)``: which columns there are."""

    def rows(self, some: slice) -> Sides:
        """Those of some rows."""
        of_rows = (self.target, self.row_id, self.itself)
        target, row_id, itself = (None if t is None else t[some] for t in of_rows)
        return Sides(target, row_id, self.column_id, itself, self.open)


def marks(sides: Sides, columns: int, many: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Positive and negative pairs of some rows; equal ids are positive if ``many``, else none."""
    at = torch.arange(columns, device=like.device)
    none = like.new_zeros((), dtype=torch.bool).expand(len(like), columns)
    mine = none if sides.target is None else at == sides.target.unsqueeze(1)
    same = none
    if sides.row_id is not None and sides.column_id is not None:
        same = sides.row_id.unsqueeze(1) == sides.column_id
    negative, positive = ~(mine | same), mine | same if many else mine
    if sides.itself is not None:
        other = at != sides.itself.unsqueeze(1)
        negative, positive = negative & other, positive & other
    if sides.open is not None:
        negative, positive = negative & sides.open, positive & sides.open
    return positive, negative


@dataclass(frozen=True)
class PairFormula:
    """What is known of a row of pairs, as pure functions of a chunk."""

    rows: Callable[[Tensor, Tensor, Tensor], Tensor]
    """``rows(s, positive, negative)``: ``(K, n)``, differentiable in s."""
    slope: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    """``slope(s, positive, negative, stats, up)``: the gradient of s."""
    count: int
    """K."""
    many: bool = True
    """Whether pairs of equal ids are positive."""


def _largest(s: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
    """The others as -inf, and the largest of each row as a constant."""
    only = s.masked_fill(~some, -torch.inf)
    return only, only.detach().amax(1).clamp(min=torch.finfo(s.dtype).min)


def _negatives(s: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    only, top = _largest(s, negative)
    return torch.stack((top, exp_of_gaps(only - top.unsqueeze(1)).sum(1)))


def _negatives_slope(
    s: Tensor, positive: Tensor, negative: Tensor, stats: Tensor, up: Tensor
) -> Tensor:
    gap = (s - stats[0].unsqueeze(1)).masked_fill_(~negative, -torch.inf)
    return exp_of_gaps(gap).mul_(up[1].unsqueeze(1))


def _positives(s: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    against = _negatives(s, positive, negative)
    only, top = _largest(s, positive)
    gap = only - top.unsqueeze(1)
    found, count = exp_of_gaps(gap).sum(1), positive.sum(1).to(s.dtype)
    mean = torch.where(positive, gap, 0.0).sum(1) / count.clamp(min=1)
    # of one positive it is 0, and has no slope to cancel
    spread = torch.where(count > 1, torch.where(count > 1, found, 1.0).log() - mean, 0.0)
    return torch.cat((against, torch.stack((top, found, spread, count))))


def _positives_slope(
    s: Tensor, positive: Tensor, negative: Tensor, stats: Tensor, up: Tensor
) -> Tensor:
    # of the spread, softmax - 1 / count: of one positive exactly 0
    ds = _negatives_slope(s, positive, negative, stats, up)
    gap = (s - stats[2].unsqueeze(1)).masked_fill_(~positive, -torch.inf)
    raised, found, count = exp_of_gaps(gap), stats[3], stats[5].clamp(min=1)
    share = raised / torch.where(found > 0, found, 1.0).unsqueeze(1)
    share.sub_(positive / count.unsqueeze(1))
    return ds.addcmul_(raised, up[3].unsqueeze(1)).addcmul_(share, up[4].unsqueeze(1))


def _questions(s: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    wrong = softplus(torch.where(positive, -s, s))
    return torch.where(positive | negative, wrong, 0.0).sum(1).unsqueeze(0)


def _questions_slope(
    s: Tensor, positive: Tensor, negative: Tensor, stats: Tensor, up: Tensor
) -> Tensor:
    ds = torch.where(positive, -torch.sigmoid(-s), torch.sigmoid(s))
    return ds.masked_fill_(~(positive | negative), 0.0).mul_(up[0].unsqueeze(1))


NEGATIVES = PairFormula(_negatives, _negatives_slope, 2, many=False)
"""The largest negative s, and the sum of ``exp(s - largest)`` over them."""
POSITIVES = PairFormula(_positives, _positives_slope, 6)
"""These two; the same of the positives; ``log sum exp - mean`` of them; how many they are."""
QUESTIONS = PairFormula(_questions, _questions_slope, 1)
"""The sum of ``softplus(-s)`` over the positives and of ``softplus(s)`` over the negatives."""
_KNOWN = {"negatives": NEGATIVES, "positives": POSITIVES, "questions": QUESTIONS}


class _Product(torch.autograd.Function):
    """A product of matrices that autocast does not round on the way back either."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return _product(up, b.T), _product(a.T, up)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """In the precision of the rows; its backward is called where autocast may be on."""
    with by_itself(a):
        if inside_functorch() or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return a @ b
        found: Tensor = _Product.apply(a, b)
        return found


class _Pairs(NamedTuple):
    """What is multiplied, and added; whatever asks for a gradient."""

    x: Tensor
    y: Tensor
    scale: Tensor
    bias: Tensor | None

    def scores(self, rows: slice) -> Tensor:
        s = _product(self.x[rows], self.y.T) * self.scale
        return s if self.bias is None else s + self.bias


@dataclass(frozen=True)
class _Run:
    """A call without its tensors."""

    name: str
    many: bool
    chunk: int | None

    @property
    def formula(self) -> PairFormula:
        return _KNOWN[self.name]

    def cuts(self, pairs: _Pairs) -> Iterator[slice]:
        """The rows of each chunk."""
        n, step = len(pairs.x), self.step(pairs)
        for start in range(0, n, step):
            yield slice(start, min(start + step, n))

    def step(self, pairs: _Pairs) -> int:
        most = _PAIRS if pairs.x.device.type == "cpu" else _MANY_PAIRS
        return self.chunk or max(most // max(len(pairs.y), 1), 1)

    def marks(self, pairs: _Pairs, sides: Sides, rows: slice) -> tuple[Tensor, Tensor]:
        return marks(sides.rows(rows), len(pairs.y), self.many, pairs.x[rows])

    def values(self, pairs: _Pairs, sides: Sides) -> Tensor:
        """The statistics, without a gradient."""
        out = pairs.x.new_empty(self.formula.count, len(pairs.x))
        with by_itself(pairs.x):
            for rows in self.cuts(pairs):
                marked = self.marks(pairs, sides, rows)
                out[:, rows] = self.formula.rows(pairs.scores(rows), *marked)
        return out

    def gradients(
        self, pairs: _Pairs, sides: Sides, stats: Tensor, up: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Those of x, y, scale and bias."""
        x, y, scale, _ = pairs
        dx, dy = torch.empty_like(x), torch.zeros_like(y)
        of_scale, of_bias = scale.new_zeros(()), scale.new_zeros(())
        with by_itself(x):
            for rows in self.cuts(pairs):
                marked = self.marks(pairs, sides, rows)
                ds = self.formula.slope(pairs.scores(rows), *marked, stats[:, rows], up[:, rows])
                dx[rows] = ds @ y
                dy.addmm_(ds.T, x[rows])
                of_scale += (x[rows] * dx[rows]).sum()
                if pairs.bias is not None:
                    of_bias += ds.sum()
        return dx.mul_(scale), dy.mul_(scale), of_scale, of_bias

    def plain(self, pairs: _Pairs, sides: Sides) -> Tensor:
        """The definition, under autograd."""

        def values(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | None, some: Sides) -> Tensor:
            with by_itself(x):
                these = _Pairs(x, y, scale, bias)
                marked = marks(some, len(y), self.many, x)
                return self.formula.rows(these.scores(slice(None)), *marked)

        x, *rest = pairs
        if len(x) <= self.step(pairs) or inside_functorch() or torch.compiler.is_compiling():
            return values(*pairs, sides)
        found = [
            checkpoint(values, x[rows], *rest, sides.rows(rows), use_reentrant=False)
            for rows in self.cuts(pairs)
        ]
        return torch.cat(found, 1)


def evaluate_pairs(
    formula: PairFormula,
    x: Tensor,
    y: Tensor,
    sides: Sides,
    *,
    scale: Tensor,
    bias: Tensor | None = None,
    many: bool | None = None,
    chunk: int | None = None,
) -> Tensor:
    """The statistics of a formula, ``(K, N)``; differentiable in x, y, scale and bias.

    x ``(N, D)`` and y ``(M, D)`` are of one dtype, float32 or wider; scale and bias are 0-d, and
    ``chunk`` is a number of rows.
    """
    name = next(key for key, known in _KNOWN.items() if known is formula)
    run = _Run(name, formula.many if many is None else many, chunk)
    pairs = _Pairs(x, y, scale, bias)
    if x.shape[0] == 0 or y.shape[0] == 0:
        nothing = (x.sum() + y.sum()) * scale * 0.0
        nothing = nothing if bias is None else nothing + bias * 0.0
        return nothing.expand(formula.count, len(x))
    tensors = [t for t in pairs if t is not None]
    if torch.compiler.is_compiling():
        if against_step(x, ()) is None:
            return _rows(*pairs, *sides, run.chunk, run.name, run.many)
        return run.plain(pairs, sides)
    reason = next((why for t in tensors if (why := obstacle(t))), None)
    if not all(ordinary(t) for t in sides if t is not None):
        reason = "a side is not an ordinary tensor with values"
    note(x, reason, against_step(x, ()), -(-len(x) // run.step(pairs)))
    if reason is not None:
        return run.plain(pairs, sides)
    if torch.is_grad_enabled() and asks(pairs):
        found: Tensor = _Walk.apply(run, *pairs, *sides)
        return found
    return run.values(pairs, sides)


class _Walk(torch.autograd.Function):
    """The walk there and back as one differentiable step."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *tensors: Tensor | None) -> Tensor:
        stats = run.values(_Pairs._make(tensors[:4]), Sides._make(tensors[4:]))
        ctx.run = run
        ctx.save_for_backward(*tensors, stats)
        return stats

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, stats = ctx.saved_tensors
        pairs, sides = _Pairs(*tensors[:4]), Sides(*tensors[4:])
        wants = ctx.needs_input_grad[1:5]
        if torch.is_grad_enabled() or batched(up):  # a gradient of this one, or many at once
            found = _again(ctx.run, pairs, sides, wants, up)
        else:
            every = ctx.run.gradients(pairs, sides, stats, up)
            found = [g if want else None for g, want in zip(every, wants, strict=True)]
        return (None, *found, *(None for _ in sides))


def _again(
    run: _Run, pairs: _Pairs, sides: Sides, wants: tuple[bool, ...], up: Tensor
) -> list[Tensor | None]:
    """The gradients by autograd through the definition, differentiable once more."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():  # a tensor may be both x and y, and is told apart by a view
        pairs = _Pairs._make(None if t is None else t.view_as(t) for t in pairs)
        value = run.plain(pairs, sides)
    wanted = [t for t, want in zip(pairs, wants, strict=True) if want and t is not None]
    found = iter(torch.autograd.grad(value, wanted, up, create_graph=again))
    return [next(found) if want else None for want in wants]


# --------------------------------------------------------------------- inside torch.compile

_CALL = (
    "Tensor x, Tensor y, Tensor scale, Tensor? bias, Tensor? target, Tensor? row_id, "
    "Tensor? column_id, Tensor? itself, Tensor? open, SymInt? chunk, str name, bool many"
)


@torch.library.custom_op("aptt::pair_rows", mutates_args=(), schema=f"({_CALL}) -> Tensor")
def _rows(*call: Any) -> Tensor:
    *tensors, chunk, name, many = call
    return _Run(name, many, chunk).values(_Pairs(*tensors[:4]), Sides(*tensors[4:]))


@_rows.register_fake
def _(*call: Any) -> Tensor:
    x: Tensor = call[0]
    return x.new_empty(_KNOWN[call[-2]].count, x.shape[0])


@torch.library.custom_op(
    "aptt::pair_rows_backward",
    mutates_args=(),
    schema=f"({_CALL}, Tensor stats, Tensor up) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _rows_backward(*call: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *tensors, chunk, name, many, stats, up = call
    pairs, sides = _Pairs(*tensors[:4]), Sides(*tensors[4:])
    return _Run(name, many, chunk).gradients(pairs, sides, stats, up)


@_rows_backward.register_fake
def _(*call: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y, scale = call[:3]
    return torch.empty_like(x), torch.empty_like(y), scale.new_empty(()), scale.new_empty(())


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.chunk, ctx.name, ctx.many = inputs
    ctx.save_for_backward(*tensors, output)


def _differentiate(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, stats = ctx.saved_tensors
    call = (*tensors, ctx.chunk, ctx.name, ctx.many)
    every = _rows_backward(*call, stats, up.contiguous())
    wants = ctx.needs_input_grad[:4]
    return (*(g if want else None for g, want in zip(every, wants, strict=True)), *[None] * 8)


_rows.register_autograd(_differentiate, setup_context=_remember)
