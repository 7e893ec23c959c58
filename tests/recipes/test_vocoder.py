import pytest
import torch

from aptt.recipes import open_recipe
from aptt.recipes.training import fit


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("vocoder")


def test_a_batch_is_parts_of_phrases_in_and_out(recipe):
    sound, target = recipe.batch(torch.Generator().manual_seed(0))
    assert sound is target
    assert sound.shape == (8, 4000)
    assert (sound.square().mean(1) > 0).all()


def test_nothing_is_used_but_the_mel_spectrogram(recipe):
    model, sound = recipe.model().eval(), recipe.test[:1]
    with torch.no_grad():
        same, other = model(sound), model(-sound)  # of another phase
    torch.testing.assert_close(same, other)
    mel = torch.zeros(1, 64, 32)
    assert model.made(mel, 4000).shape == (1, 4000)
    assert model.made(mel, 4000).abs().max() < 0.01


def test_the_recording_itself_is_off_by_nothing(recipe):
    assert recipe.evaluate(lambda sound: sound) == {"mel": 0, "spectrum": 0}
    assert all(score < -15 for score in recipe.evaluate(torch.zeros_like).values())


def test_the_opponent_learns_and_leaves_the_generator_its_gradient(recipe):
    model, batch = recipe.model(), recipe.batch(torch.Generator().manual_seed(0))
    loss = recipe.losses["mel+adversarial"].make(recipe)
    judge = loss.judges[0].last.weight
    before = judge.detach().clone()
    recipe.step(model, loss, batch).backward()
    assert not torch.equal(judge, before)
    assert model.layers[-1].weight.grad.abs().sum() > 0
    assert len(loss._seen(batch[0])) == 3
    assert [len(seen) for seen in loss._seen(batch[0])] == [4] * 3


def test_it_learns(recipe):
    run = fit(recipe, "mel", steps=12)
    assert run.after["mel"] > run.before["mel"] + 1


def test_each_model_is_shown_and_heard(recipe):
    models = {"mel": recipe.model().eval()}
    with torch.inference_mode():
        recorded, made = recipe.galleries(models)
        files = recipe.attachments(models)
    assert [p.title for p in recorded.pictures][-1] == "a choir"
    assert all(p.title.endswith("dB off") for p in made.pictures)
    assert len(files) == 10
    assert "vocoder - flutes with mel.wav" in files
