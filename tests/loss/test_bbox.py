"""Box losses: published values, properties of the whole family, and the field's known failures."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aptt.audit.ways import in_blocks, in_one, plainly
from aptt.loss import (
    BoxIoULoss,
    CIoULoss,
    DIoULoss,
    EIoULoss,
    FocalLoss,
    GIoULoss,
    ProbIoULoss,
    SIoULoss,
    box_iou_loss,
    box_l1_loss,
    ciou_loss,
    diou_loss,
    eiou_loss,
    giou_loss,
    probiou_loss,
    siou_loss,
)
from aptt.loss.bbox.l1 import _FORMULA as _L1

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


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("loss_fn", FAMILY)
def test_a_scale_whose_square_underflows_does_not_matter(loss_fn, way):
    pred, target = _boxes(20, dtype=torch.float32), _boxes(20, seed=1, dtype=torch.float32)
    with way():
        small, wanted = (
            loss_fn(pred * scale, target * scale, reduction="none") for scale in (2.0**-90, 1.0)
        )
    torch.testing.assert_close(small, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("side", [1e-6, 1e-4, 1e-3, 1.0, 640.0, 1e6])
@pytest.mark.parametrize("loss_fn", FAMILY)
def test_equal_boxes_cost_exactly_nothing(loss_fn, side):
    # every peer: 0.90 at side 1e-4; NaN from the CIoU of mmdetection for 9 of 10 boxes of any size,
    # and from those of YOLOv6 and wiou
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
    for _ in range(800):
        (g,) = torch.autograd.grad(loss_fn(pred, target, reduction="sum"), pred)
        pred = (pred - 0.25 * g).detach().requires_grad_()
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


def test_sizes_taken_for_corners_never_gain():
    # torchvision, mmdetection, ultralytics: -0.067 for an xywh box read as xyxy
    pred, target = _one(50.0, 50.0, 20.0, 10.0), _one(48.0, 52.0, 22.0, 9.0)
    for loss_fn in FAMILY:
        assert loss_fn(pred, target, reduction="none") > 1
        with pytest.raises(ValueError, match=r"target_boxes: row 0 .*box_format='xywh'"):
            loss_fn(pred, target)


def test_half_types_lose_what_their_coordinates_lose_and_no_more():
    # any peer in bfloat16: 630 to 632 pixels are rounded before the loss sees them
    pred, target = _one(0, 0, 630.0, 600.0).bfloat16(), _one(0, 0, 632.0, 600.0).bfloat16()
    for loss_fn in FAMILY:
        found, exact = loss_fn(pred, target), loss_fn(pred.double(), target.double())
        torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss_fn", BY_DISTANCE)
def test_a_coordinate_whose_target_is_0_has_a_gradient(loss_fn):
    # effdet masks where the target is 0: there a wrong coordinate never learns
    gradient = _gradient(lambda x: loss_fn(x, _one(0.0, 0.0, 4.0, 4.0)), _one(1.0, 2.0, 4.0, 5.0))
    assert (gradient[0, :2] > 0).all()


def test_weighing_by_quality_divides_by_the_boxes_that_count():
    pred, target = _boxes(6), _boxes(6, seed=1)
    weight = torch.tensor([0.0, 0.25, 0.5, 1.0, 0.0, 0.75], dtype=torch.float64)
    for loss_fn in FAMILY:
        total = (loss_fn(pred, target, reduction="none") * weight).sum()
        found = loss_fn(pred, target, weight=weight, normalize="positives")
        torch.testing.assert_close(found, total / 4)
        torch.testing.assert_close(loss_fn(pred, target, weight=weight), total / 2.5)
        x = pred.clone().requires_grad_()
        nothing = loss_fn(x, target, weight=torch.zeros(6), normalize="positives")
        nothing.backward()
        assert nothing == 0
        assert (x.grad == 0).all()


def test_a_mismatch_says_how_to_pair():
    # D-FINE takes the diagonal of all pairs, rf-detr ran out of memory with it
    with pytest.raises(ValueError, match=r"\(5, 4\).*\(3, 4\).*row by row: pair them first"):
        giou_loss(torch.rand(5, 4), torch.rand(3, 4))


# Powers of IoU and penalties.


@pytest.mark.parametrize("power", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("loss_fn", FAMILY)
def test_the_power_of_each_term(loss_fn, power):
    pred, target = _boxes(200), _boxes(200, seed=1)
    expected = []
    for p, t in zip(pred.tolist(), target.tolist(), strict=True):
        iou = 1 - _published("box_iou_loss", p, t)
        diou = _published("diou_loss", p, t) - (1 - iou)
        terms = {"box_iou_loss": [], "diou_loss": [diou]}
        cost = _published(loss_fn.__name__, p, t) - (1 - iou)
        terms |= {"giou_loss": [cost], "siou_loss": [cost], "ciou_loss": [diou, cost - diou]}
        if loss_fn is eiou_loss:
            edges = [(min(p[i], t[i]), max(p[i + 2], t[i + 2])) for i in (0, 1)]
            terms["eiou_loss"] = [diou] + [
                ((p[i + 2] - p[i] - t[i + 2] + t[i]) / (hi - lo)) ** 2
                for i, (lo, hi) in enumerate(edges)
            ]
        penalties = sum(max(term, 0) ** power for term in terms[loss_fn.__name__])
        expected.append(1 - max(iou, 0) ** power + penalties)
    found = loss_fn(pred, target, power=power, reduction="none")
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_kinds_of_the_overlap_alone():
    """Boxes of 2 by 2 that share 1 of 3 halves."""
    boxes = torch.tensor([[0.0, 0, 2, 2]]).double(), torch.tensor([[1.0, 0, 3, 2]]).double()
    for kind, wanted in (("linear", 2 / 3), ("square", 8 / 9), ("log", math.log(3))):
        for loss in (box_iou_loss(*boxes, kind=kind), BoxIoULoss(kind=kind)(*boxes)):
            assert loss.item() == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("loss_fn", FAMILY)
def test_powers_leave_equal_boxes_free_and_boxes_apart_finite(loss_fn):
    boxes = _boxes(50, dtype=torch.float32)
    assert (loss_fn(boxes, boxes, power=3.0, reduction="none") == 0).all()
    far = boxes + 100
    gradient = _gradient(lambda x: loss_fn(x, boxes, power=3.0, reduction="sum"), far)
    assert gradient.isfinite().all()
    assert loss_fn(far, boxes, power=3.0) >= 1


# Rotated boxes.


def _turned(n, *, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    centre = 4 * torch.rand(n, 2, generator=g, dtype=torch.float64)
    size = 0.5 + 5 * torch.rand(n, 2, generator=g, dtype=torch.float64)
    angle = 6 * torch.rand(n, 1, generator=g, dtype=torch.float64) - 3
    return torch.cat((centre, size, angle), 1).to(dtype)


def _bhattacharyya(p, t):
    """By matrices, as the definition of the distance of two Gaussians has it."""

    def covariance(box):
        c, s = math.cos(box[4].item()), math.sin(box[4].item())
        turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        return turn @ torch.diag(box[2:4] ** 2 / 12) @ turn.T

    a, b, gap = covariance(p), covariance(t), p[:2] - t[:2]
    mean = (a + b) / 2
    shape = mean.det() / (a.det() * b.det()).sqrt()
    return gap @ torch.linalg.solve(mean, gap) / 8 + shape.log() / 2


def test_rotated_boxes_by_matrices():
    pred, target = _turned(100), _turned(100, seed=1)
    expected = torch.stack([_bhattacharyya(p, t) for p, t in zip(pred, target, strict=True)])
    found = probiou_loss(pred, target, distance="bhattacharyya", reduction="none")
    torch.testing.assert_close(found, expected)
    found = probiou_loss(pred, target, reduction="none")
    torch.testing.assert_close(found, (1 - torch.exp(-expected)).sqrt())


@pytest.mark.parametrize("square", [0, 1])
def test_squares_have_the_slope_of_boxes_that_nearly_are(square):
    """Where wide turns into tall, an absolute value is 0 and its slope is not."""
    pair = [_turned(20), _turned(20, seed=1)]
    pair[square][:, 2] = pair[square][:, 3]
    x = pair[0].clone().requires_grad_()
    loss = sum(_bhattacharyya(p, t) for p, t in zip(x, pair[1], strict=True))
    (expected,) = torch.autograd.grad(loss, x)
    z = pair[0].clone().requires_grad_()
    loss = probiou_loss(z, pair[1], distance="bhattacharyya", reduction="sum")
    (found,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(found[:, :4], expected[:, :4])
    assert square or (found[:, 4] == 0).all()


@pytest.mark.parametrize("side", [1e-6, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("distance", ["hellinger", "bhattacharyya"])
def test_equal_rotated_boxes_cost_exactly_nothing(distance, side):
    # ultralytics: 4.7e-4 in float32, and a gradient
    boxes = _turned(300, dtype=torch.float32)
    boxes[:5, 2:4] = boxes[:5, 2:3]  # squares
    boxes[5:8, 3] = 0  # lines
    boxes[8:10, 2:4] = 0  # points
    boxes[:, :4] *= side
    options = {"distance": distance, "angle": 0.5}
    assert (probiou_loss(boxes, boxes, reduction="none", **options) == 0).all()
    gradient = _gradient(lambda x: probiou_loss(x, boxes, reduction="sum", **options), boxes)
    assert (gradient == 0).all()


def test_a_box_may_be_written_in_four_ways():
    boxes = _turned(50)
    for turns in range(4):
        again = boxes.clone()
        again[:, 4] += turns * math.pi / 2
        if turns % 2:
            again[:, 2:4] = again[:, 2:4].flip(1)
        assert probiou_loss(again, boxes, angle=1.0, reduction="none").max() < 1e-7


def test_a_square_turns_back_if_asked_to():
    # ultralytics before 8.4, and the paper: a square at 45 degrees costs 0, with a gradient of 0
    pred = torch.tensor([[0.0, 0.0, 10.0, 10.0, 0.6]])
    target = torch.tensor([[0.0, 0.0, 10.0, 10.0, 0.0]])
    assert probiou_loss(pred, target) == 0
    seen = probiou_loss(pred, target, angle=0.5)
    assert seen.item() == pytest.approx(0.5 * math.sin(1.2) ** 2)
    gradient = _gradient(lambda x: probiou_loss(x, target, angle=0.5), pred)
    assert gradient[0, 4] > 0
    line = torch.tensor([[0.0, 0.0, 10.0, 0.0, 0.0]])
    apart = probiou_loss(pred, line, angle=0.5) - probiou_loss(pred, line)
    assert apart == 0


@pytest.mark.parametrize("distance", ["hellinger", "bhattacharyya"])
@pytest.mark.parametrize(
    ("pred", "target"),
    [
        ((5, 5, 0, 0, 0), (5, 5, 10, 10, 1)),  # ultralytics: a NaN gradient
        ((5, 5, 0, 8, 0), (5, 5, 10, 10, 1)),
        ((5, 5, -3, 8, 0), (5, 5, 10, 10, 1)),
        ((5, 5, 4, 8, 0), (5, 5, 0, 0, 1)),
        ((5, 5, 4, 0, 0), (5, 9, 4, 0, 1.5)),
        ((0, 0, 1e-3, 1e-3, 0), (640, 640, 1e-3, 1e-3, 0)),  # below a stride: mmrotate diverges
        ((0, 0, 0, 0, 0), (1, 1, 0, 0, 0)),
    ],
)
def test_degenerate_rotated_boxes_are_finite_and_grow(pred, target, distance):
    pred, target = _one(*map(float, pred)), _one(*map(float, target))
    loss = probiou_loss(pred, target, distance=distance)
    assert loss.isfinite()
    assert loss > 0
    gradient = _gradient(lambda x: probiou_loss(x, target, distance=distance), pred)[0]
    assert gradient.isfinite().all()
    if pred[0, 2] <= 0 < target[0, 2]:
        assert gradient[2] < 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-6, 1e-3, 1e3, 1e6]))
def test_scale_does_not_matter_to_rotated_boxes(seed, scale):
    pred, target = (_turned(4, seed=seed + k, dtype=torch.float32) for k in (0, 1))
    unit = torch.tensor([scale] * 4 + [1.0])
    for distance in ("hellinger", "bhattacharyya"):
        torch.testing.assert_close(
            probiou_loss(pred * unit, target * unit, distance=distance),
            probiou_loss(pred, target, distance=distance),
            rtol=1e-5,
            atol=1e-6,
        )


def test_rotated_descent_finds_the_box():
    target = _turned(16, seed=1)
    pred = (target + 0.4 * (_turned(16, seed=2) - _turned(16, seed=3))).clamp(min=0.3)
    pred = pred.requires_grad_()
    start = probiou_loss(pred, target).item()
    for _ in range(300):
        (g,) = torch.autograd.grad(probiou_loss(pred, target, reduction="sum"), pred)
        pred = (pred - 0.05 * g).detach().requires_grad_()
    assert probiou_loss(pred, target).item() < 0.3 * start


def test_validate_names_a_rotated_row():
    pred, target = _turned(4), _turned(4, seed=1)
    target[2, 3] = -1
    with pytest.raises(ValueError, match=r"target_boxes: row 2 .*at least 0"):
        ProbIoULoss(validate=True)(pred, target)
    with pytest.raises(ValueError, match="pred_boxes"):
        probiou_loss(pred[:, :4], target[:, :4])


def _both(loss_fn, pred, target, **options):
    """Values and gradients in float32 and in float64, of the same boxes."""
    found = []
    for dtype in (torch.float32, torch.float64):
        x = pred.detach().to(dtype).clone().requires_grad_()
        values = loss_fn(x, target.to(dtype), reduction="none", **options)
        (grad,) = torch.autograd.grad(values.sum(), x)
        found += [values.detach().double(), grad.double()]
    return found[0], found[2], found[1], found[3]


ALL = [box_iou_loss, giou_loss, diou_loss, ciou_loss, eiou_loss, siou_loss]


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("box_format", ["cxcywh", "xywh"])
@pytest.mark.parametrize("loss_fn", ALL)
def test_small_boxes_far_from_the_origin_keep_their_digits(loss_fn, box_format, way):
    # edges formed at the full offset lose them: the gradient was 1e-2 off for sides of 0.01 at 1
    g = torch.Generator().manual_seed(0)
    sides = 0.01 * (0.5 + torch.rand(400, 2, generator=g))
    target = torch.cat((torch.rand(400, 2, generator=g), sides), 1)
    pred = target + 1e-3 * torch.randn(400, 4, generator=g)
    with way():
        value, value64, grad, grad64 = _both(loss_fn, pred, target, box_format=box_format)
    assert (value - value64).norm() < 1e-6 * value64.norm()
    assert (grad - grad64).norm() < 1e-6 * grad64.norm()


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("loss_fn", ALL)
def test_boxes_about_a_large_round_number_keep_their_digits(loss_fn, way):
    g = torch.Generator().manual_seed(0)
    ends = [torch.rand(400, 2, generator=g) for _ in range(4)]
    pred, target = (torch.cat((2048 - a, 2048 + b), 1) for a, b in (ends[:2], ends[2:]))
    with way():
        value, value64, grad, grad64 = _both(loss_fn, pred, target)
    assert (value - value64).norm() < 1e-6 * value64.norm()
    assert (grad - grad64).norm() < 1e-6 * grad64.norm()


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("power", [1.0, 3.0])
@pytest.mark.parametrize("loss_fn", ALL)
def test_a_target_inside_out_costs_no_more_than_a_box_far_away(loss_fn, power, way):
    # the enclosing box of unordered corners has no length: 1e23 and NaN
    pred = torch.tensor([[0.0, 0.0, 1e-6, 1e-6], [0.0, 0.0, 50.0, 50.0]], requires_grad=True)
    target = torch.tensor([[1e6, 1e6, 0.0, 0.0], [300.0, 200.0, 50.0, 40.0]])
    with way():
        values = loss_fn(pred, target, power=power, reduction="none")
        (grad,) = torch.autograd.grad(values.sum(), pred)
    assert (values >= 1).all()
    assert (values <= 4).all()
    assert (grad.abs().amax(1) * torch.tensor([1e6, 300.0]) < 10).all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
def test_targets_that_are_no_boxes_are_named(dtype):
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    with pytest.raises(TypeError, match=f"target_boxes: got {dtype}"):
        giou_loss(boxes, boxes.to(dtype))
    with pytest.raises(TypeError, match=r"weight: got torch\.complex64"):
        giou_loss(boxes, boxes, weight=torch.ones(1, dtype=torch.complex64))


# ------------------------------------------------------------------------------------------- L1


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_l1_is_the_sum_of_torchs_over_the_four_numbers(beta, way):
    g = torch.Generator().manual_seed(0)
    pred, target = (torch.randn(30, 4, generator=g, dtype=torch.float64) for _ in range(2))
    pred[0] = target[0]
    want = nn.functional.smooth_l1_loss(pred, target, beta=beta, reduction="none").sum(1)
    with way():
        found = box_l1_loss(pred, target, beta=beta, reduction="none")
        slope = _gradient(lambda x: box_l1_loss(x, target, beta=beta, reduction="sum"), pred)
    torch.testing.assert_close(found, want)
    expected = _gradient(
        lambda x: nn.functional.smooth_l1_loss(x, target, beta=beta, reduction="sum"), pred
    )
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("numbers", [2, 4, 6])
def test_l1_of_segments_boxes_and_cuboids(numbers):
    pred = torch.arange(numbers).double().unsqueeze(0)
    assert box_l1_loss(pred, pred + 0.5).item() == numbers / 2
    with pytest.raises(ValueError, match="pred_boxes: got"):
        box_l1_loss(pred[:, 1:], pred[:, 1:])


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_l1_by_hand_is_that_of_autograd(beta, same_as_autograd, same_when_compiled):
    g = torch.Generator().manual_seed(1)
    pred, target = (torch.randn(40, 4, generator=g, dtype=torch.float64) for _ in range(2))
    same_as_autograd(_L1, pred, target, beta=beta)
    same_when_compiled(box_l1_loss, pred, target, beta=beta, reduction="none")


def test_l1_differs_by_how_boxes_are_written():
    corners = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
    centred = torch.tensor([[1.0, 1, 2, 2]]), torch.tensor([[2.0, 1, 2, 2]])
    assert box_l1_loss(*corners) == 2
    assert box_l1_loss(*centred) == 1


def test_a_point_has_no_aspect_however_the_target_lies():
    point = torch.tensor([[499712.0, 499712.0, 499712.0, 499712.0]])
    flat = torch.tensor([[0.0, 0.0, 999424.0, 0.953125]])
    # apart by half the enclosing height, whose square is a fifth of that of the diagonal
    far = (499712 - 0.953125 / 2) ** 2 / (999424**2 + 499712**2)
    assert ciou_loss(point, flat).item() == pytest.approx(1 + far, rel=1e-6)


@pytest.mark.parametrize("kind", ["linear", "square", "log"])
def test_true_is_no_power(kind):
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    with pytest.raises(TypeError, match="power"):
        box_iou_loss(boxes, boxes, kind=kind, power=True)
