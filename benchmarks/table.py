"""A result as plain text."""

from __future__ import annotations

from typing import Any

from benchmarks.case import FLOOR
from benchmarks.worker import UPSTREAM

__all__ = ["case_table", "machine_line"]

_WIDTH = 26


def machine_line(machine: dict[str, Any]) -> str:
    """Where it was measured, in one line."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    there = f"{machine['accelerator']}; " if machine["accelerator"] else ""
    return f"{there}{machine['cpu']}, {machine['cores']} cores, {machine['system']}\n{packages}"


def case_table(result: dict[str, Any]) -> str:
    """One case, a row for each contender."""
    shape = " x ".join(map(str, result["shape"] or ()))
    size = (result["prediction_bytes"] or 0) / 1e6
    pages = ", large pages" if result["large_pages"] else ""
    threads, device = result["threads"], result["device"]
    where = f"{threads} threads" if device == "cpu" else device
    lines = [
        f"{result['name']}: {shape} {result['dtype']}, {size:.1f} MB, {where}{pages}",
        f"{'':{_WIDTH}}  {'loss.backward()':^25}  {'(loss / 4).backward()':^25}  {'of':>5}"
        f" {'extra':>6} {'':>6} {'first':>6} {'':>7} {'':>7}",
        f"{'':{_WIDTH}}" + 2 * f"  {'ms':>9} {'spread':>7} {'ratio':>7}" + f"  {'roof':>5}"
        f" {'memory':>6} {'held':>6} {'call s':>6} {'kernels':>7} {'traffic':>7}",
    ]
    for row in result["contenders"]:
        name = row["name"]
        if row["status"] != "ready":
            lines.append(f"{name:{_WIDTH}}  {row['status']}: {row['reason'].splitlines()[0]}")
            continue
        cells = "".join(_times(row[key]) for key in UPSTREAM)
        memory = row["extra_memory"]
        shown = "" if name == FLOOR or memory is None else f"{memory:.2f}"
        share = "" if row["of_roof"] is None else f"{row['of_roof']:.0%}"
        lines.append(f"{name:{_WIDTH}}{cells}  {share:>5} {shown:>6}{_costs(row)}".rstrip())
    others = [
        f"{row['name']} (against {row['against']})"
        for row in result["contenders"]
        if row["against"] not in ("aptt", row["name"])
    ]
    if others:
        lines.append(f"ratios to aptt, except {', '.join(others)}")
    return "\n".join(lines)


def _costs(row: dict[str, Any]) -> str:
    """What a graph holds, the first call, and the compiled code."""
    if row["held"] is None:
        return ""
    cells = f" {row['held']:>6.2f} {row['first_call']:>6.1f}"
    if row["kernels"] is None:
        return cells
    return f"{cells} {row['kernels']:>7d} {row['traffic']:>7.1f}"


def _times(summary: dict[str, Any]) -> str:
    median, (low, high) = summary["median"], summary["quartiles"]
    ratio = summary["ratio"]
    shown = "-" if ratio is None else f"{ratio:.2f}"
    return f"  {1e3 * median:>9.3f} {(high - low) / median:>7.1%} {shown:>7}"
