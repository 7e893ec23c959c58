"""Read the docstrings of :mod:`aptt.loss`: a title, a formula, prose, and named sections."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Docstring", "definitions", "read", "symbols"]

_SECTIONS = (
    "Axes", "From", "Args", "Returns", "Raises", "Use when", "Elsewhere", "Differs from",
    "Example", "Examples",
)  # fmt: skip
_HEADING = re.compile(rf"({'|'.join(_SECTIONS)}):(?:\s+(.*))?$")


@dataclass
class Docstring:
    """The parts of one docstring, each as plain text."""

    title: str = ""
    formula: str = ""
    prose: str = ""
    sections: dict[str, str] = field(default_factory=dict)


def read(doc: str | None) -> Docstring:
    """Take a docstring apart.

    The title is its first paragraph, the formula every indented line before the first section. A
    section begins with its name, a colon, and either text or an indented block; the next
    paragraph that is not indented ends it.

    >>> doc = read('''Squared error.
    ...
    ...     loss = (x - y)**2
    ...
    ... Axes: any, the same for x and y.
    ... ''')
    >>> doc.title, doc.formula, doc.sections
    ('Squared error.', 'loss = (x - y)**2', {'Axes': 'any, the same for x and y.'})
    """
    title, _, rest = inspect.cleandoc(doc or "").partition("\n\n")
    blocks: dict[str, list[str]] = {"": []}
    name = ""
    for paragraph in re.split(r"\n{2,}", rest):
        if not paragraph.startswith(" "):
            name = ""
        for line in paragraph.splitlines():
            if heading := _HEADING.match(line):
                name, line = heading[1], heading[2] or ""
                blocks[name] = []
            blocks[name].append(line)
        blocks[name].append("")
    body = blocks.pop("")
    return Docstring(
        title=_block(title.splitlines()).replace("\n", " "),
        formula=_block(line for line in body if not line or line.startswith(" ")),
        prose=_block(line for line in body if not line.startswith(" ")),
        sections={name: _block(lines) for name, lines in blocks.items()},
    )


def definitions(formula: str) -> dict[str, str]:
    """What the symbols of a block of formulas stand for, each as a line of its own.

    A definition is ``x = ...`` or ``x, y: ...`` in a column of its own, or a line that begins with
    a symbol in a column of its own.

    >>> definitions("DIoU    IoU + d**2 / c**2    d: between the centres; c: diagonal of C")
    {'DIoU': 'DIoU = IoU + d**2 / c**2', 'd': 'd: between the centres', 'c': 'c: diagonal of C'}
    """
    found: dict[str, str] = {}
    for line in re.sub(r"\s+= ", " = ", re.sub(r"\n\s+= .*", "  ...", formula)).splitlines():
        if line.endswith("..."):  # by cases, which are no single definition
            continue
        cells = re.split(r" {2,}", line.strip())
        if len(cells) > 1 and _SYMBOL.fullmatch(cells[0]) and "loss =" not in cells[1]:
            found[cells[0]] = f"{cells[0]} = {cells[1]}"
        for part in (part for cell in cells for part in cell.split("; ")):
            named = _DEFINED.match(part.removeprefix("with "))
            if named and named[1] != "loss" and not part.endswith(":"):
                for symbol in named[1].split(", "):
                    found[symbol] = named[0].rstrip(",")
    return found


def symbols(formula: str) -> list[str]:
    """Every name in a formula, in the order of their first use."""
    return list(dict.fromkeys(_SYMBOL.findall(formula)))


_SYMBOL = re.compile(r"\b[A-Za-z]\w*")
_DEFINED = re.compile(r"([A-Za-z]\w*(?:, [A-Za-z]\w*)*)(?: =|:) .+")


def _block(lines: Iterable[str]) -> str:
    """Join lines without their common indent, outer blank lines and the marks of markup."""
    text = inspect.cleandoc("\n" + "\n".join(lines))
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", text).replace("``", "")
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")
