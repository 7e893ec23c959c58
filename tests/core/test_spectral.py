"""Spectra of signals of the fewest samples."""

import pytest
import torch

from aptt.audit.ways import in_blocks, plainly
from aptt.loss import stft_loss
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
