"""Fixtures for every test."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of unpacked data sets that ABLATIONS_DATA_DIR names; the test is skipped where it names none."""
    name = os.environ.get("ABLATIONS_DATA_DIR")
    if not name:
        pytest.skip("ABLATIONS_DATA_DIR is not set")
    folder = Path(name)
    assert folder.is_dir(), f"ABLATIONS_DATA_DIR={name!r} is not a folder"
    return folder
