"""Draw ``docs/boxes.svg``: what each box loss makes of a box that is off, and which way it pulls.

    python docs/draw_boxes.py

Needs ``aptt[recipes]``, for matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from aptt.loss import (
    box_iou_loss,
    ciou_loss,
    diou_loss,
    eiou_loss,
    giou_loss,
    probiou_loss,
    siou_loss,
)

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "IoU": box_iou_loss,
    "GIoU": giou_loss,
    "DIoU": diou_loss,
    "CIoU": ciou_loss,
    "EIoU": eiou_loss,
    "SIoU": siou_loss,
    "ProbIoU": probiou_loss,
}
COLOURS = ("#7a7a7a", "#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7")


def shifted(amount: Tensor) -> Tensor:
    """Boxes like the target, so many of its sides to the right of it."""
    zero, one = torch.zeros_like(amount), torch.ones_like(amount)
    return torch.stack((amount, zero, one, one), 1)


def scaled(amount: Tensor) -> Tensor:
    """Boxes around the target's centre, with sides of two to so many times the target's."""
    size, zero = 2**amount, torch.zeros_like(amount)
    return torch.stack((zero, zero, size, size), 1)


def stretched(amount: Tensor) -> Tensor:
    """Boxes of the target's area and centre, two to so many times as wide as high."""
    zero = torch.zeros_like(amount)
    return torch.stack((zero, zero, 2 ** (amount / 2), 2 ** (-amount / 2)), 1)


OFF = {
    "shift, in sides of the target": (shifted, (-3.0, 3.0), None),
    "scale: the sides are ... times the target's": (scaled, (-3.0, 3.0), 2),
    "aspect: width over height, at the same area": (stretched, (-6.0, 6.0), 2),
}


def curve(
    loss: Callable[..., Tensor], make: Callable[[Tensor], Tensor], amount: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss, and its slope along ``amount``, against the unit square around 0."""
    amount = amount.clone().requires_grad_()
    pred = make(amount)
    target = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=pred.dtype).expand_as(pred)
    if loss is probiou_loss:
        upright = torch.zeros(len(pred), 1, dtype=pred.dtype)
        pred, target = torch.cat((pred, upright), 1), torch.cat((target, upright), 1)
        value = loss(pred, target, reduction="none")
    else:
        value = loss(pred, target, box_format="cxcywh", reduction="none")
    (slope,) = torch.autograd.grad(value.sum(), amount)
    return value.detach(), slope


def main() -> None:
    """Write the picture beside this file."""
    style = {
        "svg.hashsalt": "aptt",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
    }
    with mpl.rc_context({**style, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 5.6), layout="constrained")
        axes = figure.subplots(2, len(OFF), sharex="col", sharey="row")
        for column, (title, (make, (low, high), base)) in enumerate(OFF.items()):
            # an even number of points: the very corner at 0 is left out
            amount = torch.linspace(low, high, 160, dtype=torch.float64)
            across = amount if base is None else base**amount
            for nth, (name, loss) in enumerate(LOSSES.items()):
                width = 5.2 - 0.68 * nth  # where lines coincide, the later run inside the earlier
                for axis, line in zip(axes[:, column], curve(loss, make, amount), strict=True):
                    axis.plot(across, line, color=COLOURS[nth], label=name, linewidth=width)
            for axis in axes[:, column]:
                axis.grid(linewidth=0.3)
                axis.axhline(0, color="black", linewidth=0.5)
                if base is not None:
                    axis.set_xscale("log", base=base)
                    ticks = [base**k for k in range(math.ceil(low), math.floor(high) + 1, 2)]
                    axis.set_xticks(ticks, [f"{t:g}" if t >= 1 else f"1/{1 / t:g}" for t in ticks])
            axes[1, column].set_xlabel(title)
        axes[0, 0].set_ylabel("loss")
        axes[1, 0].set_ylabel("its slope along the axis")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=7)
        figure.savefig(
            Path(__file__).with_name("boxes.svg"), metadata={"Date": None}, facecolor="white"
        )


if __name__ == "__main__":
    main()
