"""Matchability- and IoU-aware loss: scores of matched queries that say how good the box is.

    p = sigmoid(x)      nll(t) = -(t log p + (1 - t) log(1 - p))      q: the quality of a positive

    mal         loss = nll(q**gamma)                    where positive
                       alpha p**gamma nll(0)            elsewhere
    ia bce      loss = nll(t)                           where positive, t = p**alpha q**(1 - alpha)
                       p**gamma nll(0)                  elsewhere       held constant

Axes: logits and target ``*N``, each element a question of its own; ``q`` is the quality.
From: mal, Huang et al. 2025, arXiv:2412.04234; ia bce, Cai et al. 2023, arXiv:2304.07527.
"""

from aptt.loss.aligned.ia_bce import IABCELoss, ia_bce_loss
from aptt.loss.aligned.mal import MALLoss, mal_loss

__all__ = ["IABCELoss", "MALLoss", "ia_bce_loss", "mal_loss"]
