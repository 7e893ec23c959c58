"""What the structural losses share: their options, and images laid out for the formulas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_weight,
    check_floating,
    check_number,
    check_positive,
    check_tensors,
    check_whole,
)
from aptt.core.formula import Formula
from aptt.core.precision import widen
from aptt.core.reduction import Reduction, check_reduction, reduce
from aptt.core.shapes import check_shapes

__all__ = ["check_options", "compared"]


def compared(
    formula: Formula,
    prediction: Tensor,
    target: Numbers,
    weight: Numbers | None,
    *,
    data_range: float | None,
    window_size: int,
    sigma: float,
    k1: float,
    k2: float,
    scale_weight: Sequence[float] | None = None,
    reduction: Reduction,
    term: str,
) -> Tensor:
    """The loss of each image by a formula of :mod:`aptt.core.structure`, reduced."""
    check_options(data_range, window_size, sigma, k1, k2, scale_weight, reduction)
    assert data_range is not None
    check_floating(prediction=prediction)
    target = as_floats("target", target, prediction)
    if prediction.ndim not in (4, 5):
        raise ValueError(
            f"prediction: got shape {tuple(prediction.shape)}, wanted (N, C, H, W) or "
            "(N, C, D, H, W); unsqueeze(0) makes a batch of one image"
        )
    check_shapes(prediction=(prediction, "*N"), target=(target, "*N"))
    given = None if weight is None else as_weight("weight", weight, prediction)
    if given is not None:
        check_tensors(prediction=prediction, weight=given)
        check_shapes(prediction=(prediction, "N *S"), weight=(given, "N"))
    _check_sides(prediction, window_size, 1 if scale_weight is None else len(scale_weight))
    of_scales: dict[str, Any] = {}
    if scale_weight is not None:
        of_scales = {"weights": tuple(float(w) for w in scale_weight)}
    return reduce(
        formula,
        prediction.flatten(1),
        target.flatten(1),
        weight=given,
        count=lambda: len(prediction) if given is None else widen(given).sum(),
        reduction=reduction,
        term=term,
        shape=tuple(prediction.shape[1:]),
        window=(window_size, float(sigma)),
        c=((k1 * data_range) ** 2, (k2 * data_range) ** 2),
        **of_scales,
    )


def _check_sides(images: Tensor, size: int, scales: int) -> None:
    """Refuse images whose coarsest scale has no room for a window of this size."""
    least = min(images.shape[2:])
    if least >> (scales - 1) >= size:
        return
    hint = f" at {scales} scales" if scales > 1 else ""
    fit = (least // size).bit_length()
    if scales > 1 and fit:
        hint += f"; scale_weight of {fit} numbers fits"
    raise ValueError(
        f"prediction: got shape {tuple(images.shape)}, wanted sides of at least "
        f"{size << (scales - 1)}, for window_size={size}{hint}"
    )


def check_options(
    data_range: float | None,
    window_size: int,
    sigma: float,
    k1: float,
    k2: float,
    scale_weight: Sequence[float] | None,
    reduction: Reduction,
) -> None:
    """Hold the options of both losses to what they may be."""
    if data_range is None:
        raise ValueError(
            "data_range: got None, wanted the range of the data: 1 for images from 0 to 1, 255 for "
            "bytes"
        )
    check_whole("window_size", window_size, 2)
    for name, value in (("data_range", data_range), ("sigma", sigma), ("k1", k1), ("k2", k2)):
        check_positive(name, value)
    if scale_weight is not None:
        if isinstance(scale_weight, str) or not isinstance(scale_weight, Sequence):
            raise TypeError(f"scale_weight: got {scale_weight!r}, wanted a number for each scale")
        for weight in scale_weight:
            check_number("scale_weight", weight)
        if not any(scale_weight):
            raise ValueError(f"scale_weight: got {scale_weight!r}, wanted one above 0")
    check_reduction(reduction)
