import pytest
import torch

from aptt.recipes import open_recipe
from aptt.recipes.policy import _binary
from aptt.recipes.training import fit


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("policy")


def test_numbers_in_bits():
    assert _binary(torch.tensor([0, 6, 9])).tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]]


def test_nothing_is_trained_on_that_is_tested_on(recipe):
    assert recipe.test_labels.bincount().tolist() == [50] * 10
    seen = {tuple(row) for row in recipe.images.tolist()}
    assert not seen & {tuple(row) for row in recipe.test_images.tolist()}


def test_a_bit_is_told_the_bits_before_it_and_no_other(recipe):
    torch.manual_seed(0)
    model, images = recipe.model(), recipe.test_images[:5]
    bits = torch.randint(2, (5, 4))
    other = bits.clone()
    other[:, 2] = 1 - other[:, 2]
    changed = (model(images, bits) != model(images, other)).any(-1).any(0)
    assert changed.tolist() == [False, False, False, True]


@pytest.mark.parametrize("loss", ["clip", "sequence"])
def test_it_learns_from_rewards_alone(recipe, loss):
    run = fit(recipe, loss, steps=160)
    assert run.before["reward"] < 0.2
    assert run.after["reward"] > run.before["reward"] + 0.1
    assert run.after["bits"] > 0.65


def test_each_model_is_shown(recipe):
    models = {loss: recipe.model() for loss in recipe.losses}
    (gallery,) = recipe.galleries(models)
    assert [picture.title for picture in gallery.pictures] == list(models)
    assert all(picture.title in picture.alt for picture in gallery.pictures)
