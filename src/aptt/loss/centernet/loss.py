"""CenterNet: boxes as the peaks of a heat map, with a size and an offset at each.

    hm    penalty-reduced focal loss of the heat maps / number of peaks
    wh    sum of |size - target| over objects / count           sizes in cells of the map
    reg   sum of |offset - target| over objects / count         offset: centre - its cell
    loss  = hm_weight * hm + wh_weight * wh + reg_weight * reg

Axes: maps ``hm (N, C, H, W)``, ``wh`` and ``reg (N, 2, H, W)``; per object ``wh`` and ``reg (N, M,
2)``, ``ind`` and ``mask (N, M)``.
From: Zhou et al., "Objects as Points", 2019, arXiv:1904.07850, eq. 1 to 4.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from aptt.core.checks import (
    check_choice,
    check_number,
)
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.centernet.terms import Normalize, centernet_terms

__all__ = ["CenterNetLoss", "centernet_loss"]


def centernet_loss(
    predictions: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    hm_weight: float = 1.0,
    wh_weight: float = 0.1,
    reg_weight: float = 1.0,
    alpha: float = 2.0,
    beta: float = 4.0,
    normalize: Normalize = "coordinates",
    reduction: Reduction = "mean",
) -> Tensor:
    """CenterNet's loss, from its three maps and what :func:`centernet_targets` makes of boxes.

        loss = hm_weight * hm + wh_weight * wh + reg_weight * reg

    Args:
        predictions: ``hm`` logits ``(N, C, H, W)``, ``wh`` and ``reg (N, 2, H, W)``, of any
            floating dtype; further keys are refused.
        targets: ``hm (N, C, H, W)``, from 0 to 1; per object ``wh`` and ``reg (N, M, 2)``, ``ind``
            ``(N, M)``, its cell as ``row * W + column``, and ``mask (N, M)``: True, or a weight,
            where there is an object, 0 for padding, whose numbers may be anything. Optional:
            ``positive (N, C, H, W)``, bool, where the peaks are, if ``hm`` was resized or blurred
            and has no exact 1 left; ``weight (N, C, H, W)``, 0 in regions to be ignored.
        hm_weight: of the heat map term.
        wh_weight: of the size term; sizes are in cells, hence the small default.
        reg_weight: of the offset term.
        alpha: how fast pixels fade that the model gets right.
        beta: how fast the penalty fades towards a peak.
        normalize: what the mean of wh and reg divides by: ``"coordinates"``, two for each object,
            as the published code does, or ``"objects"``, as the paper writes.
        reduction: ``"mean"``, ``"sum"``, or a callable ``(total, count, *, term)``, called for
            each of ``"hm"``, ``"wh"`` and ``"reg"``.

    Returns:
        The loss, at least 0: a scalar. float32 for half types.

    Raises:
        ValueError: keys missing or unknown, shapes that do not fit, an unknown option; on CPU,
            cells out of range, and an image of objects without any peak in ``hm``.
        TypeError: predictions that are not floating, cells that are no integers.

    The gradient goes to all three predictions, also in a batch without objects: wh and reg are
    then 0, and hm, divided by 1, still penalises what looks like an object.

    Use when:
        Training an anchor-free detector whose head is a stack of maps.

    Elsewhere:
        CenterNet ``CtdetLoss``, mmdetection ``CenterNetHead``.

    Differs from:
        CenterNet: the heat map from logits, so that pixels beyond a logit of 9.2 keep their
            gradient and half precision works; padding may hold NaN; without objects the other terms
            are exactly 0, where 1e-4 is added to the count there.

    Example:
        >>> import torch
        >>> from aptt.loss import centernet_targets
        >>> targets = centernet_targets(
        ...     [torch.tensor([[4.0, 4.0, 12.0, 12.0]])], [torch.tensor([0])],
        ...     num_classes=1, size=(4, 4), stride=4,
        ... )
        >>> maps = {"hm": torch.zeros(1, 1, 4, 4), "wh": torch.ones(1, 2, 4, 4)}
        >>> maps["reg"] = torch.zeros(1, 2, 4, 4)
        >>> round(centernet_loss(maps, targets).item(), 4)
        2.8726
    """
    _check_weights(hm_weight, wh_weight, reg_weight)
    terms = centernet_terms(
        predictions, targets, alpha=alpha, beta=beta, normalize=normalize, reduction=reduction
    )
    return hm_weight * terms["hm"] + wh_weight * terms["wh"] + reg_weight * terms["reg"]


def _check_weights(hm_weight: float, wh_weight: float, reg_weight: float) -> None:
    for name, value in (
        ("hm_weight", hm_weight), ("wh_weight", wh_weight), ("reg_weight", reg_weight)
    ):  # fmt: skip
        check_number(name, value)


class CenterNetLoss(LossModule):
    """Module form of :func:`centernet_loss`; same options, same defaults."""

    terms_function = staticmethod(centernet_terms)

    def __init__(
        self,
        hm_weight: float = 1.0,
        wh_weight: float = 0.1,
        reg_weight: float = 1.0,
        alpha: float = 2.0,
        beta: float = 4.0,
        normalize: Normalize = "coordinates",
        reduction: Reduction = "mean",
    ) -> None:
        _check_weights(hm_weight, wh_weight, reg_weight)
        check_reduction(reduction, none=False)
        check_choice("normalize", normalize, ("coordinates", "objects"))
        check_number("alpha", alpha)
        check_number("beta", beta)
        super().__init__(
            hm_weight=hm_weight,
            wh_weight=wh_weight,
            reg_weight=reg_weight,
            alpha=alpha,
            beta=beta,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(self, predictions: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """The loss of ``predictions`` against ``targets``."""
        return centernet_loss(predictions, targets, **self.options())
