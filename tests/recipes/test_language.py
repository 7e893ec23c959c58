import math

import pytest
import torch

from aptt.recipes import language, open_recipe
from aptt.recipes.training import fit


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("language")


def test_the_held_out_text_is_not_in_the_training_text(recipe):
    text, test = bytes(recipe.text.tolist()), bytes(recipe.test[0].tolist())
    assert len(recipe.text) > 100_000
    assert test not in text


def test_without_the_speeches_there_is_the_help_of_python(monkeypatch):
    monkeypatch.setattr(language, "find_spec", lambda name: None)
    assert b"lambda" in language._text()


def test_a_model_that_knows_nothing_compresses_nothing(recipe):
    def uniform(text):
        return [torch.zeros(*text.shape[:1], text.shape[1] - k, 256) for k in range(3)]

    assert recipe.evaluate(uniform) == pytest.approx(dict.fromkeys(recipe.scores, 1.0))
    assert recipe._bits(uniform) == pytest.approx([8.0] * 3)


def test_no_head_sees_the_byte_it_predicts(recipe):
    torch.manual_seed(0)
    model, (text, _) = recipe.model().eval(), recipe.batch(torch.Generator().manual_seed(0))
    other = text.clone()
    other[:, 40] = (other[:, 40] + 1) % 256
    for k, (a, b) in enumerate(zip(model(text), model(other), strict=True)):
        same = torch.isclose(a, b).all(-1).all(0)  # head k at i predicts the byte at i + k + 1
        assert same[: 40 - k].all()
        assert not same[40 - k]


def test_all_heads_learn_from_the_multi_token_loss_and_one_from_the_other(recipe):
    runs = {loss: fit(recipe, loss, steps=12) for loss in recipe.losses}
    for run in runs.values():
        assert run.after["compression"] > 1.3 * run.before["compression"]
    assert runs["multi-token"].after["third byte"] > 1.3
    assert runs["next byte"].after["third byte"] < 1.3


def test_what_is_shown(recipe):
    torch.manual_seed(0)
    written, bits = recipe.galleries({"next byte": recipe.model().eval()})
    assert "Text written by the model trained with next byte" in written.pictures[0].alt
    assert all(name in bits.pictures[0].alt for name in ("next", "second", "third"))
    assert math.isfinite(float(bits.pictures[0].alt.rstrip(".").split()[-1]))
