"""Make a loss take the plain formula, or walk in blocks so small that a test has many of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aptt.core import streaming

__all__ = ["WAYS", "Walked", "in_blocks", "plainly"]


@dataclass
class Walked:
    """The sizes of the blocks that were walked, one list for each walk."""

    walks: list[list[int]] = field(default_factory=list)


@contextmanager
def plainly() -> Iterator[Walked]:
    """Evaluate every formula as plain PyTorch."""
    with _set(_LEAST={"cpu": math.inf}, _LEAST_ELSEWHERE=math.inf):
        yield Walked()


@contextmanager
def in_blocks(size: int = 16) -> Iterator[Walked]:
    """Walk wherever a walk is possible, in blocks of ``size`` elements."""
    walked, cut = Walked(), streaming._blocks

    def recorded(x: Any, _: int) -> Any:
        blocks = list(cut(x, size))
        walked.walks.append([block.of(x).numel() for block in blocks])
        return blocks

    least: dict[str, Any] = {"_LEAST": {"cpu": 1}, "_LEAST_ELSEWHERE": 1}
    with _set(**least, _BLOCK_ELSEWHERE=size, _blocks=recorded):
        yield walked


WAYS: dict[str, Callable[[], AbstractContextManager[Walked]]] = {
    "plain": plainly,
    "in blocks": in_blocks,
}


@contextmanager
def _set(**values: Any) -> Iterator[None]:
    """Hold private settings of the streaming at other values."""
    before = {name: getattr(streaming, name) for name in values}
    try:
        for name, value in values.items():
            setattr(streaming, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(streaming, name, value)
