"""The sum itself: one number, the bare sum's value and gradient, and a state that resumes."""

import copy
import io
import math
import pickle
import warnings
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aptt.compose import (
    CombinedLoss,
    Cosine,
    GradShare,
    NonFiniteError,
    Ramp,
    Steps,
    Uncertainty,
    WeightedSum,
)
from aptt.loss import FocalLoss, GIoULoss


def parts(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    x = torch.randn(6, 5, dtype=dtype, requires_grad=True)
    return x, {"a": x.square().mean(), "b": x.abs().sum(), "c": x.sin().sum()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_are_the_bare_sum_s(dtype):
    x, values = parts(dtype=dtype)
    total = WeightedSum({"a": 1.0, "b": 0.3, "c": -2.5})(values)
    assert total.dtype == dtype
    assert total.shape == ()
    bare = values["a"] + 0.3 * values["b"] - 2.5 * values["c"]
    torch.testing.assert_close(total, bare, rtol=4 * torch.finfo(dtype).eps, atol=1e-6)
    up = torch.tensor(0.37, dtype=dtype)
    mine = torch.autograd.grad(total, x, up, retain_graph=True)
    theirs = torch.autograd.grad(bare, x, up)
    torch.testing.assert_close(mine, theirs, rtol=4 * torch.finfo(dtype).eps, atol=1e-7)


def test_half_precision_values_are_added_in_float32():
    big = torch.tensor(60000.0, dtype=torch.float16, requires_grad=True)
    total = WeightedSum({"a": 1.0, "b": 1.0})({"a": big, "b": big})
    assert total.dtype == torch.float32
    assert total.item() == 120000.0


def test_a_model_s_half_leaves_the_sums_alone():
    mix = WeightedSum({"a": 0.3, "b": 0.1}, balance=GradShare()).half().bfloat16()
    assert mix.weight.tolist() == [0.3, 0.1]
    assert mix.record.sum_value.dtype == torch.float64
    assert mix.balance.mean.dtype == torch.float64
    alone = CombinedLoss({"ce": nn.CrossEntropyLoss(weight=torch.ones(3))}).half()
    assert alone.terms["ce"].weight.dtype == torch.float16  # a term's own does follow


def test_eval_counts_nothing():
    _, values = parts()
    mix = WeightedSum({"a": 1.0, "b": 1.0, "c": 1.0}).eval()
    mix(values)
    assert {term["calls"] for term in mix.report().values()} == {0}


class TestNames:
    mix = WeightedSum({"cls": 1.0, "box": 5.0})

    def test_a_typo_in_a_value_is_said(self):
        with pytest.raises(ValueError, match="unknown term 'bxo'; did you mean 'box'"):
            self.mix({"cls": torch.ones(()), "bxo": torch.ones(())})

    def test_a_value_that_is_not_there_is_said(self):
        with pytest.raises(ValueError, match="term 'box': no value given"):
            self.mix({"cls": torch.ones(())})

    def test_a_typo_in_a_weight_is_said(self):
        with pytest.raises(ValueError, match="unknown term 'boxes'; did you mean 'box'"):
            CombinedLoss({"cls": F.mse_loss, "box": F.l1_loss}, weights={"boxes": 5.0})

    def test_a_typo_in_an_input_is_said(self):
        loss = CombinedLoss({"box": F.l1_loss}, inputs={"box": ("pred_box", "target_box")})
        with pytest.raises(ValueError, match="unknown input 'pred_bxo'; did you mean 'pred_box'"):
            loss(pred_bxo=torch.ones(2), target_box=torch.ones(2))
        with pytest.raises(ValueError, match=r"unknown input 'target_box'.*wanted by term 'box'"):
            loss({"pred_box": torch.ones(2), "mask": None})

    def test_inputs_for_nobody_and_nothing_for_somebody_are_said(self):
        with pytest.raises(ValueError, match="unknown term 'bx'"):
            CombinedLoss({"box": F.l1_loss}, inputs={"bx": ("a", "b")})
        with pytest.raises(ValueError, match="inputs: none for term 'box'"):
            CombinedLoss({"box": F.l1_loss}, inputs={})

    @pytest.mark.parametrize("name", ["", "a.b", "a/b", "total", "values"])
    def test_names_that_cannot_be(self, name):
        with pytest.raises(ValueError, match="term"):
            WeightedSum({name: 1.0})

    @pytest.mark.parametrize(
        ("value", "error", "said"),
        [
            (3.0, TypeError, "term 'box': got float, wanted a tensor"),
            (torch.ones(4), ValueError, r"term 'box': got torch.float32 of shape \(4,\)"),
            (torch.tensor(1), ValueError, "term 'box': got torch.int64"),
        ],
    )
    def test_what_is_no_number_is_said_by_name(self, value, error, said):
        with pytest.raises(error, match=said):
            self.mix({"cls": torch.ones(()), "box": value})

    @pytest.mark.parametrize(
        ("weight", "error"),
        [
            ("2", TypeError),
            (True, TypeError),
            (float("nan"), ValueError),
            (lambda t: None, TypeError),
        ],
    )
    def test_what_is_no_weight_is_said_by_name(self, weight, error):
        with pytest.raises(error, match="weight of 'box'"):
            WeightedSum({"box": weight})

    def test_a_class_for_a_loss_is_said(self):
        with pytest.raises(TypeError, match="so call it"):
            CombinedLoss({"box": GIoULoss})


class TestRouting:
    def test_by_keyword_by_mapping_and_by_argument_name(self):
        loss = CombinedLoss(
            {"mse": nn.MSELoss(), "bce": F.binary_cross_entropy_with_logits},
            weights={"bce": 2.0},
            inputs={"mse": ("x", "y"), "bce": {"input": "z", "target": "y", "weight": "w"}},
        )
        x, y, z = torch.randn(3), torch.rand(3), torch.randn(3, requires_grad=True)
        x.requires_grad_()
        bce = F.binary_cross_entropy_with_logits
        for w in (None, torch.rand(3)):
            wanted = F.mse_loss(x, y) + 2 * bce(z, y, weight=w)
            assert loss(x=x, y=y, z=z, w=w).item() == pytest.approx(wanted.item(), rel=1e-6)
            mapped = loss({"x": x, "z": z, "features": None}, {"y": y, "w": w})
            assert mapped.item() == pytest.approx(wanted.item(), rel=1e-6)

    def test_without_names_every_term_gets_everything(self):
        loss = CombinedLoss({"mse": nn.MSELoss(), "l1": nn.L1Loss()}, weights={"l1": 0.5})
        x, y = torch.randn(4, requires_grad=True), torch.randn(4)
        assert loss(x, y).item() == pytest.approx((F.mse_loss(x, y) + F.l1_loss(x, y) / 2).item())

    def test_an_input_given_twice_is_said(self):
        loss = CombinedLoss({"mse": nn.MSELoss()}, inputs={"mse": ("x", "y")})
        with pytest.raises(ValueError, match="input 'x': given twice"):
            loss({"x": 1}, x=2, y=3)

    def test_a_tensor_by_position_is_said(self):
        loss = CombinedLoss({"mse": nn.MSELoss()}, inputs={"mse": ("x", "y")})
        with pytest.raises(TypeError, match="by position"):
            loss(torch.ones(2), torch.ones(2))


class TestAbsentTerms:
    def test_an_absent_term_leaves_the_rest(self):
        _, values = parts()
        mix = WeightedSum({"a": 1.0, "b": 2.0, "c": 3.0})
        total = mix({**values, "b": None})
        assert total.item() == pytest.approx((values["a"] + 3 * values["c"]).item())
        report = mix.report()
        assert [report[name]["calls"] for name in "abc"] == [1, 0, 1]
        assert report["b"]["zeros"] == 0

    def test_nothing_but_absent_terms_is_0_attached_to_at(self):
        at = torch.tensor([1.0, float("inf"), float("nan")], requires_grad=True)
        total = WeightedSum({"a": 1.0})({"a": None}, at=at)
        total.backward()
        assert total.item() == 0
        assert at.grad.tolist() == [0, 0, 0]

    def test_nothing_at_all_is_said(self):
        with pytest.raises(ValueError, match="every term is None"):
            WeightedSum({"a": 1.0})({"a": None})

    def test_an_input_of_none_makes_its_term_absent(self):
        loss = CombinedLoss(
            {"cls": F.mse_loss, "mask": F.l1_loss},
            inputs={"cls": ("x", "y"), "mask": ("x", "mask")},
        )
        x = torch.ones(3, requires_grad=True)
        assert loss(x=x, y=torch.zeros(3), mask=None).item() == 1.0


class TestSchedules:
    def test_step_and_at_step(self):
        mix = WeightedSum({"a": Ramp(0.0, 1.0, over=4), "b": lambda t: t**2})
        seen = []
        for _ in range(3):
            seen.append(mix.weight.tolist())
            mix.step()
        assert seen == [[0.0, 0.0], [0.25, 1.0], [0.5, 4.0]]
        for _ in range(2):  # twice is as good as once
            mix.at_step(2)
            assert mix.weight.tolist() == [0.5, 4.0]

    @pytest.mark.parametrize("step", [-1, 1.5, True])
    def test_no_other_steps(self, step):
        with pytest.raises(ValueError, match="step: got"):
            WeightedSum({"a": 1.0}).at_step(step)

    def test_a_schedule_that_fails_later_names_its_term_and_step(self):
        mix = WeightedSum({"a": lambda t: 1 / (2 - t) if t < 2 else float("inf")})
        mix.step()
        with pytest.raises(ValueError, match="weight of 'a': got inf at step 2"):
            mix.step()

    def test_one_compiled_graph_while_weights_move(self):
        torch._dynamo.reset()
        loss = CombinedLoss(
            {"mse": nn.MSELoss(), "l1": nn.L1Loss(), "focal": FocalLoss()},
            weights={"l1": Ramp(0.0, 1.0, over=5), "focal": Cosine(1.0, 0.0, over=5)},
            balance=Uncertainty(),
        )
        twin = copy.deepcopy(loss)
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        for step in range(8):
            torch.manual_seed(step)
            x, y = torch.randn(9, requires_grad=True), torch.rand(9).round()
            moved = step in (0, 1, 5)  # one more where a weight leaves 0, or comes to it
            with torch._dynamo.config.patch(error_on_recompile=not moved):
                total = compiled(x, y)
            (slope,) = torch.autograd.grad(total, x)
            other = twin(x, y)
            torch.testing.assert_close(total, other)
            torch.testing.assert_close(slope, *torch.autograd.grad(other, x))
            loss.step()
            twin.step()
        for name, term in twin.report().items():
            assert loss.report()[name] == pytest.approx(term)


class Broken(nn.Module):
    """A term that is NaN, value and gradient, and counts its calls."""

    calls = 0

    def forward(self, x, y):
        self.calls += 1
        return ((x - y) * torch.nan).sum()


@pytest.mark.parametrize("balance", [None, Uncertainty, GradShare])
@pytest.mark.parametrize("on_nonfinite", ["record", "raise"])
class TestWeightZero:
    """A term of weight 0 takes no part."""

    def test_it_is_not_computed_until_the_weight_leaves_0(self, balance, on_nonfinite):
        broken = Broken()
        loss, alone = (
            CombinedLoss(
                terms,
                weights={"broken": Ramp(0.0, 1.0, over=2, begin=1)} if "broken" in terms else None,
                balance=balance and balance(),
                on_nonfinite=on_nonfinite,
            )
            for terms in ({"l1": nn.L1Loss(), "broken": broken}, {"l1": nn.L1Loss()})
        )
        x, y = torch.linspace(0, 2, 5, requires_grad=True), torch.ones(5)
        at = {"at": x} if balance is GradShare else {}
        for step in (0, 1):
            loss.at_step(step)
            got, want = loss(x, y, **at), alone(x, y, **at)
            assert got == want
            assert torch.equal(*(torch.autograd.grad(total, x)[0] for total in (got, want)))
        assert broken.calls == 0
        report = loss.report()["broken"]
        assert (report["calls"], report["weight"], report["nonfinite"]) == (0, 0.0, 0)
        assert math.isnan(report["value"])
        assert loss.report()["l1"]["calls"] == 2
        assert math.isfinite(loss.log()["total"])
        loss.at_step(2)
        with pytest.raises(NonFiniteError) if on_nonfinite == "raise" else nullcontext():
            loss(x, y, **at)
        assert broken.calls == 1

    def test_nor_does_a_value_from_elsewhere(self, balance, on_nonfinite):
        mix, alone = (
            WeightedSum(weights, balance=balance and balance(), on_nonfinite=on_nonfinite)
            for weights in ({"l1": 1.0, "broken": 0.0}, {"l1": 1.0})
        )
        x = torch.linspace(0, 2, 5, requires_grad=True)
        at = {"at": x} if balance is GradShare else {}
        values = {"l1": x.square().sum(), "broken": (x * torch.nan).sum()}
        got, want = mix(values, **at), alone({"l1": values["l1"]}, **at)
        assert got == want
        assert torch.equal(
            *(torch.autograd.grad(total, x, retain_graph=True)[0] for total in (got, want))
        )
        with pytest.warns(UserWarning, match="'broken' was not finite in 1 of 1 calls"):
            assert mix.report()["broken"]["nonfinite"] == 1  # the account has it nonetheless


def test_what_only_a_term_of_weight_0_trains_has_a_gradient_of_0():
    """Data parallel waits for the gradient of every parameter."""
    body, head = nn.Linear(3, 2), nn.Linear(3, 2)
    loss = CombinedLoss(
        {"main": nn.MSELoss(), "aux": nn.MSELoss()},
        weights={"aux": 0.0},
        inputs={"main": ("a", "y"), "aux": {"input": "b", "target": "y"}},
    )
    x = torch.linspace(-1, 1, 12).view(4, 3)
    loss({"a": body(x), "b": head(x), "y": torch.ones(4, 2)}).backward()
    assert (head.weight.grad == 0).all()
    assert (body.weight.grad != 0).any()


def test_all_weights_may_be_0():
    loss = CombinedLoss({"a": nn.MSELoss(), "b": nn.L1Loss()}, weights={"a": 0.0, "b": 0.0})
    x = torch.linspace(0, 1, 4, requires_grad=True)
    total = loss(x, torch.ones(4))
    total.backward()
    assert total == 0
    assert (x.grad == 0).all()


def test_a_term_of_weight_0_has_no_share_in_the_gradient_report():
    broken = Broken()
    loss = CombinedLoss({"l1": nn.L1Loss(), "broken": broken}, weights={"broken": 0.0})
    x = torch.linspace(0, 2, 5, requires_grad=True)
    report = loss.grad_report(x, torch.ones(5), at=x)
    assert report.share == {"l1": 1.0, "broken": 0.0}
    assert broken.calls == 0


def model_and_data():
    torch.manual_seed(3)
    model = nn.Linear(4, 2)
    return model, torch.randn(40, 4), torch.randn(40, 2)


def criterion(balance=None):
    return CombinedLoss(
        {"mse": nn.MSELoss(), "l1": nn.L1Loss(), "huber": nn.HuberLoss()},
        weights={"l1": Ramp(0.1, 3.0, over=30), "huber": Steps({0: 1.0, 7: 100.0, 20: 2.0})},
        balance=balance,
    )


def train(model, loss, optimizer, x, y, steps):
    totals = []
    for step in steps:
        rows = slice(step % 10 * 4, step % 10 * 4 + 4)
        out = model(x[rows])
        total = loss(out, y[rows], at=out)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        loss.step()
        totals.append(total.item())
    return totals


@pytest.mark.parametrize("make", [lambda: None, Uncertainty, lambda: GradShare(decay=0.9)])
def test_it_resumes_exactly_in_the_middle_of_everything(make):
    def start():
        model, x, y = model_and_data()
        loss = criterion(make())
        optimizer = torch.optim.AdamW([*model.parameters(), *loss.parameters()], 1e-2)
        return model, loss, optimizer, x, y

    through = start()
    whole = train(*through, range(23))
    first = start()
    head = train(*first, range(11))
    file = io.BytesIO()
    torch.save([part.state_dict() for part in first[:3]], file)
    file.seek(0)
    second = start()
    for part, state in zip(second[:3], torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    tail = train(*second, range(11, 23))
    assert head + tail == whole
    # each is a sum of floats, in two orders
    reported, wanted = second[1].report(), through[1].report()
    assert reported.keys() == wanted.keys()
    for name, row in wanted.items():
        close = {k: v if v is None else pytest.approx(v, rel=1e-12) for k, v in row.items()}
        assert reported[name] == close
    assert second[1].log() == pytest.approx(through[1].log(), rel=1e-12)


def test_a_state_of_other_terms_is_refused_by_name():
    state = WeightedSum({"cls": 1.0, "box": 1.0}).state_dict()
    with pytest.raises(RuntimeError, match="of the terms cls, box, this is a sum of obj: none in"):
        WeightedSum({"obj": 1.0}).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Missing key.*record\.calls"):
        WeightedSum({"cls": 1.0}).load_state_dict({})


def test_copies_and_pickles_go_on_from_here():
    model, x, y = model_and_data()
    loss = criterion(Uncertainty())
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], 1e-2)
    train(model, loss, optimizer, x, y, range(5))
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert twin.report() == loss.report()
        out = model(x)
        assert twin(out, y).item() == copy.deepcopy(loss)(out, y).item()


@pytest.mark.parametrize("make", [lambda: None, Uncertainty, GradShare])
def test_gradscaler_changes_nothing(make):
    def run(scale):
        model, x, y = model_and_data()
        loss = criterion(make())
        parameters = [*model.parameters(), *loss.parameters()]
        optimizer = torch.optim.SGD(parameters, 1e-2)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**13, enabled=scale)
        for _ in range(4):
            out = model(x)
            scaler.scale(loss(out, y, at=out)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        return [p.detach().clone() for p in parameters]

    torch.testing.assert_close(run(True), run(False))


def test_accumulation_of_halves_is_the_whole_batch():
    model, x, y = model_and_data()
    loss = criterion()
    loss(model(x), y).backward()
    whole = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for rows in (slice(20), slice(20, 40)):
        (loss(model(x[rows]), y[rows]) / 2).backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], whole)


def test_under_autocast_the_total_is_float32():
    model, x, y = model_and_data()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
        total = criterion()(out, y.bfloat16())
    assert out.dtype == torch.bfloat16
    assert total.dtype == torch.float32
    total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_func_grad_goes_through_and_leaves_nothing_behind():
    mix = WeightedSum({"a": 2.0, "b": 1.0})
    x = torch.randn(3)
    slope = torch.func.grad(lambda x: mix({"a": x.square().sum(), "b": x.sum()}))(x)
    torch.testing.assert_close(slope, 4 * x + 1)
    assert mix.report()["a"]["calls"] == 0


def test_second_derivatives():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    mix = WeightedSum({"a": 0.3, "b": 1.7})
    assert torch.autograd.gradgradcheck(lambda x: mix({"a": x.pow(3).sum(), "b": x.exp().sum()}), x)


def test_the_repr_is_the_formula():
    loss = CombinedLoss(
        {"cls": FocalLoss(gamma=1.5), "box": GIoULoss()},
        weights={"box": Ramp(0.5, 5.0, over=10)},
        inputs={"cls": ("pred_cls", "target_cls"), "box": ("pred_box", "target_box")},
        balance=Uncertainty(),
    )
    text = repr(loss)
    assert "total = Uncertainty(start=0.0, bounds=(-10.0, 10.0))[1*cls + Ramp(" in text
    assert f"cls = {FocalLoss(gamma=1.5)!r}(pred_cls, target_cls)" in text
    assert "(pred_box, target_box)" in text


def test_warnings_are_not_raised_where_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, x, y = model_and_data()
        loss = criterion(GradShare())
        train(model, loss, torch.optim.SGD(model.parameters(), 1e-3), x, y, range(130))
        loss.log()


def test_a_refused_state_leaves_the_step_alone():
    saved = WeightedSum({"a": Ramp(0.0, 1.0, over=10)})
    saved.at_step(5)
    mix = WeightedSum({"b": Ramp(0.0, 1.0, over=10)})
    with pytest.raises(RuntimeError, match="the state is of the terms a"):
        mix.load_state_dict(saved.state_dict())
    mix.step()
    assert (mix.t.item(), mix.weight.item()) == (1, pytest.approx(0.1))


@pytest.mark.parametrize("make", [lambda: None, Uncertainty, GradShare])
@pytest.mark.parametrize("empty", [True, False])
def test_one_that_is_made_on_meta_works_elsewhere(make, empty):
    with torch.device("meta"):
        loss = CombinedLoss(
            {"a": F.l1_loss}, weights={"a": Steps({0: 1.0, 3: 2.0})}, balance=make()
        )
    loss.at_step(3)
    if empty:
        loss.to_empty(device="cpu")
    loss = loss.eval() if isinstance(loss.balance, GradShare) else loss
    x = torch.full((2,), 3.0, requires_grad=True)
    wanted = {"NoneType": 6.0, "Uncertainty": 3.0, "GradShare": 0.0}
    assert loss(x, torch.zeros(2)).item() == wanted[type(loss.balance).__name__]
    assert (loss.t.item(), loss.weight.item()) == (3, 2.0)
    assert loss.report()["a"]["first_bad_step"] is None


def test_a_name_that_no_term_wants_may_come_twice():
    loss = CombinedLoss({"a": F.l1_loss}, inputs={"a": ("x", "y")})
    x = torch.ones(2, requires_grad=True)
    assert loss({"x": x, "meta": 1}, {"y": torch.zeros(2), "meta": 2}).item() == 1.0
    with pytest.raises(ValueError, match="input 'x': given twice"):
        loss({"x": x}, {"x": x, "y": x})


def test_no_sum_among_the_terms_counts_a_report_of_gradients():
    inner = CombinedLoss({"x": F.l1_loss})
    x = torch.ones(4, requires_grad=True)
    CombinedLoss({"i": inner}).grad_report(x, torch.zeros(4), at=x)
    assert inner.report()["x"]["calls"] == 0
    assert inner.training


def test_a_state_with_other_terms_loads_those_in_common_when_asked():
    old = WeightedSum({"a": 1.0, "b": 2.0, "c": 1.0}, balance=Uncertainty())
    old.balance.s.data.copy_(torch.tensor([0.5, -1.0, 2.0]))
    for n in range(3):
        old({k: torch.full((), 1.0 + n, requires_grad=True) for k in "abc"})
    old.at_step(7)
    new = WeightedSum({"c": 1.0, "d": 1.0, "a": 1.0}, balance=Uncertainty(start=0.25))
    said = "terms a, b, c, this is a sum of c, d, a: those in common"
    with pytest.warns(UserWarning, match=said), pytest.raises(RuntimeError, match="term 'd'"):
        new.load_state_dict(old.state_dict())
    with pytest.warns(UserWarning, match=said):
        found = new.load_state_dict(old.state_dict(), strict=False)
    assert found == (["term 'd'"], ["term 'b'"])
    assert new.balance.s.tolist() == [2.0, 0.25, 0.5]
    assert {k: v["calls"] for k, v in new.report().items()} == {"c": 3, "d": 0, "a": 3}
    assert new.log()["a"] == 2.0
    assert int(new.t) == 7
    other = WeightedSum({"d": 1.0, "c": 1.0, "a": 1.0}, balance=Uncertainty())
    other.load_state_dict(new.state_dict())  # another order is no other state
    assert other.balance.s.tolist() == [0.25, 2.0, 0.5]
