"""Compressed complex spectra: closed forms, silence, and the phase."""

import math

import pytest
import torch

from aptt.loss import ComplexSTFTLoss, complex_stft_loss, complex_stft_terms
from aptt.loss.mel import stft_loss


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _spectrum(x, n_fft=512, hop=128):
    window = torch.hann_window(n_fft, dtype=torch.float64)
    return torch.stft(x, n_fft, hop, window=window, return_complex=True)


@pytest.mark.parametrize("c", [0.3, 0.5, 1.0])
def test_it_is_the_published_form_above_the_floor(c):
    e, s = _random(2, 2000), _random(2, 2000, seed=1)
    x, y = _spectrum(e), _spectrum(s)
    magnitude = (x.abs() ** c - y.abs() ** c).square().mean((1, 2))
    both = (x * x.abs() ** (c - 1) - y * y.abs() ** (c - 1)).abs().square().mean((1, 2))
    found = complex_stft_loss(e, s, compression=c, floor=1e-8, reduction="none")
    torch.testing.assert_close(found, 0.7 * magnitude + 0.3 * both, rtol=1e-6, atol=0)


def test_an_inverted_signal_differs_in_its_phase_alone():
    s = _random(1, 2000)
    terms = complex_stft_terms(-s, s)
    assert terms["magnitude"] == 0
    assert terms["complex"] > 1
    assert stft_loss(-s, s) == 0  # magnitudes hear no difference
    assert ComplexSTFTLoss(complex_weight=1.0)(-s, s) == terms["complex"]


def test_silence_has_a_finite_slope_that_leads_to_the_target():
    """speechbrain #181, MP-SENet #16: X / |X| is NaN there, and |X|**0.3 has no slope."""
    s = _random(1, 2000)
    e = torch.zeros_like(s, requires_grad=True)
    x = torch.zeros(1, requires_grad=True)
    (x.abs() ** 0.3).backward()
    assert not x.grad.isfinite()
    complex_stft_loss(e, s).backward()
    assert e.grad.isfinite().all()
    assert (e.grad * s).sum() < 0
    quiet = torch.zeros_like(s, requires_grad=True)
    complex_stft_loss(quiet, torch.zeros_like(s)).backward()
    assert (quiet.grad == 0).all()


def test_the_terms_add_up_under_their_weights():
    e, s = _random(3, 700), _random(3, 700, seed=1)
    lengths = torch.tensor([700, 512, 0])
    e[1, 512:] = math.nan
    terms = complex_stft_terms(e, s, lengths=lengths, compression=0.5)
    whole = complex_stft_loss(e, s, lengths=lengths, compression=0.5, complex_weight=0.1)
    torch.testing.assert_close(0.9 * terms["magnitude"] + 0.1 * terms["complex"], whole)
    alone = complex_stft_loss(e[1:2, :512], s[1:2, :512], compression=0.5, complex_weight=0.1)
    each = complex_stft_loss(
        e, s, lengths=lengths, compression=0.5, complex_weight=0.1, reduction="none"
    )
    torch.testing.assert_close(each[1], alone)
    assert each[2] == 0


@pytest.mark.parametrize("level", [1e-3, 1e25, 1e34])
def test_any_level_that_the_dtype_holds_is_compressed(level):
    target = torch.randn(2, 300, generator=torch.Generator().manual_seed(3))
    estimate = (0.7 * target.roll(1, -1) * level).requires_grad_()
    found = complex_stft_loss(estimate, target * level, n_fft=64, floor=1e-9)
    found.backward()
    wide = estimate.detach().double().requires_grad_()
    truth = complex_stft_loss(wide, (target * level).double(), n_fft=64, floor=1e-9)
    truth.backward()
    torch.testing.assert_close(found.double(), truth, rtol=1e-5, atol=0)
    off = (estimate.grad.double() - wide.grad).norm() / wide.grad.norm()
    assert off < 1e-5
