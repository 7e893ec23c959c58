"""Every promise of the contract over every loss; on the device that ``--device`` names."""

import inspect
import re

import pytest
import torch

import aptt.loss
from aptt.audit import PROMISES, SPECS
from aptt.audit.promises.running import compile_with

APPLIES = [
    pytest.param(promise, spec, id=f"{promise.name}-{spec.name}")
    for promise in PROMISES.values()
    for spec in SPECS.values()
    if promise.exemption(spec) is None
]
EXEMPTIONS = [
    (name, reason)
    for spec in SPECS.values()
    for exempt in (spec.exempt, *(case.exempt for case in spec.cases.values()))
    for name, reason in exempt.items()
]


@pytest.mark.parametrize(("promise", "spec"), APPLIES)
def test_promise(promise, spec, device):
    held = promise(spec, device)
    assert held.cases


@pytest.mark.parametrize(
    "name", ["cross_entropy", "focal_loss (sigmoid)", "giou_loss", "dice_loss", "rmse_loss"]
)
def test_the_compiler_fuses_it_to_the_same_result(name, device):
    compile_with("inductor", SPECS[name].trials(device)[0])


def test_every_public_loss_has_a_row():
    public = {name: getattr(aptt.loss, name) for name in aptt.loss.__all__}
    functions = {name for name, value in public.items() if inspect.isfunction(value)}
    modules = {
        name: re.match(r"Module form of :func:`(\w+)`", value.__doc__ or "")
        for name, value in public.items()
        if inspect.isclass(value) and issubclass(value, torch.nn.Module)
    }
    losses = {named[1] for named in modules.values() if named}
    losses |= {name for name in functions if name.endswith("_loss")}  # one without a module too
    assert losses <= functions
    assert {spec.function.__name__ for spec in SPECS.values()} == losses
    assert {spec.module.__name__ for spec in SPECS.values()} == {n for n, m in modules.items() if m}


@pytest.mark.parametrize(("promise", "reason"), EXEMPTIONS)
def test_what_does_not_apply_is_said_by_name_with_the_reason(promise, reason):
    assert promise in PROMISES
    assert len(reason.split()) > 3
