"""The three sums of a region loss, against their definition."""

import pytest
import torch

from aptt.audit.ways import in_blocks, plainly
from aptt.core.overlap import _known, overlap_sums
from aptt.core.streaming import Work

WAYS = [pytest.param(plainly, id="plain"), pytest.param(in_blocks, id="in blocks")]


def _inputs(seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 11, dtype=torch.float64, generator=g)
    return x, torch.randint(3, (2, 11), generator=g), torch.rand(2, 11, generator=g).double()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("weighted", [True, False])
def test_indices_give_the_sums_of_their_one_hot_form(way, weighted):
    x, y, w = _inputs()
    p, t = x.softmax(1), torch.nn.functional.one_hot(y, 3).movedim(-1, 1).double()
    by = w[:, None] if weighted else torch.ones(2, 1, 11, dtype=torch.float64)
    want = torch.stack([(by * s).sum(2) for s in (p * t, p, t)], -1)
    with way():
        sums = overlap_sums(x, y, w if weighted else None, softmax=True)
        dense = overlap_sums(x, t, w if weighted else None, softmax=True)
    torch.testing.assert_close(sums, want, rtol=1e-13, atol=0)
    torch.testing.assert_close(dense, want, rtol=1e-13, atol=0)


@pytest.mark.parametrize("way", WAYS)
def test_a_soft_target_is_best_matched_by_itself(way):
    x, _, _ = _inputs()
    with way():
        common, prediction, truth = overlap_sums(x, x.sigmoid(), None, softmax=False).unbind(-1)
    torch.testing.assert_close(common, prediction, rtol=1e-13, atol=0)
    torch.testing.assert_close(common, truth, rtol=1e-13, atol=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_pixel_of_weight_0_is_not_there_whatever_it_holds(way, poison):
    x, y, w = _inputs()
    w[:, ::3] = 0
    kept = [i for i in range(11) if i % 3]
    bad = x.clone()
    bad[:, :, ::3] = poison
    bad.requires_grad_()
    with way():
        sums = overlap_sums(bad, y, w, softmax=True)
        want = overlap_sums(x[:, :, kept], y[:, kept], w[:, kept], softmax=True)
        sums.square().sum().backward()
    torch.testing.assert_close(sums, want, rtol=1e-13, atol=0)
    assert not bad.grad[:, :, ::3].any()
    assert bad.grad.isfinite().all()


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


def test_a_target_is_cleared_without_a_look_at_it_where_looking_is_a_host_sync():
    x, t, w = torch.empty(3, 2, 3, 11, device="meta").unbind(0)
    assert _known(t, w, Work(x.device), x).shape == t.shape
