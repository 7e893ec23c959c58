"""Tables, curves and pictures on one self-contained HTML page, and the curve of every loss.

Curves need torch alone, pictures matplotlib, pages jinja2: a name is imported when asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aptt.report.drawing import curves, shares, svg
    from aptt.report.page import Figure, Formula, Group, Page, Row, Section, Sound, Table, write
    from aptt.report.plotting import Plot, plot
    from aptt.report.probing import Curve, probe_of, sparkline, trace
    from aptt.report.variables import Probe

__all__ = [
    "Curve",
    "Figure",
    "Formula",
    "Group",
    "Page",
    "Plot",
    "Probe",
    "Row",
    "Section",
    "Sound",
    "Table",
    "curves",
    "plot",
    "probe_of",
    "shares",
    "sparkline",
    "svg",
    "trace",
    "write",
]

_HOMES = {
    "drawing": ("curves", "shares", "svg"),
    "page": ("Figure", "Formula", "Group", "Page", "Row", "Section", "Sound", "Table", "write"),
    "plotting": ("Plot", "plot"),
    "probing": ("Curve", "probe_of", "sparkline", "trace"),
    "variables": ("Probe",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
