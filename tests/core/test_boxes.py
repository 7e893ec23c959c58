"""The geometry of a pair of boxes, against closed forms, and by hand against autograd."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aptt.core.boxes import check_box_format, edges, overlap
from aptt.core.slopes import Slopes, pull_back


def _one(*numbers):
    return torch.tensor([numbers], dtype=torch.float64)


def _pairs(n=200, seed=0):
    """Boxes of all sorts: apart, within each other, inside out, lines and points."""
    g = torch.Generator().manual_seed(seed)
    t = torch.rand(n, 4, dtype=torch.float64, generator=g).sort(1).values[:, [0, 1, 2, 3]]
    x = 2 * torch.rand(n, 4, dtype=torch.float64, generator=g) - 0.5
    x[::7, 2:] = x[::7, :2]  # points
    x[1::7, 3] = x[1::7, 1]  # lines
    x[2::7] = t[2::7]  # equal
    x[3::7, :2] = t[3::7, :2]  # a corner in common
    return x, t


def test_the_measures_of_two_boxes_that_overlap():
    o = overlap(_one(0, 0, 2, 2), _one(1, 0, 3, 4), "xyxy")
    assert o.span[:, 0].tolist() == [3.0, 4.0]
    assert o.width[:, 0].tolist() == pytest.approx([2 / 3, 2 / 4])
    assert o.goal[:, 0].tolist() == pytest.approx([2 / 3, 4 / 4])
    assert o.common[:, 0].tolist() == pytest.approx([1 / 3, 2 / 4])
    assert o.flip[:, 0].tolist() == [0.0, 0.0]
    assert o.union.item() == pytest.approx((4 + 8 - 2) / 12)
    assert o.iou.item() == pytest.approx(2 / 10)


def test_the_measures_of_two_boxes_that_are_apart():
    o = overlap(_one(0, 0, 1, 1), _one(3, 0, 4, 1), "xyxy")
    assert o.common[:, 0].tolist() == [0.0, 1.0]
    assert o.union.item() == pytest.approx(2 / 4)
    assert o.iou.item() == 0.0


@pytest.mark.parametrize(
    ("x", "t", "span", "union", "both"),
    [
        pytest.param((0, 2), (1, 5), [5], 5, 1, id="segments"),
        pytest.param((0, 1), (3, 5), [5], 3, 0, id="segments apart"),
        pytest.param((0, 0, 0, 2, 2, 2), (1, 0, 0, 3, 4, 1), [3, 4, 2], 8 + 8 - 2, 2, id="cuboids"),
    ],
)
def test_the_measures_along_other_than_two_axes(x, t, span, union, both):
    o = overlap(_one(*x), _one(*t), "xyxy")
    assert o.span[:, 0].tolist() == span
    assert o.union.item() == pytest.approx(union / math.prod(span), rel=1e-15)
    assert o.iou.item() == pytest.approx(both / union, rel=1e-15)
    assert o.miss.item() == pytest.approx((union - both) / union, rel=1e-15)


def test_a_prediction_inside_out_has_no_width_and_says_how_far():
    o = overlap(_one(3, 0, 1, 1), _one(0, 0, 4, 1), "xyxy")
    assert o.width[0].item() == 0.0
    assert (o.flip / o.unit)[:, 0].tolist() == [-0.5, 0.0]
    assert o.iou.item() == 0.0


@pytest.mark.parametrize("box", [(2, 3, 2, 3), (2, 0, 2, 5), (0, 0, 1e-6, 1e-6), (0, 0, 1e6, 1e6)])
def test_equal_boxes_overlap_exactly_whatever_their_size(box):
    o = overlap(_one(*box), _one(*box), "xyxy")
    assert o.iou.item() == 1.0
    assert o.union.item() == 1.0


@pytest.mark.parametrize("box_format", ["xywh", "cxcywh"])
def test_the_formats_name_the_same_edges(box_format):
    boxes = _pairs()[1]
    low, high = boxes[:, :2], boxes[:, 2:]
    first = low if box_format == "xywh" else (low + high) / 2
    got = edges(torch.cat((first, high - low), 1), box_format)
    for mine, theirs in zip(got, edges(boxes, "xyxy"), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-15)


@given(st.integers(-60, 60))
def test_nothing_depends_on_the_unit(power):
    x, t = _pairs()
    for name in ("width", "goal", "common", "union", "iou"):
        here = getattr(overlap(x, t, "xyxy"), name)
        there = getattr(overlap(x * 2.0**power, t * 2.0**power, "xyxy"), name)
        assert torch.equal(here, there)


@pytest.mark.parametrize("box_format", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize(
    "slopes",
    [
        pytest.param(lambda o: (o.union, Slopes(spread=-o.union)), id="union"),
        pytest.param(lambda o: (o.width[0] + o.width[1], None), id="width"),
    ],
)
def test_what_is_pulled_back_is_the_gradient(box_format, slopes):
    x, t = _pairs()
    if box_format != "xyxy":
        x, t = (torch.cat((b[:, :2], b[:, 2:] - b[:, :2]), 1) for b in (x, t))
    up = torch.randn(len(x), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x.requires_grad_()
    o = overlap(x, t, box_format)
    value, by = slopes(o)
    value = value - (o.flip / o.unit).sum(0)  # a loss has the sum of the flips besides
    (wanted,) = torch.autograd.grad(value, x, up)
    with torch.no_grad():
        o = overlap(x, t, box_format)
        none = torch.zeros_like(o.iou)
        if by is None:  # a width shrinks as its span grows
            by = Slopes(area=none, common=none, width=torch.ones_like(o.width), span=-o.width)
        else:  # U = P + G - I
            by = by._replace(area=none + 1, common=none - 1)
        found = pull_back(o, up, by, box_format)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_measuring_leaves_the_boxes_as_they_are():
    x, t = _pairs()
    before = x.clone(), t.clone()
    for box_format in ("xyxy", "xywh", "cxcywh"):
        overlap(x, t, box_format)
    assert torch.equal(x, before[0])
    assert torch.equal(t, before[1])


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match=r"box_format: got 'yxyx', wanted 'xyxy', 'xywh' or"):
        check_box_format("yxyx")
