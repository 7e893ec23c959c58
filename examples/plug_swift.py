"""A plugin file for ms-swift: cross-entropy with a z-loss, by name on its command line.

swift sft --external_plugins examples/plug_swift.py --loss_type z_loss ...

The Trainer counts the tokens of all micro-batches, and hands the number over. A ``loss_scale``
multiplies a token's loss and is not counted, as in ms-swift's own.
"""

from __future__ import annotations

from typing import Any

from swift.loss import BaseLoss, loss_map
from torch import Tensor

from aptt.loss import cross_entropy
from aptt.parallel import count_mean


class ZLoss(BaseLoss):
    """Next-token cross-entropy, and a price on large logits."""

    def __call__(
        self,
        outputs: Any,
        labels: Tensor,
        *,
        num_items_in_batch: Tensor | int | None = None,
        loss_scale: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """As ms-swift calls it: ``labels`` are those of the inputs, and are shifted here."""
        logits, target = outputs.logits[:, :-1], labels[:, 1:]
        how: dict[str, Any] = {"class_dim": -1, "z_loss": 1e-4}
        if loss_scale is None:
            mean = "mean" if num_items_in_batch is None else count_mean(num_items_in_batch)
            return cross_entropy(logits, target, reduction=mean, **how)
        values = cross_entropy(logits, target, reduction="none", **how) * loss_scale[:, 1:]
        items = (target != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return count_mean(items)(values.sum(), (target != -100).sum(), term="tokens")


loss_map["z_loss"] = ZLoss
