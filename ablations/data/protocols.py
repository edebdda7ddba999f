"""How images are read, and shown to a finished model, by protocol.

A protocol resizes an image so that the centre crop is a given share of its short side, bicubically. The numbers are
those of timm's validate.py, and with `paper` those of the released PVT code.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from PIL import Image, ImageFile
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from torch import Tensor
from torchvision.transforms.v2.functional import normalize

from ablations.config import LARGEST_INPUT
from ablations.errors import first_line, pick, refuse

CROPS = {"paper": 0.875, "timm": 0.9}
"""Side of the centre crop over the short side: of the paper (PVT v2, 4.1), and of timm's settings for PVT v2."""

Transform = Callable[[Image.Image], Tensor]


def build_transform(protocol: str, resolution: int) -> Transform:
    """Returns what makes a model's input of an RGB image: bytes (3, S, S) with S = `resolution`, not normalised yet.

    Raises InputError for an unknown protocol, and for a resolution that is none.
    """
    if not 1 <= resolution <= LARGEST_INPUT:
        raise refuse("resolution", resolution, f"1 to {LARGEST_INPUT} pixels")
    return create_transform(
        input_size=(3, resolution, resolution),
        interpolation="bicubic",
        crop_pct=CROPS[pick("protocol", protocol, CROPS)],
        crop_mode="center",
        normalize=False,
    )


def resized_short_side(protocol: str, resolution: int) -> int:
    """Returns the pixels that a protocol resizes an image's short side to, rounded as timm does: down."""
    return math.floor(resolution / CROPS[protocol])


def read_in_order(
    paths: Sequence[str], transform: Transform, *, workers: int, ahead: int
) -> Generator[Tensor | str, None, None]:
    """Yields what `read_image` returns for each path, in order; threads read up to `ahead` images in advance."""
    # Decoding and resizing run without the interpreter's lock, so threads are enough.
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Tensor | str]] = deque()
    try:
        for path in paths:
            waiting.append(pool.submit(read_image, path, transform))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_image(path: str, transform: Transform) -> Tensor | str:
    """Returns an image as the transform makes it of its RGB, or in words why it cannot be read."""
    # Another library may have set this for the whole process: then grey would stand for what is missing of an image.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except Exception as error:  # a damaged file fails in every way that a decoder can
        return _without_path(first_line(error), path)
    return transform(image)


def _without_path(words: str, path: str) -> str:
    """Returns a fault in words without the image's path, which Pillow and the system repeat at the end."""
    return words.replace(repr(path), "").replace(path, "").rstrip(": ")


def normalise_bytes(images: Tensor) -> Tensor:
    """Returns bytes (B, 3, S, S) as models trained on ImageNet take them: floats by its mean and deviation."""
    images = images.contiguous(memory_format=torch.channels_last).float().div(255)
    return normalize(images, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, inplace=True)
