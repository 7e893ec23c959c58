"""One of two ranks: ``python rank.py STORE HOW RANK``; prints ``half``, then a sum of its means."""

import sys
import time
from datetime import timedelta

import torch
from torch import distributed as dist

from aptt.loss import cross_entropy
from aptt.parallel import global_mean

STEPS = 40


def main(store: str, how: str, rank: int) -> None:
    torch.set_num_threads(1)
    wait = timedelta(seconds=5 if how in ("frozen", "killed") else 60)
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2, timeout=wait)
    draw, total = torch.Generator().manual_seed(rank), 0.0
    for step in range(STEPS):
        n = 3 + 2 * rank
        logits = torch.randn(n, 5, generator=draw).requires_grad_()
        loss = cross_entropy(logits, torch.arange(n) % 5, reduction=global_mean())
        loss.backward()
        total += loss.item() + logits.grad.square().sum().item()
        if how == "slow" and rank:
            time.sleep(0.05)
        if rank and step == STEPS // 2:
            print("half", flush=True)
            time.sleep(0.5)
    print(total, flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except RuntimeError as error:
        print("error:", str(error).partition("\n")[0], flush=True)
