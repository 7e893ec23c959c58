"""What an option may be: a module and its function take the same numbers, and no word is one."""

import inspect
import math
import re
import warnings

import numpy
import pytest
from torch import Tensor

from aptt.core.checks import check_positive, check_size
from tests.loss.test_errors import FUNCTIONS, OF_FUNCTION, _drawn, _tensors

NUMBERS = [-1.0, 0.0, 1e-4, 1.5e-3, 0.25, 0.75, 1.0, 1.5, 2.5, 10.0, 150.0, 1e4, math.inf, math.nan]
OF_A_CALL = {("focal_loss", "label_smoothing"), ("kto_loss", "baseline")}
"""What else the function refuses, for what it is called with."""


def _refused(key, call, given):
    """What an error says of an option; empty if there is none."""
    try:
        call(**given)
    except (TypeError, ValueError) as error:
        said = str(error)
        assert re.match(r"\w+: ", said), said
        return said if said.startswith(f"{key}: ") else ""
    return ""


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (name, key)
        for name, module in OF_FUNCTION.items()
        for key, option in inspect.signature(module).parameters.items()
        if str(option.annotation) in ("float", "float | None")
    ],
)
def test_a_constructor_refuses_the_numbers_that_the_function_refuses(name, key):
    module = OF_FUNCTION[name]
    args = _drawn(name, _tensors(name)[0])[0]
    options = {k: v for k, v in args.items() if k in inspect.signature(module).parameters}
    for number in NUMBERS:
        by_module = _refused(key, module, options | {key: number})
        by_function = _refused(key, FUNCTIONS[name], args | {key: number})
        if by_module or (name, key) not in OF_A_CALL:
            assert by_module == by_function, number


NOT_HELD = [1e39, 1e300, -1e39]
FLOATS = [
    (name, key)
    for name, function in FUNCTIONS.items()
    if _tensors(name)
    for key, option in inspect.signature(function).parameters.items()
    if re.match(r"float\b", str(option.annotation)) and key != "ignore_index"
]
"""Options that are numbers; a target that is ignored is none, and may be any of float64."""


@pytest.mark.parametrize("number", NOT_HELD)
@pytest.mark.parametrize(("name", "key"), FLOATS)
def test_no_function_takes_a_number_that_float32_does_not_hold(name, key, number):
    args = _drawn(name, _tensors(name)[0])[0]
    with pytest.raises(
        (TypeError, ValueError), match=rf"^{key}: got {re.escape(repr(number))}[, ]"
    ):
        FUNCTIONS[name](**args | {key: number})


@pytest.mark.parametrize("number", [1e-40, 1e-300, 5e-324])
@pytest.mark.parametrize(("name", "key"), FLOATS)
def test_a_number_below_those_of_float32_makes_no_nan(name, key, number):
    args = _drawn(name, _tensors(name)[0])[0]
    try:
        found = FUNCTIONS[name](**args | {key: number})
    except (TypeError, ValueError) as error:
        said = str(error)
        assert re.match(r"\w+: ", said), said
    else:
        assert not any(t.isnan().any() for t in _found(found))


def _found(value):
    """The tensors that a function has returned."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [t for part in parts for t in _found(part)] if isinstance(value, dict | tuple) else []


OF_OTHERS = {  # another option is named, or none, or any word is a yes
    ("mel_loss", "preset"), ("mel_terms", "preset"),
}  # fmt: skip
WORDED = [
    (name, key)
    for name, function in FUNCTIONS.items()
    if _tensors(name)
    for key in inspect.signature(function).parameters
    if key not in _tensors(name) and (name, key) not in OF_OTHERS
]


@pytest.mark.parametrize(("name", "key"), WORDED)
def test_no_function_takes_a_word_that_no_option_has(name, key):
    args = _drawn(name, _tensors(name)[0])[0]
    with pytest.raises((TypeError, ValueError), match=rf"^{key}\b"):
        FUNCTIONS[name](**args | {key: "nonsense"})


@pytest.mark.parametrize("kind", ["float16", "float32", "int32"])
def test_a_number_in_an_array_is_taken_without_a_warning(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_positive("temperature", numpy.array(2.0, dtype=kind))
        check_size(numpy.array((3, 4), dtype="int32").tolist())
        check_size(tuple(numpy.array((3, 4), dtype="int32")))
