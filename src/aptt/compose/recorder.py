"""What each term did, counted on the device, and read only when asked.

A training step keeps a reference to its vector of values and nothing more. Every ``_BATCH`` steps,
and whenever somebody asks, what is kept is added up in a few small operations; no step waits for
the device.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Pool", "Recorder", "follow"]

_BATCH = 64  # steps that are added up together

Pool = Callable[[Tensor], Tensor]
"""Sums a tensor over the ranks."""


class _Step(NamedTuple):
    values: Tensor
    weights: Tensor
    extra: Tensor | None
    present: tuple[bool, ...] | None  # None: all


class Recorder(nn.Module):
    """Counters per term. They are no buffers: data parallel would overwrite them with rank 0's.

    Attributes are tensors with one number per term, but for ``steps``, how many training steps
    there were, and the two of the total. ``sum_*`` and ``averaged`` start anew with each reading.
    """

    steps: Tensor
    calls: Tensor
    nonfinite: Tensor
    first_bad: Tensor
    zeros: Tensor
    detached: Tensor
    averaged: Tensor
    sum_value: Tensor
    sum_weight: Tensor
    sum_weighted: Tensor
    sum_total: Tensor
    averaged_total: Tensor

    _WHOLE = ("calls", "nonfinite", "first_bad", "zeros", "detached", "averaged")
    _SUMS = ("sum_value", "sum_weight", "sum_weighted")
    _FIELDS = ("steps", *_WHOLE, *_SUMS, "sum_total", "averaged_total")

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for name in self._WHOLE:
            setattr(self, name, torch.zeros(len(names), dtype=torch.int64))
        for name in self._SUMS:
            setattr(self, name, torch.zeros(len(names), dtype=torch.float64))
        self.first_bad = torch.full((len(names),), -1)
        self.steps = torch.zeros((), dtype=torch.int64)
        self.averaged_total = torch.zeros((), dtype=torch.int64)
        self.sum_total = torch.zeros((), dtype=torch.float64)
        self._held: list[_Step] = []
        self._said: set[str] = set()

    def add(
        self,
        values: Tensor,
        weights: Tensor,
        extra: Tensor | None,
        present: tuple[bool, ...] | None,
    ) -> None:
        """Record a step: what each term was, and the weight that it really had.

        The tensors are kept for a while and must not be changed; ``extra`` is what the total has
        besides the terms.
        """
        extra = None if extra is None else extra.detach()
        step = _Step(values.detach(), weights.detach(), extra, present)
        if torch.compiler.is_compiling():  # the compiler makes one kernel of it
            self._sum_up([step])
        elif not torch._C._functorch.is_functorch_wrapped_tensor(values):
            self._held.append(step)
            if len(self._held) == _BATCH:
                self.fold()

    def now(self) -> int:
        """How many training steps there were; waits for the device."""
        return int(self.steps) + len(self._held)

    def no_gradient(self, index: int) -> None:
        """Count a step in which a term required no gradient; eager mode says it, once."""
        self.detached[index] += 1
        if not torch.compiler.is_compiling():
            self.say(
                f"term {self.names[index]!r} requires no gradient: nothing is trained by it. Is "
                "something detached on the way from the model to its value?"
            )

    @torch.no_grad()
    def fold(self) -> None:
        """Add up what is kept."""
        held, self._held = self._held, []
        if held:
            self._sum_up(held)

    @torch.no_grad()
    def _sum_up(self, held: Sequence[_Step]) -> None:
        values = torch.stack([step.values for step in held])
        weights = torch.stack([step.weights for step in held])
        finite = values.isfinite()
        bad, zero, used, seen = ~finite, values == 0, finite, len(held)
        if any(step.present is not None for step in held):
            everyone = (True,) * len(self.names)
            there = torch.tensor([s.present or everyone for s in held], device=values.device)
            bad, zero, used = bad & there, zero & there, used & there
            self.calls += there.sum(0)
        else:
            self.calls += seen
        at = self.steps + torch.arange(seen, device=values.device).unsqueeze(1)
        never = torch.iinfo(torch.int64).max
        first = torch.where(bad, at, never).amin(0)
        self.first_bad.copy_(
            torch.where((self.first_bad < 0) & (first != never), first, self.first_bad)
        )
        self.steps += seen
        self.nonfinite += bad.sum(0)
        self.zeros += zero.sum(0)
        self.averaged += used.sum(0)

        wide = self.sum_value.dtype
        weights, kept = weights.to(wide), torch.where(used, values, 0).to(wide)
        weighted = weights * kept
        self.sum_value += kept.sum(0)
        self.sum_weight += torch.where(used, weights, 0).sum(0)
        self.sum_weighted += weighted.sum(0)
        total = weighted.sum(1)
        if any(step.extra is not None for step in held):
            nothing = values.new_zeros(())
            extras = [nothing if step.extra is None else step.extra for step in held]
            total = total + torch.stack(extras).to(wide)
        clean = ~bad.any(1) & total.isfinite()
        self.sum_total += torch.where(clean, total, 0).sum()
        self.averaged_total += clean.sum()

    @torch.no_grad()
    def read(self, weights: Tensor, *, fresh: bool, pool: Pool | None = None) -> dict[str, Any]:
        """Everything as plain numbers: one transfer from the device.

        ``weights`` are stated for a term without a finite value since the last reading; ``fresh``
        starts the means anew. ``pool`` adds up the ranks; the first bad step stays this rank's.
        """
        self.fold()
        parts = [getattr(self, name).reshape(-1) for name in self._FIELDS]
        wide = self.sum_value.dtype
        packed = torch.cat([part.to(wide) for part in parts])
        summed = packed if pool is None else pool(packed.clone())
        own = [self.first_bad.to(wide), weights.to(packed)]
        numbers = iter(torch.cat([summed, *own]).tolist())
        read: dict[str, list[float]] = {
            name: [next(numbers) for _ in range(part.numel())]
            for name, part in zip(self._FIELDS, parts, strict=True)
        }
        read["first_bad"] = [next(numbers) for _ in self.names]
        usual = list(numbers)
        if fresh:
            for name in (*self._SUMS, "averaged", "sum_total", "averaged_total"):
                getattr(self, name).zero_()
        terms = {}
        for i, name in enumerate(self.names):
            n = read["averaged"][i]
            value, weighted = (_over(read[key][i], n) for key in ("sum_value", "sum_weighted"))
            bad = int(read["first_bad"][i])
            terms[name] = {
                "value": value,
                "weight": read["sum_weight"][i] / n if n else usual[i],
                "weighted": weighted,
                "calls": int(read["calls"][i]),
                "nonfinite": int(read["nonfinite"][i]),
                "first_bad_step": None if bad < 0 else bad,
                "zeros": int(read["zeros"][i]),
                "no_gradient": int(read["detached"][i]),
            }
        self._tell(terms)
        total = _over(read["sum_total"][0], read["averaged_total"][0])
        return {"steps": int(read["steps"][0]), "total": total, "terms": terms}

    def _tell(self, terms: dict[str, dict[str, Any]]) -> None:
        for name, term in terms.items():
            if term["nonfinite"]:
                since = term["first_bad_step"]
                where = "on another rank" if since is None else f"the first at step {since}"
                self.say(
                    f"term {name!r} was not finite in {term['nonfinite']} of {term['calls']} "
                    f"calls, {where} (counted from 0)",
                    once=f"nonfinite {name}",
                )
            if term["no_gradient"]:
                self.say(
                    f"term {name!r} required no gradient in {term['no_gradient']} calls",
                    once=f"term {name!r} requires",
                )

    def say(self, text: str, once: str | None = None) -> None:
        """Warn, if ``once`` has not been said before."""
        once = once or text[: text.index(" no gradient")]
        if once not in self._said:
            self._said.add(once)
            warnings.warn(text, stacklevel=3)

    # The state, as buffers would do it.

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Recorder:
        self.fold()
        for name in self._FIELDS:
            t = getattr(self, name)
            setattr(self, name, follow(fn, t))
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.fold()
        for name in self._FIELDS:
            destination[prefix + name] = getattr(self, name).clone()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        self._held = []
        for name in self._FIELDS:
            mine, theirs = getattr(self, name), state_dict.get(prefix + name)
            if theirs is None:
                missing_keys.append(prefix + name)
            elif mine.shape != theirs.shape:
                error_msgs.append(
                    f"{prefix}{name}: got {tuple(theirs.shape)}, wanted {tuple(mine.shape)}"
                )
            else:
                mine.copy_(theirs)


def follow(fn: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """``t`` where ``fn`` would put it, in its own dtype: ``.half()`` is for models, not counts.

    A device without float64 keeps its sums in float32.
    """
    device = fn(torch.empty(0, dtype=torch.float32, device=t.device)).device
    narrow = device.type == "mps" and t.dtype == torch.float64
    return t.to(device, torch.float32 if narrow else t.dtype)


def _over(total: float, count: float) -> float:
    return total / count if count else float("nan")
