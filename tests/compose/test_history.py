"""What a history holds is drawn by the report as it is."""

import math
import re

import torch

from aptt.compose import History, Ramp, WeightedSum, curves_of
from aptt.report import curves, shares, svg


def test_a_history_is_drawn_in_the_report_s_style():
    mix, history = WeightedSum({"cls": 1.0, "box": Ramp(0.0, 5.0, over=3)}), History()
    for step in range(4):
        at = torch.ones(3, requires_grad=True)
        values = {"cls": at.sum() / (step + 1), "box": at.square().sum()}
        mix(values)
        history.note(step, mix, mix.grad_report(values, at=at))
        mix.step()
    for draw in (
        curves(curves_of(history.values), across="step"),
        curves(curves_of(history.weights), across="step"),
        shares(history.shares, across="step"),
    ):
        text = svg(draw, (4, 2))
        assert ">cls</text>" in text
        assert ">box</text>" in text
        assert {"var(--series-0)", "var(--series-1)"} <= set(
            re.findall(r"var\(--series-\d\)", text)
        )


def test_shares_add_up():
    drawn = []

    class Axes:
        def stackplot(self, xs, heights, **style):
            drawn.append((xs, heights, style["labels"]))

        def __getattr__(self, name):
            return lambda *args, **kwargs: None

    shares({"a": [(0, 0.25), (5, 1.0)], "b": [(0, 0.75), (5, 0.0)]}, across="step")(Axes())
    assert drawn == [([0, 5], [[0.25, 1.0], [0.75, 0.0]], ["a", "b"])]


def test_what_is_not_finite_is_not_drawn():
    line = {"a": [(0, 1.0), (1, math.nan), (2, 3.0)]}
    assert curves_of(line) == {"a": [([0, 2], [1.0, 3.0])]}
