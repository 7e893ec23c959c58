"""Multi-token prediction: besides the next token, each head further down predicts a later one.

    L_k    = -1 / T * sum over i of log P_k[i, t_(i + k + 1)]      k = 0 (main head), 1, ..., D
    loss   = L_0 + lambda / D * sum over k >= 1 of L_k

The head of depth k sees position i and predicts the token k + 1 further on, so it has k targets
less than the main head; T is the number of targets of the main head, for every depth.

Axes: each head's logits ``(..., T, V)`` or ``(..., T - k, V)``; targets ``(..., T)``.
From: DeepSeek-AI 2024 (DeepSeek-V3), arXiv:2412.19437, section 2.2, eq. 24 and 25.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.core.checks import check_choice, check_indices, check_number
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction, check_reduction, normalize
from aptt.core.shapes import check_shapes
from aptt.core.vocabulary import checked_form
from aptt.loss.classification import cross_entropy
from aptt.loss.linear import check_cut, linear_cross_entropy

__all__ = [
    "LinearMTPLoss",
    "MTPLoss",
    "linear_multi_token_loss",
    "multi_token_loss",
    "multi_token_terms",
]

Lambda = float | Callable[[float], float]


def multi_token_loss(
    logits_list: Sequence[Tensor],
    target: Tensor,
    *,
    mtp_depth: int | None = None,
    mtp_lambda: Lambda = 0.3,
    denominator: Literal["tokens", "valid"] = "tokens",
    labels: Literal["aligned", "raw"] = "aligned",
    document_ids: Tensor | None = None,
    sample_weight: Tensor | None = None,
    step: float | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Multi-token prediction loss, as DeepSeek-V3 has it.

        loss = L_0 + lambda / D * sum over k >= 1 of L_k

    Args:
        logits_list: the main head's logits ``(..., T, V)``, then those of depth 1, 2, ..., each of
            length T, the last k positions unused, or T - k.
        target: ``(..., T)`` class indices, shared by all heads, which are shifted here.
        mtp_depth: D, how many heads there are besides the main one; None: as many as are given.
        mtp_lambda: weight of the mean over the depths: a number, or a schedule ``step -> number``.
        denominator: what every depth's sum is divided by: ``"tokens"``, the main head's targets,
            as in the paper, or ``"valid"``, the depth's own, which are up to k a sequence fewer.
        labels: ``"aligned"``: ``target[i]`` is the token after position i, which the main head
            predicts there. ``"raw"``: ``target[i]`` is the token at position i itself.
        document_ids: ``(..., T)``, the document of each input token, where several are packed into
            a sequence. A position does not predict a token of another document.
        sample_weight: ``(..., T)``, a weight for each target; multiplies and is counted.
        step: where the schedule is; needed if ``mtp_lambda`` is one.
        weight: ``(V,)`` class weights. With the next four, as in :func:`cross_entropy`, for every
            head.
        ignore_index: the target that is not to be predicted, by any head.
        label_smoothing: the share of the target's mass spread evenly over the vocabulary.
        z_loss: the factor of ``logsumexp(z)**2``.
        softcap: bounds the logits to ``(-softcap, softcap)``.
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
        Megatron-LM: it divides a depth by its own targets (``denominator="valid"`` here), and its
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
        denominator=denominator,
        labels=labels,
        document_ids=document_ids,
        sample_weight=sample_weight,
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        reduction=reduction,
    )
    return _combined(terms, mtp_lambda, step)


def multi_token_terms(
    logits_list: Sequence[Tensor],
    target: Tensor,
    *,
    mtp_depth: int | None = None,
    denominator: Literal["tokens", "valid"] = "tokens",
    labels: Literal["aligned", "raw"] = "aligned",
    document_ids: Tensor | None = None,
    sample_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
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
    _check_options(mtp_depth, 0.0, denominator, labels, reduction)

    def loss(logits: Tensor, goal: _Goal, reduction: Reduction) -> Tensor:
        return cross_entropy(
            logits,
            goal.target,
            weight=weight,
            sample_weight=goal.weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            class_dim=-1,
            reduction=reduction,
        )

    heads = _heads("logits_list", logits_list, target, mtp_depth, labels)
    goals = _Goals(target.long(), sample_weight, document_ids, labels, ignore_index)
    return _terms(heads, goals, loss, denominator, reduction)


def linear_multi_token_loss(
    hidden_list: Sequence[Tensor],
    weight: Tensor | Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    bias: Tensor | None = None,
    mtp_depth: int | None = None,
    mtp_lambda: Lambda = 0.3,
    denominator: Literal["tokens", "valid"] = "tokens",
    labels: Literal["aligned", "raw"] = "aligned",
    document_ids: Tensor | None = None,
    sample_weight: Tensor | None = None,
    step: float | None = None,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    drop_ignored: bool = True,
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
        mtp_depth: how many depths there are besides the main model; None: as many as are given.
            With the next six, as in :func:`multi_token_loss`.
        mtp_lambda: weight of the mean over the depths, or a schedule ``step -> number``.
        denominator: ``"tokens"``, the main head's targets, or ``"valid"``, the depth's own.
        labels: ``"aligned"`` or ``"raw"``.
        document_ids: ``(..., T)``, the document of each input token.
        sample_weight: ``(..., T)``, a weight for each target.
        step: where the schedule is.
        class_weight: ``(V,)``. With the rest, as in :func:`linear_cross_entropy`, at every depth.
        ignore_index: the target that is not to be predicted, at any depth.
        label_smoothing: the share of the target's mass spread evenly over the vocabulary.
        z_loss: the factor of ``logsumexp(z)**2``.
        softcap: bounds the logits to ``(-softcap, softcap)``.
        scale: multiplies the logits.
        chunk: tokens in a chunk; None: as many as keep its logits small beside the weight.
        drop_ignored: leave ignored tokens out of the products.
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
    _check_options(mtp_depth, 0.0, denominator, labels, reduction)

    def loss(hidden: Tensor, goal: _Goal, reduction: Reduction) -> Tensor:
        return linear_cross_entropy(
            hidden,
            weight,
            goal.target,
            bias=bias,
            class_weight=class_weight,
            sample_weight=goal.weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            scale=scale,
            chunk=chunk,
            drop_ignored=drop_ignored,
            reduction=reduction,
        )

    heads = _heads("hidden_list", hidden_list, target, mtp_depth, labels)
    goals = _Goals(target.long(), sample_weight, document_ids, labels, ignore_index)
    return _combined(_terms(heads, goals, loss, denominator, reduction), mtp_lambda, step)


def _combined(terms: dict[str, Tensor], mtp_lambda: Lambda, step: float | None) -> Tensor:
    main, *depths = terms.values()
    factor = _lambda(mtp_lambda, step)
    return main if not depths else main + factor * (sum(depths[1:], depths[0]) / len(depths))


class _Goal(NamedTuple):
    """What a head is to predict at each position, and with what weight."""

    target: Tensor
    weight: Tensor | None

    def cut(self, length: int) -> _Goal:
        weight = None if self.weight is None else self.weight[..., :length]
        return _Goal(self.target[..., :length], weight)


class _Goals(NamedTuple):
    """What the data says, from which each head's goal is made."""

    target: Tensor
    sample_weight: Tensor | None
    documents: Tensor | None
    labels: str
    ignore_index: int

    def of(self, k: int) -> _Goal:
        """The targets moved to where depth k predicts them, ``ignore_index`` where there is none.

        The position i of depth k predicts the token of position i + k + 1. Of the last one, after
        the sequence's end, the document is not known: it counts as that of the last position.
        """
        shift = k if self.labels == "aligned" else k + 1
        goal, weight = _moved(self.target, shift, self.ignore_index), self.sample_weight
        if self.documents is not None:
            check_shapes(target=(self.target, "*N"), document_ids=(self.documents, "*N"))
            last = self.documents[..., -1:]
            ahead = torch.cat((self.documents, *[last] * (k + 1)), -1)
            same = ahead[..., k + 1 :] == self.documents
            goal = torch.where(same, goal, self.ignore_index)
        if weight is not None:
            check_shapes(target=(self.target, "*N"), sample_weight=(weight, "*N"))
            weight = _moved(weight, shift, 0)
        return _Goal(goal, weight)


def _moved(t: Tensor, shift: int, fill: int) -> Tensor:
    kept = t[..., shift:]
    return F.pad(kept, (0, t.shape[-1] - kept.shape[-1]), value=fill) if shift else t


def _terms(
    heads: Sequence[Tensor],
    goals: _Goals,
    loss: Callable[[Tensor, _Goal, Reduction], Tensor],
    denominator: str,
    reduction: Reduction,
) -> dict[str, Tensor]:
    """The loss of each head by name, over its own targets or over the main head's."""
    terms: dict[str, Tensor] = {}
    counts: list[Tensor] = []

    def noted(total: Tensor, count: Tensor, *, term: str) -> Tensor:
        counts.append(count)
        return total

    for k, head in enumerate(heads):
        total = loss(head, goals.of(k).cut(head.shape[-2]), noted)
        name = "main" if k == 0 else f"depth_{k}"
        over = counts[0 if denominator == "tokens" else k]
        terms[name] = normalize(total, over, reduction, term=name)
    return terms


def _heads(
    name: str, heads: Sequence[Tensor], target: Tensor, depth: int | None, labels: str
) -> Sequence[Tensor]:
    """What each head gives, once it is sure that their lengths leave no doubt about the shift."""
    if isinstance(heads, Tensor) or not all(isinstance(t, Tensor) for t in heads):
        raise TypeError(
            f"{name}: got {type(heads).__name__}, wanted a sequence of tensors, the "
            "main head's first"
        )
    if not heads or (depth is not None and len(heads) != depth + 1):
        wanted = "at least the main head" if depth is None else f"mtp_depth + 1 = {depth + 1}"
        raise ValueError(f"{name}: got {len(heads)} heads, wanted {wanted}")
    check_indices(target=target)
    if target.ndim == 0:
        raise ValueError("target: got a number, wanted a sequence of tokens, (..., T)")
    length, last = target.shape[-1], heads[0].shape[-1:]
    for k, head in enumerate(heads):
        if head.shape[-1:] != last:
            raise ValueError(
                f"{name}[{k}]: got {head.shape[-1] if head.ndim else 0} numbers a position, wanted "
                f"{last[0]} as the main head has"
            )
        lengths = {length, max(length - k, 0)}
        if labels == "raw":
            lengths.add(max(length - k - 1, 0))
        fits = head.ndim == target.ndim + 1 and head.shape[:-2] == target.shape[:-1]
        if not fits or head.shape[-2] not in lengths:
            wanted = " or ".join(map(str, sorted(lengths, reverse=True)))
            raise ValueError(
                f"{name}[{k}]: got shape {tuple(head.shape)} for targets "
                f"{tuple(target.shape)}, wanted (..., T, {last[0]}) with T of {wanted}; targets "
                f"are shifted here, and {labels!r} ones must not be shifted before"
            )
    return heads


def _lambda(mtp_lambda: Lambda, step: float | None) -> float:
    if not callable(mtp_lambda):
        factor = mtp_lambda
    elif step is None:
        raise ValueError("step: got None, wanted where the schedule of mtp_lambda is")
    else:
        factor = mtp_lambda(step)
    check_number("mtp_lambda", factor)
    return factor


def _check_options(
    mtp_depth: int | None,
    mtp_lambda: Lambda,
    denominator: str,
    labels: str,
    reduction: Reduction,
) -> None:
    check_reduction(reduction, none=False)
    check_choice("denominator", denominator, ("tokens", "valid"))
    check_choice("labels", labels, ("aligned", "raw"))
    if mtp_depth is not None:
        check_number("mtp_depth", mtp_depth)
    if not callable(mtp_lambda):
        check_number("mtp_lambda", mtp_lambda)


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

    def __init__(
        self,
        mtp_depth: int | None = None,
        mtp_lambda: Lambda = 0.3,
        denominator: Literal["tokens", "valid"] = "tokens",
        labels: Literal["aligned", "raw"] = "aligned",
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        softcap: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(mtp_depth, mtp_lambda, denominator, labels, reduction)
        checked_form(label_smoothing, z_loss, softcap, reduction)
        super().__init__(
            mtp_depth=mtp_depth,
            mtp_lambda=mtp_lambda,
            denominator=denominator,
            labels=labels,
            weight=per_class(weight),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            reduction=reduction,
        )

    def forward(
        self,
        logits_list: Sequence[Tensor],
        target: Tensor,
        *,
        document_ids: Tensor | None = None,
        sample_weight: Tensor | None = None,
        step: float | None = None,
    ) -> Tensor:
        """The loss of the heads' logits against ``target``."""
        return multi_token_loss(
            logits_list,
            target,
            document_ids=document_ids,
            sample_weight=sample_weight,
            step=step,
            **self.options(),
        )


class LinearMTPLoss(LossModule):
    """Module form of :func:`linear_multi_token_loss`; same options, same defaults."""

    def __init__(
        self,
        mtp_depth: int | None = None,
        mtp_lambda: Lambda = 0.3,
        denominator: Literal["tokens", "valid"] = "tokens",
        labels: Literal["aligned", "raw"] = "aligned",
        class_weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        softcap: float | None = None,
        scale: float = 1.0,
        chunk: int | None = None,
        drop_ignored: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(mtp_depth, mtp_lambda, denominator, labels, reduction)
        checked_form(label_smoothing, z_loss, softcap, reduction)
        check_cut(scale, chunk)
        super().__init__(
            mtp_depth=mtp_depth,
            mtp_lambda=mtp_lambda,
            denominator=denominator,
            labels=labels,
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            scale=scale,
            chunk=chunk,
            drop_ignored=drop_ignored,
            reduction=reduction,
        )

    def forward(
        self,
        hidden_list: Sequence[Tensor],
        weight: Tensor | Callable[[Tensor], Tensor],
        target: Tensor,
        *,
        bias: Tensor | None = None,
        document_ids: Tensor | None = None,
        sample_weight: Tensor | None = None,
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
            step=step,
            **self.options(),
        )
