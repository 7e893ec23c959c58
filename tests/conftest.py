"""What holds for every test."""

import gc
import importlib.util
import itertools
import os
import re
from collections import Counter

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
    parser.addoption(
        "--nothing-skipped",
        action="store_true",
        help="fail if a test was skipped for another reason than a package that is not installed",
    )
    parser.addoption(
        "--cost",
        action="store_true",
        help="say at the end what each file of tests took of a CPU, and of the audit each promise",
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


def pytest_collection_modifyitems(items):
    """The dear ones first: a worker of xdist takes up to a quarter of all tests that are left."""
    items.sort(key=lambda item: item.path.name not in ("test_conformance.py", "test_benchmarks.py"))


def pytest_collection_finish():
    """Look for garbage more seldom: a compilation would spend a quarter of its time on it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20)


def pytest_runtest_logstart():
    _clock[0] = _seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Note with each report, which comes from the workers of xdist too, what it took of a CPU."""
    report = yield
    promise = getattr(item, "callspec", None) and item.callspec.params.get("promise")
    file = item.nodeid.partition("::")[0]
    before, _clock[0] = _clock[0], _seconds()
    took = _clock[0] - before
    report.cost = (f"{file}, {promise.name}" if hasattr(promise, "name") else file, took)
    return report


_clock = [0.0]


def _seconds():
    """Of a CPU, in this process and those that it has waited for."""
    return sum(os.times()[:4])


def pytest_sessionfinish(session):
    if session.config.getoption("--nothing-skipped") and _skipped(session.config, _is_here):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    """What was skipped, a line a reason, each with how to have it."""
    for reason, count in sorted(_skipped(config, lambda reason: True).items()):
        fatal = config.getoption("--nothing-skipped") and _is_here(reason)
        verdict = "FAILED: --nothing-skipped, and skipped" if fatal else "skipped"
        terminalreporter.write_line(f"{verdict} {count}: {reason}")
    if config.getoption("--cost"):
        costs = Counter()
        for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
            where, seconds = getattr(report, "cost", ("", 0.0))
            costs[where] += seconds
        terminalreporter.section("seconds of a CPU")
        for where, seconds in [("all together", costs.total()), *costs.most_common()]:
            if seconds >= 1:
                terminalreporter.write_line(f"{seconds:8.1f}  {where}")


def _skipped(config, counts):
    """How many tests were skipped for each reason that counts; on a worker of xdist, none."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    reasons = (str(report.longrepr[2]).removeprefix("Skipped: ") for report in reports)
    return Counter(_cure(reason) for reason in reasons if counts(reason))


def _cure(reason):
    package = _missing(reason)
    return f"{package} is not installed; it comes with aptt[bench]" if package else reason


def _is_here(reason):
    """Whether what the reason names could have been there: no package that is not installed."""
    package = _missing(reason)
    return package is None or importlib.util.find_spec(package) is not None


def _missing(reason):
    """The package without which a test was skipped: pytest, Python and our own tests say it."""
    found = re.search(r"import '(\w+)|named '(\w+)|^([\w-]+)[^;]* is not installed", reason)
    return next(filter(None, found.groups())).replace("-", "_") if found else None
