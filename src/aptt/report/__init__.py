"""Tables, curves and pictures on one self-contained HTML page."""

from aptt.report.drawing import curves, shares, svg
from aptt.report.page import Figure, Formula, Group, Page, Row, Section, Table, write

__all__ = [
    "Figure",
    "Formula",
    "Group",
    "Page",
    "Row",
    "Section",
    "Table",
    "curves",
    "shares",
    "svg",
    "write",
]
