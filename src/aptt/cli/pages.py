"""Turn what was trained into a report: a section for each recipe."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import torch

from aptt import __version__
from aptt.cli.catalogue import find_function
from aptt.recipes.base import Gallery
from aptt.recipes.results import Study
from aptt.recipes.training import Run
from aptt.report import Figure, Formula, Group, Page, Row, Section, Sound, Table, curves, svg

__all__ = ["page"]

_SMOOTH = 10  # steps that a loss curve is averaged over
_PIXELS = 96  # per inch


Files = Mapping[str, bytes]


def page(studies: Sequence[Study], command: str, attached: Sequence[Files] | None = None) -> Page:
    """The report of one command; recordings among the files of a study can be heard in it."""
    attached = attached or [{}] * len(studies)
    runs = [run for study in studies for run in study.runs]
    return Page(
        title="Training on real data",
        summary="What small models learn with losses of aptt, scored on data held out of training.",
        command=command,
        facts={
            "aptt": __version__,
            "torch": torch.__version__,
            "Python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "seeds": ", ".join(str(seed) for seed in dict.fromkeys(run.seed for run in runs)),
            "training time": f"{sum(run.seconds for run in runs):.0f} s",
        },
        sections=[_section(*each) for each in zip(studies, attached, strict=True)],
    )


def _section(study: Study, files: Files) -> Section:
    recipe = study.recipe
    rows = [Row(cells, series) for series, cells in enumerate(study.rows())]
    with torch.inference_mode():
        galleries = recipe.galleries({loss: study.of(loss)[0].model for loss in study.losses})
        groups = [*_progress(study), *map(_group, galleries)]
    return Section(
        name=recipe.name,
        title=recipe.title,
        story=recipe.story,
        table=Table(study.headings(), rows, study.notes()),
        groups=groups,
        formulas=list(_formulas(study)),
        sources=[f"{s.name}. From the package {s.package}; {s.terms}." for s in recipe.sources],
        sounds=[
            Sound(name.removesuffix(".wav").rpartition(" - ")[2], content)
            for name, content in files.items()
            if name.endswith(".wav")
        ],
    )


def _progress(study: Study) -> list[Group]:
    """The headline score and each loss over the steps, a line for each run."""
    score = next(iter(study.recipe.scores))
    scores = {
        loss: [
            ([check.step for check in run.checks], [check.scores[score] for check in run.checks])
            for run in study.of(loss)
        ]
        for loss in study.losses
    }
    return [
        Group(
            title="How training went",
            caption="The headline score on held-out data, a line for each run.",
            width=420,
            figures=[
                Figure(
                    title=score,
                    alt=f"Lines of {score} over the steps, one for each run.",
                    svg=svg(curves(scores, across="step"), (6.4, 2.8)),
                )
            ],
        ),
        Group(
            title="What each was trained on",
            caption="Losses differ in unit and zero, and some go below it, so each has a scale of "
            f"its own: compare the shapes, not the heights. Means over {_SMOOTH} steps.",
            width=260,
            figures=[
                Figure(
                    title=loss,
                    alt=f"The loss {loss} over the steps, a line for each run.",
                    svg=svg(
                        curves(
                            {loss: [_smooth(run) for run in study.of(loss)]},
                            across="step",
                            first=series,
                        ),
                        (3.6, 2.3),
                    ),
                )
                for series, loss in enumerate(study.losses)
            ],
        ),
    ]


def _smooth(run: Run) -> tuple[Sequence[float], Sequence[float]]:
    """The loss itself, each value the mean of the steps up to it."""
    sums = [0.0, *accumulate(run.values)]
    steps = range(1, len(sums))
    return steps, [(sums[k] - sums[max(0, k - _SMOOTH)]) / min(k, _SMOOTH) for k in steps]


def _group(gallery: Gallery) -> Group:
    figures = [Figure(p.title, p.alt, svg(p.draw, gallery.size)) for p in gallery.pictures]
    return Group(gallery.title, gallery.caption, int(0.8 * _PIXELS * gallery.size[0]), figures)


def _formulas(study: Study) -> Iterator[Formula]:
    """Each loss, with the formula of what it is made of where that is not yet shown."""
    shown: set[str] = set()
    for loss in study.losses:
        choice = study.recipe.losses[loss]
        entries = [find_function(name) for name in choice.functions if name not in shown]
        shown.update(choice.functions)
        yield Formula(
            name=loss,
            about=choice.about,
            formula="\n\n".join(entry.explained for entry in entries if entry),
            source=" ".join(entry.source for entry in entries if entry),
        )
