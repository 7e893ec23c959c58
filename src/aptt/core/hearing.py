"""How loud a frequency is heard: the A-curve."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["a_curve"]

# IEC 61672-1, annex E: where the curve bends, in Hz
_F1, _F2, _F3, _F4 = 20.598997, 107.65265, 737.86223, 12194.217


def a_curve(hertz: Tensor) -> Tensor:
    """The gain of each frequency under A-weighting, 1 at 1000 Hz; IEC 61672-1, annex E."""
    return _bent(hertz) / _bent(hertz.new_full((), 1000.0))


def _bent(hertz: Tensor) -> Tensor:
    square = hertz.square()
    middle = torch.sqrt((square + _F2**2) * (square + _F3**2))
    return _F4**2 * square.square() / ((square + _F1**2) * middle * (square + _F4**2))
