"""From log-probabilities of tokens to one score a sequence, and from two scores to one number.

    score = sum of log_prob over the tokens of the sequence that count
    h     = (s_w - ref_w) - (s_l - ref_l)        w: the chosen answer, l: the rejected one

Axes: log_prob ``(..., T)`` with a mask, or packed ``(N,)`` with ids; scores one a sequence.
From: Rafailov et al. 2023, arXiv:2305.18290, section 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_tensor,
    as_weight,
    check_floating,
    check_tensors,
)
from aptt.core.precision import widen
from aptt.core.segments import sequences_of, shifted

__all__ = [
    "First",
    "Given",
    "Pairs",
    "Scores",
    "check_alike",
    "pairs_of",
    "scores_of",
    "sequence_scores",
]


class Scores(NamedTuple):
    """What sequences score, and how many tokens each of them has."""

    score: Tensor
    """The sum over the tokens of each sequence; 0 where there are none."""
    tokens: Tensor
    """How many there are, int64."""

    @property
    def average(self) -> Tensor:
        """The score per token; 0 where there are none."""
        return self.score / self.tokens.clamp(min=1).to(self.score.dtype)


First = Scores | Tensor
"""What a policy scores: with its tokens, or as it is."""
Given = First | Numbers
"""Scores with their tokens; or numbers as they are, each of a sequence that is not empty."""


def sequence_scores(
    log_prob: Tensor,
    *,
    mask: Numbers | None = None,
    sequence_ids: Tensor | None = None,
    num_sequences: int | None = None,
) -> Scores:
    """The sum of log-probabilities of each sequence, padded and packed alike.

    Args:
        log_prob: of each token, ``(..., T)`` with a sequence a row, or packed ``(N,)``; any
            floating dtype. Nothing is shifted: each number is that of its own token, as
            :func:`linear_token_stats` and :func:`token_stats` give it.
        mask: the same shape; True for the tokens of the answer. The others count for nothing,
            whatever they hold.
        sequence_ids: ``(N,)`` whole numbers, the same for the tokens of a sequence, in any order;
            below 0 for tokens of none. Scores come in ascending order of them.
        num_sequences: the ids are 0 to ``num_sequences - 1``, and each has a score, with tokens or
            without. None: as many as there are ids, which is a wait for an accelerator; inside
            ``torch.compile`` give it.

    Returns:
        Scores and numbers of tokens, ``(...)`` or ``(S,)``; the scores are float32 for half types,
        and summed in float64.

    Raises:
        ValueError: shapes that do not fit, packed tokens without ids.
        TypeError: a mask that does not answer yes or no, ids that are not whole numbers.

    The gradient goes to ``log_prob``. Subtract a reference model's log-probabilities token by token
    before: the sum of differences keeps digits that the difference of two long sums has lost.

    Example:
        >>> import torch
        >>> log_prob, mask = -torch.ones(2, 3), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
        >>> [t.tolist() for t in sequence_scores(log_prob, mask=mask)]
        [[-2.0, -3.0], [2, 3]]
    """
    check_floating(log_prob=log_prob)
    segments = sequences_of(log_prob, sequence_ids, num_sequences)
    keep = segments.inside
    if mask is not None:
        mask = check_alike("mask", mask, log_prob=log_prob, answers=True)
        keep = mask if keep is None else keep & mask
    x = widen(log_prob)
    if keep is None:
        keep = torch.ones_like(x, dtype=torch.bool)
    else:
        x = torch.where(keep, x, 0.0)
    return Scores(segments.total(x).to(x.dtype), segments.count(keep))


def check_alike(name: str, values: object, *, answers: bool = False, **like: Tensor) -> Tensor:
    """A tensor of the shape of another, whose name is given; of yes or no, where it ``answers``."""
    ((of, x),) = like.items()
    made = as_tensor(name, values, x)
    check_tensors(**{of: x, name: made})
    if answers and made.dtype != torch.bool:
        raise TypeError(f"{name}: got {made.dtype}, wanted True and False")
    if made.shape != x.shape:
        ours, theirs = tuple(made.shape), tuple(x.shape)
        hint = shifted(ours, theirs) if answers else ""
        raise ValueError(f"{name}: got shape {ours}, wanted {theirs}, that of {of}{hint}")
    return made


class Pairs(NamedTuple):
    """Pairs one after the other."""

    chosen: Tensor
    """What the chosen answer scores above its reference."""
    rejected: Tensor
    weight: Tensor | None
    """0 or False for pairs that are removed, such as one with an empty side."""
    shape: tuple[int, ...]
    tokens: Tensor | None
    """Of the chosen answers, where they are known."""


def scores_of(
    name: str, given: Given, like: Tensor, *, per_token: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Scores in the dtype of the computation, per token if so asked; and the tokens, if known."""
    if not isinstance(given, Scores):
        return widen(as_floats(name, given, like)), None
    check_floating(**{f"{name}.score": given.score})
    check_tensors(**{f"{name}.score": given.score, f"{name}.tokens": given.tokens})
    if given.tokens.shape != given.score.shape:
        raise ValueError(
            f"{name}.tokens: got shape {tuple(given.tokens.shape)}, wanted "
            f"{tuple(given.score.shape)}, that of the scores"
        )
    given = given._replace(score=widen(given.score))  # before it is divided
    return given.average if per_token else given.score, given.tokens


def pairs_of(
    chosen: First,
    rejected: Given,
    reference_chosen: Given | None,
    reference_rejected: Given | None,
    weight: Numbers | None,
    *,
    per_token: bool,
) -> Pairs:
    """Every score held to the shape of the chosen ones, and less its reference."""
    if (reference_chosen is None) != (reference_rejected is None):
        missing = "reference_chosen" if reference_chosen is None else "reference_rejected"
        raise ValueError(f"{missing}: got None, wanted scores, for there are those of the other")
    first = chosen.score if isinstance(chosen, Scores) else chosen
    check_floating(chosen=first)
    x, tokens = scores_of("chosen", chosen, first, per_token=per_token)
    counts = [] if tokens is None else [tokens]

    def like_first(name: str, given: Any) -> Tensor:
        made, tokens = scores_of(name, given, first, per_token=per_token)
        check_alike(name, made, chosen=x)
        if tokens is not None:
            counts.append(tokens)
        return made.to(x.dtype)

    y = like_first("rejected", rejected)
    if reference_chosen is not None:
        x = x - like_first("reference_chosen", reference_chosen)
        y = y - like_first("reference_rejected", reference_rejected)
    keep = None
    for count in counts:
        some = count > 0
        keep = some if keep is None else keep & some
    if weight is not None:
        weight = as_weight("weight", weight, first)
        check_alike("weight", weight, chosen=x)
    if keep is not None:
        weight = keep if weight is None else torch.where(keep, weight, torch.zeros_like(weight))
    return Pairs(
        x.reshape(-1),
        y.reshape(-1),
        None if weight is None else weight.reshape(-1),
        tuple(x.shape),
        None if tokens is None else tokens.reshape(-1),
    )
