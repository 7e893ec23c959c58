"""The pretended accelerator counts what CUDA would do, and refuses what it would refuse."""

import threading

import pytest
import torch
from torch.nn import functional as F

from aptt.audit import PROMISES, SPECS
from aptt.audit.pretend import DEVICE, actual, counting, gradient, missing, register
from aptt.core.engine import engine
from aptt.loss import cross_entropy

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(autouse=True)
def _device():
    register()


def test_a_process_whose_device_is_taken_is_told(monkeypatch):
    monkeypatch.setattr(torch._C, "_get_privateuse1_backend_name", lambda: "npu")
    assert "taken, by 'npu'" in missing()
    asks_little = PROMISES["asks_little_of_the_device"]
    assert "npu" in asks_little.exemption(SPECS["rmse_loss"])  # said, and not passed by skipping
    monkeypatch.delattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend")
    assert "2.13 is needed" in missing()


def there(t):
    return t.to(DEVICE)


def test_its_tensors_live_elsewhere_and_hold_what_the_cpu_computes():
    x = torch.arange(6.0).view(2, 3)
    y = there(x).softmax(1) @ there(x).T
    assert y.device == torch.device(DEVICE, 0)
    assert torch.equal(y.cpu(), x.softmax(1) @ x.T)
    assert torch.zeros(2, 3, device=y.device).shape == (2, 3)
    assert torch.arange(4, device=y.device).shape == torch.eye(4, device=y.device).shape[:1]


N = 1000  # numbers of 4 bytes
COSTS = {
    "a sum of two": (lambda x, i, few: x + x, 1, 8 * N),
    "an expanded tensor counts once": (lambda x, i, few: x[:1].expand(N) * x, 1, 4 + 8 * N),
    "a view": (lambda x, i, few: x.view(10, -1).T[2:], 0, 0),
    "a fill": (lambda x, i, few: torch.zeros_like(x), 1, 4 * N),
    "a gather reads what it fetches": (lambda x, i, few: x.gather(0, i), 1, 10 * (4 + 8 + 4)),
    "a scatter touches what it writes": (lambda x, i, few: x.scatter_add_(0, i, few), 1, 10 * 20),
    "a scatter of a copy": (lambda x, i, few: x.scatter(0, i, few), 2, 8 * N + 10 * 24),
    "a masked fill": (lambda x, i, few: x.masked_fill(x > 0, 0), 3, 5 * N + 13 * N),
    "log-sum-exp is a composite": (lambda x, i, few: x.logsumexp(0), 9, 24 * N + 40),
    "an out is not read": (lambda x, i, few: torch.exp(x, out=torch.empty_like(x)), 1, 8 * N),
}


@pytest.mark.parametrize(("call", "kernels", "moved"), COSTS.values(), ids=COSTS)
def test_kernels_and_bytes_are_counted(call, kernels, moved):
    x, index, few = there(torch.randn(N)), there(torch.arange(10)), there(torch.ones(10))
    with counting() as bill:
        call(x, index, few)
    assert (bill.kernels, bill.moved, bill.waits) == (kernels, moved, [])


WAITS = {
    "item": lambda x: x.sum().item(),
    "a branch": lambda x: bool((x > 0).all()),
    "nonzero": lambda x: x.nonzero(),
    "a mask as an index": lambda x: x[x > 0],
    "to the CPU": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
    "from the CPU": lambda x: torch.ones(2).to(x),
    "a number in a tensor": lambda x: torch.tensor(3.0, device=x.device),
    "numbers in a tensor": lambda x: torch.as_tensor([1, 2], device=x.device),
    "numbers in a tensor like it": lambda x: x.new_tensor([1.0]),
    "repeats of unknown length": lambda x: x.repeat_interleave(torch.ones_like(x).long()),
}
NONE = {
    "full": lambda x: torch.full((), 3.0, device=x.device),
    "a number of the CPU": lambda x: x * torch.tensor(3.0),
    "a copy that nobody waits for": lambda x: torch.ones(2).to(x.device, non_blocking=True),
    "a masked fill": lambda x: x.masked_fill(x > 0, 0.0),
    "one number at a mask": lambda x: x.index_put((x > 0,), x.new_zeros(())),
}


@pytest.mark.parametrize("call", WAITS.values(), ids=WAITS)
def test_the_host_waits(call):
    x = there(torch.randn(5))
    with counting() as bill:
        call(x)
    assert len(bill.waits) == 1


@pytest.mark.parametrize("call", NONE.values(), ids=NONE)
def test_the_host_does_not_wait(call):
    x = there(torch.randn(5))
    with counting() as bill:
        call(x)
    assert bill.waits == []


def test_a_tensor_of_the_cpu_is_refused():
    x = there(torch.randn(5))
    with pytest.raises(RuntimeError, match=r"mul was given a tensor \(5,\) of the CPU"):
        x * torch.ones(5)


class Forgets(torch.autograd.Function):
    threads: list[str] = []  # noqa: RUF012

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, up):
        Forgets.threads.append(threading.current_thread().name)
        return up * torch.full(up.shape, 2.0)


def test_backward_runs_in_another_thread_and_its_faults_come_after_it():
    torch.ones(1, requires_grad=True).sum().backward()  # PyTorch's own threads are there
    x = there(torch.randn(5)).requires_grad_()
    with pytest.raises(RuntimeError, match="in backward: mul was given"), counting():
        (slope,) = gradient(Forgets.apply(x).sum(), x)
    assert torch.equal(actual(slope), torch.full((5,), 2.0))
    assert Forgets.threads[-1] != threading.current_thread().name
    assert torch.full((2,), 1.0).sum() == 2  # and the process lives


def test_what_a_backward_raises_is_raised():
    x = there(torch.randn(5)).requires_grad_()

    class Raises(Forgets):
        @staticmethod
        def backward(ctx, up):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"), counting():
        gradient(Raises.apply(x).sum(), x)


def test_a_loss_goes_the_way_of_an_accelerator():
    x, y = there(torch.randn(600, 1000)), there(torch.randint(1000, (600,)))
    (here,) = engine.explain(cross_entropy, x.cpu(), y.cpu())
    (away,) = engine.explain(cross_entropy, x, y)
    assert (here.way, away.way) == ("walk", "walk")
    assert here.blocks > away.blocks == 1


def test_other_arguments_can_be_put_in_the_place_of_an_operators():
    def doubled(name, args, kwargs):
        return ((2 * args[0], *args[1:]) if name == "exp" else args), kwargs

    with counting(doubled) as bill:
        y = there(torch.ones(3)).exp()
    assert torch.equal(actual(y), torch.full((3,), 2.0).exp())
    assert bill.operators >= {"exp"}


def test_another_loss_counts_as_it_runs_on_cuda():
    x, y = there(torch.randn(64, 100)).requires_grad_(), there(torch.randint(100, (64,)))
    with counting() as bill:
        gradient(F.cross_entropy(x, y), x)
    # log-softmax, NLL; one, its slope (zeros and one number a row), and that of log-softmax
    assert bill.kernels == 6


def test_other_libraries_see_no_accelerator_but_while_it_counts():
    register()
    before = torch.accelerator.is_available()
    with counting():
        assert torch.pretend.is_available()
        assert torch.accelerator.is_available()
    assert not torch.pretend.is_available()
    assert torch.accelerator.is_available() == before
