"""The clipped policy objective of PPO and its kin, to be minimised.

    l = log_prob - old_log_prob,    ratio = exp(l)
    clip     A > 0: -A exp(min(l, log(1 + high)))
             A < 0: -A exp(max(l, log(1 - low))), and with a dual clip c, exp(min(., log c))
    cispo    -A min(ratio, cap) log_prob,    the ratio held constant

One clamp and one exponential are max(-ratio A, -clip(ratio) A), without a product of 0 and
infinity: the ratio of a token that is clipped is never formed.

Axes: tokens ``(..., T)`` with a sequence a row, or packed ``(N,)`` with ids.
From: Schulman et al. 2017, arXiv:1707.06347, eq. 7; dual clip, Ye et al. 2019, arXiv:1912.09729;
asymmetric clips, Yu et al. 2025 (DAPO), arXiv:2503.14476; ratios of sequences, Zheng et al. 2025
(GSPO), arXiv:2507.18071; cispo, MiniMax 2025, arXiv:2506.13585.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers, check_choice, check_number, check_positive
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.policy.averages import Average, check_average
from aptt.loss.policy.ratios import limits_of
from aptt.loss.policy.sampled import Kind, Ratio, Sampled

__all__ = ["PolicyLoss", "policy_loss", "policy_terms"]


def policy_loss(
    log_prob: Tensor,
    old_log_prob: Numbers,
    advantage: Numbers,
    *,
    mask: Numbers | None = None,
    sequence_ids: Tensor | None = None,
    importance: Numbers | None = None,
    kind: Kind = "clip",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    cap: float = 5.0,
    ratio: Ratio = "token",
    average: Average = "token",
    nominal_length: float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """The policy objective of PPO, GRPO, Dr.GRPO, DAPO, GSPO and CISPO, to be minimised.

        max(-ratio A, -clip(ratio, 1 - clip_low, 1 + clip_high) A),    ratio = exp(log_prob - old)

    Args:
        log_prob: of each token under the policy, ``(..., T)`` with a sequence a row, or packed
            ``(N,)``; any floating dtype. Take :func:`linear_token_stats`, with ``scale`` at one
            over the sampler's temperature.
        old_log_prob: the same shape; under the policy that sampled.
        advantage: the same shape, or ``(...)``, one for each row.
        mask: the same shape as ``log_prob``; True for the tokens that count. The others count for
            nothing, whatever they hold.
        sequence_ids: ``(N,)`` whole numbers, the same for the tokens of a sequence, in any order;
            below 0 for tokens of none.
        importance: the same shape; multiplies, and is not counted: truncated importance weights.
        kind: ``"clip"``, or ``"cispo"``, which caps the ratio and lets every token learn.
        clip_low: how far the ratio may fall below 1; of clip.
        clip_high: how far it may rise above 1; of clip. 0.28 in DAPO; 3e-4 and 4e-4 in GSPO.
        dual_clip: the largest ratio that counts where the advantage is negative, above 1; of clip.
            3 is usual, and advisable: without one a single token can outweigh a batch.
        cap: the largest ratio; of cispo.
        ratio: ``"token"``, or ``"sequence"`` for the mean of l over each sequence (GSPO).
        average: what the mean counts: ``"token"`` (DAPO), ``"sequence"``, the mean of each sequence
            (GRPO, GSPO), or ``"constant"``, its sum over ``nominal_length`` (Dr.GRPO).
        nominal_length: the nominal length of a sequence; of constant.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss: a scalar, or with ``"none"`` what each token adds to the sum, of the shape of
        ``log_prob``; float32 for half types.

    Raises:
        ValueError: shapes that do not fit, packed tokens without ids where sequences are asked
            for, an option out of range, a ratio of sequences averaged over tokens.
        TypeError: log-probabilities that are not of a floating dtype.

    The gradient goes to ``log_prob`` alone: ``old_log_prob``, ``advantage`` and ``importance`` are
    constants. Where all advantages add up to 0 the value is 0 at first, and the gradient is not.
    From a ratio times advantage of some e**87 on, value and slope stay there.

    Use when:
        Answers were sampled, and rewarded; :func:`group_advantages` makes advantages of rewards.

    Elsewhere:
        TRL ``GRPOTrainer``, torchrl ``ClipPPOLoss``, verl ``compute_policy_loss``, OpenRLHF
        ``PolicyLoss``.

    Differs from:
        TRL: a log-ratio of 100 gives a gradient of NaN there. Its cispo takes the option of clip
            for a cap, whose default holds every ratio at 0.2; ``cap`` is the ratio itself, for
            which verl and SkyRL say 1 + eps.
        verl, OpenRLHF: log-ratios are not clamped to 20, where the gradient would be 0.
        All: fully masked sequences are not counted, and ranks and micro-batches share one count.

    Example:
        >>> import torch
        >>> log_prob = torch.tensor([[0.4055, -0.6931]]).requires_grad_()
        >>> loss = policy_loss(log_prob, torch.zeros(1, 2), torch.tensor([1.0]))
        >>> loss.backward()
        >>> round(loss.item(), 4), [round(g, 4) for g in log_prob.grad[0].tolist()]
        (-0.85, [0.0, -0.25])
    """
    _check_options(
        kind, clip_low, clip_high, dual_clip, cap, ratio, average, nominal_length, reduction
    )
    tokens = Sampled(
        log_prob, old_log_prob, advantage, mask, sequence_ids, importance, average, nominal_length
    )
    return tokens.loss(kind, ratio, limits_of(clip_low, clip_high, dual_clip, cap), reduction)


def policy_terms(
    log_prob: Tensor,
    old_log_prob: Numbers,
    advantage: Numbers,
    *,
    mask: Numbers | None = None,
    sequence_ids: Tensor | None = None,
    importance: Numbers | None = None,
    kind: Kind = "clip",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    cap: float = 5.0,
    ratio: Ratio = "token",
    average: Average = "token",
    nominal_length: float | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The loss of :func:`policy_loss`, and what is watched beside it, without a gradient.

    Takes what :func:`policy_loss` does, and reduces all alike.

    Returns:
        ``"policy"``, the loss; ``"clipped"``, the share whose ratio is held, and has no gradient
        (of cispo: is capped); ``"kl_old"``, how far the policy has left the one that sampled, as
        ratio - 1 - l, which is never negative.

    Example:
        >>> import torch
        >>> log_prob = torch.tensor([[0.4055, -0.6931]])
        >>> terms = policy_terms(log_prob, torch.zeros(1, 2), torch.tensor([1.0]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'policy': -0.85, 'clipped': 0.5, 'kl_old': 0.1438}
    """
    _check_options(
        kind, clip_low, clip_high, dual_clip, cap, ratio, average, nominal_length, reduction
    )
    tokens = Sampled(
        log_prob, old_log_prob, advantage, mask, sequence_ids, importance, average, nominal_length
    )
    limits = limits_of(clip_low, clip_high, dual_clip, cap)
    terms = {"policy": tokens.loss(kind, ratio, limits, reduction)}
    return terms | tokens.watched(kind, ratio, limits, reduction)


def _check_options(
    kind: Kind,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
    cap: float,
    ratio: Ratio,
    average: Average,
    nominal_length: float | None,
    reduction: Reduction,
) -> None:
    check_reduction(reduction)
    check_choice("kind", kind, ("clip", "cispo"))
    check_number("clip_low", clip_low, 0.0, 1.0)
    check_number("clip_high", clip_high)
    check_positive("cap", cap)
    check_choice("ratio", ratio, ("token", "sequence"))
    check_average(average, nominal_length)
    if dual_clip is not None:
        check_positive("dual_clip", dual_clip)
        if dual_clip <= 1:
            raise ValueError(f"dual_clip: got {dual_clip}, wanted a ratio above 1, or None")
    if ratio == "sequence" and average != "sequence":
        raise ValueError(
            f"average: got {average!r} with ratio='sequence', wanted 'sequence': a sequence has "
            "one ratio, which another average would weigh by its length"
        )
    if ratio == "sequence" and kind == "cispo":
        raise ValueError("ratio: got 'sequence' with kind='cispo', wanted 'token'")


class PolicyLoss(LossModule):
    """Module form of :func:`policy_loss`; same options, same defaults."""

    terms_function = staticmethod(policy_terms)

    def __init__(
        self,
        kind: Kind = "clip",
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        dual_clip: float | None = None,
        cap: float = 5.0,
        ratio: Ratio = "token",
        average: Average = "token",
        nominal_length: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(
            kind, clip_low, clip_high, dual_clip, cap, ratio, average, nominal_length, reduction
        )
        super().__init__(
            kind=kind,
            clip_low=clip_low,
            clip_high=clip_high,
            dual_clip=dual_clip,
            cap=cap,
            ratio=ratio,
            average=average,
            nominal_length=nominal_length,
            reduction=reduction,
        )

    def forward(
        self,
        log_prob: Tensor,
        old_log_prob: Numbers,
        advantage: Numbers,
        *,
        mask: Numbers | None = None,
        sequence_ids: Tensor | None = None,
        importance: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``log_prob``, where ``old_log_prob`` was sampled with ``advantage``."""
        return policy_loss(
            log_prob,
            old_log_prob,
            advantage,
            mask=mask,
            sequence_ids=sequence_ids,
            importance=importance,
            **self.options(),
        )
