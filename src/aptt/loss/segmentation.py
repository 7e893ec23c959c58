"""Region losses for segmentation: overlap of whole areas, and its compounds.

    I = sum min(p, t)    FP = sum p - I    FN = sum t - I       over the pixels that are pooled

    Tversky      1 - (I + s) / (I + alpha FP + beta FN + s)
    Dice         alpha = beta = 1/2:    1 - 2 I / (sum p + sum t)
    IoU          alpha = beta = 1:      1 - I / (sum p + sum t - I)     (Jaccard)
    focal        (Tversky loss)**gamma, of each class
    generalised  1 - 2 sum_c v I / sum_c v (sum p + sum t)     v = 1 / (sum t)**2, of each class
    Lovasz       IoU loss of hard masks, made convex in the errors

averaged over the classes that are present (``absent`` says what becomes of the others).

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or like the logits.
From: Dice, Milletari et al. 2016 (V-Net), arXiv:1606.04797, section 3; Tversky, Salehi et al. 2017,
arXiv:1706.05721, eq. 3; focal, Abraham and Khan 2018, arXiv:1810.07842, eq. 4; generalised, Sudre
et al. 2017, arXiv:1707.03237, section 2.1; Lovasz, Berman et al. 2018, arXiv:1705.08790, eq. 8, 9.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from aptt.core.lovasz import lovasz_sums
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction, normalize
from aptt.core.regions import (
    Absent,
    Mode,
    Pool,
    RegionOptions,
    Regions,
    aligned,
    average,
    check_regions,
    measured,
    pixels,
    reduced,
    shares,
)
from aptt.core.shapes import check_choice, check_number, check_vector
from aptt.core.streaming import widen

__all__ = [
    "DiceCELoss",
    "DiceFocalLoss",
    "DiceLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceLoss",
    "IoULoss",
    "LovaszLoss",
    "TverskyLoss",
    "dice_ce_loss",
    "dice_ce_terms",
    "dice_focal_loss",
    "dice_focal_terms",
    "dice_loss",
    "focal_tversky_loss",
    "generalized_dice_loss",
    "lovasz_loss",
    "mask_iou_loss",
    "tversky_loss",
]

Weighting = Literal["square", "linear", "uniform"]


def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    background: bool = True,
    absent: Absent = "skip",
    smooth: float = 0.0,
    log: bool = False,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Soft Dice loss from logits.

        loss = 1 - 2 I / (sum p + sum t)      I = sum min(p, t)

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or floating ``(N, C, ...)`` in [0, 1], hard
            or soft; multilabel: like the logits, in [0, 1]; binary: like the logits, with or
            without their single channel.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        weight: ``(C,)``, one weight per class; multiplies and is counted.
        pixel_weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it.
        ignore_index: the target value that removes its pixel; None: -100 for class indices.
        background: whether class 0 of a softmax is averaged with the others.
        absent: what a class without target pixels costs: ``"skip"``, it is not counted;
            ``"zero"``, nothing; ``"smooth"``, what ``smooth`` makes of it; ``"penalize"``, its
            mean probability, which has a gradient wherever it is predicted.
        smooth: pixels added to numerator and denominator.
        log: minus the logarithm of the ratio, not 1 less it.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over classes (and samples): ``"mean"`` by weight, ``"sum"``, ``"none"`` for
            ``(C,)`` or ``(N, C)``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1] per class; 0 for a perfect prediction. float32 for half types. With
        ``log`` it is infinite by definition where nothing overlaps; it ends at ``-log 1e-30``,
        which is 69.1.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it. The sums of a
    ratio cannot be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        The regions are small beside the background, or Dice is the metric. Alone it says little
        about confidence: add cross-entropy. With ``pool="sample"`` every image counts alike.

    Elsewhere:
        MONAI, segmentation-models-pytorch ``DiceLoss``, kornia ``dice_loss``, nnU-Net
        ``SoftDiceLoss``; soft F1.

    Differs from:
        MONAI: per sample and class, absent classes cost 1 there: ``pool="sample",
            absent="smooth", smooth=...`` with half its smoothing constant.
        segmentation-models-pytorch: ``absent="zero"``; the same ``smooth``.
        kornia: ``average="macro"`` is ``pool="sample"``, averaged by sample first; its default
            ``"micro"`` pools the classes and is ``1 - mean p[target]``.
        nnU-Net: minus the score, from -1 to 0.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> round(dice_loss(logits, torch.tensor([[[1, 0, 0]]]), mode="binary").item(), 4)
        0.3414
    """
    check_regions(mode, background, absent, pool, reduction, smooth=smooth)
    options = RegionOptions(
        mode, weight, pixel_weight, ignore_index, background, absent, smooth, pool, reduction
    )
    regions, _, _ = measured(logits, target, options)
    loss = _ratio(regions, 0.5, 0.5, smooth, log=log)
    return average(loss, regions, options, term="dice")


def mask_iou_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    background: bool = True,
    absent: Absent = "skip",
    smooth: float = 0.0,
    log: bool = False,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Soft IoU (Jaccard) loss from logits.

        loss = 1 - I / (sum p + sum t - I)      I = sum min(p, t)

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or floating ``(N, C, ...)`` in [0, 1], hard
            or soft; multilabel: like the logits, in [0, 1]; binary: like the logits, with or
            without their single channel.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        weight: ``(C,)``, one weight per class; multiplies and is counted.
        pixel_weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it.
        ignore_index: the target value that removes its pixel; None: -100 for class indices.
        background: whether class 0 of a softmax is averaged with the others.
        absent: what a class without target pixels costs: ``"skip"``, it is not counted;
            ``"zero"``, nothing; ``"smooth"``, what ``smooth`` makes of it; ``"penalize"``, its
            mean probability, which has a gradient wherever it is predicted.
        smooth: pixels added to numerator and denominator.
        log: minus the logarithm of the ratio, not 1 less it.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over classes (and samples): ``"mean"`` by weight, ``"sum"``, ``"none"`` for
            ``(C,)`` or ``(N, C)``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1] per class; 0 for a perfect prediction. float32 for half types. With
        ``log`` it is infinite by definition where nothing overlaps; it ends at ``-log 1e-30``,
        which is 69.1.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it. The sums of a
    ratio cannot be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        IoU is the metric. It ranks as Dice does, and punishes poor overlap harder.

    Elsewhere:
        segmentation-models-pytorch ``JaccardLoss``, MONAI ``DiceLoss(jaccard=True)``.

    Differs from:
        MONAI: ``DiceLoss(jaccard=True)`` adds its smoothing once to ``sum p + sum t - I``, and half
            of it to I; here ``smooth`` is added to both.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> round(mask_iou_loss(logits, torch.tensor([[[1, 0, 0]]]), mode="binary").item(), 4)
        0.509
    """
    check_regions(mode, background, absent, pool, reduction, smooth=smooth)
    options = RegionOptions(
        mode, weight, pixel_weight, ignore_index, background, absent, smooth, pool, reduction
    )
    regions, _, _ = measured(logits, target, options)
    loss = _ratio(regions, 1.0, 1.0, smooth, log=log)
    return average(loss, regions, options, term="mask_iou")


def tversky_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    background: bool = True,
    absent: Absent = "skip",
    smooth: float = 0.0,
    log: bool = False,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Tversky loss from logits: Dice with a price for each kind of error.

        loss = 1 - I / (I + alpha FP + beta FN)

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or floating ``(N, C, ...)`` in [0, 1], hard
            or soft; multilabel: like the logits, in [0, 1]; binary: like the logits, with or
            without their single channel.
        alpha: what a false positive weighs.
        beta: what a false negative weighs; above ``alpha`` for recall, below it for precision.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        weight: ``(C,)``, one weight per class; multiplies and is counted.
        pixel_weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it.
        ignore_index: the target value that removes its pixel; None: -100 for class indices.
        background: whether class 0 of a softmax is averaged with the others.
        absent: what a class without target pixels costs: ``"skip"``, it is not counted;
            ``"zero"``, nothing; ``"smooth"``, what ``smooth`` makes of it; ``"penalize"``, its
            mean probability, which has a gradient wherever it is predicted.
        smooth: pixels added to numerator and denominator.
        log: minus the logarithm of the ratio, not 1 less it.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over classes (and samples): ``"mean"`` by weight, ``"sum"``, ``"none"`` for
            ``(C,)`` or ``(N, C)``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1] per class; 0 for a perfect prediction. float32 for half types. With
        ``log`` it is infinite by definition where nothing overlaps; it ends at ``-log 1e-30``,
        which is 69.1.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it. The sums of a
    ratio cannot be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        Missing a region and inventing one do not cost the same.

    Elsewhere:
        MONAI, segmentation-models-pytorch ``TverskyLoss``, kornia ``tversky_loss``.

    Differs from:
        MONAI, kornia, segmentation-models-pytorch: the same alpha and beta. Some papers name them
            the other way round.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> target = torch.tensor([[[1, 0, 0]]])
        >>> round(tversky_loss(logits, target, mode="binary", alpha=0.3, beta=0.7).item(), 4)
        0.2415
    """
    check_regions(mode, background, absent, pool, reduction, smooth=smooth, alpha=alpha, beta=beta)
    options = RegionOptions(
        mode, weight, pixel_weight, ignore_index, background, absent, smooth, pool, reduction
    )
    regions, _, _ = measured(logits, target, options)
    loss = _ratio(regions, alpha, beta, smooth, log=log)
    return average(loss, regions, options, term="tversky")


def focal_tversky_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float = 0.75,
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    background: bool = True,
    absent: Absent = "skip",
    smooth: float = 0.0,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Tversky loss of each class to a power.

        loss = (1 - I / (I + alpha FP + beta FN))**gamma

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or floating ``(N, C, ...)`` in [0, 1], hard
            or soft; multilabel: like the logits, in [0, 1]; binary: like the logits, with or
            without their single channel.
        alpha: what a false positive weighs.
        beta: what a false negative weighs; above ``alpha`` for recall, below it for precision.
        gamma: the exponent, above 0: below 1 it sharpens the last errors, above 1 it fades them.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        weight: ``(C,)``, one weight per class; multiplies and is counted.
        pixel_weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it.
        ignore_index: the target value that removes its pixel; None: -100 for class indices.
        background: whether class 0 of a softmax is averaged with the others.
        absent: what a class without target pixels costs: ``"skip"``, it is not counted;
            ``"zero"``, nothing; ``"smooth"``, what ``smooth`` makes of it; ``"penalize"``, its
            mean probability, which has a gradient wherever it is predicted.
        smooth: pixels added to numerator and denominator.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over classes (and samples): ``"mean"`` by weight, ``"sum"``, ``"none"`` for
            ``(C,)`` or ``(N, C)``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1] per class; 0 for a perfect prediction. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it. The sums of a
    ratio cannot be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        Classes that are nearly right should still be pushed (gamma < 1), or left alone (> 1).

    Elsewhere:
        segmentation-models-pytorch ``TverskyLoss(gamma=...)``.

    Differs from:
        The paper: its exponent is 1 / gamma.
        segmentation-models-pytorch: raises the mean over the classes; here each class.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> target = torch.tensor([[[1, 0, 0]]])
        >>> round(focal_tversky_loss(logits, target, mode="binary").item(), 4)
        0.4466
    """
    check_regions(
        mode,
        background,
        absent,
        pool,
        reduction,
        smooth=smooth,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
    )
    options = RegionOptions(
        mode, weight, pixel_weight, ignore_index, background, absent, smooth, pool, reduction
    )
    regions, _, _ = measured(logits, target, options)
    loss = _ratio(regions, alpha, beta, smooth)
    if gamma != 1:
        some = loss > 0  # at 0 the slope of a power below 1 is infinite
        loss = torch.where(some, torch.where(some, loss, 1) ** gamma, 0)
    return average(loss, regions, options, term="focal_tversky")


def generalized_dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weighting: Weighting = "square",
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    background: bool = True,
    absent: Literal["skip", "zero", "penalize"] = "skip",
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Generalised Dice loss from logits: one ratio for all classes, each by its rarity.

        loss = 1 - 2 sum_c v I / sum_c v (sum p + sum t)      v = weight / (sum t)**2

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or floating ``(N, C, ...)`` in [0, 1], hard
            or soft; multilabel: like the logits, in [0, 1]; binary: like the logits, with or
            without their single channel.
        weighting: by what power of its area a class counts less: ``"square"``, ``"linear"``, or
            ``"uniform"``, by none.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        weight: ``(C,)``, one more weight per class, inside the ratio; it is not counted.
        pixel_weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it.
        ignore_index: the target value that removes its pixel; None: -100 for class indices.
        background: whether class 0 of a softmax is summed with the others.
        absent: what a class without target pixels is worth: ``"skip"`` and ``"zero"``, nothing;
            ``"penalize"``, as much as the rarest. Where all are absent: ``"skip"``, it is not
            counted; ``"zero"``, 0; ``"penalize"``, the mean probability.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over samples: ``"mean"``, ``"sum"``, ``"none"`` for ``()`` or ``(N,)``, or a
            callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1]; 0 for a perfect prediction. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it. The sums of a
    ratio cannot be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        Classes differ in area by orders of magnitude. A class of a few pixels then rules the loss:
        :func:`dice_loss`, which counts every class alike, is steadier.

    Elsewhere:
        MONAI ``GeneralizedDiceLoss``; ``weighting="uniform"`` with ``pool="sample"`` is kornia's
        ``dice_loss``, and over hard targets nothing but ``1 - mean p[target]``.

    Differs from:
        MONAI: ``pool="sample", absent="penalize"`` there, with smoothing; where all classes are
            absent it gives 0 without a gradient.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[2.0, 2.0, 0.0], [0.0, 0.0, 1.0]]])
        >>> round(generalized_dice_loss(logits, torch.tensor([[0, 0, 1]])).item(), 4)
        0.213
    """
    _check_generalized(weighting, mode, background, absent, pool, reduction)
    options = RegionOptions(
        mode, weight, pixel_weight, ignore_index, background, absent, 0.0, pool, reduction
    )
    regions, _, _ = measured(logits, target, options)
    share = shares(regions.truth, regions.weight, background=background)
    present = (regions.truth > 0) & (share > 0)
    some, truth = present.any(-1), torch.where(present, regions.truth, 1)
    # relative to the rarest class, so that a power of a large area does not underflow
    rarest = torch.where(present, regions.truth, torch.inf).amin(-1, keepdim=True).detach()
    rarest = torch.where(some.unsqueeze(-1), rarest, 1)
    value = torch.where(present, (rarest / truth) ** _POWERS[weighting], absent == "penalize")
    miss = regions.misses(0.5, 0.5)
    found, whole = value * share * miss, value * share * (regions.common + miss)
    loss = _over(found.sum(-1), whole.sum(-1))
    nothing: Tensor | float = 0.0
    if absent == "penalize":
        nothing = _over((regions.mean_probability() * share).sum(-1), share.sum(-1))
    loss = torch.where(some, loss, nothing)
    counted = some if absent == "skip" else regions.pixels.amax(-1) > 0
    counted = counted.to(loss.dtype)
    return reduced(loss, counted, regions.dtype, reduction, term="generalized_dice")


def dice_ce_loss(
    logits: Tensor,
    target: Tensor,
    *,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    background: bool = True,
    absent: Absent = "skip",
    smooth: float = 0.0,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Dice and cross-entropy of the same logits, in one walk over them.

        loss = dice_weight * dice + ce_weight * cross_entropy

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or floating ``(N, C, ...)`` in [0, 1], hard
            or soft; multilabel: like the logits, in [0, 1]; binary: like the logits, with or
            without their single channel.
        dice_weight: what the Dice term is multiplied by.
        ce_weight: what the cross-entropy is multiplied by: of a softmax, or of each sigmoid.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        weight: ``(C,)``, one weight per class, for both terms; multiplies and is counted.
        pixel_weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it.
        ignore_index: the target value that removes its pixel; None: -100 for class indices.
        background: whether class 0 of a softmax is in the Dice term; it is in the cross-entropy.
        absent: what a class without target pixels costs: ``"skip"``, it is not counted;
            ``"zero"``, nothing; ``"smooth"``, what ``smooth`` makes of it; ``"penalize"``, its
            mean probability, which has a gradient wherever it is predicted.
        smooth: pixels added to numerator and denominator of Dice.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: ``"mean"``: Dice over classes (and samples), cross-entropy over pixels, each by
            weight; ``"sum"``; or a callable ``(total, count, *, term)``, called for each term,
            ``"dice"`` and ``"cross_entropy"``. There is no ``"none"``: the terms have no common
            shape.

    Returns:
        The loss, at least 0; 0 for a perfect prediction. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it.

    Use when:
        In doubt, for segmentation: cross-entropy gives every pixel a gradient, and Dice keeps the
        small classes in sight.

    Elsewhere:
        MONAI ``DiceCELoss``, nnU-Net ``DC_and_CE_loss``; for masks also Dice + BCE.

    Differs from:
        MONAI: the second term follows the mode: binary cross-entropy of each label, where
            ``DiceCELoss(sigmoid=True)`` takes that of a softmax; pixels can be ignored.
        nnU-Net: Dice there is minus the score, so that the sum starts below 0.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> round(dice_ce_loss(logits, torch.tensor([[[1, 0, 0]]]), mode="binary").item(), 4)
        1.6929
    """
    _check_weights(dice_weight=dice_weight, ce_weight=ce_weight)
    terms = dice_ce_terms(
        logits,
        target,
        mode=mode,
        weight=weight,
        pixel_weight=pixel_weight,
        ignore_index=ignore_index,
        background=background,
        absent=absent,
        smooth=smooth,
        pool=pool,
        reduction=reduction,
    )
    return dice_weight * terms["dice"] + ce_weight * terms["cross_entropy"]


def dice_ce_terms(
    logits: Tensor,
    target: Tensor,
    *,
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    background: bool = True,
    absent: Absent = "skip",
    smooth: float = 0.0,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`dice_ce_loss`, each before its weight.

    Args as there.

    Returns:
        ``{"dice": ..., "cross_entropy": ...}``.

    Example:
        >>> import torch
        >>> terms = dice_ce_terms(torch.zeros(1, 2, 3), torch.tensor([[0, 0, 1]]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'dice': 0.5143, 'cross_entropy': 0.6931}
    """
    check_regions(mode, background, absent, pool, reduction, smooth=smooth, none=False)
    options = RegionOptions(
        mode, weight, pixel_weight, ignore_index, background, absent, smooth, pool, reduction
    )
    return _compound(logits, target, options, gamma=0.0, term="cross_entropy")


def dice_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    dice_weight: float = 1.0,
    focal_weight: float = 1.0,
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    background: bool = True,
    absent: Absent = "skip",
    smooth: float = 0.0,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Dice and focal loss of the same logits, in one walk over them.

        loss = dice_weight * dice + focal_weight * (1 - p)**gamma * -log p

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``; multilabel: 0 and 1, like the logits;
            binary: 0 and 1, like the logits, with or without their single channel.
        gamma: how fast easy pixels fade, above 0; at 0 it would be :func:`dice_ce_loss`.
        dice_weight: what the Dice term is multiplied by.
        focal_weight: what the focal term is multiplied by: of a softmax, or of each sigmoid.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        weight: ``(C,)``, one weight per class, for both terms; multiplies and is counted.
        pixel_weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it.
        ignore_index: the target value that removes its pixel; None: -100 for class indices.
        background: whether class 0 of a softmax is in the Dice term; it is in the focal term.
        absent: what a class without target pixels costs: ``"skip"``, it is not counted;
            ``"zero"``, nothing; ``"smooth"``, what ``smooth`` makes of it; ``"penalize"``, its
            mean probability, which has a gradient wherever it is predicted.
        smooth: pixels added to numerator and denominator of Dice.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: ``"mean"``: Dice over classes (and samples), focal over pixels, each by weight;
            ``"sum"``; or a callable ``(total, count, *, term)``, called for each term, ``"dice"``
            and ``"focal"``. There is no ``"none"``: the terms have no common shape.

    Returns:
        The loss, at least 0; 0 for a perfect prediction. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to weights that ask for it.

    Use when:
        Most pixels are easy, and cross-entropy would be spent on them.

    Elsewhere:
        MONAI ``DiceFocalLoss``.

    Differs from:
        MONAI: the focal term is of a softmax in a multiclass problem, and its mean is over pixels,
            not pixels times classes.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> round(dice_focal_loss(logits, torch.tensor([[[1, 0, 0]]]), mode="binary").item(), 4)
        1.633
    """
    _check_weights(dice_weight=dice_weight, focal_weight=focal_weight)
    terms = dice_focal_terms(
        logits,
        target,
        gamma=gamma,
        mode=mode,
        weight=weight,
        pixel_weight=pixel_weight,
        ignore_index=ignore_index,
        background=background,
        absent=absent,
        smooth=smooth,
        pool=pool,
        reduction=reduction,
    )
    return dice_weight * terms["dice"] + focal_weight * terms["focal"]


def dice_focal_terms(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    background: bool = True,
    absent: Absent = "skip",
    smooth: float = 0.0,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`dice_focal_loss`, each before its weight.

    Args as there.

    Returns:
        ``{"dice": ..., "focal": ...}``.

    Example:
        >>> import torch
        >>> terms = dice_focal_terms(torch.zeros(1, 2, 3), torch.tensor([[0, 0, 1]]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'dice': 0.5143, 'focal': 0.1733}
    """
    check_regions(mode, background, absent, pool, reduction, smooth=smooth, none=False, gamma=gamma)
    options = RegionOptions(
        mode, weight, pixel_weight, ignore_index, background, absent, smooth, pool, reduction
    )
    return _compound(logits, target, options, gamma=gamma, term="focal")


def lovasz_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    background: bool = True,
    absent: Literal["skip", "zero", "penalize"] = "skip",
    pool: Literal["batch", "sample"] = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Lovasz loss from logits: the IoU loss of hard masks, extended to errors in between.

        loss = sum over k of e[k] (J[k] - J[k - 1])      e: errors, falling; J: IoU loss of the
                                                         mask that errs in the first k pixels
        e    = |t - p| (multiclass)      max(0, 1 - (2 t - 1) x) (multilabel, binary)

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``; multilabel: 0 and 1, like the logits;
            binary: 0 and 1, like the logits, with or without their single channel.
        mode: ``"multiclass"`` (Lovasz-softmax), ``"multilabel"`` or ``"binary"`` (Lovasz hinge).
        weight: ``(C,)``, one weight per class; multiplies and is counted.
        pixel_weight: ``(N, ...)``, the part of each pixel in J; 0 removes it.
        ignore_index: the target value that removes its pixel; None: -100 for class indices.
        background: whether class 0 of a softmax is averaged with the others.
        absent: what a class without target pixels costs: ``"skip"``, it is not counted;
            ``"zero"``, nothing; ``"penalize"``, its largest error, as the definition has it.
        pool: the pixels that are sorted together: ``"batch"`` or ``"sample"``. Ranks cannot be
            pooled: sorting is no sum.
        reduction: over classes (and samples): ``"mean"`` by weight, ``"sum"``, ``"none"`` for
            ``(C,)`` or ``(N, C)``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0; at most 1 per class of a softmax. 0 for a perfect prediction, of a
        hinge where each logit is right by 1. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to pixel weights that ask for it. Where errors are equal it
    is one of several. Micro-batches are exact with ``pool="sample"`` only.

    Use when:
        IoU is the metric, after training with cross-entropy: fine-tuning with it is what its
        authors do.

    Elsewhere:
        The authors' ``lovasz_softmax`` and ``lovasz_hinge``; kornia ``lovasz_softmax_loss``,
        ``lovasz_hinge_loss``; segmentation-models-pytorch ``LovaszLoss``.

    Differs from:
        The authors, segmentation-models-pytorch: ``per_image=True`` is ``pool="sample"``, averaged
            by sample first; their hinge of an empty mask is ``absent="penalize"``.
        kornia: ``pool="sample", absent="penalize"``; a label that is ignored there makes it
            negative.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> round(lovasz_loss(logits, torch.tensor([[[1, 0, 0]]]), mode="binary").item(), 4)
        2.5
    """
    _check_lovasz(mode, background, absent, pool, reduction)
    x, t, w = aligned(logits, target, mode, pixel_weight, ignore_index, hard=True)
    given = None if weight is None else check_vector("weight", weight, x)
    softmax, batch = mode == "multiclass", pool == "batch"
    loss = lovasz_sums(x, t, w, softmax=softmax, batch=batch, absent=absent == "penalize")
    truth, sizes = _foreground(x, t, w), pixels(x, w)
    if batch:
        truth, sizes = truth.sum(0), sizes.sum(0)
    if absent != "penalize":
        loss = torch.where(truth > 0, loss, 0)
    counted = (truth if absent == "skip" else sizes) > 0
    share = counted * shares(truth, given, background=background)
    return reduced(loss, share, loss.dtype, reduction, term="lovasz")


def _ratio(
    regions: Regions, alpha: float, beta: float, smooth: float, *, log: bool = False
) -> Tensor:
    """The Tversky loss of each class, without the difference from 1."""
    miss, found = regions.misses(alpha, beta), regions.common + smooth
    whole = found + miss
    if not log:
        return _over(miss, whole)
    # -log(found / whole); exact for a good overlap and for a tiny one
    return torch.log1p(_over(miss, torch.maximum(found, whole * _LEAST)))


_LEAST = 1e-30  # the ratio that a logarithm ends at: the most that float32 leaves a gradient to
_POWERS = {"square": 2, "linear": 1, "uniform": 0}


def _over(part: Tensor, whole: Tensor) -> Tensor:
    return part / torch.where(whole > 0, whole, 1)


def _compound(
    logits: Tensor, target: Tensor, o: RegionOptions, *, gamma: float, term: str
) -> dict[str, Tensor]:
    regions, cost, count = measured(logits, target, o, gamma=gamma)
    if regions.weight is not None:
        cost, count = cost * regions.weight, count * regions.weight
    total = cost.sum().to(regions.dtype)
    return {
        "dice": average(_ratio(regions, 0.5, 0.5, o.smooth), regions, o, term="dice"),
        term: normalize(total, count.sum(), o.reduction, term=term),
    }


def _foreground(x: Tensor, t: Tensor, w: Tensor | None) -> Tensor:
    """The weight of each sample's and class's foreground."""
    if t.ndim == x.ndim:
        return (t if w is None else torch.where(w == 0, 0, t) * w).sum(2, dtype=widen(x[:0]).dtype)
    mine = torch.ones_like(t, dtype=widen(x[:0]).dtype) if w is None else w
    return torch.zeros(x.shape[:2], dtype=mine.dtype, device=x.device).scatter_add(1, t, mine)


def _check_weights(**weights: float) -> None:
    for name, weight in weights.items():
        check_number(name, weight)


def _check_generalized(
    weighting: str, mode: Mode, background: bool, absent: str, pool: Pool, reduction: Reduction
) -> None:
    check_choice("weighting", weighting, tuple(_POWERS))
    policies = ("skip", "zero", "penalize")
    check_regions(mode, background, absent, pool, reduction, policies=policies)


def _check_lovasz(
    mode: Mode, background: bool, absent: str, pool: object, reduction: Reduction
) -> None:
    check_choice("pool", pool, ("batch", "sample"))
    policies = ("skip", "zero", "penalize")
    check_regions(mode, background, absent, "batch", reduction, policies=policies)


class _RegionLoss(LossModule):
    _function: Callable[..., Tensor]

    def forward(
        self, logits: Tensor, target: Tensor, *, pixel_weight: Tensor | None = None
    ) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return self._function(logits, target, pixel_weight=pixel_weight, **self.options())


class DiceLoss(_RegionLoss):
    """Module form of :func:`dice_loss`; same options, same defaults."""

    _function = staticmethod(dice_loss)

    def __init__(
        self,
        mode: Mode = "multiclass",
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        background: bool = True,
        absent: Absent = "skip",
        smooth: float = 0.0,
        log: bool = False,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        check_regions(mode, background, absent, pool, reduction, smooth=smooth)
        super().__init__(
            mode=mode,
            weight=per_class(weight),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            smooth=smooth,
            log=log,
            pool=pool,
            reduction=reduction,
        )


class IoULoss(DiceLoss):
    """Module form of :func:`mask_iou_loss`; same options, same defaults."""

    _function = staticmethod(mask_iou_loss)


class TverskyLoss(_RegionLoss):
    """Module form of :func:`tversky_loss`; same options, same defaults."""

    _function = staticmethod(tversky_loss)

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        mode: Mode = "multiclass",
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        background: bool = True,
        absent: Absent = "skip",
        smooth: float = 0.0,
        log: bool = False,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        check_regions(
            mode, background, absent, pool, reduction, smooth=smooth, alpha=alpha, beta=beta
        )
        super().__init__(
            alpha=alpha,
            beta=beta,
            mode=mode,
            weight=per_class(weight),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            smooth=smooth,
            log=log,
            pool=pool,
            reduction=reduction,
        )


class FocalTverskyLoss(_RegionLoss):
    """Module form of :func:`focal_tversky_loss`; same options, same defaults."""

    _function = staticmethod(focal_tversky_loss)

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float = 0.75,
        mode: Mode = "multiclass",
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        background: bool = True,
        absent: Absent = "skip",
        smooth: float = 0.0,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        check_regions(
            mode,
            background,
            absent,
            pool,
            reduction,
            smooth=smooth,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
        )
        super().__init__(
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            mode=mode,
            weight=per_class(weight),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            smooth=smooth,
            pool=pool,
            reduction=reduction,
        )


class GeneralizedDiceLoss(_RegionLoss):
    """Module form of :func:`generalized_dice_loss`; same options, same defaults."""

    _function = staticmethod(generalized_dice_loss)

    def __init__(
        self,
        weighting: Weighting = "square",
        mode: Mode = "multiclass",
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        background: bool = True,
        absent: Literal["skip", "zero", "penalize"] = "skip",
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check_generalized(weighting, mode, background, absent, pool, reduction)
        super().__init__(
            weighting=weighting,
            mode=mode,
            weight=per_class(weight),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            pool=pool,
            reduction=reduction,
        )


class DiceCELoss(_RegionLoss):
    """Module form of :func:`dice_ce_loss`; same options, same defaults."""

    _function = staticmethod(dice_ce_loss)

    def __init__(
        self,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
        mode: Mode = "multiclass",
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        background: bool = True,
        absent: Absent = "skip",
        smooth: float = 0.0,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check_weights(dice_weight=dice_weight, ce_weight=ce_weight)
        check_regions(mode, background, absent, pool, reduction, smooth=smooth, none=False)
        super().__init__(
            dice_weight=dice_weight,
            ce_weight=ce_weight,
            mode=mode,
            weight=per_class(weight),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            smooth=smooth,
            pool=pool,
            reduction=reduction,
        )


class DiceFocalLoss(_RegionLoss):
    """Module form of :func:`dice_focal_loss`; same options, same defaults."""

    _function = staticmethod(dice_focal_loss)

    def __init__(
        self,
        gamma: float = 2.0,
        dice_weight: float = 1.0,
        focal_weight: float = 1.0,
        mode: Mode = "multiclass",
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        background: bool = True,
        absent: Absent = "skip",
        smooth: float = 0.0,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check_weights(dice_weight=dice_weight, focal_weight=focal_weight)
        check_regions(
            mode, background, absent, pool, reduction, smooth=smooth, none=False, gamma=gamma
        )
        super().__init__(
            gamma=gamma,
            dice_weight=dice_weight,
            focal_weight=focal_weight,
            mode=mode,
            weight=per_class(weight),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            smooth=smooth,
            pool=pool,
            reduction=reduction,
        )


class LovaszLoss(_RegionLoss):
    """Module form of :func:`lovasz_loss`; same options, same defaults."""

    _function = staticmethod(lovasz_loss)

    def __init__(
        self,
        mode: Mode = "multiclass",
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        background: bool = True,
        absent: Literal["skip", "zero", "penalize"] = "skip",
        pool: Literal["batch", "sample"] = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check_lovasz(mode, background, absent, pool, reduction)
        super().__init__(
            mode=mode,
            weight=per_class(weight),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            pool=pool,
            reduction=reduction,
        )
