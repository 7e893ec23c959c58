"""DSNT: a point as the mean of the softmax of a map, held to its target and to a width.

    p      = softmax(x / temperature)          mu = sum over cells of p * position
    loss   = |mu - t| + regularizer_weight * regularizer
    js         JS(p, q) = KL(p || m) / 2 + KL(q || m) / 2    q: a Gaussian around t, m = (p + q) / 2
    variance   sum over both axes of (var - sigma**2)**2     var: that of p, in cells squared

Axes: logits ``(N, K, height, width)``; points ``(N, K, 2)``, x then y in cells.
From: Nibali et al., "Numerical Coordinate Regression with Convolutional Neural Networks", 2018,
arXiv:1801.07372, section 4; without a regularizer, Sun et al., "Integral Human Pose Regression",
ECCV 2018, arXiv:1711.08229.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    check_choice,
    check_floating,
    check_number,
    check_positive,
)
from aptt.core.formula import Formula
from aptt.core.module import LossModule
from aptt.core.points import point_weights
from aptt.core.reduction import Reduction, check_reduction, count_of, reduce
from aptt.core.shapes import check_shapes
from aptt.loss.heat.moments import DISTANCES, REGULARIZERS, TOGETHER, Grid

__all__ = ["DSNTLoss", "dsnt_loss", "dsnt_terms"]

Distance = Literal["euclidean", "l1"]
Unit = Literal["map", "cell"]
Regularizer = Literal["js", "variance"]


def dsnt_loss(
    logits: Tensor,
    target: Numbers,
    *,
    visibility: Numbers | None = None,
    weight: Numbers | None = None,
    distance: Distance = "euclidean",
    unit: Unit = "map",
    regularizer: Regularizer = "js",
    regularizer_weight: float = 1.0,
    sigma: float = 1.0,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Distance of the mean of each map from its target, and what holds the map to one peak.

        |mu - t| + regularizer_weight * regularizer        mu = sum of softmax(x) * position

    Args:
        logits: ``(N, K, height, width)``, any floating dtype.
        target: points ``(N, K, 2)``, x then y in cells, of any real dtype: 0 is the centre of the
            first.
        visibility: ``(N, K)``: a point counts where it is above 0, as COCO has it. What others hold
            is of no account, NaN included. None: all count.
        weight: ``(N, K)``, such as the confidence of an annotation; multiplies and is counted,
            and 0 removes.
        distance: ``"euclidean"``, or ``"l1"``, the sum over both coordinates.
        unit: of the distance: ``"map"``, in which a map is 2 wide and 2 high, as published, or
            ``"cell"``.
        regularizer: ``"js"``, the Jensen-Shannon divergence from a Gaussian around the target,
            which the paper found best; or ``"variance"``.
        regularizer_weight: of the regularizer; 0 is integral regression.
        sigma: what the Gaussian, or the map, is to have, in cells; at least 0.001.
        temperature: divides the logits.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` one value per point ``(N, K)``. float32
        for half types.

    Raises:
        ValueError: shapes that do not fit, maps without a cell, an unknown option.

    The gradient goes to every cell, and to targets and weights that ask for it. A map that is sure
    of one cell has next to none from its distance, wherever that cell is: the divergence, which is
    at most log 2, is then all that teaches, and little of it beyond a few sigma. Points beyond the
    map are not reached. Decode with ``decode_heatmaps(method="soft-argmax")``.

    Use when:
        Points are read from maps of few cells, and errors below a cell are to be learnt.

    Elsewhere:
        dsntnn ``euclidean_losses``, ``js_reg_losses``, ``variance_reg_losses``; mmpose
        ``DSNTHead``.

    Differs from:
        dsntnn: from logits, so that no epsilon stands in a logarithm; coordinates in cells,
            which ``(2 c + 1) / size - 1`` makes those of the paper.
        mmpose: the Gaussian's sum is 1 at the border too.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[0.0, 0.0, 2.0, 0.0]]]])
        >>> round(dsnt_loss(logits, [[[2.0, 0.0]]], regularizer_weight=0.0).item(), 4)
        0.0963
        >>> round(dsnt_loss(logits, [[[2.0, 0.0]]]).item(), 4)
        0.1552
    """
    check_number("regularizer_weight", regularizer_weight)
    _check_options(distance, unit, regularizer, sigma, temperature, reduction)
    formula, options = DISTANCES[distance], {}
    if regularizer_weight:  # both in one walk, and their gradient rounded once
        formula, options = TOGETHER[distance, regularizer], {"share": regularizer_weight}
    made = _reduced(
        {"dsnt": formula}, logits, target, visibility, weight, unit, sigma, temperature, reduction,
        **options,
    )  # fmt: skip
    return made["dsnt"]


def dsnt_terms(
    logits: Tensor,
    target: Numbers,
    *,
    visibility: Numbers | None = None,
    weight: Numbers | None = None,
    distance: Distance = "euclidean",
    unit: Unit = "map",
    regularizer: Regularizer = "js",
    sigma: float = 1.0,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """Give the two terms of :func:`dsnt_loss`, by name and not yet weighted.

    Args:
        logits: ``(N, K, height, width)``, any floating dtype.
        target: points ``(N, K, 2)``, x then y in cells.
        visibility: ``(N, K)``: a point counts where it is above 0.
        weight: ``(N, K)``; multiplies and is counted.
        distance: ``"euclidean"`` or ``"l1"``.
        unit: of the distance: ``"map"`` or ``"cell"``.
        regularizer: ``"js"`` or ``"variance"``.
        sigma: what the Gaussian, or the map, is to have, in cells.
        temperature: divides the logits.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        ``{"distance": ..., "regularizer": ...}``, each as :func:`dsnt_loss` returns its sum.

    Raises:
        ValueError: as :func:`dsnt_loss` does.

    Use when:
        Logging the parts, or weighing them by a schedule.
    """
    _check_options(distance, unit, regularizer, sigma, temperature, reduction)
    formulas = {"distance": DISTANCES[distance], "regularizer": REGULARIZERS[regularizer]}
    return _reduced(
        formulas, logits, target, visibility, weight, unit, sigma, temperature, reduction
    )


def _reduced(
    formulas: Mapping[str, Formula],
    logits: Tensor,
    target: Numbers,
    visibility: Numbers | None,
    weight: Numbers | None,
    unit: str,
    sigma: float,
    temperature: float,
    reduction: Reduction,
    **options: Any,
) -> dict[str, Tensor]:
    check_floating(logits=logits)
    target = as_floats("target", target, logits)
    check_shapes(logits=(logits, "N K height width"), target=(target, "N K 2"))
    height, width = logits.shape[2:]
    if height * width == 0:
        raise ValueError(f"logits: got {tuple(logits.shape)}, with no cell in a map")
    w = point_weights(target, visibility, weight, like=logits)
    units = (2 / width, 2 / height) if unit == "map" else (1.0, 1.0)
    made = {}
    for name, formula in formulas.items():
        value = reduce(
            formula,
            logits.reshape(target.shape[0] * target.shape[1], height * width),
            target.reshape(-1, 2),
            weight=None if w is None else w.reshape(-1),
            count=lambda: count_of(target[..., 0], w),
            reduction=reduction,
            term=name,
            grid=Grid(height, width, temperature, units, sigma),
            **options,
        )
        made[name] = value.reshape(target.shape[:2]) if reduction == "none" else value
    return made


def _check_options(
    distance: str,
    unit: str,
    regularizer: str,
    sigma: float,
    temperature: float,
    reduction: Reduction,
) -> None:
    check_reduction(reduction)
    check_choice("distance", distance, tuple(DISTANCES))
    check_choice("unit", unit, ("map", "cell"))
    check_choice("regularizer", regularizer, tuple(REGULARIZERS))
    check_number("sigma", sigma, 1e-3)
    check_positive("temperature", temperature)


class DSNTLoss(LossModule):
    """Module form of :func:`dsnt_loss`; same options, same defaults."""

    terms_function = staticmethod(dsnt_terms)

    def __init__(
        self,
        distance: Distance = "euclidean",
        unit: Unit = "map",
        regularizer: Regularizer = "js",
        regularizer_weight: float = 1.0,
        sigma: float = 1.0,
        temperature: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(distance, unit, regularizer, sigma, temperature, reduction)
        check_number("regularizer_weight", regularizer_weight)
        super().__init__(
            distance=distance,
            unit=unit,
            regularizer=regularizer,
            regularizer_weight=regularizer_weight,
            sigma=sigma,
            temperature=temperature,
            reduction=reduction,
        )

    def forward(
        self,
        logits: Tensor,
        target: Numbers,
        *,
        visibility: Numbers | None = None,
        weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of maps ``logits`` against points ``target``."""
        return dsnt_loss(logits, target, visibility=visibility, weight=weight, **self.options())
