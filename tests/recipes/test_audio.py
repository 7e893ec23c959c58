import io
import wave

import pytest
import torch

from aptt.cli import main
from aptt.loss import si_sdr_loss, snr_loss
from aptt.recipes import open_recipe
from aptt.recipes.sounds import _chunk, _notes, wav
from aptt.recipes.training import fit


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("audio")


def _samples(data):
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        frames = bytearray(file.readframes(file.getnframes()))
    return torch.frombuffer(frames, dtype=torch.int16).float() / 2**15


def test_a_mixture_is_the_sum_of_its_sources(recipe):
    mixtures, sources = recipe.batch(torch.Generator().manual_seed(0))
    assert sources.shape == (12, 2, 12000)
    torch.testing.assert_close(mixtures, sources.sum(1))
    level = sources.square().mean(-1).sqrt()
    assert level.min() > 0.1 * 10**-0.151
    assert level.max() < 0.1 * 10**0.151
    other, _ = recipe.batch(torch.Generator().manual_seed(1))
    assert not torch.allclose(mixtures, other)


def test_no_test_note_was_heard_in_training(recipe):
    for part, sources in zip(recipe.notes, recipe.test_sources.unbind(1), strict=True):
        heard = recipe.notes[part] / recipe.notes[part].norm(dim=1, keepdim=True)
        notes = sources.reshape(-1, heard.shape[1])
        alike = notes / notes.norm(dim=1, keepdim=True) @ heard.T
        assert alike.abs().max() < 0.9


def test_who_leaves_the_mixture_as_it_is_improves_nothing(recipe):
    scores = recipe.evaluate(lambda mixtures: torch.stack((mixtures, mixtures), 1))
    assert scores == pytest.approx({"SI-SDR improvement": 0, "SNR improvement": 0}, abs=1e-5)


def test_who_halves_the_noise_improves_by_six_decibels(recipe):
    sources = recipe.test_sources
    scores = recipe.evaluate(lambda mixtures: (mixtures.unsqueeze(1) + sources) / 2)
    assert scores["SNR improvement"] == pytest.approx(6.0206, abs=1e-3)
    assert scores["SI-SDR improvement"] == pytest.approx(6, abs=0.5)


def test_the_scores_are_gains_of_the_losses(recipe):
    found = recipe.test_sources + 0.01 * torch.randn(
        recipe.test_sources.shape, generator=torch.Generator().manual_seed(0)
    )
    scores = recipe.evaluate(lambda _: found)
    mixture = recipe.test_mixtures.unsqueeze(1).expand_as(found)
    for name, loss in (("SI-SDR improvement", si_sdr_loss), ("SNR improvement", snr_loss)):
        gain = loss(mixture, recipe.test_sources) - loss(found, recipe.test_sources)
        assert scores[name] == pytest.approx(gain.item(), abs=1e-4)
    assert scores["SNR improvement"] > 15


def test_estimates_add_up_to_the_mixture(recipe):
    with torch.inference_mode():
        found = recipe.model().eval()(recipe.test_mixtures[:3])
    torch.testing.assert_close(found.sum(1), recipe.test_mixtures[:3], rtol=0, atol=1e-6)


def test_a_note_is_moved_and_repeated():
    samples = torch.sin(torch.arange(4002) * (2 * torch.pi * 250 / 8000))
    notes = _notes(samples, (800, 1600), 8000)  # 25 whole periods
    spectra = torch.fft.rfft(notes[:, 200:3200] * torch.hann_window(3000)).abs()
    pitches = spectra.argmax(1) * 8000 / 3000
    for shift, pitch in zip(range(-4, 5), pitches.tolist(), strict=True):
        assert pitch == pytest.approx(250 * 2 ** (shift / 12), abs=2)
    torch.testing.assert_close(notes.square().mean(1), torch.ones(9))


def test_a_chunk_of_a_file():
    assert _chunk(b"RIFFxxxxsmpl\x03\0\0\0abcdef", b"smpl") == b"abc"


def test_a_wav_file_holds_the_samples():
    sound = torch.tensor([0.0, 0.5, -0.25, 1.5, -1.5])
    wanted = torch.tensor([0.0, 0.5, -0.25, 1 - 2**-15, -1.0])
    assert torch.equal(_samples(wav(sound)), wanted)


def test_it_learns(recipe):
    run = fit(recipe, "si-sdr", steps=25)
    assert run.after["SI-SDR improvement"] > run.before["SI-SDR improvement"] + 0.5


def test_each_loss_is_finite_and_each_model_shown_and_heard(recipe):
    mixtures, sources = recipe.batch(torch.Generator().manual_seed(0))
    models = {}
    for name, choice in recipe.losses.items():
        models[name] = recipe.model()
        loss = choice.make(recipe)(models[name](mixtures), sources)
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in models[name].parameters())
        models[name].eval()
    with torch.inference_mode():
        truth, *found = recipe.galleries(models)
        files = recipe.attachments(models)
        estimate = models["mel"](recipe.test_mixtures[:1])[0]
    assert [p.title for p in truth.pictures] == ["mixture", "saxophones", "strings"]
    assert [g.title for g in found] == [f"What was found with {name}" for name in models]
    assert all(p.title.endswith(" dB") for g in found for p in g.pictures)
    pairs = [f"{part} with {name}" for name in models for part in ("saxophones", "strings")]
    titles = ["mixture", "saxophones", "strings", *pairs]
    assert list(files) == [f"audio - {title}.wav" for title in titles]
    for title, sound in (
        ("mixture", recipe.test_mixtures[0]),
        ("strings", recipe.test_sources[0, 1]),
        ("saxophones with mel", estimate[0]),
    ):
        assert sound.abs().max() < 1
        close = {"rtol": 0, "atol": 2**-15}
        torch.testing.assert_close(_samples(files[f"audio - {title}.wav"]), sound, **close)


def test_what_can_be_heard_lies_beside_the_report(tmp_path, capsys):
    argv = ["train", "audio", "--loss", "si-sdr", "--steps", "2", "--out", str(tmp_path)]
    assert main(argv) == 0
    assert "SI-SDR improvement" in capsys.readouterr().out
    found = sorted(path.name for path in tmp_path.iterdir())
    titles = ("mixture", "saxophones", "saxophones with si-sdr", "strings", "strings with si-sdr")
    wanted = [f"audio - {title}.wav" for title in titles]
    assert found == sorted([*wanted, "report.html", "result.json"])
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What was found with si-sdr" in html
