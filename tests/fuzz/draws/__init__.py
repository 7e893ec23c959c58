"""How the calls of each loss are drawn, by family, and the table of them all."""

from tests.fuzz.draw import Loss
from tests.fuzz.draws import (
    adversaries,
    answers,
    boxes,
    classes,
    detectors,
    embeddings,
    images,
    language,
    matches,
    numbers,
    outlines,
    points,
    poses,
    regions,
    signals,
    spectra,
    teachers,
)

__all__ = ["LOSSES"]

_FAMILIES = (
    classes,
    language,
    answers,
    boxes,
    detectors,
    matches,
    regions,
    outlines,
    signals,
    spectra,
    images,
    points,
    poses,
    numbers,
    adversaries,
    embeddings,
    teachers,
)
LOSSES: dict[str, Loss] = {
    name: loss for family in _FAMILIES for name, loss in family.LOSSES.items()
}
"""By the name of the function."""
