"""``python -m tests.mutants --count 600 --seed 0 [--file PART] [--record] [--table]``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import zlib
from dataclasses import asdict
from pathlib import Path

import pytest  # noqa: F401  what a trial forks from has it already
import torch
import torch._dynamo
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.mutants import record, score
from tests.mutants.mutate import Mutant, drawn
from tests.mutants.select import Recorded
from tests.mutants.trial import NO_TIME, Verdict, cold, serving

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "aptt"
KEPT = ROOT / "build" / "mutants"
ROOMS = ("core", "loss")
COLLECTED = [
    *("tests/core", "tests/loss", "src/aptt/core", "src/aptt/loss"),
    *(f"tests/test_{name}.py" for name in ("conformance", "public_api", "two_devices")),
]
OPTIONS = [f"--rootdir={ROOT}"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=600, help="how many mutants, over all files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--file", action="append", metavar="PART", help="files with this in the path"
    )
    parser.add_argument("--budget", type=float, default=20, help="seconds of tests for a mutant")
    parser.add_argument(
        *("--record",), nargs="*", choices=record.PARTS, help="which tests execute which lines"
    )
    parser.add_argument(
        "--table", action="store_true", help="show what was run before, run nothing"
    )
    parser.add_argument("--control", action="store_true", help="do the tests that killed pass?")
    parser.add_argument("--json", type=Path, default=KEPT / "results.jsonl", help="is added to")
    asked = parser.parse_args()
    os.chdir(ROOT)
    torch.set_num_threads(1)
    files = sorted(str(p.relative_to(ROOT)) for r in ROOMS for p in (PACKAGE / r).rglob("*.py"))
    files = [f for f in files if not asked.file or any(part in f for part in asked.file)]
    if not files:
        parser.error(f"--file: no file of core or loss has {' or '.join(asked.file)} in its path")
    if asked.record is not None:
        record.everything(KEPT, asked.record)
    chosen = drawn(ROOT, files, asked.count, asked.seed)
    if asked.control:
        return control(score.read(asked.json, ROOT))
    if not asked.table:
        run(chosen, asked.budget, asked.json)
    return score.show(chosen, score.read(asked.json, ROOT))


def run(chosen: list[Mutant], budget: float, out: Path) -> None:
    """Tries those that were not tried yet, and writes what becomes of each at once."""
    done = score.read(out, ROOT)
    short = {n for n, row in done.items() if row["why"] == NO_TIME and row["budget"] < budget}
    short -= {n for n in short if score.equivalent(done[n])}
    again = short | {n for n, row in done.items() if row["end"] == "error"}
    todo = [mutant for mutant in chosen if mutant.name not in done or mutant.name in again]
    if not todo:
        return
    recordings = sorted(KEPT.glob("lines-*.json"))
    if not recordings:
        sys.exit("no recording of which tests execute which line: run with --record first")
    console = Console(stderr=True)
    with console.status("collecting tests"):
        server, way = serving([*OPTIONS, *COLLECTED], PACKAGE)
        tests = Recorded(ROOT, recordings, way.recv())
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TextColumn("{task.fields[lived]} survived"), TimeRemainingColumn()),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with Progress(*columns, console=console) as progress, out.open("a") as kept:
        task = progress.add_task("mutants", total=len(todo), lived=0)
        for mutant in todo:
            verdict = tried(mutant, tests, way, budget)
            kept.write(json.dumps(_row(mutant, verdict, budget)) + "\n")
            kept.flush()
            lived = verdict.end == "survived"
            progress.update(task, advance=1, lived=progress.tasks[0].fields["lived"] + lived)
    way.send(None)
    os.waitpid(server, 0)


def control(results: dict[str, score.Row]) -> int:
    """Runs every test that killed a mutant on the package as it is; 1 if one fails there too."""
    names = {row["test"] for row in results.values() if row["end"] == "killed"}
    server, way = serving([*OPTIONS, *COLLECTED], PACKAGE)
    here, wrong = set(way.recv()), []
    todo = sorted(names & here)
    while todo:
        way.send((None, None, [("own", todo)], 3600.0))
        verdict = way.recv()
        if verdict.end == "survived":
            break
        wrong.append(f"{verdict.test}: {verdict.why}")
        todo = todo[verdict.ran :]
    way.send(None)
    os.waitpid(server, 0)
    print(
        f"{len(names & here)} tests that killed, {len(wrong)} fail without a mutant",
        *wrong,
        sep="\n",
    )
    return int(bool(wrong))


def tried(mutant: Mutant, tests: Recorded, way, budget: float) -> Verdict:
    """In the server where it can be, or else in a process that imports the package anew."""
    plan, path = tests.of(mutant), ROOT / mutant.file
    way.send((mutant, path, plan, budget))
    verdict = way.recv()
    if verdict.end == "cold":
        return cold(mutant, path, PACKAGE, plan, budget, OPTIONS)
    return verdict


def _row(mutant: Mutant, verdict: Verdict, budget: float) -> dict[str, object]:
    source = zlib.crc32((ROOT / mutant.file).read_bytes())
    known = {"name": mutant.name, "source": source, "budget": budget}
    return {**known, **asdict(mutant), **asdict(verdict)}


if __name__ == "__main__":
    sys.exit(main())
