"""One row for each loss of :mod:`aptt.loss`."""

from aptt.audit.spec import Spec
from aptt.audit.specs.boxes import BOXES
from aptt.audit.specs.classes import CLASSES
from aptt.audit.specs.composites import COMPOSITES
from aptt.audit.specs.dense import DENSE
from aptt.audit.specs.points import POINTS
from aptt.audit.specs.regions import REGIONS
from aptt.audit.specs.values import VALUES

__all__ = ["SPECS"]

SPECS: dict[str, Spec] = {
    row.name: row for row in (*CLASSES, *BOXES, *DENSE, *REGIONS, *VALUES, *POINTS, *COMPOSITES)
}
"""Every row by its name."""
