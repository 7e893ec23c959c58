"""Deep supervision: one loss of outputs at several scales, each against the target of its size.

    total = sum over levels l of v[l] loss(outputs[l], target at the size of outputs[l])

with v = 1, 1/2, 1/4, ..., the last 0, over their sum: 0.5333, 0.2667, 0.1333, 0.0667, 0 of five.

Axes: outputs ``(N, C, *S_l)``, the finest first; target ``(N, *S)`` or ``(N, C, *S)``.
From: Lee et al. 2015, arXiv:1409.5185; the weights are those of nnU-Net, Isensee et al. 2021,
doi 10.1038/s41592-020-01008-z.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aptt.core.checks import check_choice, check_number, check_tensors
from aptt.core.module import reduced
from aptt.core.reduction import Kind, Normalizer, begin, hear

__all__ = ["DeepSupervisionLoss", "deep_supervision_loss", "deep_supervision_terms"]

Weights = Literal["halving", "equal"] | Sequence[float]
Resize = Literal["nearest", "area"]
Target = Tensor | Sequence[Tensor]


def deep_supervision_loss(
    outputs: Sequence[Tensor],
    target: Target,
    *,
    loss: Callable[..., Tensor],
    weight: Tensor | None = None,
    weights: Weights = "halving",
    drop_last: bool = True,
    resize: Resize = "nearest",
    ignore_index: int | None = -100,
    reduction: Literal["mean", "sum"] | Normalizer | None = None,
) -> Tensor:
    """A loss of outputs at several scales, weighted and summed.

        total = sum over levels l of v[l] loss(outputs[l], target at the size of outputs[l])

    Args:
        outputs: predictions ``(N, C, *S_l)`` at several sizes, the finest first.
        target: ``(N, *S)`` or ``(N, C, *S)``, of any dtype, resized to each output; or one for
            each output, as a data loader has made them.
        loss: of an output and a target: a function or a module, of this package or not.
        weight: ``(N, *S)``, a weight for each pixel, resized likewise and handed to ``loss``.
        weights: of the levels: ``"halving"``, 1, 1/2, 1/4, ... over their sum; ``"equal"``; or a
            number for each, as it is.
        drop_last: whether the coarsest of several has weight 0 in ``"halving"`` and ``"equal"``.
        resize: ``"nearest"``: the pixel in the middle of each cell, for any dtype, by index
            arithmetic; ``"area"``: the mean of a cell, which makes soft targets of class indices,
            and keeps what is thinner than a cell.
        ignore_index: of ``"area"``: the class index that is unknown. A cell has the shares of the
            pixels that are known, with their part of it as its weight. ``"nearest"`` passes it on.
        reduction: handed to ``loss``; a callable is told the term as ``"name/level1"``. None: the
            loss's own.

    Returns:
        The weighted sum, a scalar.

    Raises:
        ValueError: numbers of levels that differ, sizes that do not divide (``"area"``), an
            unknown option.

    The gradient goes to the outputs, with zeros for a level of weight 0: it is not computed, and
    its head takes part in the backward pass all the same, as data parallel training wants. Each
    level divides by its own count.

    Differs from:
        nnU-Net: its loader resizes targets, and 0 becomes 1e-6 under data parallel.
        MONAI ``DeepSupervisionLoss``: class indices of an integer dtype raise there; its halves end
            at 1/16 and are not divided by their sum.

    Example:
        >>> import torch
        >>> from torch.nn.functional import cross_entropy
        >>> outputs = [torch.zeros(1, 2, 4), torch.zeros(1, 2, 2), torch.zeros(1, 2, 1)]
        >>> target = torch.tensor([[0, 0, 1, 1]])
        >>> round(deep_supervision_loss(outputs, target, loss=cross_entropy).item(), 4)
        0.6931
    """
    check_choice("resize", resize, ("nearest", "area"))
    shares = level_weights(weights, len(outputs), drop_last=drop_last)
    at = _levels(outputs, target, loss, weight, resize, ignore_index, reduction)
    parts = [
        share * at(i) if share else output.flatten()[:0].sum()  # 0, with a gradient of zeros
        for i, (share, output) in enumerate(zip(shares, outputs, strict=True))
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def deep_supervision_terms(
    outputs: Sequence[Tensor],
    target: Target,
    *,
    loss: Callable[..., Tensor],
    weight: Tensor | None = None,
    resize: Resize = "nearest",
    ignore_index: int | None = -100,
    reduction: Literal["mean", "sum"] | Normalizer | None = None,
) -> dict[str, Tensor]:
    """The levels of :func:`deep_supervision_loss`, each before its weight.

    Args:
        outputs: predictions ``(N, C, *S_l)`` at several sizes, the finest first.
        target: as there.
        loss: as there.
        weight: as there.
        resize: as there.
        ignore_index: as there.
        reduction: as there.

    Returns:
        ``{"level0": ..., "level1": ...}``, the finest first.
    """
    check_choice("resize", resize, ("nearest", "area"))
    level_weights("equal", len(outputs), drop_last=False)
    at = _levels(outputs, target, loss, weight, resize, ignore_index, reduction)
    return {f"level{i}": at(i) for i in range(len(outputs))}


def level_weights(weights: Weights, levels: int, *, drop_last: bool) -> list[float]:
    """What each level weighs."""
    if not levels:
        raise ValueError("outputs: got none, wanted one for each level")
    if isinstance(weights, str):
        check_choice("weights", weights, ("halving", "equal"), also="a number for each level")
        each = [0.5**i if weights == "halving" else 1.0 for i in range(levels)]
        if drop_last and levels > 1:
            each[-1] = 0.0
        return [v / sum(each) for v in each]
    each = list(weights)
    if len(each) != levels:
        raise ValueError(f"weights: got {len(each)} for {levels} outputs, wanted one for each")
    for v in each:
        check_number("weights", v)
    return each


# ----------------------------------------------------------------------------- one level


def _levels(
    outputs: Sequence[Tensor],
    target: Target,
    loss: Callable[..., Tensor],
    weight: Tensor | None,
    resize: Resize,
    ignore_index: int | None,
    reduction: Any,
) -> Callable[[int], Tensor]:
    """What gives the loss of a level."""
    check_tensors(**{f"outputs[{i}]": output for i, output in enumerate(outputs)})
    ready = not isinstance(target, Tensor)
    if ready and len(target) != len(outputs):
        raise ValueError(
            f"target: got {len(target)} for {len(outputs)} outputs, wanted one for each, or one "
            "tensor to be resized"
        )

    def at(i: int) -> Tensor:
        output, mine, by = outputs[i], target, weight
        if isinstance(mine, Tensor):
            mine, by = resized(mine, by, output, resize, ignore_index)
        else:
            mine = mine[i]
            if by is not None:
                by = _nearest(by, tuple(mine.shape[mine.ndim - output.ndim + 2 :]))
        given: dict[str, Any] = {} if by is None else {"weight": by}
        called = loss
        if reduction is not None:
            how: Any = _Level(reduction, i) if callable(reduction) else reduction
            if isinstance(loss, nn.Module):
                called = reduced("loss", loss, how)
            else:
                given["reduction"] = how
        return called(output, mine, **given)

    return at


@dataclass(frozen=True)
class _Level:
    """A normalizer that is told of which level a term is."""

    reduction: Normalizer
    level: int

    def _named(self, term: str) -> str:
        return f"{term}/level{self.level}"

    def begin(self, count: Tensor, *, term: str) -> Any:
        return begin(self.reduction, count, self._named(term))

    def hear(self, kind: Kind, *, term: str, splits: bool = True) -> None:
        hear(self.reduction, kind, self._named(term), splits=splits)

    def __call__(self, total: Tensor, count: Any, *, term: str) -> Tensor:
        return self.reduction(total, count, term=self._named(term))


def resized(
    target: Tensor, weight: Tensor | None, output: Tensor, how: Resize, ignore_index: int | None
) -> tuple[Tensor, Tensor | None]:
    """A target, and the weights of its pixels, at the size of an output."""
    size = tuple(output.shape[2:])
    if output.ndim < 3 or target.ndim <= len(size):
        raise ValueError(
            f"target: got shape {tuple(target.shape)} for an output {tuple(output.shape)}, wanted "
            "(N, *S) or (N, C, *S), with as many axes of pixels as the output (N, C, *S)"
        )
    if tuple(target.shape[target.ndim - len(size) :]) == size:
        return target, weight
    if how == "nearest":
        return _nearest(target, size), None if weight is None else _nearest(weight, size)
    if target.ndim == output.ndim:
        mean = _mean(target, size)
        return mean, None if weight is None else _mean(weight, size)
    known = torch.ones_like(target, dtype=torch.bool)
    known = known if ignore_index is None else target != ignore_index
    part = known.to(output.dtype if weight is None else weight.dtype)
    part = part if weight is None else part * weight
    hot = torch.nn.functional.one_hot(torch.where(known, target, 0).long(), output.shape[1])
    shares = _mean(hot.movedim(-1, 1).to(part.dtype) * part.unsqueeze(1), size)
    some = _mean(part, size)
    shares = shares / torch.where(some > 0, some, 1.0).unsqueeze(1)
    return shares, some


def _nearest(t: Tensor, size: tuple[int, ...]) -> Tensor:
    """The pixel at the middle of each cell: ``floor((i + 1/2) n / m)``, in whole numbers."""
    for axis, m in zip(range(t.ndim - len(size), t.ndim), size, strict=True):
        n = t.shape[axis]
        if n != m:
            at = (2 * torch.arange(m, device=t.device) + 1) * n // (2 * m)
            t = t.index_select(axis, at)
    return t


def _mean(t: Tensor, size: tuple[int, ...]) -> Tensor:
    """The mean of each cell, where cells are of whole pixels."""
    first = t.ndim - len(size)
    t = t if t.is_floating_point() else t.to(torch.get_default_dtype())
    for axis, m in zip(range(first, t.ndim), size, strict=True):
        n = t.shape[axis]
        if m == 0 or n % m:
            raise ValueError(
                f"resize: got 'area' from {n} to {m} pixels, wanted a size that divides; "
                "resize='nearest' goes from any to any"
            )
        t = t.unflatten(axis, (m, n // m)).mean(axis + 1)
    return t


class DeepSupervisionLoss(nn.Module):
    """Module form of :func:`deep_supervision_loss`; same options, same defaults."""

    def __init__(
        self,
        loss: Callable[..., Tensor],
        weights: Weights = "halving",
        drop_last: bool = True,
        resize: Resize = "nearest",
        ignore_index: int | None = -100,
        reduction: Literal["mean", "sum"] | Normalizer | None = None,
    ) -> None:
        super().__init__()
        check_choice("resize", resize, ("nearest", "area"))
        if isinstance(weights, str):
            check_choice("weights", weights, ("halving", "equal"), also="a number for each level")
        self.loss = loss
        self.weights, self.drop_last, self.resize = weights, drop_last, resize
        self.ignore_index, self.reduction = ignore_index, reduction

    def _given(self) -> dict[str, Any]:
        return {
            "loss": self.loss,
            "resize": self.resize,
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
        }

    def forward(
        self, outputs: Sequence[Tensor], target: Target, *, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of ``outputs`` against ``target``."""
        levels: dict[str, Any] = {"weights": self.weights, "drop_last": self.drop_last}
        return deep_supervision_loss(outputs, target, weight=weight, **levels, **self._given())

    def terms(
        self, outputs: Sequence[Tensor], target: Target, *, weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The levels, each before its weight."""
        return deep_supervision_terms(outputs, target, weight=weight, **self._given())

    def extra_repr(self) -> str:
        """The options, by keyword."""
        held = {"weights": self.weights, "drop_last": self.drop_last, "resize": self.resize}
        return ", ".join(f"{name}={value!r}" for name, value in held.items())
