"""Spectral losses: what frequencies weigh, windows, squares, weights of resolutions, terms."""

import math
from functools import partial

import pytest
import torch
from torch.nn.functional import l1_loss, mse_loss, pad

from aptt.core.hearing import a_curve
from aptt.loss import (
    MelLoss,
    MultiResolutionSTFTLoss,
    STFTLoss,
    mel_filterbank,
    mel_loss,
    mel_terms,
    multi_resolution_stft_loss,
    multi_resolution_stft_terms,
    stft_loss,
    stft_terms,
)

RATE, N, HOP = 8000, 64, 16
PARTS = ("log", "linear", "convergence")


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


E, S = _random(3, 400), _random(3, 400, seed=1)


def _spectrum(x, window=None, n_fft=N, hop=HOP):
    window = torch.hann_window(n_fft, dtype=x.dtype) if window is None else window
    return torch.stft(x, n_fft, hop, len(window), window, return_complex=True).abs()


# ------------------------------------------------------------------------------ the A-curve

# IEC 61672-1, table 3: decibels at the exact frequencies 1000 * 10**(n / 10), from n = -20 on
A_TABLE = """-70.4 -63.4 -56.7 -50.5 -44.7 -39.4 -34.6 -30.2 -26.2 -22.5 -19.1 -16.1 -13.4 -10.9
-8.6 -6.6 -4.8 -3.2 -1.9 -0.8 0.0 0.6 1.0 1.2 1.3 1.2 1.0 0.5 -0.1 -1.1 -2.5 -4.3 -6.6 -9.3"""


def test_the_a_curve_is_the_table_of_iec_61672():
    want = torch.tensor([float(v) for v in A_TABLE.split()], dtype=torch.float64)
    hertz = 1000 * 10 ** (torch.arange(-20, 14, dtype=torch.float64) / 10)
    found = 20 * a_curve(hertz).log10()
    assert (found - want).abs().max() < 0.0501  # the table has one digit
    assert a_curve(torch.tensor([0.0, 1000.0], dtype=torch.float64)).tolist() == [0.0, 1.0]


def test_the_a_curve_bends_where_annex_e_says():
    # the poles that annex E derives from 1000 Hz, 10**1.5, 10**3.9 and 10**2.45
    low, high, d, one = 10.0**3, 10.0**7.8, math.sqrt(0.5), 1e6  # squares
    b = (one + low * high / one - d * (low + high)) / (1 - d)
    root = math.sqrt(b * b - 4 * low * high)
    f1, f4 = (math.sqrt((-b - k * root) / 2) for k in (1, -1))
    middle = 10**2.45
    f2, f3 = ((3 - k * math.sqrt(5)) / 2 * middle for k in (1, -1))
    s = torch.tensor([40.0, 300.0, 5000.0], dtype=torch.float64).square()

    def curve(s):
        middle = ((s + f2**2) * (s + f3**2)) ** 0.5
        return s**2 / ((s + f1**2) * (s + f4**2)) / middle

    torch.testing.assert_close(a_curve(s.sqrt()), curve(s) / curve(1e6), rtol=1e-6, atol=0)


def test_the_filter_of_auraloss_is_no_a_curve_at_31_hertz():
    # 101 taps at 44.1 kHz reach no lower: 20 dB off
    filters = pytest.importorskip("auraloss.perceptual")
    taps = filters.FIRFilter("aw", fs=44100).fir.weight.flatten().double()
    turn = 2 * math.pi * 31.5 / 44100 * torch.arange(len(taps))
    gain = torch.hypot((taps * turn.cos()).sum(), (taps * turn.sin()).sum())
    assert 20 * math.log10(gain) > -25
    exact = a_curve(torch.tensor(31.5, dtype=torch.float64))
    assert 20 * math.log10(exact) == pytest.approx(-39.5, abs=0.05)


def test_frequencies_weigh_by_the_formula():
    a, b = _spectrum(E), _spectrum(S)
    w = a_curve(torch.arange(N // 2 + 1).double() * RATE / N).unsqueeze(1)
    apart = ((a + 0.1).log() - (b + 0.1).log()).abs()
    for power in (1, 2):
        terms = stft_terms(
            E, S, n_fft=N, sample_rate=RATE, frequency_weight="a", floor=0.1, reduction="none",
            power=power,
        )  # fmt: skip
        x, y = (a * w) ** power, (b * w) ** power
        torch.testing.assert_close(terms["linear"], (x - y).abs().mean((1, 2)))
        torch.testing.assert_close(
            terms["convergence"], (x - y).norm(dim=(1, 2)) / y.norm(dim=(1, 2))
        )
        if power == 1:
            want = (apart * w).sum(1).mean(1) / w.sum()
            torch.testing.assert_close(terms["log"], want)


def test_through_filters_a_frequency_weight_is_its_mean():
    a, b = _spectrum(E), _spectrum(S)
    filters = mel_filterbank(sample_rate=RATE, n_fft=N, n_mels=6)
    curve = a_curve(torch.arange(N // 2 + 1).double() * RATE / N)
    w = (filters @ curve / filters.sum(1)).unsqueeze(1)
    terms = mel_terms(E, S, sample_rate=RATE, n_fft=N, n_mels=6, frequency_weight="a", floor=0.1)
    x, y = filters @ a, filters @ b
    log = (((x + 0.1) / (y + 0.1)).log().abs() * w).sum(1).mean() / w.sum()
    torch.testing.assert_close(terms["log"], log)
    torch.testing.assert_close(terms["linear"], ((x - y) * w).abs().mean())


def test_an_empty_filter_weighs_nothing():
    options = {"sample_rate": RATE, "n_fft": 32, "n_mels": 30, "empty_filters": "keep"}
    empty = mel_filterbank(**options).amax(1) == 0
    assert empty.any()
    all_alike = mel_terms(E, S, **options, frequency_weight=torch.ones(17))
    plain = mel_terms(E, S, **options)
    share = (~empty).double().mean()
    torch.testing.assert_close(all_alike["log"] * share, plain["log"])


@pytest.mark.parametrize("power", [1, 2])
def test_a_gain_of_all_frequencies_leaves_ratios_alone(power):
    plain = stft_terms(E, S, n_fft=N, power=power)
    gained = stft_terms(E, S, n_fft=N, power=power, frequency_weight=[3.0] * (N // 2 + 1))
    torch.testing.assert_close(gained["log"], plain["log"])
    torch.testing.assert_close(gained["linear"], plain["linear"] * 3**power)
    torch.testing.assert_close(gained["convergence"], plain["convergence"])


def test_frequencies_that_weigh_nothing_are_not_heard():
    hum = 3 * torch.sin(2 * math.pi * 250 * torch.arange(400).double() / RATE)
    deaf = torch.ones(N // 2 + 1)
    deaf[:6] = 0
    heard = stft_terms(S + hum, S, n_fft=N, frequency_weight=deaf, window="blackman")
    plain = stft_terms(S + hum, S, n_fft=N, window="blackman")
    assert heard["linear"] < 0.1 * plain["linear"]


# ------------------------------------------------------------------------------ windows


@pytest.mark.parametrize("window", ["hann", "hamming", "blackman"])
def test_windows_by_torch(window):
    made = getattr(torch, f"{window}_window")(48, dtype=torch.float64)
    a, b = _spectrum(E, made), _spectrum(S, made)
    terms = stft_terms(E, S, n_fft=N, win_length=48, hop_length=HOP, window=window)
    torch.testing.assert_close(terms["linear"], l1_loss(a, b))
    given = stft_terms(E, S, n_fft=N, win_length=48, hop_length=HOP, window=made)
    assert given == terms


def test_a_window_can_be_learned():
    window = (0.5 + _random(48).abs()).requires_grad_()
    loss = partial(stft_loss, E[:1], S[:1], n_fft=N, win_length=48)
    torch.autograd.gradcheck(lambda w: loss(window=w), (window,), fast_mode=True)
    bins = (0.5 + _random(N // 2 + 1).abs()).requires_grad_()
    torch.autograd.gradcheck(
        lambda w: loss(frequency_weight=w, linear_weight=1.0), (bins,), fast_mode=True
    )
    module = STFTLoss(n_fft=N, window=torch.nn.Parameter(torch.ones(N)))
    module(E, S).backward()
    assert module.window.grad.abs().sum() > 0


# ------------------------------------------------------------------------------ distances


@pytest.mark.parametrize("log", ["log", "log10"])
def test_squares_of_differences(log):
    a, b = _spectrum(E), _spectrum(S)
    made = getattr(torch, log)
    terms = stft_terms(E, S, n_fft=N, log=log, log_distance="l2", linear_distance="l2", floor=0.01)
    torch.testing.assert_close(terms["linear"], mse_loss(a, b))
    torch.testing.assert_close(terms["log"], mse_loss(made(a + 0.01), made(b + 0.01)))


def test_weights_of_each_resolution():
    sizes, weights = (64, 128), {"log_weight": (0.5, 2.0), "convergence_weight": (0.0, 1.0)}
    found = multi_resolution_stft_loss(E, S, n_fft=sizes, **weights)
    one = stft_loss(E, S, n_fft=64, log_weight=0.5, convergence_weight=0.0)
    two = stft_loss(E, S, n_fft=128, log_weight=2.0, convergence_weight=1.0)
    torch.testing.assert_close(found, (one + two) / 2)
    twice = multi_resolution_stft_loss(E, S, n_fft=(64, 64), **weights, combine="sum")
    two = stft_loss(E, S, n_fft=64, log_weight=2.0, convergence_weight=1.0)
    torch.testing.assert_close(twice, one + two)
    half = {"log_weight": (0.0, 2.0), "convergence_weight": (0.0, 1.0)}  # one is not computed
    torch.testing.assert_close(multi_resolution_stft_loss(E, S, n_fft=(512, 64), **half), two / 2)
    with pytest.raises(ValueError, match="log_weight: got 3 numbers for 2 of n_fft"):
        MultiResolutionSTFTLoss(n_fft=sizes, log_weight=(1.0, 2.0, 3.0))


def test_audiocraft_at_several_scales_by_its_formula():
    def mel(x, i):
        n, hop, mels = 2**i, 2**i // 4, 64
        filters = mel_filterbank(
            sample_rate=32000, n_fft=n, n_mels=mels, mel_scale="htk", norm="none",
            empty_filters="keep",
        )  # fmt: skip
        x = pad(x[:, None], ((n - hop) // 2,) * 2, "reflect")[:, 0]
        x = pad(x, (0, -(x.shape[1] - n) % hop))
        window = torch.hann_window(n, dtype=x.dtype)
        return (
            filters
            @ torch.stft(x, n, hop, n, window, center=False, return_complex=True).abs().square()
        )

    e, s = _random(1, 2100), _random(1, 2100, seed=1)
    want = 0
    for i in range(6, 11):
        a, b = mel(e, i), mel(s, i)
        alpha = math.sqrt(2**i - 1)
        want = want + l1_loss(a, b) + alpha * mse_loss((1e-5 + a).log10(), (1e-5 + b).log10())
    found = mel_loss(e, s, preset="audiocraft_multiscale")
    torch.testing.assert_close(found, want, rtol=1e-9, atol=0)


def test_auraloss_with_another_window_and_linear_magnitudes():
    auraloss = pytest.importorskip("auraloss")
    sizes = {"fft_sizes": [64, 128], "hop_sizes": [16, 32], "win_lengths": [64, 128]}
    peer = auraloss.freq.MultiResolutionSTFTLoss(
        **sizes, window="hamming_window", w_lin_mag=0.5, w_log_mag=0.7, w_sc=0.3
    )
    ours = MultiResolutionSTFTLoss(
        preset="auraloss", n_fft=(64, 128), window="hamming", linear_weight=0.5, log_weight=0.7,
        convergence_weight=0.3,
    )  # fmt: skip
    e, s = E[:1].float(), S[:1].float()  # one signal: its norms are over the batch
    torch.testing.assert_close(ours(e, s), peer(e[:, None], s[:, None]), rtol=1e-5, atol=0)


def test_auraloss_weights_of_sum_and_difference():
    auraloss = pytest.importorskip("auraloss")
    peer = auraloss.freq.SumAndDifferenceSTFTLoss(
        fft_sizes=[64], hop_sizes=[16], win_lengths=[64], w_sum=0.5, w_diff=3.0
    )
    ours = MultiResolutionSTFTLoss(
        preset="auraloss", n_fft=64, stereo="sum_difference", stereo_weight=(0.5, 3.0)
    )
    e, s = E[None, :2].float(), S[None, :2].float()
    torch.testing.assert_close(ours(e, s), peer(e, s), rtol=1e-5, atol=0)


# ------------------------------------------------------------------------------ signals


def test_pre_emphasis_is_a_filter_ahead():
    def bright(x):
        return x - 0.85 * pad(x, (1, 0))[:, :-1]

    loss = partial(stft_loss, n_fft=N, reduction="none")
    torch.testing.assert_close(loss(E, S, pre_emphasis=0.85), loss(bright(E), bright(S)))
    ragged = E.clone()
    ragged[1, 300:] = torch.nan  # padding, which the filter does not carry in
    lengths = torch.tensor([400, 300, 400])
    found = loss(ragged.requires_grad_(), S, pre_emphasis=0.85, lengths=lengths)
    torch.testing.assert_close(found[1], loss(E[1, :300], S[1, :300], pre_emphasis=0.85))
    found.sum().backward()
    assert ragged.grad.isfinite().all()
    assert (ragged.grad[1, 300:] == 0).all()


def test_weights_of_sum_and_difference():
    e, s = _random(2, 2, 300), _random(2, 2, 300, seed=1)
    loss = partial(mel_loss, sample_rate=RATE, n_fft=N, n_mels=6, stereo="sum_difference")
    each = loss(e, s, reduction="none")
    weighted = loss(e, s, stereo_weight=(0.5, 2.0), reduction="none")
    torch.testing.assert_close(weighted, each * torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(loss(e, s, stereo_weight=(0.5, 2.0)), weighted.mean())
    alone = loss(e, s, stereo_weight=(1.0, 0.0))
    torch.testing.assert_close(alone, each[:, 0].mean() / 2)
    with pytest.raises(ValueError, match=r"stereo_weight: got .* for stereo='channels'"):
        MelLoss(sample_rate=RATE, n_fft=N, n_mels=6, stereo_weight=(1.0, 0.5))


# ------------------------------------------------------------------------------ terms


@pytest.mark.parametrize("combine", ["mean", "sum"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_terms_weighted_and_added_are_the_loss(combine, reduction):
    options = dict(
        sample_rate=RATE, n_fft=(64, 128), n_mels=6, combine=combine, reduction=reduction,
        frequency_weight="a", log_distance="l2",
    )  # fmt: skip
    weights = {"log": (0.5, 2.0), "linear": (0.3, 0.3), "convergence": (0.0, 1.5)}
    x, y = E.clone().requires_grad_(), E.clone().requires_grad_()
    lengths = torch.tensor([400, 150, 0])
    loss = mel_loss(
        x, S, lengths=lengths, **options, **{f"{k}_weight": w for k, w in weights.items()}
    )
    terms = mel_terms(y, S, lengths=lengths, **options)
    assert list(terms) == [f"{part}_{i}" for i in (0, 1) for part in PARTS]
    added = sum(weights[name[:-2]][int(name[-1])] * term for name, term in terms.items())
    torch.testing.assert_close(added, loss)
    loss.sum().backward()
    added.sum().backward()
    torch.testing.assert_close(y.grad, x.grad)


def test_terms_of_one_resolution_have_no_number():
    terms = STFTLoss(n_fft=N, log_weight=0.0).terms(E, S)
    assert tuple(terms) == PARTS
    assert terms == stft_terms(E, S, n_fft=N)
    assert MelLoss(sample_rate=RATE, n_fft=N, n_mels=6).terms(E, S).keys() == terms.keys()
    assert len(MultiResolutionSTFTLoss().terms(E, S)) == 9
    assert tuple(multi_resolution_stft_terms(E, S, n_fft=N)) == PARTS


def test_terms_are_normalized_by_their_names():
    asked = []

    def halves(total, count, *, term):
        asked.append((term, float(count)))
        return total / 2

    terms = stft_terms(E, S, n_fft=N, reduction=halves, lengths=torch.tensor([9, 0, 8]))
    assert asked == [(part, 2.0) for part in PARTS]
    silent = multi_resolution_stft_terms(E[:0], S[:0], n_fft=(64, 128))
    assert all(term == 0 for term in silent.values())
    assert all(term.isfinite() for term in terms.values())
