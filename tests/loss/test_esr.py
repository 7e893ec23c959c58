"""Error-to-signal ratios: hand values, levels, and what others add to them."""

import math

import pytest
import torch

from aptt.loss import dc_loss, esr_loss, snr_loss
from aptt.loss.snr.esr import _DC, _ESR, _ESR_OF_ERROR

E, S = (torch.tensor(v).double() for v in ([1.0, 2, 3, 5], [1.0, 2, 3, 4]))


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand():
    assert esr_loss(E, S).item() == pytest.approx(1 / 30)
    assert dc_loss(E, S).item() == pytest.approx(0.25**2 / 7.5)
    assert esr_loss(E, S, pre_emphasis=0.85).item() == pytest.approx(0.163532, abs=5e-7)


def test_it_is_the_snr_without_its_logarithm():
    e, s = _random(4, 50), _random(4, 50, seed=1)
    decibels = snr_loss(e, s, cap=120, reduction="none")
    torch.testing.assert_close(esr_loss(e, s, reduction="none"), 10 ** (decibels / 10), rtol=1e-9,
                               atol=0)  # fmt: skip


@pytest.mark.parametrize("unit", [1e-12, 1e-3, 1e6])
def test_the_level_does_not_matter(unit):
    """auraloss adds 1e-8 to the energy: at a level of 1e-6 the loss is 0.0033, not 0.0333."""
    for loss_fn in (esr_loss, dc_loss):
        torch.testing.assert_close(loss_fn(unit * E, unit * S), loss_fn(E, S))


def test_a_silent_target_asks_for_silence():
    e = (0.1 * _random(1, 40)).requires_grad_()
    loss = esr_loss(e, torch.zeros(1, 40).double())
    loss.backward()
    assert loss.item() == pytest.approx(e.square().mean().item())  # auraloss: 1e8 of it
    assert (e.grad * e > 0).all()
    assert esr_loss(e, torch.zeros(1, 40).double(), silent="skip") == 0


def test_pre_emphasis_stops_where_the_padding_begins():
    e, s = _random(2, 30), _random(2, 30, seed=1)
    e[1, 20:], s[1, 20:] = math.nan, math.nan
    padded = esr_loss(e, s, lengths=torch.tensor([30, 20]), pre_emphasis=0.95, reduction="none")
    alone = [esr_loss(e[i, :n], s[i, :n], pre_emphasis=0.95) for i, n in ((0, 30), (1, 20))]
    torch.testing.assert_close(padded, torch.stack(alone))


@pytest.mark.parametrize("formula", [_ESR, _ESR_OF_ERROR, _DC])
@pytest.mark.parametrize("padded", [False, True])
def test_the_steps(formula, padded, same_as_autograd):
    e, s = _random(5, 12), _random(5, 12, seed=1)
    s[1] = 0
    n = torch.tensor([12, 9, 12, 5, 1]) if padded else None
    same_as_autograd(formula, e, s, n, means=False, least=1e-10)
