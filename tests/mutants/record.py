"""Which tests execute which lines, and how long each takes: recorded once, by coverage.py."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

ROOT = Path(__file__).parents[2]
MEASURED = ("src/aptt/core", "src/aptt/loss")
AT_LEAST, SECONDS = 3, 1.0  # of a test with many parameters: so many, then for so long
COMPILES = "not compil and not graph and not inductor and not traced"
RULES = [  # of every loss: what one parameter executes tells nothing of the next
    "tests/test_two_devices.py",
    *(
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests" / "loss").glob("test_*.py"))
        if any(word in path.read_text(encoding="utf-8") for word in ("SPECS", "FUNCTIONS"))
    ),
]
PARTS = {  # of the conformance suite a few promises, which say what a row executes
    "core": ["tests/core", "src/aptt/core", "-k", COMPILES],
    "loss": [
        *("tests/loss", "src/aptt/loss", "-k", COMPILES),
        *(f"--ignore={file}" for file in RULES),
    ],
    "rules": [*RULES, "-k", COMPILES],
    "conformance": [
        *("tests/test_conformance.py", "-k"),
        "test_promise and (deterministic or every_option_is_exercised or bad_input_is_refused)",
    ],
}


class Recorder:
    """A plugin of pytest: lines by test, of the tests that pass."""

    def __init__(self, at_least: float = AT_LEAST) -> None:
        try:
            import coverage
        except ImportError:
            sys.exit("coverage is not installed, and a recording needs it: pip install coverage")
        include = [str(ROOT / folder / "*") for folder in MEASURED]
        self.coverage = coverage.Coverage(data_file=None, include=include, config_file=False)
        self.at_least = at_least
        self.seconds: dict[str, float] = {}
        self.spent: Counter[str] = Counter()
        self.count: Counter[str] = Counter()
        self.failed: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        function = item.nodeid.partition("[")[0]
        if self.count[function] >= self.at_least and self.spent[function] > SECONDS:
            item.session._setupstate.teardown_exact(nextitem)
            return True  # enough of it is known
        self.coverage.switch_context(item.nodeid)
        began = time.process_time()
        runtestprotocol(item, nextitem=nextitem)
        taken = time.process_time() - began
        self.coverage.switch_context("")
        self.seconds[item.nodeid] = round(taken, 4)
        self.spent[function] += taken
        self.count[function] += 1
        return True

    def pytest_runtest_logreport(self, report):
        if report.outcome != "passed":
            self.failed.add(report.nodeid)

    def as_json(self) -> dict[str, object]:
        tests = [name for name in self.seconds if name not in self.failed]
        index = {name: i for i, name in enumerate(tests)}
        data = self.coverage.get_data()
        lines: dict[str, dict[int, list[int]]] = defaultdict(dict)
        for file in data.measured_files():
            for line, names in data.contexts_by_lineno(file).items():
                if found := sorted(index[name] for name in names if name in index):
                    lines[str(Path(file).relative_to(ROOT))][line] = found
        sources = {file: zlib.crc32((ROOT / file).read_bytes()) for file in lines}
        seconds = {name: self.seconds[name] for name in tests}
        return {"tests": seconds, "lines": lines, "sources": sources}


def record(out: Path, *arguments: str, at_least: float = AT_LEAST) -> int:
    """Runs tests, and writes what each executes to ``out``."""
    recorder = Recorder(at_least)
    recorder.coverage.start()
    code = pytest.main(["-q", "-n0", "-p", "no:cacheprovider", *arguments], plugins=[recorder])
    recorder.coverage.stop()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"exit": int(code), **recorder.as_json()}))
    return int(code)


def everything(folder: Path, parts: list[str]) -> None:
    """Records each part in a process of its own."""
    for part in parts or PARTS:
        subprocess.run([sys.executable, "-m", __spec__.name, folder, part], cwd=ROOT, check=True)


if __name__ == "__main__":
    part = sys.argv[2]
    every = 10**6 if part in ("rules", "conformance") else AT_LEAST
    record(Path(sys.argv[1]) / f"lines-{part}.json", *PARTS[part], at_least=every)
