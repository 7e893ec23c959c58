"""``aptt plot NAME``: value and gradient of a loss against its natural variable, as a picture."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aptt.cli.mistakes import Mistake, needs_extra, pick

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "name", metavar="NAME", help="any of its names: focal_loss, FocalLoss, focal"
    )
    parser.add_argument(
        "--vary", metavar="OPTION=A,B,...", help="a curve for each value of one option"
    )
    parser.add_argument(
        "--against", action="append", default=[], metavar="NAME", help="another loss beside it"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=".png or .svg; default NAME.png in this folder"
    )


def run(args: argparse.Namespace) -> int:
    """Draw, and say where the picture is."""
    from aptt.cli.catalogue import find
    from aptt.cli.curve import curve_of

    entry = find(args.name)
    chosen = curve_of(entry)
    if chosen is None:
        raise Mistake(f"{entry.name}: it is no loss that could be drawn")
    function, probe = chosen
    vary = _varied(args.vary, function)
    others = []
    for name in args.against:
        other = curve_of(find(name))
        if other is None or other[1].across != probe.across:
            raise Mistake(f"--against {name}: it is not measured along {probe.across!r}")
        others.append(other[0])
    out = args.out or Path(f"{entry.name}.png")
    with needs_extra("recipes"):
        from aptt.report.plotting import plot
    try:
        plot(function, vary=vary, against=others, probe=probe).save(out)
    except (ValueError, TypeError, OSError) as error:
        raise Mistake(str(error).partition("\n")[0]) from error
    print(f"{entry.name} along {probe.across!r}: {out}")
    return 0


def _varied(text: str | None, function: Callable[..., Any]) -> dict[str, list[Any]]:
    from aptt.cli.naming import value

    if text is None:
        return {}
    name, equals, values = text.partition("=")
    if not equals or not name.isidentifier() or not values:
        raise Mistake(f"--vary: got {text!r}, wanted OPTION=A,B,...")
    options = [p.name for p in inspect.signature(function).parameters.values() if p.kind is _OPTION]
    name = pick("option", name, options)
    return {name: [value(each) for each in values.split(",")]}


_OPTION = inspect.Parameter.KEYWORD_ONLY
