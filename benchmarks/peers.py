"""Peers that need more than an import statement."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import torch

__all__ = ["asteroid_sdr", "part_of", "smp_losses", "torchvision_imports"]

_DECLARED = torch.library.Library("torchvision", "FRAGMENT")


def smp_losses() -> ModuleType:
    """The losses of segmentation-models-pytorch, without its encoders, timm and torchvision."""
    return part_of("segmentation_models_pytorch", "losses")


def asteroid_sdr() -> ModuleType:
    """The file of asteroid that has its ratios; the package itself wants torchaudio and more."""
    return part_of("asteroid", "losses.sdr")


def part_of(package: str, part: str) -> ModuleType:
    """A module of a package, whose own ``__init__`` and those on the way to it are not run.

    It goes by another name, so that the package itself can still be imported.

    Raises:
        ModuleNotFoundError: the package is not installed, or has no such part.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {package!r}")
    name, folder = f"{package}_parts", Path(found.submodule_search_locations[0])
    for step in part.split("."):
        if name not in sys.modules:
            sys.modules[name] = ModuleType(name)
            sys.modules[name].__path__ = [str(folder)]
        name, folder = f"{name}.{step}", folder / step
    return importlib.import_module(name)


def torchvision_imports() -> None:
    """Make torchvision importable beside a build of torch that its compiled part was not made for.

    Its losses, and what timm, torchmetrics and transformers import of it, are Python. It stops at
    the operators that its compiled part would have brought: they are declared, and never called.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    missing = ""
    while True:
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            named = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if named is None or named[1] == missing:
                raise
            missing = named[1]
            _DECLARED.define(f"{missing}(Tensor boxes) -> Tensor")
        else:
            return
