"""The cases, one file for each family of losses."""

from __future__ import annotations

import aptt.loss
from benchmarks.case import Case
from benchmarks.cases import (
    audio,
    boxes,
    classification,
    compose,
    dense,
    distillation,
    focal,
    linear,
    overlap,
    points,
    regions,
    rmse,
    volumes,
)

__all__ = ["CASES"]

_FAMILIES = (
    classification,
    linear,
    distillation,
    focal,
    dense,
    boxes,
    overlap,
    regions,
    volumes,
    rmse,
    audio,
    compose,
    points,
)

CASES: dict[str, Case] = {
    case.name: case.with_compiled()
    for module in _FAMILIES
    for case in module.CASES
    if hasattr(aptt.loss, case.uses)
}
"""By name; a loss that is not there yet has no case."""
