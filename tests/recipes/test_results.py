from types import SimpleNamespace

import pytest

from aptt.cli.document import to_json
from aptt.recipes.results import Study
from aptt.recipes.training import Check, Run


def run(loss, seed, after, *, done=10):
    checks = [Check(0, {"accuracy": 0.1}), Check(done, {"accuracy": after})]
    return Run(loss, seed, 10, None, [1.0] * done, checks, seconds=2.0)


def study(*runs):
    return Study(SimpleNamespace(name="task", scores={"accuracy": "the share"}), list(runs))


def test_a_row_holds_mean_and_spread():
    rows = study(run("a", 0, 0.7), run("b", 0, 0.5), run("a", 1, 0.8), run("b", 1, 0.6)).rows()
    assert rows == [
        ["a", "0.100 → 0.750\n[0.700, 0.800]", "2.0"],
        ["b", "0.100 → 0.550\n[0.500, 0.600]", "2.0"],
    ]


def test_one_seed_decides_nothing():
    (verdict,) = study(run("a", 0, 0.7), run("b", 0, 0.9)).verdict()
    assert "From one seed nothing follows" in verdict
    assert "aptt compare task" in verdict


def test_one_loss_has_nothing_to_be_compared_with():
    assert study(run("a", 0, 0.7), run("a", 1, 0.8)).verdict() == []


@pytest.mark.parametrize(
    ("second", "reading"),
    [
        ((0.8, 0.9), "+0.150 on average, from +0.100 to +0.200; higher with each of 2 seeds"),
        ((0.6, 0.5), "-0.150 on average, from -0.200 to -0.100; lower with each of 2 seeds"),
        ((0.8, 0.6), "+0.000 on average, from -0.100 to +0.100; 2 seeds do not tell them apart"),
    ],
)
def test_losses_are_compared_seed_by_seed(second, reading):
    runs = [run("a", seed, 0.7) for seed in (0, 1)]
    runs += [run("b", seed, after) for seed, after in enumerate(second)]
    (verdict,) = study(*runs).verdict()
    assert verdict.startswith("b against a, accuracy: ")
    assert reading in verdict.replace("-0.000", "+0.000")


def test_a_stopped_run_is_told_and_left_out_of_the_mean():
    stopped = study(run("a", 0, 0.7), run("a", 1, 0.2, done=3))
    assert stopped.rows() == [["a", "0.100 → 0.700", "2.0"]]
    assert "a, seed 1: stopped at step 3 of 10." in stopped.notes()


def test_a_stopped_run_is_shown_if_there_is_no_other():
    assert study(run("a", 0, 0.2, done=3)).rows() == [["a", "0.100 → 0.200", "2.0"]]


def test_stopped_runs_are_not_compared():
    runs = [run("a", 0, 0.7), run("b", 0, 0.8), run("a", 1, 0.7), run("b", 1, 0.9, done=3)]
    assert study(*runs).verdict() == ["b against a: too few finished runs to compare."]


def test_a_loss_that_became_nan_is_still_json():
    broken = run("a", 0, 0.1)
    broken.values[3] = float("nan")
    document = study(broken).to_json()
    assert document["runs"][0]["values"][2:5] == [1.0, None, 1.0]
    assert '"finished": true' in to_json(document)
