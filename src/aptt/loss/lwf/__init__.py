"""Learning without forgetting: on a new task's images, the old heads keep saying what they said."""

from __future__ import annotations

from aptt.loss.lwf.loss import LwFLoss, lwf_loss, lwf_terms

__all__ = ["LwFLoss", "lwf_loss", "lwf_terms"]
