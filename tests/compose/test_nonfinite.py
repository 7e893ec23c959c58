"""The first value that is not finite, named with its argument, and had again from a file."""

import math
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aptt.compose import CombinedLoss, NonFiniteError, Uncertainty, WeightedSum
from aptt.loss import CrossEntropyLoss, FocalLoss, GIoULoss


class LogLoss(nn.Module):
    """Infinite at 0, as a stranger's loss may be."""

    def __init__(self, scale, floor=0.0):
        super().__init__()
        self.scale = scale
        self.floor = floor
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, p):
        return -(self.scale * (p + self.floor + self.shift).log()).mean()


def functional_loss(y):
    return y.mean()


def losses(**options):
    return CombinedLoss(
        {
            "cls": FocalLoss(gamma=1.5),
            "box": GIoULoss(),
            "ce": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5])),
            "log": LogLoss(2.0),
        },
        inputs={
            "cls": ("scores", "hits"),
            "box": ("pred_box", "target_box"),
            "ce": {"input": "logits", "target": "labels"},
            "log": ("p",),
        },
        **options,
    )


def batch(step):
    torch.manual_seed(step)
    return {
        "scores": torch.randn(8, requires_grad=True),
        "hits": torch.randint(2, (8,)),
        "pred_box": torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3]], requires_grad=True),
        "target_box": torch.tensor([[0.0, 0, 1, 2], [1, 1, 4, 3]]),
        "logits": torch.randn(4, 3, requires_grad=True),
        "labels": torch.randint(3, (4,)),
        "p": torch.rand(2, requires_grad=True),
    }


def plant(given, where):
    with torch.no_grad():
        given[where].view(-1)[2 if given[where].numel() > 2 else 1] = math.nan
    return given


def run_until_bad(loss, where, step=37):
    for i in range(step):
        loss(batch(i))
    with pytest.raises(NonFiniteError) as caught:
        loss(plant(batch(step), where))
    return caught.value


@pytest.mark.parametrize(("term", "where"), [("cls", "scores"), ("ce", "logits"), ("log", "p")])
def test_term_argument_and_step_are_named(term, where):
    loss = losses(on_nonfinite="raise")
    error = run_until_bad(loss, where)
    assert f"term '{term}' is nan at step 37 (counted from 0)" in str(error)
    count = batch(0)[where].numel()
    assert f"{term}: {where} has 1 of {count} that are not, the first at [" in str(error)
    assert list(error.terms) == [term]
    assert error.step == 37
    with pytest.warns(UserWarning, match=f"term '{term}' was not finite in 1 of 38"):
        assert loss.report()[term]["first_bad_step"] == 37


def test_where_all_arguments_are_finite_the_term_is_to_blame():
    loss = CombinedLoss({"log": LogLoss(1.0)}, inputs={"log": ("p",)}, on_nonfinite="raise")
    with pytest.raises(NonFiniteError, match="finite, so it arose in the term itself"):
        loss(p=torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([torch.ones(2), torch.tensor([1.0, math.nan])], r"p\[1\] has 1 of 2 .* at \[1\]"),
        ({"a": (1, torch.tensor([math.nan]))}, r"p\['a'\]\[1\] has 1 of 1 that are not"),
        ([math.nan], r"p\[0\] has 1 of 1 that are not"),
    ],
)
def test_an_argument_within_an_argument_is_named(given, said):
    loss = CombinedLoss(
        {"a": lambda p: torch.tensor(math.nan)}, inputs={"a": ("p",)}, on_nonfinite="raise"
    )
    with pytest.raises(NonFiniteError, match=said):
        loss.eval()(p=given)


def test_a_weight_and_the_total_are_looked_at_too():
    value = {"a": torch.tensor(1e20, requires_grad=True)}
    with pytest.raises(NonFiniteError, match=r"the total is inf, .* finite, at step 0") as caught:
        WeightedSum({"a": 1e30}, on_nonfinite="raise")(value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.terms, again.step) == (str(caught.value), {}, 0)
    mix = WeightedSum({"a": 1.0}, balance=Uncertainty(), on_nonfinite="raise")
    mix.balance.s.data.fill_(math.nan)
    with pytest.raises(NonFiniteError, match="weight of 'a' is nan at step 0"):
        mix(value)
    with pytest.raises(ValueError, match=r"weight of 'a': got 1e\+39"):  # inf in float32
        WeightedSum({"a": 1e39})


class Method:
    def loss(self, y):
        return y.mean()


@pytest.mark.parametrize(
    ("term", "code", "note"),
    [
        (torch.sum, "...", True),  # torch gives a name under which it is not
        (Method().loss, "...", True),
        (functional_loss, f"{__name__}.functional_loss", False),
    ],
)
def test_the_lines_import_only_what_they_find(term, code, note, tmp_path):
    loss = CombinedLoss({"a": term}, inputs={"a": ("y",)}, on_nonfinite="dump", dump_to=tmp_path)
    with pytest.raises(NonFiniteError) as caught:
        loss(y=torch.tensor([math.nan], requires_grad=True))
    assert f"print({code}(*d['args'], **d['kwargs']))" in str(caught.value)
    assert ("stands for what a file cannot hold" in str(caught.value)) == note


def test_in_evaluation_it_is_said_too():
    with pytest.raises(NonFiniteError, match=r"term 'a' is inf in evaluation"):
        WeightedSum({"a": 1.0}, on_nonfinite="raise").eval()({"a": torch.tensor(math.inf)})


@pytest.mark.parametrize(
    ("term", "where"), [("cls", "scores"), ("ce", "logits"), ("box", "pred_box")]
)
def test_a_dump_is_reproduced_in_a_new_process(term, where, tmp_path):
    loss = losses(on_nonfinite="dump", dump_to=tmp_path)
    if term == "box":  # our boxes refuse NaN themselves, so a stranger's stands in
        loss.terms["box"] = nn.SmoothL1Loss(beta=0.5)
    error = run_until_bad(loss, where)
    file = tmp_path / f"nonfinite-{term}-step37.pt"
    dump = torch.load(file, weights_only=True)
    assert (dump["term"], dump["step"]) == (term, 37)
    if term == "cls":
        assert dump["options"] == {"gamma": 1.5}
    lines = str(error).partition("to have it again:\n")[2].splitlines()
    assert len(lines) == 3
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "tensor(nan)"


def test_the_lines_give_back_a_finite_value_bit_by_bit(tmp_path):
    """Not only NaN: the file holds the inputs, the options and the weights as they were."""
    from aptt.compose import dump

    loss = CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    file = dump.write(tmp_path / "x.pt", "ce", 0, 0.0, loss, ([x, y], {}))
    code = dump.reproduce(file, loss).replace("print(", "print(repr(").replace("))", ").item()))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == loss(x, y).item()


def test_what_a_file_cannot_hold_is_said(tmp_path):
    loss = CombinedLoss(
        {"log": LogLoss(scale=torch.exp)}, inputs={"log": ("p",)}, on_nonfinite="dump"
    )
    loss.terms["log"].forward = lambda p: (p + loss.terms["log"].shift).log().sum()
    loss.dump_to = tmp_path
    with pytest.raises(NonFiniteError, match=r"LogLoss\(\.\.\.\)[\s\S]*stands for .* scale"):
        loss(p=torch.tensor([-1.0, 1.0]))


def test_parameters_of_the_term_are_in_the_file(tmp_path):
    loss = CombinedLoss(
        {"log": LogLoss(3.0)}, inputs={"log": ("p",)}, on_nonfinite="dump", dump_to=tmp_path
    )
    with torch.no_grad():
        loss.terms["log"].shift.copy_(torch.tensor([-1.0, 0.5]))
    with pytest.raises(NonFiniteError, match=r"m\.load_state_dict\(d\['state'\]\)"):
        loss(p=torch.tensor([1.0, 1.0]))
    dump = torch.load(next(tmp_path.iterdir()), weights_only=True)
    again = LogLoss(**dump["options"])
    again.load_state_dict(dump["state"])
    assert again(*dump["args"]).item() == math.inf


def test_under_autocast_the_lines_run_under_autocast(tmp_path):
    loss = CombinedLoss(
        {"mse": F.mse_loss}, inputs={"mse": ("x", "y")}, on_nonfinite="dump", dump_to=tmp_path
    )
    bad = torch.tensor([math.inf], requires_grad=True)
    said = r"with torch.autocast\('cpu', torch.bfloat16\): print\(torch.nn.functional.mse_loss\("
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(NonFiniteError, match=said):
        loss(x=bad, y=torch.zeros(1))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks, at a graph break
def test_compiled_it_still_raises():
    loss = losses(on_nonfinite="raise")
    loss = CombinedLoss({"l1": F.l1_loss}, inputs={"l1": ("x", "y")}, on_nonfinite="raise")
    compiled = torch.compile(loss, backend="eager")
    x = torch.ones(2, requires_grad=True)
    assert compiled(x=x, y=torch.zeros(2)).item() == 1.0
    with pytest.raises(NonFiniteError, match="l1"):
        compiled(x=x, y=torch.full((2,), math.nan))


def test_there_are_no_other_ways():
    with pytest.raises(ValueError, match="on_nonfinite: got 'stop'"):
        CombinedLoss({"a": F.l1_loss}, on_nonfinite="stop")
    with pytest.raises(ValueError, match="on_nonfinite: got 'dump'"):
        WeightedSum({"a": 1.0}, on_nonfinite="dump")


def test_a_step_that_is_not_finite_can_be_left_out():
    model = nn.Linear(2, 1)
    mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=Uncertainty(), on_nonfinite="skip")
    optimizer = torch.optim.SGD([*model.parameters(), *mix.parameters()], 0.1, momentum=0.9)

    def step(x):
        optimizer.zero_grad()
        out = model(torch.full((3, 2), x))
        total = mix({"a": out.square().mean(), "b": out.abs().mean()})
        total.backward()
        optimizer.step()
        return total.item(), [p.detach().clone() for p in (*model.parameters(), mix.balance.s)]

    assert step(1.0)[0] != 0
    before = step(1.0)[1]
    value, after = step(math.nan)
    assert value == 0
    assert mix.skipped
    assert all(map(torch.equal, before, after))
    assert step(1.0)[0] != 0
    assert not mix.skipped
    with pytest.warns(UserWarning, match="not finite in 1 of 4 calls"):
        assert mix.log()["skipped"] == 1
    again = WeightedSum({"a": 1.0, "b": 1.0}, balance=Uncertainty(), on_nonfinite="skip")
    again.load_state_dict(mix.state_dict())
    assert again.skips == 1
    assert math.isnan(mix.eval()({"a": torch.tensor(math.nan), "b": None}).item())


def test_a_file_that_cannot_be_written_hides_no_term(monkeypatch, tmp_path):
    def full(content, path):
        path.write_bytes(b"half of it")
        raise RuntimeError("unexpected pos")  # what torch.save says of a full disk

    criterion = CombinedLoss({"y": functional_loss}, on_nonfinite="dump", dump_to=tmp_path)
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NonFiniteError, match="'y' is nan") as raised:
        criterion(torch.tensor([math.nan], requires_grad=True))
    assert "y: argument 0 has 1 of 1 that are not" in str(raised.value)
    assert f"cannot be written to {tmp_path / 'nonfinite-y-step0.pt'}: unexp" in str(raised.value)
    assert not list(tmp_path.iterdir())
