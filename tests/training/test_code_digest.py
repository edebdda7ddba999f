"""The digest of the code that trains: what changes it and what does not."""

import os
import shutil
from pathlib import Path

import pytest

from ablations.data.registry import DATA_SETS, DataSet
from ablations.training import resume
from ablations.training.resume import training_code_digest

OTHERS = ("cli.py", "records/table.py", "cost.py", "report/page.py", "measure/macs.py", *resume.BESIDE_TRAINING)
TRAINING = (
    *("config.py", "recipes.py", "dense_recipes.py", "measure/accuracy.py", "measure/network.py"),
    *("measure/measurement.py", "measure/dense.py", "measure/detection.py", "measure/segmentation.py"),
    *("model/pvt.py", "heads/detection.py", "data/augmentation.py", "data/digits.py", "training/loop.py"),
)
REGISTRIES = ("data/registry.py", "data/dense_registry.py")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of parts of the package, which the digest is taken of."""
    copy = tmp_path / "ablations"
    for file in (*OTHERS, *TRAINING, "model/tokens.py", "baselines/cpvt.py", *REGISTRIES, "data/cifar.py"):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(resume.PACKAGE / file, copy / file)
    monkeypatch.setattr(resume, "PACKAGE", copy)
    return copy


def digest(folder: Path | None = None, *, data: str = "digits", baselines: bool = False) -> str:
    training_code_digest.cache_clear()
    return training_code_digest(data, folder, baselines=baselines)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@pytest.mark.parametrize("file", OTHERS)
def test_code_that_does_not_train_does_not_count(package: Path, file: str) -> None:
    before = digest()
    append(package / file, "\nNEW = 1\n")
    assert digest() == before


@pytest.mark.parametrize("file", TRAINING)
def test_code_that_trains_counts(package: Path, file: str) -> None:
    before = digest()
    append(package / file, "\nNEW = 1\n")
    assert digest() != before


def test_comments_docstrings_and_layout_do_not_count(package: Path) -> None:
    before, file = digest(), package / "model" / "pvt.py"
    append(file, '\n# A comment.\n\n\n"""Said of what stands above."""\n')
    assert digest() == before
    source = file.read_text()
    start = source.index('"""')
    file.write_text(source[:start] + '"""Another docstring.' + source[source.index('"""', start + 3) :])
    assert digest() == before
    file.write_text(file.read_text().replace("+ ", "- ", 1))
    assert digest() != before


@pytest.mark.parametrize(
    ("file", "caption"),
    [
        ("config.py", "Overlapping patch embedding"),
        ("data/registry.py", "1,797 hand-written digits"),
        ("measure/accuracy.py", "Mean cross-entropy over the validation images."),
        ("recipes.py", "more than 0, up to 1"),
    ],
)
def test_texts_for_people_do_not_count(package: Path, file: str, caption: str) -> None:
    before, source = digest(), (package / file).read_text()
    assert caption in source
    (package / file).write_text(source.replace(caption, "Other words"))
    assert digest() == before


def test_a_flag_beside_a_caption_counts(package: Path) -> None:
    before, file = digest(), package / "data" / "registry.py"
    file.write_text(file.read_text().replace("may_flip=False", "may_flip=True"))
    assert digest() != before


@pytest.mark.slow
@pytest.mark.parametrize(("file", "entries"), [("registry", "DATA_SETS: "), ("dense_registry", "DENSE_SETS: ")])
def test_a_data_set_counts_where_it_is_trained_on(
    package: Path, monkeypatch: pytest.MonkeyPatch, file: str, entries: str
) -> None:
    entry = DataSet(description="stripes", num_classes=3, reader="ablations.data.stripes:read_stripes", train_images=6)
    sets = ("digits", "cifar10", "coco", "imagenette224", "stripes")
    before = {data: digest(data=data) for data in sets}
    registry = package / "data" / f"{file}.py"
    lines = registry.read_text().splitlines()
    (place,) = (place for place, line in enumerate(lines) if line.startswith(entries))
    lines.insert(place + 1, '    "stripes": DataSet(description="stripes", num_classes=3, train_images=6),')
    registry.write_text("\n".join(lines))
    monkeypatch.setitem(DATA_SETS, "stripes", entry)
    (package / "data" / "stripes.py").write_text("def read_stripes(): ...\n")
    assert {data for data in sets if digest(data=data) != before[data]} == {"stripes"}


def test_the_reader_of_another_data_set_does_not_count(package: Path) -> None:
    before = {data: digest(data=data) for data in DATA_SETS}
    append(package / "data" / "cifar.py", "\nNEW = 1\n")
    assert {data for data in DATA_SETS if digest(data=data) != before[data]} == {"cifar10", "cifar100"}


def test_a_new_or_renamed_file_counts(package: Path) -> None:
    before = digest()
    (package / "model" / "tokens.py").rename(package / "model" / "token.py")
    assert digest() != before


def test_baselines_count_where_a_baseline_trains(package: Path) -> None:
    before = digest(), digest(baselines=True)
    append(package / "baselines" / "cpvt.py", "\nNEW = 1\n")
    assert digest() == before[0] != before[1]
    assert digest(baselines=True) != before[1]


def test_a_users_folder_counts_byte_by_byte(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "model.py").write_text("x = 1\n")
    (folder / "notes.txt").write_text("first")
    before = digest(folder)
    assert before != digest()
    (folder / "notes.txt").write_text("second")
    assert digest(folder) == before
    (folder / "model.py").write_text("x = 1  # one\n")
    assert digest(folder) != before


def test_a_users_file_may_have_a_name_that_is_not_utf_8(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    before = digest(folder)
    try:
        (folder / os.fsdecode(b"stra\xdfe.py")).write_text("x = 1\n")
    except OSError:
        pytest.skip("the file system takes no such name")
    assert digest(folder) != before
