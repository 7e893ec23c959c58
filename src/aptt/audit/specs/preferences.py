"""Rows of the losses of preferences between answers, by their scores."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from aptt.audit.spec import Inputs, Options, Refused, Spec, case
from aptt.audit.specs.making import NOTHING_FROZEN, grid, normal, uniform, with_
from aptt.loss import (
    DPOLoss,
    KTOLoss,
    ORPOLoss,
    SimPOLoss,
    dpo_loss,
    kto_loss,
    orpo_loss,
    simpo_loss,
)

__all__ = ["PREFERENCES"]

_T = 5  # scores in a sample
_NO_BEST = {
    "perfect_is_minimal": "the further the chosen answer leads, the better, without end",
    "near_perfect_keeps_digits": "there is no perfect prediction to be near to",
}
_UNIT = {"scale_invariance": "log-probabilities have a unit of their own"}
_SATURATES = {
    "hopeless_keeps_a_gradient": "bounded by definition: far on the wrong side the slope fades"
}


def _pairs(g: Generator, n: int) -> Inputs:
    return {"chosen": normal(g, n, _T, scale=8), "rejected": normal(g, n, _T, scale=8)}


def _referred(g: Generator, n: int) -> Inputs:
    references = {name: normal(g, n, _T, scale=8) for name in _REFERENCES}
    return with_(_pairs, "weight", "chosen")(g, n) | references


_REFERENCES = ("reference_chosen", "reference_rejected")


def _margins(g: Generator, n: int) -> Inputs:
    return _pairs(g, n) | {"pair_margin": normal(g, n, _T)}


def _averages(g: Generator, n: int) -> Inputs:
    """Of likely tokens and of unlikely ones."""
    return {name: -uniform(g, n, _T, low=0.05, high=5) for name in ("chosen", "rejected")}


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    weight = inputs.get("weight", torch.ones_like(keep, dtype=torch.float64))
    return {**inputs, "weight": weight.masked_fill(~keep, 0)}


def _count(inputs: Inputs, options: Options) -> Tensor | float:
    first = next(iter(inputs.values()))
    return inputs["weight"].sum() if "weight" in inputs else first.numel()


def _behind(inputs: Inputs, options: Options) -> Inputs:
    """The rejected answer is 30 ahead, of what is weighed and scaled."""
    made = {k: t for k, t in inputs.items() if k not in _REFERENCES}
    far = 30.0
    return {**made, "chosen": made["rejected"] - far}


def _far_apart() -> Inputs:
    x = grid([0, 0], [1e4, -1e4], [-1e4, 1e4], [6e4, 6e4], [-1e-4, 0], [-1000, -1001], [3, -3])
    return {"chosen": x[:, :1].expand(-1, _T).clone(), "rejected": x[:, 1:].expand(-1, _T).clone()}


def _certain() -> Inputs:
    """Averages at 0 and close to it, and far below."""
    x = -grid(
        [0, 1], [2.0**-25, 1], [2e-8, 1], [1e-4, 1e-4], [1, 1], [300, 1], [1, 300], [300, 300],
        [1e4, 2], [2, 1e4], [5e-3, 12], [1e-30, 3], [2e-8, 5e-8], [1e-6, 1e-7],
    )  # fmt: skip
    return {"chosen": x[:, :1].expand(-1, _T).clone(), "rejected": x[:, 1:].expand(-1, _T).clone()}


_BROADCASTS = Refused(
    "weights of one", "weight", change=lambda i: {**i, "weight": torch.ones(1).double()}
)


def _answers(g: Generator, n: int) -> Inputs:
    good = torch.rand(n, _T, generator=g) < 0.5
    return {"score": normal(g, n, _T, scale=8), "desirable": good}


def _judged(g: Generator, n: int) -> Inputs:
    made = with_(_answers, "weight", "score")(g, n)
    return {**made, "reference_score": normal(g, n, _T, scale=8)}


def _mismatched(g: Generator, n: int) -> Inputs:
    return _answers(g, n) | {"mismatched": normal(g, n, _T) + 2}


def _count_answers(inputs: Inputs, options: Options) -> Tensor | float:
    return inputs["weight"].sum() if "weight" in inputs else inputs["score"].numel()


def _answer_extremes() -> Inputs:
    x = grid([0], [1e4], [-1e4], [6e4], [1e-4], [-1000], [3]).expand(-1, _T).clone()
    good = (torch.arange(x.numel()).view(x.shape) % 2) == 0
    return {"score": x, "desirable": good}


def _doubled(sums: Tensor) -> Tensor:
    """As where another rank has no gain, and as many answers."""
    return torch.stack((sums[0], 2 * sums[1]))


_Z0 = "its baseline z0 is one statistic of the batch; tests/loss/test_preference.py holds it"
_OF_THE_BATCH = {
    "ignoring_is_removing": _Z0,
    "samples_stand_alone": _Z0,
    "gradient_reaches_all_who_ask": "z0 is a constant by definition",
    "size_changes_nothing": _Z0,
}


PREFERENCES = (
    Spec(
        name="dpo_loss",
        function=dpo_loss,
        module=DPOLoss,
        inputs=_pairs,
        cases={
            "sigmoid": case(),
            "referred": case(_referred, beta=0.5, label_smoothing=0.2),
            "robust": case(kind="robust", label_smoothing=0.1, reduction="sum"),
            "hinge": case(kind="hinge", margin=0.3),
            "ipo": case(_margins, kind="ipo", beta=0.3, reduction="none"),
            "margins": case(_margins, beta=1.0, margin=-0.5),
        },
        hide=_hide,
        count=_count,
        hopeless=_behind,
        extremes=_far_apart,
        refused=(
            _BROADCASTS,
            Refused("an unknown kind", "kind", {"kind": "exo"}),
            Refused("no beta", "beta", {"beta": 0.0}),
            Refused("a smoothing above 1", "label_smoothing", {"label_smoothing": 1.5}),
            Refused(
                "half of the labels wrong",
                "label_smoothing",
                {"kind": "robust", "label_smoothing": 0.5},
            ),
            Refused(
                "a smoothing of a hinge",
                "label_smoothing",
                {"kind": "hinge", "label_smoothing": 0.1},
            ),
            Refused("tensors per token", "per_token", {"per_token": True}, exercises=True),
            Refused(
                "one reference alone",
                "reference_rejected",
                change=lambda i: {**i, "reference_chosen": i["chosen"]},
            ),
        ),
        exempt={**NOTHING_FROZEN, **_UNIT, **_NO_BEST},
    ),
    Spec(
        name="simpo_loss",
        function=simpo_loss,
        module=SimPOLoss,
        inputs=_pairs,
        cases={
            "plain": case(),
            "weighted": case(
                with_(_pairs, "weight", "chosen"), beta=2.5, margin=1.375, label_smoothing=0.1
            ),
            "each": case(beta=0.7, reduction="none"),
        },
        hide=_hide,
        count=_count,
        hopeless=_behind,
        extremes=_far_apart,
        refused=(
            _BROADCASTS,
            Refused("no beta", "beta", {"beta": -1.0}),
            Refused("a margin without end", "margin", {"margin": float("inf")}),
            Refused("a smoothing above 1", "label_smoothing", {"label_smoothing": 1.5}),
        ),
        exempt={**NOTHING_FROZEN, **_UNIT, **_NO_BEST},
    ),
    Spec(
        name="orpo_loss",
        function=orpo_loss,
        module=ORPOLoss,
        inputs=_averages,
        cases={
            "plain": case(),
            "weighted": case(with_(_averages, "weight", "chosen"), odds_weight=2.0),
            "sum": case(odds_weight=0.5, reduction="sum"),
        },
        composite=True,
        joint=True,
        reductions=("mean", "sum"),
        hide=_hide,
        count=lambda i, o: {
            "nll": torch.as_tensor(_count(i, o)),
            "odds": torch.as_tensor(_count(i, o)),
        },
        hopeless=_behind,
        extremes=_certain,
        refused=(
            _BROADCASTS,
            Refused("a negative weight", "odds_weight", {"odds_weight": -1.0}),
            Refused(
                "costs for log-probabilities",
                "chosen",
                change=lambda i: {**i, "chosen": -i["chosen"]},
            ),
        ),
        exempt={
            **NOTHING_FROZEN,
            **_UNIT,
            **_NO_BEST,
            "none_sums_to_sum": "terms with counts of their own have no values to sum",
        },
    ),
    Spec(
        name="kto_loss",
        function=kto_loss,
        module=KTOLoss,
        inputs=_answers,
        cases={
            "baseline": case(baseline=0.5),
            "weighted": case(
                _judged, baseline=0.0, desirable_weight=1.3, undesirable_weight=0.7, beta=0.4
            ),
            "mismatched": case(_mismatched, reduction="none", exempt=_OF_THE_BATCH),
            "pooled": case(_mismatched, pool=_doubled, reduction="sum", exempt=_OF_THE_BATCH),
        },
        hide=_hide,
        count=_count_answers,
        extremes=_answer_extremes,
        refused=(
            _BROADCASTS,
            Refused("an unknown pool", "pool", {"pool": "sample"}),
            Refused("no baseline", "baseline", {"baseline": None}),
            Refused("a negative weight", "desirable_weight", {"desirable_weight": -1.0}),
            Refused("a negative weight", "undesirable_weight", {"undesirable_weight": -1.0}),
            Refused(
                "numbers for an answer",
                "desirable",
                change=lambda i: {**i, "desirable": i["desirable"].double()},
                error=TypeError,
            ),
        ),
        exempt={**NOTHING_FROZEN, **_UNIT, **_NO_BEST, **_SATURATES, "split_invariance": _Z0},
    ),
)
