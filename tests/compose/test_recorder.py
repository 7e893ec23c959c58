"""The account of each term: right, by name, and without waiting for the device."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from aptt.compose import CombinedLoss, History, Ramp, WeightedSum


def leaf(value):
    return torch.tensor(float(value), requires_grad=True)


def test_means_are_those_since_the_last_log():
    mix = WeightedSum({"a": Ramp(1.0, 2.0, over=4), "b": 10.0})
    seen = {"a": [], "b": [], "weight": [], "total": []}
    for step in range(150):  # more than are kept at once, and not a multiple
        a, b = math.sin(step), step / 7
        seen["weight"].append(mix.weight[0].item())
        seen["total"].append(mix({"a": leaf(a), "b": leaf(b)}).item())
        seen["a"].append(a)
        seen["b"].append(b)
        mix.step()
        if step in (69, 149):
            logged = mix.log("train/")
            n = len(seen["a"])
            weighted = sum(w * a for w, a in zip(seen["weight"], seen["a"], strict=True)) / n
            assert logged == pytest.approx(
                {
                    "train/a": sum(seen["a"]) / n,
                    "train/a/weight": sum(seen["weight"]) / n,
                    "train/a/weighted": weighted,
                    "train/a/nonfinite": 0.0,
                    "train/a/zeros": 1.0,
                    "train/b": sum(seen["b"]) / n,
                    "train/b/weight": 10.0,
                    "train/b/weighted": 10 * sum(seen["b"]) / n,
                    "train/b/nonfinite": 0.0,
                    "train/b/zeros": 1.0,
                    "train/total": sum(seen["total"]) / n,
                },
                rel=1e-6,
            )
            assert {type(value) for value in logged.values()} == {float}
            seen = {name: [] for name in seen}
    assert mix.report()["a"]["calls"] == 150
    assert math.isnan(mix.log()["total"])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_nan_at_step_37_is_named_after_the_run(compiled):
    mix = WeightedSum(dict.fromkeys(["cls", "box", "dfl", "mask"], 1.0))
    call = torch.compile(mix, fullgraph=True, backend="eager") if compiled else mix
    for step in range(100):
        values = {name: leaf(1.0) for name in mix.names}
        if step in (37, 80):
            values["dfl"] = values["dfl"] * (math.nan if step == 37 else math.inf)
        call(values)
    with pytest.warns(
        UserWarning, match="term 'dfl' was not finite in 2 of 100 calls, the first at step 37"
    ):
        logged = mix.log()
    report = mix.report()
    assert report["dfl"]["first_bad_step"] == 37
    assert report["dfl"]["nonfinite"] == 2
    assert [report[name]["first_bad_step"] for name in ("cls", "box", "mask")] == [None] * 3
    assert logged["dfl"] == 1.0  # means are over what was finite
    assert logged["total"] == 4.0
    mix(values)
    mix.log()  # said once


def test_a_detached_term_is_said_once_by_name():
    loss = CombinedLoss(
        {"mse": nn.MSELoss(), "l1": lambda x, y: F.l1_loss(x.detach(), y), "huber": nn.HuberLoss()}
    )
    x = torch.ones(3, requires_grad=True)
    with pytest.warns(UserWarning, match="term 'l1' requires no gradient"):
        loss(x, torch.zeros(3))
    for _ in range(2):
        loss(x, torch.zeros(3))
    assert [t["no_gradient"] for t in loss.report().values()] == [0, 3, 0]


def test_a_detached_term_of_a_compiled_sum_is_said_at_the_log():
    mix = WeightedSum({"a": 1.0, "b": 1.0})
    torch.compile(mix, fullgraph=True, backend="eager")({"a": leaf(1), "b": leaf(1).detach()})
    with pytest.warns(UserWarning, match="term 'b' required no gradient in 1 calls"):
        mix.log()


def test_exact_zeros_are_counted():
    mix = WeightedSum({"ce": 1.0, "dice": 1.0})
    for _ in range(70):
        mix({"ce": leaf(0.0), "dice": leaf(1e-30)})
    assert [term["zeros"] for term in mix.report().values()] == [70, 0]


class _Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_a_step_never_reads_a_number_back():
    """`.item()`, `.tolist()`, `if tensor` and indexing by a mask are all these operations."""
    mix = WeightedSum({"a": Ramp(0.0, 1.0, over=50), "b": 1.0})
    with _Calls() as seen:
        for _ in range(130):
            mix({"a": leaf(1.0), "b": None})
            mix.step()
    assert not {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"} & set(seen.names)
    with _Calls() as seen:
        mix.log()
    assert seen.names.count("aten::_local_scalar_dense") <= len(mix.record._FIELDS) * 2 + 2


def test_recording_adds_no_operation_to_a_step():
    with_it, without = WeightedSum({"a": 1.0}), WeightedSum({"a": 1.0})
    without.record.add = lambda *args: None
    counted = []
    for mix in (with_it, without):
        with _Calls() as seen:
            mix({"a": leaf(1.0)})
        counted.append([name for name in seen.names if name != "aten::detach"])
    assert counted[0] == counted[1]


def test_ranks_are_pooled_where_asked():
    mix = WeightedSum({"a": 1.0})
    for value in (1.0, 3.0):
        mix({"a": leaf(value)})
    assert mix.log(pool=lambda t: 2 * t)["a"] == 2.0  # two ranks alike


class TestGradReport:
    def values(self):
        at = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64, requires_grad=True)
        return at, {"a": at[0] * 3, "b": 4 * (at[0] + at[1]), "c": -at[0] * 1.0}

    def test_norms_shares_and_cosines_are_those_of_the_gradients(self):
        at, values = self.values()
        mix = WeightedSum({"a": 2.0, "b": 0.5, "c": 1.0})
        report = mix.grad_report(values, at=at)
        norms = {"a": 6.0, "b": 2 * math.sqrt(2), "c": 1.0}
        assert report.norm == pytest.approx(norms)
        whole = sum(norms.values())
        assert report.share == pytest.approx({n: v / whole for n, v in norms.items()})
        assert report.cosine["a"] == pytest.approx({"a": 1, "b": 1 / math.sqrt(2), "c": -1})
        assert "share" in str(report)
        mix(values).backward()  # the graph is still there, and only the sum was counted
        assert mix.report()["a"]["calls"] == 1

    def test_a_term_without_a_gradient_there_has_none(self):
        at, values = self.values()
        mix = WeightedSum({"a": 1.0, "b": 1.0, "c": 1.0})
        report = mix.grad_report({**values, "b": None, "c": leaf(1.0)}, at=at)
        assert report.share == {"a": 1.0, "b": 0.0, "c": 0.0}
        assert math.isnan(report.cosine["a"]["b"])

    def test_of_a_combined_loss_from_its_inputs(self):
        loss = CombinedLoss(
            {"mse": nn.MSELoss(reduction="sum"), "l1": nn.L1Loss(reduction="sum")},
            weights={"l1": 0.5},
            inputs={"mse": ("x", "y"), "l1": ("x", "y")},
        )
        x = torch.tensor([3.0, 0.0, 4.0], requires_grad=True)
        report = loss.grad_report(x=x, y=torch.tensor([0.0, 0.0, 0.0]), at=x)
        assert report.norm == pytest.approx({"mse": 10.0, "l1": 0.5 * math.sqrt(2)})
        assert loss.report()["mse"]["calls"] == 0

    def test_a_gradient_that_is_not_finite_is_visible_by_name(self):
        """Forward finite, backward NaN: the value shows nothing, the report does."""
        at = torch.zeros(2, requires_grad=True)
        mix = WeightedSum({"good": 1.0, "bad": 1.0})
        values = {"good": at.sum(), "bad": at.sum().square().sqrt()}
        assert mix(values).isfinite()
        report = mix.grad_report(values, at=at)
        assert math.isnan(report.norm["bad"])
        assert report.norm["good"] == pytest.approx(math.sqrt(2))


def test_history_is_plain_lists():
    mix, history = WeightedSum({"a": Ramp(0.0, 1.0, over=2), "b": 1.0}), History()
    for step in range(3):
        at = torch.ones(2, requires_grad=True)
        values = {"a": at.sum(), "b": at.prod()}  # both with the gradient (1, 1)
        mix(values)
        history.note(step, mix, mix.grad_report(values, at=at))
        mix.step()
    assert history.values == {
        "a": [(0, 2.0), (1, 2.0), (2, 2.0)],
        "b": [(0, 1.0), (1, 1.0), (2, 1.0)],
    }
    assert history.weights["a"] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert [step for step, _ in history.shares["a"]] == [0, 1, 2]
    assert [share for _, share in history.shares["a"]] == pytest.approx([0.0, 1 / 3, 0.5])


def test_counting_does_not_wait_for_half_a_batch():
    mix = WeightedSum({"a": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mix({"a": leaf(2.0)})
        assert mix.report()["a"]["value"] == 2.0
        assert mix.state_dict()["record.calls"].tolist() == [1]
