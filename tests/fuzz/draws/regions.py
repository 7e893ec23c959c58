"""Overlap of masks."""

from __future__ import annotations

from inspect import signature
from types import SimpleNamespace
from typing import Any

import torch

from aptt.loss import lovasz_loss
from tests.fuzz.draw import FLOATS, Call, Draw, Loss, pooled
from tests.fuzz.draws.classes import NAN, indices, of_logits, poisoned, soft
from tests.fuzz.oracles import regions as oracle

__all__ = ["LOSSES", "masks"]

SKIP = ("skip", "zero", "penalize")


def masks(
    d: Draw,
    *,
    hard: bool = False,
    none: bool = True,
    smooth: bool = True,
    pools: bool = True,
    axes: tuple[int, ...] = (1, 2, 0),
    modes: tuple[str, ...] = ("multiclass", "multilabel", "binary"),
) -> dict[str, Any]:
    """The arguments that every region loss has."""
    mode = d.pick("mode", modes)
    classes = 1 if mode == "binary" else d.size("classes", low=1 + (mode == "multiclass"), high=17)
    samples = d.size("samples", high=3)
    size = tuple(d.size(f"size {i}", high=17) for i in range(d.pick("axes", axes)))
    shape = (samples, classes, *size)
    ignored = d.pick("ignore_index", ("auto", None, 0, 1, 255))
    is_soft = not hard and d.pick("soft", (False, True))
    margin = d.pick("logits margin", (8.0, 0.0, 1.0, 20.0, 60.0))
    if mode == "multiclass":
        if is_soft:
            ignored = "auto" if ignored == "auto" else None
            target = d.tensor("target", soft(d, shape, 1))
            keep = torch.ones(shape, dtype=torch.bool)
            one = target.double()
        else:
            removed = -100 if ignored == "auto" else ignored
            target = indices(d, (samples, *size), classes, removed)
            keep = torch.ones_like(target, dtype=torch.bool)
            keep = (keep if removed is None else target != removed).unsqueeze(1).expand(shape)
            y = torch.where(keep[:, 0], target.long(), 0)
            one = torch.nn.functional.one_hot(y, classes).movedim(-1, 1).double()
        sure = margin * one
    else:
        one = d.shares("target", shape) if is_soft else d.mask("target", shape, 0.5).double()
        kinds = FLOATS if is_soft else (*FLOATS, torch.int64, torch.bool, torch.uint8)
        target = one.to(d.dtype("target", kinds))
        sure = margin * (2 * one - 1)
        if ignored == 255 and target.dtype != torch.bool:
            target = torch.where(d.mask("ignored", shape, 0.3), 255, target).to(target.dtype)
        keep = torch.ones(shape, dtype=torch.bool)
        keep = keep if ignored in (None, "auto") else target != ignored
    of_classes = mode == "multilabel" and d.chance("weight of classes", 2)
    weighed = (samples, *size)
    if of_classes:
        weighed = (
            samples,
            classes,
            *(1 if d.chance(f"flat {i}", 4) else n for i, n in enumerate(size)),
        )
    weight = d.maybe("weight", lambda: d.weights("weight", weighed))
    if weight is not None:
        if mode == "multiclass":
            weight = poisoned(d, weight, keep[:, 0], "weight")
        keep = keep & (weight if of_classes else weight.unsqueeze(1)).ne(0).expand(shape)
    x = d.numbers("logits", shape) if not margin else sure + d.normal("logits", shape, 0.3)
    # of a softmax a pixel is ignored as a whole
    x = poisoned(d, x, keep)
    if target.is_floating_point() and ignored in (None, "auto"):
        target = poisoned(d, target, keep, "target")
    # (N, 1) would be a channel again
    squeezed = mode == "binary" and size[:1] != (1,) and d.chance("channel left out", 2)
    if squeezed:
        x, target = x[:, 0], target[:, 0]
    elif mode == "binary" and d.chance("target without channel", 2):
        target = target[:, 0]
    least = d.pick("smooth", (0.0, 1.0, 1e-5)) if smooth else 0.0
    args = dict(
        logits=d.tensor("logits", x),
        target=d.laid("target", target),
        mode=mode,
        class_weight=d.maybe(
            "class_weight",
            lambda: d.tensor("class_weight", d.weights("class_weight", (classes,)), FLOATS[0]),
        ),
        weight=None if weight is None else d.tensor("weight", weight),
        ignore_index=ignored,
        background=mode != "multiclass" or d.pick("background", (True, False)),
        absent=d.pick("absent", (*SKIP, "smooth") if least else SKIP),
        pool=d.pick("pool", ("batch", "sample", pooled) if pools else ("batch", "sample")),
        reduction=d.reduction(none=none),
    )
    return args | (dict(smooth=least) if smooth else {})


def _draw(name: str, *, hard: bool = False, learns: bool = True, **kinds: Any) -> Any:
    def draw(d: Draw) -> Call:
        args = masks(d, hard=hard, **kinds)
        if name in ("dice_loss", "mask_iou_loss", "tversky_loss"):
            args["log"] = d.pick("log", (False, True))
        if name == "dice_loss":
            args["squared"] = d.pick("squared", (False, True)) and not args["log"]
        if "tversky" in name:
            args |= dict(alpha=d.pick("alpha", (0.5, 0.0, 0.3)), beta=d.pick("beta", (0.5, 0.7)))
        if name == "focal_tversky_loss":
            args["gamma"] = d.pick("gamma", (0.75, 1.0, 1.5))
        if name == "generalized_dice_loss":
            args["weighting"] = d.pick("weighting", ("square", "linear", "uniform"))
        if name.startswith(("dice_ce", "dice_focal")) and not args["smooth"]:
            args["weighting"] = d.pick("weighting", (None, "square", "linear", "uniform"))
        if name.startswith("dice_focal"):
            args["gamma"] = d.pick("gamma", (2.0, 0.5, 1.0))
        if name in ("dice_ce_loss", "dice_focal_loss"):
            second = "ce_weight" if "ce" in name.split("_") else "focal_weight"
            args |= {
                "dice_weight": d.pick("dice_weight", (1.0, 0.0, 0.3)),
                second: d.pick(second, (1.0, 0.0, 2.0)),
            }
        if name == "wasserstein_dice_loss":
            for key in ("mode", "class_weight", "background"):
                args.pop(key)
            classes = args["logits"].shape[1]
            far = d.among("class_distance", (classes, classes), (1.0, 0.0, 0.5, 0.3))
            far.fill_diagonal_(0.0)
            args["class_distance"] = far if d.chance("class_distance given", 2) else None
        sides = ("class_weight", "weight")
        return d.call(name, args, "logits", sides=sides if learns else ("weight",))

    return draw


def _soft_of_several(call: Call) -> bool:
    """Soft targets of a softmax, which need not add up to 1."""
    return call.args.get("mode", "multiclass") == "multiclass" and (
        call.args["target"].is_floating_point()
    )


def _ties(call: Call) -> bool:
    """Equal errors may be sorted either way."""
    args = {name: arg.default for name, arg in signature(lovasz_loss).parameters.items()}
    pixels = oracle.pixels(SimpleNamespace(**args | call.args))
    for values in pixels.yes.transpose(0, 1).flatten(1).detach():
        if len(values.unique()) < len(values):
            return True
    return False


NEGATIVE = (-1.0, NAN)
PRICES = {"smooth": NEGATIVE}
NONE = PRICES | {"reduction": ("none",)}
LOSSES = {
    name: Loss(
        _draw(name, **kinds),
        getattr(oracle, name),
        rows=1,
        kinked=name == "lovasz_loss",
        several=_ties if name == "lovasz_loss" else None,
        conceded=lambda call: {"target"},
        rounded=of_logits,
        alike=_soft_of_several,
        wrong=wrong,
    )
    for name, kinds, wrong in (
        ("dice_loss", {}, PRICES),
        ("mask_iou_loss", {}, PRICES),
        ("tversky_loss", {}, PRICES | {"alpha": NEGATIVE, "beta": (0.0, NAN)}),
        ("focal_tversky_loss", {}, PRICES | {"gamma": (0.0, NAN)}),
        ("generalized_dice_loss", {"smooth": False}, {}),
        ("mcc_loss", {"smooth": False}, {}),
        ("wasserstein_dice_loss", {"hard": True, "smooth": False, "modes": ("multiclass",)}, {}),
        ("lovasz_loss", {"hard": True, "smooth": False, "pools": False}, {}),
        ("dice_ce_loss", {"none": False}, NONE | {"dice_weight": NEGATIVE}),
        ("dice_ce_terms", {"none": False}, NONE),
        ("dice_focal_loss", {"hard": True, "none": False}, NONE | {"focal_weight": NEGATIVE}),
        ("dice_focal_terms", {"hard": True, "none": False}, NONE | {"gamma": (0.0, NAN)}),
    )
}
