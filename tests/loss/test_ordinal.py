"""Ranks as a ladder of levels: CORAL and CORN."""

import math

import pytest
import torch
from torch.nn import functional as F

from aptt.loss import (
    binary_cross_entropy,
    coral_loss,
    corn_loss,
    ordinal_decode,
    ordinal_probabilities,
)
from aptt.loss.classification.levels import LADDER


def _batch(n=9, levels=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(n, levels, dtype=torch.float64, generator=g)
    return x, torch.randint(levels + 1, (n,), generator=g)


def test_closed_forms():
    nothing = torch.zeros(1, 3, dtype=torch.float64)
    assert coral_loss(nothing, torch.tensor([1])).item() == pytest.approx(3 * math.log(2))
    x, y = torch.tensor([[2.0, 0.0, -2.0]], dtype=torch.float64), torch.tensor([2])
    # 2 softplus(-2) + log 2, over one rank or over three questions
    whole = 2 * math.log1p(math.exp(-2)) + math.log(2)
    assert whole == pytest.approx(0.947003, abs=1e-6)
    assert coral_loss(x, y).item() == pytest.approx(whole)
    assert corn_loss(x, y).item() == pytest.approx(whole / 3)
    # rank 0 is asked one question, the others would be answered by chance
    assert corn_loss(x, torch.tensor([0])).item() == pytest.approx(math.log1p(math.exp(2)))


def test_of_all_levels_it_is_binary_cross_entropy():
    x, y = _batch()
    levels = (y[:, None] > torch.arange(4)).double()
    whole = F.binary_cross_entropy_with_logits(x, levels, reduction="none")
    torch.testing.assert_close(coral_loss(x, y), whole.sum(1).mean())
    importance = torch.tensor([0.5, 2.0, 0.0, 1.0], dtype=torch.float64)
    weighted = coral_loss(x, y, level_weight=importance, reduction="none")
    torch.testing.assert_close(weighted, whole @ importance)


def test_of_conditional_levels_each_has_the_rows_that_reach_it():
    # task by task, as the paper has it: the rows above level k - 1, and whether they are above k
    x, y = _batch(40)
    total, asked = 0.0, 0
    for k in range(4):
        here = y > k - 1
        some = binary_cross_entropy(x[here, k], (y[here] > k), reduction="sum")
        total, asked = total + some, asked + int(here.sum())
    torch.testing.assert_close(corn_loss(x, y), total / asked)
    torch.testing.assert_close(corn_loss(x, y, reduction="none").sum(), total)


def test_two_ranks_are_a_yes_or_no():
    x, y = _batch(levels=1)
    wanted = F.binary_cross_entropy_with_logits(x[:, 0], y.double())
    torch.testing.assert_close(coral_loss(x, y), wanted)
    torch.testing.assert_close(corn_loss(x, y), wanted)


def test_levels_that_no_rank_reaches_have_no_gradient():
    x = torch.full((3, 4), 0.5, requires_grad=True)
    x.data[:, 2:] = math.nan  # which nobody asks about
    loss = corn_loss(x, torch.tensor([0, 1, 1]))
    (grad,) = torch.autograd.grad(loss, x)
    # 0 and 1 at level 0, a no at level 1
    wanted = (3 * math.log1p(math.exp(0.5)) + 2 * math.log1p(math.exp(-0.5))) / 5
    assert loss.item() == pytest.approx(wanted)
    assert (grad[:, 2:] == 0).all()
    assert (grad[0, 1:] == 0).all()


def test_sure_and_wrong_keeps_its_digits():
    x = torch.tensor([[-200.0, 200.0]], requires_grad=True)  # both wrong for rank 1
    for loss, count in ((coral_loss, 1), (corn_loss, 2)):  # ranks, questions
        value = loss(x, torch.tensor([1]))
        (grad,) = torch.autograd.grad(value, x)
        assert value.item() == 400 / count
        assert grad.tolist() == [[-1 / count, 1 / count]]


def test_a_level_that_is_surely_not_reached_keeps_the_digits_of_its_slope():
    # -log(1 - p) = z - logsigmoid(z) loses them: 5.96e-8 in coral-pytorch 1.4, for sigmoid(-17)
    x = torch.tensor([[-17.0]], requires_grad=True)
    for loss in (coral_loss, corn_loss):
        (grad,) = torch.autograd.grad(loss(x, torch.tensor([0])), x)
        assert grad.item() == pytest.approx(1 / (1 + math.exp(17)), rel=1e-6)


def test_ranks_are_read_back():
    x = torch.tensor([[14.152, -6.1942, 0.47710, 0.96850], [65.667, 0.303, 11.500, -4.524]])
    assert ordinal_decode(x, kind="corn").tolist() == [1, 3]
    above = ordinal_probabilities(x, kind="corn")
    assert (above.diff(dim=1) <= 0).all()
    torch.testing.assert_close(above[1, 2], x[1, :3].sigmoid().prod())
    # CORAL's count levels, wherever they are
    assert ordinal_decode(x).tolist() == [3, 3]
    image = x.T.reshape(1, 4, 2)
    assert ordinal_decode(image, kind="corn", class_dim=1).tolist() == [[1, 3]]
    assert ordinal_probabilities(x.half()).dtype == torch.float32


def test_the_best_logits_give_the_rank_back():
    y = torch.arange(5)
    x = 20.0 * (2 * (y[:, None] > torch.arange(4)).float() - 1)
    assert ordinal_decode(x).tolist() == y.tolist()
    assert ordinal_decode(x, kind="corn").tolist() == y.tolist()
    assert corn_loss(x, y) < 1e-8


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("importance", [None, torch.tensor([[0.0, 0.5, 1.0, 4.0]]).double()])
def test_steps(nested, importance, same_as_autograd):
    x, y = _batch()
    importance = None if importance is None else importance[0]
    same_as_autograd(LADDER, x, y, level_weight=importance, nested=nested)


def test_what_is_no_rank_is_refused():
    x, _ = _batch(2)
    with pytest.raises(ValueError, match="target: got class 5, wanted 0 to 4 or ignore_index=-100"):
        coral_loss(x, torch.tensor([0, 5]))
    with pytest.raises(TypeError, match=r"target: got torch\.float64, wanted class indices"):
        corn_loss(x, torch.ones(2, 4).double())
    with pytest.raises(ValueError, match="kind: got 'coralline', wanted 'coral', 'corn'"):
        ordinal_decode(x, kind="coralline")
