"""The examples run as on a machine without an accelerator, though tests before may pretend one."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _no_pretended_accelerator(monkeypatch):
    pretended = getattr(torch, torch._C._get_privateuse1_backend_name(), None)
    if pretended is not None:
        monkeypatch.setattr(pretended, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
