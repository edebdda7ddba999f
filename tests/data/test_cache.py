"""The cache: it changes nothing that comes out, counts for one state alone, and never ends a run."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ablations.data import cache as cache_module
from ablations.data import loading as loading_module
from ablations.data.cache import cache_directory, load_answer, load_images, store_answer, store_images
from ablations.data.loading import load_data
from ablations.data.splits import InMemoryData
from ablations.measure import Accuracy

CONDITIONS = Accuracy(data="noise", num_classes=2, resolution=24)
QUESTION, STATE = {"what": "a test"}, {"files": [["a/0.png", 12, None]]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = torch.Generator().manual_seed(0)
    for place in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "noise" / place).mkdir(parents=True)
        for index in range(3):
            noise = torch.randint(256, (6, 8, 3), generator=random, dtype=torch.uint8)
            Image.fromarray(noise.numpy()).resize((60, 45)).save(tmp_path / "noise" / place / f"{index}.png")
    return tmp_path


def load(folder: Path, **changes: Any) -> InMemoryData:
    """Loads the set as a new process would."""
    loading_module._load.cache_clear()
    data = load_data(replace(CONDITIONS, **changes), folder)
    assert isinstance(data, InMemoryData)
    return data


def same(first: InMemoryData, second: InMemoryData) -> bool:
    tensors = [name for name, value in vars(first).items() if isinstance(value, torch.Tensor)]
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in tensors)


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(loading_module, "read_all", refuse)


def contents(cache_folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache_folder.iterdir()}


def test_images_are_decoded_once(folder, cache_folder, capfd, request):
    first = load(folder)
    assert sorted(path.suffix for path in cache_folder.iterdir()) == [".bin", ".bin", ".json", ".json"]
    request.getfixturevalue("no_decoding")
    assert same(load(folder), first)
    assert capfd.readouterr() == ("", "")
    for changes in ({"resolution": 25}, {"train_images": 2}):
        with pytest.raises(AssertionError, match="decoded"):
            load(folder, **changes)


def test_an_entry_says_what_it_is(folder, cache_folder):
    data = load(folder)
    entries = [json.loads(path.read_text()) for path in sorted(cache_folder.glob("*.json"))]
    (train,) = (entry for entry in entries if entry["question"]["folder"].endswith("train"))
    assert train["answer"]["shape"] == [6, 3, 24, 24]
    assert [name for name, _, _ in train["state"]["files"]] == [
        f"{name}/{index}.png" for name in "ab" for index in range(3)
    ]
    status = (folder / "noise/train/a/0.png").stat()
    assert train["state"]["files"][0][1:] == [status.st_size, status.st_mtime_ns]
    assert {"pillow", "torchvision", "torch"} < set(train["state"])
    (raw,) = (
        path.read_bytes()
        for path in cache_folder.glob("*.bin")
        if path.read_bytes() == data.train_images.numpy().tobytes()
    )
    assert len(raw) == 6 * 3 * 24 * 24


def paint(path: Path) -> None:
    Image.new("RGB", (60, 45), (1, 2, 3)).save(path)


def test_an_image_that_changed_is_decoded_anew(folder):
    load(folder)
    paint(folder / "noise/train/b/1.png")
    assert (load(folder).train_images[4].flatten(1) == torch.tensor([[1], [2], [3]])).all()


def test_so_it_is_where_only_the_time_of_change_tells(folder):
    before = load(folder)
    path = folder / "noise/val/a/2.png"
    status = path.stat()
    paint(path)
    path.write_bytes(path.read_bytes().ljust(status.st_size, b"\0"))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns + 1))
    assert path.stat().st_size == status.st_size
    after = load(folder)
    assert (after.eval_images[2] < 4).all()
    assert not same(before, after)


def test_an_image_that_was_added_or_removed_makes_another_set(folder):
    load(folder)
    paint(folder / "noise/train/b/9.png")
    assert len(load(folder).train_labels) == 7
    (folder / "noise/train/b/9.png").unlink()
    assert len(load(folder).train_labels) == 6


def test_another_version_of_a_library_decodes_anew(folder, monkeypatch, request):
    load(folder)
    request.getfixturevalue("no_decoding")
    load(folder)
    monkeypatch.setattr(cache_module.PIL, "__version__", "0.1")
    with pytest.raises(AssertionError, match="decoded"):
        load(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_with(content: bytes):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        *((".bin", damage) for damage in (cut, lengthen, flip, Path.unlink, replace_with(b""))),
        *((".json", damage) for damage in (cut, Path.unlink, replace_with(b""), replace_with(b"\xff\xfe"))),
        *((".json", replace_with(content)) for content in (b"[]", b"{}", b'{"answer": 3}', b"null")),
    ],
)
def test_what_is_damaged_is_made_anew(folder, cache_folder, suffix, damage, monkeypatch):
    first, whole = load(folder), contents(cache_folder)
    for path in cache_folder.glob(f"*{suffix}"):
        damage(path)
    assert contents(cache_folder) != whole
    assert same(load(folder), first)
    assert contents(cache_folder) == whole
    monkeypatch.setattr(loading_module, "read_all", None)
    assert same(load(folder), first)


def test_an_answer_counts_for_its_state_and_question_alone():
    assert load_answer(QUESTION, STATE) is None
    store_answer(QUESTION, STATE, {"x": [1]})
    assert load_answer(QUESTION, STATE) == {"x": [1]}
    assert load_answer(QUESTION, STATE | {"pillow": "1"}) is None
    assert load_answer(QUESTION | {"resolution": 3}, STATE) is None


def test_images_of_another_shape_are_none():
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    store_images(QUESTION, STATE, images)
    kept = load_images(QUESTION, STATE, (2, 3, 2, 2))
    assert kept is not None
    assert torch.equal(kept, images)
    assert load_images(QUESTION, STATE, (1, 3, 2, 2)) is None


def test_a_write_that_fails_leaves_the_old_entry(cache_folder, monkeypatch):
    store_images(QUESTION, STATE, torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    before = contents(cache_folder)

    def fail(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(cache_module.os, "fsync", fail)
    store_images(QUESTION, STATE, torch.ones(1, 3, 2, 2, dtype=torch.uint8))
    assert contents(cache_folder) == before


def test_between_the_images_and_their_note_a_crash_leaves_nothing_wrong(monkeypatch):
    store_images(QUESTION, STATE, torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "store_answer", lambda *_: None)
        store_images(QUESTION, STATE, torch.ones(1, 3, 2, 2, dtype=torch.uint8))
    assert load_images(QUESTION, STATE, (1, 3, 2, 2)) is None


def test_a_cache_that_cannot_be_written_is_none(folder, tmp_path, monkeypatch, capfd):
    first = load(folder)
    (tmp_path / "file").write_text("no folder")
    for impossible in (tmp_path / "file", tmp_path / "file/below"):
        monkeypatch.setenv("ABLATIONS_CACHE_DIR", str(impossible))
        for _ in range(2):
            assert same(load(folder), first)
    assert (tmp_path / "file").read_text() == "no folder"
    assert capfd.readouterr() == ("", "")


def test_the_cache_is_where_the_variable_says_else_in_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("ABLATIONS_CACHE_DIR", "somewhere")
    assert cache_directory() == Path("somewhere")
    monkeypatch.delenv("ABLATIONS_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache/pvt-ablations"


def test_who_has_no_home_has_no_cache(folder, monkeypatch):
    def no_home(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ABLATIONS_CACHE_DIR")
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert same(load(folder), load(folder))


@pytest.mark.parametrize("part", ["folder", "file"])
def test_what_another_user_can_write_is_not_believed(cache_folder, part):
    store_answer(QUESTION, STATE, "ours")
    assert load_answer(QUESTION, STATE) == "ours"
    (entry,) = cache_folder.iterdir()
    cache_folder.chmod(0o755)
    place = cache_folder if part == "folder" else entry
    place.chmod(0o777)
    assert load_answer(QUESTION, STATE) is None
    place.chmod(0o755)
    assert load_answer(QUESTION, STATE) == "ours"


def test_a_pipe_or_deep_note_in_the_cache_is_as_if_it_were_not_there(cache_folder):
    store_answer(QUESTION, STATE, "ours")
    (entry,) = cache_folder.iterdir()
    entry.write_text("[" * 100_000)
    assert load_answer(QUESTION, STATE) is None
    entry.unlink()
    os.mkfifo(entry)
    assert load_answer(QUESTION, STATE) is None
