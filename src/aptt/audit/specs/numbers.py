"""Rows of the losses of numbers: of errors, quantiles and distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from aptt.audit.spec import Case, Inputs, Maker, Options, Refused, Scaling, Spec, case
from aptt.audit.specs.making import NOTHING_FROZEN, grid, normal, with_
from aptt.loss import (
    CharbonnierLoss,
    EnsembleCRPSLoss,
    GaussianCRPSLoss,
    GaussianNLLLoss,
    HuberLoss,
    L1Loss,
    LaplaceNLLLoss,
    LogCoshLoss,
    MSELoss,
    QuantileLoss,
    SmoothL1Loss,
    charbonnier_loss,
    ensemble_crps_loss,
    gaussian_crps_loss,
    gaussian_nll_loss,
    huber_loss,
    l1_loss,
    laplace_nll_loss,
    log_cosh_loss,
    mse_loss,
    quantile_loss,
    smooth_l1_loss,
)

__all__ = ["NUMBERS"]

_HAS_A_UNIT = {"scale_invariance": "an option, or the form itself, is a length in their unit"}
_LINEAR = Scaling(lambda i, u: {k: t if k == "weight" else t * u for k, t in i.items()}, degree=1)
_QUADRATIC = Scaling(_LINEAR.by, degree=2)


def _numbers(g: Generator, n: int) -> Inputs:
    return {"prediction": normal(g, n, 3, scale=3), "target": normal(g, n, 3)}


def _outputs(g: Generator, n: int) -> Inputs:
    return {"prediction": normal(g, n, 2, 3, scale=3), "target": normal(g, n, 2)}


def _members(g: Generator, n: int) -> Inputs:
    return {"prediction": normal(g, n, 2, 4, scale=3), "target": normal(g, n, 2)}


def _with(name: str, g: Generator, n: int) -> Inputs:
    """Of a log, as far from 0 as it may be in practice."""
    return {**_numbers(g, n), name: normal(g, n, 3)}


_HARD = grid(
    [0, 0], [1, 1], [1, 1 + 2**-20], [6e4, -6e4], [1e15, 1e15], [1e-20, 0], [1e-30, 3e-30], [0, 1]
)


def _extremes(*shape: int) -> Inputs:
    ones = torch.ones(len(_HARD), *shape, dtype=torch.float64)
    x, t = (v.view(-1, *[1] * len(shape)) for v in _HARD.unbind(1))
    return {"prediction": x * ones, "target": (t * ones)[..., 0] if len(shape) > 1 else t * ones}


def _extremes_with(name: str, high: float) -> Inputs:
    widths = torch.tensor([-high, 0, high, -1], dtype=torch.float64).repeat(2)
    return {**_extremes(3), name: widths.view(-1, 1).expand(-1, 3).clone()}


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    weight = inputs.get("weight", torch.ones_like(inputs["target"]))
    if keep.ndim > weight.ndim:  # of each quantile
        weight = weight.unsqueeze(-1).expand(keep.shape)
    return {**inputs, "weight": weight.masked_fill(~keep, 0)}


def _count(inputs: Inputs, options: Options) -> Tensor | float:
    return inputs["weight"].sum() if "weight" in inputs else inputs["target"].numel()


def _wrong_weights(i: Inputs) -> Inputs:
    return {**i, "weight": torch.ones(1)}


def _row(
    function: Callable[..., Tensor],
    module: Callable[..., nn.Module],
    inputs: Maker,
    cases: Mapping[str, Case],
    *refused: Refused,
    exempt: Mapping[str, str] = NOTHING_FROZEN,
    **more: Any,
) -> Spec:
    more.setdefault("extremes", partial(_extremes, 3))
    more.setdefault("perfect", lambda i, o: ({**i, "prediction": i["target"]}, 0.0))
    more.setdefault("hopeless", lambda i, o: {**i, "prediction": i["target"] + 300})
    scaling = more.get("scaling")
    return Spec(
        name=function.__name__,
        function=function,
        module=module,
        inputs=inputs,
        cases=cases,
        hide=_hide,
        count=more.pop("count", _count),
        refused=(Refused("weights of one", "weight", change=_wrong_weights), *refused),
        exempt={**exempt, **({} if scaling else _HAS_A_UNIT)},
        **more,
    )


_WEIGHTED = with_(_numbers, "weight", "target")


def _plain(**options: Any) -> dict[str, Case]:
    return {"plain": case(), "weighted": case(_WEIGHTED, reduction="sum", **options)}


def _spread_out(i: Inputs, o: Options) -> tuple[Inputs, None]:
    """The best of a likelihood lies where the width is that of the error: anywhere."""
    return {**i, "prediction": i["target"]}, None


def _held(i: Inputs, o: Options) -> Callable[[Tensor], Tensor]:
    """The likelihood times the variance to a power, of which only the former depends on ``x``."""
    beta, s, weight = o.get("beta", 0.0), i["log_variance"], i.get("weight", 1.0)
    constant = math.log(2 * math.pi) / 2 if o.get("full") else 0.0

    def held(x: Tensor) -> Tensor:
        nll = ((x - i["target"]).square() / s.exp() + s) / 2 + constant
        return weight * s.exp() ** beta * nll

    return held


def _far_and_sure(i: Inputs, o: Options) -> Inputs:
    return {**i, "prediction": i["target"] + 30, "log_variance": 0 * i["log_variance"]}


NUMBERS = (
    _row(l1_loss, L1Loss, _numbers, _plain(), scaling=_LINEAR),
    _row(mse_loss, MSELoss, _numbers, _plain(), scaling=_QUADRATIC),
    _row(
        huber_loss,
        HuberLoss,
        _numbers,
        _plain(delta=0.5),
        Refused("no edge", "delta", {"delta": 0.0}),
    ),
    _row(
        smooth_l1_loss,
        SmoothL1Loss,
        _numbers,
        {**_plain(beta=0.5), "absolute": case(beta=0.0)},
        Refused("a negative edge", "beta", {"beta": -1.0}),
    ),
    _row(
        charbonnier_loss,
        CharbonnierLoss,
        _numbers,
        _plain(epsilon=0.1),
        Refused("no bend", "epsilon", {"epsilon": 0.0}),
    ),
    _row(log_cosh_loss, LogCoshLoss, _numbers, _plain()),
    _row(
        quantile_loss,
        QuantileLoss,
        _outputs,
        {
            "quantiles": case(),
            "weighted": case(
                with_(_outputs, "weight", "target"), quantiles=(0.2, 0.7, 0.75), reduction="sum"
            ),
        },
        Refused("descending quantiles", "quantiles", {"quantiles": (0.9, 0.5, 0.1)}),
        Refused("a quantile of 1", "quantiles", {"quantiles": (0.1, 0.5, 1.0)}),
        Refused("a quantile too few", "prediction", {"quantiles": (0.1, 0.5)}),
        perfect=lambda i, o: ({**i, "prediction": i["target"].unsqueeze(-1).repeat(1, 1, 3)}, 0.0),
        hopeless=lambda i, o: {**i, "prediction": i["prediction"] + 1000},
        extremes=partial(_extremes, 2, 3),
        count=lambda i, o: 3 * _count(i, o),
        scaling=_LINEAR,
    ),
    _row(
        gaussian_nll_loss,
        GaussianNLLLoss,
        partial(_with, "log_variance"),
        {
            "likelihood": case(),
            "full, beta": case(
                with_(partial(_with, "log_variance"), "weight", "target"),
                full=True,
                beta=0.5,
                reduction="sum",
            ),
        },
        Refused("a negative beta", "beta", {"beta": -1.0}),
        Refused(
            "a variance per row",
            "log_variance",
            change=lambda i: {**i, "log_variance": i["log_variance"][:, 0]},
        ),
        perfect=_spread_out,
        hopeless=_far_and_sure,
        frozen={"variance**beta": _held},
        exempt={},
        extremes=partial(_extremes_with, "log_variance", 20.0),
    ),
    _row(
        laplace_nll_loss,
        LaplaceNLLLoss,
        partial(_with, "log_scale"),
        {
            "likelihood": case(),
            "weighted": case(
                with_(partial(_with, "log_scale"), "weight", "target"), reduction="sum"
            ),
        },
        perfect=_spread_out,
        extremes=partial(_extremes_with, "log_scale", 20.0),
    ),
    _row(
        gaussian_crps_loss,
        GaussianCRPSLoss,
        partial(_with, "log_variance"),
        {
            "score": case(),
            "weighted": case(
                with_(partial(_with, "log_variance"), "weight", "target"), reduction="sum"
            ),
        },
        perfect=_spread_out,
        extremes=partial(_extremes_with, "log_variance", 60.0),
    ),
    _row(
        ensemble_crps_loss,
        EnsembleCRPSLoss,
        _members,
        {
            "fair": case(),
            "almost": case(with_(_members, "weight", "target"), fair=0.95, reduction="sum"),
            "as it is": case(fair=0.0),
        },
        Refused(
            "a single member",
            "prediction",
            change=lambda i: {**i, "prediction": i["prediction"][..., :1]},
        ),
        Refused("more than fair", "fair", {"fair": 1.5}),
        features=2,
        perfect=lambda i, o: ({**i, "prediction": i["target"].unsqueeze(-1).repeat(1, 1, 4)}, 0.0),
        hopeless=lambda i, o: {**i, "prediction": i["prediction"] + 1000},
        extremes=partial(_extremes, 2, 4),
        scaling=_LINEAR,
    ),
)
