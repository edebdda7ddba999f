"""Fixtures for tests of data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ablations.data.dense_loading import load_objects, load_segments
from ablations.measure import Detection, Segmentation


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, which is not the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ABLATIONS_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def of_scenes() -> dict[str, Any]:
    """What conditions say of the data set that `make_ade20k` writes."""
    return {"data": "scenes", "num_classes": 3, "first_label": 1, "void_label": 0}


@pytest.fixture(scope="session")
def objects() -> Callable[..., Any]:
    """`objects(folder, **conditions)` loads a data set of detection."""

    def load(folder: Path, **conditions: Any) -> Any:
        return load_objects(Detection(data=folder.name, **conditions), folder.parent)

    return load


@pytest.fixture(scope="session")
def segments(of_scenes: dict[str, Any]) -> Callable[..., Any]:
    """`segments(folder, **conditions)` loads a data set of segmentation, with the labels of `of_scenes`."""

    def load(folder: Path, **conditions: Any) -> Any:
        return load_segments(Segmentation(**(of_scenes | {"data": folder.name} | conditions)), folder.parent)

    return load


@pytest.fixture(scope="session")
def read_pixels() -> Callable[[Path | str], np.ndarray]:
    """`read_pixels(path)` returns the values of an image as they are in the file."""

    def read(path: Path | str) -> np.ndarray:
        with Image.open(path) as image:
            return np.array(image)

    return read
