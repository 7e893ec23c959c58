"""The promise that needs several processes: a loss is the same however its batch is split.

One world of processes serves all rows. Every case is evaluated whole, on each rank, and split: over
the ranks, unevenly, one of them empty; over ragged micro-batches, one of them empty; and where
there is nothing at all. What the ranks average to must be the whole.
"""

from __future__ import annotations

import tempfile
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, multiprocessing
from torch import distributed as dist
from torch.multiprocessing.spawn import start_processes

from aptt.audit.figures import about, require, same
from aptt.audit.spec import Spec, Trial
from aptt.parallel import count_mean, global_mean, world_sum

__all__ = ["MICRO_BATCHES", "apart_by_rank", "held_by_rank", "in_a_world", "start"]

MICRO_BATCHES = 3
_SAMPLES = 13


def held_by_rank(world: int, rows: Sequence[str] | None = None) -> dict[str, str]:
    """Check every row in a world of so many processes; what broke, by row, as the ranks say it."""
    found: dict[str, str] = {}
    for rank, (broken, _) in enumerate(_checked(world, rows)):
        for name, what in broken.items():
            found.setdefault(name, f"rank {rank}: {what}")
    return found


def apart_by_rank(world: int, rows: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """How far each row is from the whole at most, by how it was split.

    Of value and gradient, in float64, in shares of the largest element, over every case of the row.
    """
    found: dict[str, dict[str, float]] = {}
    for _, apart in _checked(world, rows):
        for name, ways in apart.items():
            most = found.setdefault(name, {})
            for way, far in ways.items():
                most[way] = max(far, most.get(way, 0.0))
    return found


_Measured = tuple[dict[str, str], dict[str, dict[str, float]]]


def _checked(world: int, rows: Sequence[str] | None) -> list[_Measured]:
    from aptt.audit.specs import SPECS

    names = list(SPECS) if rows is None else list(rows)
    return in_a_world(world, _check_rows, names)


def in_a_world(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Call a function of a module in ``world`` processes of a gloo group; what each returned."""
    with tempfile.TemporaryDirectory() as folder:
        start(_start, (world, folder, function, args), world)
        return [torch.load(Path(folder, str(rank)), weights_only=False) for rank in range(world)]


def start(function: Callable[..., None], args: tuple[Any, ...], processes: int) -> None:
    """Call ``function(i, *args)`` in so many processes, and wait for them.

    They are copies of one that has imported what a loss needs and nothing more; where a system has
    no such copies, each imports it.
    """
    method = "forkserver"
    if method in multiprocessing.get_all_start_methods():
        multiprocessing.get_context(method).set_forkserver_preload(["aptt.audit.specs"])
    else:
        method = "spawn"
    start_processes(function, args, processes, start_method=method)


def _start(
    rank: int, world: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    meet = f"file://{Path(folder, 'store')}"
    wait = timedelta(seconds=120)
    dist.init_process_group("gloo", meet, rank=rank, world_size=world, timeout=wait)
    try:
        torch.save(function(*args), Path(folder, str(rank)))
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _check_rows(names: Sequence[str]) -> _Measured:
    from aptt.audit.specs import SPECS

    broken, apart = {}, {}
    for name in names:
        _APART.clear()
        try:
            _check_row(SPECS[name])
            what = ""
        except Exception as error:
            what = str(error) if isinstance(error, AssertionError) else traceback.format_exc()
        told: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(told, what)  # so that the ranks stay together whatever happens
        if any(told):
            broken[name] = what or "another rank broke it"
        apart[name] = dict(_APART)
    return broken, apart


_APART: dict[str, float] = {}
"""How far a row has been from the whole, by how it was split."""


def _hold(got: Tensor, want: Tensor, what: str, way: str, *, rtol: float) -> None:
    """Hold it to the whole, and note how far it is."""
    if got.shape == want.shape and want.numel():
        most = want.abs().max()
        far = (got - want).abs().max() / torch.where(most == 0, 1.0, most)
        _APART[way] = max(far.item(), _APART.get(way, 0.0))
    same(got, want, f"{way}: {what}", rtol=rtol)


def _check_row(spec: Spec) -> None:
    if "split_invariance" in spec.exempt:  # its own tests say what ranks have to do
        return
    tried = 0
    for trial in spec.trials():
        if "split_invariance" in trial.case.exempt:
            continue
        with about(trial.label):
            if spec.joint and "pool" in spec.defaults():
                _pooled(trial)
            else:
                _counted(trial)
        tried += 1
    require(tried, "no case to check")


def _counted(trial: Trial) -> None:
    """A total over a count: over ranks, over micro-batches, over both, and of nothing."""
    inputs = trial.inputs(_SAMPLES)
    value, grad = trial.gradient(inputs, reduction="mean")
    for part in _shares(uneven=True), _shares(uneven=False):
        _compare(trial, [part], global_mean(), value, grad, "one batch a rank")
    parts = _micro_batches(_shares(uneven=True))
    shared = _counted_ahead(trial, parts)
    _compare(trial, parts, shared, value, grad, f"{MICRO_BATCHES} micro-batches a rank")
    with about("nothing on any rank"):
        nothing = torch.zeros(0, dtype=torch.long)
        none = _taken(trial, nothing)
        empty, slope = trial.gradient(none, reduction=global_mean())
        require(bool(empty.isfinite()), f"the loss of nothing is {empty}")
        require(bool(slope.isfinite().all()), "its gradient is not finite")


def _pooled(trial: Trial) -> None:
    """A ratio of sums, which are added up over the ranks."""
    inputs = trial.inputs(_SAMPLES)
    if trial.options().get("pool", "batch") == "sample":
        return _counted(trial)
    value, grad = trial.gradient(inputs, reduction="mean", pool="batch")
    # a composite has a term beside the ratio that is a total over a count
    reduction = global_mean() if trial.spec.composite else "mean"
    for part in _shares(uneven=True), _shares(uneven=False):
        mine, slope = trial.gradient(_taken(trial, part), reduction=reduction, pool=world_sum)
        mine = _averaged(mine) if trial.spec.composite else mine
        spread = _averaged(_spread(trial, [(part, slope)]))
        _hold(mine, value, "value", "sums pooled over ranks", rtol=1e-10)
        _hold(spread, grad, "gradient", "sums pooled over ranks", rtol=1e-8)
    return None


def _compare(
    trial: Trial,
    parts: Sequence[Tensor],
    reduction: Any,
    value: Tensor,
    grad: Tensor,
    way: str,
) -> None:
    found = [trial.gradient(_taken(trial, part), reduction=reduction) for part in parts]
    total = sum((v for v, _ in found), torch.zeros_like(value))
    _hold(_averaged(total), value, "value", way, rtol=1e-10)
    slopes = _spread(trial, [(p, g) for p, (_, g) in zip(parts, found, strict=True)])
    _hold(_averaged(slopes), grad, "gradient", way, rtol=1e-8)


def _counted_ahead(trial: Trial, parts: Sequence[Tensor]) -> Any:
    """A mean over what all micro-batches of all ranks count, term by term."""
    sums: defaultdict[str, float] = defaultdict(float)

    def record(total: Tensor, count: Tensor, *, term: str) -> Tensor:
        sums[term] += float(count)
        return total * 0

    for part in parts:
        trial.loss(_taken(trial, part), reduction=record)
    told: list[dict[str, float]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(told, dict(sums))
    terms = {term for counts in told for term in counts}
    counts = {term: sum(counts.get(term, 0.0) for counts in told) for term in terms}
    return count_mean(counts, grad_average=dist.get_world_size())


def _shares(*, uneven: bool) -> Tensor:
    """The samples of this rank; unevenly, the last of several has none."""
    rank, world = dist.get_rank(), dist.get_world_size()
    some = torch.arange(_SAMPLES)
    if not uneven:
        return some[rank::world]
    if world == 1:
        return some
    if rank == world - 1:
        return some[:0]
    edges = [0, *(_SAMPLES * (i * i + 1) // ((world - 1) ** 2 + 1) for i in range(1, world))]
    return some[edges[rank] : edges[rank + 1]]


def _micro_batches(share: Tensor) -> list[Tensor]:
    """Ragged parts of a share, one of them empty."""
    first = len(share) // 4
    return [share[:first], share[first:first], share[first:]][:MICRO_BATCHES]


def _taken(trial: Trial, part: Tensor) -> dict[str, Tensor]:
    return trial.take(trial.inputs(_SAMPLES), part)


def _spread(trial: Trial, parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Gradients of some samples in the places of all."""
    inputs = trial.inputs(_SAMPLES)
    whole = torch.zeros_like(inputs[trial.prediction(inputs)])
    for part, grad in parts:
        whole.index_add_(trial.case.axis, part, grad)
    return whole


def _averaged(t: Tensor) -> Tensor:
    """What DDP makes of it."""
    t = t.detach().clone()
    dist.all_reduce(t)
    return t / dist.get_world_size()
