"""Gaussians on a grid, against one written out by hand, and the radius against boxes that stray."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aptt.core.exponential import rise
from aptt.core.gaussian import gaussian_maps, gaussian_radius, paint_gaussians


def test_a_map_is_the_formula_at_every_cell():
    x, y, sigma = 2.3, 0.8, 1.7
    (found,) = gaussian_maps(torch.tensor([[x, y]], dtype=torch.float64), sigma, (4, 5))
    for v in range(4):
        for u in range(5):
            value = math.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2))
            assert found[v, u].item() == pytest.approx(value, rel=1e-13)


def _iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def _worst_iou(height, width, r):
    """Of the box whose corners stray by ``r``: the same way, both inwards, both outwards."""
    box = (0, 0, width, height)
    strayed = [(r, r, width + r, height + r), (r, r, width - r, height - r)]
    return min(_iou(box, other) for other in [*strayed, (-r, -r, width + r, height + r)])


OVERLAPS = pytest.mark.parametrize("overlap", [0.3, 0.7, 0.95])
SIZES = pytest.mark.parametrize(("height", "width"), [(10, 10), (3, 40), (1, 1), (200, 31)])


@OVERLAPS
@SIZES
def test_the_exact_radius_is_where_the_overlap_is_reached(height, width, overlap):
    h, w = (torch.tensor([float(t)], dtype=torch.float64) for t in (height, width))
    r = gaussian_radius(h, w, min_overlap=overlap).item()
    assert _worst_iou(height, width, r) == pytest.approx(overlap, rel=1e-9)


@OVERLAPS
@SIZES
def test_the_original_radius_is_the_least_of_the_published_roots(height, width, overlap):
    h, w = (torch.tensor([float(t)], dtype=torch.float64) for t in (height, width))
    r = gaussian_radius(h, w, min_overlap=overlap, rule="original").item()
    total, area, m = height + width, height * width, overlap
    one_each = (total + math.sqrt(total**2 - 4 * area * (1 - m) / (1 + m))) / 2
    inwards = (2 * total + math.sqrt(4 * total**2 - 16 * (1 - m) * area)) / 2
    outwards = (-2 * m * total + math.sqrt((2 * m * total) ** 2 + 16 * m * (1 - m) * area)) / 2
    assert r == pytest.approx(min(one_each, inwards, outwards), rel=1e-13)


def test_the_original_radius_of_centernet_lets_the_overlap_fall():
    # CornerNet issue 37: 10 x 10 at 0.7 gives 2.733, and an IoU down to 0.206
    ten = torch.tensor([10.0], dtype=torch.float64)
    original = gaussian_radius(ten, ten, min_overlap=0.7, rule="original").item()
    exact = gaussian_radius(ten, ten, min_overlap=0.7).item()
    assert original == pytest.approx(2.7332, abs=1e-4)
    assert exact == pytest.approx(0.8167, abs=1e-4)
    assert _worst_iou(10, 10, original) == pytest.approx(0.206, abs=1e-3)


def test_a_point_has_no_radius():
    nothing, some = torch.zeros(1), torch.ones(1)
    assert gaussian_radius(nothing, nothing, min_overlap=0.7).item() == 0
    assert gaussian_radius(some, nothing, min_overlap=0.7).item() == 0


def test_painting_keeps_the_largest_and_stops_at_radius_and_border():
    cells = [(0, 1, 1, 2), (0, 4, 2, 1), (1, 0, 0, 3), (0, 1, 1, 0), (1, 6, 4, 2)]
    plane, column, row, radius = torch.tensor(cells).T
    found = paint_gaussians(torch.zeros(2, 5, 7, dtype=torch.float64), plane, column, row, radius)
    expected = torch.zeros(2, 5, 7, dtype=torch.float64)
    for p, x, y, r in cells:
        sigma = (2 * r + 1) / 6
        for v in range(max(y - r, 0), min(y + r + 1, 5)):
            for u in range(max(x - r, 0), min(x + r + 1, 7)):
                value = math.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2))
                expected[p, v, u] = max(expected[p, v, u].item(), value)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    assert all(found[p, y, x] == 1 for p, x, y, _ in cells)


def test_many_large_peaks_are_painted_in_parts(monkeypatch):
    g = torch.Generator().manual_seed(0)
    cells = [torch.randint(9, (40,), generator=g) for _ in range(3)]
    radius = torch.randint(4, (40,), generator=g)
    whole = paint_gaussians(torch.zeros(9, 9, 9), *cells, radius)
    monkeypatch.setattr("aptt.core.gaussian._AT_ONCE", 60)
    assert torch.equal(paint_gaussians(torch.zeros(9, 9, 9), *cells, radius), whole)


class _Largest(TorchDispatchMode):
    """Notes the largest tensor made."""

    cells = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.cells = max(self.cells, made.numel())
        return made


def test_a_peak_wider_than_the_maps_costs_no_more_than_they_do():
    x, y, r = 6, 1, 400
    cell = [torch.tensor([t]) for t in (0, x, y, r)]
    with _Largest() as largest:
        (found,) = paint_gaussians(torch.zeros(1, 5, 7, dtype=torch.float64), *cell)
    (whole,) = gaussian_maps(torch.tensor([[x, y]]).double(), (2 * r + 1) / 6, (5, 7))
    torch.testing.assert_close(found, whole)
    assert largest.cells <= 15**2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rise_of_a_gaussian_and_its_slope(dtype):
    e = torch.logspace(-12, 1.9, 400, dtype=torch.float64).to(dtype)
    x = e.clone().requires_grad_()
    value = rise(x)
    value.sum().backward()
    rel = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(value.double(), -torch.expm1(-e.double()), rtol=rel, atol=0)
    torch.testing.assert_close(x.grad.double(), (-e.double()).exp(), rtol=rel, atol=0)
