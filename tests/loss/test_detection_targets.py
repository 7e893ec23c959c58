"""Detection: what targets may be. Several classes, or none; a softmax; boxes of any kind."""

import math

import pytest
import torch
from torch.nn import functional as F

from aptt.loss import (
    ATSSAssigner,
    DetectionLoss,
    FocalLoss,
    HungarianMatcher,
    SimOTAAssigner,
    TaskAlignedAssigner,
    ciou_loss,
    cross_entropy,
    detection_loss,
    detection_terms,
    detr_terms,
    focal_loss,
    giou_loss,
    match_cost,
    probiou_loss,
)

FORMATS = {
    "xywh": lambda b: torch.cat((b[..., :2], b[..., 2:] - b[..., :2]), -1),
    "cxcywh": lambda b: torch.cat(((b[..., :2] + b[..., 2:]) / 2, b[..., 2:] - b[..., :2]), -1),
}


def scene(seed=0, *, classes=3, images=2, most=3, dtype=torch.float64):
    """On a grid, so that every format holds the same corners to the last digit."""
    g = torch.Generator().manual_seed(seed)
    along = (torch.arange(5, dtype=dtype) + 0.5) * 8
    points = torch.cartesian_prod(along, along).flip(1)
    reach = torch.randint(1, 14, (images, 25, 4), generator=g).to(dtype)
    boxes = torch.cat((points - reach[..., :2], points + reach[..., 2:]), -1)
    corner = torch.randint(-4, 28, (images, most, 2), generator=g).to(dtype)
    size = 2 * torch.randint(2, 12, corner.shape, generator=g).to(dtype)
    goals = torch.cat((corner, corner + size), -1)
    logits = torch.randn(images, 25, classes, generator=g, dtype=dtype)
    labels = torch.randint(classes, (images, most), generator=g)
    matches = torch.randint(-2, most, (images, 25), generator=g)
    return (logits, boxes, goals, labels), points, matches


def several(labels, classes):
    return F.one_hot(labels, classes).double()


# Several classes.


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.int64, torch.bool])
@pytest.mark.parametrize("listed", [False, True])
def test_one_class_in_two_ways_is_one_loss_to_the_last_bit(kind, listed):
    (x, b, goals, labels), points, _ = scene()
    hot = F.one_hot(labels, 3).to(kind)
    weight = torch.tensor([0.5, 2.0, 3.0]).double()
    how = {"anchors": points, "class_weight": weight}
    want = detection_loss(x, b, goals, labels, **how)
    given = (list(goals), list(hot)) if listed else (goals, hot)
    assert torch.equal(detection_loss(x, b, *given, **how), want)


def test_a_target_of_two_classes_has_the_targets_of_both():
    (x, b, goals, labels), _, matches = scene()
    matches = matches.clamp(max=0)
    both = torch.zeros(2, 3, 3).double()
    both[:, 0, 0] = both[:, 0, 2] = 1
    how = {"matches": matches, "reduction": "sum"}
    got = detection_terms(x, b, goals, both, **how)
    of = {c: detection_terms(x, b, goals, labels * 0 + c, **how) for c in (0, 2)}
    none = detection_terms(x, b, goals, labels, **{**how, "matches": matches.clamp(max=-1)})
    want = of[0]["class"] + of[2]["class"] - none["class"]
    torch.testing.assert_close(got["class"], want)
    torch.testing.assert_close(got["box"], of[0]["box"])


def test_two_classes_by_hand():
    """One prediction of logits 0, target (1, 0, 0.25): each BCE is log 2, whatever it is asked."""
    x, box = torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    labels, matches = torch.tensor([[[1.0, 0.0, 0.25]]]), torch.tensor([[0]])
    leaf = x.clone().requires_grad_()
    terms = detection_terms(leaf, box, box, labels, matches=matches)
    assert terms["class"].item() == pytest.approx(3 * math.log(2))
    terms["class"].backward()
    torch.testing.assert_close(leaf.grad, 0.5 - labels)
    weight = torch.tensor([4.0, 1.0, 1.0])
    weighed = detection_terms(x, box + 1, box, labels, matches=matches, class_weight=weight)
    share = (4 * 1 + 1 * 0.25) / 1.25  # the mean weight of its classes
    whole = detection_terms(x, box + 1, box, labels, matches=matches, reduction="sum")
    assert weighed["box"].item() == pytest.approx(whole["box"].item() * share / share)
    total = detection_terms(
        x, box + 1, box, labels, matches=matches, class_weight=weight, reduction="sum"
    )
    assert total["box"].item() == pytest.approx(whole["box"].item() * share)


def test_a_target_of_no_class_teaches_boxes_alone():
    """It is not known what it is, and so not said that it is nothing."""
    (x, b, goals, _), _, _ = scene(images=1)
    labels = torch.zeros(1, 3, 3).double()
    labels[:, 1, 2] = 1
    matches = torch.full((1, 25), -1)
    matches[0, :3] = torch.tensor([0, 0, 1])
    leaf, boxes = x.clone().requires_grad_(), b.clone().requires_grad_()
    terms = detection_terms(leaf, boxes, goals, labels, matches=matches, reduction="sum")
    sum(terms.values()).backward()
    assert (leaf.grad[0, :2] == 0).all()
    assert (leaf.grad[0, 2:] != 0).all()
    assert (boxes.grad[0, :3].abs().sum(-1) > 0).all()
    weight = [1.0, 5.0, 7.0]
    how = {"matches": matches, "class_weight": weight, "reduction": "sum"}
    weighed = detection_terms(x, b, goals, labels, **how)
    per_row = ciou_loss(b[0, :3], goals[0][[0, 0, 1]], reduction="none")
    assert weighed["box"].item() == pytest.approx((per_row * torch.tensor([1, 1, 7])).sum().item())


def test_soft_labels_have_a_gradient_and_focal_loss_refuses_them():
    (x, b, goals, labels), _, matches = scene()
    soft = (several(labels, 3) * 0.7).requires_grad_()
    detection_loss(x, b, goals, soft, matches=matches).backward()
    assert (soft.grad != 0).any()
    with pytest.raises(ValueError, match="class_loss: focal_loss raised"):
        detection_loss(x, b, goals, soft, matches=matches, class_loss=focal_loss)
    detection_loss(x, b, goals, several(labels, 3), matches=matches, class_loss=focal_loss)


def test_an_assigner_looks_at_all_classes_of_a_target():
    """t = p**alpha u**beta, log p the mean over its classes: 0.9 and 0.1 are as good as 0.3."""
    p = torch.tensor([[[0.9, 0.1], [0.31, 0.31], [0.5, 0.01]]])
    box = torch.tensor([[[0.0, 0, 8, 8]]])
    given = p.logit(), box.expand(1, 3, 4), torch.full((3, 2), 4.0), box
    both, there = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[True]])
    got = TaskAlignedAssigner(topk=3, alpha=1.0)(*given, both, there)
    mean = (p[0, :, 0] * p[0, :, 1]).sqrt()
    torch.testing.assert_close(got.scores[0], mean / mean.max())
    masked = p.logit()
    masked[0, 1, 1] = -torch.inf  # of a class that is there: no candidate
    got = TaskAlignedAssigner(topk=3, alpha=1.0)(masked, *given[1:], both, there)
    assert got.matches.tolist() == [[0, -1, 0]]
    other = TaskAlignedAssigner(topk=3, alpha=1.0)(
        masked, *given[1:], torch.tensor([[[1.0, 0.0]]]), there
    )
    assert other.matches.tolist() == [[0, 0, 0]]
    none = TaskAlignedAssigner(topk=3, alpha=1.0)(*given, both * 0, there)
    assert none.scores.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("class_cost", ["focal", "softmax"])
def test_a_matcher_costs_the_mean_of_a_targets_classes(class_cost):
    (x, b, goals, labels), _, _ = scene()
    how = {"class_cost": class_cost, "l1_gain": 0.0, "giou_gain": 0.0}
    each = match_cost(x, b, goals, labels, box_format="xyxy", **how)
    other = match_cost(x, b, goals, (labels + 1) % 3, box_format="xyxy", **how)
    both = several(labels, 3) + several((labels + 1) % 3, 3)
    there = torch.ones(2, 3, dtype=torch.bool)
    found = HungarianMatcher(**how)(x, b, None, goals, both, there)
    want = HungarianMatcher(**{**how, "class_cost": lambda *_: (each + other) / 2})
    assert torch.equal(found.matches, want(x, b, None, goals, labels, there).matches)
    loss = detection_loss(x, b, goals, both, assigner=HungarianMatcher(**how))
    assert loss.isfinite()


def test_a_class_that_an_image_was_not_annotated_for_does_not_count():
    (x, b, goals, labels), points, _ = scene()
    labels = labels % 2
    mask = torch.tensor([[True, True, False], [True, True, True]])
    spoiled = x.clone()
    spoiled[0, :, 2] = math.nan
    leaf = spoiled.clone().requires_grad_()
    got = detection_terms(leaf, b, goals, labels, anchors=points, class_mask=mask)
    sum(got.values()).backward()
    assert (leaf.grad[0, :, 2] == 0).all()
    how = {"anchors": points, "reduction": "sum"}
    one = []
    for i, n in enumerate((2, 3)):
        part = (t[i : i + 1] for t in (x[..., :n], b, goals, labels))
        one.append(detection_terms(*part, **how))
    whole = detection_terms(x, b, goals, labels, anchors=points, reduction="sum")
    alone = detection_terms(
        spoiled, b, goals, labels, anchors=points, class_mask=mask, reduction="sum"
    )
    torch.testing.assert_close(alone["class"], one[0]["class"] + one[1]["class"])
    torch.testing.assert_close(alone["box"], whole["box"])


# A softmax.


def test_a_softmax_is_the_set_losss_where_scores_are_1():
    (x, b, goals, labels), _, _ = scene(classes=4, images=1)
    labels = labels % 3
    matches = torch.full((1, 25), -1)
    matches[0, [4, 7, 20]] = torch.tensor([2, 0, 1])
    how = {"matches": matches, "no_object": 0.1}
    got = detection_terms(x, b, goals, labels, **how)
    want = detr_terms(x, b, goals, labels, box_format="xyxy", **how)
    torch.testing.assert_close(got["class"], want["class"])
    target = torch.full((25,), 3)
    target[[4, 7, 20]] = labels[0, matches[0, [4, 7, 20]]]
    weight = torch.tensor([1.0, 1, 1, 0.1]).double()
    by_hand = F.cross_entropy(x[0], target, weight=weight)
    torch.testing.assert_close(got["class"], by_hand)


def test_what_a_score_leaves_is_no_objects():
    """Target (0.75, 0, 0.25) of logits 0, weights (1, 2, 0.5): log 3, whatever weighs."""
    x, box = torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    leaf = x.clone().requires_grad_()
    scores, weight = torch.tensor([[0.75]]), [1.0, 2.0]
    how = {"matches": torch.tensor([[0]]), "match_scores": scores, "no_object": 0.5}
    terms = detection_terms(leaf, box, box, torch.tensor([[0]]), class_weight=weight, **how)
    assert terms["class"].item() == pytest.approx(math.log(3))
    terms["class"].backward()
    q = torch.tensor([0.75, 0.0, 0.25 * 0.5])
    torch.testing.assert_close(leaf.grad[0, 0], (q.sum() / 3 - q) / q.sum())
    two = torch.tensor([[[1.0, 1.0]]])  # which share the score
    terms = detection_terms(x, box, box, two, reduction="sum", **how)
    assert terms["class"].item() == pytest.approx((0.75 + 0.125) * math.log(3))


def test_an_assigner_is_told_the_chances_of_a_softmax():
    (x, b, goals, labels), points, _ = scene(classes=4)
    labels, seen = labels % 3, []

    def spy(logits, *given, **more):
        seen.append(logits)
        return TaskAlignedAssigner()(logits, *given, **more)

    detection_loss(x, b, goals, labels, anchors=points, no_object=1.0, assigner=spy)
    torch.testing.assert_close(seen[0].sigmoid(), x.softmax(-1)[..., :3])
    sure = torch.tensor([[[6e4, 0.0, -math.inf, 0.0]]]).expand(2, 25, 4).double()
    detection_loss(sure, b, goals, labels, anchors=points, no_object=1.0, assigner=spy)
    assert torch.equal(seen[1].sigmoid(), torch.tensor([1.0, 0, 0]).double().expand(2, 25, 3))
    assert not seen[1].isnan().any()


@pytest.mark.parametrize("class_cost", ["focal", "softmax"])
def test_a_matcher_beside_a_softmax(class_cost):
    """The softmax cost is of the logits as they are, as in DETR."""
    (x, b, goals, labels), _, _ = scene(classes=4)
    labels = labels % 3
    how = {"l1_gain": 0.0, "giou_gain": 0.0, "class_cost": class_cost}
    p = x.softmax(-1)[..., :3]
    logits = x if class_cost == "softmax" else p.logit()
    there = torch.ones(2, 3, dtype=torch.bool)
    matches = HungarianMatcher(**how)(logits, b, None, goals, labels, there).matches
    want = detection_loss(x, b, goals, labels, matches=matches, no_object=0.1)
    got = detection_loss(x, b, goals, labels, assigner=HungarianMatcher(**how), no_object=0.1)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)


def test_a_softmax_without_objects_still_penalises_what_it_sees():
    (x, b, _, _), points, _ = scene(classes=4)
    none = [torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2
    leaf = x.clone().requires_grad_()
    terms = detection_terms(leaf, b, *none, anchors=points, no_object=0.1)
    want = cross_entropy(x.flatten(0, 1), torch.full((50,), 3))
    torch.testing.assert_close(terms["class"], want)
    sum(terms.values()).backward()
    assert (leaf.grad != 0).all()


def test_counts_are_shared_by_rank_and_micro_batch_with_a_softmax():
    (x, b, goals, labels), _, matches = scene(classes=4, images=3)
    labels, calls = labels % 3, []

    def seen(total, count, *, term):
        calls.append((term, total, count))
        return total

    how = {"no_object": 0.2, "reduction": seen}
    detection_terms(x, b, goals, labels, matches=matches, **how)
    for i in range(3):
        part = (t[i : i + 1] for t in (x, b, goals, labels))
        detection_terms(*part, matches=matches[i : i + 1], **how)
    for term in ("class", "box"):
        (total, count), *parts = [(t, n) for name, t, n in calls if name == term]
        torch.testing.assert_close(sum(t for t, _ in parts), total)
        torch.testing.assert_close(sum(n for _, n in parts), count)


# Boxes.


@pytest.mark.parametrize("box_format", FORMATS)
@pytest.mark.parametrize("dense", [False, True])
def test_boxes_in_any_format_are_one_loss(box_format, dense):
    (x, b, goals, labels), points, _ = scene()
    write = FORMATS[box_format]
    regions = torch.tensor([[[0.0, 0, 16, 16]]]).double().expand(2, 1, 4)
    priors = torch.cat((points - 4, points + 4), -1)
    strides = torch.full((25,), 8.0).double()
    sides = torch.randn(2, 25, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    how = {"box_loss": giou_loss}
    given = (x, sides if dense else b, goals, labels)
    told = {"anchors": priors, "ignore_regions": regions, "strides": strides}
    want = detection_loss(*given, **told, **how)
    points_do = {**told, "anchors": points}
    assert torch.equal(detection_loss(*given, **points_do, **how), want)
    given = (x, sides if dense else write(b), write(goals), labels)
    told |= {"anchors": write(priors), "ignore_regions": write(regions)}
    got = DetectionLoss(box_format=box_format, box_loss=giou_loss)(*given, **told)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)


def test_the_gradient_of_a_box_is_that_of_its_corners():
    (x, b, goals, labels), _, matches = scene()
    leaf = FORMATS["cxcywh"](b).requires_grad_()
    how = {"matches": matches, "box_loss": giou_loss}
    goal = FORMATS["cxcywh"](goals)
    terms = detection_terms(x, leaf, goal, labels, box_format="cxcywh", **how)
    terms["box"].backward()
    corners = b.clone().requires_grad_()
    detection_terms(x, corners, goals, labels, **how)["box"].backward()
    low, high = corners.grad.split(2, -1)
    torch.testing.assert_close(leaf.grad, torch.cat((low + high, (high - low) / 2), -1))


def _rotated(seed):
    g = torch.Generator().manual_seed(seed)
    centre = 40 * torch.rand(2, 25, 2, generator=g, dtype=torch.float64)
    size = 2 + 10 * torch.rand(2, 25, 2, generator=g, dtype=torch.float64)
    turn = 6 * torch.rand(2, 25, 1, generator=g, dtype=torch.float64)
    return torch.cat((centre, size, turn), -1)


def test_rotated_boxes_have_their_own_overlap():
    (x, _, _, labels), _, matches = scene()
    b, goals = _rotated(1), _rotated(2)[:, :3]
    given, points = (x, b, goals, labels), b[0, :, :2]
    terms = detection_terms(*given, matches=matches, box_loss=probiou_loss, reduction="sum")
    rows = (matches >= 0).nonzero().tolist()
    pairs = [(b[i, a], goals[i, matches[i, a]]) for i, a in rows]
    want = probiou_loss(*map(torch.stack, zip(*pairs, strict=True)), reduction="sum")
    torch.testing.assert_close(terms["box"], want)
    loss = DetectionLoss(box_loss=probiou_loss, assigner=TaskAlignedAssigner(topk=3))
    leaf = b.clone().requires_grad_()
    loss(x, leaf, goals, labels, anchors=points).backward()
    assert (leaf.grad[..., 4] != 0).any()
    with pytest.raises(ValueError, match=r"box_loss: ciou_loss raised .* such as probiou_loss"):
        detection_loss(*given, matches=matches)
    with pytest.raises(ValueError, match="box_format: got 'cxcywh' for boxes of five numbers"):
        detection_loss(*given, matches=matches, box_loss=probiou_loss, box_format="cxcywh")
    listed = detection_loss(x, b, list(goals), list(labels), matches=matches, box_loss=probiou_loss)
    assert torch.equal(listed, detection_loss(*given, matches=matches, box_loss=probiou_loss))


def test_a_rotated_target_of_negative_size_is_named():
    (x, _, _, labels), _, matches = scene()
    goals = _rotated(2)[:, :3].clone()
    goals[1, 2, 3] = -1.0
    with pytest.raises(ValueError, match=r"target_boxes: image 1, row 2 .* sizes of at least 0"):
        detection_loss(x, _rotated(1), goals, labels, matches=matches, box_loss=probiou_loss)


# What is refused.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target_labels": torch.full((2, 3, 3), 1.5)}, "target_labels: got 1.5"),
        ({"target_labels": torch.full((2, 3, 3), -1)}, "target_labels: got -1"),
        ({"target_labels": torch.zeros(2, 3, 4)}, "target_labels"),
        ({"target_labels": [torch.zeros(3, 3), torch.zeros(3, 2)]}, "target_labels: of image 1"),
        ({"class_mask": torch.ones(2, 4)}, "class_mask"),
        ({"class_mask": torch.ones(3)}, "class_mask"),
        ({"class_mask": torch.ones(2, 3), "no_object": 0.1}, "class_mask: got a mask beside"),
        ({"no_object": -0.1}, "no_object: got -0.1"),
        ({"no_object": 0.1}, "target_labels: got class 2, wanted 0 to 1"),
        ({"no_object": 0.1, "class_loss": focal_loss}, "class_loss: got .* beside no_object"),
        ({"box_format": "yxyx"}, "box_format: got 'yxyx'"),
        ({"anchors": torch.zeros(25, 3)}, "anchors"),
        ({"class_weight": [1.0, 1.0, 1.0], "no_object": 1.0}, "class_weight: got shape"),
    ],
    ids=lambda part: "" if isinstance(part, dict) else part,
)  # fmt: skip
def test_what_is_refused(change, said):
    (x, b, goals, labels), _, matches = scene()
    labels[0, 0] = 2 if "class_weight" not in change else 1
    if "class_weight" in change:
        labels = labels % 2
    given = {"class_logits": x, "pred_boxes": b, "target_boxes": goals, "target_labels": labels}
    if isinstance(change.get("target_labels"), list):
        given["target_boxes"] = list(goals)
    with pytest.raises(ValueError, match=said):
        detection_loss(**{**given, "matches": matches, **change})


def test_the_module_refuses_a_class_loss_beside_a_softmax():
    with pytest.raises(ValueError, match=r"class_loss: got .* beside no_object"):
        DetectionLoss(no_object=0.1, class_loss=FocalLoss())
    with pytest.raises(ValueError, match="box_format"):
        DetectionLoss(box_format="corners")


@pytest.mark.parametrize(
    "assigner",
    [TaskAlignedAssigner(topk=3), SimOTAAssigner(), ATSSAssigner(prior_scale=2.0)],
    ids=lambda a: type(a).__name__,
)
@pytest.mark.parametrize("no_object", [None, 0.1])
def test_ragged_micro_batches_with_shared_counts_are_the_whole_batch(assigner, no_object):
    """And what looks at priors alone counts the same, whatever is predicted: zeros serve."""
    classes = 3 + (no_object is not None)
    (x, b, goals, labels), points, _ = scene(3, classes=classes, images=5)
    both = (several(labels % 3, 3) + several((labels + 1) % 3, 3)) * 0.9
    mask = None if no_object else torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) < 0.7
    strides = torch.full((25,), 8.0).double()
    loss_fn = DetectionLoss(assigner=assigner, no_object=no_object)
    leaves = [t.clone().requires_grad_() for t in (x, b)]

    def given(part, *predicted):
        told = {"anchors": points, "strides": strides}
        told |= {} if mask is None else {"class_mask": mask[part]}
        return (*(t[part] for t in (*predicted, goals, both)),), told

    parts = [slice(0, 2), slice(2, 2), slice(2, 3), slice(3, 5)]

    def counted(*predicted):
        found = {}

        def note(total, count, *, term):
            found[term] = found.get(term, 0) + count.detach()
            return total

        for part in parts:
            tensors, told = given(part, *predicted)
            options = {"assigner": assigner, "no_object": no_object, "reduction": note}
            detection_terms(*tensors, **told, **options)
        return found

    tensors, told = given(slice(None), *leaves)
    want = loss_fn(*tensors, **told)
    slopes = torch.autograd.grad(want, leaves)
    counts = counted(x, b)
    if isinstance(assigner, ATSSAssigner):
        assert counted(x * 0, b * 0) == counts
    shared = DetectionLoss(
        assigner=assigner,
        no_object=no_object,
        reduction=lambda total, count, *, term: total / counts[term],
    )
    calls = [given(part, *leaves) for part in parts]
    got = sum(shared(*tensors, **told) for tensors, told in calls)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(got, leaves), slopes, rtol=1e-11, atol=1e-15)
