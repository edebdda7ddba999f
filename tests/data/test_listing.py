"""What is a class and what is an image in a folder, and what is left out."""

import os
import re
from pathlib import Path

import pytest
from PIL import Image
from timm.data.readers.reader_image_folder import find_images_and_targets

from ablations.data.listing import SUFFIXES, class_folders, label_order, list_images
from ablations.errors import InputError, as_text


def write(root, *names):
    """Writes files of no content, and the folders above them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def found(root):
    listing = list_images(root)
    return [path.removeprefix(f"{root}/") for path in listing.paths]


def test_classes_and_images_are_in_order_with_their_labels(tmp_path):
    write(tmp_path, "b/2.png", "b/10.png", "a/x/1.jpg", "a/9.jpg")
    listing = list_images(tmp_path)
    assert (listing.classes, listing.labels) == (["a", "b"], [0, 0, 1, 1])
    assert found(tmp_path) == ["a/9.jpg", "a/x/1.jpg", "b/10.png", "b/2.png"]
    assert (listing.left_out, listing.complaint) == ({}, "")


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_suffix_of_images_is_taken_in_any_case(tmp_path, suffix):
    write(tmp_path, f"a/1{suffix}", f"a/2{suffix.upper()}")
    assert len(found(tmp_path)) == 2


def test_every_suffix_is_one_that_pillow_reads():
    readable = {suffix for suffix, format in Image.registered_extensions().items() if format in {*Image.OPEN, "MPO"}}
    assert SUFFIXES - {".avif", ".avifs"} <= readable


def test_hidden_and_system_names_are_no_classes_and_no_images(tmp_path):
    write(
        tmp_path,
        *("cat/1.png", "cat/._1.png", "cat/.cache/1.png", "cat/Thumbs.db", "cat/@eaDir/1.png", ".git/1.png"),
        *("__MACOSX/cat/1.png", "lost+found/1.png", "desktop.ini", "cat/notes.txt", "stray.png"),
    )
    listing = list_images(tmp_path)
    assert (listing.classes, found(tmp_path)) == (["cat"], ["cat/1.png"])
    assert {reason: sorted(names) for reason, names in listing.left_out.items()} == {
        "hidden or the system's": sorted(
            [
                *("cat/._1.png", "cat/.cache", "cat/Thumbs.db", "cat/@eaDir", ".git", "__MACOSX"),
                "lost+found",
                "desktop.ini",
            ]
        ),
        "no image by the suffix": ["cat/notes.txt"],
        "beside the class folders": ["stray.png"],
    }
    assert re.fullmatch(
        f"{tmp_path}: left out 8 hidden or the system's [(].*, [.]{{3}}[)]; .*1 no image by the suffix "
        "[(]cat/notes[.]txt[)].*",
        listing.complaint,
    )


LINKS = {
    "to itself": ("cat/again", "."),
    "to its class": ("cat/x/again", ".."),
    "to the folder of classes": ("cat/up", ".."),
    "to what holds that": ("cat/top", "../.."),
    "to another class": ("cat/other", "../dog"),
    "to a folder beside it": ("cat/also", "x"),
    "to a folder of another class": ("cat/far", "../dog/y"),
}


@pytest.mark.parametrize("case", LINKS)
def test_a_folder_counts_once_however_it_is_linked(tmp_path, case):
    root = write(tmp_path / "pets/train", "cat/1.png", "cat/x/2.png", "dog/3.png", "dog/y/4.png")
    write(tmp_path / "pets/val", "cat/5.png")
    place, target = LINKS[case]
    (root / place).symlink_to(target, target_is_directory=True)
    assert found(root) == ["cat/1.png", "cat/x/2.png", "dog/3.png", "dog/y/4.png"]
    assert list_images(root).left_out == {"a link to a folder that counts already": [place]}


def test_a_link_out_of_the_folder_is_followed_once(tmp_path):
    write(tmp_path, "store/1.png", "store/deep/2.png", "set/cat/3.png")
    for name in ("one", "two"):
        (tmp_path / "set/cat" / name).symlink_to(tmp_path / "store")
    assert found(tmp_path / "set") == ["cat/3.png", "cat/one/1.png", "cat/one/deep/2.png"]


def test_a_class_may_be_a_link_but_two_may_not_be_one_folder(tmp_path):
    write(tmp_path, "store/1.png", "set/dog/2.png")
    (tmp_path / "set/cat").symlink_to(tmp_path / "store")
    assert found(tmp_path / "set") == ["cat/1.png", "dog/2.png"]
    (tmp_path / "set/kitty").symlink_to("cat")
    with pytest.raises(InputError, match=r"set/kitty and .*set/cat are one folder; allowed: a folder for each class"):
        list_images(tmp_path / "set")


def test_links_in_a_circle_and_to_nothing_are_images_that_cannot_be_read_later(tmp_path):
    write(tmp_path, "cat/1.png")
    (tmp_path / "cat/2.png").symlink_to("3.png")
    (tmp_path / "cat/3.png").symlink_to("2.png")
    (tmp_path / "cat/4.png").symlink_to("nowhere.png")
    assert len(found(tmp_path)) == 4


def test_what_is_no_regular_file_is_left_out(tmp_path):
    write(tmp_path, "cat/1.png")
    os.mkfifo(tmp_path / "cat/2.png")
    (tmp_path / "cat/3.png").symlink_to("/dev/zero")
    listing = list_images(tmp_path)
    assert len(listing.paths) == 1
    assert sorted(listing.left_out["no regular file"]) == ["cat/2.png", "cat/3.png"]


def test_a_folder_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    write(tmp_path, "cat/1.png", "dog/1.png")

    def refuse(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    scan = os.scandir
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"/dog cannot be read \(Permission denied\)$"):
        list_images(tmp_path)
    assert class_folders(tmp_path) == ["cat", "dog"]


NAMES = [
    [str(number) for number in range(1000)],
    ["class10", "class9", "Class2"],
    ["Zebra", "ant", "bee"],
    ["007", "11", "9"],
    ["2nd 10", "2nd 9", "10th 1"],
]


@pytest.mark.parametrize("names", NAMES)
def test_labels_are_in_the_order_of_timms_loader(tmp_path, names):
    write(tmp_path, *(f"{name}/1.png" for name in names))
    _, classes = find_images_and_targets(str(tmp_path))
    assert class_folders(tmp_path) == sorted(classes, key=classes.__getitem__)
    assert list_images(tmp_path).labels == list(range(len(names)))


def test_the_order_does_not_depend_on_the_order_of_the_folder():
    assert sorted(["cat", "Cat", "CAT"], key=label_order) == sorted(["CAT", "Cat", "cat"], key=label_order)
    assert label_order("a²3") < label_order("a²10")


@pytest.mark.parametrize("name", [b"caf\xe9", b"\xff\xfe", "straße".encode("latin-1")])
def test_names_that_are_not_utf_8_are_text_all_the_same(tmp_path, name):
    write(tmp_path, f"{os.fsdecode(name)}/{os.fsdecode(name)}.png")
    listing = list_images(tmp_path)
    assert Path(listing.paths[0]).exists()
    assert listing.classes == [as_text(os.fsdecode(name))]
    assert as_text(listing.paths[0]).encode().startswith(str(tmp_path).encode())
