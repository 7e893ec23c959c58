"""Checks of what a loss is called with: errors that say what came and what was wanted.

options    numbers, flags, indices, names
tensors    what kind of numbers, on which device; lists and arrays as tensors
values     what they hold: ranges, classes, weights; looked at on the CPU alone
"""

from aptt.core.checks.options import (
    IgnoreIndex,
    check_choice,
    check_chunk,
    check_flags,
    check_index,
    check_label,
    check_number,
    check_positive,
    check_whole,
    ignored,
)
from aptt.core.checks.tensors import (
    Array,
    Numbers,
    as_factor,
    as_floats,
    as_tensor,
    as_weight,
    check_each,
    check_floating,
    check_indices,
    check_numbers,
    check_tensors,
)
from aptt.core.checks.values import (
    INDEX_DTYPES,
    assert_range,
    check_binary,
    check_boxes,
    check_classes,
    check_range,
    check_shares,
    check_some,
    check_weight,
    check_weights,
    kept,
    looking,
    taken_classes,
)

__all__ = [
    "INDEX_DTYPES",
    "Array",
    "IgnoreIndex",
    "Numbers",
    "as_factor",
    "as_floats",
    "as_tensor",
    "as_weight",
    "assert_range",
    "check_binary",
    "check_boxes",
    "check_choice",
    "check_chunk",
    "check_classes",
    "check_each",
    "check_flags",
    "check_floating",
    "check_index",
    "check_indices",
    "check_label",
    "check_number",
    "check_numbers",
    "check_positive",
    "check_range",
    "check_shares",
    "check_some",
    "check_tensors",
    "check_weight",
    "check_weights",
    "check_whole",
    "ignored",
    "kept",
    "looking",
    "taken_classes",
]
