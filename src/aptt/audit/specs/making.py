"""What the rows share: making random tensors, and saying why a promise does not apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from aptt.audit.spec import Case, Inputs, Maker

__all__ = [
    "BY_CHUNKS",
    "HAS_A_UNIT",
    "NOTHING_FROZEN",
    "bits",
    "grid",
    "indices",
    "marked",
    "normal",
    "pooled",
    "uniform",
    "with_",
]

HAS_A_UNIT = {"scale_invariance": "logits are not a length: another scale is another prediction"}
NOTHING_FROZEN = {"frozen_factors_are_constants": "no factor is held constant"}
BY_CHUNKS = {
    "kernels": "a chunk is multiplied at once, and more rows are more chunks",
    "nonzero": "drop_ignored multiplies the rows that count, and how many they are, it must know",
}


def normal(g: Generator, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal numbers in float64."""
    return scale * torch.randn(shape, dtype=torch.float64, generator=g)


def uniform(g: Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Numbers between two others, in float64."""
    return low + (high - low) * torch.rand(shape, dtype=torch.float64, generator=g)


def indices(g: Generator, classes: int, *shape: int) -> Tensor:
    """Class indices."""
    return torch.randint(classes, shape, generator=g)


def bits(g: Generator, *shape: int) -> Tensor:
    """0 and 1, as integers."""
    return torch.randint(2, shape, generator=g)


def with_(make: Maker, name: str, like: str, *, features: int | None = None) -> Maker:
    """Inputs with one more: positive weights of the shape of another, less its features."""

    def made(g: Generator, n: int) -> Inputs:
        inputs = make(g, n)
        t = inputs[like]
        shape = t.shape if features is None else t.movedim(features, 0).shape[1:]
        return {**inputs, name: uniform(g, *shape, low=0.25, high=2.0)}

    return made


def marked(make: Maker, value: int, name: str = "target") -> Maker:
    """Inputs with every fifth number of the target set to a value that is to be ignored."""

    def made(g: Generator, n: int) -> Inputs:
        inputs = make(g, n)
        target = inputs[name].long()
        target.view(-1)[3::5] = value
        return {**inputs, name: target}

    return made


def grid(*rows: Sequence[float]) -> Tensor:
    """Numbers in float64, as written."""
    return torch.tensor(rows, dtype=torch.float64)


def pooled(cases: Mapping[str, Case]) -> dict[str, Case]:
    """Cases, of which those that pool the whole batch do not promise that samples stand alone."""
    joint = {"samples_stand_alone": "one statistic of the whole batch, by its option 'pool'"}
    smoothed = {"size_changes_nothing": "the smoothing is a constant, and the sums are not"}
    return {
        label: c
        if c.options.get("pool") == "sample"
        else replace(c, exempt={**c.exempt, **joint, **(smoothed if "smooth" in c.options else {})})
        for label, c in cases.items()
    }
