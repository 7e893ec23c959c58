import pytest
import torch
from torch.nn import functional as F

from aptt.recipes import open_recipe
from aptt.recipes.training import fit


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("contrastive")


def test_no_picture_is_in_both_sets(recipe):
    assert len(recipe.test_images) == 300
    assert len(recipe.images) == 1797 - 300


def test_halves_that_know_each_other_score_one_and_one_answer_for_all_a_300th(recipe):
    alike = F.one_hot(torch.arange(300)).float()
    assert recipe.evaluate(lambda images: (alike, alike)) == {
        "retrieval at 1": 1.0,
        "same digit": 1.0,
    }
    scores = recipe.evaluate(lambda images: (alike * 0, alike))
    assert scores["retrieval at 1"] == pytest.approx(1 / 300)


@pytest.mark.parametrize("loss", ["both ways", "one way"])
def test_it_learns(recipe, loss):
    run = fit(recipe, loss, steps=60)
    assert run.before["retrieval at 1"] < 0.03
    assert run.after["retrieval at 1"] > 0.06
    assert run.after["same digit"] > run.before["same digit"] + 0.3


def test_each_model_is_shown(recipe):
    models = {loss: recipe.model() for loss in recipe.losses}
    (gallery,) = recipe.galleries(models)
    assert [picture.title for picture in gallery.pictures] == list(models)
    assert all(picture.title in picture.alt for picture in gallery.pictures)
