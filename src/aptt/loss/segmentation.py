"""Region overlap losses for segmentation: one family over three sums.

    I = sum min(p, t)    FP = sum p - I    FN = sum t - I       over the pixels that are pooled

    Tversky  loss = 1 - (I + s) / (I + alpha FP + beta FN + s)
    Dice     alpha = beta = 1/2:    1 - 2 I / (sum p + sum t)
    IoU      alpha = beta = 1:      1 - I / (sum p + sum t - I)     (Jaccard)
    focal    (Tversky loss)**gamma, of each class

averaged over the classes that are present (``absent`` says what becomes of the others).

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or like the logits.
From: Dice, Milletari et al. 2016 (V-Net), arXiv:1606.04797, section 3; Tversky, Salehi et al. 2017,
arXiv:1706.05721, eq. 3; focal, Abraham and Khan 2018, arXiv:1810.07842, eq. 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.module import LossModule, per_class
from aptt.core.overlap import overlap_sums
from aptt.core.reduction import Reduction, check_reduction, normalize
from aptt.core.shapes import (
    check_choice,
    check_classes,
    check_floating,
    check_number,
    check_range,
    check_shapes,
    check_vector,
)
from aptt.core.streaming import widen

__all__ = [
    "DiceLoss",
    "FocalTverskyLoss",
    "IoULoss",
    "TverskyLoss",
    "dice_loss",
    "focal_tversky_loss",
    "mask_iou_loss",
    "tversky_loss",
]

Mode = Literal["multiclass", "multilabel", "binary"]
Absent = Literal["skip", "zero", "smooth", "penalize"]
Pool = Literal["batch", "sample"] | Callable[[Tensor], Tensor]


def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    absent: Absent = "skip",
    smooth: float = 0.0,
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
    options = _Options(mode, weight, pixel_weight, ignore_index, absent, smooth, pool, reduction)
    return _overlap_loss(logits, target, options, alpha=0.5, beta=0.5, term="dice")


def mask_iou_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    absent: Absent = "skip",
    smooth: float = 0.0,
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
    options = _Options(mode, weight, pixel_weight, ignore_index, absent, smooth, pool, reduction)
    return _overlap_loss(logits, target, options, alpha=1.0, beta=1.0, term="mask_iou")


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
    absent: Absent = "skip",
    smooth: float = 0.0,
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
    options = _Options(mode, weight, pixel_weight, ignore_index, absent, smooth, pool, reduction)
    return _overlap_loss(logits, target, options, alpha=alpha, beta=beta, term="tversky")


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
    options = _Options(mode, weight, pixel_weight, ignore_index, absent, smooth, pool, reduction)
    return _overlap_loss(
        logits, target, options, alpha=alpha, beta=beta, gamma=gamma, term="focal_tversky"
    )


class _Options(NamedTuple):
    mode: Mode
    weight: Tensor | None
    pixel_weight: Tensor | None
    ignore_index: int | None
    absent: Absent
    smooth: float
    pool: Pool
    reduction: Reduction


def _overlap_loss(
    logits: Tensor,
    target: Tensor,
    o: _Options,
    *,
    alpha: float,
    beta: float,
    gamma: float = 1.0,
    term: str,
) -> Tensor:
    _check_options(o.mode, o.absent, o.smooth, o.pool, o.reduction, alpha, beta, gamma)
    x, t, w = _aligned(logits, target, o.mode, o.pixel_weight, o.ignore_index)
    dtype = widen(x[:0]).dtype
    sums = overlap_sums(x, t, w, softmax=o.mode == "multiclass")
    sums = torch.cat((sums, _pixels(x, w).to(sums.dtype).unsqueeze(-1)), dim=-1)
    if o.pool != "sample":
        sums = sums.sum(0)
        if callable(o.pool):
            sums = o.pool(sums)
    common, prediction, truth, pixels = sums.unbind(-1)
    miss = alpha * (prediction - common) + beta * (truth - common)
    whole = common + miss + o.smooth
    loss = miss / torch.where(whole > 0, whole, 1)
    if gamma != 1:
        some = loss > 0  # at 0 the slope of a power below 1 is infinite
        loss = torch.where(some, torch.where(some, loss, 1) ** gamma, 0)
    present = truth > 0
    if o.absent == "penalize":
        loss = torch.where(present, loss, prediction / torch.where(pixels > 0, pixels, 1))
    elif o.absent != "smooth":
        loss = torch.where(present, loss, 0)
    share = (present if o.absent == "skip" else pixels > 0).to(loss.dtype)
    if o.weight is not None:
        share = share * check_vector("weight", o.weight, x)
    loss = (loss * share).to(dtype)
    if o.reduction == "none":
        return loss
    return normalize(loss.sum(), share.sum(), o.reduction, term=term)


def _aligned(
    logits: Tensor,
    target: Tensor,
    mode: Mode,
    pixel_weight: Tensor | None,
    ignore_index: int | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits ``(N, C, S)``, the target to match, and the weight of each pixel (0: removed)."""
    check_floating(logits=logits)
    if mode == "binary":
        if target.shape == logits.shape and logits.shape[1:2] == (1,):
            target = target.squeeze(1)
        if logits.shape[1:] == (1, *target.shape[1:]):
            logits = logits.squeeze(1)
        check_shapes(logits=(logits, "N *S"), target=(target, "N *S"))
        logits, target = logits.unsqueeze(1), target.unsqueeze(1)
    indexed = mode == "multiclass" and not target.is_floating_point()
    check_shapes(logits=(logits, "N C *S"), target=(target, "N *S" if indexed else "N C *S"))
    if mode == "multiclass" and logits.shape[1] == 1:
        raise ValueError(
            f"mode: 'multiclass' with logits {tuple(logits.shape)} has a single class, whose "
            "softmax is always 1; wanted mode='binary'"
        )
    x, t = logits.flatten(2), target.flatten(1 if indexed else 2)
    if x.ndim == 2:
        x, t = x.unsqueeze(2), t.unsqueeze(-1)
    keep = None
    if indexed:
        ignored = -100 if ignore_index is None else ignore_index
        check_classes(t, x.shape[1], ignored)
        keep = t != ignored
        t = torch.where(keep, t, 0).long()
    elif ignore_index is not None:
        keep = t != ignore_index
        t = torch.where(keep, t, 0)
    dtype = widen(x[:0]).dtype
    w = None if keep is None else keep.to(dtype)
    if pixel_weight is not None:
        check_shapes(logits=(logits, "N C *S"), pixel_weight=(pixel_weight, "N *S"))
        extra = pixel_weight.flatten(1).reshape(x.shape[0], x.shape[2]).to(dtype)
        w = extra if w is None else w * (extra if indexed else extra.unsqueeze(1))
    if not indexed:
        check_range(t, 0, 1, keep=None if w is None else w != 0)
    return x, t, w


def _pixels(x: Tensor, w: Tensor | None) -> Tensor:
    """How many pixels, by weight, each sample and class has."""
    if w is None:
        return torch.full(x.shape[:2], x.shape[2], device=x.device)
    return w.sum(-1) if w.ndim == x.ndim else w.sum(-1, keepdim=True).expand(x.shape[:2])


def _check_options(
    mode: str,
    absent: str,
    smooth: float,
    pool: Pool,
    reduction: Reduction,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float = 1.0,
) -> None:
    check_reduction(reduction)
    check_choice("mode", mode, ("multiclass", "multilabel", "binary"))
    check_choice("absent", absent, ("skip", "zero", "smooth", "penalize"))
    check_number("smooth", smooth)
    check_number("alpha", alpha)
    check_number("beta", beta)
    if not beta > 0:
        raise ValueError(f"beta: got {beta}, wanted a positive number")
    if not gamma > 0:
        raise ValueError(f"gamma: got {gamma}, wanted a positive number")
    if absent == "smooth" and smooth == 0:
        raise ValueError("smooth: got 0 with absent='smooth', wanted a positive number of pixels")
    if not callable(pool):
        check_choice("pool", pool, ("batch", "sample"), also="a callable that sums over ranks")


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
        absent: Absent = "skip",
        smooth: float = 0.0,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(mode, absent, smooth, pool, reduction)
        super().__init__(
            mode=mode,
            weight=per_class(weight),
            ignore_index=ignore_index,
            absent=absent,
            smooth=smooth,
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
        absent: Absent = "skip",
        smooth: float = 0.0,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(mode, absent, smooth, pool, reduction, alpha, beta)
        super().__init__(
            alpha=alpha,
            beta=beta,
            mode=mode,
            weight=per_class(weight),
            ignore_index=ignore_index,
            absent=absent,
            smooth=smooth,
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
        absent: Absent = "skip",
        smooth: float = 0.0,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(mode, absent, smooth, pool, reduction, alpha, beta, gamma)
        super().__init__(
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            mode=mode,
            weight=per_class(weight),
            ignore_index=ignore_index,
            absent=absent,
            smooth=smooth,
            pool=pool,
            reduction=reduction,
        )
