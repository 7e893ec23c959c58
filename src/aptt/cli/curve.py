"""The curve of a loss by name, and the rows that the audit has of it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from aptt.audit import SPECS, Spec
from aptt.cli.catalogue import Entry
from aptt.report.probing import probe_of
from aptt.report.variables import Probe

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

    # a module alone has no options by keyword, and a helper returns no loss to draw
    if not entry.function or not (rows_of(entry) or entry.function.endswith("_loss")):
        return None
    function: Callable[..., Tensor] = getattr(aptt.loss, entry.name)
    probe = probe_of(function)
    return None if probe is None else (function, probe)
