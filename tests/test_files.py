"""Files are written whole."""

import os

import pytest

from ablations.files import write_bytes, write_text


def test_a_file_and_its_folder_are_written(tmp_path):
    path = tmp_path / "new" / "file"
    write_text(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_breaks_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
