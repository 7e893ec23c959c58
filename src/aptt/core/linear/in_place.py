"""Cross-entropy of class indices on logits in memory of our own, for accelerators.

There the traffic is what counts. The formula of :mod:`aptt.loss.classification`, which must not
touch its argument, reads or writes the logits 20 times for value and gradient; this one does it 5
times, and hands the gradient over in any dtype:

    q     = softmax of the logits without that of class y     rest = 1 / q[its largest]
    p[c]  = q[c] * miss,    c != y

with ``rest`` and ``miss`` as :mod:`aptt.core.softmax` has them. Neither smoothing, nor a softcap,
nor an adjustment is known here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptt.core.softmax import of_class
from aptt.core.vocabulary import Form, Stats, finish

__all__ = ["settle", "settles"]


def settles(options: dict[str, Any]) -> bool:
    """Whether :func:`settle` knows all that is asked for."""
    form: Form = options["form"]
    return form.smoothing is None and form.softcap is None and options["adjustment"] is None


def settle(
    z: Tensor,
    y: Tensor,
    up: Tensor | None,
    out: Tensor | None,
    *,
    scale: float,
    class_weight: Tensor | None,
    form: Form,
    adjustment: None,
) -> Tensor:
    """The loss of each row; into ``out``, its gradient times ``scale`` and the upstream ``up``.

    ``z`` is overwritten, and ``out`` may lie in its memory.
    """
    mine, at = of_class(z, y), y.unsqueeze(1)
    z.scatter_(1, at, torch.finfo(z.dtype).min)  # not -inf: the others may be masked
    top, where = z.max(1, keepdim=True)
    q = z.softmax(1)
    stats = Stats(top, q.gather(1, where).reciprocal(), mine)
    weight = None if class_weight is None else class_weight[y].unsqueeze(1)
    loss = finish(stats, weight, form=form)
    if up is None:
        return loss
    # of class y: every * (1 - miss) - hard = (every - hard) * (1 - miss) - hard * miss
    hard = up.unsqueeze(1) * (scale if weight is None else weight * scale)
    miss = stats.against.miss
    every, of_y = hard, -(hard * miss)
    if form.z_loss is not None:
        base, level = stats.log_sum()
        more = (2 * form.z_loss) * hard * (base + level)
        every, of_y = hard + more, of_y + more * (1 - miss)
    torch.mul(q, every * miss, out=out)
    assert out is not None
    out.scatter_(1, at, of_y.to(out.dtype))
    return loss
