"""Residual log-likelihood: points with a width each, and a density that is learnt beside them.

    e      = (x - t) / scale
    loss   = -log Q(e) - log G(e) + sum over coordinates of log scale

Q is a Laplace or a normal density; G, what it lacks of the density of the errors: a normalizing
flow that is trained along and not needed afterwards, or 1.

Axes: points and log scales ``(*N, K, D)``.
From: Li et al., "Human Pose Regression with Residual Log-likelihood Estimation", ICCV 2021,
arXiv:2107.11291, section 3, without the constant that normalizes the product of Q and G.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    check_choice,
    check_floating,
    check_positive,
    check_tensors,
)
from aptt.core.likelihood import GAUSSIAN, LAPLACE
from aptt.core.module import LossModule
from aptt.core.points import point_weights
from aptt.core.precision import wide, widen
from aptt.core.reduction import Reduction, check_reduction, count_of, normalize, reduce
from aptt.core.shapes import check_shapes

__all__ = ["RLELoss", "rle_loss"]

Distribution = Literal["laplace", "gaussian"]
Flow = Callable[[Tensor], Tensor]
"""The log-densities ``(P,)`` of errors ``(P, D)``."""


def rle_loss(
    prediction: Tensor,
    target: Numbers,
    log_scale: Tensor,
    visibility: Numbers,
    *,
    weight: Numbers | None = None,
    distribution: Distribution = "laplace",
    flow: Flow | None = None,
    least_scale: float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log likelihood of points whose widths are predicted, with a flow or without one.

        laplace     sum of log 2 + log_scale + |e|                    e = (x - t) exp(-log_scale)
        gaussian    sum of log(2 pi) / 2 + log_scale + e**2 / 2       both - flow(e)

    Args:
        prediction: points ``(*N, K, D)``, any floating dtype, in any unit.
        target: the same shape, of any real dtype.
        log_scale: the same shape: the logarithm of each error's scale, an output of the model;
            ``logsigmoid`` of it for scales below 1, as published.
        visibility: ``(*N, K)``: a point counts where it is above 0, as COCO has it. What other
            points hold is of no account, NaN included.
        weight: ``(*N, K)``, such as the confidence of an annotation; multiplies and is counted,
            and 0 removes.
        distribution: Q: ``"laplace"``, or ``"gaussian"``.
        flow: G: a callable that gives log-densities ``(P,)`` of errors ``(P, D)``, P points of
            which those that do not count are 0. None: G is 1.
        least_scale: measure the loss from its value at an error of 0 and this scale, which is a
            constant and changes no gradient: without a flow it is then at least 0 wherever no scale
            is below. None: the likelihood itself, which is negative once it is sharp.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, without a lower bound: a scalar, or with ``"none"`` one value per point ``(*N,
        K)``. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, log-densities of another shape, an unknown option.
        TypeError: a prediction or log scales that are not floating.

    The gradient goes to ``prediction`` and ``log_scale``, to what the flow has learnt, and to
    targets and weights that ask for it. Without a flow the best scale is ``|x - t|``. A log scale
    far below that of the errors costs what it costs: bound it in the model.

    Use when:
        Coordinates are regressed directly, and errors differ from point to point.

    Elsewhere:
        mmpose ``RLELoss``, ultralytics YOLO26 pose.

    Differs from:
        mmpose, the authors' code: the logarithm of the scale is added once, as the paper has it;
            twice there, which halves the best scale. Any number of coordinates; the flow is the
            caller's. The mean is over points that count.
        ultralytics: no clamp at 0, beyond which nothing is learnt: ``least_scale``.

    Example:
        >>> import torch
        >>> point, log_scale = torch.tensor([[[0.1, 0.0]]]), torch.full((1, 1, 2), 0.1).log()
        >>> truth, seen = torch.zeros(1, 1, 2), torch.ones(1, 1)
        >>> round(rle_loss(point, truth, log_scale, seen).item(), 4)
        -2.2189
        >>> round(rle_loss(point, truth, log_scale, seen, least_scale=0.1).item(), 4)
        1.0
    """
    _check_options(distribution, flow, least_scale, reduction)
    check_floating(prediction=prediction, log_scale=log_scale)
    target = as_floats("target", target, prediction)
    check_shapes(prediction=(prediction, "*N K D"), target=(target, "*N K D"))
    check_shapes(prediction=(prediction, "*N K D"), log_scale=(log_scale, "*N K D"))
    w = point_weights(target, visibility, weight, like=prediction)
    x, s = widen(prediction), log_scale.to(wide(prediction.dtype))
    normal = distribution == "gaussian"
    constant = math.log(2 * math.pi) / 2 if normal else math.log(2)
    if least_scale is not None:  # the value there is this constant with its logarithm
        constant = -math.log(least_scale)
    options: dict[str, Any] = {"constant": constant} | ({"beta": 0.0} if normal else {})
    loss = reduce(
        GAUSSIAN if normal else LAPLACE,
        torch.stack((x, 2 * s if normal else s), -1).view(-1, 2),
        target.reshape(-1),
        weight=w.unsqueeze(-1).expand(x.shape).reshape(-1),
        count=lambda: 1,
        reduction="none" if reduction == "none" else "sum",
        term="rle",
        **options,
    )
    if reduction == "none":
        loss = loss.view(x.shape).sum(-1)
    if flow is not None:
        lacking = _lacking(flow, x, target, s, w)
        loss = loss - (lacking if reduction == "none" else lacking.sum())
    return loss if reduction == "none" else normalize(loss, count_of(w, w), reduction, term="rle")


def _lacking(flow: Flow, x: Tensor, target: Tensor, s: Tensor, w: Tensor) -> Tensor:
    """The log-densities of a flow times the weights, ``(*N, K)``."""
    seen = w != 0
    off = torch.where(seen.unsqueeze(-1), x - target.to(x.dtype), 0.0)
    e = off * torch.where(seen.unsqueeze(-1), -s, 0.0).exp()
    rows = e.reshape(w.numel(), e.shape[-1])
    density = flow(rows)
    check_tensors(flow=density)
    if density.shape != rows.shape[:1]:
        raise ValueError(
            f"flow: got log-densities of shape {tuple(density.shape)} for errors of shape "
            f"{tuple(rows.shape)}, wanted {tuple(rows.shape[:1])}"
        )
    density = torch.where(seen, density.view(w.shape).to(x.dtype), 0.0)
    return density if w.dtype == torch.bool else density * w.to(x.dtype)


def _check_options(
    distribution: str, flow: Flow | None, least_scale: float | None, reduction: Reduction
) -> None:
    check_reduction(reduction)
    check_choice("distribution", distribution, ("laplace", "gaussian"))
    if flow is not None and not callable(flow):
        raise TypeError(f"flow: got {type(flow).__name__}, wanted a callable")
    if least_scale is not None:
        check_positive("least_scale", least_scale)


class RLELoss(LossModule):
    """Module form of :func:`rle_loss`; same options, same defaults.

    A ``flow`` that is a module is one of its modules: its parameters are among those of the loss.
    """

    def __init__(
        self,
        distribution: Distribution = "laplace",
        flow: Flow | None = None,
        least_scale: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(distribution, flow, least_scale, reduction)
        super().__init__(
            distribution=distribution, flow=flow, least_scale=least_scale, reduction=reduction
        )

    def forward(
        self,
        prediction: Tensor,
        target: Numbers,
        log_scale: Tensor,
        visibility: Numbers,
        *,
        weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of points and their log scales against ``target``."""
        return rle_loss(prediction, target, log_scale, visibility, weight=weight, **self.options())
