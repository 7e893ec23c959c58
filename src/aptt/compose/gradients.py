"""Whose gradient is it: the share of each term, and which of them pull against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aptt.compose.slopes import At, Parts, gradients_at

__all__ = ["GradReport", "grad_report"]


@dataclass(frozen=True)
class GradReport:
    """The gradients of the weighted terms at one place, as plain numbers by name.

    ``norm``: how long each is. ``share``: its part of the sum of all norms. ``cosine``: of each
    pair, -1 where two terms pull in opposite directions; NaN where one has no gradient there.
    """

    norm: dict[str, float]
    share: dict[str, float]
    cosine: dict[str, dict[str, float]]

    def __str__(self) -> str:
        """A table: a row for each term."""
        wide = max(map(len, self.norm))
        rows = [
            f"{name:{wide}}  {self.share[name]:6.1%}  {norm:9.3g}   "
            + " ".join(f"{self.cosine[name][other]:+.2f}" for other in self.norm)
            for name, norm in self.norm.items()
        ]
        return "\n".join(
            [f"{'':{wide}}   share       norm   cosine with {' '.join(self.norm)}", *rows]
        )


def grad_report(names: Sequence[str], parts: Parts, weights: Tensor, at: At) -> GradReport:
    """The gradient of each weighted term at ``at``; the graph stays for ``backward``."""
    places = [at] if isinstance(at, Tensor) else list(at)
    rows = []
    for part in parts:
        found: list[Tensor | None] = [None] * len(places)
        if part is not None and part.requires_grad:
            found = gradients_at(part, places)
        flat = [
            (torch.zeros_like(place) if g is None else g).reshape(-1)
            for g, place in zip(found, places, strict=True)
        ]
        rows.append(torch.cat([g.to(torch.promote_types(g.dtype, torch.float32)) for g in flat]))
    gradients = torch.stack(rows) * weights.unsqueeze(1).to(rows[0].dtype)
    norms = torch.linalg.vector_norm(gradients, dim=1)
    units = gradients / norms.unsqueeze(1)
    lengths, cosines = norms.tolist(), (units @ units.T).tolist()
    whole = sum(lengths)
    return GradReport(
        norm=dict(zip(names, lengths, strict=True)),
        share={
            name: length / whole if whole else float("nan")
            for name, length in zip(names, lengths, strict=True)
        },
        cosine={
            name: dict(zip(names, row, strict=True))
            for name, row in zip(names, cosines, strict=True)
        },
    )
