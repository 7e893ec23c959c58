"""Losses of embeddings: pytorch-metric-learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator

from aptt.audit import Inputs
from aptt.audit.specs.making import normal
from docs.builder.peers.peer import HALVES, Peer, of

__all__ = ["EMBEDDINGS"]

_WHOLE = "a sample is compared with the others of its batch"
_JOINT = {
    "samples_stand_alone": _WHOLE,
    "size_changes_nothing": f"{_WHOLE}: a batch repeated has each of them more than once",
}
_MEANT = {
    "perfect_is_minimal": "which embeddings are best depends on the labels of all of the batch",
    "hopeless_keeps_a_gradient": "which embeddings are hopeless, it is not said",
}


def _labelled(g: Generator, n: int) -> Inputs:
    labels = torch.arange(n) % 3
    return {"embeddings": normal(g, n, 8) + 2 * torch.eye(8).double()[labels], "labels": labels}


def _peer(name: str, unasked: dict[str, str], **options: Any) -> Peer:
    """An instance: one with weights of its own keeps them."""

    def load() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return of("pytorch_metric_learning.losses", name)()(**options)

    said = ", ".join(f"{k}={v!r}" for k, v in options.items())
    return Peer(
        library="pytorch-metric-learning",
        name=f"{name}({said})",
        load=load,
        inputs=_labelled,
        choices=HALVES,
        told={"perfect": None, "hopeless": None, "reductions": ("mean",)},
        unasked={**_MEANT, **unasked},
    )


EMBEDDINGS: tuple[Peer, ...] = (
    _peer("NTXentLoss", _JOINT, temperature=0.07),
    _peer("SupConLoss", _JOINT, temperature=0.1),
    _peer("TripletMarginLoss", _JOINT, margin=0.05),
    _peer("ContrastiveLoss", _JOINT),
    _peer("ArcFaceLoss", {}, num_classes=3, embedding_size=8),
)
