"""Training of detectors and segmentation networks: one loop, the same numbers however it is interrupted or shared."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ablations.cells import Cell, arm_cell, file_name
from ablations.cli import main
from ablations.errors import InputError
from ablations.measure.measurement import Setting
from ablations.measure.network import build_dense_network
from ablations.records.folder import read_records
from ablations.runner.run import run_cells
from ablations.training.dense_training import measure_dense
from ablations.training.distributed import ALONE
from ablations.training.loop import Training
from ablations.training.resume import OutOfTime
from ablations.training.train import Files

MEASUREMENTS = ("detection", "segmentation")
SQUEEZE_EXCITE = str(Path(__file__).parents[2] / "notebooks" / "squeeze_excite.py") + ":se"
TIMES = ("seconds", "wait_s", "train_s", "train_img_per_s", "wait_fraction")


def run(cell: Cell, folder: Path, **setting: Any) -> dict[str, Any]:
    return cell.conditions.run(cell, Setting(data_dir=folder, **setting))


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    history = [{name: value for name, value in entry.items() if name not in TIMES} for entry in result["history"]]
    return {name: value for name, value in result.items() if name not in TIMES} | {"history": history}


def start(cell: Cell, folder: Path) -> Training:
    data = cell.conditions.load_data(folder)
    return Training(build_dense_network(cell, len(data.classes)), data, cell.conditions)


HEADS = [
    ("detection", {"head": "retinanet"}),
    pytest.param("detection", {"head": "fcos"}, marks=pytest.mark.slow),
    pytest.param("detection", {"head": "mask_rcnn"}, marks=pytest.mark.slow),
    ("segmentation", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("measurement", "changes"), HEADS, ids=lambda value: str(value))
def test_a_training_that_is_stopped_after_every_step_ends_as_one_that_is_not(
    dense_cell, dense_data, tmp_path, measurement, changes
):
    cell = dense_cell(measurement, **changes, ema_decay=0.5, drop_path_rate=0.3, eval_every=1)
    whole = run(cell, dense_data)
    files = Files(checkpoint=tmp_path / "one.pt", log=tmp_path / "one.jsonl")
    for stops in range(4):  # two epochs of two steps
        torch.manual_seed(stops)  # what another process would have drawn
        with pytest.raises(OutOfTime):
            run(cell, dense_data, files=files, deadline=0.0)
    result = run(cell, dense_data, files=files)
    assert timeless(result) == timeless(whole)
    score = "ap" if measurement == "detection" else "miou"
    assert [score in entry for entry in result["history"]] == [True, False], "the last is the result itself"
    assert result[score] is not None


@pytest.mark.parametrize(("measurement", "changes"), HEADS, ids=lambda value: str(value))
def test_mixed_precision_trains_to_about_the_same_loss(dense_cell, dense_data, measurement, changes):
    losses = []
    for precision in ("float32", "bf16"):
        result = run(dense_cell(measurement, **changes, epochs=1, precision=precision), dense_data)
        losses.append(result["history"][0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_two_arms_with_one_seed_have_one_head_and_see_the_same(dense_cell, dense_data, measurement):
    arms = [dense_cell(measurement, arm=arm, seed=3) for arm in ("v1", "v1+ope+cffn")]
    networks = [build_dense_network(cell, 3) for cell in arms]
    heads = [
        {name: value for name, value in network.state_dict().items() if ".model." not in name} for network in networks
    ]
    assert heads[0].keys() == heads[1].keys()
    assert all(torch.equal(value, heads[1][name]) for name, value in heads[0].items())
    other = build_dense_network(dense_cell(measurement, seed=4), 3)
    assert not all(torch.equal(value, other.state_dict()[name]) for name, value in heads[0].items())
    shown = []
    for cell in arms:
        batches = start(cell, dense_data).task.batches(1, first_step=0, ranks=ALONE, workers=0)
        shown.append([image for images, _ in batches for image in images])
    assert all(torch.equal(one, two) for one, two in zip(*shown, strict=True))


@pytest.mark.parametrize(("measurement", "head"), [("detection", "retinanet"), ("segmentation", "semantic_fpn")])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole(dense_cell, dense_data, measurement, head):
    gradients = []
    for parts in (1, 2):
        training = start(
            dense_cell(measurement, head=head, accumulation=parts, batch_size=4, clip_grad_norm=0.0), dense_data
        )
        images, targets = next(training.task.batches(1, first_step=0, ranks=ALONE, workers=0))
        if measurement == "detection":
            # Images of one size, else parts are padded otherwise.
            images, targets = [images[0]] * 4, [targets[0]] * 4
        training._take_step(images, targets)
        gradients.append(training.norms[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=0)


def test_a_batch_that_has_no_equal_parts_is_refused(dense_cell, dense_data):
    with pytest.raises(InputError, match=r"^accumulation=3 is not possible; allowed: a divisor of batch_size, 4"):
        dense_cell("detection", accumulation=3, batch_size=4)
    training = start(dense_cell("detection", accumulation=3, batch_size=6), dense_data)  # there are four images
    with pytest.raises(InputError, match="accumulation=3 is not possible; allowed: a divisor of a process's share"):
        training.run()


def test_iterations_end_a_training_amid_an_epoch(dense_cell, dense_data):
    result = run(dense_cell("segmentation", iterations=3), dense_data)
    assert [entry["epoch"] for entry in result["history"]] == [1, 2]
    assert result["train_img_per_s"] * result["train_s"] == pytest.approx(6)


@pytest.mark.slow
@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_several_processes_give_the_scores_and_losses_of_one(dense_conditions, dense_data, tmp_path, measurement):
    command = "detect" if measurement == "detection" else "segment"
    conditions = dense_conditions[measurement]
    flags = (
        f"{command} --variants pico --arms v1+ope --data {conditions.data} --resolution 64 --pyramid-width 32 "
        f"--batch-size 4 --warmup-steps 2 --epochs 2 --base-lr 1e-4 --data-dir {dense_data} "
    )
    flags += "--short-side 64 --num-classes 3 --first-label 1 --void-label 0" if command == "segment" else ""
    results = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"] if processes == 2 else []
        subprocess.run(
            [sys.executable, *launcher, "run_ablation.py", *flags.split(), "--results", str(out)],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
            timeout=500,
        )
        (record,) = read_records(out).records
        results.append(record["result"])
    one, two = results
    losses = [[entry["loss"] for entry in each["history"]] for each in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    score = "ap" if command == "detect" else "miou"
    assert one[score] == pytest.approx(two[score], abs=0.02)
    assert one["n_images"] == two["n_images"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("measurement", ["detect", "segment"])
def test_a_toggle_of_a_reader_s_file_trains_under_a_head(dense_conditions, dense_data, tmp_path, measurement):
    conditions = {"detect": dense_conditions["detection"], "segment": dense_conditions["segmentation"]}[measurement]
    names = ("data", "resolution", "pyramid_width", "batch_size", "warmup_steps", "epochs")
    names += ("smallest_anchor",) if measurement == "detect" else ("short_side", "num_classes", "first_label")
    words = [measurement, "--toggles", SQUEEZE_EXCITE, "--arms", "v1+ope", "v1+ope+se", "--variants", "pico"]
    for name in names:
        words += [f"--{name.replace('_', '-')}", str(getattr(conditions, name))]
    words += ["--void-label", "0"] if measurement == "segment" else []
    assert main([*words, "--data-dir", str(dense_data), "--results", str(tmp_path / "runs")]) == 0
    with_it, without = sorted(read_records(tmp_path / "runs").records, key=lambda record: record["arm"], reverse=True)
    assert (with_it["arm"], without["arm"]) == ("v1+ope+se", "v1+ope")
    assert with_it["status"] == without["status"] == "done"
    assert with_it["toggle_files"]["se"]["file"] == "squeeze_excite.py"
    losses = [[epoch["loss"] for epoch in record["result"]["history"]] for record in (with_it, without)]
    assert len(losses[0]) == len(losses[1]) == 2
    assert losses[0] != losses[1]
    names = [file_name(record, record["key"]) for record in (with_it, without)]
    assert {path.stem for path in (tmp_path / "runs" / "examples").iterdir()} == set(names)


@pytest.mark.slow
def test_a_record_says_all_and_images_are_beside_it(dense_cell, dense_data, tmp_path):
    cell = dense_cell("detection", head="mask_rcnn")
    summary = run_cells([cell], study="mine", results=tmp_path / "runs", data_dir=dense_data)
    assert (summary.measured, summary.failed) == (1, [])
    (record,) = read_records(tmp_path / "runs").records
    result = record["result"]
    assert {"ap", "ap50", "ap75", "mask_ap", "constant_ap50", "history", "left_out"} <= result.keys()
    assert record["environment"]["data_sha256"]
    (image,) = (tmp_path / "runs" / "examples").iterdir()
    from PIL import Image

    with Image.open(image) as shown:
        assert np.asarray(shown).shape == (64 + 64 + 2 * 8, 2 * 96 + 8, 3)
    again = run_cells([cell], study="mine", results=tmp_path / "runs", data_dir=dense_data)
    assert (again.measured, again.kept) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_twenty_images_are_fitted(dense_conditions, make_coco, make_ade20k, measurement):
    conditions = dense_conditions[measurement]
    if measurement == "detection":
        root = make_coco(train=20)
        conditions = replace(conditions, epochs=120, batch_size=4, base_lr=1e-3, flip=0.0, warmup_steps=50)
    else:
        root = make_ade20k(train=20)
        conditions = replace(
            conditions, epochs=80, batch_size=4, base_lr=2e-3, flip=0.0, distortion=False, min_scale=1.0, max_scale=1.0
        )
    cell = arm_cell("pico", "v1+ope+cffn", "v2", conditions)
    data = conditions.load_data(root.parent)
    result = measure_dense(
        lambda: build_dense_network(cell, len(data.classes)),
        replace(data, validation=data.train),
        conditions,
        Setting(),
    )
    score = "ap50" if measurement == "detection" else "miou"
    assert result[score] >= 0.95
    assert result["constant_ap50" if measurement == "detection" else "constant_miou"] < 0.5
