"""Bipartite assignment: each target is given a query of its own, for the least sum of costs.

    matches   argmin over injections s of  sum over m of C[s(m), m]

Axes: costs ``(..., Q, M)`` of Q queries and M targets.
From: Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, arXiv:2005.12872,
eq. 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.assignment import assigned, stand_in
from aptt.core.checks import (
    check_choice,
    check_flags,
    check_floating,
    check_indices,
    check_tensors,
    check_whole,
)
from aptt.core.ordinary import is_readable
from aptt.core.precision import widen
from aptt.core.shapes import check_shapes
from aptt.core.targets import BACKGROUND

__all__ = ["Assignment", "Solver", "Surplus", "assign", "assigned_by", "check_how", "checked"]

Surplus = Literal["raise", "drop"]
Solver = Callable[[Tensor, Tensor], Tensor]


class Assignment(NamedTuple):
    """What each prediction is to answer for."""

    matches: Tensor
    """``(B, A)``: the index of its target; -1 for background, -2 for what does not count."""
    scores: Tensor
    """``(B, A)``: its target score, in [0, 1]; 0 where there is no target."""


def checked(name: str, found: object) -> Assignment:
    """What an assigner of the caller's, the argument ``name``, has returned."""
    if isinstance(found, tuple) and len(found) == 2:
        matches, scores = found
        if isinstance(matches, Tensor) and isinstance(scores, Tensor):
            return Assignment(matches, scores)
    raise TypeError(
        f"{name}: returned {type(found).__name__}, wanted an aptt.loss.Assignment of two tensors: "
        "matches[image, prediction] is the index of a target, -1 for none, and scores are from 0 "
        "to 1; of pairs of indices it is matches[image, predictions] = targets"
    )


@torch.no_grad()
def assign(
    cost: Tensor,
    *,
    target_mask: Tensor | None = None,
    groups: int = 1,
    surplus: Surplus = "raise",
    solver: Solver | None = None,
    validate: bool = False,
) -> Tensor:
    """Give each target a query of its own, so that the sum of the costs is the least there is.

    Args:
        cost: ``(..., Q, M)``, of any problems: of layers and images as a rule. An entry that is not
            finite (NaN, either infinity) is never chosen, unless it is forced; the other matches
            are those of the problem without it.
        target_mask: ``(..., M)``, which targets there are; fewer leading axes serve all.
        groups: the queries are so many groups of one size, and each group is matched by itself.
        surplus: of more targets than queries, ``"raise"``, or ``"drop"`` the dearest.
        solver: a callable ``(cost (N, Q, M), mask (N, M)) -> (N, Q)``, of finite costs, to solve on
            the device: the host does not wait then, and this function vouches for nothing.
        validate: refuse a match at a cost that is not finite, where none is left that is.

    Returns:
        ``(..., Q)`` int64: the index of the query's target, -1 where it has none.

    Raises:
        ValueError: more targets than queries, by the image; a number of queries that is no multiple
            of ``groups``; with ``validate``, the query and the target that are left to each other.

    All problems go to the host in one copy, and their matches return in one: the one wait of a loss
    that matches. There scipy solves them, or where it is missing a solver of our own, to the same
    sums: some 5 ms for 300 queries and 20 targets, where scipy takes 0.05. Among equals the first
    query goes to the first target. Inside ``torch.compile`` and ``torch.func`` it is one operator.

    Use when:
        Costs are your own: masks, key points, tracks.

    Differs from:
        scipy: NaN is no error; any number of problems, with padding and groups.
        transformers, which puts 3e38 for what is not finite: the matches of all other targets are
            then often not the best, for beside such a number the solver has no digits left.

    Example:
        >>> import torch
        >>> assign(torch.tensor([[0.0, 1.0], [0.5, 9.0], [torch.nan, 0.0]]))
        tensor([ 0, -1,  1])
    """
    check_how(surplus, solver, validate)
    check_floating(cost=cost)
    if cost.ndim < 2:
        raise ValueError(f"cost: got {tuple(cost.shape)}, wanted (..., Q, M)")
    return assigned_by(cost, target_mask, groups, surplus, solver, validate, ("cost", "cost"))


def assigned_by(
    cost: Tensor,
    mask: Tensor | None,
    groups: int,
    surplus: Surplus,
    solver: Solver | None,
    validate: bool,
    names: tuple[str, str],
) -> Tensor:
    """As :func:`assign`; ``names`` are what a message calls the queries and the targets."""
    *leading, queries, targets = cost.shape
    check_whole("groups", groups)
    if queries % groups:
        raise ValueError(f"groups: got {groups}, of which {queries} queries are no multiple")
    there = None
    if mask is not None:
        check_tensors(**{names[0]: cost, "target_mask": mask})
        fits = (
            mask.ndim and tuple(mask.shape) == (*leading, targets)[len(leading) + 1 - mask.ndim :]
        )
        if not fits:
            raise ValueError(
                f"target_mask: got {tuple(mask.shape)}, wanted {(*leading, targets)}, or without "
                f"some of its first axes, for costs {tuple(cost.shape)}"
            )
        there = (mask != 0).expand(*leading, targets).unsqueeze(-2)
        there = there.expand(*leading, groups, targets)
    each = widen(cost).reshape(*leading, groups, queries // groups, targets)
    if not queries:
        some = there is None or (is_readable(there) and bool(there.any()))
        if surplus == "raise" and some and cost.shape[:-2].numel() and targets:
            raise ValueError(
                f"{names[1]}: got targets for 0 queries; surplus='drop' leaves them out"
            )
    if not (queries and targets):
        return cost.new_full((*leading, queries), BACKGROUND, dtype=torch.long)
    if solver is not None:
        found = _by(solver, each, there)
    else:
        drop = surplus == "drop"
        found = assigned(each, there, drop=drop, validate=validate, groups=groups, names=names)
    return found.reshape(*leading, queries)


def _by(solver: Solver, cost: Tensor, there: Tensor | None) -> Tensor:
    """The matches by a solver of the caller's, which is given finite costs."""
    if there is None:
        there = torch.ones_like(cost[..., 0, :], dtype=torch.bool)
    cost = cost.masked_fill(~there.unsqueeze(-2), torch.inf)
    cost = torch.where(cost.isfinite(), cost, stand_in(cost).to(cost.dtype)).flatten(0, -3)
    mask = there.reshape(-1, there.shape[-1])
    found = solver(cost, mask)
    check_tensors(cost=cost, solver=found)
    check_indices(solver=found)
    check_shapes(cost=(cost, "N Q M"), solver=(found, "N Q"))
    if is_readable(found) and bool((found >= mask.shape[1]).any()):
        raise ValueError(
            f"solver: returned {int(found.max())}, wanted the index of one of {mask.shape[1]} "
            "targets, or -1"
        )
    found = found.long()
    known = mask.gather(1, found.clamp(min=0))
    return found.masked_fill((found < 0) | ~known, BACKGROUND)


def check_how(surplus: str, solver: object, validate: bool) -> None:
    """Hold the options of an assignment to what they may be."""
    check_choice("surplus", surplus, ("raise", "drop"))
    check_flags(validate=validate)
    if solver is not None and not callable(solver):
        raise TypeError(
            f"solver: got {solver!r}, wanted a callable (cost, mask) -> matches, or None"
        )
