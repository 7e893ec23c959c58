"""What the options of a set loss may be, and which contradict."""

from __future__ import annotations

from typing import Any, Literal

from aptt.core.boxes import BoxFormat, check_box_format
from aptt.core.checks import check_choice, check_number, check_whole
from aptt.core.reduction import Reduction, check_reduction
from aptt.core.targets import check_parts
from aptt.loss.focal import focal_loss

__all__ = ["WANTED", "Quality", "check_options"]

Quality = Literal["iou"]

WANTED = {
    "class_loss": "a loss of yes-or-no questions, such as focal_loss or FocalLoss(); with "
    "quality='iou' one of soft targets and positives: varifocal_loss, mal_loss or ia_bce_loss",
    "box_loss": "a loss of boxes as corners, such as giou_loss or CIoULoss()",
    "matcher": "a HungarianMatcher, or a function of the same arguments",
}


def check_options(
    matcher: Any,
    class_loss: Any,
    quality: Any,
    no_object: Any,
    box_loss: Any,
    groups: int,
    normalize: str,
    box_format: BoxFormat,
    reduction: Reduction,
) -> None:
    """Refuse what is unknown, and what contradicts."""
    check_reduction(reduction, none=False)
    check_parts(WANTED, class_loss=class_loss, box_loss=box_loss)
    if matcher is not None:
        check_parts(WANTED, matcher=matcher)
    check_whole("groups", groups)
    check_choice("normalize", normalize, ("targets", "matches"))
    check_box_format(box_format)
    if quality is not None:
        check_choice("quality", quality, ("iou",), also="None")
    if no_object is None:
        return
    check_number("no_object", no_object)
    if class_loss is not focal_loss or quality is not None:
        name = "quality" if quality is not None else "class_loss"
        raise ValueError(
            f"{name}: got {quality or class_loss!r} beside no_object, which says that the classes "
            "are those of a softmax, with cross-entropy"
        )
