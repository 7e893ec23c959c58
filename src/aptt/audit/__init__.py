"""Hold losses to their promises: one function for each promise, one row for each loss.

>>> from aptt.audit import SPECS, promises
>>> promises.none_sums_to_sum(SPECS["rmse_loss"]).cases
['batch', 'weighted', 'sample', 'sample, weighted']
"""

from aptt.audit import promises
from aptt.audit.kinds import KINDS, Form, Kind, example_maker
from aptt.audit.promise import PROMISES, Held, Promise
from aptt.audit.report import Record, audit, table, to_json, to_junit
from aptt.audit.spec import Case, Inputs, Options, Refused, Scaling, Spec, Trial, case
from aptt.audit.specs import SPECS
from aptt.audit.stranger import make
from aptt.audit.testing import parametrize

__all__ = [
    "KINDS",
    "PROMISES",
    "SPECS",
    "Case",
    "Form",
    "Held",
    "Inputs",
    "Kind",
    "Options",
    "Promise",
    "Record",
    "Refused",
    "Scaling",
    "Spec",
    "Trial",
    "audit",
    "case",
    "example_maker",
    "make",
    "parametrize",
    "promises",
    "table",
    "to_json",
    "to_junit",
]
