"""The walk over blocks: that it covers everything, what it gives, and what it costs."""

import math
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from aptt.audit.ways import in_blocks, in_one, plainly, whole
from aptt.core.blocks import cut
from aptt.core.engine import evaluate, walking
from aptt.core.formula import Formula, Product, by_row
from aptt.core.precision import widen
from aptt.loss import (
    binary_cross_entropy,
    cross_entropy,
    dice_loss,
    distillation_loss,
    distribution_focal_loss,
    focal_loss,
    giou_loss,
    quality_focal_loss,
    rmse_loss,
    si_sdr_loss,
    varifocal_loss,
)

EAGER = [pytest.param(way, id=way.__name__) for way in (plainly, whole, in_blocks, in_one)]
WALKS = EAGER[1:]

# ---------------------------------------------------------------------------- the blocks


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(1, 60),
)
def test_blocks_cover_every_element_once_and_never_cut_the_classes(shape, size):
    x = torch.zeros(shape)
    for block in cut(x, size):
        part = block.of(x)
        part += 1
        assert part.shape[1:2] == x.shape[1:2]
        least = x.shape[1] if x.ndim == 3 else x[0].numel()
        assert part.numel() <= max(size, least)
    assert torch.equal(x, torch.ones(shape))


# ------------------------------------------------------------------------ two formulas, by hand


def _squares(x, t):
    return ((x - t) ** 2).flatten(1).sum(1) if x.ndim > 1 else (x - t) ** 2


def _rows(log):
    """The squared distance of rows, with a statistic; each call notes what it kept or got back."""

    def stats(x, t):
        log.append(("there", x.sum(1)))
        return x.sum(1), x[:, :1].clone()

    def result(x, kept, t):
        return _squares(x, t)

    def step(x, up, kept, t):
        log.append(("back", kept[0]))
        return None, 2 * (x - t) * by_row(up)

    return Formula(result, step, stats)


def _ahead(log):
    """The squared distance of elements or rows, taken along; each step notes how much it saw."""

    def result(x, kept, t):
        return (x - t) ** 2 if x.ndim == 1 else ((x - t) ** 2).sum(1)

    def step(x, up, kept, t):
        log.append(len(x))
        return result(x, kept, t), 2 * (x - t) * (up if x.ndim == 1 else by_row(up))

    return Formula(result, step, ahead=True)


def _pair(*shape, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, t = (torch.randn(*shape, dtype=torch.float64, generator=g).to(dtype) for _ in range(2))
    return x.requires_grad_(), t


# ---------------------------------------------------------------------------- the walks


def test_each_block_gets_back_what_it_kept():
    log = []
    x, t = _pair(11, 4)
    with in_blocks() as walked:
        evaluate(_rows(log), x, t, gather="total").backward()
    assert walked.walks == [[16, 16, 12]] * 2
    there, back = ([kept for way, kept in log if way == which] for which in ("there", "back"))
    assert torch.equal(torch.cat(there), x.detach().sum(1))
    for kept, returned in zip(there, back, strict=True):
        assert torch.equal(kept, returned)
    torch.testing.assert_close(x.grad, 2 * (x.detach() - t), rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", [(37,), (11, 4), (3, 4, 9), (2, 1, 50)])
@pytest.mark.parametrize("gather", ["values", "total", "samples"])
@pytest.mark.parametrize("weighted", [True, False])
def test_a_result_alone_is_enough(shape, gather, weighted):
    def result(x, kept, t):
        value = (x - t) ** 3 if x.ndim == 1 else ((x - t) ** 3).sum(1)
        return value.sum(1) if gather == "samples" and value.ndim > 1 else value

    x, t = _pair(*shape)
    weight = None
    if weighted and gather != "samples":
        values = result(x, (), t)
        weight = (torch.arange(values.numel()) % 3).view(values.shape)
    results = []
    for way in (plainly, whole, in_blocks, in_one):
        with way():
            out = evaluate(Formula(result), x, t, gather=gather, weight=weight)
            up = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).double()
            results.append((out.detach(), torch.autograd.grad(out, x, up)[0]))
    for walked in results[1:]:
        for got, plain in zip(walked, results[0], strict=True):
            torch.testing.assert_close(got, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("way", WALKS)
@pytest.mark.parametrize("formula", [_rows, _ahead])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_read_wide_and_their_gradient_rounded_once(way, formula, dtype):
    x, t = _pair(11, 4, dtype=dtype)
    with way():
        total = evaluate(formula([]), x, t, gather="total")
        (3 * total).backward()
    assert total.dtype == torch.float32
    assert torch.equal(x.grad, (6 * (x.detach().float() - t.float())).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gradient_of_half_inputs_waits_for_the_upstream_gradient(dtype):
    # 2**-20 would be lost in float16 before a gradient scaler's 2**16 arrives
    x, t = _pair(37, dtype=dtype)
    with torch.no_grad():
        x.copy_(t + 2.0**-12)
    with in_blocks():
        total = 2.0**-14 * evaluate(_ahead([]), x, t, gather="total")
        (2.0**16 * total).backward()
    assert torch.equal(x.grad, (8 * (x.detach().float() - t.float())).to(dtype))


@pytest.mark.parametrize("way", WALKS)
def test_sums_do_not_lose_what_single_precision_loses(way):
    x = torch.full((2**21,), 0.1)
    with way() if way is whole else in_blocks(2**16):
        total = evaluate(Formula(lambda x, kept: x * 1), x, gather="total")
    assert total.item() == pytest.approx(2**21 * float(torch.tensor(0.1)), rel=3e-7)


@pytest.mark.parametrize("way", EAGER)
@pytest.mark.parametrize("weight_dtype", [torch.bool, torch.int64, torch.float64, torch.bfloat16])
def test_the_dtype_of_a_weight_does_not_change_that_of_the_result(way, weight_dtype):
    x, t = _pair(11, 4, dtype=torch.float32)
    weight = (torch.arange(11) % 3).to(weight_dtype)
    with way():
        for gather in ("values", "total"):
            out = evaluate(_rows([]), x, t, gather=gather, weight=weight)
            assert out.dtype == torch.float32


@pytest.mark.parametrize("way", EAGER)
@pytest.mark.parametrize("formula", [_rows, _ahead])
@pytest.mark.parametrize("weight_dtype", [torch.bool, torch.float64])
def test_a_weight_of_zero_removes_nan_from_value_gradient_and_sides(way, formula, weight_dtype):
    x, t = _pair(11, 4)
    weight = torch.ones(11, dtype=torch.float64)
    weight[[0, 5, 10]] = 0
    bad_x, bad_t = x.detach().clone(), t.clone()
    bad_x[[0, 5, 10]], bad_t[[0, 5, 10]] = float("nan"), float("inf")
    bad_x.requires_grad_()
    kept = weight != 0
    with way():
        total = evaluate(
            formula([]), bad_x, bad_t, gather="total", weight=weight.to(weight_dtype), over=8
        )
        total.backward()
        want = evaluate(formula([]), x[kept], t[kept], gather="total") / 8
    torch.testing.assert_close(total, want, rtol=1e-14, atol=0)
    assert not bad_x.grad[~kept].any()
    torch.testing.assert_close(bad_x.grad[kept], (x.detach() - t)[kept] / 4, rtol=1e-14, atol=0)


@pytest.mark.parametrize("way", EAGER)
@pytest.mark.parametrize("formula", [_rows, _ahead])
@pytest.mark.parametrize("over", [0, 0.0, 7, 0.3, torch.tensor(7), torch.tensor(0)])
def test_a_total_is_divided_and_over_nothing_it_is_0(way, formula, over):
    x, t = _pair(11, 4)
    with way():
        total = evaluate(formula([]), x, t, gather="total", over=over)
        (grad,) = torch.autograd.grad(total, x, torch.tensor(0.7, dtype=torch.float64))
    share = 1 / float(over) if over else 0.0
    want = _squares(x, t).sum() * share
    torch.testing.assert_close(total, want, rtol=1e-13, atol=0)
    torch.testing.assert_close(grad, 1.4 * share * (x.detach() - t), rtol=1e-13, atol=0)


@pytest.mark.parametrize("way", WALKS)
@pytest.mark.parametrize("formula", [_rows, _ahead])
def test_a_gradient_of_a_gradient_takes_the_definition(way, formula):
    x, t = _pair(11, 4)
    with way():
        total = evaluate(formula([]), x, t, gather="total", over=2)
        (first,) = torch.autograd.grad(total, x, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), x)
    torch.testing.assert_close(second, 2 * (x.detach() - t), rtol=1e-13, atol=0)


@pytest.mark.parametrize("way", WALKS)
@pytest.mark.parametrize("formula", [_rows, _ahead])
def test_several_gradients_can_be_taken_at_once(way, formula):
    x, t = _pair(11, 4)
    with way():
        values = evaluate(formula([]), x, t, gather="values")
        (rows,) = torch.autograd.grad(values, x, torch.eye(11).double(), is_grads_batched=True)
        total = evaluate(formula([]), x, t, gather="total", over=4)
        (many,) = torch.autograd.grad(
            total, x, torch.arange(3.0, dtype=torch.float64), is_grads_batched=True
        )
    want = torch.diag_embed(2 * (x.detach() - t).T).movedim(0, -1)
    torch.testing.assert_close(rows, want, rtol=1e-14, atol=0)
    each = 0.5 * (x.detach() - t)
    torch.testing.assert_close(many, torch.stack((0 * each, each, 2 * each)), rtol=1e-14, atol=0)


@pytest.mark.parametrize("way", WALKS)
@pytest.mark.parametrize("formula", [_rows, _ahead])
def test_a_gradient_can_be_taken_twice_and_after_other_calls(way, formula):
    x, t = _pair(11, 4)
    other, goal = _pair(11, 4, seed=9)
    with way():
        total = evaluate(formula([]), x, t, gather="total")
        evaluate(formula([]), other, goal, gather="total").backward()
        first, again = (torch.autograd.grad(total, x, retain_graph=True)[0] for _ in range(2))
        (third,) = torch.autograd.grad(total, x, torch.tensor(3.0, dtype=torch.float64))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, 2 * (x.detach() - t), rtol=1e-14, atol=0)
    torch.testing.assert_close(third, 6 * (x.detach() - t), rtol=1e-14, atol=0)


@pytest.mark.parametrize("way", WALKS)
@pytest.mark.parametrize("formula", [_rows, _ahead])
def test_an_input_changed_between_the_walks_is_noticed(way, formula):
    x, t = _pair(11, 4)
    y = x * 1
    with way():
        total = evaluate(formula([]), y, t, gather="total")
    with torch.no_grad():
        y += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


# ------------------------------------------------------------------- the gradient taken along


@pytest.mark.parametrize("way", WALKS)
def test_a_total_is_walked_once_whatever_comes_from_above(way):
    log = []
    x, t = _pair(37)
    weight = torch.rand(37, dtype=torch.float64)
    with way() as walked:
        total = evaluate(_ahead(log), x, t, gather="total", weight=weight, over=5)
        assert sum(log) == 37
        for up in (1.0, 0.3, 0.3):
            (grad,) = torch.autograd.grad(
                total, x, torch.tensor(up, dtype=torch.float64), retain_graph=True
            )
            want = 2 * up / 5 * weight * (x.detach() - t)
            torch.testing.assert_close(grad, want, rtol=1e-14, atol=0)
    assert len(walked.walks) == 1
    assert sum(log) == 37


@pytest.mark.parametrize("way", WALKS)
def test_no_gradient_is_taken_along_where_none_can_be_asked_for(way):
    log = []
    x, t = _pair(37)
    with way(), torch.no_grad():
        evaluate(_ahead(log), x, t, gather="total")
    with way():
        evaluate(_ahead(log), x.detach(), t, gather="total")
    assert log == []


@pytest.mark.parametrize("over", [1e-45, 1e45, math.inf, math.nan, 2.0**-61, 3.0])
def test_a_share_that_is_not_moderate_does_not_spoil_what_is_taken_along(over):
    # the gradient is taken along for 1, and brought to the true share in backward
    x, t = _pair(37)
    with in_blocks():
        total = evaluate(_ahead([]), x, t, gather="total", over=over)
    (grad,) = torch.autograd.grad(total, x, torch.tensor(0.5, dtype=torch.float64))
    want = (x.detach() - t) / over
    torch.testing.assert_close(grad, want, rtol=1e-14, atol=0, equal_nan=True)


@pytest.mark.parametrize("up", [0.0, math.inf, math.nan, 1e-45, 2.0**100])
def test_any_upstream_gradient_is_right_where_the_gradient_was_taken_along(up):
    x, t = _pair(37, dtype=torch.float32)
    with in_blocks():
        total = evaluate(_ahead([]), x, t, gather="total", over=37)
    (grad,) = torch.autograd.grad(total, x, torch.tensor(up))
    want = torch.tensor(up) * (2 / 37 * (x.detach() - t))
    torch.testing.assert_close(grad, want, rtol=1e-6, atol=1e-44, equal_nan=True)


# ---------------------------------------------------------------------------- threads


def test_threads_side_by_side_do_not_disturb_each_other():
    x = torch.randn(400, 50, generator=torch.Generator().manual_seed(0))
    y = torch.randint(50, (400,), generator=torch.Generator().manual_seed(1))
    want = [cross_entropy(x * k, y, softcap=9.0).item() for k in range(1, 5)]
    got = {}

    def work(k):
        for _ in range(20):
            got.setdefault(k, set()).add(cross_entropy(x * k, y, softcap=9.0).item())

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[k] for k in range(1, 5)] == [{value} for value in want]


# ---------------------------------------------------------------------------- what it costs


class Live(TorchDispatchMode):
    """The most bytes that were alive at once, of memory that is not the inputs'."""

    def __init__(self, *inputs):
        super().__init__()
        self.most, self._known = 0, {}
        self._inputs = [StorageWeakRef(t.untyped_storage()) for t in inputs]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in torch.utils._pytree.tree_leaves(out):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                reference = StorageWeakRef(storage)
                if reference.cdata in {one.cdata for one in self._inputs}:
                    continue
                self._known.setdefault(reference.cdata, (reference, storage.nbytes()))
        self._known = {k: v for k, v in self._known.items() if not v[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._known.values()))
        return out


def _classes(n, c):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, c, generator=g, requires_grad=True)
    return x, torch.randint(c, (n,), generator=g)


def _scores(n=2048, c=512):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, c, generator=g, requires_grad=True)
    return x, torch.where(torch.rand(n, c, generator=g) < 0.1, torch.rand(n, c, generator=g), 0.0)


def _boxes(n=2**18):
    g = torch.Generator().manual_seed(0)
    t = torch.rand(n, 4, generator=g).cumsum(1)
    return (t + 0.1 * torch.rand(n, 4, generator=g)).requires_grad_(), t


def _maps():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(8, 16, 4096, generator=g, requires_grad=True)
    return x, torch.randint(16, (8, 4096), generator=g)


def _signals():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(32, 2**15, generator=g, requires_grad=True)
    return x, torch.randn(32, 2**15, generator=g)


def _logits():
    x, t = _signals()
    return x.detach().view(2048, -1).requires_grad_(), t.view(2048, -1)


def _sides():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2**14, 16, generator=g, requires_grad=True)
    return x, 15 * torch.rand(2**14, generator=g)


COSTS = {  # loss, inputs, options, most alive, held from forward to backward; in predictions
    "cross_entropy": (cross_entropy, lambda: _classes(2048, 512), {}, 1.2, 0.03),
    "smoothing": (
        cross_entropy,
        lambda: _classes(2048, 512),
        {"label_smoothing": 0.1, "z_loss": 1e-3},
        1.2,
        0.05,
    ),
    "focal, softmax": (focal_loss, lambda: _classes(2048, 512), {}, 1.2, 0.03),
    "distillation": (distillation_loss, _logits, {"alpha": 1.0}, 1.2, 0.03),
    "binary_cross_entropy": (binary_cross_entropy, _scores, {}, 1.2, 1.0),
    "varifocal": (varifocal_loss, _scores, {}, 1.2, 1.0),
    "quality_focal": (quality_focal_loss, _scores, {}, 1.2, 1.0),
    "dfl": (distribution_focal_loss, _sides, {}, 1.5, 1.0),
    "giou": (giou_loss, _boxes, {}, 1.5, 1.0),
    # the indices and their mask are 3/16 of it, a few numbers a position as much again
    "dice": (dice_loss, _maps, {}, 1.6, 0.35),
    "si_sdr": (si_sdr_loss, _signals, {}, 1.6, 1.0),
    "rmse": (rmse_loss, _signals, {}, 1.2, 0.01),
}


def test_what_is_kept_lies_in_one_piece_however_many_blocks_there_are():
    """Small pieces between a block's own would split the memory that the next one takes."""
    x, t = _classes(64, 50)

    def saved(block):
        count = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda v: count.append(v) or v, lambda v: v
        )
        with walking(block, lambda cuts: None), hooks:
            cross_entropy(x, t)
        return len(count)

    assert saved(100) == saved(1000) < 10


@pytest.mark.parametrize("name", COSTS)
def test_a_walk_needs_the_gradient_and_little_else_of_that_size(name):
    loss, inputs, options, most, _ = COSTS[name]
    x, *rest = inputs()
    with in_blocks(2**13), Live(x, *rest) as live:
        loss(x, *rest, **options).backward()
    assert x.grad is not None
    assert live.most < most * x.numel() * x.element_size()


def _held(loss, x, *rest, **options):
    """Bytes that wait for backward, less the inputs', in predictions."""
    known = {t.untyped_storage().data_ptr() for t in (x, *rest)}
    found = {}

    def pack(t):
        storage = t.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        value = loss(x, *rest, **options)
    held = sum(found.values()) / (x.numel() * x.element_size())
    value.backward()
    return held


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("way", [whole, lambda: in_blocks(2**13)], ids=["whole", "in blocks"])
def test_what_is_held_from_forward_to_backward(name, way):
    loss, inputs, options, _, most = COSTS[name]
    with way():
        assert _held(loss, *inputs(), **options) <= most


@pytest.mark.parametrize("name", COSTS)
def test_in_one_block_no_more_than_a_prediction_is_held(name):
    loss, inputs, options, _, most = COSTS[name]
    with in_one():
        assert _held(loss, *inputs(), **options) <= max(most, 1.05)


@pytest.mark.parametrize("way", [lambda: in_blocks(2**13), in_one], ids=["in blocks", "in one"])
@pytest.mark.parametrize("name", COSTS)
def test_under_activation_checkpointing_nothing_is_held(name, way):
    loss, inputs, options, *_ = COSTS[name]
    x, *rest = inputs()

    def checkpointed(x, *rest, **options):
        return checkpoint(loss, x, *rest, use_reentrant=False, **options)

    with way():
        with Live(x, *rest) as live:
            value = checkpointed(x, *rest, **options)
            live.most = 0
            waiting = sum(
                size for reference, size in live._known.values() if not reference.expired()
            )
        value.backward()
    assert waiting <= 0.001 * x.numel() * x.element_size() + 64
    with way():
        (want,) = torch.autograd.grad(loss(x, *rest, **options), x)
    assert torch.equal(x.grad, want)


def test_only_half_types_are_widened():
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        wide = widen(torch.zeros(2, dtype=dtype)).dtype
        assert wide == (torch.float32 if dtype.itemsize == 2 else dtype)


# --------------------------------------------------------------------------- what is removed


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("way", WALKS)
@pytest.mark.parametrize("loss", [quality_focal_loss, cross_entropy, distribution_focal_loss])
def test_what_is_removed_has_no_gradient_whatever_comes_from_above(loss, way, bad):
    x = torch.linspace(-2, 2, 60, dtype=torch.float64).view(12, 5).requires_grad_()
    weight = torch.ones(12, dtype=torch.float64)
    weight[3] = 0
    target = torch.arange(12) % 5
    options = {"weight": weight}
    if loss is quality_focal_loss:
        target = torch.nn.functional.one_hot(target, 5).double()
        options["weight"] = weight.unsqueeze(1).expand(12, 5)
    elif loss is cross_entropy:
        options = {"sample_weight": weight}
    else:
        target = target.double() / 2
    with way():
        values = loss(x, target, reduction="none", **options)
    up = torch.ones_like(values)
    up[3] = bad
    (grad,) = torch.autograd.grad(values, x, up)
    assert (grad[3] == 0).all()
    assert grad.isfinite().all()


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("way", EAGER)
def test_what_is_removed_has_no_gradient_whatever_a_total_is_scaled_by(way, bad):
    x = torch.linspace(-2, 2, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(12, dtype=torch.float64)
    weight[3] = 0
    with way():
        total = quality_focal_loss(x, torch.zeros(12), weight=weight, reduction="sum")
    (grad,) = torch.autograd.grad(total, x, torch.tensor(bad, dtype=torch.float64))
    assert grad[3] == 0
    assert not grad[4].isfinite()


# --------------------------------------------------------------------- as on an accelerator


class _Called(TorchDispatchMode):
    """The operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function._schema.name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("formula", [_rows, _ahead])
@pytest.mark.parametrize("over", [5, torch.tensor(5), torch.tensor(0), torch.tensor(2.5)])
def test_in_one_block_no_value_is_looked_at(formula, over):
    x, t = _pair(2**10, 2**9)
    weight = torch.ones(2**10, dtype=torch.bool)
    weight[::3] = False
    with in_one() as walked, _Called() as called:
        evaluate(formula([]), x, t, gather="total", weight=weight, over=over).backward()
    assert {tuple(sizes) for sizes in walked.walks} == {(2**19,)}
    assert "aten::_local_scalar_dense" not in called.names
    share = 1 / float(over) if over else 0.0
    want = 2 * share * weight.double().unsqueeze(1) * (x.detach() - t)
    torch.testing.assert_close(x.grad, want, rtol=1e-14, atol=0)


def test_a_product_is_rounded_once_into_the_dtype_that_is_wanted():
    held = torch.linspace(-1, 1, 1000).view(50, 20)
    by = torch.linspace(0.1, 3, 50).unsqueeze(1)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        found = Product(held, by).of(dtype)
        assert torch.equal(found, (held * by).to(dtype))


def test_a_form_for_one_block_is_taken_in_one_block_alone():
    taken = []

    def result(name):
        def of(x, kept):
            taken.append(name)
            return x.square()

        return of

    formula = Formula(result("this"), in_one=Formula(result("other")))
    x = torch.ones(3, requires_grad=True)
    for way in (plainly, whole, in_blocks):
        with way():
            evaluate(formula, x, gather="values")
    assert set(taken) == {"this"}
    taken.clear()
    with in_one():
        evaluate(formula, x, gather="values")
    assert taken == ["other"]
