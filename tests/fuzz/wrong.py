"""Calls made wrong in one argument, which the error is to name."""

from __future__ import annotations

import inspect
import typing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aptt.core.checks import Numbers
from tests.fuzz.check import function
from tests.fuzz.draw import Call, Draw, Loss

__all__ = ["spoiled"]


RIGHT = {
    ("detection_loss", "target_labels"),
    ("detection_terms", "target_labels"),
    ("expected_value", "logits"),
    ("focal_loss", "logits"),
    ("kto_loss", "mismatched"),
    ("kto_terms", "mismatched"),
    ("permutation_invariant_loss", "lengths"),
    ("policy_loss", "advantage"),
    ("policy_terms", "advantage"),
    ("quantile_loss", "weight"),
    ("wasserstein_dice_loss", "target"),
}
"""Whose further axis makes another call that is right: of classes, quantiles, tokens, sources."""
_MASKS = (
    "boundary",
    "cl_dice",
    "dice",
    "dice_ce",
    "dice_focal",
    "focal_tversky",
    "generalized_dice",
)
_MASKS += ("hausdorff", "lovasz", "mask_iou", "mcc", "tversky")
RIGHT |= {(f"{name}_{form}", "weight") for name in _MASKS for form in ("loss", "terms")}  # by class


def spoiled(d: Draw, call: Call, loss: Loss) -> Call:
    """The call with one argument out of place."""
    faults: list[tuple[str, Any, Any]] = []
    hints = typing.get_type_hints(function(call.name))
    several = sum(isinstance(value, Tensor) and value.ndim > 0 for value in call.args.values()) > 1
    for name, value in call.args.items():
        if isinstance(value, Tensor) and value.ndim and several and (call.name, name) not in RIGHT:
            faults.append((name, value.unsqueeze(-1).repeat(*[1] * value.ndim, 3), None))
        if isinstance(value, Tensor):
            faults.append((name, value.to(torch.complex64), TypeError))
            faults.append((name, "nonsense", (TypeError, ValueError)))
    if isinstance(call.args.get(call.grads[0]), Tensor) and hints[call.grads[0]] != Numbers:
        faults.append((call.grads[0], call.args[call.grads[0]].long(), TypeError))
    for name, arg in inspect.signature(function(call.name)).parameters.items():
        if "Literal" in str(hints[name]) or name == "reduction":
            faults.append((name, "nonsense", (TypeError, ValueError)))
        if hints[name] is bool:
            faults += [(name, value, TypeError) for value in ("nonsense", 1, None)]
        if arg.default is not arg.empty and hints[name] is float:
            faults += [(name, value, (TypeError, ValueError)) for value in ("nonsense", True)]
    faults += [(name, value, ValueError) for name, values in loss.wrong.items() for value in values]
    if not faults:
        return call
    name, value, kinds = d.pick("fault", faults)
    wrong = (name, kinds or (TypeError, ValueError), kinds is None)
    # a value that is out of range is seen on the CPU, as it comes
    way = call.engine if call.engine == "plain" else "auto"
    return replace(call, args=call.args | {name: value}, wrong=wrong, engine=way)
