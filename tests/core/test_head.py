"""The head on an accelerator: large pieces, three products, and half types multiplied as they are.

The capability of the device is replaced by a product in float32, and its sizes by small ones; what
comes out is held to float64.
"""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from aptt.audit.ways import plainly, whole
from aptt.core.distillation import check_heads
from aptt.core.engine import _here
from aptt.core.linear import by_tokens, products, run
from aptt.core.linear import head as sizes
from aptt.core.linear.in_place import settle
from aptt.core.linear.products import product_in_float32
from aptt.core.vocabulary import Form
from aptt.loss import linear_cross_entropy, linear_distillation_loss, linear_token_stats
from aptt.loss.classification.indices import INDICES

N, D, V = 200, 64, 300
HALF = [torch.bfloat16, torch.float16]
PER_CLASS = torch.rand(V, generator=torch.Generator().manual_seed(7)) + 0.1
OPTIONS = {
    "plain": {},
    "z-loss": {"z_loss": 1e-2},
    "weighted": {"class_weight": PER_CLASS, "z_loss": 1e-2},
    "scaled": {"scale": 0.7},
    "smoothed": {"label_smoothing": 0.1},
    "capped": {"softcap": 3.0, "scale": 0.7},
    "adjusted": {"logit_adjustment": PER_CLASS.log()},
}


class Products:
    """``product(a, b, out)`` of half types in float32, and the work that was asked of it."""

    def __init__(self):
        self.calls, self.work = 0, 0

    def __call__(self, a, b, out):
        assert a.dtype == b.dtype
        assert a.dtype in HALF
        assert out.dtype == torch.float32
        self.calls += 1
        self.work += a.shape[0] * a.shape[1] * b.shape[1]
        out.copy_(a.float() @ b.float())


@pytest.fixture
def accelerator(monkeypatch):
    """The sizes and the ways of an accelerator, with blocks that a test has several of."""
    for module in (sizes, run):
        monkeypatch.setattr(module, "on_accelerator", lambda t: True)
    monkeypatch.setattr(sizes, "_LARGE_BLOCK", 2**13)
    monkeypatch.setattr(sizes, "_LARGE_PART", 2**12)


@pytest.fixture
def into_float32(monkeypatch):
    """A device that returns products of half types in float32."""
    product = Products()
    monkeypatch.setattr(products, "product_in_float32", lambda device: product)
    return product


def problem(dtype, n=N, d=D, v=V):
    g = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(s, generator=g) for s in ((n, d), (v, d), (v,)))
    target = torch.randint(v, (n,), generator=g)
    target[::5] = -100
    return (hidden.to(dtype), (weight / 4).to(dtype), bias.to(dtype)), target


def leaves(tensors, dtype=None):
    return [t.detach().to(dtype or t.dtype).clone().requires_grad_() for t in tensors]


def truth(tensors, target, **options):
    """From all the logits in float64, through the definition and autograd."""
    ours = leaves(tensors, torch.float64)
    z = F.linear(*ours) * options.pop("scale", 1.0)
    form = Form(*(options.pop(k, None) for k in ("label_smoothing", "z_loss", "softcap")))
    weights, adjustment = (options.pop(k, None) for k in ("class_weight", "logit_adjustment"))
    weights = None if weights is None else weights.double()
    z = z if form.softcap is None else form.softcap * torch.tanh(z / form.softcap)
    z = z if adjustment is None else z + adjustment.double()
    how = {"weight": weights, "label_smoothing": form.smoothing or 0.0}
    loss = F.cross_entropy(z, target, reduction="none", **how)
    keep = target != -100
    mass = keep * (1 if weights is None else weights[target * keep])
    loss = loss + (form.z_loss or 0) * mass * z.logsumexp(1) ** 2
    return loss.sum() / mass.sum(), ours


def far(a, b):
    """Relative distance in norm."""
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def step(dtype):
    """The relative error of a number that is rounded to a dtype."""
    return torch.finfo(dtype).eps / 2


@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("biased", [True, False])
def test_value_and_gradients_are_those_of_all_the_logits(
    biased, name, dtype, accelerator, into_float32
):
    tensors, target = problem(dtype)
    tensors = tensors[: 3 if biased else 2]
    ours, options = leaves(tensors), OPTIONS[name]
    bias = ours[2] if biased else None
    loss = linear_cross_entropy(*ours[:2], target, bias=bias, **options)
    want, theirs = truth(tensors, target, **options)
    assert loss.item() == pytest.approx(want.item(), rel=1e-6)  # logits are not rounded
    (3 * loss).backward()
    (3 * want).backward()
    for mine, right in zip(ours, theirs, strict=True):
        assert far(mine.grad, right.grad) < max(2 * step(dtype), 1e-6)
    assert bool(into_float32.calls) == (dtype in HALF)


@pytest.mark.parametrize("dtype", HALF)
def test_a_cpu_with_such_a_product_would_use_it(dtype, into_float32):
    tensors, target = problem(dtype)
    ours = leaves(tensors)
    loss = linear_cross_entropy(*ours[:2], target, bias=ours[2])
    want, theirs = truth(tensors, target)
    assert loss.item() == pytest.approx(want.item(), rel=1e-6)
    loss.backward()
    want.backward()
    for mine, right in zip(ours, theirs, strict=True):
        assert far(mine.grad, right.grad) < 2 * step(dtype)
    assert into_float32.calls


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(
    ("frozen", "reduction", "wanted"),
    [
        ("nothing", "mean", 3),
        ("weight", "mean", 2),
        ("hidden", "mean", 2),
        ("everything", "mean", 1),
        ("nothing", "none", 4),
    ],
)
def test_the_products_are_three_of_the_tokens_that_count(
    frozen, reduction, wanted, dtype, accelerator, into_float32
):
    (hidden, weight, _), target = problem(dtype)
    hidden.requires_grad_(frozen not in ("hidden", "everything"))
    weight.requires_grad_(frozen not in ("weight", "everything"))
    loss = linear_cross_entropy(hidden, weight, target, reduction=reduction)
    if loss.requires_grad:
        loss.sum().backward()
    assert into_float32.work == wanted * int((target != -100).sum()) * V * D


def test_a_chunk_has_as_many_tokens_as_a_hidden_state_has_numbers(accelerator, into_float32):
    rows = {d: sizes.chunk_of(torch.empty(1, d)) for d in (8, 64, 768, 4096, 16384)}
    assert rows == {8: 64, 64: 64, 768: 768, 4096: 4096, 16384: 4096}
    (hidden, weight, _), target = problem(torch.bfloat16)
    _here.log = log = []
    try:
        linear_cross_entropy(hidden.requires_grad_(), weight, target.clamp(min=0))
    finally:
        _here.log = None
    assert log[0].blocks == -(-N // D)


class Memory(TorchDispatchMode):
    """The bytes of the largest tensor that an operation made, but for views."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not function.is_view:
            self.largest = max(self.largest, out.numel() * out.element_size())
        return out


@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
@pytest.mark.parametrize("biased", [True, False])
def test_no_buffer_is_larger_than_the_head_in_float32(biased, dtype, accelerator, into_float32):
    (hidden, weight, bias), target = problem(dtype, n=900, v=2000)
    ours = leaves((hidden, weight))
    with Memory() as seen:
        linear_cross_entropy(*ours, target, bias=bias if biased else None).backward()
    assert seen.largest == 2000 * D * 4  # the logits of a chunk, and the gradient of the weight


@pytest.mark.parametrize("weight", [1e-9, 1e-3, 1e6])
def test_float16_neither_overflows_nor_vanishes(weight, accelerator, into_float32):
    # the gradient of a logit is some weight / V: 3e-14 to 30, where float16 has 6e-8 to 65504
    (hidden, head, _), _ = problem(torch.float16, n=8, d=8, v=2**15)
    target = torch.arange(8)
    rows = torch.full((8,), weight)
    rows[0] /= 3
    ours = leaves((hidden, head.float()))
    with torch.autocast("cpu", torch.float16):
        loss = linear_cross_entropy(*ours, target, sample_weight=rows, reduction="sum")
    loss.backward()
    theirs = leaves((hidden, head), torch.float64)
    want = F.cross_entropy(F.linear(*theirs), target, reduction="none") * rows
    want.sum().backward()
    assert loss.item() == pytest.approx(want.sum().item(), rel=1e-6)
    assert far(ours[1].grad, theirs[1].grad) < 2 * step(torch.float16)


def test_a_gradient_of_nearly_nothing_is_finite(accelerator, into_float32):
    ours, target = problem(torch.float16)
    ours = leaves(ours[:2])
    rows = torch.full((N,), 1e-37)
    linear_cross_entropy(*ours, target, sample_weight=rows, reduction="sum").backward()
    assert all(t.grad.isfinite().all() for t in ours)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_short_way_is_taken_where_it_knows_what_is_asked_for(name, accelerator, monkeypatch):
    calls = []
    monkeypatch.setattr(
        by_tokens, "settle", lambda *args, **options: calls.append(1) or settle(*args, **options)
    )
    (hidden, weight, _), target = problem(torch.float32)
    linear_cross_entropy(hidden.requires_grad_(), weight, target, **OPTIONS[name]).backward()
    assert bool(calls) == (name in ("plain", "z-loss", "weighted", "scaled"))
    calls.clear()
    soft = torch.rand(N, V, generator=torch.Generator().manual_seed(0)).softmax(1)
    linear_cross_entropy(hidden, weight, soft).backward()
    assert not calls


def test_autocast_narrows_the_head_part_by_part(accelerator, into_float32):
    tensors, target = problem(torch.float32)
    ours = leaves(tensors)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(*ours[:2], target, bias=ours[2])
    narrow = [*(t.bfloat16() for t in tensors[:2]), tensors[2]]
    want, theirs = truth(narrow, target)
    assert loss.item() == pytest.approx(want.item(), rel=1e-6)
    loss.backward()
    want.backward()
    for mine, right in zip(ours, theirs, strict=True):
        assert mine.grad.dtype == torch.float32
        assert far(mine.grad, right.grad) < step(torch.bfloat16)
    assert far(ours[2].grad, theirs[2].grad) < 1e-6  # summed before it is rounded


def test_a_teacher_wider_than_the_student_is_not_rounded(accelerator, into_float32):
    (hidden, weight, _), _ = problem(torch.bfloat16)
    taught, teacher = torch.randn(N, 24), torch.randn(V, 24) / 4
    for kind in (torch.float32, torch.bfloat16):
        heads = hidden, weight, taught.to(kind), teacher.to(kind)
        loss = linear_distillation_loss(*heads, alpha=1.0, temperature=1.0)
        student, other = (
            F.log_softmax(F.linear(*pair), 1)
            for pair in zip(*[iter(t.double() for t in heads)] * 2, strict=True)
        )
        want = F.kl_div(student, other, reduction="batchmean", log_target=True)
        assert loss.item() == pytest.approx(want.item(), rel=1e-6)


@pytest.mark.parametrize("way", [plainly, whole])
def test_a_class_that_only_adds_to_a_tensor_is_left_behind(way):
    class Named(torch.Tensor):
        pass

    heads = [torch.randn(s) for s in ((3, 2), (5, 2), (3, 4), (5, 4))]
    with way():
        want = linear_distillation_loss(*heads, alpha=1.0)
        for i in range(4):
            named = [*heads[:i], heads[i].as_subclass(Named), *heads[i + 1 :]]
            found = linear_distillation_loss(*named, alpha=1.0)
            assert type(found) is torch.Tensor
            assert torch.equal(found, want)


@pytest.mark.parametrize("way", [plainly, whole])
def test_the_dtype_of_soft_targets_does_not_change_that_of_the_result(way):
    shares = torch.rand(4, 3).softmax(1)
    with way():
        for dtype in (*HALF, torch.float32, torch.float64):
            hidden = torch.ones(4, 2, requires_grad=True)
            loss = linear_cross_entropy(hidden, torch.ones(3, 2), shares.to(dtype))
            assert loss.dtype == torch.float32


@pytest.mark.parametrize("way", [plainly, whole])
@pytest.mark.parametrize("learns", [True, False])
def test_a_sum_of_tokens_is_rounded_once(learns, way):
    # beside the first, each of the others is less than half a digit of float32
    rows = torch.ones(20)
    rows[0] = 2**26
    hidden, weight = torch.zeros(20, 1, requires_grad=learns), torch.zeros(2, 1)
    target = torch.zeros(20, dtype=torch.long)
    how = {"sample_weight": rows, "chunk": 8}
    with way():
        each = linear_cross_entropy(hidden, weight, target, reduction="none", **how)
        total = linear_cross_entropy(hidden, weight, target, reduction="sum", **how)
    assert torch.equal(total, each.double().sum().float())


def test_statistics_of_tokens_take_the_same_products(accelerator, into_float32):
    (hidden, weight, _), target = problem(torch.bfloat16)
    ours, theirs = leaves((hidden, weight)), leaves((hidden, weight), torch.float64)
    stats = linear_token_stats(*ours, target.clamp(min=0))
    log_p = F.log_softmax(F.linear(*theirs), 1)
    want = log_p.gather(1, target.clamp(min=0)[:, None]).squeeze(1)
    assert far(stats.log_prob, want) < 1e-6
    (stats.log_prob.sum() - stats.entropy.sum()).backward()
    (want.sum() + (log_p.exp() * log_p).sum()).backward()
    for mine, right in zip(ours, theirs, strict=True):
        assert far(mine.grad, right.grad) < 2 * step(torch.bfloat16)
    assert into_float32.calls


@pytest.mark.parametrize("dtype", HALF)
def test_the_operator_takes_the_same_products(dtype, accelerator, into_float32, monkeypatch):
    tensors, target = problem(dtype)
    ours = leaves(tensors[:2])
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        loss = linear_cross_entropy(*ours, target)
    loss.backward()
    want, theirs = truth(tensors[:2], target)
    want.backward()
    assert loss.item() == pytest.approx(want.item(), rel=1e-6)
    for mine, right in zip(ours, theirs, strict=True):
        assert far(mine.grad, right.grad) < 2 * step(dtype)
    assert into_float32.work == 4 * N * V * D  # of all tokens, and the logits once more


@pytest.mark.parametrize("block", [2**13, 2**7])  # some rows, or less than one
def test_without_such_a_product_bfloat16_is_cut_by_vocabulary(block, accelerator, monkeypatch):
    monkeypatch.setattr(sizes, "_LARGE_BLOCK", block)
    monkeypatch.setattr("aptt.core.linear.by_vocabulary._TOKENS", 64)
    tensors, target = problem(torch.bfloat16)
    ours = leaves(tensors)
    loss = linear_cross_entropy(*ours[:2], target, bias=ours[2])
    want, theirs = truth(tensors, target)
    loss.backward()
    want.backward()
    assert loss.item() == pytest.approx(want.item(), rel=1e-3)
    for mine, right in zip(ours, theirs, strict=True):
        assert far(mine.grad, right.grad) < 4 * step(torch.bfloat16)


def test_only_a_device_that_has_it_is_asked_for_it():
    assert product_in_float32(torch.device("cpu")) is None
    assert product_in_float32(torch.device("mps")) is None
    has = hasattr(torch.ops.aten.mm, "dtype_out") and torch.version.hip is None
    assert (product_in_float32(torch.device("cuda")) is not None) == has


class _Sharded(torch.nn.Linear):
    """What FSDP makes of a module."""

    def unshard(self):
        raise AssertionError


def test_a_head_that_is_sharded_is_refused():
    sharded = torch.nn.Sequential(_Sharded(3, 4))
    hidden, weight, target = torch.ones(2, 3), torch.ones(4, 3), torch.zeros(2, dtype=torch.long)
    with pytest.raises(TypeError, match=r"^weight: got Sequential, an FSDP unit"):
        linear_cross_entropy(hidden, sharded, target)
    with pytest.raises(TypeError, match=r"^weight: got Sequential, an FSDP unit"):
        linear_distillation_loss(hidden, sharded, hidden, weight, alpha=1.0)
    with pytest.raises(TypeError, match=r"^teacher_weight: got Sequential, an FSDP unit"):
        linear_distillation_loss(hidden, weight, hidden, sharded, alpha=1.0)


def test_a_part_of_a_vocabulary_may_be_empty():
    hidden, none = torch.ones(2, 3), torch.ones(0, 3)
    head = hidden, none, None
    assert check_heads(*head, *head, some_classes=True) == (2,)
    with pytest.raises(ValueError, match=r"^weight: got shape \(0, 3\), with no class"):
        check_heads(*head, *head)


# -------------------------------------------------------------------------------- in place


@pytest.mark.parametrize("form", [Form(), Form(z_loss=1e-2)])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_in_place_it_is_the_formula(dtype, weighted, form):
    g = torch.Generator().manual_seed(0)
    z = (4 * torch.randn(9, 7, generator=g, dtype=torch.float64)).to(dtype)
    y, up = torch.arange(9) % 7, torch.linspace(-1, 2, 9, dtype=dtype)
    z[1] = torch.tensor([0, 60, -60, 1, 2, 3, 4])  # sure, and right: y is 1
    z[2] = torch.tensor([90, 0, -90, 1, 2, 3, 4])  # sure, and wrong
    z[3, 4:] = -torch.inf  # classes masked
    z[4, :4] = z[4, 5:] = -torch.inf  # all others masked
    z[5] += 6e4
    z[6, 6] = -torch.inf  # the target is masked
    weights = torch.linspace(0, 1, 7, dtype=dtype) if weighted else None
    options = {"class_weight": weights, "form": form, "adjustment": None}
    exact = {**options, "class_weight": None if weights is None else weights.double()}
    x = z.double()
    kept = INDICES.measure(x, [y], exact)
    want = INDICES.result(x, kept, y, **exact)
    _, slope = INDICES.step(x, up.double(), kept, y, **exact)
    assert slope[4].isfinite().all()
    rtol = 2e-6 if dtype == torch.float32 else 1e-13
    for out in (z.clone(), torch.empty(9, 7, dtype=torch.bfloat16)):
        mine = z.clone() if out.dtype != dtype else out
        loss = settle(mine, y, up, out, scale=0.5, **options)
        torch.testing.assert_close(loss.double(), want, rtol=rtol, atol=0)
        near = max(rtol, step(out.dtype))
        torch.testing.assert_close(out.double(), 0.5 * slope, rtol=near, atol=1e-30)
    torch.testing.assert_close(settle(z, y, None, None, scale=0.5, **options).double(), want,
                               rtol=rtol, atol=0)  # fmt: skip


def test_in_place_there_may_be_one_class():
    z, y = torch.randn(3, 1), torch.zeros(3, dtype=torch.long)
    options = {"class_weight": None, "form": Form(), "adjustment": None}
    loss = settle(z, y, torch.ones(3), z, scale=1.0, **options)
    assert loss.eq(0).all()
    assert z.eq(0).all()
