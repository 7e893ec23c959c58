"""The module form that the region losses share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from aptt.core.module import LossModule
from aptt.core.regions import check_class_weight


class RegionLoss(LossModule):
    """The options of a function, called with logits, target and the weights of pixels."""

    _function: Callable[..., Tensor]

    def __init__(self, **options: Any) -> None:
        check_class_weight(options["weight"], options["mode"])
        super().__init__(**options)

    def forward(
        self, logits: Tensor, target: Tensor, *, pixel_weight: Tensor | None = None, **unknown: Any
    ) -> Tensor:
        """The loss of ``logits`` against ``target``; all else but ``pixel_weight`` is refused."""
        if unknown:
            raise TypeError(self._refusal(next(iter(unknown))))
        return self._function(logits, target, pixel_weight=pixel_weight, **self.options())

    def _refusal(self, name: str) -> str:
        """What to do instead of passing ``name`` to a call."""
        kind = type(self).__name__
        if name in self.options():
            return f"{name}: {kind} takes it when it is constructed, {kind}({name}=...)"
        return (
            f"{name}: {kind} has no such argument; wanted pixel_weight=, the part of each pixel, 0 "
            f"where it is removed; when it is constructed {kind} takes {', '.join(self.options())}"
        )
