"""CenterNet: boxes as the peaks of a heat map, with a size and an offset at each.

    hm    penalty-reduced focal loss of the heat maps / number of peaks
    wh    sum of |size - target| over objects / count           sizes in cells of the map
    reg   sum of |offset - target| over objects / count         offset: centre - its cell
    loss  = hm_weight * hm + wh_weight * wh + reg_weight * reg

Axes: maps ``hm (N, C, H, W)``, ``wh`` and ``reg (N, 2, H, W)``; per object ``wh`` and ``reg (N, M,
2)``, ``ind`` and ``mask (N, M)``.
From: Zhou et al., "Objects as Points", 2019, arXiv:1904.07850, eq. 1 to 4; radius of a peak, Law
and Deng, "CornerNet", ECCV 2018, arXiv:1808.01244, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from aptt.core.boxes import BoxFormat, check_box_format, edges
from aptt.core.checks import (
    check_choice,
    check_each,
    check_floating,
    check_indices,
    check_number,
    check_whole,
)
from aptt.core.formula import widen
from aptt.core.gaussian import RadiusRule, gaussian_radius, paint_gaussians
from aptt.core.memory import brought
from aptt.core.module import LossModule
from aptt.core.ordinary import is_readable
from aptt.core.reduction import Reduction, check_reduction, named
from aptt.core.reduction import normalize as normalized
from aptt.core.shapes import check_shapes
from aptt.loss.heat import heatmap_loss

__all__ = [
    "CenterNetLoss",
    "centernet_decode",
    "centernet_loss",
    "centernet_targets",
    "centernet_terms",
]

Normalize = Literal["coordinates", "objects"]


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
    _check_keys("predictions", predictions, ("hm", "wh", "reg"))
    _check_keys("targets", targets, ("hm", "wh", "reg", "ind", "mask"), ("positive", "weight"))
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


def _check_keys(
    name: str, given: Mapping[str, Tensor], wanted: Sequence[str], also: Sequence[str] = ()
) -> None:
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}: got {type(given).__name__}, wanted a mapping with {wanted}")
    missing = [key for key in wanted if key not in given]
    unknown = [key for key in given if key not in (*wanted, *also)]
    if missing or unknown:
        raise ValueError(
            f"{name}: got {sorted(given)}, wanted {', '.join(wanted)}"
            + (f", and perhaps {', '.join(also)}" if also else "")
        )


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


# ----------------------------------------------------------------------- from boxes and back


def centernet_targets(
    boxes: Tensor | Sequence[Tensor],
    labels: Tensor | Sequence[Tensor],
    *,
    num_classes: int,
    size: tuple[int, int],
    stride: float = 4.0,
    min_overlap: float = 0.7,
    radius: RadiusRule = "exact",
    box_format: BoxFormat = "xyxy",
    max_objects: int | None = None,
) -> dict[str, Tensor]:
    """Render boxes of a batch as heat maps, sizes, offsets, cells and a mask.

        hm    exp(-(u**2 + v**2) / (2 sigma**2)), sigma = (2 radius + 1) / 6, the largest of a class
        wh    size / stride         reg    centre / stride - cell         ind    row * W + column

    Args:
        boxes: one ``(m, 4)`` per image, or ``(N, M, 4)``, in pixels of the image.
        labels: one ``(m,)`` per image, or ``(N, M)``: class indices; -1 marks padding.
        num_classes: the number of heat maps.
        size: height and width of the maps, in cells.
        stride: pixels to a cell.
        min_overlap: the IoU that a box keeps whose corners stray by the radius.
        radius: ``"exact"``, or ``"original"``: the published code's, up to several times larger.
        box_format: ``"xyxy"``, ``"xywh"`` (corner and size) or ``"cxcywh"`` (centre and size).
        max_objects: M of the result, objects before padding; None: M as it came, or of lists as
            many as the fullest image has.

    Returns:
        ``hm (N, C, H, W)``, ``wh`` and ``reg (N, M, 2)``, ``ind`` and ``mask (N, M)``, as
        :func:`centernet_loss` takes them. A box whose centre lies outside the maps is left out
        by the mask: clip boxes to the image first.

    Raises:
        ValueError: labels out of range, boxes that are not finite or turned inside out, more
            objects than ``max_objects``, shapes that do not fit.
        TypeError: labels that are no integers.

    No gradient. Two objects of one class in one cell share its peak; both sizes are targets. The
    host reads the labels, boxes and radii, once per batch.

    Use when:
        Making targets in a collate function or on the device.

    Elsewhere:
        CenterNet ``CTDetDataset``, mmdetection ``CenterNetHead.get_targets``.

    Differs from:
        CenterNet: the radius solves its equations (``radius="original"`` for the published one).
        mmdetection: min_overlap is 0.3 there; two objects in one cell keep one size.

    Example:
        >>> import torch
        >>> boxes = [torch.tensor([[4.0, 4.0, 15.0, 12.0]])]
        >>> made = centernet_targets(boxes, [torch.tensor([1])], num_classes=2, size=(4, 4))
        >>> made["wh"].tolist(), made["ind"].tolist(), made["reg"].tolist()
        ([[[2.75, 2.0]]], [[10]], [[[0.375, 0.0]]])
    """
    for name, value in (("num_classes", num_classes), ("size", size[0]), ("size", size[1])):
        check_whole(name, value)
    check_number("stride", stride, torch.finfo(torch.float32).tiny)
    check_number("min_overlap", min_overlap, torch.finfo(torch.float32).tiny, 1.0)
    check_choice("radius", radius, ("exact", "original"))
    check_box_format(box_format)
    boxes, labels = _padded(boxes, labels, max_objects)
    lo, hi = (t.t().unflatten(0, labels.shape) for t in edges(boxes.flatten(0, 1), box_format))
    real = labels != -1
    _check_objects(boxes, labels, num_classes, real & ~(hi >= lo).all(2))
    height, width = size
    wh, centre = (hi - lo) / stride, (lo + hi) / (2 * stride)
    cell = centre.floor()
    limit = brought([width, height], cell, cell.dtype)
    mask = real & ((cell >= 0) & (cell < limit)).all(2)

    def held(t: Tensor) -> Tensor:
        return torch.where(mask.unsqueeze(2), t, 0.0)

    wh, reg, cell = held(wh), held(centre - cell), held(cell).long()
    sides = wh.ceil()
    far = gaussian_radius(sides[..., 1], sides[..., 0], min_overlap=min_overlap, rule=radius)
    image = torch.arange(len(labels), device=labels.device).unsqueeze(1)
    plane = image * num_classes + labels
    maps = wh.new_zeros(len(labels) * num_classes, height, width)
    paint_gaussians(maps, plane[mask], cell[..., 0][mask], cell[..., 1][mask], far.long()[mask])
    return {
        "hm": maps.unflatten(0, (len(labels), num_classes)),
        "wh": wh,
        "reg": reg,
        "ind": cell[..., 1] * width + cell[..., 0],
        "mask": mask,
    }


def _padded(
    boxes: Tensor | Sequence[Tensor], labels: Tensor | Sequence[Tensor], max_objects: int | None
) -> tuple[Tensor, Tensor]:
    """Boxes in float32 at least and labels in int64, lists as one tensor each; padding is -1."""
    for name, given in (("boxes", boxes), ("labels", labels)):
        if not isinstance(given, Tensor):
            check_each(name, given)
    if not isinstance(boxes, Tensor):
        if isinstance(labels, Tensor) or len(boxes) != len(labels):
            raise ValueError(
                f"labels: got {len(labels)}, wanted one tensor for each of {len(boxes)} images"
            )
        for b, k in zip(boxes, labels, strict=True):
            check_shapes(boxes=(b, "m 4"), labels=(k, "m"))
            _check_labels(k)
        if boxes:
            dtype = reduce(torch.promote_types, (b.dtype for b in boxes), torch.float32)
            boxes = pad_sequence([b.to(dtype) for b in boxes], batch_first=True)
            labels = pad_sequence([k.long() for k in labels], batch_first=True, padding_value=-1)
        else:
            boxes, labels = torch.zeros(0, 0, 4), torch.zeros(0, 0)
    elif not isinstance(labels, Tensor):
        raise ValueError("labels: got a list, wanted a tensor (N, M), as the boxes are one")
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32)).detach()
    check_floating(boxes=boxes)
    check_shapes(boxes=(boxes, "N M 4"), labels=(labels, "N M"))
    _check_labels(labels)
    labels = labels.long()
    if max_objects is not None:
        check_whole("max_objects", max_objects, 0)
        padding = labels == -1
        most = int((~padding).sum(1).amax()) if len(labels) else 0
        if most > max_objects:
            raise ValueError(f"max_objects: got {max_objects}, wanted at least {most}")
        order = padding.int().argsort(dim=1, stable=True)
        room = max_objects - labels.shape[1]
        boxes = F.pad(boxes.gather(1, order.unsqueeze(2).expand_as(boxes)), (0, 0, 0, room))
        labels = F.pad(labels.gather(1, order), (0, room), value=-1)
    return boxes, labels


def _check_labels(labels: Tensor) -> None:
    if labels.numel():  # torch.tensor([]) is of a floating dtype
        check_indices(labels=labels)


def _check_objects(boxes: Tensor, labels: Tensor, classes: int, inverted: Tensor) -> None:
    """On any device: what is wrong here would be painted on the map of another class or image."""
    wrong = (labels < -1) | (labels >= classes)
    if bool(wrong.any()):
        raise ValueError(
            f"labels: got class {int(labels[wrong][0])}, wanted 0 to {classes - 1}, or -1"
        )
    wrong = (labels != -1) & (inverted | ~boxes.isfinite().all(2))
    if bool(wrong.any()):
        image, at = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"boxes: image {image}, box {at} is {boxes[image, at].tolist()}, wanted finite numbers "
            "and sizes of at least 0"
        )


def centernet_decode(
    predictions: Mapping[str, Tensor], *, topk: int = 100, stride: float = 4.0, kernel: int = 3
) -> dict[str, Tensor]:
    """Read boxes, scores and labels from CenterNet's maps.

        box = (cell + reg -+ wh / 2) * stride, at the topk highest peaks of all classes together

    Args:
        predictions: ``hm`` logits ``(N, C, H, W)``, ``wh`` and ``reg (N, 2, H, W)``.
        topk: how many boxes for each image; fewer where the maps have fewer cells.
        stride: pixels to a cell.
        kernel: odd: a peak is the highest of the ``kernel x kernel`` cells around it.

    Returns:
        ``boxes (N, topk, 4)`` as corners in pixels, ``scores (N, topk)`` from high to low, in
        [0, 1], and ``labels (N, topk)``. Peaks are ranked by their logits; places beyond the last
        have a score of 0.

    Raises:
        ValueError: keys missing or unknown, shapes that do not fit, a kernel that is not odd.

    The gradient goes to the scores and boxes that are chosen.

    Use when:
        Evaluating or showing what a model of :func:`centernet_loss` found.

    Elsewhere:
        CenterNet ``ctdet_decode``, mmdetection ``CenterNetHead.predict``.

    Example:
        >>> import torch
        >>> maps = {"hm": torch.full((1, 1, 4, 4), -9.0), "wh": torch.full((1, 2, 4, 4), 2.0)}
        >>> maps["reg"] = torch.full((1, 2, 4, 4), 0.5)
        >>> maps["hm"][0, 0, 1, 2] = 9.0
        >>> centernet_decode(maps, topk=1)["boxes"].tolist()
        [[[6.0, 2.0, 14.0, 10.0]]]
    """
    _check_keys("predictions", predictions, ("hm", "wh", "reg"))
    hm, wh, reg = (predictions[key] for key in ("hm", "wh", "reg"))
    check_floating(hm=hm, wh=wh, reg=reg)
    check_shapes(hm=(hm, "N C H W"), wh=(wh, "N 2 H W"), reg=(reg, "N 2 H W"))
    check_whole("topk", topk)
    check_number("stride", stride, torch.finfo(torch.float32).tiny)
    check_whole("kernel", kernel)
    if kernel % 2 == 0:
        raise ValueError(f"kernel: got {kernel}, wanted an odd number")
    hm, wh, reg = widen(hm), widen(wh), widen(reg)
    highest = F.max_pool2d(hm, kernel, stride=1, padding=kernel // 2)
    peaks = hm.masked_fill(hm != highest, -torch.inf).flatten(1)
    peaks, at = peaks.topk(min(topk, peaks.shape[1]), dim=1)  # by logits, which do not saturate
    cells, width = hm.shape[2] * hm.shape[3], hm.shape[3]
    labels, ind = at // cells, at % cells
    image = torch.arange(len(hm), device=hm.device).unsqueeze(1)
    half = wh.flatten(2).transpose(1, 2)[image, ind] / 2
    centre = torch.stack((ind % width, ind // width), 2).to(hm.dtype)
    centre = centre + reg.flatten(2).transpose(1, 2)[image, ind]
    boxes = torch.cat((centre - half, centre + half), 2) * stride
    return {"boxes": boxes, "scores": peaks.sigmoid(), "labels": labels}
