"""Losses of other libraries, each with how to call it and what its authors chose on purpose.

A choice is what the documentation of the peer says, or what its whole library does alike; it is
marked as a choice in the report card, and is no bug. What is left is for the reader to judge.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aptt.audit import Spec, make
from benchmarks.peers import smp_losses

__all__ = ["PEERS", "Peer"]

_DTYPE = "it computes in the dtype of its input, as torch does, and leaves float32 to the caller"


@dataclass(frozen=True)
class Peer:
    """One loss of another library."""

    library: str
    name: str
    load: Callable[[], Any]
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    """Promises that it breaks on purpose, with what its authors say."""

    @property
    def title(self) -> str:
        """Its call, as one writes it."""
        options = ", ".join(f"{k}={v!r}" for k, v in self.options.items())
        return f"{self.name}({options})" if options else self.name

    def row(self) -> Spec:
        """What the audit takes; raises ModuleNotFoundError where the library is missing."""
        return make(self.load(), kind=self.kind, options=self.options, name=self.title)


def _of(module: str, name: str) -> Callable[[], Any]:
    return lambda: getattr(importlib.import_module(module), name)


def _smp(name: str) -> Callable[[], Any]:
    return lambda: getattr(smp_losses(), name)


_HALVES = dict.fromkeys(("half_matches_truth", "autocast", "follows_to_dtype_and_device"), _DTYPE)
_TORCH = {**_HALVES, "nothing_left_is_zero": "the mean of nothing is NaN, as NumPy has it"}


def _torch(name: str, kind: str, **choices: str) -> Peer:
    return Peer(
        "torch",
        f"F.{name}",
        _of("torch.nn.functional", name),
        kind,
        choices={**_TORCH, **choices},
    )


def _kornia(name: str, kind: str, choices: Mapping[str, str] = {}, **options: Any) -> Peer:
    return Peer("kornia", name, _of("kornia.losses", name), kind, options, {**_HALVES, **choices})


def _monai(name: str, kind: str, choices: Mapping[str, str] = {}, **options: Any) -> Peer:
    return Peer("monai", name, _of("monai.losses", name), kind, options, {**_HALVES, **choices})


def _auraloss(module: str, name: str, **options: Any) -> Peer:
    return Peer(
        "auraloss", name, _of(f"auraloss.{module}", name), "waveforms", options, dict(_HALVES)
    )


def _smp_peer(name: str, kind: str, **options: Any) -> Peer:
    return Peer("segmentation-models-pytorch", name, _smp(name), kind, options, _HALVES)


_NUMBERS = {
    "bad_input_is_refused": "integers are numbers to it, and shapes that differ are broadcast, "
    "with a warning"
}

PEERS: tuple[Peer, ...] = (
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
    _monai(
        "BoxGIoULoss",
        "boxes",
        {"perfect_is_minimal": "it refuses boxes that are inside out, by an error"},
    ),
    _smp_peer("FocalLoss", "masks", mode="multilabel"),
    _smp_peer("DiceLoss", "masks", mode="multiclass"),
    _smp_peer("JaccardLoss", "masks", mode="multiclass"),
    _smp_peer("TverskyLoss", "masks", mode="multiclass"),
    _auraloss("time", "SNRLoss"),
    _auraloss("time", "SISDRLoss"),
    _auraloss("freq", "STFTLoss"),
    _auraloss("freq", "MultiResolutionSTFTLoss"),
)
