"""Read the docstrings of :mod:`aptt.loss`: a title, a formula, prose, and named sections."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Docstring", "read"]

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


def _block(lines: Iterable[str]) -> str:
    """Join lines without their common indent, outer blank lines and the marks of markup."""
    text = inspect.cleandoc("\n" + "\n".join(lines))
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", text).replace("``", "")
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")
