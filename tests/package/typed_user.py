"""What a user of the library writes, with types: wrong is what is marked so, and nothing else."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aptt.compose import CombinedLoss, Ramp
from aptt.loss import (
    CrossEntropyLoss,
    DiceCELoss,
    DiceLoss,
    FocalLoss,
    GIoULoss,
    MelLoss,
    cross_entropy,
    dice_ce_terms,
    giou_loss,
)
from aptt.parallel import count_ahead, counts_of, normalized

loss_fn: nn.Module = CrossEntropyLoss(weight=[1.0, 2.0], ignore_index=None, label_smoothing=0.1)
logits, target = torch.randn(4, 2, requires_grad=True), torch.tensor([0, 1, 1, 0])
value: Tensor = cross_entropy(logits, target, weight=[1.0, 2.0])
from_list: Tensor = cross_entropy(logits, [0, 1, 1, 0])
terms: dict[str, Tensor] = dice_ce_terms(torch.randn(1, 2, 4), torch.zeros(1, 4).long())
again: dict[str, Tensor] = DiceCELoss().terms(torch.randn(1, 2, 4), torch.zeros(1, 4).long())
masks = DiceLoss(class_weight=[0.5, 1.0], absent="penalize", pool="sample")
mel = MelLoss(sample_rate=16000, n_fft=512, n_mels=40)


def train(loss: Callable[..., Tensor], steps: int) -> float:
    for _ in range(steps):
        loss(logits, target).backward()
    return loss(logits, target).item()


last: float = train(CrossEntropyLoss(), 2)
boxes: Tensor = giou_loss(torch.rand(3, 4), torch.rand(3, 4), reduction="none")
criterion = CombinedLoss(
    {"cls": FocalLoss(), "box": GIoULoss()},
    weights={"box": Ramp(0.5, 5.0, over=10)},
    inputs={"cls": ("scores", "labels"), "box": ("boxes", "truth")},
)
ce = CrossEntropyLoss()
shared = count_ahead([(logits, target)], counts_of(ce))
with normalized(ce, shared):
    total: Tensor = ce(logits, target)


def mistakes() -> None:
    """Each is told before it runs."""
    cross_entropy(logits, target, reduction="average")  # wrong
    DiceLoss(absent="ignore")  # wrong
    giou_loss(torch.rand(3, 4), torch.rand(3, 4), weights=None)  # wrong
