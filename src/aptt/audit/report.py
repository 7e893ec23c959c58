"""Run promises over rows, and say what came out: as records, a table, or JSON."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import torch

from aptt.audit.promise import Promise
from aptt.audit.smallest import smallest
from aptt.audit.spec import Spec

__all__ = ["Record", "State", "audit", "table", "to_json", "to_junit"]

State = Literal["kept", "broken", "does not apply"]
_MARKS: dict[State, str] = {"kept": "+", "broken": "BROKEN", "does not apply": "-"}


@dataclass(frozen=True)
class Record:
    """What became of one promise of one loss."""

    loss: str
    promise: str
    state: State
    why: str = ""
    """What broke it, or why it does not apply."""
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
) -> Iterator[Record]:
    """Check every promise of every row, one record at a time.

    ``shrink`` looks for the smallest input that breaks a promise; it needs hypothesis.
    """
    promises = list(promises)
    for spec in specs:
        for promise in promises:
            record = _check(spec, promise, device)
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
    return Record(spec.name, promise.name, "kept", "", held.cases, held.left_out)


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
    for state in ("broken", "does not apply"):
        said = [f"  {r.loss}, {r.promise}: {r.why}" for r in records if r.state == state]
        lines += ["", f"{state.capitalize()}:", *said] if said else []
    count = sum(r.state == "kept" for r in records)
    lines += ["", f"{count} kept, {sum(r.state == 'broken' for r in records)} broken"]
    return "\n".join(line.rstrip() for line in lines)


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
            skipped=str(sum(r.state == "does not apply" for r in some)),
            errors="0",
        )
        for record in some:
            test = ET.SubElement(suite, "testcase", classname=loss, name=record.promise)
            if record.state == "broken":
                failure = ET.SubElement(test, "failure", message=_printable(record.why))
                failure.text = _printable(record.smallest)
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
