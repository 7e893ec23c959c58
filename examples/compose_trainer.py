"""The same in the Trainer of Hugging Face, exact under accumulation by its count of tokens.

pip install transformers accelerate
python examples/compose_trainer.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from aptt.compose import Ramp, WeightedSum
from aptt.loss import cross_entropy
from aptt.parallel import count_mean


class Objective:
    """Next-token cross-entropy, and a price on large logits that ramps up.

    Sums over the tokens of a micro-batch, divided by the tokens of the whole batch, which the
    Trainer counts over all its micro-batches and devices.
    """

    def __init__(self) -> None:
        self.mix = WeightedSum({"ce": 1.0, "z": Ramp(0.0, 0.01, over=6)})

    def __call__(
        self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """As ``compute_loss_func`` is called."""
        logits, target = outputs.logits[:, :-1], labels[:, 1:]
        kept = target != -100
        count = kept.sum() if num_items_in_batch is None else num_items_in_batch
        shared = count_mean(count)
        ce = cross_entropy(logits, target, class_dim=-1, reduction=shared)
        square = logits.float().logsumexp(-1).square()
        return self.mix({"ce": ce, "z": shared((square * kept).sum(), kept.sum(), term="z")})


class Account(TrainerCallback):
    """Moves the schedules, adds the terms to the Trainer's logs, and saves the state beside it."""

    FILE = "objective.pt"

    def __init__(self, mix: WeightedSum) -> None:
        self.mix = mix
        self.logs: list[dict[str, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Go on where the checkpoint was written."""
        file = Path(args.output_dir) / f"checkpoint-{state.global_step}" / self.FILE
        if state.global_step:
            self.mix.load_state_dict(torch.load(file, weights_only=True))

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The Trainer counts steps itself."""
        self.mix.at_step(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        """Every term, beside the loss. Its mean is over micro-batches, the Trainer adds them up."""
        if logs is not None and "loss" in logs:
            parts = args.gradient_accumulation_steps
            for name, value in self.mix.log("terms/").items():
                rate = name.endswith(("/weight", "/nonfinite", "/zeros"))
                logs[name] = value if rate else parts * value
            self.logs.append(dict(logs))

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Into the checkpoint that has just been written."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        torch.save(self.mix.state_dict(), folder / self.FILE)


def data() -> list[dict[str, Tensor]]:
    """Sequences that count on from a random start, of uneven length under padding."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for length in torch.randint(6, 13, (32,), generator=generator).tolist():
        start = torch.randint(0, 32, (1,), generator=generator)
        ids = (start + torch.arange(12)) % 32
        labels = torch.where(torch.arange(12) < length, ids, -100)
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def make(folder: Path, batch: int = 4, accumulate: int = 2) -> tuple[Trainer, Account]:
    """A tiny model with weights of its own; nothing is downloaded."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=32, n_positions=16, n_embd=32, n_layer=1, n_head=2,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    objective = Objective()
    account = Account(objective.mix)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=8,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_steps=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=arguments,
        train_dataset=data(),
        compute_loss_func=objective,
        callbacks=[account],
    )
    return trainer, account


def main(folder: Path) -> list[dict[str, float]]:
    """Train, then go on from the checkpoint in the middle, in new objects."""
    make(folder)[0].train()
    trainer, account = make(folder)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-4"))
    for log in account.logs:
        print(log)
    return account.logs


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
