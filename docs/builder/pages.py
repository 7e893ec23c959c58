"""The generated pages, from what the code says: one for each loss, the gallery, the explorer."""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import torch
from matplotlib.axes import Axes

from aptt.audit import PROMISES, Inputs, Spec, Trial
from aptt.audit.ways import plainly
from aptt.cli.catalogue import Entry
from aptt.cli.curve import curve_of, rows_of
from aptt.report import Plot, svg, trace
from docs import draw_boxes

__all__ = ["boxes", "explorer", "gallery", "loss", "overview", "slug"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def slug(entry: Entry) -> str:
    """The name of its page."""
    return entry.name


# ------------------------------------------------------------------------------------- one loss


def loss(entry: Entry, *, explored: bool, bends: bool = True, points: int = 0) -> str:
    """The page of one loss: whether the explorer shows it, and has options of it to move.

    ``points``: of its curve; by default as many as its probe says.
    """
    sections = entry.family.sections | entry.doc.sections
    lines = [f"# {entry.names}", "", _plain(entry.doc.title), ""]
    if entry.formula:
        lines += ["```text", entry.explained, "```", ""]
    lines += _picture(entry, points)
    if explored:
        link = f'<a href="../explorer.html#{entry.name}">'
        lines += [
            f"{link}Move its options</a> in the explorer."
            if bends
            else f"{link}Read off its numbers</a> in the explorer; it has no option that bends it.",
            "",
        ]
    lines += [_plain(entry.doc.prose), ""] if entry.doc.prose else []
    if "Use when" in sections:
        lines += ["## Use when", "", _plain(sections["Use when"]), ""]
    lines += ["## Call", "", "```python"]
    lines += [textwrap.fill(s, 88, subsequent_indent="    ") for s in entry.signatures]
    lines += ["```", ""]
    for name in ("Args", "Returns", "Raises"):
        if name in sections:
            made = _items(sections[name]) if name != "Returns" else [_plain(sections[name])]
            lines += [f"**{name}**", "", *made, ""]
    if "Example" in sections:
        lines += ["## Example", "", "```pycon", sections["Example"], "```", ""]
    for name in ("Differs from", "Elsewhere"):
        if name in sections:
            lines += [f"## {name}", "", *_items(sections[name]), ""]
    lines += _calls(entry, sections)
    lines += _edges(entry)
    lines += _promises(entry)
    sections |= {"From": entry.source}
    source = [_plain(sections[name]) for name in ("From", "Axes") if sections.get(name)]
    lines += ["## Source", "", *(f"{line}\n" for line in source), f"In `{entry.file}`.", ""]
    return "\n".join(lines)


def _calls(entry: Entry, sections: Mapping[str, str]) -> list[str]:
    """The calls of other libraries that give the same, from the migration page."""
    text = (Path(__file__).parents[1] / "migration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^(\| `(?:.+?)` \| `(\w+)\(.*` \|)$", text, re.MULTILINE)
    mine = [row for row, name in rows if name in (entry.function, entry.module_form)]
    if not mine:
        return []
    head = ["The same numbers, [run by the tests](../migration.md):", "", "| there | here |"]
    title = [] if "Elsewhere" in sections else ["## Elsewhere", ""]
    return [*title, *head, "| --- | --- |", *mine, ""]


def _picture(entry: Entry, points: int) -> list[str]:
    chosen = curve_of(entry)
    if chosen is None:
        return []
    function, probe = chosen
    plot = Plot({"": trace(function, probe, points=points)})
    drawn = "".join(svg(panel, (4.2, 2.9)) for panel in plot.panels())
    words = html.escape(f"Value and gradient of {entry.name} along {probe.across}.")
    return [_raw(f'<div class="picture" role="img" aria-label="{words}">{drawn}</div>'), ""]


def _edges(entry: Entry) -> list[str]:
    """Edge cases by dtype, value and gradient: what the loss does there, computed now."""
    rows = rows_of(entry)
    if not rows:
        return []
    lines = [
        "## At the edges",
        "",
        "The mean and its largest gradient, computed for this page. Green "
        "is a finite number, sand exactly 0, red would be NaN or infinite.",
    ]
    lines += ["", _raw("\n".join(_table(rows))), ""]
    return lines


def _table(rows: Sequence[Spec]) -> Iterator[str]:
    head = "".join(f'<th colspan="2">{str(d).removeprefix("torch.")}</th>' for d in _DTYPES)
    under = "<th>value</th><th>gradient</th>" * len(_DTYPES)
    yield '<div class="edges"><table>'
    for spec in rows:
        about = html.escape(spec.name) if len(rows) > 1 else "case"
        yield f"<tr><th>{about}</th>{head}</tr><tr><th></th>{under}</tr>"
        trial = spec.trials()[0]
        for name, inputs in _cases(trial).items():
            cells = "".join(_cells(trial, inputs, d) for d in _DTYPES)
            yield f"<tr><th>{name}</th>{cells}</tr>"
    yield "</table></div>"


def _cases(trial: Trial) -> dict[str, Inputs]:
    inputs, options, spec = trial.inputs(), trial.options(), trial.spec
    cases = {"anything": inputs}
    perfect = trial.case.perfect or spec.perfect
    if perfect is not None and "perfect_is_minimal" not in trial.case.exempt:
        cases["perfect"] = perfect(inputs, options)[0]
    if spec.hopeless is not None:
        cases["confidently wrong"] = spec.hopeless(inputs, options)
    if (trial.case.extremes or spec.extremes) is not None:
        cases["the hardest"] = trial.extremes()
    if "nothing_left_is_zero" not in spec.exempt:
        cases["no samples"] = trial.inputs(0)
        if spec.hide is not None:
            nothing = torch.zeros(trial.many(inputs), dtype=torch.bool)
            cases["all ignored"] = trial.hidden(inputs, trial.samples(inputs, nothing), math.nan)
    return cases


def _cells(trial: Trial, inputs: Inputs, dtype: torch.dtype) -> str:
    cast = trial.cast(inputs, dtype)
    wide = trial.cast(inputs, torch.float64)
    name = trial.prediction(cast)
    if not (cast[name].isfinite() == wide[name].isfinite()).all():
        return '<td colspan="2">beyond its range</td>'
    with plainly():
        try:
            value, grad = trial.gradient(cast, reduction="mean")
        except ValueError:  # a loss that has no mean of this, and says so
            return '<td colspan="2">refused</td>'
    return _cell(float(value)) + _cell(float(grad.abs().max()) if grad.numel() else 0.0)


def _cell(number: float) -> str:
    kind = "bad" if not math.isfinite(number) else "flat" if number == 0 else "good"
    return f'<td class="{kind}">{number:.3g}</td>'


def _promises(entry: Entry) -> list[str]:
    """Which promises the tests hold it to, and why not to the others."""
    rows = rows_of(entry)
    if not rows:
        return []
    lines = ["## Held to", ""]
    for spec in rows:
        holds = [p for p in PROMISES.values() if p.exemption(spec) is None]
        named = f" as {_plain(spec.name)}" if len(rows) > 1 else ""
        lines += [
            f"{len(holds)} promises of [the contract](../audit.md){named}, in {len(spec.cases)} "
            "cases:"
            f" {_plain(', '.join(spec.cases))}. Not asked of it:",
            "",
            *(f"- `{name}`: {_plain(why)}" for name, why in spec.exempt.items()),
            "" if spec.exempt else "nothing is left out.\n",
        ]
        cases = [(label, case.exempt) for label, case in spec.cases.items() if case.exempt]
        for label, exempt in cases:
            lines += [f"- in “{_plain(label)}”, `{n}`: {_plain(w)}" for n, w in exempt.items()]
        lines += [f"- an accelerator is asked for `{n}`: {_plain(w)}" for n, w in spec.asks.items()]
        lines.append("")
    lines += [f"Check it: `aptt audit {entry.name}`.", ""]
    return lines


# ---------------------------------------------------------------------------------- the others


def gallery(entries: Sequence[Entry], points: int = 49) -> str:
    """Every loss as a card, by family, with so many points of its curve."""
    lines = [
        "# Losses",
        "",
        "Each curve is drawn along the variable that says most about the loss; its page has the "
        "numbers.",
        "",
        _raw('<p class="key"><i></i>value<i class="slope"></i>gradient</p>'),
        "",
    ]
    for room, group in groupby(entries, key=lambda entry: entry.room):
        members = list(group)
        lines += [f"## {_plain(members[0].room_title.partition(':')[0].rstrip('.'))}", ""]
        cards = "".join(_card(entry, points) for entry in members)
        lines += [_raw(f'<div class="gallery">{cards}</div>'), ""]
        lines += [
            ":::{toctree}",
            ":hidden:",
            ":maxdepth: 1",
            f":caption: {room}",
            "",
        ]
        lines += [*(f"{slug(entry)}" for entry in members), ":::", ""]
    return "\n".join(lines)


def _card(entry: Entry, points: int) -> str:
    name, title = html.escape(entry.name), html.escape(entry.doc.title)
    words = f"<b>{name}</b><span>{title}</span>"
    return f'<a class="card" href="{slug(entry)}.html">{words}{_small(entry, points)}</a>'


def _small(entry: Entry, points: int) -> str:
    chosen = curve_of(entry)
    if chosen is None:
        return ""
    curve = trace(*chosen, points=points)

    def draw(axes: Axes) -> None:
        axes.plot(curve.at, curve.values, color="C0")
        axes.plot(curve.at, curve.slopes, color="C1", linewidth=1.2)
        axes.set(xticks=[], yticks=[])
        axes.margins(x=0)

    drawn = svg(draw, (2.6, 1.1))
    return drawn.replace("<svg ", '<svg aria-hidden="true" ', 1)


def boxes() -> str:
    """The picture of docs/boxes.svg in parts, which stand below each other on a small screen."""
    key = "".join(
        f'<span><i style="background: var(--series-{index})"></i>{name}</span>'
        for index, name in enumerate(draw_boxes.LOSSES)
    )
    parts = []
    for title, both in draw_boxes.panels().items():
        words = html.escape(f"Loss and slope of seven box losses against {title}.")
        drawn = "".join(svg(draw, (2.9, 2.3)) for draw in both)
        drawn = f'<div role="img" aria-label="{words}">{drawn}</div>'
        parts.append(f"<figure><figcaption>{html.escape(title)}</figcaption>{drawn}</figure>")
    inside = f'<div class="picture panels-boxes">{"".join(parts)}</div>'
    return _raw(f'<div class="boxes-key">{key}</div>{inside}')


def explorer() -> str:
    """The page that moves options by sliders."""
    return "\n".join(
        [
            "# Explorer",
            "",
            "Move the options of a loss, and watch its value and its gradient. The grey line is "
            "the loss with its defaults. `explorer.html#dice_loss` opens one. Every number was "
            "computed by the loss itself when this "
            "page was built.",
            "",
            _raw(
                '<div id="explorer"></div>\n<script src="_static/explorer-data.js"></script>\n'
                '<script src="_static/explorer.js"></script>'
            ),
            "",
        ]
    )


def overview(entries: Sequence[Entry], *, linked: bool) -> str:
    """A table of every loss by file, for docs/modules_overview.md."""
    lines = ["| file | function and module | what it is |", "| --- | --- | --- |"]
    for entry in entries:
        names = ", ".join(f"`{n}`" for n in (entry.function, entry.module_form) if n)
        names = f"[{names}](losses/{slug(entry)}.md)" if linked else names
        lines.append(f"| `{entry.room}` | {names} | {_plain(entry.doc.title)} |")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------- Markdown


def _raw(text: str) -> str:
    return f"````{{raw}} html\n{text}\n````"


def _plain(text: str) -> str:
    """Docstring text as Markdown that shows the same."""
    return re.sub(r"([\\`*_{}\[\]<>|#$~])", r"\\\1", text)


def _items(text: str) -> list[str]:
    """``name: what it is``, with indented continuation, as a list; other text as it is."""
    items: list[str] = []
    for line in text.splitlines():
        named = re.match(r"([\w.*, -]+?): +(.*)", line) if line and line[0] != " " else None
        if named:
            items.append(f"- **{_plain(named[1])}**: {_plain(named[2])}")
        elif line.startswith(" ") and items and items[-1].startswith("- "):
            items[-1] += f" {_plain(line.strip())}"
        else:
            items.append(_plain(line.strip()))
    return items
