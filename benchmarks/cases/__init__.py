"""The cases, one file for each family of losses."""

from __future__ import annotations

import aptt.loss
from benchmarks.case import Case
from benchmarks.cases import boxes, classification, focal, linear, overlap, rmse

__all__ = ["CASES"]

CASES: dict[str, Case] = {
    case.name: case
    for module in (classification, linear, focal, boxes, overlap, rmse)
    for case in module.CASES
    if hasattr(aptt.loss, case.uses)
}
"""By name; a loss that is not there yet has no case."""
