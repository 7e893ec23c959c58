"""Signal-to-noise ratios, where values are not to be looked at."""

import torch

from aptt.core.streaming import Work
from aptt.loss import snr


def test_the_way_back_looks_at_no_value_where_that_is_a_host_sync():
    x, t, out = torch.empty(3, 2, 1, 9, device="meta").unbind(0)
    up, sums = torch.empty(2, 2, 7, device="meta", dtype=torch.float64).unbind(0)
    options = {"cross": True, "means": True, "size": 9}
    snr._SUMS.differentiate(out, x, Work(x.device), up, (sums,), (t, None), options)
    assert out.shape == x.shape
