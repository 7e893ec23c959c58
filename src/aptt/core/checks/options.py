"""Options: numbers, flags, indices and names, held to what they may be."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

__all__ = [
    "IgnoreIndex",
    "check_choice",
    "check_chunk",
    "check_flags",
    "check_index",
    "check_number",
    "check_positive",
    "check_whole",
    "ignored",
]

IgnoreIndex: TypeAlias = int | Literal["auto"] | None
"""The target value that is ignored; None is none, whatever the target."""


def check_number(
    name: str, value: float, low: float = 0.0, high: float = math.inf, *, wanted: str = ""
) -> None:
    """Hold an option to a closed range, and to finite numbers."""
    try:
        if low <= value <= high and value != math.inf:
            return
        error: type[Exception] = ValueError
    except (TypeError, RuntimeError):  # what is no number, and what is several
        error = TypeError
    limits = f"between {low:g} and {high:g}" if high < math.inf else f"at least {low:g}, and finite"
    raise error(f"{name}: got {value!r}, wanted {wanted or 'a number ' + limits}")


def check_positive(name: str, value: float) -> None:
    """Hold an option to finite numbers above 0."""
    try:
        if 0 < value < math.inf:
            return
        error: type[Exception] = ValueError
    except (TypeError, RuntimeError):
        error = TypeError
    raise error(f"{name}: got {value!r}, wanted a positive number")


def check_whole(name: str, value: int, low: int = 1) -> None:
    """Hold an option to whole numbers; True is none."""
    if type(value) is not int or value < low:
        raise ValueError(f"{name}: got {value!r}, wanted a whole number of at least {low}")


def check_flags(**options: object) -> None:
    """Hold options to True and False; a number or a name that is taken for one is a mistake."""
    for name, value in options.items():
        if type(value).__name__ not in ("bool", "bool_"):  # NumPy has its own
            raise TypeError(f"{name}: got {value!r}, wanted True or False")


def check_index(**options: int | None) -> None:
    """Hold options such as ``ignore_index`` and ``class_dim`` to whole numbers, or None."""
    for name, value in options.items():
        if value is not None and not isinstance(value, int) and not hasattr(value, "__index__"):
            raise TypeError(f"{name}: got {value!r}, wanted a whole number or None")


def ignored(ignore_index: IgnoreIndex, *, indexed: bool) -> int | None:
    """The target value that is ignored: ``"auto"`` is -100 among class indices, and else none."""
    if isinstance(ignore_index, str):
        check_choice("ignore_index", ignore_index, ("auto",), also="a whole number, or None")
        return -100 if indexed else None
    check_index(ignore_index=ignore_index)
    return ignore_index


def check_chunk(chunk: int | None) -> None:
    """Hold the size of a chunk to a whole number of tokens, or to None."""
    if chunk is not None and (type(chunk) is not int or chunk < 1):  # True is no number
        raise ValueError(f"chunk: got {chunk!r}, wanted a number of rows, at least 1, or None")


def check_choice(name: str, value: object, choices: tuple[str, ...], *, also: str = "") -> None:
    """Hold an option to a list of names."""
    if value not in choices:
        wanted = ", ".join(map(repr, choices)) + (f" or {also}" if also else "")
        raise ValueError(f"{name}: got {value!r}, wanted {wanted}")
