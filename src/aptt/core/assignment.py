"""The assignment problem: pairs of a query and a target, each in one at most, of the least sum.

    min over injections s of  sum over targets m of  C[s(m), m]

Solved on the host, exactly: by scipy where it is installed, and else by successive shortest paths
(Crouse, "On implementing 2D rectangular assignment algorithms", IEEE TAES 52(4), 2016), in which
each target in turn takes the way to a free query along which the sum grows least.

An entry that is not finite means: never, unless forced. A query or a target without a finite entry
is taken out of the problem, so that the rest is solved as if it were not there; what is then left
over is paired in order. Where only some entries are not finite, they cost a little more than any
exchange of the finite ones can save. A huge constant in their place would do harm: beside
3e38 the solver's sums have no digits left for the other pairs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from aptt.core.ordinary import apart, bare, inside_functorch, ordinary

__all__ = ["assigned", "pairs", "stand_in"]

_NOBODY = -1
_SLOW = 10**5  # entries of a problem, from which on scipy is worth a sentence


def assigned(
    cost: Tensor,
    there: Tensor | None,
    *,
    drop: bool,
    validate: bool,
    groups: int,
    names: tuple[str, str],
) -> Tensor:
    """The target of each query of problems ``(..., q, M)``, or -1; ``there`` is ``(..., M)``.

    The last of the leading axes is that of the ``groups``. ``names`` are what a message
    calls the queries and the targets.

    The host waits once, for the costs; what it finds goes back in one copy. Under a compiler, a
    transform or without values it is one operator, or -1 everywhere.
    """
    cost = bare(cost)
    packed = cost.masked_fill(cost == -torch.inf, torch.inf)
    if there is not None:  # padding travels with the costs, as the one number that is left
        packed = packed.masked_fill(~there.unsqueeze(-2), -torch.inf)
    if torch.compiler.is_compiling() or inside_functorch():
        return _operator(packed, drop, validate, groups, " ".join(names))
    if not ordinary(packed):
        return packed.new_full(packed.shape[:-1], _NOBODY, dtype=torch.long)
    return _there_and_back(packed, drop, validate, groups, " ".join(names))


def _there_and_back(packed: Tensor, drop: bool, validate: bool, groups: int, names: str) -> Tensor:
    *leading, q, m = packed.shape
    here = packed.detach().cpu().reshape(-1, q, m)
    with apart("cpu"):
        found = _solved(here, tuple(leading), drop, validate, groups, names.split())
    found = found.view(*leading, q)
    if packed.device == found.device:
        return found
    back = packed.new_empty(found.shape, dtype=torch.long)
    return back.copy_(found, non_blocking=True)


_LIBRARY = torch.library.Library("aptt", "FRAGMENT")
_LIBRARY.define("assign(Tensor packed, bool drop, bool validate, int groups, str names) -> Tensor")
# an operator without autograd, which torch.func.grad passes through
_LIBRARY.impl("assign", _there_and_back, "CompositeExplicitAutograd")


def _shape(packed: Tensor, drop: bool, validate: bool, groups: int, names: str) -> Tensor:
    return packed.new_empty(packed.shape[:-1], dtype=torch.long)


def _of_many(info: Any, axes: Sequence[int], packed: Tensor, *how: Any) -> tuple[Tensor, int]:
    return _operator(packed.movedim(axes[0], 0), *how), 0


torch.library.register_fake("aptt::assign", _shape, lib=_LIBRARY)
torch.library.register_vmap("aptt::assign", _of_many, lib=_LIBRARY)


def _operator(packed: Tensor, drop: bool, validate: bool, groups: int, names: str) -> Tensor:
    found: Tensor = torch.ops.aptt.assign(packed, drop, validate, groups, names)
    return found


def _solved(
    packed: Tensor,
    leading: tuple[int, ...],
    drop: bool,
    validate: bool,
    groups: int,
    names: Sequence[str],
) -> Tensor:
    """The target of each query, of problems ``(N, q, M)`` on the CPU."""
    n, q, m = packed.shape
    found = packed.new_full((n, q), _NOBODY, dtype=torch.long)
    if not m:
        return found
    padding = packed[:, 0] == -torch.inf if q else packed.new_zeros(n, m, dtype=torch.bool)
    whole = bool((packed.isfinite() | padding.unsqueeze(1)).all())
    for k in range(n):
        real = (~padding[k]).nonzero().squeeze(1)
        if not len(real):
            continue
        if len(real) > q and not drop:
            raise ValueError(
                f"{names[1]}: {_named(k, leading, groups)} has {len(real)} targets for {q} queries"
                f"{' of a group' if groups > 1 else ''}; wanted as many queries at least, or "
                "surplus='drop', which leaves out the dearest targets"
            )
        problem = packed[k] if len(real) == m else packed[k][:, real]
        if whole:
            queries, targets = pairs(problem)
        else:
            queries, targets = _unless_forced(problem)
            if validate:
                who = f"{names[0]}: {_named(k, leading, groups)}"
                _check_forced(problem, queries, targets, real, who)
        found[k, queries] = real[targets]
    return found


def _unless_forced(cost: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of one problem, of which some entries are not finite."""
    finite = cost.isfinite()
    rows, columns = (finite.any(axis).nonzero().squeeze(1) for axis in (1, 0))
    rest = cost[rows][:, columns]
    if len(rows) and len(columns):
        queries, targets = pairs(torch.where(rest.isfinite(), rest, stand_in(rest)))
        queries, targets = rows[queries], columns[targets]
    else:
        queries, targets = rows[:0], columns[:0]
    free_rows, free_columns = (
        cost.new_ones(size, dtype=torch.bool).index_fill(0, taken, False).nonzero().squeeze(1)
        for size, taken in zip(cost.shape, (queries, targets), strict=True)
    )
    more = min(len(free_rows), len(free_columns))
    return torch.cat((queries, free_rows[:more])), torch.cat((targets, free_columns[:more]))


def stand_in(cost: Tensor) -> Tensor:
    """What an entry that is not finite costs: more than all finite ones can save; ``(..., 1, 1)``.

    max + (max - min + 1) min(q, M)        in float64
    """
    finite, cost = cost.isfinite(), cost.double()
    most = cost.masked_fill(~finite, -torch.inf).amax((-2, -1), keepdim=True)
    least = cost.masked_fill(~finite, torch.inf).amin((-2, -1), keepdim=True)
    nothing = most == -torch.inf
    most, least = most.masked_fill(nothing, 0.0), least.masked_fill(nothing, 0.0)
    return most + (most - least + 1) * min(cost.shape[-2:])


def _check_forced(cost: Tensor, queries: Tensor, targets: Tensor, real: Tensor, who: str) -> None:
    wrong = ~cost[queries, targets].isfinite()
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise ValueError(
            f"{who}, query {int(queries[at])} is left to target {int(real[targets[at]])} at "
            f"a cost that is not finite; wanted predictions and targets without NaN and infinity"
        )


def _named(k: int, leading: tuple[int, ...], groups: int) -> str:
    """What the problem is of: an image as a rule, of a layer, in a group."""
    at = []
    for size in reversed(leading):
        at.append(k % size)
        k //= size
    at.reverse()
    of_group = f"group {at.pop()}"
    group = [of_group] if groups > 1 else []
    kinds = ["image"] if len(at) == 1 else ["layer", "image"]
    if len(at) == len(kinds):
        return ", ".join([f"{kind} {i}" for kind, i in zip(kinds, at, strict=True)] + group)
    return ", ".join([f"problem {tuple(at)}" if at else "the problem", *group])


# ------------------------------------------------------------------------------------ one problem


def pairs(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and their targets, of finite costs ``(q, M)`` on the CPU: ``min(q, M)`` pairs."""
    solver = _scipy()
    if solver is not None:
        rows, columns = solver(cost.numpy())
        return torch.from_numpy(rows), torch.from_numpy(columns)
    if cost.numel() > _SLOW:
        _say_once()
    if cost.shape[0] >= cost.shape[1]:
        columns = torch.arange(cost.shape[1])
        return torch.tensor(_shortest(cost.double().t().contiguous()), dtype=torch.long), columns
    rows = torch.arange(cost.shape[0])
    return rows, torch.tensor(_shortest(cost.double()), dtype=torch.long)


@cache
def _scipy() -> Any:
    """Scipy's solver, if it is installed."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        return None
    return linear_sum_assignment


@cache
def _say_once() -> None:
    warnings.warn(
        f"assign: problems of over {_SLOW} entries take long without scipy: pip install "
        "'aptt[matching]'; the result is the same",
        stacklevel=5,
    )


def _shortest(cost: Tensor) -> Sequence[int]:
    """The column of each row, of float64 ``(n, m)`` with n <= m.

    ``u`` and ``v`` are prices with ``cost - u - v >= 0``, and 0 at the pairs there are. A new row
    looks for the nearest free column, by those differences, along pairs that it may break up.
    """
    n, m = cost.shape
    u, v = [0.0] * n, cost.new_zeros(m)
    column_of, row_of = [_NOBODY] * n, [_NOBODY] * m
    free = cost.new_ones(m, dtype=torch.bool)
    for start in range(n):
        reach, way = torch.full_like(v, torch.inf), cost.new_full((m,), _NOBODY, dtype=torch.long)
        done = cost.new_zeros(m, dtype=torch.bool)
        at, far, visited = start, 0.0, []
        while True:
            step = (cost[at] - v).add_(far - u[at])
            nearer = (step < reach) & ~done
            reach = torch.where(nearer, step, reach)
            way.masked_fill_(nearer, at)
            ahead = reach.masked_fill(done, torch.inf)
            least, nearest = ahead.min(0)
            out, exit_ = ahead.masked_fill(~free, torch.inf).min(0)
            far = least.item()
            if out.item() <= far:  # of equals the one that ends it, and the first of those
                end = int(exit_)
                break
            column = int(nearest)
            done[column] = True
            at = row_of[column]
            visited.append(at)
        u[start] += far
        for row in visited:
            u[row] += far - reach[column_of[row]].item()
        v = torch.where(done, v - (far - reach), v)
        free[end] = False
        while True:  # along the way back, each row takes the column that leads on
            row = int(way[end])
            row_of[end] = row
            column_of[row], end = end, column_of[row]
            if row == start:
                break
    return column_of
