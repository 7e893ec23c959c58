"""What became of the mutants: a score for each file, and the survivors."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.mutate import Mutant
from tests.mutants.select import PLACES

Row = dict[str, Any]


def read(path: Path, root: Path) -> dict[str, Row]:
    """Results by name of the mutant, of the files that are as they were."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    now = {r["file"]: _crc(root / r["file"]) for r in rows}
    return {
        r["name"]: r
        for r in rows
        if r["source"] == now[r["file"]]  # the last of each
    }


def _crc(path: Path) -> int:
    return zlib.crc32(path.read_bytes()) if path.exists() else -1


def show(chosen: list[Mutant], results: dict[str, Row]) -> int:
    """Prints a table and the survivors; 1 if there is one that nobody explained."""
    console = Console(width=160)
    rows = [results[m.name] for m in chosen if m.name in results]
    by_folder: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_folder[str(Path(row["file"]).parent.relative_to("src/aptt"))].append(row)
    table = Table("folder", "mutants", "equivalent", "killed", *PLACES, "% of the others")
    for folder, some in [*sorted(by_folder.items()), ("all", rows)]:
        table.add_row(folder, *_figures(some))
    console.print(table)
    lived = [row for row in rows if row["end"] != "killed" and not equivalent(row)]
    for row in sorted(lived, key=lambda r: (r["file"], r["line"])):
        console.print(f"{row['file']}:{row['line']}  {row['kind']}", highlight=False)
        console.print(f"    {row['before']}\n    {row['after']}", markup=False, highlight=False)
        console.print(f"    {row['ran']} tests passed. {row['why']}", markup=False)
    console.print(f"{len(rows)} of {len(chosen)} mutants tried, {len(lived)} survived")
    return int(bool(lived))


def equivalent(row: Row) -> str:
    """Why nobody can see it; empty if it is to be seen."""
    text = " ".join(row["text"].split())
    return EQUIVALENT.get((row["file"].removeprefix("src/aptt/"), text, row["kind"]), "")


def _figures(rows: list[Row]) -> list[str]:
    killed = [row for row in rows if row["end"] == "killed"]
    same = sum(row["end"] != "killed" and bool(equivalent(row)) for row in rows)
    places = [sum(r["place"] == p for r in killed) for p in PLACES]
    share = 100 * len(killed) / max(len(rows) - same, 1)
    return [*map(str, [len(rows), same, len(killed), *places]), f"{share:.1f}"]
