import pytest
import torch

from aptt.recipes import open_recipe
from aptt.recipes.trio import _aligned, _plays


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("trio")


def test_three_play_or_two_and_then_the_third_rests(recipe):
    mixtures, sources = recipe.batch(torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixtures, sources.sum(1))
    plays = _plays(sources)
    assert plays[:, :2].all()
    assert 0 < plays[:, 2].sum() < len(plays)


def test_any_instrument_is_any_source(recipe):
    """An order of instruments would be one that a model can learn."""
    generator = torch.Generator().manual_seed(0)
    first = torch.cat([recipe.batch(generator)[1][:, 0] for _ in range(8)]).unflatten(1, (-1, 4000))
    first = first / first.norm(dim=2, keepdim=True)
    kinds = torch.stack([(first @ (n / n.norm(dim=1, keepdim=True)).T).abs().amax((1, 2))
                         for n in recipe.notes.values()]).argmax(0)  # fmt: skip
    assert len(kinds.unique()) == len(recipe.notes) == 5


def test_estimates_are_put_in_the_order_of_the_sources(recipe):
    sources = recipe.test_sources
    order = torch.tensor([2, 0, 1])
    found = _aligned(sources[:, order] + 1e-3, sources)
    torch.testing.assert_close(found, sources + 1e-3)


def test_who_leaves_the_mixture_as_it_is_improves_nothing_and_is_not_silent(recipe):
    scores = recipe.evaluate(lambda mixtures: mixtures.unsqueeze(1).expand(-1, 3, -1))
    assert scores == pytest.approx({"SI-SDR improvement": 0, "silence": 0}, abs=1e-5)


def test_the_order_of_the_outputs_does_not_count(recipe):
    generator = torch.Generator().manual_seed(0)
    found = recipe.test_sources + 0.01 * torch.randn(recipe.test_sources.shape, generator=generator)
    scores = recipe.evaluate(lambda _: found)
    turned = recipe.evaluate(lambda _: found.roll(1, 1))
    assert turned == pytest.approx(scores, abs=1e-4)
    assert scores["SI-SDR improvement"] > 15
    assert scores["silence"] > 10
    for name in ("any order", "sa-sdr"):
        loss = recipe.losses[name].make(recipe)
        values = [loss(e, recipe.test_sources).item() for e in (found, found.roll(1, 1))]
        assert values[0] == pytest.approx(values[1], abs=1e-4)
        assert values[0] < -15
    assert recipe.losses["fixed order"].make(recipe)(found.roll(1, 1), recipe.test_sources) > 0


def test_estimates_add_up_to_the_mixture_and_each_is_shown_and_heard(recipe):
    models = {"sa-sdr": recipe.model().eval()}
    assert _plays(recipe.example[1]).all()
    with torch.inference_mode():
        found = models["sa-sdr"](recipe.test_mixtures[:2])
        truth, made = recipe.galleries(models)
        files = recipe.attachments(models)
    torch.testing.assert_close(found.sum(1), recipe.test_mixtures[:2], rtol=0, atol=1e-5)
    assert [p.title for p in truth.pictures] == ["mixture", "first", "second", "third"]
    assert [p.title.partition(",")[0] for p in made.pictures] == ["first", "second", "third"]
    assert len(files) == 7
    assert "trio - third with sa-sdr.wav" in files
