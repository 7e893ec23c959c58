"""``python -m benchmarks.gpu [--device cuda] [--minutes 8]``: what to run first where a GPU is.

The conformance suite on the device, without what compiles, for at most two fifths of the time; then
the cases, the most telling first, as long as there is time. Writes one JSON and one table, both
after each step, so that a run cut short keeps what it has.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import FLOOR
from benchmarks.cases import CASES
from benchmarks.machine import describe
from benchmarks.run import run

__all__ = ["main", "outcomes", "page"]

_ROOT = Path(__file__).parents[1]
_FIRST = (
    *("linear_cross_entropy_bf16", "cross_entropy_bf16", "dice_ce", "focal", "giou"),
    *("distillation", "multi_resolution_stft", "cross_entropy", "lovasz", "dfl", "rmse"),
)
_SUITE = 0.4  # of the time
_LONGEST = 60.0  # seconds that a case takes, until one has taken longer


def main(argv: Sequence[str] | None = None) -> int:
    """Run, write and print. 0, or 1 if a promise is broken or a contender failed."""
    given = _options(argv)
    start = time.monotonic()
    end = start + 60 * given.minutes
    report: dict[str, Any] = {
        "schema": 1,
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "machine": describe(given.device),
        "device": given.device,
        "quick": given.quick,
        "suite": None,
        "cases": [],
        "left_out": [],
    }
    if given.suite != "none":
        report["suite"] = _suite(given.device, given.suite, start + 60 * given.minutes * _SUITE)
        _write(report, given)
    longest = _LONGEST if not given.quick else 1.0
    for name in given.cases:
        began = time.monotonic()
        if began + longest > end:
            report["left_out"].append(name)
            continue
        report["cases"].append(run(CASES[name], given.rounds, given.quick, device=given.device))
        longest = max(longest, time.monotonic() - began)
        _write(report, given)
    report["seconds"] = round(time.monotonic() - start)
    _write(report, given)
    print(page(report))
    failed = [row for case in report["cases"] for row in case["contenders"]]
    broken = report["suite"] is not None and report["suite"]["failed"]
    return int(bool(broken) or any(row["status"] == "failed" for row in failed))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="*", choices=tuple(CASES), default=list(_FIRST))
    parser.add_argument(
        "--suite",
        default="not traces_without_breaks and not compiler",
        help="which tests of the conformance suite, as pytest's -k; or none",
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything work?")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), metavar="FILE")
    parser.add_argument("--table", type=Path, default=Path("gpu.md"), metavar="FILE")
    given = parser.parse_args(argv)
    try:
        torch.ones(1, device=given.device).sum().item()
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device: got {given.device!r}, and here: {error}")
    return given


def _write(report: dict[str, Any], given: argparse.Namespace) -> None:
    given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    given.table.write_text(page(report) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------- the conformance suite


def _suite(device: str, chosen: str, end: float) -> dict[str, Any]:
    """Which promises are kept on the device; what was not reached by ``end`` is not counted."""
    command = [sys.executable, "-m", "pytest", "tests/test_conformance.py", "--device", device]
    command += ["-v", "--tb=line", "-k", chosen, "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", "4"]  # they share the device
    with subprocess.Popen(
        command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=max(end - time.monotonic(), 1.0))
            finished = True
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it says what it has
            try:
                said, _ = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
            finished = False
    return {**outcomes(said.splitlines()), "finished": finished, "tests": chosen}


_OUTCOME = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b")
_NAMED = re.compile(r"\w+\[.+\]")
_WHY = re.compile(r"^(?:E +|FAILED .*? - |ERROR .*? - )(.*)")


def outcomes(lines: Iterable[str]) -> dict[str, Any]:
    """What pytest's verbose output says: how many passed and which failed, with the reasons."""
    counts: Counter[str] = Counter()
    failures: dict[str, str] = {}
    for line in lines:
        outcome, named = _OUTCOME.search(line), _NAMED.search(line)
        if outcome is None or named is None:
            continue
        why = _WHY.match(line)
        if why is not None:
            failures[named[0]] = why[1]
        elif named[0] not in failures:
            counts[outcome[1]] += 1
            if outcome[1] in ("FAILED", "ERROR"):
                failures[named[0]] = ""
    return {
        "passed": counts["PASSED"],
        "skipped": counts["SKIPPED"],
        "failed": len(failures),
        "failures": failures,
    }


# ----------------------------------------------------------------------------------- the page


def page(report: dict[str, Any]) -> str:
    """The report as one page of Markdown."""
    machine, suite = report["machine"], report["suite"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [f"{machine['accelerator'] or machine['cpu']}, {report['date']}, {packages}", ""]
    if report["quick"]:
        lines += ["Tiny sizes: these numbers say that everything works, not how fast it is.", ""]
    if suite is not None:
        till = "" if suite["finished"] else ", until the time was up"
        lines += [f"Promises: {suite['passed']} kept, {suite['failed']} broken{till}.", ""]
        lines += [f"- `{name}`: {why}" for name, why in suite["failures"].items()]
        lines += [""] * bool(suite["failures"])
    lines += [
        "| case | | ms | of ours | of the roof | extra memory, in predictions |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for case in report["cases"]:
        shape = " x ".join(map(str, case["shape"] or ()))
        lines += [_row(f"{case['name']}, {shape} {case['dtype']}", r) for r in case["contenders"]]
    if report["left_out"]:
        lines += ["", f"Not measured, for want of time: {', '.join(report['left_out'])}."]
    return "\n".join(lines)


def _row(case: str, row: dict[str, Any]) -> str:
    if row["status"] != "ready":
        return (
            f"| {case} | {row['name']} | {row['status']}: {row['reason'].splitlines()[0]} | | | |"
        )
    time_, share, memory = row["upstream_1"], row["of_roof"], row["extra_memory"]
    cells = (
        f"{1e3 * time_['median']:.3f}",
        "" if time_["ratio"] is None else f"{time_['ratio']:.2f}",
        "" if share is None else f"{share:.0%}",
        "" if memory is None or row["name"] == FLOOR else f"{memory:.2f}",
    )
    return f"| {case} | {row['name']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
