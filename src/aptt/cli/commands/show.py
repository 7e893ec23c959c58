"""``aptt show NAME``: formula, shapes, paper, arguments and advice for one loss."""

from __future__ import annotations

import argparse
import textwrap

from aptt.cli.document import to_json

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
    parser.add_argument("name", metavar="NAME", help="any of its names: giou_loss, GIoULoss, giou")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Print all there is to know about one loss."""
    from aptt.cli.catalogue import find

    entry = find(args.name)
    if args.json:
        print(to_json(entry.to_json()))
        return 0
    print(f"{entry.names}    ({entry.file})")
    print(entry.doc.title)
    if entry.formula:
        print(f"\n{textwrap.indent(entry.formula, '    ')}")
    if entry.doc.prose:
        print(f"\n{entry.doc.prose}")
    sections = entry.family.sections | entry.doc.sections
    for name in _SECTIONS:
        if name in sections:
            print(f"\n{name}:\n{textwrap.indent(sections[name], '    ')}")
    print("\nCall:")
    for signature in entry.signatures:
        print(textwrap.fill(signature, 96, initial_indent=" " * 4, subsequent_indent=" " * 8))
    return 0
