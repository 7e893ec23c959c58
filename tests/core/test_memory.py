"""Fresh memory is like any other, whatever the size."""

import pytest
import torch

from aptt.core.memory import brought, fresh_like


@pytest.mark.parametrize("n", [0, 3, 2**21 + 5, 2**23 + 1])
def test_fresh_memory_has_the_form_asked_for_and_can_be_written(n):
    x = torch.zeros(n)
    fresh = fresh_like(x)
    assert fresh.shape == x.shape
    assert fresh.dtype == x.dtype
    assert n == 0 or fresh.data_ptr() != x.data_ptr()
    assert fresh.fill_(3.0).sum(dtype=torch.float64).item() == 3.0 * n


def test_strides_are_kept():
    x = torch.zeros(2048, 2048).t()
    assert fresh_like(x).stride() == x.stride()


def test_numbers_are_brought_to_where_a_tensor_is():
    like = torch.zeros(1, dtype=torch.float64)
    assert brought([1, 2], like).dtype == torch.int64
    assert torch.equal(
        brought([0.1], like, torch.float64), torch.full((1,), 0.1, dtype=torch.float64)
    )
    with torch.device("meta"):  # another default device is no matter
        assert brought([1], like).tolist() == [1]
    assert brought([1], like.to("meta")).device.type == "meta"
