"""Make a loss take the plain way, or walk in blocks so small that a test has many of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from aptt.core.engine import engine, walking

__all__ = ["WAYS", "Walked", "in_blocks", "in_one", "plainly", "whole"]


@dataclass
class Walked:
    """The sizes of the blocks that were walked, one list for each walk."""

    walks: list[list[int]] = field(default_factory=list)


@contextmanager
def plainly() -> Iterator[Walked]:
    """Evaluate every formula as plain PyTorch."""
    with engine("plain"):
        yield Walked()


@contextmanager
def whole() -> Iterator[Walked]:
    """Walk in the blocks that a user's call has: one, for what is as small as in a test."""
    walked = Walked()
    with engine("auto"), walking(None, walked.walks.append):
        yield walked


@contextmanager
def in_blocks(size: int = 16) -> Iterator[Walked]:
    """Walk wherever a walk is possible, in blocks of ``size`` elements."""
    walked = Walked()
    with engine("auto"), walking(size, walked.walks.append):
        yield walked


@contextmanager
def in_one() -> Iterator[Walked]:
    """Walk as on an accelerator: everything in one block, and without a look at values."""
    walked = Walked()
    with engine("auto"), walking(None, walked.walks.append, in_one=True):
        yield walked


WAYS: dict[str, Callable[[], AbstractContextManager[Walked]]] = {
    "plain": plainly,
    "in blocks": in_blocks,
    "in one block": in_one,
    "whole": whole,
}
