"""The curve of a loss by name: of its family, or else along the inputs of its audit row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aptt.audit import SPECS, Spec, Trial
from aptt.cli.catalogue import Entry
from aptt.report.probing import Probe, probe_of

__all__ = ["curve_of", "rows_of"]


def rows_of(entry: Entry) -> list[Spec]:
    """The audit rows of a loss; none for a helper that is no loss."""
    known = {entry.function, entry.module_form} - {None}
    return [
        spec
        for spec in SPECS.values()
        if {spec.name, spec.function.__name__, getattr(spec.module, "__name__", None)} & known
    ]


def curve_of(entry: Entry) -> tuple[Callable[..., Tensor], Probe] | None:
    """What to call, and along which variable; None for a helper that is no loss."""
    import aptt.loss

    function: Callable[..., Tensor] = getattr(aptt.loss, entry.name)
    rows = rows_of(entry)
    # a module alone has no options by keyword, and a helper returns no loss to draw
    if entry.function and (rows or entry.function.endswith("_loss")):
        probe = probe_of(function)
        if probe is not None:
            return function, probe
    for spec in rows:
        trial = spec.trials()[0]
        return spec.function, _from_row(trial)
    return None


def _from_row(trial: Trial) -> Probe:
    """From a confidently wrong prediction at -1 over any at 0 to the best at 1."""
    inputs, options = trial.inputs(), trial.options()
    name = trial.prediction(inputs)
    usual = inputs[name]
    perfect = trial.case.perfect or trial.spec.perfect
    best = perfect(inputs, options)[0][name] if perfect else usual
    worst = trial.spec.hopeless(inputs, options)[name] if trial.spec.hopeless else 2 * usual - best
    if "logits" in name:  # a perfect logit is far away, where nothing happens any more
        best, worst = best.clamp(-8, 8), worst.clamp(-8, 8)

    def made(x: Tensor) -> dict[str, Tensor]:
        end = best if x >= 0 else worst
        return {**inputs, name: torch.lerp(usual, end.to(usual), x.abs().to(usual))}

    return Probe("prediction: -1 wrong, 0 any, 1 perfect", -1, 1, made, options, points=81)
