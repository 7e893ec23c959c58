"""Rows of what a dense detector's head is trained with: soft class scores, and distributions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from aptt.audit.spec import Inputs, Options, Refused, Spec, case
from aptt.audit.specs.making import HAS_A_UNIT, NOTHING_FROZEN, grid, normal, uniform, with_
from aptt.loss import (
    DistributionFocalLoss,
    IABCELoss,
    MALLoss,
    QualityFocalLoss,
    VariFocalLoss,
    distribution_focal_loss,
    ia_bce_loss,
    mal_loss,
    quality_focal_loss,
    varifocal_loss,
)

__all__ = ["DENSE"]

_BINS = 6


def _scores(g: Generator, n: int) -> Inputs:
    """One in three is positive."""
    quality = uniform(g, n, 3, low=0.05, high=0.95)
    there = uniform(g, n, 3) < 1 / 3
    return {"logits": normal(g, n, 3, scale=3), "target": torch.where(there, quality, 0.0)}


def _marked_scores(g: Generator, n: int) -> Inputs:
    """Some of the positives have a quality of 0."""
    inputs = _scores(g, n)
    positive = inputs["target"] > 0
    positive.view(-1)[2::4] = True
    return {**inputs, "positive": positive}


def _weighted_scores(g: Generator, n: int) -> Inputs:
    return with_(_scores, "weight", "logits")(g, n)


def _score_extremes() -> Inputs:
    sizes = [6e4, 1e3, 120.0, 88.0, 60.0, 41.0, 39.0, 30.0, 17.0, 12.0, 1.0, 1e-3, 1e-6, 0.0]
    x, quality = grid([*sizes, *(-s for s in sizes)]), grid([0.0, 0.25, 0.5, 0.75, 1.0])
    return {
        "logits": x.T.expand(-1, 5).contiguous(),
        "target": quality.expand(x.numel(), -1).contiguous(),
    }


def _hide_scores(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    if "weight" in inputs:
        return {**inputs, "weight": inputs["weight"].masked_fill(~keep, 0)}
    return {**inputs, "weight": keep}


def _count_scores(inputs: Inputs, options: Options) -> Tensor:
    q = inputs["target"]
    counted = {
        "elements": torch.ones_like(q),
        "positives": inputs.get("positive", q > 0),
        "quality": q,
    }[options.get("normalize", "elements")]
    return (counted * inputs.get("weight", torch.ones_like(q))).sum()


def _perfect_scores(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    q = inputs["target"]
    return {**inputs, "logits": torch.where(q > 0, q.logit(), -1000.0)}, None


def _hopeless_scores(inputs: Inputs, options: Options) -> Inputs:
    return {**inputs, "logits": torch.where(inputs["target"] > 0, -30.0, 30.0)}


def _fade_held(inputs: Inputs, options: Options) -> Callable[[Tensor], Tensor]:
    """Binary cross-entropy times a share, of which the negatives' may be fixed at its value."""
    q = inputs["target"]
    positive, weight = inputs.get("positive", q > 0), inputs.get("weight", torch.ones_like(q))
    alpha, gamma = options.get("alpha", 0.75), options.get("gamma", 2.0)
    fixed = inputs["logits"].detach().sigmoid() ** gamma if options.get("detach_factor") else None

    def held(x: Tensor) -> Tensor:
        fade = x.sigmoid() ** gamma if fixed is None else fixed
        nll = F.binary_cross_entropy_with_logits(x, q, reduction="none")
        return weight * torch.where(positive, q, alpha * fade) * nll

    return held


def _beyond(inputs: Inputs) -> Inputs:
    return {**inputs, "target": inputs["target"] + 1}


def _outside(inputs: Inputs) -> Inputs:
    return {**inputs, "positive": torch.zeros_like(inputs["target"], dtype=torch.bool)}


def _soft_scores(g: Generator, n: int) -> Inputs:
    return {"logits": normal(g, n, 3, scale=3), "target": uniform(g, n, 3, low=0.05, high=0.95)}


_AT_THE_END = {
    "gradient_reaches_all_who_ask": "finite differences of a target at an end of its range leave it"
}


def _varifocal() -> Spec:
    return Spec(
        name="varifocal_loss",
        function=varifocal_loss,
        module=VariFocalLoss,
        inputs=_scores,
        cases={
            "by quality": case(),
            "held, per positive": case(detach_factor=True, normalize="positives"),
            "a mask, per quality": case(_marked_scores, normalize="quality", gamma=1.5),
            "weighted": case(_weighted_scores, alpha=0.5, gamma=0.5, reduction="sum"),
            "weighted, held": case(
                _weighted_scores, detach_factor=True, gamma=0.0, alpha=1.5, normalize="positives"
            ),
            "unreduced": case(reduction="none", normalize="quality"),
        },
        hide=_hide_scores,
        count=_count_scores,
        perfect=_perfect_scores,
        hopeless=_hopeless_scores,
        extremes=_score_extremes,
        frozen={"p**gamma": _fade_held},
        refused=(
            Refused("qualities beyond 1", "target", change=_beyond),
            Refused("qualities of negatives", "positive", change=_outside),
            Refused(
                "a mask of numbers",
                "positive",
                change=lambda i: {**i, "positive": i["target"]},
                error=TypeError,
            ),
            Refused("a negative weight of negatives", "alpha", {"alpha": -0.5}),
            Refused("a negative exponent", "gamma", {"gamma": -1.0}),
            Refused("an unknown count", "normalize", {"normalize": "boxes"}),
        ),
        exempt=HAS_A_UNIT,
    )


def _quality() -> Spec:
    return Spec(
        name="quality_focal_loss",
        function=quality_focal_loss,
        module=QualityFocalLoss,
        inputs=_scores,
        cases={
            "positives and negatives": case(exempt=_AT_THE_END),
            "soft": case(_soft_scores, reduction="sum"),
            "beta 1, per positive": case(beta=1.0, normalize="positives", exempt=_AT_THE_END),
            "beta 0": case(_soft_scores, beta=0.0),
            "weighted, per quality": case(
                _weighted_scores, beta=2.5, normalize="quality", exempt=_AT_THE_END
            ),
            "unreduced": case(beta=3.0, reduction="none", exempt=_AT_THE_END),
        },
        hide=_hide_scores,
        count=_count_scores,
        perfect=_perfect_scores,
        hopeless=_hopeless_scores,
        extremes=_score_extremes,
        refused=(
            Refused("qualities beyond 1", "target", change=_beyond),
            Refused("a power with an infinite slope", "beta", {"beta": 0.5}),
            Refused("a negative power", "beta", {"beta": -1.0}),
            Refused("an unknown count", "normalize", {"normalize": "boxes"}),
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN},
    )


def _shifted_held(inputs: Inputs, options: Options) -> Callable[[Tensor], Tensor]:
    """The same of MAL, whose positives weigh 1 and ask for a power of their quality."""
    q, gamma = inputs["target"], options.get("gamma", 1.5)
    positive, weight = inputs.get("positive", q > 0), inputs.get("weight", torch.ones_like(q))
    p = inputs["logits"].detach().sigmoid()
    fixed = options.get("alpha", 1.0) * p**gamma if options.get("detach_factor") else None

    def held(x: Tensor) -> Tensor:
        fade = options.get("alpha", 1.0) * x.sigmoid() ** gamma if fixed is None else fixed
        asked = torch.where(positive, q**gamma, 0.0)
        nll = F.binary_cross_entropy_with_logits(x, asked, reduction="none")
        return weight * torch.where(positive, 1.0, fade) * nll

    return held


def _mixed_held(inputs: Inputs, options: Options) -> Callable[[Tensor], Tensor]:
    """IoU-aware cross-entropy with the targets as they are now."""
    q, share = inputs["target"], options.get("alpha", 0.25)
    positive, weight = inputs.get("positive", q > 0), inputs.get("weight", torch.ones_like(q))
    t = inputs["logits"].detach().sigmoid() ** share * q ** (1 - share)
    t = torch.where(positive, t.clamp(min=options.get("floor", 0.01)), 0.0)

    def held(x: Tensor) -> Tensor:
        fade = torch.where(positive, 1.0, x.sigmoid() ** options.get("gamma", 2.0))
        return weight * fade * F.binary_cross_entropy_with_logits(x, t, reduction="none")

    return held


def _mal() -> Spec:
    return Spec(
        name="mal_loss",
        function=mal_loss,
        module=MALLoss,
        inputs=_scores,
        cases={
            "by quality": case(),
            "held, per positive": case(detach_factor=True, normalize="positives"),
            "a mask, per quality": case(_marked_scores, normalize="quality", gamma=2.5),
            "weighted": case(_weighted_scores, alpha=0.5, gamma=0.5, reduction="sum"),
            "unreduced": case(reduction="none"),
        },
        hide=_hide_scores,
        count=_count_scores,
        perfect=lambda i, o: (
            {
                **i,
                "logits": torch.where(
                    i["target"] > 0, (i["target"] ** o.get("gamma", 1.5)).logit(), -1000.0
                ),
            },
            None,
        ),
        hopeless=_hopeless_scores,
        extremes=_score_extremes,
        frozen={"p**gamma": _shifted_held},
        refused=(
            Refused("qualities beyond 1", "target", change=_beyond),
            Refused("qualities of negatives", "positive", change=_outside),
            Refused("a negative weight of negatives", "alpha", {"alpha": -0.5}),
            Refused("a negative exponent", "gamma", {"gamma": -1.0}),
            Refused("an unknown count", "normalize", {"normalize": "boxes"}),
        ),
        exempt=HAS_A_UNIT,
    )


def _ia_bce() -> Spec:
    return Spec(
        name="ia_bce_loss",
        function=ia_bce_loss,
        module=IABCELoss,
        inputs=_scores,
        cases={
            "by quality": case(),
            "per positive": case(alpha=0.5, floor=0.2, normalize="positives"),
            "a mask, per quality": case(_marked_scores, normalize="quality", gamma=1.5),
            "weighted": case(_weighted_scores, alpha=0.0, gamma=0.5, reduction="sum"),
            "unreduced": case(reduction="none"),
        },
        hide=_hide_scores,
        count=_count_scores,
        hopeless=_hopeless_scores,
        extremes=_score_extremes,
        frozen={"t": _mixed_held},
        refused=(
            Refused("qualities beyond 1", "target", change=_beyond),
            Refused("qualities of negatives", "positive", change=_outside),
            Refused("more than all of the score", "alpha", {"alpha": 1.5}),
            Refused("a negative exponent", "gamma", {"gamma": -1.0}),
            Refused("a target beyond 1", "floor", {"floor": 2.0}),
            Refused("an unknown count", "normalize", {"normalize": "boxes"}),
        ),
        exempt={
            **HAS_A_UNIT,
            "perfect_is_minimal": "the target moves with the score: at p = q the slope is 0, and "
            "the value is not the least",
        },
    )


def _distances(g: Generator, n: int) -> Inputs:
    """Of the four sides of each box; some are whole numbers, the last bin among them."""
    target = uniform(g, n, 4, high=_BINS - 1)
    target.view(-1)[::7] = target.view(-1)[::7].round()
    target.view(-1)[1::9] = _BINS - 1
    return {"logits": normal(g, n, 4, _BINS, scale=2), "target": target}


def _far_distances(g: Generator, n: int) -> Inputs:
    inputs = _distances(g, n)
    return {**inputs, "target": inputs["target"] * 1.5 - 1.03125}


def _weighted_distances(g: Generator, n: int) -> Inputs:
    return with_(_distances, "weight", "target")(g, n)


def _one_row(g: Generator, n: int) -> Inputs:
    """Of numbers alone, none of them whole: there the slope in the target jumps."""
    target = torch.randint(_BINS - 1, (n,), generator=g) + uniform(g, n, low=0.1, high=0.9)
    return {"logits": normal(g, n, _BINS, scale=2), "target": target}


def _distance_extremes() -> Inputs:
    rows = grid(
        [6e4, -6e4, 0, 0, 0, 6e4],
        [-6e4, -6e4, -6e4, -6e4, -6e4, 6e4],
        [6e4, 6e4, 6e4, 6e4, 6e4, 6e4],
        [0, 0, 0, 0, 0, 0],
        [200, 100, 0, -100, -200, 88],
        [1e-6, -1e-6, 0, 1e-6, 0, 0],
    )
    target = grid([0.0, 0.5, 2.0, 3.25, 4.0, 5.0])
    return {
        "logits": rows.unsqueeze(1).expand(-1, 6, -1).contiguous(),
        "target": target.expand(6, -1).contiguous(),
    }


def _uneven(g: Generator, n: int) -> Inputs:
    """Within and between bins that are not of one size."""
    inputs = _one_row(g, n)
    return {**inputs, "target": uniform(g, n, low=-3.9, high=3.9)}


def _best_uneven(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    values, y = options["values"].to(inputs["target"]), inputs["target"]
    at = (y.unsqueeze(-1) >= values[1:-1]).sum(-1)
    part = (y - values[at]) / (values[at + 1] - values[at])
    return {**inputs, "logits": _around(at + part).log().clamp(min=-1000)}, None


def _uneven_extremes() -> Inputs:
    inputs = _distance_extremes()
    target = grid([-4.0, -1.0, -0.75, 0.0, 2.5, 4.0])
    return {**inputs, "target": target.expand(6, -1).contiguous()}


def _around(target: Tensor) -> Tensor:
    """What each bin should have: the hat function, 1 at the target and 0 from a bin away on."""
    bins = torch.arange(_BINS, dtype=target.dtype, device=target.device)
    return (1 - (target.clamp(0, _BINS - 1).unsqueeze(-1) - bins).abs()).clamp(min=0)


def _distribution() -> Spec:
    return Spec(
        name="distribution_focal_loss",
        function=distribution_focal_loss,
        module=DistributionFocalLoss,
        inputs=_distances,
        cases={
            "sides": case(exempt=_AT_THE_END),
            "beyond the bins": case(_far_distances, out_of_range="clamp", reduction="sum"),
            "weighted, per side": case(
                _weighted_distances, normalize="positives", exempt=_AT_THE_END
            ),
            "weighted": case(_weighted_distances, reduction="none", exempt=_AT_THE_END),
            "one number each": case(_one_row),
            "uneven bins": case(
                _uneven,
                values=torch.tensor([-4.0, -1.0, -0.5, 0.5, 1.0, 4.0], dtype=torch.float64),
                perfect=_best_uneven,
                extremes=_uneven_extremes,
                exempt={"gradient_reaches_all_who_ask": "what bins stand for is no variable"},
            ),
        },
        features=-1,
        hide=_hide_scores,
        count=lambda i, o: (
            i["weight"].sum()
            if "weight" in i and o.get("normalize") != "positives"
            else float(i.get("weight", i["target"]).numel())
        ),
        perfect=lambda i, o: (
            {**i, "logits": _around(i["target"]).log().clamp(min=-1000)},
            None,
        ),
        hopeless=lambda i, o: {
            **i,
            "logits": normal(torch.Generator().manual_seed(1), *i["logits"].shape, scale=0.1)
            - 30 * (_around(i["target"]) > 0),
        },
        extremes=_distance_extremes,
        refused=(
            Refused("a target beyond the last bin", "target", change=_beyond),
            Refused(
                "a target below the first", "target", change=lambda i: {**i, "target": -i["target"]}
            ),
            Refused("no bin", "logits", change=lambda i: {**i, "logits": i["logits"][..., :0]}),
            Refused("an unknown policy", "out_of_range", {"out_of_range": "drop"}),
            Refused("an unknown count", "normalize", {"normalize": "boxes"}),
        ),
        exempt={
            "scale_invariance": "bins are counted: another scale is another bin",
            **NOTHING_FROZEN,
        },
    )


DENSE = (_varifocal(), _quality(), _mal(), _ia_bce(), _distribution())
