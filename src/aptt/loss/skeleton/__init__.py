"""Losses that look at the middle of a mask: whether tubes hang together.

    clDice    1 - 2 P R / (P + R)        P, R: how much of one skeleton lies in the other mask

Axes: logits ``(N, C, *S)``; target ``(N, *S)`` class indices, or like the logits.
From: Shit et al. 2021, arXiv:2003.07311.
"""

from aptt.loss.skeleton.cl_dice import ClDiceLoss, cl_dice_loss, cl_dice_terms
from aptt.loss.skeleton.soft import soft_skeleton

__all__ = ["ClDiceLoss", "cl_dice_loss", "cl_dice_terms", "soft_skeleton"]
