"""What shards of rows cannot say of a loss, though each rank could compute something."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Shard

from aptt.core.module import LossModule
from aptt.core.ordinary import placed
from aptt.parallel.classes import name_of

__all__ = ["check_rows", "check_sequences"]

_NO_ROWS = {
    "margin_loss": ("weight", "Replicate(), or aptt.parallel.unsharded(weight)"),
    "contrastive_loss": ("target", "none: pairs, row by row"),
}
"""Arguments whose first axis is not that of the rows, or that count along another's."""


def check_rows(loss: Any, given: Mapping[str, DTensor], cut: Mapping[str, int]) -> None:
    """Refuse what is cut and has no rows, and rows whose shards are not those of the prediction."""
    function = type(loss).forward if isinstance(loss, nn.Module) else loss
    names = [n for n in inspect.signature(function).parameters if n != "self"]
    ours = name_of(loss)
    whole, wanted = _NO_ROWS.get(ours, ("", ""))
    first = names[0] if names else ""
    if first in given and first not in cut:
        whole, wanted = next(iter(cut)), f"it placed as {first} is, {placed(given[first])}"
    if whole in cut:
        raise TypeError(f"{whole}: got a DTensor placed as {placed(given[whole])}, wanted {wanted}")
    many = {given[name].shape[0] for name in ("anchors", "candidates") if name in cut}
    if ours in ("contrastive_loss", "siglip_loss") and len(many) > 1:
        raise ValueError(
            f"candidates: got {given['candidates'].shape[0]} for {given['anchors'].shape[0]} "
            "anchors, wanted as many: of others the shards do not hold the same pairs"
        )


def check_sequences(loss: Any, given: Mapping[str, DTensor], kwargs: Mapping[str, Any]) -> None:
    """Refuse shards of a pack where its sequences count, which they may cut in two."""
    ids = given.get("sequence_ids")
    if ids is None or not any(isinstance(p, Shard) for p in ids.placements):
        return
    known = {name: p.default for name, p in inspect.signature(loss).parameters.items()}
    options = {**known, **(loss.options() if isinstance(loss, LossModule) else {}), **kwargs}
    for name in ("average", "ratio"):
        if options.get(name, "token") != "token":
            raise TypeError(
                f"sequence_ids: got a DTensor placed as {placed(ids)} with {name}="
                f"{options[name]!r}, and its shards may cut sequences; wanted a padded batch, a "
                "sequence a row"
            )
