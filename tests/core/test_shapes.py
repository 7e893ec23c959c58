"""Axes are found or asked for, and every error names the argument, what came, what was wanted."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aptt.core.axes import align_classes, align_elements, class_axis, split_axis
from aptt.core.checks import (
    check_binary,
    check_boxes,
    check_choice,
    check_classes,
    check_floating,
    check_number,
    check_positive,
    check_range,
    kept,
    taken_classes,
)
from aptt.core.shapes import check_shapes, check_vector


def _raises(naming, error=ValueError):
    return pytest.raises(error, match=re.escape(naming))


# ---------------------------------------------------------------------------- check_shapes


def test_a_wrong_shape_names_every_argument_with_what_came_and_what_was_wanted():
    with pytest.raises(ValueError) as error:  # noqa: PT011 the whole message is compared below
        check_shapes(
            logits=(torch.zeros(4, 5), "*N"),
            target=(torch.zeros(4, 3), "*N"),
            weight=(torch.zeros(4, 5), "*N"),
        )
    assert str(error.value) == (
        "logits: (4, 5) should be (*N); target: (4, 3) should be (*N); "
        "weight: (4, 5) should be (*N); all of one shape"
    )


@pytest.mark.parametrize(
    ("shape", "notation"),
    [
        ((), "*N"),
        ((2, 3, 4), "*N"),
        ((2, 4), "*N 4"),
        ((4,), "*N 4"),
        ((2, 3), "N C *S"),
        ((2, 3, 5, 7), "N C *S"),
        ((2, 5, 7, 3), "N *S C"),
        ((), ""),
    ],
)
def test_a_shape_fits_its_notation(shape, notation):
    check_shapes(x=(torch.zeros(shape), notation), y=(torch.zeros(shape), notation))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (((2, 4), "*N 4"), ((2, 3), "*N 4")),
        (((2, 3, 5), "N C *S"), ((2, 7), "N *S")),
        (((2, 3, 5), "N C *S"), ((2, 5, 1), "N *S")),
        (((2, 3), "N C"), ((2, 3, 1), "N C")),
        (((2,), "N C *S"), ((2,), "N C *S")),
        (((1, 4), "*N 4"), ((3, 4), "*N 4")),
    ],
)
def test_what_would_broadcast_or_lacks_an_axis_is_refused(first, second):
    with _raises("should be"):
        check_shapes(a=(torch.zeros(first[0]), first[1]), b=(torch.zeros(second[0]), second[1]))


# ---------------------------------------------------------------------------- classes


@pytest.mark.parametrize(
    ("logits", "target", "class_dim", "x", "y", "shape"),
    [
        ((5,), (), None, (1, 5), (1,), ()),
        ((7, 5), (7,), None, (7, 5), (7,), (7,)),
        ((7, 5, 2, 3), (7, 2, 3), None, (7, 5, 6), (7, 6), (7, 2, 3)),
        ((7, 3, 5), (7, 3), None, (21, 5), (21,), (7, 3)),
        ((7, 5, 5), (7, 5), -1, (35, 5), (35,), (7, 5)),
        ((7, 5, 5), (7, 5), 1, (7, 5, 5), (7, 5), (7, 5)),
        ((5, 7), (7,), 0, (1, 5, 7), (1, 7), (7,)),
        ((0, 5), (0,), None, (0, 5), (0,), (0,)),
    ],
)
def test_the_class_axis_is_found_from_the_shapes(logits, target, class_dim, x, y, shape):
    found = align_classes(torch.zeros(logits), torch.zeros(target, dtype=torch.int64), class_dim)
    assert found.logits.shape == x
    assert found.target.shape == y
    assert found.shape == shape
    assert not found.soft


def test_aligned_logits_and_targets_keep_their_pairs():
    target = torch.arange(5).repeat(4).view(2, 10)
    for dim in (1, -1):
        logits = torch.nn.functional.one_hot(target, 5).double().movedim(-1, dim)
        found = align_classes(logits, target, dim)
        assert torch.equal(found.logits.argmax(1), found.target)


def test_a_class_axis_stored_last_is_read_in_rows_without_a_copy():
    stored = torch.zeros(2, 4, 6, 5)  # channels last
    found = align_classes(stored.movedim(-1, 1), torch.zeros(2, 4, 6, dtype=torch.int64), None)
    assert found.logits.shape == (48, 5)
    assert found.logits.data_ptr() == stored.data_ptr()


@pytest.mark.parametrize(
    ("logits", "target", "dtype", "class_dim", "naming"),
    [
        ((5, 5, 5), (5, 5), torch.int64, None, "class_dim"),
        ((7, 5, 3), (7, 5, 3), torch.float32, None, "class_dim"),
        ((7, 5), (7,), torch.float32, None, "target"),
        ((7, 5), (6,), torch.int64, None, "target"),
        ((7, 5), (7, 1), torch.int64, None, "target"),
        ((7, 5), (1,), torch.int64, None, "target"),
        ((7, 5), (7, 5), torch.int64, None, "target"),
        ((7, 5), (7,), torch.bool, None, "target"),
        ((7, 5), (7,), torch.int64, 2, "class_dim"),
        ((7, 5), (7,), torch.int64, -3, "class_dim"),
        ((7, 0), (7,), torch.int64, None, "logits"),
        ((), (), torch.int64, None, "target"),
    ],
)
def test_what_does_not_fit_or_is_ambiguous_is_named(logits, target, dtype, class_dim, naming):
    with pytest.raises((ValueError, TypeError), match=f"^{naming}: "):
        align_classes(torch.zeros(logits), torch.zeros(target, dtype=dtype), class_dim)


def test_the_class_axis_of_a_matrix_is_the_last_and_of_more_must_be_said():
    assert class_axis(torch.zeros(2, 3), None) == 1
    assert class_axis(torch.zeros(2, 3, 4), -2) == 1
    with _raises("class_dim"):
        class_axis(torch.zeros(2, 3, 4), None)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_splitting_keeps_every_element_with_its_class(shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    t = torch.arange(torch.Size(shape).numel()).view(shape)
    for c in range(shape[axis]):
        picked = t.select(axis, c).flatten()
        assert torch.equal(split_axis(t, axis)[:, c].flatten(), picked)
        assert torch.equal(split_axis(t, axis, rows=True)[:, c].flatten(), picked)


def test_elements_are_flat_unless_an_option_differs_by_class_or_there_are_few():
    many = torch.ones(2, 3, 2**13)
    for aligned in align_elements(many, many, many, by_class=False, class_dim=None):
        assert aligned.shape == (3 * 2**14,)
    x, t, w = torch.randn(2, 3, 4), torch.ones(2, 3, 4), torch.rand(2, 3, 4)
    assert align_elements(x, t, w, by_class=False, class_dim=None)[0] is x
    for aligned in align_elements(x, t, w, by_class=True, class_dim=1):
        assert aligned.shape == (2, 3, 4)
    with _raises("class_dim"):
        align_elements(x, t, w, by_class=True, class_dim=None)
    with _raises("weight: (2, 3, 1)"):
        align_elements(x, t, w[..., :1], by_class=False, class_dim=None)


# ---------------------------------------------------------------------------- options and values


def test_options_are_held_to_their_ranges_and_names():
    check_number("gamma", 0.0)
    check_number("alpha", 1.0, 0.0, 1.0)
    check_choice("mode", "a", ("a", "b"))
    with _raises("gamma: got -0.5, wanted a number at least 0"):
        check_number("gamma", -0.5)
    with _raises("gamma: got inf, wanted a number at least 0, and finite"):
        check_number("gamma", float("inf"))
    with _raises("alpha: got nan, wanted a number between 0 and 1"):
        check_number("alpha", float("nan"), 0.0, 1.0)
    for wrong in ("0.5", None, [0.5]):
        with _raises(f"alpha: got {wrong!r}, wanted a number between 0 and 1", TypeError):
            check_number("alpha", wrong, 0.0, 1.0)
    with _raises("mode: got 'c', wanted 'a', 'b' or a callable"):
        check_choice("mode", "c", ("a", "b"), also="a callable")
    with _raises("x: got torch.int64, wanted a floating dtype", TypeError):
        check_floating(x=torch.zeros(2, dtype=torch.int64))
    with _raises("x: got torch.complex64", TypeError):
        check_floating(x=torch.zeros(2, dtype=torch.complex64))


def test_a_number_per_class_takes_the_dtype_of_the_computation():
    for dtype, wide in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        x = torch.zeros(4, 3, dtype=dtype)
        assert check_vector("weight", torch.ones(3), x).dtype == wide
    with _raises("weight: got shape (1,), wanted (3,), one per class"):
        check_vector("weight", torch.ones(1), torch.zeros(4, 3))


def test_a_class_out_of_range_is_shown_with_the_range():
    check_classes(torch.tensor([0, 4, -100]), 5, -100)
    check_classes(torch.empty(0, dtype=torch.int64), 5, None)
    with _raises("target: got class 5, wanted 0 to 4 or ignore_index=-100"):
        check_classes(torch.tensor([0, 5, -100]), 5, -100)
    with _raises("target: got class -100, wanted 0 to 4"):
        check_classes(torch.tensor([0, -100]), 5, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8])
def test_targets_of_0_and_1_are_told_from_all_others(dtype):
    good = torch.tensor([0, 1, 1, 0]).to(dtype)
    check_binary(good, None)
    check_binary(torch.tensor([0, 1, 7]).to(dtype), 7)
    with _raises("target: got 7"):
        check_binary(torch.tensor([0, 1, 7]).to(dtype), None)


@pytest.mark.parametrize("value", [0.5, 1e-6, -1.0, 2.0, float("nan"), float("inf")])
def test_one_soft_or_broken_label_in_many_is_found(value):
    target = torch.zeros(300_000)
    target[::7] = 1
    check_binary(target, None)
    target[123_456] = value
    with _raises("target: got"):
        check_binary(target, None)


def test_ranges_are_checked_among_what_counts():
    target = torch.tensor([0.5, 3.0, float("nan")])
    check_range(target, 0, 1, keep=torch.tensor([True, False, False]))
    with _raises("target: got 3.0, wanted numbers from 0 to 1"):
        check_range(target, 0, 1, keep=torch.tensor([True, True, False]))
    with _raises("target: got nan"):
        check_range(target, 0, 1, keep=torch.tensor([True, False, True]))


def test_values_are_not_looked_at_where_looking_is_not_free():
    bad = torch.full((4,), 9)
    check_classes(bad.to("meta"), 5, None)
    seen = torch.func.vmap(lambda t: (check_classes(t, 5, None), t + 1)[1])(bad.view(2, 2))
    assert torch.equal(seen, bad.view(2, 2) + 1)


def test_the_first_wrong_row_of_boxes_is_named():
    good = torch.tensor([[0.0, 0, 1, 1]] * 3)
    bad = good.clone()
    bad[1, 2] = float("inf")
    with _raises("pred_boxes: row 1"):
        check_boxes(bad, good, None, ordered=True)
    turned = good.clone()
    turned[2] = turned[2, [2, 3, 0, 1]]
    with _raises("target_boxes: row 2 is [1.0, 1.0, 0.0, 0.0], wanted sizes of at least 0"):
        check_boxes(good, turned, None, ordered=True)
    check_boxes(good, turned, torch.tensor([1.0, 1.0, 0.0]), ordered=True)
    check_boxes(turned, good, None, ordered=True)  # a prediction may be inside out


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_an_index_that_a_dtype_does_not_hold_is_not_taken_for_another(dtype):
    # torch compares in the dtype of the tensor: uint8 156 == -100
    target = torch.arange(90, 100).to(dtype)
    near = -100 if dtype == torch.uint8 else torch.iinfo(dtype).max + 1
    if dtype == torch.uint8:
        target += 60
        assert (target == 156).any()
    if dtype != torch.int64:
        assert kept(target, near).all()
    found, keep = taken_classes(target, 200, int(target[3]))
    assert found.dtype == torch.int64
    assert keep.tolist() == [i != 3 for i in range(10)]
    assert found.tolist() == [0 if i == 3 else int(target[i]) for i in range(10)]


def test_narrow_indices_are_compared_with_numbers_that_they_do_not_hold():
    check_classes(torch.tensor([3, -100, 7], dtype=torch.int8), 200, -100)
    with _raises("target: got class -3, wanted 0 to 199 or ignore_index=-100"):
        check_classes(torch.tensor([3, -100, -3], dtype=torch.int8), 200, -100)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_positive_number_is_above_0_and_finite(value):
    check_positive("scale", 1e-30)
    with _raises(f"scale: got {value}, wanted a positive number"):
        check_positive("scale", value)
    with _raises("scale: got '1', wanted a positive number", TypeError):
        check_positive("scale", "1")


def test_a_number_is_one_of_float32():
    held = torch.finfo(torch.float32)
    for most in (held.max, -held.max, np.float16(1), torch.tensor(1.0, dtype=torch.float16)):
        check_number("bias", most, -math.inf)
    check_positive("temperature", torch.tensor(2.0, requires_grad=True))  # which may be learned
    for much in (1e39, -1e39, 10**400):
        with _raises(f"bias: got {much}, wanted a number, finite in float32"):
            check_number("bias", much, -math.inf)
    check_number("label", 1e300, 0.0, 1e308)  # whose own end is another
    check_positive("scale", held.tiny)
    for small in (1e-38, 1e-300):
        for zero, wanted in ((False, "a positive"), (True, "0, or a positive")):
            with _raises(f"scale: got {small}, wanted {wanted} number that float32 holds in full"):
                check_positive("scale", small, zero=zero)
    for nothing in (0, 0.0, -0.0):
        check_positive("beta", nothing, zero=True)
    with _raises("beta: got False, wanted 0, or a positive number", TypeError):
        check_positive("beta", False, zero=True)


def test_what_is_no_tensor_is_named():
    with _raises("weight: got list, wanted a tensor", TypeError):
        check_shapes(logits=(torch.zeros(2), "N"), weight=([1.0, 1.0], "N"))
    with _raises("x: got float, wanted a tensor", TypeError):
        check_floating(x=1.0)
    with _raises("weight: got str, wanted a tensor, or a list or an array of numbers", TypeError):
        check_vector("weight", "balanced", torch.zeros(3, 2))
    with _raises("weight: got torch.complex64, wanted real numbers", TypeError):
        check_vector("weight", torch.ones(2, dtype=torch.complex64), torch.zeros(3, 2))


def test_shapes_that_should_be_one_are_set_side_by_side():
    words = "prediction: (4, 1) should be (*N); target: (4,) should be (*N); all of one shape"
    with _raises(words):
        check_shapes(prediction=(torch.zeros(4, 1), "*N"), target=(torch.zeros(4), "*N"))
    with _raises("b: (2, 3) should be (*N, 4)"):
        check_shapes(a=(torch.zeros(2, 3), "*N 4"), b=(torch.zeros(2, 3), "*N 4"))
