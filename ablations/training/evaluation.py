"""Evaluation of finished models on a folder of images: top-1, top-5, loss and calibration, at one resolution or more.

Images are read ahead of the model, so the folder may be of any size. Each counts once, and the scores are summed
image by image in their order: they depend neither on the batches nor on the number of workers, but for the rounding of
the model's own products. Letters: B images of a batch, N of the folder, K logits, S the resolution in pixels.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from timm.data import ImageNetInfo
from torch import Tensor, nn

from ablations.config import PUBLISHED_MODELS, PVTConfig, build_config
from ablations.data.folders import open_split, unreadable_images, validation_folder
from ablations.data.images import read_in_order
from ablations.data.listing import listed
from ablations.data.loading import load_data
from ablations.data.protocols import CROPS, build_transform, normalise_bytes
from ablations.errors import InputError, as_text, first_line, pick, refuse
from ablations.measure import Accuracy
from ablations.measure.environment import check_device
from ablations.measure.measurement import Precision
from ablations.paper import load_paper_table
from ablations.training.accuracy import at_resolution
from ablations.training.batches import eval_batches
from ablations.training.recipe import autocast

Progress = Callable[[int, int], None]
"""Called after each batch with the number of images that are done, and of all."""

Classify = Callable[[Tensor], Tensor]
"""From bytes (B, 3, S, S) to logits (B, K), on the model's device."""

CALIBRATION_BINS = 15
"""As in Guo et al., "On Calibration of Modern Neural Networks" (2017)."""

EXPECTED = {
    "PVTv2-B0": 0.70654,
    "PVTv2-B1": 0.78698,
    "PVTv2-B2": 0.82062,
    "PVTv2-B2-Li": 0.82200,
    "PVTv2-B3": 0.83120,
    "PVTv2-B4": 0.83710,
    "PVTv2-B5": 0.83760,
}
"""Top-1 of the released checkpoints, of PUBLISHED_MODELS, on ImageNet's validation images with protocol `timm`, 224 px.

As timm's own evaluation has them.
"""

EXPECTED_AT = 224
"""Pixels a side at which expected accuracies hold."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images of a folder in their order, each with the logit that is its class's."""

    root: Path
    """Where the class folders are."""
    paths: list[str]
    labels: list[int]
    num_classes: int
    """Of the folder; the model may have more."""
    classes: str
    """Which they are, and among how many logits they compete, in words."""
    is_imagenet: bool
    """Whether all of ImageNet's classes are there."""
    complaint: str
    """What of the folder was left out, in words."""


def evaluate_checkpoint(
    model: nn.Module,
    folder: Path,
    *,
    protocol: str,
    resolution: int,
    batch_size: int,
    device: str | torch.device,
    precision: str,
    workers: int,
    class_names: Sequence[str] = (),
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Returns the scores of a classifier, images (B, 3, S, S) to logits (B, K), on the images of a folder.

    Keys: `top1`, `top5` (fractions), `loss` (cross-entropy, the mean), `ece` (see `expected_calibration_error`),
    `n_images` that count, `skipped` (the images that could not be read, by path in the folder of classes),
    `n_classes` of the folder, `classes` (in words, with the logits that they compete with) and `expected_top1` (of the
    released checkpoint of such a model, where the folder has all of ImageNet's classes and one is known, else None).
    `class_names` are those of the logits, where they are known.

    `workers` threads read ahead. Precision `float32` is what torch is set to on CUDA, `bf16` is autocast. The model is
    moved to the device, put into evaluation mode and left so. Raises InputError for a folder as `open_images` does;
    for images that cannot be read, unless `skip_unreadable`; for an unknown or impossible condition. Raises
    FloatingPointError where the model answers with what is no finite number.
    """
    transform = build_transform(protocol, resolution)
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value < 1:
            raise refuse(name, value, "1 or more")
    classify = _prepare(model, device, precision)
    images = open_images(folder, count_logits(classify, resolution), class_names)
    stream = read_in_order(images.paths, transform, workers=workers, ahead=batch_size + 2 * workers)
    with closing(stream):
        scores, skipped = _score_all(classify, images, stream, batch_size, skip_unreadable, progress)
    config = getattr(model, "config", None)
    expected = None
    if images.is_imagenet and isinstance(config, PVTConfig):
        expected = expected_top1(config, protocol, resolution)
    return {
        **mean_scores(scores),
        "skipped": skipped,
        "n_classes": images.num_classes,
        "classes": images.classes,
        "expected_top1": expected,
    }


def _score_all(
    classify: Classify,
    images: Images,
    stream: Iterator[Tensor | str],
    batch_size: int,
    skip_unreadable: bool,
    progress: Progress | None,
) -> tuple[Tensor, list[str]]:
    """Returns the scores (N, 4) of all images that can be read, in main memory, and the others' paths."""
    total = len(images.paths)
    scores = []
    faults: dict[str, str] = {}
    for start in range(0, total, batch_size):
        batch = slice(start, start + batch_size)
        readable, labels = [], []
        for path, label, read in zip(
            images.paths[batch], images.labels[batch], islice(stream, batch_size), strict=True
        ):
            if isinstance(read, Tensor):
                readable.append(read)
                labels.append(label)
            else:
                faults[as_text(Path(path).relative_to(images.root).as_posix())] = read
        # After a fault that ends it the model rests, and the others are read so that all faults are known at once.
        if readable and (skip_unreadable or not faults):
            scores.append(score_images(classify(torch.stack(readable)), torch.tensor(labels)))
        if progress:
            progress(min(start + batch_size, total), total)
    if not scores or (faults and not skip_unreadable):
        raise unreadable_images(faults, total, skipping=skip_unreadable)
    return torch.cat(scores).cpu(), list(faults)


@torch.inference_mode()
def evaluate_built_in(model: nn.Module, conditions: Accuracy, resolution: int, data_dir: Path | None) -> dict[str, Any]:
    """Returns the scores of a classifier on the validation images of a data set that has a reader, at a resolution.

    The conditions are those of its training, so that images are normalised as there, with the batch size, device and
    precision of the evaluation. Keys are those of `evaluate_checkpoint`. Raises InputError as `load_data` does.
    """
    place = check_device(conditions.device)
    data = at_resolution(load_data(conditions, data_dir), conditions, resolution, data_dir).to(place)
    model.to(place)
    model.to(memory_format=torch.channels_last)
    model.eval()
    scores = []
    for images, labels in eval_batches(data, conditions):
        with autocast(conditions):
            logits = model(images)
        scores.append(score_images(logits, labels))
    return {
        **mean_scores(torch.cat(scores).cpu()),
        "skipped": [],
        "n_classes": conditions.num_classes,
        "classes": f"the {conditions.num_classes} classes of {conditions.data}, in order of label",
        "expected_top1": None,
    }


def _prepare(model: nn.Module, device: str | torch.device, precision: str) -> Classify:
    """Moves a model to a device, puts it into evaluation mode and returns how it answers in a precision."""
    place = check_device(device)
    autocast_enabled = pick("precision", precision, get_args(Precision)) == "bf16"
    model.to(place)
    model.to(memory_format=torch.channels_last)
    model.eval()

    @torch.inference_mode()
    def classify(images: Tensor) -> Tensor:
        with torch.autocast(place.type, torch.bfloat16, enabled=autocast_enabled):
            return model(normalise_bytes(images.to(place)))

    return classify


def count_logits(classify: Classify, resolution: int) -> int:
    """Returns K, from a trial with a black image; raises InputError where a model cannot take the resolution."""
    try:
        return classify(torch.zeros(1, 3, resolution, resolution, dtype=torch.uint8)).shape[1]
    except InputError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:  # as models of a fixed size do
        raise InputError(f"resolution={resolution} is not possible for this model: {first_line(error)}") from error


def open_images(folder: Path, num_logits: int, class_names: Sequence[str] = ()) -> Images:
    """Returns the images of `folder/val/CLASS/*`, or where there is no `val` of `folder/CLASS/*`, in order of name.

    The logits of its classes are those of `label_classes`, in words in `classes`. Raises InputError where they cannot
    be told, for a class without images, for a folder that is missing, or has no classes or splits for them.
    """
    root = validation_folder(folder)
    found = open_split(root, "images as val/CLASS/* or CLASS/*")
    logits, how = label_classes(found.classes, num_logits, class_names)
    return Images(
        root=root,
        paths=found.paths,
        labels=[logits[label] for label in found.labels],
        num_classes=len(found.classes),
        classes=how,
        is_imagenet=not class_names and set(found.classes) == set(imagenet_synsets()) and num_logits == len(logits),
        complaint=found.complaint,
    )


def label_classes(classes: Sequence[str], num_logits: int, class_names: Sequence[str] = ()) -> tuple[list[int], str]:
    """Returns the logit of each class of a folder, and in words how it was told.

    Where the logits' `class_names` are known, classes are some of them. Else classes that have ImageNet's names
    (synsets, such as n01440764) have ImageNet's labels beside a model of 1000 logits, and classes whose names are
    numbers of logits, from 0, have their number, even if there are only some of them. Any other classes are numbered
    in their order, which is that of timm's loader, and must be as many as the logits. Raises InputError where they are
    not: all are known names then, or none is.
    """
    count = len(classes)
    if class_names:
        known = {name: label for label, name in enumerate(class_names)}
        if unknown := [name for name in classes if name not in known]:
            raise refuse(
                "classes", listed(unknown), f"some of those that the weights tell apart: {listed(class_names)}"
            )
        how = f"{count} of the weights' {num_logits} classes, by name, among all {num_logits} logits"
        return [known[name] for name in classes], how
    synsets = imagenet_synsets() if num_logits == len(imagenet_synsets()) else {}
    foreign = [name for name in classes if name not in synsets]
    if not foreign:
        how = f"{count} of ImageNet's {num_logits} classes, among all {num_logits} logits"
        return [synsets[name] for name in classes], how
    numbers = [int(name) for name in classes if re.fullmatch("[0-9]{1,9}", name)]
    if count == len(set(numbers)) and max(numbers) < num_logits:
        return numbers, f"{count} classes by their number, among all {num_logits} logits"
    # Among ImageNet's names a foreign one would give those that follow it wrong labels.
    if len(foreign) == count == num_logits:
        order = "of name" if list(classes) == sorted(classes) else "of name as timm sorts, numbers by value"
        return list(range(num_logits)), f"the folder's {count} classes, in order {order}"
    if synsets:
        allowed = f"some of ImageNet's, such as n01440764, or {num_logits} of other names, as the model has logits"
        raise refuse("classes", listed(foreign), allowed)
    raise refuse("classes", listed(classes), f"{num_logits}, as the model has logits, and not {count}")


@cache
def imagenet_synsets() -> dict[str, int]:
    """Returns the label of each of ImageNet's 1000 classes by its synset; the labels are in order of synset."""
    return {name: label for label, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}


def score_images(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns what each image adds to the scores, (B, 4) of float64, from logits (B, K) and labels (B,).

    Columns: whether the label is the first, whether it is one of the first five, the cross-entropy, and the probability
    of the first. Of equal logits, as bf16 has them often, the one with the lower label is the first.
    """
    labels = labels.to(logits.device)
    log_probabilities = logits.double().log_softmax(dim=1)
    ranking = logits.sort(dim=1, descending=True, stable=True).indices
    hits = ranking[:, :5] == labels[:, None]
    loss = F.nll_loss(log_probabilities, labels, reduction="none")
    return torch.stack([hits[:, 0], hits.any(dim=1), loss, log_probabilities.amax(dim=1).exp()], dim=1)


def mean_scores(scores: Tensor) -> dict[str, Any]:
    """Returns `top1`, `top5`, `loss`, `ece` and `n_images` from the scores (N, 4) of all images.

    Raises FloatingPointError for a loss that is not finite.
    """
    count = len(scores)
    first, among_five, loss, confidence = scores.T.contiguous()
    finite = int(loss.isfinite().sum())
    if finite < count:
        raise FloatingPointError(f"the loss of {count - finite} of {count} images is not finite")
    return {
        "top1": int(first.sum()) / count,
        "top5": int(among_five.sum()) / count,
        "loss": float(loss.sum()) / count,
        "ece": expected_calibration_error(confidence, first),
        "n_images": count,
    }


def expected_calibration_error(confidence: Tensor, hits: Tensor) -> float:
    """Returns how far a model's confidence is from its accuracy, 0 to 1; arguments are (N,) of float64.

    Images are put into 15 bins of equal width by confidence, the largest softmax probability; the error is the mean,
    over all images, of the distance between their bin's accuracy and its mean confidence (Guo et al., 2017, eq. 3).
    A bin holds its upper edge.
    """
    edges = torch.arange(1, CALIBRATION_BINS, dtype=torch.float64) / CALIBRATION_BINS
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    gaps.index_add_(0, torch.bucketize(confidence, edges), hits - confidence)
    return float(gaps.abs().sum()) / len(hits)


def expected_top1(config: PVTConfig, protocol: str, resolution: int = EXPECTED_AT) -> float | None:
    """Returns the top-1, a fraction, of a released checkpoint of a config on ImageNet; None where none is known.

    With protocol `timm` from EXPECTED, with `paper` as the paper reports it (Table 2, to 0.1 points). Raises InputError
    for an unknown protocol.
    """
    pick("protocol", protocol, CROPS)
    name = _published_name(config)
    if name is None or resolution != EXPECTED_AT:
        return None
    if protocol == "timm":
        return EXPECTED.get(name)
    percent = load_paper_table("table2_imagenet").set_index("model")["top1"].get(name, math.nan)
    return None if math.isnan(percent) else float(percent) / 100


def _published_name(config: PVTConfig) -> str | None:
    """Returns the published model that a config is, or None where it is another model."""
    without_effect = {name: getattr(config, name) for name in ("attention", "conv_init", "drop_path_rate")}
    if config.position_embedding == "none":
        without_effect["img_size"] = config.img_size
    published = (
        name
        for name, (variant, arm) in PUBLISHED_MODELS.items()
        if replace(build_config(variant, arm, "published"), **without_effect) == config
    )
    return next(published, None)
