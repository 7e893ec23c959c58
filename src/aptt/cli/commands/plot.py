"""``aptt plot NAME``: value and gradient of a loss against its natural variable, as a picture."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aptt.cli.mistakes import Mistake, needs_extra, pick, writable, writing

__all__ = ["configure", "run"]

_EPILOG = """\
examples:
  aptt plot focal                                     focal_loss.png in this folder
  aptt plot focal --vary gamma=0,1,2,5
  aptt plot tversky --vary alpha=0.3,0.7 --vary beta=0.3,0.7     each combination
  aptt plot giou --against diou --against ciou --out boxes.svg
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "name", metavar="NAME", help="any of its names: focal_loss, FocalLoss, focal"
    )
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="OPTION=A,B,...",
        help="a curve for each value of an option; of several options, for each combination",
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="NAME",
        help="another loss beside it; may be repeated",
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
    out = args.out or Path(f"{entry.name}.png")
    if out.suffix not in (".png", ".svg"):
        raise Mistake(f"--out: got {out.name!r}, wanted a name with .png or .svg")
    writable("--out", out)
    others = []
    for name in args.against:
        other = curve_of(find(name))
        if other is None or other[1].across != probe.across:
            raise Mistake(f"--against {name}: it is not measured along {probe.across!r}")
        others.append(other[0])
    with needs_extra("recipes"):
        from aptt.report.plotting import plot
    try:
        with writing(out):
            plot(function, vary=vary, against=others, probe=probe).save(out)
    except (ValueError, TypeError) as error:
        raise Mistake(str(error).partition("\n")[0]) from error
    print(f"{entry.name} along {probe.across!r}: {out}")
    return 0


def _varied(texts: Sequence[str], function: Callable[..., Any]) -> dict[str, list[Any]]:
    """The values of each option, in the order given."""
    from aptt.cli.naming import value

    options = [p.name for p in inspect.signature(function).parameters.values() if p.kind is _OPTION]
    varied: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name.isidentifier() or not values:
            raise Mistake(f"--vary: got {text!r}, wanted OPTION=A,B,...")
        name = pick("option", name, options)
        if name in varied:
            raise Mistake(f"--vary: got {name!r} twice, wanted all its values at once")
        varied[name] = [value(each) for each in values.split(",")]
    return varied


_OPTION = inspect.Parameter.KEYWORD_ONLY
