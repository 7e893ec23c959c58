"""Losses with a teacher, beside those of language models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.check import computed
from tests.fuzz.draw import Call, Draw, Loss, heaviest
from tests.fuzz.draws.classes import (
    IGNORED,
    NAN,
    asked,
    class_dim,
    class_shape,
    indices,
    poisoned,
    without,
)
from tests.fuzz.draws.language import TEMPERATURE, limit_of_teachers
from tests.fuzz.oracles import teachers as oracle

__all__ = ["LOSSES"]


def _decoupled(name: str) -> Any:
    def draw(d: Draw) -> Call:
        shape, axis = class_shape(d)
        positions = without(shape, axis)
        ignored = d.pick("ignore_index", IGNORED)
        target = indices(d, positions, shape[axis], ignored)
        weight = d.maybe("sample_weight", lambda: d.weights("sample_weight", positions))
        keep = asked(target, ignored)
        if weight is not None:
            heard, keep = keep, keep & (weight != 0)
            weight = d.tensor("sample_weight", poisoned(d, weight, heard, "sample_weight"))
        x = d.numbers("logits", shape, 88.0)
        t = d.normal("teacher", shape, 2.0)
        kind = d.pick("teacher values", ("unlike", "close", "equal"))
        if kind != "unlike":
            t = x + d.normal("teacher", shape, 0.0 if kind == "equal" else 1e-3)
        wide = keep.unsqueeze(axis).expand(x.shape)
        dtype = d.dtype("student")
        x, t = poisoned(d, x, wide, "student"), poisoned(d, t, wide, "teacher")
        args: dict[str, Any] = dict(
            student_logits=d.tensor("student_logits", x, dtype),
            teacher_logits=d.tensor("teacher_logits", t.to(dtype), dtype),
            target=target,
            sample_weight=weight,
            temperature=d.pick("temperature", (4.0, 1.0, 0.5)),
            ignore_index=ignored,
            class_dim=class_dim(d, shape, axis, soft=False),
            detach_teacher=d.pick("detach_teacher", (True, True, False)),
            reduction=d.reduction(),
        )
        if name == "decoupled_distillation_loss":
            args["target_weight"] = d.pick("target_weight", (1.0, 0.0, 2.0))
            args["others_weight"] = d.pick("others_weight", (8.0, 0.0, 1.0))
        taught = ("teacher_logits",) * (not args["detach_teacher"])
        return d.call(name, args, "student_logits", sides=("sample_weight", *taught))

    return draw


def _limit(call: Call) -> tuple[float, float]:
    """What a divergence is allowed by autograd, of both parts by their weights."""
    most = call.args.get("target_weight", 1.0) + call.args.get("others_weight", 8.0)
    args = {**call.args, "divergence": "forward_kl"}
    value, slope = limit_of_teachers(replace(call, args=args, engine="plain"))
    return most * value, most * slope


def _uld(d: Draw) -> Call:
    shape, axis = class_shape(d)
    positions = without(shape, axis)
    others = list(shape)
    others[axis] = d.size("teacher classes", low=1)
    weight = d.maybe("sample_weight", lambda: d.weights("sample_weight", positions))
    x, t = d.numbers("logits", shape, 88.0), d.normal("teacher", others, 2.0)
    if weight is not None:
        keep = (weight != 0).unsqueeze(axis)
        x = poisoned(d, x, keep.expand(x.shape), "student")
        t = poisoned(d, t, keep.expand(t.shape), "teacher")
    args = dict(
        student_logits=d.tensor("student_logits", x),
        teacher_logits=d.tensor("teacher_logits", t),
        sample_weight=None if weight is None else d.tensor("sample_weight", weight),
        temperature=d.pick("temperature", (1.0, 4.0, 0.5)),
        class_dim=class_dim(d, shape, axis, soft=True),
        detach_teacher=d.pick("detach_teacher", (True, True, False)),
        reduction=d.reduction(),
    )
    taught = ("teacher_logits",) * (not args["detach_teacher"])
    return d.call("uld_loss", args, "student_logits", sides=("sample_weight", *taught))


def _of_differences(call: Call) -> tuple[float, float]:
    """What is summed are differences of probabilities, each with their rounding."""
    return 32 * torch.finfo(computed(call)).eps * heaviest(call, "sample_weight"), 0.0


def _near_a_kink(call: Call) -> bool:
    """Whether two probabilities of a row, or of a rank, are as good as equal: any sign will do."""
    named = (call.args[side] for side in ("student_logits", "teacher_logits"))
    axis = 1 if call.args.get("class_dim") is None else call.args["class_dim"]
    q, p = (
        (z.double().nan_to_num(0.0, 0.0, 0.0) / call.args["temperature"])
        .softmax(axis)
        .sort(axis, descending=True)
        .values.movedim(axis, -1)
        for z in named
    )
    n = min(q.shape[-1], p.shape[-1])
    close = 1e-6
    ranks = ((q[..., :n] - p[..., :n]).abs() < close).any()
    return bool(ranks) or bool((q[..., :-1] - q[..., 1:] < close).any())


def _features(d: Draw) -> Call:
    kind = d.pick("kind", ("cosine", "unit", "attention"))
    places = tuple(d.size(f"size {i}", low=1, high=3) for i in range(d.pick("axes", (1, 0, 2))))
    if kind == "attention" and not places:
        places = (3,)
    n, width = d.size("samples", high=17), d.size("width", low=1, high=17)
    theirs = d.size("teacher width", low=1, high=17) if kind == "attention" else width
    x = d.normal("student", (n, width, *places), d.pick("size", (1.0, 1e-15, 1e3)))
    t = d.normal("teacher", (n, theirs, *places))
    if d.chance("nothing", 4):
        x = torch.where(d.mask("nothing at", (n,) + (1,) * (x.ndim - 1), 0.3), 0.0, x)
    shape = (n, *places) if kind == "cosine" else (n,)
    weight = d.maybe("weight", lambda: d.weights("weight", shape))
    if weight is not None:
        keep = (weight != 0).reshape(n, 1, *(places if kind == "cosine" else (1,) * len(places)))
        x = poisoned(d, x, keep.expand(x.shape), "student")
        t = poisoned(d, t, keep.expand(t.shape), "teacher")
    dtype = d.dtype("student_features", (torch.float32, torch.float64, torch.bfloat16))
    args = dict(
        student_features=d.tensor("student_features", x, dtype),
        teacher_features=d.tensor("teacher_features", t),
        weight=None if weight is None else d.tensor("weight", weight),
        kind=kind,
        detach_teacher=d.pick("detach_teacher", (True, True, False)),
        reduction=d.reduction(),
    )
    taught = ("teacher_features",) * (not args["detach_teacher"])
    return d.call("feature_distillation_loss", args, "student_features", sides=("weight", *taught))


def _relations(name: str) -> Any:
    def draw(d: Draw) -> Call:
        n = d.pick("samples", (3, 2, 1, 5, 0, 8))
        x = d.normal("student", (n, d.size("width", low=1, high=17)))
        t = d.normal("teacher", (n, d.size("teacher width", low=1, high=17)))
        weight = d.maybe("weight", lambda: d.weights("weight", (n,)))
        if weight is not None:
            keep = (weight != 0)[:, None]
            x = poisoned(d, x, keep.expand(x.shape), "student")
            t = poisoned(d, t, keep.expand(t.shape), "teacher")
        args: dict[str, Any] = dict(
            student_embeddings=d.tensor("student_embeddings", x),
            teacher_embeddings=d.tensor("teacher_embeddings", t),
            weight=None if weight is None else d.tensor("weight", weight),
            chunk=d.pick("chunk", (None, 1, 2)),
            detach_teacher=d.pick("detach_teacher", (True, True, False)),
            reduction=d.reduction(none=False),
        )
        if name == "relational_distillation_loss":
            args["distance_weight"] = d.pick("distance_weight", (25.0, 0.0, 1.0))
            args["angle_weight"] = d.pick("angle_weight", (50.0, 0.0, 1.0))
        taught = ("teacher_embeddings",) * (not args["detach_teacher"])
        return d.call(name, args, "student_embeddings", sides=("weight", *taught))

    return draw


def _near_the_mean(call: Call) -> tuple[float, float]:
    """A distance that has most of the weight is its own mean but for rounding.

    The loss squares what is left, and its slope is beside that of the mean, of one part of it.
    """
    off = 4 * torch.finfo(computed(call)).eps
    most = heaviest(call, "weight") ** 2  # of a pair
    count = int((_weight(call) != 0).sum())
    mean = _mean_distance(call, "student_embeddings")
    return 50 * off**2 * most, 50 * off * most if count == 2 else off * most / mean


def _weight(call: Call) -> Tensor:
    weight = call.args.get("weight")
    if weight is None:
        return torch.ones(len(call.args["student_embeddings"]), dtype=torch.float64)
    return weight.double()


def _mean_distance(call: Call, key: str) -> float:
    """Of pairs by their weights; infinite where there is none."""
    w = _weight(call)
    x = torch.where((w != 0)[:, None], call.args[key].detach().double(), 0.0)
    pairs = w[:, None] * w
    mean = (pairs * torch.cdist(x, x)).sum() / (pairs.sum() - w.square().sum()).clamp(min=1e-300)
    return mean.item() or torch.inf


def _of_the_teacher(call: Call) -> dict[str, Tensor]:
    """Its slope goes by its own mean distance."""
    means = [_mean_distance(call, f"{who}_embeddings") for who in ("student", "teacher")]
    by = 1.0 if torch.inf in means else means[0] / means[1]
    return {"weight": torch.tensor(1e-6), "teacher_embeddings": torch.tensor(by)}


_WEIGHT = (-1.0, NAN)
LOSSES = {
    "decoupled_distillation_loss": Loss(
        _decoupled("decoupled_distillation_loss"),
        oracle.decoupled_distillation_loss,
        limit=_limit,
        rows=1,
        conceded=lambda call: {"teacher_logits", "student_logits"},
        wrong=TEMPERATURE | {"target_weight": _WEIGHT, "others_weight": _WEIGHT},
    ),
    "decoupled_distillation_terms": Loss(
        _decoupled("decoupled_distillation_terms"),
        oracle.decoupled_distillation_terms,
        limit=_limit,
        rows=1,
        conceded=lambda call: {"teacher_logits", "student_logits"},
        wrong=TEMPERATURE,
    ),
    "uld_loss": Loss(
        _uld,
        oracle.uld_loss,
        rows=1,
        several=_near_a_kink,
        slope_unit=1.0,
        unit=1.0,
        limit=_of_differences,
        wrong=TEMPERATURE,
    ),
    "feature_distillation_loss": Loss(
        _features,
        oracle.feature_distillation_loss,
        rows=1,
        unit=1.0,
        conceded=lambda call: {"teacher_features", "student_features"},
        wrong={"kind": ("mse",)},
    ),
    "relational_distillation_loss": Loss(
        _relations("relational_distillation_loss"),
        oracle.relational_distillation_loss,
        limit=_near_the_mean,
        passed_on=_of_the_teacher,
        rows=0,
        conceded=lambda call: {"teacher_embeddings", "student_embeddings"},
        wrong={
            "distance_weight": _WEIGHT,
            "angle_weight": _WEIGHT,
            "chunk": (0, -1),
            "reduction": ("none",),
        },
    ),
    "relational_distillation_terms": Loss(
        _relations("relational_distillation_terms"),
        oracle.relational_distillation_terms,
        limit=_near_the_mean,
        passed_on=_of_the_teacher,
        rows=0,
        conceded=lambda call: {"teacher_embeddings", "student_embeddings"},
        wrong={"chunk": (0, -1), "reduction": ("none",)},
    ),
}
