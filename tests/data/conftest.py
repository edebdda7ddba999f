"""Fixtures for tests of training."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, which is not the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ABLATIONS_CACHE_DIR", str(folder))
    return folder
