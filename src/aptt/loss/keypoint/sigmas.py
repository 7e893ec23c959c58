"""How far annotators disagree on each point of a skeleton, as a share of the object's size."""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    check_tensors,
    looking,
)
from aptt.core.memory import brought
from aptt.core.ordinary import is_readable

__all__ = ["SIGMAS", "check_sigmas", "sigmas_of"]

SIGMAS: dict[str, tuple[float, ...]] = {
    "coco": (
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
        0.087, 0.087, 0.089, 0.089,
    ),
    "crowdpose": (
        0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079,
        0.079,
    ),
}  # fmt: skip
"""How far annotators disagree on each point, as a share of the root of the object's area."""


def sigmas_of(sigmas: str | float | Numbers, prediction: Tensor) -> Tensor:
    """One number per point, in the dtype of the computation."""
    points = prediction.shape[-2]
    values = SIGMAS[sigmas] if isinstance(sigmas, str) else sigmas
    wide = torch.promote_types(prediction.dtype, torch.float32)
    if isinstance(values, Tensor):
        check_tensors(prediction=prediction, sigmas=values)
    try:
        if isinstance(values, Tensor):
            made = values.to(prediction.device, wide)
        else:
            made = brought(values, prediction, wide)
    except (TypeError, ValueError) as error:
        raise TypeError(f"sigmas: got {sigmas!r}, wanted numbers, one per point") from error
    if is_readable(prediction):
        check_sigmas(made)
    if made.ndim == 0:
        return made.expand(points)
    if made.shape != (points,):
        named = f"sigmas={sigmas!r} has {len(made)}" if isinstance(sigmas, str) else "sigmas: got "
        named += "" if isinstance(sigmas, str) else f"shape {tuple(made.shape)}"
        raise ValueError(f"{named}, wanted one for each of the {points} points of prediction")
    return made


def check_sigmas(sigmas: Tensor) -> None:
    """Refuse what is not real, or not above 0 where looking costs no host sync."""
    check_tensors(sigmas=sigmas)
    if not is_readable(sigmas):
        return
    with looking(sigmas):
        if not bool(((sigmas > 0) & (sigmas < torch.inf)).all()):
            raise ValueError(f"sigmas: got {sigmas.tolist()}, wanted positive numbers")
