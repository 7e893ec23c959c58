"""Ratios of energies, and root mean squared errors."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

import aptt.loss
from tests.fuzz.draw import INTEGERS, Call, Draw, Loss, pooled
from tests.fuzz.draws.classes import NAN, poisoned, shape_of
from tests.fuzz.oracles import signals as oracle

__all__ = ["LOSSES", "lengths", "signals"]


def signals(d: Draw, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """An estimate and a target: unlike, close, in proportion, silent, quiet or loud."""
    unit = d.pick("unit", (1.0, 1e-3, 1e4, 1e-12))
    t = d.normal("target", shape)
    offset = d.pick("offset", (0.0, 0.0, 3.0))
    kind = d.pick("estimate values", ("unlike", "close", "scaled", "silent", "level", "equal"))
    noise = d.normal("estimate", shape)
    if d.chance("target silent", 6):
        t = torch.where(d.mask("target silent at", (*shape[:-1], 1), 0.5), 0.0, t)
    if kind == "close":
        x = t + noise * d.pick("noise", (0.1, 1e-3, 1e-6))
    elif kind == "scaled":
        x = t * d.pick("scale", (2.0, -1.0, 1e-3, 1e3)) + noise * d.pick("noise", (0.1, 1e-3))
    elif kind == "silent":
        x = torch.zeros_like(t)
    elif kind == "level":
        x = torch.full_like(t, d.pick("level", (1.0, 0.01, -3.3)))
    else:
        x = t if kind == "equal" else noise
    return (x + offset) * unit, (t + offset) * unit


def lengths(d: Draw, shape: tuple[int, ...], least: int = 0) -> Tensor:
    some = torch.randint(least, shape[-1] + 1, shape[:1], generator=d.stream("lengths"))
    some = torch.where(d.mask("lengths none", shape[:1], 0.1), 0, some)
    some = torch.where(d.mask("lengths full", shape[:1], 0.3), shape[-1], some)
    kinds = [k for k in INTEGERS if torch.iinfo(k).max >= shape[-1]]
    return some.to(d.dtype("lengths", kinds))


def inside(shape: tuple[int, ...], n: Tensor | None) -> Tensor:
    if n is None:
        return torch.ones(shape, dtype=torch.bool)
    n = n.long().reshape(-1, *[1] * (len(shape) - 1))
    return (torch.arange(shape[-1]) < n).expand(shape)


def _ratio(name: str) -> Any:
    def draw(d: Draw) -> Call:
        shape = (*shape_of(d, low=0, high=2), d.pick("samples", (17, 1, 2, 40, 200, 0)))
        x, t = signals(d, shape)
        n = d.maybe("lengths", lambda: lengths(d, shape)) if len(shape) > 1 else None
        keep = inside(shape, n)
        x, t = poisoned(d, x, keep, "estimate"), poisoned(d, t, keep, "target")
        dtype = d.dtype("estimate")
        top = torch.finfo(dtype).max
        t = torch.where(keep, t.clamp(-top, top), t).to(dtype)  # rounded, and finite
        target = d.tensor("target", t, d.pick("side", (dtype, torch.float32)))
        level = torch.where(keep, target, 0.0)
        level = level - level[..., :1]
        return d.call(
            name,
            dict(
                estimate=d.tensor("estimate", x, dtype),
                target=target,
                lengths=n,
                zero_mean=d.pick("zero_mean", (False, True)),
                cap=d.pick("cap", (100.0, 30.0, 1.0, 120.0)),
                silent=d.pick("silent", ("level", "skip")),
                reduction=d.reduction(),
            ),
            "estimate",
            # what is silent has another definition, and no slope that leads out of it
            sides=("target",) * bool((level != 0).any(-1).all()),
        )

    return draw


def _error(name: str) -> Any:
    def draw(d: Draw) -> Call:
        shape = (*shape_of(d, low=0), d.size("T"))
        x, t = signals(d, shape)
        n = d.maybe("lengths", lambda: lengths(d, shape)) if len(shape) > 1 else None
        keep = inside(shape, n)
        x, t = poisoned(d, x, keep, "estimate"), poisoned(d, t, keep, "target")
        dtype = d.dtype("estimate")
        options = {"pre_emphasis": d.pick("pre_emphasis", (0.0, 0.85, 1.0))}
        return d.call(
            name,
            dict(
                estimate=d.tensor("estimate", x, dtype),
                target=d.tensor("target", t, dtype),
                lengths=n,
                silent=d.pick("silent", ("level", "skip")),
                reduction=d.reduction(),
            )
            | (options if name == "esr_loss" else {}),
            "estimate",
        )

    return draw


def _permuted(d: Draw) -> Call:
    sources = d.pick("sources", (2, 1, 3, 4))
    fewer = d.pick("fewer targets", (0, 0, 1)) if sources > 1 else 0
    shape = (d.size("samples", high=17), sources, *d.pick("channels", ((), (2,))), 40)
    t = d.normal("target", shape)  # no two assignments are alike
    x = t.flip(1) + d.normal("estimate", shape, d.pick("noise", (0.1, 1.0, 1e-3)))
    t = t[:, : sources - fewer]
    n = d.maybe("lengths", lambda: lengths(d, (shape[0], shape[-1]), 8))
    keep = inside(t.shape, n)
    active = d.maybe("active", lambda: d.mask("active", t.shape[:2], 0.8), 3)
    if active is not None:
        keep = keep & active.reshape(*active.shape, *[1] * (t.ndim - 2))
    x, t = poisoned(d, x, inside(shape, n), "estimate"), poisoned(d, t, keep, "target")
    dtype = d.dtype("estimate")
    names = ("si_sdr_loss", "snr_loss", "si_snr_loss", "sd_sdr_loss")
    return d.call(
        "permutation_invariant_loss",
        dict(
            estimate=d.tensor("estimate", x, dtype),
            target=d.tensor("target", t, dtype),
            lengths=n,
            active=active,
            loss=getattr(aptt.loss, d.pick("loss", names)),
            unmatched=d.pick("unmatched", ("ignore", "silence")),
            reduction=d.reduction(),
        ),
        "estimate",
        sides=("target",) if active is None and not fewer else (),
    )


def _aggregated(d: Draw) -> Call:
    shape = (
        d.size("samples", high=17),
        d.pick("sources", (2, 1, 3)),
        *d.pick("channels", ((), (2,))),
        40,
    )
    unit = d.pick("unit", (1.0, 1e-3, 1e4))
    t = d.normal("target", shape) * unit
    if d.chance("silent", 4):
        t = torch.where(d.mask("silent at", (*shape[:2], *[1] * (len(shape) - 2)), 0.5), 0.0, t)
    x = t.flip(1) + unit * d.normal("estimate", shape, d.pick("noise", (0.1, 1.0, 1e-3)))
    n = d.maybe("lengths", lambda: lengths(d, (shape[0], shape[-1])))
    keep = inside(shape, n)
    x, t = poisoned(d, x, keep, "estimate"), poisoned(d, t, keep, "target")
    dtype = d.dtype("estimate")
    return d.call(
        "sa_sdr_loss",
        dict(
            estimate=d.tensor("estimate", x, dtype),
            target=d.tensor("target", t, dtype),
            lengths=n,
            any_order=d.pick("any_order", (False, True)),
            cap=d.pick("cap", (100.0, 30.0, 1.0, 120.0)),
            silent=d.pick("silent policy", ("level", "skip")),
            reduction=d.reduction(),
        ),
        "estimate",
    )


def _mixed(d: Draw) -> Call:
    sources, mixtures = d.pick("sources", (3, 1, 4)), d.pick("mixtures", (2, 1, 3))
    shape = (d.size("samples", high=3), sources, *d.pick("channels", ((), (2,))), 40)
    x = d.normal("estimate", shape)
    t = torch.stack([x[:, k::mixtures].sum(1) for k in range(mixtures)], 1)
    t = t + d.normal("target", t.shape, d.pick("noise", (0.1, 1.0)))
    n = d.maybe("lengths", lambda: lengths(d, (shape[0], shape[-1]), 8))
    x = poisoned(d, x, inside(shape, n), "estimate")
    t = poisoned(d, t, inside(t.shape, n), "target")
    dtype = d.dtype("estimate")
    return d.call(
        "mixture_invariant_loss",
        dict(
            estimate=d.tensor("estimate", x, dtype),
            target=d.tensor("target", t, dtype),
            lengths=n,
            cap=d.pick("cap", (30.0, 100.0, 1.0)),
            silent=d.pick("silent policy", ("level", "skip")),
            reduction=d.reduction(),
        ),
        "estimate",
    )


def _root(name: str) -> Any:
    def draw(d: Draw) -> Call:
        shape = shape_of(d, low=0)
        t = d.numbers("target", shape)
        x = d.numbers("prediction", shape)
        if d.chance("prediction close", 2):
            x = t + d.normal("prediction", shape, d.pick("noise", (1e-3, 0.0, 1e-6)))
        if name == "rmsle_loss":
            x, t = (v.abs() - d.pick("shift", (0.0, 0.9)) for v in (x, t))
        weight = d.maybe("weight", lambda: d.weights("weight", shape))
        keep = torch.ones(shape, dtype=torch.bool) if weight is None else weight != 0
        x, t = poisoned(d, x, keep, "prediction"), poisoned(d, t, keep, "target")
        return d.call(
            name,
            dict(
                prediction=d.tensor("prediction", x),
                target=d.tensor("target", t),
                weight=None if weight is None else d.tensor("weight", weight),
                pool=d.pick("pool", ("batch", "sample", pooled)),
                reduction=d.reduction(),
            ),
            "prediction",
            sides=("target", "weight"),
        )

    return draw


def _close(call: Call) -> set[str]:
    """In float64 the oracle is no better than the loss."""
    exact = call.args["estimate"].dtype == torch.float64
    return {"estimate", "target"} if exact or call.args.get("zero_mean") else set()


def _of_other_levels(call: Call) -> dict[str, float]:
    """Of an estimate 10 times as loud as the target, or as soft, no digits can cancel."""
    x, t = (
        call.args[key].detach().double().nan_to_num(0.0, 0.0, 0.0) for key in ("estimate", "target")
    )
    alike = 0.1 * t.norm() <= x.norm() <= 10 * t.norm()
    return {} if alike else {"estimate": 0.0, "target": 0.0}


def _proportional(call: Call) -> tuple[float | Tensor, float | Tensor]:
    """What ``si_sdr_loss`` says of signals that are nearly in proportion, as far as they are."""
    name = call.args["loss"].__name__ if "loss" in call.args else call.name
    if name not in ("si_sdr_loss", "si_snr_loss") or not call.args["estimate"].numel():
        return 0.0, 0.0
    means = call.args.get("zero_mean", name == "si_snr_loss")
    of_x, of_t = (_heard(call, key, means) for key in ("estimate", "target"))
    k = 10 ** (-call.args.get("cap", 100.0) / 10)
    if "loss" in call.args:  # any target may be that of any source; all are of some noise
        beside = torch.maximum(*(_of_any(v.offset) for v in (of_x, of_t)))
        missing = torch.tensor(1e-7)
    else:
        beside = torch.maximum(of_x.offset, of_t.offset)
        of = (of_x.signal * of_t.signal).sum(-1, keepdim=True) / of_t.energy.clamp(min=1e-300)
        missing = (of_x.signal - of * of_t.signal).square().sum(-1, keepdim=True)
        missing = missing / of_x.energy.clamp(min=1e-300)
    share = 2e-15 * beside / (missing + k)  # of 1 - q + t, and of all that is divided by it
    share = torch.where(missing > 1e-3, 0.0, share.clamp(max=1.0))
    steepest = 4.35 * 10 ** (call.args.get("cap", 100.0) / 20) / of_x.energy.sqrt()
    slope = torch.where(of_x.energy > 0, (1e-9 * beside + share) * steepest, 0.0)
    whole = call.args.get("reduction", "mean") != "none"
    return (share.max() if whole else share[..., 0]) * 4.35, 3 * slope  # upstream: at most 3


def _of_any(offset: Tensor) -> Tensor:
    """The largest of the sources, if each has its own."""
    return offset.amax(1, keepdim=True) if offset.ndim else offset


class _Heard(NamedTuple):
    """A signal, perhaps less its mean; its energy, and how large the mean was beside it."""

    signal: Tensor
    energy: Tensor
    offset: Tensor


def _heard(call: Call, key: str, means: bool) -> _Heard:
    v = call.args[key].detach().double()
    keep = inside(tuple(v.shape), call.args.get("lengths"))
    size, v = keep.sum(-1, keepdim=True).clamp(min=1), torch.where(keep, v, 0.0)
    if not means:
        return _Heard(v, v.square().sum(-1, keepdim=True), torch.ones(()))
    mean = v.sum(-1, keepdim=True) / size
    v = torch.where(keep, v - mean, 0.0)
    energy = v.square().sum(-1, keepdim=True)
    offset = torch.where(energy > 0, size * mean.square() / energy, 1.0).clamp(min=1.0)
    return _Heard(v, energy, offset)


def _between(call: Call) -> dict[str, Tensor]:
    """A target's slope is that of the noise less that of the signal."""
    if "target" not in call.grads[1:] or not call.args["target"].numel():
        return {}
    heard = _heard(call, "target", call.args.get("zero_mean", call.name == "si_snr_loss"))
    each = heard.signal.abs().amax(-1, keepdim=True) / heard.energy
    return {"target": 3 * 8.7 * torch.where(heard.energy > 0, each, 0.0)}


def _levels(call: Call) -> dict[str, Tensor]:
    """The target's slope is the estimate's, as large as the one is beside the other."""
    x, t = (_heard(call, key, False).energy for key in ("estimate", "target"))
    return {"target": torch.where(t > 0, (x / t).sqrt(), 0.0)}


LOSSES = {
    name: Loss(
        _ratio(name),
        getattr(oracle, name),
        rows=-1,
        limit=_proportional,
        passed_on=_levels,
        beside=_between,
        unit=4.4,
        rigid=("target",),
        conceded=_close,
        rounded=_of_other_levels,
        wrong={"cap": (0.0, 121.0, NAN, math.inf)},
    )
    for name in ("snr_loss", "si_sdr_loss", "si_snr_loss", "sd_sdr_loss")
} | {
    "permutation_invariant_loss": Loss(
        _permuted,
        oracle.permutation_invariant_loss,
        rows=-1,
        limit=_proportional,
        unit=4.4,
        conceded=_close,
        rigid=("estimate", "target"),
    ),
    "esr_loss": Loss(
        _error("esr_loss"),
        oracle.esr_loss,
        rows=-1,
        rigid=("target",),
        conceded=lambda call: {"estimate", "target"},
        wrong={"pre_emphasis": (-0.1, 1.1, NAN)},
    ),
    "dc_loss": Loss(
        _error("dc_loss"),
        oracle.dc_loss,
        rows=-1,
        rigid=("target",),
        conceded=lambda call: {"estimate", "target"},
    ),
    "sa_sdr_loss": Loss(
        _aggregated, oracle.sa_sdr_loss, rows=1, unit=4.4, conceded=_close, rigid=("target",)
    ),
    "mixture_invariant_loss": Loss(
        _mixed,
        oracle.mixture_invariant_loss,
        rows=1,
        unit=4.4,
        conceded=_close,
        rigid=("estimate", "target"),
    ),
    "rmse_loss": Loss(_root("rmse_loss"), oracle.rmse_loss),
    "rmsle_loss": Loss(_root("rmsle_loss"), oracle.rmsle_loss),
}
