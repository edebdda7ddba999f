"""Fixtures for every test: folders, the command line, records with made-up numbers and the committed ones.

Those of detection and segmentation are made-up images with coloured rectangles, in the layouts of COCO, Pascal VOC and
ADE20K. What takes long to import (numpy, pandas, matplotlib, torch) is imported where it is used, so that one file's
tests begin at once.
"""

from __future__ import annotations

import gc
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ablations.cells import Cell, arm_cell, build_cell
from ablations.cli import main
from ablations.config import TOGGLES, Toggle, arms_of
from ablations.cost import count_macs, count_params, module_costs
from ablations.measure import Accuracy, Cost, Detection, Memory, Segmentation, Speed
from ablations.studies import find_study

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

RESULTS = Path(__file__).parents[1] / "results"


def pytest_collection_finish() -> None:
    """Has the collector of garbage leave alone what was imported: it takes a tenth of the time of all tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def outside_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Has all tests keep out of the user's cache, and wait for no disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATIONS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        # What tests write need not outlive the machine, and waiting for the disk takes longer than most of them.
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def registered_toggles() -> Iterator[None]:
    """Has each test forget the toggles that it registered."""
    before = dict(TOGGLES)
    yield
    TOGGLES.clear()
    TOGGLES.update(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of unpacked data sets that ABLATIONS_DATA_DIR names; the test is skipped where it names none."""
    name = os.environ.get("ABLATIONS_DATA_DIR")
    if not name:
        pytest.skip("ABLATIONS_DATA_DIR is not set")
    folder = Path(name)
    assert folder.is_dir(), f"ABLATIONS_DATA_DIR={name!r} is not a folder"
    return folder


@pytest.fixture(scope="session")
def call() -> Callable[..., tuple[Any, str, str]]:
    """`call(capsys, *arguments)` runs a command: (exit code, what was printed, what was complained)."""

    def call_main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
        try:
            code: Any = main(list(arguments))
        except SystemExit as leaving:
            code = leaving.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call_main


ENVIRONMENT = {"device_name": "Imaginary CPU", "torch": "2.8.0", "threads": 2, "commit": "0123abc"}


def made_up_result(cell: Cell) -> dict[str, Any]:
    """A result with the keys of a real one; costs are true, the rest plausible and the same every time."""
    chance = random.Random(cell.key)
    config, conditions = cell.config, cell.conditions
    params = count_params(config)
    match conditions:
        case Cost():
            macs = count_macs(config, conditions.resolution)
            return {"params": params, "macs": macs, "macs_traced": macs, **made_up_work(cell)}
        case Memory():
            assert isinstance(conditions.resolution, int)
            tokens = (conditions.resolution // config.stem_stride) ** 2
            keys = config.pool_size**2 if ("lsra" in config.toggles) else tokens // config.sr_ratios[0] ** 2
            held = 2 if conditions.mode == "inference" else 20 + 8 * ("cffn" in config.toggles)
            scores = 4 * tokens * keys * (held if cell.config.attention == "explicit" else 0)
            return {
                "peak_memory_bytes": 4 * params + 4 * tokens * 16 * held + scores,
                "parameter_bytes": 4 * params,
                "input_bytes": 12 * conditions.resolution**2,
                "memory_method": "tracked_storages",
            }
        case Speed():
            median = count_macs(config, conditions.resolution) * conditions.batch_size / 4e10
            ratio = 1.0 if cell.arm == "v1" else chance.uniform(0.7, 1.2)
            return {
                "latency_s": median,
                "throughput_img_per_s": conditions.batch_size / median,
                "samples": [median] * conditions.repeats,
                "reference_samples": [median * ratio] * conditions.repeats,
                "relative_speed": ratio,
                "relative_speed_low": 0.97 * ratio if cell.arm != "v1" else 1.0,
                "relative_speed_high": 1.02 * ratio if cell.arm != "v1" else 1.0,
                "iqr_over_median": 0.15 if cell.arm == "v1+ope" else 0.02,
                "noisy": cell.arm == "v1+ope",
                "macs_per_s": 30e9,
                "peak_macs_per_s": 40e9,
            }
        case Accuracy():
            gain = (
                0.02 * ("ope" in config.toggles)
                + 0.03 * ("cffn" in config.toggles)
                - 0.004 * ("lsra" in config.toggles)
            )
            return {
                "top1": 0.9 + gain + 0.003 * conditions.seed + chance.gauss(0, 0.002),
                "eval_loss": 0.6,
                "n_eval_images": 360,
                "n_train_images": 1437,
                "history": [{"epoch": 1, "loss": 0.6}],
                "train_s": 4.0,
                "train_img_per_s": 4000.0,
            }


KINDS = {"proj": "convolution", "sr": "convolution", "dwconv": "convolution", "attn": "bmm"}
"""The operators of a PVT's modules, by the last word of their names; attention's `proj` is a linear layer."""


def made_up_work(cell: Cell) -> dict[str, Any]:
    """True MACs by module and by operator; how many values other layers look at is made up."""
    breakdown: dict[str, dict[str, int]] = {}
    by_operator: Counter[str] = Counter()
    for name, params, macs in module_costs(cell.config, cell.conditions.resolution):
        row = breakdown.setdefault(re.sub(r"(?<!^stages)\.\d+(?=\.|$)", "", name), {"params": 0, "macs": 0})
        row["params"] += params
        row["macs"] += macs
        operator = "addmm" if name.endswith("attn.proj") else KINDS.get(name.rpartition(".")[2], "addmm")
        by_operator[operator] += macs
    return {
        "breakdown": breakdown,
        "macs_by_operator": {operator: macs for operator, macs in by_operator.items() if macs},
        "other_values": {"layer_norm": 3000, "softmax": 200, "activation": 10_000},
    }


def write(results: Path, cell: Cell, result: dict[str, Any] | None, **environment: Any) -> Path:
    """Writes the record of a cell; without a result it failed."""
    from ablations.records import write_record

    return write_record(
        results,
        cell,
        study="quick",
        result=result,
        failure=None if result else "RuntimeError: out of memory",
        environment=ENVIRONMENT | environment,
        started="2026-01-02T03:04:05+00:00",
        duration_s=1.5,
    )


@pytest.fixture(scope="session")
def write_cell() -> Callable[..., Path]:
    """`write_cell(results, cell, result=None, **environment)` writes a record, with a made-up result by default."""
    return lambda results, cell, result=None, **environment: write(
        results, cell, result or made_up_result(cell), **environment
    )


@pytest.fixture(scope="session")
def write_failure() -> Callable[..., Path]:
    """`write_failure(results, cell)` writes the record of a cell that failed."""
    return lambda results, cell: write(results, cell, None)


@pytest.fixture(scope="session")
def quick_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a record of every cell of `quick`; tests do not write into it."""
    results = tmp_path_factory.mktemp("results")
    for cell in find_study("quick").cells():
        write(results, cell, made_up_result(cell))
    return results


@pytest.fixture(scope="session")
def quick_records(quick_results: Path) -> pd.DataFrame:
    from ablations.records import load_records

    return load_records(quick_results)


@pytest.fixture(scope="session")
def paper_records() -> pd.DataFrame:
    """The committed records of the study `paper`, all of them."""
    from ablations.records import load_records

    records = load_records(RESULTS, "cost")
    keys = {cell.key for cell in find_study("paper").cells()}
    assert keys <= set(records["key"]), "results/ has not all of the study `paper`"
    return records[records["key"].isin(keys)].reset_index(drop=True)


@pytest.fixture
def write_beside_libraries(tmp_path: Path) -> Callable[..., Path]:
    """`write_beside_libraries(cell, libraries, seconds=0.1, **changes)` writes a record of speed.

    `libraries` has each library's time over ours, with an interval from 0.9 to 1.1 times that. Our step has 40 % matrix
    products, 20 % depth-wise convolutions and no rest; a library's, in the default layout, has half products and half
    copies. Changes are of the result; None leaves a key out.
    """

    def profiled(seconds: float, shares: dict[str, float]) -> dict[str, Any]:
        operators = [
            {"kind": kind, "operator": name, "calls": 3, "seconds": half, "samples": [half] * 5}
            for kind, half in ((kind, share * seconds / 2) for kind, share in shares.items())
            for name in ("one", "two")  # each kind twice, under different names
        ]
        rest = seconds * (1 - sum(shares.values()))
        return {"operators": operators, "step_overhead_s": rest, "step_overhead_samples": [rest] * 5}

    def write_timed(cell: Cell, libraries: dict[str, float], seconds: float = 0.1, **changes: Any) -> Path:
        repeats = cell.conditions.repeats
        references = {
            name: {
                "latency_s": ratio * seconds,
                "noisy": False,
                "samples": [ratio * seconds] * repeats,
                "relative_speed": ratio,
                "relative_speed_low": 0.9 * ratio,
                "relative_speed_high": 1.1 * ratio,
                **({} if "," in name else profiled(ratio * seconds, {"matrix products": 0.5, "copies": 0.5})),
            }
            for name, ratio in libraries.items()
        }
        result = {
            "latency_s": seconds,
            "throughput_img_per_s": cell.conditions.batch_size / seconds,
            "iqr_over_median": 0.02,
            "noisy": False,
            "macs_per_s": 30e9,
            "peak_macs_per_s": 40e9,
            "samples": [seconds] * repeats,
            **profiled(seconds, {"matrix products": 0.4, "depth-wise convolutions": 0.2}),
            "roofline": [
                {"kind": "matrix products", "calls": 3, "macs": 900, "bytes": 10, "bound_s": 0.35 * seconds},
                {"kind": "depth-wise convolutions", "calls": 3, "macs": 90, "bytes": 80, "bound_s": 0.15 * seconds},
                {"kind": "other", "calls": 1, "macs": 0, "bytes": 80, "bound_s": 0.3 * seconds},
            ],
            "uncounted": [],
            "references": references,
        } | changes
        return write(tmp_path, cell, {name: value for name, value in result.items() if value is not None})

    return write_timed


# Data sets, trainings and records of detection and segmentation -----------------------------------------------------


COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220)}
"""The classes, in order of label."""


def draw_scene(seed: int, height: int, width: int) -> tuple[np.ndarray, list[tuple[int, tuple[int, int, int, int]]]]:
    """Returns an image (height, width, 3) of bytes and its rectangles: class from 0 and left, top, right, bottom.

    Each class has one, in columns of their own, so that none covers another.
    """
    import numpy as np

    chance = np.random.default_rng(seed)
    image = chance.integers(90, 130, (height, width, 3)).astype(np.uint8)
    rectangles = []
    column = width // len(COLOURS)
    for label, colour in enumerate(COLOURS.values()):
        wide, high = chance.integers(column // 2, column - 1), chance.integers(height // 3, height * 2 // 3)
        left, top = label * column + chance.integers(0, column - wide), chance.integers(0, height - high)
        image[top : top + high, left : left + wide] = colour
        rectangles.append((label, (int(left), int(top), int(left + wide), int(top + high))))
    return image, rectangles


def size_of(number: int) -> tuple[int, int]:
    """Returns the height and the width of an image; not all have one size."""
    return (64, 96) if number % 3 else (72, 84)


@pytest.fixture
def make_coco(tmp_path: Path) -> Callable[..., Path]:
    """Returns `make_coco(train=4, val=2, name="made-up")`, which writes a data set and returns its folder."""

    from PIL import Image

    def make(train: int = 4, val: int = 2, name: str = "made-up") -> Path:
        root = tmp_path / name
        (root / "annotations").mkdir(parents=True)
        for split, first, count in (("train2017", 0, train), ("val2017", 100, val)):
            (root / split).mkdir()
            images, annotations = [], []
            for number in range(first, first + count):
                height, width = size_of(number)
                image, rectangles = draw_scene(number, height, width)
                file = f"{number:06}.png"
                Image.fromarray(image).save(root / split / file)
                images.append({"id": number, "file_name": file, "height": height, "width": width})
                for label, (left, top, right, bottom) in rectangles:
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": number,
                            "category_id": 10 * label + 3,  # numbers with gaps, as COCO has them
                            "bbox": [left, top, right - left, bottom - top],
                            "area": (right - left) * (bottom - top),
                            "iscrowd": 0,
                            "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
                        }
                    )
            categories = [{"id": 10 * label + 3, "name": name} for label, name in enumerate(COLOURS)]
            content = {"images": images, "annotations": annotations, "categories": categories}
            (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        return root

    return make


@pytest.fixture
def change_coco() -> Callable[..., None]:
    """Returns `change_coco(root, change, split="train2017")`, which has `change` alter the content of the JSON file."""

    def change_file(root: Path, change: Callable[[dict[str, Any]], object], split: str = "train2017") -> None:
        path = root / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return change_file


@pytest.fixture
def make_ade20k(tmp_path: Path) -> Callable[..., Path]:
    """Returns `make_ade20k(train=4, val=2, name="scenes", palette=False)`, which writes a data set.

    Masks have 0 where there is no rectangle, which says nothing, and the classes from 1.
    """

    import numpy as np
    from PIL import Image

    def make(train: int = 4, val: int = 2, name: str = "scenes", *, palette: bool = False) -> Path:
        root = tmp_path / name
        for split, first, count in (("training", 0, train), ("validation", 100, val)):
            for kind in ("images", "annotations"):
                (root / kind / split).mkdir(parents=True)
            for number in range(first, first + count):
                image, rectangles = draw_scene(number, *size_of(number))
                mask = np.zeros(image.shape[:2], dtype=np.uint8)
                for label, (left, top, right, bottom) in rectangles:
                    mask[top:bottom, left:right] = label + 1
                Image.fromarray(image).save(root / "images" / split / f"{number:06}.png")
                written = Image.fromarray(mask)
                if palette:
                    written.putpalette(  # which makes it one of mode P
                        [7, 7, 7, *(level for colour in COLOURS.values() for level in colour)]
                    )
                written.save(root / "annotations" / split / f"{number:06}.png")
        return root

    return make


@pytest.fixture
def make_voc(tmp_path: Path) -> Callable[..., Path]:
    """Returns `make_voc(train=3, val=2, name="voc")`, which writes a data set."""

    from PIL import Image

    def make(train: int = 3, val: int = 2, name: str = "voc") -> Path:
        root = tmp_path / name
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        for split, first, count in (("train", 0, train), ("val", 100, val)):
            names = []
            for number in range(first, first + count):
                height, width = size_of(number)
                image, rectangles = draw_scene(number, height, width)
                names.append(f"{number:06}")
                Image.fromarray(image).save(root / "JPEGImages" / f"{names[-1]}.jpg", quality=95)
                colours = list(COLOURS)
                objects = "".join(
                    f"<object><name>{colours[label]}</name><difficult>{int(label == 2 and number == 0)}</difficult>"
                    "<bndbox>"
                    f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
                    "</bndbox></object>"
                    for label, (left, top, right, bottom) in rectangles
                )
                size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
                text = f"<annotation><filename>{names[-1]}.jpg</filename>{size}{objects}</annotation>"
                (root / "Annotations" / f"{names[-1]}.xml").write_text(text)
            (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        return root

    return make


TINY: dict[str, Any] = {"pyramid_width": 32, "batch_size": 2, "warmup_steps": 2, "epochs": 2, "tuning_images": 0}
OF_MEASUREMENT: dict[str, Any] = {
    "detection": Detection(data="made-up", resolution=64, smallest_anchor=8, **TINY),
    "segmentation": Segmentation(
        data="scenes", resolution=64, short_side=64, num_classes=3, first_label=1, void_label=0, **TINY
    ),
}


@pytest.fixture(scope="session")
def dense_conditions() -> dict[str, Any]:
    """The conditions of a small training of `detection` and of `segmentation`, on the data of `dense_data`."""
    return OF_MEASUREMENT


@pytest.fixture(scope="session")
def dense_cell() -> Callable[..., Cell]:
    """`dense_cell(measurement, arm="v1+ope", base="v2", **changes)` returns a cell of `dense_conditions`, of pico."""

    def cell_of(measurement: str, arm: str = "v1+ope", base: str = "v2", **changes: Any) -> Cell:
        return arm_cell("pico", arm, base, replace(OF_MEASUREMENT[measurement], **changes))

    return cell_of


@pytest.fixture
def dense_data(make_coco: Callable[..., Path], make_ade20k: Callable[..., Path]) -> Path:
    """A data directory with a data set of each kind."""
    make_ade20k()
    return make_coco().parent


def made_up_scores(cell: Cell, score: float) -> dict[str, Any]:
    shared = {"n_images": 87, "n_train_images": 205, "left_out": {}, "history": [], "init_file": {}}
    if isinstance(cell.conditions, Detection):
        names = ("ap50", "ap75", "ap_small", "ap_medium", "ap_large")
        return shared | {"ap": score, **dict.fromkeys(names, score + 0.1), "constant_ap50": 0.02, "n_objects": 900}
    return shared | {"miou": score, "pixel_accuracy": score + 0.2, "constant_miou": 0.03}


def write_scores(results: Path, cell: Cell, score: float) -> None:
    from ablations.records import write_record

    write_record(
        results,
        cell,
        study="mine",
        result=made_up_scores(cell, score),
        failure=None,
        environment=ENVIRONMENT | {"threads": 1},
        started="2026-01-01T00:00:00+00:00",
        duration_s=9.0,
        declared_seeds=6,
    )


@pytest.fixture(scope="session")
def write_dense() -> Callable[..., None]:
    """`write_dense(results, cell, score)` writes a record of detection or segmentation; the score is AP or mIoU."""
    return write_scores


@pytest.fixture
def dense_records(tmp_path: Path) -> pd.DataFrame:
    """Six seeds of two arms and a baseline on BCCD and CamVid; a trial that no table is to show."""
    from ablations.records import load_records

    for conditions in (Detection(), Segmentation()):
        for seed in range(6):
            for arm, gain in (("v1", 0.0), ("v1+ope+cffn", 0.05)):
                cell = arm_cell("nano", arm, "v2", replace(conditions, seed=seed), pool_size=4)
                write_scores(tmp_path, cell, 0.30 + gain + 0.01 * seed + (0.001 * seed if gain else 0))
            other = build_cell("timm:resnet18", replace(conditions, seed=seed))
            write_scores(tmp_path, other, 0.28 + 0.01 * seed)
        write_scores(tmp_path, arm_cell("nano", "v1", "v2", replace(conditions, tuning_images=20), pool_size=4), 0.9)
    return load_records(tmp_path)


@pytest.fixture
def fourth_toggle(monkeypatch: pytest.MonkeyPatch) -> str:
    """A toggle `new` at the end of the registry."""
    monkeypatch.setitem(TOGGLES, "new", Toggle(title="New", slot="norm", builder="nowhere:build"))
    assert "v1+new" in arms_of(TOGGLES)
    return "new"
