"""Sums of signals."""

import torch

from aptt.core.signals import energy


def test_the_energy_of_silence_has_a_second_slope():
    x = torch.zeros(1, 3, dtype=torch.float64)
    bend = torch.autograd.functional.hessian(lambda x: energy(x).sum(), x)
    assert torch.equal(bend.view(3, 3), 2 * torch.eye(3, dtype=torch.float64))
