"""Run the contenders of a case, each in its own process, taking turns."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.case import FLOOR, Case, Contender
from benchmarks.worker import UPSTREAM, serve

__all__ = ["differs", "run", "summary"]

LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""Where this is 1, torch asks Linux for large pages for all of its memory on the CPU."""

_SPAWN = multiprocessing.get_context("spawn")  # a fresh interpreter, whatever this one holds


class _Worker:
    """The other end of a contender's process."""

    def __init__(self, case: Case, contender: str, quick: bool, device: str) -> None:
        self.name = contender
        self.pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(
            target=serve, args=(theirs, case.name, contender, quick, device), daemon=False
        )
        self.process.start()
        theirs.close()
        self.rounds: list[dict[str, float]] = []
        self.status, self.answer = "started", None

    def begin(self) -> None:
        """Make the input and call for the first times."""
        answer = self.order("begin")
        if answer is not None:
            self.status, self.answer = answer

    def order(self, order: str) -> Any:
        """The answer to an order; ``None`` from a process that died of it, which has failed."""
        try:
            self.pipe.send(order)
            return self.pipe.recv()
        except (EOFError, OSError):
            self._died()
        return None

    def _died(self) -> None:
        self.process.join(5)
        self.fail(f"its process ended with code {self.process.exitcode} (-9: out of memory?)")

    def fail(self, reason: str) -> None:
        """Leave the race, for this reason."""
        self.end()
        self.status, self.answer = "failed", reason

    def end(self) -> None:
        """Ask the process to end, and see that it does."""
        with contextlib.suppress(OSError):
            self.pipe.send("end")
        self.process.join(10)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


def run(
    case: Case, rounds: int, quick: bool, large_pages: bool = False, device: str = "cpu"
) -> dict[str, Any]:
    """Measure one case; the result is as ``README.md`` describes it."""
    workers: dict[str, _Worker] = {}
    os.environ[LARGE_PAGES] = str(int(large_pages))  # read by torch when a process starts
    try:
        for name in (FLOOR, *(contender.name for contender in case.entered(device))):
            workers[name] = _Worker(case, name, quick, device)
        for name, worker in workers.items():
            _say(f"{case.name}: starting {name}")
            worker.begin()  # one at a time: none compiles in another's
        for contender in case.entered(device):
            _check(contender, workers)
        for i in range(rounds):
            _say(f"{case.name}: round {i + 1} of {rounds}")
            _round(list(workers.values()), i)
        _say(f"{case.name}: memory")
        weights = {
            name: worker.order("weigh") for name, worker in workers.items() if _ready(worker)
        }
    finally:
        for worker in workers.values():
            worker.end()
        _say("")
    return {**_result(case, workers, weights), "large_pages": large_pages, "device": device}


def _round(workers: Sequence[_Worker], turn: int) -> None:
    """Time each once, another one first each time; a noisy moment hits all."""
    first = turn % len(workers)
    for worker in (*workers[first:], *workers[:first]):
        if _ready(worker):
            answer = worker.order("time")
            if answer is not None:
                worker.rounds.append(answer)


def _ready(worker: _Worker) -> bool:
    return worker.status == "ready"


def _check(contender: Contender, workers: dict[str, _Worker]) -> None:
    """Throw out whoever computes something else than ours."""
    mine, theirs = workers[contender.against], workers[contender.name]
    if _ready(mine) and _ready(theirs):
        found = differs(mine.answer, theirs.answer, contender.tolerance)
        if found:
            theirs.fail(found)


def differs(mine: dict[str, float], theirs: dict[str, float], tolerance: float) -> str | None:
    """How two contenders differ in what they compute, or ``None`` if they agree."""
    for name in ("value", "gradient_norm"):
        a, b = mine[name], theirs[name]
        if not abs(a - b) <= tolerance * abs(a):  # NaN differs
            return f"computes something else: {name} {b:.6g}, ours {a:.6g}"
    return None


def summary(seconds: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles and the ratio to ours of the same round; times in seconds."""
    many = len(seconds) > 1
    low, _, high = statistics.quantiles(seconds, method="inclusive") if many else seconds * 3
    pairs = [a / b for a, b in zip(seconds, ours, strict=False)]
    return {
        "median": statistics.median(seconds),
        "quartiles": [low, high],
        "ratio": statistics.median(pairs) if pairs else None,
        "rounds": list(seconds),
    }


def _result(
    case: Case, workers: dict[str, _Worker], weights: dict[str, float | None]
) -> dict[str, Any]:
    ready = [worker.answer for name, worker in workers.items() if name != FLOOR and _ready(worker)]
    about = ("shape", "dtype", "prediction_bytes", "threads")
    against = {contender.name: contender.against for contender in case.contenders}
    against[FLOOR] = case.contenders[0].name
    floor = workers[FLOOR]
    roof = floor.answer["roof"] if _ready(floor) else None
    return {
        "name": case.name,
        **{key: ready[0][key] if ready else None for key in about},
        "roof": roof,
        "contenders": [
            _row(worker, workers[against[name]], weights.get(name), roof)
            for name, worker in workers.items()
        ],
    }


def _row(
    worker: _Worker, ours: _Worker, weight: float | None, roof: float | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": worker.name, "against": ours.name, "status": worker.status}
    if not _ready(worker):
        return {**row, "reason": worker.answer}
    for key in ("value", "gradient_norm", "first_call", "kernels", "traffic", "held"):
        row[key] = worker.answer.get(key)
    for name in UPSTREAM:
        row[name] = summary([r[name] for r in worker.rounds], [r[name] for r in ours.rounds])
    share = None if roof is None else roof / row["upstream_1"]["median"]
    return {**row, "extra_memory": weight, "of_roof": share}


def _say(line: str) -> None:
    """Progress, for whoever watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
