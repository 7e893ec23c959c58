"""Mutants tried in processes forked from one in which all tests are collected already."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.mutants.mutate import Mutant, apply
from tests.mutants.patch import Cold, Finder, Live

ARGUMENTS = ["-q", "-n0", "-s", "-p", "no:cacheprovider", "-p", "no:terminalreporter"]
MEMORY = 12 << 30  # a mutant may ask for more than there is
STUCK = 60  # seconds of CPU beyond what the tests of a mutant may take

NO_TIME = "no time for more tests"

Plan = list[tuple[str, list[str]]]
"""Names of tests by the place they stand in."""


@dataclass(frozen=True)
class Verdict:
    """How a trial ended: ``killed``, ``survived``, or ``cold``: to be tried in a new process.

    ``error`` says that the tool is wrong, not the mutant.
    """

    end: str
    place: str = ""
    test: str = ""
    why: str = ""
    ran: int = 0
    seconds: float = 0.0


class Failures:
    """A plugin of pytest: remembers the first failure."""

    def __init__(self) -> None:
        self.first: tuple[str, str] | None = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.first is None:
            self.first = report.nodeid, _reason(report)

    def pytest_collectreport(self, report):
        if report.failed and self.first is None:
            self.first = f"collection of {report.nodeid}", _reason(report)


def _reason(report) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else report.longreprtext
    return " ".join(text.split())[:200]


class Server:
    """A plugin of pytest: instead of running what it collected, serves trials of it."""

    def __init__(self, connection: Connection, package: Path) -> None:
        self.connection = connection
        self.package = package
        self.failures = Failures()

    def pytest_runtestloop(self, session):
        items = {item.nodeid: item for item in session.items}
        live = Live(self.package)
        gc.freeze()  # a fork that collected garbage would copy what it shares
        session.config.pluginmanager.register(self.failures)
        self.connection.send(list(items))
        while (request := self.connection.recv()) is not None:
            mutant, path, plan, budget = request

            def trial(mutant=mutant, path=path, plan=plan, budget=budget) -> Verdict:
                if mutant is not None:
                    source = path.read_text(encoding="utf-8")
                    live.patch(path, source, apply(mutant, source))
                return _run(items, plan, budget, self.failures)

            self.connection.send(forked(trial, budget))
        return True


class Once:
    """A plugin of pytest: of what it collected, runs a plan."""

    def __init__(self, plan: Plan, budget: float) -> None:
        self.plan, self.budget = plan, budget
        self.failures = Failures()
        self.verdict = Verdict("survived")

    def pytest_runtestloop(self, session):
        items = {item.nodeid: item for item in session.items}
        self.verdict = _run(items, self.plan, self.budget, self.failures)
        return True


def _run(items: dict, plan: Plan, budget: float, failures: Failures) -> Verdict:
    """Runs tests until one fails, or their time is up."""
    began, ran = time.process_time(), 0
    for place, names in plan:
        chosen = [items[name] for name in names if name in items]
        for item, after in zip_longest(chosen, chosen[1:]):
            passed = time.process_time() - began
            if passed > budget:
                return Verdict("survived", place, "", NO_TIME, ran, passed)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            ran += 1
            if failures.first:
                passed = time.process_time() - began
                return Verdict("killed", place, *failures.first, ran, passed)
    return Verdict("survived", ran=ran, seconds=time.process_time() - began)


def cold(
    mutant: Mutant, path: Path, package: Path, plan: Plan, budget: float, options: list[str]
) -> Verdict:
    """A trial in a process that has not imported the package yet; forks."""

    def trial() -> Verdict:
        finder = Finder(path, package, apply(mutant, path.read_text(encoding="utf-8")))
        finder.install()
        try:
            importlib.import_module(finder.name)  # before pytest, which would look by the path
        except Exception as error:
            return Verdict("killed", "own", f"import {finder.name}", f"{error!r}"[:200])
        ran, seconds = 0, 0.0
        for place, names in plan:
            files = sorted({name.partition("::")[0] for name in names})
            if not files:
                continue
            once = Once([(place, names)], budget - seconds)
            code = pytest.main([*ARGUMENTS, *options, *files], plugins=[once, once.failures])
            ran, seconds = ran + once.verdict.ran, seconds + once.verdict.seconds
            if once.failures.first:
                return Verdict("killed", place, *once.failures.first, ran, seconds)
            if once.verdict.why == NO_TIME:
                return Verdict("survived", place, "", NO_TIME, ran, seconds)
            if code in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR):
                return Verdict("killed", place, "", "its tests cannot be collected", ran, seconds)
        return Verdict("survived", ran=ran, seconds=seconds)

    return forked(trial, budget)


def forked(trial: Callable[[], Verdict], budget: float) -> Verdict:
    """What a trial in a fork of this process gives; silent, and with a limit."""
    here, there = Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            _confine(budget)
            try:
                there.send(trial())
            except Cold:
                there.send(Verdict("cold"))
            except BaseException:
                there.send(Verdict("error", why=traceback.format_exc()[-2000:]))
        finally:
            os._exit(0)
    there.close()
    wall = 20 * (budget + STUCK)
    verdict = None
    if here.poll(wall):
        with contextlib.suppress(EOFError):  # it ended without a word
            verdict = here.recv()
    else:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    here.close()
    if verdict is not None:
        return verdict
    ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "exit"
    timed_out = ended in ("SIGPROF", "SIGKILL")
    return Verdict("killed", "own", "", "timeout" if timed_out else f"crash: {ended}")


def _confine(budget: float) -> None:
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, budget + STUCK)


def serving(arguments: list[str], package: Path) -> tuple[int, Connection]:
    """A server of trials, collected from ``arguments``: its process, and the way to it."""
    here, there = Pipe()
    child = os.fork()
    if child == 0:
        here.close()
        silent = os.open(os.devnull, os.O_RDWR)
        os.dup2(silent, 1)
        try:
            pytest.main([*ARGUMENTS, *arguments], plugins=[Server(there, package)])
        finally:
            os._exit(0)
    there.close()
    return child, here
