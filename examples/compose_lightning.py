"""The same in Lightning: the criterion is a part of the module, so checkpoints hold its state.

pip install lightning
python examples/compose_lightning.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from aptt.compose import CombinedLoss, Ramp, Uncertainty
from aptt.loss import CrossEntropyLoss, RMSELoss


class Module(lightning.LightningModule):
    """What class a point is of, and how far out it is."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 5))
        self.criterion = CombinedLoss(
            {"cls": CrossEntropyLoss(label_smoothing=0.1), "far": RMSELoss()},
            weights={"far": Ramp(0.1, 1.0, over=3)},
            inputs={"cls": ("logits", "labels"), "far": ("distance", "wanted")},
            balance=Uncertainty(),
        )
        self.logs: list[dict[str, float]] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """One number, so that automatic optimization needs nothing special."""
        x, labels, wanted = batch
        out = self.model(x)
        return self.criterion(logits=out[:, :4], distance=out[:, 4], labels=labels, wanted=wanted)

    def on_train_epoch_end(self) -> None:
        """Log every term and advance the ramp."""
        self.logs.append(self.criterion.log("train/"))
        self.log_dict(self.logs[-1])
        self.criterion.step()

    def configure_optimizers(self) -> Any:
        """The scales of Uncertainty are parameters, without weight decay."""
        groups = [
            {"params": self.model.parameters()},
            {"params": self.criterion.parameters(), "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, 1e-2)


def data() -> DataLoader[Any]:
    """The quadrant of a point, and its distance from the middle."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 2, generator=generator)
    labels = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    return DataLoader(TensorDataset(x, labels, x.norm(dim=1)), batch_size=32)


def fit(folder: Path, epochs: int, resume: Path | None = None) -> Module:
    """Train up to ``epochs``, from the beginning or from a checkpoint."""
    lightning.seed_everything(0)
    module = Module()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(module, data(), ckpt_path=resume)
    trainer.save_checkpoint(folder / f"epoch{epochs}.ckpt")
    return module


def main(folder: Path) -> Module:
    """Stop in the middle of the ramp, and go on from the checkpoint."""
    fit(folder, 2)
    module = fit(folder, 5, resume=folder / "epoch2.ckpt")
    for log in module.logs:
        print({name: round(value, 3) for name, value in log.items()})
    return module


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
