"""The one variable that says most about a loss: what it is, and how a number becomes inputs.

The table says it once for each family: which losses it is for, by the file they live in and the
names of their tensors. A new loss with such names has its curve at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["TABLE", "Probe", "probes"]

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """A variable, and how a number of it becomes the tensors of a call."""

    across: str
    """What the variable is, with its unit."""
    low: float
    high: float
    inputs: Callable[[Tensor], Inputs]
    options: Mapping[str, Any] = field(default_factory=dict)
    """What must be given besides, such as a sample rate."""
    points: int = 121

    def at(self) -> list[float]:
        """The numbers to try; none exactly on the middle, where a loss may have a kink."""
        step = (self.high - self.low) / self.points
        return [self.low + (i + 0.5) * step for i in range(self.points)]


def _shifted_box(x: Tensor) -> Inputs:
    target = x.new_tensor([[0.0, 0.0, 1.0, 1.0]])
    along = x.new_tensor([[1.0, 0.0, 1.0, 0.0]])
    return {"pred_boxes": target + x * along, "target_boxes": target}


def _turned_box(x: Tensor) -> Inputs:
    """Rotated boxes: centre, size, angle."""
    target = x.new_tensor([[0.0, 0.0, 1.0, 1.0, 0.0]])
    return {
        "pred_boxes": target + x * x.new_tensor([[1.0, 0, 0, 0, 0]]),
        "target_boxes": target,
    }


def _right_class(x: Tensor) -> Inputs:
    """Three classes, of which the first is right and the others have logit 0."""
    logits = x * x.new_tensor([[1.0, 0.0, 0.0]])
    return {"logits": logits, "target": torch.zeros(1, dtype=torch.long)}


def _head(x: Tensor) -> Inputs:
    """The same from a hidden state, through a head that passes it on."""
    hidden = x * x.new_tensor([[1.0, 0.0, 0.0]])
    return {"hidden": hidden, "weight": torch.eye(3).to(x), "target": torch.zeros(1).long()}


def _positive(x: Tensor) -> Inputs:
    return {"logits": x.reshape(1), "target": torch.ones(1, dtype=x.dtype)}


def _mask(x: Tensor) -> Inputs:
    """Two classes on 8 x 8 pixels, a quarter of them of the second; all are right by x."""
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[:, :4, :4] = 1
    sign = torch.nn.functional.one_hot(target, 2).movedim(-1, 1).to(x) * 2 - 1
    return {"logits": x / 2 * sign, "target": target}


def _bins(x: Tensor) -> Inputs:
    """Eight bins with a peak at x; the target lies between two of them."""
    bins = torch.arange(8, dtype=x.dtype)
    return {"logits": -((bins - x) ** 2).unsqueeze(0), "target": x.new_tensor([3.3])}


def _error(x: Tensor) -> Inputs:
    target = x.new_tensor([10.0])
    return {"prediction": target + x, "target": target}


def _forecast(x: Tensor) -> Inputs:
    """Three numbers for one target, the one in the middle off by x and the others a unit apart."""
    target = x.new_tensor([10.0])
    return {"prediction": target + x + x.new_tensor([[-1.0, 0.0, 1.0]]), "target": target}


def _of_width(name: str) -> Callable[[Tensor], Inputs]:
    def made(x: Tensor) -> Inputs:
        return {**_error(x), name: x.new_zeros(1)}

    return made


def _judged(x: Tensor) -> Inputs:
    """A score of real data that is x, and of generated data that is as far below 0."""
    return {"real": x.reshape(1), "fake": -x.reshape(1)}


def _scored(x: Tensor) -> Inputs:
    return {"fake": x.reshape(1)}


def _felt(x: Tensor) -> Inputs:
    return {"fake": 1 + x.reshape(1), "real": x.new_ones(1)}


def _blob(x: Tensor) -> Inputs:
    """A heat map with a peak, predicted as much too high or too low as x says."""
    axis = torch.arange(9, dtype=x.dtype) - 4
    target = torch.exp(-(axis[:, None] ** 2 + axis**2) / 4).view(1, 1, 9, 9)
    return {"prediction": target + x, "target": target}


def _pattern(size: int) -> Callable[[Tensor], Inputs]:
    """Waves and finer ones, of so much contrast."""

    def made(x: Tensor) -> Inputs:
        axis = torch.arange(size, dtype=x.dtype)
        waves = torch.sin(axis[:, None] / 5) * torch.sin(axis / 17) + torch.sin(axis * 1.3)
        target = (0.2 * waves).view(1, 1, size, size)
        return {"prediction": 0.5 + x * target, "target": 0.5 + target}

    return made


def _student(x: Tensor) -> Inputs:
    """A teacher that is sure of the first class by 3, and a student by x."""
    return {
        "student_logits": x * x.new_tensor([[1.0, 0.0, 0.0]]),
        "teacher_logits": x.new_tensor([[3.0, 0.0, 0.0]]),
        "hard_targets": torch.zeros(1, dtype=torch.long),
    }


def _student_alone(x: Tensor) -> Inputs:
    """The same, where the right class is not told."""
    given = _student(x)
    return {name: given[name] for name in ("student_logits", "teacher_logits")}


def _student_of_a_class(x: Tensor) -> Inputs:
    return {**_student_alone(x), "target": torch.zeros(1, dtype=torch.long)}


def _turned_feature(x: Tensor) -> Inputs:
    """A feature of two numbers, turned away from the teacher's."""
    angle = torch.deg2rad(x)
    return {
        "student_features": torch.stack((angle.cos(), angle.sin())).reshape(1, 2),
        "teacher_features": x.new_tensor([[1.0, 0.0]]),
    }


def _moved_corner(x: Tensor) -> Inputs:
    """A right triangle, of which a student has one corner elsewhere on its side."""
    fixed = x.new_tensor([[0.0, 0.0], [0.0, 1.0]])
    moved = (x * x.new_tensor([1.0, 0.0])).reshape(1, 2)
    return {
        "student_embeddings": torch.cat((moved, fixed)),
        "teacher_embeddings": torch.cat((x.new_tensor([[1.0, 0.0]]), fixed)),
    }


def _student_states(x: Tensor) -> Inputs:
    """The same from hidden states, through heads that pass them on."""
    head, logits = torch.eye(3).to(x), _student(x)
    return {
        "hidden": logits["student_logits"],
        "weight": head,
        "teacher_hidden": logits["teacher_logits"],
        "teacher_weight": head,
        "hard_targets": logits["hard_targets"],
    }


def _successor(x: Tensor) -> Inputs:
    """An old model that is sure of the first of two classes by 3, and a new one with a third."""
    return {
        "new_logits": x * x.new_tensor([[1.0, 0.0, 0.0]]),
        "target": torch.zeros(1, dtype=torch.long),
        "old_logits": x.new_tensor([[3.0, 0.0]]),
    }


def _tokens(x: Tensor) -> Inputs:
    """Two heads over four tokens, both right by x."""
    logits = x * x.new_tensor([1.0, 0.0, 0.0]).expand(1, 4, 3)
    return {"logits_list": [logits, logits], "target": torch.zeros(1, 4, dtype=torch.long)}


def _token_states(x: Tensor) -> Inputs:
    hidden = x * x.new_tensor([1.0, 0.0, 0.0]).expand(1, 4, 3)
    target = torch.zeros(1, 4, dtype=torch.long)
    return {"hidden_list": [hidden, hidden], "weight": torch.eye(3).to(x), "target": target}


def _fraction(x: Tensor) -> Inputs:
    target = x.new_tensor([0.5])
    return {"prediction": target + x, "target": target}


def _noise(length: int) -> Callable[[Tensor], Inputs]:
    def made(x: Tensor) -> Inputs:
        t = torch.arange(length, dtype=x.dtype)
        target = torch.sin(t / 5) + 0.5 * torch.sin(t / 17)
        noise = torch.randn(length, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
        noise = noise - (noise @ target) / (target @ target) * target
        noise = noise * (target.norm() / noise.norm())
        estimate = target + noise * 10 ** (-x / 20)
        return {"estimate": estimate.unsqueeze(0), "target": target.unsqueeze(0)}

    return made


def _voices(x: Tensor) -> Inputs:
    """Two sources, estimated in the other order, each in noise that is like neither."""
    length = 1024
    t = torch.arange(length, dtype=x.dtype)
    waves = torch.stack((torch.sin(t / 5), torch.sin(t / 17)))
    noise = torch.randn(4, length, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    span = torch.linalg.qr(torch.cat((waves, noise)).T)[0].T
    target, noise = span[:2] * length**0.5, span[2:4] * length**0.5
    estimate = (target + noise * 10 ** (-x / 20)).flip(0)
    return {"estimate": estimate.unsqueeze(0), "target": target.unsqueeze(0)}


def _two_questions(x: Tensor) -> Inputs:
    """A positive of quality 0.8 and a background, both right by x."""
    logits = x * x.new_tensor([1.0, -1.0])
    return {"logits": logits, "target": torch.tensor([0.8, 0.0], dtype=x.dtype)}


def _detected(x: Tensor) -> Inputs:
    """Two predictions: the box of the first, which is matched, is off by x; the second is none."""
    target = x.new_tensor([[[0.0, 0.0, 1.0, 1.0]]])
    boxes = target + torch.stack((x, 0 * x)).view(1, 2, 1) * x.new_tensor([1.0, 0.0, 1.0, 0.0])
    return {
        "class_logits": x.new_tensor([[[2.0], [-2.0]]]),
        "pred_boxes": boxes,
        "target_boxes": target,
        "target_labels": torch.zeros(1, 1, dtype=torch.long),
        "matches": torch.tensor([[0, -1]]),
    }


def _in_a_set(x: Tensor) -> Inputs:
    """The same of two queries, whose boxes are a centre and a size."""
    target = x.new_tensor([[[0.0, 0.0, 1.0, 1.0]]])
    along = x.new_tensor([1.0, 0.0, 0.0, 0.0])
    boxes = target + torch.stack((x, 0 * x)).view(1, 2, 1) * along
    return {**_detected(x), "pred_boxes": boxes, "target_boxes": target}


def _peaks(x: Tensor) -> Inputs:
    """One object on 9 x 9 cells: its peak right by x, as is the rest of the map; size off by 1."""
    axis = torch.arange(9, dtype=x.dtype) - 4
    peak = torch.exp(-(axis[:, None] ** 2 + axis**2) / 4).view(1, 1, 9, 9)
    sign = torch.where(peak == 1, 1.0, -1.0).to(x)
    pair = torch.zeros(1, 2, 9, 9, dtype=x.dtype)
    one = torch.ones(1, 1, dtype=torch.long)
    at = {"wh": x.new_full((1, 1, 2), 3.0), "reg": x.new_full((1, 1, 2), 0.5)}
    return {
        "predictions": {"hm": x * sign, "wh": pair + 2, "reg": pair + 0.25},
        "targets": {"hm": peak, "ind": 40 * one, "mask": one > 0, **at},
    }


def _keypoint(x: Tensor) -> Inputs:
    target = torch.zeros(1, 17, 2, dtype=x.dtype)
    shift = torch.zeros_like(target)
    shift[0, :, 0] = 1
    return {
        "prediction": target + x * shift,
        "target": target,
        "visibility": torch.full((1, 17), 2),
        "area": x.new_tensor([10_000.0]),
    }


def _bars(x: Tensor) -> Inputs:
    """A point in the middle of two axes of 15 bins; that of the logits is x bins off it in one."""
    bins = torch.arange(15, dtype=x.dtype) - 7
    peaks = [-(bins - at).square() / 72 for at in (x, x.new_zeros(()))]
    return {
        "logits_list": [peak.view(1, 1, 15) for peak in peaks],
        "target": x.new_full((1, 1, 2), 3.5),
        "visibility": torch.ones(1, 1),
    }


def _widened(x: Tensor) -> Inputs:
    point = torch.stack((x, x.new_zeros(()))).view(1, 1, 2)
    zero = torch.zeros_like(point)
    return {
        "prediction": point, "target": zero, "log_scale": zero, "visibility": torch.ones(1, 1)
    }  # fmt: skip


def _bump(x: Tensor) -> Inputs:
    """A map whose softmax is a Gaussian, x cells off its target."""
    axis = torch.arange(15, dtype=x.dtype) - 7
    logits = -(axis[:, None].square() + (axis - x).square()) / 2
    return {"logits": logits.view(1, 1, 15, 15), "target": x.new_full((1, 1, 2), 7.0)}


def _turned(x: Tensor) -> Tensor:
    """A direction in the plane, x degrees off the first axis."""
    angle = x * (math.pi / 180)
    return torch.stack((angle.cos(), angle.sin()))


def _turned_pair(x: Tensor) -> Inputs:
    """Two pairs at right angles; the anchor of the first is turned away from its candidate."""
    other = x.new_tensor([0.0, 1.0])
    candidates = torch.eye(2, dtype=x.dtype)
    return {"anchors": torch.stack((_turned(x), other)), "candidates": candidates}


def _turned_sample(x: Tensor) -> Inputs:
    """Two classes at right angles, two samples each; one of the first is turned away."""
    some = x.new_tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    embeddings = torch.cat((_turned(x).unsqueeze(0), some))
    return {"embeddings": embeddings, "target": torch.tensor([0, 0, 1, 1])}


def _turned_from_class(x: Tensor) -> Inputs:
    """Two classes at right angles; a sample of the first is turned away from it."""
    target = torch.zeros(1, dtype=torch.long)
    return {
        "embeddings": _turned(x).unsqueeze(0),
        "weight": torch.eye(2, dtype=x.dtype),
        "target": target,
    }


def _preferred(x: Tensor) -> Inputs:
    """A pair whose rejected answer scores -6, on average."""
    return {"chosen": x.reshape(1), "rejected": x.new_full((1,), -6.0)}


def _good_answer(x: Tensor) -> Inputs:
    """A desirable answer, where the policy gains nothing elsewhere."""
    return {
        "score": x.reshape(1),
        "desirable": torch.ones(1, dtype=torch.bool),
        "mismatched": x.new_zeros(1),
    }


def _good_token(x: Tensor) -> Inputs:
    """A token with an advantage of 1."""
    old = x.new_full((1,), -3.0)
    return {"log_prob": old + x, "old_log_prob": old, "advantage": x.new_ones(1)}


def _strayed_token(x: Tensor) -> Inputs:
    reference = x.new_full((1,), -3.0)
    return {"log_prob": reference + x, "reference_log_prob": reference}


_ANGLE = "degrees from its own, the other at 90"
_MARGIN = "logit of the right answer, the others at 0"
_TEACHER = "logit; teacher's is 3"
_QUALITY = "margin: a positive of quality 0.8 and a background"
_MATCHED = "shift of a matched box, in widths"
_PAIR = "score of the chosen answer, the rejected one's is -6"
_RATIO = "log-ratio, at an advantage of 1"
_DECIBEL = "signal to noise, dB"

TABLE: tuple[tuple[str, tuple[str, ...], Probe], ...] = (
    ("*", ("pred_boxes", "target_boxes"), Probe("shift, in widths", -2.5, 2.5, _shifted_box)),
    ("*", ("pred_boxes", "target_boxes"), Probe("shift, in widths", -2.5, 2.5, _turned_box)),
    ("segmentation", ("logits", "target"), Probe("margin of each pixel", -8, 8, _mask)),
    ("boundary", ("logits", "target"), Probe("margin of each pixel", -8, 8, _mask)),
    ("skeleton", ("logits", "target"), Probe("margin of each pixel", -8, 8, _mask)),
    ("dfl", ("logits", "target"), Probe("peak among the bins, target 3.3", 0, 7, _bins)),
    ("varifocal", ("logits", "target"), Probe(_QUALITY, -8, 8, _two_questions)),
    ("aligned", ("logits", "target"), Probe(_QUALITY, -8, 8, _two_questions)),
    ("heat", ("logits", "target"), Probe("offset of the map's peak, in cells", -5, 5, _bump)),
    (
        "keypoint",
        ("logits_list", "target"),
        Probe("offset of a peak, in bins", -5, 5, _bars),
    ),
    ("*", ("logits", "target"), Probe(_MARGIN, -8, 8, _right_class)),
    ("*", ("logits", "target"), Probe(_MARGIN, -8, 8, _positive)),
    ("linear", ("hidden", "weight", "target"), Probe(_MARGIN, -8, 8, _head)),
    *(  # the second of five scales
        ("ssim", ("prediction", "target"), Probe("contrast; 1 is right", -1, 3, made, points=41))
        for made in (_pattern(24), _pattern(176))
    ),
    ("heat", ("prediction", "target"), Probe("error of each pixel", -1, 1, _blob)),
    ("*", ("prediction", "target"), Probe("error, at a target of 10", -8, 8, _error)),
    ("*", ("prediction", "target"), Probe("error, at a target of 0.5", -1, 1, _fraction)),
    *(
        ("*", ("prediction", "target", name), Probe("error, of a width of 1", -8, 8, made))
        for name in ("log_variance", "log_scale")
        for made in (_of_width(name),)
    ),
    ("regression", ("prediction", "target"), Probe("error of the middle one", -8, 8, _forecast)),
    ("*", ("student_logits", "teacher_logits"), Probe(_TEACHER, -8, 8, _student)),
    (
        "distill",
        ("student_logits", "teacher_logits", "target"),
        Probe(_TEACHER, -8, 8, _student_of_a_class),
    ),
    ("distill", ("student_logits", "teacher_logits"), Probe(_TEACHER, -8, 8, _student_alone)),
    (
        "distill",
        ("student_features", "teacher_features"),
        Probe("degrees from the teacher's", -180, 180, _turned_feature),
    ),
    (
        "distill",
        ("student_embeddings", "teacher_embeddings"),
        Probe("place of a corner, the teacher's is 1", -3, 3, _moved_corner),
    ),
    ("*", ("hidden", "weight", "teacher_hidden"), Probe(_TEACHER, -8, 8, _student_states)),
    ("lwf", ("new_logits", "target"), Probe("logit; the old model's is 3", -8, 8, _successor)),
    ("mtp_loss", ("logits_list", "target"), Probe(_MARGIN, -8, 8, _tokens)),
    ("mtp_loss", ("hidden_list", "weight"), Probe(_MARGIN, -8, 8, _token_states)),
    ("mel", ("estimate", "target"), Probe(_DECIBEL, -20, 40, _noise(4096), points=41)),
    ("*", ("estimate", "target"), Probe(_DECIBEL, -20, 60, _noise(1024))),
    ("*", ("estimate", "target"), Probe(_DECIBEL, -20, 60, _voices)),
    ("contrastive", ("anchors", "candidates"), Probe(_ANGLE, -180, 180, _turned_pair)),
    ("*", ("embeddings", "weight", "target"), Probe(_ANGLE, -180, 180, _turned_from_class)),
    ("contrastive", ("embeddings", "target"), Probe(_ANGLE, -180, 180, _turned_sample)),
    ("adversarial", ("real", "fake"), Probe("score, of generated data its minus", -4, 4, _judged)),
    ("adversarial", ("fake", "real"), Probe("distance of a feature of 1", -4, 4, _felt)),
    ("adversarial", ("fake",), Probe("score of generated data", -4, 4, _scored)),
    ("detection", ("class_logits", "pred_boxes"), Probe(_MATCHED, -2.5, 2.5, _detected)),
    ("detr", ("class_logits", "pred_boxes"), Probe(_MATCHED, -2.5, 2.5, _in_a_set)),
    ("centernet", ("predictions", "targets"), Probe("margin of each cell", -8, 8, _peaks)),
    ("preference", ("chosen", "rejected"), Probe(_PAIR, -12, 0, _preferred)),
    ("preference", ("score", "desirable"), Probe("gain", -40, 40, _good_answer)),
    ("policy", ("log_prob", "old_log_prob"), Probe(_RATIO, -1, 1, _good_token)),
    ("policy", ("log_prob", "reference_log_prob"), Probe("log-ratio", -3, 3, _strayed_token)),
    (
        "keypoint",
        ("prediction", "target", "log_scale"),
        Probe("error, of a width of 1", -8, 8, _widened),
    ),
    (
        "keypoint",
        ("prediction", "target"),
        Probe("offset, in pixels, area 100 x 100", -60, 60, _keypoint),
    ),
)
"""The file it lives in, the names of its tensors, the variable; the first that works is taken."""


def probes() -> list[Probe]:
    """Every variable that the table knows."""
    return [probe for _, _, probe in TABLE]
