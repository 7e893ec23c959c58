"""The sums of a region loss against their definition, and their gradient against autograd."""

from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aptt.audit.ways import in_blocks, plainly, whole
from aptt.core.engine import at_once
from aptt.core.overlap import overlap_sums
from aptt.core.overlap import sums as choice
from aptt.core.overlap.cost import Ask
from aptt.core.overlap.dense import LABELS, SHARES
from aptt.core.overlap.indices import AT_ONCE, INDICES


@contextmanager
def _together():
    """The form for an accelerator, on the CPU, in the single block that it has there."""
    with pytest.MonkeyPatch.context() as patch, whole() as walked:
        patch.setattr(choice, "at_once", lambda x: True)
        patch.setattr(choice, "removes", lambda x, t, w: w is not None)  # nobody looks there
        yield walked


WAYS = [
    pytest.param(plainly, id="plain"),
    pytest.param(in_blocks, id="in blocks"),
    pytest.param(_together, id="in one block"),
]
KINDS = ["indices", "labels", "shares", "classes"]
EXTRAS = [
    pytest.param({}, id="three"),
    pytest.param({"common": True}, id="common"),
    pytest.param({"gamma": 0.0}, id="cross-entropy"),
    pytest.param({"gamma": 0.5}, id="gamma 0.5"),
    pytest.param({"gamma": 2.0}, id="gamma 2"),
]


def _inputs(kind="indices", shape=(2, 3, 11), seed=0):
    """Logits, a target of the kind, and weights of pixels."""
    g = torch.Generator().manual_seed(seed)
    n, c, s = shape
    x = 2 * torch.randn(shape, dtype=torch.float64, generator=g)
    w = torch.rand(n, s, dtype=torch.float64, generator=g)
    if kind == "indices":
        return x, torch.randint(c, (n, s), generator=g), w
    if kind == "labels":
        return x, torch.randint(2, shape, generator=g), w
    t = torch.rand(shape, dtype=torch.float64, generator=g)
    return x, t if kind == "shares" else t / t.sum(1, keepdim=True), w


def _hot(y, classes):
    return torch.nn.functional.one_hot(y, classes).movedim(-1, 1).double()


def _softmax(kind):
    return kind in ("indices", "together", "classes")


def _possible(kind, extra):
    return not (kind in ("shares", "classes") and extra.get("gamma"))


CASES = [
    pytest.param(kind, *extra.values, id=f"{kind}, {extra.id}")
    for kind in KINDS
    for extra in EXTRAS
    if _possible(kind, extra.values[0])
]


def _by_definition(x, t, w, *, softmax, gamma=None, common=False):
    """From p and t as they are."""
    hard = t.ndim < x.ndim
    p = x.softmax(1) if softmax else x.sigmoid()
    t = _hot(t, x.shape[1]) if hard else t.double()
    sums = [t, (p - t).relu(), (t - p).relu()]
    if common:
        sums.append(torch.minimum(p, t))
    if gamma is not None and softmax:
        sums.append(t * (1 - p) ** gamma * -p.log())
    elif gamma is not None:
        q = torch.where(t == 1, p, 1 - p)
        soft = -(t * p.log() + (1 - t) * (1 - p).log())
        sums.append((1 - q) ** gamma * -q.log() if gamma else soft)
    by = 1 if w is None else w.unsqueeze(1)
    return torch.stack([(each * by).sum(2) for each in sums], -1)


def _both(call, x, up):
    x = x.clone().requires_grad_()
    sums = call(x)
    return sums.detach(), torch.autograd.grad(sums, x, up)[0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("kind", "extra"), CASES)
def test_sums_and_gradient_by_their_definition(kind, extra, weighted, way):
    x, t, w = _inputs(kind)
    w = w if weighted else None
    options = {"softmax": _softmax(kind), **extra}
    up = torch.randn(2, 3, 3 + bool(extra), dtype=torch.float64)
    with way():
        found = _both(lambda x: overlap_sums(x, t, w, **options), x, up)
    wanted = _both(lambda x: _by_definition(x, t, w, **options), x, up)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(
    ("kind", "extra"),
    [*CASES, *(pytest.param("together", *e.values, id=f"together, {e.id}") for e in EXTRAS)],
)
def test_the_step_is_autograd_of_the_definition(kind, extra, weighted):
    x, t, w = _inputs("indices" if kind == "together" else kind)
    formula = {
        "indices": INDICES,
        "together": AT_ONCE,
        "labels": LABELS,
        "shares": SHARES,
        "classes": SHARES,
    }[kind]
    options = {"gamma": None, "common": False, **extra}
    ask = Ask(_softmax(kind), removes=weighted, **options)
    sides = (t, w.unsqueeze(1) if weighted else None)
    up = torch.randn(2, 3, 3 + bool(extra), dtype=torch.float64)

    def define(x):
        return formula.define(x, formula.measure(x, sides, {"ask": ask}), sides, {"ask": ask})

    sums, slope = _both(define, x, up)
    with torch.no_grad():
        kept = formula.measure(x, sides, {"ask": ask})
        torch.testing.assert_close(formula.result(x, kept, *sides, ask=ask), sums)
        _, dx = formula.step(x, up, kept, *sides, ask=ask)
    torch.testing.assert_close(dx, slope, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(("shape", "weighted"), [((2, 3, 17), True), ((1, 2, 1), False)])
@pytest.mark.parametrize(("kind", "extra"), CASES)
def test_compiled_it_is_the_same(kind, extra, weighted, shape):
    x, t, w = _inputs(kind, shape)
    if weighted:
        w[:, ::3] = 0
        x[..., ::3] = torch.nan
    options = {"softmax": _softmax(kind), **extra}
    up = torch.randn(*shape[:2], 3 + bool(extra), dtype=torch.float64)

    def call(x):
        return overlap_sums(x, t, w if weighted else None, **options)

    torch._dynamo.reset()
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    found, wanted = _both(compiled, x, up), _both(call, x, up)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-13)
    assert wanted[1].isfinite().all()


@pytest.mark.parametrize("way", WAYS)
def test_a_soft_target_is_best_matched_by_itself(way):
    x, _, _ = _inputs()
    with way():
        truth, false, missed, common = overlap_sums(
            x, x.sigmoid(), None, softmax=False, common=True
        ).unbind(-1)
    torch.testing.assert_close(common, truth, rtol=1e-13, atol=0)
    assert (false <= 1e-14).all()
    assert (missed <= 1e-14).all()


@pytest.mark.parametrize("softmax", [True, False])
def test_halves_are_shares(softmax):
    x, _, _ = _inputs(shape=(2, 2, 11))
    t = torch.full_like(x, 0.5)
    found = overlap_sums(x, t, None, softmax=softmax)
    torch.testing.assert_close(
        found, _by_definition(x, t, None, softmax=softmax), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_pixel_of_weight_0_is_not_there_whatever_it_holds(way, kind, poison):
    x, t, w = _inputs(kind)
    w[:, ::3] = 0
    kept = [i for i in range(11) if i % 3]
    bad = x.clone()
    bad[:, :, ::3] = poison
    bad.requires_grad_()
    worse = t.clone()
    if kind in ("shares", "classes"):
        worse[:, :, ::3] = poison
    options = {"softmax": _softmax(kind), "gamma": 0.0}
    with way():
        sums = overlap_sums(bad, worse, w, **options)
        want = overlap_sums(x[:, :, kept], t[..., kept], w[:, kept], **options)
        sums.square().sum().backward()
    torch.testing.assert_close(sums, want, rtol=1e-13, atol=0)
    assert not bad.grad[:, :, ::3].any()
    assert bad.grad[:, :, kept].all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("removed", [True, False])
def test_nan_in_a_pixel_that_counts_is_not_hidden(way, removed):
    x, y, w = _inputs()
    x[0, 1, 4] = torch.nan
    w[:, 0] = 0 if removed else w[:, 0]
    with way():
        assert overlap_sums(x, y, w, softmax=True)[0].isnan().any()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_an_infinite_logit_that_is_right_costs_nothing(way, gamma):
    inf = float("inf")
    x = torch.tensor([[[-inf, 1.0, inf, -2.0]]], requires_grad=True)
    t = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
    with way():
        sums = overlap_sums(x, t, None, softmax=False, gamma=gamma)
        sums[..., 3].sum().backward()
        want = overlap_sums(x.detach()[..., 1::2], t[..., 1::2], None, softmax=False, gamma=gamma)
    torch.testing.assert_close(sums[..., 3], want[..., 3])
    assert (x.grad[..., ::2] == 0).all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", ["indices", "labels", "shares", "one hot"])
@pytest.mark.parametrize("height", [4.0, 8.0, 16.0])
def test_errors_of_confident_pixels_keep_their_digits_in_float32(monkeypatch, way, form, height):
    # 1 - p is 2e-7 at a height of 8: as a difference, float32 would keep no digit of it
    x, y, _ = _inputs(shape=(2, 3, 500))
    hot = _hot(y, 3)
    x = (x / 20 + height * (2 * hot - 1)).float()
    t = {"indices": y, "labels": hot.bool(), "shares": hot.float(), "one hot": hot.float()}[form]
    softmax = form in ("indices", "one hot")
    up = torch.rand(2, 3, 3)
    if form == "shares":  # as under a compiler, which cannot see that they are hard
        monkeypatch.setattr(choice, "_is_hard", lambda t: False)
    with way():
        found = _both(lambda x: overlap_sums(x, t, None, softmax=softmax), x, up)
    exact = t if t.ndim < 3 else t.double()
    wanted = _both(lambda x: overlap_sums(x, exact, None, softmax=softmax), x.double(), up.double())
    torch.testing.assert_close(found[0].double(), wanted[0], rtol=2e-6, atol=0)
    error = (found[1].double() - wanted[1]).norm() / wanted[1].norm()
    assert error < 2e-6


@pytest.mark.parametrize("way", WAYS)
def test_a_tiny_overlap_keeps_its_digits_in_float32(way):
    x = torch.full((1, 2, 30), -60.0)
    t = torch.ones(1, 2, 30)
    with way():
        common = overlap_sums(x, t, None, softmax=False, common=True)[..., 3]
        y = torch.zeros(1, 30, dtype=torch.long)
        z = torch.stack((x[:, 0], -x[:, 0] / 60), 1)
        ours = overlap_sums(z, y, None, softmax=True, common=True)[0, 0, 3]
    torch.testing.assert_close(common, 30 * torch.full((1, 2), -60.0).sigmoid(), rtol=1e-5, atol=0)
    exact = 30 * torch.tensor(-61.0).sigmoid()
    torch.testing.assert_close(ours, exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("softmax", [True, False])
def test_targets_and_weights_get_a_gradient(softmax):
    x, t, w = _inputs("classes")
    up = torch.randn(2, 3, 4, dtype=torch.float64)
    for ours, theirs in zip(
        *(
            torch.autograd.grad(call(x, t, w, softmax=softmax, gamma=0.0), (t, w), up)
            for call in (overlap_sums, _by_definition)
            if (t.requires_grad_(), w.requires_grad_())
        ),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_prediction_s_size_is_held(kind):
    x, t, _ = _inputs(kind, (2, 7, 40))
    saved = set()

    def pack(s):
        if s.numel() >= x.numel() and s.untyped_storage().data_ptr() not in ours:
            saved.add(s.untyped_storage().data_ptr())
        return s

    x.requires_grad_()
    ours = {v.untyped_storage().data_ptr() for v in (x, t)}
    with in_blocks(100), torch.autograd.graph.saved_tensors_hooks(pack, lambda s: s):
        overlap_sums(x, t, None, softmax=_softmax(kind), gamma=0.0)
    assert not saved


def test_the_step_has_no_product_that_a_gpu_would_round():
    # torch.bmm in it was TF32 where allowed: 18 % off in Dice of confident pixels
    x, y, w = _inputs()
    x.requires_grad_()
    with torch.profiler.profile() as profile:
        overlap_sums(x, y, w, softmax=True, gamma=2.0).sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert names
    assert not {"aten::bmm", "aten::mm", "aten::matmul", "aten::baddbmm"} & names


class _Asked(TorchDispatchMode):
    """What a device would be asked to do: operators, without views and new memory."""

    def __init__(self):
        super().__init__()
        self.names, self.floating = [], []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        name = op._schema.name.removeprefix("aten::")
        if not op.is_view and name not in ("detach", "empty_like", "_unsafe_view"):
            self.names.append(name)
            if isinstance(args[0], torch.Tensor) and args[0].is_floating_point():
                self.floating.append(name)
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("extra", "most"),
    [({}, 26), ({"gamma": 0.0}, 40), ({"gamma": 2.0}, 58), ({"common": True}, 34)],
)
@pytest.mark.parametrize("mask", [True, False])
def test_in_one_block_few_operators_are_asked_for_and_none_whose_order_counts(extra, most, mask):
    x, y, w = _inputs()
    w = w > 0.5 if mask else w
    with _together(), _Asked() as asked:
        sums = overlap_sums(x.requires_grad_(), y, w, softmax=True, **extra)
        sums.sum().backward()
    assert 20 < len(asked.names) <= most + 8 * (not mask)
    assert not {"bmm", "mm", "_local_scalar_dense", "nonzero"} & set(asked.names)
    assert not {"scatter_add", "scatter_add_", "index_add_", "cumsum"} & set(asked.floating)
    assert "scatter_add_" in asked.names if mask else "scatter_add_" not in asked.names


def test_a_small_call_is_one_block_and_a_walk_of_a_test_is_many(monkeypatch):
    small, large = torch.zeros(2, 4, 32, 32), torch.zeros(2, 21, 64, 64)
    assert at_once(small)
    assert not at_once(large)
    with in_blocks():
        assert not at_once(small)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not at_once(small)
