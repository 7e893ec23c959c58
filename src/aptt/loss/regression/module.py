"""The module forms that the losses of numbers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.module import LossModule
from aptt.core.reduction import check_reduction


class NumberLoss(LossModule):
    """The options of a function, called with prediction, target and the weights of numbers."""

    _function: Callable[..., Tensor]

    def __init__(self, **options: Any) -> None:
        check_reduction(options["reduction"])
        super().__init__(**options)

    def forward(
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return self._function(prediction, target, weight=weight, **self.options())


class SpreadLoss(LossModule):
    """The same, called with the log variance of each prediction besides."""

    _function: Callable[..., Tensor]

    def __init__(self, **options: Any) -> None:
        check_reduction(options["reduction"])
        super().__init__(**options)

    def forward(
        self,
        prediction: Tensor,
        target: Numbers,
        log_variance: Tensor,
        *,
        weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of means and log variances against ``target``."""
        return self._function(prediction, target, log_variance, weight=weight, **self.options())
