"""Cross-entropy: the negative log-probability of the right class.

    nll   = -log softmax(z)[y] = logsumexp(z) - z[y]
    loss  = (1 - e) * w[y] * nll + (e / C) * sum_c w[c] * (logsumexp(z) - z[c])
            + w[y] * z_loss * logsumexp(z)**2
    z     = logits, or softcap * tanh(logits / softcap), plus logit_adjustment

and its form for independent yes-or-no questions:

    bce   = -(pos_weight * t * log sigmoid(x) + (1 - t) * log sigmoid(-x))

Axes: logits ``(N, C, ...)`` or ``(..., C)``; target the same without C, or of the same shape.
From: label smoothing e, Szegedy et al. 2016, arXiv:1512.00567, section 7; z-loss, Chowdhery et al.
2022 (PaLM), arXiv:2204.02311, section 5; softcap, Gemma Team 2024, arXiv:2408.00118, section 2;
logit adjustment, Menon et al. 2021, arXiv:2007.07314, eq. 10.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_factor,
    check_floating,
    check_index,
    check_number,
    check_range,
    kept,
    taken_classes,
)
from aptt.core.formula import Formula, Kept, Product, by_row, scaled_, wide, widen
from aptt.core.logistic import (
    answer,
    finite,
    infinite_,
    nll,
    sign,
    softplus,
    softplus_slope,
    times,
)
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Count, Reduction, check_reduction, count_of, reduce
from aptt.core.shapes import (
    align_classes,
    align_elements,
    check_sample_weight,
    check_vector,
    one_or_each,
)
from aptt.core.softmax import (
    exp_of_gaps,
    gaps,
    leading,
    on_class_axis,
    others,
    put_class_,
)
from aptt.core.vocabulary import (
    Form,
    Held,
    Stats,
    cap,
    checked_form,
    finish,
    held_loss,
    held_slope,
    hold,
    measure,
    slope,
    uncap,
)
from aptt.loss.focal import FocalLoss

__all__ = [
    "BinaryCrossEntropyLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "binary_cross_entropy",
    "cross_entropy",
]


def cross_entropy(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    sample_weight: Numbers | None = None,
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
            or soft targets, floating and shaped like the logits.
        weight: ``(C,)``, one weight per class; multiplies and is counted.
        sample_weight: shaped like class indices; multiplies and is counted, and 0 removes.
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
        ValueError: shapes that do not fit, a single class, a class out of range or a weight that is
            negative or infinite (both on CPU), an unknown option.
        TypeError: floating targets where class indices are meant.

    The gradient goes to ``logits``, and to soft targets, weights or adjustment that ask for it.

    Use when:
        One of C classes is right: language models, image classification, segmentation. For long
        tails add ``logit_adjustment``; for many easy examples see :func:`focal_loss`.

    Elsewhere:
        torch ``F.cross_entropy``, optax ``softmax_cross_entropy_with_integer_labels``, Liger
        ``LigerCrossEntropyLoss``.

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
    check_index(ignore_index=ignore_index, class_dim=class_dim)
    x, y, soft, shape = align_classes(logits, target, class_dim)
    dtype = wide(x.dtype)
    class_weight = None if weight is None else check_vector("weight", weight, x)
    adjustment = logit_adjustment
    if adjustment is not None:
        adjustment = check_vector("logit_adjustment", adjustment, x, signed=True)
    keep = None
    if soft:
        if ignore_index not in (-100, None):
            raise ValueError(f"ignore_index: got {ignore_index} with soft targets, which have none")
    else:
        y, keep = taken_classes(y, x.shape[1], ignore_index)
    rows = keep
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, shape, logits=logits)
        rows = sample_weight.reshape(len(x), *x.shape[2:]).to(dtype)
        rows = rows if keep is None else torch.where(keep, rows, 0.0)
    loss = reduce(
        SHARES if soft else INDICES,
        x,
        y,
        weight=rows,
        weight_name="sample_weight",
        count=lambda: counted(y, class_weight, rows, soft=soft, dtype=dtype),
        reduction=reduction,
        term="cross_entropy",
        class_weight=class_weight,
        adjustment=adjustment,
        form=form,
    )
    return loss.reshape(shape) if reduction == "none" else loss


def counted(
    y: Tensor,
    class_weight: Tensor | None,
    rows: Tensor | None,
    *,
    soft: bool,
    dtype: torch.dtype,
) -> Count:
    """What the mean divides by: the class weights that took part, by index or by share."""
    if not soft and class_weight is None:
        return count_of(y, rows)
    if soft:
        mass = y.to(dtype)
        if class_weight is not None:
            mass = mass * on_class_axis(class_weight, y)
        mass = mass.sum(1)
    else:
        assert class_weight is not None
        mass = class_weight[y]
    return mass.sum() if rows is None else (torch.where(rows != 0, mass, 0) * rows).sum()


def _hard_stats(
    x: Tensor, y: Tensor, *, class_weight: Tensor | None, adjustment: Tensor | None, form: Form
) -> Kept:
    z, shift = _logits(x, adjustment, form)
    stats = measure(z, y, class_weight=class_weight, form=form)
    return (*(t for t in stats if t is not None), *(() if shift is None else (shift,)))


def _known(kept: Kept, adjustment: Tensor | None) -> tuple[Stats, Tensor | None]:
    """The statistics, and what was taken off the logits before they were measured."""
    return (Stats(*kept), None) if adjustment is None else (Stats(*kept[:-1]), kept[-1])


def _hard_result(
    x: Tensor,
    kept: Kept,
    y: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> Tensor:
    stats, shift = _known(kept, adjustment)
    return finish(stats, _of_row(class_weight, y), form=form, shift=shift)


def _hard_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> tuple[None, Tensor]:
    z, _ = _logits(x, adjustment, form)
    stats, shift = _known(kept, adjustment)
    scale = _of_row(class_weight, y)
    dz = slope(z, y, stats, by_row(up), scale, class_weight=class_weight, form=form, shift=shift)
    return None, uncap(dz, x, form)


def _held_stats(
    x: Tensor, y: Tensor, *, class_weight: Tensor | None, adjustment: Tensor | None, form: Form
) -> Kept:
    z, shift = _logits(x, adjustment, form)
    held = hold(z, y, class_weight=class_weight, form=form)
    if shift is not None and held.lse is not None:
        held = held._replace(lse=shift + held.lse)
    return tuple(t for t in held if t is not None)


def _held_result(
    x: Tensor,
    kept: Kept,
    y: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> Tensor:
    held = Held.of(kept, weighted=class_weight is not None, form=form)
    return held_loss(held, _of_row(class_weight, y), form=form)


def _held_step(
    x: Tensor,
    up: Tensor,
    kept: Kept,
    y: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> tuple[None, Tensor | Product]:
    z = x if form.smoothing is None else _logits(widen(x), adjustment, form)[0]
    held = Held.of(kept, weighted=class_weight is not None, form=form)
    scale = _of_row(class_weight, y)
    dz = held_slope(held, z, y, by_row(up), scale, class_weight=class_weight, form=form)
    if form.softcap is None:
        return None, dz
    x = widen(x)
    return None, uncap(dz.of(x.dtype) if isinstance(dz, Product) else dz, x, form)


def _of_row(class_weight: Tensor | None, y: Tensor) -> Tensor | None:
    """The weight of each row's class."""
    return None if class_weight is None else class_weight[y].unsqueeze(1)


def _soft_stats(
    x: Tensor, t: Tensor, *, class_weight: Tensor | None, adjustment: Tensor | None, form: Form
) -> Kept:
    z, shift = _logits(x, adjustment, form)
    lead = leading(z)
    kept = lead.at, lead.top, lead.rest
    return kept if shift is None else (*kept, shift)


def _soft_result(
    x: Tensor,
    kept: Kept,
    t: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> Tensor:
    (z, _), (at, top, rest, *shift) = _logits(x, adjustment, form), kept
    mass = t if class_weight is None else t * on_class_axis(class_weight, z)
    goal = mass if form.smoothing is None else _smoothed(mass, z, class_weight, form)
    level = rest.log1p()
    gap = level - gaps(z, top, at)
    gap = torch.where((z > -torch.inf) | (t != 0), gap, 0.0)  # a masked class that is not asked for
    loss = (goal * gap).sum(1)
    if form.z_loss is not None:
        lse = sum(shift, top + level).squeeze(1)
        loss = loss + form.z_loss * mass.sum(1) * lse.square()
    return loss


def _soft_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> tuple[Tensor | None, Tensor]:
    # d loss / d z[c] = (sum of goal + extra) p[c] - goal[c], of which at the largest logit
    # extra + sum of goal over the others - (sum of goal + extra) (1 - p)
    (z, _), (at, top, rest, *shift) = _logits(x, adjustment, form), kept
    mass = t if class_weight is None else t * on_class_axis(class_weight, z)
    goal = mass if form.smoothing is None else _smoothed(mass, z, class_weight, form)
    own, largest = others(goal, at)
    every = own + largest
    if form.z_loss is not None:
        lse = sum(shift, top + rest.log1p())
        extra = (2 * form.z_loss) * mass.sum(1, keepdim=True) * lse
        own, every = own + extra, every + extra
    share = every / (1 + rest)
    dz = exp_of_gaps(z - top).mul_(share).sub_(goal)
    return None, uncap(put_class_(dz, at, own - rest * share).mul_(by_row(up)), x, form)


INDICES = Formula(
    _hard_result,
    _hard_step,
    _hard_stats,
    block=2**19,
    in_one=Formula(_held_result, _held_step, _held_stats, rereads=False),
)
SHARES = Formula(_soft_result, _soft_step, _soft_stats, block=2**19)


def _smoothed(mass: Tensor, z: Tensor, class_weight: Tensor | None, form: Form) -> Tensor:
    """The target with its share spread over the classes; none goes to those masked by -inf."""
    assert form.smoothing is not None
    open = (z > -torch.inf).to(z.dtype)
    spread = open * (form.smoothing / open.sum(1, keepdim=True).clamp(min=1))
    if class_weight is not None:
        spread = spread * on_class_axis(class_weight, z)
    return (1 - form.smoothing) * mass + spread


def _logits(x: Tensor, adjustment: Tensor | None, form: Form) -> tuple[Tensor, Tensor | None]:
    """The logits that count, less a shift per row that lets small adjustments of large ones in."""
    z = cap(x, form)
    if adjustment is None:
        return z, None
    shift = z.detach().amax(1, keepdim=True)
    return (z - shift) + on_class_axis(adjustment, z), shift


class CrossEntropyLoss(LossModule):
    """Module form of :func:`cross_entropy`; same options, same defaults.

    The class weights and the adjustment are buffers, and live in the ``state_dict``.

    Example:
        >>> import torch
        >>> loss_fn = CrossEntropyLoss(label_smoothing=0.1)
        >>> round(loss_fn(torch.zeros(2, 4), torch.tensor([1, -100])).item(), 4)
        1.3863
    """

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


def binary_cross_entropy(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    pos_weight: float | Numbers | None = None,
    label_smoothing: float = 0.0,
    ignore_index: float | None = None,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross-entropy of independent yes-or-no questions, from logits.

        loss = -(pos_weight * t * log sigmoid(x) + (1 - t) * log sigmoid(-x))

    Args:
        logits: any shape, any floating dtype.
        target: the same shape, in [0, 1]: bool, integer or floating.
        weight: the same shape; multiplies and is counted, and 0 removes the element.
        pos_weight: factor of the positive part, at least 0; only multiplies. One number for all,
            in a tensor or not, or ``(C,)`` along the class axis, the last one of a matrix.
        label_smoothing: moves targets towards 1/2: ``t (1 - e) + e / 2``. In [0, 1].
        ignore_index: the target value that removes its element.
        class_dim: the class axis that ``pos_weight`` runs along, where there are over two axes.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the logits. float32 for
        half types.

    Raises:
        ValueError: shapes that differ, targets out of [0, 1] or weights that are negative or
            infinite (both on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it.

    Use when:
        Labels do not exclude each other, or there is one: multilabel tagging, masks, matching.

    Elsewhere:
        torch ``F.binary_cross_entropy_with_logits``, optax ``sigmoid_binary_cross_entropy``.

    Differs from:
        torch: ``weight`` is counted in the mean; integer and bool targets are taken; exact for
            confident answers in float32, where torch's form cancels.

    Example:
        >>> import torch
        >>> logits = torch.tensor([0.0, 2.0, -2.0])
        >>> round(binary_cross_entropy(logits, torch.tensor([1, 1, 0])).item(), 4)
        0.3157
    """
    _check_binary_options(label_smoothing, class_dim, reduction)
    check_floating(logits=logits)
    if pos_weight is not None:
        pos_weight = one_or_each("pos_weight", pos_weight, logits)
        if isinstance(pos_weight, Tensor):
            pos_weight = pos_weight.to(wide(logits.dtype))
    classes = isinstance(pos_weight, Tensor) and pos_weight.ndim > 0
    x, t, w = align_elements(logits, target, weight, by_class=classes, class_dim=class_dim)
    if isinstance(pos_weight, Tensor) and classes:
        pos_weight = on_class_axis(check_vector("pos_weight", pos_weight, x, signed=True), x)
    if ignore_index is not None:
        keep = kept(t, ignore_index)
        t = torch.where(keep, t, 0)
        w = keep if w is None else torch.where(keep, w, 0)
    check_range(t, 0, 1, keep=None if w is None else w != 0)
    loss = reduce(
        _BINARY,
        x,
        t,
        weight=w,
        count=lambda: count_of(t, w),
        reduction=reduction,
        term="binary_cross_entropy",
        pos_weight=pos_weight,
        smoothing=label_smoothing or None,
    )
    return loss.reshape(logits.shape) if reduction == "none" else loss


def _binary_result(
    x: Tensor, kept: Kept, t: Tensor, *, pos_weight: Tensor | float | None, smoothing: float | None
) -> Tensor:
    yes = _yes(t, x, smoothing)
    if pos_weight is not None:
        # of softplus(-x) = softplus(x) - x the smaller one is taken twice: then the slope along t
        # has no difference of the two
        yes, one, high = yes.to(x.dtype), x.new_ones(()), x > 0
        far = times(torch.where(high, 1 - yes, -pos_weight * yes), x)
        price = torch.lerp(one, pos_weight * one, yes)
        return far + price * softplus(torch.where(high, -x, x))
    if yes.is_floating_point():
        return nll(x, yes)
    return softplus(sign(yes.to(x.dtype)) * x)


def _binary_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    *,
    pos_weight: Tensor | float | None,
    smoothing: float | None,
) -> tuple[Tensor, Tensor]:
    yes = _yes(t, x, smoothing)
    if pos_weight is not None:
        # (1 - t) sigmoid(x) - pos_weight t sigmoid(-x): no difference of numbers near 1
        v = _binary_result(x, kept, t, pos_weight=pos_weight, smoothing=smoothing)
        yes = yes.to(x.dtype)
        no = (1 - yes) * torch.sigmoid(x)
        return v, scaled_(no.sub_(pos_weight * yes * torch.sigmoid(-x)), up)
    if yes.is_floating_point():
        said = answer(x, yes)
        return infinite_(said.nll), scaled_(said.error, up)
    turn = sign(yes.to(x.dtype))
    wrong = turn * x
    return softplus(wrong), scaled_(turn.mul_(torch.sigmoid(wrong)), up)


def _binary_step_in_one(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    *,
    pos_weight: Tensor | float | None,
    smoothing: float | None,
) -> tuple[Tensor, Tensor]:
    # by exponentials and logarithms as they come, which cost no memory traffic
    yes = _yes(t, x, smoothing)
    if pos_weight is not None:
        return _binary_step(x, up, kept, t, pos_weight=pos_weight, smoothing=smoothing)
    if not yes.is_floating_point():
        turn = x.new_ones(()).add(yes, alpha=-2)
        wrong = turn * x
        return softplus(wrong), scaled_(softplus_slope(wrong, turn), up)
    x = finite(x)
    no = -x
    v = infinite_(torch.lerp(softplus(x), softplus(no), yes))
    return v, scaled_(torch.lerp(x.sigmoid_(), no.sigmoid_().neg_(), yes), up)


def _yes(t: Tensor, x: Tensor, smoothing: float | None) -> Tensor:
    """The share of yes in each answer; an answer that is an integer or a bool stays one."""
    return t if smoothing is None else t.to(x.dtype) * (1 - smoothing) + smoothing / 2


_BINARY = Formula(
    _binary_result,
    _binary_step,
    ahead=True,
    block=2**17,
    in_one=Formula(_binary_result, _binary_step_in_one, ahead=True),
)


def _check_binary_options(
    label_smoothing: float, class_dim: int | None, reduction: Reduction
) -> None:
    check_reduction(reduction)
    check_index(class_dim=class_dim)
    check_number("label_smoothing", label_smoothing, 0.0, 1.0)


class BinaryCrossEntropyLoss(LossModule):
    """Module form of :func:`binary_cross_entropy`; same options, same defaults."""

    def __init__(
        self,
        pos_weight: float | Numbers | None = None,
        label_smoothing: float = 0.0,
        ignore_index: float | None = None,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_binary_options(label_smoothing, class_dim, reduction)
        if pos_weight is not None:
            pos_weight = as_factor("pos_weight", pos_weight)
        super().__init__(
            pos_weight=pos_weight,
            label_smoothing=label_smoothing,
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return binary_cross_entropy(logits, target, weight=weight, **self.options())
