"""The loss head: every result is that of the whole logits, which never exist."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from aptt.audit.ways import in_blocks, plainly
from aptt.core.linear import by_tokens, opaque
from aptt.loss import (
    LinearCrossEntropyLoss,
    cross_entropy,
    linear_cross_entropy,
    linear_token_stats,
)

N, D, V = 37, 6, 50
DOUBLE = torch.float64
PER_CLASS = torch.rand(V, dtype=DOUBLE, generator=torch.Generator().manual_seed(7)) + 0.1
OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "z-loss": {"z_loss": 1e-2},
    "weighted": {"class_weight": PER_CLASS, "label_smoothing": 0.2, "z_loss": 1e-2},
    "capped, scaled": {"softcap": 3.0, "scale": 0.7, "label_smoothing": 0.1},
    "adjusted": {"logit_adjustment": PER_CLASS.log()},
}
CHUNKS = [1, 7, N, 4 * N, None]


@pytest.fixture(autouse=True)
def _walks():
    """Small inputs take the walks too."""
    with in_blocks(2**12):
        yield


def problem(dtype=DOUBLE, n=N, seed=0, d=D, v=V):
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, d, dtype=DOUBLE, generator=g).to(dtype)
    weight = torch.randn(v, d, dtype=DOUBLE, generator=g).to(dtype)
    bias = torch.randn(v, dtype=DOUBLE, generator=g).to(dtype)
    target = torch.randint(v, (n,), generator=g)
    target[::5] = -100
    return hidden, weight, bias, target


def whole(hidden, weight, target, *, bias=None, scale=1.0, **options):
    """The same from all the logits, in float64, by torch's own functions and autograd."""
    hidden, weight = hidden.double(), weight.double()
    z = scale * F.linear(hidden, weight, None if bias is None else bias.double())
    weights = options.pop("class_weight", None)
    cap, adjustment = options.pop("softcap", None), options.pop("logit_adjustment", None)
    z = z if cap is None else cap * torch.tanh(z / cap)
    z = z if adjustment is None else z + adjustment
    z_loss = options.pop("z_loss", 0.0)
    keep = target != options.get("ignore_index", -100)
    loss = F.cross_entropy(z, target, weight=weights, reduction="none", **options)
    of_y = (
        keep
        * (torch.ones(len(weight), dtype=DOUBLE) if weights is None else weights)[target * keep]
    )
    return loss + z_loss * of_y * z.logsumexp(-1) ** 2, of_y


def leaves(*tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


def far(a, b):
    """Relative distance in norm."""
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", OPTIONS)
def test_value_and_gradients_are_those_of_all_the_logits(name, chunk):
    hidden, weight, bias, target = problem()
    ours, theirs = leaves(hidden, weight, bias), leaves(hidden, weight, bias)
    loss = linear_cross_entropy(*ours[:2], target, bias=ours[2], chunk=chunk, **OPTIONS[name])
    values, mass = whole(*theirs[:2], target, bias=theirs[2], **OPTIONS[name])
    want = values.sum() / mass.sum()
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=0)
    (3 * loss).backward()
    (3 * want).backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-10, atol=1e-14)
    assert (ours[0].grad[target == -100] == 0).all()


@pytest.mark.parametrize("chunk", CHUNKS)
def test_each_token_takes_an_upstream_gradient_of_its_own(chunk):
    # Liger's reduction="none" returned plausible numbers that were wrong until July 2026
    hidden, weight, bias, target = problem()
    up = torch.randn(N, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    ours, theirs = leaves(hidden, weight, bias), leaves(hidden, weight, bias)
    loss = linear_cross_entropy(
        *ours[:2], target, bias=ours[2], chunk=chunk, z_loss=1e-2, reduction="none"
    )
    want, _ = whole(*theirs[:2], target, bias=theirs[2], z_loss=1e-2)
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=0)
    loss.backward(up)
    want.backward(up)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", OPTIONS)
def test_gradcheck_once_and_twice(name):
    hidden, weight, bias, target = problem(n=5, d=3, v=6)
    options = {k: v[:6] if isinstance(v, torch.Tensor) else v for k, v in OPTIONS[name].items()}
    target[1] = -100

    def loss(h, w, b):
        return linear_cross_entropy(h, w, target, bias=b, chunk=2, **options)

    inputs = leaves(hidden, weight, bias)
    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


def test_soft_targets_weights_and_adjustments_get_a_gradient_that_ask_for_it():
    hidden, weight, _, _ = problem(n=4, d=3, v=6)
    soft = torch.rand(4, 6, dtype=DOUBLE).softmax(1)
    of_class, of_token = torch.rand(6, dtype=DOUBLE), torch.rand(4, dtype=DOUBLE)

    def loss(h, w, t, c, s, a):
        return linear_cross_entropy(
            h, w, t, class_weight=c, sample_weight=s, logit_adjustment=a, chunk=3
        )

    inputs = leaves(hidden, weight, soft, of_class, of_token, of_class.log())
    assert torch.autograd.gradcheck(loss, inputs)
    want = cross_entropy(
        hidden @ weight.T, soft, weight=of_class, sample_weight=of_token,
        logit_adjustment=of_class.log(),
    )  # fmt: skip
    torch.testing.assert_close(loss(*inputs), want)


@pytest.mark.parametrize("chunks", [1, 8, 32, 128])
def test_bfloat16_is_as_good_at_any_number_of_chunks(chunks):
    # torch 2.13 F.linear_cross_entropy sums loss and gradient in bfloat16: 2e-2 and 1.2e-2 at 128
    n = 512
    hidden, weight, bias, target = problem(torch.bfloat16, n=n, d=64, v=4096)
    weight.mul_(0.125)
    ours, theirs = (
        leaves(hidden, weight, bias),
        leaves(*(t.double() for t in (hidden, weight, bias))),
    )
    loss = linear_cross_entropy(*ours[:2], target, bias=ours[2], chunk=n // chunks)
    values, mass = whole(*theirs[:2], target, bias=theirs[2])
    want = values.sum() / mass.sum()
    assert loss.dtype == torch.float32
    assert abs(loss.item() / want.item() - 1) < 1e-4
    loss.backward()
    want.backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad.dtype == torch.bfloat16
        assert far(mine.grad, other.grad) < 2 * 2**-9


@pytest.mark.parametrize("chunk", [1, 16, None])
def test_float16_under_a_loss_scale_is_no_worse_than_all_the_logits(chunk):
    # torch's chunked form divides by N before it rounds; no loss scale brings back what is 0 then
    hidden, weight, _, target = problem(torch.float16, n=256, d=32, v=2048)
    truth = leaves(hidden.double(), weight.double())
    values, mass = whole(*truth, target)
    (values.sum() / mass.sum()).backward()
    ours, eager = leaves(hidden, weight), leaves(hidden, weight)
    (1024 * linear_cross_entropy(*ours, target, chunk=chunk)).backward()
    (1024 * F.cross_entropy(F.linear(*eager).float(), target)).backward()
    for mine, theirs, right in zip(ours, eager, truth, strict=True):
        error = far(mine.grad.double() / 1024, right.grad)
        assert error < 2 * 2**-11
        assert error <= 1.05 * far(theirs.grad.double() / 1024, right.grad)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32, torch.bfloat16, torch.float16])
def test_given_back_twice_it_is_the_same_twice(dtype):
    # Liger and FLA scale their saved gradient in place, so that a second backward is scaled twice
    hidden, weight, _, target = problem(dtype)
    ours = leaves(hidden, weight)
    loss = linear_cross_entropy(*ours, target, chunk=8)
    first = torch.autograd.grad(0.5 * loss, ours, retain_graph=True)
    second = torch.autograd.grad(0.5 * loss, ours, retain_graph=True)
    third = torch.autograd.grad(loss + 3 * loss, ours)
    for a, b, c in zip(first, second, third, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        torch.testing.assert_close(c, 8 * a, rtol=2**-7, atol=2**-7 * a.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_what_is_ignored_may_be_nan(dtype, reduction):
    hidden, weight, _, target = problem(dtype)
    poisoned = hidden.clone()
    poisoned[target == -100] = torch.nan
    for drop in (True, False):
        clean, bad = leaves(hidden, weight), leaves(poisoned, weight)
        how = {"chunk": 8, "reduction": reduction, "drop_ignored": drop}
        want = linear_cross_entropy(*clean, target, **how)
        loss = linear_cross_entropy(*bad, target, **how)
        torch.testing.assert_close(loss, want, rtol=0, atol=0)
        loss.sum().backward()
        want.sum().backward()
        for a, b in zip(bad, clean, strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("case", ["all ignored", "no token", "weights of 0", "class weights of 0"])
def test_nothing_to_average_is_a_zero_on_the_graph(case, drop, dtype):
    # torch gives NaN with NaN gradients, torchtune a constant that backward refuses
    hidden, weight, _, target = problem(dtype)
    options = {}
    if case == "all ignored":
        target = torch.full_like(target, -100)
    elif case == "no token":
        hidden, target = hidden[:0], target[:0]
    elif case == "weights of 0":
        options["sample_weight"] = torch.zeros(N)
    else:
        options["class_weight"] = torch.zeros(V)
    hidden, weight = leaves(hidden, weight)
    loss = linear_cross_entropy(hidden, weight, target, drop_ignored=drop, **options)
    assert loss.item() == 0
    loss.backward()
    assert (hidden.grad == 0).all()
    assert (weight.grad == 0).all()


def test_an_index_of_the_vocabulary_may_be_the_ignored_one():
    hidden, weight, _, target = problem()
    target = target.clamp_min(0)
    loss = linear_cross_entropy(hidden, weight, target, ignore_index=int(target[1]))
    want = F.cross_entropy(hidden @ weight.T, target, ignore_index=int(target[1]))
    torch.testing.assert_close(loss, want)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["sure", "far offset", "masked", "near ties far out"])
def test_hard_logits(case, dtype):
    """Sure and right, wrong by more than exp holds, a large common offset, a class masked."""
    hidden = torch.tensor([[60, 0, 0, 0], [0, 200, 0, 0], [0, 0, 0, 120], [0, 1, 2, 3]])
    hidden = hidden.to(dtype) + (16384 if case == "far offset" else 0)
    if case == "near ties far out":
        hidden = torch.full((4, 4), 6e4).to(dtype)
    bias = torch.tensor([0, 0, 0, -torch.inf if case == "masked" else 0]).to(dtype)
    target = torch.tensor([0, 0, 2, 1])
    ours = leaves(hidden, torch.eye(4, dtype=dtype))
    loss = linear_cross_entropy(*ours, target, bias=bias, label_smoothing=0.1, reduction="none")
    logits = (hidden.double() + bias.double()).requires_grad_()
    want = cross_entropy(logits, target, label_smoothing=0.1, reduction="none")
    exact = dtype != torch.bfloat16 or case != "far offset"  # 16384 + 60 is none of its numbers
    assert exact or (hidden.double() % 128 == 0).all()
    torch.testing.assert_close(loss.double(), want, rtol=1e-6, atol=1e-6)
    loss.sum().backward()
    (slope,) = torch.autograd.grad(want.sum(), logits)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ours[0].grad.double(), slope, rtol=2 * eps, atol=1e-6)
    assert ours[1].grad.isfinite().all()


@pytest.mark.parametrize("frozen", ["hidden", "weight", "all but the bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_what_is_frozen_gets_none_and_costs_no_product(frozen, dtype, reduction, monkeypatch):
    # Liger's fused loss leaves the weight of a frozen backbone without a gradient, unsaid
    hidden, weight, bias, target = problem(dtype)
    every = dict(zip(("hidden", "weight", "bias"), leaves(hidden, weight, bias), strict=True))
    for name, t in every.items():
        t.requires_grad_(name != frozen if frozen in every else name == "bias")
    seen = []
    multiply = by_tokens.ByTokens._multiply

    def watched(self, grads, *rest):
        seen.append([g is not None for g in grads])
        return multiply(self, grads, *rest)

    monkeypatch.setattr(by_tokens.ByTokens, "_multiply", watched)
    loss = linear_cross_entropy(
        every["hidden"], every["weight"], target, bias=every["bias"], reduction=reduction
    )
    loss.sum().backward()
    for t in every.values():
        assert (t.grad is not None) == t.requires_grad
    if dtype == torch.float32:
        assert seen == [[t.requires_grad for t in every.values()]]


def test_a_head_tied_to_the_embedding_gets_both_gradients():
    _, weight, _, target = problem()
    tokens = torch.randint(V, (N,), generator=torch.Generator().manual_seed(1))
    tied, apart = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    linear_cross_entropy(tied[tokens], tied, target).backward()
    F.cross_entropy(apart[tokens] @ apart.T, target).backward()
    torch.testing.assert_close(tied.grad, apart.grad)


def test_a_wrapped_head_is_called_on_chunks():
    """A head with a low-rank update, as LoRA wraps it; a tensor would miss the update."""

    class Wrapped(nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.frozen, self.rows = weight, []
            self.down = nn.Parameter(torch.randn(2, D, dtype=DOUBLE))
            self.up = nn.Parameter(torch.randn(V, 2, dtype=DOUBLE))

        def forward(self, h):
            self.rows.append(len(h))
            return F.linear(h, self.frozen) + h @ self.down.T @ self.up.T

    hidden, weight, _, target = problem()
    head = Wrapped(weight)
    (hidden,) = leaves(hidden)
    loss = linear_cross_entropy(hidden, head, target, chunk=8, label_smoothing=0.1)
    assert max(head.rows) == 8
    want = F.cross_entropy(hidden @ (weight + head.up @ head.down).T, target, label_smoothing=0.1)
    torch.testing.assert_close(loss, want)
    ours = torch.autograd.grad(loss, (hidden, head.down, head.up))
    theirs = torch.autograd.grad(want, (hidden, head.down, head.up))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strange_strides_and_inputs_left_alone(dtype):
    hidden, weight, _, target = problem(dtype)
    want = linear_cross_entropy(hidden, weight, target)
    wide = torch.stack((hidden, hidden), 2)[..., 0]
    high = weight.T.contiguous().T
    many = target.unsqueeze(1).expand(N, 2)[:, 0]
    versions = [t._version for t in (wide, high, many)]
    ours = [t.requires_grad_() for t in (wide, high)]
    loss = linear_cross_entropy(*ours, many)
    loss.backward()
    torch.testing.assert_close(loss, want, rtol=1e-6, atol=0)
    assert [t._version for t in (wide, high, many)] == versions
    shaped = linear_cross_entropy(hidden.view(1, N, 1, D), weight, target.view(1, N, 1))
    torch.testing.assert_close(shaped, want, rtol=0, atol=0)
    last = hidden[-1:].expand(N, D).requires_grad_(False)
    assert linear_cross_entropy(last, weight, target).isfinite()


@pytest.mark.parametrize("kind", ["int32", "uint8", "int16"])
def test_targets_of_any_integer_dtype(kind):
    # torch wants int64 alone
    hidden, weight, _, target = problem()
    target = target.clamp_min(0)
    want = linear_cross_entropy(hidden, weight, target)
    assert linear_cross_entropy(hidden, weight, target.to(getattr(torch, kind))) == want


def test_ragged_micro_batches_with_one_count_are_the_batch():
    hidden, weight, _, target = problem()
    count = (target != -100).sum()

    def shared(total, _, *, term):
        assert term == "cross_entropy"
        return total / count

    whole_batch = leaves(hidden, weight)
    linear_cross_entropy(*whole_batch, target, z_loss=1e-2).backward()
    parts = leaves(hidden, weight)
    for rows in (slice(0, 3), slice(3, 30), slice(30, N)):
        linear_cross_entropy(
            parts[0][rows], parts[1], target[rows], z_loss=1e-2, reduction=shared
        ).backward()
    for a, b in zip(parts, whole_batch, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(t, torch.Tensor):
                self.elements = max(self.elements, t.numel())
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["mean", "none", "smoothed", "second derivative", "callable"])
def test_the_logits_never_exist(way, dtype, monkeypatch):
    # torch 2.13 falls back to all the logits under smoothing, with a warning; torchtune keeps them
    monkeypatch.setattr("aptt.core.linear.head._PART", 2**13)
    hidden, weight, _, target = problem(dtype, n=512, d=8, v=600)
    ours = leaves(hidden, weight)
    with Largest() as seen:
        head = (lambda h: h @ ours[1].T) if way == "callable" else ours[1]
        loss = linear_cross_entropy(
            ours[0], head, target, chunk=32,
            reduction="none" if way == "none" else "mean",
            label_smoothing=0.1 if way == "smoothed" else 0.0,
        )  # fmt: skip
        twice = way == "second derivative"
        grads = torch.autograd.grad(loss.sum(), ours, create_graph=twice)
        if twice:
            grads[0].float().square().sum().backward()
    assert seen.elements <= 64 * 600  # two chunks; the whole is 512 rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_is_one_graph_that_keeps_the_chunks(dtype):
    # Liger under torch.compile went from 21.40 to 61.73 with ignored labels, without an error
    hidden, weight, bias, target = problem(dtype)
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    def loss(h, w, b):
        return linear_cross_entropy(h, w, target, bias=b, chunk=8, z_loss=1e-2)

    ours, theirs = leaves(hidden, weight, bias), leaves(hidden, weight, bias)
    torch.compiler.reset()
    value = torch.compile(loss, backend=backend, fullgraph=True)(*ours)
    want = loss(*theirs)
    torch.testing.assert_close(value, want)
    value.backward()
    want.backward()
    for a, b in zip(ours, theirs, strict=True):
        assert far(a.grad, b.grad) < 2 * torch.finfo(dtype).eps  # other tokens share a chunk
    assert len(graphs) == 1
    assert [n for n in graphs[0].graph.nodes if "aptt.linear_rows" in str(n.target)]
    torch.compiler.reset()


def test_the_operator_keeps_the_promises_of_operators(monkeypatch):
    hidden, weight, bias, target = problem(n=5)
    rows, calls = opaque._rows, []
    monkeypatch.setattr(opaque, "_rows", lambda *args: calls.append(args) or rows(*args))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    linear_cross_entropy(hidden, weight, target.clamp_min(0), bias=bias, label_smoothing=0.1)
    monkeypatch.undo()
    (call,) = calls
    torch.library.opcheck(rows, (*leaves(*call[:3]), *call[3:]))


def test_autocast_multiplies_in_its_precision_and_keeps_the_weights_gradient_in_float32():
    hidden, weight, _, target = problem(torch.float32, n=256, d=64, v=1024)
    truth = leaves(hidden.double(), weight.double())
    values, mass = whole(*truth, target)
    (values.sum() / mass.sum()).backward()
    ours = leaves(hidden, weight)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(*ours, target)
    loss.backward()
    assert loss.dtype == ours[1].grad.dtype == torch.float32
    for mine, right in zip(ours, truth, strict=True):
        assert 1e-6 < far(mine.grad, right.grad) < 6 * 2**-9  # two factors and a result rounded
    half = hidden.bfloat16().requires_grad_()  # a float32 head outside autocast is exact
    loss = linear_cross_entropy(half, ours[1], target)
    ours[1].grad = None
    loss.backward()
    _, right = leaves(hidden, weight.double())
    values, mass = whole(half.detach(), right, target)
    (values.sum() / mass.sum()).backward()
    assert far(ours[1].grad, right.grad) < 1e-6
    assert half.grad.dtype == torch.bfloat16


def test_a_gradient_scaler_changes_nothing():
    hidden, weight, _, target = problem(torch.float32)
    plain, scaled = leaves(hidden, weight), leaves(hidden, weight)
    linear_cross_entropy(*plain, target).backward()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(scaled, lr=0.0)
    scaler.scale(linear_cross_entropy(*scaled, target)).backward()
    scaler.unscale_(optimizer)
    for a, b in zip(scaled, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("chunk", [None, 3])
def test_token_stats_by_their_definitions(softcap, chunk):
    hidden, weight, bias, target = problem(n=7, d=3, v=9)
    ours = leaves(hidden, weight, bias)

    def stats(h, w, b):
        return tuple(
            linear_token_stats(h, w, target, bias=b, softcap=softcap, scale=0.5, chunk=chunk)
        )

    log_prob, lse, entropy, margin = stats(*ours)
    z = 0.5 * F.linear(*ours)
    z = z if softcap is None else softcap * torch.tanh(z / softcap)
    keep = target != -100
    p = torch.distributions.Categorical(logits=z)
    torch.testing.assert_close(log_prob, torch.where(keep, p.log_prob(target * keep), 0.0))
    torch.testing.assert_close(lse, torch.where(keep, z.logsumexp(1), 0.0))
    torch.testing.assert_close(entropy, torch.where(keep, p.entropy(), 0.0))
    y = (target * keep)[:, None]
    above = z.gather(1, y) - z.scatter(1, y, -torch.inf).amax(1, keepdim=True)
    torch.testing.assert_close(margin, torch.where(keep, above[:, 0], 0.0))
    assert torch.autograd.gradcheck(stats, ours)
    up = torch.randn(4, 7, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    walked = torch.autograd.grad(stats(*ours), ours, up.unbind())
    twice = torch.autograd.grad(stats(*ours), ours, up.unbind(), create_graph=True)
    for a, b in zip(walked, twice, strict=True):
        torch.testing.assert_close(a, b)


def test_a_masked_class_has_no_share_in_the_statistics():
    hidden, weight = torch.randn(4, 3, dtype=DOUBLE), torch.randn(5, 3, dtype=DOUBLE)
    bias = torch.tensor([0, 0, -torch.inf, 0, 0], dtype=DOUBLE)
    target = torch.tensor([0, 1, 3, 4])
    ours = leaves(hidden, weight)
    masked = linear_token_stats(*ours, target, bias=bias)
    rest = torch.tensor([0, 1, 3, 4])
    alone = linear_token_stats(hidden, weight[rest], torch.tensor([0, 1, 2, 3]))
    for a, b in zip(masked, alone, strict=True):
        torch.testing.assert_close(a, b)
    sum(t.sum() for t in masked).backward()
    assert all(t.grad.isfinite().all() for t in ours)


def test_the_module_holds_no_head():
    hidden, weight, bias, target = problem()
    loss_fn = LinearCrossEntropyLoss(label_smoothing=0.1, chunk=8)
    assert not list(loss_fn.parameters())
    want = linear_cross_entropy(hidden, weight, target, bias=bias, label_smoothing=0.1)
    torch.testing.assert_close(loss_fn(hidden, weight, target, bias=bias), want)


@pytest.mark.parametrize(
    ("change", "naming"),
    [
        ({"target": torch.tensor([0, V, 1])}, f"target: got class {V}"),
        ({"target": torch.tensor([0, -1, 1])}, "target: got class -1"),
        ({"target": torch.zeros(4, dtype=torch.long)}, "shift hidden states and targets together"),
        ({"target": torch.zeros(3, V - 1)}, "target: got shape"),
        ({"weight": torch.zeros(V, D + 1)}, "weight: got shape"),
        ({"bias": torch.zeros(V + 1)}, "bias: got shape"),
        ({"class_weight": torch.zeros(V + 1)}, "class_weight: got shape"),
        ({"sample_weight": torch.zeros(2)}, "sample_weight: got shape"),
        ({"chunk": 0}, "chunk: got 0"),
        ({"scale": -1.0}, "scale"),
        ({"reduction": "average"}, "reduction"),
        ({"target": torch.zeros(3, V), "ignore_index": 3}, "ignore_index: got 3"),
    ],
)
def test_what_is_wrong_is_said_by_name(change, naming):
    call = {
        "hidden": torch.zeros(3, D),
        "weight": torch.zeros(V, D),
        "target": torch.zeros(3, dtype=torch.long),
    }
    with pytest.raises(ValueError, match=naming):
        linear_cross_entropy(**(call | change))


def test_what_is_of_another_kind_is_said_by_name():
    hidden, target = torch.zeros(3, D), torch.zeros(3, dtype=torch.long)
    with pytest.raises(TypeError, match="weight: got str"):
        linear_cross_entropy(hidden, "head", target)
    with pytest.raises(TypeError, match=r"target: got torch\.float32"):
        linear_cross_entropy(hidden, torch.zeros(V, D), torch.zeros(3))
    with pytest.raises(ValueError, match="callable head, which adds its own"):
        linear_cross_entropy(hidden, nn.Linear(D, V), target, bias=torch.zeros(V))
    with pytest.raises(TypeError, match=r"weight: got Embedding, .* pass its weight"):
        linear_cross_entropy(hidden, nn.Embedding(V, D), target)


@pytest.mark.parametrize("loss", [linear_cross_entropy, linear_token_stats])
@pytest.mark.parametrize(
    ("lead", "target", "hint"),
    [
        ((4, 5), (4, 4), "; the lengths differ by one"),
        ((5,), (6,), "; the lengths differ by one"),
        ((4, 5), (5, 4), "; these are the same axes in another order: transpose"),
        ((2, 3, 4), (4, 3, 2), "; these are the same axes in another order: transpose"),
        ((4, 5), (3, 4), ""),
        ((4, 5), (4, 7), ""),
        ((4, 5), (20,), ""),
        ((4,), (), ""),
    ],
)
def test_the_hint_is_the_one_that_fits(lead, target, hint, loss):
    with pytest.raises(ValueError, match="target: got shape") as error:
        loss(torch.zeros(*lead, D), torch.zeros(V, D), torch.zeros(target, dtype=torch.long))
    wanted, _, said = str(error.value).partition(f"wanted {lead}")
    assert wanted
    assert said.startswith(hint) if hint else not said


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32, torch.bfloat16])
def test_what_is_ignored_is_0_where_class_0_is_masked(dtype, reduction):
    hidden, weight, target = torch.randn(8, D), torch.randn(V, D), torch.arange(8)
    target[0] = -100
    bias = torch.zeros(V)
    bias[0] = -torch.inf
    hidden, weight, bias = (t.to(dtype).requires_grad_() for t in (hidden, weight, bias))
    found = []
    for drop in (True, False):
        loss = linear_cross_entropy(
            hidden, weight, target, bias=bias, drop_ignored=drop, reduction=reduction
        )
        found.append([loss, *torch.autograd.grad(loss.sum(), (hidden, weight, bias))])
        assert all(t.isfinite().all() for t in found[-1])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("block", [2**12, 2**62])
@pytest.mark.parametrize("drop", [True, False])
def test_the_statistics_have_a_gradient_beside_a_masked_class(drop, block):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, D, dtype=DOUBLE, generator=generator) for n in (8, V))
    target, bias = torch.arange(8), torch.zeros(V, dtype=DOUBLE)
    target[0], bias[0] = -100, -torch.inf
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    up = torch.randn(4, 8, dtype=DOUBLE, generator=generator)

    def gradients(stats):
        return torch.autograd.grad(
            sum((t * u).sum() for t, u in zip(stats, up, strict=True)), leaves
        )

    log_p = torch.log_softmax(hidden[1:] @ weight[1:].T, 1)
    entropy = -(log_p.exp() * log_p).sum(1)
    lse = torch.logsumexp(hidden[1:] @ weight[1:].T, 1)
    log_prob = log_p.gather(1, target[1:, None] - 1).squeeze(1)
    z, y = hidden[1:] @ weight[1:].T, target[1:, None] - 1
    margin = (z.gather(1, y) - z.scatter(1, y, -torch.inf).amax(1, keepdim=True)).squeeze(1)
    whole = [F.pad(t, (1, 0)) for t in (log_prob, lse, entropy, margin)]
    with in_blocks(block):
        found = linear_token_stats(hidden, weight, target, bias=bias, drop_ignored=drop)
    torch.testing.assert_close(list(found), whole)
    torch.testing.assert_close(gradients(found), gradients(whole))


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
@pytest.mark.parametrize("loss", [linear_cross_entropy, linear_token_stats])
def test_a_target_that_is_no_index_is_refused(loss, dtype):
    with pytest.raises(TypeError, match="target: got torch"):
        loss(torch.ones(2, D), torch.ones(V, D), torch.ones(2).to(dtype))


@pytest.mark.parametrize(
    ("hidden", "options", "naming"),
    [
        (torch.ones(2, D), {"scale": float("inf")}, "scale: got inf"),
        (torch.ones(()), {}, "hidden: got a number"),
    ],
)
def test_a_scale_without_end_and_a_lone_number_are_refused(hidden, options, naming):
    with pytest.raises(ValueError, match=naming):
        linear_cross_entropy(hidden, torch.ones(V, D), torch.ones(2, dtype=torch.int64), **options)


def test_a_head_without_classes_and_a_chunk_that_is_no_number_are_named():
    hidden, target = torch.zeros(2, 4), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"weight: got shape \(0, 4\), wanted at least one class"):
        linear_cross_entropy(hidden, torch.zeros(0, 4), target)
    with pytest.raises(ValueError, match="chunk: got True"):
        linear_cross_entropy(hidden, torch.zeros(3, 4), target, chunk=True)


def test_one_graph_serves_other_numbers():
    # a float that changed is a symbol from then on: it cannot be spelt out in the graph
    torch._dynamo.reset()
    hidden, weight, _, target = problem(n=20)
    hidden.requires_grad_()
    graph = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    for options in (
        {"label_smoothing": 0.1, "scale": 1.0, "chunk": 7},
        {"label_smoothing": 0.0, "scale": 0.5, "chunk": 5},
        {"label_smoothing": 0.2, "scale": 2.0, "chunk": 9},
    ):
        found, expected = (
            f(hidden, weight, target, **options) for f in (graph, linear_cross_entropy)
        )
        torch.testing.assert_close(found, expected)
        grads = [torch.autograd.grad(loss, hidden)[0] for loss in (found, expected)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("way", [plainly, in_blocks])
def test_float16_autocast_takes_float32_products_at_any_size(way):
    # in float16 the logits are 51200 with steps of 32
    hidden, weight = torch.full((4, 8), 80.0, requires_grad=True), torch.full((16, 8), 80.0)
    weight[1] += 0.01
    target = torch.zeros(4, dtype=torch.long)
    with way(), torch.autocast("cpu", torch.float16):
        found = linear_cross_entropy(hidden, weight, target)
    expected = F.cross_entropy(hidden.double() @ weight.double().T, target)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("way", [plainly, in_blocks])
@pytest.mark.parametrize("option", ["scale", "z_loss", "softcap"])
def test_a_learned_option_gets_its_gradient_at_any_size(option, way):
    hidden, weight, _, target = problem()
    learned = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    with way():
        linear_cross_entropy(hidden, weight, target, **{option: learned}).backward()
    step = 1e-5
    ends = [
        linear_cross_entropy(hidden, weight, target, **{option: 2.0 + s}) for s in (step, -step)
    ]
    torch.testing.assert_close(learned.grad, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("target", "change", "options", "words"),
    [
        (torch.ones(6, 1), lambda z: z, {}, r"target: got 1 shares a token, wanted 9"),
        (torch.arange(6), lambda z: z[:1], {}, r"weight: the callable gave \(1, 9\) .* \(6, V\)"),
        (torch.arange(6), lambda z: None, {}, "weight: the callable gave NoneType"),
        (torch.arange(6) + 5, lambda z: z, {}, "target: got class 9, wanted 0 to 8"),
        (torch.arange(6), lambda z: z, {"class_weight": torch.ones(8)}, r"class_weight: got .*8"),
        (
            torch.arange(6),
            lambda z: z,
            {"logit_adjustment": torch.ones(1)},
            "logit_adjustment: .*1",
        ),
    ],
)
def test_the_logits_of_a_callable_are_held_to_the_rest(target, change, options, words):
    hidden, weight = torch.randn(6, 4), torch.randn(9, 4)
    with pytest.raises(ValueError, match=words):
        linear_cross_entropy(hidden, lambda h: change(h @ weight.T), target, **options)


def test_hidden_states_may_have_no_feature():
    loss = linear_cross_entropy(torch.zeros(4, 0), torch.zeros(8, 0), torch.arange(4))
    assert loss.item() == pytest.approx(math.log(8))


def test_one_tensor_may_be_states_and_head():
    both = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([3, 1, 4, 1, 0])

    def of(loss):
        (first,) = torch.autograd.grad(loss(both), both, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), both)
        return first.detach(), second

    ours = of(lambda x: linear_cross_entropy(x, x, target))
    plain = of(lambda x: F.cross_entropy(x @ x.T, target))
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
