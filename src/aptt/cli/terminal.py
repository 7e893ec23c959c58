"""What a training command shows: bars on stderr while it works, tables on stdout at the end."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from aptt.recipes.results import Study
from aptt.recipes.training import Run

__all__ = ["print_study", "watching", "wrapped"]


@contextmanager
def watching(recipe: str) -> Iterator[Callable[[Run], None]]:
    """Give a function that shows how far a run is; each run gets a bar of its own."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[value]:.4f}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = {}

        def watch(run: Run) -> None:
            key = (run.loss, run.seed)
            if key not in bars:
                name = f"{recipe}, {run.loss}, seed {run.seed}"
                bars[key] = progress.add_task(name, total=run.steps, value=0.0)
            progress.update(bars[key], completed=len(run.values), value=run.values[-1])

        yield watch


def print_study(study: Study) -> None:
    """Print the scores of one recipe, and how to read them."""
    table = Table(title=study.recipe.title, title_justify="left", title_style="bold", box=SIMPLE)
    for column, heading in enumerate(study.headings()):
        table.add_column(heading, justify="right" if column else "left", no_wrap=not column)
    for row in study.rows():
        table.add_row(*row)
    console = Console()
    console.print(table)
    for note in study.notes():
        text = wrapped(note, console.width)
        console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)
    console.print()


def wrapped(note: str, width: int) -> str:
    """Lines of at most ``width``, where no command between backticks is broken.

    >>> print(wrapped("one seed says nothing; try: `aptt compare x`", 32))
    one seed says nothing; try:
    `aptt compare x`
    """
    glued = re.sub("`[^`]+`", lambda command: command[0].replace(" ", "\0"), note)
    text = textwrap.fill(glued, width, break_long_words=False, break_on_hyphens=False)
    return text.replace("\0", " ")
