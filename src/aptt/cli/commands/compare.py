"""``aptt compare RECIPE``: the same models on the same data with each loss, over several seeds."""

from __future__ import annotations

import argparse

from aptt.cli.mistakes import Mistake, pick
from aptt.cli.training import add_options, train
from aptt.recipes import RECIPES

__all__ = ["configure", "run"]

_EPILOG = """\
examples:
  aptt compare classification                         each of its losses, three seeds
  aptt compare segmentation --seeds 10 --out runs/seeds
  aptt compare classification --loss focal --loss cross-entropy --steps 100

Writes report.html and result.json, and says whether the seeds tell the losses apart.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("recipe", metavar="RECIPE", help=f"one of: {', '.join(RECIPES)}")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on; default 3")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train one recipe with each loss and each seed, and say what that can tell."""
    name = pick("recipe", args.recipe, RECIPES)
    if args.seeds < 2:
        raise Mistake(f"--seeds: got {args.seeds}, wanted at least 2; `aptt train` takes one")
    if args.loss is not None and len(set(args.loss)) < 2:
        raise Mistake("--loss: got one, wanted at least two to compare, or none for all")
    return train(args, [name], range(args.seeds))
