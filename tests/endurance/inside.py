"""What one process endures: many steps, many threads, children by fork."""

import gc
import multiprocessing
import os
import random
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from aptt.audit import SPECS
from aptt.audit.spec import Trial
from aptt.compose import CombinedLoss, Ramp, Uncertainty
from aptt.loss import cross_entropy, dice_loss, engine, focal_loss

SIZES = (1, 2, 7, 11, 17)
Watch = Callable[[float], None]


def _calls() -> list[tuple[Trial, int]]:
    """Every case of every row, at a size of its own."""
    trials = [trial for spec in SPECS.values() for trial in spec.trials()]
    return [(trial, SIZES[i % len(SIZES)]) for i, trial in enumerate(trials)]


def _differentiated(trial: Trial, n: int, seed: int = 0) -> list[torch.Tensor]:
    """The value of a call, and the gradient of its prediction."""
    inputs = trial.inputs(n, dtype=torch.float32, seed=seed)
    name = next(iter(inputs))
    inputs[name].requires_grad_()
    loss = trial.loss(inputs)
    (grad,) = torch.autograd.grad(loss.sum(), inputs[name])
    return [loss.detach(), grad]


def _memory() -> tuple[float, int]:
    """Resident MiB, and the objects that Python keeps."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20, len(gc.get_objects())


def _criterion() -> CombinedLoss:
    return CombinedLoss(
        {"ce": cross_entropy, "focal": focal_loss, "dice": dice_loss},
        {"focal": Ramp(0.0, 1.0, over=100)},
        {"ce": ("a", "y"), "focal": ("a", "y"), "dice": ("a", "y")},
        balance=Uncertainty(),
    )


def _training(steps: int) -> Iterator[int]:
    """A sum of losses with a balancer, and by turns every case of every loss; ragged batches."""
    torch.manual_seed(0)
    model, criterion = torch.nn.Conv2d(3, 4, 1), _criterion()
    parameters = [*model.parameters(), *criterion.parameters()]
    optimizer, calls = torch.optim.Adam(parameters, 1e-3), _calls()
    for step in range(steps):
        n = SIZES[step % len(SIZES)]
        y = torch.randint(4, (n, 5, 5))
        loss = criterion(a=model(torch.randn(n, 3, 5, 5)), y=y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        criterion.step()
        if step % 50 == 0:
            criterion.log()
        trial, _ = calls[step % len(calls)]
        _differentiated(trial, n, seed=step)
        yield step


def steps(count: int, watch: Watch) -> str:
    """A training of so many steps needs no more memory at its end than in its middle."""
    marks, seen = [count // 2, count * 3 // 4, count], []
    for step in _training(count):
        watch((step + 1) / count)
        if step + 1 in marks:
            seen.append(_memory())
    (start, before), *_, (end, after) = seen
    assert end - start < 8, f"resident memory went from {start:.0f} to {end:.0f} MiB: {seen}"
    assert abs(after - before) < 200, f"Python's objects went from {before} to {after}: {seen}"
    return (
        f"{count:,} steps, of {len(_calls())} cases too: {start:.0f} MiB and {before:,} objects "
        f"at half time, {end:.0f} MiB and {after:,} at the end"
    )


def threads(count: int, watch: Watch) -> str:
    """Losses called in so many threads at once, each by its own engine, are what they are alone."""
    calls = _calls()
    alone = {mode: _by(mode, calls) for mode in ("auto", "plain")}

    def one(k: int) -> None:
        mode = ("auto", "plain")[k % 2]
        order = random.Random(k).sample(range(len(calls)), len(calls))
        for i, got in zip(order, _by(mode, [calls[i] for i in order]), strict=True):
            for a, b in zip(got, alone[mode][i], strict=True):
                assert torch.equal(a.nan_to_num(), b.nan_to_num()), f"{calls[i][0]}: {a}, {b}"

    with ThreadPoolExecutor(count) as pool:
        for done, _ in enumerate(pool.map(one, range(count)), 1):
            watch(done / count)
    return f"{len(calls)} cases in {count} threads at once, half of them plain: the same bits"


def _by(mode: str, calls: list[tuple[Trial, int]]) -> list[list[torch.Tensor]]:
    with engine(mode):  # type: ignore[arg-type]
        return [_differentiated(*call) for call in calls]


def backward(count: int, watch: Watch) -> str:
    """Graphs made in one thread are differentiated in so many others, at once."""
    torch.manual_seed(0)
    logits, target = torch.randn(64, 10, requires_grad=True), torch.randint(10, (64,))
    losses = [cross_entropy(logits, target), focal_loss(logits, target)] * count
    whole = torch.autograd.grad(sum(losses), logits, retain_graph=True)[0]

    def one(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, logits, retain_graph=True)[0]

    with ThreadPoolExecutor(count) as pool:
        each = list(pool.map(one, losses))
    watch(1.0)
    torch.testing.assert_close(torch.stack(each).sum(0), whole)
    return f"{len(losses)} graphs over one tensor, by {count} threads at once: the same gradient"


def forks(count: int, watch: Watch) -> str:
    """Children by fork, such as the workers of a DataLoader, compute what their parent does."""
    calls = _calls()[:: max(1, len(_calls()) // 60)]
    alone = [_differentiated(*call) for call in calls]
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_child, args=(calls, alone)) for _ in range(count)]
    for child in children:
        child.start()
    for done, child in enumerate(children, 1):
        child.join(300)
        watch(done / count)
        assert child.exitcode == 0, f"a forked child ended with {child.exitcode}"
    return f"{len(calls)} cases in {count} children by fork: the same bits"


def _child(calls: list[tuple[Trial, int]], alone: list[list[torch.Tensor]]) -> None:
    torch.set_num_threads(1)
    same = all(
        torch.equal(a.nan_to_num(), b.nan_to_num())
        for call, before in zip(calls, alone, strict=True)
        for a, b in zip(_differentiated(*call), before, strict=True)
    )
    os._exit(0 if same else 1)
