"""``python -m benchmarks.small``: the host's time of small calls, forward and backward.

What a call costs whose tensors are so small that the time is that of Python and of launching
operators: ours with all checks, beside torch's own or the recipe. One thread; each pair takes
turns, and a figure is the median over all rounds. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

import aptt.loss
from benchmarks.cases.audio import plain as plain_ratio
from benchmarks.cases.boxes import plain_giou
from benchmarks.cases.focal import plain as plain_focal
from benchmarks.cases.overlap import plain as plain_overlap

__all__ = ["main"]

Loss = Callable[[Tensor, Tensor], Tensor]


class _Pair(NamedTuple):
    name: str
    ours: Loss
    other: Loss
    x: Tensor
    target: Tensor


def _pairs() -> list[_Pair]:
    torch.manual_seed(0)
    x, y = torch.randn(32, 10), torch.randint(10, (32,))
    answers = torch.randint(2, (32, 10)).float()
    corner, side = torch.rand(64, 2), torch.rand(64, 2)
    boxes = torch.cat((corner, corner + side), 1)
    masks, classes = torch.randn(2, 4, 32, 32), torch.randint(4, (2, 32, 32))
    waves = torch.randn(4, 4000)
    smoothed = {"label_smoothing": 0.1}
    return [
        _Pair("cross_entropy 32x10", aptt.loss.cross_entropy, F.cross_entropy, x, y),
        _Pair(
            "cross_entropy, smoothing",
            partial(aptt.loss.cross_entropy, **smoothed),
            partial(F.cross_entropy, **smoothed),
            x,
            y,
        ),
        _Pair(
            "binary_cross_entropy 32x10",
            aptt.loss.binary_cross_entropy,
            F.binary_cross_entropy_with_logits,
            x,
            answers,
        ),
        _Pair("rmse 32x10", aptt.loss.rmse_loss, lambda a, b: F.mse_loss(a, b).sqrt(), x, x + 1),
        _Pair(
            "dice 2x4x32x32",
            partial(aptt.loss.dice_loss, pool="sample"),
            partial(plain_overlap, alpha=0.5, beta=0.5),
            masks,
            classes,
        ),
        _Pair(
            "distillation 32x10",
            partial(aptt.loss.distillation_loss, alpha=1.0),
            lambda a, b: (
                16 * F.kl_div(F.log_softmax(a / 4, 1), F.softmax(b / 4, 1), reduction="batchmean")
            ),
            x,
            answers,
        ),
        _Pair(
            "si_sdr 4x4000",
            aptt.loss.si_sdr_loss,
            partial(plain_ratio, kind="sisdr"),
            waves + torch.randn(4, 4000),
            waves,
        ),
        _Pair("focal 32x10", aptt.loss.focal_loss, plain_focal, x, answers),
        _Pair("giou 64", aptt.loss.giou_loss, plain_giou, boxes + 0.05, boxes),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| call | aptt, us | other, us | ratio | forward alone |\n| --- | --- | --- | --- | --- |"
    )
    for pair in _pairs():
        print(_line(pair, given.rounds), flush=True)


def _line(pair: _Pair, rounds: int) -> str:
    x = pair.x.requires_grad_()

    def step(loss: Loss) -> Callable[[], None]:
        def call() -> None:
            x.grad = None
            loss(x, pair.target).backward()

        return call

    def forward(loss: Loss) -> Callable[[], object]:
        plain = x.detach()
        return lambda: loss(plain, pair.target)

    ours, other = _medians([step(pair.ours), step(pair.other)], rounds)
    mine, theirs = _medians([forward(pair.ours), forward(pair.other)], rounds)
    return (
        f"| {pair.name} | {1e6 * ours:.0f} | {1e6 * other:.0f} | {ours / other:.1f} "
        f"| {mine / theirs:.1f} |"
    )


def _medians(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Seconds of each, taking turns; the first tenth is thrown away."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + rounds // 10):
        for call, found in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return [statistics.median(found[rounds // 10 :]) for found in times]


if __name__ == "__main__":
    main()
