"""Universal logit distillation: sorted probabilities of two vocabularies."""

import torch

from aptt.loss import uld_loss
from aptt.loss.distill.uld import _SORTED


def _logits(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=g)


def test_values_by_hand():
    """[.5, .3, .2] beside [.6, .4]: .1 + .1 + .2; and two that share out their mass alike: 0."""
    student = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.4, 0.6], [0.3, 0.7]], dtype=torch.float64).log()
    found = uld_loss(student, teacher, reduction="none")
    torch.testing.assert_close(found, torch.tensor([0.4, 0.2], dtype=torch.float64))
    assert uld_loss(student, student.roll(1, 1)) == 0
    assert uld_loss(student, torch.nn.functional.pad(student, (0, 3), value=-torch.inf)) == 0


def test_it_is_its_formula_with_its_gradient():
    x, t = _logits(7, 5).requires_grad_(), _logits(7, 8, seed=1)
    q = (x / 2).softmax(1).sort(1, descending=True).values
    p = (t / 2).softmax(1).sort(1, descending=True).values
    expected = (q - p[:, :5]).abs().sum(1) + p[:, 5:].sum(1)
    up = torch.linspace(0.5, 2, 7, dtype=torch.float64)
    found = uld_loss(x, t, temperature=2.0, reduction="none")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, x, up), torch.autograd.grad(expected, x, up)
    )
    image = uld_loss(x.view(7, 5, 1, 1).expand(7, 5, 2, 2), t.view(7, 8, 1, 1).expand(7, 8, 2, 2),
                     class_dim=1, temperature=2.0)  # fmt: skip
    torch.testing.assert_close(image, found.mean())


def test_its_gradient_by_hand_has_all_digits_where_the_student_is_sure(same_as_autograd):
    x, t = _logits(7, 5), _logits(7, 8, seed=1)
    for a, b in ((x, t), (t, x), (x, x.flip(0)), (x.view(7, 5, 1), t.view(7, 8, 1))):
        same_as_autograd(_SORTED, a, b, temperature=2.0)
    x = torch.tensor([[0.0, -30.0]]).requires_grad_()
    (slope,) = torch.autograd.grad(uld_loss(x, torch.zeros(1, 2)), x)
    p = torch.tensor(-30.0, dtype=torch.float64).sigmoid()
    exact = 2 * p * (1 - p) * torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(slope.double(), exact, rtol=1e-6, atol=0)


def test_a_prompt_has_no_part():
    """Soup#682: the gradient at a prompt's position was .0754, for 0."""
    x, t = _logits(2, 4, 5).requires_grad_(), _logits(2, 4, 8, seed=1)
    weight = torch.ones(2, 4)
    weight[:, 0], t[:, 0] = 0, torch.nan
    loss = uld_loss(x, t, sample_weight=weight, class_dim=-1)
    (slope,) = torch.autograd.grad(loss, x)
    assert (slope[:, 0] == 0).all()
    torch.testing.assert_close(loss, uld_loss(x[:, 1:], t[:, 1:], class_dim=-1))
