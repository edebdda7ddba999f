"""The whole measurement of a dense task: train a network, or resume its training, and score it once."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ablations.data.annotations import DenseData
from ablations.measure.measurement import Setting
from ablations.training.dense_images import save_examples
from ablations.training.train import train_model


def measure_dense(
    build: Callable[[], nn.Module],
    data: DenseData,
    conditions: Any,
    setting: Setting,
    description: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds a network, trains it and scores it; returns the record's result, as plain values.

    Keys: the scores of the task's `evaluate`, `n_train_images`, `left_out`, and those of `Training.summary`. Images of
    what was found beside the truth are written, if the setting's files ask for them. Raises what `train_model` does.
    """
    conditions.check()
    files = setting.files
    with train_model(build, data.to(conditions.device), conditions, setting, description) as training:
        scores = training.evaluate()
        if files and files.examples and training.ranks.is_first:
            save_examples(training.trained, training.task, files.examples)
    return scores | {"n_train_images": len(data.train), "left_out": data.left_out} | training.summary()
