"""Fixtures for every test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Has all tests keep out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATIONS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of unpacked data sets that ABLATIONS_DATA_DIR names; the test is skipped where it names none."""
    name = os.environ.get("ABLATIONS_DATA_DIR")
    if not name:
        pytest.skip("ABLATIONS_DATA_DIR is not set")
    folder = Path(name)
    assert folder.is_dir(), f"ABLATIONS_DATA_DIR={name!r} is not a folder"
    return folder
