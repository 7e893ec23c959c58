"""Cross-entropy from the hidden states of a language model and the weight of its head.

    z     = scale * (hidden @ weight.T + bias)
    loss  = cross_entropy(z, target)

The logits of N tokens over a vocabulary of V are the largest tensor of training, N * V numbers, and
their gradient is another. Here they are made and used up a chunk at a time, and the products with
the weight are taken meanwhile: the result is that of the whole, the memory that of one chunk.

Axes: hidden ``(..., D)``; weight ``(V, D)``; bias ``(V,)``; target ``(...)``, or ``(..., V)`` soft.
From: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", ICLR 2025,
arXiv:2411.09009, eq. 1 to 3; the loss itself as in :mod:`aptt.loss.classification`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from aptt.core.checks import Numbers, check_flags, check_index
from aptt.core.linear import HeadFormula
from aptt.core.linear.tokens import check_cut, evaluate, put_back
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction, normalize
from aptt.core.vocabulary import checked_form
from aptt.loss.classification.indices import INDICES
from aptt.loss.classification.shares import SHARES
from aptt.loss.linear.prepared import prepared
from aptt.loss.linear.several import several
from aptt.loss.linear.terms import linear_cross_entropy_terms

__all__ = ["LinearCrossEntropyLoss", "linear_cross_entropy"]


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor | Callable[[Tensor], Tensor],
    target: Numbers,
    *,
    bias: Tensor | None = None,
    sample_weight: Numbers | None = None,
    class_weight: Numbers | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_adjustment: Numbers | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    drop_ignored: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy from hidden states and the weight of the head.

        loss = cross_entropy(scale * (hidden @ weight.T + bias), target)

    Args:
        hidden: ``(..., D)``, any floating dtype.
        weight: ``(V, D)``, the head's weight, tied to an embedding or not; or a callable that makes
            the logits ``(n, V)`` of hidden states ``(n, D)``, such as a head wrapped by LoRA. Heads
            that share the hidden states may come as one weight ``(V, d_1, ..., d_K, D)``: targets,
            sample weights and values are then ``(..., d_1, ..., d_K)``, the bias like the weight.
        target: ``(...)`` class indices of any integer dtype, or ``(..., V)`` soft targets.
        bias: ``(V,)``; -inf masks a class.
        sample_weight: ``(...)``, one weight a token; multiplies and is counted, and 0 removes.
        class_weight: ``(V,)``; multiplies and is counted.
        ignore_index: the class index that removes its token; None: none does.
        label_smoothing: the share of the target's mass spread evenly over the classes. In [0, 1].
        z_loss: the factor of ``logsumexp(z)**2``.
        softcap: bounds the logits, scaled before, to ``(-softcap, softcap)``.
        logit_adjustment: ``(V,)``, added to the logits in training.
        scale: multiplies the logits; a temperature divides.
        chunk: tokens in a chunk; None: at least 64, and on a CPU so many that their logits take
            nearly a quarter of the memory of ``weight``, elsewhere D, at most 4096.
        drop_ignored: leave tokens that are removed out of the products: their share of the time is
            saved for one wait for the device. While compiling they are set to 0 and multiplied.
        reduction: ``"mean"`` over the sum of the weights that took part, ``"sum"``, ``"none"``, or
            a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` one value a token. float32 for half
        types.

    Raises:
        ValueError: shapes that do not fit, a class out of range (on CPU), an unknown option.
        TypeError: a weight that is neither a tensor nor callable.

    The gradient goes to ``hidden``, ``weight``, ``bias`` and a callable's parameters, each only if
    it asks for it; summed in float32, rounded once (a callable's in its parameters' dtype, chunk
    by chunk: in bfloat16, larger chunks lose less). Soft targets, weights and adjustments that ask
    for one get it through checkpointed chunks. The logits exist whole inside ``torch.func`` alone.

    Use when:
        The vocabulary is large: from some 10,000 classes on, the memory of the logits decides the
        batch size. For small ones :func:`cross_entropy` is quicker.

    Elsewhere:
        torch 2.13 ``F.linear_cross_entropy``, Liger ``LigerFusedLinearCrossEntropyLoss``, Apple
        ``cut_cross_entropy``, torchtune ``LinearCrossEntropyLoss``.

    Differs from:
        torch: float32 loss and float32 sums over chunks, so the result does not depend on their
            number; smoothing, soft targets and any leading shape stay in chunks, where torch falls
            back to all the logits; several heads too, one at a time, whose soft targets have their
            classes last here, and second there; nothing to average gives 0, not NaN.
        Liger: any upstream gradient is right, given twice too; a frozen hidden state leaves the
            weight its gradient; every device.
        torchtune: the memory is saved in the forward pass too; nothing ignored is multiplied.

    Example:
        >>> import torch
        >>> hidden, weight = torch.eye(3), 2 * torch.eye(3)
        >>> round(linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 2])).item(), 4)
        0.2395
    """
    form = checked_form(label_smoothing, z_loss, softcap, reduction)
    if isinstance(weight, Tensor) and weight.ndim > 2:
        return several(
            linear_cross_entropy,
            hidden,
            weight,
            target,
            bias=bias,
            sample_weight=sample_weight,
            class_weight=class_weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            logit_adjustment=logit_adjustment,
            scale=scale,
            chunk=chunk,
            drop_ignored=drop_ignored,
            reduction=reduction,
        )
    given = prepared(
        hidden,
        weight,
        target,
        bias,
        sample_weight,
        class_weight,
        ignore_index,
        logit_adjustment,
        scale,
        chunk,
        drop_ignored,
    )
    value = evaluate(
        _SHARES if given.soft else _INDICES,
        given.tokens,
        given.target,
        gather="values" if reduction == "none" else "total",
        weight=given.rows,
        class_weight=given.class_weight,
        adjustment=given.adjustment,
        form=form,
    )
    if reduction == "none":
        return put_back(value, given.chosen, given.tokens.shape)
    return normalize(value, given.counted(value.dtype), reduction, term="cross_entropy")


_INDICES = HeadFormula("cross_entropy", INDICES, cross_entropy=True)
_SHARES = HeadFormula("cross_entropy of shares", SHARES)


class LinearCrossEntropyLoss(LossModule):
    """Module form of :func:`linear_cross_entropy`; same options, same defaults.

    It holds no head: hidden states and the head's weight come with each call, so that a weight tied
    to an embedding stays one parameter. ``loss_fn.terms(...)`` gives what
    :func:`linear_cross_entropy_terms` does.
    """

    terms_function = staticmethod(linear_cross_entropy_terms)

    def __init__(
        self,
        class_weight: Numbers | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        softcap: float | None = None,
        logit_adjustment: Numbers | None = None,
        scale: float = 1.0,
        chunk: int | None = None,
        drop_ignored: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        checked_form(label_smoothing, z_loss, softcap, reduction)
        check_cut(scale, chunk)
        check_flags(drop_ignored=drop_ignored)
        check_index(ignore_index=ignore_index)
        super().__init__(
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            logit_adjustment=per_class(logit_adjustment, "logit_adjustment", signed=True),
            scale=scale,
            chunk=chunk,
            drop_ignored=drop_ignored,
            reduction=reduction,
        )

    def forward(
        self,
        hidden: Tensor,
        weight: Tensor | Callable[[Tensor], Tensor],
        target: Numbers,
        *,
        bias: Tensor | None = None,
        sample_weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``hidden`` under the head's ``weight`` against ``target``."""
        return linear_cross_entropy(
            hidden, weight, target, bias=bias, sample_weight=sample_weight, **self.options()
        )
