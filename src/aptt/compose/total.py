"""What every sum of named terms is: ``total = sum of weight * value``, and an account of each.

    values -> balance -> weights -> one number

Weights are used as given, never normalised (but under :class:`aptt.compose.GradShare` they are
shares). The account is of the values as they came, before any weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aptt.compose.balance import Accumulated, Balance, over_ranks
from aptt.compose.gradients import GradReport, grad_report
from aptt.compose.names import check_mapping
from aptt.compose.nonfinite import NonFiniteError, what_is_wrong
from aptt.compose.recorder import Pool, Recorder
from aptt.compose.schedule import Weight, weight_at
from aptt.compose.slopes import At, Parts
from aptt.compose.state import encoded, match_terms
from aptt.core.checks import check_whole
from aptt.core.ordinary import apart, real_device
from aptt.core.precision import widest

__all__ = ["Total", "as_is"]


class Total(nn.Module):
    """What :class:`WeightedSum` and :class:`aptt.compose.CombinedLoss` have in common.

    Its state is the step of the schedules, the balancer's and the recorder's; it lives where the
    values are, whatever device this module was sent to.
    """

    t: Tensor
    weight: Tensor
    skips: Tensor
    skipped: bool
    """Whether the last call left its step out; see ``on_nonfinite="skip"``."""

    def __init__(
        self, weights: Mapping[str, Weight], balance: Balance | None, on_nonfinite: str
    ) -> None:
        super().__init__()
        self.weights: dict[str, Weight] = dict(check_mapping("weights", weights))
        self.names = tuple(self.weights)
        _check_names(self.names)
        if balance is not None and not isinstance(balance, Balance):
            raise TypeError(
                f"balance: got {balance!r}, wanted a Balance such as GradShare(), or None"
            )
        self.on_nonfinite = on_nonfinite
        self.skipped = False
        self.balance = balance
        self._now = 0
        self._off: tuple[bool, ...] = ()
        with apart(real_device()):
            self.record = Recorder(self.names)
            self.register_buffer("t", torch.zeros((), dtype=torch.int64))
            self.register_buffer("skips", torch.zeros((), dtype=torch.int64))
            self.register_buffer("weight", torch.zeros(len(self.names)), persistent=False)
            if balance is not None:
                balance.bind(self.names)
            self._weigh()

    # ------------------------------------------------------------------------------ the sum

    def _total(self, parts: Parts, at: At | None, left: Sequence[Tensor] = ()) -> Tensor:
        """The sum, attached by a gradient of zeros to ``left``, what terms left out depend on."""
        values = summed = self._stacked(parts)
        weights = self.weight.to(values.device, values.dtype, copy=True)  # the recorder keeps it
        whole = all(part is not None for part in parts)
        present = None if whole else tuple(part is not None for part in parts)
        if any(self._off):  # neither their values nor their gradients, which may be NaN
            parts = [None if off else part for off, part in zip(self._off, parts, strict=True)]
            summed = self._stacked(parts)
        if self.training and torch.is_grad_enabled():
            if at is None and not any(part is not None for part in parts) and not any(self._off):
                raise ValueError("every term is None: pass at=, which the total can be attached to")
            for index, part in enumerate(parts):
                if part is not None and not part.requires_grad:
                    self.record.no_gradient(index)
        extra = None
        if self.balance is not None:
            weights, extra = self.balance(summed, parts, weights, at)
        total = torch.dot(summed, weights.to(summed.dtype))
        if extra is not None:
            total = total + extra
        if any(part is None for part in parts):
            total = total + _nothing_of(at) + _nothing_of(left)
        if values.device.type != "meta":
            if self.training:
                self.record.add(values, weights, extra, present)
            if self.on_nonfinite == "skip":
                return self._left_out(total)
            if self.on_nonfinite != "record":
                self._refuse_nonfinite(summed, weights, total)
        return total

    def _left_out(self, total: Tensor) -> Tensor:
        """The total; 0 without a graph where it is not finite on any rank. Waits for the device."""
        if not (self.training and torch.is_grad_enabled()):
            return total
        if torch.compiler.is_compiling():
            torch._dynamo.graph_break()
        bad = over_ranks((~total.detach().isfinite()).to(torch.float32))
        self.skipped = bool(bad > 0)
        if not self.skipped:
            return total
        self.skips += 1
        return torch.zeros_like(total, requires_grad=True)

    def _stacked(self, parts: Parts) -> Tensor:
        dtype, device = torch.float32, None
        for name, part in zip(self.names, parts, strict=True):
            if part is None:
                continue
            if not isinstance(part, Tensor):
                raise TypeError(
                    f"term {name!r}: got {type(part).__name__}, wanted a tensor of one number, or "
                    "None where this batch does not have it"
                )
            if part.ndim or not part.is_floating_point():
                raise ValueError(
                    f"term {name!r}: got {part.dtype} of shape {tuple(part.shape)}, wanted one "
                    "floating number, of shape ()"
                )
            dtype, device = torch.promote_types(dtype, part.dtype), part.device
        if device is None:
            device = self.weight.device
        elsewhere = device != self.weight.device and device.type != "meta"
        if elsewhere and not torch.compiler.is_compiling():
            self._move(device)
        nothing = torch.zeros((), dtype=dtype, device=device)
        return torch.stack([nothing if part is None else part.to(dtype) for part in parts])

    def _refuse_nonfinite(self, values: Tensor, weights: Tensor, total: Tensor) -> None:
        """Wait for the numbers of a step, and raise for the first kind that is not finite.

        The step has been recorded, and shared with the other ranks.
        """
        if torch.compiler.is_compiling():
            torch._dynamo.graph_break()
        wrong = what_is_wrong(self.names, values, weights, total)
        if wrong is None:
            return
        step = self.record.now() - self.training
        when = f"at step {step} (counted from 0)" if self.training else "in evaluation"
        raise NonFiniteError(f"{wrong.said} {when}", wrong.terms, step)

    def _grad_report(self, parts: Parts, at: At) -> GradReport:
        parts = [None if off else part for off, part in zip(self._off, parts, strict=True)]
        values = self._stacked(parts)
        weights = self.weight.to(values.dtype)
        if self.balance is not None:
            self._say_unheard(n for n, p in zip(self.names, parts, strict=True) if p is not None)
            weights, _ = self.balance(values, parts, weights, at)
        return grad_report(self.names, parts, weights, at)

    def _say_unheard(self, names: Iterable[str]) -> None:
        """Say which of the terms a balancer gives no weight, for want of a gradient."""
        unheard = [] if self.balance is None else self.balance.unheard()
        for name in names:
            if name in unheard and not self._off[self.names.index(name)]:
                self.record.say(
                    f"term {name!r} has the weight 0: {type(self.balance).__name__} has not had a "
                    "gradient of it in training that is finite and above 0",
                    once=f"unheard {name}",
                )

    # ------------------------------------------------------------------------ the schedules

    def step(self) -> None:
        """Advance the schedules by one: an epoch, an optimizer's step, whatever you count."""
        self.at_step(self._now + 1)

    def at_step(self, step: int) -> None:
        """Set the schedules to ``step``, for a loop that counts by itself."""
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ValueError(f"step: got {step!r}, wanted a whole number, at least 0")
        self._now = step
        self.t.fill_(step)
        if any(callable(weight) for weight in self.weights.values()):
            self._weigh()

    def _weigh(self) -> None:
        """Fill in the weights of the present step, in place: a compiled graph sees them change."""
        now = [weight_at(name, weight, self._now) for name, weight in self.weights.items()]
        if self.balance is not None and min(now) < 0:
            name = self.names[now.index(min(now))]
            raise ValueError(
                f"weight of {name!r}: got {min(now)} at step {self._now}, "
                f"{type(self.balance).__name__} wants at least 0"
            )
        self._off = tuple(weight == 0 for weight in now)
        dtype = widest(self.weight)
        filled = torch.tensor(now, dtype=dtype, device=self.weight.device)
        if self.weight.dtype == dtype:
            self.weight.copy_(filled)
        else:
            self.weight = filled

    @contextmanager
    def accumulating(self, micro_batches: int, *, means: bool = False) -> Iterator[None]:
        """What balancers learn is that of a step, of which each so many calls in here are one.

        Without it they learn at each call. Values are shares of the step, which add up, as
        :func:`aptt.parallel.count_ahead` gives them; with ``means`` each is the mean of its
        micro-batch, and the totals are divided by ``micro_batches`` for ``backward``.

            with criterion.accumulating(len(micro_batches)):
                for batch in micro_batches:
                    criterion(**batch).backward()

        Each rank may have its own number of micro-batches, at least 1. All micro-batches of a step
        have the weights that were learnt before it.

        Raises:
            ValueError: no whole number of at least 1; a step that is not whole at the end.
        """
        check_whole("micro_batches", micro_batches, 1)
        balances = [m for m in self.modules() if isinstance(m, Balance)]
        for balance in balances:
            balance.accumulates = Accumulated(micro_batches, means)
        left: dict[str, Any] = {}
        try:
            yield
            for balance in balances:
                left |= {} if balance.accumulates is None else balance.accumulates.held
        finally:
            for balance in balances:
                balance.accumulates = None
        if left:
            came = max(count for count, _ in left.values())
            raise ValueError(
                f"micro_batches: the last step had {came}, wanted {micro_batches} calls a step"
            )

    # --------------------------------------------------------------------------- the account

    def log(self, prefix: str = "", *, pool: Pool | None = None) -> dict[str, float]:
        """Numbers for a logger, and a new start for the means. Waits for the device.

        For each term: ``name`` (its mean since the last log, over finite values), ``name/weight``
        and ``name/weighted`` (means as well), ``name/nonfinite`` and ``name/zeros`` (how often so
        far). And ``total``; ``skipped``, how many steps were, with ``on_nonfinite="skip"``. A mean
        of nothing is NaN. ``pool`` adds up the ranks, as
        ``over_ranks`` does; without it the numbers are this rank's.
        """
        read = self._read(fresh=True, pool=pool)
        flat = {}
        for name, term in read["terms"].items():
            flat[f"{prefix}{name}"] = term["value"]
            for key in ("weight", "weighted", "nonfinite", "zeros"):
                flat[f"{prefix}{name}/{key}"] = float(term[key])
        flat[f"{prefix}total"] = read["total"]
        if self.on_nonfinite == "skip":
            flat[f"{prefix}skipped"] = float(self.skips)
        return flat

    def report(self) -> dict[str, dict[str, Any]]:
        """Each term's whole account as plain data; nothing starts anew.

        ``value``, ``weight``, ``weighted``: means since the last log. So far: ``calls``,
        ``nonfinite``, ``first_bad_step`` (training calls, from 0; or None), ``zeros``,
        ``no_gradient`` (calls in which it required none).
        """
        terms: dict[str, dict[str, Any]] = self._read(fresh=False)["terms"]
        return terms

    def _read(self, *, fresh: bool, pool: Pool | None = None) -> dict[str, Any]:
        read = self.record.read(self.weight, fresh=fresh, pool=pool)
        account = read["terms"].items()
        self._say_unheard(n for n, term in account if term["calls"] > term["no_gradient"])
        return read

    # ----------------------------------------------------------------------------- the state

    def _move(self, device: torch.device) -> None:
        self.record.to(device)
        if self.balance is not None:
            self.balance.to(device)
        self.t = self.t.to(device)
        self.weight = self.weight.to(device)
        self._weigh()

    def _apply(self, fn: Any, recurse: bool = True) -> Total:
        super()._apply(fn, recurse)
        if not self.t.is_meta:
            self.t.fill_(self._now)  # ``to_empty`` leaves what it finds
            self._weigh()  # in the weights' own dtype, whatever the model's
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "names"] = encoded(self.names)

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
        parts = {"record": self.record} | (
            {} if self.balance is None else {"balance": self.balance}
        )
        if not match_terms(
            state_dict, prefix, self.names, parts, missing_keys, unexpected_keys, error_msgs
        ):
            return  # with the step that it has
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._now = int(self.t)
        self._weigh()

    def _formula(self) -> str:
        text = " + ".join(f"{_written(weight)}*{name}" for name, weight in self.weights.items())
        return text if self.balance is None else f"{self.balance!r}[{text}]"


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise ValueError("weights: got no terms, wanted at least one")
    taken = nn.ModuleDict()
    for name in names:
        if not name or name == "total" or any(sign in name for sign in "./\n"):
            raise ValueError(
                f"term {name!r}: wanted a name without dot, slash or line break, other than 'total'"
            )
        if hasattr(taken, name):
            raise ValueError(f"term {name!r}: torch.nn.ModuleDict has a method of that name")


def _nothing_of(at: At | None) -> Tensor | float:
    """0 that depends on ``at``, whatever its values: a sum of none of them."""
    places = [] if at is None else [at] if isinstance(at, Tensor) else list(at)
    return sum((place.reshape(-1)[:0].sum().float() for place in places), start=0.0)


@contextmanager
def as_is(total: Total) -> Iterator[None]:
    """No sum counts, and no balancer learns: neither of ``total`` nor of those among its terms."""
    learning = [m for m in total.modules() if isinstance(m, Total | Balance) and m.training]
    for module in learning:
        module.training = False
    try:
        yield
    finally:
        for module in learning:
            module.training = True


def _written(weight: Weight) -> str:
    if callable(weight):
        return getattr(weight, "__qualname__", None) or repr(weight)
    return repr(float(weight)).removesuffix(".0")
