"""Rows of the losses between images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from aptt.audit.spec import Case, Inputs, Maker, Options, Refused, Spec, case
from aptt.audit.specs.making import NOTHING_FROZEN, normal, uniform
from aptt.loss import MSSSIMLoss, SSIMLoss, ms_ssim_loss, ssim_loss

__all__ = ["IMAGES"]


def _images(*shape: int) -> Maker:
    def made(g: Generator, n: int) -> Inputs:
        target = uniform(g, n, *shape)
        return {"prediction": target + normal(g, n, *shape, scale=0.3), "target": target}

    return made


def _of_all_levels(*shape: int) -> Callable[[], Inputs]:
    """Noisy, equal, flat, bright, opposite."""

    def made() -> Inputs:
        g = torch.Generator().manual_seed(13)
        target, noise = uniform(g, 4, *shape), normal(g, 4, *shape)
        flat = torch.ones_like(target)
        pairs = [(target * s + noise * s, target * s) for s in (1e-8, 1e-3, 1.0, 255.0, 6e4)]
        pairs += [
            (target, target),
            (flat, 0 * flat),
            (0 * flat, flat),
            (254.7 * flat, 254.7 * flat),
        ]
        pairs += [(1 - target, target), (-100 * target, target), (4e4 * flat + target, 4e4 * flat)]
        return {
            "prediction": torch.cat([x for x, _ in pairs]),
            "target": torch.cat([t for _, t in pairs]),
        }

    return made


def _row(
    function: Callable[..., Tensor],
    module: Callable[..., nn.Module],
    cases: dict[str, Case],
    refused: tuple[Refused, ...] = (),
) -> Spec:
    return Spec(
        name=function.__name__,
        function=function,
        module=module,
        inputs=_images(2, 7, 6),
        cases=cases,
        joint=True,
        hide=_hide,
        count=_each,
        perfect=lambda i, o: ({**i, "prediction": i["target"]}, 0.0),
        hopeless=lambda i, o: {**i, "prediction": 1 - i["target"]},
        extremes=_of_all_levels(2, 7, 6),
        refused=(
            Refused("no range", "data_range", {"data_range": 0.0}),
            Refused("half a tap", "window_size", {"window_size": 2.5}),
            Refused("a window beyond the image", "prediction", {"window_size": 12}),
            Refused("no width", "sigma", {"sigma": 0.0}),
            Refused("no constant", "k1", {"k1": 0.0}),
            Refused("a negative one", "k2", {"k2": -1.0}),
            *refused,
        ),
        exempt={
            **NOTHING_FROZEN,
            "scale_invariance": "the range of the data is a length in their unit",
        },
    )


def _each(inputs: Inputs, options: Options) -> Tensor | float:
    return inputs["weight"].sum() if "weight" in inputs else len(inputs["prediction"])


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    weight = inputs.get("weight", torch.ones_like(inputs["target"][:, 0, 0, 0]))
    return {**inputs, "weight": weight.masked_fill(~keep.flatten(1).any(1), 0)}


def _weighed(make: Maker) -> Maker:
    def made(g: Generator, n: int) -> Inputs:
        return {**make(g, n), "weight": uniform(g, n, low=0.1, high=2.0)}

    return made


IMAGES = (
    _row(
        ssim_loss,
        SSIMLoss,
        {
            "pictures": case(data_range=1.0, window_size=3),
            "volumes": case(
                _weighed(_images(1, 4, 4, 5)),
                extremes=_of_all_levels(1, 4, 4, 5),
                data_range=2.0,
                window_size=4,
                sigma=0.8,
                k1=0.02,
                k2=0.1,
                reduction="sum",
            ),
        },
    ),
    _row(
        ms_ssim_loss,
        MSSSIMLoss,
        {
            "two scales": case(
                _weighed(_images(2, 7, 6)),
                data_range=2.0,
                window_size=3,
                sigma=0.8,
                k1=0.02,
                k2=0.1,
                scale_weight=(0.3, 0.7),
                reduction="sum",
            )
        },
        (Refused("a negative power", "scale_weight", {"scale_weight": (1.0, -0.5)}),),
    ),
)
