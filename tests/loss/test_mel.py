"""Spectral losses: closed forms, filters beside librosa's, presets, lengths and silence."""

import math
import warnings
from functools import partial

import pytest
import torch
from torch.nn.functional import l1_loss, pad

from aptt.audit.ways import in_blocks, plainly
from aptt.core.engine import engine
from aptt.core.spectral import SPECTRAL
from aptt.loss import (
    MelLoss,
    MultiResolutionSTFTLoss,
    STFTLoss,
    mel_loss,
    multi_resolution_stft_loss,
    stft_loss,
)
from aptt.loss.mel import mel_filterbank

SMALL = {"n_fft": 128, "n_mels": 12, "sample_rate": 8000}
LOSSES = {
    "mel": partial(mel_loss, **SMALL, linear_weight=0.7, convergence_weight=0.3),
    "mel, several": partial(
        mel_loss, sample_rate=8000, n_fft=(64, 128), n_mels=(6, 12), power=2, combine="sum"
    ),
    "stft": partial(stft_loss, n_fft=128, win_length=100, linear_weight=0.5),
    "stft, tight": partial(stft_loss, n_fft=128, hop_length=30, framing="tight"),
    "stft, full": partial(stft_loss, n_fft=128, hop_length=30, framing="full", power=2),
    "stft, clamped": partial(stft_loss, n_fft=64, floor_by="clamp", floor=1e-2, log="log10"),
    "stft, heard": partial(
        stft_loss,
        n_fft=64,
        window="blackman",
        power=2,
        sample_rate=8000,
        frequency_weight="a",
        log_distance="l2",
        linear_distance="l2",
        linear_weight=0.5,
        pre_emphasis=0.85,
    ),
    "mel, heard": partial(
        mel_loss,
        **SMALL,
        frequency_weight="a",
        log_distance="l2",
        linear_weight=0.5,
        window="hamming",
        convergence_weight=0.7,
    ),
    "several": partial(
        multi_resolution_stft_loss, n_fft=(64, 128, 33), hop_length=(16, 40, 11), win_length=None
    ),
}
each_loss = pytest.mark.parametrize("name", LOSSES)
each_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"]
)


@pytest.fixture(autouse=True, params=[plainly, in_blocks], ids=["plain", "in blocks"])
def _way(request):
    """Every test goes both ways: plain PyTorch, and the gradient by hand, signal by signal."""
    with request.param():
        yield


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _value_and_gradient(loss_fn, x, t, up=None):
    x = x.clone().requires_grad_()
    loss = loss_fn(x, t)
    loss.backward(torch.ones_like(loss) if up is None else up.to(loss.dtype))
    return loss.detach(), x.grad


def _spectrum(x, n_fft, hop, win=None, **how):
    """Of one signal or several, by torch.stft: ``(..., frequencies, frames)``."""
    win = n_fft if win is None else win
    window = torch.hann_window(win, dtype=x.dtype)
    return torch.stft(x, n_fft, hop, win, window, return_complex=True, **how).abs()


def _filters(sample_rate, n_fft, n_mels, f_min=0.0, f_max=None, htk=False, norm="slaney"):
    librosa = pytest.importorskip("librosa")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty filters
        return torch.from_numpy(
            librosa.filters.mel(
                sr=sample_rate,
                n_fft=n_fft,
                n_mels=n_mels,
                fmin=f_min,
                fmax=f_max,
                htk=htk,
                norm=norm,
                dtype="float64",
            )
        )


# ------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("gain", [0.5, 2.0, -1.5, 1.01])
@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["slaney", "none"])
@pytest.mark.parametrize(("n_fft", "n_mels"), [(512, 20), (2048, 100), ((256, 1024), (8, 40))])
def test_a_gain_through_any_filters(gain, scale, norm, n_fft, n_mels):
    s = _random(2, 6000)
    options = {"n_fft": n_fft, "n_mels": n_mels, "mel_scale": scale, "norm": norm, "floor": 1e-30}
    loss = partial(mel_loss, gain * s, s, sample_rate=16000, **options)
    off = abs(math.log(abs(gain)))
    assert loss().item() == pytest.approx(off, rel=1e-9)
    assert loss(log="log10").item() == pytest.approx(off / math.log(10), rel=1e-9)
    assert loss(power=2).item() == pytest.approx(2 * off, rel=1e-9)
    apart = loss(log_weight=0.0, convergence_weight=1.0)
    assert apart.item() == pytest.approx(abs(1 - abs(gain)), rel=1e-9)
    both = loss(log_weight=2.0, convergence_weight=3.0, floor_by="clamp")
    assert both.item() == pytest.approx(2 * off + 3 * abs(1 - abs(gain)), rel=1e-9)


@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_a_gain_without_filters(gain):
    s = _random(2, 6000)
    want = abs(math.log(gain)) + abs(1 - gain)
    for loss in (stft_loss, multi_resolution_stft_loss):
        assert loss(gain * s, s, floor=1e-30).item() == pytest.approx(want, rel=1e-9)
    # spectral convergence is of the target: swapped arguments are another number
    swapped = stft_loss(s, gain * s, floor=1e-30).item()
    assert swapped == pytest.approx(abs(math.log(gain)) + abs(1 - 1 / gain), rel=1e-9)


def _by_resolutions(e, s, power=1, floor=1e-5):
    """Parallel WaveGAN's loss, of each signal, in so many words."""
    total = 0
    for n_fft, hop, win in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        a, b = (_spectrum(v, n_fft, hop, win, center=True) ** power for v in (e, s))
        convergence = (a - b).norm(dim=(1, 2)) / b.norm(dim=(1, 2))
        logarithms = ((a + floor).log() - (b + floor).log()).abs().mean((1, 2))
        total = total + (convergence + logarithms) / 3
    return total


@pytest.mark.parametrize("power", [1, 2])
def test_several_resolutions_by_their_formula(power):
    e, s, up = _random(3, 5000), _random(3, 5000, seed=1), _random(3, seed=2)
    loss = partial(multi_resolution_stft_loss, power=power, reduction="none")
    found = _value_and_gradient(loss, e, s, up)
    want = _value_and_gradient(partial(_by_resolutions, power=power), e, s, up)
    for got, expected in zip(found, want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    single = _value_and_gradient(loss, e.float(), s.float(), up)
    torch.testing.assert_close(single[0].double(), want[0], rtol=1e-5, atol=0)
    assert (single[1].double() - want[1]).norm() < 1e-3 * want[1].norm()


@pytest.mark.parametrize("floor_by", ["add", "clamp"])
@pytest.mark.parametrize("framing", ["center", "tight", "full"])
def test_mel_by_its_formula(framing, floor_by):
    e, s, up = _random(3, 3000), 0.5 * _random(3, 3000, seed=1), _random(3, seed=2)
    filters = mel_filterbank(sample_rate=16000, n_fft=512, n_mels=30, mel_scale="htk")

    def mel(x):
        if framing == "center":
            return filters @ _spectrum(x, 512, 100, center=True)
        x = pad(x.unsqueeze(1), (206, 206), "reflect").squeeze(1)
        if framing == "full":
            x = pad(x, (0, -(x.shape[1] - 512) % 100))
        return filters @ _spectrum(x, 512, 100, center=False)

    def by_formula(e, s):
        a, b = mel(e), mel(s)
        raised = (lambda v: v.clamp(min=0.2)) if floor_by == "clamp" else (lambda v: v + 0.2)
        return (
            (raised(a).log10() - raised(b).log10()).abs().mean((1, 2))
            + 0.5 * (a - b).abs().mean((1, 2))
            + 2 * ((a - b).square().sum((1, 2)) / b.square().sum((1, 2))).sqrt()
        )

    loss = partial(
        mel_loss,
        sample_rate=16000,
        n_fft=512,
        hop_length=100,
        framing=framing,
        n_mels=30,
        mel_scale="htk",
        log="log10",
        floor=0.2,
        floor_by=floor_by,
        linear_weight=0.5,
        convergence_weight=2.0,
        reduction="none",
    )
    found, want = _value_and_gradient(loss, e, s, up), _value_and_gradient(by_formula, e, s, up)
    for got, expected in zip(found, want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@each_loss
def test_gradients_by_finite_differences(name):
    e, s = _random(2, 150).requires_grad_(), _random(2, 150, seed=1).requires_grad_()
    loss = partial(LOSSES[name], reduction="none", lengths=torch.tensor([150, 90]))
    torch.autograd.gradcheck(loss, (e, s), fast_mode=True)


def test_sum_and_difference():
    e, s = _random(3, 2, 500), _random(3, 2, 500, seed=1)
    loss = partial(stft_loss, n_fft=128, reduction="none")
    found = loss(e, s, stereo="sum_difference")
    both = [loss(e[:, 0] + k * e[:, 1], s[:, 0] + k * s[:, 1]) for k in (1, -1)]
    torch.testing.assert_close(found, torch.stack(both, 1))
    with pytest.raises(ValueError, match="stereo"):
        loss(e[:, :1], s[:, :1], stereo="sum_difference")


@each_loss
def test_identity_is_free_and_order_counts_nothing_more(name):
    e, s = _random(4, 600), _random(4, 600, seed=1)
    loss, gradient = _value_and_gradient(LOSSES[name], s, s)
    assert loss == 0
    assert (gradient == 0).all()
    each = LOSSES[name](e, s, reduction="none")
    assert each.shape == (4,)
    torch.testing.assert_close(LOSSES[name](e, s), each.mean())
    torch.testing.assert_close(LOSSES[name](e[2], s[2]), each[2])


# ------------------------------------------------------------------------------ filters

SETTINGS = [
    {
        "sample_rate": rate,
        "n_fft": n_fft,
        "n_mels": n_mels,
        "mel_scale": scale,
        "norm": norm,
        **range_,
    }
    for rate, n_fft, n_mels, range_ in [
        (22050, 1024, 80, {}),
        (24000, 2048, 80, {"f_min": 80.0, "f_max": 7600.0}),
        (16000, 512, 40, {}),
        (44100, 2048, 128, {}),
        (48000, 4096, 160, {"f_min": 20.0}),
        (11025, 512, 20, {}),  # torchaudio is 9e-4 off where the rate is odd,
        (11025, 1023, 32, {"f_max": 5000.0}),
        (8000, 257, 16, {}),  # and up to 4e-2 where the transform is
        (22051, 1025, 24, {"f_min": 30.0}),
        (16000, 401, 20, {"f_min": 100.0, "f_max": 7999.5}),
        (12345, 777, 23, {}),
        (1000.5, 99, 5, {}),
    ]
    for scale in ("slaney", "htk")
    for norm in ("slaney", "none")
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(str(v) for v in s.values()))
def test_filters_are_those_of_librosa(settings):
    assert len(SETTINGS) >= 40
    want = _filters(
        settings["sample_rate"],
        settings["n_fft"],
        settings["n_mels"],
        settings.get("f_min", 0.0),
        settings.get("f_max"),
        htk=settings["mel_scale"] == "htk",
        norm="slaney" if settings["norm"] == "slaney" else None,
    )
    found = mel_filterbank(**settings, empty_filters="keep")
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-12)
    if want.amax(1).min() > 0:
        assert torch.equal(found, mel_filterbank(**settings))


def test_settings_of_filters_are_told_apart():
    # hifi-gan's cache is keyed by f_max and device alone in forks; and librosa 0.10 refused its
    # positional arguments: here every one has a name
    settings = {"sample_rate": 16000, "n_fft": 512, "n_mels": 20, "f_min": 50.0, "f_max": 7000.0}
    usual = mel_filterbank(**settings)
    for other in (
        {"sample_rate": 22050},
        {"f_min": 100.0},
        {"f_max": 6000.0},
        {"mel_scale": "htk"},
        {"norm": "none"},
    ):
        assert not torch.allclose(mel_filterbank(**{**settings, **other}), usual)
    e, s = _random(4000), _random(4000, seed=1)
    one = mel_loss(e, s, **settings)
    assert mel_loss(e, s, **{**settings, "sample_rate": 22050}) != one
    assert mel_loss(e, s, **settings) == one
    with pytest.raises(TypeError, match="positional"):
        mel_filterbank(16000, 512)


def test_filters_may_begin_anywhere_below_half_of_the_sample_rate():
    settings = {"sample_rate": 16000, "n_fft": 512, "n_mels": 2}
    filters = mel_filterbank(**settings, f_min=7000.0)
    assert filters.any(0).nonzero().min() * 16000 / 512 >= 7000
    with pytest.raises(ValueError, match="f_min: got 8500"):
        mel_filterbank(**settings, f_min=8500.0)
    for n_fft in (0, 512.0):
        with pytest.raises(ValueError, match=rf"^n_fft: got \[{n_fft}\]"):
            mel_filterbank(**settings | {"n_fft": n_fft})


def test_a_filter_has_the_area_or_the_height_one():
    settings = {"sample_rate": 16000, "n_fft": 2**16, "n_mels": 10, "f_min": 500.0}
    area = mel_filterbank(**settings).sum(1) * 16000 / 2**16
    torch.testing.assert_close(area, torch.ones_like(area), rtol=1e-6, atol=0)
    height = mel_filterbank(**settings, norm="none").amax(1)
    torch.testing.assert_close(height, torch.ones_like(height), rtol=1e-2, atol=0)


def test_an_empty_filter_is_refused_at_construction():
    # auraloss' README: 128 filters of 512 samples at 44.1 kHz are 11 empty ones, and NaN
    settings = {"sample_rate": 44100, "n_fft": 512, "n_mels": 128}
    empty = (_filters(44100, 512, 128).amax(1) == 0).nonzero().flatten()
    assert len(empty) == 11
    says = rf"n_mels: 11 of 128 .* filter {empty[0]}, from .* Hz.*fewer n_mels, a larger n_fft"
    for refused in (MelLoss, mel_filterbank):
        with pytest.raises(ValueError, match=says):
            refused(**settings)
    e, s = _random(2, 3000), _random(2, 3000, seed=1)
    loss, gradient = _value_and_gradient(MelLoss(**settings, empty_filters="keep"), e, s)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    with pytest.raises(ValueError, match="empty"):
        MelLoss(sample_rate=44100, n_fft=(2048, 512), n_mels=(80, 128))


# ------------------------------------------------------------------------------ presets


def _mel_of(x, sample_rate, n_fft, hop, n_mels, *, power=1, least=0.0, framing="center", **bank):
    """The spectrum of one signal as the projects take it, with their floor under the magnitude."""
    filters = _filters(sample_rate, n_fft, n_mels, **bank)
    if framing != "center":
        x = pad(x[None, None], ((n_fft - hop) // 2,) * 2, "reflect")[0, 0]
    if framing == "full":
        x = pad(x, (0, -(len(x) - n_fft) % hop))
    spectrum = _spectrum(x, n_fft, hop, center=framing == "center").clamp(min=least)
    return filters @ spectrum**power


def _hifigan(e, s):
    a, b = (_mel_of(v, 22050, 1024, 256, 80, framing="tight") for v in (e, s))
    return l1_loss(a.clamp(min=1e-5).log(), b.clamp(min=1e-5).log())


def _pwg(e, s):
    a, b = (_mel_of(v, 24000, 1024, 256, 80, least=1e-5, f_min=80.0, f_max=7600.0) for v in (e, s))
    return l1_loss(a.clamp(min=1e-10).log10(), b.clamp(min=1e-10).log10())


def _audiocraft(e, s):
    bank = {"f_min": 64.0, "htk": True, "norm": None}
    a, b = (_mel_of(v, 32000, 1024, 256, 64, power=2, framing="full", **bank) for v in (e, s))
    return l1_loss((1e-5 + a).log10(), (1e-5 + b).log10())


def _dac(e, s):
    total = 0
    for window, mels in zip(
        (32, 64, 128, 256, 512, 1024, 2048), (5, 10, 20, 40, 80, 160, 320), strict=True
    ):
        a, b = (_mel_of(v, 44100, window, window // 4, mels) for v in (e, s))
        total = total + l1_loss(a.clamp(min=1e-5).log10(), b.clamp(min=1e-5).log10())
    return total


def _auraloss(e, s):
    a, b = (_mel_of(v, 44100, 1024, 256, 128, least=1e-4) for v in (e, s))
    return (b - a).norm() / b.norm() + l1_loss(a.log(), b.log())


@pytest.mark.parametrize("level", [1.0, 0.1])
@pytest.mark.parametrize(
    ("preset", "by_formula"),
    [
        ("hifigan", _hifigan),
        ("pwg", _pwg),
        ("audiocraft", _audiocraft),
        ("dac", _dac),
        ("auraloss", _auraloss),
    ],
)
def test_mel_presets_by_their_projects_formulas(preset, by_formula, level):
    e, s = level * _random(9000), level * 0.8 * _random(9000, seed=1)
    found = _value_and_gradient(partial(mel_loss, preset=preset), e, s)
    want = _value_and_gradient(by_formula, e, s)
    torch.testing.assert_close(found[0], want[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(found[1], want[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("framing", ["center", "tight", "full"])
def test_gradients_add_up_over_resolutions_wherever_their_frames_end(framing):
    e, s = _random(3000), _random(3000, seed=1)
    sizes = {"n_fft": (512, 1024), "hop_length": None, "win_length": None}
    loss = partial(multi_resolution_stft_loss, **sizes, framing=framing)
    found = _value_and_gradient(loss, e, s)
    with engine("plain"):
        want = _value_and_gradient(loss, e, s)
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-12)


def test_hifigans_floor_under_the_magnitude_hardly_shows():
    e, s = 0.1 * _random(9000), 0.08 * _random(9000, seed=1)
    filters = _filters(22050, 1024, 80)

    def as_published(v):
        v = pad(v[None, None], (384, 384), "reflect")[0, 0]
        spectrum = (_spectrum(v, 1024, 256, center=False).square() + 1e-9).sqrt()
        return (filters @ spectrum).clamp(min=1e-5).log()

    want = l1_loss(as_published(e), as_published(s))
    torch.testing.assert_close(mel_loss(e, s, preset="hifigan"), want, rtol=1e-6, atol=0)


def test_stft_presets_by_their_projects_formulas():
    e, s = _random(9000), 0.8 * _random(9000, seed=1)

    def resolutions(floor, weight):
        total = 0
        for n_fft, hop, win in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
            a, b = (_spectrum(v, n_fft, hop, win).clamp(min=floor) for v in (e, s))
            total += weight * ((b - a).norm() / b.norm() + l1_loss(a.log(), b.log())) / 3
        return total

    def dac():
        total = 0
        for window in (2048, 512):
            a, b = (_spectrum(v, window, window // 4) for v in (e, s))
            logs = (v.clamp(min=1e-5).square().log10() for v in (a, b))
            total += l1_loss(a, b) + l1_loss(*logs)
        return total

    for preset, want in (
        ("auraloss", resolutions(1e-8**0.5, 1.0)),
        ("pwg", resolutions(1e-7**0.5, 0.1)),
        ("dac", dac()),
    ):
        found = multi_resolution_stft_loss(e, s, preset=preset)
        # the projects floor the magnitudes of convergence too: a few bins in a million
        torch.testing.assert_close(found, want, rtol=1e-8, atol=0)


@pytest.mark.filterwarnings("default")
def test_auraloss_itself():
    freq = pytest.importorskip("auraloss.freq")
    e, s = _random(1, 9000).float(), 0.8 * _random(1, 9000, seed=1).float()
    theirs = freq.MultiResolutionSTFTLoss()(e[None], s[None])
    ours = multi_resolution_stft_loss(e, s, preset="auraloss")
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=0)
    theirs = freq.MelSTFTLoss(44100)(e[None], s[None])
    torch.testing.assert_close(mel_loss(e, s, preset="auraloss"), theirs, rtol=2e-5, atol=0)


def test_a_preset_can_be_changed_and_a_sample_rate_is_given_once():
    e, s = _random(4000), _random(4000, seed=1)
    for arguments in ({}, {"sample_rate": 22050, "preset": "hifigan"}):
        for refused in (partial(mel_loss, e, s), MelLoss):
            with pytest.raises(ValueError, match=r"sample_rate: .*exactly one"):
                refused(**arguments)
    spelt = {"hop_length": 256, "framing": "tight", "floor_by": "clamp", "n_mels": 60}
    torch.testing.assert_close(
        mel_loss(e, s, preset="hifigan", n_mels=60), mel_loss(e, s, sample_rate=22050, **spelt)
    )
    with pytest.raises(ValueError, match="preset"):
        MelLoss(preset="tacotron")


# ------------------------------------------------------------------------------ lengths


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@each_loss
def test_padded_is_unpadded(name, dtype):
    e, s = _random(5, 2, 500).to(dtype), _random(5, 2, 500, seed=1).to(dtype)
    lengths = torch.tensor([500, 333, 20, 1, 0])  # 20 is less than is reflected
    for i, n in enumerate(lengths.tolist()):
        e[i, :, n:], s[i, :, n:] = torch.nan, torch.inf
    up = _random(5, 2, seed=2)
    loss = partial(LOSSES[name], reduction="none")
    value, gradient = _value_and_gradient(partial(loss, lengths=lengths), e, s, up)
    for i, n in enumerate(lengths.tolist()):
        assert (gradient[i, :, n:] == 0).all()
        if n == 0:
            assert (value[i] == 0).all()
            continue
        want, slope = _value_and_gradient(loss, e[i, :, :n], s[i, :, :n], up[i])
        close = {} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(value[i], want, **close)
        torch.testing.assert_close(gradient[i, :, :n], slope, **close)
    torch.testing.assert_close(LOSSES[name](e, s, lengths=lengths), value[:4].mean())


@each_loss
def test_a_target_that_asks_has_the_same_gradient_under_padding(name):
    e, s = _random(2, 300), _random(2, 300, seed=1)
    e[1, 170:], s[1, 170:] = torch.nan, torch.inf
    loss = LOSSES[name]
    _, gradient = _value_and_gradient(
        lambda v, u: loss(u, v, lengths=torch.tensor([300, 170]), reduction="sum"), s, e
    )
    _, slope = _value_and_gradient(lambda v, u: loss(u, v), s[1, :170], e[1, :170])
    torch.testing.assert_close(gradient[1, :170], slope)
    assert (gradient[1, 170:] == 0).all()


# ------------------------------------------------------------------------------ silence


@pytest.mark.parametrize("who", ["estimate", "target", "both"])
@each_dtype
@each_loss
def test_silence_is_finite_forward_and_backward(name, dtype, who):
    e, s = _random(2, 600).to(dtype), _random(2, 600, seed=1).to(dtype)
    if who in ("estimate", "both"):
        e[:] = 0
    if who in ("target", "both"):
        s[:] = 0
    for floor in (1e-5, 1e-2):
        loss, gradient = _value_and_gradient(partial(LOSSES[name], floor=floor), e, s)
        _, on_target = _value_and_gradient(lambda v, u, f=floor: LOSSES[name](u, v, floor=f), s, e)
        assert loss.isfinite()
        assert loss.dtype == torch.float32
        assert gradient.isfinite().all()
        assert on_target.isfinite().all()
    if who == "both":
        assert loss == 0


def test_a_silent_target_does_not_explode_and_asks_for_less():
    # auraloss: spectral convergence 2e4, its gradient 1e3 times that of noise; PWG: 5e3
    e = _random(2, 3000).float()
    s = torch.zeros_like(e)
    loss, gradient = _value_and_gradient(stft_loss, e, s)
    log_only = stft_loss(e, s, convergence_weight=0.0)
    assert loss == log_only
    assert loss < 20
    _, usual = _value_and_gradient(stft_loss, e, _random(2, 3000, seed=1).float())
    assert gradient.norm() < 10 * usual.norm()
    assert stft_loss(e - 0.1 * e.norm() * gradient / gradient.norm(), s) < loss


def test_half_types_are_computed_in_single_precision():
    # PWG's mel refuses fp16 on CPU
    e, s = _random(2, 3000).half(), _random(2, 3000, seed=1).half()
    for loss in LOSSES.values():
        torch.testing.assert_close(loss(e, s), loss(e.float(), s.float()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(loss(e.float(), s.float()), loss(e.float(), s.float()))
    outside = LOSSES["mel"](e.float(), s.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert LOSSES["mel"](e.float(), s.float()) == outside


# ------------------------------------------------------------------------------ rounding

PRESETS = {
    **{name: partial(mel_loss, preset=name) for name in ("hifigan", "pwg", "auraloss", "dac")},
    "mel": partial(mel_loss, sample_rate=24000),
    "stft": stft_loss,
    "stft, power 2": partial(stft_loss, power=2, floor=1e-10),
}


@pytest.mark.parametrize("level", [0.5, 0.01, 300.7])
@pytest.mark.parametrize("name", PRESETS)
def test_an_empty_band_beside_a_loud_one_is_empty_in_any_precision(name, level):
    # a constant: a gradient of 6.2e3 in single precision and none in double, before
    s = 0.1 * _random(1, 6000)
    e = torch.full_like(s, level)
    want, slope = _value_and_gradient(PRESETS[name], e, s)
    found, gradient = _value_and_gradient(PRESETS[name], e.float(), s.float())
    assert found.item() == pytest.approx(want.item(), rel=1e-5)
    assert (gradient.double() - slope).norm() <= 1e-4 * slope.norm() + 1e-12
    value, _ = _value_and_gradient(PRESETS[name], s.float(), e.float())  # and of the target
    assert value.item() == pytest.approx(PRESETS[name](s, e).item(), rel=1e-5)


def test_parallel_wavegans_mel_of_a_constant():
    s = 0.1 * _random(1, 24000).float()
    loss, gradient = _value_and_gradient(PRESETS["pwg"], torch.full_like(s, 0.5), s)
    want = mel_loss(torch.zeros_like(s), s, preset="pwg")
    assert loss == want  # all of it lies below 80 Hz: to the filters it is silence
    assert (gradient == 0).all()


@pytest.mark.parametrize("kind", ["sine", "low", "ramp", "step"])
@pytest.mark.parametrize("name", PRESETS)
def test_the_gradient_of_a_band_limited_signal_is_not_that_of_rounding(name, kind):
    time = torch.arange(6000, dtype=torch.float64) / 24000
    low = torch.fft.rfft(_random(6000)) * (torch.arange(3001) < 700)
    e = {
        "sine": (2 * math.pi * 440 * time).sin(),
        "low": torch.fft.irfft(low, n=6000),
        "ramp": 4 * time,
        "step": (time > 0.1).double(),
    }[kind].float()
    s = 0.1 * _random(6000, seed=1).float()
    _, gradient = _value_and_gradient(PRESETS[name], e, s)
    assert gradient.norm() < 2e3  # the sine: 2.9e3 to 1.6e4 in half of these, before


# ------------------------------------------------------------------------------ of peers


def test_spectral_convergence_does_not_depend_on_the_batch():
    # PWG #256, denoiser #150, auraloss #75: one norm over the whole batch, where the loud drown
    # the quiet; auraloss #69: no value for each signal, and an error from several resolutions
    e, s = _random(3, 2500), _random(3, 2500, seed=1)
    level = torch.tensor([[1.0], [100.0], [0.01]])
    options = {"log_weight": 0.0, "convergence_weight": 1.0}
    each = multi_resolution_stft_loss(e * level, s * level, reduction="none", **options)
    torch.testing.assert_close(each, multi_resolution_stft_loss(e, s, reduction="none", **options))
    alone = [multi_resolution_stft_loss(e[i], s[i], **options) for i in range(3)]
    torch.testing.assert_close(each, torch.stack(alone))


def test_any_rank_any_stride_any_length():
    # auraloss: 3-D only, contiguous only, and longer than half a transform; audiocraft: shape (1,)
    e, s = _random(300, 2, 3), _random(300, 2, 3, seed=1)
    loss = multi_resolution_stft_loss(e.permute(2, 1, 0), s.permute(2, 1, 0))
    copies = multi_resolution_stft_loss(
        e.permute(2, 1, 0).contiguous(), s.permute(2, 1, 0).contiguous()
    )
    assert loss.shape == ()
    torch.testing.assert_close(loss, copies)
    value, gradient = _value_and_gradient(multi_resolution_stft_loss, e[:, 0, 0], s[:, 0, 0])
    assert value > 0
    assert gradient.isfinite().all()


def test_frames_that_agree_do_not_excuse_lengths_that_do_not():
    # auraloss takes 8000 samples against 7990 without a word
    with pytest.raises(ValueError, match="target"):
        stft_loss(_random(2, 8000), _random(2, 7990))


def test_lists_of_settings_have_to_agree():
    # DAC: seven windows and two entries of f_min are two resolutions, without a word
    with pytest.raises(ValueError, match="n_mels: got 2 numbers for 3 of n_fft"):
        MelLoss(sample_rate=16000, n_fft=(256, 512, 1024), n_mels=(10, 20))
    with pytest.raises(ValueError, match="hop_length: got 3 numbers for 2"):
        MultiResolutionSTFTLoss(n_fft=(256, 512), hop_length=(64, 128, 256))
    e, s = _random(3000), _random(3000, seed=1)
    sizes = (256, 512, 1024)
    parts = [mel_loss(e, s, sample_rate=16000, n_fft=n, n_mels=20) for n in sizes]
    for over, want in (("sum", sum(parts)), ("mean", sum(parts) / 3)):
        found = mel_loss(e, s, sample_rate=16000, n_fft=sizes, n_mels=20, combine=over)
        torch.testing.assert_close(found, want)


def test_double_precision_stays_double():
    # auraloss' mel: an error over dtypes
    assert mel_loss(_random(2000), _random(2000, seed=1), sample_rate=16000).dtype == torch.float64


@pytest.mark.parametrize(
    "module",
    [MelLoss(**SMALL), MelLoss(preset="dac"), STFTLoss(n_fft=128), MultiResolutionSTFTLoss()],
)
def test_windows_and_filters_are_not_saved(module):
    assert not module.state_dict()
    assert not list(module.parameters())
    module.load_state_dict({})
    x = _random(1500)
    assert module(x, x) == 0
    assert not module.state_dict()
    assert module.double()(x, 0.5 * x).dtype == torch.float64  # whatever the module was moved to
    assert module.half()(x.float(), 0.5 * x.float()).dtype == torch.float32


# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_fft": 0}, "n_fft"),
        ({"n_fft": ()}, "n_fft"),
        ({"n_fft": 512.0}, "n_fft"),
        ({"hop_length": 2000}, "hop_length: got 2000, wanted at most n_fft=1024"),
        ({"hop_length": 0}, "hop_length"),
        ({"win_length": 2000}, "win_length"),
        ({"n_mels": 0}, "n_mels"),
        ({"f_min": -1.0}, "f_min"),
        ({"f_max": 9000.0}, "f_max"),
        ({"f_min": 500.0, "f_max": 400.0}, "f_max"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"mel_scale": "bark"}, "mel_scale"),
        ({"norm": "area"}, "norm"),
        ({"framing": "left"}, "framing"),
        ({"power": 3}, "power"),
        ({"log": "ln"}, "log"),
        ({"floor": 0.0}, "floor"),
        ({"floor_by": "max"}, "floor_by"),
        ({"log_weight": -1.0}, "log_weight"),
        ({"log_weight": 0.0}, "log_weight"),
        ({"combine": "max"}, "combine"),
        ({"empty_filters": "drop"}, "empty_filters"),
        ({"stereo": "mid"}, "stereo"),
        ({"reduction": "average"}, "reduction"),
    ],
)
def test_what_is_refused_is_named(options, says):
    options = {"sample_rate": 16000, **options}
    with pytest.raises(ValueError, match=says):
        MelLoss(**options)
    with pytest.raises(ValueError, match=says):
        mel_loss(_random(2000), _random(2000, seed=1), **options)
    only_mel = {"sample_rate", "n_mels", "f_min", "f_max", "mel_scale", "norm", "empty_filters"}
    shared = {k: v for k, v in options.items() if k not in only_mel}
    if shared:
        with pytest.raises(ValueError, match=says):
            MultiResolutionSTFTLoss(**{"n_fft": 1024, "convergence_weight": 0.0, **shared})


def test_lengths_and_dtypes_are_refused_by_name():
    e, s = _random(2, 300), _random(2, 300, seed=1)
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match="lengths: got 301"):
            loss(e, s, lengths=torch.tensor([300, 301]))
        with pytest.raises(TypeError, match="lengths"):
            loss(e, s, lengths=torch.tensor([300.0, 3.0]))
        with pytest.raises(TypeError, match="estimate"):
            loss(e.long(), s)


# ------------------------------------------------------------------------------ the formula


@pytest.mark.parametrize("padded", [False, True])
@each_loss
def test_the_step_is_the_gradient_of_the_definition(name, padded, monkeypatch):
    e, s, up = _random(3, 200), _random(3, 200, seed=1), _random(3, seed=2)
    e[1] = s[1]
    seen = {}

    def noted(formula, x, *sides, count, reduction, term, weight=None, **options):
        seen.update(sides=sides, options=options)
        return x.sum(1)

    monkeypatch.setattr("aptt.loss.mel.evaluation.reduce", noted)
    lengths = torch.tensor([200, 150, 3]) if padded else None
    LOSSES[name](e, s, lengths=lengths, reduction="none")
    sides, options = seen["sides"], seen["options"]
    x = e.clone().requires_grad_()
    want = SPECTRAL.result(x, (), *sides, **options)
    (slope,) = torch.autograd.grad(want, x, up)
    value, dx = SPECTRAL.step(e, up, (), *sides, **options)
    torch.testing.assert_close(value, want.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dx, slope, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("size", "padded"), [(17, True), (150, False)])
@pytest.mark.parametrize("name", ["mel", "stft, full", "stft, clamped", "several"])
def test_compiled_is_eager(name, size, padded):
    e, s = _random(2, size), _random(2, size, seed=1)
    loss = partial(LOSSES[name], **({"lengths": torch.tensor([size, 1])} if padded else {}))
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="aot_eager_default_partitioner", fullgraph=True)
    for got, want in zip(
        _value_and_gradient(compiled, e, s), _value_and_gradient(loss, e, s), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
