"""``aptt list``: every loss, one line each, by the file it lives in."""

from __future__ import annotations

import argparse
from itertools import groupby

from aptt.cli.document import to_json
from aptt.cli.streams import fitted

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    from aptt.cli.catalogue import entries

    if args.json:
        print(to_json([entry.to_json() for entry in entries()]))
        return 0
    for place, group in groupby(entries(), key=lambda entry: entry.place):
        members = list(group)
        print(fitted(f"{place}: {members[0].room_title}"))
        width = max(len(entry.names) for entry in members)
        for entry in members:
            print(fitted(f"    {entry.names:{width}}  {entry.doc.title}"))
        print()
    print("More about one of them: aptt show NAME")
    return 0
