"""Train one model with one loss, watched, and stoppable without losing what was done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from aptt.recipes.base import Recipe

__all__ = ["Check", "Run", "fit"]

_CHECKS = 10  # times that a run is scored on the way


@dataclass(frozen=True)
class Check:
    """The scores after a number of steps."""

    step: int
    scores: dict[str, float]


@dataclass
class Run:
    """One training run: a model, the loss at each step, and the scores along the way."""

    loss: str
    seed: int
    steps: int
    model: nn.Module
    values: list[float] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether every step was done."""
        return len(self.values) == self.steps

    @property
    def before(self) -> dict[str, float]:
        """The scores of the untrained model."""
        return self.checks[0].scores

    @property
    def after(self) -> dict[str, float]:
        """The scores at the end, or where the run was stopped."""
        return self.checks[-1].scores


def fit(
    recipe: Recipe,
    loss: str,
    *,
    seed: int = 0,
    steps: int | None = None,
    watch: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Train a new model of ``recipe`` with one of its losses.

    The seed fixes the first weights and the order of the data, so that runs with the same seed
    differ in nothing but the loss. ``watch`` is called after every step. Ctrl-C ends the run early
    and keeps it, with ``finished`` false; before the first step there is nothing to keep.
    """
    steps = recipe.steps if steps is None else steps
    generator = torch.Generator().manual_seed(seed)
    with _one_thread(), torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        run = Run(loss, seed, steps, recipe.model())
        criterion = recipe.losses[loss].make(recipe)
        optimizer = torch.optim.AdamW(run.model.parameters(), recipe.learning_rate)
        schedule = recipe.schedule(optimizer, steps)
        start = time.perf_counter()
        _check(recipe, run)
        try:
            for step in range(1, steps + 1):
                value = recipe.step(run.model, criterion, recipe.batch(generator))
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                schedule.step()
                run.values.append(value.item())
                if step % math.ceil(steps / _CHECKS) == 0:
                    _check(recipe, run)
                watch(run)
        except KeyboardInterrupt:
            if not run.values:
                raise
        if run.checks[-1].step != len(run.values):
            _check(recipe, run)
        run.model.eval()
        run.seconds = time.perf_counter() - start
    return run


def _check(recipe: Recipe, run: Run) -> None:
    run.model.eval()
    with torch.no_grad():
        run.checks.append(Check(len(run.values), recipe.evaluate(run.model)))
    run.model.train()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small models gain nothing from more threads, and on a shared machine the threads wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
