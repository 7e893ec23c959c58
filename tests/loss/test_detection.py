"""Detection: the assigner and the loss against slow loops, by hand, and where others go wrong."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from aptt.audit.ways import in_blocks
from aptt.loss import (
    CIoULoss,
    CrossEntropyLoss,
    DetectionLoss,
    DETRLoss,
    FocalLoss,
    GIoULoss,
    TaskAlignedAssigner,
    box_iou_loss,
    ciou_loss,
    cross_entropy,
    detection_loss,
    detection_terms,
    focal_loss,
    giou_loss,
    quality_focal_loss,
    varifocal_loss,
)
from aptt.loss.detection import Assignment

# Slow and plain: the definitions in Python, one image, one target, one prediction at a time.


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    common = max(w, 0.0) * max(h, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union > 0 else 0.0


def assign_slowly(logits, boxes, anchors, targets, labels, *, topk=10, alpha=0.5, beta=6.0):
    """Matches and scores of one image, from lists."""
    chosen = {}  # prediction -> the targets that chose it
    t = {}
    for m, (target, label) in enumerate(zip(targets, labels, strict=True)):
        inside = [
            a
            for a, (x, y) in enumerate(anchors)
            if target[0] < x < target[2] and target[1] < y < target[3]
        ]
        if not inside and anchors:
            cx, cy = (target[0] + target[2]) / 2, (target[1] + target[3]) / 2
            away = [(x - cx) ** 2 + (y - cy) ** 2 for x, y in anchors]
            inside = [away.index(min(away))]
        for a in inside:
            t[a, m] = sigmoid(logits[a][label]) ** alpha * iou(boxes[a], target) ** beta
        ranked = sorted((a for a in inside if t[a, m] > 0), key=lambda a: (-t[a, m], a))
        for a in ranked[:topk]:
            chosen.setdefault(a, []).append(m)
    matches = [-1] * len(anchors)
    for a, several in chosen.items():
        matches[a] = max(several, key=lambda m: (iou(boxes[a], targets[m]), -m))
    scores = [0.0] * len(anchors)
    for a, m in enumerate(matches):
        if m >= 0:
            mine = [k for k, other in enumerate(matches) if other == m]
            top_t = max(t[k, m] for k in mine)
            top_u = max(iou(boxes[k], targets[m]) for k in mine)
            scores[a] = t[a, m] / top_t * top_u
    return matches, scores


def terms_slowly(logits, boxes, targets, labels, matches, scores, *, class_weight=None):
    """Sums of the class term and the box term (GIoU), and S, of one image, from lists."""
    of_class, of_box, count = 0.0, 0.0, 0.0
    weights = class_weight or [1.0] * len(logits[0])
    for a, m in enumerate(matches):
        if m == -2:
            continue
        for c, x in enumerate(logits[a]):
            q = scores[a] if m >= 0 and labels[m] == c else 0.0
            p = sigmoid(x)
            of_class -= weights[c] * (q * math.log(p) + (1 - q) * math.log(1 - p))
        if m >= 0:
            w = scores[a] * weights[labels[m]]
            count += w
            of_box += w * giou_slowly(boxes[a], targets[m])
    return of_class, of_box, count


def giou_slowly(a, b):
    outer = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    overlap = iou(a, b)
    union = areas / (1 + overlap)
    return 1 - overlap + (outer - union) / outer


# Scenes: a grid of points, predicted boxes around them, targets anywhere.


def grid(side=6, stride=8.0, dtype=torch.float64):
    along = (torch.arange(side, dtype=dtype) + 0.5) * stride
    return torch.cartesian_prod(along, along).flip(1)


def scene(images=3, most=4, *, classes=3, side=6, seed=0, dtype=torch.float64):
    """Logits, boxes and points, and lists of targets with 0 to ``most`` of them in each image."""
    g = torch.Generator().manual_seed(seed)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(shape, generator=g, dtype=torch.float64)

    points = grid(side)
    logits = uniform(-3, 3, images, side**2, classes)
    reach = uniform(1, 14, images, side**2, 4)
    boxes = torch.cat((points - reach[..., :2], points + reach[..., 2:]), -1)
    targets, labels = [], []
    for image in range(images):
        n = (most - image) % (most + 1)
        corner = uniform(-6, 40, n, 2)
        targets.append(torch.cat((corner, corner + uniform(0.5, 24, n, 2)), -1).to(dtype))
        labels.append(torch.randint(classes, (n,), generator=g))
    return logits.to(dtype), boxes.to(dtype), points.to(dtype), targets, labels


def padded(targets, labels):
    """With junk in the padding, two columns more than there need be."""
    most = max(len(t) for t in targets) + 2
    boxes = torch.full((len(targets), most, 4), math.nan, dtype=targets[0].dtype)
    classes = torch.full((len(targets), most), -1)
    mask = torch.zeros(len(targets), most, dtype=torch.bool)
    for i, (t, c) in enumerate(zip(targets, labels, strict=True)):
        boxes[i, : len(t)], classes[i, : len(t)], mask[i, : len(t)] = t, c, True
    return boxes, classes, mask


def assign(assigner, logits, boxes, points, targets, labels):
    goals, classes, mask = padded(targets, labels)
    return assigner(logits, boxes, points, goals, classes, mask)


# The assigner.


def test_one_object_by_hand():
    """Four anchors in a 16 x 16 object, boxes exact but for their widths, all logits 0.

    u = 1, 1/2, 1/4, 1/8 and p = 1/2, so t = sqrt(1/2) u**6; of the first two, max u is 1, and
    the scores are 1 and (1/2)**6.
    """
    target = torch.tensor([[[0.0, 0, 16, 16]]])
    boxes = torch.tensor([[[0.0, 0, 16, 16], [0, 0, 8, 16], [0, 0, 4, 16], [0, 0, 2, 16]]])
    points = torch.tensor([[4.0, 4], [4, 12], [2, 8], [1, 8]])
    got = TaskAlignedAssigner(topk=2)(
        torch.zeros(1, 4, 1), boxes, points, target, torch.tensor([[0]]), torch.tensor([[True]])
    )
    assert got.matches.tolist() == [[0, 0, -1, -1]]
    torch.testing.assert_close(got.scores, torch.tensor([[1.0, 2.0**-6, 0, 0]]))


def _images(images, points, most, device):
    g = torch.Generator().manual_seed(images)
    at = grid(12)
    assert len(at) == points
    boxes = torch.cat((at - 12, at + 12), -1).expand(images, -1, -1)
    corner = 8 * torch.randint(0, 9, (images, most, 2), generator=g).double()
    goals = torch.cat((corner, corner + 24), -1)  # full of ties: all that is there is on a grid
    labels = torch.randint(3, (images, most), generator=g)
    logits = torch.randint(-1, 2, (images, points, 3), generator=g).double()
    mask = torch.rand(images, most, generator=g) < 0.8
    return [t.to(device) for t in (logits, boxes, at, goals, labels, mask)]


@pytest.mark.parametrize("options", [{}, {"topk": 3}, {"alpha": 0.0}, {"beta": 1.0}], ids=str)
@pytest.mark.parametrize("at_once", [2, 5, 100])
def test_an_image_has_the_same_assignment_among_any_others(options, at_once, monkeypatch):
    args, assigner = _images(5, 144, 30, "cpu"), TaskAlignedAssigner(**options)
    want = assigner(*args)
    monkeypatch.setattr("aptt.loss.detection.scenes.images_at_once", lambda *_: at_once)
    got = assigner(*args)
    assert torch.equal(got.matches, want.matches)
    assert torch.equal(got.scores, want.scores)
    assert (want.matches >= 0).any()


def test_no_image_has_no_assignment():
    got = TaskAlignedAssigner()(*(_images(0, 144, 30, "cpu")))
    assert got.matches.shape == got.scores.shape == (0, 144)


@pytest.mark.parametrize(
    "options",
    [{}, {"topk": 3}, {"topk": 1}, {"topk": 1000}, {"alpha": 1.0}, {"alpha": 0.0}, {"beta": 1.0}],
    ids=str,
)
@pytest.mark.parametrize("seed", range(3))
def test_the_assigner_is_the_slow_loop(seed, options):
    logits, boxes, points, targets, labels = scene(5, seed=seed)
    got = assign(TaskAlignedAssigner(**options), logits, boxes, points, targets, labels)
    found = 0
    for image in range(5):
        parts = (logits, boxes, targets, labels)
        x, b, t, c = (part[image].tolist() for part in parts)
        matches, scores = assign_slowly(x, b, points.tolist(), t, c, **options)
        assert got.matches[image].tolist() == matches
        assert got.scores[image].tolist() == pytest.approx(scores, rel=1e-10)
        found += sum(m >= 0 for m in matches)
    assert found >= 8


def test_ties_go_to_what_comes_first():
    """All predictions alike, and two targets alike: any order would do, so one is promised."""
    box = torch.tensor([0.0, 0, 16, 16])
    points = torch.tensor([[2.0, 2], [4, 4], [6, 6], [8, 8], [10, 10]])
    got = TaskAlignedAssigner(topk=3)(
        torch.zeros(1, 5, 2),
        box.expand(1, 5, 4),
        points,
        box.expand(1, 2, 4),
        torch.zeros(1, 2, dtype=torch.long),
        torch.ones(1, 2, dtype=torch.bool),
    )
    assert got.matches.tolist() == [[0, 0, 0, -1, -1]]
    assert got.scores.tolist() == [[1, 1, 1, 0, 0]]


def test_topk_may_exceed_the_predictions():
    """ultralytics raises "selected index k out of range"."""
    logits, boxes, points, targets, labels = scene(side=2)
    all_of_them = TaskAlignedAssigner(topk=1000)
    as_many = TaskAlignedAssigner(topk=4)
    got, want = (assign(a, logits, boxes, points, targets, labels) for a in (all_of_them, as_many))
    assert torch.equal(got.matches, want.matches)


def test_a_box_of_negative_coordinates_counts():
    """ultralytics drops [-20, -20, 10, 10], whose coordinates do not add up to more than 0."""
    box = torch.tensor([[[-20.0, -20, 10, 10]]])
    got = TaskAlignedAssigner()(
        torch.zeros(1, 1, 1),
        box,
        torch.tensor([[4.0, 4]]),
        box,
        torch.tensor([[0]]),
        torch.tensor([[True]]),
    )
    assert got.matches.tolist() == [[0]]
    assert got.scores.tolist() == [[1.0]]


def test_an_object_between_the_points_is_given_the_closest():
    """mmdetection's assigner leaves it without any, so that it is never learnt."""
    points = grid(4)  # at 4, 12, 20, 28
    around = torch.cat((points - 3, points + 3), -1).unsqueeze(0)
    got = assign(
        TaskAlignedAssigner(),
        torch.zeros(1, 16, 1, dtype=torch.float64),
        around,
        points,
        [torch.tensor([[13.0, 13, 15, 15]], dtype=torch.float64)],
        [torch.tensor([0])],
    )
    assert got.matches[0].tolist() == [0 if a == 5 else -1 for a in range(16)]
    assert got.scores[0, 5] == pytest.approx(4 / 36)


def test_early_training_does_not_underflow():
    """p**alpha * u**beta is below float32's least number here; the ranking is right."""
    reach = torch.tensor([1e-4, 2e-4, 3e-4]).view(3, 1).double()
    boxes = torch.cat((500 - reach, 500 - reach, 500 + reach, 500 + reach), -1).unsqueeze(0)
    got = TaskAlignedAssigner(topk=2)(
        torch.full((1, 3, 1), -200.0),
        boxes,
        torch.full((3, 2), 500.0),
        torch.tensor([[[0.0, 0, 1000, 1000]]]),
        torch.tensor([[0]]),
        torch.tensor([[True]]),
    )
    assert got.matches.tolist() == [[-1, 0, 0]]


def test_predictions_that_are_broken_are_not_chosen():
    logits, boxes, points, targets, labels = scene(2)
    want = assign(TaskAlignedAssigner(), logits, boxes, points, targets, labels)
    taken = (want.matches[0] >= 0).nonzero()[0]
    for tensor, value in ((logits, math.nan), (boxes, math.nan), (logits, -math.inf)):
        broken = tensor.clone()
        broken[0, taken] = value
        given = (broken, boxes) if tensor is logits else (logits, broken)
        got = assign(TaskAlignedAssigner(), *given, points, targets, labels)
        assert got.matches[0, taken] == -1
        assert got.scores.isfinite().all()


@pytest.mark.parametrize("target", [[5.0, 5, 5, 5], [5.0, 5, 5, 30], [9.0, 9, 3, 3]], ids=str)
def test_a_degenerate_object_is_left_out_and_harms_no_other(target):
    logits, boxes, points, targets, labels = scene(2)
    want = assign(TaskAlignedAssigner(), logits, boxes, points, targets, labels)
    more = [torch.cat((t, torch.tensor([target], dtype=t.dtype))) for t in targets]
    got = assign(
        TaskAlignedAssigner(), logits, boxes, points, more, [F.pad(c, (0, 1)) for c in labels]
    )
    assert torch.equal(got.matches, want.matches)
    assert torch.equal(got.scores, want.scores)


def test_predictions_that_do_not_count_are_as_if_removed():
    logits, boxes, points, targets, labels = scene(3)
    keep = torch.rand(36, generator=torch.Generator().manual_seed(3)) < 0.5
    goals, classes, mask = padded(targets, labels)
    assigner = TaskAlignedAssigner(topk=4)
    got = assigner(logits, boxes, points, goals, classes, mask, keep.expand(3, -1))
    want = assigner(logits[:, keep], boxes[:, keep], points[keep], goals, classes, mask)
    assert torch.equal(got.matches[:, keep], want.matches)
    assert torch.equal(got.scores[:, keep], want.scores)
    assert (got.matches[:, ~keep] == -1).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(0, 7))
def test_what_any_assignment_keeps(seed, topk, most):
    logits, boxes, points, targets, labels = scene(2, most, seed=seed)
    got = assign(TaskAlignedAssigner(topk=topk), logits, boxes, points, targets, labels)
    for image in range(2):
        matches, scores = got.matches[image], got.scores[image]
        assert ((scores > 0) == (matches >= 0)).all()
        for m, target in enumerate(targets[image]):
            mine = matches == m
            assert mine.sum() <= topk
            if mine.any():  # the best is worth the largest overlap
                best = max(iou(b.tolist(), target.tolist()) for b in boxes[image, mine])
                assert scores[mine].max().item() == pytest.approx(best)


def _asked(**change):
    """What an assigner is called with: two images of three predictions and two targets."""
    box = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [2, 2, 5, 5]]).expand(2, 3, 4)
    good = {
        "class_logits": torch.zeros(2, 3, 2),
        "pred_boxes": box,
        "anchors": torch.tensor([[1.0, 1], [2, 2], [3.5, 3.5]]),
        "target_boxes": box[:, :2],
        "target_labels": torch.zeros(2, 2, dtype=torch.long),
        "target_mask": torch.ones(2, 2, dtype=torch.bool),
        "anchor_mask": torch.ones(2, 3, dtype=torch.bool),
    }
    return {**good, **change}


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"target_labels": torch.zeros(2, 1).long()}, ValueError, "target_labels: "),
        ({"target_mask": torch.ones(1, 2).bool()}, ValueError, "target_mask: "),
        ({"anchors": torch.ones(1, 2)}, ValueError, "anchors: "),
        ({"anchor_mask": torch.ones(2, 1).bool()}, ValueError, "anchor_mask: "),
        ({"pred_boxes": torch.ones(2, 3, 4, 5)}, ValueError, "pred_boxes: "),
        ({"target_labels": torch.full((2, 2), -1)}, ValueError, "target_labels: got class -1"),
        ({"target_labels": torch.zeros(2, 2)}, TypeError, "target_labels: got torch.float32"),
        ({"pred_boxes": torch.ones(2, 3, 4).long()}, TypeError, "pred_boxes: got torch.int64"),
        ({"class_logits": torch.ones(2, 3, 2).long()}, TypeError, "class_logits: got torch.int64"),
    ],
)
def test_the_assigner_refuses_what_does_not_fit(change, error, said):
    with pytest.raises(error, match=said):
        TaskAlignedAssigner()(**_asked(**change))


def test_the_assigner_takes_masks_of_numbers_and_no_targets():
    want = TaskAlignedAssigner()(**_asked())
    assert want.matches.tolist() == [[0, 1, -1]] * 2
    numbers = {"target_mask": torch.ones(2, 2).long(), "anchor_mask": torch.ones(2, 3)}
    got = TaskAlignedAssigner()(**_asked(**numbers))
    assert torch.equal(got.matches, want.matches)
    assert torch.equal(got.scores, want.scores)
    none = {"target_boxes": torch.zeros(2, 0, 4), "target_labels": torch.zeros(2, 0)}
    got = TaskAlignedAssigner()(**_asked(**none, target_mask=torch.zeros(2, 0).bool()))
    assert got.matches.tolist() == [[-1] * 3] * 2
    assert got.scores.tolist() == [[0] * 3] * 2


def test_areas_that_overflow_give_no_score_beyond_1():
    scaled = {k: _asked()[k] * 1e20 for k in ("pred_boxes", "anchors", "target_boxes")}
    got = TaskAlignedAssigner()(**_asked(**scaled))
    assert ((got.scores >= 0) & (got.scores <= 1)).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"topk": 0}, "topk"),
        ({"topk": 2.5}, "topk"),
        ({"topk": True}, "topk"),
        ({"alpha": -1}, "alpha"),
        ({"beta": -1}, "beta"),
    ],
)
def test_the_assigner_refuses(options, named):
    with pytest.raises(ValueError, match=named):
        TaskAlignedAssigner(**options)


# The loss.


@pytest.mark.parametrize("class_weight", [None, [0.5, 2.0, 1.0]])
def test_the_loss_is_the_slow_loop(class_weight):
    logits, boxes, points, targets, labels = scene(4)
    sums = [0.0, 0.0, 0.0]
    for image in range(4):
        x, b, t, c = (part[image].tolist() for part in (logits, boxes, targets, labels))
        matches, scores = assign_slowly(x, b, points.tolist(), t, c, topk=4)
        each = terms_slowly(x, b, t, c, matches, scores, class_weight=class_weight)
        sums = [s + e for s, e in zip(sums, each, strict=True)]
    weights = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float64)
    options = {
        "anchors": points,
        "assigner": TaskAlignedAssigner(topk=4),
        "box_loss": giou_loss,
        "class_weight": weights,
    }
    terms = detection_terms(logits, boxes, targets, labels, **options)
    assert list(terms) == ["class", "box"]
    assert sums[2] > 1
    assert terms["class"].item() == pytest.approx(sums[0] / sums[2], rel=1e-10)
    assert terms["box"].item() == pytest.approx(sums[1] / sums[2], rel=1e-10)
    goals, classes, mask = padded(targets, labels)
    loss = detection_loss(logits, boxes, goals, classes, target_mask=mask, **options)
    assert loss.item() == pytest.approx((0.5 * sums[0] + 7.5 * sums[1]) / sums[2], rel=1e-10)


def test_the_distances_are_the_slow_loop():
    logits, _, points, targets, labels = scene(3)
    g = torch.Generator().manual_seed(5)
    bins, stride = 5, 8.0
    dist = torch.randn(3, 36, 4, bins, generator=g, dtype=torch.float64)
    p = dist.softmax(-1)
    reach = (p * torch.arange(bins)).sum(-1) * stride
    boxes = torch.cat((points - reach[..., :2], points + reach[..., 2:]), -1)
    of_dfl, count = 0.0, 0.0
    for image in range(3):
        x, b, t, c = (part[image].tolist() for part in (logits, boxes, targets, labels))
        matches, scores = assign_slowly(x, b, points.tolist(), t, c)
        for a, m in enumerate(matches):
            if m < 0:
                continue
            px, py = points[a].tolist()
            sides = (px - t[m][0], py - t[m][1], t[m][2] - px, t[m][3] - py)
            for k, side in enumerate(sides):
                y = min(max(side / stride, 0.0), bins - 1.0)
                low = min(int(y), bins - 2)
                q = p[image, a, k].tolist()
                dfl = -(low + 1 - y) * math.log(q[low]) - (y - low) * math.log(q[low + 1])
                of_dfl += scores[a] * dfl / 4
            count += scores[a]
    given = {"anchors": points, "strides": torch.full((36,), stride, dtype=torch.float64)}
    terms = detection_terms(logits, dist, targets, labels, **given)
    assert count > 1
    assert terms["dfl"].item() == pytest.approx(of_dfl / count, rel=1e-10)
    plain = detection_terms(logits, boxes, targets, labels, anchors=points)
    for name in ("class", "box"):
        torch.testing.assert_close(terms[name], plain[name], rtol=1e-10, atol=0)
    loss = detection_loss(logits, dist, targets, labels, **given)
    want = 0.5 * terms["class"] + 7.5 * terms["box"] + 1.5 * terms["dfl"]
    torch.testing.assert_close(loss, want)


def test_given_matches_and_scores():
    """As of RetinaNet's anchors or DETR's queries: target index, -1 background, -2 not counted."""
    logits, boxes, _, targets, labels = scene(3)
    g = torch.Generator().manual_seed(9)
    matches = torch.full((3, 36), -1)
    for image, t in enumerate(targets):
        if len(t):
            matches[image, torch.randperm(36, generator=g)[:9]] = torch.arange(9) % len(t)
    matches[:, ::7] = -2
    quality = torch.rand(3, 36, generator=g, dtype=torch.float64)
    for scores in (None, quality):
        sums = [0.0, 0.0, 0.0]
        for image in range(3):
            parts = (logits, boxes, targets, labels, matches)
            x, b, t, c, m = (part[image].tolist() for part in parts)
            q = [1.0] * 36 if scores is None else scores[image].tolist()
            each = terms_slowly(x, b, t, c, m, q)
            sums = [s + e for s, e in zip(sums, each, strict=True)]
        terms = detection_terms(
            logits, boxes, targets, labels, matches=matches, match_scores=scores, box_loss=giou_loss
        )
        assert terms["class"].item() == pytest.approx(sums[0] / sums[2], rel=1e-10)
        assert terms["box"].item() == pytest.approx(sums[1] / sums[2], rel=1e-10)


def test_the_assigners_own_matches_give_the_same():
    logits, boxes, points, targets, labels = scene(3)
    matches, scores = assign(TaskAlignedAssigner(), logits, boxes, points, targets, labels)
    given = detection_loss(logits, boxes, targets, labels, matches=matches, match_scores=scores)
    assert given == detection_loss(logits, boxes, targets, labels, anchors=points)


def test_the_gradient_is_that_of_the_frozen_assignment():
    logits, boxes, points, targets, labels = scene(3)
    frozen = assign(TaskAlignedAssigner(), logits, boxes, points, targets, labels)
    grads = []
    for assigned in (
        {"anchors": points},
        {"matches": frozen.matches, "match_scores": frozen.scores},
    ):
        leaves = [t.clone().requires_grad_() for t in (logits, boxes)]
        detection_loss(*leaves, targets, labels, **assigned).backward()
        grads.append([leaf.grad for leaf in leaves])
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])


def test_background_is_pulled_down_and_positives_to_their_score():
    logits, boxes, points, targets, labels = scene(2)
    found = assign(TaskAlignedAssigner(), logits, boxes, points, targets, labels)
    x = logits.clone().requires_grad_()
    terms = detection_terms(x, boxes, targets, labels, anchors=points, reduction="sum")
    terms["class"].backward()
    scores = torch.zeros_like(logits)
    for image, a in (found.matches >= 0).nonzero().tolist():
        label = labels[image][found.matches[image, a]]
        scores[image, a, label] = found.scores[image, a]
    torch.testing.assert_close(x.grad, logits.sigmoid() - scores)


@pytest.mark.parametrize("distribution", [False, True])
def test_without_any_object_background_is_still_penalised(distribution):
    """ultralytics' loss was NaN (PR #490), and left the box head without gradient (PR #26012)."""
    logits, boxes, points, _, _ = scene(2)
    strides = None
    if distribution:
        boxes, strides = torch.randn(2, 36, 4, 5, dtype=torch.float64), torch.full((36,), 8.0)
    none = ([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2)
    masked = (torch.full((2, 3, 4), math.nan), torch.full((2, 3), -1))
    for (targets, labels), mask in ((none, None), (masked, torch.zeros(2, 3, dtype=torch.bool))):
        x, b = logits.clone().requires_grad_(), boxes.clone().requires_grad_()
        terms = detection_terms(
            x, b, targets, labels, target_mask=mask, anchors=points, strides=strides
        )
        torch.testing.assert_close(terms["class"], F.softplus(logits).sum())
        assert all(terms[name] == 0 for name in terms if name != "class")
        sum(terms.values()).backward()
        torch.testing.assert_close(x.grad, logits.sigmoid())
        assert torch.equal(b.grad, torch.zeros_like(boxes))


def test_every_parameter_gets_a_gradient_without_objects():
    """As DistributedDataParallel wants it: no head is left out of the graph."""
    head = torch.nn.ModuleDict({"class": torch.nn.Linear(8, 3), "box": torch.nn.Linear(8, 20)})
    x, points = torch.randn(2, 36, 8), grid(dtype=torch.float32)
    none = ([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2)
    dist = head["box"](x).unflatten(-1, (4, 5))
    loss = detection_loss(head["class"](x), dist, *none, anchors=points, strides=torch.ones(36))
    loss.backward()
    assert all(p.grad is not None for p in head.parameters())
    assert head["class"].bias.grad.abs().min() > 0


def test_an_empty_batch_is_zero():
    logits, boxes, points, _, _ = scene(2)
    leaves = [t[:0].clone().requires_grad_() for t in (logits, boxes)]
    for none in (([], []), (torch.zeros(0, 3, 4), torch.zeros(0, 3, dtype=torch.long))):
        loss = detection_loss(*leaves, *none, anchors=points)
        assert loss == 0
        loss.backward()
        assert all(leaf.grad.shape == leaf.shape for leaf in leaves)


def test_no_predictions_is_zero():
    logits, boxes, points, targets, labels = scene(2)
    leaves = [t[:, :0].clone().requires_grad_() for t in (logits, boxes)]
    loss = detection_loss(*leaves, targets, labels, anchors=points[:0])
    assert loss == 0
    loss.backward()


def test_removed_predictions_may_hold_anything():
    logits, boxes, points, targets, labels = scene(3)
    g = torch.Generator().manual_seed(2)
    keep = torch.rand(36, generator=g) < 0.6
    want_leaves = [t[:, keep].clone().requires_grad_() for t in (logits, boxes)]
    want = detection_loss(*want_leaves, targets, labels, anchors=points[keep])
    want.backward()
    for poison in (math.nan, math.inf, -math.inf):
        leaves = [t.clone() for t in (logits, boxes)]
        for leaf in leaves:
            leaf[:, ~keep] = poison
            leaf.requires_grad_()
        loss = detection_loss(
            *leaves, targets, labels, anchors=points, weight=keep.expand(3, -1).double()
        )
        loss.backward()
        torch.testing.assert_close(loss, want)
        for leaf, other in zip(leaves, want_leaves, strict=True):
            torch.testing.assert_close(leaf.grad[:, keep], other.grad)
            assert torch.equal(leaf.grad[:, ~keep], torch.zeros_like(leaf[:, ~keep]))


def test_background_in_an_ignored_region_does_not_count():
    """ultralytics has no such regions (issue #21079): a crowd counts as background there."""
    logits, boxes, points, targets, labels = scene(2)
    region = torch.tensor([8.0, 8, 40, 40])
    inside = ((points > 8) & (points < 40)).all(-1)
    found = assign(TaskAlignedAssigner(), logits, boxes, points, targets, labels)
    matches = torch.where((found.matches < 0) & inside, -2, found.matches)
    assert (matches == -2).sum() > 10
    assert ((matches >= 0) & inside).any()
    want = detection_loss(
        logits, boxes, targets, labels, matches=matches, match_scores=found.scores
    )
    tensor = F.pad(region.expand(2, 1, 4), (0, 0, 0, 2))  # padded with zeros
    for regions in (tensor, [region[None], region[None]]):
        got = detection_loss(logits, boxes, targets, labels, anchors=points, ignore_regions=regions)
        assert got == want
    nowhere = [torch.zeros(0, 4)] * 2
    given = {"anchors": points, "ignore_regions": nowhere}
    plain = detection_loss(logits, boxes, targets, labels, anchors=points)
    assert detection_loss(logits, boxes, targets, labels, **given) == plain


@pytest.mark.parametrize("listed", [False, True])
def test_anchors_of_integers_are_points(listed):
    logits, boxes, points, targets, labels = scene(2)
    region = [torch.tensor([[3.5, 3.5, 4.5, 20.5]], dtype=points.dtype)] * 2
    regions = region if listed else torch.stack(region)
    want = detection_loss(logits, boxes, targets, labels, anchors=points, ignore_regions=regions)
    whole = points.long()
    assert torch.equal(whole, points)
    given = {"anchors": whole, "ignore_regions": regions}
    assert detection_loss(logits, boxes, targets, labels, **given) == want
    assert detection_loss(logits, boxes, targets, labels, anchors=points) != want


@pytest.mark.parametrize("first", [torch.int64, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("objects", [0, 1])
def test_the_dtype_of_the_first_image_is_not_that_of_all(first, objects):
    """pad_sequence would give every image that of the first: 257 would be 1, and 0.6 be 0."""
    logits, boxes, points, targets, _ = scene(2, 1, classes=300)
    some = torch.tensor([[8.6, 8.6, 30.3, 30.3]], dtype=torch.float64)
    targets = [torch.tensor([[8, 8, 24, 24]])[:objects].double(), some]
    labels = [torch.zeros(objects, dtype=torch.long), torch.tensor([257])]
    want = detection_loss(logits, boxes, targets, labels, anchors=points)
    mixed = [targets[0].to(first), some], [labels[0].to(torch.uint8), labels[1]]
    assert detection_loss(logits, boxes, *mixed, anchors=points) == want
    if not objects:
        mixed = mixed[0], [torch.tensor([]), labels[1]]
        assert detection_loss(logits, boxes, *mixed, anchors=points) == want


def test_focal_loss_is_not_averaged_before_it_is_divided():
    """ultralytics #2789: with its FocalLoss, which averages by itself, the loss is 5e-05."""
    logits, boxes, points, targets, labels = scene(3)
    found = assign(TaskAlignedAssigner(), logits, boxes, points, targets, labels)
    hard = torch.zeros_like(logits)
    for image, a in (found.matches >= 0).nonzero().tolist():
        hard[image, a, labels[image][found.matches[image, a]]] = 1
    want = focal_loss(logits, hard, reduction="sum") / hard.sum()
    given = (logits, boxes, targets, labels)
    for loss in (focal_loss, FocalLoss(), FocalLoss(reduction="sum")):
        got = detection_terms(*given, anchors=points, class_loss=loss, hard_scores=True)["class"]
        torch.testing.assert_close(got, want)
        module = DetectionLoss(class_loss=loss, hard_scores=True)
        torch.testing.assert_close(module.terms(*given, anchors=points)["class"], want)


@pytest.mark.parametrize("class_loss", [varifocal_loss, quality_focal_loss])
def test_losses_of_soft_scores_take_the_class_term(class_loss):
    logits, boxes, points, targets, labels = scene(3)
    found = assign(TaskAlignedAssigner(), logits, boxes, points, targets, labels)
    soft = torch.zeros_like(logits)
    for image, a in (found.matches >= 0).nonzero().tolist():
        soft[image, a, labels[image][found.matches[image, a]]] = found.scores[image, a]
    want = class_loss(logits, soft, reduction="sum") / soft.sum()
    given = {"anchors": points, "class_loss": class_loss}
    torch.testing.assert_close(
        detection_terms(logits, boxes, targets, labels, **given)["class"], want
    )


def test_soft_scores_are_refused_by_a_loss_of_hard_scores():
    logits, boxes, points, targets, labels = scene(3)
    with pytest.raises(ValueError, match="wanted 0 or 1"):
        detection_loss(logits, boxes, targets, labels, anchors=points, class_loss=focal_loss)


@pytest.mark.parametrize("loss", [giou_loss, GIoULoss(), GIoULoss(reduction="sum"), "own"])
def test_the_box_loss_is_swapped(loss):
    """A request of ultralytics #7925, yolov5 #8138, torchvision #3026."""

    def own(x, target, *, weight, reduction):
        assert reduction == "sum"
        return (weight.unsqueeze(-1) * (x - target).abs()).sum()

    logits, boxes, points, targets, labels = scene(3)
    found = assign(TaskAlignedAssigner(), logits, boxes, points, targets, labels)
    total = 0.0
    for image, a in (found.matches >= 0).nonzero().tolist():
        pair = boxes[image, a], targets[image][found.matches[image, a]]
        value = (pair[0] - pair[1]).abs().sum() if loss == "own" else giou_loss(*pair)
        total += found.scores[image, a] * value
    loss = own if loss == "own" else loss
    got = detection_terms(logits, boxes, targets, labels, anchors=points, box_loss=loss)
    torch.testing.assert_close(got["box"], total / found.scores.sum())


def test_a_module_that_is_passed_stays_as_it_was():
    box_loss = CIoULoss(gate=True)
    loss = DetectionLoss(box_loss=box_loss)
    assert box_loss.reduction == "mean"
    assert f"box_loss={CIoULoss(gate=True, reduction='sum')!r}" in repr(loss)
    logits, boxes, points, targets, labels = scene(2)
    want = loss(logits, boxes, targets, labels, anchors=points)
    for again in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert again(logits, boxes, targets, labels, anchors=points) == want


def test_the_tensors_of_a_module_that_is_passed_follow_the_loss():
    class_loss = FocalLoss(alpha=torch.tensor([0.2, 0.5, 0.7]), class_dim=-1)
    loss = DetectionLoss(class_loss=class_loss, hard_scores=True)
    assert list(loss.state_dict()) == ["class_loss.alpha"]
    assert loss.double().class_loss.alpha.dtype == torch.float64
    logits, boxes, points, targets, labels = scene(2)
    terms = loss.terms(logits, boxes, targets, labels, anchors=points)
    assert terms["class"].isfinite()


@pytest.mark.parametrize(
    "option", [{"reduction": "sum"}, {"assigner": "junk"}, {"box_loss": giou_loss}, {"box_gain": 1}]
)
def test_terms_take_the_options_of_the_module_alone(option):
    logits, boxes, points, targets, labels = scene(2)
    with pytest.raises(TypeError, match=next(iter(option))):
        DetectionLoss().terms(logits, boxes, targets, labels, anchors=points, **option)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (
            {"class_loss": "focal"},
            TypeError,
            r"class_loss: got .focal., wanted a loss of yes",
        ),
        ({"box_loss": GIoULoss}, TypeError, r"box_loss: got <class .*GIoULoss\(\)"),
        ({"assigner": "task"}, TypeError, r"assigner: got 'task', wanted an instance"),
        ({"strides": 8.0}, TypeError, r"strides: got 8.0, wanted a tensor with one for each"),
        (
            {"class_weight": [1.0, 2.0]},
            ValueError,
            r"class_weight: got shape \(2,\), wanted",
        ),
        ({"class_loss": cross_entropy}, ValueError, r"class_loss: cross_entropy .* yes-or-no"),
        ({"class_loss": FocalLoss()}, ValueError, r"class_loss: FocalLoss .* hard_scores=True"),
        ({"class_loss": CrossEntropyLoss()}, TypeError, r"class_loss: CrossEntropyLoss .*'weight'"),
        ({"class_loss": torch.nn.BCELoss()}, TypeError, r"class_loss: BCELoss raised TypeError"),
    ],
)
def test_a_part_that_does_not_serve_is_named(options, error, said):
    logits, boxes, points, targets, labels = scene()
    with pytest.raises(error, match=said):
        detection_loss(logits, boxes, targets, labels, **{"anchors": points, **options})


@pytest.mark.parametrize("name", ["class_loss", "box_loss", "assigner"])
def test_the_module_refuses_what_cannot_be_called(name):
    with pytest.raises(TypeError, match=f"{name}: got 'focal', wanted"):
        DetectionLoss(**{name: "focal"})


@pytest.mark.parametrize("name", ["class_loss", "box_loss"])
@pytest.mark.parametrize("module", [DetectionLoss, DETRLoss])
def test_the_module_refuses_a_module_that_is_no_loss(module, name):
    with pytest.raises(
        TypeError, match=f"{name}: got Identity, wanted a module with a 'reduction'"
    ):
        module(**{name: torch.nn.Identity()})


def test_class_weights_may_be_a_list():
    logits, boxes, points, targets, labels = scene()
    given, weight = (logits, boxes, targets, labels), [0.1, 1.0, 2.5]
    want = detection_loss(*given, anchors=points, class_weight=torch.tensor(weight).double())
    got = detection_loss(*given, anchors=points, class_weight=weight)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_an_assigner_of_ones_own_gives_constants():
    logits, boxes, points, targets, labels = scene(2)
    matches = torch.full((2, 36), -1)
    matches[0, :4] = torch.arange(4)
    outer = logits.clone().requires_grad_()

    def own(x, boxes, anchors, target_boxes, target_labels, target_mask, anchor_mask, strides):
        assert not torch.is_grad_enabled()
        return Assignment(matches, outer.sigmoid().amax(-1))

    leaf = logits.clone().requires_grad_()
    options = {"anchors": points, "assigner": own}
    detection_loss(leaf, boxes, targets, labels, **options).backward()
    frozen = logits.clone().requires_grad_()
    scores = logits.sigmoid().amax(-1)
    options = {"matches": matches, "match_scores": scores}
    detection_loss(frozen, boxes, targets, labels, **options).backward()
    assert torch.equal(leaf.grad, frozen.grad)
    assert outer.grad is None


@pytest.mark.parametrize(
    ("matches", "error", "said"),
    [
        (torch.zeros(2, 36), TypeError, "matches: got torch.float32"),
        (torch.full((2, 36), 7), ValueError, "matches: got 7"),
        (torch.full((2, 36), 3), ValueError, "matches: got 3"),  # the second image has three
        (torch.full((1, 36), -1), ValueError, "matches: "),
    ],
)
def test_an_assigner_of_ones_own_is_held_to_the_targets(matches, error, said):
    logits, boxes, points, targets, labels = scene(2)
    given = {"anchors": points, "assigner": lambda *_, **__: Assignment(matches, torch.ones(2, 36))}
    with pytest.raises(error, match=said):
        detection_loss(logits, boxes, targets, labels, **given)


@pytest.mark.parametrize("wrong", [-3, -7, 3, 4])
def test_a_wrong_match_fails_where_values_cannot_be_read(wrong):
    """As under compile and on CUDA: 3 is padding of the second image, 4 of none."""
    logits, boxes, _, targets, labels = scene(2)
    matches = torch.full((2, 36), -1)
    matches[1, 5] = wrong

    def loss(x):
        return detection_loss(x, boxes, targets, labels, matches=matches)

    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        torch.func.grad(loss)(logits)


@pytest.mark.parametrize("distribution", [False, True])
def test_it_maps_over_predictions_of_shared_targets(distribution):
    """As an ensemble has it: the predictions are batched, the targets are not."""
    logits, boxes, points, targets, labels = scene(3, 3)
    if distribution:
        boxes = torch.randn(3, 36, 4, 5, dtype=torch.float64)
    given = {"anchors": points, "strides": torch.full((36,), 8.0, dtype=torch.float64)}

    def loss(x, b):
        return detection_loss(x[None], b[None], targets[:1], labels[:1], **given)

    for dims in ((0, 0), (0, None), (None, 0)):
        x, b = (t if d == 0 else t[0] for t, d in zip((logits, boxes), dims, strict=True))
        each = [
            loss(*(t[i] if d == 0 else t for t, d in zip((x, b), dims, strict=True)))
            for i in range(3)
        ]
        torch.testing.assert_close(torch.func.vmap(loss, dims)(x, b), torch.stack(each))


def test_the_readme_of_losses_by_default():
    assert repr(DetectionLoss()) == (
        "DetectionLoss(assigner=TaskAlignedAssigner(topk=10, alpha=0.5, beta=6.0, overlap=None), "
        "class_loss=binary_cross_entropy, box_loss=ciou_loss, class_weight=None, "
        "hard_scores=False, no_object=None, box_format='xyxy', class_gain=0.5, box_gain=7.5, "
        "dfl_gain=1.5, reduction='mean')"
    )


@pytest.mark.parametrize("distribution", [False, True])
def test_ragged_micro_batches_with_a_shared_normalizer_are_the_whole_batch(distribution):
    """ultralytics divides by each part's own S: sums 10 and 2 with 10 and 1 give 1.5, not 12/11."""
    logits, boxes, points, targets, labels = scene(7, seed=4)
    given = {"anchors": points, "strides": torch.full((36,), 8.0, dtype=torch.float64)}
    if distribution:
        boxes = torch.randn(7, 36, 4, 6, dtype=torch.float64)
    leaves = [t.clone().requires_grad_() for t in (logits, boxes)]

    def loss(part, **options):
        x, b = (leaf[part] for leaf in leaves)
        return detection_loss(x, b, targets[part], labels[part], **given, **options)

    counts = {}

    def note(total, count, *, term):
        counts[term] = counts.get(term, 0) + count.detach()
        return total

    def share(total, count, *, term):
        return total / counts[term]

    whole = loss(slice(7))
    want = torch.autograd.grad(whole, leaves)
    parts = [slice(0, 4), slice(4, 4), slice(4, 5), slice(5, 7)]
    for part in parts:
        loss(part, reduction=note)
    assert set(counts) == {"class", "box"} | ({"dfl"} if distribution else set())
    together = sum(loss(part, reduction=share) for part in parts)
    torch.testing.assert_close(together, whole)
    torch.testing.assert_close(torch.autograd.grad(together, leaves), want)


def test_lists_and_padding_agree():
    logits, boxes, points, targets, labels = scene(4)
    goals, classes, mask = padded(targets, labels)
    listed = detection_loss(logits, boxes, targets, labels, anchors=points)
    assert listed == detection_loss(logits, boxes, goals, classes, target_mask=mask, anchors=points)
    assert listed == detection_loss(logits, boxes, goals, classes, anchors=points)  # label -1
    each = points.expand(4, -1, -1)
    assert listed == detection_loss(logits, boxes, targets, labels, anchors=each)


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
def test_another_unit_changes_nothing(scale):
    """Row 5: every peer's epsilons swallow boxes of side 1e-4."""
    logits, boxes, points, targets, labels = scene(3, dtype=torch.float32)
    want = detection_loss(logits, boxes, targets, labels, anchors=points)
    scaled = [t * scale for t in targets]
    got = detection_loss(logits, boxes * scale, scaled, labels, anchors=points * scale)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_boxes_in_half_precision(dtype):
    """Row 6: from 182 pixels on, areas overflow in float16 in mmdetection and ultralytics."""
    target = torch.tensor([[[0.0, 0, 640, 512]]])
    boxes = torch.tensor([[[0.0, 0, 512, 512], [64, 64, 640, 512]]], dtype=dtype)
    boxes.requires_grad_()
    logits = torch.zeros(1, 2, 1, dtype=dtype, requires_grad=True)
    points = torch.tensor([[100.0, 100], [300, 300]])
    given = (target, torch.tensor([[0]]))
    loss = detection_loss(logits, boxes, *given, anchors=points)
    truth = detection_loss(logits.double(), boxes.double(), *given, anchors=points.double())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), truth, rtol=1e-6, atol=0)
    loss.backward()
    assert boxes.grad.isfinite().all()
    assert boxes.grad.abs().max() > 0


def test_a_perfect_box_of_float32_gives_zero_not_nan():
    """Row 1: mmdetection's CIoU of identical boxes is NaN, in loss and gradient."""
    logits, boxes, _, targets, labels = scene(1, dtype=torch.float32)
    matches = torch.full((1, 36), -1)
    matches[0, :4] = torch.arange(4)
    boxes = boxes.clone()
    boxes[0, :4] = targets[0]
    boxes.requires_grad_()
    term = detection_terms(logits, boxes, targets, labels, matches=matches)["box"]
    assert term == 0
    term.backward()
    assert boxes.grad.isfinite().all()


def test_one_broken_prediction_is_in_the_sum_only_if_it_counts():
    """Row 22: one NaN row poisons the mean everywhere; here weight 0 takes it out."""
    logits, boxes, points, targets, labels = scene(2)
    boxes = boxes.clone()
    boxes[0, 0] = math.nan
    matches = torch.full((2, 36), -1)
    matches[0, 0] = 0
    weight = torch.ones(2, 36)
    weight[0, 0] = 0
    for how in ({"matches": matches}, {"anchors": points}):
        assert detection_loss(logits, boxes, targets, labels, **how).isnan()
        assert detection_loss(logits, boxes, targets, labels, weight=weight, **how).isfinite()


class _Gamma3(FocalLoss):
    """Built in its own way, as one's own modules may be."""

    def __init__(self):
        super().__init__(gamma=3.0, alpha=torch.tensor([0.2, 0.3, 0.4]), class_dim=-1)


@pytest.mark.parametrize(
    "loss",
    [
        detection_loss,
        DetectionLoss(box_loss=GIoULoss()),
        partial(detection_loss, class_loss=_Gamma3(), hard_scores=True),
    ],
    ids=["function", "module", "function of a module"],
)
def test_it_compiles_to_one_graph(loss):
    logits, boxes, points, targets, labels = scene(3)
    goals, classes, mask = padded(targets, labels)

    def call(x, b):
        return loss(x, b, goals, classes, target_mask=mask, anchors=points)

    torch.compiler.reset()
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, boxes), call(logits, boxes))
    torch.compiler.reset()


def test_walking_in_blocks_changes_nothing():
    logits, _, points, targets, labels = scene(3)
    dist = torch.randn(3, 36, 4, 5, dtype=torch.float64)
    given = {"anchors": points, "strides": torch.full((36,), 8.0, dtype=torch.float64)}
    results = []
    for blocks in (False, True):
        leaves = [t.clone().requires_grad_() for t in (logits, dist)]
        if blocks:
            with in_blocks(16) as walked:
                loss = detection_loss(*leaves, targets, labels, **given)
                loss.backward()
            assert (
                len(walked.walks) >= 3
            )  # one for each term, and back for those that are not taken along
        else:
            loss = detection_loss(*leaves, targets, labels, **given)
            loss.backward()
        results.append((loss.detach(), *(leaf.grad for leaf in leaves)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_inputs_are_left_alone():
    logits, boxes, points, targets, labels = scene(2)
    goals, classes, mask = padded(targets, labels)
    given = [logits, boxes, goals, classes, mask, points]
    before, versions = [t.clone() for t in given], [t._version for t in given]
    detection_loss(logits, boxes, goals, classes, target_mask=mask, anchors=points)
    assert [t._version for t in given] == versions
    for t, b in zip(given, before, strict=True):
        assert torch.equal(t.nan_to_num(7), b.nan_to_num(7))


def _broken(targets, left):
    boxes = targets[0].clone()
    boxes[2, 0] = left
    return [boxes, *targets[1:]]


def _refusals():
    logits, boxes, points, targets, labels = scene(2)
    good = {
        "class_logits": logits,
        "pred_boxes": boxes,
        "target_boxes": targets,
        "target_labels": labels,
        "anchors": points,
    }
    matches, dist = torch.full((2, 36), -1), torch.zeros(2, 36, 4, 5)
    changes = {
        "class_logits": {"class_logits": logits[0]},
        "pred_boxes: ": {"pred_boxes": boxes[:, :5]},
        "target_boxes: got 1 tensors for 2": {"target_boxes": targets[:1]},
        "target_labels: of image 1": {"target_labels": [labels[0], labels[1][:1]]},
        "target_boxes: of image 0": {"target_boxes": [targets[0][:, :3], targets[1]]},
        "target_labels: wanted a tensor or a list": {"target_labels": torch.zeros(2, 4).long()},
        "target_labels: got class 3": {"target_labels": [labels[0] * 0 + 3, labels[1]]},
        "target_labels: got class -2": {"target_labels": [labels[0] * 0 - 2, labels[1]]},
        "class_logits: got .2, 36, 0., with no class": {"class_logits": logits[..., :0]},
        "target_boxes: image 0, row 2 is .nan": {"target_boxes": _broken(targets, math.nan)},
        "target_boxes: image 0, row 2 is .inf": {"target_boxes": _broken(targets, math.inf)},
        "target_boxes: image 0, row 2 is .999": {"target_boxes": _broken(targets, 999.0)},
        "target_mask: got a mask for lists": {"target_mask": torch.ones(2, 4).bool()},
        "anchors: got None": {"anchors": None},
        "anchors: ": {"anchors": points[:5]},
        "strides: got None": {"pred_boxes": torch.zeros(2, 36, 4, 5)},
        "strides: ": {"pred_boxes": torch.zeros(2, 36, 4, 5), "strides": torch.ones(5)},
        "strides: got 0.0": {"pred_boxes": dist, "strides": torch.arange(36)},
        "strides: got -1.0": {"pred_boxes": dist, "strides": -torch.ones(36)},
        "strides: got nan": {"pred_boxes": dist, "strides": torch.full((2, 36), math.nan)},
        "weight: ": {"weight": torch.ones(36)},
        "ignore_regions: ": {"ignore_regions": torch.zeros(2, 4)},
        "ignore_regions: of image 0": {"ignore_regions": [torch.zeros(4), torch.zeros(0, 4)]},
        "matches: ": {"matches": matches[:1]},
        "matches: got 4": {"matches": matches + 5},
        "matches: got -3": {"matches": matches - 2},
        "match_scores: got scores, but no matches": {"match_scores": torch.ones(2, 36)},
        "match_scores: ": {"matches": matches, "match_scores": torch.ones(36)},
        "class_weight": {"class_weight": torch.ones(4)},
        "class_gain": {"class_gain": -1.0},
        "box_gain": {"box_gain": -1.0},
        "dfl_gain": {"dfl_gain": -1.0},
        "reduction": {"reduction": "none"},
        "box_loss: returned shape": {"box_loss": lambda *_, weight, reduction: weight},
    }
    return [pytest.param({**good, **change}, said, id=said) for said, change in changes.items()]


@pytest.mark.parametrize(("given", "said"), _refusals())
def test_what_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        detection_loss(**given)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class_logits": torch.zeros(2, 36, 3).long()}, "class_logits"),
        ({"target_labels": [torch.zeros(4), torch.zeros(3)]}, "target_labels"),
        ({"target_labels": [torch.zeros(4).long(), torch.full((3,), 1.7)]}, "target_labels"),
        ({"target_boxes": [torch.zeros(4, 4), torch.zeros(3, 4) * 1j]}, "target_boxes"),
        ({"anchors": torch.zeros(36, 2) * 1j}, "anchors"),
        ({"weight": torch.zeros(2, 36) * 1j}, "weight"),
        ({"matches": torch.zeros(2, 36)}, "matches"),
        ({"matches": torch.zeros(2, 36) * 1j}, "matches"),
        ({"box_loss": torch.nn.Identity()}, "box_loss"),
    ],
)
def test_what_is_refused_by_its_type(change, said):
    logits, boxes, points, targets, labels = scene(2)
    good = {"class_logits": logits, "pred_boxes": boxes, "target_boxes": targets}
    good |= {"target_labels": labels, "anchors": points}
    with pytest.raises(TypeError, match=said):
        detection_loss(**{**good, **change})


def test_a_match_with_padding_is_refused():
    logits, boxes, _, targets, labels = scene(2)
    goals, classes, mask = padded(targets, labels)
    matches = torch.full((2, 36), -1)
    matches[0, 3] = goals.shape[1] - 1
    with pytest.raises(ValueError, match="matches: got 5"):
        detection_loss(logits, boxes, goals, classes, target_mask=mask, matches=matches)


def test_the_default_box_loss_is_ciou():
    logits, boxes, points, targets, labels = scene(2)
    given = (logits, boxes, targets, labels)
    terms = detection_terms(*given, anchors=points)
    assert terms["box"] == detection_terms(*given, anchors=points, box_loss=ciou_loss)["box"]
    assert terms["box"] != detection_terms(*given, anchors=points, box_loss=box_iou_loss)["box"]


def test_the_last_of_256_classes_is_no_padding():
    # as uint8, -1 is 255
    logits, boxes = torch.linspace(-1, 1, 256).view(1, 1, -1), torch.tensor([[[0.0, 0, 2, 2]]])
    given = {"anchors": torch.ones(1, 2), "reduction": "sum"}
    labels = torch.tensor([[255]])
    expected = detection_loss(logits, boxes, boxes, labels, **given)
    assert detection_loss(logits, boxes, boxes, labels.to(torch.uint8), **given) == expected
    assert detection_loss(logits, boxes, boxes, torch.tensor([[-1]]), **given) != expected


# --------------------------------------------------------------------------------- what is NaN


def _spoiled(*, dense, at=4):
    """A batch of one image with 6 predictions, of which one says NaN and is no target's."""
    points = torch.tensor([[1.0, 1], [3, 1], [5, 1], [1, 3], [3, 3], [5, 3]])
    boxes = torch.cat((points - 1, points + 1), 1)[None]
    if dense:
        boxes = torch.zeros(1, 6, 4, 3)
    boxes[0, at].view(-1)[1] = math.nan
    sides = {"anchors": points, "strides": torch.ones(6)} if dense else {"anchors": points}
    return {
        "class_logits": torch.zeros(1, 6, 2),
        "pred_boxes": boxes.requires_grad_(),
        "target_boxes": torch.tensor([[[0.0, 0, 2, 2]]]),
        "target_labels": torch.tensor([[1]]),
        **sides,
    }


@pytest.mark.parametrize("dense", [False, True])
def test_nan_in_a_box_that_the_assigner_passes_over_is_nan_in_the_loss_and_its_slope(dense):
    call = _spoiled(dense=dense)
    loss = detection_loss(**call)
    assert loss.isnan()
    loss.backward()
    assert call["pred_boxes"].grad[0, 4].isnan().any()
    assert call["pred_boxes"].grad[0, 0].isfinite().all()


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    "removed",
    [
        {"weight": torch.tensor([[1.0, 1, 1, 1, 0, 1]])},
        {"ignore_regions": torch.tensor([[[2.0, 2.0, 4.0, 4.0]]])},
        {"matches": torch.tensor([[0, -1, -1, -1, -1, -1]])},
        {"matches": torch.tensor([[0, -1, -1, -1, -2, -1]])},
    ],
)
def test_nan_in_a_box_that_has_no_part_is_nothing(dense, removed):
    call = _spoiled(dense=dense)
    loss = detection_loss(**call, **removed)
    clean = torch.where(call["pred_boxes"].isnan(), 0.0, call["pred_boxes"].detach())
    torch.testing.assert_close(loss, detection_loss(**call | {"pred_boxes": clean}, **removed))
    loss.backward()
    assert call["pred_boxes"].grad.isfinite().all()
    assert call["pred_boxes"].grad[0, 4].eq(0).all()
