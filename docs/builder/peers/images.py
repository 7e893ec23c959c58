"""Losses of images and of classes: torch, kornia, MONAI, torchvision, timm, transformers, smp."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from aptt.audit import Inputs, Options
from benchmarks.peers import smp_losses, torchvision_imports
from docs.builder.peers.peer import HALVES, Peer, of

__all__ = ["IMAGES"]

_TORCH = {**HALVES, "nothing_left_is_zero": "the mean of nothing is NaN, as NumPy has it"}
_NUMBERS = {
    "bad_input_is_refused": "integers are numbers to it, and shapes that differ are broadcast, "
    "with a warning"
}
_OFF = "an alpha of -1 is no weight: it turns the weights off, as its documentation says"
_INSIDE_OUT = "it refuses boxes that are inside out, by an error"


def _torch(name: str, kind: str, **choices: str) -> Peer:
    return Peer(
        library="torch",
        name=f"F.{name}",
        load=of("torch.nn.functional", name),
        kind=kind,
        choices={**_TORCH, **choices},
    )


def _from(library: str, module: str) -> Callable[..., Peer]:
    def peer(name: str, kind: str, choices: Mapping[str, str] = {}, **options: Any) -> Peer:
        load, mine = of(module, name), {**HALVES, **choices}
        return Peer(library=library, name=name, load=load, kind=kind, options=options, choices=mine)

    return peer


def _smp(name: str, kind: str, **options: Any) -> Peer:
    return Peer(
        library="segmentation-models-pytorch",
        name=name,
        load=lambda: getattr(smp_losses(), name),
        kind=kind,
        options=options,
        choices=HALVES,
    )


def _torchvision(name: str, kind: str, choices: Mapping[str, str] = {}) -> Peer:
    def load() -> Any:
        torchvision_imports()
        return of("torchvision.ops", name)()

    return Peer(
        library="torchvision",
        name=name,
        load=load,
        kind=kind,
        options={"reduction": "mean"},
        choices={**HALVES, **choices},
    )


def _timm(
    name: str,
    kind: str,
    choices: Mapping[str, str] = {},
    told: Mapping[str, Any] = {},
    **options: Any,
) -> Peer:
    def load() -> Any:
        torchvision_imports()
        return of("timm.loss", name)()

    return Peer(
        library="timm",
        name=name,
        load=load,
        kind=kind,
        options=options,
        choices={**HALVES, **choices},
        told=told,
    )


def _smoothed(inputs: Inputs, options: Options) -> tuple[Inputs, None]:
    """The best logits where a tenth of the label is spread over all four classes."""
    there = torch.nn.functional.one_hot(inputs["target"], 4).to(inputs["x"])
    return {**inputs, "x": math.log(0.925 / 0.025) * there}, None


# --------------------------------------------------- transformers: what its DETR is trained with


def _detr(name: str) -> Callable[[], Any]:
    """A loss with the number of boxes that it is divided by, as its callers have it."""

    def load() -> Any:
        loss = of("transformers.loss.loss_for_object_detection", name)()

        def mean(inputs: Tensor, targets: Tensor) -> Tensor:
            return loss(inputs, targets, max(len(inputs), 1))

        return mean

    return load


def _detr_giou() -> Any:
    pairwise = of("transformers.loss.loss_for_object_detection", "generalized_box_iou")()

    def giou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
        return (1 - torch.diag(pairwise(boxes1, boxes2))).sum() / max(len(boxes1), 1)

    return giou


def _flat_masks(g: Generator, n: int) -> Inputs:
    logits = 3 * torch.randn(n, 16, generator=g, dtype=torch.float64)
    return {"inputs": logits, "targets": torch.randint(2, (n, 16), generator=g).double()}


def _wrong_masks(inputs: Inputs, options: Options) -> Inputs:
    """As wrong as the audit makes masks."""
    return {**inputs, "inputs": inputs["inputs"] / 10 - 5 * (2 * inputs["targets"] - 1)}


def _transformers(name: str, load: Callable[[], Any], **how: Any) -> Peer:
    choices = {**HALVES, **how.pop("choices", {})}
    return Peer(library="transformers", name=name, load=load, choices=choices, **how)


_kornia = _from("kornia", "kornia.losses")
_monai = _from("monai", "monai.losses")

IMAGES: tuple[Peer, ...] = (
    _torch("cross_entropy", "logits+classes"),
    _torch("binary_cross_entropy_with_logits", "logits+multilabel"),
    _torch("mse_loss", "regression", **_NUMBERS),
    _torch("smooth_l1_loss", "regression", **_NUMBERS),
    _kornia("focal_loss", "logits+classes", alpha=0.25),
    _kornia("binary_focal_loss_with_logits", "logits+multilabel", alpha=0.25),
    _kornia("dice_loss", "masks"),
    _kornia("tversky_loss", "masks", alpha=0.3, beta=0.7),
    _kornia("lovasz_softmax_loss", "masks"),
    _monai("FocalLoss", "logits+multilabel"),
    _monai("DiceLoss", "masks", sigmoid=True),
    _monai("TverskyLoss", "masks", sigmoid=True),
    _monai("GeneralizedDiceLoss", "masks", sigmoid=True),
    _monai("BoxGIoULoss", "boxes", {"perfect_is_minimal": _INSIDE_OUT}),
    _smp("FocalLoss", "masks", mode="multilabel"),
    _smp("DiceLoss", "masks", mode="multiclass"),
    _smp("JaccardLoss", "masks", mode="multiclass"),
    _smp("TverskyLoss", "masks", mode="multiclass"),
    _torchvision("sigmoid_focal_loss", "logits+multilabel", {"bad_input_is_refused": _OFF}),
    _torchvision("generalized_box_iou_loss", "boxes"),
    _torchvision("distance_box_iou_loss", "boxes"),
    _torchvision("complete_box_iou_loss", "boxes"),
    _timm("LabelSmoothingCrossEntropy", "logits+classes", told={"perfect": _smoothed}),
    _timm("BinaryCrossEntropy", "logits+multilabel"),
    _timm("PolyCrossEntropy", "logits+classes"),
    _timm("AsymmetricLossMultiLabel", "logits+multilabel", reduction="mean"),
    _transformers(
        "fixed_cross_entropy",
        of("transformers.loss.loss_utils", "fixed_cross_entropy"),
        kind="logits+classes",
    ),
    _transformers("sigmoid_focal_loss", _detr("sigmoid_focal_loss"), kind="logits+multilabel"),
    _transformers(
        "dice_loss",
        _detr("dice_loss"),
        kind="logits+multilabel",
        inputs=_flat_masks,
        told={"hopeless": _wrong_masks},
    ),
    _transformers(
        "generalized_box_iou",
        _detr_giou,
        kind="boxes",
        choices={"perfect_is_minimal": _INSIDE_OUT},
    ),
)
