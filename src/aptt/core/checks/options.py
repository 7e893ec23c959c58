"""Options: numbers, flags, indices and names, held to what they may be.

A number is one of float32 too, in which most losses compute: torch refuses to add a larger one to
a tensor, and a divisor below its normal numbers may count as 0. What a loss makes of extreme
options may still leave float32.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from numbers import Real
from typing import Literal, TypeAlias

__all__ = [
    "GREATEST",
    "IgnoreIndex",
    "check_choice",
    "check_chunk",
    "check_flags",
    "check_index",
    "check_label",
    "check_number",
    "check_positive",
    "check_size",
    "check_whole",
    "ignored",
]

IgnoreIndex: TypeAlias = int | Literal["auto"] | None
"""The target value that is ignored; None is none, whatever the target."""


GREATEST = (2 - 2.0**-23) * 2.0**127
"""The greatest number of float32."""
_SMALLEST = 2.0**-126  # with all its digits


def _is_flag(value: object) -> bool:
    """Whether it says yes or no; Python would count it as 1 or 0."""
    return type(value).__name__ in ("bool", "bool_")  # NumPy has its own


def _is_array(value: object) -> bool:
    """Whether it is a number that NumPy holds in an array."""
    return type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0


def check_number(
    name: str,
    value: float,
    low: float = 0.0,
    high: float = math.inf,
    *,
    wanted: str = "",
    zero: bool = False,
) -> None:
    """Hold an option to a closed range, or to 0 where ``zero`` allows it; finite in float32.

    True is no number.
    """
    least, most = (low, high) if high < math.inf else (max(low, -GREATEST), GREATEST)
    try:
        # NumPy has half types, in which no limit is finite
        number = float(value) if isinstance(value, Real) or _is_array(value) else value
        inside = least <= number <= most or (zero and number == 0)
        if inside and not _is_flag(value):
            return
        error: type[Exception] = TypeError if _is_flag(value) else ValueError
    except OverflowError:  # a whole number that no float holds
        error = ValueError
    except (TypeError, RuntimeError):  # what is no number, and what is several
        error = TypeError
    if high < math.inf:
        limits = f"a number between {low:g} and {high:g}"
    else:
        limits = f"a number at least {low:g}, and" if low > -math.inf else "a number,"
        limits += " finite in float32"
    raise error(f"{name}: got {value!r}, wanted {wanted or limits}")


def check_positive(name: str, value: float, *, zero: bool = False, cure: str = "") -> None:
    """Hold an option to numbers above 0, or 0 if it may be ``zero``, in float32; True is none."""
    # without the limits: where sizes are symbols to a compiler, they are, too, and have no text
    wanted = "0, or " * zero + "a positive number that float32 holds in full" + cure
    check_number(name, value, _SMALLEST, wanted=wanted, zero=zero)


def check_whole(name: str, value: int, low: int = 1) -> None:
    """Hold an option to whole numbers; True is none."""
    if type(value) is not int or value < low:
        raise ValueError(f"{name}: got {value!r}, wanted a whole number of at least {low}")


def check_size(size: Sequence[int], low: int = 0) -> None:
    """Hold the size of a map to height and width."""
    pair = isinstance(size, Sequence) and len(size) == 2
    whole = pair and all(hasattr(n, "__index__") and not _is_flag(n) and n >= low for n in size)
    if not whole:
        least = f" of at least {low}" * (low > 0)
        raise ValueError(f"size: got {size!r}, wanted height and width, whole numbers{least}")


def check_flags(**options: object) -> None:
    """Hold options to True and False; a number or a name that is taken for one is a mistake."""
    for name, value in options.items():
        if not _is_flag(value):
            raise TypeError(f"{name}: got {value!r}, wanted True or False")


def check_index(**options: int | None) -> None:
    """Hold options such as ``ignore_index`` and ``class_dim`` to whole numbers, or None."""
    for name, value in options.items():
        whole = isinstance(value, int) or hasattr(value, "__index__")
        if value is not None and (_is_flag(value) or not whole):
            raise TypeError(f"{name}: got {value!r}, wanted a whole number or None")


def check_label(ignore_index: float | None) -> None:
    """Hold the target value that is ignored, where targets are floats, to a number or None."""
    if ignore_index is not None:
        most = sys.float_info.max
        check_number("ignore_index", ignore_index, -most, most, wanted="a number, or None")


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
