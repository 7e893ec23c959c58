"""Many sources: assignments and mixings against brute force, sources that are not there."""

import math
from functools import partial
from itertools import permutations, product

import pytest
import torch

from aptt.core import subsets
from aptt.loss import (
    SNRLoss,
    mixture_invariant_loss,
    permutation_invariant_loss,
    sa_sdr_loss,
    si_sdr_loss,
    snr_loss,
)
from aptt.loss.snr import best_mixing, best_permutation
from aptt.loss.snr.sa_sdr import _SA_SDR


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------- the searches


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_assignments_are_the_best_of_all_orders(size):
    cost = _random(20, size, size)
    order = subsets.assigned(cost)
    assert torch.equal(order.sort(1).values, torch.arange(size).expand(20, size))
    ways = [sum(cost[:, i, j] for i, j in enumerate(way)) for way in permutations(range(size))]
    found = cost.gather(2, order.unsqueeze(2)).sum((1, 2))
    torch.testing.assert_close(found, torch.stack(ways).amin(0))


def test_a_cycle_of_three_needs_more_than_the_nearest():
    cost = torch.tensor([[[1.0, 2.0, 9.0], [9.0, 1.0, 2.0], [0.0, 9.0, 9.0]]])
    assert subsets.assigned(cost).tolist() == [[1, 2, 0]]  # 1 + 1 + 9 by the least of each row


def test_twelve_sources_are_assigned_exactly():
    optimize = pytest.importorskip("scipy.optimize")
    cost = _random(4, 12, 12)
    order = subsets.assigned(cost)
    for c, found in zip(cost.numpy(), order.numpy(), strict=True):
        assert (optimize.linear_sum_assignment(c)[1] == found).all()


@pytest.mark.parametrize(("parts", "things"), [(1, 3), (2, 4), (3, 4), (4, 3)])
def test_partitions_are_the_best_of_all_mixings(parts, things):
    cost = _random(6, parts, 2**things)
    costs = []
    for way in product(range(parts), repeat=things):
        numbers = [sum(1 << i for i, part in enumerate(way) if part == k) for k in range(parts)]
        costs.append(sum(cost[:, k, number] for k, number in enumerate(numbers)))
    found = subsets.partitioned(cost)
    best = torch.tensor(list(product(range(parts), repeat=things)))[torch.stack(costs).argmin(0)]
    assert torch.equal(found, best)


# --------------------------------------------------------------------------- any order of sources


def test_twelve_sources_run_and_are_found():
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    target = _random(2, 12, 200)
    estimate = (target[:, order] + 0.3 * _random(2, 12, 200, seed=2)).requires_grad_()
    loss = permutation_invariant_loss(estimate, target)
    torch.testing.assert_close(loss, si_sdr_loss(estimate, target[:, order]))
    loss.backward()
    assert (estimate.grad != 0).any(2).all()
    assert torch.equal(best_permutation(estimate, target)[0], order)


def test_more_than_twelve_are_matched_on_the_host():
    target = _random(1, 14, 60)
    estimate = target.flip(1) + 0.1
    found = permutation_invariant_loss(estimate, target, loss=snr_loss)
    torch.testing.assert_close(found, snr_loss(estimate.flip(1), target))


@pytest.mark.parametrize("unmatched", ["ignore", "silence"])
def test_three_targets_of_five_estimates(unmatched):
    estimate, target = _random(6, 5, 30), _random(6, 3, 30, seed=1)
    ways = []
    for way in permutations(range(5), 3):
        pairs = [snr_loss(estimate[:, i], target[:, k], reduction="none")
                 for k, i in enumerate(way)]  # fmt: skip
        if unmatched == "silence":
            rest = [i for i in range(5) if i not in way]
            silence = torch.zeros(6, 30).double()
            pairs += [snr_loss(estimate[:, i], silence, reduction="none") for i in rest]
        ways.append(torch.stack(pairs).mean(0))
    found = permutation_invariant_loss(
        estimate, target, loss=snr_loss, unmatched=unmatched, reduction="none"
    )
    torch.testing.assert_close(found, torch.stack(ways).amin(0))
    order = best_permutation(estimate, target, loss=snr_loss, unmatched=unmatched)
    assert torch.equal(order.sort(1).values, torch.tensor([[-1, -1, 0, 1, 2]] * 6))


def test_a_speaker_who_is_not_there_may_hold_anything():
    """asteroid #704: a silent reference costs 80 dB there, whatever is estimated."""
    estimate, target = _random(2, 3, 40).requires_grad_(), _random(2, 3, 40, seed=1)
    target[0, 1] = math.nan
    active = torch.tensor([[True, False, True], [True, True, True]])
    loss = permutation_invariant_loss(estimate, target, active=active, reduction="none")
    alone = permutation_invariant_loss(estimate[:1], target[:1, [0, 2]], reduction="none")
    torch.testing.assert_close(loss[:1], alone)
    loss.sum().backward()
    silent = best_permutation(estimate, target, active=active)[0] == -1
    assert silent.sum() == 1
    assert (estimate.grad[0, silent] == 0).all()
    wanted = permutation_invariant_loss(estimate, target, active=active, unmatched="silence")
    slope = torch.autograd.grad(wanted, estimate)[0][0, silent]
    assert (slope * estimate[0, silent]).sum() > 0  # it is pulled to silence


def test_lengths_of_each_source():
    target = _random(1, 2, 30)
    estimate = target.flip(1) + 0.1
    lengths = torch.tensor([[30, 12]])
    found = permutation_invariant_loss(estimate, target, lengths=lengths, loss=snr_loss)
    as_a_list = permutation_invariant_loss(estimate, target, lengths=[[30, 12]], loss=snr_loss)
    assert torch.equal(as_a_list, found)
    whole = snr_loss(estimate[:, 1], target[:, 0])
    part = snr_loss(estimate[:, 0, :12], target[:, 1, :12])
    torch.testing.assert_close(found, (whole + part) / 2)
    gone = permutation_invariant_loss(
        estimate, target, lengths=torch.tensor([[30, 0]]), loss=SNRLoss()
    )
    torch.testing.assert_close(gone, snr_loss(estimate[:, 1], target[:, 0]))
    order = best_permutation(estimate, target, lengths=torch.tensor([[30, 0]]), loss=snr_loss)
    assert order.tolist() == [[-1, 0]]  # no target is left for the other


def test_nobody_there_costs_nothing():
    estimate, target = _random(2, 2, 9).requires_grad_(), _random(2, 2, 9)
    loss = permutation_invariant_loss(estimate, target, active=torch.zeros(2, 2).bool())
    loss.backward()
    assert loss == 0
    assert (estimate.grad == 0).all()


def test_a_number_that_is_none_is_not_left_over():
    estimate, target = _random(2, 3, 9), _random(2, 2, 9)
    estimate[0, 1, 4] = math.nan  # which the best assignment would rather not take
    found = permutation_invariant_loss(estimate, target, reduction="none")
    assert found.isnan().tolist() == [True, False]


def test_the_choice_is_made_in_double_precision():
    """In float32 the products of loud and close signals say nothing of their differences."""
    base = 1e4 * _random(1, 1, 400)
    target = (base + 1e-2 * _random(1, 2, 400, seed=1)).float()
    estimate = target.flip(1) + 1e-3 * _random(1, 2, 400, seed=2).float()
    assert best_permutation(estimate, target, loss=snr_loss).tolist() == [[1, 0]]
    e, s = estimate[0], target[0]
    noise = (e[:, None].double() - s.double()).square().sum(2)
    products = e.square().sum(1)[:, None] + s.square().sum(1) - 2 * e @ s.T
    assert (products - noise).abs().max() > noise.max() / 2


# -------------------------------------------------------------------------- one ratio of them all


def test_sa_sdr_by_hand():
    s = torch.tensor([[[1.0, 0, 0, 0], [0, 0.1, 0, 0]]]).double()
    e = torch.tensor([[[1.0, 0.1, 0, 0], [0, 0.1, 0.1, 0]]]).double()
    assert snr_loss(e, s).item() == pytest.approx(-10)
    assert sa_sdr_loss(e, s).item() == pytest.approx(-17.0329, abs=5e-5)
    s[:, 1], e[:, 1] = 0, torch.tensor([0, 0.1, 0, 0]).double()
    assert sa_sdr_loss(e, s).item() == pytest.approx(-16.9897, abs=5e-5)


def test_sa_sdr_in_any_order_is_the_least_of_all_orders():
    e, s = _random(5, 4, 2, 20), _random(5, 4, 2, 20, seed=1)
    ways = [sa_sdr_loss(e, s[:, list(way)], reduction="none") for way in permutations(range(4))]
    found = sa_sdr_loss(e, s, any_order=True, reduction="none")
    torch.testing.assert_close(found, torch.stack(ways).amin(0))


def test_sa_sdr_of_one_source_is_its_snr_and_cuts_what_is_padded():
    e, s = _random(3, 1, 20), _random(3, 1, 20, seed=1)
    torch.testing.assert_close(sa_sdr_loss(e, s, cap=30), snr_loss(e, s, cap=30))
    e[1, :, 12:] = math.nan
    padded = sa_sdr_loss(e, s, lengths=torch.tensor([20, 12, 0]), reduction="none")
    torch.testing.assert_close(padded[1], sa_sdr_loss(e[1:2, :, :12], s[1:2, :, :12]))
    assert padded[2] == 0


def test_the_level_of_more_samples_than_half_precision_can_count():
    e, s = torch.full((1, 1, 70_000), 0.5, dtype=torch.float16), torch.zeros(1, 1, 70_000).half()
    found = sa_sdr_loss(e, s).item()
    assert found == pytest.approx(10 * math.log10(0.25), rel=1e-6)


def test_the_step_of_sa_sdr(same_as_autograd):
    x, t = _random(5, 12), _random(5, 12, seed=1)
    t[2] = 0
    same_as_autograd(_SA_SDR, x, t, torch.full((5,), 12), least=1e-3)


def test_torchmetrics_agrees_without_a_fitted_scale():
    audio = pytest.importorskip("torchmetrics.functional.audio")
    e, s = _random(3, 2, 50), _random(3, 2, 50, seed=1)
    theirs = audio.source_aggregated_signal_distortion_ratio(e, s, scale_invariant=False)
    torch.testing.assert_close(sa_sdr_loss(e, s, reduction="none"), -theirs, rtol=1e-8, atol=1e-8)


# ------------------------------------------------------------------------------------ mixtures


def _mixed(e, x, way, **options):
    parts = [
        sum((e[:, i] for i, part in enumerate(way) if part == k), torch.zeros_like(x[:, k]))
        for k in range(x.shape[1])
    ]
    return snr_loss(torch.stack(parts, 1), x, cap=30, reduction="none", **options)


def test_mixtures_by_hand():
    e = torch.tensor([[[1.0, 0, 0], [0, 0.5, 0], [0, 0, 1]]]).double()
    x = torch.tensor([[[1.0, 1, 0], [0, 0, 1]]]).double()
    assert best_mixing(e, x).tolist() == [[0, 0, 1]]
    assert mixture_invariant_loss(e, x).item() == pytest.approx(-19.4981, abs=5e-5)
    each = _mixed(e, x, (0, 0, 1))[0].tolist()
    assert each == pytest.approx([-8.9963, -30.0], abs=5e-5)
    assert _mixed(e, x, (0, 1, 1)).mean().item() == pytest.approx(-4.5024, abs=5e-5)


@pytest.mark.parametrize(("mixtures", "sources"), [(1, 2), (2, 5), (3, 4)])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_mixings_are_the_best_of_all(mixtures, sources, channels):
    e, x = _random(4, sources, *channels, 20), _random(4, mixtures, *channels, 20, seed=1)
    ways = list(product(range(mixtures), repeat=sources))
    costs = torch.stack([_mixed(e, x, way).flatten(1).mean(1) for way in ways])
    found = mixture_invariant_loss(e, x, reduction="none")
    torch.testing.assert_close(found, costs.amin(0))
    assert torch.equal(best_mixing(e, x), torch.tensor(ways)[costs.argmin(0)])


def test_twelve_sources_of_two_mixtures_of_unequal_length():
    sources = _random(2, 12, 50)
    way = torch.tensor([0, 1] * 6)
    x = torch.stack([sources[:, way == k].sum(1) for k in range(2)], 1)
    sources[1, :, 30:] = math.nan
    lengths = torch.tensor([50, 30])
    assert best_mixing(sources, x, lengths=lengths).tolist() == [way.tolist()] * 2
    assert mixture_invariant_loss(sources, x, lengths=lengths) == pytest.approx(-30, abs=1e-6)


def test_of_equal_mixings_the_first_is_taken():
    e = torch.zeros(1, 3, 8).double()
    assert best_mixing(e, _random(1, 2, 8)).tolist() == [[1, 1, 1]]  # the subset 0 of the first


def test_a_silent_mixture():
    e, x = _random(1, 3, 8), _random(1, 2, 8)
    x[:, 1] = 0
    skipped = mixture_invariant_loss(e, x, silent="skip")
    best = min(snr_loss(e[:, list(part)].sum(1), x[:, 0], cap=30)
               for part in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]))  # fmt: skip
    torch.testing.assert_close(skipped, best)
    assert mixture_invariant_loss(e, x).isfinite()


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (((2, 13, 9), (2, 2, 9)), r"estimate: .*1 to 12 sources M of 2 mixtures"),
        (((2, 9, 9), (2, 3, 9)), r"estimate: .*1 to 8 sources M of 3 mixtures"),
        (((2, 3, 9), (2, 2, 8)), "target"),
    ],
)
def test_mixtures_that_do_not_fit(shapes, said):
    with pytest.raises(ValueError, match=said):
        mixture_invariant_loss(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("loss_fn", [
    permutation_invariant_loss, partial(sa_sdr_loss, any_order=True), mixture_invariant_loss,
])  # fmt: skip
def test_one_graph(loss_fn, same_when_compiled):
    same_when_compiled(loss_fn, _random(2, 3, 20), _random(2, 3, 20, seed=1))
