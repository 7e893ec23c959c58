"""Write what was trained to files, and print it in short or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from aptt.cli.document import to_json
from aptt.cli.mistakes import writing
from aptt.cli.pages import page
from aptt.cli.terminal import print_study
from aptt.recipes.results import Study
from aptt.report import write

__all__ = ["report"]


def report(
    studies: Sequence[Study], command: str, out: Path, *, stopped: bool, as_json: bool
) -> None:
    """Write ``result.json``, print the tables or that document alone, and write ``report.html``.

    In this order: the numbers are kept where the disk is too full for pictures, or Ctrl-C comes.
    """
    html = out / "report.html"
    document = to_json(
        {
            "command": command,
            "stopped": stopped,
            "report": str(html),
            "studies": [study.to_json() for study in studies],
        }
    )
    try:
        _write(out / "result.json", document.encode())
    finally:
        if as_json:
            print(document)
        else:
            for study in studies:
                print_study(study)
    attached = [_attach(study, out) for study in studies]
    with writing(html):
        write(page(studies, command, attached), html)
    if not as_json:
        print(f"Report: {html}")


def _attach(study: Study, out: Path) -> Mapping[str, bytes]:
    """Write the files that a recipe puts beside the report, of the first seed's models."""
    models = {loss: study.of(loss)[0].model for loss in study.losses}
    with torch.inference_mode():
        files = study.recipe.attachments(models)
    for name, content in files.items():
        _write(out / name, content)
    return files


def _write(path: Path, content: bytes) -> None:
    with writing(path):
        path.write_bytes(content)
