"""Image folders: which of their images cannot be read, and that all are tried only once."""

from pathlib import Path

import pytest
from PIL import Image

from ablations.data import folders as folders_module
from ablations.data.folders import WAY_OUT, find_unreadable, open_image_folder, unreadable_images
from ablations.data.listing import Listing, listed
from ablations.errors import InputError


def write_set(root: Path) -> Path:
    for place in ("train/a", "train/b", "val/a", "val/b"):
        (root / place).mkdir(parents=True)
        for index in range(3):
            Image.effect_noise((40, 30), 90).save(root / place / f"{index}.jpg")
    return root


def break_three(root: Path) -> None:
    """Makes images of the three kinds that cannot be read: truncated, none, empty."""
    (root / "train/a/1.jpg").write_bytes((root / "train/a/1.jpg").read_bytes()[:-200])
    (root / "train/b/0.jpg").write_text("no image")
    (root / "train/b/2.jpg").write_bytes(b"")


def open_train(root: Path) -> Listing:
    return open_image_folder(root)[0]


def test_all_that_cannot_be_read_is_found_with_its_reason(tmp_path):
    assert find_unreadable(open_train(write_set(tmp_path))) == {}
    break_three(tmp_path)
    split = open_train(tmp_path)
    found = find_unreadable(split)
    assert [split.name(path) for path in found] == ["train/a/1.jpg", "train/b/0.jpg", "train/b/2.jpg"]
    assert "truncated" in found[str(tmp_path / "train/a/1.jpg")]
    assert all("\n" not in reason and str(tmp_path) not in reason for reason in found.values())
    left = split.without(found)
    assert [split.name(path) for path in left.paths] == ["train/a/0.jpg", "train/a/2.jpg", "train/b/1.jpg"]
    assert left.labels == [0, 0, 1]


def test_a_link_to_nothing_is_an_image_that_cannot_be_read(tmp_path):
    (write_set(tmp_path) / "train/a/3.jpg").symlink_to(tmp_path / "nowhere.jpg")
    reason = "FileNotFoundError: [Errno 2] No such file or directory"
    assert find_unreadable(open_train(tmp_path)) == {str(tmp_path / "train/a/3.jpg"): reason}


def test_all_are_tried_once_until_a_file_changes(tmp_path, monkeypatch):
    break_three(write_set(tmp_path))
    found = find_unreadable(open_train(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(folders_module, "read_all", None)
        assert find_unreadable(open_train(tmp_path)) == found
    (tmp_path / "train/b/0.jpg").write_bytes((tmp_path / "train/b/1.jpg").read_bytes())
    assert len(find_unreadable(open_train(tmp_path))) == 2


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]"])
def test_a_damaged_note_of_it_is_made_anew(tmp_path, cache_folder, content):
    break_three(write_set(tmp_path))
    found = find_unreadable(open_train(tmp_path))
    (note,) = cache_folder.iterdir()
    note.write_bytes(content)
    assert find_unreadable(open_train(tmp_path)) == found


def test_a_class_that_is_left_without_images_is_refused(tmp_path):
    break_three(write_set(tmp_path))
    (tmp_path / "train/b/1.jpg").write_bytes(b"")
    split = open_train(tmp_path)
    with pytest.raises(InputError, match=r"^train has no images that can be read of class b$"):
        split.without(find_unreadable(split))


def test_the_error_counts_all_and_names_the_first():
    faults = {"train/a/1.jpg": "OSError: truncated", "val/a/0.jpg": "empty"}
    expected = "2 of 9 images cannot be read, first train/a/1.jpg (OSError: truncated)"
    assert str(unreadable_images(faults, 9)) == f"{expected}; {WAY_OUT}"
    assert str(unreadable_images(faults, 9, skipping=True)) == expected


def test_a_list_of_names_is_short():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
