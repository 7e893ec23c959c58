"""``python -m benchmarks [NAME ...] [--rounds 7] [--pages both] [--device cpu] [--json FILE]``.

``--one-thread`` for a machine that others use, too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.case import Case
from benchmarks.cases import CASES
from benchmarks.clock import CLOCK
from benchmarks.machine import describe, load, noise
from benchmarks.run import run
from benchmarks.table import case_table, machine_line

__all__ = ["main"]


_PAGES = {"both": (False, True), "usual": (False,), "large": (True,)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. 0, or 1 if something that is here failed, or 130 after Ctrl-C."""
    options = _options(argv)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no helpers beside a timing
    if options.one_thread:
        os.environ |= {"OMP_NUM_THREADS": "1", CLOCK: "processor"}  # of the processes to come
    report: dict[str, Any] = {
        "schema": 2,
        "clock": "processor" if options.one_thread else "wall",
        "quick": options.quick,
        "rounds": options.rounds,
        "machine": {**describe(options.device), "load_start": load(), "load_end": None},
        "warnings": [],
        "cases": [],
    }
    _judge(report)
    print(machine_line(report["machine"]))
    if options.quick:
        print("tiny sizes: these numbers say that everything works, not how fast it is")
    _warn(report)
    try:
        for name in options.names or CASES:
            for large_pages in _PAGES[options.pages]:
                how = options.rounds, options.quick, large_pages, options.device
                result = run(_without(CASES[name], options.without), *how)
                report["cases"].append(result)
                report["machine"]["load_end"] = load()
                _judge(report)
                print(f"\n{case_table(result)}", flush=True)
                if options.json is not None:  # after each: a run cut short keeps what it has
                    options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except KeyboardInterrupt:
        print("interrupted: the case under way is lost, those above are kept", file=sys.stderr)
        return 130
    _warn(report)
    rows = [row for result in report["cases"] for row in result["contenders"]]
    return int(any(row["status"] == "failed" for row in rows))


def _without(case: Case, words: Sequence[str]) -> Case:
    """The case without contenders of these words; ours stay, whom others are held against."""
    ours = {c.against for c in case.contenders}
    kept = [c for c in case.contenders if c.name in ours or not any(w in c.name for w in words)]
    return replace(case, contenders=tuple(kept))


def _judge(report: dict[str, Any]) -> None:
    machine = report["machine"]
    threads = max((result["threads"] or 0 for result in report["cases"]), default=0)
    report["warnings"] = noise(machine["load_start"], machine["load_end"], threads)


def _warn(report: dict[str, Any]) -> None:
    for line in report["warnings"]:
        print(f"warning: {line}", file=sys.stderr)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Forward and backward of each loss beside others, each in its own process.",
        epilog=f"Cases: {', '.join(CASES)}. How to read the result: benchmarks/README.md.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases to run (default: all)")
    parser.add_argument("--rounds", type=int, help="how often each is timed (7; with --quick 2)")
    parser.add_argument(
        "--pages",
        choices=tuple(_PAGES),
        help="memory in the system's usual pages, in large ones, or each case in both "
        "(both; with --quick usual)",
    )
    parser.add_argument("--device", default="cpu", help="where: cpu (the default), cuda, cuda:1")
    parser.add_argument(
        "--one-thread",
        action="store_true",
        help="the processor's time, on one thread: on a machine that does something else, too",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="WORD",
        help="leave out contenders that have it in their name, such as compiled; may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything work?")
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in CASES:
            parser.error(f"unknown case {name!r}, wanted one of {', '.join(CASES)}")
    usual = options.quick or options.device != "cpu"
    options.pages = options.pages or ("usual" if usual else "both")
    if options.rounds is None:
        options.rounds = 2 if options.quick else 7
    if options.rounds < 1:
        parser.error(f"--rounds: got {options.rounds}, wanted 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
