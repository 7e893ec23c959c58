"""Gradient surgery is TorchJD's work; our terms are what it works on.

    pip install torchjd qpsolvers quadprog
    python examples/compose_torchjd.py

The weights and the account stay here, the gradients of the terms are aggregated there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchjd.aggregation import UPGrad
from torchjd.autojac import backward, jac_to_grad

from aptt.compose import WeightedSum
from aptt.loss import CrossEntropyLoss, RMSELoss


def main(steps: int = 60) -> dict[str, float]:
    """Train two terms that share a trunk, without either being pushed back by the other."""
    torch.manual_seed(0)
    x = torch.randn(128, 2)
    labels, wanted = (x[:, 0] * x[:, 1] > 0).long(), x.norm(dim=1)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3))
    losses = {"cls": CrossEntropyLoss(), "far": RMSELoss()}
    mix = WeightedSum({"cls": 1.0, "far": 0.5})
    aggregator = UPGrad()
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(steps):
        out = model(x)
        terms: dict[str, Tensor | None] = {
            "cls": losses["cls"](out[:, :2], labels),
            "far": losses["far"](out[:, 2], wanted),
        }
        mix(terms)  # for the account; backward is not called on it
        weighted = [mix.weight[i].float() * terms[name] for i, name in enumerate(mix.names)]
        optimizer.zero_grad()
        backward(weighted)
        jac_to_grad(model.parameters(), aggregator)
        optimizer.step()
    logged = mix.log()
    print(logged)
    return logged


if __name__ == "__main__":
    main()
