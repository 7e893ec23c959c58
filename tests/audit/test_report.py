"""What the audit says of what it found, and that nothing passes by being skipped."""

import json
from dataclasses import replace

import pytest
import torch

from aptt.audit import PROMISES, SPECS, audit, promises, table, to_json
from aptt.audit.figures import about, exact, finite, same, within_roundings

RMSE = SPECS["rmse_loss"]


def _off_by_a_factor(prediction, target, *, weight=None, pool="batch", reduction="mean"):
    factor = 2 if reduction == "sum" else 1
    return factor * RMSE.function(prediction, target, weight=weight, pool=pool, reduction=reduction)


BROKEN = replace(RMSE, name="broken", function=_off_by_a_factor)
CHOSEN = [promises.none_sums_to_sum, promises.frozen_factors_are_constants]


@pytest.fixture(scope="module")
def records():
    return list(audit([RMSE, BROKEN], CHOSEN))


def test_every_promise_of_every_row_has_a_record(records):
    assert [(r.loss, r.promise, r.state) for r in records] == [
        ("rmse_loss", "none_sums_to_sum", "kept"),
        ("rmse_loss", "frozen_factors_are_constants", "does not apply"),
        ("broken", "none_sums_to_sum", "broken"),
        ("broken", "frozen_factors_are_constants", "does not apply"),
    ]


def test_what_is_kept_names_its_cases_and_what_is_broken_its_figures(records):
    kept, _, broken, _ = records
    assert kept.cases == list(RMSE.cases)
    assert "sum of 'none' against 'sum': got" in broken.why
    assert "wanted" in broken.why


def test_the_table_marks_each_and_gives_the_reasons(records):
    text = table(records)
    assert text.splitlines()[:2] == ["   a  rmse_loss", "   b  broken"]
    row = next(line for line in text.splitlines() if line.startswith("none_sums_to_sum"))
    assert row.split() == ["none_sums_to_sum", "+", "BROKEN"]
    assert "frozen_factors_are_constants: no factor is held constant" in text
    assert text.endswith("1 kept, 1 broken")


def test_the_json_holds_the_same(records):
    back = json.loads(to_json(records))
    assert [r["state"] for r in back] == [r.state for r in records]
    assert back[2]["why"] == records[2].why


def test_a_promise_cannot_be_called_where_the_row_says_it_does_not_apply():
    with pytest.raises(ValueError, match="does not apply to rmse_loss: no factor is held"):
        promises.frozen_factors_are_constants(RMSE)


def test_a_row_that_lacks_what_a_promise_needs_is_told():
    bare = replace(RMSE, hide=None, perfect=None)
    for promise in (promises.ignoring_is_removing, promises.perfect_is_minimal):
        with pytest.raises(AssertionError, match=r"the row gives no '\w+'; give it, or say"):
            promise(bare)


def test_a_promise_that_no_case_is_left_for_is_not_kept():
    excused = {
        name: replace(case, exempt={"autocast": "said so"}) for name, case in RMSE.cases.items()
    }
    with pytest.raises(AssertionError, match="no case to check"):
        promises.autocast(replace(RMSE, cases=excused))


def test_a_case_left_out_is_named_with_its_reason():
    held = promises.perfect_is_minimal(SPECS["cross_entropy"])
    assert "softcap keeps the logits away" in held.left_out["capped, adjusted"]
    assert "capped, adjusted" not in held.cases


def test_every_promise_says_what_it_promises():
    for promise in PROMISES.values():
        assert promise.about.endswith(".")
        assert getattr(promises, promise.name) is promise
    assert set(promises.__all__) == set(PROMISES)


# ---------------------------------------------------------------------------- the figures


def test_a_difference_is_shown_where_it_is_largest():
    got, want = torch.tensor([[1.0, 2.0], [3.0, 4.5]]), torch.tensor([[1.0, 2.1], [3.0, 4.0]])
    with pytest.raises(AssertionError, match=r"^x: got 4.5, wanted 4 at \[1, 1\] .*2 of 4 wrong"):
        same(got, want, "x")


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (torch.tensor([float("nan")]), torch.tensor([1.0])),
        (torch.tensor([1.0]), torch.tensor([float("nan")])),
        (torch.tensor([float("nan")]), torch.tensor([float("nan")])),
        (torch.tensor([float("inf")]), torch.tensor([1.0])),
        (torch.tensor([1.0]), torch.tensor([float("inf")])),
        (torch.tensor([1.0, 1.0]), torch.tensor([1.0])),
        (torch.tensor([1e-300], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)),
    ],
)
def test_nan_infinity_and_another_shape_are_never_the_same(got, want):
    with pytest.raises(AssertionError):
        same(got, want, "x", rtol=1.0)


def test_equal_is_the_same_to_the_last_bit():
    t = torch.tensor([1.0, -float("inf"), 0.0])
    exact(t, t.clone(), "x")
    exact(torch.zeros(0), 0.0, "x")
    with pytest.raises(AssertionError, match=r"off by 1.2e-07"):
        exact(torch.tensor(1.0), torch.tensor(1 + 2**-23), "x")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_two_roundings_are_allowed_and_three_are_not(dtype):
    truth = torch.full((3,), 1.75, dtype=torch.float64)
    step = torch.finfo(dtype).eps
    within_roundings((truth + step).to(dtype), truth, "x")
    with pytest.raises(AssertionError):
        within_roundings((truth + 2 * step).to(dtype), truth, "x")


def test_what_is_not_finite_is_counted():
    with pytest.raises(AssertionError, match=r"x: 2 of 3 not finite, the first at \[1\]"):
        finite(torch.tensor([1.0, float("nan"), float("inf")]), "x")


def test_an_error_in_a_check_says_what_was_looked_at():
    with (
        pytest.raises(AssertionError, match=r"^the case: RuntimeError: broken$"),
        about("the case"),
    ):
        raise RuntimeError("broken\nand more")
