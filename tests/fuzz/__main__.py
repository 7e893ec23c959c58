"""``python -m tests.fuzz --minutes 60 --seed 1 [--loss NAME] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.fuzz.draws import LOSSES
from tests.fuzz.fuzz import Report, fuzz, options


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", default=str(int(time.time())))
    parser.add_argument("--loss", action="append", choices=sorted(LOSSES), metavar="NAME")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    columns = (
        TextColumn("seed {task.description}"),
        BarColumn(),
        TextColumn("{task.fields[calls]} calls, {task.fields[finds]} finds"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        seconds = 60 * asked.minutes
        task = progress.add_task(asked.seed, total=seconds, calls=0, finds=0)

        def watch(passed: float, calls: int, finds: int) -> None:
            progress.update(task, completed=passed, calls=calls, finds=finds)

        report = fuzz(asked.seed, seconds, asked.loss or list(LOSSES), watch=watch)
    show(report, asked.seed)
    if asked.json:
        asked.json.write_text(json.dumps({"seed": asked.seed} | report.as_json(), indent=1))
    return int(bool(report.finds))


def show(report: Report, seed: str) -> None:
    """Finds as programs, then what was reached."""
    for find in report.finds:
        print(find, end="\n\n")
    table = Table("loss", "calls", "options", "not reached")
    for name in report.calls:
        missed = report.missed(name)
        of = len(options(name))
        table.add_row(
            name, str(report.calls[name]), f"{of - len(missed)} of {of}", ", ".join(missed)
        )
    console = Console(width=140)
    console.print(table)
    for sentence, times in report.knowns.most_common():
        console.print(f"known, {times} times: {sentence}")
    calls = report.calls.total()
    console.print(
        f"seed {seed}: {calls} calls in {report.seconds:.0f} s, "
        f"{60 * calls / max(report.seconds, 1e-9):.0f} a minute; "
        f"{len(report.finds)} finds"
    )


sys.exit(main())
