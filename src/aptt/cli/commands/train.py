"""``aptt train [RECIPE ...]``: train on real data, one model for each loss."""

from __future__ import annotations

import argparse

from aptt.cli.mistakes import pick
from aptt.cli.training import add_options, train
from aptt.recipes import RECIPES

__all__ = ["configure", "run"]

_EPILOG = """\
examples:
  aptt train                                          every recipe, with each of its losses
  aptt train segmentation language --out runs/first
  aptt train detection --steps 50 --seed 1            a quick look
  aptt train classification --loss focal --json > result.json

Writes report.html and result.json; Ctrl-C ends it early and keeps what was done.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "recipes",
        nargs="*",
        metavar="RECIPE",
        help=f"what to train on, all by default: {', '.join(RECIPES)}",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches; default 0")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train each recipe with each of its losses."""
    names = [pick("recipe", name, RECIPES) for name in args.recipes] or list(RECIPES)
    return train(args, list(dict.fromkeys(names)), [args.seed])
