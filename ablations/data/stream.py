"""Image folders that do not fit in memory: worker processes read the images again in every epoch, ahead of the step.

Each image is cut and augmented by numbers drawn from a seed of its own. So neither the number of workers nor the
batches change an image, and the process's own generators are left as they were. Letters: B images of a batch, N of
the data set, C channels, S the resolution in pixels.
"""

import random
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import RandAugment, posterize
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ablations.data.folders import WAY_OUT
from ablations.data.images import Transform, read_image, read_in_order
from ablations.data.protocols import build_transform
from ablations.data.splits import StreamingData
from ablations.errors import InputError, as_text, refuse
from ablations.measure import Accuracy
from ablations.measure.process import follow_parent, start_server

Request = tuple[str, int]
"""An image's path and the seed of what is drawn for it."""

Faults = dict[str, str]
"""Why images cannot be read, in words, by path."""


RAND_AUGMENTS = (
    "RandAugment in timm's words, such as rand-m9-mstd0.5-inc1: m, n, mmax with whole numbers, p, mstd with numbers, "
    "inc0 or inc1, and tweights, t3a or t3aw"
)
WORD = re.compile(r"(m|n|mmax)\d+|(p|mstd)\d+(\.\d+)?|inc[01]|t(weights|3a|3aw)")
"""A word of RandAugment, as `timm.data.auto_augment.rand_augment_transform` reads it."""


def stream_images(
    data: StreamingData,
    batches: Sequence[Tensor],
    *,
    seeds: Sequence[Tensor],
    conditions: Accuracy,
    workers: int,
) -> Iterator[Tensor]:
    """Yields training images (B, 3, S, S) as bytes in main memory, pinned where there is CUDA.

    `batches` are indices (B,) of training images, `seeds` (B,) those of what is drawn for each. `workers` processes
    read ahead, and wait for the next call after the last batch; with 0, this one reads. Raises InputError for an image
    that cannot be read, where it is met.
    """
    requests = (
        [(data.train_paths[index], seed) for index, seed in zip(batch.tolist(), own.tolist(), strict=True)]
        for batch, own in zip(batches, seeds, strict=True)
    )
    with _open_reader(conditions, workers, may_flip=data.may_flip) as reader:
        for images in reader.read(requests):
            if not isinstance(images, Tensor):
                raise _cannot_be_read(data, images, conditions)
            yield images


def stream_eval(
    data: StreamingData, conditions: Accuracy, indices: Tensor, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields validation images (B, 3, S, S) as bytes in main memory, with their labels (B,) on the data's device.

    They are those of `indices` (n,), in that order and in batches of the conditions' size, as the paper's protocol
    shows them. `workers` threads read ahead, at least one. Raises InputError for an image that cannot be read.
    """
    paths = [data.eval_paths[index] for index in indices.tolist()]
    threads = max(workers, 1)
    stream = read_in_order(
        paths,
        build_transform("paper", conditions.resolution),
        workers=threads,
        ahead=conditions.batch_size + 2 * threads,
    )
    with closing(stream):
        for start in range(0, len(paths), conditions.batch_size):
            images = []
            batch = slice(start, start + conditions.batch_size)
            for path, read in zip(paths[batch], islice(stream, conditions.batch_size), strict=True):
                if isinstance(read, str):
                    raise _cannot_be_read(data, {path: read}, conditions)
                images.append(read)
            yield torch.stack(images), data.eval_labels[indices[batch].to(data.eval_labels.device)]


def _cannot_be_read(data: StreamingData, faults: Faults, conditions: Accuracy) -> InputError:
    path, reason = next(iter(faults.items()))
    way_out = "" if conditions.skip_unreadable else f"; {WAY_OUT}"
    name = as_text(Path(path).relative_to(data.folder).as_posix())
    return InputError(f"an image cannot be read: {name} ({reason}){way_out}")


def build_augmentation(conditions: Accuracy, *, may_flip: bool) -> Transform:
    """Returns what makes a training image (3, S, S), bytes, of an RGB image, as the conditions' recipe says.

    A part of it is cut and resized bicubically, mirrored half of the time, and changed by RandAugment. What is drawn
    comes from the generators of `random`, numpy and torch. Raises InputError for a RandAugment that timm does not know.
    """
    words = conditions.rand_augment
    _check_words(words)
    try:
        transform = create_transform(
            input_size=(3, conditions.resolution, conditions.resolution),
            is_training=True,
            scale=(conditions.min_crop_scale, 1.0),
            hflip=0.5 if may_flip else 0.0,
            color_jitter=None,  # type: ignore[arg-type]  # none, which timm takes and does not declare
            auto_augment=words or None,
            interpolation="bicubic",
            normalize=False,
        )
    except (AssertionError, ValueError) as error:
        raise refuse("rand_augment", words, RAND_AUGMENTS) from error
    for step in transform.transforms:
        if isinstance(step, RandAugment):
            most = step.num_layers if step.choice_weights is None else np.count_nonzero(step.choice_weights)
            if step.num_layers > most:
                raise refuse("rand_augment", words, f"n up to {most}: of a weighted set each operation is drawn once")
            for operation in step.ops:
                if operation.aug_fn is posterize:
                    operation.aug_fn = _posterize
    return transform


def _check_words(rand_augment: str) -> None:
    """Raises InputError for a RandAugment with words that timm would pass over, or read as its default."""
    name, *words = rand_augment.split("-")
    strange = [word for word in words if not WORD.fullmatch(word)]
    if rand_augment and (name != "rand" or strange):
        raise refuse("rand_augment", rand_augment, RAND_AUGMENTS + (f", and not {strange[0]!r}" if strange else ""))


def _posterize(image: Image.Image, bits: int, **others: Any) -> Image.Image:
    """As timm's, but keeps at least one bit: at its strongest timm asks for none, which Pillow 13 refuses."""
    return posterize(image, max(bits, 1), **others)


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Draws from one seed inside, in `random`, numpy and torch on the CPU, and leaves the generators as they were."""
    generator = torch.default_generator  # torch.manual_seed would seed the GPUs' too
    before = random.getstate(), np.random.get_state(), generator.get_state()  # noqa: NPY002, timm draws from it
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        generator.manual_seed(seed)
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        generator.set_state(before[2])


class _Images(Dataset):
    """Training images by request, or why one cannot be read."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __getitem__(self, request: Request) -> Tensor | Faults:
        path, seed = request
        with drawn_from(seed):
            read = read_image(path, self.transform)
        return {path: read} if isinstance(read, str) else read


def _join(images: list[Tensor | Faults]) -> Tensor | Faults:
    """Returns the batch, or the first fault in it: an error that a worker raises would come with its whole trace."""
    return _first_fault(images) or default_collate(images)


def _join_for_pipe(images: list[Tensor | Faults]) -> np.ndarray | Faults:
    """As `_join`, but as an array: what is no tensor comes from a worker through a pipe and not by shared memory."""
    return _first_fault(images) or torch.stack(cast(list[Tensor], images)).numpy()


def _first_fault(images: list[Tensor | Faults]) -> Faults | None:
    return next((image for image in images if not isinstance(image, Tensor)), None)


SHARED_MEMORY = Path("/dev/shm")


def _fits_shared_memory(batch_bytes: int, workers: int) -> bool:
    """Whether the batches that workers have ready fit where the system shares memory: containers give it little."""
    ready = (2 * workers + 2) * batch_bytes  # two each, one in use, and one to spare
    return not SHARED_MEMORY.is_dir() or ready < shutil.disk_usage(SHARED_MEMORY).free


class _Requests:
    """The batches to read: a loader takes them at its start, and then again for each epoch."""

    def __init__(self) -> None:
        self.batches: Iterable[list[Request]] = ()

    def __iter__(self) -> Iterator[list[Request]]:
        return iter(self.batches)


class _Reader:
    """Processes that make batches of training images, for one epoch after the other."""

    def __init__(self, transform: Transform, workers: int, batch_bytes: int) -> None:
        self._requests = _Requests()
        self._loader: DataLoader = DataLoader(
            _Images(transform),
            batch_sampler=self._requests,
            collate_fn=_join if _fits_shared_memory(batch_bytes, workers) else _join_for_pipe,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            **reading_ahead(workers),
        )

    def read(self, requests: Iterable[list[Request]]) -> Iterator[Tensor | Faults]:
        self._requests.batches = requests
        return (torch.from_numpy(read) if isinstance(read, np.ndarray) else read for read in self._loader)


def reading_ahead(workers: int) -> dict[str, Any]:
    """Returns the arguments of a loader for its processes, which end with the process that trains at the latest."""
    arguments: dict[str, Any] = {"generator": torch.Generator()}  # else it draws a seed from the training's
    if workers:
        # A fork of this process would copy locks that its threads hold, and a CUDA context, which does not work there.
        context = start_server(["timm.data"])  # imported once, not by each worker
        arguments |= {"num_workers": workers, "multiprocessing_context": context, "worker_init_fn": _follow_parent}
    return arguments


def _follow_parent(worker: int) -> None:
    follow_parent()  # torch's own watch is on the fork server


_idle: dict[tuple[Any, ...], _Reader] = {}
"""The reader that was used last, for what it reads, while nobody uses it: starting its processes takes seconds."""


@contextmanager
def _open_reader(conditions: Accuracy, workers: int, *, may_flip: bool) -> Iterator[_Reader]:
    """Gives the idle reader, if it reads the same way, else a new one; it is idle again afterwards, unless it broke."""
    batch_bytes = 3 * conditions.resolution**2 * conditions.batch_size
    key = (conditions.resolution, conditions.min_crop_scale, conditions.rand_augment, may_flip, workers, batch_bytes)
    reader = _idle.pop(key, None)
    _idle.clear()
    reader = reader or _Reader(build_augmentation(conditions, may_flip=may_flip), workers, batch_bytes)
    try:
        yield reader
    except (GeneratorExit, InputError):  # not all was read: what is left is dropped when it is read from again
        _idle[key] = reader
        raise
    _idle[key] = reader
