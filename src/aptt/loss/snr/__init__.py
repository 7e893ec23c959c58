"""Signal-to-noise ratios as losses: minus the decibels by which a signal stands above its error.

    d = e - s        a = <e, s> / <s, s>        t = 10**(-cap / 10)

    SNR      10 log10 (|d|**2 + t |s|**2) / |s|**2
    SI-SDR   10 log10 (|e - a s|**2 + t |a s|**2) / (|a s|**2 + t |e - a s|**2)
    SI-SNR   SI-SDR of the signals less their means
    SA-SDR   10 log10 (sum |d|**2 + t sum |s|**2) / sum |s|**2, sums over the sources of a mixture
    ESR, DC  |d|**2 / |s|**2 and (mean d)**2 / mean s**2, as ratios
    SD-SDR   10 log10 (|d|**2 + t |a s|**2) / |a s|**2

Axes: estimate e and target s ``(..., T)``, one value for each signal of T samples.
From: SI-SDR and SD-SDR, Le Roux et al. 2019, arXiv:1811.02508, eq. 3, 5 and 9, negated; the soft
cap as Wisdom et al. 2020 (MixIT), arXiv:2006.12701, eq. 2; permutations, Yu et al. 2017,
arXiv:1607.00325.
"""

from aptt.loss.snr.esr import DCLoss, ESRLoss, dc_loss, esr_loss
from aptt.loss.snr.mixtures import (
    MixtureInvariantLoss,
    best_mixing,
    mixture_invariant_loss,
)
from aptt.loss.snr.permutation import (
    PermutationInvariantLoss,
    best_permutation,
    permutation_invariant_loss,
)
from aptt.loss.snr.sa_sdr import SASDRLoss, sa_sdr_loss
from aptt.loss.snr.sd_sdr import SDSDRLoss, sd_sdr_loss
from aptt.loss.snr.si_sdr import SISDRLoss, SISNRLoss, si_sdr_loss, si_snr_loss
from aptt.loss.snr.snr import SNRLoss, snr_loss

__all__ = [
    "DCLoss",
    "ESRLoss",
    "MixtureInvariantLoss",
    "PermutationInvariantLoss",
    "SASDRLoss",
    "SDSDRLoss",
    "SISDRLoss",
    "SISNRLoss",
    "SNRLoss",
    "best_mixing",
    "best_permutation",
    "dc_loss",
    "esr_loss",
    "mixture_invariant_loss",
    "permutation_invariant_loss",
    "sa_sdr_loss",
    "sd_sdr_loss",
    "si_sdr_loss",
    "si_snr_loss",
    "snr_loss",
]
