"""The registry of data sets: describing needs no torch, and an entry is enough."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from ablations.data import registry
from ablations.data.loading import check_data, load_data, read_built_in
from ablations.data.registry import (
    DATA_SETS,
    LARGEST_CLASSES,
    SPLITS,
    DataSet,
    count_classes,
    data_directory,
    largest_class_share,
    list_data_sets,
)
from ablations.errors import InputError
from ablations.measure import Accuracy


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_reader_is_there(name: str) -> None:
    if reader := DATA_SETS[name].reader:
        module, _, function = reader.partition(":")
        assert callable(getattr(import_module(module), function))


def test_describing_imports_no_torch() -> None:
    code = "import sys; from ablations.data import registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_the_line_of_a_data_set_says_what_it_is_and_where() -> None:
    lines = list_data_sets()
    assert lines["digits"] == "1,797 hand-written digits of scikit-learn, 8 x 8 px, 10 classes; needs no files"
    expected = "60,000 images, 32 x 32 px, 100 classes; DIR/cifar-100-binary, else downloaded"
    assert lines["cifar100"] == expected
    assert lines["NAME"] == "any image folder: DIR/NAME/train/CLASS/* and DIR/NAME/val/CLASS/*"


@pytest.mark.parametrize("name", LARGEST_CLASSES)
def test_the_largest_class_is_counted_in_the_data(name: str, request: pytest.FixtureRequest) -> None:
    if name in DATA_SETS:
        directory = None if name == "digits" else request.getfixturevalue("shared_data")
        _, (_, labels) = read_built_in(name, data_directory(directory))
        images = labels.bincount().tolist()
    else:
        folder = request.getfixturevalue("shared_data") / name / "val"
        images = [len(list(each.iterdir())) for each in folder.iterdir()]
    assert LARGEST_CLASSES[name] == (max(images), sum(images))
    assert largest_class_share(name, sum(images), len(images)) == max(images) / sum(images)
    assert largest_class_share(name, sum(images) + 1, len(images)) == 1 / len(images)  # other images of that name


@pytest.mark.parametrize("name", DATA_SETS)
def test_training_images_and_classes_are_counted_in_the_data(name: str, request: pytest.FixtureRequest) -> None:
    known = DATA_SETS[name]
    in_files = bool(known.folder or not known.reader)
    directory = request.getfixturevalue("shared_data") if in_files else data_directory(None)
    if in_files and not (directory / (known.folder or name)).is_dir():
        pytest.skip(f"no images of {name} here")
    if known.reader:
        (_, labels), (_, others) = read_built_in(name, directory)
        train, validation = labels.bincount().tolist(), others.bincount().tolist()
    else:
        parts = ([*(directory / name / part).iterdir()] for part in SPLITS)
        train, validation = ([len([*each.iterdir()]) for each in folders] for folders in parts)
    assert (sum(train), len(train), len(validation)) == (known.train_images, known.num_classes, known.num_classes)
    if known.reader:
        assert known.description.startswith(f"{sum(train) + sum(validation):,} ")


def test_classes_are_known_or_counted(tmp_path: Path) -> None:
    assert [count_classes(name, tmp_path) for name in ("digits", "cifar100", "imagenet")] == [10, 100, 1000]
    for name in "abc":
        (tmp_path / "own" / "train" / name).mkdir(parents=True)
    assert count_classes("own", tmp_path) == 3
    with pytest.raises(InputError, match="data='nowhere' is not possible; allowed: digits, fashion-mnist, cifar10, ci"):
        count_classes("nowhere", tmp_path)
    with pytest.raises(InputError, match=r"or more \(did you mean 'own'\?\)$"):
        count_classes("owns", tmp_path)
    (tmp_path / "owns" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match=r"or more \(did you mean 'own'\?\)$"):
        count_classes("owns", tmp_path)  # it is there, and has no classes
    with pytest.raises(InputError, match=r"or more$"):
        count_classes("imagenett", tmp_path)  # imagenet has no folder here


def read_stripes(name: str, directory: Path) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    labels = torch.arange(12) % 3
    images = (labels * 80).to(torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16)
    return (images, labels), (images[:3], labels[:3])


def test_a_new_data_set_is_one_entry_and_its_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = DataSet(
        description="stripes", num_classes=3, reader=f"{__name__}:read_stripes", may_flip=False, train_images=6
    )
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setitem(DATA_SETS, "stripes", entry)
    conditions = Accuracy(data="stripes", num_classes=3, resolution=32, train_images=6)
    check_data("stripes", 3, tmp_path)
    data = load_data(conditions, tmp_path)
    assert (data.train_images.shape, data.eval_images.shape) == ((6, 3, 32, 32), (3, 3, 32, 32))
    assert (data.may_flip, count_classes("stripes", tmp_path)) == (False, 3)
    assert "stripes" in list_data_sets()
    assert "stripes" in registry.built_in_names()
    with pytest.raises(InputError, match="num_classes=4 is not possible; allowed: 3, which stripes has"):
        check_data("stripes", 4, tmp_path)
