"""Multi-token prediction from hidden states, under the one head that all depths share.

    L_k    = -1 / T * sum over i of log softmax(scale * (h_k[i] @ weight.T + bias))[t_(i + k + 1)]
    loss   = L_0 + lambda / D * sum over k >= 1 of L_k

The logits of no depth exist at once.

Axes: each depth's hidden states ``(..., T, D)`` or ``(..., T - k, D)``; targets ``(..., T)``.
From: DeepSeek-AI 2024 (DeepSeek-V3), arXiv:2412.19437, section 2.2, eq. 24 and 25.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from aptt.core.checks import Numbers, check_flags, check_index
from aptt.core.linear.tokens import check_cut
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction
from aptt.core.vocabulary import checked_form
from aptt.loss.linear import linear_cross_entropy
from aptt.loss.mtp_loss.heads import (
    Goal,
    Goals,
    Lambda,
    check_heads,
    check_options,
    combined,
    mark,
    numbers,
    terms_of,
)

__all__ = ["LinearMTPLoss", "linear_multi_token_loss", "linear_multi_token_terms"]


def linear_multi_token_loss(
    hidden_list: Sequence[Tensor],
    weight: Tensor | Callable[[Tensor], Tensor],
    target: Numbers,
    *,
    bias: Tensor | None = None,
    document_ids: Numbers | None = None,
    sample_weight: Numbers | None = None,
    right_context: int = 0,
    step: float | None = None,
    mtp_depth: int | None = None,
    mtp_lambda: Lambda = 0.3,
    labels: Literal["aligned", "raw"] = "aligned",
    class_weight: Numbers | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    drop_ignored: bool = True,
    normalize: Literal["tokens", "valid"] = "tokens",
    reduction: Reduction = "mean",
) -> Tensor:
    """Multi-token prediction from hidden states and the head that all depths share.

        loss = multi_token_loss([scale * (h @ weight.T + bias) for h in hidden_list], target)

    Args:
        hidden_list: the main model's hidden states ``(..., T, D)``, then those of depth 1, 2, ...,
            each of length T or T - k.
        weight: ``(V, D)``, the head's weight, or a callable that makes the logits ``(n, V)`` of
            hidden states ``(n, D)``.
        target: ``(..., T)`` class indices, shared by all depths, which are shifted here.
        bias: ``(V,)``; -inf masks a class.
        document_ids: ``(..., T)``, the document of each input token.
        sample_weight: ``(..., T)``, a weight for each target.
        right_context: how many targets follow those of the hidden states, in a shard of a sequence.
        step: where the schedule is.
        mtp_depth: how many depths there are besides the main model; None: as many as are given.
            With the next six, as in :func:`multi_token_loss`.
        mtp_lambda: weight of the mean over the depths, or a schedule ``step -> number``.
        labels: ``"aligned"`` or ``"raw"``.
        class_weight: ``(V,)``. With the rest, as in :func:`linear_cross_entropy`, at every depth.
        ignore_index: the target that is not to be predicted, at any depth; None: there is none.
        label_smoothing: the share of the target's mass spread evenly over the vocabulary.
        z_loss: the factor of ``logsumexp(z)**2``.
        softcap: bounds the logits to ``(-softcap, softcap)``.
        scale: multiplies the logits.
        chunk: tokens in a chunk; None: as many as keep its logits small beside the weight.
        drop_ignored: leave ignored tokens out of the products.
        normalize: ``"tokens"``, the main head's targets, or ``"valid"``, the depth's own.
        reduction: ``"mean"``, ``"sum"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, a scalar, at least 0. float32 for half types.

    Raises:
        ValueError: as :func:`multi_token_loss` and :func:`linear_cross_entropy` do.
        TypeError: a weight that is neither a tensor nor callable.

    The gradient goes to the hidden states of every depth, and to ``weight`` and ``bias``, where the
    depths add up.

    Use when:
        The logits of one head are the largest tensor of training already, and here there are D + 1.

    Elsewhere:
        NeMo ``calculate_mtp_loss``.

    Differs from:
        torchtitan ``MTPLoss``: the logits of no depth exist.

    Example:
        >>> import torch
        >>> hidden, weight = [torch.zeros(1, 4, 2), torch.zeros(1, 3, 2)], torch.ones(8, 2)
        >>> loss = linear_multi_token_loss(hidden, weight, torch.tensor([[1, 2, 3, 4]]))
        >>> round(loss.item(), 4)
        2.5473
    """
    terms = linear_multi_token_terms(
        hidden_list,
        weight,
        target,
        bias=bias,
        mtp_depth=mtp_depth,
        normalize=normalize,
        labels=labels,
        document_ids=document_ids,
        sample_weight=sample_weight,
        right_context=right_context,
        class_weight=class_weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        scale=scale,
        chunk=chunk,
        drop_ignored=drop_ignored,
        reduction=reduction,
    )
    return combined(terms, mtp_lambda, step)


def linear_multi_token_terms(
    hidden_list: Sequence[Tensor],
    weight: Tensor | Callable[[Tensor], Tensor],
    target: Numbers,
    *,
    bias: Tensor | None = None,
    document_ids: Numbers | None = None,
    sample_weight: Numbers | None = None,
    right_context: int = 0,
    mtp_depth: int | None = None,
    labels: Literal["aligned", "raw"] = "aligned",
    class_weight: Numbers | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    drop_ignored: bool = True,
    normalize: Literal["tokens", "valid"] = "tokens",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`linear_multi_token_loss` by name, without lambda.

        L_k = -1 / T * sum over i of log P_k[i, t_(i + k + 1)]

    Args are those of :func:`linear_multi_token_loss`.

    Returns:
        ``{"main": L_0, "depth_1": L_1, ...}``.

    Use when:
        Each depth's loss is to be logged.

    Example:
        >>> import torch
        >>> hidden, weight = [torch.zeros(1, 4, 2), torch.zeros(1, 3, 2)], torch.ones(8, 2)
        >>> terms = linear_multi_token_terms(hidden, weight, torch.tensor([[1, 2, 3, 4]]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'main': 2.0794, 'depth_1': 1.5596}
    """
    check_options(mtp_depth, 0.0, normalize, labels, reduction)

    def loss(hidden: Tensor, goal: Goal, reduction: Reduction) -> Tensor:
        return linear_cross_entropy(
            hidden,
            weight,
            goal.target,
            bias=bias,
            class_weight=class_weight,
            sample_weight=goal.weight,
            ignore_index=ignored,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            scale=scale,
            chunk=chunk,
            drop_ignored=drop_ignored,
            reduction=reduction,
        )

    target = numbers("target", target, hidden_list)
    documents = numbers("document_ids", document_ids, hidden_list)
    weights = numbers("sample_weight", sample_weight, hidden_list)
    heads = check_heads(
        "hidden_list", hidden_list, target, mtp_depth, labels, right_context, documents
    )
    ignored = mark(ignore_index, target)
    goals = Goals(target.long(), weights, documents, labels, ignored)
    return terms_of(heads, goals, loss, normalize, reduction)


class LinearMTPLoss(LossModule):
    """Module form of :func:`linear_multi_token_loss`; same options, same defaults."""

    terms_function = staticmethod(linear_multi_token_terms)

    def __init__(
        self,
        mtp_depth: int | None = None,
        mtp_lambda: Lambda = 0.3,
        labels: Literal["aligned", "raw"] = "aligned",
        class_weight: Numbers | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        softcap: float | None = None,
        scale: float = 1.0,
        chunk: int | None = None,
        drop_ignored: bool = True,
        normalize: Literal["tokens", "valid"] = "tokens",
        reduction: Reduction = "mean",
    ) -> None:
        check_options(mtp_depth, mtp_lambda, normalize, labels, reduction)
        checked_form(label_smoothing, z_loss, softcap, reduction)
        check_index(ignore_index=ignore_index)
        check_cut(scale, chunk)
        check_flags(drop_ignored=drop_ignored)
        super().__init__(
            mtp_depth=mtp_depth,
            mtp_lambda=mtp_lambda,
            labels=labels,
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            scale=scale,
            chunk=chunk,
            drop_ignored=drop_ignored,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(
        self,
        hidden_list: Sequence[Tensor],
        weight: Tensor | Callable[[Tensor], Tensor],
        target: Numbers,
        *,
        bias: Tensor | None = None,
        document_ids: Numbers | None = None,
        sample_weight: Numbers | None = None,
        right_context: int = 0,
        step: float | None = None,
    ) -> Tensor:
        """The loss of each depth's hidden states under the shared head."""
        return linear_multi_token_loss(
            hidden_list,
            weight,
            target,
            bias=bias,
            document_ids=document_ids,
            sample_weight=sample_weight,
            right_context=right_context,
            step=step,
            **self.options(),
        )
