"""Curves: value and gradient along a variable are those of the loss, and every loss has one."""

import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

import aptt.loss
from aptt.cli import main
from aptt.cli.catalogue import entries, find
from aptt.cli.curve import curve_of, rows_of
from aptt.report import Probe, plot, probe_of, sparkline, svg, trace
from aptt.report.variables import probes

LOSSES = [entry for entry in entries() if rows_of(entry)]
HELD = {"ia_bce_loss"}  # its target moves with the prediction, and has no slope by definition


@pytest.mark.parametrize("entry", LOSSES, ids=lambda entry: entry.name)
def test_every_loss_has_a_curve_that_its_gradient_fits(entry):
    function, probe = curve_of(entry)
    curve = trace(function, probe)
    assert all(map(math.isfinite, [*curve.values, *curve.slopes]))
    assert len(set(curve.values)) > 5
    # the value rises by what the gradient says, steps over a kink apart
    off = 0
    for i in range(1, len(curve.at) - 1):
        rise = (curve.values[i + 1] - curve.values[i - 1]) / (curve.at[i + 1] - curve.at[i - 1])
        near = curve.slopes[i - 1 : i + 2]
        room = 0.02 * max(map(abs, curve.slopes)) + max(near) - min(near)
        off += not min(near) - room <= rise <= max(near) + room
    assert (off > 4) == (entry.name in HELD)


def test_the_curve_is_that_of_the_formula():
    curve = trace(aptt.loss.cross_entropy, points=9)
    for x, value, slope in zip(curve.at, curve.values, curve.slopes, strict=True):
        p = math.exp(x) / (math.exp(x) + 2)
        assert value == pytest.approx(-math.log(p), rel=1e-12)
        assert slope == pytest.approx(p - 1, rel=1e-12)


def test_a_module_and_a_stranger_are_drawn_too():
    assert trace(aptt.loss.FocalLoss(gamma=0.0, alpha=None), points=5).values == pytest.approx(
        trace(aptt.loss.cross_entropy, points=5).values
    )
    probe = Probe("x", -1, 1, lambda x: {"input": x.view(1), "target": torch.zeros(1).double()})
    assert trace(F.mse_loss, probe, points=2).values == [0.25, 0.25]
    with pytest.raises(ValueError, match="no variable is known"):
        trace(F.mse_loss)
    assert probe_of(F.mse_loss) is None


def test_every_variable_makes_float_tensors_of_it():
    for probe in probes():
        x = torch.tensor(probe.high, dtype=torch.float64, requires_grad=True)
        prediction = next(iter(probe.inputs(x).values()))
        prediction = prediction[0] if isinstance(prediction, list) else prediction
        prediction = prediction["hm"] if isinstance(prediction, dict) else prediction
        if "pred_boxes" in probe.inputs(x):
            prediction = probe.inputs(x)["pred_boxes"]
        assert prediction.dtype == torch.float64
        assert prediction.requires_grad
        assert probe.points == len(probe.at())
        assert probe.low < min(probe.at()) < max(probe.at()) < probe.high


def test_a_picture_is_written_in_both_forms(tmp_path):
    made = plot(aptt.loss.focal_loss, vary={"gamma": [0.0, 2.0]}, against=aptt.loss.cross_entropy)
    assert list(made.curves) == ["gamma=0.0", "gamma=2.0", "cross_entropy"]
    made.save(tmp_path / "a.png")
    made.save(tmp_path / "a.svg")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "a.svg").read_text()
    assert "#2f6fb5" in text
    assert "var(" not in text
    assert "var(--series-2)" in made.svg()
    with pytest.raises(ValueError, match=r"path: got 'a.gif', wanted a name with .svg or .png"):
        made.save(tmp_path / "a.gif")
    with pytest.raises(ValueError, match="vary: got 40 curves, wanted at most 32"):
        plot(aptt.loss.focal_loss, vary={"gamma": range(8), "alpha": [0.1] * 5})


def test_several_options_give_a_curve_for_each_combination():
    made = plot(aptt.loss.focal_loss, vary={"gamma": [0, 2], "alpha": [0.1, 0.9]})
    assert list(made.curves) == [f"gamma={g}, alpha={a}" for g in (0, 2) for a in (0.1, 0.9)]
    alone = trace(aptt.loss.focal_loss, gamma=2, alpha=0.9)
    assert made.curves["gamma=2, alpha=0.9"] == alone


def drawn(made, which):
    """The axes of a panel, drawn."""
    kept = []

    def draw(axes):
        made.panels()[which](axes)
        kept.append(axes)

    svg(draw, (4, 3))
    return kept[0]


def test_curves_that_coincide_are_all_seen_and_named():
    losses = [aptt.loss.diou_loss, aptt.loss.ciou_loss]
    made = plot(aptt.loss.giou_loss, against=losses)
    lines = drawn(made, 0).get_lines()
    assert [line.get_label() for line in lines] == [
        "giou_loss",
        "diou_loss",
        "ciou_loss = diou_loss",
    ]
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--"]
    assert "ciou_loss = diou_loss" in made.svg()


def test_many_curves_differ_in_colour_or_dashes():
    made = plot(aptt.loss.focal_loss, vary={"gamma": range(20)})
    lines = drawn(made, 0).get_lines()
    assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}) == 20


def test_a_picture_names_its_loss_and_a_constant_looks_like_one():
    made = plot(aptt.loss.si_sdr_loss)
    assert ">si_sdr_loss<" in made.svg()
    low, high = drawn(made, 1).get_ylim()
    assert high - low > 0.1
    assert "e-" not in made.svg().partition(">gradient<")[2]


def test_the_curve_of_a_composite_has_a_variable_that_means_something():
    for name in ("detection_loss", "permutation_invariant_loss", "centernet_loss"):
        _, probe = curve_of(find(name))
        assert "wrong" not in probe.across
    values = trace(aptt.loss.detection_loss).values
    middle = len(values) // 2
    assert values[:middle] == sorted(values[:middle], reverse=True)
    assert values[middle + 1 :] == sorted(values[middle + 1 :])
    falling = trace(aptt.loss.permutation_invariant_loss).values
    assert falling == sorted(falling, reverse=True)


def test_the_command_draws_and_says_where(tmp_path, capsys):
    out = tmp_path / "focal.svg"
    argv = ["plot", "focal", "--vary", "gamma=0,2", "--vary", "alpha=0.1,0.9"]
    assert main([*argv, "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    assert "gamma=2, alpha=0.9" in out.read_text()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["focl"], "did you mean 'focal_loss'"),
        (["focal", "--vary", "gamma"], "wanted OPTION=A,B,..."),
        (["focal", "--vary", "gamma=-1"], "wanted a number at least 0"),
        (["focal", "--vary", "gamma=x"], "gamma: got 'x', wanted a number at least 0"),
        (["focal", "--vary", "gama=1"], "unknown option 'gama'; did you mean 'gamma'?"),
        (["focal", "--against", "giou"], "it is not measured along 'logit of the right answer"),
        (["focal", "--out", "focal.gif"], "--out: got 'focal.gif', wanted a name with .png or .s"),
        (["focal", "--out", "no/focal.png"], "--out: there is no folder 'no'"),
        (["focal", "--vary", "gamma=1", "--vary", "gamma=2"], "--vary: got 'gamma' twice"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path, monkeypatch, capsys, argv, said):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", *argv]) == 2
    assert said in capsys.readouterr().err


def test_show_draws_in_the_terminal_without_matplotlib():
    code = """
import sys
sys.modules["matplotlib"] = None
from aptt.cli import main
sys.exit(main(["show", "giou"]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if "▁" in line]
    assert [line.split()[0] for line in lines] == ["loss", "gradient"]


def test_a_sparkline_leaves_blank_what_is_not_finite():
    assert sparkline([0.0, math.nan, 7.0]) == "▁ █"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([-1.0, -0.9999]) == "▁▁"
    assert sparkline([]) == ""


def test_a_helper_that_is_no_loss_has_no_curve():
    entry = find("focal")
    helper = entry.__class__("rows_of", None, entry.file, (), entry.family, entry.doc)
    assert rows_of(helper) == []
