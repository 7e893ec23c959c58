"""Weights that change: pure functions of the step, with no state of their own.

    Ramp       start + (stop - start) * x                    x = (step - begin) / over, in [0, 1]
    Cosine     start + (stop - start) * (1 - cos(pi x)) / 2
    Steps      the value of the last boundary that has been reached
    Piecewise  straight lines between points

A weight may be any callable from a step to a number; these four also have a ``repr`` that is the
call, compare equal if they are equal, and can be written to a configuration file. What counts as a
step is the caller's choice: whatever calls :meth:`aptt.compose.WeightedSum.step`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from aptt.core.checks import GREATEST

__all__ = [
    "Cosine",
    "Fixed",
    "Piecewise",
    "Ramp",
    "Schedule",
    "Steps",
    "Weight",
    "options_of",
    "weight_at",
]

Schedule = Callable[[int], float]
Weight = float | Schedule
"""A number, or a schedule."""


class Fixed:
    """Named numbers that never change; no dataclass, which Hydra would take apart."""

    def __init__(self, **options: Any) -> None:
        self.__dict__.update(options)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} does not change; make another one")

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(repr(self))


class Ramp(Fixed):
    """In a straight line from ``start`` to ``stop``, ``over`` so many steps after ``begin``.

    >>> weight = Ramp(0.0, 0.3, over=10)
    >>> [round(weight(step), 2) for step in (0, 5, 10, 50)]
    [0.0, 0.15, 0.3, 0.3]
    """

    start: float
    stop: float
    over: int
    begin: int

    def __init__(self, start: float, stop: float, over: int, begin: int = 0) -> None:
        _check_span(start, stop, over, begin)
        super().__init__(start=start, stop=stop, over=over, begin=begin)

    def __call__(self, step: int) -> float:
        """The weight at ``step``."""
        return self.start + (self.stop - self.start) * _progress(step, self.begin, self.over)


class Cosine(Fixed):
    """From ``start`` to ``stop`` along half a cosine, gently at both ends.

    >>> weight = Cosine(0.8, 0.2, over=100)
    >>> [round(weight(step), 2) for step in (0, 25, 50, 100)]
    [0.8, 0.71, 0.5, 0.2]
    """

    start: float
    stop: float
    over: int
    begin: int

    def __init__(self, start: float, stop: float, over: int, begin: int = 0) -> None:
        _check_span(start, stop, over, begin)
        super().__init__(start=start, stop=stop, over=over, begin=begin)

    def __call__(self, step: int) -> float:
        """The weight at ``step``."""
        rise = (1 - math.cos(math.pi * _progress(step, self.begin, self.over))) / 2
        return self.start + (self.stop - self.start) * rise


class Steps(Fixed):
    """Constant between boundaries; the first has to be step 0.

    >>> weight = Steps({0: 1.0, 30: 0.1})
    >>> weight(29), weight(30)
    (1.0, 0.1)
    """

    values: Mapping[int, float]

    def __init__(self, values: Mapping[int, float]) -> None:
        super().__init__(values=_points("values", values))

    def __call__(self, step: int) -> float:
        """The weight at ``step``."""
        return list(self.values.values())[bisect_right(list(self.values), step) - 1]


class Piecewise(Fixed):
    """Straight lines from point to point, constant after the last; the first has to be step 0.

    >>> weight = Piecewise({0: 0.0, 10: 1.0, 50: 0.2})
    >>> weight(5), weight(30), weight(80)
    (0.5, 0.6, 0.2)
    """

    points: Mapping[int, float]

    def __init__(self, points: Mapping[int, float]) -> None:
        super().__init__(points=_points("points", points))

    def __call__(self, step: int) -> float:
        """The weight at ``step``."""
        at, values = list(self.points), list(self.points.values())
        right = bisect_right(at, step)
        if right == len(at):
            return values[-1]
        x = (step - at[right - 1]) / (at[right] - at[right - 1])
        return values[right - 1] + (values[right] - values[right - 1]) * x


def weight_at(name: str, weight: Weight, step: int) -> float:
    """The number that ``weight`` is at ``step``; an error names the term."""
    value = weight(step) if callable(weight) else weight
    if isinstance(value, bool) or not isinstance(value, Real):
        wanted = "a number, or a callable from the step to a number"
        raise TypeError(f"weight of {name!r}: got {value!r} at step {step}, wanted {wanted}")
    if not abs(value) <= GREATEST:
        wanted = "a finite number, in float32 too"
        raise ValueError(f"weight of {name!r}: got {value} at step {step}, wanted {wanted}")
    return float(value)


def options_of(schedule: Fixed) -> dict[str, Any]:
    """The arguments of one of the schedules above, as plain data."""
    return {n: dict(v) if isinstance(v, Mapping) else v for n, v in vars(schedule).items()}


def _progress(step: int, begin: int, over: int) -> float:
    return min(max(step - begin, 0) / over, 1.0)


def _check_span(start: float, stop: float, over: int, begin: int) -> None:
    for name, value, low in (
        ("start", start, -math.inf),
        ("stop", stop, -math.inf),
        ("over", over, 1),
        ("begin", begin, 0),
    ):
        wanted = "a finite number" + (f", at least {low}" if math.isfinite(low) else "")
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name}: got {value!r}, wanted {wanted}")
        if not (math.isfinite(value) and value >= low):
            raise ValueError(f"{name}: got {value}, wanted {wanted}")


def _points(name: str, given: Mapping[int, float]) -> dict[int, float]:
    try:  # JSON has keys of text
        points = {int(step): float(value) for step, value in given.items()}
    except (AttributeError, TypeError, ValueError):
        wanted = "a mapping from whole steps to numbers"
        raise TypeError(f"{name}: got {given!r}, wanted {wanted}") from None
    whole = all(float(step) == int(step) for step in given) and len(points) == len(given)
    if not whole or list(points) != sorted(points) or next(iter(points), None) != 0:
        raise ValueError(f"{name}: got steps {list(given)}, wanted whole ones, ascending from 0")
    if not all(map(math.isfinite, points.values())):
        raise ValueError(f"{name}: got {list(points.values())}, wanted finite numbers")
    return points
