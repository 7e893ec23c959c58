"""Losses that are not ours under the audit: told apart from a correct one, and by small inputs."""

import importlib
import importlib.util
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import aptt.audit
from aptt.audit import KINDS, PROMISES, audit, example_maker, make, to_junit
from aptt.audit.smallest import smallest
from aptt.cli import main

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks and docs are no part of the package


def correct(logits, target, *, gamma=2.0, ignore_index=-1, reduction="mean"):
    """A focal loss as its author should have written it."""
    if not logits.is_floating_point():
        raise TypeError("logits")
    if logits.shape != target.shape:
        raise ValueError("target")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError("reduction")
    keep = target != ignore_index
    x = logits.float() if logits.dtype.itemsize == 2 else logits
    x, t = x.masked_fill(~keep, 0), target.masked_fill(~keep, 0).to(x.dtype)
    margin = (2 * t - 1) * x
    values = torch.exp(-gamma * F.softplus(margin)) * F.softplus(-margin) * keep
    if reduction == "none":
        return values
    return values.sum() / keep.sum().clamp(min=1) if reduction == "mean" else values.sum()


class Correct(nn.Module):
    def __init__(self, gamma=2.0, ignore_index=-1, reduction="mean"):
        super().__init__()
        self.options = {"gamma": gamma, "ignore_index": ignore_index, "reduction": reduction}

    def forward(self, logits, target):
        return correct(logits, target, **self.options)


def leaks_past_threes(logits, target, reduction="mean"):
    """Wrong for one logit only: NaN at exactly 100."""
    values = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    values = torch.where(logits == 100, torch.nan, values)
    return values if reduction == "none" else getattr(values, reduction)()


def one_number(logits, target):
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))


@pytest.mark.parametrize("loss", [correct, Correct], ids=["function", "class"])
def test_a_correct_stranger_keeps_every_promise_or_the_reason_is_said(loss):
    row = make(loss, kind="logits+multilabel")
    records = list(audit([row], PROMISES.values()))
    assert [r.why for r in records if r.state == "broken"] == []
    kept = {r.promise for r in records if r.state == "kept"}
    assert {"finite_at_extremes", "ignoring_is_removing", "half_matches_truth"} <= kept
    assert ("copies" in kept) is (loss is Correct)
    for record in records:
        assert record.state == "kept" or len(record.why.split()) > 3


def test_the_smallest_input_is_one_sample_with_the_number_that_matters():
    row = make(leaks_past_threes, kind="logits+multilabel")
    why = smallest(row, PROMISES["finite_at_extremes"])
    assert why.startswith("logits=[[100.0, 100.0, 100.0]], target=[[")
    assert "3 of 3 not finite" in why


def averages_all(logits, target, ignore_index=-1, reduction="mean"):
    values = correct(logits, target, ignore_index=ignore_index, reduction="none")
    return values if reduction == "none" else getattr(values, reduction)()


def test_the_smallest_input_of_a_wrong_mean_is_two_samples_of_zeros():
    row = make(averages_all, kind="logits+multilabel")
    why = smallest(row, PROMISES["ignoring_is_removing"])
    assert why.startswith(
        "logits=[[nan, nan, nan], [0.0, 0.0, 0.0]], target=[[-1.0, -1.0, -1.0], ["
    )
    assert "value: got 0.08" in why
    assert "wanted 0.17" in why


def test_a_loss_that_returns_one_number_is_tried_sample_by_sample():
    row = make(one_number, kind="logits+multilabel")
    assert PROMISES["finite_at_extremes"](row).cases == ["rows"]
    assert "takes no reduction" in row.exempt["none_sums_to_sum"]


def test_options_that_an_instance_does_not_take_are_not_held_against_it():
    row = make(Correct(), kind="logits+multilabel")
    assert PROMISES["bad_input_is_refused"](row).cases == ["the row"]


def test_a_loss_that_takes_no_such_inputs_is_told_each_refusal():
    with pytest.raises(ValueError, match=r"(?s)takes none of these inputs.*corners: IndexError"):
        make(lambda x, t: x[:, 9], kind="boxes")
    with pytest.raises(ValueError, match="kind: got 'pictures', wanted one of logits"):
        make(correct, kind="pictures")
    with pytest.raises(ValueError, match="a kind of inputs, or a function"):
        make(correct)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_knows_what_is_perfect_hopeless_and_hard(name):
    for form in KINDS[name].forms.values():
        assert form.perfect is not None
        assert form.hopeless is not None
        assert form.extremes is not None
        made = form.inputs(torch.Generator().manual_seed(0), 3)
        assert len(made) == 2
        assert {len(t) for t in made.values()} == {3}
        assert list(form.extremes()) == list(made)


def test_an_example_is_sampled_with_its_dtypes():
    made = example_maker({"x": torch.eye(3), "y": torch.arange(3)})(torch.Generator(), 7)
    assert made["x"].shape == (7, 3)
    assert made["x"].dtype == torch.float64
    assert torch.equal(made["x"].argmax(1), made["y"])
    with pytest.raises(ValueError, match=r"sizes \[2, 3\]"):
        example_maker({"x": torch.ones(2), "y": torch.ones(3)})


# ------------------------------------------------------------------------- with pytest


ROW = make(correct, kind="logits+multilabel")


@aptt.audit.parametrize(ROW, promises=["gradient_is_right", "none_sums_to_sum"])
def test_the_pytest_helper_makes_a_test_of_each_promise(promise):
    assert promise().cases


def test_the_pytest_helper_skips_with_the_reason_and_knows_its_promises():
    mark = aptt.audit.parametrize(one_number, kind="logits+multilabel").args[1]
    assert len(mark) == len(PROMISES)
    skipped = {p.id: p.marks[0].kwargs["reason"] for p in mark if p.marks}
    assert "takes no reduction" in skipped["none_sums_to_sum-one_number"]
    with pytest.raises(ValueError, match="promises: got 'kindness'"):
        aptt.audit.parametrize(ROW, promises=["kindness"])


def test_junit_counts_what_is_broken_and_names_it():
    chosen = ["finite_at_extremes", "none_sums_to_sum", "split_invariance"]
    records = list(audit([make(leaks_past_threes, kind="logits+multilabel")],
                         [PROMISES[name] for name in chosen]))  # fmt: skip
    suite = ET.fromstring(to_junit(records)).find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    failure = suite.find("testcase[@name='finite_at_extremes']/failure")
    assert "not finite, the first at [6, 0]" in failure.get("message")


# -------------------------------------------------------------------- on the command line


HERE = """
import torch
from torch.nn import functional as F

def wrong(x, t, reduction="mean"):
    values = (x - t).abs() ** 0.5
    return values if reduction == "none" else getattr(values, reduction)()

def inputs(generator, n):
    x = torch.randn(n, 2, dtype=torch.float64, generator=generator)
    return {"x": x, "t": torch.zeros_like(x)}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "their_losses.py").write_text(HERE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("their_losses", None)


def test_a_stranger_is_audited_by_its_path(here, capsys):
    argv = ["audit", "their_losses:wrong", "--kind", "regression", "--junit", "a.xml"]
    assert main([*argv, "--promise", "finite_at_extremes", "--promise", "none_sums_to_sum"]) == 1
    out = capsys.readouterr().out
    assert "! finite_at_extremes: BROKEN" in out
    assert "smallest input found: x=torch.full((1, 5), 0.0)" in out
    assert "+ none_sums_to_sum" in out
    assert "1 kept, 1 broken" in out
    assert "What 'kept' does not say:" not in out
    assert 'failures="1"' in (here / "a.xml").read_text()


@pytest.mark.parametrize(
    "how",
    [
        ("--inputs", "their_losses:inputs"),
        ("--example", "their_losses.py"),
        ("--example", "batch.pt"),
    ],
)
def test_inputs_of_ones_own(here, capsys, how):
    torch.save({"x": torch.randn(5, 2), "t": torch.randn(5, 2)}, "batch.pt")
    argv = ["audit", "their_losses:wrong", *how, "--json", "--promise", "leaves_inputs_alone"]
    assert main(argv) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["loss"], record["state"]) == ("their_losses:wrong", "kept")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["their_losses:wrong"], "what are its inputs? one of --kind (logits+classes"),
        (["their_losses:rong", "--kind", "boxes"], "'their_losses' has no 'rong'"),
        (["no_such_losses:x", "--kind", "boxes"], "No module named 'no_such_losses'"),
        (["their_losses:wrong", "--kind", "box"], "did you mean 'boxes'"),
        (["their_losses:wrong", "--kind", "boxes", "--set", "p"], "wanted NAME=VALUE"),
        (["their_losses:wrong", "--example", "none.pt"], "no batch saved with torch.save"),
        (["giuo"], "did you mean 'giou_loss'"),
        (["giou", "--promise", "copy"], "did you mean 'copies'"),
        (["giou", "--kind", "boxes"], "--kind: only for a loss that is not ours"),
    ],
)
def test_a_mistake_is_told_in_one_line(here, capsys, argv, said):
    assert main(["audit", *argv]) == 2
    assert said in capsys.readouterr().err


def test_ours_are_audited_by_any_of_their_names(capsys):
    assert main(["audit", "FocalLoss", "giou", "--promise", "none_sums_to_sum", "--json"]) == 0
    losses = [record["loss"] for record in json.loads(capsys.readouterr().out)]
    assert losses == ["focal_loss (sigmoid)", "focal_loss (softmax)", "giou_loss"]


def test_without_hypothesis_it_says_what_was_not_done(here):
    code = """
import sys
sys.modules["hypothesis"] = None  # as if it were not installed
from aptt.cli import main
argv = ["audit", "their_losses:wrong", "--kind", "regression", "--promise", "finite_at_extremes"]
sys.exit(main(argv))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "were not looked for: 'hypothesis' is not installed" in run.stdout
    assert 'pip install "aptt[audit]"' in run.stdout


# ------------------------------------------------------- bugs of the field, where it is installed


def broken(library, name, promise):
    """How a peer breaks a promise that is no choice of its authors."""
    if importlib.util.find_spec(library.replace("-", "_")) is None:
        pytest.skip(f"{library} is not installed; it comes with aptt[bench]")
    peers = importlib.import_module("docs.builder.peers").PEERS
    (peer,) = [p for p in peers if (p.library, p.name) == (library, name)]
    (record,) = audit([peer.row()], [PROMISES[promise]])
    assert promise not in peer.choices
    return record.why


def test_kornia_focal_averages_over_what_it_ignores():
    why = broken("kornia", "focal_loss", "ignoring_is_removing")
    assert "'mean', samples that hold nan ignored: value: got 0.08" in why
    assert "wanted 0.16" in why


def test_kornia_focal_has_a_gradient_of_nan_in_float16():
    why = broken("kornia", "focal_loss", "finite_at_extremes")
    assert "float16: gradient: got nan" in why


def test_kornia_dice_multiplies_what_it_ignores_so_that_nan_stays():
    why = broken("kornia", "dice_loss", "ignoring_is_removing")
    assert "value: got nan" in why


def test_kornia_lovasz_lets_shapes_broadcast():
    why = broken("kornia", "lovasz_softmax_loss", "bad_input_is_refused")
    assert "pred that would broadcast: let through" in why


def test_monai_dice_breaks_the_graph_of_the_compiler():
    why = broken("monai", "DiceLoss", "traces_without_breaks")
    assert "data-dependent" in why


def test_monai_giou_has_an_epsilon_that_swallows_small_boxes():
    why = broken("monai", "BoxGIoULoss", "scale_invariance")
    assert "times 2**-40: value: got 1" in why


def test_monai_generalized_dice_writes_over_what_the_gradient_of_the_target_needs():
    why = broken("monai", "GeneralizedDiceLoss", "gradient_reaches_all_who_ask")
    assert "modified by an inplace operation" in why


def test_monai_focal_unreduced_is_not_what_it_sums():
    assert "sum of 'none' against 'sum'" in broken("monai", "FocalLoss", "none_sums_to_sum")


def test_smp_focal_of_many_labels_cannot_ignore():
    why = broken("segmentation-models-pytorch", "FocalLoss", "ignoring_is_removing")
    assert "IndexError: too many indices" in why


def test_smp_focal_takes_any_word_for_a_reduction():
    why = broken("segmentation-models-pytorch", "FocalLoss", "bad_input_is_refused")
    assert "reduction 'average': let through" in why


def test_smp_dice_multiplies_what_it_ignores_so_that_nan_stays():
    why = broken("segmentation-models-pytorch", "DiceLoss", "ignoring_is_removing")
    assert "value: got nan" in why


def unreduced_waves(estimate, target, *, wrong, reduction="mean"):
    """Thousands of values; the last quarter of each signal has a wrong gradient."""
    off = estimate - target
    off = torch.cat((off[..., :300], wrong(off[..., 300:])), -1)
    values = torch.fft.rfft(off.unfold(-1, 64, 8)).abs().square().double()
    return values if reduction == "none" else getattr(values, reduction)()


def waves(g, n):
    return {
        name: torch.randn(n, 400, dtype=torch.float64, generator=g)
        for name in ("estimate", "target")
    }


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, up):
        return 2 * up


@pytest.mark.parametrize(
    ("wrong", "caught"),
    [(lambda x: x, set()), (Doubled.apply, {"gradient_is_right", "gradient_reaches_all_who_ask"})],
)
def test_large_inputs_are_tried_along_random_directions(wrong, caught):
    names = ("respects_upstream_gradient", "gradient_is_right", "gradient_reaches_all_who_ask")
    row = make(unreduced_waves, kind="waveforms", inputs=waves, options={"wrong": wrong})
    found = {r.promise: r.state for r in audit([row], [PROMISES[name] for name in names])}
    assert {name for name, state in found.items() if state == "broken"} == caught
    assert {name for name, state in found.items() if state == "kept"} == set(names) - caught
