"""Known differences: each with whom it concerns, and what is to be mended. Empty is the aim.

A limit is no difference: what a docstring promises less of, :class:`tests.fuzz.draw.Loss` has as
its ``limit``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.fuzz.check import Failure
from tests.fuzz.draw import Call

__all__ = ["KNOWN", "Known", "known"]


class Known(NamedTuple):
    """One kind of difference."""

    where: Callable[[Call, Failure], bool]
    sentence: str


KNOWN: list[Known] = []
"""In the order in which they are asked."""


def known(call: Call, failure: Failure) -> Known | None:
    """The entry that a failure belongs to."""
    return next((entry for entry in KNOWN if entry.where(call, failure)), None)
