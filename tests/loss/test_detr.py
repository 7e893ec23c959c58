"""The set loss: its examples, its edges, where others count and match otherwise."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from aptt.audit.pretend import counting, gradient, missing, register
from aptt.loss import (
    DETRLoss,
    FocalLoss,
    GIoULoss,
    HungarianMatcher,
    assign,
    box_iou_loss,
    ciou_loss,
    denoising_matches,
    detection_terms,
    detr_loss,
    detr_terms,
    focal_loss,
    giou_loss,
    match_cost,
    union_matches,
    varifocal_loss,
)
from aptt.parallel import count_ahead, counts_of

NAN = math.nan


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _boxes(*shape, seed=0):
    """Centres and sizes inside the image."""
    u = torch.rand(*shape, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat((0.2 + 0.6 * u[..., :2], 0.1 + 0.3 * u[..., 2:]), -1)


def _batch(images=2, queries=7, targets=3, classes=4, layers=None, *, seed=0):
    size = (images, queries) if layers is None else (layers, images, queries)
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images, targets), generator=g)
    labels[torch.rand(images, targets, generator=g) < 0.3] = -1
    predicted = _random(*size, classes, seed=seed), _boxes(*size, seed=seed + 1)
    return *predicted, _boxes(images, targets, seed=seed + 2), labels


def _gradients(loss, *tensors):
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    return torch.autograd.grad(loss(*leaves), leaves)


# ----------------------------------------------------------------------------------- the examples


def test_the_example_of_the_softmax_whose_boxes_are_exact():
    corners = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    boxes, labels = corners[None], torch.tensor([[0, 1]])
    terms = detr_terms(torch.zeros(1, 3, 3), boxes, boxes[:, [1, 0]], labels, no_object=0.1)
    assert terms["l1"] == terms["box"] == 0
    assert terms["class"].item() == pytest.approx(math.log(3), rel=1e-6)


def test_a_softmax_is_a_mean_by_weight():
    logits = torch.tensor([[[2.0, 0, 0], [0, 0, 1], [0, 0, 0]]])
    boxes, matches = torch.full((1, 3, 4), 0.5), torch.tensor([[0, -1, -1]])
    given = logits, boxes, boxes[:, :1], torch.tensor([[0]])
    found = detr_terms(*given, matches=matches, no_object=0.1)["class"]
    assert found.item() == pytest.approx(0.3371254, rel=1e-6)
    one, two, three = F.cross_entropy(logits[0], torch.tensor([0, 2, 2]), reduction="none").tolist()
    assert found.item() == pytest.approx((one + 0.1 * two + 0.1 * three) / 1.2, rel=1e-6)
    first = detr_terms(logits.roll(1, -1).roll(-1, -1), *given[1:], matches=matches, no_object=0.1)
    assert first["class"] == found  # no-object first: roll it to the end


def test_independent_classes_count_targets():
    logits = torch.tensor([[[2.0, -1.0], [0.0, 0.0], [-1.0, 1.0]]])
    boxes, matches = torch.full((1, 3, 4), 0.5), torch.tensor([[0, -1, 1]])
    given = logits, boxes, boxes[:, :2], torch.tensor([[0, 1]])
    assert detr_terms(*given, matches=matches)["class"].item() == pytest.approx(0.15, abs=2e-5)
    total = detr_terms(*given, matches=matches, reduction="sum")["class"]
    assert total.item() == pytest.approx(0.3, abs=4e-5)


def _by_hand(logits, boxes, goals, labels, matches, *, count):
    """Deformable DETR's numbers, query by query."""
    sums = {"class": 0.0, "l1": 0.0, "box": 0.0}
    for i, q in itertools.product(range(len(logits)), range(logits.shape[1])):
        m = int(matches[i, q])
        hot = torch.zeros(logits.shape[2]).double()
        if m >= 0:
            hot[labels[i, m]] = 1
            sums["l1"] += (boxes[i, q] - goals[i, m]).abs().sum()
            pair = boxes[i, q], goals[i, m]
            sums["box"] += giou_loss(*(p[None] for p in pair), box_format="cxcywh")
        if m > -2:
            p = logits[i, q].sigmoid()
            right = torch.where(hot == 1, p, 1 - p)
            alpha = torch.where(hot == 1, 0.25, 0.75)
            sums["class"] += (alpha * (1 - right) ** 2 * -right.log()).sum()
    return {name: value / count for name, value in sums.items()}


def test_against_the_formula_by_hand_and_its_gradient():
    batch = _batch()
    matches = assign(match_cost(*batch), target_mask=batch[3] >= 0)
    want = _by_hand(*batch, matches, count=(batch[3] >= 0).sum())
    found = detr_terms(*batch)
    for name in want:
        torch.testing.assert_close(found[name], want[name], rtol=1e-10, atol=0)
    loss = detr_loss(*batch)
    torch.testing.assert_close(loss, found["class"] + 5 * found["l1"] + 2 * found["box"])
    assert torch.autograd.gradcheck(
        lambda x, b: detr_loss(x, b, *batch[2:], matches=matches),
        [t.requires_grad_() for t in batch[:2]],
    )


def test_it_is_the_matched_detection_loss_with_another_count():
    logits, boxes, goals, labels = _batch()
    matches = assign(match_cost(logits, boxes, goals, labels), target_mask=labels >= 0)
    half = torch.cat((boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2), -1)
    ends = torch.cat((goals[..., :2] - goals[..., 2:] / 2, goals[..., :2] + goals[..., 2:] / 2), -1)
    options = {"class_loss": focal_loss, "box_loss": giou_loss, "matches": matches}
    other = detection_terms(logits, half, ends, labels, **options)
    found = detr_terms(logits, boxes, goals, labels)
    torch.testing.assert_close(found["class"], other["class"])
    torch.testing.assert_close(found["box"], other["box"])


# --------------------------------------------------------------------------- layers and groups


@pytest.mark.parametrize("no_object", [None, 0.1])
def test_layers_are_as_many_calls(no_object):
    logits, boxes, goals, labels = _batch(layers=3)
    options = {"no_object": no_object}
    labels = labels.clamp(max=2)
    terms = detr_terms(logits, boxes, goals, labels, **options)
    each = [detr_terms(x, b, goals, labels, **options) for x, b in zip(logits, boxes, strict=True)]
    for name, value in terms.items():
        torch.testing.assert_close(value, torch.stack([one[name] for one in each]))
    weight = [0.5, 0.0, 2.0]
    loss = detr_loss(logits, boxes, goals, labels, layer_weight=weight, **options)
    gains = {"class": 1.0, "l1": 5.0, "box": 2.0}
    want = sum(w * gains[n] * one[n] for w, one in zip(weight, each, strict=True) for n in gains)
    torch.testing.assert_close(loss, want)
    weighed = detr_terms(logits, boxes, goals, labels, layer_weight=weight, **options)
    for name in weighed:
        torch.testing.assert_close(weighed[name], terms[name] * torch.tensor(weight).double())
    with torch.no_grad():  # a layer that weighs nothing takes no part, whatever it holds
        logits[1], boxes[1] = torch.nan, torch.nan
    assert detr_loss(logits, boxes, goals, labels, layer_weight=weight, **options) == loss
    with pytest.raises(ValueError, match=r"layer_weight: got shape \(2,\), wanted \(3,\)"):
        detr_loss(logits, boxes, goals, labels, layer_weight=[1.0, 2.0])
    with pytest.raises(ValueError, match="None: there is one layer"):
        detr_loss(logits[0], boxes[0], goals, labels, layer_weight=[1.0])


def test_one_set_of_matches_serves_all_layers():
    logits, boxes, goals, labels = _batch(layers=2)
    matches = assign(match_cost(*(t[0] for t in (logits, boxes)), goals, labels))
    matches = torch.where(labels.gather(1, matches.clamp(min=0)) < 0, -1, matches)
    once = detr_terms(logits, boxes, goals, labels, matches=matches)
    twice = detr_terms(logits, boxes, goals, labels, matches=matches.expand(2, -1, -1))
    for name in once:
        assert torch.equal(once[name], twice[name])


def test_groups_are_calls_on_their_queries_over_one_count():
    logits, boxes, goals, labels = _batch(queries=8)
    both = detr_terms(logits, boxes, goals, labels, groups=2)
    halves = [detr_terms(logits[:, h], boxes[:, h], goals, labels) for h in (slice(4), slice(4, 8))]
    for name in both:
        torch.testing.assert_close(both[name], sum(half[name] for half in halves) / 2)
    with pytest.raises(ValueError, match="matcher: got 4 groups, wanted those of the loss"):
        detr_loss(logits, boxes, goals, labels, groups=2, matcher=HungarianMatcher(groups=4))


def test_denoising_queries_are_a_call_of_their_own():
    labels = torch.tensor([[1, 0], [2, -1]])
    mask, goals = labels >= 0, _boxes(2, 2)
    matches = denoising_matches(mask, 3)
    logits, boxes = _random(2, 12, 4), goals.repeat(1, 6, 1)
    terms = detr_terms(logits, boxes, goals, labels, matches=matches, groups=3)
    assert terms["l1"] == terms["box"] == 0
    rows = [(i, q) for i, q in itertools.product(range(2), range(12)) if matches[i, q] > -2]
    hot = torch.zeros_like(logits)
    for i, q in rows:
        if matches[i, q] >= 0:
            hot[i, q, labels[i, matches[i, q]]] = 1
    values = focal_loss(logits, hot, reduction="none")
    torch.testing.assert_close(terms["class"], sum(values[i, q].sum() for i, q in rows) / 9)
    # no target in the batch: the model has no such query, and the loss an attached 0
    none = torch.zeros(2, 0, 4).double()
    x = none.clone().requires_grad_()
    away = detr_loss(x, none, none, torch.zeros(2, 0), matches=denoising_matches(none[..., 0], 3))
    assert away == 0
    assert torch.autograd.grad(away, x)[0].shape == (2, 0, 4)
    # and a match outside of the queries that are given cannot be
    with pytest.raises(ValueError, match="matches: got"):
        detr_loss(logits[:, :5], boxes[:, :5], goals, labels, matches=matches)


def test_the_union_of_layers_counts_its_matches():
    logits, boxes, goals, labels = _batch(layers=3, targets=2)
    cost = match_cost(logits, boxes, goals, labels)
    matches = union_matches(assign(cost, target_mask=labels >= 0))
    found = detr_terms(logits, boxes, goals, labels, matches=matches, normalize="matches")
    pairs = (matches >= 0).sum()
    whole = detr_terms(logits, boxes, goals, labels, matches=matches, reduction="sum")
    torch.testing.assert_close(found["box"], whole["box"] / pairs)


# ------------------------------------------------------------------------------ qualities, parts


def test_the_target_of_a_match_is_its_iou_held_constant():
    logits, boxes, goals, labels = _batch()
    matches = assign(match_cost(logits, boxes, goals, labels), target_mask=labels >= 0)
    options = {"matches": matches, "quality": "iou", "class_loss": varifocal_loss}
    found = detr_terms(logits, boxes, goals, labels, **options)["class"]
    target, positive = torch.zeros_like(logits), torch.zeros_like(logits, dtype=torch.bool)
    for i, q in (matches >= 0).nonzero().tolist():
        m = matches[i, q]
        iou = 1 - box_iou_loss(boxes[i, q : q + 1], goals[i, m : m + 1], box_format="cxcywh")
        target[i, q, labels[i, m]], positive[i, q, labels[i, m]] = iou, True
    want = varifocal_loss(logits, target, positive=positive, reduction="sum")
    torch.testing.assert_close(found, want / (labels >= 0).sum())
    assert (target[positive] == 0).any() or (target[positive] > 0).all()
    boxes.requires_grad_()
    loss = detr_loss(logits, boxes, goals, labels, l1_gain=0.0, box_gain=0.0, **options)
    assert torch.equal(torch.autograd.grad(loss, boxes)[0], torch.zeros_like(boxes))


def test_a_match_of_no_quality_is_a_match():
    boxes, goals = torch.tensor([[[0.1, 0.1, 0.1, 0.1]]]), torch.tensor([[[0.9, 0.9, 0.1, 0.1]]])
    logits, matches = torch.full((1, 1, 2), 2.0), torch.tensor([[0]])
    found = detr_terms(
        logits, boxes, goals, torch.tensor([[1]]), matches=matches, quality="iou",
        class_loss=varifocal_loss,
    )["class"]  # fmt: skip
    negative = varifocal_loss(torch.tensor([2.0]), torch.zeros(1))
    torch.testing.assert_close(found, negative)  # of the other class alone


def test_a_match_whose_box_is_no_number_has_no_quality():
    boxes, goals = torch.full((1, 1, 4), NAN), torch.tensor([[[0.9, 0.9, 0.1, 0.1]]])
    logits, matches = torch.full((1, 1, 2), 2.0), torch.tensor([[0]])
    options = {"matches": matches, "quality": "iou", "class_loss": varifocal_loss}
    broken, apart = (
        detr_terms(logits, b, goals, torch.tensor([[1]]), **options)["class"]
        for b in (boxes, 1 - goals)
    )
    assert broken == apart


def test_modules_serve_as_parts_and_the_loss_as_a_module():
    batch = _batch()
    want = detr_loss(*batch, class_loss=lambda *a, **o: focal_loss(*a, alpha=0.5, **o))
    loss = DETRLoss(class_loss=FocalLoss(alpha=0.5), box_loss=GIoULoss())
    torch.testing.assert_close(loss(*batch), want)
    assert set(loss.terms(*batch)) == {"class", "l1", "box"}
    other = detr_terms(*batch, box_loss=ciou_loss)
    assert other["box"] != loss.terms(*batch)["box"]
    assert repr(DETRLoss()).startswith("DETRLoss(matcher=None, class_loss=focal_loss, quality=None")


# ------------------------------------------------------------------------------------- the edges


@pytest.mark.parametrize("no_object", [None, 0.1])
def test_without_a_target_the_classes_still_learn_and_the_boxes_have_a_0(no_object):
    logits, boxes = _random(2, 5, 3), _boxes(2, 5)
    none = [torch.zeros(0, 4), torch.zeros(0)], [torch.tensor([]), torch.zeros(0, dtype=torch.long)]
    terms = detr_terms(logits, boxes, *none, no_object=no_object)
    assert terms["class"] > 0
    assert terms["l1"] == terms["box"] == 0
    x, b = _gradients(lambda x, b: detr_loss(x, b, *none, no_object=no_object), logits, boxes)
    assert (x != 0).all()
    assert (b == 0).all()
    counted = {}

    def over(total, count, *, term):
        counted[term] = count.item()
        return total

    detr_loss(logits, boxes, *none, reduction=over)
    assert counted == {"class": 0, "l1": 0, "box": 0}  # the raw count


def test_an_image_without_a_target_has_background_alone():
    logits, boxes, goals, labels = _batch()
    labels[1] = -1
    alone = detr_terms(logits[:1], boxes[:1], goals[:1], labels[:1], reduction="sum")
    both = detr_terms(logits, boxes, goals, labels, reduction="sum")
    torch.testing.assert_close(both["l1"], alone["l1"])
    rest = focal_loss(logits[1], torch.zeros(7, 4), reduction="sum")
    torch.testing.assert_close(both["class"], alone["class"] + rest)


@pytest.mark.parametrize(("images", "queries"), [(0, 3), (2, 0), (0, 0)])
def test_no_image_or_no_query(images, queries):
    x, b = torch.zeros(images, queries, 2, requires_grad=True), torch.zeros(images, queries, 4)
    none = torch.zeros(images, 0, 4), torch.zeros(images, 0)
    loss = detr_loss(x, b, *none)
    assert loss == 0
    assert torch.autograd.grad(loss, x)[0].shape == x.shape
    terms = detr_terms(x[None].expand(2, -1, -1, -1), b[None].expand(2, -1, -1, -1), *none)
    assert terms["class"].shape == (2,)


def test_more_targets_than_queries():
    logits, boxes, goals, _ = _batch(images=1, queries=2, targets=4)
    labels = torch.tensor([[0, 1, 2, 3]])
    with pytest.raises(ValueError, match="target_boxes: image 0 has 4 targets for 2 queries"):
        detr_loss(logits, boxes, goals, labels)
    few = HungarianMatcher(surplus="drop")
    by_targets = detr_terms(logits, boxes, goals, labels, matcher=few)
    by_matches = detr_terms(logits, boxes, goals, labels, matcher=few, normalize="matches")
    torch.testing.assert_close(by_targets["l1"] * 4, by_matches["l1"] * 2)


def test_a_point_that_is_a_point_costs_nothing():
    point = torch.tensor([[[0.5, 0.5, 0.0, 0.0]]])
    terms = detr_terms(torch.zeros(1, 1, 1), point, point, torch.tensor([[0]]))
    assert terms["l1"] == terms["box"] == 0
    cost = match_cost(torch.zeros(1, 1, 1), point, point + 0, torch.tensor([[0]]), class_gain=0.0)
    assert cost == -2  # GIoU 1
    away = point + torch.tensor([0.25, 0.25, 0, 0])
    cost = match_cost(torch.zeros(1, 1, 1), away, point, torch.tensor([[0]]), class_gain=0.0)
    assert cost == pytest.approx(5 * 0.5 + 2)  # GIoU -1


def test_sizes_below_0_are_turned_back():
    boxes = torch.tensor([[[0.5, 0.5, -0.2, 0.2]]], requires_grad=True)
    goals = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]])
    loss = detr_loss(torch.zeros(1, 1, 1), boxes, goals, torch.tensor([[0]]), l1_gain=0.0)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, boxes)[0][0, 0, 2] < 0


def test_a_nan_that_counts_is_seen_and_chosen_by_no_target():
    logits, boxes, goals, labels = _batch()
    for poison in (NAN, math.inf):
        wrong = boxes.clone()
        wrong[1, 3, 2] = poison
        assert not detr_loss(logits, wrong, goals, labels).isfinite()
        weight = torch.ones(2, 7)
        weight[1, 3] = 0
        without = detr_loss(logits, wrong, goals, labels, weight=weight)
        clean = detr_loss(logits, boxes, goals, labels, weight=weight)
        assert torch.equal(without, clean)
    validating = HungarianMatcher(validate=True)
    with pytest.raises(ValueError, match="class_logits: image 1, query 0 is left to"):
        detr_loss(logits * NAN, boxes, goals, torch.tensor([[-1] * 3, [0] * 3]), matcher=validating)


def test_crowds_are_no_background():
    logits = _random(1, 3, 2)
    boxes = torch.tensor([[[0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 0.1, 0.1], [0.8, 0.5, 0.4, 0.4]]])
    goals, labels = boxes[:, :1], torch.tensor([[0]])
    crowd = torch.tensor([[[0.45, 0.5, 0.5, 1.0], [0, 0, 0, 0]]])  # from 0.2 to 0.7
    found = detr_terms(logits, boxes.double(), goals, labels, ignore_regions=crowd)
    weight = torch.tensor([[1.0, 0.0, 1.0]])  # the third has a quarter of itself in it
    matches = torch.tensor([[0, -1, -1]])  # the first half, and is matched
    want = detr_terms(logits, boxes.double(), goals, labels, matches=matches, weight=weight)
    for name in want:
        torch.testing.assert_close(found[name], want[name])
    listed = detr_terms(logits, boxes.double(), goals, labels, ignore_regions=[crowd[0, :1]])
    assert listed["class"] == found["class"]


def test_what_weighs_nothing_is_not_there():
    logits, boxes, goals, labels = _batch()
    weight = torch.ones(2, 7).double()
    weight[:, 2] = 0
    kept = [0, 1, 3, 4, 5, 6]
    found = detr_loss(logits, boxes, goals, labels, weight=weight)
    want = detr_loss(logits[:, kept], boxes[:, kept], goals, labels)
    torch.testing.assert_close(found, want)
    twice = detr_terms(logits, boxes, goals, labels, weight=2 * torch.ones(2, 7))
    once = detr_terms(logits, boxes, goals, labels)
    torch.testing.assert_close(twice["l1"], 2 * once["l1"])
    counted = detr_terms(
        logits, boxes, goals, labels, weight=2 * torch.ones(2, 7), normalize="matches"
    )
    torch.testing.assert_close(counted["l1"], once["l1"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("no_object", [None, 0.1])
def test_half_types_at_logits_of_60_are_finite(dtype, no_object):
    logits, boxes, goals, labels = _batch()
    x, b = (60 * logits.sign()).to(dtype), boxes.to(dtype)
    labels = labels.clamp(max=2)
    loss = detr_loss(x, b, goals, labels, no_object=no_object)
    assert loss.dtype == torch.float32
    grads = _gradients(lambda x, b: detr_loss(x, b, goals, labels, no_object=no_object), x, b)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in grads)


def test_what_does_not_fit_is_said():
    batch = _batch()
    for options, said in (
        ({"no_object": 0.1, "class_loss": varifocal_loss}, "class_loss: got .* beside no_object"),
        ({"no_object": 0.1, "quality": "iou"}, "quality: got 'iou' beside no_object"),
        ({"no_object": -1.0}, "no_object"),
        ({"quality": "giou"}, "quality: got 'giou'"),
        ({"normalize": "boxes"}, "normalize: got 'boxes'"),
        ({"groups": 2}, "groups: got 2, of which 7"),
        ({"box_format": "corners"}, "box_format"),
        ({"reduction": "none"}, "reduction: got 'none'"),
        ({"class_gain": -1.0}, "class_gain"),
        ({"matches": torch.full((2, 7), 3)}, "matches: got 3"),
        ({"matches": torch.zeros(7, dtype=torch.long)}, r"matches: got \(7,\), wanted \(2, 7\)"),
    ):
        with pytest.raises(ValueError, match=said):
            detr_loss(*batch, **options)
    with pytest.raises(TypeError, match="matcher: got"):
        DETRLoss(matcher=HungarianMatcher)
    with pytest.raises(ValueError, match="target_labels: got class 3, wanted 0 to 2"):
        detr_loss(*batch[:3], batch[3] * 0 + 3, no_object=0.1)
    with pytest.raises(ValueError, match="a class beside no-object"):
        detr_loss(batch[0][..., :1], *batch[1:3], batch[3] * 0, no_object=0.1)
    with pytest.raises(ValueError, match=r"target_boxes: got .*, wanted parts of the image"):
        detr_loss(*batch[:2], batch[2] * 640, batch[3])


# --------------------------------------------------------------------------- counted over a split


def test_two_ranks_of_ten_boxes_and_of_none():
    """The research notes' example: sums of 20 and 4, 10 and 0 boxes: 2.4, for others 4.8 or 3."""
    totals, counts = [20.0, 4.0], [10, 0]
    right = sum(totals) / max(sum(counts), 1)
    assert right == 2.4
    world = len(counts)
    detr = [t / max(sum(counts) / world, 1) for t in totals]
    assert sum(detr) / world == pytest.approx(2.4)
    twice = [t / max(sum(counts) / world / world, 1) for t in totals]  # transformers
    assert sum(twice) / world == pytest.approx(4.8)
    local = [t / max(n, 1) for t, n in zip(totals, counts, strict=True)]
    assert sum(local) / world == pytest.approx(3.0)

    logits, boxes = _random(2, 12, 3), _boxes(2, 12)
    goals, labels = _boxes(2, 10), torch.zeros(2, 10, dtype=torch.long)
    labels[1] = -1
    ranks = [(logits[i : i + 1], boxes[i : i + 1], goals[i : i + 1], labels[i : i + 1])
             for i in range(2)]  # fmt: skip
    items = count_ahead(ranks, lambda b: (b[3] >= 0).sum(), kind="positives", grad_average=world)
    shares = [detr_terms(*rank, reduction=items) for rank in ranks]
    whole = detr_terms(logits, boxes, goals, labels)
    for name in whole:
        mean = sum(share[name] for share in shares) / world
        torch.testing.assert_close(mean, whole[name])


@pytest.mark.parametrize("options", [{}, {"no_object": 0.1}, {"groups": 2, "normalize": "matches"}])
def test_ragged_micro_batches_are_the_whole_batch(options):
    images = [_batch(images=n, queries=8, layers=2, seed=n) for n in (1, 3, 2)]
    images = [(x, b, g, y.clamp(max=2)) for x, b, g, y in images]
    together = [torch.cat([part[k] for part in images], 1) for k in (0, 1)]
    goals, labels = (torch.cat([part[k] for part in images]) for k in (2, 3))
    loss = DETRLoss(**options)
    items = count_ahead(images, counts_of(loss))
    want = detr_loss(*together, goals, labels, **options)
    parts = [detr_loss(*part, reduction=items, **options) for part in images]
    torch.testing.assert_close(sum(parts), want, rtol=1e-12, atol=0)
    whole = _gradients(lambda x, b: detr_loss(x, b, goals, labels, **options), *together)
    each = [
        _gradients(lambda x, b, p=part: detr_loss(x, b, *p[2:], reduction=items, **options),
                   *part[:2]) for part in images
    ]  # fmt: skip
    for k, gradient_ in enumerate(whole):
        torch.testing.assert_close(torch.cat([g[k] for g in each], 1), gradient_)


# ---------------------------------------------------------------------------------- the machinery


def test_one_graph_and_every_transform(same_when_compiled):
    logits, boxes, goals, labels = _batch(layers=2)

    def loss(x):
        return detr_loss(x, boxes, goals, labels)

    same_when_compiled(loss, logits)
    (want,) = _gradients(loss, logits)
    torch.testing.assert_close(torch.func.grad(loss)(logits), want)


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_step_of_six_layers_waits_once():
    device = register()
    logits, boxes, goals, labels = (
        t.float() if t.is_floating_point() else t for t in _batch(16, 30, 9, 4, layers=6)
    )
    away = [t.to(device) for t in (logits, boxes, goals, labels)]
    x, b = (t.requires_grad_() for t in away[:2])
    with counting() as bill:
        loss = detr_loss(x, b, *away[2:])
        slopes = gradient(loss, x, b)
    assert bill.waits == ["_to_copy"]
    here = _gradients(lambda x, b: detr_loss(x, b, goals, labels), logits, boxes)
    for there, want in zip(slopes, here, strict=True):
        torch.testing.assert_close(there.cpu(), want, rtol=1e-4, atol=1e-7)


def test_transformers_gives_the_same_on_one_process_and_matches_otherwise_beside_a_nan():
    pytest.importorskip("transformers")
    from transformers.loss.loss_for_object_detection import HungarianMatcher as Theirs
    from transformers.loss.loss_for_object_detection import ImageLoss

    logits, boxes, goals, labels = (
        t.float() if t.is_floating_point() else t for t in _batch(classes=4)
    )
    labels = labels.clamp(max=2)
    listed = [
        {"class_labels": k[k >= 0], "boxes": g[k >= 0]} for g, k in zip(goals, labels, strict=True)
    ]
    matcher = Theirs(class_cost=1, bbox_cost=5, giou_cost=2)
    criterion = ImageLoss(
        matcher=matcher, num_classes=3, eos_coef=0.1, losses=["labels", "boxes", "cardinality"]
    )
    theirs = criterion({"logits": logits, "pred_boxes": boxes}, listed)
    ours = detr_terms(logits, boxes, goals, labels, no_object=0.1)
    torch.testing.assert_close(ours["class"], theirs["loss_ce"])
    torch.testing.assert_close(ours["l1"], theirs["loss_bbox"])
    torch.testing.assert_close(ours["box"], theirs["loss_giou"])
