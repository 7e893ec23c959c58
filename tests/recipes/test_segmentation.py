import pytest
import torch
from torch.nn import functional as F

from aptt.recipes import open_recipe
from aptt.recipes.segmentation import _near, _shores, _tiles, _untile


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("segmentation")


def always(found):
    """A model that finds the same, whatever it sees."""
    one_hot = F.one_hot(found, 3).movedim(-1, 1)
    rest = iter(one_hot.split(64))
    return lambda tiles: next(rest)


def test_every_fourth_column_is_held_out(recipe):
    assert recipe.held_out.nonzero().flatten().tolist() == [3, 7, 11, 15, 19, 23, 27, 31, 35]
    assert torch.equal(recipe.test_tiles[2], recipe.photo[:, 120:180, 180:240])
    assert len(recipe.test_tiles) == 9 * 18


def test_coasts_are_learnt_from(recipe):
    land = (recipe.masks == 1).float().mean((1, 2))
    assert 0 < land.min() < land.max() < 1
    assert recipe.tiles.shape == (len(recipe.masks), 3, 60, 60)


def test_a_map_is_cut_and_put_together_again():
    world = torch.randn(1080, 2160)
    assert torch.equal(_untile(_tiles(world)), world)


def test_a_perfect_model_scores_one(recipe):
    scores = recipe.evaluate(always(recipe.test_masks))
    assert scores == {"sea and land IoU": 1.0, "lake IoU": 1.0, "shores": 1.0}


def test_a_model_that_sees_only_sea_scores_its_share(recipe):
    scores = recipe.evaluate(always(torch.zeros_like(recipe.test_masks)))
    sea = (recipe.test_masks == 0).double().mean().item()
    assert scores == pytest.approx({"sea and land IoU": sea / 2, "lake IoU": 0.0, "shores": 0.0})


def test_a_shore_that_is_a_pixel_off_is_met_and_one_three_off_is_not():
    land = torch.zeros(1, 9, 9, dtype=torch.long)
    land[:, 4:] = 1
    shore, near = _shores(land), _near(_shores(land))
    assert shore.nonzero()[:, 1].unique().tolist() == [4]
    for off, met in ((1, True), (-1, True), (2, False), (3, False)):
        moved = _shores(land.roll(off, 1).index_fill(1, torch.arange(max(off, 0)), 0))
        moved[:, -2:] = False  # what came round
        assert bool((moved & near).any()) == met


def test_each_model_is_shown_beside_photo_and_truth(recipe):
    with torch.inference_mode():
        world, detail = recipe.galleries({"dice": recipe.model().eval()})
    assert [picture.title for picture in world.pictures] == ["photo", "dice"]
    assert [picture.title for picture in detail.pictures] == ["photo", "truth", "dice"]


def test_deep_supervision_reaches_the_heads_of_every_floor(recipe):
    model = recipe.model()
    tiles, masks = recipe.tiles[:2], recipe.masks[:2]
    assert [tuple(x.shape[2:]) for x in model.scales(tiles)] == [(60, 60), (30, 30), (15, 15)]
    for name, reached in (("dice-ce", 1), ("dice-ce, deep", 3)):
        model.zero_grad()
        recipe.step(model, recipe.losses[name].make(recipe), (tiles, masks)).backward()
        heads = (model.head, model.second, model.fourth)
        assert [head.weight.grad is not None for head in heads] == [i < reached for i in range(3)]
