"""Fresh memory is like any other, whatever the size."""

from types import SimpleNamespace

import pytest
import torch

from aptt.core import memory
from aptt.core.memory import brought, fresh_like


@pytest.mark.parametrize("n", [0, 3, 2**21 + 5, 2**23 + 1])
def test_fresh_memory_has_the_form_asked_for_and_can_be_written(n):
    x = torch.zeros(n)
    fresh = fresh_like(x)
    assert fresh.shape == x.shape
    assert fresh.dtype == x.dtype
    assert n == 0 or fresh.data_ptr() != x.data_ptr()
    assert fresh.fill_(3.0).sum(dtype=torch.float64).item() == 3.0 * n


def test_large_pages_are_asked_for_within_what_is_fresh(monkeypatch):
    asked, page = [], 2**21
    libc = SimpleNamespace(madvise=lambda *call: asked.append([k.value for k in call[:2]]))
    monkeypatch.setattr("aptt.core.memory._libc", lambda: libc)
    fresh_like(torch.empty(page - 1))
    assert not asked
    fresh = fresh_like(torch.empty(page))  # 4 bytes each
    ((first, size),) = asked
    assert first % page == size % page == 0
    assert fresh.data_ptr() <= first
    assert first + size <= fresh.data_ptr() + fresh.nbytes
    assert size > fresh.nbytes - 2 * page


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_only_linux_has_large_pages(platform, monkeypatch):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace(madvise=None))
    assert (memory._libc.__wrapped__() is not None) == (platform == "linux")


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
