"""Losses added up: named terms, weights that change, balancing, and an account of every term.

The terms are any modules; this room imports no loss.
"""

from aptt.compose.balance import Balance, over_ranks
from aptt.compose.combined import CombinedLoss
from aptt.compose.config import build
from aptt.compose.depth import (
    DeepSupervisionLoss,
    deep_supervision_loss,
    deep_supervision_terms,
)
from aptt.compose.dwa import DWA
from aptt.compose.grad_share import GradShare
from aptt.compose.gradients import GradReport
from aptt.compose.gradnorm import GradNorm
from aptt.compose.history import History, curves_of
from aptt.compose.nonfinite import NonFiniteError
from aptt.compose.schedule import Cosine, Piecewise, Ramp, Steps
from aptt.compose.uncertainty import Uncertainty
from aptt.compose.weighted import WeightedSum

__all__ = [
    "DWA",
    "Balance",
    "CombinedLoss",
    "Cosine",
    "DeepSupervisionLoss",
    "GradNorm",
    "GradReport",
    "GradShare",
    "History",
    "NonFiniteError",
    "Piecewise",
    "Ramp",
    "Steps",
    "Uncertainty",
    "WeightedSum",
    "build",
    "curves_of",
    "deep_supervision_loss",
    "deep_supervision_terms",
    "over_ranks",
]
