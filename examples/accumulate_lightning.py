"""Lightning's ``accumulate_grad_batches``, exact: each batch brings the count of its whole step.

pip install lightning
python examples/accumulate_lightning.py

Lightning divides each loss by the number of micro-batches, and averages over ranks. The loader
here looks as far ahead as a step reaches, and hands each batch over with the normalizer of its
step, which multiplies by both. It needs no knowledge of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from aptt.loss import cross_entropy
from aptt.parallel import CountMean, count_ahead

ROWS, BATCH, MICRO_BATCHES, EPOCHS = 37, 4, 3, 2  # neither divides the other: an epoch ends ragged


class Counted:
    """A loader whose batches come with the normalizer of the step that they are of."""

    def __init__(self, loader: Any, micro_batches: int, ranks: int = 1) -> None:
        self.loader, self.micro_batches, self.ranks = loader, micro_batches, ranks

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Any, CountMean]]:
        batches, average = iter(self.loader), float(self.micro_batches * self.ranks)
        while step := list(islice(batches, self.micro_batches)):
            shared = count_ahead(step, lambda batch: (batch[1] != -100).sum(), grad_average=average)
            yield from ((batch, shared) for batch in step)


class Model(lightning.LightningModule):
    """The same weights each time, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 7)).double()

    def training_step(self, batch: Any, index: int) -> Tensor:
        """The share of a micro-batch in the mean over its step."""
        (x, y), shared = batch
        return cross_entropy(self.net(x.double()), y, class_dim=-1, reduction=shared)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD, whose steps can be compared."""
        return torch.optim.SGD(self.parameters(), lr=0.5)


def data() -> list[tuple[Tensor, Tensor]]:
    """Sequences of vectors, of uneven length under padding."""
    g = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(ROWS):
        x, y = torch.randn(6, 5, generator=g), torch.randint(7, (6,), generator=g)
        y[int(torch.randint(1, 7, (1,), generator=g)) :] = -100
        rows.append((x, y))
    return rows


def fit(folder: Path, batch: int, micro_batches: int) -> dict[str, Tensor]:
    """Train in so many micro-batches a step."""
    model = Model()
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accumulate_grad_batches=micro_batches,
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, Counted(DataLoader(data(), batch_size=batch), micro_batches))
    return dict(model.state_dict())


def main(folder: Path) -> float:
    """How far the weights are from those of large batches."""
    split, whole = fit(folder, BATCH, MICRO_BATCHES), fit(folder, BATCH * MICRO_BATCHES, 1)
    apart = max((split[name] - whole[name]).abs().max().item() for name in split)
    print(f"after {EPOCHS} epochs no weight differs by more than {apart:.1e}")
    return apart


if __name__ == "__main__":
    main(Path("runs"))
