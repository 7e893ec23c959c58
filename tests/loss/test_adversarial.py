"""Adversarial losses: hand values, lists, and what vocoders and codecs get wrong."""

import pytest
import torch

from aptt.loss import (
    DiscriminatorLoss,
    FeatureMatchingLoss,
    GeneratorLoss,
    discriminator_loss,
    discriminator_terms,
    feature_matching_loss,
    generator_loss,
)
from aptt.loss.adversarial.kinds import SCORE
from aptt.parallel import count_mean

R, F_ = torch.tensor([0.8]).double(), torch.tensor([0.3]).double()
REAL = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])]
FAKE = [torch.tensor([2.0, 2.0]), torch.tensor([1.0])]


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "discriminator", "generator"),
    [
        ("lsgan", 0.13, 0.49),
        ("hinge", 1.5, -0.3),
        ("bce", 0.371101 + 0.854355, 0.554355),
        ("wasserstein", -0.5, -0.3),
    ],
)
def test_hand_values(kind, discriminator, generator):
    assert discriminator_loss(R, F_, kind=kind).item() == pytest.approx(discriminator, abs=1e-6)
    assert generator_loss(F_, kind=kind).item() == pytest.approx(generator, abs=1e-6)


def test_the_bounded_hinge_of_codecs():
    assert generator_loss(F_, kind="hinge", bounded=True).item() == pytest.approx(0.7)
    beyond = torch.tensor([1.5], requires_grad=True)
    generator_loss(beyond, kind="hinge", bounded=True).backward()
    assert beyond.grad == 0  # it has won; the critic's hinge pushes on


def test_features_by_hand():
    assert feature_matching_loss(FAKE, REAL).item() == 2.5  # 5.0 in HiFi-GAN, which doubles it
    assert feature_matching_loss(FAKE, REAL, relative=True).item() == pytest.approx(1.0)
    assert feature_matching_loss(FAKE, REAL, last=False).item() == 0.5  # DAC
    assert feature_matching_loss(FAKE, REAL, combine="mean").item() == 1.25
    assert feature_matching_loss([FAKE, FAKE], [REAL, REAL]).item() == 5.0


@pytest.mark.parametrize("kind", ["lsgan", "hinge", "bce", "wasserstein"])
@pytest.mark.parametrize("side", ["real", "fake", "generator"])
def test_the_step_of_a_score(kind, side, same_as_autograd):
    same_as_autograd(SCORE, 2 * _random(60), form=kind, side=side)


def test_every_discriminator_and_every_layer_counts():
    """coqui #419: an inverted condition left feature matching out of every model."""
    fake = [[_random(3, 2, seed=s).requires_grad_() for s in (d, d + 9)] for d in range(3)]
    real = [[_random(3, 2, seed=s) for s in (d + 20, d + 29)] for d in range(3)]
    leaves = [layer for layers in fake for layer in layers]
    total = feature_matching_loss(fake, real)
    assert all((g != 0).all() for g in torch.autograd.grad(total, leaves))
    apart = [(f - r).abs().mean() for fs, rs in zip(fake, real, strict=True)
             for f, r in zip(fs, rs, strict=True)]  # fmt: skip
    torch.testing.assert_close(total, torch.stack(apart).sum())
    scores = generator_loss(fake) + discriminator_loss(real, fake)
    slopes = torch.autograd.grad(scores, leaves, materialize_grads=True)
    assert [bool((g != 0).any()) for g in slopes] == [False, True] * 3  # the last of each


def test_lists_of_two_lengths_are_refused_and_not_cut():
    """HiFi-GAN, DAC: ``zip`` drops the discriminators and layers that one side lacks."""
    with pytest.raises(ValueError, match="fake: got 1 discriminators, wanted 2, as many as of rea"):
        discriminator_loss([R, R], [F_])
    with pytest.raises(ValueError, match=r"real\[0\]: got 1 layers, wanted 2, as many as of fake"):
        feature_matching_loss(FAKE, REAL[:1])
    with pytest.raises(ValueError, match="real: got 2 discriminators, wanted 1"):
        feature_matching_loss([FAKE], [REAL, REAL])
    with pytest.raises(ValueError, match="weight: got 1 discriminators, wanted 2"):
        generator_loss([F_, F_], weight=[F_])
    with pytest.raises(ValueError, match=r"fake\[1\].*real\[1\]|real\[1\].*fake\[1\]"):
        discriminator_loss([R, torch.zeros(2)], [F_, torch.zeros(2, 1)])
    with pytest.raises(TypeError, match="fake: got an empty list"):
        generator_loss([])
    with pytest.raises(ValueError, match="last: got False for one layer"):
        feature_matching_loss([R], [F_], last=False)


def test_real_features_are_constants():
    """pix2pixHD #237: otherwise the generator's step trains the discriminator to be blind."""
    fake, real = (_random(4, seed=s).requires_grad_() for s in (0, 1))
    feature_matching_loss(fake, real).backward()
    assert real.grad is None
    assert fake.grad.abs().sum() == 1
    feature_matching_loss(fake, real, detach_real=False).backward()
    assert real.grad.abs().sum() == 1


def test_a_silent_layer_has_no_relative_distance():
    fake = torch.tensor([1.0], requires_grad=True)
    loss = feature_matching_loss(fake, torch.zeros(1), relative=True)
    loss.backward()
    assert loss == 0
    assert fake.grad == 0


@pytest.mark.parametrize("relative", [False, True])
def test_parts_add_up_to_the_whole(relative):
    """Micro-batches of unequal size, the counts of each map from all of them."""
    fake, real = [_random(5, 3), _random(5, 2, seed=1)], [_random(5, 3, seed=2), _random(5, 2)]
    whole = feature_matching_loss(fake, real, relative=relative)
    size = [r.abs().sum() if relative else float(r.numel()) for r in real]
    shared = count_mean({f"features_0_{k}": float(n) for k, n in enumerate(size)})
    parts = [slice(0, 1), slice(1, 5)]
    together = sum(
        feature_matching_loss(
            [f[p] for f in fake], [r[p] for r in real], relative=relative, reduction=shared
        )
        for p in parts
    )
    torch.testing.assert_close(together, whole)
    scores = count_mean({f"{side}_{i}": 5.0 * n for side in ("real", "fake") for i, n in
                         enumerate((3, 2))})  # fmt: skip
    together = sum(
        discriminator_loss([r[p] for r in real], [f[p] for f in fake], reduction=scores)
        for p in parts
    )
    torch.testing.assert_close(together, discriminator_loss(real, fake))


def test_modules_take_what_the_functions_take():
    terms = DiscriminatorLoss(kind="hinge").terms([R, R], [F_, F_])
    assert terms == discriminator_terms([R, R], [F_, F_], kind="hinge")
    assert {k: round(v.item(), 6) for k, v in terms.items()} == {"real": 0.4, "fake": 2.6}
    assert GeneratorLoss(combine="mean").terms([F_, F_])["fake"] == GeneratorLoss()(F_)
    assert FeatureMatchingLoss(last=False).terms(FAKE, REAL)["features"] == 0.5


@pytest.mark.parametrize("kind", ["lsgan", "bce", "wasserstein"])
def test_only_a_hinge_is_bounded(kind):
    for call in (lambda **k: generator_loss(F_, **k), GeneratorLoss):
        with pytest.raises(ValueError, match=f"bounded: got True beside kind='{kind}'"):
            call(kind=kind, bounded=True)
