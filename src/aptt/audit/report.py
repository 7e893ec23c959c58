"""Run promises over rows, and say what came out: as records, a table, or JSON."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import torch

from aptt.audit.promise import Promise
from aptt.audit.smallest import smallest
from aptt.audit.spec import Spec

__all__ = ["Record", "State", "audit", "table", "to_json", "to_junit"]

State = Literal["kept", "broken", "allowed", "does not apply"]
_MARKS: dict[State, str] = {
    "kept": "+",
    "broken": "BROKEN",
    "allowed": "allowed",
    "does not apply": "-",
}


@dataclass(frozen=True)
class Record:
    """What became of one promise of one loss."""

    loss: str
    promise: str
    state: State
    why: str = ""
    """What broke it, or why it does not apply."""
    allowed: str = ""
    """Why it may be broken, if it is and may be."""
    cases: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Cases to which it does not apply, each with the reason."""
    smallest: str = ""
    """The smallest input found that breaks it, where one was looked for."""


def audit(
    specs: Iterable[Spec],
    promises: Iterable[Promise],
    *,
    device: torch.device | str = "cpu",
    shrink: bool = False,
    allow: Mapping[str, str] | None = None,
) -> Iterator[Record]:
    """Check every promise of every row, one record at a time.

    ``shrink`` looks for the smallest input that breaks a promise; it needs hypothesis. ``allow``
    names promises that may be broken, each with the reason.
    """
    promises = list(promises)
    for spec in specs:
        for promise in promises:
            record = _check(spec, promise, device)
            if record.state == "broken" and promise.name in (allow or {}):
                reason = (allow or {})[promise.name] or "no reason given"
                record = replace(record, state="allowed", allowed=reason)
            if shrink and record.state == "broken":
                record = replace(record, smallest=smallest(spec, promise, device))
            yield record


def _check(spec: Spec, promise: Promise, device: torch.device | str) -> Record:
    reason = promise.exemption(spec)
    if reason is not None:
        return Record(spec.name, promise.name, "does not apply", reason)
    try:
        held = promise(spec, device)
    except AssertionError as broken:
        return Record(spec.name, promise.name, "broken", str(broken))
    return Record(spec.name, promise.name, "kept", cases=held.cases, left_out=held.left_out)


def table(records: Iterable[Record]) -> str:
    """One line for each promise, one column for each loss, and below them what is to be said."""
    records = list(records)
    losses = list(dict.fromkeys(r.loss for r in records))
    names = list(dict.fromkeys(r.promise for r in records))
    marks = {(r.promise, r.loss): _MARKS[r.state] for r in records}
    wide = max(map(len, names), default=0)
    letters = [_letter(i) for i in range(len(losses))]
    widths = [
        max(len(letter), *(len(marks.get((n, x), "")) for n in names))
        for letter, x in zip(letters, losses, strict=True)
    ]
    lines = [f"{letter:>4}  {loss}" for letter, loss in zip(letters, losses, strict=True)]
    lines += ["", _line(" " * wide, letters, widths)]
    lines += [_line(n.ljust(wide), [marks.get((n, x), "") for x in losses], widths) for n in names]
    for state in ("broken", "allowed"):
        said = [f"  {r.loss}, {r.promise}: {_why(r)}" for r in records if r.state == state]
        lines += ["", f"{state.capitalize()}:", *said] if said else []
    lines += _left_out(records)
    states = [r.state for r in records]
    allowed = f", {states.count('allowed')} allowed" if "allowed" in states else ""
    lines += ["", f"{states.count('kept')} kept, {states.count('broken')} broken{allowed}"]
    return "\n".join(line.rstrip() for line in lines)


def _why(record: Record) -> str:
    return f"{record.allowed}: {record.why}" if record.allowed else record.why


def _left_out(records: Iterable[Record]) -> list[str]:
    """What does not apply, once for each reason."""
    losses: dict[tuple[str, str], list[str]] = {}
    for r in records:
        if r.state == "does not apply":
            losses.setdefault((r.promise, r.why), []).append(r.loss)
    if not losses:
        return []
    said = [f"  {name}: {why} ({', '.join(some)})" for (name, why), some in losses.items()]
    return ["", "Does not apply:", *said]


def to_json(records: Iterable[Record]) -> str:
    """The records as a JSON list."""
    return json.dumps([asdict(record) for record in records], indent=1)


def to_junit(records: Iterable[Record]) -> str:
    """The records as JUnit XML: a suite for each loss, a test for each promise."""
    root = ET.Element("testsuites", name="aptt audit")
    by_loss: dict[str, list[Record]] = {}
    for record in records:
        by_loss.setdefault(record.loss, []).append(record)
    for loss, some in by_loss.items():
        suite = ET.SubElement(
            root,
            "testsuite",
            name=loss,
            tests=str(len(some)),
            failures=str(sum(r.state == "broken" for r in some)),
            skipped=str(sum(r.state in ("does not apply", "allowed") for r in some)),
            errors="0",
        )
        for record in some:
            test = ET.SubElement(suite, "testcase", classname=loss, name=record.promise)
            if record.state == "broken":
                failure = ET.SubElement(test, "failure", message=_printable(record.why))
                failure.text = _printable(record.smallest)
            elif record.state == "allowed":
                said = f"allowed, {record.allowed}: {record.why}"
                ET.SubElement(test, "skipped", message=_printable(said))
            elif record.state == "does not apply":
                ET.SubElement(test, "skipped", message=record.why)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


def _printable(text: str) -> str:
    """Without the control characters that XML cannot hold, such as a terminal's colours."""
    return "".join(c for c in text if c >= " " or c in "\n\t")


def _letter(i: int) -> str:
    return chr(ord("a") + i % 26) * (1 + i // 26)


def _line(head: str, cells: list[str], widths: list[int]) -> str:
    return "  ".join([head, *(c.rjust(w) for c, w in zip(cells, widths, strict=True))])
