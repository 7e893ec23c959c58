"""One row for each loss of :mod:`aptt.loss`."""

from aptt.audit.spec import Spec
from aptt.audit.specs.adversaries import ADVERSARIES
from aptt.audit.specs.boxes import BOXES
from aptt.audit.specs.classes import CLASSES
from aptt.audit.specs.composites import COMPOSITES
from aptt.audit.specs.dense import DENSE
from aptt.audit.specs.embeddings import EMBEDDINGS
from aptt.audit.specs.heads import HEADS
from aptt.audit.specs.images import IMAGES
from aptt.audit.specs.language import LANGUAGE
from aptt.audit.specs.numbers import NUMBERS
from aptt.audit.specs.outlines import OUTLINES
from aptt.audit.specs.points import POINTS
from aptt.audit.specs.policies import POLICIES
from aptt.audit.specs.poses import POSES
from aptt.audit.specs.preferences import PREFERENCES
from aptt.audit.specs.regions import REGIONS
from aptt.audit.specs.sets import SETS
from aptt.audit.specs.teachers import TEACHERS
from aptt.audit.specs.values import VALUES
from aptt.audit.specs.waves import WAVES

__all__ = ["SPECS"]

_FAMILIES = (
    CLASSES,
    HEADS,
    LANGUAGE,
    TEACHERS,
    PREFERENCES,
    POLICIES,
    BOXES,
    DENSE,
    REGIONS,
    OUTLINES,
    POINTS,
    POSES,
    COMPOSITES,
    SETS,
    WAVES,
    VALUES,
    EMBEDDINGS,
    NUMBERS,
    IMAGES,
    ADVERSARIES,
)

SPECS: dict[str, Spec] = {row.name: row for family in _FAMILIES for row in family}
"""Every row by its name."""
