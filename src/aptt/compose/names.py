"""Names, and what to say of one that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

__all__ = ["check_known", "check_mapping", "unknown"]


def unknown(what: str, name: object, known: Iterable[str], *, hint: str = "") -> ValueError:
    """The error for a name that is not among ``known``, with the one probably meant.

    >>> str(unknown("term", "bxo", ["cls", "box"]))
    "unknown term 'bxo'; did you mean 'box'?"
    >>> str(unknown("term", "lm", ["cls", "box"]))
    "unknown term 'lm'; there are: cls, box"
    """
    names = list(known)
    close = difflib.get_close_matches(str(name).lower(), [n.lower() for n in names], n=1)
    if close:
        meant = next(n for n in names if n.lower() == close[0])
        said = f"did you mean {meant!r}?"
    else:
        said = f"there are: {', '.join(names) or 'none'}"
    return ValueError(f"unknown {what} {name!r}; {said}{hint}")


def check_known(what: str, names: Iterable[object], known: Collection[str]) -> None:
    """Refuse the first of ``names`` that is not among ``known``."""
    for name in names:
        if name not in known:
            raise unknown(what, name, known)


def check_mapping(what: str, value: object) -> Mapping[str, Any]:
    """Hold an argument to a mapping whose keys are text."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{what}: got {type(value).__name__}, wanted a mapping by name")
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"{what}: got the key {name!r}, wanted names (text)")
    return value
