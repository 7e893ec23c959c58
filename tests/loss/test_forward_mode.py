"""Forward mode goes along the gradient, which it does not compute."""

import pytest
import torch
from torch.autograd import forward_ad

from aptt.audit import SPECS

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.mark.parametrize("name", SPECS)
def test_a_tangent_is_the_gradient_along_it(name):
    trial = SPECS[name].trials()[0]
    inputs = trial.inputs()
    x = inputs[trial.prediction(inputs)]
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    _, gradient = trial.gradient(inputs, reduction="sum")
    with forward_ad.dual_level():
        value = trial.of(inputs, reduction="sum")(forward_ad.make_dual(x, along))
        slope = forward_ad.unpack_dual(value).tangent
    wanted, least = (gradient * along).sum(), 1e-12 * (gradient * along).abs().sum()
    torch.testing.assert_close(slope, wanted, rtol=1e-9, atol=least.item())
