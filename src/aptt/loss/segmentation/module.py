"""The module form that the region losses share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from aptt.core.checks import Numbers, ignored
from aptt.core.masks import check_class_weight
from aptt.core.module import LossModule


class RegionLoss(LossModule):
    """The options of a function, called with logits, target and the weights of pixels."""

    _function: Callable[..., Tensor]

    def __init__(self, **options: Any) -> None:
        check_class_weight(options["class_weight"], options["mode"])
        ignored(options["ignore_index"], indexed=True)
        super().__init__(**options)

    def __call__(self, *args: Any, **given: Any) -> Tensor:
        """:meth:`forward`, with a word about an argument that it has not."""
        for name in given:
            if name not in ("logits", "target", "weight"):
                raise TypeError(self._refusal(name))
        loss: Tensor = super().__call__(*args, **given)
        return loss

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return self._function(logits, target, weight=weight, **self.options())

    def _refusal(self, name: str) -> str:
        """What to do instead of passing ``name`` to a call."""
        kind = type(self).__name__
        if name in self.options():
            return f"{name}: {kind} takes it when it is constructed, {kind}({name}=...)"
        return (
            f"{name}: {kind} has no such argument; wanted weight=, the part of each pixel, 0 "
            f"where it is removed; when it is constructed {kind} takes {', '.join(self.options())}"
        )
