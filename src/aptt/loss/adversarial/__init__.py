"""Adversarial losses, of the scores and the features of one discriminator or of several.

    discriminator    real data from generated: least squares, hinge, BCE, Wasserstein
    generator        what is generated taken for real
    features         its features near those of real data

Axes: scores and features of any shape, the same for real and fake; in lists, the discriminators,
and in lists of those, the layers of each, of which the last is the score.
"""

from __future__ import annotations

from aptt.loss.adversarial.discriminator import (
    DiscriminatorLoss,
    discriminator_loss,
    discriminator_terms,
)
from aptt.loss.adversarial.features import (
    FeatureMatchingLoss,
    feature_matching_loss,
    feature_matching_terms,
)
from aptt.loss.adversarial.generator import GeneratorLoss, generator_loss, generator_terms

__all__ = [
    "DiscriminatorLoss",
    "FeatureMatchingLoss",
    "GeneratorLoss",
    "discriminator_loss",
    "discriminator_terms",
    "feature_matching_loss",
    "feature_matching_terms",
    "generator_loss",
    "generator_terms",
]
