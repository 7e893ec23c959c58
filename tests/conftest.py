"""What holds for every test."""

import pytest
import torch

# Tests run side by side, and more threads than cores wait for each other.
torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        default="cpu",
        help="where the conformance suite runs: cpu (the default), cuda, cuda:1, mps ...",
    )


def pytest_configure(config):
    device = config.getoption("--device")
    try:
        torch.ones(1, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        first = str(error).strip().partition("\n")[0]
        raise pytest.UsageError(f"--device: got {device!r}, and here: {first}") from error


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", [metafunc.config.getoption("--device")])
