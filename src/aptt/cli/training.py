"""What ``train`` and ``compare`` share: train while one watches, then report."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aptt.cli.mistakes import STOPPED, Mistake, needs_extra, pick
from aptt.recipes import open_recipe

if TYPE_CHECKING:
    from aptt.recipes.results import Study

__all__ = ["add_options", "train"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that both commands have."""
    parser.add_argument(
        "--loss", action="append", metavar="NAME", help="only this loss; may be repeated"
    )
    parser.add_argument("--steps", type=int, help="how long to train, instead of the recipe's own")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write; default runs/DATE-TIME"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def train(args: argparse.Namespace, names: Sequence[str], seeds: Sequence[int]) -> int:
    """Train each recipe with each loss and seed; Ctrl-C ends it early and keeps what was done."""
    if args.steps is not None and args.steps < 1:
        raise Mistake(f"--steps: got {args.steps}, wanted at least 1")
    with needs_extra("recipes"):
        from aptt.cli.reporting import report
        from aptt.cli.terminal import watching
        from aptt.recipes.results import Study

        recipes = [open_recipe(name) for name in names]
    losses = [
        [pick(f"loss of {recipe.name}", loss, recipe.losses) for loss in args.loss or recipe.losses]
        for recipe in recipes
    ]
    out = _make(args.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S"))

    studies: list[Study] = []
    stopped = False
    try:
        for recipe, chosen in zip(recipes, losses, strict=True):
            studies.append(Study(recipe))
            with watching(recipe.name) as watch:
                studies[-1].train(list(dict.fromkeys(chosen)), seeds, args.steps, watch)
    except KeyboardInterrupt:
        studies = [study for study in studies if study.runs]
        if not studies:
            raise
        stopped = True
        print("aptt: stopped; reporting what was done", file=sys.stderr)
    command = f"aptt {shlex.join(args.command_line)}"
    report(studies, command, out, stopped=stopped, as_json=args.json)
    return STOPPED if stopped else 0


def _make(folder: Path) -> Path:
    """Make the folder before the work is done, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Mistake(f"--out: {error}") from error
    return folder
