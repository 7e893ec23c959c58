"""Feature distillation: directions, and maps of where features are active."""

import pytest
import torch

from aptt.loss import feature_distillation_loss

KINDS = ["cosine", "unit", "attention"]


def _features(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=g)


def _literal(x, t, kind):
    if kind == "cosine":
        return 1 - torch.nn.functional.cosine_similarity(x, t, 1)
    if kind == "attention":
        x, t = x.square().sum(1), t.square().sum(1)
    x, t = x.flatten(1), t.flatten(1)
    return (x / x.norm(dim=1, keepdim=True) - t / t.norm(dim=1, keepdim=True)).norm(dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_its_formula(kind):
    x, t = _features(4, 3, 2, 5).requires_grad_(), _features(4, 3, 2, 5, seed=1)
    found = feature_distillation_loss(x, t, kind=kind, reduction="none")
    expected = _literal(x, t, kind)
    torch.testing.assert_close(found, expected)
    up = torch.linspace(0.5, 2, found.numel(), dtype=torch.float64).view(found.shape)
    torch.testing.assert_close(
        torch.autograd.grad(found, x, up), torch.autograd.grad(expected, x, up)
    )


def test_unit_vectors_that_are_orthogonal_are_a_square_root_of_two_apart():
    found = feature_distillation_loss(torch.eye(2), torch.eye(2).flip(1), kind="unit")
    assert found.item() == pytest.approx(2**0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1e-30, 3.0, 1e30])
def test_the_size_of_features_does_not_count(kind, factor):
    x, t = _features(4, 3, 5).float(), _features(4, 3, 5, seed=1).float()
    found = feature_distillation_loss(factor * x, t, kind=kind)
    torch.testing.assert_close(found, feature_distillation_loss(x, t, kind=kind))
    same = (factor * x).requires_grad_()
    loss = feature_distillation_loss(same, same.detach(), kind=kind)
    assert loss == 0
    assert (torch.autograd.grad(loss, same)[0] == 0).all()


@pytest.mark.parametrize(("kind", "beside"), [("cosine", 0.5), ("unit", 1.0), ("attention", 1.0)])
def test_features_of_0_have_no_direction_and_no_gradient(kind, beside):
    x, t = torch.zeros(2, 3, 4).requires_grad_(), torch.zeros(2, 3, 4)
    t[1] = 1.0
    loss = feature_distillation_loss(x, t, kind=kind, reduction="none")
    torch.testing.assert_close(loss[0], torch.zeros_like(loss[0]))
    torch.testing.assert_close(loss[1], torch.full_like(loss[1], beside))
    assert (torch.autograd.grad(loss.sum(), x)[0] == 0).all()


def test_attention_takes_any_number_of_channels_and_mdistiller_a_mean_over_places():
    x, t = _features(4, 3, 2, 5), _features(4, 7, 2, 5, seed=1)
    found = feature_distillation_loss(x, t, kind="attention", reduction="none")
    maps = [torch.nn.functional.normalize(f.square().mean(1).flatten(1)) for f in (x, t)]
    peers = (maps[0] - maps[1]).square().mean()
    torch.testing.assert_close(found.square().mean() / 10, peers)
