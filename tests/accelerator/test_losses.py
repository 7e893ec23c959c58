"""What every loss asks of an accelerator: within its budget, in no order, in no TF32."""

import importlib
import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from aptt.audit import SPECS
from aptt.audit.pretend import DEVICE, counting, gradient, missing, register
from aptt.audit.promises.running import charged
from aptt.audit.ways import whole
from aptt.loss import stft_loss

sys.path.append(str(Path(__file__).parents[2]))  # benchmarks are no part of the package

accelerator = importlib.import_module("benchmarks.accelerator")

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

BUDGET = json.loads(accelerator.BUDGET.read_text(encoding="utf-8"))
ROWS = pytest.mark.parametrize("name", SPECS)

# ------------------------------------------------------------------------------- the budget


def within(kernels, moved, budget, what):
    """At most the budget; and no less than four fifths of it, or it is no bound any more."""
    again = "or `python -m benchmarks.accelerator --write`, if it is meant to be so"
    for unit, got, allowed in (("kernels", kernels, budget[0]), ("predictions", moved, budget[1])):
        assert got <= allowed + 0.06, f"{what}: {got} {unit}, the budget is {allowed}; {again}"
        assert got >= 0.8 * allowed, f"{what}: {got} {unit} of {allowed}: lower the budget; {again}"


@pytest.mark.parametrize("call", accelerator.CALLS, ids=lambda call: call.name)
def test_a_call_stays_within_its_budget_and_gives_what_the_cpu_gives(call):
    torch.manual_seed(0)
    inputs = call.inputs()
    away, here = (accelerator.asked(call.ours, inputs, device) for device in (register(), "cpu"))
    within(away.kernels, away.predictions, BUDGET["calls"][call.name], call.name)
    half = "linear" in call.name and "bf16" in call.name  # the CPU rounds its products
    torch.testing.assert_close(away.value, here.value, rtol=1e-4 if half else 1e-5, atol=0)
    for got, want in zip(away.gradients, here.gradients, strict=True):
        close = 1e-5 if got.dtype == torch.float32 else 2**-8  # rounded once, perhaps elsewhere
        close = 2**-5 if half else close
        assert (got.float() - want.float()).norm() <= close * want.float().norm()


@cache
def bills(name):
    return accelerator.of_row(SPECS[name])


@ROWS
def test_a_row_stays_within_its_budget(name):
    found = bills(name).values()
    kernels, moved = max(b.kernels for b, _ in found), max(size for _, size in found)
    within(kernels, moved, BUDGET["rows"][name], name)


def test_the_budget_is_that_of_all_losses_and_no_other():
    assert list(BUDGET["rows"]) == list(SPECS)
    assert list(BUDGET["calls"]) == [call.name for call in accelerator.CALLS]


@ROWS
def test_half_types_give_what_they_give_on_the_cpu(name):
    for there in SPECS[name].trials(register()):
        here = replace(there, device=torch.device("cpu"))
        with whole():
            away, want = (charged(t, t.inputs(dtype=torch.bfloat16)) for t in (there, here))
        torch.testing.assert_close(away[0], want[0], rtol=1e-5, atol=1e-6)
        off = (away[1].double() - want[1].double()).norm()
        assert off <= 2**-8 * want[1].double().norm(), there.label


@ROWS
def test_what_a_row_says_that_it_asks_for_it_does(name):
    spec = SPECS[name]
    waits = {why for bill, _ in bills(name).values() for why in bill.waits}
    assert set(spec.asks) - {"kernels"} <= waits
    if "kernels" in spec.asks:
        assert any(_grows(trial) for trial in spec.trials(register()))


def _grows(trial):
    kernels = []
    for n in (11, 44):
        with whole():
            kernels.append(charged(trial, trial.inputs(n, dtype=torch.float32))[2].kernels)
    return kernels[1] > kernels[0]


# ------------------------------------------------------------------ the same in any order

ADDS = {"scatter_add", "index_add", "index_put", "_index_put_impl", "scatter_reduce", "put"}

RAISES = {
    *("avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward"),
    *("adaptive_max_pool2d_backward", "fractional_max_pool2d_backward", "max_unpool2d"),
    *("fractional_max_pool3d_backward", "max_unpool3d", "upsample_linear1d_backward"),
    *("upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "_ctc_loss_backward"),
    *("upsample_trilinear3d_backward", "reflection_pad1d_backward", "reflection_pad2d_backward"),
    *("reflection_pad3d_backward", "nll_loss2d_forward", "grid_sampler_2d_backward"),
    *("grid_sampler_3d_backward", "put", "histc", "median", "nanmedian", "kthvalue", "cumsum"),
    *("bincount",),
}
"""What ``use_deterministic_algorithms`` names as raising on CUDA, in what form it may."""

HARMLESS = {
    "median": lambda args, kwargs: len(args) + len(kwargs) == 1,  # without an index
    "nanmedian": lambda args, kwargs: len(args) + len(kwargs) == 1,
    "cumsum": lambda args, kwargs: not args[0].is_floating_point(),
    "bincount": lambda args, kwargs: len(args) < 2 and "weights" not in kwargs,
}


def raising(seen):
    """Note each call of an operator that would raise."""

    def look(name, args, kwargs):
        plain = name.removesuffix("_")
        if plain in RAISES and not (plain in HARMLESS and HARMLESS[plain](args, kwargs)):
            seen.add(plain)
        return args, kwargs

    return look


def shuffled(seed):
    """Have whatever adds at indices draw a new order."""
    g = torch.Generator().manual_seed(seed)

    def draw(name, args, kwargs):
        plain = name.removesuffix("_")
        if plain in ("scatter_add", "scatter_reduce", "index_add") and args[2].ndim:
            into, dim, index, source, *rest = args
            along = 0 if plain == "index_add" else dim
            order = torch.randperm(index.shape[along], generator=g)
            index, source = index.index_select(along, order), source.index_select(dim, order)
            return (into, dim, index, source, *rest), kwargs
        accumulates = kwargs.get("accumulate", args[3] if len(args) > 3 else False)
        if plain in ("index_put", "_index_put_impl") and accumulates:
            into, indices, values, *rest = args
            if all(i is not None and i.dtype != torch.bool for i in indices):
                wide = torch.broadcast_tensors(*indices)
                order = torch.randperm(wide[0].numel(), generator=g)
                tail = into.shape[len(indices) :]
                values = values.expand(*wide[0].shape, *tail).reshape(-1, *tail)[order]
                return (into, [i.reshape(-1)[order] for i in wide], values, *rest), kwargs
        return args, kwargs

    return draw


# ----------------------------------------------------------------------------- and in TF32

PRODUCTS = {
    *("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "ger", "addr"),
    *("_addmm_activation", "convolution", "convolution_backward", "linalg_vecdot"),
}


def in_tf32(name, args, kwargs):
    """Round the operands of a product in float32 to ten bits of mantissa, as a GPU may."""
    if name.removesuffix("_") not in PRODUCTS:
        return args, kwargs

    def rounded(t):
        if not isinstance(t, torch.Tensor) or t.dtype != torch.float32:
            return t
        bits = t.contiguous().view(torch.int32)
        return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)

    return tuple(map(rounded, args)), kwargs


# ----------------------------------------------------------------------- held to every case

LINEAR = {
    "linear_cross_entropy",
    "linear_distillation_loss",
    "linear_multi_token_loss",
    "contrastive_loss",
    "margin_loss",
    "siglip_loss",
    "supcon_loss",
}
"""Their products are the model's, in the precision that it asked for."""


def _changed(name, twist, at_all):
    """The cases whose value or gradient ``twist`` changes, of those that call such an operator."""
    found = []
    for trial in _calling(name, at_all):
        inputs = trial.inputs(22, dtype=torch.float32)
        with whole():
            value, grad, _ = charged(trial, inputs)
            with counting(twist):
                twisted = charged(trial, inputs)[:2]
        if not (torch.equal(value, twisted[0]) and torch.equal(grad, twisted[1])):
            found.append(trial.label)
    return found


def _calling(name, operators):
    """The cases of a row that call one of the operators."""
    trials = {trial.label: trial for trial in SPECS[name].trials(register())}
    for label, (bill, _) in bills(name).items():
        if operators & {operator.removesuffix("_") for operator in bill.operators}:
            yield trials[label]


@ROWS
def test_the_order_in_which_a_gpu_adds_changes_nothing(name):
    assert not _changed(name, shuffled(0), ADDS)


def test_the_order_changes_nothing_where_a_signal_is_shorter_than_a_frame():
    g, device = torch.Generator().manual_seed(0), register()
    x, y = (torch.randn(3, 2000, generator=g).to(device).requires_grad_() for _ in range(2))
    lengths = torch.tensor([50, 2000, 700]).to(device)

    def slope():
        return gradient(stft_loss(x, y.detach(), lengths=lengths), x)[0].cpu()

    with counting():
        once = slope()
    with counting(shuffled(0)):
        again = slope()
    assert torch.equal(once, again)


@ROWS
def test_nothing_is_called_that_deterministic_mode_refuses_on_a_gpu(name):
    seen = set()
    for trial in _calling(name, RAISES):
        with whole(), counting(raising(seen)):
            charged(trial, trial.inputs(dtype=torch.float32))
    assert not seen


@ROWS
def test_tf32_changes_nothing_but_the_products_of_a_model(name):
    assert bool(_changed(name, in_tf32, PRODUCTS)) == (name in LINEAR)


def test_the_simulations_change_what_they_should():
    register()
    g = torch.Generator().manual_seed(1)
    x, at = torch.randn(300, generator=g).to(DEVICE), torch.randint(3, (300,), generator=g)
    at = at.to(DEVICE)
    calls = {
        "scatter_add": lambda: x.new_zeros(3).scatter_add(0, at, x),
        "index_add": lambda: x.new_zeros(3).index_add_(0, at, x),
        "index_put": lambda: x.new_zeros(3).index_put_((at,), x, accumulate=True),
    }
    for call in calls.values():
        once = call().cpu()
        with counting(shuffled(0)):
            again = call().cpu()
        assert not torch.equal(once, again)
        torch.testing.assert_close(again, once, rtol=1e-4, atol=1e-4)
    products = {
        "mm": lambda: x.view(10, 30) @ x.view(30, 10),
        "bmm": lambda: torch.einsum("bij,bjk->bik", x.view(3, 10, 10), x.view(3, 10, 10)),
        "mv": lambda: x.view(10, 30) @ x[:30],
    }
    for call in products.values():
        once = call().cpu()
        with counting(in_tf32):
            again = call().cpu()
        assert 1e-5 < (again - once).norm() / once.norm() < 1e-2
    seen = set()
    with counting(raising(seen)):
        x.cumsum(0)
        at.cumsum(0)
        x.median()
    assert seen == {"cumsum"}


def test_the_operators_that_raise_are_operators():
    for name in RAISES | {f"{name}_" for name in ("scatter_add", "index_add", "index_put")}:
        assert hasattr(torch.ops.aten, name)
