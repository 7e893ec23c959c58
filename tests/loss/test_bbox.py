"""Box losses: published values, properties of the whole family, and the field's known failures."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aptt.loss import (
    BoxIoULoss,
    CIoULoss,
    DIoULoss,
    EIoULoss,
    FocalLoss,
    GIoULoss,
    SIoULoss,
    box_iou_loss,
    ciou_loss,
    diou_loss,
    eiou_loss,
    giou_loss,
    siou_loss,
)

FAMILY = [box_iou_loss, giou_loss, diou_loss, ciou_loss, eiou_loss, siou_loss]
BY_DISTANCE = [giou_loss, diou_loss, ciou_loss, eiou_loss, siou_loss]


def _boxes(n, *, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    corners = 10 * torch.rand(n, 4, generator=g, dtype=torch.float64)
    size = 0.5 + 5 * torch.rand(n, 2, generator=g, dtype=torch.float64)
    return torch.cat([corners[:, :2], corners[:, :2] + size], 1).to(dtype)


def _one(*edges, dtype=torch.float32):
    return torch.tensor([edges], dtype=dtype)


def _gradient(loss_fn, x):
    x = x.clone().requires_grad_()
    loss_fn(x).sum().backward()
    return x.grad


def _published(name, p, t):
    """Each loss as its paper writes it, for proper boxes, in Python floats."""
    (x1, y1, x2, y2), (a1, b1, a2, b2) = p, t
    w, h, width, height = x2 - x1, y2 - y1, a2 - a1, b2 - b1
    common = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
    union = w * h + width * height - common
    cw, ch = max(x2, a2) - min(x1, a1), max(y2, b2) - min(y1, b1)
    dx, dy = (x1 + x2 - a1 - a2) / 2, (y1 + y2 - b1 - b2) / 2
    iou = common / union
    if name == "box_iou_loss":
        return 1 - iou
    if name == "giou_loss":
        return 1 - iou + (cw * ch - union) / (cw * ch)
    if name == "siou_loss":
        sigma = math.hypot(dx, dy)
        angle = math.asin(min(abs(dx), abs(dy)) / sigma)
        gamma = 2 - (1 - 2 * math.sin(angle - math.pi / 4) ** 2)
        distance = 2 - math.exp(-gamma * (dx / cw) ** 2) - math.exp(-gamma * (dy / ch) ** 2)
        shape = (1 - math.exp(-abs(w - width) / max(w, width))) ** 4
        shape += (1 - math.exp(-abs(h - height) / max(h, height))) ** 4
        return 1 - iou + (distance + shape) / 2
    diou = 1 - iou + (dx**2 + dy**2) / (cw**2 + ch**2)
    if name == "diou_loss":
        return diou
    if name == "eiou_loss":
        return diou + (w - width) ** 2 / cw**2 + (h - height) ** 2 / ch**2
    v = 4 / math.pi**2 * (math.atan(width / height) - math.atan(w / h)) ** 2
    return diou + v**2 / (1 - iou + v)


@pytest.mark.parametrize("loss_fn", FAMILY)
def test_the_published_value(loss_fn):
    pred, target = _boxes(200), _boxes(200, seed=1)
    expected = [
        _published(loss_fn.__name__, p, t)
        for p, t in zip(pred.tolist(), target.tolist(), strict=True)
    ]
    found = loss_fn(pred, target, reduction="none")
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("module", [GIoULoss, DIoULoss, CIoULoss, BoxIoULoss, EIoULoss, SIoULoss])
def test_the_samples_of_the_brief(module):
    pred_boxes, target_boxes = _boxes(8), _boxes(8, seed=1)
    loss = module()(pred_boxes, target_boxes)
    assert loss.shape == ()
    assert loss > module()(target_boxes, target_boxes) == 0


def test_the_combined_loss_of_the_brief():
    class CombinedLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.cls_loss = FocalLoss(alpha=0.25, gamma=2.0)
            self.box_loss = GIoULoss()

        def forward(self, pred_cls, pred_box, target_cls, target_box):
            loss_cls = self.cls_loss(pred_cls, target_cls)
            loss_box = self.box_loss(pred_box, target_box)
            return loss_cls + 5.0 * loss_box

    logits = torch.zeros(8, 3, dtype=torch.float64)
    boxes, target = _boxes(8), _boxes(8, seed=1)
    found = CombinedLoss()(logits, boxes, torch.zeros(8, 3), target)
    focal = 0.75 * 0.25 * math.log(2)
    torch.testing.assert_close(found, focal + 5 * giou_loss(boxes, target))


@pytest.mark.parametrize("loss_fn", FAMILY)
@pytest.mark.parametrize("box_format", ["xywh", "cxcywh"])
def test_formats_agree(box_format, loss_fn):
    pred, target = _boxes(50), _boxes(50, seed=1)

    def other(boxes):
        lo, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
        return torch.cat([lo if box_format == "xywh" else lo + size / 2, size], 1)

    expected = _gradient(lambda p: loss_fn(p, target), pred)
    found = _gradient(lambda p: loss_fn(other(p), other(target), box_format=box_format), pred)
    torch.testing.assert_close(found, expected)


def test_the_aspect_factor_is_held_constant():
    pred, target = _boxes(30), _boxes(30, seed=1)
    p = pred.clone().requires_grad_()
    w, h = (p[:, 2:] - p[:, :2]).unbind(1)
    width, height = (target[:, 2:] - target[:, :2]).unbind(1)
    v = (2 / math.pi * (torch.atan(width / height) - torch.atan(w / h))) ** 2
    share = (v / (box_iou_loss(p, target, reduction="none") + v)).detach()
    (share * v).sum().backward()
    found = _gradient(lambda x: ciou_loss(x, target, reduction="sum"), pred)
    without = _gradient(lambda x: diou_loss(x, target, reduction="sum"), pred)
    torch.testing.assert_close(found - without, p.grad, rtol=1e-8, atol=1e-12)


def test_the_gate_drops_the_aspect_term_below_one_half():
    target = _one(0, 0, 4, 4)
    near, far = _one(0, 0, 3, 4), _one(0, 0, 1, 4)
    assert ciou_loss(near, target, gate=True) == ciou_loss(near, target)
    assert ciou_loss(far, target, gate=True) == diou_loss(far, target) < ciou_loss(far, target)


# Properties.

_side = st.floats(-6, 6).map(lambda e: 10.0**e)
_box = st.tuples(st.floats(-3, 3), st.floats(-3, 3), _side, _side)


@settings(max_examples=150, deadline=None)
@given(_box, _box, st.sampled_from(FAMILY))
def test_any_pair_of_boxes_is_finite_with_a_bounded_gradient(p, t, loss_fn):
    scale = max(p[2], p[3], t[2], t[3])
    pred = torch.tensor([[p[0] * scale, p[1] * scale, p[2], p[3]]])
    target = torch.tensor([[t[0] * scale, t[1] * scale, t[2], t[3]]])
    value = loss_fn(pred, target, box_format="cxcywh")
    gradient = _gradient(lambda x: loss_fn(x, target, box_format="cxcywh"), pred)[0]
    assert 0 <= value <= 4.0001
    lo, hi = (torch.minimum, torch.maximum)
    edges = [(b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2) for b in (pred, target)]
    span = hi(edges[0][1], edges[1][1]) - lo(edges[0][0], edges[1][0])
    bound = 8.0 + (130 * span[0] / span[0].norm() if loss_fn is ciou_loss else 0)
    bound += 130 if loss_fn is siou_loss else 0
    assert (gradient.abs().view(2, 2) * span <= bound).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-6, 1e-3, 1e3, 1e6]), st.sampled_from(FAMILY))
def test_scale_does_not_matter(seed, scale, loss_fn):
    pred, target = (_boxes(4, seed=seed + k, dtype=torch.float32) for k in (0, 1))
    torch.testing.assert_close(
        loss_fn(pred * scale, target * scale), loss_fn(pred, target), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("side", [1e-6, 1e-4, 1e-3, 1.0, 640.0, 1e6])
@pytest.mark.parametrize("loss_fn", FAMILY)
def test_equal_boxes_cost_exactly_nothing(loss_fn, side):
    # every peer: 0.90 at side 1e-4; mmdetection's CIoU: NaN for 9 of 10 boxes at any size
    boxes = _boxes(500, dtype=torch.float32) * side
    assert (loss_fn(boxes, boxes, reduction="none") == 0).all()
    gradient = _gradient(lambda x: loss_fn(x, boxes, reduction="sum"), boxes)
    assert gradient.abs().max() * side <= 1e-5


@pytest.mark.parametrize("loss_fn", [giou_loss, diou_loss, ciou_loss, siou_loss])
def test_moving_away_never_pays(loss_fn):
    # mmdetection's default SIoU falls with distance: 0.676, 0.284, 0
    target = _one(0, 0, 4, 2, dtype=torch.float64)
    pred = _one(0, 0, 3, 3, dtype=torch.float64)
    away = torch.tensor([[0.8, 0.3, 0.8, 0.3]], dtype=torch.float64)
    steps = torch.cat([pred + s * away for s in torch.linspace(0, 60, 400).tolist()])
    values = loss_fn(steps, target.expand_as(steps), reduction="none")
    assert (values.diff() >= -1e-12).all()


@pytest.mark.parametrize("loss_fn", BY_DISTANCE)
def test_descent_brings_boxes_together(loss_fn):
    target = _boxes(16, seed=1)
    pred = _boxes(16).requires_grad_()
    start = loss_fn(pred, target).item()
    for _ in range(400):
        (g,) = torch.autograd.grad(loss_fn(pred, target, reduction="sum"), pred)
        pred = (pred - 0.5 * g).detach().requires_grad_()
    assert loss_fn(pred, target).item() < 0.5 * start


# Failures of peers, each of which passes here.


@pytest.mark.parametrize("loss_fn", FAMILY)
@pytest.mark.parametrize(
    ("pred", "target"),
    [
        ((5, 5, 5, 5), (0, 0, 10, 10)),  # a point: torchvision's CIoU NaN, ultralytics 1.27e6
        ((5, 0, 5, 10), (0, 0, 10, 10)),
        ((0, 5, 10, 5), (0, 0, 10, 10)),  # no height: torchvision's CIoU has a NaN gradient
        ((0, 0, 10, 10), (5, 5, 5, 5)),
        ((0, 0, 10, 0), (5, -5, 5, 5)),  # two lines that cross
        ((3, 3, 3, 3), (3, 3, 3, 3)),
        ((0, 0, 10, 0), (20, 0, 30, 0)),  # two lines in line
        ((10, 10, 0, 0), (0, 0, 10, 10)),
    ],
)
def test_degenerate_boxes_are_finite_with_a_bounded_gradient(pred, target, loss_fn):
    pred, target = _one(*map(float, pred)), _one(*map(float, target))
    assert loss_fn(pred, target).isfinite()
    gradient = _gradient(lambda x: loss_fn(x, target), pred)
    assert gradient.isfinite().all()
    assert gradient.abs().max() * 10 <= 140


@pytest.mark.parametrize("loss_fn", FAMILY)
def test_a_box_inside_out_is_turned_back(loss_fn):
    # torchvision, mmdetection, ultralytics: [10, 10, 0, 0] costs 0 against [0, 0, 10, 10]
    pred, target = _one(10.0, 10.0, 0.0, 0.0), _one(0.0, 0.0, 10.0, 10.0)
    assert loss_fn(pred, target) > 1
    gradient = _gradient(lambda x: loss_fn(x, target), pred)[0]
    assert (gradient[:2] > 0).all()
    assert (gradient[2:] < 0).all()


@pytest.mark.parametrize("loss_fn", FAMILY)
def test_a_line_in_its_target_grows(loss_fn):
    # torchvision's strict overlap test: no gradient
    gradient = _gradient(
        lambda x: loss_fn(x, _one(0.0, 0.0, 10.0, 10.0)), _one(5.0, 0.0, 5.0, 10.0)
    )
    assert gradient[0, 0] > 0
    assert gradient[0, 2] < 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss_fn", FAMILY)
def test_large_boxes_in_half_precision(loss_fn, dtype):
    # mmdetection, ultralytics, fvcore in fp16: NaN or -inf from 182 pixels
    pred, target = _one(0, 0, 640, 640).to(dtype), _one(64, 64, 640, 640).to(dtype)
    loss = loss_fn(pred, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_fn(pred.double(), target.double()).float())
    assert _gradient(lambda x: loss_fn(x, target), pred).isfinite().all()


def test_weight_0_removes_a_broken_box():
    # mmdetection: (pred * 0).sum() is NaN for an infinite prediction
    pred, target = _boxes(4), _boxes(4, seed=1)
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=torch.float64)
    keep = weight > 0
    expected = giou_loss(pred[keep], target[keep], weight=weight[keep])
    pred[1], target[1] = torch.inf, torch.nan
    torch.testing.assert_close(giou_loss(pred, target, weight=weight), expected)
    gradient = _gradient(lambda x: giou_loss(x, target, weight=weight), pred)
    assert (gradient[1] == 0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (_one(0, 0, torch.nan, 1), "pred_boxes: row 2 .*finite"),
        (None, "target_boxes: row 1 .*at least 0"),
    ],
)
def test_validate_names_the_row(row, words):
    # any bad row poisons every peer's mean, and none says which
    pred, target = _boxes(4, dtype=torch.float32), _boxes(4, seed=1, dtype=torch.float32)
    if row is None:
        target[1] = target[1].flip(0)
    else:
        pred[2] = row
    with pytest.raises(ValueError, match=words):
        giou_loss(pred, target, validate=True)


@pytest.mark.parametrize("loss_fn", FAMILY)
def test_no_boxes_are_a_zero_on_the_graph(loss_fn):
    x = torch.zeros(0, 4, requires_grad=True)
    loss = loss_fn(x, torch.zeros(0, 4))
    loss.backward()
    assert loss == 0
    assert x.grad.shape == (0, 4)


@pytest.mark.parametrize(
    ("pred", "target", "options", "words"),
    [
        ((4, 4), (3, 4), {}, r"pred_boxes: \(4, 4\).*target_boxes: \(3, 4\)"),
        ((4, 4), (1, 4), {}, "target_boxes"),
        ((4, 5), (4, 5), {}, "pred_boxes"),
        ((4, 4), (4, 4), {"box_format": "xyhw"}, "box_format.*'xyhw'"),
        ((4, 4), (4, 4), {"reduction": "avg"}, "reduction.*'avg'"),
        ((4, 4), (4, 4), {"weight": torch.ones(3)}, "weight"),
    ],
)
def test_wrong_calls_are_told_apart(pred, target, options, words):
    with pytest.raises(ValueError, match=words):
        giou_loss(torch.rand(pred), torch.rand(target), **options)
