"""Peers that need more than an import statement."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["asteroid_sdr", "smp_losses"]


def smp_losses() -> ModuleType:
    """The losses of segmentation-models-pytorch, without the rest of that package.

    Importing the package itself brings its encoders, and with them timm and torchvision; the
    losses need torch and numpy.
    """
    package = importlib.util.find_spec("segmentation_models_pytorch")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'segmentation_models_pytorch'")
    name, folder = "segmentation_models_pytorch_losses", Path(package.origin).parent / "losses"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"No losses in {folder}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def asteroid_sdr() -> ModuleType:
    """The file of asteroid that has its ratios; the package itself wants torchaudio and more."""
    package = importlib.util.find_spec("asteroid")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'asteroid'")
    file = Path(package.origin).parent / "losses" / "sdr.py"
    spec = importlib.util.spec_from_file_location("asteroid_losses_sdr", file)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No losses in {file}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
