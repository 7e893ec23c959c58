"""Balancers: weights that follow from the losses, and stay ordinary numbers for ``backward``.

    Uncertainty   weight * (exp(-s) * value + s) / 2      s learnt, one for each term
    GradShare     scale * weight / sum(weights) * value / mean(|d value / d at|)
    GradNorm      weight * w * value                      w learnt   :mod:`aptt.compose.gradnorm`
    DWA           weight * K * softmax(last / before / T) * value         :mod:`aptt.compose.dwa`

A balancer turns the weights of a sum into the weights that count, detached from the graph, so that
``backward``, GradScaler, accumulation and data parallel need nothing special. Ranks agree because
they share a few numbers in ``forward``, which every rank runs.

Balancing is no magic: a plain sum with tuned weights matches it in careful comparisons (Kurin et
al., "In Defense of the Unitary Scalarization for Deep Multi-Task Learning", NeurIPS 2022,
arXiv:2201.04122). Fixed weights are the default here.

From: Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018,
arXiv:1705.07115, eq. 7; Defossez et al., "High Fidelity Neural Audio Compression", 2022,
arXiv:2210.13438, section 3.4.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from aptt.compose.recorder import follow
from aptt.core.checks import check_positive

__all__ = [
    "Accumulated",
    "Balance",
    "GradShare",
    "Uncertainty",
    "gradients_at",
    "mean_over_ranks",
    "over_ranks",
    "present",
    "square",
]

Parts = Sequence[Tensor | None]
"""The values one by one; None is a term that this batch does not have."""
At = Tensor | Sequence[Tensor]
"""Where gradients are compared: one tensor or several, taken as one."""


def over_ranks(t: Tensor) -> Tensor:
    """The sum over all ranks; ``t`` itself where there is one process."""
    if not _alone():
        torch.distributed.all_reduce(t)
    return t


def _alone() -> bool:
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not there or torch.distributed.get_world_size() == 1


class Balance(nn.Module, ABC):
    """What a balancer is; a subclass makes its state in ``bind`` and answers in ``forward``."""

    _PATIENCE = 1000  # calls, more than anybody accumulates, until an optimizer moves a parameter

    def __init__(self, pool: Callable[[Tensor], Tensor] | None = over_ranks) -> None:
        super().__init__()
        self.pool = pool
        self.names: tuple[str, ...] = ()
        self.accumulates: Accumulated | None = None
        """What came of the step at hand, inside ``criterion.accumulating``."""
        self._steps = 0

    def bind(self, names: tuple[str, ...]) -> None:
        """Make the state, one number per term. Called once, by the sum that it belongs to."""
        if self.names:
            raise ValueError("balance: got one that another sum has already, wanted one of its own")
        self.names = names

    @abstractmethod
    def forward(
        self,
        values: Tensor,
        parts: Parts,
        weights: Tensor,
        at: At | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The weights that count, detached, and what to add to the total besides the terms."""

    def unheard(self) -> list[str]:
        """The terms that have no weight yet, because no gradient of theirs could be used."""
        return []

    def _whole(self, values: Tensor, here: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
        """Values and presence of the whole step, with its last micro-batch; None before that."""
        if self.accumulates is None:
            return values, here
        here = torch.ones_like(values) if here is None else here
        found = self.accumulates.add("values", torch.where(here > 0, values, 0), here)
        return None if found is None else (found[0] * self.accumulates.share, found[1].clamp(max=1))

    def _norms(self, parts: Parts, at: At, like: Tensor) -> Tensor | None:
        """The norm of each term's gradient at ``at``, of the whole batch over all ranks; 0: none.

        Ranks average their gradients. Of features each rank and micro-batch has its own rows, so
        the squares add up; a parameter is the same for all, so its gradients do. None before the
        last micro-batch.
        """
        squares, shared = _slopes_at(self.names, parts, at, like)
        if self.accumulates is not None:
            found = self.accumulates.add("slopes", squares, shared)
            if found is None:
                return None
            squares, shared = (
                found[0] * self.accumulates.share**2,
                found[1] * self.accumulates.share,
            )
        sums = torch.cat([squares, torch.ones_like(squares[:1])])
        if self.pool is not None:
            sums = self.pool(sums)
            shared = self.pool(shared) if shared.numel() else shared
        return (sums[:-1] + shared.square().sum(1)).sqrt() / sums[-1]

    def _watch(self, learnt: Tensor) -> None:
        """Say, once, if no optimizer has moved a parameter in all this time."""
        if self._steps == 0:  # here, not before: a state may have been loaded
            self._version = learnt._version
        self._steps += 1
        if self._steps == self._PATIENCE and learnt._version == self._version:
            warnings.warn(
                f"the weights of {type(self).__name__} have not moved in {self._PATIENCE} calls: "
                "is criterion.parameters() in the optimizer?",
                stacklevel=4,
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Balance:
        super()._apply(lambda t: follow(fn, t), recurse)
        return self


class Accumulated:
    """Sums over the micro-batches of one step of an optimizer."""

    def __init__(self, micro_batches: int, means: bool) -> None:
        self.micro_batches = micro_batches
        self.share = 1 / micro_batches if means else 1.0
        """What a value of one micro-batch is of the whole."""
        self.held: dict[str, tuple[int, tuple[Tensor, ...]]] = {}

    def add(self, what: str, *sums: Tensor) -> tuple[Tensor, ...] | None:
        """The sums, once the last micro-batch is in."""
        before, held = self.held.pop(what, (0, ()))
        if before:
            sums = tuple(a + b for a, b in zip(held, sums, strict=True))
        if before + 1 == self.micro_batches:
            return sums
        self.held[what] = (before + 1, sums)
        return None


class Uncertainty(Balance):
    """Kendall's uncertainty weighting: each term is divided by a scale that is learnt with it.

        total = sum over terms of weight * (exp(-s) * value + s) / 2

    At rest ``exp(-s) * value = 1``, so a term weighs ``weight / (2 * value)``: the total is then
    ``sum(weight * (1 + log(value)) / 2)``, which may well be negative. Values are to be >= 0.

    ``s`` is a parameter: give ``criterion.parameters()`` to the optimizer, without weight decay.
    Its gradient comes from the mean over the ranks, so it is the same on all of them with or
    without wrapping; a value that is not finite leaves it alone. ``bounds`` stop ``s`` where a
    term that is 0 would carry it off to infinity, and let it come back.

    Args:
        start: ``s`` in the beginning; 0 is half the value.
        bounds: the least and the greatest ``s``.
        pool: sums a tensor over the ranks; None: this process is on its own.

    Differs from:
        Kendall et al.: their form for regression for every term; the one for classification
        (without the half before the value) comes to rest at the same weight.
        LibMTL: starts at -0.5; AutomaticWeightedLoss: adds log(1 + s**2), so stays positive.
    """

    def __init__(
        self,
        start: float = 0.0,
        bounds: tuple[float, float] = (-10.0, 10.0),
        pool: Callable[[Tensor], Tensor] | None = over_ranks,
    ) -> None:
        low, high = bounds
        if not low <= start <= high or not -80 <= low <= high <= 80:
            raise ValueError(
                f"bounds: got {tuple(bounds)} with start={start}, wanted low <= start <= high, "
                "from -80 to 80"
            )
        super().__init__(pool)
        self.start, self.bounds = float(start), (float(low), float(high))

    def bind(self, names: tuple[str, ...]) -> None:
        """One ``s`` per term."""
        super().bind(names)
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
        self.s = nn.Parameter(torch.full((len(names),), self.start, dtype=dtype))

    def forward(
        self,
        values: Tensor,
        parts: Parts,
        weights: Tensor,
        at: At | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Half of ``weight * exp(-s)`` each; the rest of the formula is added to the total."""
        low, high = self.bounds
        raw = self.s.detach()
        s = raw.clamp(low, high)
        precision = torch.exp(-s)
        here = present(parts, values)
        seen = values.detach().to(s.dtype)
        learns = self.training and torch.is_grad_enabled()
        if learns:
            whole = self._whole(seen, here)
            if whole is None:
                return weights * (0.5 * precision), None
            seen, here = whole
        extra = (weights * (0.5 * s) if here is None else weights * (0.5 * s) * here).sum()
        if learns:
            slope = self._slope(raw, precision, weights, seen, here)
            extra = extra + ((self.s - raw) * slope).sum()  # adds 0, and the gradient
            if not torch.compiler.is_compiling():
                self._watch(self.s)
        return weights * (0.5 * precision), extra

    def _slope(
        self, s: Tensor, precision: Tensor, weights: Tensor, values: Tensor, here: Tensor | None
    ) -> Tensor:
        """Of the total by s, at the mean over the ranks with the term; 0 outwards at a bound."""
        values, here = mean_over_ranks(values, here, self.pool)
        slope = 0.5 * weights * (1 - precision * values)
        if here is not None:
            slope = slope * here
        low, high = self.bounds
        outward = ((s <= low) & (slope > 0)) | ((s >= high) & (slope < 0))
        return torch.where(outward | ~slope.isfinite(), 0.0, slope)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"start={self.start}, bounds={self.bounds}"


class GradShare(Balance):
    """Weights as shares of the gradient: at ``at``, each term pulls as hard as it is told to.

        weight_i = scale * (w_i / sum of w) / mean over time of |d value_i / d at|

    ``at`` is a tensor that all terms depend on, usually the model's output or a shared feature
    map, or a parameter that they share; ``criterion(..., at=features)``. The norm is that of the
    gradient of the whole batch over all ranks, and its mean forgets at the rate ``decay``
    (corrected for the start). Only the weights that count are changed, so ``loss.backward()`` is
    the usual one. Values may lie orders of magnitude apart; the total says little by itself.

    Of ``at`` in float16 small gradients are kept from underflow, which waits for the device. A term
    whose gradient was 0 or not finite whenever it was asked for has the weight 0; :meth:`log` and
    the reports of the sum say its name.

    The gradients come from ``torch.autograd.grad``, which ``torch.compile(fullgraph=True)``
    refuses inside a graph: compile the model and leave the criterion as it is.

    Args:
        decay: how much of the mean stays with each step, in [0, 1).
        scale: the length of the whole gradient, if all terms pulled in one direction.
        floor: the least norm that is divided by.
        pool: sums a tensor over the ranks; None: this process is on its own.

    Differs from:
        audiocraft ``Balancer``: gives weights instead of running ``backward`` itself, with the
        same gradient; one norm of the batch where there the norms of its items are averaged;
        saved with the rest of the state.
    """

    mean: Tensor
    trust: Tensor

    def __init__(
        self,
        decay: float = 0.999,
        scale: float = 1.0,
        floor: float = 1e-12,
        pool: Callable[[Tensor], Tensor] | None = over_ranks,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: got {decay}, wanted a number in [0, 1)")
        for name, value in (("scale", scale), ("floor", floor)):
            check_positive(name, value)
        super().__init__(pool)
        self.decay, self.scale, self.floor = decay, scale, floor

    def bind(self, names: tuple[str, ...]) -> None:
        """A running mean per term, and how much of it is there."""
        super().bind(names)
        self.register_buffer("mean", torch.zeros(len(names), dtype=torch.float64))
        self.register_buffer("trust", torch.zeros(len(names), dtype=torch.float64))

    def forward(
        self,
        values: Tensor,
        parts: Parts,
        weights: Tensor,
        at: At | None,
    ) -> tuple[Tensor, None]:
        """Shares over mean norms; in training the means take this step in first.

        Where micro-batches accumulate, last: all of a step are weighed alike.
        """
        learns, after = self.training and torch.is_grad_enabled(), self.accumulates is not None
        if learns and at is None:
            raise ValueError("at: got None, GradShare wants the tensor that all terms share")
        if learns and not after:
            self._take_in(parts, at)
        counted = self._counted(parts, weights)
        if learns and after:
            self._take_in(parts, at)
        return counted, None

    def _counted(self, parts: Parts, weights: Tensor) -> Tensor:
        here = present(parts, weights)
        share = weights if here is None else weights * here
        share = share / share.sum().clamp(min=torch.finfo(share.dtype).tiny)
        norm = self.mean / self.trust.clamp(min=torch.finfo(self.trust.dtype).tiny)
        known = (self.trust > 0) & (self.mean > 0)
        counted = torch.where(known, self.scale * share / norm.clamp(min=self.floor), 0.0)
        return counted.to(weights.dtype)

    def _take_in(self, parts: Parts, at: At | None) -> None:
        assert at is not None
        norms = self._norms(parts, at, self.mean)
        if norms is None:
            return
        took = norms.isfinite() & (norms > 0)
        keep = torch.where(took, self.decay, 1.0)
        self.mean.copy_(self.mean * keep + torch.where(took, norms, 0) * (1 - keep))
        self.trust.copy_(self.trust * keep + (1 - keep))

    def unheard(self) -> list[str]:
        """The terms without a norm; waits for the device."""
        return [n for n, t in zip(self.names, self.trust.tolist(), strict=True) if t == 0]

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"decay={self.decay}, scale={self.scale}, floor={self.floor}"


def _slopes_at(names: Sequence[str], parts: Parts, at: At, like: Tensor) -> tuple[Tensor, Tensor]:
    """Of each term: the squared norm of its gradient at features; its gradient at parameters."""
    places = [at] if isinstance(at, Tensor) else list(at)
    squares, shared = [], []
    for name, value in zip(names, parts, strict=True):
        gradients: list[Tensor | None] = [None] * len(places)
        if value is not None and value.requires_grad:
            gradients = gradients_at(value, at)
            if all(part is None for part in gradients):
                raise ValueError(f"at: term {name!r} does not depend on it")
        pairs = list(zip(gradients, places, strict=True))
        squares.append(
            square([g for g, place in pairs if not isinstance(place, nn.Parameter)], like)
        )
        flat = [
            (torch.zeros_like(place) if g is None else g).reshape(-1).to(like.dtype)
            for g, place in pairs
            if isinstance(place, nn.Parameter)
        ]
        shared.append(torch.cat(flat) if flat else like.new_zeros(0))
    return torch.stack(squares), torch.stack(shared)


def mean_over_ranks(
    values: Tensor, here: Tensor | None, pool: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, Tensor | None]:
    """The mean of each value over the ranks that have it, and which of them any rank has."""
    if pool is None or (pool is over_ranks and _alone()):
        return values, here
    here = torch.ones_like(values) if here is None else here
    values, count = pool(torch.stack([values * here, here]))
    return values / count.clamp(min=1), count.clamp(max=1)


def gradients_at(value: Tensor, at: At) -> list[Tensor | None]:
    """The gradient of ``value`` at each tensor of ``at``; the graph stays for ``backward``.

    Half precision has no GradScaler here, so its small gradients are kept from underflow, unless
    that makes others overflow.
    """
    places = [at] if isinstance(at, Tensor) else list(at)
    for place in places:
        if not place.requires_grad:
            raise ValueError(f"at: a tensor of shape {tuple(place.shape)} requires no gradient")
    half = any(place.dtype == torch.float16 for place in places)
    for lift in (_LIFT, 1.0) if half else (1.0,):
        up = torch.full_like(value, lift)
        found = torch.autograd.grad(value, places, up, retain_graph=True, allow_unused=True)
        parts = [part for part in found if part is not None]
        if lift == 1 or all(bool(part.isfinite().all()) for part in parts):
            break
    return [part if lift == 1 or part is None else part.float() / lift for part in found]


_LIFT = 2.0**15  # the greatest power of 2 that float16 has


def square(gradients: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """The squared norm of several tensors taken as one, in the dtype of ``like``."""
    total = like.new_zeros(())
    for part in gradients:
        if part is not None:
            wide = torch.promote_types(part.dtype, torch.float32)
            total = total + torch.linalg.vector_norm(part, dtype=wide).to(like.dtype).square()
    return total


def present(parts: Parts, like: Tensor) -> Tensor | None:
    """1 for each term that this batch has, and 0 for the others; None where it has all."""
    if all(part is not None for part in parts):
        return None
    there = [part is not None for part in parts]
    return torch.tensor(there, dtype=like.dtype, device=like.device)
