"""A module hands on all that it is made of, and all that it is called with."""

import inspect
import sys

import pytest
import torch

from aptt.audit import SPECS
from tests.loss.test_errors import FUNCTIONS, NEEDED, OF_FUNCTION


@pytest.mark.parametrize("name", OF_FUNCTION)
def test_every_option_and_every_argument_reaches_the_function(name, monkeypatch):
    module, reached = OF_FUNCTION[name], {}

    def function(*args, **kwargs):
        reached.update(inspect.signature(FUNCTIONS[name]).bind(*args, **kwargs).arguments)

    home = sys.modules[module.forward.__module__]
    if hasattr(home, name):
        monkeypatch.setattr(home, name, function)
    else:
        monkeypatch.setattr(module, "_function", staticmethod(function))
    loss_fn = module(**NEEDED.get(module.__name__, {}))
    options = {key: object() for key in inspect.signature(module).parameters}
    vars(loss_fn).update(options)
    given = {key: object() for key in inspect.signature(loss_fn.forward).parameters}
    loss_fn.forward(**given)
    assert reached == options | given
    assert reached.keys() == inspect.signature(FUNCTIONS[name]).parameters.keys()


TRIALS = [
    pytest.param(trial, id=f"{spec.name}, {trial.label}")
    for spec in SPECS.values()
    if spec.module is not None
    for trial in spec.trials()
]


@pytest.mark.parametrize("trial", TRIALS)
def test_every_option_is_kept_by_the_constructor(trial):
    options = inspect.signature(trial.spec.module).parameters
    given = {key: value for key, value in trial.options().items() if key in options}
    kept = trial.spec.module(**given).options()
    assert kept.keys() == options.keys()
    for key, option in options.items():
        value = given.get(key, option.default)
        if isinstance(kept[key], torch.Tensor):
            assert torch.equal(kept[key], torch.as_tensor(value))
        elif isinstance(value, torch.nn.Module):  # which is made to reduce as it is to
            assert type(kept[key]) is type(value)
        else:
            assert kept[key] == value
