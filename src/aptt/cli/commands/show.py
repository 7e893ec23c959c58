"""``aptt show NAME``: formula, shapes, paper, arguments and advice for one loss."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aptt.cli.document import to_json
from aptt.cli.streams import fitted, width

if TYPE_CHECKING:
    from aptt.cli.catalogue import Entry

__all__ = ["configure", "run"]

_SECTIONS = (
    "Axes",
    "From",
    "Use when",
    "Args",
    "Returns",
    "Raises",
    "Elsewhere",
    "Differs from",
    "Example",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "name",
        metavar="NAME",
        help="any of its names (giou_loss, GIoULoss, giou), or what others call it (kd, jaccard)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


_BARS = 48


def run(args: argparse.Namespace) -> int:
    """Print all there is to know about one loss."""
    from aptt.cli.catalogue import answering, find

    answers = answering(args.name)
    if len(answers) > 1 and not args.json and answers[0] is not _named(args.name):
        _say(f"Several losses answer to {args.name!r}; more about one of them: aptt show NAME\n")
        _list(answers)
        return 0
    entry = find(args.name)
    if args.json:
        print(to_json(entry.to_json()))
        return 0
    if others := [each for each in answers if each is not entry]:
        _say(f"Others that answer to {args.name!r}:\n")
        _list(others)
        print()
    _say(f"{entry.names}    ({entry.file})")
    _say(entry.doc.title)
    if entry.formula:
        _say(f"\n{textwrap.indent(entry.explained, '    ')}")
    _draw(entry)
    if entry.doc.prose:
        _say(f"\n{entry.doc.prose}")
    sections = entry.family.sections | entry.doc.sections
    if "From" in sections:
        sections["From"] = textwrap.fill(entry.source, min(width(), 96) - 4)
    for name in _SECTIONS:
        if name in sections:
            _say(f"\n{name}:\n{textwrap.indent(sections[name], '    ')}")
    _say("\nCall:")
    for signature in entry.signatures:
        limit = min(width(), 96)
        _say(textwrap.fill(signature, limit, initial_indent=" " * 4, subsequent_indent=" " * 8))
    return 0


def _say(text: str) -> None:
    print(fitted(text))


def _named(name: str) -> Entry | None:
    """The loss of this very name, if there is one."""
    from aptt.cli.catalogue import find
    from aptt.cli.mistakes import Mistake

    try:
        return find(name)
    except Mistake:
        return None


def _list(some: Sequence[Entry]) -> None:
    longest = max(len(entry.names) for entry in some)
    for entry in some:
        _say(f"    {entry.names:{longest}}  {entry.doc.title}")


def _draw(entry: Entry) -> None:
    """The loss and its gradient as two lines of bars."""
    from aptt.cli.curve import curve_of
    from aptt.report.probing import sparkline, trace

    chosen = curve_of(entry)
    if chosen is None:
        return
    function, probe = chosen
    curve = trace(function, probe, points=min(_BARS, width() - 34))
    print(f"\nAlong {probe.across!r}, from {probe.low:g} to {probe.high:g}:")
    for what, values in (("loss", curve.values), ("gradient", curve.slopes)):
        print(f"    {what:8}  {sparkline(values)}  {min(values):.3g} to {max(values):.3g}")
