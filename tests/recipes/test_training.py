import pytest
import torch

from aptt.recipes import RECIPES, open_recipe
from aptt.recipes.results import Study
from aptt.recipes.training import fit

STEPS = 4


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("classification")


def stop_at(monkeypatch, recipe, step):
    """Press Ctrl-C during a step."""
    steps = iter(range(1, step + 1))
    plain = type(recipe).step

    def stopping(self, model, loss, batch):
        if next(steps) == step:
            raise KeyboardInterrupt
        return plain(self, model, loss, batch)

    monkeypatch.setattr(type(recipe), "step", stopping)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match="name: got 'poetry', wanted one of classification"):
        open_recipe("poetry")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_with_each_of_its_losses(name):
    recipe = open_recipe(name)
    assert recipe.name == name
    for loss in recipe.losses:
        run = fit(recipe, loss, steps=1)
        assert run.finished
        assert list(run.before) == list(run.after) == list(recipe.scores)


def test_the_seed_decides_everything(recipe):
    first, again, other = (fit(recipe, "cross-entropy", seed=s, steps=STEPS) for s in (1, 1, 2))
    assert first.values == again.values
    assert first.checks == again.checks
    assert first.values != other.values


def test_losses_start_from_the_same_model(recipe):
    runs = [fit(recipe, loss, seed=1, steps=STEPS) for loss in recipe.losses]
    assert all(run.before == runs[0].before for run in runs)


def test_training_leaves_torch_as_it_was(recipe):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    fit(recipe, "focal", steps=STEPS)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_scores_are_taken_on_the_way(recipe):
    run = fit(recipe, "cross-entropy", steps=25)
    assert [check.step for check in run.checks] == [0, 3, 6, 9, 12, 15, 18, 21, 24, 25]


def test_every_step_is_watched(recipe):
    seen = []
    fit(recipe, "focal", steps=STEPS, watch=lambda run: seen.append(len(run.values)))
    assert seen == [1, 2, 3, 4]


def test_ctrl_c_keeps_what_was_done(monkeypatch, recipe):
    stop_at(monkeypatch, recipe, step=3)
    run = fit(recipe, "cross-entropy", steps=STEPS)
    assert not run.finished
    assert len(run.values) == run.checks[-1].step == 2


def test_ctrl_c_before_the_first_step_leaves_nothing_to_keep(monkeypatch, recipe):
    stop_at(monkeypatch, recipe, step=1)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, "cross-entropy", steps=STEPS)


def test_ctrl_c_ends_a_study_with_the_run_it_hit(monkeypatch, recipe):
    stop_at(monkeypatch, recipe, step=STEPS + 2)
    study = Study(recipe)
    with pytest.raises(KeyboardInterrupt):
        study.train(["cross-entropy", "focal"], [0, 1], STEPS, lambda run: None)
    assert [(run.loss, run.seed, run.finished) for run in study.runs] == [
        ("cross-entropy", 0, True),
        ("focal", 0, False),
    ]
