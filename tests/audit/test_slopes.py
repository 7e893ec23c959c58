"""A derivative that is off in one element of many is found, and none that is right is refused."""

import pytest
import torch
from torch.autograd import gradcheck

from aptt.audit.slopes import SIGNS, is_right

MANY = 40 * SIGNS


class Cubes(torch.autograd.Function):
    """The sum of cubes; its gradient is off in one element."""

    @staticmethod
    def forward(ctx, x, at, off):
        ctx.save_for_backward(x)
        ctx.at, ctx.off = at, off
        return (x**3).sum()

    @staticmethod
    def backward(ctx, up):
        (x,) = ctx.saved_tensors
        slope = 3 * x.square()
        slope[ctx.at] += ctx.off
        return up * slope, None, None


def point():
    drawn = torch.randn(MANY, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return (0.01 * drawn).requires_grad_()


@pytest.mark.parametrize("at", range(0, MANY, 97))
def test_one_element_of_many_is_found(at):
    def off(x):
        return Cubes.apply(x, at, 3e-5)

    assert gradcheck(off, point(), fast_mode=True), "one random direction does not see it"
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        is_right(off, [point()])


def test_what_is_right_is_kept():
    is_right(lambda x: Cubes.apply(x, 0, 0.0), [point()])


def test_it_is_found_in_many_values_of_several_points():
    x = point()

    def values(x, up):
        return up * Cubes.apply(x, 5, 3e-5) + (x**2 * x).sin()

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        is_right(values, [x, torch.ones((), dtype=torch.float64, requires_grad=True)])
