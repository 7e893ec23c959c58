"""Exponentials less 1, eagerly and in the kernels that inductor makes."""

import re
from pathlib import Path

import pytest
import torch

import aptt
from aptt.core.exponential import expm1, rise, tanh_of_half
from aptt.loss import distillation_loss

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
SOURCE = Path(aptt.__file__).parent
FORMS = {
    "expm1": (expm1, torch.expm1, (-90.0, 80.0)),
    "rise": (rise, lambda e: -torch.expm1(-e), (0.0, 90.0)),
    "tanh_of_half": (tanh_of_half, lambda x: torch.tanh(x / 2), (-90.0, 90.0)),
}


def every(xs):
    """All of them in one graph, which takes one compilation."""
    return [form(x) for (form, *_), x in zip(FORMS.values(), xs, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("way", ["eager", "compiled"])
def test_their_digits_are_all_there(way, dtype):
    sizes = torch.logspace(-30, 2, 400, dtype=dtype)
    both = torch.cat((-sizes, sizes, torch.linspace(-1.5, 1.5, 301, dtype=dtype)))
    xs = [
        torch.cat((both[(both > low) & (both < high)], both.new_tensor((low, high))))
        for *_, (low, high) in FORMS.values()
    ]
    xs = [x.requires_grad_() for x in xs]
    got = (torch.compile(every) if way == "compiled" else every)(xs)
    slopes = torch.autograd.grad([v.sum() for v in got], xs)
    for (_, exact, _), x, value, slope in zip(FORMS.values(), xs, got, slopes, strict=True):
        wide = x.detach().double().requires_grad_()
        want = exact(wide)
        tight = 8 * torch.finfo(dtype).eps
        torch.testing.assert_close(value.double(), want, rtol=tight, atol=0.0)
        if exact is not torch.expm1 or way == "compiled":  # eager torch has it from the value
            (rises,) = torch.autograd.grad(want.sum(), wide)
            torch.testing.assert_close(slope.double(), rises, rtol=1e-5, atol=tight)


def test_students_that_are_nearly_teachers_have_their_digits_compiled():
    torch.manual_seed(0)
    teacher = torch.randn(64, 100)
    near = teacher + 1e-4 * torch.randn(64, 100)
    kinds = ("forward_kl", "reverse_kl", "jsd")

    def losses(x, t):
        return [distillation_loss(x, t, divergence=kind, alpha=1.0) for kind in kinds]

    x, wide = near.clone().requires_grad_(), near.double().requires_grad_()
    for got, want in zip(
        torch.compile(losses, fullgraph=True)(x, teacher),
        losses(wide, teacher.double()),
        strict=True,
    ):
        torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=0.0)
        (slope,) = torch.autograd.grad(got, x, retain_graph=True)
        (exact,) = torch.autograd.grad(want, wide, retain_graph=True)
        assert (slope.double() - exact).norm() < 1e-6 * exact.norm()


def test_nobody_takes_them_elsewhere():
    """What inductor makes of ``expm1`` and of an ELU has no digits near 0."""
    taken = re.compile(r"\.expm1(_)?\(|\belu\(")
    files = [f for room in ("core", "loss") for f in (SOURCE / room).rglob("*.py")]
    assert [str(f) for f in files if taken.search(f.read_text("utf-8"))] == [
        str(SOURCE / "core" / "exponential.py")
    ]
