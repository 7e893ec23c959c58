"""Rows of the losses of poses: distributions over bins, likelihoods, and means of maps.

SimCC takes a tensor of logits for each coordinate. Its row calls it through a flat form, in which
they are one.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

import aptt.loss
from aptt.audit.spec import Inputs, Options, Refused, Spec, case
from aptt.audit.specs.making import HAS_A_UNIT, NOTHING_FROZEN, indices, normal, uniform, with_
from aptt.core.reduction import Reduction
from aptt.loss import DSNTLoss, RLELoss, dsnt_loss, rle_loss, simcc_targets
from aptt.loss.keypoint.bars import Sigma

__all__ = ["POSES"]

_BINS = (7, 5)
_SIZE = (4, 5)


def simcc_loss(
    logits: Tensor,
    target: Tensor,
    visibility: Tensor,
    *,
    weight: Tensor | None = None,
    split: float = 2.0,
    sigma: Sigma = 6.0,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """:func:`aptt.loss.simcc_loss`; ``logits`` holds those of both coordinates."""
    return aptt.loss.simcc_loss(
        logits.split(_BINS, -1), target, visibility, weight=weight, split=split, sigma=sigma,
        temperature=temperature, reduction=reduction,
    )  # fmt: skip


class SimCCLoss(aptt.loss.SimCCLoss):
    """:class:`aptt.loss.SimCCLoss`; ``logits`` holds those of both coordinates."""

    def forward(  # type: ignore[override] # the audit has one prediction
        self,
        logits: Tensor,
        target: Tensor,
        visibility: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of both coordinates."""
        return super().forward(logits.split(_BINS, -1), target, visibility, weight=weight)


def _seen(g: Generator, n: int, points: int = 3) -> Tensor:
    """Every point of the first sample, and not of the others."""
    visibility = indices(g, 4, n, points) - 1
    visibility[:1] = 2
    return visibility


def _bars(g: Generator, n: int) -> Inputs:
    return {
        "logits": normal(g, n, 3, sum(_BINS), scale=2),
        "target": uniform(g, n, 3, 2, low=-1, high=4),
        "visibility": _seen(g, n),
    }


def _learnt(inputs: Inputs, options: Options) -> tuple[Inputs, float]:
    split, temperature = options.get("split", 2.0), options.get("temperature", 1.0)
    labels = simcc_targets(
        inputs["target"], _BINS, split=split, sigma=options.get("sigma", 6.0)
    )  # fmt: skip
    return {**inputs, "logits": torch.cat(labels, -1).log() * temperature}, 0.0


def _mistaken(inputs: Inputs, options: Options) -> Inputs:
    labels = simcc_targets(inputs["target"], _BINS, split=options.get("split", 2.0), sigma=1.0)
    return {**_all_seen(inputs), "logits": -300 * torch.cat(labels, -1)}


def _all_seen(inputs: Inputs) -> Inputs:
    return {**inputs, "visibility": torch.ones_like(inputs["visibility"])}


def _hard_logits(shape: tuple[int, ...]) -> Tensor:
    """Nothing, anything, and sure of a cell."""
    x = torch.zeros(6, math.prod(shape), dtype=torch.float64)
    x[1, 0], x[2, 0], x[3] = 6e4, -6e4, 1e-6
    x[4, ::2], x[5, -1] = 100.0, 12.0
    return x.view(6, *shape)


def _hard_bars() -> Inputs:
    return {
        "logits": _hard_logits((3, sum(_BINS))),
        "target": torch.tensor([0.0, 1.25, 3.0], dtype=torch.float64).expand(6, 2, 3).mT.clone(),
        "visibility": torch.ones(6, 3),
    }


def _unseen(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    return {**inputs, "visibility": inputs["visibility"].masked_fill(~keep, 0)}


def _unseen_maps(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    return _unseen(inputs, options, keep.all(-1))


def _points(inputs: Inputs, options: Options) -> Tensor:
    seen = (inputs["visibility"] > 0).double()
    return (seen * inputs.get("weight", torch.ones_like(seen))).sum()


# ----------------------------------------------------------------------------------- with widths


def _widths(g: Generator, n: int) -> Inputs:
    target = uniform(g, n, 3, 2, high=50)
    return {
        "prediction": target + normal(g, n, 3, 2, scale=4),
        "target": target,
        "log_scale": normal(g, n, 3, 2) + 1,
        "visibility": _seen(g, n),
    }


def _hard_widths() -> Inputs:
    off = torch.tensor([0, 1e-6, 1, 300, 6e4, -6e4], dtype=torch.float64).view(-1, 1, 1)
    off = off.expand(-1, 3, 2).clone()
    return {
        "prediction": off,
        "target": torch.zeros_like(off),
        "log_scale": torch.tensor([-20.0, 0, 20], dtype=torch.float64).expand(6, 2, 3).mT.clone(),
        "visibility": torch.ones(6, 3),
    }


def heavy(e: Tensor) -> Tensor:
    """A log-density with heavy tails, in place of a flow."""
    return -2 * torch.log1p(e.square().sum(1))


# -------------------------------------------------------------------------------- means of maps


def _maps(g: Generator, n: int) -> Inputs:
    return {
        "logits": normal(g, n, 3, *_SIZE, scale=2),
        "target": uniform(g, n, 3, 2, low=0, high=3),
        "visibility": _seen(g, n),
    }


def _hard_maps() -> Inputs:
    return {
        "logits": _hard_logits((3, *_SIZE)),
        "target": torch.tensor([0.0, 1.25, 3.0], dtype=torch.float64).expand(6, 2, 3).mT.clone(),
        "visibility": torch.ones(6, 3),
    }


def _in_the_middle(inputs: Inputs, options: Options) -> tuple[Inputs, float]:
    """Each target in the middle of its map, where its Gaussian has its mean; of the right width."""
    if options.get("regularizer") == "variance":  # 0.64 on both axes
        across = torch.tensor([0.02, 0.24, 0.48, 0.24, 0.02], dtype=torch.float64).log()
        down = torch.tensor([0.0975, 0.4025, 0.4025, 0.0975], dtype=torch.float64).log()
    else:
        across, down = (
            -(torch.arange(n, dtype=torch.float64) - (n - 1) / 2).square() / 2
            for n in (_SIZE[1], _SIZE[0])
        )
    logits = (down.unsqueeze(1) + across) * options.get("temperature", 1.0)
    middle = torch.tensor([2.0, 1.5], dtype=torch.float64)
    return {
        **inputs,
        "logits": logits.expand_as(inputs["logits"]).to(inputs["logits"].dtype).clone(),
        "target": middle.expand_as(inputs["target"]).to(inputs["target"].dtype).clone(),
    }, 0.0


def _elsewhere(inputs: Inputs, options: Options) -> Inputs:
    """The further a cell is from the target, the likelier."""
    row, column = (torch.arange(n, dtype=torch.float64) for n in _SIZE)
    x, y = inputs["target"].unsqueeze(-1).unsqueeze(-1).unbind(2)
    squared = (column - x).square() + (row.unsqueeze(1) - y).square()
    return {**_all_seen(inputs), "logits": squared.to(inputs["logits"].dtype) / 2}


POSES = (
    Spec(
        name="simcc_loss",
        function=simcc_loss,
        module=SimCCLoss,
        inputs=_bars,
        cases={
            "bins": case(),
            "weighted": case(
                with_(_bars, "weight", "visibility"),
                split=1.5,
                sigma=(2.0, 1.0),
                temperature=0.5,
                reduction="sum",
            ),
        },
        features=2,
        terms=2,
        hide=_unseen,
        count=_points,
        perfect=_learnt,
        least_within=64,
        hopeless=_mistaken,
        extremes=_hard_bars,
        refused=(
            Refused("no bins in a pixel", "split", {"split": 0.0}),
            Refused("no width", "sigma", {"sigma": 0.0}),
            Refused("widths of three coordinates", "sigma", {"sigma": (1.0, 2.0, 3.0)}),
            Refused("a temperature of 0", "temperature", {"temperature": 0.0}),
            Refused(
                "visibility of coordinates",
                "visibility",
                change=lambda i: {**i, "visibility": i["target"]},
            ),
        ),
        exempt={**NOTHING_FROZEN, **HAS_A_UNIT},
    ),
    Spec(
        name="rle_loss",
        function=rle_loss,
        module=RLELoss,
        inputs=_widths,
        cases={
            "laplace": case(),
            "gaussian, weighted": case(
                with_(_widths, "weight", "visibility"),
                distribution="gaussian",
                least_scale=0.01,
                reduction="sum",
            ),
            "with a flow": case(flow=heavy),
        },
        features=2,
        joint=True,
        hide=_unseen,
        count=_points,
        perfect=lambda i, o: ({**i, "prediction": i["target"]}, None),
        hopeless=lambda i, o: {**_all_seen(i), "prediction": i["target"] + 30},
        extremes=_hard_widths,
        refused=(
            Refused("an unknown density", "distribution", {"distribution": "cauchy"}),
            Refused("a scale of 0", "least_scale", {"least_scale": 0.0}),
            Refused("a flow that is none", "flow", {"flow": 1.0}, error=TypeError),
            Refused(
                "a scale per point",
                "log_scale",
                change=lambda i: {**i, "log_scale": i["log_scale"][..., 0]},
            ),
        ),
        exempt={**NOTHING_FROZEN, **HAS_A_UNIT},
    ),
    Spec(
        name="dsnt_loss",
        function=dsnt_loss,
        module=DSNTLoss,
        inputs=_maps,
        cases={
            "js": case(),
            "variance, weighted": case(
                with_(_maps, "weight", "visibility"),
                distance="l1",
                unit="cell",
                regularizer="variance",
                regularizer_weight=0.5,
                sigma=0.8,
                temperature=0.5,
                reduction="sum",
            ),
        },
        features=-1,
        joint=True,
        hide=_unseen_maps,
        count=_points,
        perfect=_in_the_middle,
        least_within=64,
        hopeless=_elsewhere,
        extremes=_hard_maps,
        refused=(
            Refused("an unknown distance", "distance", {"distance": "l3"}),
            Refused("an unknown unit", "unit", {"unit": "pixel"}),
            Refused("an unknown regularizer", "regularizer", {"regularizer": "kl"}),
            Refused("a negative weight", "regularizer_weight", {"regularizer_weight": -1.0}),
            Refused("no width", "sigma", {"sigma": 0.0}),
            Refused("a temperature of 0", "temperature", {"temperature": 0.0}),
            Refused(
                "points in space",
                "target",
                change=lambda i: {**i, "target": i["target"][..., [0, 1, 1]]},
            ),
        ),
        exempt={**NOTHING_FROZEN, **HAS_A_UNIT},
    ),
)
