"""Data sets: what is loaded, from where, and what is refused."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2.functional import to_pil_image

from ablations.data import loading as loading_module
from ablations.data.augmentation import normalise
from ablations.data.loading import _load, check_data, data_digest, load_data, load_eval_images
from ablations.data.registry import count_classes, data_directory
from ablations.data.splits import StreamingData
from ablations.data.stream import stream_eval
from ablations.errors import InputError
from ablations.measure import Accuracy

FOLDER = Accuracy(data="shapes", num_classes=2, resolution=32)


def write_folder(root: Path, image: torch.Tensor, classes: tuple[str, ...] = ("circle", "square")) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                to_pil_image(image).save(root / split / name / f"{index}.png")


def test_grey_images_are_normalised_by_the_training_images_and_given_to_three_channels():
    data = load_data(Accuracy(train_images=200), None)
    images = normalise(data.train_images, data.mean, data.std)
    assert images.shape == (200, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images[:, 0], images[:, 2])
    assert images.mean().abs() < 1e-4
    assert (images.std(correction=0) - 1).abs() < 1e-4


def test_the_subset_is_the_same_for_every_training_seed():
    first, second = (load_data(Accuracy(train_images=50, seed=seed), None) for seed in (0, 1))
    assert torch.equal(first.train_images, second.train_images)
    assert torch.bincount(first.train_labels).tolist() == [5] * 10
    assert len(first.eval_labels) == 360


def test_an_image_folder_is_resized_by_its_short_side_and_cropped_to_the_centre(tmp_path):
    image = torch.zeros(3, 32, 96, dtype=torch.uint8)  # a flag: red, green, blue
    for stripe in range(3):
        image[stripe, :, 32 * stripe : 32 * stripe + 32] = 200
    write_folder(tmp_path / "shapes", image)
    data = load_data(FOLDER, tmp_path)
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.eval_labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(data.train_images, image[:, :, 32:64].expand(6, -1, -1, -1)), "a short side of 32 is kept"
    # For validation 32 pixels become 36, of which the middle 32 are seen: no red or blue, but for the filter's reach.
    assert data.eval_images.shape == (4, 3, 32, 32)
    assert (data.eval_images[:, 1, :, 1:-1] > 190).all()
    assert (data.eval_images[:, [0, 2], :, 1:-1] < 10).all()


def test_validation_crops_images_that_have_the_resolution_already(tmp_path):
    image = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    image[:, :1] = 0  # 1 of 32 pixels is 1.1 of 36, and the crop drops 2
    write_folder(tmp_path / "shapes", image)
    data = load_data(FOLDER, tmp_path)
    assert (data.train_images[:, :, 0] == 0).all()
    assert (data.eval_images > 230).all()


@pytest.mark.parametrize("resolution", [64, 96, 160])
def test_in_memory_and_streaming_images_are_cropped_alike(tmp_path, resolution):
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (3, 40, 60), generator=random, dtype=torch.uint8)
    write_folder(tmp_path / "shapes", noise)
    conditions = replace(FOLDER, resolution=resolution)
    in_memory = load_data(conditions, tmp_path).eval_images
    streaming = load_data(replace(conditions, loading="streaming"), tmp_path)
    assert isinstance(streaming, StreamingData)
    ((shown, _),) = stream_eval(streaming, conditions, torch.arange(4), workers=1)
    # Resizing bytes and Pillow's differ by a level at most; a short side longer by a pixel makes tens of it.
    assert (shown.int() - in_memory.int()).abs().max() <= 1


def test_a_folder_with_grey_images_and_other_files(tmp_path):
    write_folder(tmp_path / "shapes", torch.full((1, 32, 32), 77, dtype=torch.uint8))
    (tmp_path / "shapes/train/circle/notes.txt").write_text("no image")
    to_pil_image(torch.full((3, 32, 32), 77, dtype=torch.uint8)).save(tmp_path / "shapes/val/square/last.JPEG")
    data = load_data(replace(FOLDER, train_images=2), tmp_path)
    assert data.train_labels.tolist() == [0, 1]
    assert data.eval_labels.tolist() == [0, 0, 1, 1, 1]
    assert (data.train_images == 77).all()
    assert ((data.eval_images.int() - 77).abs() <= 1).all()
    assert data.train_images.shape[1] == 3


def break_missing(root: Path) -> None:
    (root / "shapes").rename(root / "other")


def break_no_val(root: Path) -> None:
    (root / "shapes/val").rename(root / "shapes/valid")


def break_no_classes(root: Path) -> None:
    (root / "shapes/val").rename(root / "shapes/valid")
    (root / "shapes/val").mkdir()


def break_empty_val(root: Path) -> None:
    for path in (root / "shapes/val").glob("*/*"):
        path.unlink()


def break_no_folder(root: Path) -> None:
    break_missing(root)
    (root / "shapes").write_text("no folder")


def break_other_class(root: Path) -> None:
    (root / "shapes/val/square").rename(root / "shapes/val/triangle")


def break_empty_class(root: Path) -> None:
    for path in (root / "shapes/train/square").iterdir():
        path.rename(path.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            break_missing,
            "data='shapes' is not possible; allowed: digits, fashion-mnist, cifar10, cifar100, or an image .*{root}",
        ),
        (break_no_val, "{root}/shapes/val is missing or has no class folders"),
        (break_no_classes, "{root}/shapes/val is missing or has no class folders"),
        (break_empty_val, "{root}/shapes/val has no images .* of class circle, square"),
        (break_no_folder, "data='shapes' is not possible; allowed: digits"),
        (break_other_class, "train and val must have the same classes; only one of them has square, triangle"),
        (break_empty_class, "{root}/shapes/train has no images .* of class square"),
    ],
)
def test_a_folder_that_is_not_laid_out_as_it_must_be_is_one_line(tmp_path, break_it, message):
    write_folder(tmp_path / "shapes", torch.zeros(3, 4, 4, dtype=torch.uint8))
    check_data("shapes", 2, tmp_path)
    break_it(tmp_path)
    with pytest.raises(InputError, match=message.format(root=tmp_path)) as caught:
        check_data("shapes", 2, tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError):
        load_data(FOLDER, tmp_path)


def break_images(root: Path, *names: str) -> None:
    for name in names:
        (root / "shapes" / name).write_bytes((root / "shapes" / name).read_bytes()[:40])


def test_images_that_cannot_be_read_are_counted_and_the_first_is_named(tmp_path):
    write_folder(tmp_path / "shapes", torch.zeros(3, 4, 4, dtype=torch.uint8))
    break_images(tmp_path, "train/square/1.png", "train/square/2.png", "val/circle/0.png")
    expected = r"^3 of 10 images cannot be read, first train/square/1\.png \(.*\); mend or .* by --skip-unreadable"
    for _ in range(2):  # what could be read does not make it sound the second time
        with pytest.raises(InputError, match=expected) as caught:
            load_data(FOLDER, tmp_path)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


def test_images_that_cannot_be_read_are_left_out_on_request_and_named(tmp_path):
    write_folder(tmp_path / "shapes", torch.full((3, 32, 32), 9, dtype=torch.uint8))
    skipping = replace(FOLDER, skip_unreadable=True)
    assert load_data(skipping, tmp_path).skipped == ()
    _load.cache_clear()
    break_images(tmp_path, "val/circle/0.png", "train/square/1.png")
    data = load_data(skipping, tmp_path)
    assert data.skipped == ("train/square/1.png", "val/circle/0.png")
    assert (data.train_labels.tolist(), data.eval_labels.tolist()) == ([0, 0, 0, 1, 1], [0, 1, 1])
    assert (len(data.train_images), len(data.eval_images)) == (5, 3)
    assert (data.train_images == 9).all()
    assert data.to("cpu").skipped == data.skipped
    # A subset is drawn from what is left.
    assert load_data(replace(skipping, train_images=4), tmp_path).train_labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(InputError, match=r"train_images=6 .* a multiple of 2 up to 4"):
        load_data(replace(skipping, train_images=6), tmp_path)


def test_a_class_that_is_left_without_images_is_refused(tmp_path):
    write_folder(tmp_path / "shapes", torch.zeros(3, 4, 4, dtype=torch.uint8))
    break_images(tmp_path, "val/square/0.png", "val/square/1.png")
    for loading in ("in-memory", "streaming"):
        with pytest.raises(InputError, match=r"^val has no images that can be read of class square$"):
            load_data(replace(FOLDER, skip_unreadable=True, loading=loading), tmp_path)


def test_the_number_of_classes_must_be_the_data_sets(tmp_path):
    write_folder(tmp_path / "shapes", torch.zeros(3, 4, 4, dtype=torch.uint8), ("a", "b", "c"))
    with pytest.raises(InputError, match="num_classes=100 is not possible; allowed: 10, which digits has"):
        load_data(Accuracy(num_classes=100), None)
    with pytest.raises(InputError, match="num_classes=2 is not possible; allowed: 3, which shapes has"):
        load_data(FOLDER, tmp_path)
    check_data("digits", 10, None)
    check_data("shapes", 3, tmp_path)


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_data_that_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch, name):
    write_folder(tmp_path / "shapes", torch.zeros(3, 4, 4, dtype=torch.uint8))
    conditions = Accuracy(data=name, num_classes={"digits": 10, "shapes": 2}[name], resolution=33)
    images = {"digits": 1797, "shapes": 3 * 10}[name]  # grey ones keep one channel
    way_out = "loading=streaming reads them" if name == "shapes" else "a lower resolution fits"
    monkeypatch.setattr(loading_module, "physical_memory_bytes", lambda: 2 * images * 33 * 33 - 2)
    with pytest.raises(InputError, match=f"resolution=33 need .*; {way_out}"):
        load_data(conditions, tmp_path)
    if name == "shapes":
        assert len(load_data(replace(conditions, loading="streaming"), tmp_path).train_paths) == 6
    monkeypatch.setattr(loading_module, "physical_memory_bytes", lambda: 2 * images * 33 * 33)
    load_data(conditions, tmp_path)


def test_the_machine_has_memory():
    assert loading_module.physical_memory_bytes() > 2**28


def test_the_data_directory_is_the_argument_else_the_variable_else_data(monkeypatch):
    monkeypatch.setenv("ABLATIONS_DATA_DIR", "elsewhere")
    assert data_directory(Path("given")) == Path("given")
    assert data_directory(None) == Path("elsewhere")
    monkeypatch.delenv("ABLATIONS_DATA_DIR")
    assert data_directory(None) == Path("data")


def test_the_same_set_is_read_once_and_another_one_again(tmp_path):
    write_folder(tmp_path / "shapes", torch.zeros(3, 4, 4, dtype=torch.uint8))
    data = load_data(FOLDER, tmp_path)
    assert load_data(replace(FOLDER, seed=3, epochs=5), tmp_path) is data
    assert load_data(replace(FOLDER, resolution=33), tmp_path).train_images.shape[-1] == 33


def rename(root: Path) -> None:
    (root / "train/circle/0.png").rename(root / "train/circle/9.png")


def move_to_another_class(root: Path) -> None:
    (root / "val/circle/0.png").rename(root / "val/square/9.png")


def lengthen(root: Path) -> None:
    with (root / "val/circle/0.png").open("ab") as file:
        file.write(b"0")


def add_below(root: Path) -> None:
    (root / "train/circle/more").mkdir()
    (root / "train/circle/more/0.JPEG").write_bytes(b"")


def add_link_to_nothing(root: Path) -> None:
    (root / "train/circle/9.png").symlink_to("9.png")


@pytest.mark.parametrize("change", [rename, move_to_another_class, lengthen, add_below, add_link_to_nothing])
def test_a_folder_is_told_from_another_by_its_images_paths_and_sizes(tmp_path, change):
    write_folder(tmp_path / "shapes", torch.zeros(3, 4, 4, dtype=torch.uint8))
    digest = data_digest("shapes", tmp_path)
    change(tmp_path / "shapes")
    changed = data_digest("shapes", tmp_path)
    assert changed is not None
    assert changed != digest


def test_times_places_and_what_is_no_image_of_a_class_do_not_count(tmp_path, monkeypatch):
    write_folder(tmp_path / "shapes", torch.zeros(3, 4, 4, dtype=torch.uint8))
    digest = data_digest("shapes", tmp_path)
    assert len(digest) == 64
    os.utime(tmp_path / "shapes/train/circle/0.png", (1, 1))
    for name in ("train/circle/notes.txt", "train/0.png", "0.png"):
        (tmp_path / "shapes" / name).write_bytes(b"no image of a class")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "shapes").rename(tmp_path / "elsewhere/shapes")
    assert data_digest("shapes", tmp_path / "elsewhere") == digest
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert data_digest("shapes", Path()) == digest


def test_what_evaluate_reads_has_a_digest_of_its_own_in_either_layout(tmp_path):
    root = tmp_path / "shapes"
    write_folder(root, torch.zeros(3, 4, 4, dtype=torch.uint8))
    digest = data_digest("shapes", tmp_path, val_only=True)
    assert digest not in (None, data_digest("shapes", tmp_path))
    assert data_digest("shapes/val", tmp_path, val_only=True) == digest
    rename(root)
    assert data_digest("shapes", tmp_path, val_only=True) == digest
    lengthen(root)
    assert data_digest("shapes", tmp_path, val_only=True) != digest


def test_what_is_built_in_or_not_there_has_no_digest(tmp_path):
    write_folder(tmp_path / "shapes", torch.zeros(3, 4, 4, dtype=torch.uint8))
    (tmp_path / "shapes/train").rename(tmp_path / "shapes/other")
    (tmp_path / "digits").symlink_to("shapes")
    assert [data_digest(name, tmp_path) for name in ("digits", "cifar10", "shapes", "nowhere")] == [None] * 4
    assert data_digest("nowhere", tmp_path, val_only=True) is None
    # Only training knows built-in sets: to evaluate, the name is a folder's.
    assert data_digest("digits", tmp_path, val_only=True) == data_digest("shapes", tmp_path, val_only=True)
    assert data_digest("digits", tmp_path, val_only=True) is not None


def test_tuning_images_are_evaluated_on_instead_of_the_validation_images_and_never_trained_on():
    plain, tuning = (load_data(Accuracy(tuning_images=count), None) for count in (0, 200))
    assert (len(tuning.train_labels), len(tuning.eval_labels)) == (1237, 200)
    assert torch.bincount(tuning.eval_labels).tolist() == [20] * 10
    train, own, validation = (
        {image.numpy().tobytes() for image in images}
        for images in (tuning.train_images, tuning.eval_images, plain.eval_images)
    )
    assert train | own == {image.numpy().tobytes() for image in plain.train_images}
    assert train & own == set()
    assert own & validation == set()
    assert torch.equal(load_eval_images(Accuracy(tuning_images=200), None), tuning.eval_images)
    for count in (50, 500):
        smaller = load_data(Accuracy(tuning_images=200, train_images=count, seed=count), None)
        assert torch.equal(smaller.eval_images, tuning.eval_images)
        assert {image.numpy().tobytes() for image in smaller.train_images} < train
    with pytest.raises(InputError, match=r"tuning_images=15 is not possible; allowed: 0 for all 1437, or a multiple"):
        load_data(Accuracy(tuning_images=15), None)


@pytest.mark.parametrize("loading", ["in-memory", "streaming"])
def test_with_tuning_images_the_validation_images_of_a_folder_are_not_read(tmp_path, loading):
    for split, count in (("train", 5), ("val", 2)):
        for level, name in enumerate(("circle", "square")):
            (tmp_path / "shapes" / split / name).mkdir(parents=True)
            for index in range(count):
                image = torch.full((3, 32, 32), 100 * level + index, dtype=torch.uint8)
                to_pil_image(image).save(tmp_path / "shapes" / split / name / f"{index}.png")
    for path in (tmp_path / "shapes/val").glob("*/*"):
        path.write_text("no image")
    seen = []
    for train_images in (0, 2, 6):
        conditions = replace(FOLDER, tuning_images=4, train_images=train_images, loading=loading)
        data = load_data(conditions, tmp_path)
        images = load_eval_images(conditions, tmp_path)
        levels = images.float().mean(dim=(1, 2, 3)).round().int().tolist()
        assert [level // 100 for level in levels] == data.eval_labels.tolist() == [0, 0, 1, 1]
        assert len(data.train_labels) == (train_images or 6)
        if isinstance(data, StreamingData):
            assert not {*data.train_paths} & {*data.eval_paths}
            assert not any("/val/" in path for path in data.eval_paths)
            ((shown, _),) = stream_eval(data, conditions, torch.arange(4), workers=1)
        else:
            shown = data.eval_images
            assert not {*levels} & {*data.train_images.float().mean(dim=(1, 2, 3)).int().tolist()}
        assert torch.equal(shown, images)
        seen.append(levels)
    assert seen[0] == seen[1] == seen[2], "always the same ones"


def test_what_was_left_out_is_said_once_and_counts_nowhere(tmp_path, capsys):
    root = tmp_path / "shapes"
    write_folder(root, torch.full((3, 32, 32), 9, dtype=torch.uint8))
    digest, classes = data_digest("shapes", tmp_path), count_classes("shapes", tmp_path)
    for name in ("train/.ipynb_checkpoints/0.png", "train/circle/._0.png", "val/@eaDir/0.png", "val/circle/Thumbs.db"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"no image")
    (root / "val/circle/again").symlink_to(".")
    check_data("shapes", 2, tmp_path)
    assert capsys.readouterr().err.splitlines() == [
        f"note: {root}/train: left out 2 hidden or the system's (.ipynb_checkpoints, circle/._0.png)",
        f"note: {root}/val: left out 2 hidden or the system's (@eaDir, circle/Thumbs.db); "
        "1 a link to a folder that counts already (circle/again)",
    ]
    assert (data_digest("shapes", tmp_path), count_classes("shapes", tmp_path)) == (digest, classes)
    data = load_data(FOLDER, tmp_path)
    assert (len(data.train_labels), len(data.eval_labels)) == (6, 4)


def test_images_whose_names_are_not_utf_8_are_read_and_named_in_text(tmp_path):
    root = tmp_path / "shapes"
    write_folder(root, torch.full((3, 32, 32), 9, dtype=torch.uint8))
    strange = root / "train/circle" / os.fsdecode(b"caf\xe9.png")
    (root / "train/circle/0.png").rename(strange)
    assert (load_data(FOLDER, tmp_path).train_images == 9).all()
    strange.write_bytes(b"no image")
    _load.cache_clear()
    with pytest.raises(InputError, match=r"first train/circle/caf\\udce9\.png"):
        load_data(FOLDER, tmp_path)
    (skipped,) = load_data(replace(FOLDER, skip_unreadable=True), tmp_path).skipped
    assert skipped.encode() == rb"train/circle/caf\udce9.png"


@pytest.mark.slow
def test_a_strip_takes_no_more_memory_than_its_middle(tmp_path):
    write_folder(tmp_path / "shapes", torch.full((3, 32, 32), 9, dtype=torch.uint8))
    to_pil_image(torch.full((1, 1, 60_000), 9, dtype=torch.uint8)).save(tmp_path / "shapes/val/circle/strip.png")
    code = (
        "import re, sys; from pathlib import Path; from ablations.measure import Accuracy; "
        "from ablations.data.loading import load_data; from ablations.data.stream import stream_eval; import torch; "
        "in_memory, streamed = [Accuracy(data='shapes', num_classes=2, resolution=224, loading=loading) "
        "for loading in ('in-memory', 'streaming')]; load_data(in_memory, Path(sys.argv[1])); "
        "data = load_data(streamed, Path(sys.argv[1])); list(stream_eval(data, streamed, torch.arange(5), 1)); "
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)"
    )
    # Its own peak: getrusage's may be that of the process which started it.
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2000  # MiB; it took 13,000
