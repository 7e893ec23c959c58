"""Micro-batches under Accelerate that are one large batch, to the end of every epoch.

pip install accelerate
accelerate launch examples/accumulate_accelerate.py        (or python, for one process)

Accelerate's own ``accumulate`` looks at the loader to see where an epoch ends, and a loop that
counts ahead has fetched the last batch before it trains on the ones before it. So the loop here
says itself which micro-batch is the last of a step, and Accelerate is told of no accumulation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from aptt.loss import cross_entropy
from aptt.parallel import count_ahead

ROWS, BATCH, MICRO_BATCHES, EPOCHS = 37, 4, 3, 2  # neither divides the other: an epoch ends ragged


def data() -> list[tuple[Tensor, Tensor]]:
    """Sequences of vectors, of uneven length under padding."""
    g = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(ROWS):
        x, y = torch.randn(6, 5, generator=g), torch.randint(7, (6,), generator=g)
        y[int(torch.randint(1, 7, (1,), generator=g)) :] = -100
        rows.append((x, y))
    return rows


def network() -> nn.Module:
    """The same weights each time, in float64."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 7)).double()


def steps(loader: Any) -> Iterator[list[Any]]:
    """The micro-batches of each step."""
    batches = iter(loader)
    while step := list(islice(batches, MICRO_BATCHES)):
        yield step


def train() -> dict[str, Tensor]:
    """Several micro-batches a step, on as many processes as there are."""
    accelerator = Accelerator(cpu=True)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    loader = DataLoader(data(), batch_size=BATCH)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for _ in range(EPOCHS):
        for micro_batches in steps(loader):
            shared = count_ahead(micro_batches, lambda batch: (batch[1] != -100).sum())
            for i, (x, y) in enumerate(micro_batches):
                last = i == len(micro_batches) - 1
                with nullcontext() if last else accelerator.no_sync(model):
                    loss = cross_entropy(model(x.double()), y, class_dim=-1, reduction=shared)
                    accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    return dict(accelerator.unwrap_model(model).state_dict())


def reference(ranks: int = 1) -> dict[str, Tensor]:
    """The same in plain PyTorch, a step's rows in one batch."""
    model, rows = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    size = BATCH * MICRO_BATCHES * ranks
    for _ in range(EPOCHS):
        for start in range(0, len(rows), size):
            x, y = (torch.stack(t) for t in zip(*rows[start : start + size], strict=True))
            cross_entropy(model(x.double()), y, class_dim=-1).backward()
            optimizer.step()
            optimizer.zero_grad()
    return dict(model.state_dict())


def main() -> float:
    """How far the weights of both are apart."""
    one, other = train(), reference()
    apart = max((one[name] - other[name]).abs().max().item() for name in one)
    print(f"after {EPOCHS} epochs no weight differs by more than {apart:.1e}")
    return apart


if __name__ == "__main__":
    main()
