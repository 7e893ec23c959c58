import pytest
import torch

from aptt.recipes import open_recipe
from aptt.recipes.training import fit

pytest.importorskip("statsmodels")


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("forecast")


def test_no_month_that_is_asked_about_was_learnt_from(recipe):
    # 61 years: 480 months to learn from, of which 36 make a window; 252 after
    assert recipe.inputs.shape == (480 - 35, 26)
    assert recipe.targets.shape == (480 - 35, 12)
    assert recipe.test_starts[0] == 1990
    assert recipe.test_inputs.shape == (252 - 11, 26)
    assert torch.equal(recipe.test_targets[0, :11], recipe.test_targets[:11, 0])
    months = torch.cat((recipe.inputs[:, :24], recipe.targets), 1)
    assert torch.equal(months[1:, :-1], months[:-1, 1:])


def test_the_usual_year_has_no_skill_and_the_truth_has_all(recipe):
    usual = recipe.evaluate(lambda _: recipe.climate)
    assert usual["skill"] == 0
    truth = recipe.test_targets.unsqueeze(-1).expand(-1, -1, 3)
    scores = recipe.evaluate(lambda _: truth)
    assert scores == {"skill": 1.0, "calibration": pytest.approx(0.8), "inside": 1.0}


def test_the_usual_year_is_of_the_month(recipe):
    # of the forty Januaries before 1990 four are below the quantile 0.1, and so on
    windows = torch.cat((recipe.inputs[:, :24], recipe.targets), 1)
    series = torch.cat((windows[0], windows[1:, -1])).view(40, 12, 1)
    first, second = recipe.climate[0], recipe.climate[1]  # that start in January and February
    wanted = torch.tensor([4, 20, 36])
    assert ((series < first).sum(0) <= wanted).all()
    assert (wanted <= (series <= first).sum(0)).all()
    assert torch.equal(first.roll(-1, 0), second)


@pytest.mark.parametrize("loss", ["quantiles", "normal, CRPS", "normal, likelihood"])
def test_it_learns_how_sure_it_may_be(recipe, loss):
    run = fit(recipe, loss)
    assert run.before["skill"] < 0
    assert run.after["skill"] > 0.05
    assert run.after["calibration"] > run.before["calibration"] + 0.05


def test_each_model_is_shown(recipe):
    models = {loss: recipe.model() for loss in recipe.losses}
    (gallery,) = recipe.galleries(models)
    assert [picture.title for picture in gallery.pictures] == list(models)
    assert all(picture.title in picture.alt for picture in gallery.pictures)
