"""What a combined loss did over time, as plain lists that any tool can draw or store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from aptt.compose.gradients import GradReport
from aptt.compose.total import Total

__all__ = ["History", "curves_of"]

Line = list[tuple[int, float]]
"""Points: step and number."""
Curves = dict[str, list[tuple[list[int], list[float]]]]
"""As :func:`aptt.report.curves` draws them: by name, the steps and the numbers of each line."""


@dataclass
class History:
    """Values, weights and gradient shares by term, each a list of ``(step, number)``.

    >>> import torch
    >>> from aptt.compose import History, WeightedSum
    >>> mix, history = WeightedSum({"l1": 1.0, "mel": 2.0}), History()
    >>> at = torch.ones(2, requires_grad=True)
    >>> loss = mix({"l1": at.sum(), "mel": at.prod()})
    >>> history.note(0, mix)["total"]
    4.0
    >>> history.values
    {'l1': [(0, 2.0)], 'mel': [(0, 1.0)]}
    """

    values: dict[str, Line] = field(default_factory=dict)
    weights: dict[str, Line] = field(default_factory=dict)
    shares: dict[str, Line] = field(default_factory=dict)

    def note(
        self, step: int, criterion: Total, gradients: GradReport | None = None
    ) -> dict[str, float]:
        """Take in ``criterion.log()``, which starts its means anew, and give it back."""
        logged = criterion.log()
        names = criterion.names
        _extend(self.values, step, {name: logged[name] for name in names})
        _extend(self.weights, step, {name: logged[f"{name}/weight"] for name in names})
        if gradients is not None:
            _extend(self.shares, step, gradients.share)
        return logged


def curves_of(lines: Mapping[str, Line]) -> Curves:
    """Lines for :func:`aptt.report.curves`, without the steps that have no finite number."""
    return {
        name: [([x for x, y in line if isfinite(y)], [y for _, y in line if isfinite(y)])]
        for name, line in lines.items()
    }


def _extend(lines: dict[str, Line], step: int, numbers: Mapping[str, float]) -> None:
    for name, number in numbers.items():
        lines.setdefault(name, []).append((step, number))
