"""What the options of a detector's loss may be, and which contradict."""

from __future__ import annotations

from aptt.core.boxes import BoxFormat, check_box_format
from aptt.core.checks import check_number
from aptt.loss.classification import binary_cross_entropy

__all__ = ["WANTED", "check_box_format_of", "check_classes_of"]

WANTED = {
    "class_loss": "a loss of yes-or-no questions with soft targets, such as binary_cross_entropy, "
    "quality_focal_loss or QualityFocalLoss(); with hard_scores=True, or matches without scores, "
    "focal_loss too",
    "box_loss": "a loss of boxes as corners, such as ciou_loss or GIoULoss(), or of rotated boxes, "
    "such as probiou_loss",
    "assigner": "an instance, such as TaskAlignedAssigner(), or a function of the same arguments",
}


def check_box_format_of(box_format: BoxFormat, numbers: int) -> None:
    """Refuse unknown names, and one for rotated boxes, which are written in one way."""
    check_box_format(box_format)
    if numbers == 5 and box_format != "xyxy":
        raise ValueError(
            f"box_format: got {box_format!r} for boxes of five numbers, which are centre, size and "
            "angle: leave it out"
        )


def check_classes_of(no_object: float | None, class_loss: object) -> None:
    """Refuse a weight that is none, and a class loss beside a softmax."""
    if no_object is None:
        return
    check_number("no_object", no_object)
    if class_loss is not binary_cross_entropy:
        raise ValueError(
            f"class_loss: got {class_loss!r} beside no_object, which says that the classes are "
            "those of a softmax, with cross-entropy"
        )
