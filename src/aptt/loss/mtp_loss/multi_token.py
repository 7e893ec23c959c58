"""Multi-token prediction: besides the next token, each head further down predicts a later one.

    L_k    = -1 / T * sum over i of log P_k[i, t_(i + k + 1)]      k = 0 (main head), 1, ..., D
    loss   = L_0 + lambda / D * sum over k >= 1 of L_k

The head of depth k sees position i and predicts the token k + 1 further on, so it has k targets
less than the main head; T is the number of targets of the main head, for every depth.

Axes: each head's logits ``(..., T, V)`` or ``(..., T - k, V)``; targets ``(..., T)``.
From: DeepSeek-AI 2024 (DeepSeek-V3), arXiv:2412.19437, section 2.2, eq. 24 and 25.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from aptt.core.checks import Numbers, check_index, check_tensors
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction
from aptt.core.vocabulary import checked_form
from aptt.loss.classification import cross_entropy
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

__all__ = ["MTPLoss", "multi_token_loss", "multi_token_terms"]


def multi_token_loss(
    logits_list: Sequence[Tensor],
    target: Numbers,
    *,
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
    normalize: Literal["tokens", "valid"] = "tokens",
    reduction: Reduction = "mean",
) -> Tensor:
    """Multi-token prediction loss, as DeepSeek-V3 has it.

        loss = L_0 + lambda / D * sum over k >= 1 of L_k

    Args:
        logits_list: the main head's logits ``(..., T, V)``, then those of depth 1, 2, ..., each of
            length T, the last k positions unused, or T - k.
        target: ``(..., T)`` class indices, shared by all heads, which are shifted here.
        document_ids: ``(..., T)``, the document of each input token, where several are packed into
            a sequence. A position does not predict a token of another document.
        sample_weight: ``(..., T)``, a weight for each target; multiplies and is counted.
        right_context: how many targets follow those of the heads' positions, where a sequence is
            cut into shards: D, and one more with ``"raw"`` labels or ``document_ids``. Targets,
            documents and weights are that much longer, and each head has all T positions.
        step: where the schedule is; needed if ``mtp_lambda`` is one.
        mtp_depth: D, how many heads there are besides the main one; None: as many as are given.
        mtp_lambda: weight of the mean over the depths: a number, or a schedule ``step -> number``.
        labels: ``"aligned"``: ``target[i]`` is the token after position i, which the main head
            predicts there. ``"raw"``: ``target[i]`` is the token at position i itself.
        class_weight: ``(V,)``, a weight for each class. With the next four, as in
            :func:`cross_entropy`, for every head.
        ignore_index: the target that is not to be predicted, by any head; None: there is none.
        label_smoothing: the share of the target's mass spread evenly over the vocabulary.
        z_loss: the factor of ``logsumexp(z)**2``.
        softcap: bounds the logits to ``(-softcap, softcap)``.
        normalize: what every depth's sum is divided by: ``"tokens"``, the main head's targets,
            as in the paper, or ``"valid"``, the depth's own, which are up to k a sequence fewer.
        reduction: ``"mean"``, ``"sum"``, or a callable ``(total, count, *, term)``, which is
            called for the terms ``"main"``, ``"depth_1"``, ``"depth_2"``, ...

    Returns:
        The loss, a scalar, at least 0. float32 for half types. Where no target is left to a head,
        its term is 0 on the graph.

    Raises:
        ValueError: more or fewer heads than ``mtp_depth`` + 1, lengths that fit no shift of the
            targets, targets out of range (on CPU), a schedule without its step.

    The gradient goes to the logits of every head, and to weights that ask for it.

    Use when:
        A language model has DeepSeek-V3's sequential heads, or parallel ones (Gloeckle et al.
        2024: pass ``mtp_lambda`` D, so that each head weighs 1). lambda was 0.3 there for the
        first two thirds of the training, then 0.1.

    Elsewhere:
        Megatron-LM ``process_mtp_loss``, torchtitan ``MTPLoss``, NeMo ``calculate_mtp_loss``.

    Differs from:
        Megatron-LM: it divides a depth by its own targets (``normalize="valid"`` here), and its
            lambda is 0.1. Without a loss mask it counts ignored labels; here they never count.
        torchtitan: a position may there predict the first token of the next document, if the data
            does not mask it.

    Example:
        >>> import torch
        >>> heads = [torch.zeros(1, 4, 8), torch.zeros(1, 3, 8)]  # depth 1 may lack the last one
        >>> round(multi_token_loss(heads, torch.tensor([[1, 2, 3, 4]])).item(), 4)  # log 8 * 1.225
        2.5473
    """
    terms = multi_token_terms(
        logits_list,
        target,
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
        reduction=reduction,
    )
    return combined(terms, mtp_lambda, step)


def multi_token_terms(
    logits_list: Sequence[Tensor],
    target: Numbers,
    *,
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
    normalize: Literal["tokens", "valid"] = "tokens",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`multi_token_loss` by name, without lambda.

        L_k = -1 / T * sum over i of log P_k[i, t_(i + k + 1)]

    Args are those of :func:`multi_token_loss`.

    Returns:
        ``{"main": L_0, "depth_1": L_1, ...}``.

    Use when:
        Each head's loss is to be logged.

    Example:
        >>> import torch
        >>> heads = [torch.zeros(1, 4, 8), torch.zeros(1, 3, 8)]
        >>> terms = multi_token_terms(heads, torch.tensor([[1, 2, 3, 4]]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'main': 2.0794, 'depth_1': 1.5596}
    """
    check_options(mtp_depth, 0.0, normalize, labels, reduction)

    def loss(logits: Tensor, goal: Goal, reduction: Reduction) -> Tensor:
        return cross_entropy(
            logits,
            goal.target,
            weight=class_weight,
            sample_weight=goal.weight,
            ignore_index=ignored,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            class_dim=-1,
            reduction=reduction,
        )

    target = numbers("target", target, logits_list)
    documents = numbers("document_ids", document_ids, logits_list)
    weights = numbers("sample_weight", sample_weight, logits_list)
    heads = check_heads(
        "logits_list", logits_list, target, mtp_depth, labels, right_context, documents
    )
    ignored, classes = mark(ignore_index, target), heads[0].shape[-1]
    if class_weight is not None:  # by its name here, which is another there
        class_weight = per_class(class_weight, "class_weight")
        check_tensors(logits_list=heads[0], class_weight=class_weight)
        if class_weight.shape != (classes,):
            raise ValueError(
                f"class_weight: got shape {tuple(class_weight.shape)}, wanted ({classes},)"
            )
    goals = Goals(target.long(), weights, documents, labels, ignored)
    return terms_of(heads, goals, loss, normalize, reduction)


class MTPLoss(LossModule):
    """Module form of :func:`multi_token_loss`; same options, same defaults.

    A schedule for ``mtp_lambda`` is any callable ``step -> number``; the call says the step, and
    the module remembers none.

    Example:
        >>> import torch
        >>> loss_fn = MTPLoss(mtp_depth=3, mtp_lambda=lambda step: 0.3 if step < 1000 else 0.1)
        >>> heads, tokens = [torch.zeros(2, 9, 16)] * 4, torch.arange(18).view(2, 9) % 16
        >>> [round(loss_fn(heads, tokens, step=step).item(), 4) for step in (0, 1000)]
        [3.4195, 2.9882]
    """

    terms_function = staticmethod(multi_token_terms)

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
        normalize: Literal["tokens", "valid"] = "tokens",
        reduction: Reduction = "mean",
    ) -> None:
        check_options(mtp_depth, mtp_lambda, normalize, labels, reduction)
        checked_form(label_smoothing, z_loss, softcap, reduction)
        check_index(ignore_index=ignore_index)
        super().__init__(
            mtp_depth=mtp_depth,
            mtp_lambda=mtp_lambda,
            labels=labels,
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(
        self,
        logits_list: Sequence[Tensor],
        target: Numbers,
        *,
        document_ids: Numbers | None = None,
        sample_weight: Numbers | None = None,
        right_context: int = 0,
        step: float | None = None,
    ) -> Tensor:
        """The loss of the heads' logits against ``target``."""
        return multi_token_loss(
            logits_list,
            target,
            document_ids=document_ids,
            sample_weight=sample_weight,
            right_context=right_context,
            step=step,
            **self.options(),
        )
