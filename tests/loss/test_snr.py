"""Signal-to-noise ratios: closed forms, levels, silence, lengths and permutations."""

import math
from functools import partial
from itertools import permutations

import pytest
import torch

import aptt.loss
from aptt.audit.ways import in_blocks, plainly
from aptt.core.engine import evaluate
from aptt.core.formula import Formula
from aptt.core.module import reduced
from aptt.loss import (
    MelLoss,
    PermutationInvariantLoss,
    SDSDRLoss,
    SISDRLoss,
    SISNRLoss,
    SNRLoss,
    mel_loss,
    permutation_invariant_loss,
    sd_sdr_loss,
    si_sdr_loss,
    si_snr_loss,
    snr_loss,
)
from aptt.loss.snr import best_permutation
from aptt.loss.snr.sd_sdr import _SD_SDR
from aptt.loss.snr.si_sdr import _SI_SDR
from aptt.loss.snr.snr import _SNR

LOSSES = {"snr": snr_loss, "si_sdr": si_sdr_loss, "si_snr": si_snr_loss, "sd_sdr": sd_sdr_loss}
each_loss = pytest.mark.parametrize("kind", LOSSES)
each_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"]
)


@pytest.fixture(autouse=True, params=[plainly, in_blocks], ids=["plain", "in blocks"])
def _way(request):
    """Every test goes both ways: plain PyTorch, and the gradient by hand, signal by signal."""
    with request.param():
        yield


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _noisy(*shape, decibels=10.0, gain=1.0):
    """An estimate that stands the given decibels above white noise, and its target."""
    target = _random(*shape)
    noise = _random(*shape, seed=1)
    return gain * (target + 10 ** (-decibels / 20) * noise), target


def _ratio(kind, e, s, *, cap=None, zero_mean=False):
    """The definitions, with nothing to guard them but the cap."""
    if zero_mean or kind == "si_snr":
        e, s = e - e.mean(-1, keepdim=True), s - s.mean(-1, keepdim=True)
    t = 0 if cap is None else 10 ** (-cap / 10)
    part = (e * s).sum(-1, keepdim=True) / s.square().sum(-1, keepdim=True) * s
    if kind == "snr":
        error, signal, worst = e - s, s, 0
    elif kind == "sd_sdr":
        error, signal, worst = e - s, part, 0
    else:
        error, signal, worst = e - part, part, t
    error, signal = error.square().sum(-1), signal.square().sum(-1)
    return 10 * ((error + t * signal) / (signal + worst * error)).log10()


def _value_and_gradient(loss_fn, *tensors, up=None):
    """The loss, and its gradient for each tensor by itself: by hand, the first alone has one."""
    values, gradients = [], []
    for asks in range(len(tensors)):
        some = [v.clone().requires_grad_(i == asks) for i, v in enumerate(tensors)]
        loss = loss_fn(*some)
        loss.backward(torch.ones_like(loss) if up is None else up.to(loss.dtype))
        values.append(loss.detach())
        gradients.append(some[asks].grad)
    return values[0], *gradients


# ------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("cap", [100.0, 20.0, 5.0])
@pytest.mark.parametrize(("decibels", "gain"), [(15, 1.0), (-5, 1.0), (3, -0.3), (40, 1.01)])
@each_loss
def test_by_its_formula(kind, decibels, gain, cap, zero_mean):
    e, s = _noisy(3, 2, 400, decibels=decibels, gain=gain)
    e, s = e + 0.1, s - 0.2
    up = _random(3, 2, seed=2)
    options = {"cap": cap, "zero_mean": zero_mean or kind == "si_snr"}
    found = _value_and_gradient(partial(LOSSES[kind], reduction="none", **options), e, s, up=up)
    wanted = _value_and_gradient(partial(_ratio, kind, **options), e, s, up=up)
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    single = [v.float() for v in (e, s)]
    found = _value_and_gradient(partial(LOSSES[kind], reduction="none", **options), *single, up=up)
    # in single precision e - s keeps fewer digits, the higher it stands
    for got, want in zip(found, wanted, strict=True):
        assert (got.double() - want).norm() <= 2e-5 * want.norm()


@each_loss
def test_the_default_cap_is_far_from_the_formula_without_any(kind):
    e, s = _noisy(2, 400, decibels=20, gain=0.9)
    torch.testing.assert_close(
        LOSSES[kind](e, s, reduction="none"), _ratio(kind, e, s), rtol=0, atol=1e-6
    )


def test_numbers_worked_out_by_hand():
    # the package that once had these names gave 16.532, 9.077, and no SI-SDR at all; and it gave
    # them with the other sign, so that training made them worse
    estimate, target = torch.tensor([2.5, 0.0, 2.0, 8.0]), torch.tensor([3.0, -0.5, 2.0, 7.0])
    assert snr_loss(estimate, target).item() == pytest.approx(-10 * math.log10(62.25 / 1.5))
    assert si_sdr_loss(estimate, target).item() == pytest.approx(-18.402992, abs=1e-5)
    assert si_snr_loss(estimate, target).item() == pytest.approx(-15.0918, abs=1e-4)
    assert snr_loss(-target, target).item() == pytest.approx(10 * math.log10(4))  # NaN, there


@pytest.mark.parametrize("gain", [0.5, -2.0, 3.0])
def test_snr_and_si_sdr_are_two_sides_of_a_triangle(gain):
    e, s = _noisy(5, 300, decibels=6, gain=gain)
    a = (e * s).sum(-1) / s.square().sum(-1)
    snr, si_sdr, sd_sdr = (-f(e, s, reduction="none") for f in (snr_loss, si_sdr_loss, sd_sdr_loss))
    both = (1 - a) ** 2 + a**2 * 10 ** (-si_sdr / 10)
    torch.testing.assert_close(10 ** (-snr / 10), both, rtol=1e-8, atol=0)
    torch.testing.assert_close(sd_sdr, snr + 20 * a.abs().log10(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("gain", [2.0, 0.5, 0.1, -1.0])
def test_a_wrong_level_costs_what_it_should(gain):
    s = _random(100)
    off = 20 * math.log10(abs(1 - gain))
    assert snr_loss(gain * s, s).item() == pytest.approx(off, abs=1e-6)
    low = off - 20 * math.log10(abs(gain))
    assert sd_sdr_loss(gain * s, s).item() == pytest.approx(low, abs=1e-6)
    assert si_sdr_loss(gain * s, s).item() == pytest.approx(-100, abs=1e-4)
    if gain == 2:
        assert snr_loss(gain * s, s).item() == pytest.approx(0, abs=1e-8)


def test_estimate_and_target_are_told_apart():
    # SI-SDR is symmetric, so no test of it could: speechbrain and DAC take the target first
    s = _random(100)
    assert snr_loss(0.5 * s, s).item() == pytest.approx(-20 * math.log10(2), abs=1e-6)
    assert snr_loss(s, 0.5 * s).item() == pytest.approx(0, abs=1e-6)
    assert sd_sdr_loss(0.5 * s, s).item() == pytest.approx(0, abs=1e-6)
    assert sd_sdr_loss(s, 0.5 * s).item() == pytest.approx(-20 * math.log10(2), abs=1e-6)
    e, s = _noisy(100)
    torch.testing.assert_close(si_sdr_loss(e, s), si_sdr_loss(s, e))


def test_the_gradient_of_si_sdr_turns_and_does_not_stretch():
    e, s = _noisy(4, 200, decibels=3)
    _, gradient, _ = _value_and_gradient(partial(si_sdr_loss, reduction="none"), e, s)
    assert (gradient * e).sum(-1).abs().max() < 1e-12
    _, gradient, _ = _value_and_gradient(partial(si_snr_loss, reduction="none"), e + 1, s)
    assert (gradient * e).sum(-1).abs().max() < 1e-12
    assert gradient.sum(-1).abs().max() < 1e-12


@each_loss
def test_gradients_by_finite_differences(kind):
    e, s = (v.requires_grad_() for v in _noisy(2, 9, decibels=3, gain=0.7))
    loss = partial(LOSSES[kind], lengths=torch.tensor([9, 6]), reduction="none")
    torch.autograd.gradcheck(loss, (e, s))


@each_loss
def test_reductions_and_the_module(kind):
    e, s = _noisy(3, 2, 60)
    each = LOSSES[kind](e, s, reduction="none")
    module = {"snr": SNRLoss, "si_sdr": SISDRLoss, "si_snr": SISNRLoss, "sd_sdr": SDSDRLoss}[kind]
    assert each.shape == (3, 2)
    torch.testing.assert_close(module()(e, s), each.mean())
    torch.testing.assert_close(module(reduction="sum")(e, s), each.sum())
    torch.testing.assert_close(LOSSES[kind](e[0, 0], s[0, 0]), each[0, 0])
    lengths = torch.tensor([60, 0, 60])
    torch.testing.assert_close(module()(e, s, lengths=lengths), each[[0, 2]].mean())


# ------------------------------------------------------------------------------ level, cap


@pytest.mark.parametrize("level", [1e-8, 1e-5, 1e-4, 1e-3, 1.0, 1e4])
@each_loss
def test_any_level(kind, level):
    # asteroid, auraloss and speechbrain are 2 dB off at 1e-5, torchmetrics 9; audiocraft is 12 dB
    # off at 1e-3: their guards are absolute
    e, s = _noisy(2, 16000, decibels=20)
    want, slope, _ = _value_and_gradient(partial(_ratio, kind), e, s)
    found, gradient, _ = _value_and_gradient(
        partial(LOSSES[kind], reduction="none"), (level * e).float(), (level * s).float()
    )
    torch.testing.assert_close(found.double(), want, rtol=0, atol=1e-4)
    assert (level * gradient.double() - slope).norm() < 1e-5 * slope.norm()


@pytest.mark.parametrize("level", [1e-20, 1e19])
@each_loss
def test_levels_whose_squares_leave_single_precision(kind, level):
    e, s = (level * v.float() for v in _noisy(2, 4000, decibels=20))
    want, *slopes = _value_and_gradient(partial(_ratio, kind), e.double(), s.double())
    found, *gradients = _value_and_gradient(partial(LOSSES[kind], reduction="none"), e, s)
    torch.testing.assert_close(found.double(), want, rtol=0, atol=1e-4)
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert (gradient.double() - slope).norm() < 1e-5 * slope.norm()


@pytest.mark.parametrize(("decibels", "gain"), [(60, 3.0), (70, 0.2), (50, -1.0), (75, 1.0)])
@each_loss
def test_single_precision_keeps_what_almost_cancels(kind, decibels, gain):
    # the gradient of SI-SDR is what is left of e and s once they point the same way
    e, s = (v.float() for v in _noisy(2, 4000, decibels=decibels, gain=gain))
    want, slope, _ = _value_and_gradient(partial(_ratio, kind), e.double(), s.double())
    found, gradient, _ = _value_and_gradient(
        partial(LOSSES[kind], cap=120.0, reduction="none"), e, s
    )
    torch.testing.assert_close(found.double(), want, rtol=0, atol=1e-3)
    assert (gradient.double() - slope).norm() < 1e-3 * slope.norm()


@pytest.mark.parametrize("cap", [10.0, 30.0, 100.0, 120.0])
@each_loss
def test_perfection_is_worth_the_cap(kind, cap):
    # DAC: -inf and NaN; asteroid and speechbrain: a gradient of 1.3e3
    s = _random(2, 16000).float()
    loss, gradient, _ = _value_and_gradient(
        partial(LOSSES[kind], cap=cap, reduction="none"), s, s.clone()
    )
    torch.testing.assert_close(loss, torch.full((2,), -cap), rtol=0, atol=1e-4)
    assert gradient.norm(dim=-1).max() < 1.0


def test_the_gradient_has_the_bound_it_is_said_to_have():
    for cap in (30.0, 60.0):
        bound = 10 ** (cap / 20) * 4.35 / math.sqrt(500)
        steepest = {"snr": 0.0, "si_sdr": 0.0}
        for decibels in range(0, int(cap) + 20):
            e, s = _noisy(500, decibels=decibels)
            for kind in steepest:
                _, gradient, _ = _value_and_gradient(partial(LOSSES[kind], cap=cap), e, s)
                level = (s if kind == "snr" else e).square().mean().sqrt()
                steepest[kind] = max(steepest[kind], (gradient.norm() * level).item())
        for kind, most in steepest.items():
            assert 0.9 * bound < most <= bound, kind


def test_the_cap_is_soft():
    # a hard clip (DAC's clip_min) has no gradient beyond; and asteroid's EPS has no effect
    e, s = _noisy(1000, decibels=25)
    _, gradient, _ = _value_and_gradient(partial(snr_loss, cap=20.0), e, s)
    _, free, _ = _value_and_gradient(partial(snr_loss, cap=100.0), e, s)
    share = (gradient / free).mean().item()
    noise = (e - s).square().sum() / s.square().sum()
    assert share == pytest.approx((noise / (noise + 0.01)).item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["si_sdr", "si_snr"])
def test_nothing_in_common_costs_the_cap(kind):
    s = torch.tensor([1.0, -1.0, 1.0, -1.0])
    e = torch.tensor([1.0, 1.0, -1.0, -1.0])
    for cap in (10.0, 100.0):
        assert LOSSES[kind](e, s, cap=cap).item() == pytest.approx(cap, abs=1e-4)
    assert sd_sdr_loss(e, s).item() == pytest.approx(300 + 10 * math.log10(2), abs=1e-3)


def test_a_constant_offset_counts_or_not():
    # torchmetrics' SI-SDR, too, is +0.07 where the offset counts
    e, s = _noisy(16000, decibels=20)
    assert si_sdr_loss(e + 1, s).item() == pytest.approx(0, abs=0.2)
    torch.testing.assert_close(si_snr_loss(e + 1, s), si_snr_loss(e, s))
    torch.testing.assert_close(si_sdr_loss(e + 1, s, zero_mean=True), si_snr_loss(e, s))


# ------------------------------------------------------------------------------ silence


@pytest.mark.parametrize("who", ["estimate", "target", "both"])
@each_dtype
@each_loss
def test_silence_is_finite_forward_and_backward(kind, dtype, who):
    # DAC: a gradient of 1e11 at a silent estimate, NaN at two; auraloss in fp16: NaN
    e, s = (v.to(dtype) for v in _noisy(2, 1600))
    if who in ("estimate", "both"):
        e = torch.zeros_like(e)
    if who in ("target", "both"):
        s = torch.zeros_like(s)
    for cap in (30.0, 100.0):
        loss, *gradients = _value_and_gradient(partial(LOSSES[kind], cap=cap), e, s)
        assert loss.isfinite()
        for gradient in gradients:
            assert gradient.isfinite().all()


@pytest.mark.parametrize("level", [1e-3, 0.1, 10.0])
@each_dtype
@each_loss
def test_a_silent_target_asks_for_silence(kind, dtype, level):
    # auraloss, asteroid, speechbrain, DAC: +80 dB at any estimate, and a gradient of 0
    e = (level * _random(2, 1600)).to(dtype)
    s = torch.zeros_like(e)
    loss = partial(LOSSES[kind], reduction="none")
    value, gradient, _ = _value_and_gradient(loss, e, s)
    level_of_e = e.double()
    if kind == "si_snr":
        level_of_e = level_of_e - level_of_e.mean(-1, keepdim=True)
    want = 10 * level_of_e.square().mean(-1).log10()
    torch.testing.assert_close(value.double(), want, rtol=0, atol=1e-3)
    assert ((gradient.double() * e.double()).sum(-1) > 0).all()
    for _ in range(3):
        step = gradient.float() * (0.3 * e.float().norm() / gradient.float().norm())
        e = (e.float() - step).to(dtype)
        lower, gradient, _ = _value_and_gradient(loss, e, s)
        assert (lower < value - 1).all()
        value = lower


@each_loss
def test_silent_targets_can_be_skipped(kind):
    e, s = _noisy(3, 100)
    want = LOSSES[kind](e[::2], s[::2])
    s[1] = 0
    loss, gradient, _ = _value_and_gradient(partial(LOSSES[kind], silent="skip"), e, s)
    torch.testing.assert_close(loss, want)
    assert (gradient[1] == 0).all()


def test_a_silent_estimate_is_no_refuge():
    # torchmetrics, DAC and audiocraft: 0 dB, better than an estimate that is merely bad
    e, s = _noisy(1000, decibels=-10)
    for loss in (si_sdr_loss, sd_sdr_loss):
        assert loss(torch.zeros_like(s), s) > loss(e, s) + 50
    _, gradient, _ = _value_and_gradient(snr_loss, torch.zeros_like(s), s)
    assert torch.cosine_similarity(gradient, -s, 0) == pytest.approx(1)  # towards the target


@each_loss
def test_a_constant_is_silent_once_its_mean_is_gone(kind):
    for size in (997, 1000, 4001):
        e = _random(1, size).float()
        want = 10 * math.log10(e.double().var(correction=0).item())
        for constant in (0.1, 0.3, 0.7, -1.1, 300.7):
            s = torch.full_like(e, constant)
            # what counts is the estimate, not what rounding left of the constant
            loss, gradient, _ = _value_and_gradient(partial(LOSSES[kind], zero_mean=True), e + s, s)
            assert loss.item() == pytest.approx(want, abs=1e-2)
            assert (gradient * e).sum() > 0


# ------------------------------------------------------------------------------ half types


@each_dtype
@each_loss
def test_a_minute_of_audio(kind, dtype):
    # auraloss and torchmetrics in fp16: infinite from 10 s on, where a sum of squares is 160000
    e, s = (v.to(dtype) for v in _noisy(1, 60 * 16000, decibels=20))
    want, slope, _ = _value_and_gradient(partial(_ratio, kind), e.double(), s.double())
    scale = 2.0**16  # as a gradient scaler would, or nothing is left of it in fp16
    loss, gradient, _ = _value_and_gradient(
        partial(LOSSES[kind], reduction="none"), e, s, up=torch.tensor([scale])
    )
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), want, rtol=0, atol=1e-4)
    assert gradient.dtype == dtype
    error = (gradient.double() / scale - slope).norm() / slope.norm()
    assert error < {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]


@each_loss
def test_loud_half_precision(kind):
    e, s = (2e4 * v.clamp(-3, 3).half() for v in _noisy(2, 2000, decibels=10))
    want = _ratio(kind, e.double(), s.double())
    found = LOSSES[kind](e, s, reduction="none")
    torch.testing.assert_close(found.double(), want, rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------ lengths


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@each_loss
def test_padded_is_unpadded(kind, dtype, zero_mean):
    # audiocraft's SISNR takes the mean over the padding too; speechbrain's mask is all ones
    e, s = (v.to(dtype) + 0.5 for v in _noisy(4, 2, 300))
    lengths = torch.tensor([300, 170, 1, 0])
    for i, n in enumerate(lengths.tolist()):
        e[i, :, n:], s[i, :, n:] = torch.nan, torch.inf
    up = _random(4, 2, seed=2)
    loss = partial(LOSSES[kind], zero_mean=zero_mean, reduction="none")
    value, gradient, on_target = _value_and_gradient(partial(loss, lengths=lengths), e, s, up=up)
    for i, n in enumerate(lengths.tolist()):
        assert (gradient[i, :, n:] == 0).all()
        assert (on_target[i, :, n:] == 0).all()
        if n == 0:
            assert (value[i] == 0).all()
            continue
        want = _value_and_gradient(loss, e[i, :, :n], s[i, :, :n], up=up[i])
        found = value[i], gradient[i, :, :n], on_target[i, :, :n]
        close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {}
        if n > 1 or not zero_mean:
            for got, expected in zip(found, want, strict=True):
                torch.testing.assert_close(got, expected, **close)


def test_a_padded_leaf_is_not_written_to():
    # speechbrain's cal_si_snr multiplies the estimate by its mask in place: an error for a leaf
    e, s = _noisy(2, 50)
    e[1, 30:] = 7
    before = e.clone()
    _value_and_gradient(partial(si_snr_loss, lengths=torch.tensor([50, 30])), e, s)
    assert torch.equal(e, before)


def test_channels_are_signals_of_their_own():
    # DAC joins the channels to one long signal: at different gains, -0.93 instead of -92
    s = _random(1, 2, 500)
    e = s * torch.tensor([[[1.0], [0.01]]])
    assert si_sdr_loss(e, s).item() == pytest.approx(-100, abs=1e-3)


def test_a_view_is_as_good_as_a_copy():
    e, s = _noisy(100, 3)
    torch.testing.assert_close(si_sdr_loss(e.T, s.T), si_sdr_loss(e.T.contiguous(), s.T.clone()))


# ------------------------------------------------------------------------------ permutations


@pytest.mark.parametrize("order", list(permutations(range(3))) + list(permutations(range(4))))
def test_every_permutation_is_recovered(order):
    # two sources could not tell an order from its inverse; a cycle of three can
    target = _random(2, len(order), 200)
    estimate = target[:, list(order)] + 0.1 * _random(2, len(order), 200, seed=1)
    found = best_permutation(estimate, target)
    assert found.tolist() == [list(order)] * 2
    want = si_sdr_loss(estimate, target[:, list(order)])
    torch.testing.assert_close(permutation_invariant_loss(estimate, target), want)


@pytest.mark.parametrize("sources", [1, 2, 3, 4])
def test_the_best_of_all_assignments(sources):
    estimate, target = _random(6, sources, 40), _random(6, sources, 40, seed=1)
    ways = [
        snr_loss(estimate, target[:, list(way)], reduction="none").mean(1)
        for way in permutations(range(sources))
    ]
    want = torch.stack(ways).amin(0)
    found = permutation_invariant_loss(estimate, target, loss=snr_loss, reduction="none")
    torch.testing.assert_close(found, want)
    loss = PermutationInvariantLoss(loss=snr_loss)
    torch.testing.assert_close(loss(estimate, target), want.mean())


def test_the_gradient_is_that_of_the_best_assignment():
    target = _random(2, 3, 100)
    estimate = target[:, [1, 2, 0]] + 0.3 * _random(2, 3, 100, seed=1)
    up = torch.tensor([2.0, -0.5])
    loss = partial(permutation_invariant_loss, reduction="none")
    found = _value_and_gradient(loss, estimate, target, up=up)
    want = _value_and_gradient(
        lambda e, s: si_sdr_loss(e, s[:, [1, 2, 0]], reduction="none").mean(1),
        estimate,
        target,
        up=up,
    )
    for got, expected in zip(found, want, strict=True):
        torch.testing.assert_close(got, expected)


def test_permutations_of_padded_signals():
    target = _random(3, 3, 100)
    estimate = target[:, [1, 2, 0]] + 0.1 * _random(3, 3, 100, seed=1)
    lengths = torch.tensor([100, 60, 0])
    estimate[1, :, 60:], target[2] = torch.nan, torch.nan
    loss, gradient, _ = _value_and_gradient(
        partial(permutation_invariant_loss, lengths=lengths), estimate, target
    )
    each = [
        permutation_invariant_loss(estimate[i : i + 1, :, :n], target[i : i + 1, :, :n])
        for i, n in enumerate((100, 60))
    ]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    assert gradient.isfinite().all()
    assert (gradient[2] == 0).all()


def test_an_estimate_that_is_left_over_may_be_infinite():
    target = _random(2, 2, 40)
    close = target.flip(1) + 0.1 * _random(2, 2, 40, seed=1)
    estimate = torch.cat((close, torch.full((2, 1, 40), math.inf).double()), 1).requires_grad_()
    loss = permutation_invariant_loss(estimate, target, loss=snr_loss)
    torch.testing.assert_close(loss, snr_loss(close, target.flip(1)), rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(loss, estimate)
    assert gradient[:, :2].isfinite().all()
    assert (gradient[:, 2] == 0).all()


def test_a_loss_of_ones_own_is_told_the_length_of_each_target():
    def own(estimate, target, *, lengths, reduction):
        return snr_loss(estimate, target, lengths=lengths, reduction=reduction)

    estimate, target = _random(2, 3, 40), _random(2, 3, 40, seed=1)
    lengths = torch.tensor([[40, 30, 10], [0, 20, 40]])
    found, wanted = (
        permutation_invariant_loss(estimate, target, lengths=lengths, loss=loss, reduction="none")
        for loss in (own, snr_loss)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_permutations_under_another_loss():
    target = _random(2, 3, 2000)
    estimate = 0.9 * target[:, [2, 0, 1]]
    loss = partial(mel_loss, sample_rate=16000, n_fft=512, n_mels=20)
    assert best_permutation(estimate, target, loss=loss).tolist() == [[2, 0, 1]] * 2


@pytest.mark.parametrize(
    "module", [SISDRLoss(), SNRLoss(reduction="sum"), MelLoss(16000, n_fft=512)]
)
def test_permutations_under_a_module(module):
    target = _random(3, 3, 2000)
    estimate = (0.9 * target[:, [2, 0, 1]] + 0.1 * _random(3, 3, 2000, seed=1)).requires_grad_()
    options = {**module.options()}
    del options["reduction"]
    functions = {"SISDRLoss": si_sdr_loss, "SNRLoss": snr_loss, "MelLoss": mel_loss}
    function = partial(functions[type(module).__name__], **options)
    lengths = torch.tensor([2000, 1500, 0])
    loss_fn = PermutationInvariantLoss(module)
    got = loss_fn(estimate, target, lengths=lengths)
    want = permutation_invariant_loss(estimate, target, lengths=lengths, loss=function)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(got, estimate), torch.autograd.grad(want, estimate), rtol=0, atol=0
    )
    order = best_permutation(estimate, target, loss=module)
    assert torch.equal(order, best_permutation(estimate, target, loss=function))
    assert module.reduction != "none"  # which is left as it was
    assert repr(loss_fn) == (
        f"PermutationInvariantLoss(loss={reduced('loss', module, 'none')!r}, unmatched='ignore', "
        "reduction='mean')"
    )
    again = eval(repr(loss_fn), {**vars(aptt.loss), "torch": torch})
    torch.testing.assert_close(again(estimate, target, lengths=lengths), got, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (
            lambda e: e.mean(),
            r"loss: returned shape \(\), wanted \(3,\), one value for each sample",
        ),
        (lambda e: e.mean().view(1), r"loss: returned shape \(1,\), wanted \(3,\)"),
        (lambda e: e.transpose(0, 1), r"loss: returned shape \(20, 3\), wanted \(3,\)"),
        (lambda e: 1.0, r"loss: returned 1.0, wanted \(3,\)"),
    ],
)
def test_what_a_loss_of_ones_own_returns_is_held_to_one_value_a_sample(returned, said):
    def own(estimate, target, *, reduction):
        return returned(estimate - target)

    x = _random(3, 2, 20)
    for call in (permutation_invariant_loss, best_permutation):
        with pytest.raises(ValueError, match=said):
            call(x, x, loss=own)
    permutation_invariant_loss(x[:1], x[:1], loss=lambda e, s, *, reduction: (e - s).mean().view(1))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (SISDRLoss, r"loss: got <class .*SISDRLoss'>, wanted a function such as snr_loss, or"),
        ("snr", "loss: got 'snr', wanted a function"),
        (torch.nn.Identity(), "loss: got Identity, wanted a module with a 'reduction'"),
    ],
)
def test_what_is_no_loss_of_two_sources(loss, said):
    with pytest.raises(TypeError, match=said):
        PermutationInvariantLoss(loss)
    with pytest.raises(TypeError, match=said):
        permutation_invariant_loss(_random(3, 2, 20), _random(3, 2, 20), loss=loss)


def test_the_order_is_the_inverse_of_what_estimates_are_reordered_by():
    audio = pytest.importorskip("torchmetrics.functional.audio")
    target = _random(4, 3, 200)
    estimate = target[:, [2, 0, 1]] + 0.1 * _random(4, 3, 200, seed=1)
    ratio = audio.scale_invariant_signal_distortion_ratio
    _, theirs = audio.permutation_invariant_training(estimate, target, ratio)
    order = best_permutation(estimate, target)
    assert torch.equal(order.argsort(1), theirs)
    assert not torch.equal(order, theirs)


def test_a_broken_sample_does_not_break_the_others():
    # asteroid and torchmetrics: "matrix contains invalid numeric entries" for the whole batch
    target = _random(2, 4, 50)
    estimate = target[:, [1, 2, 3, 0]] + 0.1
    want = permutation_invariant_loss(estimate[1:], target[1:])
    estimate[0, 2, 7] = torch.nan
    found = permutation_invariant_loss(estimate, target, reduction="none")
    assert found[0].isnan()
    torch.testing.assert_close(found[1], want)


# ------------------------------------------------------------------------------ errors


@each_loss
def test_what_is_refused_is_named(kind):
    loss = LOSSES[kind]
    e, s = _noisy(2, 80)
    with pytest.raises(ValueError, match="target"):
        loss(e, s[:, :79])  # auraloss takes 8000 against 7990 where frame counts agree
    with pytest.raises(ValueError, match="target"):
        loss(e, s[:1])
    with pytest.raises(ValueError, match="lengths: got 81, wanted 0 to T=80"):
        loss(e, s, lengths=torch.tensor([3, 81]))
    with pytest.raises(ValueError, match="lengths: got -1"):
        loss(e, s, lengths=torch.tensor([3, -1]))
    with pytest.raises(ValueError, match="lengths: got shape"):
        loss(e, s, lengths=torch.tensor([3]))
    with pytest.raises(TypeError, match="lengths"):
        loss(e, s, lengths=torch.tensor([3.0, 4.0]))
    with pytest.raises(TypeError, match="estimate"):
        loss(e.long(), s)
    with pytest.raises(ValueError, match="cap"):
        loss(e, s, cap=121.0)
    with pytest.raises(ValueError, match="cap"):
        loss(e, s, cap=0.0)
    with pytest.raises(ValueError, match="silent"):
        loss(e, s, silent="drop")
    with pytest.raises(ValueError, match="reduction"):
        loss(e, s, reduction="average")


def test_the_modules_refuse_at_construction():
    for module in (SNRLoss, SISDRLoss, SISNRLoss, SDSDRLoss):
        with pytest.raises(ValueError, match="cap"):
            module(cap=-3.0)
        with pytest.raises(ValueError, match="silent"):
            module(silent="drop")
        assert not module().state_dict()


def test_sources_that_do_not_fit():
    five = _random(2, 5, 30)
    with pytest.raises(
        ValueError, match=r"target: got .* wanted .* as many as there are estimates"
    ):
        permutation_invariant_loss(five[:, :2], five[:, :3])
    with pytest.raises(ValueError, match="target"):
        permutation_invariant_loss(five[0], five[0])
    with pytest.raises(TypeError, match="loss"):
        permutation_invariant_loss(five[:, :3], five[:, :3], loss="snr")
    with pytest.raises(TypeError, match=r"active: got torch\.float64"):
        permutation_invariant_loss(five, five, active=torch.ones(2, 5).double())
    with pytest.raises(ValueError, match="lengths"):
        permutation_invariant_loss(five, five, lengths=torch.full((2, 4), 30))
    with pytest.raises(ValueError, match="unmatched: got 'drop'"):
        permutation_invariant_loss(five, five, unmatched="drop")


# ------------------------------------------------------------------------------ the formulas

FORMULAS = {"snr": _SNR, "si_sdr": _SI_SDR, "sd_sdr": _SD_SDR}
each_formula = pytest.mark.parametrize("kind", FORMULAS)


@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@each_formula
def test_the_step_is_the_gradient_of_the_definition(kind, padded, means):
    formula: Formula = FORMULAS[kind]
    e, s = _noisy(5, 40, decibels=5, gain=0.8)
    e, s, up = e + 0.3, s - 0.1, _random(5, seed=3)
    s[1], e[2], e[3] = 0, 0, s[3]
    sides = (s, torch.tensor([40, 33, 40, 17, 2]) if padded else None)
    options = {"means": means, "least": 1e-3}
    x = e.clone().requires_grad_()
    kept = formula.stats(x, *sides, **options)
    (want,) = torch.autograd.grad(formula.result(x, kept, *sides, **options), x, up)
    kept = tuple(k.detach() for k in kept)
    before = e.clone()
    _, got = formula.step(e, up, kept, *sides, **options)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert torch.equal(e, before)


@each_formula
def test_formulas_run_where_there_are_no_values(kind):
    x, t = torch.empty(2, 2, 9, device="meta").unbind(0)
    options = {"means": True, "least": 1e-10}
    value = evaluate(FORMULAS[kind], x, t, None, gather="values", **options)
    assert value.shape == (2,)
    kept = FORMULAS[kind].stats(x, t, None, **options)
    _, dx = FORMULAS[kind].step(x, 1.0, kept, t, None, **options)
    assert dx.shape == x.shape


@pytest.mark.parametrize(("size", "padded"), [(1, False), (17, True)])
@each_loss
def test_compiled_is_eager(kind, padded, size):
    e, s = _noisy(3, size, decibels=3, gain=0.7)
    options = {"lengths": torch.tensor([size, 1, 0])} if padded else {}
    loss = partial(LOSSES[kind], **options, silent="skip")
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for got, want in zip(
        _value_and_gradient(compiled, e, s), _value_and_gradient(loss, e, s), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


# ------------------------------------------------------------------------------ rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.01, 0.1, 0.3, -1.1, 300.7])
def test_a_constant_estimate_without_its_mean_is_silent(level, dtype):
    # 95.3 dB and a gradient of 4e17 at 0.01, before; at one level in 2000 a perfect score
    s = _random(1, 4000).to(dtype)
    e = torch.full_like(s, level)
    for loss in (si_snr_loss, partial(si_sdr_loss, zero_mean=True)):
        value, gradient, _ = _value_and_gradient(loss, e, s)
        assert value.item() == pytest.approx(100, abs=1e-4)
        assert (gradient == 0).all()
    value, gradient, _ = _value_and_gradient(partial(sd_sdr_loss, zero_mean=True), e, s)
    assert value.item() == pytest.approx(300, abs=1e-3)
    _, slope, _ = _value_and_gradient(partial(snr_loss, zero_mean=True), e, s)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-9)


@each_loss
def test_one_sample_without_its_mean_has_no_gradient_padded_or_not(kind):
    e, s = torch.tensor([[0.7, 5.0, 5.0]]), torch.tensor([[-0.3, 6.0, 7.0]])
    loss = partial(LOSSES[kind], zero_mean=True)
    value, gradient, _ = _value_and_gradient(partial(loss, lengths=torch.tensor([1])), e, s)
    cropped, slope, _ = _value_and_gradient(loss, e[:, :1], s[:, :1])
    assert value == cropped == pytest.approx(-100, abs=1e-4)
    assert (gradient == 0).all()
    assert (slope == 0).all()


@pytest.mark.parametrize("gain", [1.0, 3.0, -2.0])
def test_single_precision_at_100_decibels(gain):
    e, s = (v.float() for v in _noisy(2, 4000, decibels=100, gain=gain))
    loss = partial(si_sdr_loss, cap=120.0, reduction="none")
    want, slope, _ = _value_and_gradient(loss, e.double(), s.double())
    found, gradient, _ = _value_and_gradient(loss, e, s)
    torch.testing.assert_close(found.double(), want, rtol=1e-6, atol=0)
    # sums in double precision have 1 - q = 1e-10 with 5 digits; float64 takes the residual
    assert (gradient.double() - slope).norm() < 5e-5 * slope.norm()
    exact = _ratio("si_sdr", e.double(), s.double(), cap=120.0)
    torch.testing.assert_close(want, exact, rtol=1e-12, atol=0)


@each_loss
def test_a_target_that_is_not_a_number_is_not_skipped_in_silence(kind):
    e, s = _noisy(2, 30)
    s[1, 3] = torch.nan
    assert LOSSES[kind](e, s, silent="skip").isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [2, 400, 997])
@pytest.mark.parametrize(
    "_way", [plainly, partial(in_blocks, 2**13)], ids=["plain", "in larger blocks"], indirect=True
)
def test_no_level_of_a_constant_is_a_signal(size, dtype):
    levels = torch.tensor([*(i / 100 for i in range(1, 2001)), -1e-30, 3e4, 1e30], dtype=dtype)
    e, s = levels.unsqueeze(1).expand(-1, size), _random(1, size).to(dtype).expand(len(levels), -1)
    each = partial(_value_and_gradient, up=torch.ones(len(levels)))
    for loss in (si_snr_loss, partial(si_sdr_loss, zero_mean=True)):
        value, *gradients = each(partial(loss, reduction="none"), e, s)
        torch.testing.assert_close(value, torch.full_like(value, 100), rtol=0, atol=1e-4)
        assert all((gradient == 0).all() for gradient in gradients)
    # of the estimate nothing is left, and the noise is the target: at 1e30 it was a perfect score
    value, slope, _ = each(partial(snr_loss, zero_mean=True, reduction="none"), e, s)
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-6)
    value, gradient, _ = each(partial(sd_sdr_loss, zero_mean=True, reduction="none"), e, s)
    torch.testing.assert_close(value, torch.full_like(value, 300), rtol=0, atol=1e-3)
    assert ((gradient - slope).norm(dim=1) <= 1e-6 * slope.norm(dim=1)).all()
    # a constant target is silent, whatever its level: the value is the level of the estimate
    value, gradient, _ = each(partial(si_snr_loss, reduction="none"), s, e)
    want = 10 * s.double().var(1, correction=0).log10()
    torch.testing.assert_close(value.double(), want, rtol=1e-6, atol=1e-6)
    assert gradient.isfinite().all()
    assert si_snr_loss(s, e, silent="skip") == 0


@pytest.mark.parametrize("offset", [1.0, 1e3, -1e4])
@each_loss
def test_an_offset_takes_no_digits(kind, offset):
    e, s = (v.float() for v in _noisy(3, 4000, decibels=12, gain=0.7))
    e, s = e + offset, s - 2 * offset
    e[1, 0] = 9 * abs(offset)  # the first sample is like no other
    wide = [v.double() - v.double().mean(-1, keepdim=True) for v in (e, s)]
    want, slope, _ = _value_and_gradient(partial(_ratio, kind), *wide)
    found, gradient, _ = _value_and_gradient(
        partial(LOSSES[kind], zero_mean=True, reduction="none"), e, s
    )
    slope = slope - slope.mean(-1, keepdim=True)
    torch.testing.assert_close(found.double(), want, rtol=1e-6, atol=1e-6)
    assert (gradient.double() - slope).norm() < 1e-6 * slope.norm()


@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@each_formula
def test_a_step_that_has_to_measure_gives_the_same(kind, padded, means):
    e, s = _noisy(4, 40, decibels=5, gain=0.8)
    n, up = torch.tensor([40, 33, 17, 2]) if padded else None, _random(4, seed=3)
    options, formula = {"means": means, "least": 1e-3}, FORMULAS[kind]
    with torch.no_grad():
        kept = formula.stats(e, s, n, **options)
        value, got = formula.step(e, up, (), s, n, **options)
        _, want = formula.step(e, up, kept, s, n, **options)
    torch.testing.assert_close(value, kept[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("way", [in_blocks, plainly])
@pytest.mark.parametrize("cap", [100.0, 120.0])
def test_signals_in_proportion_are_at_the_cap_with_a_gradient_of_0(dtype, way, cap):
    one = torch.tensor([1.0], dtype=dtype), torch.tensor([1.35], dtype=dtype)
    many = _random(40).to(torch.bfloat16).to(dtype)
    for e, s in (one, (torch.ones_like(many), 3 * torch.ones_like(many)), (many, 3 * many)):
        x = e.clone().requires_grad_()
        with way():
            value = si_sdr_loss(x, s, cap=cap)
            value.backward()
        assert value.item() == pytest.approx(-cap, rel=1e-14 if dtype == torch.float64 else 1e-5)
        if dtype == torch.float64 or e is one[0]:  # else a rounding of the sums is left
            assert (x.grad == 0).all()


def test_a_residual_below_the_rounding_of_a_product_is_told_from_none():
    """The residual is at a right angle: its energy is 1e-18 of the target's, exactly."""
    e, s = torch.tensor([1.0, 1e-9]).double(), torch.tensor([1.0, 0.0]).double()
    wanted = 10 * math.log10(1e-18 + 1e-12)
    assert si_sdr_loss(e, s, cap=120).item() == pytest.approx(wanted, rel=1e-14)


def test_float64_near_the_cap_by_the_residual():
    e, s = _noisy(3, 400, decibels=95)
    value = si_sdr_loss(e, s, reduction="none")
    torch.testing.assert_close(value, _ratio("si_sdr", e, s, cap=100.0), rtol=1e-12, atol=0)
    e = torch.tensor([0.0, 0.0003925727954468598], dtype=torch.float64)
    s = torch.tensor([0.0, -0.0001549790781545611], dtype=torch.float64)
    assert si_sdr_loss(e, s, zero_mean=True).item() == pytest.approx(-100, rel=1e-14)


def test_no_sample_has_the_rounding_of_all_others():
    """A signal less its mean starts anywhere: rolled, it has the gradient rolled."""
    s = _random(2, 20_000)
    e = s + 1e-8 * _random(2, 20_000, seed=1)

    def slopes(by):
        x, t = (v.roll(by, 1).requires_grad_() for v in (e, s))
        value = sd_sdr_loss(x, t, zero_mean=True, reduction="sum")
        return [g.roll(-by, 1) for g in torch.autograd.grad(value, (x, t))]

    for here, there in zip(slopes(0), slopes(7), strict=True):
        assert (here - there).abs().max() < 3e-8 * here.abs().max()


def test_compiled_for_all_sizes_the_number_of_sources_is_one():
    compiled = torch.compile(
        permutation_invariant_loss, backend="eager", fullgraph=True, dynamic=True
    )
    for sources in (3, 2):
        e, s = _random(2, sources, 50), _random(2, sources, 50, seed=1)
        value = compiled(e, s, loss=si_sdr_loss)
        torch.testing.assert_close(value, permutation_invariant_loss(e, s, loss=si_sdr_loss))
