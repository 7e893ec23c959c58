"""The module form: options by name, tensors as buffers, a repr that is the call."""

import re

import pytest
import torch

import aptt.loss
from aptt.core.module import LossModule, per_class
from aptt.loss import CrossEntropyLoss, DiceLoss, FocalLoss, SupConLoss


class Plain(LossModule):
    def forward(self):
        return self.options()


def _by_rank(total, count, *, term):
    return total / count


def test_options_come_back_by_name_in_order():
    module = Plain(gamma=2.0, weight=torch.ones(2), reduction="mean")
    assert list(module()) == ["gamma", "weight", "reduction"]
    module.gamma = 3.0
    assert module()["gamma"] == 3.0


def test_tensors_are_buffers_and_move_along():
    module = Plain(weight=torch.ones(2), bias=None)
    assert list(module.state_dict()) == ["weight"]
    assert module.to(torch.float64).options()["weight"].dtype == torch.float64


def test_the_repr_is_the_call():
    module = Plain(gamma=0.5, weight=torch.tensor([1.0, 2.0]), mode="x", reduction=_by_rank)
    assert repr(module) == (
        "Plain(gamma=0.5, weight=torch.tensor([1.0, 2.0]), mode='x', reduction=_by_rank)"
    )


def test_a_list_serves_as_numbers_per_class():
    assert per_class([1, 2.5]).tolist() == [1.0, 2.5]
    assert per_class((1, 2)).dtype == torch.get_default_dtype()
    assert per_class(None) is None
    for weight in (torch.ones(2), torch.ones(2, dtype=torch.int32)):
        assert per_class(weight) is weight
    with pytest.raises(TypeError):
        per_class(3)


def test_the_repr_of_many_numbers_is_short():
    weight = torch.ones(50257)
    weight[-1] = 2
    said = repr(aptt.loss.CrossEntropyLoss(weight=weight, reduction="sum"))
    assert said.startswith(
        "CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 1.0, ..., 2.0]: 50257 numbers), ignore"
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: aptt.loss.DiceLoss(weight=[1.0, 2.0]), "^weight: DiceLoss .*class_weight"),
        (lambda: aptt.loss.MTPLoss(weight=[1.0, 2.0]), "^weight: MTPLoss .*class_weight"),
        (lambda: aptt.loss.GIoULoss(weight=[1.0]), "^weight: GIoULoss .*called with .*weight$"),
        (lambda: aptt.loss.FocalLoss(gama=2.0), "^gama: FocalLoss .*alpha, gamma,"),
    ],
)
def test_an_unknown_option_is_told_those_that_there_are(make, said):
    with pytest.raises(TypeError, match=said):
        make()


@pytest.mark.parametrize(
    ("module", "name", "wanted"),
    [
        (SupConLoss, "temperature", "temperature: SupConLoss has no such option, wanted scale, "),
        (DiceLoss, "include_background", "no such option, wanted background; it is"),
        (DiceLoss, "sigmoid", "no such option, wanted mode, which is 'multilabel' or 'binary'"),
        (CrossEntropyLoss, "smoothing", "no such option, wanted label_smoothing; it is"),
        (FocalLoss, "gama", "no such option, wanted gamma; it is"),
        (FocalLoss, "temperature", "no such option; it is"),
        (FocalLoss, "weight", "no such option, give it to the call; it is"),
    ],
)
def test_a_word_of_elsewhere_is_told_ours(module, name, wanted):
    with pytest.raises(TypeError, match=re.escape(wanted)):
        module(**{name: 1.0})
