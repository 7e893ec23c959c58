"""Class by class against all classes at once, and both against the definition."""

from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aptt.audit.ways import in_blocks, plainly, whole
from aptt.core.lovasz import lovasz_sums, steps, sums


@contextmanager
def _at_once():
    """The form for an accelerator, on the CPU."""
    with pytest.MonkeyPatch.context() as patch, whole() as walked:
        patch.setattr(sums, "at_once", lambda x: True)
        yield walked


WAYS = [
    pytest.param(plainly, id="plain"),
    pytest.param(in_blocks, id="in blocks"),
    pytest.param(_at_once, id="at once"),
]


def _inputs(dtype=torch.float64, pixels=11, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, pixels, dtype=torch.float64, generator=g).to(dtype)
    y = torch.randint(3, (2, pixels), generator=g)
    return x, y, torch.rand(2, pixels, dtype=torch.float64, generator=g)


def _hot(y):
    return torch.nn.functional.one_hot(y, 3).movedim(-1, 1)


def _by_subsets(errors, foreground, weight):
    """The definition: each error times the step of the Jaccard loss of the first k mistakes."""
    order = errors.argsort(descending=True)
    truth = weight[foreground].sum()
    value, before = 0.0, 0.0
    for k in range(1, len(errors) + 1):
        wrong = order[:k]
        missed = weight[wrong[foreground[wrong]]].sum()
        invented = weight[wrong[~foreground[wrong]]].sum()
        jaccard = 1 - (truth - missed) / (truth + invented)
        value = value + errors[order[k - 1]] * (jaccard - before)
        before = jaccard
    return value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("softmax", [True, False])
def test_by_its_definition(way, weighted, batch, softmax):
    x, y, w = _inputs()
    hot = _hot(y)
    t, p = hot.bool(), x.softmax(1)
    errors = (hot - p).abs() if softmax else torch.relu(1 - x * (2 * hot - 1))
    by = (w if weighted else torch.ones_like(w))[:, None].expand_as(x)
    pools = [slice(None)] if batch else [0, 1]
    want = [
        [_by_subsets(*(a[i][..., c, :].flatten() for a in (errors, t, by))) for c in range(3)]
        for i in pools
    ]
    want = torch.tensor(want).double()
    with way():
        got = lovasz_sums(
            x,
            y if softmax else hot,
            w if weighted else None,
            softmax=softmax,
            batch=batch,
            absent=False,
        )
    torch.testing.assert_close(got, want[0] if batch else want, rtol=1e-12, atol=0)


def _value_and_gradient(x, target, w, up, **options):
    p = x.clone().requires_grad_()
    loss = lovasz_sums(p, target, w, **options)
    return loss.detach(), torch.autograd.grad(loss, p, up)[0]


@pytest.mark.parametrize("chunk", [1, 4, 7, 1000])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("softmax", [True, False])
def test_class_by_class_is_the_plain_form_with_its_gradient(
    monkeypatch, softmax, batch, weighted, chunk
):
    monkeypatch.setattr(steps, "_CHUNK", chunk)
    x, y, w = _inputs(pixels=23)
    if weighted:
        w[:, ::5] = 0
        x[..., ::5] = torch.nan
    target = y if softmax else _hot(y)
    up = torch.randn((3,) if batch else (2, 3), dtype=torch.float64)
    found = []
    for way in (plainly, in_blocks, _at_once):
        with way():
            found.append(
                _value_and_gradient(
                    x,
                    target,
                    w if weighted else None,
                    up,
                    softmax=softmax,
                    batch=batch,
                    absent=True,
                )
            )
    for plain, walked, at_once in zip(*found, strict=True):
        torch.testing.assert_close(walked, plain, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(at_once, plain, rtol=1e-12, atol=1e-15)
    assert found[1][1].any()
    if weighted:
        assert not found[1][1][..., ::5].any()


@pytest.mark.parametrize(("pixels", "weighted"), [(17, True), (2, False)])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("softmax", [True, False])
def test_compiled_it_is_the_same(softmax, batch, weighted, pixels):
    x, y, w = _inputs(pixels=pixels)
    if weighted:
        w[:, ::5] = 0
        x[..., ::5] = torch.inf
    target = y if softmax else _hot(y)
    up = torch.randn((3,) if batch else (2, 3), dtype=torch.float64)

    def both(call):
        p = x.clone().requires_grad_()
        loss = call(p, target, w if weighted else None)
        return loss.detach(), torch.autograd.grad(loss, p, up)[0]

    def call(*args):
        return lovasz_sums(*args, softmax=softmax, batch=batch, absent=True)

    torch._dynamo.reset()
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(both(compiled), both(call), rtol=1e-12, atol=1e-15)


def test_pixel_weights_get_a_gradient():
    x, y, w = _inputs()
    w.requires_grad_()
    loss = lovasz_sums(x, y, w, softmax=True, batch=True, absent=True)
    (slope,) = torch.autograd.grad(loss.sum(), w)
    step = 1e-6 * torch.randn(w.shape, dtype=torch.float64)
    with torch.no_grad():
        there, back = (
            lovasz_sums(x, y, w + d, softmax=True, batch=True, absent=True).sum()
            for d in (step, -step)
        )
    torch.testing.assert_close((slope * step).sum(), (there - back) / 2, rtol=1e-6, atol=0)


@pytest.mark.parametrize("way", WAYS)
def test_a_class_without_foreground_costs_its_largest_error(way):
    x, _, _ = _inputs()
    y = torch.zeros(2, 11, dtype=torch.long)
    p = x.clone().requires_grad_()
    with way():
        loss = lovasz_sums(p, y, None, softmax=True, batch=True, absent=True)
        (gradient,) = torch.autograd.grad(loss[1], p)
    most = x.softmax(1)[:, 1].flatten()
    torch.testing.assert_close(loss[1], most.max())
    reached = gradient.abs().sum(1).flatten().nonzero().flatten()
    assert reached.tolist() == [int(most.argmax())]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("softmax", [True, False])
def test_what_is_nearly_right_keeps_its_digits(way, softmax):
    # 1 - p is 5e-7 there: as a difference, float32 would keep one digit of it
    x, y, _ = _inputs(pixels=101)
    if softmax:
        x = (x / 10 + 16 * _hot(y) - 8).float()
    else:
        x = ((2 * _hot(y) - 1) * (1 - x.abs() * 1e-4)).float()
    options = {"softmax": softmax, "batch": True, "absent": False}
    up = torch.rand(3, dtype=torch.float64)
    target = y if softmax else _hot(y)
    with way():
        value, gradient = _value_and_gradient(x, target, None, up.float(), **options)
    truth, slope = _value_and_gradient(x.double(), target, None, up, **options)
    torch.testing.assert_close(value.double(), truth, rtol=3e-6, atol=0)
    torch.testing.assert_close(gradient.double(), slope, rtol=5e-6, atol=0)


@pytest.mark.parametrize("weighted", [True, False])
def test_steps_do_not_cancel_in_float32(weighted):
    # as differences of J, which is near 1, float32 would lose them: they are near 1e-11
    n = 2**20
    h = torch.zeros(n, dtype=torch.bool)
    h[:9] = True
    total, nothing = torch.full((1,), 9.0), torch.zeros(1)
    h = h[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    w = torch.ones(n) if weighted else None
    found, hit, false = steps._steps(h, w, total, nothing, nothing)
    exact, _, _ = steps._steps(h, w, total.double(), nothing, nothing)
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)
    assert (hit, false) == (9, n - 9)
    union = 9 + (~h).double().cumsum(0)
    jaccard = 1 - (9 - h.double().cumsum(0)) / union
    torch.testing.assert_close(exact.cumsum(0), jaccard, rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_errors_are_ordered_by_their_bits(dtype):
    e = torch.rand(1000, dtype=dtype, generator=torch.Generator().manual_seed(0))
    e[::7] = 0.0
    e[::11] = 1.0
    e[5] = 1e5
    e[6] = torch.finfo(dtype).tiny / 4
    for found, wanted in zip(steps._falling(e), e.sort(descending=True, stable=True), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_of_the_input_s_size_only_the_steps_are_kept_in_float32():
    x, y, _ = _inputs(torch.bfloat16)
    p = x.clone().requires_grad_()
    saved = []

    def pack(t):
        saved.append((t.shape, t.dtype))
        return t

    with in_blocks(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = lovasz_sums(p, y, None, softmax=True, batch=True, absent=False)
    assert loss.dtype == torch.float32
    assert [d for shape, d in saved if shape == x.shape] == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("softmax", [True, False])
def test_weights_of_all_sizes_are_counted_in_parts_of_the_largest(softmax):
    # in integers, the same in any order of addition: here 56 bits below the largest weight
    x, y, _ = _inputs(pixels=30)
    w = 10 ** (4 * torch.rand(2, 30, dtype=torch.float64) - 8)
    target, up = y if softmax else _hot(y), torch.rand(3, dtype=torch.float64)
    options = {"softmax": softmax, "batch": True, "absent": True}
    with plainly():
        wanted = _value_and_gradient(x, target, w, up, **options)
    with _at_once():
        found = _value_and_gradient(x, target, w, up, **options)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("kind", [None, torch.bool, torch.float64])
@pytest.mark.parametrize("softmax", [True, False])
def test_at_once_nothing_is_asked_for_whose_order_of_addition_counts(softmax, kind):
    x, y, w = _inputs()
    w = None if kind is None else (w > 0.3).to(kind)
    floating, names = set(), []

    class Asked(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            name = op._schema.name.removeprefix("aten::")
            names.append(name)
            if isinstance(args[0], torch.Tensor) and args[0].is_floating_point():
                floating.add(name)
            return op(*args, **(kwargs or {}))

    with _at_once(), Asked():
        options = {"softmax": softmax, "batch": True, "absent": True}
        lovasz_sums(x.requires_grad_(), y if softmax else _hot(y), w, **options).sum().backward()
    assert names.count("sort") == 1  # of all classes
    assert names.count("cumsum") == 1 + (kind is torch.float64)
    assert not {"cumsum", "scatter_add", "scatter_add_", "index_add_"} & floating
    assert not {"bmm", "mm", "item", "nonzero"} & set(names)
