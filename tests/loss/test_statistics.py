"""The statistics of tokens from their logits: the same as from hidden states, and by definition."""

import math

import pytest
import torch
from torch.distributions import Categorical

from aptt.audit.ways import WAYS
from aptt.loss import linear_token_stats, token_stats

DOUBLE = torch.float64


def problem(*shape, classes=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(*shape, classes, generator=g, dtype=DOUBLE)
    return logits, torch.randint(classes, shape, generator=g)


def test_of_uniform_logits_in_closed_form():
    stats = token_stats(torch.zeros(1, 4), torch.tensor([2]))
    found = [t.item() for t in stats]
    assert found == pytest.approx([-math.log(4), math.log(4), math.log(4), 0], abs=1e-7)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("softcap", "scale"), [(None, 0.5), (2.0, 0.5), (None, 2.0)])
def test_by_their_definitions_in_every_way(softcap, scale, way):
    x, y = problem(5, 6)
    y[0, :2] = -100
    x[0, 0] = torch.nan
    given = x.clone().requires_grad_()
    with WAYS[way]():
        found = token_stats(given, y, softcap=softcap, scale=scale)
        up = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
        (grad,) = torch.autograd.grad(
            sum((t * u).sum() for t, u in zip(found, up, strict=True)), given
        )
    keep, z = y != -100, (scale * x.masked_fill((y == -100)[..., None], 0)).requires_grad_()
    capped = z if softcap is None else softcap * torch.tanh(z / softcap)
    p, at = Categorical(logits=capped), (y * keep)[..., None]
    margin = capped.gather(-1, at) - capped.scatter(-1, at, -torch.inf).amax(-1, keepdim=True)
    want = (p.log_prob(y * keep), capped.logsumexp(-1), p.entropy(), margin[..., 0])
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b * keep)
    (slope,) = torch.autograd.grad(
        sum((t * u * keep).sum() for t, u in zip(want, up, strict=True)), z
    )
    torch.testing.assert_close(grad, scale * slope)


def test_the_same_as_from_hidden_states():
    x, y = problem(11)
    y[3] = -100
    hidden, weight = torch.eye(11, dtype=DOUBLE), x.T.contiguous()
    for a, b in zip(token_stats(x, y), linear_token_stats(hidden, weight, y), strict=True):
        torch.testing.assert_close(a, b)


def test_classes_on_axis_1_and_half_types():
    x, y = problem(3, 4)
    for dtype in (torch.bfloat16, torch.float16):
        low = x.to(dtype)
        found = token_stats(low.movedim(-1, 1), y, class_dim=1)
        for a, b in zip(found, token_stats(low.double(), y), strict=True):
            assert a.dtype == torch.float32
            torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=1e-6)


def test_a_masked_class_leads_nothing():
    x = torch.tensor([[1.0, -torch.inf, 0.5], [2.0, -torch.inf, -torch.inf]], requires_grad=True)
    found = token_stats(x, torch.tensor([0, 0]))
    assert found.margin[0] == 0.5
    assert found.margin[1].isfinite()  # of a single open class, as large as the dtype allows
    assert found.margin[1] > 1e38
    sum(t.sum() for t in found).backward()
    assert x.grad.isfinite().all()
    assert x.grad[0, 1] == x.grad[1, 1] == x.grad[1, 2] == 0


def test_nothing_of_the_logits_size_is_kept_for_backward():
    x, y = torch.randn(64, 512, requires_grad=True), torch.randint(512, (64,))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        token_stats(x, y)
    large = {t.data_ptr() for t in kept if t.numel() >= x.numel()}
    assert large == {x.data_ptr()}


def test_compiled_it_is_one_graph():
    x, y = problem(4, 5)
    torch.compiler.reset()
    compiled = torch.compile(token_stats, backend="aot_eager", fullgraph=True)
    given = x.clone().requires_grad_()
    stats = compiled(given, y)
    for a, b in zip(stats, token_stats(x, y), strict=True):
        torch.testing.assert_close(a, b)
    (stats.log_prob.sum() + stats.entropy.sum()).backward()
    other = x.clone().requires_grad_()
    want = token_stats(other, y)
    (want.log_prob.sum() + want.entropy.sum()).backward()
    torch.testing.assert_close(given.grad, other.grad)


def test_what_is_wrong_is_said_by_name():
    x, y = problem(4, 5)
    y[0, 0] = 0
    with pytest.raises(ValueError, match="target: got class 7"):
        token_stats(x, y.masked_fill(y == 0, 7))
    with pytest.raises(ValueError, match="scale: got 0"):
        token_stats(x, y, scale=0)  # a temperature of infinity; of 0 there is no distribution
    with pytest.raises(ValueError, match="softcap: got -1"):
        token_stats(x, y, softcap=-1.0)
    with pytest.raises(TypeError, match=r"target: got torch\.float64"):
        token_stats(x, y.double())
    for soft in (x.softmax(-1), y > 0):
        with pytest.raises(TypeError, match=rf"target: got {soft.dtype}, wanted indices"):
            linear_token_stats(x, torch.eye(x.shape[-1]).to(x.dtype), soft)
    with pytest.raises(ValueError, match=r"target: got shape \(4, 4\)"):
        token_stats(x, y[:, 1:])
