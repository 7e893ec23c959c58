"""Spectral losses: distances of magnitude spectra, plain or through mel filters.

    A, B  = |STFT| of estimate and target, to a power, through mel filters or not
    loss  = w_log mean |log(A + f) - log(B + f)| + w_lin mean |A - B| + w_sc ||A - B|| / ||B||

over the frames and frequencies of each signal; several resolutions are averaged or added.

Axes: estimate and target ``(..., T)``, one value for each signal of T samples.
From: spectral convergence and log magnitude, Arik et al. 2018, arXiv:1808.06719, section 3.2;
several resolutions, Yamamoto et al. 2019 (Parallel WaveGAN), arXiv:1910.11480, eq. 6; mel, Kong
et al. 2020 (HiFi-GAN), arXiv:2010.05646, eq. 3; the mel scales, Slaney 1998 (Auditory Toolbox) and
Young et al. 2006 (HTK).
"""

from aptt.loss.mel.compressed import ComplexSTFTLoss, complex_stft_loss, complex_stft_terms
from aptt.loss.mel.filters import mel_filterbank
from aptt.loss.mel.mel import MelLoss, mel_loss
from aptt.loss.mel.resolutions import MultiResolutionSTFTLoss, multi_resolution_stft_loss
from aptt.loss.mel.stft import STFTLoss, stft_loss
from aptt.loss.mel.terms import mel_terms, multi_resolution_stft_terms, stft_terms

__all__ = [
    "ComplexSTFTLoss",
    "MelLoss",
    "MultiResolutionSTFTLoss",
    "STFTLoss",
    "complex_stft_loss",
    "complex_stft_terms",
    "mel_filterbank",
    "mel_loss",
    "mel_terms",
    "multi_resolution_stft_loss",
    "multi_resolution_stft_terms",
    "stft_loss",
    "stft_terms",
]
