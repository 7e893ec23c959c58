"""A combined loss from plain data, such as a YAML file holds.

    terms:
      cls: {loss: {use: FocalLoss, gamma: 2.0}, inputs: [pred_cls, target_cls]}
      box: {loss: GIoULoss, weight: {use: Ramp, start: 0.5, stop: 5.0, over: 10},
            inputs: [pred_box, target_box]}
    balance: Uncertainty

Whatever is made is named by ``use``, with its options beside it; a name alone has none. Only names
that the caller offers can be used, so no file makes anything else run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from aptt.compose.combined import CombinedLoss
from aptt.compose.dwa import DWA
from aptt.compose.grad_share import GradShare
from aptt.compose.gradnorm import GradNorm
from aptt.compose.names import check_known, check_mapping, unknown
from aptt.compose.schedule import Cosine, Piecewise, Ramp, Steps
from aptt.compose.uncertainty import Uncertainty

__all__ = ["build"]

Offer = ModuleType | Mapping[str, Callable[..., Any]]
"""Where names are looked up: a module's public losses, or makers by name."""

_SCHEDULES: dict[str, Callable[..., Any]] = {
    c.__name__: c for c in (Ramp, Cosine, Steps, Piecewise)
}
_BALANCERS: dict[str, Callable[..., Any]] = {
    c.__name__: c for c in (Uncertainty, GradShare, GradNorm, DWA)
}


def build(config: Mapping[str, Any], losses: Offer | Sequence[Offer]) -> CombinedLoss:
    """Make a :class:`CombinedLoss` from plain data.

    Args:
        config: ``terms``, and if wanted ``balance``, ``on_nonfinite`` and ``dump_to``. A term has
            ``loss``, and if wanted ``weight`` and ``inputs``. A loss, a weight that changes and a
            balancer are ``{"use": NAME, option: value, ...}`` or a name alone.
        losses: where the names of losses come from: ``aptt.loss``, ``torch.nn``, a module of your
            own, a mapping of names, or several of them, the first that has a name wins. A module
            offers its modules (``torch.nn.Module``) alone.

    Returns:
        The loss; :meth:`CombinedLoss.config` gives its data back.

    Raises:
        ValueError: an unknown key, name or option, with the one probably meant.

    Example:
        >>> import torch
        >>> weight = {"use": "Ramp", "start": 0.0, "stop": 0.5, "over": 10}
        >>> terms = {"ce": {"loss": "CrossEntropyLoss"}, "margin": {"loss": "multi_margin",
        ...          "weight": weight}}
        >>> build({"terms": terms}, torch.nn)
        CombinedLoss(
          total = 1*ce + Ramp(start=0.0, stop=0.5, over=10, begin=0)*margin
          ce = CrossEntropyLoss()(...)
          margin = MultiMarginLoss()(...)
        )
    """
    known = ("terms", "balance", "on_nonfinite", "dump_to")
    check_known("key", check_mapping("config", config), known)
    if "terms" not in config:
        raise ValueError("config: no 'terms'")
    offered = _offered(losses)
    terms, weights, inputs = {}, {}, {}
    for name, entry in check_mapping("terms", config["terms"]).items():
        where = f"term {name!r}: "
        check_known(
            f"{where}key", check_mapping(f"term {name!r}", entry), ("loss", "weight", "inputs")
        )
        if "loss" not in entry:
            raise ValueError(f"{where}no 'loss'")
        terms[name] = _make(f"{where}loss", entry["loss"], offered)
        weight = entry.get("weight", 1.0)
        if isinstance(weight, str | Mapping):
            weight = _make(f"{where}weight", weight, _SCHEDULES)
        weights[name] = weight
        if "inputs" in entry:
            inputs[name] = entry["inputs"]
    options = {key: config[key] for key in ("on_nonfinite", "dump_to") if key in config}
    balance = config.get("balance")
    if balance is not None:
        balance = _make("balance", balance, _BALANCERS)
    return CombinedLoss(terms, weights, inputs or None, balance=balance, **options)


def _make(where: str, entry: Any, makers: Mapping[str, Callable[..., Any]]) -> Any:
    if isinstance(entry, str):
        entry = {"use": entry}
    options = dict(check_mapping(where, entry))
    if "use" not in options:
        hint = " (that is Hydra's key; here it is 'use')" if "_target_" in options else ""
        raise ValueError(f"{where}: no 'use' among {', '.join(options) or 'nothing'}{hint}")
    used = str(options.pop("use"))
    maker = makers.get(used) or _by_short_name(makers).get(_short(used))
    if maker is None:
        raise unknown(where, used, makers)
    takes = inspect.signature(maker).parameters.values()
    if all(p.kind is not p.VAR_KEYWORD for p in takes):
        known = [p.name for p in takes if p.kind is not p.VAR_POSITIONAL]
        check_known(f"{where}: option", options, known)
    return maker(**options)


def _by_short_name(makers: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Classes by their own names, which a loss writes down, and all by those that they go by."""
    own = {_short(made.__name__): made for made in makers.values() if isinstance(made, type)}
    return {**own, **{_short(name): made for name, made in makers.items()}}


def _short(name: str) -> str:
    """``MultiMarginLoss`` may be called ``multi_margin``, ``GIoULoss`` ``giou``."""
    return name.removesuffix("Loss").replace("_", "").lower()


def _offered(losses: Offer | Sequence[Offer]) -> dict[str, Callable[..., Any]]:
    several = [losses] if isinstance(losses, ModuleType | Mapping) else list(losses)
    offered: dict[str, Callable[..., Any]] = {}
    for offer in reversed(several):
        if isinstance(offer, Mapping):
            offered.update(offer)
            continue
        public = getattr(offer, "__all__", None) or [n for n in vars(offer) if n[0] != "_"]
        made = {name: getattr(offer, name) for name in public}
        offered.update(
            (n, m) for n, m in made.items() if isinstance(m, type) and issubclass(m, nn.Module)
        )
    return offered
