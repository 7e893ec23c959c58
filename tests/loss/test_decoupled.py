"""Decoupled distillation: the identity with the divergence, and what others make NaN of."""

import pytest
import torch

from aptt.core.decoupled import DECOUPLED, Parts
from aptt.loss import (
    decoupled_distillation_loss,
    decoupled_distillation_terms,
    distillation_loss,
)


def _logits(*shape, seed=0, scale=3.0):
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, dtype=torch.float64, generator=g)


Y = torch.randint(6, (12,), generator=torch.Generator().manual_seed(2))


def _of_p(*p):
    return torch.tensor([p], dtype=torch.float64).log()


def test_values_by_hand():
    """KL .0252672 = .0204110 + .5 * .0097123, and with weights 1 and 8 .0981095."""
    given = _of_p(0.4, 0.4, 0.2), _of_p(0.5, 0.3, 0.2), [0]
    terms = decoupled_distillation_terms(*given, temperature=1.0)
    assert terms["target"].item() == pytest.approx(0.0204110, abs=5e-8)
    assert terms["others"].item() == pytest.approx(0.0097123, abs=5e-8)
    assert decoupled_distillation_loss(*given, temperature=1.0).item() == pytest.approx(
        0.0981095, abs=5e-8
    )
    whole = distillation_loss(*given[:2], alpha=1.0, temperature=1.0)
    assert whole.item() == pytest.approx(0.0252672, abs=5e-8)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_the_parts_are_the_divergence(temperature, classes):
    """KL(p_t || p_s) = KL(b_t || b_s) + (1 - p_t[y]) KL(p^_t || p^_s), in value and gradient."""
    x, t = _logits(12, classes).requires_grad_(), _logits(12, classes, seed=1)
    y = Y % classes
    options = {"temperature": temperature, "reduction": "none"}
    terms = decoupled_distillation_terms(x, t, y, **options)
    others = 1 - (t / temperature).softmax(1).gather(1, y[:, None])[:, 0]
    found = terms["target"] + others * terms["others"]
    expected = distillation_loss(x, t, alpha=1.0, **options)
    for a, b in ((found, expected), (_slope(found, x), _slope(expected, x))):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    if classes == 2:
        assert (terms["others"] == 0).all()


def _slope(values, x):
    up = torch.linspace(0.5, 2, values.numel(), dtype=values.dtype)
    return torch.autograd.grad(values, x, up, retain_graph=True)[0]


def test_it_is_mdistillers_where_that_is_right():
    """Logarithms of softmaxes, the right class masked by 1000; alpha 1, beta 8, T 4."""
    x, t = _logits(12, 6), _logits(12, 6, seed=1)
    own = torch.nn.functional.one_hot(Y, 6).double()
    q, p = (x / 4).softmax(1), (t / 4).softmax(1)
    two = [torch.stack(((v * own).sum(1), (v * (1 - own)).sum(1)), 1) for v in (q, p)]
    others = [(v / 4 - 1000 * own).log_softmax(1) for v in (x, t)]
    kl = torch.nn.functional.kl_div
    first = kl(two[0].log(), two[1], reduction="batchmean") * 16
    second = kl(others[0], others[1], reduction="batchmean", log_target=True) * 16
    found = decoupled_distillation_loss(x, t, Y)
    torch.testing.assert_close(found, first + 8 * second, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_confident_student_has_a_finite_loss_and_gradient(dtype):
    """mdistiller#60: inf and NaN from a logit of 900 in float32, of 80 in float16."""
    x = torch.tensor([[900.0, 0.0, 1.0], [0.0, 80.0, 1.0]], dtype=dtype).requires_grad_()
    t = torch.tensor([[0.0, 3.0, 1.0], [6e4, 0.0, -6e4]], dtype=dtype)
    wide = x.detach().double().requires_grad_()
    options = {"temperature": 1.0, "target_weight": 1.0, "others_weight": 0.5}
    found, truth = (
        decoupled_distillation_loss(v, t.to(v.dtype), [1, 0], **options) for v in (x, wide)
    )
    torch.testing.assert_close(found.double(), truth, rtol=1e-6, atol=0)
    (got,), (want,) = torch.autograd.grad(found, x), torch.autograd.grad(truth, wide)
    torch.testing.assert_close(
        got.double(), want, rtol=2e-3 if dtype == torch.float16 else 1e-6, atol=1e-7
    )


def test_a_sure_teacher_leaves_the_others_their_weight():
    """1 - p[y] is 1e-9 in float32, and the others' part is that of a teacher that is not sure."""
    t = torch.tensor([[21.0, 0.0, 1.0, 2.0]])
    x = torch.tensor([[21.0, 2.0, 1.0, 0.0]])
    sure = decoupled_distillation_terms(x, t, [0], temperature=1.0)["others"]
    unsure = distillation_loss(x[:, 1:], t[:, 1:], alpha=1.0, temperature=1.0)
    torch.testing.assert_close(sure, unsure, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(9, 5), (3, 5, 4)])
def test_its_gradient_by_hand(shape, same_as_autograd):
    x, t = _logits(*shape), _logits(*shape, seed=1)
    y = torch.randint(5, (shape[0], *shape[2:]), generator=torch.Generator().manual_seed(3))
    x[0, 1], t[0, 1], t[1, 2] = -torch.inf, -torch.inf, -torch.inf
    y[0], y[1] = 0, 0
    same_as_autograd(DECOUPLED, x, t, y, parts=Parts(2.5, 3.0, 0.7))


def test_where_the_others_are_masked_there_is_one_part_and_no_nan():
    x = torch.tensor([[1.0, -torch.inf, -torch.inf]]).requires_grad_()
    loss = decoupled_distillation_loss(x, x.detach(), [0])
    assert loss == 0
    assert (torch.autograd.grad(loss, x)[0] == 0).all()
    open_to = torch.tensor([[1.0, 0.0, -1.0]]).requires_grad_()
    loss = decoupled_distillation_loss(open_to, x.detach(), [0], temperature=1.0)
    expected = -open_to.log_softmax(1)[0, 0]  # the teacher is sure: the rest has no say
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, open_to), torch.autograd.grad(expected, open_to)
    )
