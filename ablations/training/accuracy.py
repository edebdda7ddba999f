"""The whole measurement of accuracy: train a model from scratch, or resume its training, and evaluate it once."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ablations.data.loading import load_data, load_eval_images
from ablations.data.splits import Data, StreamingData
from ablations.measure import Accuracy
from ablations.measure.measurement import Setting
from ablations.records.bits import pack_bits
from ablations.training.classification import evaluate
from ablations.training.loop import Diverged
from ablations.training.train import train_model


def measure_accuracy(
    build: Callable[[], nn.Module],
    conditions: Accuracy,
    setting: Setting,
    description: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds a model, trains it from scratch and evaluates it; returns the record's result, as plain values.

    `build` is called once and draws its weights from torch's generator, seeded with the conditions' seed. Keys:
    `top1` (a fraction), `top1_by_resolution` (the same at each of `eval_resolutions`, by the side as text), `correct`
    (which validation images were right, as `pack_bits` writes it), `eval_loss`, `n_eval_images`, `largest_class_share`
    (of the validation images), `n_train_images`, `skipped` (images that could not be read), and those of
    `Training.summary`. Raises what `load_data` and `train_model` do, and InputError for a model of other classes.
    """
    conditions.check()
    data = load_data(conditions, setting.data_dir).to(conditions.device)
    with train_model(build, data, conditions, setting, description) as training:
        scores = training.evaluate()
        elsewhere = {
            str(side): evaluate(
                training.trained,
                at_resolution(data, conditions, side, setting.data_dir),
                _at_side(conditions, side),
                ranks=training.ranks,
                workers=training.workers,
            )["top1"]
            for side in conditions.eval_resolutions
        }
        if not math.isfinite(scores["loss"]):
            last = training.history[-1]
            raise Diverged(training.step, last["lr"], scores["loss"], last["grad_norm"])
    return {
        "top1": scores["top1"],
        "eval_loss": scores["loss"],
        "top1_by_resolution": elsewhere,
        "correct": pack_bits(scores["correct"].tolist()),
        "n_eval_images": scores["n_images"],
        "largest_class_share": int(data.eval_labels.bincount().max()) / len(data.eval_labels),
        "n_train_images": len(data.train_labels),
        "skipped": list(data.skipped),
        **training.summary(),
    }


def _at_side(conditions: Accuracy, side: int) -> Accuracy:
    """Returns the conditions at another resolution, with at most as many pixels in a batch as in training.

    A batch of larger images no longer fits a CPU's cache: at 160 px nano took 49 ms an image in batches of 32, 27 in
    batches of 8 and 29 of 4; and what fitted into a GPU's memory in training fits in validation.
    """
    share = min(1.0, (conditions.resolution / side) ** 2)
    return replace(conditions, resolution=side, batch_size=max(1, int(conditions.batch_size * share)))


def at_resolution(data: Data, conditions: Accuracy, side: int, data_dir: Path | None) -> Data:
    """Returns the data with validation images of another resolution, on the same device."""
    if isinstance(data, StreamingData):
        return data
    images = load_eval_images(replace(conditions, resolution=side), data_dir)
    return replace(data, eval_images=images.to(data.eval_labels.device))
