"""Training from scratch, and the whole measurement: train, then evaluate once."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ablations.design import Accuracy
from ablations.training.batches import mix_seeds, steps_per_epoch, training_batches
from ablations.training.data import ImageData, load_data
from ablations.training.evaluate import evaluate
from ablations.training.recipe import CLIP_NORM, autocast, build_optimizer, build_schedule

Progress = Callable[[int, int, dict[str, Any]], None]
"""Called after each epoch with its number (from 1), how many there are, and its entry in the history."""


class Diverged(RuntimeError):
    """The loss was not finite: at `step` (from 1, over all epochs), with learning rate `lr`."""

    def __init__(self, step: int, lr: float, loss: float) -> None:
        super().__init__(f"the loss is {loss} at step {step}, learning rate {lr:.3g}")
        self.step, self.lr, self.loss = step, lr, loss


def measure_accuracy(
    build: Callable[[], nn.Module], conditions: Accuracy, data_dir: Path | None, progress: Progress | None = None
) -> dict[str, Any]:
    """Builds a model, trains it from scratch and evaluates it; returns the record's result, as plain values.

    `build` is called once and draws its weights from torch's generator, seeded with the conditions' seed. Keys:
    `top1` (a fraction), `eval_loss`, `n_eval_images`, `n_train_images`, `history` as of `train`, `train_s` (the epochs
    without loading and evaluation) and `train_img_per_s`. The caller's random state is left as it was. Raises
    InputError as `load_data` does, and Diverged.
    """
    conditions.check()
    data = load_data(conditions, data_dir).to(conditions.device)
    with torch.random.fork_rng([torch.cuda.current_device()] if conditions.device == "cuda" else []):
        torch.manual_seed(conditions.seed)
        model = build().to(conditions.device)
        model.to(memory_format=torch.channels_last)  # as its maps lie in memory
        history = train(model, data, conditions, progress=progress)
    scores = evaluate(model, data, conditions)
    seconds = sum(epoch["seconds"] for epoch in history)
    batch_size = min(conditions.batch_size, len(data.train_labels))
    seen = conditions.epochs * steps_per_epoch(data, conditions) * batch_size
    return {
        "top1": scores["top1"],
        "eval_loss": scores["loss"],
        "n_eval_images": scores["n_images"],
        "n_train_images": len(data.train_labels),
        "history": history,
        "train_s": seconds,
        "train_img_per_s": seen / seconds,
    }


def train(
    model: nn.Module, data: ImageData, conditions: Accuracy, *, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Trains a model in place by the conditions; model and data are on one device.

    Returns the history, one entry an epoch: `epoch` (from 1), `loss` (the mean of its steps), `lr` (of its last step),
    `seconds`. Seeds torch's own generator, which stochastic depth draws from, anew each epoch from the conditions'
    seed. Nothing waits for the device within an epoch, so a loss that is not finite raises Diverged at its end.
    """
    optimizer = build_optimizer(model, conditions)
    schedule = build_schedule(optimizer, conditions, steps_per_epoch(data, conditions))
    history: list[dict[str, Any]] = []
    step = 0
    for epoch in range(1, conditions.epochs + 1):
        started = time.perf_counter()
        model.train()
        torch.manual_seed(mix_seeds(conditions.seed, epoch, 1))
        losses, rates = [], []
        for images, labels in training_batches(data, conditions, epoch):
            rates.append(optimizer.param_groups[0]["lr"])
            with autocast(conditions):
                loss = F.cross_entropy(model(images), labels, label_smoothing=conditions.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            step += 1
            schedule.step_update(step)
            losses.append(loss.detach())
        values = torch.stack(losses).tolist()
        for index, (value, rate) in enumerate(zip(values, rates, strict=True)):
            if not math.isfinite(value):
                raise Diverged(step - len(values) + index + 1, rate, value)
        metrics = {
            "epoch": epoch,
            "loss": sum(values) / len(values),
            "lr": rates[-1],
            "seconds": time.perf_counter() - started,
        }
        history.append(metrics)
        if progress:
            progress(epoch, conditions.epochs, metrics)
    return history
