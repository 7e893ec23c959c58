"""Sums over sequences, whether each is a row or a run of tokens in a pack, in any order.

    padded    (..., T)             a sequence is a row of the last axis
    packed    (N,) with ids (N,)   a sequence is all the tokens of one id; below 0 is none

Sums are taken in the widest float there is, so that neither layout nor order shows in single
precision; the same bits come out twice wherever ``index_add`` gives them, on an accelerator under
deterministic algorithms. Nothing looks at a value: how many sequences a pack holds is not known
from its shape, so there is a slot for each token, and those beyond the last sequence are empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aptt.core.checks import INDEX_DTYPES, check_tensors, check_whole
from aptt.core.ordinary import is_readable
from aptt.core.precision import widest

__all__ = ["Segments", "segments_of", "sequences_of", "shifted"]


@dataclass(frozen=True)
class Segments:
    """Which sequence each token belongs to."""

    slot: Tensor | None
    """That of each token of a pack, int64; None: the rows of the last axis."""
    slots: int
    inside: Tensor | None = None
    """Which tokens belong to one at all; None: every one."""

    def total(self, values: Tensor) -> Tensor:
        """The sum of each sequence, in the widest float; whole numbers stay whole."""
        dtype = _dtype_of_sums(values)
        if self.slot is None:
            return values.sum(-1, dtype=dtype)
        if self.slots == 0:  # all tokens are of none
            return values[:0].to(dtype)
        return values.new_zeros(self.slots, dtype=dtype).index_add(0, self.slot, values.to(dtype))

    def least(self, values: Tensor) -> Tensor:
        """The smallest number of each sequence; infinity where there are no tokens."""
        if self.slot is None:
            return (
                values.amin(-1)
                if values.shape[-1]
                else values.new_full(values.shape[:-1], torch.inf)
            )
        room = values.new_full((self.slots,), torch.inf)
        return room.scatter_reduce(0, self.slot, values, "amin")

    def count(self, keep: Tensor) -> Tensor:
        """How many tokens of each sequence are kept."""
        return self.total(keep.to(torch.int64))

    def spread(self, of_sequences: Tensor) -> Tensor:
        """The number of its sequence, at each token."""
        if self.slot is None:
            return of_sequences.unsqueeze(-1)
        return of_sequences.index_select(0, self.slot)


def segments_of(
    tokens: Tensor,
    sequence_ids: Tensor | None,
    *,
    name: str = "log_prob",
    ids: str = "sequence_ids",
) -> Segments:
    """The sequences of a tensor of tokens, those of a pack in ascending order of their ids.

    Raises:
        ValueError: a vector without ids, or ids of another shape; ``name`` and ``ids`` are what
            the caller calls the two.
        TypeError: ids that are not whole numbers.
    """
    if sequence_ids is None:
        if tokens.ndim < 2:
            raise ValueError(
                f"{name}: got shape {tuple(tokens.shape)} without {ids}, wanted {ids}, which say "
                f"what belongs together; all of it together is a row, {name}.unsqueeze(0)"
            )
        return Segments(None, tokens.shape[:-1].numel())
    numbers = _checked(tokens, sequence_ids, name, ids)
    inside = numbers >= 0
    order = torch.where(inside, numbers, torch.iinfo(torch.int64).max)
    found, where = order.sort(stable=True)
    first = torch.zeros_like(found)
    first[1:] = (found[1:] != found[:-1]).to(torch.int64)
    slot = torch.zeros_like(first).scatter(0, where, first.cumsum(0))
    return Segments(slot, len(numbers), inside)


def shifted(ours: Sequence[int], theirs: Sequence[int]) -> str:
    """What an error says besides, where one of two shapes of tokens is a token longer; or ""."""
    rows = ours and theirs and ours[:-1] == theirs[:-1]
    if not rows or abs(ours[-1] - theirs[-1]) != 1:
        return ""
    return (
        "; the lengths differ by one: a token's log-probability, mask and advantage lie at the "
        "same place, shift all or none"
    )


def sequences_of(
    tokens: Tensor, sequence_ids: Tensor | None, number: int | None, *, name: str = "log_prob"
) -> Segments:
    """As :func:`segments_of`, without the slots that are empty because they are too many.

    With a ``number`` the ids of a pack are 0 to ``number - 1``, and each has its slot, with tokens
    or without. Without one they are counted, for which the host waits for an accelerator.
    """
    if sequence_ids is None:
        if number is not None:
            raise ValueError(
                f"num_sequences: got {number} without sequence_ids; the sequences of "
                f"{tuple(tokens.shape)} are its rows"
            )
        return segments_of(tokens, None, name=name)
    if number is None:
        found = segments_of(tokens, sequence_ids, name=name)
        assert found.slot is not None
        assert found.inside is not None
        ids = sequence_ids.long()
        known = (
            int((torch.where(found.inside, found.slot, -1).amax() + 1).item()) if len(ids) else 0
        )
        return Segments(found.slot.clamp(max=max(known - 1, 0)), known, found.inside)
    check_whole("num_sequences", number)
    ids = _checked(tokens, sequence_ids, name)
    if is_readable(ids) and int(ids.amax()) >= number:
        raise ValueError(
            f"sequence_ids: got {int(ids.amax())} with num_sequences={number}, wanted numbers "
            "below that, or below 0 for tokens of no sequence"
        )
    inside = ids >= 0
    return Segments(torch.where(inside, ids, 0), number, inside)


def _checked(tokens: Tensor, ids: Tensor, name: str, called: str = "sequence_ids") -> Tensor:
    check_tensors(**{name: tokens, called: ids})
    if ids.dtype not in INDEX_DTYPES:
        raise TypeError(f"{called}: got {ids.dtype}, wanted whole numbers")
    if tokens.ndim != 1 or ids.shape != tokens.shape:
        raise ValueError(
            f"{called}: got shape {tuple(ids.shape)} for {name} {tuple(tokens.shape)}, wanted "
            "one for each token of a pack, both (N,); a padded batch, whose rows are sequences, "
            "takes none"
        )
    return ids.long()


def _dtype_of_sums(t: Tensor) -> torch.dtype:
    if not t.is_floating_point():
        return torch.int64
    return widest(t)
