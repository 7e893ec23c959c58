"""``python -m benchmarks.head``: what the loss head costs beside its matrix products.

Time beside the three products alone, memory and time as the vocabulary grows, and what dropping
ignored tokens saves. Each line is the median of ``--rounds`` rounds, in which the contenders take
turns; memory is the growth of the process in a call, gradients left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.loss import linear_cross_entropy
from benchmarks.memory import peak_extra

__all__ = ["main"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, nargs="*", default=[8192, 32000, 65536, 131072])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    given = parser.parse_args()
    print("| vocabulary | products alone | aptt | whole logits | aptt, 60 % ignored | ", end="")
    print("scratch of aptt | of whole logits |\n| --- | --- | --- | --- | --- | --- | --- |")
    for classes in given.vocabulary:
        print(_line(given, classes), flush=True)


def _line(given: argparse.Namespace, classes: int) -> str:
    dtype = getattr(torch, given.dtype)
    torch.manual_seed(0)
    hidden = torch.randn(given.tokens, given.hidden).to(dtype).requires_grad_()
    weight = (torch.randn(classes, given.hidden) / given.hidden**0.5).to(dtype).requires_grad_()
    target = torch.randint(classes, (given.tokens,))
    few = target.clone()
    few[torch.rand(len(few)) < 0.6] = -100

    def products() -> None:
        with torch.no_grad():
            slope = F.linear(hidden, weight)
            del_h, del_w = slope @ weight, slope.T @ hidden
            del slope, del_h, del_w

    def training(loss: Callable[[], Tensor]) -> Callable[[], None]:
        def step() -> None:
            hidden.grad = weight.grad = None
            loss().backward()

        return step

    def whole() -> Tensor:
        return F.cross_entropy(F.linear(hidden, weight).float(), target)

    calls = {
        "products": products,
        "aptt": training(lambda: linear_cross_entropy(hidden, weight, target)),
        "whole": training(whole),
        "few": training(lambda: linear_cross_entropy(hidden, weight, few)),
    }
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(given.rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
    times = [f"{statistics.median(seconds[1:]):.2f} s" for seconds in taken.values()]
    gradients = hidden.nbytes + weight.nbytes
    scratch = []
    for name in ("aptt", "whole"):
        hidden.grad = weight.grad = None
        extra = peak_extra(calls[name])
        scratch.append("?" if extra is None else f"{(extra - gradients) / 2**20:.0f} MiB")
    return f"| {classes} | " + " | ".join((*times, *scratch)) + " |"


if __name__ == "__main__":
    main()
