"""Distances against brute force and scipy; the two forms against each other."""

import os

import numpy as np
import pytest
import torch

from aptt.core import distance as module
from aptt.core.distance import distance, signed_field

CASES = int(os.environ.get("DISTANCE_CASES", "40"))  # three masks each, see `seeds`


def seeds(case):
    """A few random masks of one size, and a spacing for each; the sparsest have none or few."""
    g = np.random.default_rng(case)
    axes = 2 + case % 2
    size = g.integers(1, 24 if axes == 2 else 9, axes)
    mask = g.random((3, *size)) < g.choice([0.0, 0.01, 0.05, 0.5, 0.95, 1.0], (3, *[1] * axes))
    spacing = g.choice([0.7, 1.0, 2.0, 3.0], (3, axes)) if case % 3 else None
    return torch.tensor(mask), None if spacing is None else torch.tensor(spacing)


def measure(mask, spacing, cap=None, dtype=torch.float64):
    return distance(mask, spacing, cap=cap, dtype=dtype)


def by_hand(mask, spacing):
    at = torch.stack(torch.meshgrid(*map(torch.arange, mask.shape), indexing="ij"), -1).double()
    at = (at if spacing is None else at * spacing).flatten(0, -2)
    far = (at[:, None] - at[mask.flatten()]).square().sum(-1)
    return far.amin(1).sqrt().view(mask.shape) if mask.any() else torch.full(mask.shape, torch.inf)


def each(mask, spacing, one):
    return torch.stack(
        [one(m, None if spacing is None else spacing[i]) for i, m in enumerate(mask)]
    )


@pytest.mark.parametrize("case", range(0, CASES, 4))
def test_it_is_the_distance_to_the_nearest_of_all_seeds(case):
    mask, spacing = seeds(case)
    torch.testing.assert_close(measure(mask, spacing), each(mask, spacing, by_hand).double())


@pytest.mark.parametrize("case", range(CASES))
def test_it_is_scipys_where_there_is_a_seed(case):
    edt = pytest.importorskip("scipy.ndimage").distance_transform_edt
    mask, spacing = seeds(case)

    def one(m, size):
        return torch.from_numpy(edt(~m.numpy(), None if size is None else size.tolist()))

    some = mask.flatten(1).any(1)
    want = each(mask, spacing, one)[some]
    torch.testing.assert_close(measure(mask, spacing)[some], want, rtol=1e-14, atol=0)
    low = measure(mask, spacing, dtype=torch.float32)[some]
    torch.testing.assert_close(low.double(), want, rtol=2e-7, atol=0)


def test_scipy_measures_a_mask_without_a_seed_to_a_phantom_and_here_it_is_infinite():
    edt = pytest.importorskip("scipy.ndimage").distance_transform_edt
    assert edt(np.ones((3, 4)))[0].round(3).tolist() == [1, 1.414, 2.236, 3.162]
    assert measure(torch.zeros(1, 3, 4, dtype=torch.bool), None).isinf().all()


@pytest.mark.parametrize("case", range(0, CASES, 3))
@pytest.mark.parametrize("room", [1, 200, 2**20])
def test_the_form_without_looks_gives_the_same_bits(case, room, monkeypatch):
    mask, spacing = seeds(case)
    want = [measure(mask, spacing, cap, torch.float32) for cap in (None, 2.5)]
    monkeypatch.setattr(module, "_by_shifts", module._by_blocks)
    monkeypatch.setattr(module, "_ROOM", room)
    for cap, there in zip((None, 2.5), want, strict=True):
        assert torch.equal(measure(mask, spacing, cap, torch.float32), there)


@pytest.mark.parametrize("case", range(0, CASES, 5))
@pytest.mark.parametrize("tile", [1, 40])
def test_tiles_of_any_size_give_the_same_bits(case, tile, monkeypatch):
    mask, spacing = seeds(case)
    want = [measure(mask, spacing, cap, torch.float32) for cap in (None, 2.5)]
    monkeypatch.setattr(module, "_TILE", tile)
    for cap, there in zip((None, 2.5), want, strict=True):
        assert torch.equal(measure(mask, spacing, cap, torch.float32), there)


@pytest.mark.parametrize("case", range(0, CASES, 5))
def test_a_cap_bounds_it_and_changes_nothing_below(case):
    mask, spacing = seeds(case)
    assert torch.equal(measure(mask, spacing, 2.5), measure(mask, spacing).clamp(max=2.5))


def test_one_look_is_enough_where_all_is_near(monkeypatch):
    looks = []
    monkeypatch.setattr(module, "_LOOK", 2)
    near = torch.ones(1, 64, 64, dtype=torch.bool)
    near[:, 30:33, 30:33] = False
    narrow = torch.Tensor.narrow
    monkeypatch.setattr(torch.Tensor, "narrow", lambda *a: looks.append(a) or narrow(*a))
    measure(near, None)
    assert len(looks) <= 4 * 4


def test_a_field_in_groups_of_classes_is_the_field(monkeypatch):
    t = torch.randint(4, (2, 6, 5), generator=torch.Generator().manual_seed(0))
    known, spacing = t != 3, torch.tensor([[1.0, 2.0], [0.5, 3.0]])
    options = dict(rim="zero", cap=None, dtype=torch.float64)
    want = signed_field(t, known.unsqueeze(1), 4, spacing, **options)
    monkeypatch.setattr(module, "_ROOM", 1)
    assert torch.equal(signed_field(t, known.unsqueeze(1), 4, spacing, **options), want)
    hot = torch.nn.functional.one_hot(t, 4).movedim(-1, 1)
    assert torch.equal(signed_field(hot, known.unsqueeze(1), None, spacing, **options), want)
    assert not want[:, 3].any()  # of which nothing is known


def test_nothing_to_measure_is_nothing():
    assert measure(torch.zeros(0, 3, 4, dtype=torch.bool), None).shape == (0, 3, 4)
    empty = torch.zeros(2, 0, 4, dtype=torch.long)
    options = dict(rim="zero", cap=None, dtype=torch.float32)
    assert signed_field(empty, None, 3, None, **options).shape == (2, 3, 0, 4)
