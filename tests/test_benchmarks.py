"""The benchmarks compare like with like, and say what they promise to say."""

import importlib
import json
import multiprocessing
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # benchmarks are no part of the package

CASES = importlib.import_module("benchmarks.cases").CASES
FLOOR = importlib.import_module("benchmarks.case").FLOOR
main = importlib.import_module("benchmarks.__main__").main
without = importlib.import_module("benchmarks.__main__")._without
memory = importlib.import_module("benchmarks.memory")
noise = importlib.import_module("benchmarks.machine").noise
run = importlib.import_module("benchmarks.run")
worker = importlib.import_module("benchmarks.worker")
clock = importlib.import_module("benchmarks.clock")
gpu = importlib.import_module("benchmarks.gpu")

PAIRS = [
    pytest.param(case, contender, id=f"{case.name}: {contender.name}")
    for case in CASES.values()
    for contender in case.contenders
    if contender.name != contender.against and contender.device in (None, "cpu")
]


def _evaluate(case, loss):
    torch.manual_seed(0)
    x, target = case.inputs(case.quick)
    value = loss(x.requires_grad_(), target)
    (value / 4).backward()
    return value.detach().double(), x.grad.double()


@pytest.mark.parametrize(("case", "contender"), PAIRS)
def test_contenders_compute_the_same_as_ours(case, contender):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a peer says on import is not ours to mend
        try:
            loss = contender.make()
        except ImportError as error:
            pytest.skip(str(error))
        if contender.compiled:  # what is compiled, without the minutes that inductor takes
            torch.compiler.reset()  # or the cases before count as compilations of this one
            loss = torch.compile(loss, fullgraph=True, dynamic=False, backend="aot_eager")
        value, gradient = _evaluate(case, loss)
    ours = case.contender(contender.against).make()
    expected, slope = _evaluate(case, ours)
    close = contender.tolerance
    torch.testing.assert_close(value, expected, rtol=close, atol=0)
    assert slope.abs().median() > 0
    if contender.by_norm:
        assert (gradient - slope).norm() < close * slope.norm()
    else:
        torch.testing.assert_close(gradient, slope, rtol=close, atol=close * slope.abs().median())


def test_every_case_has_ours_a_compiled_form_and_a_size_that_streams():
    for case in CASES.values():
        assert case.contenders[0].name == "aptt"
        assert any(contender.compiled for contender in case.contenders)
        assert (case.contenders[1].name == "aptt, compiled") == case.compiles
        assert torch.Size(case.quick).numel() >= 2**15
        assert len({FLOOR, *(c.name for c in case.contenders)}) == 1 + len(case.contenders)


@pytest.mark.parametrize(
    "theirs",
    [
        {"value": 1.1, "gradient_norm": 2.0},
        {"value": 1.0, "gradient_norm": 1.0},
        {"value": float("nan"), "gradient_norm": 2.0},
    ],
)
def test_who_computes_something_else_is_found(theirs):
    mine = {"value": 1.0, "gradient_norm": 2.0}
    assert "something else" in run.differs(mine, theirs, 1e-4)
    assert run.differs(mine, mine, 1e-4) is None


def test_a_peer_that_is_not_installed_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.losses", None)
    ours, theirs = multiprocessing.Pipe()
    worker.answer(theirs, "focal", "kornia", True)
    status, reason = ours.recv()
    assert status == "missing"
    assert "kornia" in reason


def test_an_accelerator_is_timed_by_its_own_clock(monkeypatch):
    said = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            said.append("record")

        def elapsed_time(self, end):
            return 2.5  # milliseconds

    there = SimpleNamespace(Event=Event, synchronize=lambda: said.append("synchronize"))
    monkeypatch.setattr(torch, "get_device_module", lambda device: there)
    assert clock.seconds(lambda: said.append("call"), torch.device("cuda")) == 2.5e-3
    assert said == ["synchronize", "record", "call", "record", "synchronize"]


def test_on_a_busy_machine_the_processors_time_counts(monkeypatch):
    cpu = torch.device("cpu")
    assert clock.seconds(lambda: time.sleep(0.02), cpu) >= 0.02
    monkeypatch.setenv(clock.CLOCK, "processor")
    assert clock.seconds(lambda: time.sleep(0.02), cpu) < 0.01


def test_contenders_can_be_left_out_but_ours_stay():
    case = without(CASES["dice"], ["compiled", "aptt", "smp"])
    assert [c.name for c in case.contenders] == ["aptt", "kornia", "monai", "aptt, pool='batch'"]


def test_who_runs_on_a_gpu_alone_enters_there():
    case = CASES["linear_cross_entropy_bf16"]
    here, there = (
        {contender.name for contender in case.entered(device)} for device in ("cpu", "cuda:1")
    )
    assert there - here == {"Liger", "cut-cross-entropy"}
    assert here < there
    assert case.size_on("cpu", quick=False) == case.size
    assert case.size_on("cuda", quick=False) == case.large
    assert case.size_on("cuda", quick=True) == case.quick


VERBOSE = """
[gw0] [ 10%] PASSED tests/test_conformance.py::test_promise[autocast-rmse_loss-cuda]
[gw1] [ 20%] FAILED tests/test_conformance.py::test_promise[copies-rmse_loss-cuda]
[gw1] [ 30%] SKIPPED tests/test_conformance.py::test_promise[copies-wing_loss-cuda]
=========================== short test summary info ============================
FAILED tests/test_conformance.py::test_promise[copies-rmse_loss-cuda] - AssertionError: off
"""


def test_the_suites_outcomes_are_read_with_the_reasons():
    found = gpu.outcomes(VERBOSE.splitlines())
    assert (found["passed"], found["skipped"], found["failed"]) == (1, 1, 1)
    assert found["failures"] == {"test_promise[copies-rmse_loss-cuda]": "AssertionError: off"}
    cut_short = gpu.outcomes(VERBOSE.splitlines()[:3])
    assert cut_short["failures"] == {"test_promise[copies-rmse_loss-cuda]": ""}


def test_the_page_has_a_row_for_each_contender_and_says_what_is_left_out():
    ready = {"name": "aptt", "status": "ready", "of_roof": 0.5, "extra_memory": 1.0}
    ready["upstream_1"] = {"median": 2e-3, "ratio": 1.0}
    failed = {"name": "peer", "status": "failed", "reason": "no\nmore"}
    case = {"name": "rmse", "shape": [8], "dtype": "float32", "contenders": [ready, failed]}
    report = {
        "machine": {"accelerator": "a GPU", "packages": {"torch": "2"}},
        "date": "today",
        "quick": False,
        "suite": {"passed": 2, "failed": 1, "finished": True, "failures": {"x[y]": "off"}},
        "cases": [case],
        "left_out": ["dice"],
    }
    page = gpu.page(report)
    assert "Promises: 2 kept, 1 broken." in page
    assert "- `x[y]`: off" in page
    assert "| rmse, 8 float32 | aptt | 2.000 | 1.00 | 50% | 1.00 |" in page
    assert "| rmse, 8 float32 | peer | failed: no | | | |" in page
    assert page.endswith("Not measured, for want of time: dice.")


def test_a_device_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--device", "xpu:7"])
    assert "--device: got 'xpu:7'" in capsys.readouterr().err


def test_ratios_are_taken_within_a_round():
    summary = run.summary([2.0, 20.0, 3.0], [1.0, 10.0, 1.0])
    assert summary["ratio"] == 2
    assert summary["median"] == 3
    assert summary["quartiles"] == [2.5, 11.5]
    assert run.summary([2.0], [1.0])["quartiles"] == [2.0, 2.0]


def test_a_busy_machine_is_said():
    assert noise(0.1, 2.2, 2) == []
    assert "at the start" in noise(1.7, None, 2)[0]
    assert "at the end" in noise(0.1, 4.0, 2)[0]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory_counts_what_is_gone_by_the_end():
    mebibytes = 256
    grown = memory.peak_extra(lambda: torch.ones(mebibytes, 2**18).sum())
    assert mebibytes * 2**20 == pytest.approx(grown, rel=0.05)


def test_an_unknown_case_is_refused_by_name(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["cross-entropy"])
    said = capsys.readouterr().err
    assert "'cross-entropy'" in said
    assert "cross_entropy" in said


TIMES = {"median", "quartiles", "ratio", "rounds"}
ROW = {"name", "against", "status", "value", "gradient_norm", "first_call", "extra_memory"}
ROW |= {"kernels", "traffic", "held", "of_roof"}


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_command_writes_what_the_readme_promises(tmp_path):
    file = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "rmse", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text(encoding="utf-8"))

    assert set(result) == {"schema", "clock", "quick", "rounds", "machine", "warnings", "cases"}
    assert (result["schema"], result["quick"], result["rounds"]) == (2, True, 2)
    machine = result["machine"]
    assert {"cpu", "cores", "system", "python", "load_start", "load_end"} < set(machine)
    assert machine["packages"]["torch"] == torch.__version__

    (case,) = result["cases"]
    assert (case["name"], case["shape"], case["dtype"]) == ("rmse", [2**15], "float32")
    assert case["prediction_bytes"] == 2**17
    assert case["threads"] >= 1
    rows = {row["name"]: row for row in case["contenders"]}
    assert list(rows) == [FLOOR, "aptt", "aptt, compiled", "plain, compiled", "plain"]
    for row in rows.values():
        assert set(row) == ROW | {"upstream_1", "upstream_quarter"}
        assert row["status"] == "ready"
        for name in ("upstream_1", "upstream_quarter"):
            assert set(row[name]) == TIMES
            assert len(row[name]["rounds"]) == 2
            assert row[name]["median"] > 0
    assert rows["aptt"]["upstream_1"]["ratio"] == 1
    assert rows["aptt"]["held"] == pytest.approx(1, abs=0.01)  # its gradient, as it is small
    assert rows["aptt"]["kernels"] is None
    for name in ("aptt, compiled", "plain, compiled"):
        assert rows[name]["kernels"] >= 2  # forward and backward
        assert 3 < rows[name]["traffic"] < 8  # read twice or more, written once
    assert case["large_pages"] is False
    for name in rows:
        assert name in done.stdout
