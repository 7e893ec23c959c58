"""How far a policy is from a reference, by the tokens that it sampled.

    d = log_prob - reference
    k1    d                     E[k1] = KL(policy, reference), and the mean of its slope is 0
    k2    d**2 / 2              the mean of its slope is that of KL(policy, reference)
    k3    exp(-d) - 1 + d       E[k3] = KL(policy, reference); slope of KL(reference, policy)

With ``old_log_prob`` each is multiplied by exp(log_prob - old_log_prob), which has a slope, and k3
has that of KL(policy, reference), whoever sampled.

Axes: tokens ``(..., T)`` with a sequence a row, or packed ``(N,)`` with ids.
From: Schulman, "Approximating KL divergence", 2020; k3 in the loss, Shao et al. 2024 (GRPO),
arXiv:2402.03300; times the ratio, DeepSeek-V3.2, 2025.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_choice, check_floating
from aptt.core.exponential import expm1
from aptt.core.formula import Formula, Kept
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, reduce
from aptt.loss.policy.averages import Average, check_average, numbers, parts_of
from aptt.loss.policy.powers import excess, power, top_of

__all__ = ["KLPenaltyLoss", "kl_penalty_loss"]

Kind = Literal["k1", "k2", "k3"]


def kl_penalty_loss(
    log_prob: Tensor,
    reference_log_prob: Numbers,
    *,
    old_log_prob: Numbers | None = None,
    mask: Numbers | None = None,
    sequence_ids: Tensor | None = None,
    kind: Kind = "k3",
    average: Average = "token",
    nominal_length: float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """The divergence of a policy from a reference, estimated from sampled tokens.

        k1 = d,    k2 = d**2 / 2,    k3 = exp(-d) - 1 + d,    d = log_prob - reference_log_prob

    Args:
        log_prob: of each token under the policy, ``(..., T)`` with a sequence a row, or packed
            ``(N,)``; any floating dtype.
        reference_log_prob: the same shape; under the reference.
        old_log_prob: the same shape; under the policy that sampled, if that is another: multiplies
            by the ratio of the two, with its slope.
        mask: the same shape; True for the tokens that count.
        sequence_ids: ``(N,)`` whole numbers, the same for the tokens of a sequence.
        kind: ``"k1"``, ``"k2"`` or ``"k3"``. As a term of a loss, k1 has a gradient of 0 on
            average, k2 the right one, k3 that of the other direction, KL(reference, policy).
        average: what the mean counts, as in :func:`policy_loss`.
        nominal_length: likewise.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The penalty: a scalar, or with ``"none"`` what each token adds to the sum; float32 for half
        types. k2 and k3 are at least 0, and exactly 0 where the two agree.

    Raises:
        ValueError: shapes that do not fit, an unknown option.
        TypeError: log-probabilities that are not of a floating dtype.

    The gradient goes to ``log_prob``, and to a reference that asks for it; ``old_log_prob`` is a
    constant. A penalty within the reward is a number: detach it. Where both sets of logits are at
    hand, :func:`linear_distillation_loss` with ``alpha=1, temperature=1, divergence="reverse_kl"``
    gives the divergence itself, without a sample's noise.

    Use when:
        A policy should stay near the model that it started from.

    Differs from:
        verl, OpenRLHF: k3 is not clamped to 10, from where on its gradient would be 0.
        ``(r - 1) - log r``: keeps its digits near 0, where that gives 0 or noise.

    Example:
        >>> import torch
        >>> log_prob, reference = torch.tensor([0.5, -0.5]), torch.zeros(2)
        >>> [round(v, 4) for v in kl_penalty_loss(log_prob, reference, reduction="none").tolist()]
        [0.1065, 0.1487]
    """
    _check_options(kind, average, nominal_length, reduction)
    check_floating(log_prob=log_prob)
    held = numbers("reference_log_prob", reference_log_prob, log_prob)
    old = None if old_log_prob is None else numbers("old_log_prob", old_log_prob, log_prob)
    parts = parts_of(log_prob, mask, sequence_ids, average, nominal_length)
    value = reduce(
        _PENALTY,
        log_prob.reshape(-1),
        held.reshape(-1),
        None if old is None else old.detach().reshape(-1),
        weight=None if parts.weight is None else parts.weight.reshape(-1),
        count=lambda: parts.counted,
        reduction=reduction,
        term="kl",
        estimator=kind,
    )
    return value.reshape(log_prob.shape) if reduction == "none" else value


def _estimate(d: Tensor, estimator: Kind) -> Tensor:
    if estimator == "k1":
        return d
    return d.square() / 2 if estimator == "k2" else excess(-d)


def _value(
    x: Tensor, kept: Kept, reference: Tensor, old: Tensor | None, *, estimator: Kind
) -> Tensor:
    v = _estimate(x - reference, estimator)
    if old is None:
        return v
    if estimator != "k3":
        return v * power(x - old, v)
    # where d is large, the same number otherwise written has no two large slopes that cancel, for
    # exp(reference - old) is none; where it is small, neither have those of the product
    one, d, ratio = v.new_ones(()), x - reference, power(x - old, v)
    near = d.detach().abs() < 1
    held = power((reference - old).masked_fill(near, 0.0), one)
    far = held + power((x - old).masked_fill(near, 0.0), d.detach()) * (d - 1)
    slopes = torch.where(near, excess(-d.masked_fill(~near, 0.0)) * ratio, far)
    return (v * ratio).detach() + (slopes - slopes.detach())


def _step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    reference: Tensor,
    old: Tensor | None,
    *,
    estimator: Kind,
) -> tuple[Tensor, Tensor]:
    d = x - reference
    v = _estimate(d, estimator)
    if old is None:
        if estimator == "k1":
            return v.clone(), torch.ones_like(d).mul_(up)
        return v, (d if estimator == "k2" else -expm1((-d).clamp(max=top_of(d.dtype)))).mul(up)
    # (ratio k)' = ratio (k + k'), and of k3 that is ratio d
    both = {"k1": d + 1, "k2": d + v, "k3": d}[estimator]
    return v * power(x - old, v), (both * power(x - old, both)).mul_(up)


_PENALTY = Formula(_value, _step, ahead=True)


def _check_options(
    kind: Kind, average: Average, nominal_length: float | None, reduction: Reduction
) -> None:
    check_reduction(reduction)
    check_choice("kind", kind, ("k1", "k2", "k3"))
    check_average(average, nominal_length)


class KLPenaltyLoss(LossModule):
    """Module form of :func:`kl_penalty_loss`; same options, same defaults."""

    def __init__(
        self,
        kind: Kind = "k3",
        average: Average = "token",
        nominal_length: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(kind, average, nominal_length, reduction)
        super().__init__(
            kind=kind, average=average, nominal_length=nominal_length, reduction=reduction
        )

    def forward(
        self,
        log_prob: Tensor,
        reference_log_prob: Numbers,
        *,
        old_log_prob: Numbers | None = None,
        mask: Numbers | None = None,
        sequence_ids: Tensor | None = None,
    ) -> Tensor:
        """The penalty of ``log_prob`` against ``reference_log_prob``."""
        return kl_penalty_loss(
            log_prob,
            reference_log_prob,
            old_log_prob=old_log_prob,
            mask=mask,
            sequence_ids=sequence_ids,
            **self.options(),
        )
