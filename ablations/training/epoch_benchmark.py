"""An epoch as this package trains it beside one of timm's, doing the same work, interleaved in one process.

Ours is `Training` on in-memory images. timm's is its loader on a folder of the same images, and the step that its
train.py makes of its parts. Letters: B images of a batch, S the resolution in pixels.
"""

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, islice, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from timm.data import ImageDataset, create_loader
from timm.data.loader import fast_collate
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import dispatch_clip_grad
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image

from ablations.data.augmentation import SMALL
from ablations.data.loading import load_data
from ablations.data.registry import data_directory, is_built_in
from ablations.data.splits import InMemoryData
from ablations.errors import refuse
from ablations.measure import Accuracy
from ablations.measure.environment import check_device
from ablations.measure.interleaved import time_interleaved
from ablations.measure.samples import Ratio, paired_ratio
from ablations.model.compiled import compile_alone
from ablations.training.batches import Batch, training_batches
from ablations.training.loop import Training
from ablations.training.recipe import autocast, build_schedule

ROUNDS = 10
"""Rounds that the timed steps are divided into, where there are enough."""

ENOUGH_S = 20.0
"""Seconds that the steps of one side take about, where their number is not given."""

COMPARED = 3
"""Steps whose losses are compared: from the second on they depend on optimiser, clipping and schedule too."""

TOLERANCE = {"float32": 1e-3, "bf16": 3e-2}
"""Of a loss. Rounding alone makes about 1e-6 in float32 in the first step, and grows with each."""

PATIENCE_S = 60.0
"""How long a batch of timm's loader may take."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The same part of the work on both sides: seconds of each round, taken interleaved."""

    images: int
    """Images of a round."""
    ours: list[float]
    timms: list[float]

    @property
    def relative_speed(self) -> Ratio:
        """How many times as fast ours is."""
        return paired_ratio(self.timms, self.ours)


@dataclass(frozen=True, kw_only=True)
class EpochTimes:
    """What `benchmark_epoch` found."""

    whole: Rounds
    """Steps of an epoch with all that belongs to them."""
    step: Rounds
    """Steps on one batch that is on the device already."""
    images: Rounds
    """Batches, from where they are kept to where the step takes them, and no step."""
    ours_waiting: float
    """Share of the whole that ours waited for images; on CUDA of what the host did, which runs ahead."""
    timms_waiting: float
    """The same of timm's."""
    steps_per_epoch: int
    loss_difference: float
    """The largest between the losses of the first steps on one batch, as a share of timm's."""


def benchmark_epoch(
    model: nn.Module,
    baseline: nn.Module,
    conditions: Accuracy,
    data_dir: Path | None,
    *,
    steps: int | None = None,
    workers: int,
    channels_last: bool = False,
) -> EpochTimes:
    """Times steps of an epoch on both sides, and of what they are made of.

    `model` is trained as `measure_accuracy` does. `baseline` is the same network with the same weights, trained in
    timm's way, its images and weights channels-last or not. Both have no dropped paths and are on the conditions'
    device.

    `steps` of each side are timed, rounded up to whole rounds: by default about ENOUGH_S of them, an epoch where it is
    0, and of the parts not more than that default. timm's loader has its processes running, and as many batches ready
    as it keeps, before a round begins and again before it ends: so each round has the decoding of just its own number
    of batches, and none is done while ours is timed.

    Images of a data set that is no image folder are written to a temporary one. Raises InputError as `load_data`,
    and for conditions that the two sides would not do alike; RuntimeError where their losses differ.
    """
    check_device(conditions.device)
    check_alike(conditions)
    data = load_data(conditions, data_dir)
    assert isinstance(data, InMemoryData)
    if conditions.batch_size > len(data.train_labels):
        raise refuse("batch_size", conditions.batch_size, f"{len(data.train_labels)} or less, the training images")
    # However long it is timed, the schedule does not end.
    conditions = replace(conditions, epochs=10**6)
    with _image_folder(conditions, data, data_dir) as folder:
        for each, last in ((model, True), (baseline, channels_last)):
            each.to(memory_format=torch.channels_last if last else torch.contiguous_format).train()
            if conditions.compiled:
                compile_alone(each)
        ours = OwnSide(model, data.to(conditions.device), conditions)
        timms = TimmSide(baseline, folder, conditions, flip=data.may_flip, workers=workers, channels_last=channels_last)
        batch = next(ours.batches())
        difference, seconds = _compare(ours, timms, batch)
        enough = max(round(ENOUGH_S / seconds), ROUNDS)
        wanted = enough if steps is None else steps or ours.steps_per_epoch
        repeats = min(ROUNDS, wanted)
        whole_round = math.ceil(wanted / repeats)
        part_round = math.ceil(min(wanted, enough) / repeats)

        def time_both(work: Callable[[OwnSide | TimmSide], object], in_round: int) -> Rounds:
            sides = {"ours": partial(work, ours), "timms": partial(work, timms)}
            samples = time_interleaved(sides, repeats=repeats, device=conditions.device)
            return Rounds(images=in_round * conditions.batch_size, **samples)

        waits: dict[OwnSide | TimmSide, list[float]] = {ours: [], timms: []}
        whole = time_both(lambda side: waits[side].append(side.train(whole_round)), whole_round)
        return EpochTimes(
            whole=whole,
            step=time_both(lambda side: side.repeat(batch, part_round), part_round),
            images=time_both(lambda side: side.read(part_round), part_round),
            ours_waiting=sum(waits[ours][-repeats:]) / sum(whole.ours),  # the rounds before were warm-up
            timms_waiting=sum(waits[timms][-repeats:]) / sum(whole.timms),
            steps_per_epoch=ours.steps_per_epoch,
            loss_difference=difference,
        )


def check_alike(conditions: Accuracy) -> None:
    """Raises InputError for conditions that are not the same work on both sides."""
    if conditions.resolution <= SMALL:
        allowed = f"more than {SMALL} pixels, from where both sides cut and resize images"
        raise refuse("resolution", conditions.resolution, allowed)
    if conditions.loading != "in-memory":
        raise refuse("loading", conditions.loading, "in-memory: what it saves is what is timed")
    for name in ("train_images", "drop_path_rate", "mixup", "cutmix", "random_erasing", "ema_decay", "eval_every"):
        if getattr(conditions, name):
            raise refuse(name, getattr(conditions, name), "0 here")
    if conditions.aug_repeats != 1:
        raise refuse("aug_repeats", conditions.aug_repeats, "1 here")


@contextmanager
def _image_folder(conditions: Accuracy, data: InMemoryData, data_dir: Path | None) -> Iterator[Path]:
    """Gives the folder of the training images by class; of a data set that has none, a temporary one."""
    if not is_built_in(conditions.data):
        yield data_directory(data_dir) / conditions.data / "train"
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        for label in range(conditions.num_classes):
            (folder / str(label)).mkdir()
        for number, (image, label) in enumerate(zip(data.train_images, data.train_labels.tolist(), strict=True)):
            to_pil_image(image).save(folder / str(label) / f"{number}.png")
        yield folder


def _compare(ours: "OwnSide", timms: "TimmSide", batch: Batch) -> tuple[float, float]:
    """Takes steps on one batch; returns the largest difference of losses, and the seconds of our quickest step."""
    differences, seconds = [], []
    for _ in range(COMPARED):
        start = time.perf_counter()
        ours.repeat(batch, 1)
        own = float(ours.losses[-1])
        seconds.append(time.perf_counter() - start)
        expected = timms.take_step(*batch)
        differences.append(abs(own - expected) / expected)
    difference, most = max(differences), TOLERANCE[ours.conditions.precision]
    if not difference <= most:  # nan is neither
        raise RuntimeError(f"losses differ from timm's by {difference:.1e} of them, over {most:.0e}")
    return difference, min(seconds)


class _RoundIsOver(Exception):
    pass


class OwnSide(Training):
    """Our loop, left after so many steps and resumed; each time it draws its epoch again, which is timed too."""

    def train(self, steps: int) -> float:
        """Trains for so many steps; returns the seconds it waited for images."""
        last, waited = self.step + steps, self._waited()

        def stop(training: Training) -> None:
            if training.step == last:
                raise _RoundIsOver

        with suppress(_RoundIsOver):
            self.run(progress=stop)
        return self._waited() - waited

    def _waited(self) -> float:
        return sum(entry["wait_s"] for entry in self.history) + self.wait_s

    def repeat(self, batch: Batch, steps: int) -> None:
        """Takes so many steps on one batch."""
        for _ in range(steps):
            self._take_step(*batch)

    def read(self, steps: int) -> None:
        """Makes the images of so many steps."""
        for _ in islice(self.batches(), steps):
            pass

    def batches(self) -> Iterator[Batch]:
        for epoch in count(1):
            yield from training_batches(self.data, self.conditions, epoch)


class TimmSide:
    """timm's loader and step, as its train.py has them on one device."""

    def __init__(
        self, model: nn.Module, folder: Path, conditions: Accuracy, *, flip: bool, workers: int, channels_last: bool
    ) -> None:
        self.model, self.conditions = model, conditions
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        # A fork of this process would copy locks that its threads hold.
        context = multiprocessing.get_context("forkserver")
        self.collated = context.Value("q", 0)
        """Batches that the loader's processes have made."""
        self.loader: Any = create_loader(
            ImageDataset(str(folder)),
            input_size=(3, conditions.resolution, conditions.resolution),
            batch_size=conditions.batch_size,
            is_training=True,
            scale=(conditions.min_crop_scale, 1.0),
            hflip=0.5 if flip else 0.0,
            color_jitter=None,  # type: ignore[arg-type]  # none, which timm takes and does not declare
            interpolation="bilinear",
            num_workers=workers,
            pin_memory=conditions.device == "cuda",
            device=torch.device(conditions.device),
            collate_fn=partial(_collate, self.collated),
        )
        if workers:
            context.set_forkserver_preload(["timm.data"])
            self.loader.loader.multiprocessing_context = context
        # timm's loader has a batch on its way to the device beside those that its processes make.
        self._ahead = 1 + workers * (self.loader.loader.prefetch_factor or 0)
        self._shown = 0
        self._batches = chain.from_iterable(repeat(self.loader))
        self.loss = LabelSmoothingCrossEntropy(conditions.label_smoothing)
        self.optimizer = create_optimizer_v2(
            model, opt="adamw", lr=conditions.peak_lr, weight_decay=conditions.weight_decay
        )
        self.schedule = build_schedule(self.optimizer, conditions, len(self.loader))
        self.step = 0

    def _next_batch(self) -> Batch:
        images, labels = next(self._batches)
        self._shown += 1
        return images.contiguous(memory_format=self.layout), labels

    def train(self, steps: int) -> float:
        """Trains for so many steps; returns the seconds it waited for images."""
        waited = 0.0
        for _ in range(steps):
            start = time.perf_counter()
            images, labels = self._next_batch()
            waited += time.perf_counter() - start
            self.take_step(images, labels)
        start = time.perf_counter()
        self._fill_up()
        return waited + time.perf_counter() - start

    def take_step(self, images: Tensor, labels: Tensor) -> float:
        """Takes a step on images (B, 3, S, S) with labels (B,); returns the loss, which train.py reads each time."""
        with autocast(self.conditions):
            loss = self.loss(self.model(images), labels)
        loss.backward()
        if self.conditions.clip_grad_norm:
            dispatch_clip_grad(self.model.parameters(), self.conditions.clip_grad_norm)
        self.optimizer.step()
        value = loss.item()
        self.step += 1
        self.optimizer.zero_grad()
        self.schedule.step_update(self.step)
        return value

    def repeat(self, batch: Batch, steps: int) -> None:
        """Takes so many steps on one batch."""
        images, labels = batch[0].contiguous(memory_format=self.layout), batch[1]
        for _ in range(steps):
            self.take_step(images, labels)

    def read(self, steps: int) -> None:
        """Makes the images of so many steps."""
        for _ in range(steps):
            self._next_batch()
        self._fill_up()

    def _fill_up(self) -> None:
        """Waits until the loader's processes have made all that they make ahead in this epoch, and rest."""
        length = len(self.loader)
        asked = min(self._shown + self._ahead, math.ceil(self._shown / length) * length)
        deadline = time.monotonic() + PATIENCE_S * self._ahead
        while self.collated.value < asked:
            if time.monotonic() > deadline:
                raise RuntimeError(f"timm's loader made {self.collated.value} of {asked} batches and no more")
            time.sleep(1e-4)


def _collate(done: Any, samples: list[Any]) -> Any:
    """Puts images and labels together as timm does, and counts the batches of all processes."""
    batch = fast_collate(samples)
    with done.get_lock():
        done.value += 1
    return batch
