"""What a report says, and the page that says it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

__all__ = ["Figure", "Formula", "Group", "Page", "Row", "Section", "Sound", "Table", "write"]


@dataclass(frozen=True)
class Row:
    """One line of a table, in the colour of a series if it has one."""

    cells: Sequence[str]
    series: int | None = None


@dataclass(frozen=True)
class Table:
    """Figures under headings; the first column names them."""

    headings: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A picture, its title, and the same in words for whoever cannot see it."""

    title: str
    alt: str
    svg: str


@dataclass(frozen=True)
class Sound:
    """A recording to listen to in the page, as the bytes of a WAV file."""

    title: str
    wav: bytes

    @property
    def source(self) -> str:
        """All of it, as an address."""
        return f"data:audio/wav;base64,{base64.b64encode(self.wav).decode()}"


@dataclass(frozen=True)
class Group:
    """Figures side by side, as many as fit: each at least ``width`` pixels wide."""

    title: str
    caption: str
    width: int
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Formula:
    """A loss: its name here, what it does, its formula and where that comes from."""

    name: str
    about: str
    formula: str = ""
    source: str = ""


@dataclass(frozen=True)
class Section:
    """One task, from what it is to where its data comes from."""

    name: str
    title: str
    story: str
    table: Table
    groups: Sequence[Group] = ()
    formulas: Sequence[Formula] = ()
    sources: Sequence[str] = ()
    sounds: Sequence[Sound] = ()


@dataclass(frozen=True)
class Page:
    """A whole report: the command that made it, the facts around it, and its sections."""

    title: str
    summary: str
    command: str
    facts: Mapping[str, str]
    sections: Sequence[Section]


def write(page: Page, path: Path) -> None:
    """Write the page to one file that needs no other."""
    environment = Environment(
        loader=PackageLoader("aptt.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["commands"] = _commands
    template = environment.get_template("page.html.jinja")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(template.render(page=page), encoding="utf-8")


def _commands(text: str) -> Markup:
    """What is between backticks as code, which no line break parts."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
