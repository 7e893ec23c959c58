"""Rows of the losses of policies, of log-probabilities of sampled tokens."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from aptt.audit.spec import Inputs, Maker, Options, Refused, Spec, case
from aptt.audit.specs.making import NOTHING_FROZEN, grid, indices, normal, uniform, with_
from aptt.loss import KLPenaltyLoss, PolicyLoss, kl_penalty_loss, policy_loss

__all__ = ["POLICIES"]

_T = 5  # tokens in a row
_EXEMPT = {
    "scale_invariance": "log-probabilities have a unit of their own",
    "perfect_is_minimal": "an objective of sampled answers, without a least value",
    "near_perfect_keeps_digits": "there is no perfect prediction to be near to",
}
_CONSTANTS = {"gradient_reaches_all_who_ask": "old_log_prob, advantage, importance are constants"}


def _sampled(g: Generator, n: int) -> Inputs:
    old = -uniform(g, n, _T, low=0.1, high=4)
    return {
        "log_prob": old + normal(g, n, _T, scale=0.3),
        "old_log_prob": old,
        "advantage": normal(g, n) + 0.7,
    }


def _masked(make: Maker) -> Maker:
    def made(g: Generator, n: int) -> Inputs:
        inputs = make(g, n)
        mask = torch.rand(inputs["log_prob"].shape, generator=g) < 0.7
        return {**inputs, "mask": mask}

    return made


def _each(g: Generator, n: int) -> Inputs:
    """An advantage for each token."""
    return {**_sampled(g, n), "advantage": normal(g, n, _T) + 0.7}


def _packed(g: Generator, n: int) -> Inputs:
    """Tokens of three sequences in disorder, and of none."""
    old = -uniform(g, n, low=0.1, high=4)
    return {
        "log_prob": old + normal(g, n, scale=0.3),
        "old_log_prob": old,
        "advantage": normal(g, n),
        "sequence_ids": indices(g, 4, n) - 1,
    }


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    mask = inputs.get("mask", torch.ones_like(keep))
    return {**inputs, "mask": mask & keep}


def _count(inputs: Inputs, options: Options) -> Tensor:
    mask = inputs.get("mask", torch.ones_like(inputs["log_prob"], dtype=torch.bool))
    ids = inputs.get("sequence_ids")
    if ids is not None:
        mask = mask & (ids >= 0)
    if options.get("average", "token") == "token":
        return mask.sum()
    return mask.any(-1).sum() if ids is None else torch.tensor(len(ids[mask].unique()))


def _too_likely(inputs: Inputs, options: Options) -> Inputs:
    """What was worse than expected has become more likely."""
    made = {k: t for k, t in inputs.items() if k != "mask"}
    return {
        **made,
        "log_prob": inputs["old_log_prob"] + 0.1,
        "advantage": torch.full_like(inputs["advantage"], -3.0),
    }


def _ratios() -> Inputs:
    """Log-ratios of either sign, up to 100, with advantages of either sign."""
    x = grid(*([a, b] for a in (0, 1e-4, -1e-4, 1, -1, 30, -30, 100, -100) for b in (1, -1, 0)))
    old = torch.full((len(x), _T), -2.0).double()
    return {"log_prob": old + x[:, :1], "old_log_prob": old, "advantage": x[:, 1].clone()}


def _free(inputs: Inputs) -> Tensor:
    """Where the ratio is on the side that no edge holds, if there is an advantage."""
    log_ratio = inputs["log_prob"] - inputs["old_log_prob"]
    advantage = inputs["advantage"].view(-1, *[1] * (log_ratio.ndim - 1))
    return ((advantage > 0) & (log_ratio <= 0)) | ((advantage < 0) & (log_ratio >= 0))


_REFUSED = (
    Refused(
        "a mask of numbers", "mask", change=lambda i: {**i, "mask": i["log_prob"]}, error=TypeError
    ),
    Refused("an unknown average", "average", {"average": "batch"}),
    Refused("no length", "nominal_length", {"average": "constant"}),
    Refused("a length that has no use", "nominal_length", {"nominal_length": 8}),
    Refused(
        "weights of packed tokens",
        "sequence_ids",
        change=lambda i: {**i, "sequence_ids": torch.arange(3)},
    ),
)
_ALONE = {
    "streamed_equals_plain": "tokens of a pack are walked as those of rows are",
    "hopeless_keeps_a_gradient": "tokens of a pack are no rows to look at one by one",
}
_JOINT = {
    **_ALONE,
    "samples_stand_alone": "tokens of one sequence lie in several samples",
    "split_invariance": "a sequence that is cut is not the same sequence",
}


_HELD = {
    "gradient_is_right": "the ratio is a constant: tests/loss/test_policy.py holds it",
    "double_backward": "the gradient is a constant, and has none",
    "hopeless_keeps_a_gradient": "its value is no objective, and falls where the policy improves",
}


_TOKENS = Spec(
    name="policy_loss",
    function=policy_loss,
    module=PolicyLoss,
    inputs=_sampled,
    cases={
        "tokens": case(),
        "dual": case(
            with_(_masked(_each), "importance", "log_prob"),
            clip_low=0.1,
            clip_high=0.28,
            dual_clip=1.25,
        ),
        "constant": case(_masked(_sampled), average="constant", nominal_length=8, reduction="sum"),
        "each": case(_each, reduction="none"),
        "packed": case(_packed, reduction="none", exempt=_ALONE),
        "cispo": case(with_(_each, "importance", "log_prob"), kind="cispo", cap=1.1, exempt=_HELD),
        "gspo": case(
            ratio="sequence",
            average="sequence",
            clip_high=0.1,
            exempt={"ignoring_is_removing": "a token has a part in the ratio of the others"},
        ),
    },
    hide=_hide,
    count=_count,
    hopeless=_too_likely,
    extremes=_ratios,
    alive=_free,
    refused=(
        *_REFUSED,
        Refused("an unknown kind", "kind", {"kind": "ppo"}),
        Refused("a ratio below 0", "clip_low", {"clip_low": 1.5}),
        Refused("an edge below 1", "clip_high", {"clip_high": -0.1}),
        Refused("a dual clip below 1", "dual_clip", {"dual_clip": 0.9}),
        Refused("no cap", "cap", {"cap": 0.0}),
        Refused("an unknown ratio", "ratio", {"ratio": "batch"}),
        Refused("sequences by tokens", "average", {"ratio": "sequence"}),
        Refused(
            "a kind without it",
            "ratio",
            {"kind": "cispo", "ratio": "sequence", "average": "sequence"},
        ),
    ),
    exempt={**_EXEMPT, **_CONSTANTS, **NOTHING_FROZEN},
)


def _refer(inputs: Inputs) -> Inputs:
    kept = {k: t for k, t in inputs.items() if k not in ("old_log_prob", "advantage")}
    x = kept.pop("log_prob")
    return {"log_prob": x, "reference_log_prob": inputs["old_log_prob"], **kept}


def _off(inputs: Inputs) -> Inputs:
    made = _refer(inputs)
    return {**made, "old_log_prob": made["log_prob"] + made["reference_log_prob"].cos() / 3}


def _far_from_it(g: Generator, n: int) -> Inputs:
    """Differences of one sign, whose sum is not all rounding."""
    made = _refer(_sampled(g, n))
    return {**made, "log_prob": made["log_prob"] + 2}


def _strayed(inputs: Inputs, options: Options) -> Inputs:
    x = inputs["reference_log_prob"] + (3 if options.get("kind") == "k1" else -3)
    return {**inputs, "log_prob": x} | ({"old_log_prob": x} if "old_log_prob" in inputs else {})


POLICIES = (
    _TOKENS,
    replace(
        _TOKENS,
        name="policy_loss (sequences)",
        cases={
            "mean of means": case(_masked(_sampled), average="sequence"),
            "gspo": case(
                ratio="sequence", average="sequence", clip_low=0.1, clip_high=0.2, reduction="none"
            ),
            "packed": case(_packed, average="sequence", exempt=_JOINT),
            "packed, gspo": case(
                _packed, ratio="sequence", average="sequence", dual_clip=3.0, exempt=_JOINT
            ),
        },
        joint=True,
        refused=_REFUSED[:1],
        exempt={**_TOKENS.exempt, "every_option_is_exercised": "the other rows set the others"},
    ),
    Spec(
        name="kl_penalty_loss",
        function=kl_penalty_loss,
        module=KLPenaltyLoss,
        inputs=lambda g, n: _refer(_sampled(g, n)),
        cases={
            "k3": case(),
            "k1": case(_far_from_it, kind="k1", reduction="sum"),
            "k2": case(
                _masked(lambda g, n: _refer(_sampled(g, n))),
                kind="k2",
                average="constant",
                nominal_length=4,
            ),
            "off policy": case(lambda g, n: _off(_sampled(g, n)), reduction="none"),
            "packed": case(lambda g, n: _refer(_packed(g, n)), kind="k2", exempt=_ALONE),
        },
        hide=_hide,
        count=_count,
        refused=(*_REFUSED, Refused("an unknown kind", "kind", {"kind": "k4"})),
        exempt={
            **NOTHING_FROZEN,
            **_EXEMPT,
            "gradient_reaches_all_who_ask": "old_log_prob is a constant by definition",
        },
        hopeless=_strayed,
        extremes=lambda: _refer(_ratios()),
        alive=lambda i: i["log_prob"] != i["reference_log_prob"],
    ),
)
