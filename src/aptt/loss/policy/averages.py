"""What a mean over tokens counts: tokens, sequences, or sequences of one nominal length.

    token       sum of l / number of tokens
    sequence    sum over sequences of the mean of l / number of sequences
    constant    sum of l / length / number of sequences

Each is a weight of the tokens and a count, so that micro-batches and ranks can share it. Sequences
without a token that counts are not counted.

Axes: tokens ``(..., T)`` with a sequence a row, or packed ``(N,)`` with ids.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_tensor,
    check_choice,
    check_positive,
    check_tensors,
)
from aptt.core.precision import widen
from aptt.core.reduction import Count
from aptt.core.segments import Segments, segments_of, shifted

__all__ = ["Average", "Parts", "alike", "check_average", "numbers", "parts_of"]

Average = Literal["token", "sequence", "constant"]


class Parts(NamedTuple):
    """What each token weighs, and what a mean divides by."""

    keep: Tensor | None
    """Which tokens count; None: all."""
    weight: Tensor | None
    """What each of them weighs, 0 where it does not count; None: 1."""
    counted: Count
    segments: Segments | None
    """The sequences, where they are asked for."""
    tokens: Tensor | None
    """How many count in each of them."""


def parts_of(
    log_prob: Tensor,
    mask: Numbers | None,
    sequence_ids: Tensor | None,
    average: Average,
    nominal_length: float | None,
) -> Parts:
    """The parts of the tokens in a mean, of the shape of the tokens."""
    keep = None
    if mask is not None:
        keep = alike("mask", as_tensor("mask", mask, log_prob), log_prob)
        if keep.dtype != torch.bool:
            raise TypeError(f"mask: got {keep.dtype}, wanted True and False")
    segments = None
    if average != "token" or sequence_ids is not None:
        segments = segments_of(log_prob, sequence_ids)
        if segments.inside is not None:
            keep = segments.inside if keep is None else keep & segments.inside
    if average == "token":
        count: Count = log_prob.numel() if keep is None else keep.sum()
        return Parts(keep, keep, count, segments, None)
    assert segments is not None
    some = torch.ones_like(log_prob, dtype=torch.bool) if keep is None else keep
    tokens = segments.count(some)
    x = widen(log_prob[:0])
    if average == "constant":
        assert nominal_length is not None
        each = x.new_full((), 1 / nominal_length).expand(log_prob.shape)
    else:
        each = segments.spread(tokens.clamp(min=1).to(x.dtype).reciprocal())
    return Parts(keep, torch.where(some, each, 0.0), (tokens > 0).sum(), segments, tokens)


def alike(name: str, t: Tensor, log_prob: Tensor, *, of_rows: bool = False) -> Tensor:
    """A number for each token, or ``of_rows`` one for each row of them, spread over it."""
    check_tensors(log_prob=log_prob, **{name: t})
    if t.shape == log_prob.shape:
        return t
    shape = log_prob.shape
    if of_rows and log_prob.ndim > 1 and t.shape == shape[:-1]:
        return t.unsqueeze(-1).expand(shape)
    ours, theirs = tuple(t.shape), tuple(shape)
    hint = shifted(ours, theirs)
    if not hint and of_rows and log_prob.ndim == 1:
        hint = f"; of a number for each sequence take {name}[sequence_ids]"
    wanted = f"{theirs} or {theirs[:-1]}" if of_rows and log_prob.ndim > 1 else f"{theirs}"
    raise ValueError(f"{name}: got shape {ours} for log_prob {theirs}, wanted {wanted}{hint}")


def numbers(name: str, values: Numbers, log_prob: Tensor, *, of_rows: bool = False) -> Tensor:
    """Real numbers, one for each token."""
    return alike(name, as_floats(name, values, log_prob), log_prob, of_rows=of_rows)


def check_average(average: Average, nominal_length: float | None) -> None:
    """Hold both to each other."""
    check_choice("average", average, ("token", "sequence", "constant"))
    if average == "constant":
        if nominal_length is None:
            raise ValueError(
                "nominal_length: got None with average='constant', wanted a number of tokens that "
                "does not change with the batch, such as the longest answer that is allowed"
            )
        check_positive("nominal_length", nominal_length)
    elif nominal_length is not None:
        raise ValueError(
            f"nominal_length: got {nominal_length!r} with average={average!r}, wanted 'constant'"
        )
