"""The divergences as formulas of a head, whose logits may be bent, and two terms from one walk.

    z = c * tanh(x / c)     t = d * tanh(teacher_scale * t / d)     c, d: softcap, teacher_softcap

The options are plain numbers, which a compiled graph can hold: those of a form, then of a bend.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aptt.core import vocabulary
from aptt.core.checks import check_positive
from aptt.core.divergence import Form
from aptt.core.formula import Formula, Kept, Product
from aptt.core.hard import CHOSEN, WHOLE
from aptt.core.linear import HeadFormula
from aptt.core.vocabulary import cap, uncap

__all__ = ["FORMULAS", "TERMS", "Bend", "checked_bend"]


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

    def stats(x: Tensor, t: Tensor, *sides: Tensor | None, numbers: tuple[Any, ...]) -> Kept:
        assert formula.stats is not None
        form, bend = _read(numbers)
        return formula.stats(bend.of_student(x), bend.of_teacher(t), *sides, form=form)

    def result(
        x: Tensor, kept: Kept, t: Tensor, *sides: Tensor | None, numbers: tuple[Any, ...]
    ) -> Tensor:
        form, bend = _read(numbers)
        z, t = bend.of_student(x), bend.of_teacher(t)
        values: Tensor = formula.result(z, kept, t, *sides, form=form)
        return values

    def step(
        x: Tensor,
        up: Tensor,
        kept: Kept,
        t: Tensor,
        *sides: Tensor | None,
        numbers: tuple[Any, ...],
    ) -> tuple[None, Tensor | Product]:
        assert formula.step is not None
        form, bend = _read(numbers)
        z, t = bend.of_student(x), bend.of_teacher(t)
        _, dz = formula.step(z, up, kept, t, *sides, form=form)
        return None, bend.back(dz, x)

    in_one = None if formula.in_one is None else _for_head(formula.in_one)
    return Formula(result, step, stats, in_one=in_one, rereads=formula.rereads)


def _apart(form: Form) -> tuple[Form, Form]:
    """The soft term alone, and the hard one."""
    return form._replace(hard=0.0), form._replace(soft=0.0, hard=1.0)


def _terms_result(of: Formula, x: Tensor, kept: Kept, *sides: Tensor | None, form: Form) -> Tensor:
    return torch.stack([of.result(x, kept, *sides, form=f) for f in _apart(form)], 1)


def _terms_step(
    of: Formula, x: Tensor, up: Tensor, kept: Kept, *sides: Tensor | None, form: Form
) -> tuple[None, Tensor]:
    assert of.step is not None
    dx = torch.zeros_like(x)
    for of_term, which in zip(up.unbind(1), _apart(form), strict=True):
        _, slope = of.step(x, of_term, kept, *sides, form=which)
        assert isinstance(slope, Tensor)
        dx += slope
    return None, dx


def _terms(of: Formula) -> Formula:
    return Formula(partial(_terms_result, of), partial(_terms_step, of), of.stats)


def _by_name(
    title: str, change: Callable[[Formula], Formula], columns: int | None
) -> dict[tuple[str, bool], HeadFormula]:
    """The formulas by divergence, and by whether the teacher tells of some classes alone."""
    return {
        (name, some): HeadFormula(
            f"{title}{' of some classes' if some else ''}, {name}",
            _for_head(change(formula)),
            columns,
        )
        for some, formulas in ((False, WHOLE), (True, CHOSEN))
        for name, formula in formulas.items()
    }


FORMULAS = _by_name("distillation", lambda formula: formula, None)
TERMS = _by_name("distillation terms", _terms, 2)
