"""Streaming images: each by its own seed alone, in order, and faults in one line."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms.v2.functional import hflip, pil_to_tensor

from ablations.data import loading as loading_module
from ablations.data import stream as stream_module
from ablations.data.loading import load_data
from ablations.data.protocols import build_transform
from ablations.data.splits import StreamingData
from ablations.data.stream import build_augmentation, drawn_from, stream_eval, stream_images
from ablations.errors import InputError
from ablations.measure import Accuracy

CONDITIONS = Accuracy(
    data="noise", num_classes=2, resolution=32, loading="streaming", batch_size=4, rand_augment="rand-m9-mstd0.5-inc1"
)
ORDER = torch.tensor([3, 0, 7, 7, 1, 2, 6, 5, 4, 0])
SEEDS = torch.tensor([11, 2**62 - 1, 5, 6, 0, 2**33, 9, 8, 7, 12])

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core


@pytest.fixture(autouse=True, scope="module")
def no_reader_stays() -> Iterator[None]:
    yield
    stream_module._idle.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = torch.Generator().manual_seed(0)
    for split, count in (("train", 4), ("val", 3)):
        for name in "ab":
            (tmp_path / "noise" / split / name).mkdir(parents=True)
            for index in range(count):
                levels = torch.randint(256, (9, 8, 3), generator=noise, dtype=torch.uint8)
                image = Image.fromarray(levels.numpy()).resize((60, 50))
                image.save(tmp_path / "noise" / split / name / f"{index}.png")
    return tmp_path


def load(folder: Path, conditions: Accuracy = CONDITIONS) -> StreamingData:
    loading_module._load.cache_clear()
    data = load_data(conditions, folder)
    assert isinstance(data, StreamingData)
    return data


def stream(data: StreamingData, size: int, workers: int, conditions: Accuracy = CONDITIONS) -> torch.Tensor:
    parts = stream_images(data, ORDER.split(size), seeds=SEEDS.split(size), conditions=conditions, workers=workers)
    return torch.cat([part.clone() for part in parts])


def test_data_is_paths_and_labels_and_nothing_is_decoded(folder):
    for path in (folder / "noise").glob("*/*/1.png"):
        path.write_text("no image")
    data = load(folder, replace(CONDITIONS, train_images=6))
    names = [Path(path).relative_to(folder / "noise").as_posix() for path in data.train_paths]
    assert names == sorted(names)
    assert len(set(names)) == 6
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [Path(path).parent.name for path in data.train_paths] == list("aaabbb")
    assert data.eval_paths == tuple(
        str(folder / f"noise/val/{name}/{index}.png") for name in "ab" for index in range(3)
    )
    assert (data.train_labels.dtype, data.may_flip, data.skipped) == (torch.int64, True, ())
    assert data.mean.shape == data.std.shape == (3,)


def test_a_subset_is_the_one_in_memory(folder):
    conditions = replace(CONDITIONS, train_images=4, rand_augment="")
    in_memory = load_data(replace(conditions, loading="in-memory"), folder)
    streaming = load(folder, conditions)
    images = torch.stack([pil_to_tensor(Image.open(path)) for path in streaming.train_paths])
    assert torch.equal(streaming.train_labels, in_memory.train_labels)
    # Of noise, the mean of an image tells which it is.
    means = [images.float().mean(dim=(1, 2, 3)) for images in (images, in_memory.train_images)]
    torch.testing.assert_close(*means, atol=4, rtol=0)


def test_tensors_move_to_a_device_and_paths_stay(folder):
    data = load(folder)
    moved = data.to("meta")
    assert {moved.train_labels.device.type, moved.eval_labels.device.type, moved.mean.device.type} == {"meta"}
    assert moved.train_paths == data.train_paths


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "cifar10", "cifar100"])
def test_built_in_sets_are_not_streamed(tmp_path, name):
    with pytest.raises(InputError, match=f"loading='streaming' is not possible; allowed: in-memory for {name}"):
        load_data(Accuracy(data=name, loading="streaming"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        *("rand-q9", "augmix-m5", "v0", "random", "rand-m", "rand-mX", "rand-m9-qq", "rand-m9-", "rand-m9.5", "rand-9"),
        *("rand-mstd", "rand-m9-mstdinf", "rand-p.5", "rand-inc", "rand-inc2", "rand-t", "rand-t0", "rand-w0", "-m9"),
        *("rand-m-9", "rand-m9x", "rand-M9", "rand m9", "rand-n2.5"),
    ],
)
def test_an_unknown_rand_augment_is_refused_before_anything_is_read(tmp_path, words):
    with pytest.raises(
        InputError, match=f"rand_augment='{words}' is not possible; allowed: RandAugment in t"
    ) as caught:
        load_data(replace(CONDITIONS, rand_augment=words), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_word_that_is_not_known_is_named(tmp_path):
    with pytest.raises(InputError, match=r"rand_augment='rand-m9-qq' .*, and not 'qq'$"):
        load_data(replace(CONDITIONS, rand_augment="rand-m9-qq"), tmp_path)


def test_a_weighted_set_has_only_so_many_operations(tmp_path):
    for words in ("rand-n99-tweights", "rand-t3aw-n99"):
        with pytest.raises(InputError, match=f"rand_augment='{words}' is not possible; allowed: n up to "):
            load_data(replace(CONDITIONS, rand_augment=words), tmp_path)


@pytest.mark.parametrize(
    ("words", "layers", "probability", "magnitude", "deviation", "most"),
    [
        ("rand", 2, 0.5, 10, 0, None),
        ("rand-m9-mstd0.5-inc1", 2, 0.5, 9, 0.5, None),
        ("rand-n3-p0.25-inc0-m7", 3, 0.25, 7, 0, None),
        ("rand-m15-mmax20-mstd101-tweights", 2, 0.5, 15, float("inf"), 20),
        ("rand-m5-p1-t3a", 2, 1, 5, 0, None),
        ("rand-m5-t3aw", 2, 0.5, 5, 0, None),
    ],
)
def test_each_word_means_what_it_does_in_timm(words, layers, probability, magnitude, deviation, most):
    transform = build_augmentation(replace(CONDITIONS, rand_augment=words), may_flip=True)
    (augment,) = (step for step in transform.transforms if hasattr(step, "ops"))
    assert augment.num_layers == layers
    for operation in augment.ops:
        assert (operation.prob, operation.magnitude) == (probability, magnitude)
        assert (operation.magnitude_std, operation.magnitude_max) == (deviation, most)
    assert (augment.choice_weights is not None) == words.endswith(("weights", "w"))


@pytest.mark.slow
def test_neither_workers_nor_batches_change_an_image(folder):
    data = load(folder)
    expected = stream(data, 10, workers=0)
    assert (expected.shape, expected.dtype) == ((10, 3, 32, 32), torch.uint8)
    for size, workers in ((1, 0), (3, 0), (4, 1), (3, 2)):
        assert torch.equal(stream(data, size, workers), expected)


def test_an_image_is_timms_by_its_own_seed(folder):
    data = load(folder)
    shown = stream(data, 5, workers=0)
    transform = create_transform(
        (3, 32, 32),
        True,
        scale=(0.35, 1),
        auto_augment=CONDITIONS.rand_augment,
        interpolation="bicubic",
        normalize=False,
    )
    for place, (index, seed) in enumerate(zip(ORDER.tolist(), SEEDS.tolist(), strict=True)):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002, timm draws from it
        torch.manual_seed(seed)
        assert torch.equal(shown[place], transform(Image.open(data.train_paths[index]).convert("RGB")))
    assert not torch.equal(shown[2], shown[3]), "one image by two seeds"


def draw() -> list[float]:
    return [random.random(), np.random.random(), torch.rand(1).item()]  # noqa: NPY002


@pytest.mark.parametrize("workers", [0, 2])
def test_the_generators_of_the_process_are_left_as_they_were(folder, workers):
    data = load(folder)
    with drawn_from(3):
        expected = draw()
    with drawn_from(3):
        images = stream_images(data, ORDER.split(3), seeds=SEEDS.split(3), conditions=CONDITIONS, workers=workers)
        next(images)
        assert draw() == expected
        images.close()


def test_a_seed_draws_the_same_whatever_was_drawn_before_and_outside_nothing_changes():
    with drawn_from(4):
        first = draw()
    with drawn_from(5):
        draw()
        with suppress(KeyError), drawn_from(4):
            assert draw() == first
            raise KeyError
        after = draw()
    assert after != first
    with drawn_from(5):
        draw()
        assert draw() == after


def test_without_rand_augment_a_whole_crop_is_the_image_or_its_mirror(tmp_path):
    image = Image.effect_noise((40, 40), 90).convert("RGB")
    conditions = replace(CONDITIONS, rand_augment="", min_crop_scale=1.0, resolution=20)
    small = pil_to_tensor(image.resize((20, 20), Image.Resampling.BICUBIC))
    seen = []
    for may_flip in (True, False):
        transform = build_augmentation(conditions, may_flip=may_flip)
        for seed in range(12):
            with drawn_from(seed):
                shown = transform(image)
            seen.append((may_flip, [torch.equal(shown, small), torch.equal(shown, hflip(small))].index(True)))
    assert set(seen) == {(True, 0), (True, 1), (False, 0)}


def test_a_crop_keeps_the_least_area(tmp_path):
    ramp = torch.arange(256, dtype=torch.uint8).expand(3, 256, 256)  # its levels tell how wide the crop was
    image = Image.fromarray(ramp.permute(1, 2, 0).numpy())
    widths = {}
    for least in (0.08, 0.9):
        transform = build_augmentation(replace(CONDITIONS, rand_augment="", min_crop_scale=least), may_flip=True)
        shown = [transform(image) for _ in range(40)]
        widths[least] = min((int(levels.max()) - int(levels.min())) / 256 for levels in shown)
    assert widths[0.08] < 0.6
    assert widths[0.9] > 0.75  # 0.9 of the area at 3:4 is 0.82 of the width, less what resizing takes


@pytest.mark.parametrize("words", ["rand-m10-inc1", "rand-m0"])
def test_posterize_at_its_strongest_keeps_a_bit(words):
    transform = build_augmentation(replace(CONDITIONS, rand_augment=words), may_flip=True)
    (augment,) = (step for step in transform.transforms if hasattr(step, "ops"))
    (operation,) = (operation for operation in augment.ops if operation.name.startswith("Posterize"))
    operation.prob = 1.0
    ramp = Image.fromarray(torch.arange(256, dtype=torch.uint8).expand(8, 256).numpy()).convert("RGB")
    assert pil_to_tensor(operation(ramp)).unique().tolist() == [0, 128]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("skip_unreadable", [False, True])
def test_an_image_that_cannot_be_read_is_one_line(folder, workers, skip_unreadable):
    conditions = replace(CONDITIONS, skip_unreadable=skip_unreadable)
    data = load(folder, conditions)
    broken = folder / "noise/train/a/2.png"  # the sixth that is shown
    broken.write_bytes(broken.read_bytes()[:60])
    images = stream_images(data, ORDER.split(2), seeds=SEEDS.split(2), conditions=conditions, workers=workers)
    assert len([next(images) for _ in range(2)]) == 2
    with pytest.raises(InputError, match=r"^an image cannot be read: train/a/2\.png \([^/]*\)") as caught:
        next(images)
    assert "\n" not in str(caught.value)
    assert ("--skip-unreadable" in str(caught.value)) is not skip_unreadable


def test_those_that_cannot_be_read_are_left_out_on_request(folder):
    for name in ("train/a/1.png", "train/b/3.png", "val/b/0.png"):
        (folder / "noise" / name).write_bytes(b"")
    conditions = replace(CONDITIONS, skip_unreadable=True)
    data = load(folder, conditions)
    assert data.skipped == ("train/a/1.png", "train/b/3.png", "val/b/0.png")
    assert (data.train_labels.tolist(), data.eval_labels.tolist()) == ([0] * 3 + [1] * 3, [0] * 3 + [1] * 2)
    assert not {str(folder / "noise" / name) for name in data.skipped} & {*data.train_paths, *data.eval_paths}
    assert len(load(folder, replace(conditions, train_images=6)).train_paths) == 6
    order = torch.arange(6)
    (images,) = stream_images(data, [order], seeds=[order], conditions=conditions, workers=0)
    assert len(images) == 6


@pytest.mark.slow
def test_what_was_left_in_the_middle_is_not_seen_later(folder):
    data = load(folder)
    expected = stream(data, 2, workers=0)
    images = stream_images(data, ORDER.split(1), seeds=SEEDS.split(1), conditions=CONDITIONS, workers=2)
    next(images)
    within = stream(data, 2, workers=2)  # by other processes: those are at work
    images.close()
    assert torch.equal(within, expected)
    assert torch.equal(stream(data, 2, workers=2), expected)


def test_workers_wait_for_the_next_epoch_and_end_when_other_images_are_read(folder):
    data = load(folder)
    stream(data, 5, workers=0)  # ends what an earlier test has waiting
    others = set(multiprocessing.active_children())  # of other tests, which end in their own time
    waiting = []
    for _ in range(2):
        stream(data, 5, workers=1)
        waiting.append(set(multiprocessing.active_children()) - others)
    assert len(waiting[0]) == 1
    assert waiting[0] == waiting[1]
    stream(data, 5, workers=0, conditions=replace(CONDITIONS, resolution=16))
    assert set(multiprocessing.active_children()) <= others


def test_no_batches_are_none_and_each_image_has_its_seed(folder):
    data = load(folder)
    assert list(stream_images(data, [], seeds=[], conditions=CONDITIONS, workers=0)) == []
    for seeds in ([ORDER[:2]], [ORDER[:3], ORDER[:3]]):
        with pytest.raises(ValueError, match="zip"):
            list(stream_images(data, [ORDER[:3]], seeds=seeds, conditions=CONDITIONS, workers=0))


@pytest.mark.parametrize("workers", [0, 3])
def test_validation_images_are_the_papers_protocols_in_order(folder, workers):
    data = load(folder)
    indices = torch.tensor([5, 0, 1, 2, 3, 3])
    batches = list(stream_eval(data, CONDITIONS, indices, workers))
    assert [len(images) for images, _ in batches] == [len(labels) for _, labels in batches] == [4, 2]
    transform = build_transform("paper", 32)
    expected = [transform(Image.open(data.eval_paths[index]).convert("RGB")) for index in indices.tolist()]
    assert torch.equal(torch.cat([images for images, _ in batches]), torch.stack(expected))
    assert torch.cat([labels for _, labels in batches]).tolist() == [1, 0, 0, 0, 1, 1]
    assert list(stream_eval(data, CONDITIONS, indices[:0], workers)) == []


def test_a_validation_image_that_cannot_be_read_is_one_line(folder):
    data = load(folder)
    broken = folder / "noise/val/b/1.png"
    broken.write_text("no image")
    images = stream_eval(data, CONDITIONS, torch.arange(6), 2)
    next(images)
    expected = (
        "an image cannot be read: val/b/1.png (UnidentifiedImageError: cannot identify image file); mend or remove "
        "such images, or leave them out by --skip-unreadable, which accuracy and evaluate have"
    )
    with pytest.raises(InputError) as caught:
        next(images)
    assert str(caught.value) == expected


CHILD = """
import multiprocessing, sys, torch
from pathlib import Path
from ablations.measure import Accuracy
from ablations.data.loading import load_data
from ablations.data.stream import stream_images

if __name__ == "__main__":
    conditions = Accuracy(data="noise", num_classes=2, loading="streaming")
    data = load_data(conditions, Path(sys.argv[1]))
    order = list(torch.arange(8).split(1))
    images = stream_images(data, order, seeds=order, conditions=conditions, workers=1)
    next(images)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes end otherwise here")
def test_workers_end_with_the_process_that_trains_even_if_it_is_killed(folder, tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "child.py"), str(folder)],
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL},
        **{"text": True, "env": environment},
    ) as child:
        worker = int(child.stdout.readline())
        os.kill(worker, 0)
        child.kill()
    for _ in range(200):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the worker outlives its parent")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_images_are_pinned_where_there_is_cuda(folder):
    data = load(folder)
    images = stream_images(data, [ORDER], seeds=[SEEDS], conditions=CONDITIONS, workers=1)
    assert next(images).is_pinned()


def test_the_real_imagenette(shared_data):
    if not (shared_data / "imagenette224").is_dir():
        pytest.skip("no imagenette224 in the data directory")
    conditions = replace(CONDITIONS, data="imagenette224", num_classes=10, resolution=64, train_images=20)
    data = load(shared_data, conditions)
    assert torch.bincount(data.train_labels).tolist() == [2] * 10
    order = torch.arange(20)
    images = list(stream_images(data, order.split(8), seeds=order.split(8), conditions=conditions, workers=0))
    assert [part.shape for part in images] == [(8, 3, 64, 64), (8, 3, 64, 64), (4, 3, 64, 64)]
    assert torch.cat(images).float().std() > 40
