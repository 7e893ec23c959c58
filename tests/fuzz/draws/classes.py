"""Classification losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aptt.loss import cross_entropy
from tests.fuzz.draw import FLOATS, INTEGERS, Call, Draw, Loss
from tests.fuzz.oracles import classes as oracle

__all__ = [
    "LOSSES",
    "SHARE",
    "class_dim",
    "class_logits",
    "class_shape",
    "indices",
    "of_logits",
    "poisoned",
    "shape_of",
    "soft",
    "without",
]

NAN = math.nan
IGNORED = (-100, 0, 255, None)
"""``ignore_index``; None: nothing is."""


def shape_of(d: Draw, label: str = "shape", *, low: int = 1, high: int = 3) -> tuple[int, ...]:
    """Any shape."""
    axes = d.pick(f"{label} axes", range(low, high + 1))
    return tuple(d.size(f"{label} {i}") for i in range(axes))


def class_shape(d: Draw) -> tuple[tuple[int, ...], int]:
    """The shape of logits, and the class axis."""
    axes = d.pick("axes", (2, 3, 4))
    axis = d.pick("class axis", (1, axes - 1))
    sizes = [d.size(f"size {i}", high=17 if i else 40) for i in range(axes)]
    sizes[axis] = d.size("classes", low=2)
    return tuple(sizes), axis


def without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def class_dim(d: Draw, shape: Sequence[int], axis: int, *, soft: bool) -> int | None:
    """The class axis, where the shapes leave it open or by chance."""
    open_ = len(shape) > 2 and (soft or without(shape, 1) == without(shape, len(shape) - 1))
    named = axis if d.pick("class_dim sign", (0, 1)) == 0 else axis - len(shape)
    return named if (open_ and len(shape) > 2) or d.chance("class_dim given", 4) else None


def indices(d: Draw, shape: Sequence[int], classes: int, ignored: int | None) -> Tensor:
    """Class indices, some of them ignored where the dtype can say so."""
    dtype = d.dtype("target", INTEGERS)
    y = torch.randint(classes, tuple(shape), generator=d.stream("target"))
    held = torch.iinfo(dtype)
    if ignored is not None and held.min <= ignored <= held.max:
        share = d.pick("target ignored", (0.0, 0.3, 1.0))
        y = torch.where(d.mask("target ignored at", shape, share), ignored, y)
    return d.laid("target", y.to(dtype))


def asked(target: Tensor, ignored: int | None) -> Tensor:
    """Which positions are not ignored."""
    everything = torch.ones(target.shape, dtype=torch.bool)
    return everything if ignored is None else target != ignored


def soft(d: Draw, shape: Sequence[int], axis: int, label: str = "target") -> Tensor:
    """A distribution along the axis, or any shares."""
    kind = d.pick(f"{label} values", ("one-hot", "softmax", "shares"))
    if kind == "softmax":
        return d.normal(label, shape, 2.0).softmax(axis)
    if kind == "shares":
        return torch.rand(tuple(shape), generator=d.stream(label)).double()
    top = d.normal(label, shape)
    return torch.zeros_like(top).scatter(axis, top.argmax(axis, keepdim=True), 1.0)


def class_logits(d: Draw, shape: Sequence[int], axis: int, target: Tensor, keep: Tensor) -> Tensor:
    """Logits, perhaps sure of the target; classes that no target asks for may be masked."""
    x = d.numbers("logits", shape)
    one = (
        target
        if target.ndim == len(shape)
        else torch.zeros(tuple(shape)).scatter(
            axis, torch.where(keep, target.long(), 0).unsqueeze(axis), 1.0
        )
    )
    if d.chance("logits sure", 3):
        x = d.normal("logits", shape, 0.1) + d.pick("logits margin", (8.0, 20.0, 80.0)) * one
    if d.chance("logits masked", 4):
        x = torch.where(d.mask("logits masked at", shape, 0.3) & (one == 0), -math.inf, x)
    return x


def poisoned(d: Draw, x: Tensor, keep: Tensor, label: str = "logits") -> Tensor:
    """NaN and infinities where nothing counts."""
    if not d.chance(f"{label} poisoned", 2):
        return x
    return torch.where(keep, x, d.pick(f"{label} poison", (NAN, math.inf, -math.inf)))


def _cross_entropy_terms(d: Draw) -> Call:
    call = _cross_entropy(d)
    args = {name: value for name, value in call.args.items() if name != "z_loss"}
    return replace(call, name="cross_entropy_terms", args=args)


def _cross_entropy(d: Draw) -> Call:
    is_soft = d.pick("soft", (False, False, True))
    smoothing = d.pick("label_smoothing", (0.0, 0.0, 0.1, 1.0))
    shape, axis = class_shape(d)
    positions = without(shape, axis)
    ignored = d.pick("ignore_index", (-100, 0, 1, 255, None)) if not is_soft else -100
    target = (
        d.tensor("target", soft(d, shape, axis))
        if is_soft
        else indices(d, positions, shape[axis], ignored)  # 0 is a class like any other
    )
    sample_weight = d.maybe("sample_weight", lambda: d.weights("sample_weight", positions))
    keep = torch.ones(positions, dtype=torch.bool) if is_soft else asked(target, ignored)
    if sample_weight is not None:
        heard = keep
        keep = keep & (sample_weight != 0)
        sample_weight = d.tensor(
            "sample_weight", poisoned(d, sample_weight, heard, "sample_weight")
        )
    x = class_logits(d, shape, axis, target, keep)
    x = poisoned(d, x, keep.unsqueeze(axis).expand(shape))
    classes = (shape[axis],)
    return d.call(
        "cross_entropy",
        dict(
            logits=d.tensor("logits", x),
            target=target,
            weight=d.maybe(
                "weight", lambda: d.tensor("weight", d.weights("weight", classes), FLOATS[0])
            ),
            sample_weight=sample_weight,
            ignore_index=ignored,
            label_smoothing=smoothing,
            z_loss=d.pick("z_loss", (0.0, 0.0, 1e-4, 1.0)),
            softcap=d.pick("softcap", (None, None, 30.0, 1.0)),
            logit_adjustment=d.maybe(
                "logit_adjustment",
                lambda: d.tensor("bias", d.normal("bias", classes), FLOATS[0]),
                4,
            ),
            class_dim=class_dim(d, shape, axis, soft=is_soft),
            reduction=d.reduction(),
        ),
        "logits",
        sides=("weight", "sample_weight", "logit_adjustment", *(("target",) if is_soft else ())),
    )


def _hardest(d: Draw) -> Call:
    shape, axis = class_shape(d)
    positions = without(shape, axis)
    ignored = d.pick("ignore_index", IGNORED)
    target = indices(d, positions, shape[axis], ignored)
    keep = asked(target, ignored)
    sample_weight = d.maybe("sample_weight", lambda: d.weights("sample_weight", positions), 4)
    if sample_weight is not None:
        heard, keep = keep, keep & (sample_weight != 0)
        sample_weight = d.tensor(
            "sample_weight", poisoned(d, sample_weight, heard, "sample_weight")
        )
    x = poisoned(d, class_logits(d, shape, axis, target, keep), keep.unsqueeze(axis).expand(shape))
    classes = (shape[axis],)
    return d.call(
        "top_k_cross_entropy_loss",
        dict(
            logits=d.tensor("logits", x),
            target=target,
            fraction=d.pick("fraction", (0.1, 0.5, 0.0, 1.0)),
            threshold=d.pick("threshold", (None, 0.3, 0.9)),
            sample_weight=sample_weight,
            class_weight=d.maybe(
                "weight", lambda: d.tensor("weight", d.weights("weight", classes), FLOATS[0])
            ),
            ignore_index=ignored,
            label_smoothing=d.pick("label_smoothing", (0.0, 0.1)),
            z_loss=d.pick("z_loss", (0.0, 0.0, 1e-4)),
            softcap=d.pick("softcap", (None, None, 30.0)),
            logit_adjustment=d.maybe(
                "logit_adjustment",
                lambda: d.tensor("bias", d.normal("bias", classes), FLOATS[0]),
                4,
            ),
            class_dim=class_dim(d, shape, axis, soft=False),
            pool=d.pick("pool", ("batch", "sample")),
            reduction=d.reduction(),
        ),
        "logits",
        sides=("class_weight", "sample_weight", "logit_adjustment"),
    )


def _nearly_tied(call: Call) -> bool:
    """Losses that are equal but for rounding may be tied, or sorted either way."""
    names = (
        "class_weight",
        "sample_weight",
        "class_dim",
        "label_smoothing",
        "ignore_index",
        "z_loss",
        "softcap",
        "logit_adjustment",
    )
    given = {"weight" if n == "class_weight" else n: call.args.get(n) for n in names}
    given = {n: v for n, v in given.items() if v is not None or n == "ignore_index"}
    x, t = call.args["logits"].detach().double(), call.args["target"]
    losses = cross_entropy(x, t, reduction="none", **given).flatten().sort().values
    losses = losses[losses.isfinite()]
    return bool((losses.diff() < 1e-3 * losses[1:].abs() + 1e-6).any())


def _elements(d: Draw, *, soft_target: bool, ignore: Any) -> tuple[dict[str, Any], Tensor]:
    """Logits and a target of one shape, with a weight and what is ignored."""
    shape = shape_of(d)
    t = d.shares("target", shape, hard=True) if soft_target else d.mask("target", shape, 0.5)
    ignored = d.pick("ignore_index", (None, *ignore)) if ignore else None
    dtype = d.dtype("target", (*FLOATS, torch.bool, torch.int64, torch.uint8))
    if not dtype.is_floating_point:
        t = (t > 0.5).double()
    t = t.to(dtype)
    weight = d.maybe("weight", lambda: d.weights("weight", shape))
    keep = torch.ones(shape, dtype=torch.bool) if weight is None else weight != 0
    if ignored is not None and dtype != torch.bool and (ignored >= 0 or dtype != torch.uint8):
        t = torch.where(d.mask("target ignored", shape, 0.3), torch.tensor(ignored).to(dtype), t)
    if ignored is not None:
        keep = keep & (t != ignored)
        if weight is not None:
            weight = poisoned(d, weight, t != ignored, "weight")
    x = d.numbers("logits", shape)
    if d.chance("logits sure", 3):
        x = d.normal("logits", shape, 0.1)
        x = x + d.pick("logits margin", (8.0, 20.0, 80.0)) * (2.0 * t - 1)
    x = poisoned(d, x, keep)
    args = dict(
        logits=d.tensor("logits", x),
        target=d.laid("target", t),
        weight=None if weight is None else d.tensor("weight", weight),
    )
    return (args | {"ignore_index": ignored} if ignore else args), keep


def _by_class(d: Draw, label: str, shape: Sequence[int], numbers: Sequence[float]) -> Any:
    """None, a number, a tensor without an axis, or one per class; and the class axis."""
    kinds = ["none", "number", "scalar"] + ["vector"] * (len(shape) > 1)
    kind = d.pick(f"{label} kind", kinds)
    if kind == "none":
        return None, None
    if kind == "number":
        return d.pick(label, numbers), None
    if kind == "scalar":
        return torch.tensor(d.pick(label, numbers)), None
    axis = d.pick(f"{label} axis", range(len(shape)))
    vector = d.among(label, (shape[axis],), numbers).float()
    return vector, axis if len(shape) > 2 or axis != len(shape) - 1 else None


def _binary(d: Draw) -> Call:
    args, keep = _elements(d, soft_target=True, ignore=(-1.0, 0.5, 1.0, 255.0))
    args["pos_weight"], args["class_dim"] = _by_class(
        d, "pos_weight", args["logits"].shape, (1.0, 3.0, 0.0, 0.5)
    )
    args["label_smoothing"] = d.pick("label_smoothing", (0.0, 0.0, 0.1, 1.0))
    if not args["label_smoothing"] and d.chance("logits infinite", 5):  # where they are right
        x, t = args["logits"], args["target"].double()
        right = keep & ((t == 0) | (t == 1)) & d.mask("infinite at", x.shape, 0.5)
        args["logits"] = torch.where(right, ((2 * t - 1) * math.inf).to(x.dtype), x)
    return _called(d, "binary_cross_entropy", args)


def _asymmetric(d: Draw) -> Call:
    args, _ = _elements(d, soft_target=True, ignore=(-1.0, 0.5, 1.0, 255.0))
    args["gamma_positive"] = d.pick("gamma_positive", (0.0, 1.0, 2.0))
    args["gamma_negative"] = d.pick("gamma_negative", (4.0, 1.0, 2.5))
    args["margin"] = d.pick("margin", (0.05, 0.0, 0.3))
    return _called(d, "asymmetric_loss", args)


def _called(d: Draw, name: str, args: dict[str, Any], *, target: bool = True) -> Call:
    args["reduction"] = d.reduction()
    infinite = bool(args["logits"].isinf().any())
    learns = target and args["target"].is_floating_point() and not infinite
    return d.call(name, args, "logits", sides=("weight", *(("target",) if learns else ())))


def _of_the_chance(name: str, **options: tuple[float, ...]) -> Callable[[Draw], Call]:
    def drawn(d: Draw) -> Call:
        shape, axis = class_shape(d)
        positions = without(shape, axis)
        ignored = d.pick("ignore_index", IGNORED)
        target = indices(d, positions, shape[axis], ignored)
        keep = asked(target, ignored)
        weight = d.maybe("weight", lambda: d.weights("weight", positions))
        if weight is not None:
            weight = poisoned(d, weight, keep, "weight")
            keep = keep & (weight != 0)
        x = class_logits(d, shape, axis, target, keep)
        x = poisoned(d, x, keep.unsqueeze(axis).expand(shape))
        args = dict(
            logits=d.tensor("logits", x),
            target=target,
            weight=None if weight is None else d.tensor("weight", weight),
            ignore_index=ignored,
            class_dim=class_dim(d, shape, axis, soft=False),
        )
        args |= {key: d.pick(key, choices) for key, choices in options.items()}
        return _called(d, name, args, target=False)

    return drawn


def _of_levels(name: str) -> Callable[[Draw], Call]:
    def drawn(d: Draw) -> Call:
        axes = d.pick("axes", (2, 3, 4))
        axis = d.pick("level axis", (1, axes - 1))
        shape = [d.size(f"size {i}", high=17 if i else 40) for i in range(axes)]
        shape[axis] = d.size("levels", low=1)
        positions = without(shape, axis)
        ignored = d.pick("ignore_index", IGNORED)
        target = indices(d, positions, shape[axis] + 1, ignored)
        keep = asked(target, ignored)
        weight = d.maybe("weight", lambda: d.weights("weight", positions))
        if weight is not None:
            weight = poisoned(d, weight, keep, "weight")
            keep = keep & (weight != 0)
        x = d.numbers("logits", shape)
        if d.chance("logits sure", 3):
            level = torch.arange(shape[axis]).reshape(-1, *[1] * (axes - 1 - axis))
            sure = 2 * (torch.where(keep, target.long(), 0).unsqueeze(axis) > level).double() - 1
            x = d.normal("logits", shape, 0.1) + d.pick("logits margin", (8.0, 80.0)) * sure
        x = poisoned(d, x, keep.unsqueeze(axis).expand(shape))
        level_weight = d.maybe("level_weight", lambda: d.weights("level_weight", (shape[axis],)))
        args = dict(
            logits=d.tensor("logits", x),
            target=target,
            weight=None if weight is None else d.tensor("weight", weight),
            level_weight=None
            if level_weight is None
            else d.tensor("level_weight", level_weight, FLOATS[0]),
            ignore_index=ignored,
            class_dim=class_dim(d, shape, axis, soft=False),
        )
        return _called(d, name, args, target=False)

    return drawn


def _focal(d: Draw) -> Call:
    gamma = d.pick("gamma", (2.0, 0.0, 0.5, 1.0, 1.5, 4.0))
    learns = False
    if d.pick("softmax", (False, True)):
        is_soft = learns = d.pick("soft", (False, False, True))
        shape, axis = class_shape(d)
        positions = without(shape, axis)
        ignored = d.pick("ignore_index", ("auto", None, 0, 255)) if not is_soft else "auto"
        removed = -100 if ignored == "auto" else ignored
        if is_soft:
            target = d.tensor("target", soft(d, shape, axis))
        else:
            target = indices(d, positions, shape[axis], removed)
        keep = torch.ones(positions, dtype=torch.bool)
        if not is_soft and removed is not None:
            keep = target != removed
        weight = d.maybe("weight", lambda: d.weights("weight", positions))
        if weight is not None:
            weight = poisoned(d, weight, keep, "weight")
            keep = keep & (weight != 0)
        x = class_logits(d, shape, axis, target, keep)
        x = poisoned(d, x, keep.unsqueeze(axis).expand(shape))
        alpha, _ = _by_class(d, "alpha", (1, shape[axis]), (0.25, 1.0, 0.0, 0.5))
        alpha = alpha.expand(shape[axis]) if isinstance(alpha, Tensor) and alpha.ndim else alpha
        args = dict(
            logits=d.tensor("logits", x),
            target=target,
            weight=None if weight is None else d.tensor("weight", weight),
            kind="softmax" if is_soft else d.pick("kind", ("auto", "softmax")),
            ignore_index=ignored,
            label_smoothing=d.pick("label_smoothing", (0.0, 0.0, 0.1, 1.0)),
            class_dim=class_dim(d, shape, axis, soft=is_soft),
        )
    else:
        args, _ = _elements(d, soft_target=False, ignore=(-1, 0, 255))
        alpha, args["class_dim"] = _by_class(
            d, "alpha", args["logits"].shape, (0.25, 1.0, 0.0, 0.5)
        )
        args["normalize"] = d.pick("normalize", ("elements", "positives"))
        args["kind"] = d.pick("kind", ("auto", "sigmoid"))
    call = _called(d, "focal_loss", args | dict(gamma=gamma), target=learns)
    call.args["alpha"] = "auto" if d.chance("alpha as it comes", 4) else alpha
    return call


def _quality(d: Draw, name: str, options: dict[str, Any]) -> Call:
    args, keep = _elements(d, soft_target=True, ignore=())
    if name != "quality_focal_loss" and d.chance("positive given", 2):
        some = d.mask("positive", keep.shape, 0.5)
        args["positive"] = some | (args["target"] > 0)
    args["normalize"] = d.pick("normalize", ("elements", "positives", "quality"))
    return _called(d, name, args | options)


def _varifocal(d: Draw) -> Call:
    options = dict(
        alpha=d.pick("alpha", (0.75, 0.0, 1.0)),
        gamma=d.pick("gamma", (2.0, 0.0, 0.5, 1.0, 3.0)),
        detach_factor=d.pick("detach_factor", (False, True)),
    )
    return _quality(d, "varifocal_loss", options)


def _mal(d: Draw) -> Call:
    options = dict(
        alpha=d.pick("alpha", (1.0, 0.0, 0.75)),
        gamma=d.pick("gamma", (1.5, 0.5, 1.0, 2.0)),
        detach_factor=d.pick("detach_factor", (False, True)),
    )
    return _quality(d, "mal_loss", options)


def _ia_bce(d: Draw) -> Call:
    options = dict(
        alpha=d.pick("alpha", (0.25, 0.0, 0.5)),
        gamma=d.pick("gamma", (2.0, 0.5, 1.0)),
        floor=d.pick("floor", (0.01, 0.3)),
    )
    return _quality(d, "ia_bce_loss", options)


def _quality_focal(d: Draw) -> Call:
    return _quality(d, "quality_focal_loss", dict(beta=d.pick("beta", (2.0, 0.0, 1.0, 1.5, 3.0))))


def _dfl(d: Draw) -> Call:
    shape, bins = shape_of(d, high=2), d.size("bins", low=2)
    kind = d.pick("target values", ("whole", "plain", "near"))
    y = torch.rand(shape, generator=d.stream("target")).double() * (bins - 1)
    y = y.round() if kind != "plain" else y
    y = (y + 1e-3).clamp(max=bins - 1) if kind == "near" else y
    beyond = d.pick("out_of_range", ("error", "clamp"))
    y = y * 3 - 1 if beyond == "clamp" else y
    weight = d.maybe("weight", lambda: d.weights("weight", shape))
    keep = torch.ones(shape, dtype=torch.bool) if weight is None else weight != 0
    y = poisoned(d, y, keep, "target")
    x = d.numbers("logits", (*shape, bins))
    if d.chance("logits sure", 3):
        hat = (1 - (torch.arange(bins) - y.unsqueeze(-1)).abs()).clamp(0, 1).nan_to_num(0.0)
        x = 20 * hat + d.normal("logits", x.shape, 0.1)
    x = poisoned(d, x, keep.unsqueeze(-1).expand(x.shape))
    target = d.tensor("target", y, d.dtype("target", (torch.float32, torch.float64)))
    if beyond == "error":
        target = torch.where(keep, target.clamp(0, bins - 1), target)
    values = None
    if d.chance("values given", 3):  # twice as far apart, by powers of 2: exactly
        values, target = torch.arange(bins) * 2.0 - 4, target * 2 - 4
    return d.call(
        "distribution_focal_loss",
        dict(
            logits=d.tensor("logits", x),
            target=target,
            values=values,
            weight=None if weight is None else d.tensor("weight", weight),
            out_of_range=beyond,
            normalize=d.pick("normalize", ("elements", "positives")),
            reduction=d.reduction(),
        ),
        "logits",
        sides=("target", "weight"),
    )


def _expected(d: Draw) -> Call:
    shape = (*shape_of(d, low=0, high=2), d.size("bins", low=2))
    args: dict[str, Any] = dict(logits=d.tensor("logits", d.numbers("logits", shape)))
    if d.chance("values given", 3):
        args["values"] = torch.arange(shape[-1]) * 2.0 - 4
    return d.call("expected_value", args, "logits")


SHARE = (-0.1, 1.1, NAN)


def of_logits(call: Call) -> dict[str, float]:
    """A softmax: what its logits are rounded beside."""
    return {"logits": 1.0}


def _of_bins(call: Call) -> dict[str, float]:
    """And a target that is turned into bins, beside the farthest of them."""
    values = call.args.get("values")
    return of_logits(call) | ({} if values is None else {"target": values.abs().max().item()})


LOSSES = {
    "cross_entropy": Loss(
        _cross_entropy,
        oracle.cross_entropy,
        rows=1,
        rounded=of_logits,
        kinked=lambda call: call.args["label_smoothing"] > 0 or call.args["z_loss"] > 0,
        conceded=lambda call: {"target", "label_smoothing"},
        wrong={"label_smoothing": SHARE, "z_loss": (-1.0, NAN), "softcap": (0.0, -1.0, NAN)},
    ),
    "cross_entropy_terms": Loss(
        _cross_entropy_terms,
        oracle.cross_entropy_terms,
        rows=1,
        rounded=of_logits,
        kinked=True,
        conceded=lambda call: {"target", "label_smoothing"},
        watched=("lse",),
        wrong={"label_smoothing": SHARE, "softcap": (0.0, -1.0, NAN)},
    ),
    "top_k_cross_entropy_loss": Loss(
        _hardest,
        oracle.top_k_cross_entropy_loss,
        rows=1,
        rounded=of_logits,
        several=_nearly_tied,
        kinked=True,
        conceded=lambda call: {"label_smoothing"},
        wrong={"fraction": SHARE, "threshold": SHARE, "label_smoothing": SHARE},
    ),
    "binary_cross_entropy": Loss(
        _binary,
        oracle.binary_cross_entropy,
        kinked=lambda call: call.args["label_smoothing"] > 0,
        conceded=lambda call: {"target", "label_smoothing"},
        wrong={"label_smoothing": SHARE, "pos_weight": (-1.0, NAN)},
    ),
    "asymmetric_loss": Loss(
        _asymmetric,
        oracle.asymmetric_loss,
        conceded=lambda call: {"logits", "target", "margin"},
        wrong={"gamma_positive": (-1.0, NAN), "gamma_negative": (-1.0, NAN), "margin": SHARE},
    ),
    "poly1_loss": Loss(
        _of_the_chance("poly1_loss", epsilon=(1.0, -1.0, 0.0, 3.0)),
        oracle.poly1_loss,
        rows=1,
        rounded=of_logits,
        wrong={"epsilon": (-1.5, NAN)},
    ),
    "generalized_cross_entropy_loss": Loss(
        _of_the_chance("generalized_cross_entropy_loss", q=(0.7, 1.0, 0.1)),
        oracle.generalized_cross_entropy_loss,
        rows=1,
        rounded=of_logits,
        conceded=lambda call: {"logits"},
        wrong={"q": (0.0, 1.5, NAN)},
    ),
    "symmetric_cross_entropy_loss": Loss(
        _of_the_chance(
            "symmetric_cross_entropy_loss",
            alpha=(0.1, 6.0),
            beta=(1.0, 0.1, 0.0),
            log_zero=(-4.0, -9.21),
        ),
        oracle.symmetric_cross_entropy_loss,
        rows=1,
        rounded=of_logits,
        wrong={"alpha": (0.0, NAN), "beta": (-1.0, NAN), "log_zero": (0.0, NAN)},
    ),
    "coral_loss": Loss(_of_levels("coral_loss"), oracle.coral_loss, rows=1),
    "corn_loss": Loss(_of_levels("corn_loss"), oracle.corn_loss, rows=1),
    "focal_loss": Loss(
        _focal,
        oracle.focal_loss,
        rows=1,
        rounded=of_logits,
        kinked=lambda call: call.args.get("label_smoothing", 0.0) > 0,
        conceded=lambda call: {"target", "label_smoothing"},
        wrong={"gamma": (-1.0, NAN), "alpha": (-0.1, NAN), "label_smoothing": SHARE},
    ),
    "varifocal_loss": Loss(
        _varifocal,
        oracle.varifocal_loss,
        conceded=lambda call: {"target"},
        wrong={"alpha": (-1.0, NAN), "gamma": (-1.0, NAN)},
    ),
    "mal_loss": Loss(
        _mal,
        oracle.mal_loss,
        conceded=lambda call: {"target"},
        wrong={"alpha": (-1.0, NAN), "gamma": (-1.0, NAN)},
    ),
    "ia_bce_loss": Loss(
        _ia_bce,
        oracle.ia_bce_loss,
        kinked=True,
        conceded=lambda call: {"target"},
        wrong={"alpha": (-1.0, 2.0, NAN), "gamma": (-1.0, NAN), "floor": (-1.0, 2.0)},
    ),
    "quality_focal_loss": Loss(
        _quality_focal,
        oracle.quality_focal_loss,
        conceded=lambda call: {"target"},
        wrong={"beta": (-1.0, 0.5, NAN)},
    ),
    "distribution_focal_loss": Loss(
        _dfl,
        oracle.distribution_focal_loss,
        rows=1,
        rounded=_of_bins,
        conceded=lambda call: {"target"},
    ),
    "expected_value": Loss(_expected, oracle.expected_value, rows=1, rounded=of_logits),
}
