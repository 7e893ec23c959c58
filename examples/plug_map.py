"""A map of losses by name, as a training script's configuration picks from it.

python examples/plug_map.py

What a configuration can name is what the map offers: no file makes anything else run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aptt.compose import CombinedLoss, build
from aptt.loss import DiceCELoss, DiceLoss, FocalLoss, TverskyLoss

LOSSES: dict[str, Callable[..., nn.Module]] = {
    "dice": DiceLoss,
    "dice_ce": DiceCELoss,
    "focal": FocalLoss,
    "recall": partial(TverskyLoss, alpha=0.3, beta=0.7),  # a miss costs more than a false alarm
}

CONFIG: dict[str, Any] = {
    "terms": {
        "region": {"loss": {"use": "recall", "absent": "zero"}, "weight": 2.0},
        "pixel": {"loss": {"use": "focal", "gamma": 1.5}},
    }
}


def main(config: dict[str, Any] = CONFIG) -> tuple[CombinedLoss, Tensor]:
    """Make the loss, and call it once."""
    loss = build(config, LOSSES)
    g = torch.Generator().manual_seed(0)
    value: Tensor = loss(torch.randn(2, 3, 4, 5, generator=g), torch.randint(3, (2, 4, 5)))
    print(loss, f"{value:.4f}", sep="\n")
    return loss, value


if __name__ == "__main__":
    main()
