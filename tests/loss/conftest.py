"""What tests of formulas share: the step against the definition, and compiled against eager."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aptt.core.formula import Product


def _same_as_autograd(formula, x, *sides, **options):
    """The step's value and gradient are those of the definition, for any upstream gradient."""
    x = x.detach().requires_grad_()
    value = formula.define(x, formula.measure(x, sides, options), sides, options)
    up = torch.randn(value.shape, dtype=value.dtype, generator=torch.Generator().manual_seed(9))
    (expected,) = torch.autograd.grad(value, x, up)
    (evenly,) = torch.autograd.grad(
        formula.define(x, formula.measure(x, sides, options), sides, options).sum(), x
    )
    for form in {formula, formula.in_one or formula}:
        number = 0.5 if form.ahead or form is formula else torch.tensor(0.5).to(x)
        with torch.no_grad():
            kept = form.measure(x, sides, options)
            v, dx = form.advance(x, up, kept, sides, options)
            _, half = form.advance(x, number, kept, sides, options)
            result = form.result(x, kept, *sides, **options)
        dx, half = (g.of(x.dtype) if isinstance(g, Product) else g for g in (dx, half))
        torch.testing.assert_close(dx, expected, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(result, value.detach(), rtol=1e-12, atol=1e-14)
        if v is not None:
            torch.testing.assert_close(v, value.detach(), rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(half, 0.5 * evenly, rtol=1e-11, atol=1e-13)


def _same_when_compiled(loss_fn, x, *args, **options):
    """One graph gives the value and the gradient of the eager call, for a ragged upstream."""

    def both(call):
        leaf = x.detach().clone().requires_grad_()
        value = call(leaf, *args, **options)
        up = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
        (gradient,) = torch.autograd.grad(value, leaf, up)
        return value.detach(), gradient

    torch.compiler.reset()
    compiled = torch.compile(loss_fn, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(both(compiled), both(loss_fn), rtol=1e-11, atol=1e-13)


@pytest.fixture
def same_as_autograd():
    """A check of one formula."""
    return _same_as_autograd


@pytest.fixture
def same_when_compiled():
    """A check of one call."""
    return _same_when_compiled


@pytest.fixture
def told():
    """A normalizer that keeps what it hears: of each term, whether it splits."""

    class Told:
        def __init__(self):
            self.heard = []

        def hear(self, kind, *, term, splits=True):
            self.heard.append((term, splits))

        def __call__(self, total, count, *, term):
            return total / count

    return Told()


class _Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that is made within."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(t, torch.Tensor):
                self.elements = max(self.elements, t.numel())
        return out


@pytest.fixture
def largest():
    """A mode that knows the largest tensor."""
    return _Largest
