"""Draw ``docs/boxes.svg``: what each box loss makes of a box that is off, and which way it pulls.

    python docs/draw_boxes.py

Needs ``aptt[recipes]``, for matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.axes import Axes
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
from aptt.report.drawing import DARK, PALETTE, Draw, svg

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "IoU": box_iou_loss,
    "GIoU": giou_loss,
    "DIoU": diou_loss,
    "CIoU": ciou_loss,
    "EIoU": eiou_loss,
    "SIoU": siou_loss,
    "ProbIoU": probiou_loss,
}


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


def panels(*, alone: bool = False) -> dict[str, tuple[Draw, Draw]]:
    """For each way to be off, what draws the loss and what draws its slope.

    ``alone``: with a key and the name of the axis, which a page says in its own words.
    """
    made = {}
    for nth, (title, (make, ends, base)) in enumerate(OFF.items()):
        low, high = ends
        # an even number of points: the very corner at 0 is left out
        amount = torch.linspace(low, high, 160, dtype=torch.float64)
        across = amount if base is None else base**amount
        lines = {name: curve(loss, make, amount) for name, loss in LOSSES.items()}

        def panel(
            which: int,
            across: Tensor = across,
            lines: dict[str, tuple[Tensor, Tensor]] = lines,
            ticks: range = range(math.ceil(low), math.floor(high) + 1, 2),
            base: int | None = base,
            title: str = title,
            keyed: bool = alone and nth == 0,
        ) -> Draw:
            def draw(axes: Axes) -> None:
                for index, (name, both) in enumerate(lines.items()):
                    width = 4.6 - 0.55 * index  # where lines coincide, the later inside the earlier
                    axes.plot(across, both[which], color=f"C{index}", label=name, linewidth=width)
                axes.grid(linewidth=0.3)
                axes.axhline(0, color=axes.xaxis.label.get_color(), linewidth=0.5)
                if base is not None:
                    axes.set_xscale("log", base=base)
                    places = [base**k for k in ticks]
                    names = [f"{t:g}" if t >= 1 else f"1/{1 / t:g}" for t in places]
                    axes.set_xticks(places, names)
                axes.set_ylabel("its slope along the axis" if which else "loss")
                if alone and which:
                    axes.set_xlabel(title)
                figure = axes.get_figure(root=True)
                if keyed and which == 0 and figure is not None:
                    handles = axes.get_legend_handles_labels()
                    figure.legend(
                        *handles, loc="outside upper center", ncols=len(lines), frameon=False
                    )

            return draw

        made[title] = (panel(0), panel(1))
    return made


def main() -> None:
    """Write the picture beside this file; it is light or dark as the screen that shows it."""
    columns = list(panels(alone=True).values())
    text = svg([draw for row in zip(*columns, strict=True) for draw in row], (10, 5.6), rows=2)
    light, dark = (
        "".join(f"--{name}: {colour}; " for name, colour in colours.items())
        for colours in (PALETTE, DARK)
    )
    style = (
        f"<style>svg {{ {light}background: #ffffff }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {dark}background: #16181c }} }}</style>"
    )
    head, tag, rest = text.partition(">")
    Path(__file__).with_name("boxes.svg").write_text(f"{head}{tag}\n{style}{rest}", "utf-8")


if __name__ == "__main__":
    main()
