"""``python -m benchmarks.accelerator [NAME ...] [--write]``: what a GPU would be asked to do.

Kernels and bytes of forward and backward, the bytes in predictions, on a pretended accelerator
(:mod:`aptt.audit.pretend`), beside those of plain torch; and how often the host waits. ``--write``
writes the budget, ``accelerator.json``, which the tests hold every loss to: ``"calls"`` are those
below, ``"rows"`` every row of the audit in the dearest of its cases, at a few samples. With names,
``--write`` counts those calls and rows alone and leaves the others as they are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

import aptt.loss
from aptt.audit import SPECS, Spec
from aptt.audit.pretend import Bill, actual, counting, gradient, register
from aptt.audit.promises.running import charged
from aptt.audit.ways import whole
from aptt.core.linear import products
from benchmarks.cases import audio, boxes, dense, focal, overlap, points, regions, rmse

__all__ = ["BUDGET", "CALLS", "Call", "asked", "main", "of_row"]

BUDGET = Path(__file__).with_suffix(".json")

Made = tuple[Tensor, ...]


class Call(NamedTuple):
    """A call at a size at which the bytes of single rows no longer count."""

    name: str
    ours: Callable[..., Tensor]
    plain: Callable[..., Tensor] | None
    inputs: Callable[[], Made]
    """The prediction, then what the loss takes with it."""


def _logits(dtype: torch.dtype = torch.float32) -> Made:
    return torch.randn(1024, 2048).to(dtype), torch.randint(2048, (1024,))


def _answers() -> Made:
    return torch.randn(20_000, 80), (torch.rand(20_000, 80) < 0.02).float()


def _scores() -> Made:
    x, y = _answers()
    return x, y * torch.rand_like(y)


def _boxes() -> Made:
    centre, side = 600 * torch.rand(300_000, 2), 8 + 90 * torch.rand(300_000, 2)
    target = torch.cat((centre - side / 2, centre + side / 2), 1)
    return target + 3 * torch.randn(300_000, 4), target


def _masks() -> Made:
    return torch.randn(2, 21, 192, 192), torch.randint(21, (2, 192, 192))


def _maps() -> Made:
    target = torch.rand(2, 80, 96, 96) ** 4
    target[:, :, 5, 5] = 1
    return torch.randn(2, 80, 96, 96), target


def _waves(length: int = 72_000) -> Made:
    return torch.randn(16, length), torch.randn(16, length)


def _head(dtype: torch.dtype = torch.float32) -> Made:
    hidden, weight = torch.randn(1024, 128), torch.randn(4096, 128)
    return hidden.to(dtype), weight.to(dtype), torch.randint(4096, (1024,))


def _trained(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The loss of a head whose weight is learned too."""
    return lambda hidden, weight, target: loss(hidden, weight.requires_grad_(), target)


def _in_float32(x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(x.float(), y)


def _whole(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), target)


def _divergence(x: Tensor, teacher: Tensor) -> Tensor:
    p, q = F.log_softmax(x / 4, -1), F.softmax(teacher / 4, -1)
    return F.kl_div(p, q, reduction="batchmean") * 16


_SMOOTHED = {"label_smoothing": 0.1}
_BF16 = torch.bfloat16

CALLS = (
    Call("cross_entropy", aptt.loss.cross_entropy, F.cross_entropy, _logits),
    Call(
        "cross_entropy, smoothed",
        partial(aptt.loss.cross_entropy, **_SMOOTHED),
        partial(F.cross_entropy, **_SMOOTHED),
        _logits,
    ),
    Call("cross_entropy, bf16", aptt.loss.cross_entropy, _in_float32, partial(_logits, _BF16)),
    Call(
        "binary_cross_entropy",
        aptt.loss.binary_cross_entropy,
        F.binary_cross_entropy_with_logits,
        _answers,
    ),
    Call("focal", aptt.loss.focal_loss, focal.plain, _answers),
    Call("varifocal", aptt.loss.varifocal_loss, dense.plain_varifocal, _scores),
    Call("quality_focal", aptt.loss.quality_focal_loss, dense.plain_quality, _scores),
    Call(
        "distillation",
        partial(aptt.loss.distillation_loss, alpha=1.0),
        _divergence,
        lambda: (torch.randn(1024, 2048), torch.randn(1024, 2048)),
    ),
    Call("giou", aptt.loss.giou_loss, boxes.plain_giou, _boxes),
    Call("ciou", aptt.loss.ciou_loss, boxes.plain_ciou, _boxes),
    Call(
        "dfl",
        aptt.loss.distribution_focal_loss,
        dense.plain_distribution,
        lambda: (torch.randn(20_000, 4, 16), 14.9 * torch.rand(20_000, 4)),
    ),
    Call("dice", aptt.loss.dice_loss, partial(overlap.plain, alpha=0.5, beta=0.5), _masks),
    Call("dice_ce", aptt.loss.dice_ce_loss, regions.plain_dice_ce, _masks),
    Call("lovasz", aptt.loss.lovasz_loss, regions.plain_lovasz, _masks),
    Call("heatmap_focal", partial(aptt.loss.heatmap_loss, kind="focal"), points.plain, _maps),
    Call("snr", aptt.loss.snr_loss, partial(audio.plain, kind="snr"), _waves),
    Call("si_sdr", aptt.loss.si_sdr_loss, partial(audio.plain, kind="sisdr"), _waves),
    Call("rmse", aptt.loss.rmse_loss, rmse.plain, _waves),
    Call("linear_cross_entropy, frozen", aptt.loss.linear_cross_entropy, _whole, _head),
    Call(
        "linear_cross_entropy, trained",
        _trained(aptt.loss.linear_cross_entropy),
        _trained(_whole),
        _head,
    ),
    Call(
        "linear_cross_entropy, frozen, bf16",
        aptt.loss.linear_cross_entropy,
        _whole,
        partial(_head, _BF16),
    ),
    Call(
        "linear_cross_entropy, trained, bf16",
        _trained(aptt.loss.linear_cross_entropy),
        _trained(_whole),
        partial(_head, _BF16),
    ),
    Call(
        "multi_resolution_stft",
        aptt.loss.multi_resolution_stft_loss,
        audio.plain_stft,
        partial(_waves, 16_000),
    ),
)


class Asked(NamedTuple):
    """What a call asks for; its value and gradients, on the CPU."""

    kernels: int
    predictions: float
    """Bytes read and written, in predictions."""
    waits: list[str]
    value: Tensor
    gradients: list[Tensor]


_OPERATORS = torch.library.Library("aptt_benchmarks", "DEF")
_OPERATORS.define("mm_in_float32(Tensor a, Tensor b, *, Tensor(a!) out) -> Tensor(a!)")
_OPERATORS.impl("mm_in_float32", lambda a, b, *, out: out.copy_(a.float() @ b.float()), "CPU")


def _as_on_cuda(a: Tensor, b: Tensor, out: Tensor) -> None:
    """``torch.mm(a, b, out_dtype=torch.float32, out=out)``, which the CPU lacks, as one kernel."""
    torch.ops.aptt_benchmarks.mm_in_float32(a, b, out=out)


def asked(loss: Callable[..., Tensor], inputs: Made, device: str | torch.device) -> Asked:
    """Forward and backward of one call on a device; nothing is counted on the CPU."""
    x, *others = (t.to(device) for t in inputs)
    x.requires_grad_()
    seam = patch.object(
        products, "product_in_float32", lambda d: None if d.type == "cpu" else _as_on_cuda
    )
    with seam, counting() as bill:
        value = loss(x, *others)
        learned = [t for t in (x, *others) if t.requires_grad]
        slopes = gradient(value, *learned)
    size = inputs[0].numel() * inputs[0].element_size()
    return Asked(
        bill.kernels,
        round(bill.moved / size, 1),
        bill.waits,
        actual(value.detach()),
        [actual(t) for t in slopes],
    )


def of_row(spec: Spec) -> dict[str, tuple[Bill, float]]:
    """What each case of a row asks for, and its bytes in predictions, at a few samples."""
    found = {}
    for trial in spec.trials(register()):
        inputs = trial.inputs(dtype=torch.float32)
        with whole():
            bill = charged(trial, inputs)[2]
        x = inputs[trial.prediction(inputs)]
        found[trial.label] = bill, bill.moved / (x.numel() * x.element_size())
    return found


def main() -> None:
    """Print the table, and write the budget if told to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="calls and rows to count (default: all)"
    )
    parser.add_argument("--write", action="store_true", help=f"write {BUDGET.name}")
    given = parser.parse_args()
    register()
    print("| | kernels | bytes, in predictions | waits | plain torch: kernels | bytes |")
    print("| --- | --- | --- | --- | --- | --- |")
    calls = {}
    for call in CALLS:
        if not given.names or call.name in given.names:
            torch.manual_seed(0)
            inputs = call.inputs()
            ours = asked(call.ours, inputs, register())
            calls[call.name] = ours.kernels, ours.predictions
            plain = "| |"
            if call.plain is not None:
                other = asked(call.plain, inputs, register())
                plain = f"| {other.kernels} | {other.predictions} |"
            waits = ", ".join(sorted(set(ours.waits))) or "0"
            print(
                f"| {call.name} | {ours.kernels} | {ours.predictions} | {waits} {plain}", flush=True
            )
    if given.write:
        rows = {}
        for spec in SPECS.values():
            if not given.names or spec.name in given.names:
                bills = of_row(spec).values()
                rows[spec.name] = (
                    max(bill.kernels for bill, _ in bills),
                    round(max(predictions for _, predictions in bills), 1),
                )
        _write(calls, rows)


def _write(calls: dict[str, Any], rows: dict[str, Any]) -> None:
    """As JSON, with a line for each loss; what was not counted keeps its figures."""
    before = json.loads(BUDGET.read_text(encoding="utf-8"))
    parts = []
    for part, counted, names in (
        ("calls", calls, [call.name for call in CALLS]),
        ("rows", rows, list(SPECS)),
    ):
        entries = before[part] | counted
        lines = [f"  {json.dumps(k)}: {json.dumps(list(entries[k]))}" for k in names]
        parts.append(f" {json.dumps(part)}: {{\n" + ",\n".join(lines) + "\n }")
    BUDGET.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
