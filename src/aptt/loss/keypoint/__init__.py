"""Keypoint losses: how far predicted points are from where they should be.

keypoint_loss         coordinates, by object keypoint similarity or with a tail that pulls
wing_loss             coordinates, by a logarithm of small errors
adaptive_wing_loss    heat maps, sharp where the target is 1
"""

from aptt.loss.keypoint.adaptive_wing import AdaptiveWingLoss, adaptive_wing_loss
from aptt.loss.keypoint.bars import simcc_decode, simcc_targets
from aptt.loss.keypoint.oks import KeypointLoss, keypoint_loss
from aptt.loss.keypoint.rle import RLELoss, rle_loss
from aptt.loss.keypoint.sigmas import SIGMAS
from aptt.loss.keypoint.simcc import SimCCLoss, simcc_loss
from aptt.loss.keypoint.wing import WingLoss, wing_loss

__all__ = [
    "SIGMAS",
    "AdaptiveWingLoss",
    "KeypointLoss",
    "RLELoss",
    "SimCCLoss",
    "WingLoss",
    "adaptive_wing_loss",
    "keypoint_loss",
    "rle_loss",
    "simcc_decode",
    "simcc_loss",
    "simcc_targets",
    "wing_loss",
]
