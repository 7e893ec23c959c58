"""The divergences as formulas of a head: options as numbers, and two terms from one walk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from aptt.core.divergence import WHOLE, Form
from aptt.core.formula import Formula, Kept
from aptt.core.linear import HeadFormula

__all__ = ["FORMULAS", "TERMS"]


def _by_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a formula that takes its options as plain numbers, which a graph can hold."""
    return lambda *args, numbers: function(*args, form=Form(*numbers))


def _for_head(formula: Formula) -> Formula:
    return replace(
        formula,
        result=_by_numbers(formula.result),
        step=formula.step and _by_numbers(formula.step),
        stats=formula.stats and _by_numbers(formula.stats),
        value=formula.value and _by_numbers(formula.value),
        in_one=formula.in_one and _for_head(formula.in_one),
    )


FORMULAS = {
    name: HeadFormula(f"distillation, {name}", _for_head(formula))
    for name, formula in WHOLE.items()
}


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


TERMS = {
    name: HeadFormula(
        f"distillation terms, {name}",
        _for_head(Formula(partial(_terms_result, of), partial(_terms_step, of), of.stats)),
        columns=2,
    )
    for name, of in WHOLE.items()
}
