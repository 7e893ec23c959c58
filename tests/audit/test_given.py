"""Inputs of a user's own: bound by name, understood as far as they can be, and what is said."""

import json
import sys
import xml.etree.ElementTree as ET

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aptt.audit import PROMISES, audit, make, to_junit
from aptt.audit.smallest import smallest
from aptt.cli import main


def numbers(generator, n):
    return {"pred": torch.randn(n, 3, generator=generator),
            "target": torch.randn(n, 3, generator=generator)}  # fmt: skip


def answers(generator, n):
    return {"logits": torch.randn(n, 4, generator=generator),
            "target": (torch.rand(n, 4, generator=generator) > 0.7).float()}  # fmt: skip


def classes(generator, n):
    return {"logits": torch.randn(n, 4, generator=generator),
            "target": torch.randint(4, (n,), generator=generator)}  # fmt: skip


def reduced(values, reduction):
    return values if reduction == "none" else getattr(values, reduction)()


def state(loss, promise, **how):
    return next(audit([make(loss, **how)], [PROMISES[promise]]))


# ------------------------------------------------------------------------------ by name


def test_tensors_go_by_name_whatever_their_order():
    seen = {}

    def loss(pred, target, beta=1.0, *, weight=None):
        seen.update(pred=pred.mean(), target=target.mean(), beta=beta, weight=weight)
        return ((pred - 2 * target) ** 2).mean()

    def swapped(generator, n):
        ones = torch.ones(n, 3)
        return {"target": 0 * ones, "weight": 3 * ones, "pred": ones}

    row = make(loss, inputs=swapped)
    row.trials()[0].loss(row.trials()[0].inputs())
    assert (seen["pred"], seen["target"], seen["beta"]) == (1, 0, 1.0)
    assert seen["weight"].mean() == 3
    assert list(row.inputs(torch.Generator(), 1)) == ["pred", "target", "weight"]


def test_names_that_match_nothing_go_in_order_and_it_is_said():
    row = make(F.mse_loss, inputs=lambda g, n: {"a": torch.randn(n, 3), "b": torch.randn(n, 3)})
    assert list(row.inputs(torch.Generator(), 1)) == ["input", "target"]
    assert "in order: a as input, b as target" in row.notes[0]


def test_names_that_match_in_part_are_a_mistake():
    with pytest.raises(ValueError, match="target matched, x did not"):
        make(F.mse_loss, inputs=lambda g, n: {"x": torch.ones(n, 3), "target": torch.ones(n, 3)})


def test_a_kind_goes_by_the_roles_of_the_arguments():
    def loss(target, pred):
        return ((pred - target) ** 2).mean() * (1 + 0 * target.mean())

    row = make(loss, kind="regression")
    assert list(row.inputs(torch.Generator(), 1)) == ["pred", "target"]


# ----------------------------------------------------------------------- what they mean


def logs_zero(logits, target, reduction="mean"):
    p = torch.sigmoid(logits)
    return reduced(-(target * p.log() + (1 - target) * (1 - p).log()), reduction)


def wrong_sign(pred, target, reduction="mean"):
    return reduced(-((pred - target) ** 2), reduction)


def averages_all(logits, target, ignore_index=-100, reduction="mean"):
    return reduced(F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none"),
                   reduction)  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "inputs", "promise"),
    [
        (logs_zero, answers, "finite_at_extremes"),
        (wrong_sign, numbers, "perfect_is_minimal"),
        (wrong_sign, numbers, "hopeless_keeps_a_gradient"),
        (averages_all, classes, "ignoring_is_removing"),
    ],
)
def test_given_inputs_are_no_way_around_a_promise(loss, inputs, promise):
    assert state(loss, promise, inputs=inputs).state == "broken"


@pytest.mark.parametrize(
    ("loss", "inputs", "kind"),
    [
        (F.binary_cross_entropy_with_logits, answers, "logits+multilabel"),
        (F.mse_loss, answers, "regression"),
        (F.mse_loss, numbers, "regression"),
        (F.cross_entropy, classes, "logits+classes"),
    ],
)
def test_the_kind_is_deduced_and_a_correct_loss_keeps_what_it_asks(loss, inputs, kind):
    def tried(g, n):
        return dict(zip(("input", "target"), inputs(g, n).values(), strict=True))

    row = make(loss, inputs=tried)
    assert f"taken as {kind}" in row.notes[-1]
    for name in ("perfect_is_minimal", "hopeless_keeps_a_gradient", "finite_at_extremes"):
        assert next(audit([row], [PROMISES[name]])).why == ""


def test_probabilities_stay_probabilities():
    def shares(g, n):
        return {"input": torch.rand(n, 3, generator=g), "target": torch.rand(n, 3).round()}

    row = make(F.binary_cross_entropy, inputs=shares)
    extremes = row.extremes()["input"]
    assert (extremes.min(), extremes.max()) == (0, 1)
    assert next(audit([row], [PROMISES["perfect_is_minimal"]])).why == ""


def test_what_cannot_be_deduced_is_asked_with_a_kind():
    def loss(a, b):
        return ((a - b) ** 2).mean()

    def pairs(g, n):
        return {"a": torch.randn(n, 3, generator=g), "b": torch.randn(n, 3, generator=g)}

    assert "--kind has it asked" in state(loss, "perfect_is_minimal", inputs=pairs).why
    asked = state(loss, "perfect_is_minimal", inputs=pairs, kind="regression")
    assert asked.state == "kept"


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (lambda g, n: (torch.ones(n), torch.ones(n)), "returned a tuple, wanted a dict of tensors"),
        (lambda n: numbers(None, n), r"wanted <lambda>\(generator, n\)"),
        (lambda g, n: numbers(g, 8), "ignores n: for n = 3 it made 'pred' of shape"),
    ],
)
def test_a_maker_that_is_none_is_told_what_is_wrong(inputs, said):
    with pytest.raises(ValueError, match=said):
        make(F.mse_loss, inputs=inputs)


# ------------------------------------------------------------------------- what is shown


def test_the_derived_input_is_shown():
    row = make(wrong_sign, inputs=numbers)
    assert "lower at pred=" in smallest(row, PROMISES["perfect_is_minimal"])
    shown = smallest(make(averages_all, inputs=classes), PROMISES["ignoring_is_removing"])
    assert "nan" in shown.partition(", target=")[0]
    assert "-100" in shown


def test_all_that_was_let_through_is_said_shapes_first():
    def loss(pred, target):
        return ((pred - target) ** 2).mean()

    column = {"pred": torch.ones(1, 1), "target": torch.ones(1)}
    row = make(loss, inputs=lambda g, n: {k: t.expand(n, *t.shape[1:]) for k, t in column.items()})
    assert "warning: pred (64, 1) and target (64,) differ in shape" in row.notes[0]
    why = next(audit([row], [PROMISES["bad_input_is_refused"]])).why
    assert why.startswith("pred that would broadcast: let through")
    assert "another axis on target" in why
    assert "integer pred" in why


def test_an_overflow_in_half_precision_is_said_before_the_dtype():
    def loss(pred, target, reduction="mean"):
        return reduced((pred - target) ** 2, reduction)

    assert "float16, one sample: value: got inf" in state(loss, "half_matches_truth",
                                                          inputs=numbers).why  # fmt: skip


def test_autocast_may_be_more_exact():
    def loss(logits, target):
        return F.cross_entropy(logits, target)

    assert "wanted" not in state(loss, "autocast", kind="logits+classes").why

    def coarse(pred, target):
        return ((pred @ torch.eye(3).to(pred) - target).float() ** 2).mean()

    assert "value under autocast: off by" in state(coarse, "autocast", inputs=numbers).why


class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, up):
        return up / 2


class Floats(nn.Module):
    def forward(self, pred, target):
        return F.smooth_l1_loss(pred.float(), target.float())


def test_a_loss_that_computes_in_float32_has_its_gradient_checked():
    def floats(pred, target):
        return F.smooth_l1_loss(pred.float(), target.float())

    def halved(pred, target):
        return floats(Half.apply(pred), target)

    names = ("gradient_is_right", "double_backward", "gradient_reaches_all_who_ask")
    for name in names:
        assert state(floats, name, inputs=numbers).state == "kept"
        assert state(Floats(), name, inputs=numbers).state == "kept"
    assert state(halved, "gradient_is_right", inputs=numbers).state == "broken"
    assert state(Floats(), "follows_to_dtype_and_device", inputs=numbers).state == "kept"


def test_what_is_allowed_is_no_failure():
    row = make(wrong_sign, inputs=numbers)
    records = list(audit([row], [PROMISES["autocast"]], allow={"autocast": "not used"}))
    assert (records[0].state, records[0].allowed) == ("allowed", "not used")
    suite = ET.fromstring(to_junit(records)).find("testsuite")
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")
    assert "allowed, not used" in suite.find("testcase/skipped").get("message")


# -------------------------------------------------------------------- on the command line

HERE = """
import torch

def wrong(pred, target):
    return -((pred - target) ** 2).mean()

def inputs(generator, n):
    return {"pred": torch.randn(n, 2, generator=generator),
            "target": torch.randn(n, 2, generator=generator)}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(HERE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("my_losses", None)


GIVEN = ["audit", "my_losses:wrong", "--inputs", "my_losses:inputs"]


def test_allow_on_the_command_line(here, capsys):
    argv = [*GIVEN, "--promise", "nothing_left_is_zero", "--allow", "nothing_left_is_zero=as torch"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "~ nothing_left_is_zero: allowed, as torch" in out
    assert "0 kept, 0 broken, 1 allowed" in out
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["allowed"] == "as torch"


def test_wrong_numbers_first_reasons_grouped_and_no_backticks(here, capsys):
    chosen = ("bad_input_is_refused", "perfect_is_minimal", "copies", "none_sums_to_sum",
              "follows_to_dtype_and_device", "deterministic")  # fmt: skip
    argv = [*GIVEN, *(word for name in chosen for word in ("--promise", name))]
    assert main(argv) == 1
    out = capsys.readouterr().out
    assert out.index("! perfect_is_minimal") < out.index("! bad_input_is_refused")
    assert "- copies, follows_to_dtype_and_device: a function holds no state" in out
    assert "``" not in out
    assert "three calls in one process" not in out
    assert main([*argv, "--verbose"]) == 1
    assert "deterministic: three calls in one process" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([*GIVEN, "--device", "banana"], "--device: 'banana' cannot be used here"),
        ([*GIVEN, "--device", "meta"], "--device: 'meta' cannot be used here"),
        (["audit", "my_losses", "--kind", "regression"], "in 'my_losses', my_losses:NAME"),
        (["audit", "my_losses.py:wrong", "--kind", "boxes"], "without .py: my_losses:wrong"),
        (["audit", "my_losses:wrng", "--kind", "boxes"], "did you mean 'wrong'?"),
    ],
)
def test_a_mistake_is_one_line_that_says_how_to_mend_it(here, capsys, argv, said):
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
