"""How an image file becomes RGB: the one reader of training, validation and evaluation.

Rules, each as timm and torchvision have it unless said otherwise:

- Grey images of 16 bits become 8 by value / 257, rounded: others cut them to white. Of colours with 16 bits a channel
  Pillow keeps the upper 8. Numbers of 32 bits, integers or floats, have no white and are refused.
- Transparency is dropped: the colours that are stored below it count. So are colour profiles.
- The orientation that EXIF gives is ignored. Of several frames the first counts.
- An image more than LONGEST_RATIO times as long as wide is cut to its middle, and one of more than MOST_PIXELS pixels
  is refused; both are ours, and bound the memory that one image takes.
"""

import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from ablations.errors import InputError, first_line

RULES = 2
"""Which edition of these rules it is: what was decoded by another counts no more."""

Image.init()
FORMATS = sorted(
    {"AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP"} & {*Image.OPEN}
)
"""What a file may be, whatever its name, where Pillow was built with it: others, such as EPS, start programs."""

MOST_PIXELS = 2**28
"""Of one image: as RGB that is 0.75 GiB."""

LONGEST_RATIO = 8

Transform = Callable[[Image.Image], Tensor]

# Pillow warns of what is read well all the same (odd EXIF, transparent palettes), for each image in each epoch; and of
# large images, for which the limit is ours.
warnings.filterwarnings("ignore", module=r"PIL\.")
Image.MAX_IMAGE_PIXELS = None

_EIGHT_BITS = ((np.arange(2**16) + 128) // 257).astype(np.uint8)
"""Value / 257, rounded."""


def read_image(path: str, transform: Transform) -> Tensor | str:
    """Returns an image as the transform makes it of its RGB, or in words why it cannot be read."""
    # Another library may have set this for the whole process: then grey would stand for what is missing of an image.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(path, formats=FORMATS) as file:
            image = _to_rgb(_cut(file), file.format)
    except InputError as error:
        return str(error)
    except Exception as error:  # a damaged file fails in every way that a decoder can
        return _without_path(first_line(error), path)
    return transform(image)


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


def read_all(paths: Sequence[str], transform: Transform) -> Iterator[tuple[str, Tensor | str]]:
    """Yields each path, in order, with what `read_image` returns for it; as many threads as torch's read ahead."""
    threads = torch.get_num_threads()
    return zip(paths, read_in_order(paths, transform, workers=threads, ahead=16 * threads), strict=True)


def _cut(image: Image.Image) -> Image.Image:
    """Returns the image, or of a strip the middle, before anything is decoded; raises InputError for too large a one.

    A centre crop never sees what is cut off, and the centre stays where it was.
    """
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise InputError(f"{width} x {height} px are more than {MOST_PIXELS:,} pixels, the most of one image")
    most = LONGEST_RATIO * min(width, height)
    left, top = (max(side - most, 0) // 2 for side in (width, height))
    return image.crop((left, top, width - left, height - top)) if left or top else image


def _to_rgb(image: Image.Image, format: str | None) -> Image.Image:
    # Pillow opens what has 16 bits in some formats as integers of 32.
    if image.mode.startswith("I;16") or (image.mode == "I" and format in ("PNG", "PPM")):
        image = Image.fromarray(_EIGHT_BITS[np.asarray(image)])
    if image.mode in ("I", "F"):
        kind = {"I": "integers", "F": "floats"}[image.mode]
        raise InputError(f"mode {image.mode}, {kind} of 32 bits, have no white; allowed: 8 or 16 bits a channel")
    image.info.pop("transparency", None)  # which Pillow would warn of
    return image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGB")


def _without_path(words: str, path: str) -> str:
    """Returns a fault in words without the image's path, which Pillow and the system repeat at the end."""
    return words.replace(repr(path), "").replace(path, "").rstrip(": ")
