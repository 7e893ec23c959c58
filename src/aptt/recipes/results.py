"""What the runs of one recipe say, and what they do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from aptt.recipes.base import Recipe
from aptt.recipes.training import Run, fit

__all__ = ["Study"]


@dataclass
class Study:
    """The runs of one recipe."""

    recipe: Recipe
    runs: list[Run] = field(default_factory=list)

    def train(
        self,
        losses: Sequence[str],
        seeds: Sequence[int],
        steps: int | None,
        watch: Callable[[Run], None],
    ) -> None:
        """Add a run for each loss with each seed; Ctrl-C keeps the run that it ends, then stops."""
        for seed in seeds:
            for loss in losses:
                run = fit(self.recipe, loss, seed=seed, steps=steps, watch=watch)
                self.runs.append(run)
                if not run.finished:
                    raise KeyboardInterrupt

    @property
    def losses(self) -> list[str]:
        """The losses that were trained with, in order."""
        return list(dict.fromkeys(run.loss for run in self.runs))

    @property
    def seeds(self) -> list[int]:
        """The seeds that were trained with, in order."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    def of(self, loss: str) -> list[Run]:
        """The runs with one loss; one that was stopped counts only if there is no other."""
        runs = [run for run in self.runs if run.loss == loss]
        return [run for run in runs if run.finished] or runs

    def headings(self) -> list[str]:
        """The headings of :meth:`rows`."""
        return ["loss", *self.recipe.scores, "seconds"]

    def rows(self) -> list[list[str]]:
        """For each loss its scores before and after training, and how long a run took."""
        return [self._row(loss, self.of(loss)) for loss in self.losses]

    def notes(self) -> list[str]:
        """How to read the rows, and how far to trust them."""
        notes = [f"{score}, before → after: {text}." for score, text in self.recipe.scores.items()]
        if len(self.seeds) > 1:
            notes.append(
                "Means over the seeds, in brackets the lowest and the highest. With one seed, all "
                "losses start from the same weights and see the same data in the same order."
            )
        for run in self.runs:
            if not run.finished:
                done = f"step {len(run.values)} of {run.steps}"
                notes.append(f"{run.loss}, seed {run.seed}: stopped at {done}.")
        return notes + self.verdict()

    def verdict(self) -> list[str]:
        """How the losses compare in the headline score, with no more certainty than there is."""
        first, *others = self.losses
        if others and len(self.seeds) == 1:
            again = f"aptt compare {self.recipe.name}"
            return [f"From one seed nothing follows about which loss is better; try: `{again}`"]
        return [self._against(first, other) for other in others]

    def to_json(self) -> dict[str, Any]:
        """Everything but the models."""
        return {
            "recipe": self.recipe.name,
            "verdict": self.verdict(),
            "runs": [
                {
                    "loss": run.loss,
                    "seed": run.seed,
                    "steps": run.steps,
                    "finished": run.finished,
                    "seconds": round(run.seconds, 2),
                    "before": run.before,
                    "after": run.after,
                    "checks": [{"step": c.step, "scores": c.scores} for c in run.checks],
                    "values": [v if math.isfinite(v) else None for v in run.values],
                }
                for run in self.runs
            ],
        }

    def _row(self, loss: str, runs: Sequence[Run]) -> list[str]:
        changes = [
            f"{mean(run.before[score] for run in runs):.3f} → "
            f"{_spread([run.after[score] for run in runs])}"
            for score in self.recipe.scores
        ]
        return [loss, *changes, f"{mean(run.seconds for run in runs):.1f}"]

    def _against(self, first: str, other: str) -> str:
        """Compare two losses seed by seed, since runs with one seed share weights and data."""
        score = next(iter(self.recipe.scores))
        ends = [
            {run.seed: run.after[score] for run in self.of(loss) if run.finished}
            for loss in (first, other)
        ]
        gains = [ends[1][seed] - ends[0][seed] for seed in ends[0] if seed in ends[1]]
        if len(gains) < 2:
            return f"{other} against {first}: too few finished runs to compare."
        return f"{other} against {first}, {score}: {_reading(gains)}"


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{mean(values):.3f}\n[{min(values):.3f}, {max(values):.3f}]"


def _reading(gains: Sequence[float]) -> str:
    figures = f"{mean(gains):+.3f} on average, from {min(gains):+.3f} to {max(gains):+.3f}"
    if min(gains) > 0 or max(gains) < 0:
        word = "higher" if min(gains) > 0 else "lower"
        return f"{figures}; {word} with each of {len(gains)} seeds, on this task and this model."
    return f"{figures}; {len(gains)} seeds do not tell them apart."
