"""Booleans as text: how a record says which validation images were right."""

import base64
from collections.abc import Sequence

import numpy as np


def pack_bits(values: Sequence[bool]) -> str:
    """Returns booleans as text: a bit each, most significant first, in base64."""
    return base64.b64encode(np.packbits(np.asarray(values, dtype=bool)).tobytes()).decode()


def unpack_bits(text: str, count: int) -> np.ndarray:
    """Returns the first `count` booleans (count,) of what `pack_bits` wrote."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8), count=count).astype(bool)
