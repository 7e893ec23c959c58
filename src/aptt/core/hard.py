"""A divergence from a teacher, with the cross-entropy of hard targets beside it.

Sides are the teacher's logits, class indices or None, and which classes the teacher tells of.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core import vocabulary
from aptt.core.chosen import SOFT_CHOSEN
from aptt.core.divergence import SOFT, Form
from aptt.core.formula import Formula, Kept, Product, by_row
from aptt.core.held import hold
from aptt.core.standard import SOFT_STANDARD
from aptt.core.vocabulary import Stats, finish, measure, slope

__all__ = ["CHOSEN", "STANDARD", "WHOLE", "with_hard"]

_PLAIN = vocabulary.Form()


def with_hard(soft: Formula) -> Formula:
    """The formula of a divergence, with that of the hard targets where there are some."""

    def stats(
        x: Tensor, t: Tensor, y: Tensor | None, chosen: Tensor | None = None, *, form: Form
    ) -> Kept:
        kept = soft.measure(x, (t, chosen), {"form": form})
        if y is None:
            return kept
        return (*kept, *measure(x, y, class_weight=None, form=_PLAIN)[:3])

    def result(
        x: Tensor,
        kept: Kept,
        t: Tensor,
        y: Tensor | None,
        chosen: Tensor | None = None,
        *,
        form: Form,
    ) -> Tensor:
        value: Tensor = soft.result(x, kept if y is None else kept[:-3], t, chosen, form=form)
        if y is None:
            return value
        return value + (form.hard or 0.0) * finish(Stats(*kept[-3:]), None, form=_PLAIN)

    def step(
        x: Tensor,
        up: Tensor | float,
        kept: Kept,
        t: Tensor,
        y: Tensor | None,
        chosen: Tensor | None = None,
        *,
        form: Form,
    ) -> tuple[None, Tensor]:
        assert soft.step is not None
        _, dx = soft.step(x, up, kept if y is None else kept[:-3], t, chosen, form=form)
        assert isinstance(dx, Tensor)
        if y is not None:
            by = by_row(up) * (form.hard or 0.0)
            dx += slope(x, y, Stats(*kept[-3:]), by, None, class_weight=None, form=_PLAIN)
        return None, dx

    in_one = None if soft.in_one is None else _held_with_hard(soft.in_one)
    return Formula(result, step, stats, block=soft.block, in_one=in_one)


def _held_with_hard(soft: Formula) -> Formula:
    """The same, of a form that holds its gradient first and does not read the logits again."""

    def stats(
        x: Tensor, t: Tensor, y: Tensor | None, chosen: Tensor | None = None, *, form: Form
    ) -> Kept:
        kept = soft.measure(x, (t, chosen), {"form": form})
        if y is None:
            return kept
        assert soft.step is not None
        _, dx = soft.step(x, 1.0, kept, t, chosen, form=form)
        assert isinstance(dx, Product)
        assert form.hard is not None
        hard = hold(x, y, class_weight=None, form=_PLAIN)
        held = dx.held.mul_(dx.by).add_(hard.p, alpha=form.hard)
        return (held, *kept[1:], hard.mine)

    def result(
        x: Tensor,
        kept: Kept,
        t: Tensor,
        y: Tensor | None,
        chosen: Tensor | None = None,
        *,
        form: Form,
    ) -> Tensor:
        if y is None:
            value: Tensor = soft.result(x, kept, t, chosen, form=form)
            return value
        assert form.hard is not None
        value = soft.result(x, kept[:-1], t, chosen, form=form)
        return value.sub_(kept[-1].squeeze(1), alpha=form.hard)

    def step(
        x: Tensor,
        up: Tensor,
        kept: Kept,
        t: Tensor,
        y: Tensor | None,
        chosen: Tensor | None = None,
        *,
        form: Form,
    ) -> tuple[None, Product]:
        assert soft.step is not None
        if y is not None:
            return None, Product(kept[0], by_row(up))
        _, dx = soft.step(x, up, kept, t, chosen, form=form)
        assert isinstance(dx, Product)
        return None, dx

    return Formula(result, step, stats, rereads=False)


WHOLE = {name: with_hard(soft) for name, soft in SOFT.items()}
"""By divergence, from a teacher that tells of all classes."""

CHOSEN = {name: with_hard(soft) for name, soft in SOFT_CHOSEN.items()}
"""By divergence, from the log-probabilities of some."""

STANDARD = {name: with_hard(soft) for name, soft in SOFT_STANDARD.items()}
"""By divergence, of the standardised logits of both; the hard targets are of those that came."""
