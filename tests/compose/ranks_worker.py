"""What each of two ranks does, and one process alone; `test_ranks.py` compares them."""

from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from aptt.compose import DWA, CombinedLoss, GradNorm, GradShare, Ramp, Uncertainty, over_ranks

BALANCERS = {
    "none": lambda: None,
    "uncertainty": Uncertainty,
    "gradshare": GradShare,
    "gradnorm": GradNorm,
    "gradnorm at a parameter": GradNorm,
    "dwa": DWA,
}


def train(balance, rank, ranks, absent=None):
    """Six steps; the criterion is not wrapped. ``absent``: a step in which rank 1 lacks a term."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x, y = torch.randn(6, 8, 3), 3 * torch.randn(6, 8, 2)
    loss = CombinedLoss(
        {"mse": nn.MSELoss(), "l1": nn.L1Loss()},
        weights={"l1": Ramp(0.5, 2.0, over=4)},
        inputs={"mse": ("out", "y"), "l1": ("out", "y1")},
        balance=BALANCERS[balance](),
    )
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], 0.1)
    wrapped = DistributedDataParallel(model) if ranks > 1 else model
    place = (lambda out: model[2].weight) if "parameter" in balance else lambda out: out
    size = 8 // ranks
    rows = slice(rank * size, (rank + 1) * size)
    for step in range(6):
        out = wrapped(x[step, rows])
        goal = y[step, rows]
        missing = step == absent and rank == 1
        total = loss(out=out, y=goal, y1=None if missing else goal, at=place(out))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        loss.step()
        if balance == "dwa" and step % 2:
            loss.balance.end_epoch()
    return {
        "model": [p.detach() for p in model.parameters()],
        "grad": [p.grad for p in model.parameters()],
        "balance": {} if loss.balance is None else dict(loss.balance.state_dict()),
        "pooled": loss.log(pool=over_ranks),
    }


class Whole(nn.Module):
    """A criterion inside what is wrapped, as a Lightning module has it."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(2, 1)
        self.loss = CombinedLoss({"mse": nn.MSELoss(), "l1": nn.L1Loss()}, balance=Uncertainty())

    def forward(self, x):
        out = self.model(x)
        return self.loss(out, torch.zeros_like(out))


def wrapped(rank):
    """Three steps, then a NaN on rank 1 alone, then a step of rank 0's buffers for everyone."""
    torch.manual_seed(0)
    whole = DistributedDataParallel(Whole())
    optimizer = torch.optim.SGD(whole.parameters(), 0.1)
    for step in range(3):
        torch.manual_seed(10 * step + rank)
        optimizer.zero_grad()
        whole(torch.randn(4, 2)).backward()
        optimizer.step()
    with torch.no_grad():
        for value in (float("nan") if rank == 1 else 1.0, 1.0):
            whole(torch.full((4, 2), value))
    record = whole.module.loss.record
    record.fold()
    return {
        "s": whole.module.loss.balance.s.detach(),
        "nonfinite": record.nonfinite,
        "first_bad": record.first_bad,
    }


def skipping(rank):
    """Four steps, of which the second has a NaN on rank 1 alone; SGD with momentum."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(2, 1))
    loss = CombinedLoss({"mse": nn.MSELoss()}, on_nonfinite="skip")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    weights, left_out = [], []
    for step in range(4):
        x = torch.ones(4, 2) * (torch.nan if step == 1 and rank == 1 else 1.0)
        optimizer.zero_grad()
        total = loss(model(x), torch.zeros(4, 1))
        total.backward()
        optimizer.step()
        left_out.append(loss.skipped)
        weights.append(model.module.weight.detach().clone())
    return {"weights": torch.stack(weights), "skipped": left_out, "log": loss.log()["skipped"]}


CUTS = {
    (1, 1): [[24]],
    (1, 3): [[1, 16, 7]],
    (2, 1): [[12], [12]],
    (2, 3): [[1, 7, 4], [9, 2, 1]],
    (2, 0): [[5, 8, 2], [9]],
    (4, 1): [[4], [11], [9], [0]],
    (4, 3): [[1, 5, 2], [3, 0, 4], [2, 4, 3], [0, 0, 0]],
}
"""Rows of the micro-batches of each rank, by ranks and micro-batches; 0: as each has it.

The last of four ranks has nothing.
"""


def _square(out, y, share):
    return share * (out - y).square().sum()


def _distance(out, y, share):
    return share * (out - y).abs().sum()


def accumulated(balance, rank, cut):
    """Three steps of 24 rows in float64, whose micro-batches are shares of the whole."""
    torch.manual_seed(0)
    ranks, rows = cut[0], CUTS[cut][rank]
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(3, 24, 3).double(), 3 * torch.randn(3, 24, 2).double()
    loss = CombinedLoss(
        {"square": _square, "distance": _distance},
        inputs={"square": ("out", "y", "share"), "distance": ("out", "y", "share")},
        balance=BALANCERS[balance](),
    )
    for learnt in loss.parameters():  # which stay float32 in a model of another dtype
        learnt.data = learnt.data.double()
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], 0.05)
    wrapped = DistributedDataParallel(model) if ranks > 1 else model
    place = (lambda out: model[2].weight) if "parameter" in balance else lambda out: out
    for step in range(3):
        optimizer.zero_grad()
        start = sum(map(sum, CUTS[cut][:rank]))
        with loss.accumulating(len(rows)):
            for i, n in enumerate(rows):
                alone = ranks == 1 or i == len(rows) - 1
                with nullcontext() if alone else wrapped.no_sync():
                    out = wrapped(x[step, start : start + n])
                    given = {"y": y[step, start : start + n], "share": ranks / 48}
                    loss(out=out, at=place(out), **given).backward()
                start += n
        optimizer.step()
        if balance == "dwa":
            loss.balance.end_epoch()
    state = {} if loss.balance is None else dict(loss.balance.state_dict())
    return {"model": [p.detach() for p in model.parameters()], "balance": state}


def split(rank, ranks):
    """Every balancer, in every cut for so many ranks."""
    return {
        (name, cut): accumulated(name, rank, cut)
        for name in BALANCERS
        for cut in CUTS
        if cut[0] == ranks
    }


def of_four(rank, folder):
    """The splits over four ranks alone."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/four", rank=rank, world_size=4)
    torch.save(split(rank, 4), f"{folder}/four{rank}.pt")
    dist.destroy_process_group()


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    result = {name: train(name, rank, 2) for name in BALANCERS}
    result |= {
        f"{name} absent": train(name, rank, 2, absent=3) for name in BALANCERS if name != "none"
    }
    result["wrapped"] = wrapped(rank)
    result["accumulated"] = split(rank, 2)
    result["skipping"] = skipping(rank)
    torch.save(result, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()
