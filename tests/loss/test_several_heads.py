"""Several heads on the same hidden states, as torch's linear cross-entropy takes them."""

import pytest
import torch
from torch.nn import functional as F

from aptt.loss import LinearCrossEntropyLoss, cross_entropy, linear_cross_entropy

WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.25, 1.5], dtype=torch.float64)


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _call():
    """4 hidden states, heads of 5 classes at 2 x 3 places, and their logits, classes second."""
    hidden, weight = _random(4, 7).requires_grad_(), _random(5, 2, 3, 7, seed=1).requires_grad_()
    bias = _random(5, 2, 3, seed=2).requires_grad_()
    target = torch.arange(24).reshape(4, 2, 3) % 5
    target[0, 0, 0] = target[2, 1, :] = -100
    logits = torch.einsum("nd,vabd->nvab", hidden, weight) + bias
    return (hidden, weight, bias), target, logits


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 0.01}])
def test_they_are_one_loss_of_all_places(reduction, options):
    leaves, target, logits = _call()
    hidden, weight, bias = leaves
    found = linear_cross_entropy(
        hidden, weight, target, bias=bias, class_weight=WEIGHT, reduction=reduction, **options
    )
    wanted = cross_entropy(logits, target, weight=WEIGHT, reduction=reduction, **options)
    torch.testing.assert_close(found, wanted)
    up = torch.linspace(1, 2, found.numel()).double().reshape(found.shape)
    torch.testing.assert_close(
        torch.autograd.grad(found, leaves, up), torch.autograd.grad(wanted, leaves, up)
    )


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="torch has none")
def test_torch_has_the_same_numbers():
    (hidden, weight, bias), target, _ = _call()
    for options in ({}, {"label_smoothing": 0.1}, {"reduction": "none"}):
        found = linear_cross_entropy(
            hidden, weight, target, bias=bias, class_weight=WEIGHT, **options
        )
        wanted = F.linear_cross_entropy(
            hidden, weight, target, linear_bias=bias, weight=WEIGHT, ignore_index=-100, **options
        )
        torch.testing.assert_close(found, wanted)


def test_soft_targets_sample_weights_and_normalizers():
    (hidden, weight, _), _, _ = _call()
    soft, rows = _random(4, 2, 3, 5, seed=4).softmax(-1), torch.rand(4, 2, 3).double()
    logits = torch.einsum("nd,vabd->nabv", hidden, weight)
    wanted = cross_entropy(logits, soft, class_dim=-1, sample_weight=rows)
    loss_fn = LinearCrossEntropyLoss(reduction=lambda total, count, *, term: total / count)
    torch.testing.assert_close(loss_fn(hidden, weight, soft, sample_weight=rows), wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"ignore_index": 1},
        {"label_smoothing": 0.2},
        {"z_loss": 0.3},
        {"softcap": 0.7},
        {"logit_adjustment": WEIGHT},
        {"scale": 0.4},
        {"class_weight": WEIGHT},
        {"sample_weight": [0.5, 1.0, 2.0, 0.0]},
        {"bias": WEIGHT},
        {"reduction": "sum"},
    ],
)
def test_one_head_among_several_is_that_head_under_every_option(options):
    (hidden, weight, _), target, _ = _call()
    one = weight[:, 0, 1], target[:, 0, 1]
    wanted = linear_cross_entropy(hidden, *one, **options)
    assert wanted != linear_cross_entropy(hidden, *one)
    axes = {"bias": 1, "sample_weight": 1}
    more = {k: torch.as_tensor(v).unsqueeze(1) if k in axes else v for k, v in options.items()}
    found = linear_cross_entropy(hidden, *(t.unsqueeze(1) for t in one), **more)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_shapes_are_named():
    (hidden, weight, bias), target, _ = _call()
    with pytest.raises(ValueError, match=r"target: got shape \(4, 3, 2\).*wanted \(4, 2, 3\)"):
        linear_cross_entropy(hidden, weight, target.mT)
    with pytest.raises(ValueError, match=r"bias: got shape \(5,\), wanted \(5, 2, 3\)"):
        linear_cross_entropy(hidden, weight, target, bias=bias[:, 0, 0])
    with pytest.raises(ValueError, match=r"weight: got shape \(5, 6\)"):
        linear_cross_entropy(hidden, weight[..., :6], target)
