"""One row for each loss of :mod:`aptt.loss`."""

from aptt.audit.spec import Spec
from aptt.audit.specs.boxes import BOXES
from aptt.audit.specs.classes import CLASSES
from aptt.audit.specs.heads import HEADS
from aptt.audit.specs.regions import REGIONS
from aptt.audit.specs.values import VALUES

__all__ = ["SPECS"]

SPECS: dict[str, Spec] = {row.name: row for row in (*CLASSES, *HEADS, *BOXES, *REGIONS, *VALUES)}
"""Every row by its name."""
