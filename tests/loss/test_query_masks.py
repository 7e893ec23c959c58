"""Masks of queries at points: values, gradients, and what is refused."""

import math

import pytest
import torch
from torch.nn import functional as F

from aptt.audit.pretend import counting, gradient, missing, register
from aptt.loss import assign, mask_match_cost, point_mask_terms
from aptt.loss.detr.points import at_points


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _given(images=2, queries=4, targets=3):
    masks = (_random(images, targets, 9, 7, seed=1) > 0).double()
    matches = torch.tensor([[1, -1, 0, 2], [-1, 2, -2, 0]])
    points = torch.rand(images, 11, 2, generator=torch.Generator().manual_seed(2)).double()
    return _random(images, queries, 6, 5), masks, matches, points


def test_between_pixels_it_is_grid_sample_and_at_the_rim_the_last_pixel():
    maps, points = _random(2, 3, 6, 5), _given()[3]
    inner = 0.15 + 0.7 * points  # half a pixel is a tenth
    want = F.grid_sample(maps, inner.unsqueeze(1) * 2 - 1, align_corners=False).squeeze(2)
    torch.testing.assert_close(at_points(maps, inner.unsqueeze(1)), want)
    corner = at_points(maps, torch.zeros(1, 1, 1, 2).double()).squeeze(-1)
    assert torch.equal(corner, maps[:, :, 0, 0])


def test_the_closed_forms_of_four_points():
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    points = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]])
    given = torch.zeros(1, 1, 2, 2), mask, torch.tensor([[0]])
    terms = point_mask_terms(*given, points=points)
    assert terms["mask"].item() == pytest.approx(math.log(2), rel=1e-6)
    assert terms["dice"].item() == pytest.approx(0.4, rel=1e-6)
    cost = mask_match_cost(*given[:2], points=points, mask_gain=1.0, dice_gain=0.0)
    assert cost.item() == pytest.approx(math.log(2), rel=1e-6)
    cost = mask_match_cost(*given[:2], points=points, mask_gain=0.0, dice_gain=1.0)
    assert cost.item() == pytest.approx(0.4, rel=1e-6)
    drawn = point_mask_terms(*given, num_points=9)
    assert drawn["mask"].item() == pytest.approx(math.log(2), rel=1e-6)  # wherever they are


def test_the_cost_of_a_pair_is_what_it_adds_to_the_loss():
    logits, masks, _, points = _given()
    cost = mask_match_cost(logits, masks, points=points, mask_gain=2.0, dice_gain=3.0)
    for q in range(4):
        for m in range(3):
            matches = torch.full((2, 4), -1)
            matches[0, q] = m
            terms = point_mask_terms(logits, masks, matches, points=points, reduction="sum")
            torch.testing.assert_close(2 * terms["mask"] + 3 * terms["dice"], cost[0, q, m])
    assert assign(cost).shape == (2, 4)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_sure_mask_has_the_slope_of_its_doubt(sign):
    x = torch.full((1, 1, 1, 1), 20.0 * sign, requires_grad=True)
    given = torch.full((1, 1, 1, 1), float(sign < 0)), torch.tensor([[0]])
    dice = point_mask_terms(x, *given, num_points=1)["dice"]
    (slope,) = torch.autograd.grad(dice, x)
    exact = x.detach().double().requires_grad_()
    p = (-torch.nn.functional.softplus(-exact)).exp()
    rest = (-torch.nn.functional.softplus(exact)).exp()
    wanted = p / (p + 1) if sign > 0 else rest / (p + 2)  # (p + t - 2 p t) / (p + t + 1)
    torch.testing.assert_close(slope.double(), torch.autograd.grad(wanted, exact)[0])
    assert slope.abs() > 1e-10


def test_masks_are_read_in_the_precision_of_the_logits():
    logits, masks, matches, points = _given()
    held = point_mask_terms(logits.double(), masks.float(), matches, points=points)
    exact = point_mask_terms(logits.double(), masks.double(), matches, points=points)
    assert all(torch.equal(held[name], exact[name]) for name in exact)


def test_slopes_of_points_that_are_given():
    logits, masks, matches, points = _given()

    def loss(x):
        return sum(point_mask_terms(x, masks, matches, points=points).values())

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())
    (slope,) = torch.autograd.grad(loss(logits), logits)
    assert (slope[0, 1] == 0).all()
    assert (slope[1, [0, 2]] == 0).all()
    torch.testing.assert_close(torch.func.grad(loss)(logits), slope)


def test_points_are_drawn_by_a_generator_and_mostly_where_it_is_uncertain():
    logits = torch.full((1, 1, 32, 32), 8.0)
    logits[..., 16] = 0.0  # a line of doubt, 1/32 of the mask
    masks = torch.ones(1, 1, 32, 32)
    given = logits, masks, torch.tensor([[0]])

    def drawn(**options):
        g = torch.Generator().manual_seed(0)
        return point_mask_terms(*given, num_points=64, generator=g, **options)["mask"].item()

    assert drawn() == drawn()
    assert drawn() > 2 * drawn(importance=0.0)


def test_lists_padding_and_groups_count_what_there_is():
    logits, masks, matches, points = _given()
    matches[1] = torch.tensor([-1, 0, -2, -1])
    listed = [masks[0], masks[1, :1]]
    found = point_mask_terms(logits, listed, matches, points=points)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    want = point_mask_terms(logits, masks, matches, target_mask=mask, points=points)
    total = point_mask_terms(logits, masks, matches, points=points, reduction="sum")
    for name in found:
        assert torch.equal(found[name], want[name])
        torch.testing.assert_close(found[name], total[name] / 4)
    twice = point_mask_terms(
        torch.cat((logits, logits), 1), masks, torch.cat((matches, matches), 1), points=points,
        groups=2, reduction="sum",
    )  # fmt: skip
    torch.testing.assert_close(twice["mask"], 2 * total["mask"])


def test_no_target_is_an_attached_0():
    logits = _random(2, 4, 6, 5).requires_grad_()
    for masks in (torch.zeros(2, 0, 8, 8), [torch.zeros(0, 8, 8)] * 2):
        terms = point_mask_terms(logits, masks, torch.full((2, 4), -1), num_points=5)
        loss = terms["mask"] + terms["dice"]
        assert loss == 0
        assert (torch.autograd.grad(loss, logits)[0] == 0).all()
        assert mask_match_cost(logits, masks, points=torch.rand(2, 5, 2)).shape == (2, 4, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_types_it_is_computed_in_float32(dtype):
    logits = torch.full((1, 1, 64, 64), 60.0, dtype=dtype)
    masks, points = torch.zeros(1, 1, 64, 64), torch.rand(1, 12544, 2)
    with torch.autocast("cpu", torch.bfloat16):
        cost = mask_match_cost(logits, masks, points=points, dice_gain=0.0)
        terms = point_mask_terms(logits, masks, torch.tensor([[0]]), points=points)
    assert cost.item() == pytest.approx(300, rel=1e-4)  # a sum would overflow
    assert terms["mask"].dtype == torch.float32
    assert terms["mask"].item() == pytest.approx(60, rel=1e-4)


def test_what_does_not_fit_is_said():
    logits, masks, matches, points = _given()
    for change, said in (
        ({"points": points[:1]}, "points: "),
        ({"num_points": 0}, "num_points"),
        ({"importance": 2.0}, "importance"),
        ({"oversample": 0.5}, "oversample"),
        ({"groups": 3}, "groups: got 3, of which 4"),
        ({"reduction": "none"}, "reduction"),
        ({"target_mask": torch.ones(2, 2)}, "target_mask"),
    ):
        with pytest.raises(ValueError, match=said):
            point_mask_terms(logits, masks, matches, **change)
    with pytest.raises(ValueError, match="matches: got 3, wanted the index of one of 3"):
        point_mask_terms(logits, masks, matches + 1)
    with pytest.raises(ValueError, match="target_masks: of image 1 got shape"):
        mask_match_cost(logits, [masks[0], masks[1, 0]], points=points)
    with pytest.raises(ValueError, match="mask_gain"):
        mask_match_cost(logits, masks, points=points, mask_gain=-1.0)


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_host_does_not_wait():
    logits, masks, matches, points = (t.to(register()) for t in _given())
    x = logits.requires_grad_()
    with counting() as bill:
        terms = point_mask_terms(x, masks, matches, points=points)
        gradient(terms["mask"] + terms["dice"], x)
    assert bill.waits == []


def test_what_is_no_target_and_a_target_twice_are_refused():
    logits, masks, matches, points = _given()
    there = torch.tensor([[True, True, True], [False, False, True]])
    for wrong, options in (
        (matches, {"target_mask": there}),  # image 1 has a query for target 0
        (matches - 2, {}),
        (matches + 2, {}),
        (matches.clamp(max=1).masked_fill(matches < 0, 1), {}),
    ):
        with pytest.raises(ValueError, match="matches: got"):
            point_mask_terms(logits, masks, wrong, points=points, **options)
    with pytest.raises(ValueError, match="matches: got 2, wanted the index of one of 3"):
        point_mask_terms(logits, [masks[0], masks[1, :1]], matches, points=points)
    twice = matches[:, [1, 0]].repeat(1, 2)  # a group may not, two may
    assert point_mask_terms(logits, masks, twice, points=points, groups=2)["mask"] > 0


def test_masks_of_255_of_several_sizes_and_points_nowhere_are_refused():
    logits, masks, matches, points = _given()
    for call in (
        lambda m, p: point_mask_terms(logits, m, matches, points=p),
        lambda m, p: mask_match_cost(logits, m, points=p),
    ):
        with pytest.raises(ValueError, match="target_masks: got 255, wanted numbers from 0 to 1"):
            call((masks * 255).byte(), points)
        with pytest.raises(ValueError, match="target_masks: got images of"):
            call([masks[0], masks[1, :, :4]], points)
        with pytest.raises(ValueError, match="points: got a number that is not finite"):
            call(masks, points * torch.nan)
    padded = masks.index_fill(1, torch.tensor(1), 255.0)  # of either image, target 1 is not there
    there = torch.tensor([[True, False, True]] * 2)
    found = torch.where(matches == 1, -1, matches)
    options = {"points": points, "target_mask": there}
    assert point_mask_terms(logits, padded, found, **options) == point_mask_terms(
        logits, masks, found, **options
    )
