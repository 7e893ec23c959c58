"""Relational distillation: distances and angles of samples."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from aptt.loss import relational_distillation_loss, relational_distillation_terms


def _rows(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, dtype=torch.float64, generator=g)


def _huber(a, b):
    return torch.nn.functional.smooth_l1_loss(a, b)


def _literal(x, t):
    """Pair by pair and triple by triple, as the paper has it, with means."""
    pairs, triples = (list(itertools.permutations(range(len(x)), k)) for k in (2, 3))
    distances, angles = [], []
    for z in (x, t):
        d = torch.stack([(z[i] - z[j]).norm() for i, j in pairs])
        distances.append(d / d.mean())
        angles.append(
            torch.stack(
                [torch.cosine_similarity(z[i] - z[j], z[k] - z[j], 0) for i, j, k in triples]
            )
        )
    return {"distance": _huber(*distances), "angle": _huber(*angles)}


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_both_terms_are_their_formulas(chunk):
    x, t = _rows(6, 3).requires_grad_(), _rows(6, 5, seed=1)
    found, expected = relational_distillation_terms(x, t, chunk=chunk), _literal(x, t)
    torch.testing.assert_close(found, expected)
    loss = relational_distillation_loss(x, t, distance_weight=2.0, angle_weight=3.0, chunk=chunk)
    total = 2 * expected["distance"] + 3 * expected["angle"]
    torch.testing.assert_close(torch.autograd.grad(loss, x), torch.autograd.grad(total, x))


def test_a_chunk_bounds_what_is_held_of_all_triples(largest):
    n, width, chunk = 20, 8, 2
    x, t = _rows(n, width).requires_grad_(), _rows(n, width, seed=1)
    with largest() as seen:
        relational_distillation_loss(x, t, chunk=chunk).backward()
    assert seen.elements == chunk * n * n


def test_distances_by_hand():
    """Distances 1, 2, 3 over their mean are .5, 1, 1.5."""
    t, x = torch.tensor([[0.0], [1.0], [3.0]]), torch.zeros(3, 2)
    found = relational_distillation_terms(x, t)["distance"]
    assert found.item() == pytest.approx((0.125 + 0.5 + 1.0) / 3)  # of .5, 1, 1.5 against 0


@pytest.mark.parametrize("factor", [1e-20, 1.0, 1e15])
def test_it_is_the_same_where_the_space_is_turned_moved_and_stretched(factor):
    t = _rows(7, 3)
    turn = torch.linalg.qr(_rows(3, 3, seed=2)).Q
    x = (factor * (t @ turn + 0.5)).requires_grad_()
    loss = relational_distillation_loss(x, t)
    assert loss < 1e-25
    (slope,) = torch.autograd.grad(loss, x)
    assert (slope * factor).abs().max() < 1e-12


def test_samples_in_one_place_have_a_finite_gradient():
    """mdistiller: sqrt(1e-12) gives 5e5 between two, and the mean of nothing is NaN."""
    x = torch.cat((torch.zeros(2, 4), torch.eye(4))).requires_grad_()
    (slope,) = torch.autograd.grad(relational_distillation_loss(x, _rows(6, 3).float()), x)
    assert slope.abs().max() < 50
    for n in (1, 0, 5):
        x = torch.ones(n, 4, requires_grad=True)
        loss = relational_distillation_loss(x, torch.ones(n, 2))
        assert loss == 0
        assert (torch.autograd.grad(loss, x)[0] == 0).all()


def test_a_sample_of_weight_0_is_not_there_and_others_weigh_by_products_of_pairs_and_triples():
    x, t = _rows(6, 3), _rows(6, 5, seed=1)
    weight = torch.tensor([1.0, 1, 0, 1, 0, 1])
    keep = weight != 0
    expected = relational_distillation_terms(x[keep], t[keep])
    x[2], t[4] = torch.nan, torch.inf
    torch.testing.assert_close(relational_distillation_terms(x, t, weight=weight), expected)
    x, w = _rows(4, 3), torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    t = t[:4].nan_to_num()
    terms = relational_distillation_terms(x, t, weight=w)
    found = terms["distance"]
    pair = (w[:, None] * w).fill_diagonal_(0)
    d = [torch.cdist(z, z) for z in (x, t)]
    d = [v / ((v * pair).sum() / pair.sum()) for v in d]
    cost = F.smooth_l1_loss(*d, reduction="none")
    torch.testing.assert_close(found, (cost * pair).sum() / pair.sum())
    total = mass = 0.0
    for i, j, k in itertools.permutations(range(4), 3):
        cosines = [F.cosine_similarity(z[i] - z[j], z[k] - z[j], dim=0) for z in (x, t)]
        total += w[i] * w[j] * w[k] * F.smooth_l1_loss(*cosines)
        mass += w[i] * w[j] * w[k]
    torch.testing.assert_close(terms["angle"], total / mass)
