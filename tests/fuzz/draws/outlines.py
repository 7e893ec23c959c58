"""Outlines of masks."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch

from tests.fuzz.check import computed
from tests.fuzz.draw import Call, Draw, Loss
from tests.fuzz.draws.classes import NAN, of_logits
from tests.fuzz.draws.regions import masks
from tests.fuzz.oracles import outlines as oracle
from tests.fuzz.oracles.regions import pixels

__all__ = ["LOSSES"]


def _draw(name: str) -> Any:
    def draw(d: Draw) -> Call:
        args = masks(d, hard=True, smooth=False, pools=False, axes=(1, 2))
        args.pop("pool")
        x = args["logits"]
        axes = x.ndim - (2 if args["mode"] != "binary" or x.shape[1:2] == (1,) else 1)
        args["cap"] = d.pick("cap", (None, 1.5, 0.3))
        kind = d.pick("spacing", ("none", "one", "axes", "samples", "map"))
        if kind == "one":
            args["spacing"] = 2.0
        if kind == "axes":
            args["spacing"] = (3.0, 0.7)[:axes]
        if kind == "samples":
            args["spacing"] = d.among("spacing", (len(x), axes), (1.0, 0.25, 3.0))
        if kind == "map":
            args["distance_map"] = d.tensor("map", d.numbers("map", x.shape, top=8.0))
        if name == "boundary_loss":
            args["rim"] = d.pick("rim", ("zero", "centre"))
        else:
            args["distance_power"] = d.pick("distance_power", (2.0, 1.0, 1.5))
            args["one_sided"] = d.pick("one_sided", (True, True, False)) or _on_the_edge(args)
        return d.call(name, args, "logits", sides=("class_weight", "weight"))

    return draw


def _on_the_edge(args: dict[str, Any]) -> bool:
    """A probability of 1/2 may be rounded to either side, and moves a boundary."""
    x = args["logits"].double()
    p = x.softmax(1) if args["mode"] == "multiclass" else x.sigmoid()
    return bool(((p - 0.5).abs() < 1e-3).any())


def _tubes(name: str) -> Any:
    def draw(d: Draw) -> Call:
        args = masks(d, hard=True, smooth=False, axes=(1, 2))
        # a probability that float32 does not hold in full has no skeleton
        args["logits"] = torch.where(args["logits"] < -80, -80.0, args["logits"])
        args["iterations"] = d.pick("iterations", (1, 0, 3))
        args["border"] = d.pick("border", ("open", "background"))
        shape = args["logits"].shape
        args["skeleton"] = d.maybe(
            "skeleton", lambda: d.tensor("skeleton", d.mask("skeleton", shape, 0.3).double())
        )
        return d.call(name, args, "logits", sides=("class_weight", "weight"))

    return draw


def _tied(call: Call) -> bool:
    """Cells that are equal, but for rounding, share a gradient in one order or another."""
    given = {"class_weight": None, "weight": None, "ignore_index": "auto"} | call.args
    p = pixels(SimpleNamespace(**given)).yes.detach()
    return any(bool((v.sort().values.diff() < 1e-6).any()) for v in p.flatten(0, 1))


def _in_digits(call: Call) -> tuple[float, float]:
    """A skeleton is a difference of probabilities: its gradient has their rounding."""
    return 0.0, 64 * torch.finfo(computed(call)).eps


def _of_softmax(call: Call) -> Mapping[str, float]:
    return of_logits(call) if call.args.get("mode", "multiclass") == "multiclass" else {}


LOSSES = {
    name: Loss(
        _tubes(name),
        getattr(oracle, name),
        rows=1,
        several=_tied,
        kinked=True,
        rounded=of_logits,
        limit=_in_digits,
    )
    for name in ("cl_dice_loss", "cl_dice_terms")
} | {
    name: Loss(
        _draw(name),
        getattr(oracle, name),
        rows=1,
        rounded=_of_softmax,
        wrong={"cap": (0.0, NAN), **wrong},
    )
    for name, wrong in (
        ("boundary_loss", {}),
        ("hausdorff_loss", {"distance_power": (0.0, NAN)}),
    )
}
