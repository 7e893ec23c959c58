"""Preferences between answers, and policies of sampled ones."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import aptt.loss
from tests.fuzz.check import computed, truth
from tests.fuzz.draw import Call, Draw, Loss, heaviest, pooled
from tests.fuzz.draws.classes import NAN, poisoned, shape_of
from tests.fuzz.oracles import answers as oracle

__all__ = ["LOSSES"]

_TOP = 1e4


def _scores(d: Draw, name: str, x: Tensor, y: Tensor, options: dict[str, Any]) -> Call:
    shape = x.shape
    weight = d.maybe("weight", lambda: d.weights("weight", shape))
    keep = torch.ones(shape, dtype=torch.bool) if weight is None else weight != 0
    dtype = d.dtype("chosen")
    others = {
        key: d.tensor(key, poisoned(d, value, keep, key), dtype)
        for key, value in {"chosen": x, "rejected": y, **options}.items()
        if isinstance(value, Tensor)
    }
    options = {k: v for k, v in options.items() if not isinstance(v, Tensor)}
    return d.call(
        name,
        dict(
            **others,
            weight=None if weight is None else d.tensor("weight", weight),
            reduction=d.reduction(none=not name.startswith("orpo")),
            **options,
        ),
        "chosen",
        "rejected",
        sides=("weight",),
    )


def _dpo(name: str) -> Any:
    def draw(d: Draw) -> Call:
        shape = shape_of(d, low=0)
        x = d.numbers("chosen", shape, _TOP)
        y = x + d.normal("lead", shape, d.pick("lead scale", (1.0, 30.0, 0.0)))
        kind = d.pick("kind", ("sigmoid", "robust", "hinge", "ipo"))
        options: dict[str, Any] = dict(
            kind=kind,
            beta=d.pick("beta", (0.1, 1.0, 5.0)),
            label_smoothing=d.pick("label_smoothing", (0.0, 0.1, 0.4)),
            margin=d.pick("margin", (0.0, 0.5, -2.0)),
            per_token=d.pick("per_token", (None, False)),
        )
        if kind in ("hinge", "ipo"):
            options["label_smoothing"] = 0.0
        if d.chance("referred", 2):
            options["reference_chosen"] = x + d.normal("reference_chosen", shape)
            options["reference_rejected"] = y + d.normal("reference_rejected", shape)
        if d.chance("margins", 3):
            options["pair_margin"] = d.normal("pair_margin", shape)
        call = _scores(d, name, x, y, options)
        return _of_tokens(d, call) if d.chance("tokens known", 3) else call

    return draw


def _of_tokens(d: Draw, call: Call) -> Call:
    """The same of answers whose tokens are known, some of which have none."""
    for key in ("chosen", "rejected", "reference_chosen", "reference_rejected"):
        if key in call.args:
            side = key.removeprefix("reference_")
            call.args[key] = _with_tokens(d, side, call.args[key])
    call.args |= dict(per_token=d.pick("divided", (None, False, True)))
    if call.args["per_token"] is None:
        del call.args["per_token"]
    return call


def _with_tokens(d: Draw, label: str, score: Tensor) -> aptt.loss.Scores:
    tokens = torch.randint(0, 9, score.shape, generator=d.stream(f"{label} tokens"))
    return aptt.loss.Scores(score, tokens)


def _simpo(name: str) -> Any:
    def draw(d: Draw) -> Call:
        shape = shape_of(d, low=0)
        x = d.numbers("chosen", shape, _TOP)
        y = x + d.normal("lead", shape)
        options = dict(
            beta=d.pick("beta", (2.0, 0.1)),
            margin=d.pick("margin", (1.0, 0.0, 1.4)),
            label_smoothing=d.pick("label_smoothing", (0.0, 0.1)),
        )
        return _scores(d, name, x, y, options)

    return draw


def _averages(d: Draw, label: str, shape: tuple[int, ...], low: float) -> Tensor:
    steps = [v for v in (1.0, 0.1, 1e-3, 1e-6, 3e-8, 0.0, 5.0, 40.0, 300.0) if v >= low]
    kind = d.pick(f"{label} values", ("plain", "steps"))
    return -(
        d.normal(label, shape).abs() + 0.01 if kind == "plain" else d.among(label, shape, steps)
    )


def _orpo(name: str) -> Any:
    def draw(d: Draw) -> Call:
        shape = shape_of(d, low=0)
        x, y = _averages(d, "chosen", shape, 0.0), _averages(d, "rejected", shape, 1e-6)
        options = dict(odds_weight=d.pick("odds_weight", (0.1, 0.0, 2.0)))
        return _scores(d, name, x, y, options if name == "orpo_loss" else {})

    return draw


def _kto_terms(d: Draw) -> Call:
    return replace(_kto(d), name="kto_terms")


def _kto(d: Draw) -> Call:
    shape = shape_of(d, low=0)
    weight = d.maybe("weight", lambda: d.weights("weight", shape))
    keep = torch.ones(shape, dtype=torch.bool) if weight is None else weight != 0
    x, dtype = d.numbers("score", shape, _TOP), d.dtype("score")
    args: dict[str, Any] = dict(
        score=d.tensor("score", poisoned(d, x, keep, "score"), dtype),
        desirable=d.mask("desirable", shape, d.pick("share", (0.5, 0.0, 1.0))),
        weight=None if weight is None else d.tensor("weight", weight),
        beta=d.pick("beta", (0.1, 1.0)),
        desirable_weight=d.pick("desirable_weight", (1.0, 0.0, 1.3)),
        undesirable_weight=d.pick("undesirable_weight", (1.0, 2.0)),
        reduction=d.reduction(),
    )
    if d.chance("referred", 2):
        near = x + d.normal("reference", shape)
        args["reference_score"] = d.tensor(
            "reference_score", poisoned(d, near, keep, "reference_score"), dtype
        )
    if d.chance("mismatched given", 2):
        gains = d.normal("mismatched", (d.size("mismatched"),), 3.0)
        args["mismatched"] = d.tensor("mismatched", gains, dtype)
    else:
        args["baseline"] = d.pick("baseline", (0.0, 0.7))
    for key in ("score", "reference_score", "mismatched"):
        if key in args and d.chance(f"tokens of {key} known", 4):
            args[key] = _with_tokens(d, key, args[key])
    args["pool"] = d.pick("pool", ("batch", pooled))
    return d.call("kto_loss", args, "score", sides=("weight",))


# ----------------------------------------------------------------------------------- policies


def _tokens(d: Draw) -> tuple[tuple[int, ...], dict[str, Any], Tensor]:
    """The shape of the tokens, what the mean counts, and which tokens do."""
    packed = d.chance("packed", 3)
    shape = (d.size("tokens"),) if packed else (d.size("rows", high=17), d.size("length", high=17))
    args: dict[str, Any] = dict(average=d.pick("average", ("token", "sequence", "constant")))
    if args["average"] == "constant":
        args["nominal_length"] = d.pick("nominal", (8, 2.5))
    keep = torch.ones(shape, dtype=torch.bool)
    if d.chance("mask given", 2):
        args["mask"] = d.mask("mask", shape, d.pick("mask share", (0.7, 0.0, 1.0)))
        keep = keep & args["mask"]
    if packed:
        ids = torch.randint(-1, 4, shape, generator=d.stream("ids"))
        args["sequence_ids"] = ids * d.pick("ids step", (1, 1000))
        keep = keep & (ids >= 0)
    return shape, args, keep


def _log_probs(
    d: Draw, shape: tuple[int, ...], keep: Tensor, *others: str, top: float = 30.0
) -> dict[str, Tensor]:
    x, dtype = -d.normal("log_prob", shape, 2.0).abs(), d.dtype("log_prob")
    made = {"log_prob": x}
    for other in others:
        kind = d.pick(f"{other} values", ("close", "equal", "ladder"))
        near = d.normal(other, shape, 0.0 if kind == "equal" else 0.3)
        if kind == "ladder":
            steps = [v for v in (0.0, 1e-4, 1e-3, 1.0, 3.0, 30.0, 80.0) if v <= top]
            near = d.among(other, shape, [*steps, *(-v for v in steps)])
        made[other] = x + near
    return {k: d.tensor(k, poisoned(d, t, keep, k), dtype) for k, t in made.items()}


def _policy(name: str) -> Any:
    def draw(d: Draw) -> Call:
        shape, args, keep = _tokens(d)
        args |= _log_probs(d, shape, keep, "old_log_prob")
        each = shape if len(shape) == 1 or d.chance("advantage of tokens", 2) else shape[:-1]
        args["advantage"] = d.tensor("advantage", d.numbers("advantage", each, 8.0))
        if d.chance("weight given", 3):
            share = d.shares("weight", shape, hard=False)
            args["importance"] = d.tensor("importance", poisoned(d, share, keep, "importance"))
        args |= dict(
            kind=d.pick("kind", ("clip", "clip", "cispo")),
            clip_low=d.pick("clip_low", (0.2, 0.0, 1.0, 3e-4)),
            clip_high=d.pick("clip_high", (0.2, 0.28, 0.0)),
            dual_clip=d.pick("dual_clip", (None, 3.0)),
            cap=d.pick("cap", (5.0, 1.1)),
            reduction=d.reduction(),
        )
        if args["average"] == "sequence" and args["kind"] == "clip":
            args["ratio"] = d.pick("ratio", ("token", "sequence"))
        return d.call(name, args, "log_prob")

    return draw


def _beyond(call: Call) -> Tensor:
    """How far pairs are from where a hinge ends, beside their scores; empty of other kinds."""
    if call.args["kind"] != "hinge":
        return torch.zeros(0, 2)
    return truth(Loss(_dpo("dpo_loss"), oracle.beyond_the_hinge), call).values["loss"].detach()


def _at_the_hinge(call: Call) -> bool:
    """Whether a pair is as good as where a hinge ends, and has its slope or none."""
    far, _ = _beyond(call).unbind(-1)
    return bool((far.abs() < 1e-6).any())


def _at_its_end(call: Call) -> tuple[float, float]:
    """What a hinge is a difference of."""
    _, size = _beyond(call).unbind(-1)
    most = size.max().item() if size.numel() else 0.0
    pairs = size.numel() if call.args["reduction"] == "sum" else 1
    return 8 * torch.finfo(computed(call)).eps * most * max(pairs, heaviest(call, "weight")), 0.0


def _on_an_edge(call: Call) -> bool:
    """Whether a ratio is as good as on an edge of its clip, or on either side of it by rounding."""
    a = call.args
    x, old = (a[k].double() for k in ("log_prob", "old_log_prob"))
    edges = [math.log1p(a["clip_high"]), math.log(a["cap"])]
    edges += [math.log1p(-a["clip_low"])] if a["clip_low"] < 1 else []
    edges += [] if a.get("dual_clip") is None else [math.log(a["dual_clip"])]
    if a.get("ratio") == "sequence":
        return a["clip_low"] == 0 or a["clip_high"] == 0 or a["clip_low"] < 1e-3
    ratio = (x - old).nan_to_num(9.0, 9.0, 9.0)
    return any(bool(((ratio - edge).abs() < 1e-5).any()) for edge in edges)


def _penalty(d: Draw) -> Call:
    shape, args, keep = _tokens(d)
    others = ("reference_log_prob", *(("old_log_prob",) if d.chance("off policy", 3) else ()))
    top = 30.0 if len(others) == 1 else 3.0  # the oracle's two slopes cancel beyond
    args |= _log_probs(d, shape, keep, *others, top=top)
    args |= dict(kind=d.pick("kind", ("k3", "k1", "k2")), reduction=d.reduction())
    return d.call("kl_penalty_loss", args, "log_prob", "reference_log_prob")


POSITIVE = (0.0, -1.0, NAN)
_PAIRS = {
    "beta": POSITIVE,
    "margin": (NAN, math.inf),
    "label_smoothing": (-0.1, 1.1, NAN),
}
_REFERENCES = {"reference_chosen", "reference_rejected", "rejected", "chosen", "pair_margin"}
_TOKENS = {"average": ("batch",), "nominal_length": (0, NAN)}
_EDGES = {
    "clip_low": (-0.1, 1.1),
    "clip_high": (-1.0, NAN),
    "dual_clip": (1.0, NAN),
    "cap": POSITIVE,
}

_ANSWERS = {
    "beta": POSITIVE,
    "desirable_weight": (-1.0, NAN),
    "undesirable_weight": (-1.0, NAN),
    "pool": ("sample",),
}
LOSSES = {
    "dpo_loss": Loss(
        _dpo("dpo_loss"),
        oracle.dpo_loss,
        conceded=lambda call: _REFERENCES,
        several=_at_the_hinge,
        limit=_at_its_end,
        kinked=True,
        wrong=_PAIRS,
    ),
    "dpo_terms": Loss(
        _dpo("dpo_terms"),
        oracle.dpo_terms,
        watched=("reward_chosen", "reward_rejected", "accuracy"),
        conceded=lambda call: _REFERENCES,
        several=_at_the_hinge,
        limit=_at_its_end,
        kinked=True,
        wrong=_PAIRS,
    ),
    "simpo_loss": Loss(
        _simpo("simpo_loss"), oracle.simpo_loss, conceded=lambda call: _REFERENCES, wrong=_PAIRS
    ),
    "simpo_terms": Loss(
        _simpo("simpo_terms"),
        oracle.simpo_terms,
        watched=("reward_chosen", "reward_rejected", "accuracy"),
        conceded=lambda call: _REFERENCES,
        wrong=_PAIRS,
    ),
    "orpo_loss": Loss(
        _orpo("orpo_loss"),
        oracle.orpo_loss,
        rigid=("rejected",),
        conceded=lambda call: _REFERENCES,
        wrong={"odds_weight": (-1.0, NAN), "reduction": ("none",)},
    ),
    "orpo_terms": Loss(
        _orpo("orpo_terms"),
        oracle.orpo_terms,
        rigid=("rejected",),
        conceded=lambda call: _REFERENCES,
        wrong={"reduction": ("none",)},
    ),
    "kto_loss": Loss(
        _kto,
        oracle.kto_loss,
        conceded=lambda call: {"score", "reference_score", "mismatched", "baseline"},
        wrong=_ANSWERS,
    ),
    "kto_terms": Loss(
        _kto_terms,
        oracle.kto_terms,
        watched=("reward_desirable", "reward_undesirable", "baseline"),
        conceded=lambda call: {"score", "reference_score", "mismatched", "baseline"},
        wrong=_ANSWERS,
    ),
    "policy_loss": Loss(
        _policy("policy_loss"),
        oracle.policy_loss,
        several=_on_an_edge,
        conceded=lambda call: {"log_prob", "old_log_prob"},
        wrong=_TOKENS | _EDGES,
    ),
    "policy_terms": Loss(
        _policy("policy_terms"),
        oracle.policy_terms,
        watched=("clipped", "kl_old"),
        several=_on_an_edge,
        conceded=lambda call: {"log_prob", "old_log_prob"},
        wrong=_TOKENS | _EDGES,
    ),
    "kl_penalty_loss": Loss(
        _penalty,
        oracle.kl_penalty_loss,
        conceded=lambda call: {"log_prob", "reference_log_prob", "old_log_prob"},
        wrong=_TOKENS,
    ),
}
