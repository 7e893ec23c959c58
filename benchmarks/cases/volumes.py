"""Losses of distances in a volume, whose maps are most of the work, beside MONAI's and scipy's.

MONAI hands each mask to ``scipy.ndimage`` and takes the result back, two maps a mask. The published
boundary loss is lower than ours by a constant, which is added here, and inside its map is one less
than the distance: up to 0.7 voxels less than ours along a diagonal. Gradients agree by norm.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

import aptt.loss
from benchmarks.case import OURS, Case, Contender, Loss

__all__ = ["CASES"]

_AHEAD = f"{OURS}, map made ahead"
_RIM = 0.1  # how far maps may differ, see above


def _inputs(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A ball of a quarter of the side, and logits of one that is smaller and lies beside it."""
    axes = [torch.linspace(-1, 1, n) for n in size[2:]]
    at = torch.stack(torch.meshgrid(axes, indexing="ij"))
    far = [(at - shift).square().sum(0).sqrt().expand(size) for shift in (0.0, 0.1)]
    return 8 * (0.4 - far[1]), (far[0] < 0.5).long()


def _ours(name: str, **options: Any) -> Callable[[], Loss]:
    return lambda: partial(getattr(aptt.loss, name), mode="binary", **options)


def _distance(seeds: Tensor) -> Tensor:
    """Squared distances add up by axis: each voxel against all others of its line."""
    squares = torch.where(seeds, 0.0, torch.inf)
    for axis in range(2, seeds.ndim):
        i = torch.arange(seeds.shape[axis], device=seeds.device)
        line = squares.movedim(axis, -1).unsqueeze(-2) + (i - i.unsqueeze(1)).square()
        squares = line.amin(-1).movedim(-1, axis)
    return squares.sqrt()


def plain_boundary(logits: Tensor, target: Tensor) -> Tensor:
    """Kervadec et al. 2019, arXiv:1812.07032, section 2, and what makes it 0 at the target."""
    own = target > 0
    phi = torch.where(own, 1 - _distance(~own), _distance(own))
    return (phi * (logits.sigmoid() - target)).mean()


def plain_hausdorff(logits: Tensor, target: Tensor) -> Tensor:
    """Karimi and Salcudean 2019, arXiv:1904.10030, section II, by distance transforms."""
    far = [_distance(m) + _distance(~m) for m in (target > 0, logits.detach() > 0)]
    wrong = logits.sigmoid() - target
    return (wrong.square() * (far[0].square() + far[1].square())).mean()


def _map_ahead() -> Loss:
    @cache
    def made(target: Tensor) -> Tensor:
        return aptt.loss.signed_distance(target)

    return lambda x, t: aptt.loss.boundary_loss(x, t, distance_map=made(t), mode="binary")


def _by_scipy() -> Loss:
    import scipy.ndimage  # noqa: F401 - or the contender is missing

    def loss(x: Tensor, t: Tensor) -> Tensor:
        phi = aptt.loss.signed_distance(t, backend="scipy")
        return aptt.loss.boundary_loss(x, t, distance_map=phi, mode="binary")

    return loss


def _monai_boundary() -> Loss:
    from monai.losses import BoundaryLoss

    loss = BoundaryLoss(sigmoid=True)

    @cache
    def lacking(target: Tensor) -> Tensor:
        constant: Tensor = (loss.compute_distance_map(target) * target).mean()
        return constant

    return lambda x, t: loss(x, t) - lacking(t)


def _monai_hausdorff() -> Loss:
    from monai.losses import HausdorffDTLoss

    loss = HausdorffDTLoss(sigmoid=True, include_background=True)
    return lambda x, t: loss(x, t.float())  # of whole numbers its distances are whole numbers


CASES = (
    Case(
        "boundary",
        "boundary_loss",
        _inputs,
        size=(1, 1, 128, 128, 128),
        quick=(1, 1, 32, 32, 32),
        contenders=(
            Contender(OURS, _ours("boundary_loss")),
            Contender(
                "plain, compiled",
                lambda: plain_boundary,
                compiled=True,
                tolerance=_RIM,
                by_norm=True,
            ),
            Contender("monai", _monai_boundary, tolerance=_RIM, by_norm=True),
            Contender("map by scipy", _by_scipy),
            Contender(_AHEAD, _map_ahead),
        ),
    ),
    Case(
        "hausdorff",
        "hausdorff_loss",
        _inputs,
        size=(1, 1, 128, 128, 128),
        quick=(1, 1, 32, 32, 32),
        contenders=(
            Contender(OURS, _ours("hausdorff_loss", one_sided=False)),
            Contender("plain, compiled", lambda: plain_hausdorff, compiled=True),
            Contender("monai", _monai_hausdorff),
        ),
    ),
)
