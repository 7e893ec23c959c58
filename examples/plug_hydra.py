"""A loss by Hydra's ``_target_``: a module, or a function with its options.

pip install hydra-core
python examples/plug_hydra.py
"""

from __future__ import annotations

from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor

MODULE = {"_target_": "aptt.loss.CrossEntropyLoss", "label_smoothing": 0.1, "class_dim": -1}
FUNCTION = {"_target_": "aptt.loss.cross_entropy", "_partial_": True, **{
    name: value for name, value in MODULE.items() if name != "_target_"
}}  # fmt: skip
SUM = {
    "_target_": "aptt.compose.CombinedLoss",
    "terms": {
        "main": MODULE,
        "far": {"_target_": "aptt.loss.FocalLoss", "gamma": 1.5},
    },
    "weights": {"far": 0.5},
}


def main(config: dict[str, Any]) -> Tensor:
    """Make it, and call it once."""
    loss = instantiate(config)
    g = torch.Generator().manual_seed(0)
    value: Tensor = loss(torch.randn(6, 3, generator=g), torch.arange(6) % 3)
    print(f"{config['_target_']}: {value:.4f}")
    return value


if __name__ == "__main__":
    for config in (MODULE, FUNCTION, SUM):
        main(config)
