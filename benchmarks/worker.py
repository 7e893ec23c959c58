"""One contender in a process of its own: makes the input, and answers orders until told to end."""

from __future__ import annotations

import math
import signal
import statistics
from contextlib import nullcontext
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import FLOOR, Case
from benchmarks.cases import CASES
from benchmarks.clock import bandwidth, seconds
from benchmarks.compiler import Generated, generated
from benchmarks.memory import held, peak_extra, release

__all__ = ["UPSTREAM", "answer", "serve"]

UPSTREAM = {"upstream_1": 1, "upstream_quarter": 4}
"""What the loss is divided by before ``backward``; 1 is ``loss.backward()`` itself."""

_SECONDS = 0.1  # a timing shorter than this is the median of several
_MOST = 50


def serve(orders: Connection, case: str, contender: str, quick: bool, device: str) -> None:
    """Be the contender's process. Ctrl-C is for the one that gives the orders."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if orders.recv() == "begin":
        answer(orders, case, contender, quick, device)


def answer(orders: Connection, case: str, contender: str, quick: bool, device: str = "cpu") -> None:
    """Report whether the contender works here, then time it or weigh it as ordered.

    Sends ``(status, answer)`` once, with status ``"ready"``, ``"missing"`` or ``"failed"``; after
    ``"ready"``, an answer for each order until ``"end"``.
    """
    try:
        kind = _Floor if contender == FLOOR else _Subject
        subject = kind(CASES[case], contender, quick, device)
        orders.send(("ready", subject.warm_up()))
    except ImportError as error:
        orders.send(("missing", str(error)))
        return
    except Exception as error:  # whatever a peer raises is its row in the table
        orders.send(("failed", f"{type(error).__name__}: {error}"))
        return
    while (order := orders.recv()) != "end":
        orders.send(subject.time() if order == "time" else subject.weigh())


class _Subject:
    """A contender with its input."""

    def __init__(self, case: Case, name: str, quick: bool, device: str) -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        with self.device:
            self.x, self.target = case.inputs(case.size_on(device, quick))
            self._prepare(case, name)
        self.x.requires_grad_()
        self.calls = 1

    def _prepare(self, case: Case, name: str) -> None:
        contender = case.contender(name)
        self.loss = contender.make()
        self.compiled = contender.compiled
        if self.compiled:
            self.loss = torch.compile(self.loss, fullgraph=True, dynamic=False)

    def call(self, divisor: int = 1) -> float:
        """Forward and backward into a fresh gradient; seconds. The old one is freed before."""
        self.x.grad = None

        def step() -> None:
            loss = self.loss(self.x, self.target)
            if divisor != 1:
                loss = loss / divisor
            loss.backward()

        return seconds(step, self.device)

    def warm_up(self) -> dict[str, Any]:
        """Call twice, the first time compiling; what was computed, to compare with ours."""
        with generated() if self.compiled else nullcontext(Generated()) as code:
            first = self.call()
        again = self.call()
        self.calls = min(math.ceil(_SECONDS / again), _MOST)
        assert self.x.grad is not None
        norm = torch.linalg.vector_norm(self.x.grad, dtype=torch.float64)
        with torch.no_grad():
            value = self.loss(self.x, self.target)
        return {
            "value": float(value),
            "gradient_norm": float(norm),
            "first_call": first,
            "kernels": code.kernels,
            "traffic": None if code.traffic is None else code.traffic / _size(self.x),
            "held": self.hold() / _size(self.x),
            "prediction_bytes": _size(self.x),
            "shape": list(self.x.shape),
            "dtype": str(self.x.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }

    def time(self) -> dict[str, float]:
        """One round: seconds at each upstream gradient, after a call that is thrown away."""
        result = {}
        for name, divisor in UPSTREAM.items():
            self.call(divisor)
            result[name] = statistics.median(self.call(divisor) for _ in range(self.calls))
        self.x.grad = None
        release(self.device)  # while others run
        return result

    def hold(self) -> int:
        """Bytes that wait from forward to backward, the input's not counted."""
        return held(lambda: self.loss(self.x, self.target), self.x, self.target)

    def weigh(self) -> float | None:
        """Peak memory of a call beyond the input, gradient included, in predictions."""
        self.x.grad = None
        extra = peak_extra(self.call, self.device)
        return None if extra is None else extra / _size(self.x)


class _Floor(_Subject):
    """No loss at all: write a gradient into fresh memory and read the input twice."""

    def _prepare(self, case: Case, name: str) -> None:
        pass

    def call(self, divisor: int = 1) -> float:
        kept = []  # is freed after the time

        @torch.no_grad()
        def step() -> None:
            kept.append(torch.empty_like(self.x).fill_(1.0))
            for _ in range(2):
                _read(self.x)
                _read(self.target)

        return seconds(step, self.device)

    def warm_up(self) -> dict[str, Any]:
        """As for any other, but nothing is computed."""
        first, again = self.call(), self.call()
        self.calls = min(math.ceil(_SECONDS / again), _MOST)
        least = 2 * _size(self.x) + _size(self.target)
        return {"first_call": first, "roof": least / bandwidth(self.x)}


def _read(t: Tensor) -> None:
    """Read all of a tensor, by the fastest way at hand (measured: the dot product)."""
    if t.is_floating_point():
        flat = t.detach().reshape(-1).view(torch.float32)
        flat.dot(flat)
    else:
        t.reshape(-1).sum()


def _size(t: Tensor) -> int:
    return t.numel() * t.element_size()
