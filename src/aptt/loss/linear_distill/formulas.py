"""The divergences as formulas of a head, whose logits may be bent, and two terms from one walk.

    z = c * tanh(x / c)     t = d * tanh(teacher_scale * t / d)     c, d: softcap, teacher_softcap

The options are plain numbers, which a compiled graph can hold: those of a form, then of a bend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core import vocabulary
from aptt.core.checks import check_positive
from aptt.core.chosen import SOFT_CHOSEN
from aptt.core.divergence import SOFT, Form
from aptt.core.formula import Formula, Kept, Product
from aptt.core.hard import CHOSEN, STANDARD, WHOLE
from aptt.core.linear import HeadFormula
from aptt.core.standard import SOFT_STANDARD
from aptt.core.vocabulary import cap, uncap
from aptt.loss.classification.indices import INDICES
from aptt.loss.classification.shares import SHARES

__all__ = ["FORMULAS", "TERMS", "Bend", "Kind", "checked_bend"]

Kind = Literal["whole", "some", "standardized"]
"""From a teacher that tells of all classes, or of some; or of the standardised logits of both."""


class Bend(NamedTuple):
    """What is done to logits before they are compared; the student's scale is the head's work."""

    softcap: float | None = None
    teacher_softcap: float | None = None
    teacher_scale: float = 1.0

    def of_student(self, x: Tensor) -> Tensor:
        """The student's logits."""
        return cap(x, vocabulary.Form(softcap=self.softcap))

    def of_teacher(self, t: Tensor) -> Tensor:
        """The teacher's."""
        t = t if self.teacher_scale == 1 else t * self.teacher_scale
        return cap(t, vocabulary.Form(softcap=self.teacher_softcap))

    def back(self, dz: Tensor | Product, x: Tensor) -> Tensor | Product:
        """A gradient of the student's bent logits as one of those that were not."""
        if self.softcap is None:
            return dz
        dz = dz.of(x.dtype) if isinstance(dz, Product) else dz
        return uncap(dz, x, vocabulary.Form(softcap=self.softcap))


def checked_bend(
    softcap: float | None,
    teacher_softcap: float | None,
    scale: float,
    teacher_scale: float,
    teacher_logits: object = None,
) -> Bend:
    """The options of both heads, held to their ranges."""
    for name, value in (("softcap", softcap), ("teacher_softcap", teacher_softcap)):
        if value is not None:
            check_positive(name, value)
    check_positive("scale", scale)
    check_positive("teacher_scale", teacher_scale)
    if teacher_logits is not None and (teacher_softcap is not None or teacher_scale != 1):
        name, value = ("teacher_scale", teacher_scale)
        if teacher_softcap is not None:
            name, value = "teacher_softcap", teacher_softcap
        raise ValueError(f"{name}: got {value!r} with teacher_logits, which have no head to bend")
    return Bend(softcap, teacher_softcap, teacher_scale)


def _read(numbers: tuple[Any, ...]) -> tuple[Form, Bend]:
    fields = len(Form._fields)
    return Form(*numbers[:fields]), Bend(*numbers[fields:])


def _for_head(formula: Formula) -> Formula:
    """The formula of bent logits, under options that are numbers."""

    def stats(
        x: Tensor, t: Tensor, *sides: Tensor | None, numbers: tuple[Any, ...], **more: Any
    ) -> Kept:
        assert formula.stats is not None
        form, bend = _read(numbers)
        return formula.stats(bend.of_student(x), bend.of_teacher(t), *sides, form=form, **more)

    def result(
        x: Tensor,
        kept: Kept,
        t: Tensor,
        *sides: Tensor | None,
        numbers: tuple[Any, ...],
        **more: Any,
    ) -> Tensor:
        form, bend = _read(numbers)
        z, t = bend.of_student(x), bend.of_teacher(t)
        values: Tensor = formula.result(z, kept, t, *sides, form=form, **more)
        return values

    def step(
        x: Tensor,
        up: Tensor,
        kept: Kept,
        t: Tensor,
        *sides: Tensor | None,
        numbers: tuple[Any, ...],
        **more: Any,
    ) -> tuple[None, Tensor | Product]:
        assert formula.step is not None
        form, bend = _read(numbers)
        z, t = bend.of_student(x), bend.of_teacher(t)
        _, dz = formula.step(z, up, kept, t, *sides, form=form, **more)
        return None, bend.back(dz, x)

    in_one = None if formula.in_one is None else _for_head(formula.in_one)
    return Formula(result, step, stats, in_one=in_one, rereads=formula.rereads)


# ------------------------------------------------------------------------- two values a row


def _of_targets(smoothing: float | None, class_weight: Tensor | None) -> tuple[dict[str, Any], int]:
    """The options of the cross-entropy, and how many numbers of a row it keeps of indices."""
    form = vocabulary.Form(smoothing=smoothing)
    kept = 3 if smoothing is None else len(vocabulary.Stats._fields)
    return {"form": form, "class_weight": class_weight, "adjustment": None}, kept


def _beside(soft: Formula, hard: Formula, *, indices: bool) -> Formula:
    """A divergence, and the cross-entropy of class indices or of shares."""

    def stats(
        x: Tensor,
        t: Tensor,
        y: Tensor,
        chosen: Tensor | None = None,
        *,
        form: Form,
        smoothing: float | None,
        class_weight: Tensor | None,
    ) -> Kept:
        how, _ = _of_targets(smoothing, class_weight)
        return (*hard.measure(x, (y,), how), *soft.measure(x, (t, chosen), {"form": form}))

    def result(
        x: Tensor,
        kept: Kept,
        t: Tensor,
        y: Tensor,
        chosen: Tensor | None = None,
        *,
        form: Form,
        smoothing: float | None,
        class_weight: Tensor | None,
    ) -> Tensor:
        how, split = _of_targets(smoothing, class_weight)
        split = split if indices else 3
        values = soft.result(x, kept[split:], t, chosen, form=form)
        return torch.stack((values, hard.result(x, kept[:split], y, **how)), 1)

    def step(
        x: Tensor,
        up: Tensor,
        kept: Kept,
        t: Tensor,
        y: Tensor,
        chosen: Tensor | None = None,
        *,
        form: Form,
        smoothing: float | None,
        class_weight: Tensor | None,
    ) -> tuple[None, Tensor]:
        assert soft.step is not None
        assert hard.step is not None
        how, split = _of_targets(smoothing, class_weight)
        split = split if indices else 3
        up_soft, up_hard = up.unbind(1)
        _, dx = soft.step(x, up_soft, kept[split:], t, chosen, form=form)
        _, slope = hard.step(x, up_hard, kept[:split], y, **how)
        assert isinstance(dx, Tensor)
        assert isinstance(slope, Tensor)
        return None, dx.add_(slope)

    return Formula(result, step, stats)


# ------------------------------------------------------------------------------------ by name

_SOFT: Mapping[Kind, Mapping[str, Formula]] = {
    "whole": SOFT,
    "some": SOFT_CHOSEN,
    "standardized": SOFT_STANDARD,
}
_WITH_HARD: Mapping[Kind, Mapping[str, Formula]] = {
    "whole": WHOLE,
    "some": CHOSEN,
    "standardized": STANDARD,
}


def _by_name(
    title: str,
    formulas: Mapping[Kind, Mapping[str, Formula]],
    change: Callable[[Formula], Formula],
    columns: int | None,
) -> dict[tuple[str, Kind], HeadFormula]:
    """The formulas by divergence and kind."""
    return {
        (name, kind): HeadFormula(f"{title}, {kind}, {name}", _for_head(change(formula)), columns)
        for kind, several in formulas.items()
        for name, formula in several.items()
    }


FORMULAS = _by_name("distillation", _WITH_HARD, lambda formula: formula, None)
TERMS = {
    shares: _by_name(f"distillation terms{' of shares' if shares else ''}", _SOFT, change, 2)
    for shares, change in (
        (False, partial(_beside, hard=INDICES, indices=True)),
        (True, partial(_beside, hard=SHARES, indices=False)),
    )
}
"""By whether the hard targets are shares: the divergence of each row, and its cross-entropy."""
