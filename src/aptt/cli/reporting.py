"""Write what was trained to files, and print it in short or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from aptt.cli.document import to_json
from aptt.cli.pages import page
from aptt.cli.terminal import print_study
from aptt.recipes.results import Study
from aptt.report import write

__all__ = ["report"]


def report(
    studies: Sequence[Study], command: str, out: Path, *, stopped: bool, as_json: bool
) -> None:
    """Write ``report.html`` and ``result.json``; print the tables, or the JSON document alone."""
    html = out / "report.html"
    attached = [_attach(study, out) for study in studies]
    write(page(studies, command, attached), html)
    document = to_json(
        {
            "command": command,
            "stopped": stopped,
            "report": str(html),
            "studies": [study.to_json() for study in studies],
        }
    )
    (out / "result.json").write_text(document, encoding="utf-8")
    if as_json:
        print(document)
        return
    for study in studies:
        print_study(study)
    print(f"Report: {html}")


def _attach(study: Study, out: Path) -> Mapping[str, bytes]:
    """Write the files that a recipe puts beside the report, of the first seed's models."""
    models = {loss: study.of(loss)[0].model for loss in study.losses}
    with torch.inference_mode():
        files = study.recipe.attachments(models)
    for name, content in files.items():
        (out / name).write_bytes(content)
    return files
