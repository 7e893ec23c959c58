"""The sea's temperature a year ahead, with how sure the forecast is: quantiles and CRPS."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from statsmodels.datasets import elnino
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from aptt.loss import gaussian_crps_loss, gaussian_nll_loss, mse_loss, quantile_loss
from aptt.recipes.base import Choice, Gallery, Loss, Picture, Recipe, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Forecast"]

_SEEN, _AHEAD = 24, 12  # months
_TRAINED_UNTIL = 1990
_BATCH = 64
_LEVELS = (0.1, 0.5, 0.9)
_NORMAL = 1.2815515655446004  # the 0.9 quantile of a normal distribution
_SHOWN = (1996.0, 2006.0)  # the years in which a forecast in the picture starts


class Months(nn.Module):
    """From two years and the time of the year to the quantiles of each month of the next."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(_SEEN + 2, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3 * _AHEAD)
        )

    def forward(self, seen: Tensor) -> Tensor:
        """The quantiles 0.1, 0.5 and 0.9, in this order whatever the weights are."""
        middle, below, above = self.layers(seen).view(-1, _AHEAD, 3).unbind(-1)
        return torch.stack((middle - F.softplus(below), middle, middle + F.softplus(above)), -1)


def _normal(loss: Callable[..., Tensor]) -> Callable[[object], Loss]:
    """A loss of a normal distribution, whose width is that between the quantiles."""

    def of_quantiles(quantiles: Tensor, target: Tensor) -> Tensor:
        low, middle, high = quantiles.unbind(-1)
        return loss(middle, target, 2 * ((high - low) / (2 * _NORMAL)).log())

    return lambda _: of_quantiles


class Forecast(Recipe):
    """The surface of the Pacific off Peru, month by month, where El Niño warms it."""

    name = "forecast"
    title = "A year of the sea, and how sure"
    story = (
        "Sixty years of the monthly temperature of the sea off Peru, of which every few years are "
        "El Niño's. From two years a small model says the next twelve months: a middle, and an "
        f"interval that shall hold the truth in 8 of 10 cases. It learns from the years to "
        f"{_TRAINED_UNTIL - 1}, and is asked about those after. What is said is the difference "
        "from the usual temperature of the month."
    )
    scores = {
        "skill": "how much smaller the quantile loss is than with the quantiles that each month "
        "had in the years of training; 0 is no better than those",
        "calibration": "1 less the distance of the share of truths inside the interval from 0.8",
        "inside": "that share",
    }
    losses = {
        "quantiles": Choice(
            about="Each quantile by its own price of too much and too little.",
            functions=("quantile_loss",),
            make=lambda _: lambda q, target: quantile_loss(q, target, quantiles=_LEVELS),
        ),
        "normal, CRPS": Choice(
            about="A normal distribution by its distance from the truth: as wide as it errs.",
            functions=("gaussian_crps_loss",),
            make=_normal(gaussian_crps_loss),
        ),
        "normal, likelihood": Choice(
            about="A normal distribution by its likelihood: a surprise costs its square.",
            functions=("gaussian_nll_loss",),
            make=_normal(gaussian_nll_loss),
        ),
        "squared error": Choice(
            about="The middle alone; nothing tells the interval how wide to be.",
            functions=("mse_loss",),
            make=lambda _: lambda q, target: mse_loss(q[..., 1], target),
        ),
    }
    sources = (
        Source(
            name="Sea surface temperatures (ERSST.V3B, Nino 1+2), NOAA National Weather Service",
            package="statsmodels",
            terms="public domain",
        ),
    )
    steps = 200
    learning_rate = 3e-3

    def __init__(self) -> None:
        table = torch.from_numpy(elnino.load_pandas().data.to_numpy())
        years, degrees = table[:, 0], table[:, 1:]
        learnt = years < _TRAINED_UNTIL
        usual = degrees[learnt].mean(0)
        self.degree = (degrees[learnt] - usual).std().item()
        """How many degrees Celsius a unit of the forecasts is."""
        values = ((degrees - usual) / self.degree).flatten().float()
        month = torch.arange(len(values)) % 12
        season = torch.stack([f(month * math.tau / 12) for f in (torch.sin, torch.cos)], -1)
        windows = values.unfold(0, _SEEN + _AHEAD, 1)
        start = years[0] + torch.arange(len(windows)) / 12 + _SEEN / 12
        inputs = torch.cat((windows[:, :_SEEN], season[_SEEN : _SEEN + len(windows)]), -1)
        train = start + _AHEAD / 12 <= _TRAINED_UNTIL
        test = start >= _TRAINED_UNTIL
        self.inputs, self.targets = inputs[train], windows[train, _SEEN:]
        self.test_inputs, self.test_targets = inputs[test], windows[test, _SEEN:]
        self.test_starts = start[test]
        levels = torch.tensor(_LEVELS)
        by_month = values[: int(learnt.sum()) * 12].view(-1, 12).quantile(levels, 0).mT
        ahead = (month[_SEEN : _SEEN + len(windows)][test, None] + torch.arange(_AHEAD)) % 12
        self.climate = by_month[ahead]

    def model(self) -> Months:
        """A small network that knows two years and the season."""
        return Months()

    def batch(self, generator: Generator) -> tuple[Tensor, ...]:
        """Windows of three years: two that are seen, and the one that follows."""
        rows = torch.randint(len(self.inputs), (_BATCH,), generator=generator)
        return self.inputs[rows], self.targets[rows]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """How good the quantiles are, and how many truths lie between the outer two."""
        quantiles = model(self.test_inputs)
        low, _, high = quantiles.unbind(-1)
        inside = (low <= self.test_targets) & (self.test_targets <= high)
        share = inside.double().mean().item()
        ours, theirs = (
            quantile_loss(q, self.test_targets, quantiles=_LEVELS).item()
            for q in (quantiles, self.climate)
        )
        return {
            "skill": 1 - ours / theirs,
            "calibration": 1 - abs(share - 0.8),
            "inside": share,
        }

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """For each loss two forecasts: of an El Niño, and of a year without."""
        return [
            Gallery(
                title="A year ahead",
                caption="Degrees Celsius from the usual temperature of each month. Grey: the two "
                "years that the model saw, and what came. Blue: its forecast, with the interval "
                "that shall hold 8 of 10.",
                size=(6.4, 2.4),
                pictures=[self._fans(name, model) for name, model in models.items()],
            )
        ]

    def _fans(self, loss: str, model: nn.Module) -> Picture:
        rows = [int((self.test_starts - year).abs().argmin()) for year in _SHOWN]
        with torch.no_grad():
            forecasts = self.degree * model(self.test_inputs[rows])
        truth = self.degree * torch.cat((self.test_inputs, self.test_targets), -1)[rows]
        truth = torch.cat((truth[:, :_SEEN], truth[:, _SEEN + 2 :]), -1)
        inside = (forecasts[..., 0] <= truth[:, _SEEN:]) & (truth[:, _SEEN:] <= forecasts[..., 2])

        def draw(axes: Axes) -> None:
            for at, (row, forecast) in enumerate(zip(truth, forecasts, strict=True)):
                left = at * (_SEEN + _AHEAD + 6)
                months = left + torch.arange(_SEEN + _AHEAD)
                ahead = months[_SEEN:]
                axes.plot(months.numpy(), row.numpy(), color="0.5", linewidth=1)
                low, middle, high = (q.numpy() for q in forecast.unbind(-1))
                axes.fill_between(ahead.numpy(), low, high, color="C0", alpha=0.25, linewidth=0)
                axes.plot(ahead.numpy(), middle, color="C0", linewidth=1.5)
            axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
            axes.set_xticks(
                [at * (_SEEN + _AHEAD + 6) + _SEEN for at in range(len(_SHOWN))],
                [f"from {year:.0f}" for year in _SHOWN],
            )
            axes.set_ylabel("degrees")
            axes.spines[["top", "right"]].set_visible(False)

        said = " and ".join(
            f"{int(held.sum())} of {_AHEAD} months from {year:.0f}"
            for held, year in zip(inside, _SHOWN, strict=True)
        )
        return Picture(loss, f"Two forecasts with {loss}; the interval holds {said}.", draw)
