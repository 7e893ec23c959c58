"""Hand-written gradients against autograd of the definition, where the loss's own file has none."""

import pytest
import torch

from aptt.core.divergence import Form
from aptt.core.hard import CHOSEN, STANDARD, WHOLE
from aptt.loss.classification.binary import BINARY
from aptt.loss.heat.formulas import FORMULAS

SOFT, HARD, YES = "a share", "0 or 1", "True or False"


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _share(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("target", [SOFT, HARD, YES])
@pytest.mark.parametrize("pos_weight", [None, 3.0, torch.tensor([0.0, 0.5, 4.0]).double()])
@pytest.mark.parametrize("smoothing", [None, 0.1])
def test_of_binary_cross_entropy(target, pos_weight, smoothing, same_as_autograd):
    x, t = 6 * _random(40, 3), _share(40, 3)
    t = {SOFT: t, HARD: t.round().long(), YES: t > 0.5}[target]
    same_as_autograd(BINARY, x, t, pos_weight=pos_weight, smoothing=smoothing)


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 4.0), (1.5, 0.5), (0.0, 0.0)])
def test_of_focal_maps(marked, alpha, beta, same_as_autograd):
    x, y = 6 * _random(120), _share(120) ** 3
    y[::7] = 1
    positive = y > 0.8 if marked else None
    same_as_autograd(FORMULAS["focal"], x, y, positive, alpha=alpha, beta=beta)


def test_of_square_maps(same_as_autograd):
    same_as_autograd(FORMULAS["mse"], _random(50), _share(50))


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("shape", [(9, 5), (2, 5, 6), (3, 1), (4, 2)])
@pytest.mark.parametrize("hard", [None, 0.3])
def test_of_divergences(name, shape, hard, same_as_autograd):
    x, t = 3 * _random(*shape), 3 * _random(*shape, seed=2)
    y = None if hard is None else _share(shape[0], *shape[2:]).mul(shape[1]).long()
    form = Form(temperature=2.5, beta=0.3, soft=4.0, hard=hard)
    same_as_autograd(WHOLE[name], x, t, y, None, form=form)


@pytest.mark.parametrize("name", WHOLE)
def test_of_divergences_with_masked_classes(name, same_as_autograd):
    x, t = 3 * _random(6, 5), 3 * _random(6, 5, seed=2)
    x[:3, 1], t[:3, 1] = -torch.inf, -torch.inf
    t[4:, 3] = -torch.inf
    same_as_autograd(WHOLE[name], x, t, None, None, form=Form(1.0, 0.5, 1.0))


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("hard", [None, 0.3])
def test_of_a_teacher_that_tells_of_some_classes(name, k, hard, same_as_autograd):
    x, t = 3 * _random(9, 5), 3 * _random(9, 5, seed=2)
    chosen = _share(9, 5).argsort(1)[:, :k]
    told = torch.zeros(9, 5, dtype=torch.bool).scatter(1, chosen, True)
    x[1:3] = torch.where(told[1:3], x[1:3], torch.tensor([[-1000.0], [-torch.inf]]))  # no rest
    y = None if hard is None else chosen[:, 0]
    log_p = t.log_softmax(1).gather(1, chosen)
    form = Form(temperature=2.5, beta=0.3, soft=4.0, hard=hard)
    same_as_autograd(CHOSEN[name], x, log_p, y, chosen, form=form)


@pytest.mark.parametrize("name", STANDARD)
@pytest.mark.parametrize("shape", [(9, 5), (2, 5, 6), (4, 3)])
@pytest.mark.parametrize("hard", [None, 0.3])
def test_of_standardized_divergences(name, shape, hard, same_as_autograd):
    x, t = 3 * _random(*shape), 3 * _random(*shape, seed=2)
    x[0] *= 1e6
    x[1, 2:] = x[1, 1:2]  # two levels
    x[-1], t[-2] = x[-1, :1], t[-2, :1]  # one
    if shape[1] > 3:
        x[1, 4], t[1, 4], t[0, 0] = -torch.inf, -torch.inf, -torch.inf
    y = None if hard is None else _share(shape[0], *shape[2:]).mul(shape[1] - 1).long()
    form = Form(temperature=2.5, beta=0.3, soft=4.0, hard=hard)
    same_as_autograd(STANDARD[name], x, t, y, None, form=form)
