"""What to say of a name that :mod:`aptt.loss` has not: the one that is meant, if it can be told."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

__all__ = ["missing"]

_ELSEWHERE = {  # what other libraries call it, without case, underscores, "loss" and "withlogits"
    "arcface": "MarginLoss",
    "bce": "BinaryCrossEntropyLoss",
    "binaryfocal": "FocalLoss",
    "ce": "CrossEntropyLoss",
    "clip": "ContrastiveLoss",
    "cosface": "MarginLoss",
    "dfl": "DistributionFocalLoss",
    "fusedlinearcrossentropy": "LinearCrossEntropyLoss",
    "gfl": "QualityFocalLoss and DistributionFocalLoss",
    "grpo": "PolicyLoss",
    "hausdorffdt": "HausdorffLoss",
    "hungarianassigner": "HungarianMatcher",
    "infonce": "ContrastiveLoss",
    "iou": "BoxIoULoss of boxes, IoULoss of masks",
    "jaccard": "IoULoss",
    "kd": "DistillationLoss",
    "kldiv": "DistillationLoss of logits, KLDLoss of rotated boxes",
    "kl": "DistillationLoss of logits, KLPenaltyLoss of a policy",
    "knowledgedistillation": "DistillationLoss",
    "lovaszhinge": "LovaszLoss(mode='binary')",
    "lovaszsoftmax": "LovaszLoss",
    "mae": "L1Loss",
    "mixit": "MixtureInvariantLoss",
    "multiresolutionstft": "MultiResolutionSTFTLoss",
    "multiresolutionmel": "MelLoss",
    "nll": "CrossEntropyLoss, of logits",
    "npairs": "ContrastiveLoss",
    "ntxent": "ContrastiveLoss(within=True)",
    "ohemcrossentropy": "TopKCrossEntropyLoss",
    "pinball": "QuantileLoss",
    "pit": "PermutationInvariantLoss",
    "pitwrapper": "PermutationInvariantLoss",
    "poly": "Poly1Loss",
    "ppo": "PolicyLoss",
    "qfl": "QualityFocalLoss",
    "scaleinvariantsignaldistortionratio": "SISDRLoss",
    "scaleinvariantsignalnoiseratio": "SISNRLoss",
    "sigmoidfocal": "FocalLoss",
    "softcldice": "ClDiceLoss",
    "softdice": "DiceLoss",
    "softdicecldice": "ClDiceLoss beside DiceLoss",
    "softtargetcrossentropy": "CrossEntropyLoss",
    "labelsmoothingcrossentropy": "CrossEntropyLoss(label_smoothing=0.1)",
    "tal": "TaskAlignedAssigner",
    "tripletmargin": "TripletLoss",
    "vfl": "VariFocalLoss",
}


def missing(name: str, known: Sequence[str]) -> str:
    """The text of the error for a name that there is not."""
    return f"{name}: aptt.loss has no such name{_meant(name, known)}; `aptt list` shows them all"


def _meant(name: str, known: Sequence[str]) -> str:
    """The name that somebody who says ``name`` may mean, as a part of a sentence."""
    if elsewhere := _ELSEWHERE.get(_bare(name)):
        return f", wanted {elsewhere}"
    alike = [each for each in known if each[:1].isupper() is name[:1].isupper()]
    names = {of(each): each for of in (str.lower, _bare) for each in alike}
    close = get_close_matches(_bare(name), names, 1, 0.75)
    close = close or get_close_matches(name.lower(), names, 1, 0.75)
    return f", did you mean {names[close[0]]}?" if close else ""


def _bare(name: str) -> str:
    name = name.lower().replace("_", "")
    for more in ("wrapper", "withlogits", "logits", "loss"):
        name = name.replace(more, "") or name
    return name
