"""What every form shares: the goal of each depth, and its term."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.core.checks import (
    Numbers,
    as_tensor,
    check_choice,
    check_index,
    check_indices,
    check_number,
    check_tensors,
    check_whole,
)
from aptt.core.ordinary import is_readable
from aptt.core.reduction import Reduction, check_reduction, normalize
from aptt.core.shapes import check_shapes

__all__ = [
    "Goal",
    "Goals",
    "Lambda",
    "check_heads",
    "check_options",
    "combined",
    "mark",
    "numbers",
    "terms_of",
]

Lambda = float | Callable[[float], float]


def combined(terms: dict[str, Tensor], mtp_lambda: Lambda, step: float | None) -> Tensor:
    """The main term, and the weighted mean of the depths'."""
    main, *depths = terms.values()
    factor = _lambda(mtp_lambda, step)
    return main if not depths else main + factor * (sum(depths[1:], depths[0]) / len(depths))


class Goal(NamedTuple):
    """What a head is to predict at each position, and with what weight."""

    target: Tensor
    weight: Tensor | None

    def cut(self, length: int) -> Goal:
        """That of the first positions."""
        weight = None if self.weight is None else self.weight[..., :length]
        return Goal(self.target[..., :length], weight)


class Goals(NamedTuple):
    """What the data says, from which each head's goal is made."""

    target: Tensor
    sample_weight: Tensor | None
    documents: Tensor | None
    labels: str
    ignore_index: int

    def of(self, k: int) -> Goal:
        """The targets moved to where depth k predicts them, ``ignore_index`` where there is none.

        The position i of depth k predicts the token of position i + k + 1. Of the last one, after
        the sequence's end, the document is not known: it counts as that of the last position.
        """
        shift = k if self.labels == "aligned" else k + 1
        goal, weight = _moved(self.target, shift, self.ignore_index), self.sample_weight
        if self.documents is not None:
            check_shapes(target=(self.target, "*N"), document_ids=(self.documents, "*N"))
            last = self.documents[..., -1:]
            ahead = torch.cat((self.documents, *[last] * (k + 1)), -1)
            same = ahead[..., k + 1 :] == self.documents
            goal = torch.where(same, goal, self.ignore_index)
        if weight is not None:
            check_shapes(target=(self.target, "*N"), sample_weight=(weight, "*N"))
            weight = _moved(weight, shift, 0)
        return Goal(goal, weight)


@overload
def numbers(name: str, values: Numbers, heads: Sequence[Tensor]) -> Tensor: ...
@overload
def numbers(name: str, values: Numbers | None, heads: Sequence[Tensor]) -> Tensor | None: ...
def numbers(name: str, values: Numbers | None, heads: Sequence[Tensor]) -> Tensor | None:
    """Targets, weights or documents as a tensor, on the device of the heads."""
    if values is None:
        return None
    like = heads[0] if len(heads) and isinstance(heads[0], Tensor) else None
    return as_tensor(name, values, like)


def mark(ignore_index: int | None, target: Tensor) -> int:
    """What stands where the shift leaves no target: the label that is ignored, if there is one."""
    check_index(ignore_index=ignore_index)
    if ignore_index is not None:
        return ignore_index
    if is_readable(target) and bool((target < 0).any()):
        raise ValueError(f"target: got class {int(target.min())}, wanted at least 0")
    return -100


def _moved(t: Tensor, shift: int, fill: int) -> Tensor:
    kept = t[..., shift:]
    return F.pad(kept, (0, t.shape[-1] - kept.shape[-1]), value=fill) if shift else t


def terms_of(
    heads: Sequence[Tensor],
    goals: Goals,
    loss: Callable[[Tensor, Goal, Reduction], Tensor],
    normalized_by: str,
    reduction: Reduction,
) -> dict[str, Tensor]:
    """The loss of each head by name, over its own targets or over the main head's."""
    terms: dict[str, Tensor] = {}
    counts: list[Tensor] = []

    def noted(total: Tensor, count: Tensor, *, term: str) -> Tensor:
        counts.append(count)
        return total

    for k, head in enumerate(heads):
        total = loss(head, goals.of(k).cut(head.shape[-2]), noted)
        name = "main" if k == 0 else f"depth_{k}"
        over = counts[0 if normalized_by == "tokens" else k]
        terms[name] = normalize(total, over, reduction, term=name)
    return terms


def _further(right_context: int, depth: int, labels: str, documents: Tensor | None) -> int:
    """How many targets there are behind those of the heads' positions."""
    check_whole("right_context", right_context, 0)
    wanted = depth + (labels == "raw" or documents is not None)
    if right_context not in (0, wanted):
        reach = f"{wanted}, as far as {depth} depths and {labels!r} labels reach"
        if documents is not None:
            reach += " with the document of the last"
        raise ValueError(f"right_context: got {right_context}, wanted {reach}, or 0 for a whole")
    return right_context


def check_heads(
    name: str,
    heads: Sequence[Tensor],
    target: Tensor,
    depth: int | None,
    labels: str,
    right_context: int,
    documents: Tensor | None,
) -> Sequence[Tensor]:
    """What each head gives, once it is sure that their lengths leave no doubt about the shift."""
    if isinstance(heads, Tensor) or not all(isinstance(t, Tensor) for t in heads):
        raise TypeError(
            f"{name}: got {type(heads).__name__}, wanted a sequence of tensors, the "
            "main head's first"
        )
    if not heads or (depth is not None and len(heads) != depth + 1):
        wanted = "at least the main head" if depth is None else f"mtp_depth + 1 = {depth + 1}"
        raise ValueError(f"{name}: got {len(heads)} heads, wanted {wanted}")
    check_tensors(**{f"{name}[{k}]": head for k, head in enumerate(heads)}, target=target)
    check_indices(target=target)
    if target.ndim == 0:
        raise ValueError("target: got a number, wanted a sequence of tokens, (..., T)")
    further = _further(right_context, len(heads) - 1, labels, documents)
    length, last = max(target.shape[-1] - further, 0), heads[0].shape[-1:]
    if not last:
        raise ValueError(f"{name}[0]: got a number, wanted (..., T) rows of numbers")
    for k, head in enumerate(heads):
        if head.shape[-1:] != last:
            raise ValueError(
                f"{name}[{k}]: got {head.shape[-1] if head.ndim else 0} numbers a position, wanted "
                f"{last[0]} as the main head has"
            )
        lengths = {length} if further else {length, max(length - k, 0)}
        if labels == "raw" and not further:
            lengths.add(max(length - k - 1, 0))
        fits = head.ndim == target.ndim + 1 and head.shape[:-2] == target.shape[:-1]
        if not fits or head.shape[-2] not in lengths:
            wanted = " or ".join(map(str, sorted(lengths, reverse=True)))
            raise ValueError(
                f"{name}[{k}]: got shape {tuple(head.shape)} for targets "
                f"{tuple(target.shape)}, wanted (..., T, {last[0]}) with T of {wanted}; targets "
                f"are shifted here, and {labels!r} ones must not be shifted before"
            )
    return heads


def _lambda(mtp_lambda: Lambda, step: float | None) -> float:
    if not callable(mtp_lambda):
        factor = mtp_lambda
    elif step is None:
        raise ValueError("step: got None, wanted where the schedule of mtp_lambda is")
    else:
        check_number("step", step, -math.inf)
        factor = mtp_lambda(step)
    check_number("mtp_lambda", factor)
    return factor


def check_options(
    mtp_depth: int | None,
    mtp_lambda: Lambda,
    normalized_by: str,
    labels: str,
    reduction: Reduction,
) -> None:
    """Refuse options that no data could mend."""
    check_reduction(reduction, none=False)
    check_choice("normalize", normalized_by, ("tokens", "valid"))
    check_choice("labels", labels, ("aligned", "raw"))
    if mtp_depth is not None:
        check_number("mtp_depth", mtp_depth)
    if not callable(mtp_lambda):
        check_number("mtp_lambda", mtp_lambda)
