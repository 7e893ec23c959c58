"""Losses of language models: the formulas of Liger's chunked losses, and TRL's divergence.

Liger and TRL have their losses of preferences in the middle of a linear layer, or of a trainer.
What stands by itself is asked: functions of log-probabilities and of logits. TRL's DPO and KTO do
not; they are lines of ``compute_loss``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Generator, Tensor

from aptt.audit import Inputs, Options
from aptt.audit.specs.making import indices, normal, uniform
from docs.builder.peers.peer import HALVES, Peer, equal, of

__all__ = ["LANGUAGE"]

_ENDLESS = {
    "perfect_is_minimal": "the larger the margin the better; there is no best one",
    "hopeless_keeps_a_gradient": "of one score of several, it is not said which are hopeless",
}
_INNER = {"bad_input_is_refused": "it stands inside of what makes its inputs, and checks them"}
_SPLIT = {"split_invariance": "its number of items takes a number, and no sum of ranks"}


def _logps(*names: str) -> Callable[[Generator, int], Inputs]:
    return lambda g, n: {name: -uniform(g, n, low=0.1, high=5.0) for name in names}


def _labelled(g: Generator, n: int) -> Inputs:
    made = _logps("log_prob_chunk", "ref_log_prob_chunk", "kl")(g, n)
    return {**made, "kl": -made["kl"], "preference_labels_chunk": torch.arange(n) % 2 == 0}


def _liger(name: str, form: Callable[[Any], Any], inputs: Any) -> Peer:
    """The formula of a chunked loss, on the log-probabilities that it makes of a chunk."""
    file = name.removeprefix("LigerFusedLinear").removesuffix("Function").lower()

    def load() -> Any:
        module = f"liger_kernel.chunked_loss.{file}_loss"
        return form(of(module, name)().preference_loss_fn)

    return Peer(
        library="liger-kernel",
        name=f"{name}.preference_loss_fn",
        load=load,
        inputs=inputs,
        choices=HALVES,
        unasked={**_ENDLESS, **_INNER},
    )


def _both(chosen: Tensor) -> Tensor:
    """What the formulas count pairs by: a target for each answer."""
    return chosen.new_zeros(2 * len(chosen))


def _with_reference(formula: Any) -> Any:
    def loss(
        chosen_logps: Tensor,
        rejected_logps: Tensor,
        ref_chosen_logps: Tensor,
        ref_rejected_logps: Tensor,
    ) -> Tensor:
        full = _both(chosen_logps)
        return formula(chosen_logps, rejected_logps, full, ref_chosen_logps, ref_rejected_logps)[0]

    return loss


def _without_reference(formula: Any) -> Any:
    def loss(chosen_logps: Tensor, rejected_logps: Tensor) -> Tensor:
        return formula(chosen_logps, rejected_logps, _both(chosen_logps))[0]

    return loss


def _of_labels(formula: Any) -> Any:
    def loss(
        log_prob_chunk: Tensor,
        ref_log_prob_chunk: Tensor,
        kl: Tensor,
        preference_labels_chunk: Tensor,
    ) -> Tensor:
        full, kept = log_prob_chunk, preference_labels_chunk
        return formula(log_prob_chunk, kept, full, ref_log_prob_chunk, kl=kl)[0]

    return loss


def _liger_jsd() -> Any:
    module = "liger_kernel.chunked_loss.jsd_loss"
    formula = of(module, "LigerFusedLinearJSDFunction")().distillation_loss_fn

    def loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return formula(student_logits, teacher_logits) / max(len(student_logits), 1)

    return loss


def _trl_jsd() -> Any:
    formula = of("trl.experimental.gkd.gkd_trainer", "GKDTrainer")().generalized_jsd_loss

    def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        return formula(student_logits, teacher_logits, labels)

    return loss


def _trainer(name: str, method: str, **settings: Any) -> Peer:
    """A trainer's method that asks no more of its trainer than some settings."""
    file = name.removesuffix("Trainer").lower()

    def load() -> Any:
        formula = getattr(of(f"trl.experimental.{file}.{file}_trainer", name)(), method)

        def loss(policy_chosen_logps: Tensor, policy_rejected_logps: Tensor) -> Tensor:
            place = SimpleNamespace(device=policy_chosen_logps.device)
            trainer = SimpleNamespace(**settings, accelerator=place)
            # what ORPO returns, its caller subtracts
            return sign * formula(trainer, policy_chosen_logps, policy_rejected_logps)[0].mean()

        return loss

    sign = -1 if method == "odds_ratio_loss" else 1
    said = ", ".join(f"{k}={v!r}" for k, v in settings.items() if k != "label_smoothing")
    return Peer(
        library="trl",
        name=f"{name}({said}).{method}",
        load=load,
        inputs=_logps("policy_chosen_logps", "policy_rejected_logps"),
        choices=HALVES,
        unasked={
            **_ENDLESS,
            **_INNER,
            "nothing_left_is_zero": "it returns a loss for each pair; their mean is the card's",
        },
    )


def _logits(g: Generator, n: int) -> Inputs:
    student, teacher = normal(g, n, 6, scale=2), normal(g, n, 6, scale=2)
    return {"student_logits": student, "teacher_logits": teacher}


def _tokens(g: Generator, n: int) -> Inputs:
    student, teacher = normal(g, n, 3, 6, scale=2), normal(g, n, 3, 6, scale=2)
    return {
        "student_logits": student,
        "teacher_logits": teacher,
        "labels": indices(g, 6, n, 3),
    }


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    return {**inputs, "labels": inputs["labels"].masked_fill(~keep, -100)}


_NEAREST = {"perfect": equal("student_logits", "teacher_logits")}
_NO_WORST = {
    "hopeless_keeps_a_gradient": "the divergence is bounded: it is flat where all is wrong"
}

LANGUAGE: tuple[Peer, ...] = (
    _liger(
        "LigerFusedLinearDPOFunction",
        _with_reference,
        _logps("chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps"),
    ),
    _liger(
        "LigerFusedLinearSimPOFunction",
        _without_reference,
        _logps("chosen_logps", "rejected_logps"),
    ),
    _liger(
        "LigerFusedLinearORPOFunction",
        _without_reference,
        _logps("chosen_logps", "rejected_logps"),
    ),
    _liger("LigerFusedLinearKTOFunction", _of_labels, _labelled),
    Peer(
        library="liger-kernel",
        name="LigerFusedLinearJSDFunction.distillation_loss_fn",
        load=_liger_jsd,
        inputs=_logits,
        choices=HALVES,
        told={**_NEAREST, "features": -1},
        unasked={**_NO_WORST, **_INNER},
    ),
    Peer(
        library="trl",
        name="GKDTrainer.generalized_jsd_loss",
        load=_trl_jsd,
        inputs=_tokens,
        choices=HALVES,
        told={**_NEAREST, "features": -1, "hide": _hide},
        unasked={
            **_NO_WORST,
            **_INNER,
            **_SPLIT,
            "samples_stand_alone": "it divides by the tokens that count, of the whole batch",
        },
    ),
    _trainer("ORPOTrainer", "odds_ratio_loss", beta=0.1),
    _trainer(
        "CPOTrainer",
        "cpo_loss",
        loss_type="simpo",
        beta=2.0,
        simpo_gamma=1.0,
        alpha=0.0,
        label_smoothing=0.0,
    ),
)
