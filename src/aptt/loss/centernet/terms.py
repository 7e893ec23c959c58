"""The three terms of CenterNet's loss, by name and not yet weighted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import check_choice, check_floating, check_indices
from aptt.core.ordinary import is_readable
from aptt.core.precision import widen
from aptt.core.reduction import Reduction, check_reduction, named
from aptt.core.reduction import normalize as normalized
from aptt.core.shapes import check_shapes
from aptt.loss.centernet.keys import check_keys
from aptt.loss.heat import heatmap_loss

__all__ = ["Normalize", "centernet_terms"]

Normalize = Literal["coordinates", "objects"]


def centernet_terms(
    predictions: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    alpha: float = 2.0,
    beta: float = 4.0,
    normalize: Normalize = "coordinates",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """Give the three terms of :func:`centernet_loss`, by name and not yet weighted.

    Args:
        predictions: as :func:`centernet_loss` takes them.
        targets: as :func:`centernet_loss` takes them.
        alpha: how fast pixels fade that the model gets right.
        beta: how fast the penalty fades towards a peak.
        normalize: what the mean of wh and reg divides by: ``"coordinates"`` or ``"objects"``.
        reduction: ``"mean"``, ``"sum"``, or a callable ``(total, count, *, term)``.

    Returns:
        ``{"hm": ..., "wh": ..., "reg": ...}``, scalars with a graph.

    Raises:
        ValueError: as :func:`centernet_loss` does.

    Use when:
        Logging the parts, or weighing them by a schedule.
    """
    check_reduction(reduction, none=False)
    check_choice("normalize", normalize, ("coordinates", "objects"))
    check_keys("predictions", predictions, ("hm", "wh", "reg"))
    check_keys("targets", targets, ("hm", "wh", "reg", "ind", "mask"), ("positive", "weight"))
    check_floating(**{name: predictions[name] for name in ("hm", "wh", "reg")})
    check_shapes(
        hm=(predictions["hm"], "N C H W"),
        wh=(predictions["wh"], "N 2 H W"),
        reg=(predictions["reg"], "N 2 H W"),
        target_hm=(targets["hm"], "N C H W"),
        target_wh=(targets["wh"], "N M 2"),
        target_reg=(targets["reg"], "N M 2"),
        ind=(targets["ind"], "N M"),
        mask=(targets["mask"], "N M"),
    )
    mask = targets["mask"]
    check_indices(ind=targets["ind"])
    ind = torch.where(mask != 0, targets["ind"], 0).long()
    _check_cells(ind, predictions["hm"].shape[2:])
    _check_peaks(targets)

    terms = {
        "hm": heatmap_loss(
            predictions["hm"],
            targets["hm"],
            kind="focal",
            positive=targets.get("positive"),
            weight=targets.get("weight"),
            alpha=alpha,
            beta=beta,
            reduction=named(reduction, "hm"),
        )
    }
    wide = torch.promote_types(predictions["wh"].dtype, torch.float32)
    n = mask.to(wide).sum() * (2 if normalize == "coordinates" else 1)
    for term in ("wh", "reg"):
        total = _distance(predictions[term], targets[term], ind, mask)
        terms[term] = normalized(total, n, reduction, term=term, kind="positives")
    return terms


def _distance(maps: Tensor, target: Tensor, ind: Tensor, mask: Tensor) -> Tensor:
    """The sum of absolute differences at the objects' cells; padding is 0 whatever it holds."""
    found = maps.flatten(2).gather(2, ind.unsqueeze(1).expand(-1, 2, -1))  # asserts the range
    found = widen(found).transpose(1, 2)
    off = torch.where((mask != 0).unsqueeze(2), found - target.to(found.dtype), 0.0)
    return (off.abs() * mask.to(found.dtype).unsqueeze(2)).sum()


def _check_peaks(targets: Mapping[str, Tensor]) -> None:
    """Images whose objects have no peak train a detector to find nothing, silently."""
    hm, mask = targets["hm"], targets["mask"]
    if targets.get("positive") is not None or not is_readable(hm):
        return
    lost = (mask != 0).any(1) & ~(hm.flatten(1).amax(1) >= 1)
    if bool(lost.any()):  # perhaps: one NaN, where the weight is 0, hides the rest from amax
        lost &= ~(hm >= 1).flatten(1).any(1)
    if bool(lost.any()):
        image = int(lost.nonzero()[0])
        raise ValueError(
            f"hm: the mask has objects in image {image}, but the largest target there is "
            f"{hm[image].amax().item():g}; wanted 1 at each peak, or targets['positive'] to say "
            "where the peaks are"
        )


def _check_cells(ind: Tensor, size: Sequence[int]) -> None:
    cells = math.prod(size)
    if is_readable(ind) and not 0 <= int(ind.amin()) <= int(ind.amax()) < cells:
        wrong = ind[(ind < 0) | (ind >= cells)][0]
        raise ValueError(f"ind: got {int(wrong)}, wanted cells from 0 to {cells - 1}")
