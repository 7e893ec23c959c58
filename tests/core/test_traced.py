"""Inside ``torch.compile``: the formula's own gradient is taken, and what may go wrong there."""

import math
import threading
import warnings

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from aptt.audit import SPECS
from aptt.loss import (
    binary_cross_entropy,
    ciou_loss,
    cross_entropy,
    dice_ce_loss,
    dice_loss,
    distillation_loss,
    distribution_focal_loss,
    engine,
    focal_loss,
    giou_loss,
    heatmap_loss,
    quality_focal_loss,
    rmse_loss,
    si_sdr_loss,
    snr_loss,
    tversky_loss,
    varifocal_loss,
)

# torch's own, at first use
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def _random(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=g)


def _classes(n, c=5):
    return _random(n, c), torch.arange(n) % c


def _ignored(n):
    x, y = _classes(n)
    return x, torch.where(torch.arange(n) % 3 == 1, -100, y)


def _scores(n):
    return _random(n, 3), (_random(n, 3, seed=1).sigmoid() - 0.5).clamp(min=0)


def _answers(n):
    return _random(n, 3), (_random(n, 3, seed=1) > 0).double()


def _boxes(n):
    t = _random(n, 4, seed=1).abs().cumsum(1)
    return t + 0.1 * _random(n, 4).abs(), t


def _maps(n):
    return _random(n, 3, 4, 4), torch.arange(n * 16).view(n, 4, 4) % 3


def _signals(n):
    return _random(n, 40), _random(n, 40, seed=1)


LOSSES = {
    "cross_entropy": (cross_entropy, _classes),
    "with ignored labels": (cross_entropy, _ignored),
    "binary_cross_entropy": (binary_cross_entropy, _scores),
    "focal, softmax": (focal_loss, _ignored),
    "focal, sigmoid": (focal_loss, _answers),
    "varifocal": (varifocal_loss, _scores),
    "quality_focal": (quality_focal_loss, _scores),
    "dfl": (distribution_focal_loss, lambda n: (_random(n, 4, 6), 5 * _random(n, 4).sigmoid())),
    "giou": (giou_loss, _boxes),
    "ciou": (ciou_loss, _boxes),
    "dice": (dice_loss, _maps),
    "tversky": (tversky_loss, _maps),
    "dice_ce": (dice_ce_loss, _maps),
    "heatmap": (heatmap_loss, lambda n: (_random(n, 2, 4, 4), _random(n, 2, 4, 4).sigmoid())),
    "si_sdr": (si_sdr_loss, _signals),
    "snr": (snr_loss, _signals),
    "rmse": (rmse_loss, _signals),
    "distillation": (
        lambda x, t, **o: distillation_loss(x, t, alpha=1.0, **o),
        lambda n: (_random(n, 5), _random(n, 5, seed=1)),
    ),
}


ROWS = ["cross_entropy", "focal_loss (sigmoid)", "giou_loss", "ciou_loss", "dice_loss", "rmse_loss"]


def _gradient(loss, x, *rest, **options):
    x = x.detach().requires_grad_()
    value = loss(x, *rest, **options)
    (grad,) = torch.autograd.grad(value, x)
    return value.detach(), grad


def _alike(got, want):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


# ------------------------------------------------------------------- that it is taken, and right


class _Seen:
    """A back end that notes which operators a graph has."""

    def __init__(self):
        self.graphs = []

    def __call__(self, graph, inputs):
        self.graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph

    def steps(self):
        return sum("autograd_function_apply" in name for graph in self.graphs for name in graph)


@pytest.mark.parametrize("name", LOSSES)
def test_the_formulas_own_gradient_is_in_the_one_graph(name):
    loss, inputs = LOSSES[name]
    seen, (x, *rest) = _Seen(), inputs(7)
    compiled = torch.compile(loss, backend=seen, fullgraph=True)
    _alike(_gradient(compiled, x, *rest), _gradient(loss, x, *rest))
    assert len(seen.graphs) == 1
    assert seen.steps() == 1


def test_where_a_side_asks_for_a_gradient_the_definition_is_compiled():
    x, t = _scores(7)
    t.requires_grad_()
    seen = _Seen()
    compiled = torch.compile(binary_cross_entropy, backend=seen, fullgraph=True)
    got = torch.autograd.grad(compiled(x.requires_grad_(), t), (x, t))
    want = torch.autograd.grad(binary_cross_entropy(x, t), (x, t))
    _alike(got, want)
    assert seen.steps() == 0


def test_the_same_tensor_twice_gets_both_gradients():
    p = _random(7, 3).sigmoid().requires_grad_()
    compiled = torch.compile(binary_cross_entropy, backend="aot_eager", fullgraph=True)
    got = torch.autograd.grad(compiled(p, p), p)
    _alike(got, torch.autograd.grad(binary_cross_entropy(p, p), p))


def test_the_switch_is_read_inside_and_compiles_once_more():
    x, y = _classes(7)
    seen = _Seen()
    compiled = torch.compile(cross_entropy, backend=seen, fullgraph=True)
    want = _gradient(cross_entropy, x, y)
    for mode, steps in (("auto", 1), ("plain", 1), ("auto", 1)):
        with engine(mode):
            _alike(_gradient(compiled, x, y), want)
        assert seen.steps() == steps
    assert len(seen.graphs) == 2


def test_a_module_compiles_itself():
    from aptt.loss import CrossEntropyLoss

    x, y = _classes(7)
    loss_fn = CrossEntropyLoss(weight=[1.0, 2.0, 3.0, 4.0, 5.0], label_smoothing=0.1).double()
    want = _gradient(loss_fn, x, y)
    loss_fn.compile(backend="aot_eager", fullgraph=True)
    _alike(_gradient(loss_fn, x, y), want)


# ------------------------------------------------------------------------------- transforms


@pytest.mark.parametrize("name", ROWS)
def test_the_definition_inside_transforms_equals_the_step(name):
    # torch.func inside torch.compile drops a hand-written backward and differentiates forward
    trial = SPECS[name].trials()[0]
    several = [trial.inputs(seed=seed) for seed in range(2)]
    one, options = several[0], trial.options(reduction="mean")
    which = trial.prediction(one)
    along = torch.ones_like(one[which])
    stacked = {k: torch.stack([each[k] for each in several]) for k in one}

    def slope(given):
        function = trial.spec.function
        return torch.func.grad(lambda p: function(**{**given, which: p}, **options))(given[which])

    def transformed(given, stacked):
        loss = lambda p: trial.spec.function(**{**given, which: p}, **options)  # noqa: E731
        tangent = torch.func.jvp(loss, (given[which],), (along,))[1]
        return slope(given), torch.func.vmap(slope)(stacked), tangent

    wants = [trial.gradient(each, reduction="mean")[1] for each in several]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got, many, tangent = torch.compile(transformed, backend="aot_eager", fullgraph=True)(
            one, stacked
        )
    _alike((got, *many), (wants[0], *wants))
    torch.testing.assert_close(tangent, wants[0].sum(), rtol=1e-9, atol=1e-12)


def test_a_second_backward_gives_the_same():
    x, y = _classes(7)
    x.requires_grad_()
    value = torch.compile(cross_entropy, backend="aot_eager", fullgraph=True)(x, y)
    first, again = (torch.autograd.grad(value, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)


# ------------------------------------------------------------------------- shapes and numbers


@pytest.mark.parametrize("name", LOSSES)
def test_after_the_second_batch_size_nothing_compiles_again(name):
    loss, inputs = LOSSES[name]
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, backend=counter, fullgraph=True)
    for n in (17, 1000, 33, 250):
        x, *rest = inputs(n)
        _alike(_gradient(compiled, x, *rest), _gradient(loss, x, *rest))
    assert counter.frame_count == 2
    for n in (0, 1, 2):  # 0 and 1 are always graphs of their own
        x, *rest = inputs(n)
        _alike(_gradient(compiled, x, *rest), _gradient(loss, x, *rest))
    assert counter.frame_count <= 5


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2, "z_loss": 0.01}])
def test_two_classes(options):  # of one, there is nothing to tell
    x, y = _classes(6, 2)
    y[2] = -100
    compiled = torch.compile(cross_entropy, backend="aot_eager", fullgraph=True)
    want = _gradient(cross_entropy, x, y, **options)
    _alike(_gradient(compiled, x, y, **options), want)
    assert want[1].isfinite().all()


NUMBERS = {
    "cross_entropy": [
        {"label_smoothing": e, "z_loss": z}
        for e, z in ((0.1, 0.01), (0.2, 0.02), (0.3, 0.01), (0.15, 0.05), (0.12, 0.4))
    ],
    "focal, softmax": [{"gamma": g} for g in (1.5, 1.7, 2.5, 3.5, 0.7)],
    "focal, sigmoid": [{"gamma": g} for g in (1.5, 1.7, 2.5, 3.5, 0.7)],
    "tversky": [{"alpha": a, "beta": 1 - a} for a in (0.3, 0.4, 0.6, 0.7, 0.8)],
    "distillation": [{"temperature": t} for t in (2.0, 3.0, 4.5, 5.0, 1.5)],
}


@pytest.mark.parametrize("name", NUMBERS)
def test_after_the_second_number_nothing_compiles_again(name):
    (loss, inputs), numbers = LOSSES[name], NUMBERS[name]
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, backend=counter, fullgraph=True)
    x, *rest = inputs(9)
    for i, options in enumerate(numbers):
        got = _gradient(compiled, x, *rest, **options)
        _alike(got, _gradient(loss, x, *rest, **options))
        if i == 1:
            settled = counter.frame_count
    assert counter.frame_count == settled <= 2


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_symbols_from_the_first_call_on_compile_once(name):
    """Then a module's own numbers are symbols too, of which no text can be made."""
    (loss, inputs), numbers = LOSSES[name], NUMBERS[name]
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(loss, backend=counter, fullgraph=True, dynamic=True)
    x, *rest = inputs(9)
    for options in numbers[:3]:
        torch.testing.assert_close(compiled(x, *rest, **options), loss(x, *rest, **options))
    assert counter.frame_count == 1


def test_ragged_lists_compile_into_one_graph_for_each_length():
    from aptt.loss import multi_token_loss

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(multi_token_loss, backend=counter, fullgraph=True)
    y = torch.arange(14).view(2, 7) % 5
    heads = [_random(2, 7 - k, 5, seed=k).requires_grad_() for k in range(3)]
    for depth in (3, 2, 3):
        got = torch.autograd.grad(compiled(heads[:depth], y), heads[:depth])
        _alike(got, torch.autograd.grad(multi_token_loss(heads[:depth], y), heads[:depth]))
    assert counter.frame_count == 2


# ------------------------------------------------------------- layouts and modes in one process


@torch._dynamo.config.patch(recompile_limit=12)  # F.cross_entropy compiles 8 times for these
def test_layouts_and_modes_one_after_the_other_in_one_process():
    x, y = _random(4, 6, 5), torch.arange(24).view(4, 6) % 5
    compiled = torch.compile(cross_entropy, backend="aot_eager", fullgraph=True)
    want = _gradient(cross_entropy, x, y)

    def again(x, y, **options):
        return _gradient(compiled, x, y, **options)

    _alike(again(x, y), want)
    _alike(again(x.transpose(0, 1).contiguous().transpose(0, 1), y), want)
    _alike(again(torch.cat((x, x), -1)[..., :5], y), want)
    value, grad = again(x.movedim(-1, 1).contiguous(), y)
    _alike((value, grad.movedim(1, -1)), want)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, y), want[0])
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x.clone(), y.clone()), want[0])
    with torch.autocast("cpu", torch.bfloat16):
        _alike(again(x, y), want)
    _alike(again(x, y.to(torch.int16)), want)
    _, half = again(x.bfloat16(), y)
    assert half.dtype == torch.bfloat16
    found = []
    thread = threading.Thread(target=lambda: found.append(again(x, y)))
    thread.start()
    thread.join()
    _alike(found[0], want)
    _alike(_gradient(cross_entropy, x, y), want)  # eagerly again


@pytest.mark.parametrize("wrong", [-0.1, 4.1, math.nan])
def test_a_graph_refuses_a_number_beyond_the_bins(wrong):
    compiled = torch.compile(distribution_focal_loss, backend="inductor", fullgraph=True)
    x, y = torch.randn(3, 5), torch.tensor([0.0, 1.5, 4.0])
    torch.testing.assert_close(compiled(x, y), distribution_focal_loss(x, y))
    y[1] = wrong
    with pytest.raises(RuntimeError, match=r"^target: got a number out of range, wanted"):
        compiled(x, y)
