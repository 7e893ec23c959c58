"""A teacher is a constant, unless it is asked to learn."""

import inspect

import pytest
import torch

from tests.loss.test_errors import FUNCTIONS, _changed, _drawn, _floats, _leaf, _tensors

DETACHING = [
    (name, option, key)
    for name, function in FUNCTIONS.items()
    for option, words in (("detach_teacher", ("teacher", "old")), ("detach_real", ("real",)))
    if option in inspect.signature(function).parameters
    for key in _tensors(name)
    if key.startswith(words) and key != "teacher_indices"
]


def _learns(name, args, key):
    """Whether what an argument holds gets a gradient of any value."""
    asked = []

    def asking(t):
        asked.append(t.detach().clone().requires_grad_())
        return asked[0]

    given = args | {key: _changed(args[key], _leaf(args[key]), asking), "reduction": "sum"}
    values = FUNCTIONS[name](**given)
    for value in values.values() if isinstance(values, dict) else [values]:
        if value.requires_grad:
            grads = torch.autograd.grad(value.sum(), asked, allow_unused=True, retain_graph=True)
            if grads[0] is not None:
                return True
    return False


@pytest.mark.parametrize(("name", "option", "key"), DETACHING)
def test_what_is_detached_has_no_gradient_and_what_is_not_has_one(name, option, key):
    calls = [args for args in _drawn(name, key) if _floats(args, key)]
    assert not any(_learns(name, args | {option: True}, key) for args in calls)
    assert any(_learns(name, args | {option: False}, key) for args in calls)
