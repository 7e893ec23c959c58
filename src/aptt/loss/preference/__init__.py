"""Preferences between answers, from the scores of sequences.

    sequence_scores    one score a sequence, from log-probabilities of tokens
    dpo_loss           pairs, against a reference or without: sigmoid, robust, hinge, IPO
    simpo_loss         pairs, by the average of a token, without a reference
    orpo_loss          pairs, by their odds, with the likelihood of the chosen answer
    kto_loss           answers that are good or bad, one by one

Axes: scores of any shape, one for each sequence.
"""

from __future__ import annotations

from aptt.loss.preference.dpo import DPOLoss, dpo_loss, dpo_terms
from aptt.loss.preference.kto import KTOLoss, kto_loss, kto_terms
from aptt.loss.preference.orpo import ORPOLoss, orpo_loss, orpo_terms
from aptt.loss.preference.scores import Scores, sequence_scores
from aptt.loss.preference.simpo import SimPOLoss, simpo_loss, simpo_terms

__all__ = [
    "DPOLoss",
    "KTOLoss",
    "ORPOLoss",
    "Scores",
    "SimPOLoss",
    "dpo_loss",
    "dpo_terms",
    "kto_loss",
    "kto_terms",
    "orpo_loss",
    "orpo_terms",
    "sequence_scores",
    "simpo_loss",
    "simpo_terms",
]
