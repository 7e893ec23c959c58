"""Heat maps from points: a Gaussian around each, wherever between the cells it lies."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_tensor,
    check_flags,
    check_positive,
    check_range,
    check_size,
)
from aptt.core.gaussian import gaussian_maps
from aptt.core.ordinary import is_readable
from aptt.core.precision import widen
from aptt.core.shapes import check_shapes

__all__ = ["render_heatmaps"]


def render_heatmaps(
    points: Numbers,
    size: tuple[int, int],
    *,
    sigma: float | Numbers = 2.0,
    visibility: Numbers | None = None,
    snap: bool = False,
) -> Tensor:
    """Heat maps with a Gaussian around each point, wherever between the cells it lies.

        exp(-((u - x)**2 + (v - y)**2) / (2 sigma**2))

    Args:
        points: ``(N, K, 2)``, x then y in cells of the map: 0 is the centre of the first. Whole
            numbers are taken as float32.
        size: height and width of the maps.
        sigma: in cells, above 0: a number, or ``(N, K)``.
        visibility: ``(N, K)``: a point with 0 or less has a map of zeros, whatever it holds.
        snap: round points to the nearest cell first, so that each peak is exactly 1.

    Returns:
        ``(N, K, height, width)``, from 0 to 1. float32 for half types.

    Raises:
        ValueError: shapes that do not fit.

    The gradient goes to ``points`` (not if they are snapped) and to ``sigma``.

    Use when:
        Making targets of ``heatmap_loss``; with ``kind="focal"``, snap, or say where peaks are.

    Elsewhere:
        mmpose ``UDPHeatmap`` (not snapped), ``MSRAHeatmap`` (snapped).

    Differs from:
        mmpose: not cut off at three sigma; no loop over points.

    Example:
        >>> import torch
        >>> render_heatmaps(torch.tensor([[[1.0, 0.0]]]), (1, 3), sigma=1.0)[0, 0, 0].tolist()[1]
        1.0
    """
    points = as_tensor("points", points)
    points = as_floats("points", points, points)
    check_flags(snap=snap)
    check_shapes(points=(points, "N K 2"))
    if isinstance(sigma, Real):
        check_positive("sigma", sigma := float(sigma))
    else:
        sigma = as_tensor("sigma", sigma, points)
        if sigma.ndim:
            check_shapes(points=(points, "N K 2"), sigma=(sigma, "N K"))
    check_size(size)
    points = widen(points)
    if visibility is not None:
        visibility = as_tensor("visibility", visibility, points)
        check_shapes(points=(points, "N K 2"), visibility=(visibility, "N K"))
        seen = visibility > 0
        points = torch.where(seen.unsqueeze(-1), points, 0.0)
        if isinstance(sigma, Tensor):
            sigma = torch.where(seen, sigma, 1.0)
    if isinstance(sigma, Tensor) and is_readable(points):
        check_range(sigma, torch.finfo(torch.float32).tiny, torch.inf, keep=None, name="sigma")
    if visibility is None:
        return gaussian_maps(points.round() if snap else points, sigma, size)
    maps = gaussian_maps(points.round() if snap else points, sigma, size)
    return torch.where(seen[..., None, None], maps, 0.0)
