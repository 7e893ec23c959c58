"""The module form that the region losses share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from aptt.core.module import LossModule

__all__ = ["RegionLoss"]


class RegionLoss(LossModule):
    """The options of a function, called with logits, target and the weights of pixels."""

    _function: Callable[..., Tensor]

    def forward(
        self, logits: Tensor, target: Tensor, *, pixel_weight: Tensor | None = None
    ) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return self._function(logits, target, pixel_weight=pixel_weight, **self.options())
