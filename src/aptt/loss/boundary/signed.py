"""Signed distance maps, for a data loader: computed once an image, not at every step.

    phi    distance to the boundary of each class: above 0 outside, below 0 inside

Axes: target ``(N, *S)`` or ``(N, C, *S)``; maps ``(N, C, *S)``.
From: Kervadec et al. 2019, arXiv:1812.07032, section 2.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.checks import (
    INDEX_DTYPES,
    IgnoreIndex,
    as_tensor,
    check_binary,
    check_choice,
    check_classes,
    check_positive,
    check_tensors,
    check_whole,
    ignored,
    kept,
)
from aptt.core.distance import Distances, Rim, distance, signed_field
from aptt.loss.boundary.misses import Spacing, as_spacing

__all__ = ["signed_distance"]


@torch.no_grad()
def signed_distance(
    target: Tensor,
    *,
    num_classes: int | None = None,
    spacing: Spacing | None = None,
    rim: Rim = "zero",
    cap: float | None = None,
    ignore_index: IgnoreIndex = "auto",
    backend: Literal["torch", "scipy"] = "torch",
) -> Tensor:
    """Signed distance to the boundary of each class: for a data loader, after augmentation.

    Args:
        target: class indices ``(N, *S)`` with ``num_classes``; without it masks of 0 and 1,
            ``(N, C, *S)``. One image is a batch of one, ``target[None]``.
        num_classes: how many classes there are.
        spacing: the size of a pixel: one length, ``(D,)`` for the axes of an image, or ``(N, D)``
            where samples differ. None: 1.
        rim: ``"zero"``: 0 on the outermost pixels of a class; ``"centre"``: inside the distance to
            the nearest pixel of the other side, which :func:`hausdorff_loss` wants.
        cap: the largest distance, in the units of ``spacing``.
        ignore_index: the value of pixels of which nothing is known; None: all are; ``"auto"``: -100
            among class indices, and else all are.
        backend: ``"torch"``, or ``"scipy"`` for ``scipy.ndimage``: the same distances, on a CPU
            two to three times faster far from a boundary in two dimensions, and slower in three.

    Returns:
        float32 ``(N, C, *S)``: above 0 outside, below 0 inside, 0 in pixels that are ignored and in
        a class without a boundary. float16 keeps what a weight needs of it (``.half()``).

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.
        ImportError: ``backend="scipy"`` without scipy.

    A map may be cropped, and then knows of boundaries beyond the crop. It is flipped with its
    image, and made after a change of size, or multiplied by it.

    Example:
        >>> import torch
        >>> signed_distance(torch.tensor([[0, 1, 1, 1, 0]]), num_classes=2)[0, 1].tolist()
        [1.0, 0.0, -1.0, 0.0, 1.0]
    """
    check_tensors(target=target)
    target = as_tensor("target", target)
    check_choice("rim", rim, ("zero", "centre"))
    check_choice("backend", backend, ("torch", "scipy"))
    if cap is not None:
        check_positive("cap", cap)
    low = 2 if num_classes is not None else 3
    if target.ndim < low:
        raise ValueError(
            f"target: got shape {tuple(target.shape)}, wanted "
            + ("class indices (N, *S)" if low == 2 else "masks (N, C, *S), or num_classes=")
        )
    keep, removed = None, ignored(ignore_index, indexed=num_classes is not None)
    if num_classes is not None:
        check_whole("num_classes", num_classes)
        if target.dtype not in INDEX_DTYPES:
            raise TypeError(f"target: got {target.dtype}, wanted class indices")
        if not check_classes(target, num_classes, removed) and removed is not None:
            keep = kept(target, removed).unsqueeze(1)
        target = target.long()
    else:
        check_binary(target, removed)
        keep = None if removed is None else kept(target, removed)
    like = torch.zeros((), device=target.device)
    each = as_spacing(spacing, len(target), target.ndim - low + 1, like)
    how: Distances = distance if backend == "torch" else _scipy()
    return signed_field(
        target, keep, num_classes, each, rim=rim, cap=cap, dtype=like.dtype, distances=how
    )


def _scipy() -> Distances:
    """The same distances, by scipy."""
    try:
        ndimage: Any = import_module("scipy.ndimage")
    except ImportError as error:
        raise ImportError(
            "backend: 'scipy' wants scipy, which is not installed: pip install scipy, or "
            "backend='torch'"
        ) from error

    def distances(
        seeds: Tensor, spacing: Tensor | None, *, cap: float | None, dtype: torch.dtype
    ) -> Tensor:
        found = torch.full(seeds.shape, torch.inf, dtype=dtype)
        for i, mask in enumerate(seeds.cpu()):
            size = None if spacing is None else spacing[i % len(spacing)].tolist()
            if bool(mask.any()):  # without a seed it would measure to a phantom
                far = ndimage.distance_transform_edt(~mask.numpy(), sampling=size)
                found[i] = torch.from_numpy(far).to(dtype)
        return (found if cap is None else found.clamp(max=cap)).to(seeds.device)

    return distances
