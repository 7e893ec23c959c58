import pytest
import torch
from torch.nn import functional as F

from aptt.recipes import open_recipe
from aptt.recipes.training import fit


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("classification")


def test_the_training_set_has_a_long_tail_and_the_test_set_has_none(recipe):
    assert recipe.labels.bincount().tolist() == [120, 72, 43, 26, 16, 9, 6, 4, 4, 4]
    assert recipe.test_labels.bincount().tolist() == [50] * 10


def test_a_perfect_model_scores_one(recipe):
    scores = recipe.evaluate(lambda images: F.one_hot(recipe.test_labels, 10))
    assert scores == {"balanced accuracy": 1.0, "rare digits": 1.0}


def test_a_model_that_knows_one_digit_scores_a_tenth(recipe):
    scores = recipe.evaluate(lambda images: torch.eye(10)[:1].expand(len(images), 10))
    assert scores == pytest.approx({"balanced accuracy": 0.1, "rare digits": 0.0})


def test_it_learns(recipe):
    run = fit(recipe, "cross-entropy", steps=100)
    assert run.before["balanced accuracy"] < 0.3
    assert run.after["balanced accuracy"] > 0.6


def test_each_model_is_shown(recipe):
    models = {loss: recipe.model() for loss in recipe.losses}
    (gallery,) = recipe.galleries(models)
    assert [picture.title for picture in gallery.pictures] == list(models)
    assert all(picture.title in picture.alt for picture in gallery.pictures)
