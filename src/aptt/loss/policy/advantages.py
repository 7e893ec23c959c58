"""From rewards to advantages: how much better an answer is than the others to the same prompt.

    advantage = (reward - mean of its group) / (std + epsilon)

Axes: reward ``(..., G)`` with a group a row, or ``(N,)`` with ids.
From: Shao et al. 2024 (GRPO), arXiv:2402.03300; without the std, Liu et al. 2025 (Dr.GRPO),
arXiv:2503.20783; leave one out, Ahmadian et al. 2024 (RLOO), arXiv:2402.14740.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import Numbers, as_floats, as_tensor, check_choice, check_flags, check_number
from aptt.core.precision import widen
from aptt.core.segments import segments_of

__all__ = ["group_advantages"]


@torch.no_grad()
def group_advantages(
    reward: Numbers,
    *,
    group_ids: Tensor | None = None,
    scale: Literal["std", "none", "batch"] = "std",
    leave_one_out: bool = False,
    epsilon: float = 1e-4,
) -> Tensor:
    """How much better than its group each answer is, without a gradient.

        (reward - mean of the group) / (std + epsilon)

    Args:
        reward: ``(..., G)`` with a group a row, or ``(N,)`` with ids; of any floating dtype. NaN
            for an answer that could not be judged: it has no part in its group, and advantage 0.
        group_ids: ``(N,)`` whole numbers, the same for the answers to one prompt, in any order.
        scale: divide by ``"std"``, that of the group (over n - 1), by that of the whole
            ``"batch"`` of deviations, or by ``"none"``.
        leave_one_out: compare with the mean of the others: n / (n - 1) times the deviation.
        epsilon: added to the standard deviation.

    Returns:
        The advantages, of the reward's shape; float32 for half types. Exactly 0 for a group whose
        rewards are all equal, and for a group of one.

    Raises:
        ValueError: shapes that do not fit, an unknown option.

    Differs from:
        TRL, verl, NeMo-RL: deviations are taken from one reward of the group, so equal rewards
            differ by exactly 0; the rounding of a mean, divided by epsilon, has been 4000.
        verl: a group of one has advantage 0, not its reward.

    Example:
        >>> import torch
        >>> [round(a, 3) for a in group_advantages(torch.tensor([[1.0, 0, 0, 0]]))[0].tolist()]
        [1.5, -0.5, -0.5, -0.5]
    """
    check_choice("scale", scale, ("std", "none", "batch"))
    check_flags(leave_one_out=leave_one_out)
    check_number("epsilon", epsilon)
    reward = as_tensor("reward", reward)
    given = as_floats("reward", reward, torch.empty(0, dtype=torch.float32))
    groups = segments_of(given, group_ids, name="reward", ids="group_ids")
    seen = ~given.isnan()
    if groups.inside is not None:
        seen = seen & groups.inside
    x = widen(torch.where(seen, given, 0.0))
    wide = x if x.device.type == "mps" else x.double()
    many = groups.count(seen).to(wide.dtype)
    lowest = torch.where(seen, wide, torch.finfo(wide.dtype).max)
    d = torch.where(seen, wide - groups.spread(groups.least(lowest)), 0.0)
    d = torch.where(seen, d - groups.spread(groups.total(d) / many.clamp(min=1)), 0.0)
    others = (many - 1).clamp(min=1)
    if scale == "std":
        d_scale = groups.spread((groups.total(d.square()) / others).sqrt()) + epsilon
    elif scale == "batch":
        d_scale = (d.square().sum() / (seen.sum() - 1).clamp(min=1)).sqrt() + epsilon
    else:
        d_scale = torch.ones_like(d)
    if leave_one_out:
        d = d * groups.spread(many.clamp(min=1) / others)
    return torch.where(d == 0, 0.0, d / d_scale).to(x.dtype)
