"""Tensors on two devices are refused by name; ``"meta"`` stands for the other one."""

import re

import pytest
import torch
from torch import Tensor

from aptt.audit import SPECS

ROWS = [pytest.param(spec, id=name) for name, spec in SPECS.items()]


def _gone(t):
    return t.detach().to("meta")


@pytest.mark.parametrize("spec", ROWS)
def test_each_tensor_is_held_to_the_device_of_the_prediction(spec):
    for trial in spec.trials():
        inputs, options = trial.inputs(dtype=torch.float32), trial.options()
        tensors = {k: t for k, t in options.items() if isinstance(t, Tensor) and t.ndim}
        others = [*inputs, *tensors]
        others.remove(trial.prediction(inputs))
        assert others
        for name in others:
            given = {**inputs, **options}
            with pytest.raises(ValueError, match="got a tensor on") as caught:
                spec.function(**{**given, name: _gone(given[name])})
            said = str(caught.value)
            of_list = rf"{name}(\[\d+\])*: got a tensor on meta, wanted it on cpu"
            assert re.match(of_list, said) or (
                name == "class_logits" and said.startswith("pred_boxes: got a tensor on cpu")
            ), (trial.label, said)  # of two predictions, the first is where the rest should be


@pytest.mark.parametrize("spec", ROWS)
def test_nor_may_the_prediction_be_elsewhere(spec):
    for trial in spec.trials():
        inputs = trial.inputs(dtype=torch.float32)
        x = trial.prediction(inputs)
        with pytest.raises(ValueError, match=r"got a tensor on .*, wanted it on .*; move it with"):
            trial.loss({**inputs, x: _gone(inputs[x])})
