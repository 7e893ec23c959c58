"""Two walks in blocks: when they are taken, that they cover everything, and what they cost."""

import math
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from aptt.audit.ways import in_blocks, plainly
from aptt.core.streaming import Formula, Work, _blocks, evaluate, streams, widen
from aptt.loss import (
    cross_entropy,
    dice_loss,
    distribution_focal_loss,
    focal_loss,
    giou_loss,
    heatmap_loss,
    quality_focal_loss,
    varifocal_loss,
)

CPU = torch.device("cpu")
LARGE = 2**14


# ---------------------------------------------------------------------------- the choice


@pytest.fixture
def large():
    return torch.zeros(LARGE, requires_grad=True)


def test_a_large_tensor_or_parameter_is_walked(large):
    assert streams(large, ())
    assert streams(torch.nn.Parameter(large.detach()), (None, 1.0, torch.zeros(3)))
    with torch.no_grad():
        assert streams(large, ())


def test_a_small_one_is_not():
    assert not streams(torch.zeros(LARGE - 1), ())
    assert not streams(torch.zeros(0), ())


def test_one_of_another_class_is_not(large):
    class Tagged(torch.Tensor):
        pass

    assert not streams(large.detach().as_subclass(Tagged), ())


def test_one_without_values_is_not():
    assert not streams(torch.zeros(LARGE, device="meta"), ())


def test_under_a_compiler_it_is_not(large, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not streams(large, ())


def test_inside_a_transform_it_is_not(large):
    seen = []

    def look(t):
        seen.append(streams(large, ()))
        return t.sum()

    torch.func.grad(look)(torch.ones(3))
    torch.func.vmap(look)(torch.ones(2, 3))
    assert seen == [False, False]
    assert streams(large, ())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, at first use
def test_with_a_forward_tangent_it_is_not(large):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(large.detach(), torch.ones(LARGE))
        assert not streams(dual, ())


def test_where_another_asks_for_a_gradient_it_is_not(large):
    other = torch.zeros(3, requires_grad=True)
    assert not streams(large, (None, other))
    with torch.no_grad():
        assert streams(large, (None, other))


# ---------------------------------------------------------------------------- the blocks


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(1, 60),
)
def test_blocks_cover_every_element_once_and_never_cut_the_classes(shape, size):
    x = torch.zeros(shape)
    for block in _blocks(x, size):
        part = block.of(x)
        part += 1
        assert part.shape[1:2] == x.shape[1:2]
        least = x.shape[1] if x.ndim == 3 else x[0].numel()
        assert part.numel() <= max(size, least)
    assert torch.equal(x, torch.ones(shape))


# ---------------------------------------------------------------------------- the walks


def _square(x, t):
    return ((x - t) ** 2).flatten(1).sum(1) if x.ndim > 1 else (x - t) ** 2


def _noted(log):
    """The squares of rows, with what each block keeps and gets back noted."""

    def forward(x, work, t):
        kept = x.sum(1)
        log.append(("there", kept.clone(), work.keeps))
        return _square(x, t), (kept, x[:, :1].clone())

    def backward(out, x, work, up, kept, t):
        log.append(("back", kept[0].clone(), len(kept)))
        torch.mul(x - t, 2 * (up.unsqueeze(1) if up.ndim else up), out=out)

    return Formula(_square, forward, backward)


def _pair(*shape, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, t = (torch.randn(*shape, dtype=torch.float64, generator=g).to(dtype) for _ in range(2))
    return x.requires_grad_(), t


def test_each_block_gets_back_what_it_kept():
    log = []
    x, t = _pair(11, 4)
    with in_blocks() as walked:
        evaluate(_noted(log), x, t, gather="total").backward()
    assert walked.walks == [[16, 16, 12]] * 2
    there, back = ([entry[1] for entry in log if entry[0] == way] for way in ("there", "back"))
    assert torch.equal(torch.cat(there), x.detach().sum(1))
    for kept, returned in zip(there, back, strict=True):
        assert torch.equal(kept, returned)
    torch.testing.assert_close(x.grad, 2 * (x.detach() - t), rtol=1e-14, atol=0)


def test_nothing_is_kept_where_no_gradient_can_be_asked_for():
    log = []
    x, t = _pair(11, 4)
    with in_blocks(), torch.no_grad():
        evaluate(_noted(log), x, t, gather="total")
    with in_blocks():
        evaluate(_noted(log), x.detach(), t, gather="total")
    assert {keeps for _, _, keeps in log} == {False}


@pytest.mark.parametrize("shape", [(37,), (11, 4), (3, 4, 9), (2, 1, 50)])
@pytest.mark.parametrize("gather", ["values", "total", "samples"])
@pytest.mark.parametrize("weighted", [True, False])
def test_a_formula_alone_is_enough(shape, gather, weighted):
    def value(x, t):
        return (x - t) ** 3 if x.ndim == 1 else ((x - t) ** 3).sum(1)

    def per_sample(x, t):
        return value(x, t) if x.ndim < 3 else value(x, t).sum(1)

    formula = Formula(per_sample if gather == "samples" else value)
    x, t = _pair(*shape)
    weight = None
    if weighted and gather != "samples":
        weight = (torch.arange(value(x, t).numel()) % 3).view(value(x, t).shape)
    results = []
    for way in (plainly, in_blocks):
        with way():
            out = evaluate(formula, x, t, gather=gather, weight=weight)
            up = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).double()
            results.append((out.detach(), torch.autograd.grad(out, x, up)[0]))
    for plain, walked in zip(*results, strict=True):
        torch.testing.assert_close(walked, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_read_wide_and_their_gradient_rounded_once(dtype):
    x, t = _pair(11, 4, dtype=dtype)
    with in_blocks():
        total = evaluate(_noted([]), x, t, gather="total")
        (3 * total).backward()
    assert total.dtype == torch.float32
    assert torch.equal(x.grad, (6 * (x.detach().float() - t.float())).to(dtype))


def test_sums_do_not_lose_what_single_precision_loses():
    x = torch.full((2**21,), 0.1)
    total = evaluate(Formula(lambda x: x), x, gather="total")
    assert total.item() == pytest.approx(2**21 * float(torch.tensor(0.1)), rel=3e-7)


@pytest.mark.parametrize("weight_dtype", [torch.bool, torch.int64, torch.float64, torch.bfloat16])
def test_the_dtype_of_a_weight_does_not_change_that_of_the_result(weight_dtype):
    x, t = _pair(11, 4, dtype=torch.float32)
    weight = (torch.arange(11) % 3).to(weight_dtype)
    for way in (plainly, in_blocks):
        with way():
            for gather in ("values", "total"):
                out = evaluate(Formula(_square), x, t, gather=gather, weight=weight)
                assert out.dtype == torch.float32


@pytest.mark.parametrize("way", [plainly, in_blocks], ids=["plain", "in blocks"])
def test_a_weight_of_zero_removes_nan_from_value_gradient_and_sides(way):
    x, t = _pair(11, 4)
    weight = torch.ones(11, dtype=torch.float64)
    weight[[0, 5, 10]] = 0
    bad_x, bad_t = x.detach().clone(), t.clone()
    bad_x[[0, 5, 10]], bad_t[[0, 5, 10]] = float("nan"), float("inf")
    bad_x.requires_grad_()
    kept = weight != 0
    with way():
        total = evaluate(_noted([]), bad_x, bad_t, gather="total", weight=weight)
        total.backward()
        want = evaluate(_noted([]), x[kept], t[kept], gather="total")
    torch.testing.assert_close(total, want, rtol=1e-14, atol=0)
    assert not bad_x.grad[~kept].any()
    torch.testing.assert_close(bad_x.grad[kept], 2 * (x.detach() - t)[kept], rtol=1e-14, atol=0)


def test_a_gradient_of_a_gradient_takes_the_plain_formula():
    x, t = _pair(11, 4)
    with in_blocks():
        total = evaluate(_noted([]), x, t, gather="total")
        (first,) = torch.autograd.grad(total, x, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), x)
    torch.testing.assert_close(second, 8 * (x.detach() - t), rtol=1e-13, atol=0)


def test_several_gradients_can_be_taken_at_once():
    x, t = _pair(11, 4)
    with in_blocks():
        values = evaluate(_noted([]), x, t, gather="values")
        (rows,) = torch.autograd.grad(values, x, torch.eye(11).double(), is_grads_batched=True)
    want = torch.diag_embed(2 * (x.detach() - t).T).movedim(0, -1)
    torch.testing.assert_close(rows, want, rtol=1e-14, atol=0)


def test_a_gradient_can_be_taken_twice_and_after_other_calls():
    x, t = _pair(11, 4)
    other, goal = _pair(11, 4, seed=9)
    with in_blocks():
        total = evaluate(_noted([]), x, t, gather="total")
        evaluate(_noted([]), other, goal, gather="total").backward()
        first, again = (torch.autograd.grad(total, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, 2 * (x.detach() - t), rtol=1e-14, atol=0)


def test_an_input_changed_between_the_walks_is_noticed():
    x, t = _pair(11, 4)
    y = x * 1
    with in_blocks():
        total = evaluate(_noted([]), y, t, gather="total")
    with torch.no_grad():
        y += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


# ---------------------------------------------------------------------------- scratch memory


def test_scratch_memory_is_reused_by_name_and_dtype():
    work = Work(CPU)
    a = work("name", torch.zeros(4, 5))
    assert a.shape == (4, 5)
    assert work("name", torch.zeros(10)).data_ptr() == a.data_ptr()
    assert work("other", torch.zeros(10)).data_ptr() != a.data_ptr()
    assert work("name", torch.zeros(10), torch.float64).dtype == torch.float64
    assert work("name", torch.zeros(2**15)).numel() == 2**15


def test_scratch_memory_belongs_to_one_thread():
    mine, theirs = Work(CPU)("name", torch.zeros(8)), []
    thread = threading.Thread(target=lambda: theirs.append(Work(CPU)("name", torch.zeros(8))))
    thread.start()
    thread.join()
    assert mine.data_ptr() != theirs[0].data_ptr()


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


def test_scratch_memory_of_inference_mode_is_not_kept_for_training():
    x = torch.randn(LARGE // 8, 8, requires_grad=True)
    y = torch.zeros(len(x), dtype=torch.int64)
    thread_result = []

    def run():
        with torch.inference_mode():
            cross_entropy(x, y)
        cross_entropy(x, y).backward()
        thread_result.append(x.grad.isfinite().all().item())

    thread = threading.Thread(target=run)  # with scratch memory of its own, still empty
    thread.start()
    thread.join()
    assert thread_result == [True]


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


def _most(way, loss, x, *rest, **options):
    """The most memory of a forward and backward, relative to the prediction."""
    vars(Work._held).clear()  # scratch of the tests before, in other sizes
    with way(), Live(x, *rest) as live:
        loss(x, *rest, **options).backward()
    assert x.grad is not None
    return live.most / (x.numel() * x.element_size())


def _block(size=2**13):
    return lambda: in_blocks(size)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 1e-3}])
def test_cross_entropy_needs_its_gradient_and_nothing_else_of_that_size(options):
    x, y = _classes(2048, 512)
    assert _most(_block(), cross_entropy, x, y, **options) < 1.1
    assert _most(plainly, cross_entropy, *_classes(2048, 512), **options) > 2.5


def test_focal_loss_needs_its_gradient_and_nothing_else_of_that_size():
    x = torch.randn(2048, 512, requires_grad=True)
    y = (torch.rand(2048, 512) < 0.1).to(torch.uint8)
    assert _most(_block(), focal_loss, x, y) < 1.1


def test_heatmap_focal_needs_its_gradient_and_nothing_else_of_that_size():
    x = torch.randn(2, 32, 256, 256, requires_grad=True)
    y = torch.rand(2, 32, 256, 256).pow_(8).mul_(1.01).clamp_(max=1)
    assert _most(_block(), heatmap_loss, x, y, kind="focal") < 1.1
    assert _most(plainly, heatmap_loss, x, y, kind="focal") > 5


def test_dice_needs_its_gradient_and_nothing_else_of_that_size():
    x = torch.randn(8, 16, 8192, requires_grad=True)
    y = torch.randint(16, (8, 8192))
    # the indices and their mask are 3/16 of it, two numbers a position 2/16
    assert _most(_block(), dice_loss, x, y) < 1.4


def test_giou_keeps_a_gradient_of_each_box_and_needs_nothing_else_of_that_size():
    t = torch.rand(2**18, 4).cumsum(1)
    x = (t + 0.1 * torch.rand(2**18, 4)).requires_grad_()
    assert _most(_block(), giou_loss, x, t) < 2.1


# ------------------------------------------------------------- the gradient taken along


def _sloped(log):
    """The squared distance, per element or per row, with its slope; each call is noted."""

    def value(x, t):
        return (x - t) ** 2 if x.ndim == 1 else ((x - t) ** 2).sum(1)

    def slope(out, x, work, t):
        log.append(len(x))
        torch.sub(x, t, out=out).mul_(2)
        return value(x, t)

    return Formula(value, slope=slope)


@pytest.mark.parametrize("shape", [(37,), (11, 4), (3, 4, 9)])
@pytest.mark.parametrize("gather", ["values", "total"])
@pytest.mark.parametrize("weighted", [True, False])
def test_slopes_give_the_gradient_of_values_and_of_their_total(shape, gather, weighted):
    x, t = _pair(*shape)
    formula = _sloped([])
    weight = None
    if weighted:
        values = formula.value(x, t)
        weight = (torch.arange(values.numel()) % 3).view(values.shape).double()
    results = []
    for way in (plainly, in_blocks):
        with way():
            out = evaluate(formula, x, t, gather=gather, weight=weight)
            up = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).double()
            results.append((out.detach(), torch.autograd.grad(out, x, up)[0]))
    for plain, walked in zip(*results, strict=True):
        torch.testing.assert_close(walked, plain, rtol=1e-12, atol=1e-14)


def test_a_total_is_walked_once_and_again_only_for_a_second_backward():
    log = []
    x, t = _pair(37)
    weight = torch.rand(37, dtype=torch.float64)
    with in_blocks() as walked:
        total = evaluate(_sloped(log), x, t, gather="total", weight=weight)
        assert log == [16, 16, 5]
        first = torch.autograd.grad(total, x, torch.tensor(0.3).double(), retain_graph=True)[0]
        assert len(walked.walks) == 1
        again = torch.autograd.grad(total, x, torch.tensor(0.3).double(), retain_graph=True)[0]
        other = torch.autograd.grad(total, x)[0]
    assert len(walked.walks) == 3
    assert first.data_ptr() != again.data_ptr()
    assert torch.equal(first, again)
    torch.testing.assert_close(other, 2 * weight * (x.detach() - t), rtol=1e-14, atol=0)


def test_no_slope_is_taken_where_no_gradient_can_be_asked_for():
    log = []
    x, t = _pair(37)
    with in_blocks(), torch.no_grad():
        evaluate(_sloped(log), x, t, gather="total")
    assert log == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_slopes_of_half_inputs_wait_for_the_upstream_gradient(dtype):
    # 2**-20 would be lost in float16 before a gradient scaler's 2**16 arrives
    x, t = _pair(37, dtype=dtype)
    with torch.no_grad():
        x.copy_(t + 2.0**-12)
    with in_blocks():
        total = 2.0**-14 * evaluate(_sloped([]), x, t, gather="total")
        (2.0**16 * total).backward()
    assert torch.equal(x.grad, (8 * (x.detach().float() - t.float())).to(dtype))


def test_an_input_changed_after_the_only_walk_is_noticed():
    x, t = _pair(37)
    y = x * 1
    with in_blocks():
        total = evaluate(_sloped([]), y, t, gather="total")
    with torch.no_grad():
        y += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


@pytest.mark.parametrize("loss_fn", [varifocal_loss, quality_focal_loss])
def test_soft_focal_losses_need_their_gradient_and_nothing_else_of_that_size(loss_fn):
    x = torch.randn(2048, 512, requires_grad=True)
    y = torch.where(torch.rand(2048, 512) < 0.1, torch.rand(2048, 512), 0.0)
    assert _most(_block(), loss_fn, x, y) < 1.1
    assert _most(plainly, loss_fn, x.detach().requires_grad_(), y) > 4


def test_distribution_focal_loss_needs_its_gradient_and_few_numbers_a_row():
    x = torch.randn(2**16, 16, requires_grad=True)
    y = 15 * torch.rand(2**16)
    assert _most(_block(), distribution_focal_loss, x, y) < 1.3


@settings(deadline=None)
@given(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
def test_only_half_types_are_widened(dtype):
    wide = widen(torch.zeros(2, dtype=dtype)).dtype
    assert wide == (torch.float32 if dtype.itemsize == 2 else dtype)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("loss", [quality_focal_loss, cross_entropy, distribution_focal_loss])
def test_what_is_removed_has_no_gradient_whatever_comes_from_above(loss, bad):
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
    with in_blocks(10):
        values = loss(x, target, reduction="none", **options)
    up = torch.ones_like(values)
    up[3] = bad
    with in_blocks(10):
        (grad,) = torch.autograd.grad(values, x, up)
    assert (grad[3] == 0).all()
    assert grad.isfinite().all()


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("way", [plainly, in_blocks])
def test_what_is_removed_has_no_gradient_whatever_a_total_is_scaled_by(way, bad):
    x = torch.linspace(-2, 2, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(12, dtype=torch.float64)
    weight[3] = 0
    with way():
        total = quality_focal_loss(x, torch.zeros(12), weight=weight, reduction="sum")
    (grad,) = torch.autograd.grad(total, x, torch.tensor(bad, dtype=torch.float64))
    assert grad[3] == 0
    assert not grad[4].isfinite()
