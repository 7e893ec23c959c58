"""Bipartite matching: exact, whatever the costs hold, with scipy and without."""

import itertools
import math
import warnings

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from aptt.audit.pretend import counting, missing, register
from aptt.core import assignment
from aptt.core.pairwise import covered, pairwise_giou, pairwise_l1
from aptt.loss import (
    HungarianMatcher,
    assign,
    denoising_matches,
    detection_loss,
    focal_loss,
    giou_loss,
    match_cost,
    union_matches,
)

INF, NAN = math.inf, math.nan


@pytest.fixture(params=["scipy", "own"])
def solver(request, monkeypatch):
    """scipy, and as if it were not installed."""
    if request.param == "own":
        monkeypatch.setattr(assignment, "_scipy", lambda: None)
    return request.param


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _total(cost, matches):
    """The sum over the pairs of one problem; each target is in one of them at most."""
    (queries,) = (matches >= 0).nonzero(as_tuple=True)
    targets = matches[queries]
    assert len(targets.unique()) == len(targets) == min(cost.shape)
    return cost[queries, targets].double().sum().item()


def _brute(cost):
    """The least sum there is, by all injections."""
    rows = cost.double().tolist() if cost.shape[0] <= cost.shape[1] else cost.T.double().tolist()
    columns = range(max(cost.shape))
    return min(
        sum(rows[i][j] for i, j in enumerate(chosen))
        for chosen in itertools.permutations(columns, min(cost.shape))
    )


# ------------------------------------------------------------------------------------ it is exact


@pytest.mark.parametrize("kind", ["normal", "ties"])
def test_no_injection_costs_less(solver, kind):
    g = torch.Generator().manual_seed(1)
    for _ in range(120):
        q, m = (int(torch.randint(1, 6, (), generator=g)) for _ in range(2))
        cost = torch.randn(q, m, generator=g)
        if kind == "ties":
            cost = torch.randint(3, (q, m), generator=g).float()
        matches = assign(cost, surplus="drop")
        assert _total(cost, matches) == pytest.approx(_brute(cost), rel=1e-6, abs=1e-6)


def test_our_solver_and_scipy_find_equal_sums(monkeypatch):
    monkeypatch.setattr(assignment, "_scipy", lambda: None)
    g = torch.Generator().manual_seed(2)
    for n in range(150):
        q, m = (int(torch.randint(1, 30, (), generator=g)) for _ in range(2))
        cost = torch.randn(q, m, generator=g).double() * 10.0 ** (n % 7 - 3)
        if n % 3 == 0:  # every target wants the same queries
            cost = cost.sort(0).values + 1e-3 * cost
        rows, columns = linear_sum_assignment(cost.numpy())
        want = cost.numpy()[rows, columns].sum()
        assert _total(cost, assign(cost, surplus="drop")) == pytest.approx(want, rel=1e-12)


def test_among_equals_the_first_query_goes_to_the_first_target(solver):
    assert assign(torch.zeros(4, 2)).tolist() == [0, 1, -1, -1]
    assert assign(torch.ones(3, 3)).tolist() == [0, 1, 2]
    one = torch.tensor([[0.5, 1.0]])
    assert assign(one.expand(5, 2)).tolist().count(-1) == 3  # identical queries
    assert assign(one.expand(5, 2)).tolist()[2:] == [-1, -1, -1]


def test_a_number_for_a_whole_query_or_target_changes_no_match(solver):
    cost = _random(6, 6).double()
    matches = assign(cost)
    assert torch.equal(assign(cost + _random(6, 1, seed=1)), matches)
    assert torch.equal(assign(cost + _random(1, 6, seed=2)), matches)
    tall = _random(9, 5).double()
    assert torch.equal(assign(tall + _random(1, 5, seed=2)), assign(tall))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    assert torch.equal(assign(tall[order]), assign(tall)[order])


def test_equal_targets_get_a_query_each_where_the_task_aligned_assigner_leaves_one_without():
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 6]]])
    targets, labels = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 5]]]), torch.tensor([[0, 0]])
    there = torch.ones(1, 2, dtype=torch.bool)
    found = HungarianMatcher(l1_gain=0)(torch.zeros(1, 2, 1), boxes, None, targets, labels, there)
    assert found.matches.tolist() == [[0, 1]]
    assert found.scores.tolist() == [[1, 1]]


def test_groups_are_matched_each_by_itself(solver):
    cost = _random(3, 12, 4)
    both = assign(cost, groups=2)
    assert torch.equal(both, torch.cat((assign(cost[:, :6]), assign(cost[:, 6:])), 1))
    with pytest.raises(ValueError, match="groups: got 5, of which 12 queries are no multiple"):
        assign(cost, groups=5)


def test_layers_and_images_are_one_call_of_as_many_problems(solver):
    cost = _random(3, 2, 7, 5)
    mask = torch.tensor([[True, False, True, True, False], [False] * 5])
    found = assign(cost, target_mask=mask)
    for layer in range(3):
        kept = assign(cost[layer, 0][:, mask[0]])
        index = mask[0].nonzero().squeeze(1)
        assert torch.equal(found[layer, 0], torch.where(kept >= 0, index[kept.clamp(min=0)], -1))
        assert (found[layer, 1] == -1).all()


# --------------------------------------------------------------------- costs that are not finite


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_the_other_matches_are_those_of_the_problem_without_it(solver, bad):
    cost = _random(12, 4)
    without = torch.cat((cost[:3], cost[4:]))
    spoiled = cost.clone()
    spoiled[3] = bad
    want = assign(without)
    found = assign(spoiled)
    assert found[3] == -1
    assert torch.equal(torch.cat((found[:3], found[4:])), want)
    column = cost.clone()
    column[:, 1] = bad  # the target takes a query that nobody wants
    found, want = assign(column), assign(cost[:, [0, 2, 3]])
    others = found.masked_fill(found == 1, -1)
    assert torch.equal(others, torch.tensor([0, 2, 3, -1])[want])
    assert (found == 1).sum() == 1


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_what_is_forced_leaves_the_rest_at_its_best(solver, bad):
    for seed in range(20):
        cost = _random(6, 6, seed=seed)
        cost[2] = bad
        matches = assign(cost)
        rest = torch.cat((cost[:2], cost[3:]))
        best = min(_brute(rest[:, [j for j in range(6) if j != k]]) for k in range(6))
        pairs = [(i, j) for i, j in enumerate(matches.tolist()) if i != 2]
        assert sum(cost[i, j].item() for i, j in pairs) == pytest.approx(best, rel=1e-5)
    with pytest.raises(ValueError, match=r"cost: the problem, query 2 is left to target .* finite"):
        assign(cost, validate=True)


def test_single_entries_are_avoided_where_they_can_be(solver):
    for seed in range(40):
        cost = _random(5, 5, seed=seed).double()
        bad = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed)) < 0.3
        spoiled = torch.where(bad, torch.tensor([NAN, INF, -INF])[seed % 3].double(), cost)
        matches = assign(spoiled)
        costs = [
            (sum(bool(bad[i, j]) for i, j in enumerate(p)),
             sum(cost[i, j].item() for i, j in enumerate(p) if not bad[i, j]))
            for p in itertools.permutations(range(5))
        ]  # fmt: skip
        least = min(n for n, _ in costs)
        pairs = list(enumerate(matches.tolist()))
        assert sum(bool(bad[i, j]) for i, j in pairs) == least
        found = sum(cost[i, j].item() for i, j in pairs if not bad[i, j])
        assert found == pytest.approx(min(c for n, c in costs if n == least), abs=1e-9)


def test_nothing_finite_is_paired_in_order(solver):
    assert assign(torch.full((3, 2), NAN)).tolist() == [0, 1, -1]


def test_where_transformers_mis_assigns_the_rest_beside_one_nan():
    """Their sanitiser (``nan_to_num`` to the largest float32) takes the solver's digits."""
    wrong = ours = 0
    for seed in range(60):
        cost = _random(10, 10, seed=seed)
        cost[:, 4] = NAN
        rest = [j for j in range(10) if j != 4]
        rows, columns = linear_sum_assignment(cost[:, rest].numpy())
        best = cost[:, rest].numpy()[rows, columns].sum()
        huge = torch.nan_to_num(cost, nan=torch.finfo(torch.float32).max)
        for solved in (linear_sum_assignment(huge.numpy()), None):
            matches = assign(cost)
            pairs = zip(*solved, strict=True) if solved else enumerate(matches.tolist())
            found = sum(cost[i, j].item() for i, j in pairs if j != 4)
            missed = found > best + 1e-4
            wrong, ours = (wrong + missed, ours) if solved else (wrong, ours + missed)
    assert ours == 0
    assert wrong > 30  # 52 of 60


def test_where_rf_detr_prefers_the_bad_query():
    """Theirs is twice the largest finite cost, which is less than it where that is negative."""
    cost = torch.tensor([[-5.0], [-1.0], [NAN]])
    theirs = cost.clone()
    theirs[2] = 2 * -4.0
    theirs[0, 0], cost[0, 0] = -4.0, -4.0
    rows, _ = linear_sum_assignment(theirs.numpy())
    assert rows.tolist() == [2]
    assert assign(cost).tolist() == [0, -1, -1]


def test_where_a_zero_in_its_place_beats_every_real_pair():
    cost = torch.tensor([[3.0], [2.0], [NAN]])
    rows, _ = linear_sum_assignment(torch.nan_to_num(cost, nan=0.0).numpy())
    assert rows.tolist() == [2]  # ultralytics, transformers' Mask2Former
    assert assign(cost).tolist() == [-1, 0, -1]


# ------------------------------------------------------------------------- more targets, or none


def test_more_targets_than_queries_are_refused_or_the_dearest_dropped(solver):
    cost = _random(2, 2, 3, seed=5)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    with pytest.raises(ValueError, match=r"cost: image 1 has 3 targets for 2 queries; .*'drop'"):
        assign(cost, target_mask=mask)
    found = assign(cost, target_mask=mask, surplus="drop")
    assert _total(cost[1], found[1]) == pytest.approx(_brute(cost[1]), rel=1e-6)
    assert 1 not in found[0].tolist()
    with pytest.raises(ValueError, match="layer 0, image 1 has 3 targets"):
        assign(cost[None].expand(2, -1, -1, -1), target_mask=mask)


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 3, 0), (2, 0, 0), (0, 0, 0), (3, 0, 5, 2)])
def test_empty_problems_keep_their_shape(solver, shape):
    found = assign(torch.zeros(shape))
    assert found.shape == shape[:-1]
    assert (found == -1).all()


def test_no_query_for_a_target_is_surplus():
    with pytest.raises(ValueError, match="0 queries"):
        assign(torch.zeros(1, 0, 2))
    assert assign(torch.zeros(1, 0, 2), surplus="drop").shape == (1, 0)


# ------------------------------------------------------------------------------------- the costs


def _t1():
    q = [[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5], [0.5, 0.5, 1, 1]]
    boxes = torch.tensor([q])
    return torch.zeros(1, 3, 3), boxes, boxes[:, [1, 0]], torch.tensor([[0, 1]])


def test_the_example_of_the_costs_of_detr():
    cost = match_cost(*_t1(), class_cost="softmax", class_gain=1.0)
    want = [[5.666667, -2.333333], [-2.333333, 5.666667], [6.666667, 6.666667]]
    torch.testing.assert_close(cost[0], torch.tensor(want))
    matches = assign(cost)
    assert matches.tolist() == [[1, 0, -1]]
    assert _total(cost[0], matches[0]) == pytest.approx(-4.666667)
    layers = [t[None].expand(2, *t.shape) for t in _t1()[:2]]
    both = match_cost(*layers, *_t1()[2:], class_cost="softmax", class_gain=1.0)
    assert torch.equal(both, cost[None].expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("x", "cost"), [(0.0, -0.0866434), (2.0, -1.2371077), (-2.0, 0.4111669), (-20.0, 5.0)]
)
def test_the_focal_cost_of_an_entry(x, cost):
    box = torch.tensor([[[0.5, 0.5, 1, 1]]]).double()
    given = torch.tensor([[[x]]]).double(), box, box, torch.tensor([[0]])
    found = match_cost(*given, class_gain=1.0, l1_gain=0.0, giou_gain=0.0)
    assert found.item() == pytest.approx(cost, abs=1e-7)


def test_the_focal_cost_is_what_the_loss_changes_by():
    x = torch.linspace(-9, 9, 13).double()
    box = torch.tensor([[[0.5, 0.5, 1, 1]]]).double()
    found = match_cost(
        x.view(1, -1, 1), box.expand(1, 13, 4), box, torch.tensor([[0]]), class_gain=1.0,
        l1_gain=0.0, giou_gain=0.0, alpha=0.4, gamma=1.5,
    )  # fmt: skip
    yes, no = (
        focal_loss(x, torch.full_like(x, t), alpha=0.4, gamma=1.5, reduction="none") for t in (1, 0)
    )
    torch.testing.assert_close(found.flatten(), yes - no)


def test_hopeless_queries_are_in_order_where_an_epsilon_makes_them_equal():
    box = torch.tensor([[[0.5, 0.5, 1, 1]]])
    x = torch.tensor([-20.0, -40.0]).view(1, 2, 1)
    ours = match_cost(x, box.expand(1, 2, 4), box, torch.tensor([[0]]), class_gain=1.0)
    p = x.sigmoid()
    theirs = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log() - 0.75 * p**2 * -(1 - p + 1e-8).log()
    assert theirs[0, 1] - theirs[0, 0] < 0.06
    assert ours[0, 1] - ours[0, 0] == pytest.approx(5.0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_costs_are_float32_and_finite_at_any_logit_whatever_autocast_says(dtype):
    _, boxes, goals, labels = _t1()
    x = torch.tensor([60.0, -60.0, 8.5]).view(1, 3, 1).expand(1, 3, 3).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        for kind in ("focal", "softmax"):
            cost = match_cost(x, boxes.to(dtype), goals, labels, class_cost=kind)
            assert cost.dtype == torch.float32
            assert cost.isfinite().all()
    # 1e-8 is 0 in half
    p = torch.tensor(8.5, dtype=torch.float16).sigmoid()
    assert (-(1 - p + 1e-8).log()).isinf() == (p == 1)
    matcher = HungarianMatcher(class_cost="focal")
    there = torch.ones(1, 2, dtype=torch.bool)
    assert matcher(x, boxes.to(dtype), None, goals, labels, there).matches.dtype == torch.int64


def _all_pairs(scale):
    shapes = torch.tensor(
        [[0, 0, 1, 1], [3, 3, 4, 4], [0.5, 0.5, 0.5, 0.5], [7, 7, 7, 7], [0, 0.5, 1, 0.5],
         [1, 1, 0, 0], [1, 0, 0, 1], [0.25, 0.25, 0.75, 0.75], [1000, 0, 1001, 1]]
    ).double() * scale  # fmt: skip
    return shapes, shapes[[0, 1, 2, 4, 7, 8]]


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("box_format", ["xyxy", "xywh", "cxcywh"])
def test_giou_of_all_pairs_is_that_of_the_loss(box_format, scale):
    boxes, goals = _all_pairs(scale)
    found = pairwise_giou(boxes, goals, box_format)
    rows = boxes.unsqueeze(1).expand(-1, len(goals), 4)
    want = giou_loss(rows, goals.expand_as(rows), box_format=box_format, reduction="none")
    torch.testing.assert_close(found, 1 - want)
    assert found.isfinite().all()
    if box_format == "xyxy":
        assert found[0, 0] == found[2, 2] == found[4, 3] == 1  # box, point and line
        assert found[3, 2] == pytest.approx(-1)  # two points apart, where an IoU of 0/0 is NaN


def test_distances_and_shares_of_all_pairs():
    boxes, goals = _random(2, 5, 4), _random(2, 3, 4, seed=1)
    want = torch.cdist(boxes, goals, p=1)
    torch.testing.assert_close(pairwise_l1(boxes, goals), want)
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 1, 1, 1], [5, 5, 5, 5], [-1, 0, 1, 2]])
    regions = torch.tensor([[0.0, 0, 4, 1], [0, 0, 4, 4], [0, 0, 0, 0]])
    want = [[0.5, 1, 0], [1, 1, 0], [0, 0, 0], [0.25, 0.5, 0]]
    assert covered(boxes, regions, "xyxy").tolist() == want


def test_lists_and_padding_give_the_same_bits():
    logits, boxes = _random(2, 6, 3), _random(2, 6, 4, seed=1).sigmoid()
    goals = [_random(2, 4, seed=2).sigmoid(), torch.zeros(0)]
    labels = [torch.tensor([2, 0]), torch.tensor([])]
    cost = match_cost(logits, boxes, goals, labels)
    padded = torch.zeros(2, 2, 4)
    padded[0] = goals[0]
    of = match_cost(logits, boxes, padded, torch.tensor([[2, 0], [-1, -1]]))
    assert torch.equal(cost, of)
    assert cost[1].isinf().all()
    assert match_cost(logits, boxes, [torch.zeros(0, 4)] * 2, [torch.tensor([])] * 2).numel() == 0


def test_many_images_are_costed_in_parts_to_the_same_numbers(monkeypatch):
    given = _random(3, 4, 6, 3), _random(3, 4, 6, 4, seed=1).sigmoid()
    goals, labels = _random(4, 5, 4, seed=2).sigmoid(), torch.randint(3, (4, 5))
    whole = match_cost(*given, goals, labels)
    monkeypatch.setattr("aptt.loss.matching.cost._AT_ONCE", (60, 60))
    torch.testing.assert_close(match_cost(*given, goals, labels), whole)


def test_a_cost_of_ones_own_is_added_and_nothing_flows_back():
    logits, boxes, goals, labels = _t1()
    logits.requires_grad_()
    cost = match_cost(
        logits, boxes, goals, labels, class_cost=lambda x, k: 0 * x[..., :1] + 7.0 * k[:, None]
    )
    zero = match_cost(logits, boxes, goals, labels, class_gain=0.0)
    torch.testing.assert_close(cost - zero, torch.tensor([0.0, 14.0]).expand(1, 3, 2))
    assert not cost.requires_grad


def test_pixels_and_other_mistakes_are_said():
    logits, boxes, goals, labels = _t1()
    with pytest.raises(ValueError, match=r"target_boxes: got 640, wanted parts of the image"):
        match_cost(logits, boxes, goals * 0 + 640, labels)
    match_cost(logits, boxes, goals * 0 + 640, labels, l1_gain=5 / 640)
    with pytest.raises(ValueError, match="target_labels: got class 3, wanted 0 to 2"):
        match_cost(logits, boxes, goals, labels + 2)
    with pytest.raises(ValueError, match=r"row 0 is .*, wanted finite sizes"):
        match_cost(logits, boxes, -goals, labels)
    for wrong in ({"class_cost": "ce"}, {"l1_gain": -1.0}, {"alpha": 2.0}, {"box_format": "yx"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            HungarianMatcher(**wrong)
        with pytest.raises(ValueError, match=next(iter(wrong))):
            match_cost(logits, boxes, goals, labels, **wrong)
    with pytest.raises(ValueError, match="surplus: got 'keep'"):
        assign(torch.zeros(2, 2), surplus="keep")
    with pytest.raises(ValueError, match=r"target_mask: got \(3,\)"):
        assign(torch.zeros(2, 2), target_mask=torch.ones(3))


# ----------------------------------------------------------------- denoising, layers of a decoder


def test_denoising_queries_answer_for_the_targets_they_are_made_from():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    found = denoising_matches(mask, 2)
    assert found.tolist() == [[0, 1, -2, -1, -1, -2] * 2, [0, -2, -2, -1, -2, -2] * 2]
    assert denoising_matches(mask, 2, contrastive=False)[0].tolist() == [0, 1, -2] * 2
    assert denoising_matches(torch.zeros(3, 0), 5).shape == (3, 0)


def test_the_union_of_layers_is_what_most_of_them_say():
    layers = torch.tensor([[[0, -1, 1, -2]], [[2, -1, -1, -1]], [[2, -1, 0, -2]]])
    assert union_matches(layers).tolist() == [[2, -1, 1, -1]]
    with pytest.raises(ValueError, match="of layers"):
        union_matches(torch.zeros(3, dtype=torch.long))


# ---------------------------------------------------------------------------------- the machinery


def test_without_scipy_the_answer_is_the_same_and_large_problems_say_so_once(monkeypatch):
    import builtins

    cost = _random(2, 30, 9).double()
    want = assign(cost)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    assignment._scipy.cache_clear()
    assignment._say_once.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(assignment, "_SLOW", 200)
    try:
        with pytest.warns(UserWarning, match=r"pip install 'aptt\[matching\]'"):
            assert torch.equal(assign(cost), want)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(assign(cost), want)
    finally:
        assignment._scipy.cache_clear()
        assignment._say_once.cache_clear()


def test_one_operator_under_a_compiler_and_under_transforms():
    cost = _random(4, 6, 3)
    want = assign(cost)
    compiled = torch.compile(assign, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(cost), want)
    assert torch.equal(torch.func.vmap(assign)(cost), want)

    def of_the_matched(cost):
        return (cost * (assign(cost) >= 0).unsqueeze(-1)).sum()

    slope = torch.func.grad(of_the_matched)(cost)
    assert torch.equal(slope, (want >= 0).unsqueeze(-1).expand_as(cost).float())
    assert assign(cost.to("meta")).shape == want.shape


def test_a_solver_of_ones_own_is_given_finite_costs_and_the_mask():
    seen = []

    def greedy(cost, mask):
        seen.append((cost, mask))
        return (
            torch.arange(cost.shape[1])
            .expand(cost.shape[:2])
            .masked_fill(torch.arange(cost.shape[1]) >= cost.shape[2], -1)
        )

    cost = _random(2, 4, 3)
    cost[0, 0, 0] = NAN
    mask = torch.tensor([[True, True, True], [True, False, True]])
    found = assign(cost, target_mask=mask, solver=greedy)
    assert found.tolist() == [[0, 1, 2, -1], [0, -1, 2, -1]]
    assert seen[0][0].isfinite().all()
    assert torch.equal(seen[0][1], mask)


@pytest.mark.parametrize(
    ("gives", "error", "said"),
    [
        (torch.full((1, 2), 7), ValueError, "solver: returned 7, wanted the index of one of 3"),
        (torch.zeros(1, 2), TypeError, "solver: got torch.float32, wanted .* integer dtype$"),
        (torch.zeros(1, 2, dtype=torch.uint16), TypeError, r"uint16, .* dtype: solver.long\(\)$"),
        (torch.zeros(1, 3, dtype=torch.long), ValueError, r"solver: \(1, 3\) should be \(N, Q\)"),
        ([[0, 1]], TypeError, "solver: got list, wanted a tensor"),
    ],
)
def test_a_solver_that_gives_no_targets_is_named(gives, error, said):
    with pytest.raises(error, match=said):
        assign(torch.zeros(1, 2, 3), surplus="drop", solver=lambda cost, mask: gives)


def test_a_matcher_needs_no_anchors_in_the_detection_loss():
    logits = _random(1, 3, 2).double()
    boxes = torch.tensor([[[0.0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0, 1, 1]]]).double()
    goals, labels = [boxes[0, [1, 0]]], [torch.tensor([0, 1])]
    options = {"class_loss": focal_loss, "box_loss": giou_loss}
    found = detection_loss(logits, boxes, goals, labels, assigner=HungarianMatcher(), **options)
    matches = torch.tensor([[1, 0, -1]])
    want = detection_loss(logits, boxes, goals, labels, matches=matches, **options)
    torch.testing.assert_close(found, want)


def test_what_may_not_be_chosen_is_not():
    logits, boxes, goals, labels = _t1()
    there, may = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[True, False, True]])
    matcher = HungarianMatcher(box_format="cxcywh")
    found = matcher(logits, boxes, None, goals, labels, there, may)
    assert found.matches.tolist() == [[1, -1, 0]]
    few = matcher(logits[:, :2], boxes[:, :2], None, goals, labels, there, may[:, :2])
    assert few.matches.tolist()[0][1] == -1


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_host_waits_once_for_six_layers_of_sixteen_images():
    device = register()
    logits, boxes = _random(6, 16, 300, 4), _random(6, 16, 300, 4, seed=1).sigmoid()
    goals, labels = _random(16, 30, 4, seed=2).sigmoid(), torch.randint(4, (16, 30))
    there = torch.arange(30) < torch.randint(31, (16, 1))
    given = (logits, boxes, None, goals, labels, there)
    want = HungarianMatcher()(*given).matches
    away = [t if t is None else t.to(device) for t in given]
    with counting() as bill:
        found = HungarianMatcher()(*away)
    assert bill.waits == ["_to_copy"]
    assert torch.equal(found.matches.cpu(), want)


@pytest.mark.parametrize("junk", [640.0, torch.nan])
def test_padding_is_in_no_unit(junk):
    logits, boxes, there = torch.zeros(1, 2, 1), torch.rand(1, 2, 4), torch.tensor([[True, False]])
    matcher, labels = HungarianMatcher(box_format="cxcywh"), torch.zeros(1, 2, dtype=torch.long)

    def matches(target, real):
        return matcher(logits, boxes, None, target, labels, real).matches

    padded = boxes.index_fill(1, torch.tensor(1), junk)
    assert torch.equal(matches(padded, there), matches(boxes, there))
    with pytest.raises(ValueError, match="wanted parts of the image"):  # a NaN there hides no pixel
        matches(torch.where(there[..., None], 640.0, padded), there)
