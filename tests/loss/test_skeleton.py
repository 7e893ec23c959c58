"""clDice and soft skeletons: by hand, where others go wrong, and as skeleton recall."""

import pytest
import torch
from torch.nn import functional as F

from aptt.loss import ClDiceLoss, cl_dice_loss, cl_dice_terms, soft_skeleton, tversky_loss


def bar(height=7, width=9):
    t = torch.zeros(1, height, width, dtype=torch.long)
    t[:, 2:5, 1:-1] = 1
    return t


def logits_of(p):
    return torch.as_tensor(p, dtype=torch.float64).logit()


def loss(p, target, **options):
    return cl_dice_loss(logits_of(p), target, mode="binary", **options).item()


def _random(*shape, seed=0, scale=2.0):
    return scale * torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


# ------------------------------------------------------------------------------- skeletons


def test_the_skeleton_of_a_bar_is_its_middle_from_one_erosion_on():
    mask = bar().unsqueeze(1).double()
    assert not soft_skeleton(mask, iterations=0).any()
    for iterations in (1, 2, 5):
        skeleton = soft_skeleton(mask, iterations=iterations)
        assert skeleton[0, 0].nonzero().tolist() == [[3, x] for x in range(2, 7)]


def test_a_line_is_its_own_skeleton():
    line = torch.zeros(1, 1, 5, 6)
    line[..., 2, :] = 1
    assert torch.equal(soft_skeleton(line), line)
    cube = torch.zeros(1, 1, 3, 4, 5)
    cube[..., 1, 2, :] = 1
    assert torch.equal(soft_skeleton(cube), cube)


def test_the_skeleton_is_that_of_pooling():
    x = _random(2, 3, 9, 8).sigmoid()

    def eroded(v):
        return torch.minimum(
            -F.max_pool2d(-v, (3, 1), 1, (1, 0)), -F.max_pool2d(-v, (1, 3), 1, (0, 1))
        )

    y, found = x, None
    for _ in range(4):
        less = eroded(y)
        more = F.relu(y - F.max_pool2d(less, 3, 1, 1))
        found = more if found is None else found + F.relu(more - found * more)
        y = less
    assert torch.equal(soft_skeleton(x), found)


def test_an_image_without_an_outside_has_no_skeleton_unless_the_frame_is_one():
    ones = torch.ones(1, 1, 64, 64)
    assert not soft_skeleton(ones, iterations=40).any()
    framed = soft_skeleton(ones, iterations=40, border="background")
    assert framed[0, 0].nonzero().tolist() == [[31, 31], [31, 32], [32, 31], [32, 32]]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_a_mask_without_pixels_has_no_skeleton(shape):
    with pytest.raises(ValueError, match=r"^mask: got shape .*, wanted \(N, C, \*S\)"):
        soft_skeleton(torch.ones(shape))


def test_the_gradient_is_symmetric_on_a_plateau():
    p = (0.9 * bar().unsqueeze(1).double()).requires_grad_()
    (slope,) = torch.autograd.grad(soft_skeleton(p).sum(), p)
    for axis in (2, 3):
        torch.testing.assert_close(slope, slope.flip(axis), rtol=0, atol=1e-15)
    assert (slope[0, 0, 5] != 0).any()  # where pooling sends nothing


def test_it_holds_two_tensors_a_step():
    p, held = _random(1, 1, 16, 16).sigmoid().requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t) or t, lambda t: t):
        soft_skeleton(p, iterations=3)
    large = {t.data_ptr() for t in held if t.numel() == p.numel()}
    assert len(large) <= 2 * (3 + 1)


# ---------------------------------------------------------------------------------- clDice


def test_half_of_a_bar_costs_a_third_by_hand():
    assert loss(0.5 * bar(), bar()) == pytest.approx(1 / 3)
    terms = cl_dice_terms(logits_of(0.5 * bar()), bar(), mode="binary")
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(
        {"precision": 0.0, "sensitivity": 0.5}
    )


def test_nothing_predicted_has_no_precision():
    terms = cl_dice_terms(torch.full((1, 7, 9), -1e4), bar(), mode="binary")
    assert {k: v.item() for k, v in terms.items()} == {"precision": 1.0, "sensitivity": 1.0}


def test_all_foreground_is_not_perfect_as_it_is_elsewhere():
    assert loss(bar(), bar()) == 0
    assert loss(torch.ones(1, 7, 9), bar()) == 1
    assert loss(torch.full((1, 7, 9), 0.5), bar()) == 1
    near = torch.full((1, 7, 9), 0.99) - 1e-3 * _random(1, 7, 9).sigmoid()
    assert loss(near, bar()) > 0.3


def test_monai_takes_all_foreground_for_perfect():
    monai = pytest.importorskip("monai.losses")
    target = bar(64, 64).unsqueeze(1).float()
    theirs = monai.SoftclDiceLoss()
    values = [theirs(target, p).item() for p in (target, torch.ones_like(target))]
    assert values == pytest.approx([5e-5, 5e-5], abs=1e-4)
    assert loss(torch.ones(1, 64, 64), bar(64, 64)) == 1


def test_a_cut_costs_more_than_the_same_pixels_elsewhere():
    cut, thin = bar().double(), bar().double()
    cut[:, 2:5, 4] = 0
    thin[:, 2, 1:4] = 0
    assert loss(cut, bar(), iterations=1) > loss(thin, bar(), iterations=1)


@pytest.mark.parametrize("policy", ["skip", "zero", "penalize"])
def test_an_empty_target_has_a_policy(policy):
    want = 0.25 if policy == "penalize" else 0.0
    assert loss(torch.full((1, 5, 5), 0.25), torch.zeros(1, 5, 5).long(), absent=policy) == want


def test_a_skeleton_made_ahead_is_the_loss_s_own():
    logits, target = _random(2, 3, 7, 9), torch.cat((bar(), 2 * bar()))
    hot = F.one_hot(target, 3).movedim(-1, 1).double()
    want = cl_dice_loss(logits, target)
    got = cl_dice_loss(logits, target, skeleton=soft_skeleton(hot))
    torch.testing.assert_close(got, want)
    assert ClDiceLoss()(logits, target) == want


def test_what_is_removed_is_background_to_the_skeleton():
    target = bar()
    weight = torch.ones(1, 7, 9)
    weight[..., 5:] = 0
    logits = logits_of(0.5 * target)
    logits[..., 5:] = torch.nan
    got = cl_dice_loss(logits, target, mode="binary", weight=weight)
    short = torch.where(weight == 0, 0, target)
    assert got.item() == pytest.approx(loss(0.5 * short, short))


@pytest.mark.parametrize("ahead", [False, True])
def test_what_is_removed_is_background_to_any_skeleton(ahead):
    logits, target = _random(2, 3, 7, 9), (_random(2, 3, 7, 9, seed=1) > 0).double()
    weight = (_random(2, 3, 7, 9, seed=2) > -1).double()
    removed = weight == 0
    assert 0 < removed.sum() < removed.numel() / 2
    known = logits.masked_fill(removed, -1e4), target.masked_fill(removed, 0)
    want = cl_dice_loss(*known, mode="multilabel")
    made = soft_skeleton(known[1]).masked_fill(removed, 1.0) if ahead else None
    logits = logits.masked_fill(removed, torch.nan)
    target = target.masked_fill(removed, 1)
    got = cl_dice_loss(logits, target, mode="multilabel", weight=weight, skeleton=made)
    torch.testing.assert_close(got, want)


def test_the_gradient_is_that_of_the_value():
    target, x = bar(5, 6), _random(1, 5, 6).requires_grad_()
    options = dict(mode="binary", iterations=1)
    assert torch.autograd.gradcheck(lambda x: cl_dice_loss(x, target, **options), x)


def test_compiled_it_is_one_graph(same_when_compiled):
    same_when_compiled(cl_dice_loss, _random(1, 5, 6), bar(5, 6), mode="binary", iterations=1)


def test_nan_that_counts_is_nan():
    x = _random(1, 7, 9)
    x[0, 3, 4] = torch.nan
    assert cl_dice_loss(x, bar(), mode="binary").isnan()


# --------------------------------------------------------------------------- skeleton recall


def test_skeleton_recall_is_a_tversky_loss_of_the_skeleton():
    """Kirchhoff et al. 2024 (arXiv:2404.03010): 1 - sum p s / sum s."""
    logits = _random(2, 3, 7, 9)
    tubes = torch.zeros(2, 3, 7, 9)
    tubes[:, 1, 3, 2:7] = 1
    tubes[0, 2, 0] = 1
    p = logits.sigmoid()
    want = (1 - (p * tubes).sum((0, 2, 3)) / tubes.sum((0, 2, 3)))[1:].mean()
    got = tversky_loss(logits, tubes, mode="multilabel", alpha=0.0, beta=1.0)
    torch.testing.assert_close(got, want)


def test_what_rounding_leaves_of_a_plateau_is_no_skeleton():
    flat = torch.full((1, 1, 9, 17), 0.4)
    above = torch.nextafter(flat, torch.ones(()))
    noise = torch.rand(flat.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    assert (soft_skeleton(torch.where(noise, above, flat)) == 0).all()
    ridge = flat.clone()
    ridge[..., 4, :] = 0.4 + 1e-5
    assert (soft_skeleton(ridge)[..., 4, :] > 0).all()


def test_next_to_nothing_predicted_is_no_nan():
    """A skeleton of 1e-26 in all, none of it in the target: its inverse is no infinity."""
    logits = [[[0.0], [59.4]], [[-0.1], [60.4]]]
    x = torch.tensor(logits, requires_grad=True)
    target = torch.tensor([[1], [1]])
    skeleton = torch.tensor([[[0.0], [0.0]], [[1.0], [0.0]]])
    (over,) = torch.autograd.grad(
        cl_dice_loss(x, target, skeleton=skeleton, border="background", reduction="sum"), x
    )
    assert torch.equal(over, torch.zeros_like(x))
    far = torch.tensor(logits) * torch.tensor([1.0, 1.6])[:, None]  # 1e-44 of a class
    x = far.requires_grad_()
    loss = cl_dice_loss(x, target, skeleton=skeleton, border="background", reduction="sum")
    (slope,) = torch.autograd.grad(loss, x)
    assert loss.isfinite()
    assert slope.isfinite().all()


def test_a_loss_near_0_has_its_digits():
    """Pixels that are ``1 - p`` = 3e-4 from their class, and nothing astray."""
    x = torch.tensor([[[0.0, 8.0], [8.0, 0.0]], [[0.0, 0.0], [8.0, 8.0]]])
    target = torch.tensor([[1, 0], [1, 1]])
    lost = torch.sigmoid(torch.tensor(-8.0, dtype=torch.float64))
    got = cl_dice_loss(x, target, iterations=1)
    torch.testing.assert_close(got.double(), lost / (2 - lost), rtol=1e-6, atol=0.0)
