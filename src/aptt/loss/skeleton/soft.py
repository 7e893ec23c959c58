"""The soft skeleton: the middle of a soft mask.

    d = relu(x - open x)      what opening takes away
    S = d, then S + relu(d - S d) of each x eroded once more

Axes: mask ``(N, C, *S)``.
From: Shit et al. 2021, arXiv:2003.07311, algorithm 1.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import check_choice, check_floating, check_whole
from aptt.core.precision import widen
from aptt.core.skeleton import Border, skeleton_of

__all__ = ["check_skeleton", "soft_skeleton"]


def soft_skeleton(mask: Tensor, *, iterations: int = 3, border: Border = "open") -> Tensor:
    """The soft skeleton of soft masks, differentiable.

    Args:
        mask: ``(N, C, *S)``, from 0 to 1, such as probabilities; an image of any number of axes.
        iterations: how often it is eroded: at least the largest half width, or wide tubes have no
            skeleton.
        border: what lies beyond the frame: ``"open"``, nothing, so that what touches the frame
            goes on there; ``"background"``.

    Returns:
        ``(N, C, *S)``, from 0 to 1. float32 for half types.

    Raises:
        ValueError: no axis of pixels, an unknown option.

    Cells that are equal share a gradient. It holds ``2 (iterations + 1)`` tensors of this size.

    Example:
        >>> import torch
        >>> bar = torch.zeros(1, 1, 5, 7)
        >>> bar[..., 1:4, :] = 1
        >>> soft_skeleton(bar)[0, 0, 2].tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    check_floating(mask=mask)
    check_skeleton(iterations, border)
    if mask.ndim < 3:
        raise ValueError(f"mask: got shape {tuple(mask.shape)}, wanted (N, C, *S)")
    return skeleton_of(widen(mask), iterations, border)


def check_skeleton(iterations: int, border: str) -> None:
    """Hold the options of a skeleton to what they may be."""
    check_whole("iterations", iterations, 0)
    check_choice("border", border, ("open", "background"))
