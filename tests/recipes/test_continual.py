import pytest
import torch

from aptt.recipes import open_recipe
from aptt.recipes.training import fit


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("continual")


def test_each_task_has_its_two_digits(recipe):
    assert [len(y) for _, y in recipe.test] == [120] * 5
    assert all(y.unique().tolist() == [0, 1] for _, y in recipe.train)


def test_perfect_heads_score_one(recipe):
    answers = iter([torch.nn.functional.one_hot(y, 2) for _, y in recipe.test])
    scores = recipe.evaluate(lambda images: [next(answers)] * 5)
    assert scores == {"accuracy": 1.0, "first task": 1.0}


def test_tasks_come_one_after_the_other_and_the_old_network_is_remembered(recipe):
    run = fit(recipe, "learning without forgetting", steps=recipe.steps // 5 + 1)
    assert run.model.task == 1
    assert len(run.model.history) == 1
    (past,) = run.model.past
    assert len(list(run.model.parameters())) == len(list(past.parameters()))
    images = recipe.test[0][0]
    assert not torch.equal(past(images)[0], run.model(images)[0])
    assert run.model.history[0][0] > 0.9


def test_a_run_sees_every_task(recipe, monkeypatch):
    monkeypatch.setattr(recipe, "steps", 25)
    for loss in recipe.losses:
        run = fit(recipe, loss)
        assert len(run.model.history) == 4
        assert run.model.task == 4


def test_what_is_known_after_each_task_is_drawn(recipe):
    models = {loss: recipe.model() for loss in recipe.losses}
    (gallery,) = recipe.galleries(models)
    assert [picture.title for picture in gallery.pictures] == list(models)
    assert all("of the first task" in picture.alt for picture in gallery.pictures)
