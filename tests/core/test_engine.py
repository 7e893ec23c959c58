"""The one choice of a way, the switch that overrules it, and what it says of itself."""

import threading

import pytest
import torch
from torch.autograd import forward_ad

from aptt.audit.ways import whole
from aptt.core.engine import obstacle, walking
from aptt.loss import CrossEntropyLoss, binary_cross_entropy, cross_entropy, engine


@pytest.fixture
def x():
    g = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, dtype=torch.float64, generator=g).requires_grad_()


@pytest.fixture
def y():
    return torch.tensor([0, 4, 1, -100, 2, 2])


def _walks(loss, *args, **kwargs):
    """How many walks a call and its backward make, by the blocks that were cut."""
    walks = []
    with walking(None, walks.append):
        loss(*args, **kwargs).sum().backward()
    return len(walks)


# ---------------------------------------------------------------------------- the choice


def test_an_ordinary_call_is_walked(x, y):
    assert obstacle(x) is None
    assert _walks(cross_entropy, x, y) == 1
    assert _walks(CrossEntropyLoss(), x, y) == 1


def test_a_parameter_is_ordinary(x, y):
    assert _walks(cross_entropy, torch.nn.Parameter(x.detach()), y) == 1


class _Dispatched(torch.Tensor):
    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return super().__torch_dispatch__(function, types, args, kwargs)


def test_a_class_that_only_adds_to_torchs_is_ordinary(x):
    tagged = type("Tagged", (torch.Tensor,), {})
    assert obstacle(x.detach().as_subclass(tagged), (torch.zeros(6).as_subclass(tagged),)) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda x: x[:0], "nothing to evaluate"),
        (lambda x: x.to("meta"), "ordinary"),
        (lambda x: x.detach().as_subclass(_Dispatched), "ordinary"),
    ],
    ids=["nothing", "without values", "of another class"],
)
def test_what_is_not_ordinary_is_not_walked(x, change, why):
    assert why in obstacle(change(x))


def test_a_side_of_another_class_is_not_walked(x):
    assert "ordinary" in obstacle(x, (torch.zeros(6).as_subclass(_Dispatched),))


def test_inside_a_transform_nothing_is_walked(x):
    seen = []

    def look(t):
        seen.append(obstacle(t))
        return t.sum()

    torch.func.grad(look)(torch.ones(3))
    torch.func.vmap(look)(torch.ones(2, 3))
    assert all("torch.func" in why for why in seen)
    assert len(seen) == 2
    assert obstacle(x) is None


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, at first use
def test_with_a_forward_tangent_nothing_is_walked(x):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.detach(), torch.ones_like(x))
        assert "tangent" in obstacle(dual)


def test_where_another_tensor_asks_for_a_gradient_nothing_is_walked(x):
    other = torch.zeros(3, requires_grad=True)
    assert "another tensor" in obstacle(x, (None, other))
    assert "another tensor" in obstacle(x, ((1.0, other),))
    with torch.no_grad():
        assert obstacle(x, (None, other)) is None


def test_the_same_tensor_twice_gets_both_gradients(x):
    p = torch.sigmoid(x.detach()).requires_grad_()
    want = torch.autograd.grad(binary_cross_entropy(p, p.detach()), p)[0]
    want = want + torch.autograd.grad(binary_cross_entropy(p.detach(), p), p)[0]
    (got,) = torch.autograd.grad(binary_cross_entropy(p, p), p)
    torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-17)


# ---------------------------------------------------------------------------- the switch


def test_the_switch_as_a_context_holds_inside_and_no_longer(x, y):
    with engine("plain"):
        assert _walks(cross_entropy, x, y) == 0
        with engine("auto"):
            assert _walks(cross_entropy, x, y) == 1
        assert _walks(cross_entropy, x, y) == 0
    assert _walks(cross_entropy, x, y) == 1


def test_the_switch_as_a_call_holds_until_the_next(x, y):
    try:
        engine("plain")
        assert _walks(cross_entropy, x, y) == 0
    finally:
        engine("auto")
    assert _walks(cross_entropy, x, y) == 1


def test_the_switch_comes_back_after_an_error(x, y):
    with pytest.raises(ZeroDivisionError), engine("plain"):
        raise ZeroDivisionError
    assert _walks(cross_entropy, x, y) == 1


def test_the_switch_belongs_to_one_thread(x, y):
    found = []
    with engine("plain"):
        thread = threading.Thread(target=lambda: found.append(_walks(cross_entropy, x, y)))
        thread.start()
        thread.join()
    assert found == [1]


def test_backward_follows_the_way_of_its_forward(x, y):
    with whole() as walked:
        loss = cross_entropy(x, y, z_loss=0.1)
        with engine("plain"):
            loss.backward()
    assert len(walked.walks) == 2


def test_an_unknown_mode_is_refused_and_changes_nothing(x, y):
    with pytest.raises(ValueError, match=r"mode: got 'fast', wanted 'auto' or 'plain'"):
        engine("fast")
    assert _walks(cross_entropy, x, y) == 1


def test_both_ways_give_the_same(x, y):
    with engine("plain"):
        want = cross_entropy(x, y, label_smoothing=0.1)
        (want_grad,) = torch.autograd.grad(want, x)
    got = cross_entropy(x, y, label_smoothing=0.1)
    (grad,) = torch.autograd.grad(got, x)
    torch.testing.assert_close(got, want, rtol=1e-14, atol=0)
    torch.testing.assert_close(grad, want_grad, rtol=1e-13, atol=1e-16)


# ----------------------------------------------------------------------- what it says of itself


def test_it_says_which_way_a_call_takes_and_what_speaks_against_the_others(x, y):
    (usual,) = engine.explain(cross_entropy, x, y)
    assert (usual.way, usual.blocks, usual.compiled) == ("walk", 1, "traced")
    assert str(usual) == (
        "(6, 5) torch.float64 on cpu: walk in 1 block; traced inside torch.compile"
    )
    weight = torch.rand(5, dtype=torch.float64, requires_grad=True)
    (asked,) = engine.explain(cross_entropy, x, y, weight=weight)
    assert (asked.way, asked.compiled) == ("plain", "plain")
    assert "another tensor than the prediction asks for a gradient" in str(asked)
    with engine("plain"):
        (switched,) = engine.explain(CrossEntropyLoss(), x, y)
    assert "engine('plain') is set" in str(switched)


def test_a_large_prediction_is_walked_in_as_many_blocks_as_it_says():
    x, y = torch.zeros(300, 4096), torch.zeros(300, dtype=torch.int64)
    (said,) = engine.explain(cross_entropy, x, y)
    with whole() as walked:
        cross_entropy(x, y)
    assert said.blocks == len(walked.walks[0]) > 1
    there = x.to("meta"), y.to("meta")  # any other device takes a prediction whole
    (said,) = engine.explain(cross_entropy, *there)
    assert said.blocks == 1
