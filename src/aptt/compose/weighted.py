"""A weighted sum of values that were computed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from aptt.compose.balance import Balance
from aptt.compose.gradients import GradReport
from aptt.compose.names import check_known
from aptt.compose.schedule import Weight
from aptt.compose.slopes import At, Parts
from aptt.compose.total import Total, as_is
from aptt.core.checks import check_choice

__all__ = ["WeightedSum"]


class WeightedSum(Total):
    """The weighted sum of values that were computed elsewhere, by name.

        total = sum over terms of weight * value

    Args:
        weights: a number or a schedule for each term; these are the terms there are.
        balance: :class:`Uncertainty`, :class:`GradShare`, :class:`GradNorm`, :class:`DWA` or
            None.
        on_nonfinite: ``"record"`` counts what is not finite and waits for nothing; ``"raise"``
            looks at each step's values, which waits for the device; ``"skip"`` leaves a step out,
            as in :class:`aptt.compose.CombinedLoss`.

    ``step()`` or ``at_step(n)`` moves the schedules; ``log()``, ``report()`` and ``grad_report()``
    say how the terms do. All of its state is in ``state_dict()``. In ``eval()`` nothing is counted
    and no balancer learns. Of a term of weight 0 neither value nor gradient reaches the total, be
    they NaN; the account has the value.

    Example:
        >>> import torch
        >>> mix = WeightedSum({"l1": 1.0, "mel": 2.0})
        >>> mix
        WeightedSum(1*l1 + 2*mel)
        >>> mix.eval()({"l1": torch.tensor(0.5), "mel": torch.tensor(0.25)})
        tensor(1.)
    """

    def __init__(
        self,
        weights: Mapping[str, Weight],
        *,
        balance: Balance | None = None,
        on_nonfinite: Literal["record", "raise", "skip"] = "record",
    ) -> None:
        check_choice("on_nonfinite", on_nonfinite, ("record", "raise", "skip"))
        super().__init__(weights, balance, on_nonfinite)

    def forward(self, values: Mapping[str, Tensor | None], *, at: At | None = None) -> Tensor:
        """The total of ``values``, one for each term; None for one that this batch does not have.

        ``at`` is the tensor that :class:`GradShare` and :class:`GradNorm` compare gradients at. If
        any value is None, or a weight is 0, the total is attached to it as well, by a gradient of
        zeros.
        """
        return self._total(self._parts(values), at)

    def grad_report(self, values: Mapping[str, Tensor | None], *, at: At) -> GradReport:
        """Each term's share of the gradient at ``at``, and their cosines; before ``backward``."""
        with as_is(self):
            return self._grad_report(self._parts(values), at)

    def _parts(self, values: Mapping[str, Tensor | None]) -> Parts:
        check_known("term", values, self.names)
        for name in self.names:
            if name not in values:
                raise ValueError(
                    f"term {name!r}: no value given; None says that this batch does not have it"
                )
        return [values[name] for name in self.names]

    def __repr__(self) -> str:
        return f"WeightedSum({self._formula()})"
