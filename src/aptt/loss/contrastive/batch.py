"""What contrastive losses share: rows of embeddings, those of all ranks, and what is a pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_tensor,
    as_weight,
    check_classes,
    check_floating,
    check_indices,
    check_positive,
    check_tensors,
    check_weights,
)
from aptt.core.ordinary import bare
from aptt.core.precision import wide, widen
from aptt.core.reduction import Count, Reduction, normalize
from aptt.core.softmax import Against
from aptt.core.vectors import unit

__all__ = [
    "Duplicates",
    "GatherRows",
    "Rows",
    "as_number",
    "averaged",
    "check_gather",
    "check_scale",
    "columns_of",
    "labelled",
    "of_positives",
    "offset_of",
    "pairs_of",
    "row_weight",
    "tables",
]

Duplicates = Literal["mask", "positive"]
"""What a candidate with the id of an anchor is, besides its own."""


GatherRows = Callable[[Tensor], Tensor]
"""What puts the rows of all ranks one after another: :data:`aptt.parallel.gather`."""


class Rows(NamedTuple):
    """Embeddings, and what is known of each; of one rank, or of all."""

    values: Tensor
    """``(N, D)``, in the dtype of the computation."""
    ids: Tensor | None
    open: Tensor | None
    """``(N,)``: which of them take part; None: all."""

    def everywhere(self, gather: GatherRows | None) -> Rows:
        """Those of all ranks."""
        if gather is None:
            return self
        ids, open = (None if t is None else gather(t) for t in (self.ids, self.open))
        return Rows(gather(self.values), ids, open)

    def beside(self, other: Rows) -> Rows:
        """These, and others below them."""
        ids = open = None
        if self.ids is not None and other.ids is not None:
            ids = torch.cat((self.ids, other.ids))
        if self.open is not None or other.open is not None:
            open = torch.cat((_all(self), _all(other)))
        return Rows(torch.cat((self.values, other.values)), ids, open)

    def first(self, n: int) -> Rows:
        """The first n."""
        return Rows._make(None if t is None else t[:n] for t in self)


def _all(rows: Rows) -> Tensor:
    if rows.open is not None:
        return rows.open
    return rows.values.new_ones(len(rows.values), dtype=torch.bool)


def _prepared(values: Tensor, ids: Tensor | None, open: Tensor | None, *, cosine: bool) -> Rows:
    """Embeddings in the dtype of the computation, of length 1 if ``cosine``; 0 if not open."""
    x = widen(values)
    if open is not None:
        x = x.masked_fill(~open.unsqueeze(1), 0.0)
    return Rows(unit(x) if cosine else x, ids, open)


def pairs_of(
    anchors: Tensor,
    candidates: Tensor,
    target: Numbers | None,
    ids: Numbers | None,
    candidate_ids: Numbers | None,
    weight: Numbers | None,
    *,
    cosine: bool,
) -> tuple[Rows, Rows, Tensor | None]:
    """Anchors, candidates and weights, held to each other's shapes.

    A weight of 0 removes a pair, its candidate too; with a ``target`` the anchor alone.
    """
    anchors, candidates = tables(anchors=anchors, candidates=candidates)
    n, m = len(anchors), len(candidates)
    if target is None and m < n:
        raise ValueError(
            f"candidates: got {m} for {n} anchors, wanted one for each, or target=(N,)"
        )
    of_anchors = _ids("ids", ids, anchors, "anchors")
    of_candidates = _ids("candidate_ids", candidate_ids, candidates, "candidates")
    if of_anchors is None and of_candidates is not None:
        raise ValueError("candidate_ids: got a tensor without ids, wanted both: ids=(N,)")
    if of_anchors is not None and of_candidates is None:
        if n != m:
            raise ValueError(
                f"candidate_ids: got None for {m} candidates of {n} anchors, wanted ({m},), one a "
                "row of candidates"
            )
        of_candidates = of_anchors
    weights = row_weight(weight, anchors, "anchors")
    open = theirs = None if weights is None else weights != 0
    if target is not None:
        theirs = None
    elif theirs is not None and m > n:
        theirs = torch.cat((theirs, theirs.new_ones(m - n)))
    a = _prepared(anchors, of_anchors, open, cosine=cosine)
    return a, _prepared(candidates, of_candidates, theirs, cosine=cosine), weights


def labelled(
    embeddings: Tensor, target: Numbers, weight: Numbers | None, *, cosine: bool
) -> tuple[Rows, Tensor | None]:
    """Embeddings with their classes as ids, and weights; a weight of 0 removes its sample."""
    check_floating(embeddings=embeddings)
    _check_table("embeddings", embeddings)
    classes = _ids("target", target, embeddings, "embeddings")
    weights = row_weight(weight, embeddings, "embeddings")
    open = None if weights is None else weights != 0
    return _prepared(embeddings, classes, open, cosine=cosine), weights


def columns_of(target: Numbers, anchors: Tensor, candidates: int) -> Tensor:
    """The candidate of each anchor."""
    made = as_tensor("target", target, anchors)
    check_tensors(anchors=anchors, target=made)
    check_indices(target=made)
    if made.shape != anchors.shape[:1]:
        raise ValueError(
            f"target: got shape {tuple(made.shape)}, wanted ({len(anchors)},), the row of "
            "candidates that belongs to each anchor"
        )
    check_classes(made, candidates, None)
    return made.long()


def tables(**two: Tensor) -> tuple[Tensor, Tensor]:
    """Two tables of embeddings of one width, computed with in the dtype of the first."""
    check_floating(**two)
    for name, t in two.items():
        _check_table(name, t)
    (first, x), (name, y) = two.items()
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{name}: got {tuple(y.shape)} for {first} {tuple(x.shape)}, wanted rows of "
            f"{x.shape[1]} numbers"
        )
    return bare(x), bare(y).to(wide(x.dtype))


def _check_table(name: str, rows: Tensor) -> None:
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(
            f"{name}: got shape {tuple(rows.shape)}, wanted (N, D), one embedding a row"
        )


def row_weight(
    weight: Numbers | None,
    rows: Tensor,
    name: str,
    *,
    named: str = "weight",
    keep: Tensor | None = None,
) -> Tensor | None:
    """One weight a row, in the dtype of the computation; 0 where a row is not kept."""
    if weight is None:
        return None
    made = as_weight(named, weight, rows)
    check_tensors(**{name: rows, named: made})
    if made.shape != rows.shape[:1]:
        raise ValueError(
            f"{named}: got shape {tuple(made.shape)}, wanted ({len(rows)},), one a row of {name}"
        )
    if keep is not None:
        made = torch.where(keep, made, 0)
    check_weights(**{named: made})
    return made


def _ids(name: str, ids: Numbers | None, rows: Tensor, of: str) -> Tensor | None:
    """One id a row."""
    if ids is None:
        return None
    made = as_tensor(name, ids, rows)
    check_tensors(**{of: rows}, **{name: made})
    check_indices(**{name: made})
    if made.shape != rows.shape[:1]:
        raise ValueError(
            f"{name}: got shape {tuple(made.shape)}, wanted ({len(rows)},), one a row of {of}"
        )
    return made.long()


def check_scale(scale: float | Tensor) -> None:
    """Hold the factor of the similarities to one number above 0."""
    if isinstance(scale, Tensor):
        check_floating(scale=scale)
        if scale.numel() != 1:
            raise ValueError(f"scale: got shape {tuple(scale.shape)}, wanted one number")
    else:
        check_positive("scale", scale, cure=": 1 / temperature")


def as_number(name: str, value: float | Tensor, like: Tensor) -> Tensor:
    """A number as a 0-d tensor beside ``like``, without a wait; a tensor keeps its gradient."""
    if isinstance(value, Tensor):
        check_tensors(**{"anchors": like, name: value})
        return value.reshape(()).to(like.device, like.dtype)
    return like.new_full((), value)


def check_gather(gather: GatherRows | None) -> None:
    """Refuse what cannot say where this rank's rows begin."""
    if gather is not None and not (callable(gather) and hasattr(gather, "offset")):
        raise TypeError(
            f"gather: got {type(gather).__name__}, wanted aptt.parallel.gather, or a callable with "
            "a method 'offset' that says where this rank's rows begin among those of all"
        )


def offset_of(gather: GatherRows | None, rows: Tensor) -> int:
    """Where this rank's rows begin among those of all."""
    where: Any = None if gather is None else getattr(gather, "offset", None)
    return 0 if where is None else int(where(rows))


def of_positives(stats: Tensor, *, inside: bool = False) -> Tensor:
    """The loss of each row that has a positive, from :data:`POSITIVES`; of others, 0.

    The mean over them is outside of the logarithm, or inside.
    """
    top, rest, first, found, spread, count = stats
    none = count == 0
    level = (found + none.to(found.dtype)).log()
    nll = Against.of(top.detach(), rest, first.detach() + level).nll
    if inside:
        spread = (count.detach() + none.to(count.dtype)).log()
    return torch.where(none, 0.0, nll + spread)


def averaged(
    values: Tensor,
    weight: Tensor | None,
    keep: Tensor | None,
    reduction: Reduction,
    *,
    term: str,
    splits: bool,
) -> Tensor:
    """The values of the rows that count, reduced; counted by their weights."""
    count: Count = len(values)
    if weight is not None:
        weight = weight.to(values.dtype)
    if keep is not None:
        weight = keep.to(values.dtype) if weight is None else torch.where(keep, weight, 0.0)
    if weight is not None:
        values = torch.where(weight != 0, values, 0.0) * weight
        count = weight.sum()
    if reduction == "none":
        return values
    return normalize(values.sum(), count, reduction, term=term, splits=splits)
