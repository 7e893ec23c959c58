"""Rotated boxes: exact areas against polygons, the field's known failures, and Gaussians."""

import math

import pytest
import torch

from aptt.audit.ways import in_blocks, in_one, plainly
from aptt.core.turned import turned
from aptt.loss import (
    DetectionLoss,
    TaskAlignedAssigner,
    box_iou_loss,
    giou_loss,
    kld_loss,
    nwd_loss,
    rotated_giou_loss,
    rotated_iou_loss,
)
from tests.fuzz.oracles import rotated as polygons

PI = math.pi
BOTH = pytest.mark.parametrize("loss_fn", [rotated_iou_loss, rotated_giou_loss])
WAYS = pytest.mark.parametrize("way", [plainly, in_blocks, in_one])


def _boxes(n, *, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    low = torch.tensor([0, 0, 0.2, 0.2, -4], dtype=torch.float64)
    high = torch.tensor([4, 4, 4.2, 4.2, 4], dtype=torch.float64)
    return (low + (high - low) * torch.rand(n, 5, generator=g, dtype=torch.float64)).to(dtype)


def _one(*numbers, dtype=torch.float64):
    return torch.tensor([numbers], dtype=dtype)


def _gradient(loss_fn, x):
    x = x.clone().requires_grad_()
    loss_fn(x).sum().backward()
    return x.grad


def _by_polygons(pred, target):
    """IoU and GIoU losses, of float64 polygons: cut side by side, and the hull of the corners."""
    found = []
    for p, t in zip(pred.double(), target.double(), strict=True):
        both, own, goal, hull = polygons._measured(p, t)
        union = own + goal - both
        found.append((1 - both / union, 1 - both / union + (hull - union) / hull))
    return torch.tensor(found, dtype=torch.float64).unbind(1)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_random_pairs_have_the_areas_of_their_polygons(dtype, within):
    # 20,000 pairs: 1.4e-15 in float64, 2.5e-7 in float32
    pred, target = _boxes(250, dtype=dtype), _boxes(250, seed=1, dtype=dtype)
    iou, giou = _by_polygons(pred, target)
    found = rotated_iou_loss(pred, target, reduction="none").double()
    torch.testing.assert_close(found, iou, rtol=0, atol=within)
    found = rotated_giou_loss(pred, target, reduction="none").double()
    torch.testing.assert_close(found, giou, rtol=0, atol=2 * within)


@pytest.mark.parametrize(
    ("pred", "target", "iou", "giou"),
    [
        ((0, 0, 1, 1, 0), (0, 0, 1, 1, PI / 4), 2**-0.5, 0.464466),
        ((0, 0, 2, 1, 0), (0, 0, 2, 1, PI / 2), 1 / 3, 0.809524),
        # mmcv 2335: an IoU of 0
        ((0, 0, 5, 10, PI / 6), (0, 0, 10, 5, PI / 3), 0.405827, 0.731709),
        # lilanxiao/Rotated_IoU 39: sides on each other, 56 for an intersection of 48
        ((4, 5, 8, 10, 0), (3, 4, 6, 8, 0), 0.6, 0.4),
        ((0, 0, 4, 2, 0), (1, 0, 4, 2, 0.5), 0.456811, 0.712619),
        ((0, 0, 4, 2, 0), (0, 0, 4, 2, PI / 6), 0.623310, 0.550379),
        ((0, 0, 2, 2, 0), (2, 2, 2, 2, 0), 0.0, 4 / 3),
        ((0, 0, 2, 2, 0), (5, 0, 2, 2, PI / 4), 0.0, 1.514719),
        # unit cubes, one turned by an eighth and half as high above
        ((0, 0, 0, 1, 1, 1, 0), (0, 0, 0.5, 1, 1, 1, PI / 4), 0.261204, 0.991249),
    ],
)
def test_values_by_hand(pred, target, iou, giou):
    pred, target = _one(*pred), _one(*target)
    assert 1 - rotated_iou_loss(pred, target).item() == pytest.approx(iou, abs=1e-6)
    assert rotated_giou_loss(pred, target).item() == pytest.approx(giou, abs=1e-6)


def test_boxes_along_the_axes_are_those_of_the_family():
    pred, target = _boxes(300), _boxes(300, seed=1)
    pred[:, 4] = target[:, 4] = 0
    options = {"box_format": "cxcywh", "reduction": "none"}
    found = rotated_iou_loss(pred, target, reduction="none")
    wanted = box_iou_loss(pred[:, :4], target[:, :4], **options)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)
    # the hull of two boxes lies in their enclosing box, whose corners it lacks
    hull = rotated_giou_loss(pred, target, reduction="none")
    assert (hull < giou_loss(pred[:, :4], target[:, :4], **options) + 1e-14).all()
    pred[:, :2] = target[:, :2] + torch.tensor([1.0, 0.0])
    pred[:, 3] = target[:, 3]  # side by side there are none
    torch.testing.assert_close(
        rotated_giou_loss(pred, target, reduction="none"),
        giou_loss(pred[:, :4], target[:, :4], **options),
    )


def test_whole_numbers_that_share_sides_are_exact():
    # corners that a tolerance drops or doubles; of 300 pairs most share an edge or a corner
    g = torch.Generator().manual_seed(0)
    size = 2 * torch.randint(1, 4, (300, 4), generator=g)
    centre = torch.randint(0, 5, (300, 4), generator=g)
    pred = torch.cat((centre[:, :2], size[:, :2], torch.zeros(300, 1)), 1).float()
    target = torch.cat((centre[:, 2:], size[:, 2:], torch.zeros(300, 1)), 1).float()
    low = torch.maximum(pred[:, :2] - pred[:, 2:4] / 2, target[:, :2] - target[:, 2:4] / 2)
    high = torch.minimum(pred[:, :2] + pred[:, 2:4] / 2, target[:, :2] + target[:, 2:4] / 2)
    common = (high - low).clamp(min=0).prod(1)
    assert ((high == low).any(1) & (high >= low).all(1)).sum() > 30
    m, _ = turned(pred, target)
    assert ((m.inside == 0) == (common == 0)).all()
    union = pred[:, 2:4].prod(1) + target[:, 2:4].prod(1) - common
    found = rotated_iou_loss(pred, target, reduction="none")
    torch.testing.assert_close(found, 1 - common / union, rtol=0, atol=2e-7)
    assert (found[common == 0] == 1).all()


@BOTH
@pytest.mark.parametrize("side", [1e-6, 1.0, 1e6])
def test_equal_boxes_cost_exactly_nothing(loss_fn, side):
    boxes = _boxes(300, dtype=torch.float32)
    boxes[:5, 3] = 0  # lines
    boxes[5:8, 2:4] = 0  # points
    boxes[:, :4] *= side
    assert (loss_fn(boxes, boxes, reduction="none") == 0).all()
    gradient = _gradient(lambda x: loss_fn(x, boxes, reduction="sum"), boxes)
    assert (gradient[8:, :4].abs() * side < 1e-5).all()
    assert gradient.isfinite().all()


@BOTH
def test_a_box_may_be_written_in_four_ways(loss_fn):
    # of polygons in eight slots, one of 20,000 is lost: an IoU of 0.333; here 300 times as long
    boxes = _boxes(200, dtype=torch.float32)
    boxes[::2, 3] = boxes[::2, 2] / 300
    other = _boxes(200, seed=1, dtype=torch.float32)
    for turns in range(1, 4):
        again = boxes.double()
        again[:, 4] += turns * PI / 2
        if turns % 2:
            again[:, 2:4] = again[:, 2:4].flip(1)
        assert loss_fn(again, boxes.double(), reduction="none").max() < 1e-11
        # rounding of the angle alone, times the aspect
        assert loss_fn(again.float(), boxes, reduction="none").max() < 300 * 1e-6
        torch.testing.assert_close(
            loss_fn(again, other.double()), loss_fn(boxes.double(), other.double())
        )


@BOTH
def test_turning_or_swapping_both_changes_nothing(loss_fn):
    pred, target = _boxes(100), _boxes(100, seed=1)
    wanted = loss_fn(pred, target, reduction="none")
    torch.testing.assert_close(loss_fn(target, pred, reduction="none"), wanted)
    cos, sin = math.cos(0.7), math.sin(0.7)
    moved = []
    for boxes in (pred, target):
        x, y = boxes[:, 0], boxes[:, 1]
        centre = torch.stack((x * cos - y * sin + 1e3, x * sin + y * cos - 1e3), 1)
        moved.append(torch.cat((centre, boxes[:, 2:4], boxes[:, 4:] + 0.7), 1))
    torch.testing.assert_close(loss_fn(*moved, reduction="none"), wanted, rtol=0, atol=1e-11)


@WAYS
@BOTH
@pytest.mark.parametrize("off", [0.3, 1e-2, 1e-4])
def test_boxes_nearly_equal_keep_their_digits(off, loss_fn, way):
    g = torch.Generator().manual_seed(0)
    target = _boxes(200, dtype=torch.float32) * torch.tensor([25.0, 25, 5, 5, 1])
    unit = torch.tensor([1, 1, 1, 1, 0.05])
    pred = target + off * torch.randn(200, 5, generator=g) * unit
    pred[::2] = pred[::2][:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, PI / 2])
    with way():
        found = loss_fn(pred, target, reduction="none").double()
    with plainly():
        wanted = loss_fn(pred.double(), target.double(), reduction="none")
    assert ((found - wanted).abs() <= 3e-6 * wanted).all()


@BOTH
@pytest.mark.parametrize("numbers", [5, 7])
def test_the_gradient_is_that_of_the_formula(numbers, loss_fn):
    pred, target = _boxes(12), _boxes(12, seed=1)
    if numbers == 7:
        high = torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(3)).double() + 0.5
        pred, target = (
            torch.cat((b[:, :2], z[:, :1], b[:, 2:4], z[:, 1:], b[:, 4:]), 1)
            for b, z in zip((pred, target), high, strict=True)
        )
    assert (loss_fn(pred, target, reduction="none") < 1).any()
    both = pred.requires_grad_(), target.requires_grad_()
    torch.autograd.gradcheck(lambda x, t: loss_fn(x, t, reduction="none"), both)


@BOTH
@pytest.mark.parametrize(
    ("pred", "target"),
    [
        ((5, 5, 0, 0, 0), (5, 5, 10, 10, 1)),
        ((5, 5, 0, 8, 0), (5, 5, 10, 10, 1)),
        ((5, 5, -3, 8, 0), (5, 5, 10, 10, 1)),
        ((5, 5, 4, 8, 0), (5, 5, 0, 0, 1)),
        ((0, 0, 4, 0, 0), (0, 0, 4, 0, 1.5)),
        ((0, 0, 0, 0, 0), (0, 0, 0, 0, 1)),
        ((0, 0, 1e-3, 1e-3, 0), (2e4, 2e4, 1e-3, 1e-3, 0)),
    ],
)
def test_degenerate_boxes_are_finite_and_grow(pred, target, loss_fn):
    pred, target = (_one(*map(float, b), dtype=torch.float32) for b in (pred, target))
    loss = loss_fn(pred, target)
    assert 0 <= loss <= 2
    gradient = _gradient(lambda x: loss_fn(x, target), pred)[0]
    assert gradient.isfinite().all()
    if pred[0, 2] <= 0 < target[0, 2]:
        assert gradient[2] < 0


def test_the_hull_pulls_boxes_together():
    target = _boxes(100, seed=1)
    pred = _boxes(100) + torch.tensor([6.0, 5, 0, 0, 0])
    apart = rotated_iou_loss(pred, target, reduction="none") == 1
    assert apart.sum() > 80
    assert (_gradient(lambda x: rotated_iou_loss(x, target), pred)[apart] == 0).all()
    gradient = _gradient(lambda x: rotated_giou_loss(x, target), pred)
    away = ((pred - target) * gradient)[:, :2].sum(1)
    assert (away[apart] > 0).all()


def test_cuboids_are_boxes_times_a_height():
    pred, target = _boxes(100), _boxes(100, seed=1)
    high = torch.rand(2, 100, 2, generator=torch.Generator().manual_seed(3)).double() + 0.2
    cuboids = [
        torch.cat((b[:, :2], z[:, :1], b[:, 2:4], z[:, 1:], b[:, 4:]), 1)
        for b, z in zip((pred, target), high, strict=True)
    ]
    (z, d), (goal_z, goal_d) = (h.unbind(1) for h in high)
    top = torch.minimum(z + d / 2, goal_z + goal_d / 2)
    bottom = torch.maximum(z - d / 2, goal_z - goal_d / 2)
    own, goal = pred[:, 2:4].prod(1), target[:, 2:4].prod(1)
    flat = 1 - rotated_iou_loss(pred, target, reduction="none")
    common = flat / (1 + flat) * (own + goal) * (top - bottom).clamp(min=0)
    wanted = 1 - common / (own * d + goal * goal_d - common)
    torch.testing.assert_close(rotated_iou_loss(*cuboids, reduction="none"), wanted)


def test_an_assigner_takes_it_for_its_overlap():
    boxes = torch.tensor([[[5.0, 5, 8, 2, 0.7], [5, 5, 8, 2, -0.8]]])
    logits, anchors = torch.zeros(1, 2, 1), torch.full((2, 2), 5.0)
    assigner = TaskAlignedAssigner(topk=1, overlap=rotated_iou_loss)
    loss = DetectionLoss(assigner=assigner, box_loss=rotated_giou_loss)
    target = [torch.tensor([[5.0, 5, 8, 2, 0.6]])]
    found = _gradient(
        lambda x: loss(logits, x, target, [torch.tensor([0])], anchors=anchors), boxes
    )
    assert found[0, 0].any()
    assert not found[0, 1].any()


@BOTH
def test_it_compiles_as_one_graph(loss_fn):
    pred, target = _boxes(6), _boxes(6, seed=1)
    compiled = torch.compile(loss_fn, fullgraph=True, backend="aot_eager")
    found = _gradient(lambda x: compiled(x, target), pred)
    torch.testing.assert_close(found, _gradient(lambda x: loss_fn(x, target), pred))


# Gaussians.


def _by_matrices(p, t):
    """KL of the second Gaussian from the first."""

    def covariance(box):
        c, s = math.cos(box[4]), math.sin(box[4])
        turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        return turn @ torch.diag(box[2:4] ** 2 / 4) @ turn.T

    a, b, gap = covariance(p), covariance(t), p[:2] - t[:2]
    trace = torch.linalg.solve(a, b).trace()
    return (gap @ torch.linalg.solve(a, gap) + trace - 2 - (b.det() / a.det()).log()) / 2


def test_divergences_by_matrices():
    pred, target = _boxes(60), _boxes(60, seed=1)
    forward, reverse = (
        torch.stack([_by_matrices(p, t) for p, t in zip(*pair, strict=True)])
        for pair in ((pred, target), (target, pred))
    )
    for divergence, wanted in (
        ("forward", forward),
        ("reverse", reverse),
        ("symmetric", (forward + reverse) / 2),
    ):
        options = {"divergence": divergence, "reduction": "none"}
        torch.testing.assert_close(kld_loss(pred, target, squash="none", **options), wanted)
        root = wanted.sqrt()
        found = kld_loss(pred, target, squash="sqrt", **options)
        torch.testing.assert_close(found, root / (1 + root))
        found = kld_loss(pred, target, **options)
        torch.testing.assert_close(found, 1 - 1 / (1 + wanted.log1p()))


@pytest.mark.parametrize(
    ("target", "reverse", "forward"),
    [
        ((0, 0, 4, 2, 0), 0, 0),
        ((1, 0, 4, 2, 0), 0.125, 0.125),
        ((0, 0, 4, 2, PI / 2), 1.125, 1.125),
        ((1, 0, 4, 2, 0.5), 0.469773, 0.383580),
        ((0, 0, 2, 2, 0), 0.806853, 0.318147),
    ],
)
def test_divergences_by_hand(target, reverse, forward):
    pred = _one(0, 0, 4, 2, 0)
    for divergence, wanted in (("reverse", reverse), ("forward", forward)):
        found = kld_loss(pred, _one(*target), divergence=divergence, squash="none")
        assert found.item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("squash", ["log1p", "sqrt", "none"])
def test_equal_gaussians_cost_nothing_and_have_no_slope(squash):
    # mmrotate: 3e-4, by a clamp
    boxes = _boxes(100, dtype=torch.float32)
    boxes[:5, 3] = boxes[:5, 2]
    boxes[5:8, 3] = 0
    assert (kld_loss(boxes, boxes, squash=squash, reduction="none") == 0).all()
    assert (_gradient(lambda x: kld_loss(x, boxes, squash=squash), boxes) == 0).all()


def test_a_square_has_the_slope_of_what_it_may_become():
    pred, target = _one(0, 0, 3, 3, 0.4), _one(0.5, 0, 4, 2, 0)
    torch.autograd.gradcheck(
        lambda x: kld_loss(x, target, squash="none"), pred.requires_grad_(), eps=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("pred", "target", "wanted"),
    [
        ((0, 0, 2, 2), (1, 0, 3, 2), 0.075151),
        ((0, 0, 4, 2), (1, 1, 3, 5), 0.174170),
        ((0, 0, 1, 1), (9, 9, 10, 10), 0.630043),
    ],
)
def test_wasserstein_distances_by_hand(pred, target, wanted):
    found = nwd_loss(_one(*pred), _one(*target), unit=12.8)
    assert found.item() == pytest.approx(wanted, abs=1e-6)


def test_a_target_without_a_unit_is_its_own():
    pred, target = _boxes(50)[:, :4], _boxes(50, seed=1)[:, :4]
    found = nwd_loss(pred, target, box_format="cxcywh", reduction="none")
    unit = (target[:, 2:].square().sum(1) / 2).sqrt()
    for i in range(3):
        one = nwd_loss(pred[i : i + 1], target[i : i + 1], unit=unit[i].item(), box_format="cxcywh")
        torch.testing.assert_close(one, found[i])
    scaled = nwd_loss(pred * 1e3, target * 1e3, box_format="cxcywh", reduction="none")
    torch.testing.assert_close(scaled, found)
    points = torch.zeros(2, 4)
    assert nwd_loss(points, points) == 0


def test_equal_boxes_are_not_moved():
    # the root of 0 in the repositories: a NaN gradient
    boxes = _boxes(20)[:, :4].sort(1).values
    for unit in (None, 12.8):
        assert nwd_loss(boxes, boxes, unit=unit) == 0
        assert (_gradient(lambda x, unit=unit: nwd_loss(x, boxes, unit=unit), boxes) == 0).all()


@pytest.mark.parametrize("squash", ["log1p", "sqrt"])
@pytest.mark.parametrize("divergence", ["forward", "reverse", "symmetric"])
def test_the_slope_of_a_box_far_away_keeps_its_digits(squash, divergence):
    """Of f / (1 + f) the slope is 1 / (1 + f)**2, which as a difference lost f roundings."""
    target = torch.tensor([[1.5, -1.0, 1.0, 1.0, 0.3]])
    slopes = []
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor([[0.0, 0.0, 1e-3, 2e-3, 0.1]], dtype=dtype, requires_grad=True)
        loss = kld_loss(x, target.to(dtype), squash=squash, divergence=divergence)
        slopes.append(torch.autograd.grad(loss, x)[0].double())
    torch.testing.assert_close(*slopes, rtol=2e-6, atol=1e-7 * slopes[1].abs().max().item())
