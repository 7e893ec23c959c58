"""Rows of the losses of points: heat maps, keypoints, and the boxes that CenterNet finds as points.

CenterNet's loss takes dicts, and reduces its terms only whole. Its row calls it through a flat
form: the three maps are one tensor, and unreduced it gives the weighted terms, whose sum is the
loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Generator, Tensor

import aptt.loss
from aptt.audit.spec import Inputs, Options, Refused, Scaling, Spec, case
from aptt.audit.specs.making import (
    HAS_A_UNIT,
    NOTHING_FROZEN,
    grid,
    indices,
    normal,
    uniform,
    with_,
)
from aptt.core.reduction import Reduction
from aptt.loss import (
    AdaptiveWingLoss,
    HeatmapLoss,
    KeypointLoss,
    WingLoss,
    adaptive_wing_loss,
    heatmap_loss,
    keypoint_loss,
    wing_loss,
)

__all__ = ["POINTS"]

_A_JUMP = {
    "gradient_reaches_all_who_ask": "where peaks are read from the target, by being exactly 1, the "
    "loss jumps as a target leaves 1; the prediction's gradient is checked"
}


# -------------------------------------------------------------------------------- heat maps


def _maps(g: Generator, n: int) -> Inputs:
    return {"prediction": normal(g, n, 2, 3, 2, scale=2), "target": _far(g, n, 2, 3, 2)}


def _far(g: Generator, *shape: int) -> Tensor:
    """Targets that are no peaks, and stay none in half precision."""
    return uniform(g, *shape, low=0.1, high=0.9)


def _peaked(g: Generator, n: int) -> Inputs:
    inputs = _maps(g, n)
    inputs["target"].view(-1)[::5] = 1
    inputs["target"].view(-1)[1::5] = 0
    return inputs


def _marked(g: Generator, n: int) -> Inputs:
    inputs = _maps(g, n)
    return {**inputs, "positive": torch.rand(n, 2, 3, 2, generator=g) < 0.2}


def _visible(g: Generator, n: int) -> Inputs:
    visibility = indices(g, 4, n, 2) - 1
    visibility[1::3] = 2
    return {**_maps(g, n), "visibility": visibility}


def _extreme_maps() -> Inputs:
    x = grid([6e4, -6e4, 100, -100, 12, -12, 0, 1e-6, 3, -3]).T
    rows = torch.cat((x, x, x)).view(-1, 1, 1)
    target = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64).repeat_interleave(10)
    return {"prediction": rows, "target": target.view(-1, 1, 1)}


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    weight = inputs.get("weight", torch.ones_like(keep, dtype=torch.float64))
    return {**inputs, "weight": weight.masked_fill(~keep, 0)}


def _peaks(inputs: Inputs) -> Tensor:
    return inputs["positive"] if "positive" in inputs else inputs["target"] == 1


def _count(inputs: Inputs, options: Options) -> Tensor:
    counted = torch.ones_like(inputs["target"])
    if "visibility" in inputs:
        counted = counted * (inputs["visibility"] != 0)[..., None, None]
    if "weight" in inputs:
        counted = counted * inputs["weight"]
    if options.get("kind") == "focal" and options.get("normalize") != "elements":
        counted = counted * _peaks(inputs)
    return counted.sum()


def _perfect(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    if options.get("kind") == "focal":
        return {**inputs, "prediction": 2000.0 * _peaks(inputs) - 1000}, 0.0
    return {**inputs, "prediction": inputs["target"]}, 0.0


def _hopeless(inputs: Inputs, options: Options) -> Inputs:
    if options.get("kind") == "focal":
        return {**inputs, "prediction": 8 - 16.0 * _peaks(inputs)}
    return {**inputs, "prediction": inputs["target"] + 1000}


# -------------------------------------------------------------------------------- keypoints


def _points(g: Generator, n: int, points: int = 17) -> Inputs:
    target = uniform(g, n, points, 2, low=0, high=50)
    visibility = indices(g, 4, n, points) - 1
    visibility[..., 0] = 2
    visibility[3::7] = 0
    return {
        "prediction": target + normal(g, n, points, 2, scale=4),
        "target": target,
        "visibility": visibility,
        "area": uniform(g, n, low=2000, high=6000),
    }


def _three(g: Generator, n: int) -> Inputs:
    return _points(g, n, 3)


def _extreme_points() -> Inputs:
    off = grid([0, 0], [1e-6, 0], [1, 1], [300, 0], [6e4, -6e4], [0, 1e4]).unsqueeze(1)
    off = torch.cat((off, off, off)).repeat(1, 17, 1)
    off[:, 1::2] = 0
    return {
        "prediction": off,
        "target": torch.zeros_like(off),
        "visibility": torch.full(off.shape[:2], 2),
        "area": torch.tensor([1.0, 1e-3, 6e4], dtype=torch.float64).repeat_interleave(6),
    }


def _unseen(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    return {**inputs, "visibility": inputs["visibility"].masked_fill(~keep, 0)}


def _instances(inputs: Inputs, options: Options) -> Tensor:
    seen = (inputs["visibility"] > 0).any(-1).double()
    return (seen * inputs.get("weight", torch.ones_like(seen))).sum()


def _in_other_units(inputs: Inputs, unit: float) -> Inputs:
    powers = {"prediction": 1, "target": 1, "area": 2}
    return {k: t * unit ** powers[k] if k in powers else t for k, t in inputs.items()}


# ------------------------------------------------------------------------------------- wing


def _coordinates(g: Generator, n: int) -> Inputs:
    return {"prediction": normal(g, n, 3, scale=8), "target": normal(g, n, 3)}


def _values(g: Generator, n: int) -> Inputs:
    return {"prediction": normal(g, n, 3), "target": uniform(g, n, 3, low=0.05, high=0.95)}


def _extreme_values() -> Inputs:
    x = grid([0, 0], [0, 1], [1, 0], [1, 1], [1e-6, 0], [6e4, 1], [-6e4, 0], [1e30, 0.5])
    return {"prediction": x[:, :1].expand(-1, 3).clone(), "target": x[:, 1:].expand(-1, 3).clone()}


def _all(inputs: Inputs, options: Options) -> Tensor | float:
    return inputs["weight"].sum() if "weight" in inputs else inputs["target"].numel()


# -------------------------------------------------------------------------------- CenterNet

_CLASSES, _OBJECTS, _SIZE = 2, 3, (3, 4)


def _packed(
    hm: Tensor,
    target_hm: Tensor,
    target_wh: Tensor,
    target_reg: Tensor,
    ind: Tensor,
    mask: Tensor,
    weight: Tensor | None,
    positive: Tensor | None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    targets = {"hm": target_hm, "wh": target_wh, "reg": target_reg, "ind": ind, "mask": mask}
    targets |= {} if weight is None else {"weight": weight}
    targets |= {} if positive is None else {"positive": positive}
    return {"hm": hm[:, :-4], "wh": hm[:, -4:-2], "reg": hm[:, -2:]}, targets


def _weighted_terms(
    both: tuple[Mapping[str, Tensor], Mapping[str, Tensor]], options: dict[str, Any]
) -> Tensor:
    weights = {term: options.pop(f"{term}_weight") for term in ("hm", "wh", "reg")}
    terms = aptt.loss.centernet_terms(*both, **{**options, "reduction": "sum"})
    return torch.stack([weights[term] * terms[term] for term in ("hm", "wh", "reg")])


def centernet_loss(
    hm: Tensor,
    target_hm: Tensor,
    target_wh: Tensor,
    target_reg: Tensor,
    ind: Tensor,
    mask: Tensor,
    *,
    weight: Tensor | None = None,
    positive: Tensor | None = None,
    hm_weight: float = 1.0,
    wh_weight: float = 0.1,
    reg_weight: float = 1.0,
    alpha: float = 2.0,
    beta: float = 4.0,
    normalize: Literal["coordinates", "objects"] = "coordinates",
    reduction: Reduction = "mean",
) -> Tensor:
    """:func:`aptt.loss.centernet_loss`; ``hm`` holds the maps of hm, wh and reg."""
    options: dict[str, Any] = {
        "hm_weight": hm_weight, "wh_weight": wh_weight, "reg_weight": reg_weight,
        "alpha": alpha, "beta": beta, "normalize": normalize, "reduction": reduction,
    }  # fmt: skip
    both = _packed(hm, target_hm, target_wh, target_reg, ind, mask, weight, positive)
    if reduction == "none":
        return _weighted_terms(both, options)
    return aptt.loss.centernet_loss(*both, **options)


class CenterNetLoss(aptt.loss.CenterNetLoss):
    """:class:`aptt.loss.CenterNetLoss`; ``hm`` holds the maps of hm, wh and reg."""

    def forward(  # type: ignore[override] # the audit has one prediction
        self,
        hm: Tensor,
        target_hm: Tensor,
        target_wh: Tensor,
        target_reg: Tensor,
        ind: Tensor,
        mask: Tensor,
        *,
        weight: Tensor | None = None,
        positive: Tensor | None = None,
    ) -> Tensor:
        """The loss of the three maps."""
        both = _packed(hm, target_hm, target_wh, target_reg, ind, mask, weight, positive)
        return super().forward(*both)


def _objects(g: Generator, n: int) -> Inputs:
    """Objects in cells of their own, the last of each image padding."""
    cells = _SIZE[0] * _SIZE[1]
    ind = torch.rand(n, cells, generator=g).argsort(1)[:, :_OBJECTS]
    mask = torch.ones(n, _OBJECTS, dtype=torch.bool)
    mask[1:, -1] = False
    label = indices(g, _CLASSES, n, _OBJECTS)
    positive = torch.zeros(n, _CLASSES * cells, dtype=torch.bool)
    positive.scatter_(1, label * cells + ind, mask)
    return {
        "hm": normal(g, n, _CLASSES + 4, *_SIZE, scale=2),
        "target_hm": _far(g, n, _CLASSES, *_SIZE),
        "target_wh": uniform(g, n, _OBJECTS, 2, low=1, high=9),
        "target_reg": uniform(g, n, _OBJECTS, 2),
        "ind": ind,
        "mask": mask,
        "positive": positive.view(n, _CLASSES, *_SIZE),
    }


def _published(g: Generator, n: int) -> Inputs:
    inputs = _objects(g, n)
    positive = inputs.pop("positive")
    return {**inputs, "target_hm": inputs["target_hm"].masked_fill(positive, 1)}


def _weighted_objects(g: Generator, n: int) -> Inputs:
    inputs = with_(_objects, "weight", "target_hm")(g, n)
    return {**inputs, "mask": uniform(g, n, _OBJECTS, low=0.5, high=2)}


def _extreme_objects() -> Inputs:
    inputs = _objects(torch.Generator().manual_seed(4), 8)
    inputs["hm"].view(-1)[:] = torch.tensor([6e4, -6e4, 100, -100, 12, -12, 0, 1e-6]).repeat(72)
    return inputs


def _hide_images(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    weight = inputs.get("weight", torch.ones_like(inputs["target_hm"]))
    gone = ~keep.flatten(1).any(1)
    return {
        **inputs,
        "target_hm": inputs["target_hm"].masked_fill(~keep.unsqueeze(1), torch.nan),
        "target_wh": inputs["target_wh"].masked_fill(gone[:, None, None], torch.nan),
        "weight": weight.masked_fill(~keep.unsqueeze(1), 0),
        "mask": inputs["mask"].masked_fill(gone[:, None], 0),
    }


def _found(inputs: Inputs, hm: Tensor, off: float) -> Inputs:
    """Every object with its size and offset, or so far off."""
    n, _, height, width = inputs["hm"].shape
    maps = torch.zeros_like(inputs["hm"][:, -4:]).flatten(2)
    both = torch.cat((inputs["target_wh"], inputs["target_reg"]), 2).transpose(1, 2)
    maps.scatter_(2, inputs["ind"].unsqueeze(1).expand_as(both), both + off)
    return {**inputs, "hm": torch.cat((hm, maps.view(n, 4, height, width)), 1)}


def _peaks_of(inputs: Inputs) -> Tensor:
    return inputs["positive"] if "positive" in inputs else inputs["target_hm"] == 1


_BY_TERM = {
    "counts_what_it_says": "three terms have a count each; tests/loss/test_centernet.py checks them"
}


POINTS = (
    Spec(
        name="heatmap_loss",
        function=heatmap_loss,
        module=HeatmapLoss,
        inputs=_maps,
        cases={
            "mse": case(),
            "mse, visible": case(_visible),
            "awing, weighted": case(with_(_maps, "weight", "target"), kind="awing"),
            "focal": case(_peaked, extremes=_extreme_maps, kind="focal", exempt=_A_JUMP),
            "focal, marked": case(_marked, kind="focal", alpha=1.5, beta=3.0, reduction="sum"),
            "focal, marked and weighted": case(
                with_(_marked, "weight", "target"), kind="focal", normalize="elements"
            ),
        },
        hide=_hide,
        count=_count,
        perfect=_perfect,
        hopeless=_hopeless,
        extremes=_extreme_maps,
        refused=(
            Refused("an unknown kind", "kind", {"kind": "bce"}),
            Refused("peaks of squared errors", "normalize", {"normalize": "positives"}),
            Refused("a negative exponent", "beta", {"beta": -1.0}),
            Refused(
                "a target above 1",
                "target",
                {"kind": "focal"},
                lambda i: {**i, "target": i["target"] + 1},
            ),
            Refused(
                "a mask of numbers",
                "positive",
                {"kind": "focal"},
                lambda i: {**i, "positive": i["target"]},
                error=TypeError,
            ),
            Refused(
                "a mask of peaks for squared errors",
                "positive",
                change=lambda i: {**i, "positive": i["target"] > 0.5},
            ),
            Refused(
                "visibility of one map",
                "visibility",
                change=lambda i: {**i, "visibility": torch.ones(1, 1)},
            ),
        ),
        exempt={**NOTHING_FROZEN, **HAS_A_UNIT},
    ),
    Spec(
        name="keypoint_loss",
        function=keypoint_loss,
        module=KeypointLoss,
        inputs=_points,
        cases={
            "oks": case(
                exempt={
                    "hopeless_keeps_a_gradient": "1 - OKS is flat far away by definition; "
                    "kind='cauchy' is for that, and keeps the promise"
                }
            ),
            "log": case(kind="log", area_scale=0.53),
            "cauchy, weighted": case(
                with_(with_(_three, "weight", "area"), "point_weight", "visibility"),
                sigmas=torch.tensor([0.05, 0.1, 0.07]),
                kind="cauchy",
                reduction="sum",
            ),
        },
        features=2,
        joint=True,
        hide=_unseen,
        count=_instances,
        perfect=lambda i, o: ({**i, "prediction": i["target"]}, 0.0),
        hopeless=lambda i, o: {
            **i,
            "prediction": i["target"] + 300,
            "visibility": torch.full_like(i["visibility"], 2),
        },
        extremes=_extreme_points,
        scaling=Scaling(_in_other_units),
        refused=(
            Refused("an unknown skeleton", "sigmas", {"sigmas": "octopus"}),
            Refused("sigmas of another skeleton", "sigmas", {"sigmas": "crowdpose"}),
            Refused("sigmas of another length", "sigmas", {"sigmas": torch.ones(3)}),
            Refused("a sigma of 0", "sigmas", {"sigmas": 0.0}),
            Refused("an unknown kind", "kind", {"kind": "square"}),
            Refused("no area at all", "area_scale", {"area_scale": 0.0}),
            Refused("an area of 0", "area", change=lambda i: {**i, "area": 0 * i["area"]}),
            Refused(
                "visibility of coordinates",
                "visibility",
                change=lambda i: {**i, "visibility": i["prediction"]},
            ),
        ),
        exempt=NOTHING_FROZEN,
    ),
    Spec(
        name="wing_loss",
        function=wing_loss,
        module=WingLoss,
        inputs=_coordinates,
        cases={
            "wing": case(),
            "weighted": case(
                with_(_coordinates, "weight", "target"), width=5.0, epsilon=0.5, reduction="sum"
            ),
        },
        hide=_hide,
        count=_all,
        perfect=lambda i, o: ({**i, "prediction": i["target"]}, 0.0),
        hopeless=lambda i, o: {**i, "prediction": i["target"] + 1000},
        extremes=_extreme_values,
        bound=lambda i: torch.full_like(i["prediction"], 5 * (1 + 1e-12)),
        refused=(
            Refused("no width", "width", {"width": 0.0}),
            Refused("no bend", "epsilon", {"epsilon": 0.0}),
        ),
        exempt={**NOTHING_FROZEN, "scale_invariance": "width is a length, in pixels"},
    ),
    Spec(
        name="adaptive_wing_loss",
        function=adaptive_wing_loss,
        module=AdaptiveWingLoss,
        inputs=_values,
        cases={
            "adaptive wing": case(),
            "weighted": case(
                with_(_values, "weight", "target"),
                alpha=2.5,
                omega=10.0,
                epsilon=0.8,
                theta=0.7,
                reduction="sum",
            ),
        },
        hide=_hide,
        count=_all,
        perfect=lambda i, o: ({**i, "prediction": i["target"]}, 0.0),
        hopeless=lambda i, o: {**i, "prediction": i["target"] + 1000},
        extremes=_extreme_values,
        refused=(
            Refused("an exponent that can fall below 1", "alpha", {"alpha": 1.5}),
            Refused("no scale", "omega", {"omega": 0.0}),
            Refused("no bend", "epsilon", {"epsilon": 0.0}),
            Refused("no inner part", "theta", {"theta": 0.0}),
            Refused(
                "a target above 1", "target", change=lambda i: {**i, "target": i["target"] + 1}
            ),
        ),
        exempt={**NOTHING_FROZEN, **HAS_A_UNIT},
    ),
    Spec(
        name="centernet_loss",
        function=centernet_loss,
        module=CenterNetLoss,
        inputs=_objects,
        cases={
            "marked": case(),
            "published": case(_published, exempt=_A_JUMP),
            "by object": case(normalize="objects"),
            "weighted": case(
                _weighted_objects,
                hm_weight=0.5,
                wh_weight=0.3,
                reg_weight=2.0,
                alpha=1.5,
                beta=3.0,
                reduction="sum",
            ),
        },
        features=1,
        joint=True,
        hide=_hide_images,
        perfect=lambda i, o: (_found(i, 2000.0 * _peaks_of(i) - 1000, 0.0), 0.0),
        hopeless=lambda i, o: _found(i, 8 - 16.0 * _peaks_of(i), 100.0),
        extremes=_extreme_objects,
        refused=(
            Refused("a negative weight", "wh_weight", {"wh_weight": -1.0}),
            Refused("an unknown count", "normalize", {"normalize": "images"}),
            Refused("a cell out of range", "ind", change=lambda i: {**i, "ind": i["ind"] + 12}),
            Refused(
                "objects without a peak",
                "hm",
                change=lambda i: {k: t for k, t in i.items() if k != "positive"},
            ),
            Refused(
                "sizes of one coordinate",
                "wh",
                change=lambda i: {**i, "target_wh": i["target_wh"][..., :1]},
            ),
        ),
        exempt={**NOTHING_FROZEN, **HAS_A_UNIT, **_BY_TERM},
    ),
)
