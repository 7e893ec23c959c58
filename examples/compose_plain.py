"""Several losses in a plain training loop: a ramp, a log of every term, and an exact resume.

python examples/compose_plain.py
"""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn

from aptt.compose import CombinedLoss, Ramp
from aptt.loss import FocalLoss, GIoULoss


class Detector(nn.Module):
    """Where the one bright square of an image is, and whether it is a large one."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU())
        self.score = nn.Linear(64, 1)
        self.box = nn.Linear(64, 4)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Names that the criterion asks for."""
        features = self.trunk(image)
        corner, size = self.box(features).chunk(2, 1)
        boxes = torch.cat([corner, corner + size.exp()], 1)
        return {"features": features, "pred_cls": self.score(features), "pred_box": boxes}


def batch(step: int, size: int = 32) -> dict[str, Tensor]:
    """Squares of 2 to 7 pixels in images of 16 x 16."""
    generator = torch.Generator().manual_seed(step)
    side = torch.randint(2, 8, (size, 1), generator=generator)
    corner = torch.randint(0, 9, (size, 2), generator=generator)
    boxes = torch.cat([corner, corner + side], 1).float()
    at = torch.arange(16)
    inside = [(at >= boxes[:, i, None]) & (at < boxes[:, i + 2, None]) for i in (0, 1)]
    image = (inside[1].unsqueeze(2) & inside[0].unsqueeze(1)).float()
    return {"image": image, "target_box": boxes, "target_cls": (side > 4).float()}


class Run:
    """A model, its criterion and its optimizer."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Detector()
        self.criterion = CombinedLoss(
            {"cls": FocalLoss(alpha=0.25, gamma=2.0), "box": GIoULoss()},
            weights={"cls": 1.0, "box": Ramp(0.5, 5.0, over=10)},
            inputs={"cls": ("pred_cls", "target_cls"), "box": ("pred_box", "target_box")},
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 3e-3)
        self.parts = (self.model, self.criterion, self.optimizer)

    def train(self, epochs: range, steps: int = 20) -> list[dict[str, float]]:
        """Train, and return the log of each epoch."""
        logs = []
        for epoch in epochs:
            for step in range(steps):
                data = batch(epoch * steps + step)
                out = self.model(data["image"])
                loss = self.criterion(out, data)
                if step == 0:  # before backward, which frees the graph
                    print(self.criterion.grad_report(out, data, at=out["features"]))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
            logs.append(self.criterion.log("train/"))  # the one place that waits for the device
            self.criterion.step()  # the ramp counts epochs
        return logs

    def save(self) -> bytes:
        """Everything that a resumed run needs."""
        file = io.BytesIO()
        torch.save([part.state_dict() for part in self.parts], file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        """Go on from there."""
        states = torch.load(io.BytesIO(saved), weights_only=True)
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def main(epochs: int = 12) -> list[dict[str, float]]:
    """Stop half way, in the middle of the ramp, and go on in a new run."""
    first, second = Run(), Run()
    print(first.criterion)
    logs = first.train(range(epochs // 2))
    second.load(first.save())
    logs += second.train(range(epochs // 2, epochs))
    for log in logs:
        print({name: round(value, 3) for name, value in log.items()})
    return logs


if __name__ == "__main__":
    main()
