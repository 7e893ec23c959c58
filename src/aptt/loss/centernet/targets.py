"""CenterNet's targets: boxes as peaks, sizes, offsets and cells.

Radius of a peak: Law and Deng, "CornerNet", ECCV 2018, arXiv:1808.01244, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

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
    check_positive,
    check_size,
    check_whole,
)
from aptt.core.gaussian import RadiusRule, gaussian_radius, paint_gaussians
from aptt.core.memory import brought
from aptt.core.shapes import check_shapes

__all__ = ["centernet_targets"]


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
    check_whole("num_classes", num_classes)
    check_size(size, 1)
    check_positive("stride", stride)
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
