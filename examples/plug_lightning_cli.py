"""A loss by its class path, as Lightning's command line has it.

pip install lightning "jsonargparse[signatures]"
python examples/plug_lightning_cli.py --model.loss aptt.loss.FocalLoss --model.loss.gamma 1.5

Or in a file, for ``--config``:

    model:
      loss:
        class_path: aptt.loss.FocalLoss
        init_args: {gamma: 1.5}
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.cli import LightningCLI
from torch import Tensor, nn
from torch.utils.data import DataLoader


class Classifier(lightning.LightningModule):
    """A line through points of three classes, with whatever loss it is given."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.loss = nn.Linear(2, 3), loss
        self.losses: list[float] = []

    def training_step(self, batch: Any, index: int) -> Tensor:
        """The mean over a batch."""
        x, y = batch
        loss: Tensor = self.loss(self.net(x), y)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def train_dataloader(self) -> Any:
        """Points around the corners of a triangle."""
        g = torch.Generator().manual_seed(0)
        y = torch.arange(48) % 3
        corners = torch.tensor([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])
        return DataLoader([*zip(corners[y] + torch.randn(48, 2, generator=g), y, strict=True)], 16)


def main(arguments: Sequence[str]) -> Classifier:
    """Make the model from the command line, and train it."""
    quiet = {
        "max_epochs": 5,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    cli = LightningCLI(
        Classifier,
        save_config_callback=None,
        trainer_defaults=quiet,
        run=False,
        args=list(arguments),
    )
    cli.trainer.fit(cli.model)
    model: Classifier = cli.model
    print(f"{model.loss}: {model.losses[0]:.4f} to {model.losses[-1]:.4f}")
    return model


if __name__ == "__main__":
    main(sys.argv[1:])
