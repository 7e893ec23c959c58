"""Schedules are pure functions of the step."""

import math
import pickle

import pytest

from aptt.compose import Cosine, Piecewise, Ramp, Steps


def test_ramp_is_the_brief_s_schedule_to_the_last_bit():
    ramp = Ramp(0.0, 0.3, over=10)
    for epoch in range(25):
        assert ramp(epoch) == 0.3 * min(1.0, epoch / 10)


def test_ramp_begins_later_and_goes_down():
    ramp = Ramp(2.0, 1.0, over=4, begin=10)
    assert [ramp(t) for t in (0, 10, 11, 14, 99)] == [2.0, 2.0, 1.75, 1.0, 1.0]


def test_cosine_is_half_a_cosine():
    cosine = Cosine(1.0, 0.0, over=8, begin=2)
    for t in range(2, 11):
        assert cosine(t) == pytest.approx((1 + math.cos(math.pi * (t - 2) / 8)) / 2, abs=1e-15)
    assert cosine(0) == 1.0
    assert cosine(50) == pytest.approx(0.0, abs=1e-15)


def test_steps_change_at_the_boundary():
    steps = Steps({0: 1.0, 3: 0.5, 6: 0.25})
    assert [steps(t) for t in range(8)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_piecewise_joins_its_points():
    line = Piecewise({0: 0.0, 4: 1.0, 8: -1.0})
    assert [line(t) for t in (0, 1, 4, 6, 8, 100)] == [0.0, 0.25, 1.0, 0.0, -1.0, -1.0]


@pytest.mark.parametrize(
    "schedule", [Ramp(0, 1, over=3), Cosine(0, 1, over=3), Steps({0: 1.0}), Piecewise({0: 1.0})]
)
def test_a_schedule_is_a_value(schedule):
    again = eval(repr(schedule))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    with pytest.raises(AttributeError):
        schedule.start = 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Ramp(0, 1, over=0), "over: got 0"),
        (lambda: Cosine(0, math.nan, over=1), "stop: got nan"),
        (lambda: Ramp(0, 1, over=1, begin=-1), "begin: got -1"),
        (lambda: Steps({3: 1.0}), r"steps \[3\], wanted whole ones, ascending from 0"),
        (lambda: Steps({0: 1.0, 1.5: 2.0}), "whole"),
        (lambda: Piecewise({0: 1.0, 5: 1.0, 2: 1.0}), "ascending"),
        (lambda: Piecewise({}), "ascending"),
        (lambda: Steps({0: math.inf}), "finite"),
        (lambda: Ramp(0, 1, over="1e3"), "over: got '1e3'"),  # as PyYAML reads 1e3
        (lambda: Ramp("0.0", 1, over=3), "start: got '0.0'"),
        (lambda: Cosine(0, 1, over=math.nan), "over: got nan"),
        (lambda: Ramp(0, 1, over=math.inf), "over: got inf"),
        (lambda: Steps(None), "values: got None, wanted a mapping"),
        (lambda: Steps([1, 2]), r"values: got \[1, 2\], wanted a mapping"),
        (lambda: Piecewise({"zero": 1.0}), "points: got {'zero': 1.0}, wanted a mapping"),
    ],
)
def test_nonsense_is_refused(make, said):
    with pytest.raises((TypeError, ValueError), match=said):
        make()
