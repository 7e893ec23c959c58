"""Distillation of a language model: student and teacher logits, at a temperature of 4."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

import aptt.loss
from benchmarks.case import OURS, Case, Contender

__all__ = ["CASES"]

_T = 4.0


def _inputs(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return 3 * torch.randn(size), 3 * torch.randn(size)


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    """The recipe that is passed around."""
    log_q, log_p = F.log_softmax(student / _T, -1), F.log_softmax(teacher / _T, -1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean") * _T**2


def _jsd(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the KL of each to the mixture of both."""
    log_q, log_p = F.log_softmax(student / _T, -1), F.log_softmax(teacher / _T, -1)
    log_m = torch.logaddexp(log_q, log_p) - torch.log(torch.tensor(2.0))
    to_mixture = [
        F.kl_div(log_m, log, log_target=True, reduction="batchmean") for log in (log_p, log_q)
    ]
    return (to_mixture[0] + to_mixture[1]) / 2 * _T**2


CASES = (
    Case(
        "distillation",
        "distillation_loss",
        _inputs,
        size=(4096, 32000),
        quick=(64, 512),
        contenders=(
            Contender(OURS, lambda: partial(aptt.loss.distillation_loss, alpha=1.0)),
            Contender("F.kl_div, compiled", lambda: _kl, compiled=True),
            Contender("F.kl_div", lambda: _kl),
        ),
    ),
    Case(
        "distillation_jsd",
        "distillation_loss",
        _inputs,
        size=(4096, 32000),
        quick=(64, 512),
        contenders=(
            Contender(
                OURS,
                lambda: partial(aptt.loss.distillation_loss, alpha=1.0, divergence="jsd"),
            ),
            Contender("plain, compiled", lambda: _jsd, compiled=True, tolerance=1e-3),
            Contender("plain", lambda: _jsd, tolerance=1e-3),
        ),
    ),
)
