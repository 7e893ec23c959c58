"""Classification losses: how far the answer is from the right class, or classes.

    cross_entropy           one of C classes is right
    binary_cross_entropy    independent yes-or-no questions
    top_k_cross_entropy     the first, of the hardest positions alone
    poly1_loss and others   of the probability of the right class, not of its logarithm alone
    asymmetric_loss         the same, where few of many labels are right
    coral_loss, corn_loss   classes have an order

Axes: logits ``(N, C, ...)`` or ``(..., C)``; of yes-or-no questions, any shape.
"""

from __future__ import annotations

from aptt.loss.classification.asymmetric import AsymmetricLoss, asymmetric_loss
from aptt.loss.classification.balance import class_balanced_weights
from aptt.loss.classification.binary import BinaryCrossEntropyLoss, binary_cross_entropy
from aptt.loss.classification.categorical import CrossEntropyLoss, cross_entropy
from aptt.loss.classification.coral import CORALLoss, coral_loss
from aptt.loss.classification.corn import CORNLoss, corn_loss
from aptt.loss.classification.generalized import (
    GeneralizedCrossEntropyLoss,
    generalized_cross_entropy_loss,
)
from aptt.loss.classification.levels import ordinal_decode, ordinal_probabilities
from aptt.loss.classification.poly1 import Poly1Loss, poly1_loss
from aptt.loss.classification.symmetric import (
    SymmetricCrossEntropyLoss,
    symmetric_cross_entropy_loss,
)
from aptt.loss.classification.terms import cross_entropy_terms
from aptt.loss.classification.top_k import TopKCrossEntropyLoss, top_k_cross_entropy_loss
from aptt.loss.focal import FocalLoss

__all__ = [
    "AsymmetricLoss",
    "BinaryCrossEntropyLoss",
    "CORALLoss",
    "CORNLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "GeneralizedCrossEntropyLoss",
    "Poly1Loss",
    "SymmetricCrossEntropyLoss",
    "TopKCrossEntropyLoss",
    "asymmetric_loss",
    "binary_cross_entropy",
    "class_balanced_weights",
    "coral_loss",
    "corn_loss",
    "cross_entropy",
    "cross_entropy_terms",
    "generalized_cross_entropy_loss",
    "ordinal_decode",
    "ordinal_probabilities",
    "poly1_loss",
    "symmetric_cross_entropy_loss",
    "top_k_cross_entropy_loss",
]
