"""``python -m tests.endurance [TRIAL ...]``: what is done to the library, and what it does."""

import argparse
import time

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.endurance import inside, outside

TRIALS = {
    "steps": (inside.steps, 20_000),
    "threads": (inside.threads, 8),
    "backward": (inside.backward, 8),
    "forks": (inside.forks, 4),
    "ranks": (outside.ranks, 40),
    "disk": (outside.disk, 2000),
    "interrupts": (outside.interrupts, 36),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__)
    parser.add_argument("trial", nargs="*", metavar="TRIAL", help=f"one of {', '.join(TRIALS)}")
    asked = parser.parse_args().trial or list(TRIALS)
    for name in asked:
        if name not in TRIALS:
            parser.error(f"there is no trial {name!r}; there are {', '.join(TRIALS)}")
    torch.set_num_threads(1)
    table, failed = Table("trial", "seconds", "what it did"), 0
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for name in asked:
            task, start = progress.add_task(name, total=1.0), time.monotonic()
            trial, count = TRIALS[name]
            try:
                said = trial(count, lambda part, task=task: progress.update(task, completed=part))
            except AssertionError as error:
                said, failed = f"FAILED: {error}", 1
            table.add_row(name, f"{time.monotonic() - start:.0f}", said)
    Console(width=140).print(table)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
