import pytest
import torch

from aptt.recipes.training import fit

pytest.importorskip("mlxtend")

from aptt.recipes import open_recipe


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("distillation")


def test_labels_are_few_and_nothing_is_in_two_sets(recipe):
    assert recipe.labels.bincount().tolist() == [20] * 10
    assert recipe.test_labels.bincount().tolist() == [100] * 10
    sets = [recipe.images, recipe.unlabelled, recipe.test_images]
    rows = torch.cat([images.flatten(1) for images in sets])
    assert len(rows.unique(dim=0)) == len(rows) == 200 + 2000 + 1000


def test_the_teacher_has_learnt_something_and_learns_no_more(recipe):
    assert (recipe.test_answers.argmax(1) == recipe.test_labels).double().mean() > 0.9
    assert not any(t.requires_grad for t in recipe.answers)


def test_the_teachers_own_answers_score_as_it_does(recipe):
    scores = recipe.evaluate(lambda images: recipe.test_answers)
    assert scores["agreement"] == 1.0
    assert recipe.evaluate(lambda images: torch.eye(10)[:1].expand(len(images), 10)) == (
        pytest.approx({"accuracy": 0.1, "agreement": 0.1}, abs=0.03)
    )


def test_every_loss_learns(recipe):
    for loss in recipe.losses:
        run = fit(recipe, loss, steps=60)
        assert run.after["accuracy"] > 0.4


def test_each_model_is_shown_beside_the_teacher(recipe):
    (gallery,) = recipe.galleries({loss: recipe.model() for loss in recipe.losses})
    assert [p.title for p in gallery.pictures] == ["image", "teacher", *recipe.losses]
