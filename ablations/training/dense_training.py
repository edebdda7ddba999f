"""The whole measurement of a dense task: train a network, or resume its training, and score it once."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ablations.data.annotations import DenseData
from ablations.model.checkpoint import save_weights
from ablations.training.accuracy import Files, Progress, train_model
from ablations.training.dense_images import save_examples
from ablations.training.distributed import ALONE, Ranks


def measure_dense(
    build: Callable[[], nn.Module],
    data: DenseData,
    conditions: Any,
    *,
    ranks: Ranks | None = None,
    workers: int = 0,
    files: Files | None = None,
    deadline: float = float("inf"),
    progress: Progress | None = None,
    description: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds a network, trains it and scores it; returns the record's result, as plain values.

    Keys: the scores of the task's `evaluate`, `n_train_images`, `left_out`, `peak_lr`, `history`, `train_s`,
    `train_img_per_s` and `wait_fraction`. With `files` a training that was stopped or killed resumes from its last
    checkpoint, and images of what was found beside the truth are written, if that is asked for. Raises what
    `train_model` does.
    """
    conditions.check()
    ranks = ranks or ALONE
    data = data.to(conditions.device)
    with train_model(
        build, data, conditions, ranks=ranks, workers=workers, files=files, deadline=deadline, progress=progress
    ) as training:
        scores = training.evaluate()
        if files and files.examples and ranks.is_first:
            save_examples(training.trained, training.task, files.examples)
    if files and files.weights and ranks.is_first:
        save_weights(training.trained, files.weights, description)
    seconds = sum(entry["seconds"] for entry in training.history)
    return scores | {
        "n_train_images": len(data.train),
        "left_out": data.left_out,
        "peak_lr": conditions.peak_lr,
        "history": training.history,
        "train_s": seconds,
        "train_img_per_s": training.step * training.task.images_per_step / seconds,
        "wait_fraction": sum(entry["wait_s"] for entry in training.history) / seconds,
    }
