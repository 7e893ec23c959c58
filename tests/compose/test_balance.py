"""Balancers reach what their formulas say, and stop where they have to."""

import math

import pytest
import torch

from aptt.compose import DWA, Balance, GradNorm, GradShare, Ramp, Uncertainty, WeightedSum


def at_and_values(scale=1.0, n=5):
    torch.manual_seed(1)
    at = torch.randn(8, n, dtype=torch.float64, requires_grad=True)
    return at, {"a": at.square().mean() * scale, "b": (at - 2).abs().mean(), "c": at.cos().mean()}


class TestUncertainty:
    def test_value_and_gradients_are_the_closed_form_s(self):
        weights = {"a": 1.0, "b": 0.5, "c": 2.0}
        mix = WeightedSum(weights, balance=Uncertainty())
        s = torch.tensor([0.3, -1.2, 0.8])
        mix.balance.s.data.copy_(s)
        at, values = at_and_values()
        total = mix({**values, "c": values["c"] ** 2})
        given = torch.stack([values["a"], values["b"], values["c"] ** 2])
        w, free = torch.tensor([1.0, 0.5, 2.0]).double(), s.double().requires_grad_()
        wanted = (w * (torch.exp(-free) * given + free) / 2).sum()
        assert total.item() == pytest.approx(wanted.item(), rel=1e-6)
        up = torch.tensor(0.7, dtype=torch.float64)
        mine = torch.autograd.grad(total, [at, mix.balance.s], up, retain_graph=True)
        theirs = torch.autograd.grad(wanted, [at, free], up)
        torch.testing.assert_close(mine[0], theirs[0], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(mine[1].double(), theirs[1], rtol=1e-6, atol=1e-7)

    def test_at_rest_a_term_weighs_1_over_twice_its_value(self):
        mix = WeightedSum({"a": 1.0, "b": 3.0}, balance=Uncertainty())
        optimizer = torch.optim.SGD(mix.parameters(), lr=0.5)
        values = {
            name: torch.tensor(v, requires_grad=True) for name, v in (("a", 0.01), ("b", 40.0))
        }
        for _ in range(300):
            optimizer.zero_grad()
            total = mix(values)
            total.backward()
            optimizer.step()
        mix.log()
        mix(values)
        report = mix.report()
        assert report["a"]["weight"] == pytest.approx(1 / (2 * 0.01), rel=1e-3)
        assert report["b"]["weight"] == pytest.approx(3 / (2 * 40.0), rel=1e-3)
        rest = (1 + math.log(0.01)) / 2 + 3 * (1 + math.log(40.0)) / 2
        assert total.item() == pytest.approx(rest, rel=1e-4)

    def test_a_term_of_0_stops_at_the_bound_and_comes_back(self):
        """Without bounds exp(-s) overflows: NaN after some 1800 steps of SGD at rate 0.1."""
        mix = WeightedSum({"a": 1.0}, balance=Uncertainty(bounds=(-4.0, 4.0)))
        optimizer = torch.optim.SGD(mix.parameters(), lr=0.5)

        def go(value, steps):
            for _ in range(steps):
                optimizer.zero_grad()
                mix({"a": torch.tensor(value, requires_grad=True)}).backward()
                optimizer.step()
            return mix.balance.s.item()

        assert -4.3 < go(0.0, 100) <= -4.0
        assert go(1.0, 200) == pytest.approx(0.0, abs=1e-3)

    def test_a_value_that_is_not_finite_leaves_the_scale_alone(self):
        mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=Uncertainty())
        nan = torch.tensor(float("nan"), requires_grad=True)
        mix({"a": nan, "b": torch.tensor(3.0, requires_grad=True)}).backward()
        assert mix.balance.s.grad.tolist() == [0.0, -1.0]

    def test_an_absent_term_leaves_the_scale_alone_and_costs_nothing(self):
        mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=Uncertainty(start=2.0))
        total = mix({"a": None, "b": torch.tensor(3.0, requires_grad=True)})
        total.backward()
        assert mix.balance.s.grad[0] == 0
        assert total.item() == pytest.approx((math.exp(-2) * 3 + 2) / 2, rel=1e-6)

    def test_parameters_that_no_optimizer_has_are_said(self):
        mix = WeightedSum({"a": 1.0}, balance=Uncertainty())
        value = {"a": torch.tensor(3.0, requires_grad=True)}
        mix.load_state_dict(mix.state_dict())  # which is no step of an optimizer
        for _ in range(999):
            mix(value)
        with pytest.warns(UserWarning, match=r"is criterion\.parameters\(\) in the optimizer"):
            mix(value)
        mix(value)  # said once

    def test_bounds_that_overflow_are_refused(self):
        with pytest.raises(ValueError, match="bounds: got"):
            Uncertainty(bounds=(-1000.0, 0.0))
        with pytest.raises(ValueError, match=r"bounds: .*start=3"):
            Uncertainty(start=3.0, bounds=(-1.0, 1.0))


class TestGradShare:
    def test_the_gradient_is_the_encodec_rule_s(self):
        """R * w_i / sum(w) * g_i / mean |g_i|, written as a sum of gradients, over steps."""
        weights = {"a": 1.0, "b": 3.0, "c": 0.5}
        mix = WeightedSum(weights, balance=GradShare(decay=0.8, scale=2.0))
        sums, trust = dict.fromkeys(weights, 0.0), 0.0
        for step in range(5):
            torch.manual_seed(step)
            at = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
            values = {"a": 1e3 * at.square().sum(), "b": at.exp().mean(), "c": at.sin().sum() + 2}
            wanted, trust = torch.zeros_like(at), 0.8 * trust + 0.2
            for name, value in values.items():
                (g,) = torch.autograd.grad(value, at, retain_graph=True)
                sums[name] = 0.8 * sums[name] + 0.2 * g.norm().item()
                wanted += 2.0 * weights[name] / 4.5 * g / (sums[name] / trust)
            mix(values, at=at).backward()
            torch.testing.assert_close(at.grad, wanted)

    def test_asked_fractions_with_losses_a_million_apart(self):
        torch.manual_seed(0)
        trunk, heads = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)
        mix = WeightedSum({"a": 1.0, "b": 3.0, "c": 6.0}, balance=GradShare(decay=0.9))
        optimizer = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=0.01)
        x, y = torch.randn(64, 6), torch.randn(64, 3)
        for step in range(60):
            at = trunk(x).tanh()
            error = (heads(at) - y).square().mean(0)
            values = {"a": 1e6 * error[0], "b": error[1], "c": 1e-3 * error[2]}
            total = mix(values, at=at)
            if step == 59:
                report = mix.grad_report(values, at=at)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        for name, share in (("a", 0.1), ("b", 0.3), ("c", 0.6)):
            assert report.share[name] == pytest.approx(share, rel=0.05)

    def test_several_places_count_as_one(self):
        mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=GradShare())
        p = torch.tensor([3.0], requires_grad=True)
        q = torch.tensor([4.0], requires_grad=True)
        mix({"a": (p * 3 + q * 4).sum(), "b": 10 * q.sum()}, at=[p, q]).backward()
        assert p.grad.item() == pytest.approx(0.5 * 3 / 5)
        assert q.grad.item() == pytest.approx(0.5 * 4 / 5 + 0.5)

    def test_small_half_precision_gradients_are_seen(self):
        at = torch.full((64,), 1.0, dtype=torch.float16, requires_grad=True)
        values = {"a": at.float().sum() * 1e-8, "b": at.float().sum()}  # 1e-8 is 0 in float16
        mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=GradShare())
        mix(values, at=at)
        norms = mix.balance.mean / mix.balance.trust
        assert norms[0].item() == pytest.approx(8e-8, rel=0.05)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_half_precision_gradients_are_lifted_only_where_that_fits(self, dtype):
        """A value in float16, and one in float32 whose gradient overflows if lifted."""
        at = torch.full((4,), 2.0, dtype=torch.float16, requires_grad=True)
        values = {"a": at.to(dtype).square().sum(), "b": at.to(dtype).mean()}
        mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=GradShare())
        mix(values, at=at)
        norms = mix.balance.mean / mix.balance.trust
        assert norms.tolist() == pytest.approx([8.0, 0.5])
        assert mix.grad_report(values, at=at).share == pytest.approx({"a": 0.5, "b": 0.5})

    def test_a_term_without_a_usable_gradient_is_said_by_name(self):
        at = torch.ones(3, requires_grad=True)
        values = {"a": at.sum(), "b": (at * 0).sum()}
        mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=GradShare())
        with pytest.warns(UserWarning, match="has the weight 0: GradShare has not had") as said:
            mix.grad_report(values, at=at)  # before the first step
        assert len(said) == 2
        mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=GradShare())
        mix(values, at=at)
        with pytest.warns(UserWarning, match="term 'b' has the weight 0") as said:
            mix.log()
        assert len(said) == 1
        mix.log()

    def test_gradients_that_are_0_or_not_finite_leave_the_means_alone(self):
        mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=GradShare(decay=0.5))
        at = torch.ones(3, requires_grad=True)
        mix({"a": at.sum(), "b": at.sum() * 2}, at=at)
        before = mix.balance.mean.clone()
        total = mix({"a": at.sum() * float("inf"), "b": (at * 0).sum()}, at=at)
        torch.testing.assert_close(mix.balance.mean, before)
        assert total.isinf()
        mix({"a": at.sum(), "b": None}, at=at)
        assert mix.balance.mean[1] == before[1]

    def test_a_term_that_does_not_depend_on_the_place_is_said(self):
        at = torch.ones(3, requires_grad=True)
        other = torch.ones(3, requires_grad=True)
        mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=GradShare())
        with pytest.raises(ValueError, match="at: term 'b' does not depend on it"):
            mix({"a": at.sum(), "b": other.sum()}, at=at)
        with pytest.raises(ValueError, match="at: got None"):
            mix({"a": at.sum(), "b": at.sum()})
        with pytest.raises(ValueError, match="requires no gradient"):
            mix({"a": at.sum(), "b": at.sum()}, at=torch.ones(3))

    def test_eval_uses_what_was_learnt_and_learns_nothing(self):
        at, values = at_and_values()
        mix = WeightedSum(dict.fromkeys("abc", 1.0), balance=GradShare())
        total = mix(values, at=at)
        before = mix.balance.mean.clone()
        with torch.no_grad():
            assert mix.eval()(values).item() == pytest.approx(total.item())
        torch.testing.assert_close(mix.balance.mean, before, rtol=0, atol=0)

    @pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks, at a graph break
    def test_compiled_it_breaks_the_graph_and_is_right(self):
        def run(compiled):
            mix = WeightedSum({"a": 1.0, "b": 2.0}, balance=GradShare(decay=0.5))
            trunk = torch.nn.Linear(3, 2)
            torch.nn.init.constant_(trunk.weight, 0.3)
            torch.nn.init.constant_(trunk.bias, 0.1)

            def call(x):
                at = trunk(x)
                return mix({"a": at.square().sum(), "b": at.exp().sum()}, at=at)

            call = torch.compile(call, backend="eager") if compiled else call
            for step in range(3):
                total = call(torch.arange(12.0).reshape(4, 3) / (step + 9))
            return total.item(), *torch.autograd.grad(total, trunk.weight), mix.balance.mean

        torch.testing.assert_close(run(True), run(False))

    @pytest.mark.parametrize(
        ("options", "said"),
        [({"decay": 1.0}, "decay"), ({"scale": 0.0}, "scale"), ({"floor": -1.0}, "floor")],
    )
    def test_nonsense_is_refused(self, options, said):
        with pytest.raises(ValueError, match=f"{said}: got"):
            GradShare(**options)


@pytest.mark.parametrize("make", [Uncertainty, GradShare])
def test_negative_weights_make_no_sense_to_a_balancer(make):
    with pytest.raises(ValueError, match="weight of 'a': got -1"):
        WeightedSum({"a": -1.0}, balance=make())
    mix = WeightedSum({"a": Ramp(1.0, -1.0, over=2)}, balance=make())
    mix.step()
    with pytest.raises(ValueError, match="at step 2"):
        mix.step()


def test_a_balancer_belongs_to_one_sum():
    balance = GradShare()
    WeightedSum({"a": 1.0}, balance=balance)
    with pytest.raises(ValueError, match="another sum has already"):
        WeightedSum({"a": 1.0}, balance=balance)


def test_a_balancer_of_one_s_own():
    class Halves(Balance):
        def forward(self, values, parts, weights, at):
            return weights / 2, None

    x = torch.tensor(3.0, requires_grad=True)
    assert WeightedSum({"a": 4.0}, balance=Halves())({"a": x}).item() == 6.0
    with pytest.raises(TypeError, match="wanted a Balance"):
        WeightedSum({"a": 1.0}, balance="uncertainty")


class TestGradNorm:
    def test_the_gradient_of_the_weights_is_that_of_equation_2(self):
        mix = WeightedSum({"a": 1.0, "b": 0.5, "c": 2.0}, balance=GradNorm(alpha=0.7))
        told = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
        first = None
        for step in range(3):
            torch.manual_seed(step)
            at = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
            values = {"a": 10 * at.square().sum(), "b": at.exp().mean(), "c": at.cos().sum() + 13}
            mix.balance.w.data.copy_(torch.tensor([0.5, 1.75, 0.75]))
            mix.balance.w.grad = None
            mix(values, at=at).backward(retain_graph=True)

            w = torch.tensor([0.5, 1.75, 0.75], dtype=torch.float64, requires_grad=True)
            slopes = [torch.autograd.grad(v, at, retain_graph=True)[0] for v in values.values()]
            pull = torch.stack([(w[i] * told[i] * g).norm() for i, g in enumerate(slopes)])
            now = torch.stack([v.detach() for v in values.values()])
            first = now if first is None else first
            slow = now / first / (now / first).mean()
            (pull - (pull.mean() * slow**0.7).detach()).abs().sum().backward()
            torch.testing.assert_close(mix.balance.w.grad.double(), w.grad, rtol=1e-6, atol=1e-6)
            total = sum(c * g for c, g in zip((w * told).tolist(), slopes, strict=True))
            torch.testing.assert_close(at.grad, total)

    def test_terms_ten_times_apart_end_with_equal_pull(self):
        torch.manual_seed(0)
        trunk = torch.nn.Linear(6, 8)
        mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=GradNorm(alpha=0.0))
        optimizer = torch.optim.Adam(mix.parameters(), lr=0.01)
        x, y = torch.randn(64, 6), torch.randn(64, 8)
        for _ in range(200):
            error = (trunk(x) - y).square().mean(0)
            values = {"a": 10 * error[:4].mean(), "b": error[4:].mean()}
            optimizer.zero_grad()
            mix(values, at=trunk.weight).backward()
            optimizer.step()
        error = (trunk(x) - y).square().mean(0)
        values = {"a": 10 * error[:4].mean(), "b": error[4:].mean()}
        w = mix.balance.w.tolist()
        assert sum(w) == pytest.approx(2)
        report = mix.grad_report(values, at=trunk.weight)
        assert report.share["a"] == pytest.approx(0.5, abs=0.1)

    def test_the_first_values_are_saved(self):
        mix, again = (WeightedSum({"a": 1.0, "b": 1.0}, balance=GradNorm()) for _ in range(2))
        at = torch.ones(3, requires_grad=True)
        mix({"a": 4 * at.square().sum(), "b": at.sum()}, at=at)
        assert mix.balance.start.tolist() == [12, 3]
        again.load_state_dict(mix.state_dict())
        again({"a": at.square().sum(), "b": 9 * at.sum()}, at=at)
        assert again.balance.start.tolist() == [12, 3]

    def test_a_value_that_is_not_finite_leaves_the_weights_alone(self):
        mix = WeightedSum({"a": 1.0, "b": 1.0, "c": 1.0}, balance=GradNorm())
        at = torch.ones(3, requires_grad=True)
        mix({"a": at.sum() * torch.nan, "b": at.sum(), "c": None}, at=at).backward()
        assert mix.balance.w.grad.tolist() == [0, 0, 0]
        assert mix.balance.start.tolist() == [0, 3, 0]

    def test_without_a_place_it_says_so(self):
        with pytest.raises(ValueError, match="at: got None, GradNorm wants the tensor"):
            WeightedSum({"a": 1.0}, balance=GradNorm())({"a": torch.ones((), requires_grad=True)})


class TestDWA:
    EPOCHS = (({"a": 4.0, "b": 1.0}, {"a": 2.0, "b": 3.0}), ({"a": 1.5, "b": 1.0},), ())

    def _after(self, mix, epochs):
        for epoch in epochs:
            for values in epoch:
                mix({k: torch.tensor(v, requires_grad=True) for k, v in values.items()})
            mix.balance.end_epoch()

    def _weights(self, mix):
        mix.eval()
        one, zero = torch.ones(()), torch.zeros(())
        found = [mix({"a": one, "b": zero}).item(), mix({"a": zero, "b": one}).item()]
        mix.train()
        return found

    def test_weights_are_those_of_equation_7(self):
        mix = WeightedSum({"a": 1.0, "b": 3.0}, balance=DWA(temperature=2.0))
        for epochs in (self.EPOCHS[:1], self.EPOCHS[1:2]):
            assert self._weights(mix) == pytest.approx([1, 3])
            self._after(mix, epochs)
        a, b = math.exp((1.5 / 3.0) / 2), math.exp((1.0 / 2.0) / 2)
        assert self._weights(mix) == pytest.approx([2 * a / (a + b), 3 * 2 * b / (a + b)])
        self._after(mix, self.EPOCHS[2:])  # an epoch without a step repeats the last mean
        assert self._weights(mix) == pytest.approx([1, 3])

    def test_its_account_is_saved_amid_an_epoch(self):
        whole, first, second = (WeightedSum({"a": 1.0, "b": 1.0}, balance=DWA()) for _ in range(3))
        self._after(whole, self.EPOCHS[:2])
        for values in self.EPOCHS[0][:1]:
            first({k: torch.tensor(v, requires_grad=True) for k, v in values.items()})
        second.load_state_dict(first.state_dict())
        self._after(second, (self.EPOCHS[0][1:], self.EPOCHS[1]))
        assert self._weights(second) == self._weights(whole)

    def test_what_is_absent_or_not_finite_is_not_counted(self):
        mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=DWA())
        two = torch.tensor(2.0, requires_grad=True)
        mix({"a": two, "b": two})
        mix({"a": None, "b": two * torch.nan})
        mix.balance.end_epoch()
        assert mix.balance.last.tolist() == [2, 2]


class TestAccumulating:
    def test_means_of_equal_micro_batches_are_the_whole(self):
        x = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found = []
        for cuts, means in (([12], False), ([4, 4, 4], True)):
            mix = WeightedSum({"a": 1.0, "b": 1.0}, balance=GradShare(decay=0.5)).double()
            for _ in range(2):
                with mix.accumulating(len(cuts), means=means):
                    for part in x.split(cuts):
                        at = part.clone().requires_grad_()
                        mix({"a": at.square().mean(), "b": at.abs().mean()}, at=at)
            found.append(mix.balance.mean)
        torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=0)

    def test_a_step_that_is_not_whole_is_said(self):
        mix = WeightedSum({"a": 1.0}, balance=Uncertainty())
        value = {"a": torch.ones((), requires_grad=True)}

        def step(calls):
            with mix.accumulating(2):
                for _ in range(calls):
                    mix(value)

        step(4)
        with pytest.raises(ValueError, match="the last step had 1, wanted 2 calls a step"):
            step(3)
        assert mix.balance.accumulates is None
        with pytest.raises(ValueError, match="micro_batches: got 0"), mix.accumulating(0):
            pass

    def test_the_totals_of_a_step_add_up_to_that_of_the_whole(self):
        whole, split = (WeightedSum({"a": 2.0}, balance=Uncertainty(start=0.5)) for _ in range(2))
        shares = [torch.tensor(v, requires_grad=True) for v in (0.25, 0.5)]
        with split.accumulating(2):
            totals = [split({"a": share}) for share in shares]
        torch.testing.assert_close(sum(totals), whole({"a": shares[0] + shares[1]}))
