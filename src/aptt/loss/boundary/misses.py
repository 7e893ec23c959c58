"""What each pixel misses, at a cost: the formula that the losses of boundaries share.

    value = cost * miss**e        miss = 1 - p for a pixel of the class, and p for any other

Neither p nor 1 - p is a difference. With e = 1 that is ``cost |p - t|``, with e = 2 ``cost (p -
t)**2``.

Axes: logits ``(N, C, S)``; costs, sides and values like the logits; weights ``(N, 1, S)`` or like
them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.chances import Chances, of_sigmoid, of_softmax
from aptt.core.checks import (
    IgnoreIndex,
    Numbers,
    as_tensor,
    check_floating,
    check_numbers,
    check_positive,
    check_tensors,
)
from aptt.core.distance import Rim, signed_field
from aptt.core.formula import Formula, Kept
from aptt.core.masks import Mode, aligned, of_classes
from aptt.core.ordinary import is_readable
from aptt.core.precision import wide
from aptt.core.reduction import Count, Reduction, reduce
from aptt.core.regions import Absent, check_regions
from aptt.core.squares import through

__all__ = ["Masks", "Spacing", "as_spacing", "boundary_of", "check_maps", "masks", "missed"]

Spacing = float | Numbers
"""The size of a pixel: one length for all axes, one for each, or a row of them for each sample."""


# ------------------------------------------------------------------------------ the formula


def _result(
    x: Tensor, kept: Kept, cost: Tensor, own: Tensor, *, softmax: bool, square: bool
) -> Tensor:
    chances = of_softmax(x) if softmax else of_sigmoid(x)
    miss = torch.where(own, chances.no, chances.yes)
    return cost * (miss.square() if square else miss)


def _step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    cost: Tensor,
    own: Tensor,
    *,
    softmax: bool,
    square: bool,
) -> tuple[Tensor, Tensor]:
    # d value / d p = cost e miss**(e - 1), and its negative in the class
    chances: Chances = of_softmax(x) if softmax else of_sigmoid(x)
    miss = torch.where(own, chances.no, chances.yes)
    slope = torch.where(own, -cost, cost)
    slope = slope * (2 * miss) if square else slope
    value = cost * (miss.square() if square else miss)
    return value, through(chances, slope * up)


_MISSED = Formula(_result, _step)


# --------------------------------------------------------------------------- the prepared


class Masks(NamedTuple):
    """Logits ``(N, C, S)``, and what is known of their targets."""

    x: Tensor
    t: Tensor
    w: Tensor | None
    softmax: bool
    size: tuple[int, ...]
    """Of an image."""
    shape: torch.Size
    """Of the logits as they came."""

    def known(self) -> Tensor | None:
        """Which pixels count, ``(N, 1, *S)`` or like the field."""
        if self.w is None:
            return None
        w = self.w if self.w.ndim == 3 else self.w.unsqueeze(1)
        return (w != 0).view(*w.shape[:2], *self.size)

    def own(self) -> Tensor:
        """Which pixels each class has, ``(N, C, S)``."""
        if self.t.ndim == 3:
            own = self.t != 0
        else:
            own = (
                self.t.unsqueeze(1) == torch.arange(self.x.shape[1], device=self.t.device)[:, None]
            )
        known = self.known()
        return own if known is None else own & known.flatten(2)

    def field(self, spacing: Spacing | None, rim: Rim, cap: float | None) -> Tensor:
        """The distance to the boundary of each class, ``(N, C, S)``; 0 all over without one."""
        classes = self.x.shape[1] if self.t.ndim == 2 else None
        t = self.t.view(*self.t.shape[:-1], *self.size)
        return self.measured(t, classes, spacing, rim, cap)

    def measured(
        self, t: Tensor, classes: int | None, spacing: Spacing | None, rim: Rim, cap: float | None
    ) -> Tensor:
        """The same of other masks, or other classes."""
        each = as_spacing(spacing, len(self.x), len(self.size), self.x)
        dtype = wide(self.x.dtype)
        known = self.known()
        with torch.no_grad():
            field = signed_field(t, known, classes, each, rim=rim, cap=cap, dtype=dtype)
        return field.flatten(2).abs()

    def given(self, distance_map: Tensor, cap: float | None) -> Tensor:
        """The distances of a map from outside, of either sign, ``(N, C, S)``."""
        check_floating(distance_map=distance_map)
        check_tensors(logits=self.x, distance_map=distance_map)
        if distance_map.shape != self.shape:
            raise ValueError(
                f"distance_map: got shape {tuple(distance_map.shape)}, wanted that of the logits, "
                f"{tuple(self.shape)}: a distance for each class and pixel; signed_distance makes "
                "them"
            )
        far = distance_map.reshape(self.x.shape).to(wide(self.x.dtype)).abs()
        known = self.known()
        if known is not None:
            far = torch.where(known.flatten(2), far, 0.0)
        if is_readable(far) and not bool(far.isfinite().all()):
            raise ValueError("distance_map: got a number that is not finite, wanted distances")
        return far if cap is None else far.clamp(max=cap)


def masks(
    logits: Tensor, target: Tensor, mode: Mode, weight: Tensor | None, ignore_index: IgnoreIndex
) -> Masks:
    """The arguments, checked, as ``(N, C, S)``."""
    x, t, w = aligned(logits, target, mode, weight, ignore_index, hard=True)
    channel = 2 if mode != "binary" or logits.shape[1:2] == (1,) else 1
    size = tuple(logits.shape[channel:])
    if not size:
        raise ValueError(
            f"logits: got shape {tuple(logits.shape)}, without an axis of pixels; a distance wants "
            "one at least"
        )
    return Masks(x, t, w, mode == "multiclass", size, logits.shape)


def boundary_of(far: Tensor) -> Tensor:
    """Which classes have one, ``(N, C)``: a pixel outside is away from those inside."""
    return (far != 0).any(-1)


def missed(
    m: Masks,
    cost: Tensor,
    there: Tensor,
    class_weight: Tensor | None,
    *,
    background: bool,
    absent: Absent,
    reduction: Reduction,
    square: bool,
    term: str,
) -> Tensor:
    """The reduced loss, of costs that are 0 all over in a class that has no boundary ``there``."""
    if absent == "penalize":
        cost = torch.where(there.unsqueeze(-1), cost, 1.0)
    share = there if absent == "skip" else torch.ones_like(there)
    by = of_classes(class_weight, m.x)
    if by is not None:
        share, cost = share * by, cost * by.unsqueeze(-1)
    if not background:
        first = torch.arange(m.x.shape[1], device=m.x.device) == 0
        share, cost = share * ~first, cost.masked_fill(first[:, None], 0.0)
    w = m.w if m.w is None or m.w.ndim == 3 else m.w.unsqueeze(1)

    def count() -> Count:
        if w is None:
            return share.sum() * m.x.shape[2]
        return (share * w.to(cost.dtype).sum(-1)).sum()

    value = reduce(
        _MISSED,
        m.x,
        cost,
        m.own(),
        weight=w,
        count=count,
        reduction=reduction,
        term=term,
        softmax=m.softmax,
        square=square,
    )
    return value.reshape(m.shape) if reduction == "none" else value


# ------------------------------------------------------------------------------- the checks


def as_spacing(spacing: Spacing | None, samples: int, axes: int, like: Tensor) -> Tensor | None:
    """The size of a pixel as ``(1, D)``, or a row for each sample."""
    if spacing is None:
        return None
    held = as_tensor("spacing", spacing) if isinstance(spacing, Tensor) else spacing
    if not isinstance(held, Tensor):  # made on the host, which does not wait for it to arrive
        here = torch.empty(0, dtype=wide(like.dtype), device="cpu")
        made = as_tensor("spacing", held, here)
        held = made.to(like.device, non_blocking=like.device.type != "mps")
    check_tensors(logits=like, spacing=held)
    check_numbers(spacing=held)
    wanted = [(), (axes,), (samples, axes)]
    if tuple(held.shape) not in wanted:
        raise ValueError(
            f"spacing: got shape {tuple(held.shape)}, wanted one number, ({axes},) for the axes of "
            f"an image, or ({samples}, {axes}) for those of each sample"
        )
    if is_readable(held):
        low, high = (v.item() for v in held.detach().aminmax())
        if not (low > 0 and high < torch.inf):
            raise ValueError(f"spacing: got {low if low <= 0 else high}, wanted positive lengths")
    held = held.detach().to(wide(like.dtype))
    return held.expand(1, axes) if held.ndim < 2 else held


def check_maps(
    mode: str,
    background: bool,
    absent: str,
    reduction: Reduction,
    cap: float | None,
    spacing: Spacing | None,
    distance_map: Tensor | None,
) -> None:
    """Refuse options that are unknown, or that do not go together."""
    check_regions(
        mode, background, absent, "sample", reduction, policies=("skip", "zero", "penalize")
    )
    if cap is not None:
        check_positive("cap", cap)
    if distance_map is not None and spacing is not None:
        raise ValueError(
            "spacing: got one beside a distance_map, which has its own; wanted one of the two"
        )
