"""What an option may be: a module and its function take the same numbers, and no word is one."""

import inspect
import math
import re

import pytest

from tests.loss.test_errors import FUNCTIONS, OF_FUNCTION, _drawn, _tensors

NUMBERS = [-1.0, 0.0, 1e-4, 1.5e-3, 0.25, 0.75, 1.0, 1.5, 2.5, 10.0, 150.0, 1e4, math.inf, math.nan]
OF_A_CALL = {("focal_loss", "label_smoothing"), ("kto_loss", "baseline")}
"""What else the function refuses, for what it is called with."""
TAPS = {"ms_ssim_loss": {"window_size": 3}}
"""Of an even number none lies in the middle, and where sigma is small all are 0."""


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
    args = _drawn(name, _tensors(name)[0])[0] | TAPS.get(name, {})
    options = {k: v for k, v in args.items() if k in inspect.signature(module).parameters}
    for number in NUMBERS:
        by_module = _refused(key, module, options | {key: number})
        by_function = _refused(key, FUNCTIONS[name], args | {key: number})
        if by_module or (name, key) not in OF_A_CALL:
            assert by_module == by_function, number


OF_OTHERS = {  # another option is named, or none, or any word is a yes
    ("centernet_targets", "size"), ("denoising_matches", "contrastive"),
    ("group_advantages", "leave_one_out"), ("linear_multi_token_loss", "ignore_index"),
    ("linear_multi_token_loss", "step"), ("linear_multi_token_terms", "ignore_index"),
    ("lwf_loss", "old_classes"), ("mel_loss", "preset"), ("mel_terms", "preset"),
    ("multi_token_loss", "ignore_index"), ("multi_token_loss", "step"),
    ("multi_token_terms", "ignore_index"), ("point_mask_terms", "generator"),
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
