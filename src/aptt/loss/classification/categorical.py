"""Cross-entropy: the negative log-probability of the right class.

    nll   = -log softmax(z)[y] = logsumexp(z) - z[y]
    loss  = (1 - e) * w[y] * nll + (e / C) * sum_c w[c] * (logsumexp(z) - z[c])
            + w[y] * z_loss * logsumexp(z)**2
    z     = logits, or softcap * tanh(logits / softcap), plus logit_adjustment

Axes: logits ``(N, C, ...)`` or ``(..., C)``; target the same without C, or of the same shape.
From: label smoothing e, Szegedy et al. 2016, arXiv:1512.00567, section 7; z-loss, Chowdhery et al.
2022 (PaLM), arXiv:2204.02311, section 5; softcap, Gemma Team 2024, arXiv:2408.00118, section 2;
logit adjustment, Menon et al. 2021, arXiv:2007.07314, eq. 10.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers, check_index
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction, reduce
from aptt.core.vocabulary import Form, checked_form
from aptt.loss.classification.indices import INDICES, NLL
from aptt.loss.classification.prepared import prepared
from aptt.loss.classification.shares import SHARES
from aptt.loss.classification.terms import cross_entropy_terms

__all__ = ["CrossEntropyLoss", "cross_entropy"]


def cross_entropy(
    logits: Tensor,
    target: Numbers,
    *,
    sample_weight: Numbers | None = None,
    weight: Numbers | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_adjustment: Numbers | None = None,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy over classes, from logits.

        nll  = logsumexp(z) - z[y]
        loss = (1 - e) * w[y] * nll + (e / C) * sum_c w[c] * (logsumexp(z) - z[c])
               + w[y] * z_loss * logsumexp(z)**2

    Args:
        logits: ``(N, C, ...)`` or ``(..., C)``, any floating dtype; -inf masks a class. Two
            classes or more.
        target: class indices of any integer dtype, shaped like the logits without the class axis;
            or soft targets, floating and shaped like the logits: shares of at least 0. What those
            of a position add up to, 1 as a rule, is what the position weighs.
        sample_weight: shaped like class indices; multiplies and is counted, and 0 removes.
        weight: ``(C,)``, one weight per class; multiplies and is counted.
        ignore_index: the class index that removes its position; None: nothing is ignored.
        label_smoothing: the share of the target's mass spread evenly over the classes, those
            masked by -inf left out. In [0, 1].
        z_loss: the factor of ``logsumexp(z)**2``, which keeps the normaliser near 0.
        softcap: bounds the logits to ``(-softcap, softcap)``; a class masked by -inf stays masked.
        logit_adjustment: ``(C,)``, added to the logits in training: ``tau * log(prior)`` for
            classes that are rare in training and count equally in use.
        class_dim: the class axis, where the shapes leave it open.
        reduction: ``"mean"`` over the sum of the weights that took part, ``"sum"``, ``"none"``, or
            a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0 (with softcap, smoothing or adjustment its minimum is above 0): a
        scalar, or with ``"none"`` one value per position. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, a single class, a class out of range, a share or a
            weight that is negative or infinite (all on CPU), an unknown option.
        TypeError: floating targets where class indices are meant.

    The gradient goes to ``logits``, and to soft targets, weights or adjustment that ask for it.

    Use when:
        One of C classes is right: language models, image classification, segmentation. For long
        tails add ``logit_adjustment``; for many easy examples see :func:`focal_loss`; for the
        hardest positions alone, with all options of this one, :func:`top_k_cross_entropy_loss`.

    Elsewhere:
        torch ``F.cross_entropy``, ``nn.NLLLoss`` of a log-softmax; optax
        ``softmax_cross_entropy_with_integer_labels``, Liger ``LigerCrossEntropyLoss``.

    Differs from:
        torch: the same numbers, except that nothing to average gives 0, not NaN; the loss of half
            logits is float32; a soft target's mean divides by its class-weighted mass, so that
            one-hot equals index; classes masked by -inf take no smoothing. A single logit is
            refused, where a softmax is always 1 and torch's loss 0: a yes or no is
            :func:`binary_cross_entropy`.
        Liger: the z-loss is multiplied by the class weight like the rest of its row.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
        >>> round(cross_entropy(logits, torch.tensor([0, 1])).item(), 4)
        0.1672
    """
    form = checked_form(label_smoothing, z_loss, softcap, reduction)
    given = prepared(
        logits, target, sample_weight, weight, ignore_index, logit_adjustment, class_dim
    )
    plain = form == Form() and given.class_weight is None and given.adjustment is None
    loss = reduce(
        SHARES if given.soft else NLL if plain else INDICES,
        given.logits,
        given.target,
        weight=given.rows,
        weight_name="sample_weight",
        count=given.counted,
        reduction=reduction,
        term="cross_entropy",
        class_weight=given.class_weight,
        adjustment=given.adjustment,
        form=form,
    )
    return loss.reshape(given.shape) if reduction == "none" else loss


class CrossEntropyLoss(LossModule):
    """Module form of :func:`cross_entropy`; same options, same defaults.

    The class weights and the adjustment are buffers, and live in the ``state_dict``.
    ``loss_fn.terms(...)`` gives what :func:`cross_entropy_terms` does.

    Example:
        >>> import torch
        >>> loss_fn = CrossEntropyLoss(label_smoothing=0.1)
        >>> round(loss_fn(torch.zeros(2, 4), torch.tensor([1, -100])).item(), 4)
        1.3863
    """

    terms_function = staticmethod(cross_entropy_terms)

    def __init__(
        self,
        weight: Numbers | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        softcap: float | None = None,
        logit_adjustment: Numbers | None = None,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        checked_form(label_smoothing, z_loss, softcap, reduction)
        check_index(ignore_index=ignore_index, class_dim=class_dim)
        super().__init__(
            weight=per_class(weight),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            logit_adjustment=per_class(logit_adjustment, "logit_adjustment", signed=True),
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(
        self, logits: Tensor, target: Numbers, *, sample_weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return cross_entropy(logits, target, sample_weight=sample_weight, **self.options())
