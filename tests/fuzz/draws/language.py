"""Losses of language models."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.check import computed, leaves
from tests.fuzz.draw import FLOATS, Call, Draw, Loss
from tests.fuzz.draws.classes import (
    IGNORED,
    NAN,
    SHARE,
    asked,
    class_dim,
    class_logits,
    class_shape,
    indices,
    of_logits,
    poisoned,
    soft,
    without,
)
from tests.fuzz.oracles import language as oracle
from tests.fuzz.oracles.classes import class_rows

__all__ = ["LOSSES", "TEMPERATURE", "limit_of_teachers"]


def _distilled(
    d: Draw, positions: tuple[int, ...], shape: tuple[int, ...], axis: int
) -> tuple[dict[str, Any], Tensor]:
    """The options that the distillations share, and what counts."""
    classes, ignored = shape[axis], d.pick("ignore_index", IGNORED)
    hard = d.maybe("hard_targets", lambda: indices(d, positions, classes, ignored))
    shares = hard is not None and d.chance("shares", 4)
    if shares:
        hard, ignored = d.tensor("hard_targets", soft(d, shape, axis), FLOATS[0]), -100
    divergence = d.pick("divergence", ("forward_kl", "reverse_kl", "jsd"))
    sample_weight = d.maybe("sample_weight", lambda: d.weights("sample_weight", positions))
    keep = torch.ones(positions, dtype=torch.bool)
    keep = keep if hard is None or shares else asked(hard, ignored)
    if sample_weight is not None:
        heard = keep
        keep = keep & (sample_weight != 0)
        sample_weight = d.tensor(
            "sample_weight", poisoned(d, sample_weight, heard, "sample_weight")
        )
    args: dict[str, Any] = dict(
        hard_targets=hard,
        temperature=d.pick("temperature", (4.0, 1.0, 0.5)),
        divergence=divergence,
        beta=d.pick("beta", (0.5, 0.1)) if divergence == "jsd" else None,
        sample_weight=sample_weight,
        ignore_index=None if hard is None else ignored,
        reduction=d.reduction(),
        standardize=classes > 2 and d.chance("standardize", 4),
        detach_teacher=d.pick("detach_teacher", (True, True, False)),
    )
    if hard is not None:
        args["label_smoothing"] = d.pick("label_smoothing", (0.0, 0.0, 0.1))
        args["class_weight"] = d.maybe(
            "class_weight",
            lambda: d.tensor("class_weight", d.weights("classes", (classes,)), FLOATS[0]),
        )
    return args, keep


def _mixed(d: Draw, args: dict[str, Any]) -> dict[str, Any]:
    """How soft and hard terms are weighed."""
    if args["hard_targets"] is None:
        return dict(alpha=1.0) if d.pick("hard out", (False, True)) else dict(hard_weight=0.0)
    return dict(
        alpha=d.pick("alpha", (0.5, 0.0, 1.0)),
        soft_weight=d.pick("soft_weight", (None, 0.3)),
        hard_weight=d.pick("hard_weight", (None, 0.0, 2.0)),
    )


def _distillation(name: str) -> Any:
    def draw(d: Draw) -> Call:
        shape, axis = class_shape(d)
        args, keep = _distilled(d, without(shape, axis), shape, axis)
        hard = args["hard_targets"]
        x = d.numbers("logits", shape, 88.0)
        kind = d.pick("teacher values", ("close", "unlike", "equal"))
        t = d.normal("teacher", shape, 2.0)
        if kind != "unlike":
            t = x + d.normal("teacher", shape, 0.0 if kind == "equal" else 1e-3)
        if d.chance("both masked", 4):
            masked = d.mask("masked", (shape[axis],), 0.3)
            masked[:2] = False
            if args["hard_targets"] is None:
                at = [-1 if i == axis else 1 for i in range(len(shape))]
                x, t = (torch.where(masked.reshape(at), -math.inf, v) for v in (x, t))
        chosen = None
        if not args["standardize"] and not d.pick("all classes", (True, True, False)):
            k = d.pick("k", (1, 2, shape[axis]))
            t = d.normal("teacher", shape, 1.0).log_softmax(axis)
            order = d.normal("teacher_indices", shape).argsort(axis)
            chosen = order.narrow(axis, 0, k)
            t, x = t.gather(axis, chosen), x.nan_to_num(neginf=-8.0)
        wide = keep.unsqueeze(axis)
        x = poisoned(d, x, wide.expand(x.shape), "student")
        t = poisoned(d, t, wide.expand(t.shape), "teacher")
        dtype = d.dtype("student")
        args |= dict(
            student_logits=d.tensor("student_logits", x, dtype),
            teacher_logits=d.tensor("teacher_logits", t, torch.float32)
            if chosen is not None
            else d.tensor(
                "teacher_logits", t.to(dtype), d.pick("teacher dtype", (dtype, torch.float32))
            ),
            teacher_indices=chosen,
            class_dim=class_dim(d, shape, axis, soft=hard is None or hard.is_floating_point()),
        )
        if name == "distillation_loss":
            args |= _mixed(d, args)
        taught = ("teacher_logits",) * (not args["detach_teacher"])
        return d.call(name, args, "student_logits", sides=("sample_weight", *taught))

    return draw


def _linear(d: Draw, classes: int, width: int) -> dict[str, Any]:
    return dict(
        bias=d.maybe("bias", lambda: d.tensor("bias", d.normal("bias", (classes,)), FLOATS[0])),
        chunk=d.pick("chunk", (None, 1, 7)),
        drop_ignored=d.pick("drop_ignored", (True, False)),
    )


def _hidden(d: Draw, shape: tuple[int, ...], keep: Tensor, label: str = "hidden") -> Tensor:
    x = d.normal(label, shape, d.pick(f"{label} scale", (1.0, 0.0, 1e-3, 10.0)))
    return poisoned(d, x, keep.unsqueeze(-1).expand(shape), label)


def _form(d: Draw) -> dict[str, Any]:
    return dict(
        label_smoothing=d.pick("label_smoothing", (0.0, 0.1)),
        z_loss=d.pick("z_loss", (0.0, 1e-4)),
        softcap=d.pick("softcap", (None, 30.0)),
    )


def _sizes(d: Draw) -> tuple[tuple[int, ...], int, int]:
    positions = tuple(d.size(f"size {i}", high=17) for i in range(d.pick("axes", (1, 2))))
    return positions, d.size("classes", low=2), d.size("width", low=1, high=17)


def _head(d: Draw, classes: int, width: int, dtype: torch.dtype) -> Tensor:
    return d.tensor("weight", d.normal("weight", (classes, width)), dtype)


def _linear_terms(d: Draw) -> Call:
    call = _linear_entropy(d)
    args = {name: value for name, value in call.args.items() if name != "z_loss"}
    return replace(call, name="linear_cross_entropy_terms", args=args)


def _linear_entropy(d: Draw) -> Call:
    positions, classes, width = _sizes(d)
    dtype = d.dtype("hidden")
    ignored = d.pick("ignore_index", IGNORED)
    is_soft = d.pick("soft", (False, False, True))
    sample_weight = d.maybe("sample_weight", lambda: d.weights("sample_weight", positions))
    if is_soft:
        target, ignored = d.tensor("target", soft(d, (*positions, classes), -1), FLOATS[0]), -100
        keep = torch.ones(positions, dtype=torch.bool)
    else:
        target = indices(d, positions, classes, ignored)
        keep = asked(target, ignored)
    if sample_weight is not None:
        sample_weight = poisoned(d, sample_weight, keep, "sample_weight")
        keep = keep & (sample_weight != 0)
    args = dict(
        hidden=d.tensor("hidden", _hidden(d, (*positions, width), keep), dtype),
        weight=_head(d, classes, width, dtype),
        target=target,
        class_weight=d.maybe(
            "class_weight", lambda: d.tensor("w", d.weights("w", (classes,)), FLOATS[0])
        ),
        sample_weight=None if sample_weight is None else d.tensor("sample_weight", sample_weight),
        ignore_index=ignored,
        logit_adjustment=d.maybe(
            "adjustment", lambda: d.tensor("a", d.normal("a", (classes,)), FLOATS[0]), 4
        ),
        scale=d.pick("scale", (1.0, 0.5)),
        reduction=d.reduction(),
    )
    args |= _linear(d, classes, width) | _form(d)
    return d.call("linear_cross_entropy", args, "hidden", "weight", "bias")


def _token_stats(d: Draw) -> Call:
    positions, classes, width = _sizes(d)
    dtype = d.dtype("hidden")
    ignored = d.pick("ignore_index", IGNORED)
    target = indices(d, positions, classes, ignored)
    args = dict(
        hidden=d.tensor("hidden", _hidden(d, (*positions, width), asked(target, ignored)), dtype),
        weight=_head(d, classes, width, dtype),
        target=target,
        ignore_index=ignored,
        softcap=d.pick("softcap", (None, 30.0)),
        scale=d.pick("scale", (1.0, 0.5)),
    )
    return d.call(
        "linear_token_stats", args | _linear(d, classes, width), "hidden", "weight", "bias"
    )


def _token_stats_of_logits(d: Draw) -> Call:
    positions, classes, _ = _sizes(d)
    ignored = d.pick("ignore_index", IGNORED)
    target = indices(d, positions, classes, ignored)
    keep = asked(target, ignored)
    x = class_logits(d, (*positions, classes), -1, target, keep)
    y = torch.where(keep, target.long(), 0)[..., None]
    alone = (x.scatter(-1, y, -math.inf) == -math.inf).all(-1, keepdim=True)
    x = torch.where(alone & (x == -math.inf), 0.0, x)  # an infinite margin
    x = poisoned(d, x, keep.unsqueeze(-1).expand(x.shape))
    args = dict(
        logits=d.tensor("logits", x),
        target=target,
        ignore_index=ignored,
        softcap=d.pick("softcap", (None, 30.0)),
        scale=d.pick("scale", (1.0, 0.5)),
        class_dim=class_dim(d, (*positions, classes), len(positions), soft=False),
    )
    return d.call("token_stats", args, "logits")


def _tied(call: Call) -> bool:
    """Whether several classes beside the target's are the largest, and one has the slope."""
    x = call.args.get("logits")
    if not isinstance(x, Tensor):  # of a product, they all are where it is 0
        return bool((call.args["hidden"] == 0).all(-1).any())
    target = call.args["target"]
    y = torch.where(asked(target, call.args["ignore_index"]), target.long(), 0)
    z = x.double() * call.args["scale"]
    z = z if call.args.get("softcap") is None else torch.tanh(z / call.args["softcap"])
    z = z.scatter(-1, y[..., None], -math.inf).float().sort(-1).values
    return bool((z[..., -1] - z[..., -2] <= 1e-5 * z[..., -1].abs()).any())


def _stored(
    d: Draw, positions: tuple[int, ...], classes: int, keep: Tensor, *, some: bool
) -> dict[str, Tensor | float | None]:
    """What a teacher said once, in place of its head: of all classes, or of some."""
    shape = (*positions, classes)
    t, chosen = d.normal("teacher", shape, 2.0), None
    if some and d.pick("of some", (True, False)):
        t, k = t.log_softmax(-1), d.pick("k", (1, 2))
        chosen = d.normal("teacher_indices", shape).argsort(-1)[..., :k]
        t = t.gather(-1, chosen)
    t = poisoned(d, t, keep.unsqueeze(-1).expand(t.shape), "teacher")
    made: dict[str, Tensor | float | None] = dict.fromkeys(
        ("teacher_hidden", "teacher_weight", "teacher_bias", "teacher_softcap")
    )
    return made | dict(
        teacher_logits=d.tensor("teacher_logits", t, torch.float32),
        teacher_indices=chosen,
        teacher_scale=1.0,
    )


def _linear_distillation(name: str) -> Any:
    def draw(d: Draw) -> Call:
        positions, classes, width = _sizes(d)
        dtype = d.dtype("hidden")
        args, keep = _distilled(d, positions, (*positions, classes), -1)
        other = d.size("teacher width", low=1, high=17)
        args |= dict(
            hidden=d.tensor("hidden", _hidden(d, (*positions, width), keep), dtype),
            weight=_head(d, classes, width, dtype),
            teacher_hidden=d.tensor(
                "teacher_hidden", _hidden(d, (*positions, other), keep, "teacher_hidden"), dtype
            ),
            teacher_weight=d.tensor("teacher_weight", d.normal("tw", (classes, other)), dtype),
            teacher_bias=d.maybe(
                "teacher_bias", lambda: d.tensor("tb", d.normal("tb", (classes,)), FLOATS[0])
            ),
            softcap=d.pick("softcap", (None, None, 30.0)),
            teacher_softcap=d.pick("teacher_softcap", (None, None, 20.0)),
            scale=d.pick("scale", (1.0, 1.0, 0.3)),
            teacher_scale=d.pick("teacher_scale", (1.0, 1.0, 2.0)),
        )
        args |= _linear(d, classes, width)
        if d.chance("stored", 4):
            args |= _stored(d, positions, classes, keep, some=not args["standardize"])
        if name == "linear_distillation_loss":
            args |= _mixed(d, args)
        taught = ()
        if not args["detach_teacher"] and args["teacher_hidden"] is not None:
            taught = ("teacher_hidden", "teacher_weight")
        return d.call(name, args, "hidden", "weight", "bias", sides=taught)

    return draw


def _halved(step: float) -> float:
    """A schedule."""
    return 0.5 / (1 + step)


def _tokens(name: str) -> Any:
    linear = name.startswith("linear")

    def draw(d: Draw) -> Call:
        batch = d.pick("batch", ((2,), (1,), (), (3,), (0,)))
        length, classes = d.pick("length", (3, 1, 2, 7, 17)), d.size("classes", low=2, high=17)
        depth, width = d.pick("depth", (1, 0, 2, 3)), d.size("width", low=1, high=17)
        ignored = d.pick("ignore_index", IGNORED)
        dtype = d.dtype("heads")
        labels = d.pick("labels", ("aligned", "raw"))
        packed, heads = d.chance("document_ids", 2), []
        reach = depth + (labels == "raw" or packed)
        further = d.pick("right_context", (0, reach))
        for k in range(depth + 1):
            short = k if not further and d.pick(f"head {k} short", (False, True)) else 0
            shape = (*batch, max(length - short, 0), width if linear else classes)
            heads.append(d.tensor(f"head {k}", d.normal(f"head {k}", shape, 2.0), dtype))
        length += further
        target = indices(d, (*batch, length), classes, ignored)
        ids = torch.randint(2, (*batch, length), generator=d.stream("documents")).cumsum(-1)
        args = dict(
            target=target,
            mtp_depth=d.pick("mtp_depth", (None, depth)),
            normalize=d.pick("normalize", ("tokens", "valid")),
            labels=labels,
            document_ids=ids if packed else None,
            right_context=further,
            sample_weight=d.maybe(
                "sample_weight",
                lambda: d.tensor(
                    "sample_weight", d.weights("sample_weight", (*batch, length)), FLOATS[0]
                ),
            ),
            ignore_index=ignored,
            reduction=d.reduction(none=False),
        ) | _form(d)
        weight = d.maybe(
            "class weight", lambda: d.tensor("w", d.weights("w", (classes,)), FLOATS[0])
        )
        if not name.endswith("_terms"):
            args["mtp_lambda"] = d.pick("mtp_lambda", (0.3, 0.0, _halved))
            args["step"] = 3.0 if args["mtp_lambda"] is _halved else None
        if not linear:
            return d.call(name, args | dict(logits_list=heads, class_weight=weight), "logits_list")
        args |= _linear(d, classes, width)
        args |= dict(
            hidden_list=heads,
            weight=_head(d, classes, width, dtype),
            class_weight=weight,
            scale=d.pick("scale", (1.0, 0.5)),
        )
        return d.call(name, args, "hidden_list", "weight", "bias")

    return draw


def _forgotten(name: str) -> Any:
    def draw(d: Draw) -> Call:
        shape, axis = class_shape(d)
        positions = without(shape, axis)
        ignored = d.pick("ignore_index", IGNORED)
        target = indices(d, positions, shape[axis], ignored)
        sample_weight = d.maybe("sample_weight", lambda: d.weights("sample_weight", positions))
        keep = asked(target, ignored)
        if sample_weight is not None:
            sample_weight = poisoned(d, sample_weight, keep, "sample_weight")
            keep = keep & (sample_weight != 0)
        dtype = d.dtype("logits")

        def logits(label: str, classes: int) -> Tensor:
            sized = tuple(classes if i == axis else n for i, n in enumerate(shape))
            x = d.normal(label, sized, 3.0)
            x = poisoned(d, x, keep.unsqueeze(axis).expand(sized), label)
            return d.tensor(label, x, dtype)

        args: dict[str, Any] = {}
        if d.pick("by task", (False, True)):
            sizes = {"a": shape[axis], "b": 2, "c": 5}
            args["new_logits"] = {key: logits(f"new {key}", n) for key, n in sizes.items()}
            args["old_logits"] = {key: logits(f"old {key}", sizes[key]) for key in ("b", "c")}
            args["task"] = d.pick("task", (None, "a"))
            if ignored is not None and d.chance("several tasks", 2):
                # the second's targets are those of its two classes
                other = d.mask("other task", positions, 0.5) & asked(target, ignored)
                of_b = torch.where(other, target.long().clamp(0, 1), ignored)
                of_a = torch.where(other, ignored, target.long())
                args |= {"target": {"a": of_a, "b": of_b}, "task": None}
        else:
            was = d.pick("old classes", (2, shape[axis]))
            args["new_logits"] = logits("new", shape[axis])
            args["old_logits"] = logits("old", was)
            if d.chance("old_classes", 2):
                args["old_classes"] = list(range(shape[axis]))[::-1][:was]
        args = dict(target=target) | args
        args |= dict(
            temperature=d.pick("temperature", (2.0, 1.0, 0.5)),
            detach_teacher=d.pick("detach_teacher", (True, False)),
            sample_weight=None if sample_weight is None else d.tensor("s", sample_weight),
            ignore_index=ignored,
            class_dim=class_dim(d, shape, axis, soft=False),
            reduction=d.reduction(),
        )
        if name == "lwf_loss":
            args["lambda_old"] = d.pick("lambda_old", (1.0, 0.0, 0.3))
        return d.call(name, args, "new_logits", sides=("sample_weight",))

    return draw


def _products(call: Call) -> set[str]:
    """A product of matrices rounds the logits."""
    names = (
        "hidden",
        "hidden_list",
        "weight",
        "bias",
        "teacher_hidden",
        "teacher_weight",
        "teacher_bias",
        "target",
        "label_smoothing",
    )
    return set(names)


TEMPERATURE = {"temperature": (0.0, -1.0, NAN, math.inf)}
MIXED = TEMPERATURE | {"alpha": SHARE, "beta": (0.0, 1.0, NAN)}
FORM = {"label_smoothing": SHARE, "z_loss": (-1.0, NAN), "softcap": (0.0, NAN)}


def limit_of_teachers(call: Call) -> tuple[float, float]:
    """What the docstrings say of the roundings beside 1 of a divergence, and of their products.

    The level that two sums set is known to a rounding of its own rounding, and the oracle's.
    """
    a = call.args
    eps, t = torch.finfo(computed(call)).eps, a.get("temperature", 4.0)
    in_one = call.engine in ("in one block", "pretend") and a["divergence"] == "forward_kl"
    by_autograd = (
        len(call.grads) > 1
        or call.engine == "plain"
        or "teacher_indices" in a
        or not a.get("detach_teacher", True)
    )
    value, slope = eps if in_one else max(eps**3, 1e-21), eps if in_one or by_autograd else eps**2
    slope = max(slope, 1e-17)  # of the oracle
    if a.get("standardize"):  # logits that are rounded beside 1, and divided by their spread
        value, slope = eps, eps / min(1.0, _least_spread(a))
    weight, most = a.get("sample_weight"), 1.0
    if isinstance(weight, Tensor) and weight.numel():
        most = max(1.0, weight.double().nan_to_num(0.0, 0.0, 0.0).max().item())
    rows = 1.0
    if a.get("reduction") == "sum":
        rows = max(t.numel() for path, t in leaves(a) if path == call.grads[0])
    # upstream gradients are 3 at most
    return 8 * value * t**2 * most * rows, 24 * slope * t * most


def _least_spread(a: dict[str, Any]) -> float:
    """The smallest standard deviation of a student's row that has one."""
    if "student_logits" in a:
        z, targets, axis = a["student_logits"], a.get("hard_targets"), a.get("class_dim")
        if axis is None:
            axis = (
                1 if targets is None or targets.ndim == z.ndim else class_rows(z, targets, None)[1]
            )
        z = z.double().movedim(axis, -1)
    else:
        z = a["hidden"].double() @ a["weight"].double().T
        z = a["scale"] * (z if a.get("bias") is None else z + a["bias"])
        if a.get("softcap") is not None:
            z = a["softcap"] * torch.tanh(z / a["softcap"])
    z = z.detach().nan_to_num(0.0, 0.0, 0.0)
    spread = z.std(-1, correction=0)
    spread = spread[spread > 1e-6 * z.abs().amax(-1)]
    return spread.min().item() if spread.numel() else 1.0


def _unlisted(call: Call) -> set[str]:
    """What the teacher does not list is 1 less what it does."""
    return {"teacher_logits", "student_logits"} if "teacher_indices" in call.args else set()


def _of_hidden(call: Call) -> dict[str, float]:
    """The softmax of a head: its logits are rounded beside 1, as if what they are made of were."""
    return {"hidden": 1.0}


def _standardized(call: Call) -> dict[str, float]:
    """Logits less their mean are rounded beside those that the mean is of."""
    sides = ("student_logits", "teacher_logits", "hidden", "teacher_hidden")
    return dict.fromkeys(sides, 1.0) if call.args.get("standardize") else {}


def _by_states(call: Call) -> dict[str, Tensor]:
    """The gradient of a head adds up that of the logits, times the states."""
    hidden = call.args["hidden"].detach().double().nan_to_num(0.0, 0.0, 0.0)
    return {"weight": hidden.flatten(0, -2).abs().sum(0)}


LOSSES = {
    "distillation_loss": Loss(
        _distillation("distillation_loss"),
        oracle.distillation_loss,
        limit=limit_of_teachers,
        rows=1,
        conceded=_unlisted,
        rounded=_standardized,
        rigid=("teacher_logits",),
        wrong=MIXED,
    ),
    "distillation_terms": Loss(
        _distillation("distillation_terms"),
        oracle.distillation_terms,
        limit=limit_of_teachers,
        rows=1,
        conceded=_unlisted,
        rounded=_standardized,
        rigid=("teacher_logits",),
        wrong=TEMPERATURE,
    ),
    "linear_cross_entropy": Loss(
        _linear_entropy,
        oracle.linear_cross_entropy,
        rows=0,
        rounded=_of_hidden,
        conceded=_products,
        products=True,
        wrong=FORM,
    ),
    "linear_cross_entropy_terms": Loss(
        _linear_terms,
        oracle.linear_cross_entropy_terms,
        rows=0,
        rounded=_of_hidden,
        conceded=_products,
        products=True,
        watched=("lse",),
        wrong={name: wrong for name, wrong in FORM.items() if name != "z_loss"},
    ),
    "linear_token_stats": Loss(
        _token_stats,
        oracle.linear_token_stats,
        rows=0,
        rounded=_of_hidden,
        several=_tied,
        conceded=_products,
        products=True,
        unit=1.0,
        wrong={"softcap": (0.0, NAN)},
    ),
    "token_stats": Loss(
        _token_stats_of_logits,
        oracle.token_stats,
        rows=-1,
        rounded=of_logits,
        several=_tied,
        unit=1.0,
        wrong={"softcap": (0.0, NAN), "scale": (0.0, NAN)},
    ),
    "linear_distillation_loss": Loss(
        _linear_distillation("linear_distillation_loss"),
        oracle.linear_distillation_loss,
        limit=limit_of_teachers,
        passed_on=_by_states,
        rows=0,
        conceded=_products,
        rounded=_standardized,
        products=True,
        wrong=MIXED,
    ),
    "linear_distillation_terms": Loss(
        _linear_distillation("linear_distillation_terms"),
        oracle.linear_distillation_terms,
        limit=limit_of_teachers,
        passed_on=_by_states,
        rows=0,
        conceded=_products,
        rounded=_standardized,
        products=True,
        wrong=TEMPERATURE,
    ),
    "multi_token_loss": Loss(
        _tokens("multi_token_loss"),
        oracle.multi_token_loss,
        rows=-1,
        conceded=lambda call: {"label_smoothing"},
        kinked=lambda call: call.args["label_smoothing"] > 0,
        wrong=FORM | {"mtp_lambda": (-1.0, NAN), "reduction": ("none",)},
    ),
    "multi_token_terms": Loss(
        _tokens("multi_token_terms"),
        oracle.multi_token_terms,
        rows=-1,
        conceded=lambda call: {"label_smoothing"},
        kinked=lambda call: call.args["label_smoothing"] > 0,
        wrong=FORM | {"reduction": ("none",)},
    ),
    "linear_multi_token_terms": Loss(
        _tokens("linear_multi_token_terms"),
        oracle.linear_multi_token_terms,
        rows=0,
        conceded=_products,
        products=True,
        wrong=FORM | {"reduction": ("none",)},
    ),
    "linear_multi_token_loss": Loss(
        _tokens("linear_multi_token_loss"),
        oracle.linear_multi_token_loss,
        rows=0,
        conceded=_products,
        products=True,
        wrong=FORM | {"reduction": ("none",)},
    ),
    "lwf_loss": Loss(
        _forgotten("lwf_loss"),
        oracle.lwf_loss,
        rows=1,
        kinked=True,
        conceded=lambda call: {"old_logits", "temperature"},
        wrong=TEMPERATURE,
    ),
    "lwf_terms": Loss(
        _forgotten("lwf_terms"),
        oracle.lwf_terms,
        rows=1,
        kinked=True,
        conceded=lambda call: {"old_logits", "temperature"},
        wrong=TEMPERATURE,
    ),
}
