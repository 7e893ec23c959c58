"""Cross-entropy over parts of the vocabulary: however it is cut, it is that of the whole."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aptt.core.formula import Product
from aptt.core.held import Held, held_loss, held_slope, hold
from aptt.core.vocabulary import Form, Stats, finish, measure, merge, slope

N, C = 6, 11


def problem(seed=0):
    g = torch.Generator().manual_seed(seed)
    z = 4 * torch.randn(N, C, dtype=torch.float64, generator=g)
    y = torch.randint(C, (N,), generator=g)
    weights = torch.rand(C, dtype=torch.float64, generator=g)
    return z, y, weights


def in_parts(z, y, cuts, class_weight, form):
    edges = [0, *sorted(set(cuts)), C]
    parts = [(a, b) for a, b in pairwise(edges) if a < b]
    how = {"class_weight": class_weight, "form": form}
    merged = None
    for a, b in parts:
        stats = measure(z[:, a:b], y, start=a, **how)
        merged = stats if merged is None else merge(merged, stats)
    scale = None if class_weight is None else class_weight[y].unsqueeze(1)
    up = torch.linspace(-1, 2, N, dtype=z.dtype).unsqueeze(1)
    slopes = [slope(z[:, a:b], y, merged, up, scale, start=a, **how) for a, b in parts]
    return finish(merged, scale, form=form), torch.cat(slopes, 1)


def written_out(z, y, class_weight, form):
    """The definition, by torch's own functions, and its gradient by autograd."""
    z = z.clone().requires_grad_()
    lse, open = z.logsumexp(1), z.detach() > -torch.inf
    w = torch.ones(C, dtype=z.dtype) if class_weight is None else class_weight
    gaps = torch.where(open, lse.unsqueeze(1) - z, 0.0)
    smoothing, z_loss = form.smoothing or 0.0, form.z_loss or 0.0
    loss = (1 - smoothing) * w[y] * (lse - z.gather(1, y[:, None]).squeeze(1))
    loss = loss + smoothing / open.sum(1).double() * (w * gaps).sum(1)
    loss = loss + z_loss * w[y] * lse**2
    up = torch.linspace(-1, 2, N, dtype=torch.float64)
    return loss.detach(), torch.autograd.grad(loss, z, up)[0]


@given(st.lists(st.integers(1, C - 1), max_size=4), st.booleans(), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_any_cut_gives_the_loss_and_the_gradient_of_the_whole(cuts, weighted, seed):
    z, y, weights = problem(seed)
    z[2, :4] = torch.where(torch.arange(4) == y[2], z[2, :4], -torch.inf)
    weights = weights if weighted else None
    for form in (Form(), Form(smoothing=0.1), Form(z_loss=1e-2), Form(0.2, 1e-2)):
        loss, found = in_parts(z, y, cuts, weights, form)
        want, want_slope = written_out(z, y, weights, form)
        torch.testing.assert_close(loss, want, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found, want_slope, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("gap", [80.0, 104.5, 800.0])
def test_a_gap_that_underflows_costs_smoothing_its_gap(gap):
    # Megatron and Liger take the logarithm of a probability that is 0 from a gap of 104 on
    z = torch.zeros(N, C)
    z[:, 0] = gap
    y = torch.zeros(N, dtype=torch.long)
    loss, _ = in_parts(z, y, [4, 7], None, Form(smoothing=0.1))
    torch.testing.assert_close(loss, torch.full((N,), 0.1 * gap * (C - 1) / C))


def test_a_part_that_is_masked_whole_changes_nothing():
    z, y, _ = problem()
    y = y % 5
    z[:, 5:] = -torch.inf
    loss, found = in_parts(z, y, [5], None, Form(smoothing=0.1, z_loss=1e-2))
    want, want_slope = written_out(z, y, None, Form(smoothing=0.1, z_loss=1e-2))
    torch.testing.assert_close(loss, want)
    torch.testing.assert_close(found, want_slope)


def test_parts_measured_for_other_things_are_not_merged():
    z, y, _ = problem()
    one = measure(z, y, class_weight=None, form=Form(smoothing=0.1), start=0)
    other = measure(z, y, class_weight=None, form=Form(), start=C)
    assert isinstance(one, Stats)
    with pytest.raises(AssertionError, match="smoothing"):
        merge(one, other)


@pytest.mark.parametrize("masked", [False, True])
def test_where_no_other_class_is_open_lse_is_the_logit(masked):
    # one class, or all others masked: nothing is to be added to the largest logit
    z = torch.tensor([[3.0], [-7.5]], dtype=torch.float64)
    if masked:
        z = torch.cat((z, torch.full((2, 2), -torch.inf)), 1)
    y, form = torch.zeros(2, dtype=torch.int64), Form(smoothing=0.1, z_loss=0.5)
    stats = measure(z, y, class_weight=None, form=form)
    loss = finish(stats, None, form=form)
    torch.testing.assert_close(loss, 0.5 * z[:, 0].square(), rtol=1e-14, atol=0)
    found = slope(z, y, stats, 1.0, None, class_weight=None, form=form)
    torch.testing.assert_close(found[:, 0], z[:, 0], rtol=1e-14, atol=0)
    assert not found[:, 1:].any()


# ------------------------------------------------------------------------------ rows that are held


def held(z, y, class_weight, form):
    """The loss and its gradient from what is held of whole rows, taken apart and put together."""
    found = hold(z, y, class_weight=class_weight, form=form)
    kept = tuple(t for t in found if t is not None)
    assert sum(t.numel() >= z.numel() for t in kept) == 1
    found = Held.of(kept, weighted=class_weight is not None, form=form)
    scale = None if class_weight is None else class_weight[y].unsqueeze(1)
    up = torch.linspace(-1, 2, N, dtype=z.dtype).unsqueeze(1)
    before = [t.clone() for t in kept]
    dz = held_slope(found, z, y, up, scale, class_weight=class_weight, form=form)
    assert all(map(torch.equal, kept, before))
    return held_loss(found, scale, form=form), dz.of(z.dtype) if isinstance(dz, Product) else dz


@pytest.mark.parametrize("form", [Form(), Form(0.1), Form(1.0), Form(z_loss=1e-2), Form(0.2, 1e-2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_held_gives_the_loss_and_the_gradient(form, weighted):
    z, y, weights = problem()
    z[2, :4] = torch.where(torch.arange(4) == y[2], z[2, :4], -torch.inf)
    weights = weights if weighted else None
    loss, found = held(z, y, weights, form)
    want, want_slope = written_out(z, y, weights, form)
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, want_slope, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("gap", [-300.0, -5.0, 0.0, 5.0, 15.0, 60.0])
@pytest.mark.parametrize("offset", [0.0, 6e4])
@pytest.mark.parametrize("smoothing", [None, 0.1])
def test_what_is_held_is_exact_however_sure_the_row_is(gap, offset, smoothing):
    z = torch.randn(N, C, generator=torch.Generator().manual_seed(0))
    z = (z * 64).round() / 64  # an offset of 60000 keeps that
    y = torch.arange(N)
    z[y, y] = z.amax(1) + gap
    loss, found = held(z + offset, y, None, Form(smoothing))
    # as the definition has it, from 1 - p[y] as a sum
    others = z.double().scatter(1, y[:, None], -torch.inf)
    odds = (others.logsumexp(1) - z[y, y].double()).exp()
    want = odds.log1p()
    p = z.double().softmax(1)
    p[y, y] = -(odds / (1 + odds))
    if smoothing is not None:
        spread = smoothing / C
        want = (1 - smoothing) * want - spread * z.double().log_softmax(1).sum(1)
        p[y, y] += smoothing
        p -= spread
    want_slope = torch.linspace(-1, 2, N).double().unsqueeze(1) * p
    within = {"rtol": 1e-6, "atol": 0.0} if smoothing is None else {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(loss.double(), want, **within)
    torch.testing.assert_close(found.double(), want_slope, rtol=2e-6, atol=within["atol"])
