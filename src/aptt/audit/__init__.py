"""Hold losses to their promises: one function for each promise, one row for each loss.

>>> from aptt.audit import SPECS, promises
>>> promises.none_sums_to_sum(SPECS["rmse_loss"]).cases
['batch', 'weighted', 'sample', 'sample, weighted']
"""

from aptt.audit import promises
from aptt.audit.promise import PROMISES, Held, Promise
from aptt.audit.report import Record, audit, table, to_json
from aptt.audit.spec import Case, Inputs, Options, Refused, Scaling, Spec, Trial, case
from aptt.audit.specs import SPECS

__all__ = [
    "PROMISES",
    "SPECS",
    "Case",
    "Held",
    "Inputs",
    "Options",
    "Promise",
    "Record",
    "Refused",
    "Scaling",
    "Spec",
    "Trial",
    "audit",
    "case",
    "promises",
    "table",
    "to_json",
]
