"""Spectra of signals of the fewest samples."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aptt.audit.ways import in_blocks, plainly
from aptt.core.frames import Resolution, canvases, reflected, unreflected
from aptt.core.signals import present
from aptt.loss import multi_resolution_stft_loss, stft_loss
from aptt.loss.mel import mel_filterbank


@pytest.mark.parametrize("framing", ["center", "tight", "full"])
@pytest.mark.parametrize("way", [plainly, in_blocks])
def test_a_removed_signal_among_signals_of_one_sample(way, framing):
    estimate = torch.tensor([[0.5], [torch.nan]], requires_grad=True)
    target, lengths = torch.tensor([[0.25], [torch.nan]]), torch.tensor([1, 0])
    with way():
        loss = stft_loss(estimate, target, lengths=lengths, n_fft=8, framing=framing)
        loss.backward()
        alone = stft_loss(estimate.detach()[:1], target[:1], n_fft=8, framing=framing)
    torch.testing.assert_close(loss, alone)
    assert estimate.grad[1] == 0
    assert estimate.grad.isfinite().all()


def test_an_infinite_sample_rate_is_refused_by_name():
    with pytest.raises(ValueError, match="sample_rate: got inf"):
        mel_filterbank(sample_rate=float("inf"), n_fft=512)


@pytest.mark.parametrize("framing", ["center", "tight", "full"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 300])
def test_what_is_unreflected_is_the_adjoint_of_what_is_reflected(size, padded, framing):
    generator = torch.Generator().manual_seed(size)
    x, counts, shortest = torch.randn(5, size, generator=generator, dtype=torch.float64), None, size
    if padded:
        counts, shortest = torch.tensor([size, 1, min(2, size), size // 2 + 1, 0]), 1
    resolutions = [Resolution(n, max(n // 4, 1), n, framing) for n in (8, 33, 64)]
    for canvas in canvases(resolutions, size):
        x.requires_grad_()
        shown = reflected(x, counts, canvas)
        assert shown.shape == (5, canvas.width)
        slope = torch.randn(shown.shape, generator=generator, dtype=torch.float64)
        (want,) = torch.autograd.grad(shown, x, slope)
        found = unreflected(slope, x.detach(), counts, canvas, shortest)
        torch.testing.assert_close(present(found, counts), present(want, counts))


class _Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name.split("::")[1].rstrip("_"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("lengths", [None, [3000, 700]])
def test_nothing_is_added_in_an_order_that_could_change(lengths):
    x = torch.randn(2, 3000, requires_grad=True)
    lengths = None if lengths is None else torch.tensor(lengths)
    with in_blocks(), _Seen() as seen:
        multi_resolution_stft_loss(x, torch.randn(2, 3000), lengths=lengths).backward()
    assert seen.names >= {"_fft_r2c", "_fft_c2r"}
    assert not seen.names & {"scatter_add", "index_add", "index_put", "cumsum", "scatter_reduce"}
