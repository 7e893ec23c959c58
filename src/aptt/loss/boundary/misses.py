"""What each pixel misses, at a price: the formula that the losses of boundaries share.

    value = |price| miss**e        miss = p where the price is above 0, and 1 - p where it is below

So one map says what a pixel is and what it costs: below 0 it is of the class. Neither p nor 1 - p
is a difference. With e = 1 that is ``|price| |p - t|``, with e = 2 ``|price| (p - t)**2``.

Axes: logits ``(N, C, S)``; prices and values like the logits; weights ``(N, 1, S)`` or like them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.chances import Chances, apart, of_sigmoid, of_softmax
from aptt.core.checks import Numbers, check_floating, check_numbers, check_positive, check_tensors
from aptt.core.distance import Rim, signed_field
from aptt.core.formula import Formula, Kept, wide
from aptt.core.memory import brought
from aptt.core.ordinary import is_readable
from aptt.core.reduction import Count, Reduction, reduce
from aptt.core.regions import Absent, Mode, aligned, check_regions, class_weight

__all__ = ["Masks", "Spacing", "as_spacing", "check_maps", "masks", "missed"]

Spacing = float | Numbers
"""The size of a pixel: one length for all axes, one for each, or a row of them for each sample."""


# ------------------------------------------------------------------------------ the formula


def _result(x: Tensor, kept: Kept, price: Tensor, *, softmax: bool, square: bool) -> Tensor:
    if softmax:
        chances = of_softmax(x)
        miss = torch.where(price < 0, chances.no, chances.yes)
    else:
        miss = torch.sigmoid(price.sign() * x)
    return price.abs() * (miss.square() if square else miss)


def _step(
    x: Tensor, up: Tensor | float, kept: Kept, price: Tensor, *, softmax: bool, square: bool
) -> tuple[Tensor, Tensor]:
    # d value / d p = price e miss**(e - 1), either side of 0; call it u.
    # Through a sigmoid, d p / d x = p (1 - p), by the smaller of the two. Through a softmax,
    # d loss / d z[c] = p[c] (u[c] (1 - p[c]) - sum of p u over the others).
    chances: Chances = of_softmax(x) if softmax else of_sigmoid(x)
    miss = torch.where(price < 0, chances.no, chances.yes)
    slope = price * (2 * miss) if square else price
    value = price.abs() * (miss.square() if square else miss)
    dx = slope * up * chances.yes
    if chances.high is None:
        return value, dx.mul_(chances.no)
    below, above = apart(dx, chances.high)
    others = below + (above - dx)
    return value, dx.mul_(chances.no).addcmul_(chances.yes, others, value=-1)


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
        """The signed distance to the boundary of each class, ``(N, C, S)``."""
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
        return field.flatten(2)

    def given(self, distance_map: Tensor, cap: float | None) -> Tensor:
        """A map from outside, of either sign, ``(N, C, S)``: below 0 in its class."""
        check_floating(distance_map=distance_map)
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
        far = far if cap is None else far.clamp(max=cap)
        return torch.where(self.own(), -far, far)


def masks(
    logits: Tensor, target: Tensor, mode: Mode, weight: Tensor | None, ignore_index: int | None
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


def missed(
    m: Masks,
    price: Tensor,
    by_class: Tensor | None,
    *,
    background: bool,
    absent: Absent,
    reduction: Reduction,
    square: bool,
    term: str,
) -> Tensor:
    """The reduced loss, of prices that are 0 all over in a class without a boundary."""
    there = (price != 0).any(-1)  # a pixel outside is away from those inside
    if absent == "penalize":
        full = m.own().any(-1, keepdim=True)
        price = torch.where(there.unsqueeze(-1), price, torch.where(full, -1.0, 1.0).to(price))
    share = there if absent == "skip" else torch.ones_like(there)
    by = class_weight(by_class, m.x)
    if by is not None:
        share = share * by
        price = price * by.unsqueeze(-1)
    if not background:
        first = torch.arange(m.x.shape[1], device=m.x.device) == 0
        share, price = share * ~first, price.masked_fill(first[:, None], 0.0)
    w = m.w if m.w is None or m.w.ndim == 3 else m.w.unsqueeze(1)

    def count() -> Count:
        if w is None:
            return share.sum() * m.x.shape[2]
        return (share * w.to(price.dtype).sum(-1)).sum()

    value = reduce(
        _MISSED,
        m.x,
        price,
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
    held = spacing if isinstance(spacing, Tensor) else brought(spacing, like, wide(like.dtype))
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
