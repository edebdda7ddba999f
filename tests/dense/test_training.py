"""Training of detectors and segmentation networks: one loop, the same numbers however it is interrupted or shared."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ablations.cells import Cell, arm_cell, file_name
from ablations.cli import main
from ablations.data.annotations import DenseData
from ablations.data.dense_loading import load_objects
from ablations.errors import InputError
from ablations.measure import Accuracy, Detection, Segmentation
from ablations.measure.measurement import Setting
from ablations.measure.network import backbone_of, build_dense_network
from ablations.model.checkpoint import save_weights
from ablations.model.transfer import transfer_weights
from ablations.records.folder import read_records
from ablations.runner.claims import open_lease
from ablations.runner.run import run_cells
from ablations.training.accuracy import Files
from ablations.training.dense import RateSchedule
from ablations.training.dense_training import measure_dense
from ablations.training.distributed import ALONE
from ablations.training.loop import Training
from ablations.training.resume import OutOfTime

TINY: dict[str, Any] = {"pyramid_width": 32, "batch_size": 2, "warmup_steps": 2, "epochs": 2, "tuning_images": 0}
OF_MEASUREMENT: dict[str, Any] = {
    "detection": Detection(data="made-up", resolution=64, smallest_anchor=8, **TINY),
    "segmentation": Segmentation(
        data="scenes", resolution=64, short_side=64, num_classes=3, first_label=1, void_label=0, **TINY
    ),
}
SQUEEZE_EXCITE = str(Path(__file__).parents[2] / "notebooks" / "squeeze_excite.py") + ":se"
TIMES = ("seconds", "wait_s", "train_s", "train_img_per_s", "wait_fraction")


@pytest.fixture
def folder(make_coco, make_ade20k) -> Path:
    """A data directory with a data set of each kind."""
    make_ade20k()
    return make_coco().parent


def cell_of(measurement: str, arm: str = "v1+ope", base: str = "v2", **changes: Any) -> Cell:
    return arm_cell("pico", arm, base, replace(OF_MEASUREMENT[measurement], **changes))


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


@pytest.mark.parametrize(("measurement", "changes"), HEADS, ids=lambda value: str(value))
def test_a_training_that_is_stopped_after_every_step_ends_as_one_that_is_not(folder, tmp_path, measurement, changes):
    cell = cell_of(measurement, **changes, ema_decay=0.5, drop_path_rate=0.3, eval_every=1)
    whole = run(cell, folder)
    files = Files(checkpoint=tmp_path / "one.pt", log=tmp_path / "one.jsonl")
    for stops in range(4):  # two epochs of two steps
        torch.manual_seed(stops)  # what another process would have drawn
        with pytest.raises(OutOfTime):
            run(cell, folder, files=files, deadline=0.0)
    result = run(cell, folder, files=files)
    assert timeless(result) == timeless(whole)
    score = "ap" if measurement == "detection" else "miou"
    assert [score in entry for entry in result["history"]] == [True, False], "the last is the result itself"
    assert result[score] is not None


@pytest.mark.parametrize(("measurement", "changes"), HEADS, ids=lambda value: str(value))
def test_mixed_precision_trains_to_about_the_same_loss(folder, measurement, changes):
    losses = []
    for precision in ("float32", "bf16"):
        result = run(cell_of(measurement, **changes, epochs=1, precision=precision), folder)
        losses.append(result["history"][0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("measurement", OF_MEASUREMENT)
def test_two_arms_with_one_seed_have_one_head_and_see_the_same(folder, measurement):
    arms = [cell_of(measurement, arm=arm, seed=3) for arm in ("v1", "v1+ope+cffn")]
    networks = [build_dense_network(cell, 3) for cell in arms]
    heads = [
        {name: value for name, value in network.state_dict().items() if ".model." not in name} for network in networks
    ]
    assert heads[0].keys() == heads[1].keys()
    assert all(torch.equal(value, heads[1][name]) for name, value in heads[0].items())
    other = build_dense_network(cell_of(measurement, seed=4), 3)
    assert not all(torch.equal(value, other.state_dict()[name]) for name, value in heads[0].items())
    shown = []
    for cell in arms:
        batches = start(cell, folder).task.batches(1, first_step=0, ranks=ALONE, workers=0)
        shown.append([image for images, _ in batches for image in images])
    assert all(torch.equal(one, two) for one, two in zip(*shown, strict=True))


@pytest.mark.parametrize(("measurement", "head"), [("detection", "retinanet"), ("segmentation", "semantic_fpn")])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole(folder, measurement, head):
    gradients = []
    for parts in (1, 2):
        training = start(cell_of(measurement, head=head, accumulation=parts, batch_size=4, clip_grad_norm=0.0), folder)
        images, targets = next(training.task.batches(1, first_step=0, ranks=ALONE, workers=0))
        if measurement == "detection":
            # Images of one size, else parts are padded otherwise.
            images, targets = [images[0]] * 4, [targets[0]] * 4
        training._take_step(images, targets)
        gradients.append(training.norms[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=0)


def test_a_batch_that_has_no_equal_parts_is_refused(folder):
    with pytest.raises(InputError, match=r"^accumulation=3 is not possible; allowed: a divisor of batch_size, 4"):
        cell_of("detection", accumulation=3, batch_size=4)
    training = start(cell_of("detection", accumulation=3, batch_size=6), folder)  # there are four images
    with pytest.raises(InputError, match="accumulation=3 is not possible; allowed: a divisor of a process's share"):
        training.run()


def rates(conditions: Any, steps_per_epoch: int, total: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = RateSchedule(optimizer, conditions, steps_per_epoch, total)
    return [schedule.factor(done) for done in range(total)]


def test_the_rate_of_coco_1x_falls_after_epochs_8_and_11_and_begins_at_a_thousandth():
    from ablations.dense_recipes import CocoOneTimes

    conditions = Detection(**vars(CocoOneTimes()))
    found = rates(replace(conditions, base_lr=1.0), 1000, 12_000)
    assert found[0] == pytest.approx(0.001)
    assert found[250] == pytest.approx(0.5005)
    assert (found[500], found[7999]) == (1.0, 1.0)
    assert (found[8000], found[10_999]) == (pytest.approx(0.1), pytest.approx(0.1))
    assert found[11_000] == pytest.approx(0.01)


def test_the_rate_of_ade20k_40k_falls_as_a_power_of_the_steps_left():
    from ablations.dense_recipes import Ade20kOf40k

    conditions = Segmentation(**vars(Ade20kOf40k()))
    found = rates(conditions, 631, 40_000)
    assert found[0] == 1.0
    assert found[20_000] == pytest.approx(0.5**0.9)
    assert found[39_999] == pytest.approx((1 / 40_000) ** 0.9)


def test_iterations_end_a_training_amid_an_epoch(folder):
    result = run(cell_of("segmentation", iterations=3), folder)
    assert [entry["epoch"] for entry in result["history"]] == [1, 2]
    assert result["train_img_per_s"] * result["train_s"] == pytest.approx(6)


def test_recipes_are_the_released_ones():
    conditions = [
        arm_cell(variant, "v1+ope+cffn", "published", Detection(head=head, base_lr=None)).conditions.base_lr
        for variant, head in (("b2", "retinanet"), ("b2", "mask_rcnn"), ("b5", "retinanet"), ("b4", "mask_rcnn"))
    ]
    assert conditions == pytest.approx([1e-4, 2e-4, 1e-4 / 1.4, 2e-4 / 1.4])


@pytest.mark.slow
@pytest.mark.parametrize("measurement", OF_MEASUREMENT)
def test_several_processes_give_the_scores_and_losses_of_one(folder, tmp_path, measurement):
    command = "detect" if measurement == "detection" else "segment"
    conditions = OF_MEASUREMENT[measurement]
    flags = (
        f"{command} --variants pico --arms v1+ope --data {conditions.data} --resolution 64 --pyramid-width 32 "
        f"--batch-size 4 --warmup-steps 2 --epochs 2 --base-lr 1e-4 --data-dir {folder} "
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


@pytest.mark.parametrize("measurement", [pytest.param("detect", marks=pytest.mark.slow), "segment"])
def test_a_toggle_of_a_reader_s_file_trains_under_a_head(folder, tmp_path, measurement):
    conditions = {"detect": OF_MEASUREMENT["detection"], "segment": OF_MEASUREMENT["segmentation"]}[measurement]
    names = ("data", "resolution", "pyramid_width", "batch_size", "warmup_steps", "epochs")
    names += ("smallest_anchor",) if measurement == "detect" else ("short_side", "num_classes", "first_label")
    words = [measurement, "--toggles", SQUEEZE_EXCITE, "--arms", "v1+ope", "v1+ope+se", "--variants", "pico"]
    for name in names:
        words += [f"--{name.replace('_', '-')}", str(getattr(conditions, name))]
    words += ["--void-label", "0"] if measurement == "segment" else []
    assert main([*words, "--data-dir", str(folder), "--results", str(tmp_path / "runs")]) == 0
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
def test_a_record_says_all_and_images_are_beside_it(folder, tmp_path):
    cell = cell_of("detection", head="mask_rcnn")
    summary = run_cells([cell], study="mine", results=tmp_path / "runs", data_dir=folder)
    assert (summary.measured, summary.failed) == (1, [])
    (record,) = read_records(tmp_path / "runs").records
    result = record["result"]
    assert {"ap", "ap50", "ap75", "mask_ap", "constant_ap50", "history", "left_out"} <= result.keys()
    assert record["environment"]["data_sha256"]
    (image,) = (tmp_path / "runs" / "examples").iterdir()
    from PIL import Image

    with Image.open(image) as shown:
        assert np.asarray(shown).shape == (64 + 64 + 2 * 8, 2 * 96 + 8, 3)
    again = run_cells([cell], study="mine", results=tmp_path / "runs", data_dir=folder)
    assert (again.measured, again.kept) == (0, 1)


# Weights of a classifier ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "arm"), [("v2", "v1+ope+cffn"), ("v1", "v1")])
def test_a_backbone_begins_from_a_classifier_s_weights(tmp_path, base, arm):
    from ablations.model import build_model

    classifier = build_model(arm_cell("pico", arm, base, Accuracy(resolution=48)).arm_config, seed=5)
    save_weights(classifier, tmp_path / "c.safetensors")
    cell = cell_of("detection", arm=arm, base=base, img_size=64)
    network = build_dense_network(cell, 3)
    backbone: Any = backbone_of(network)
    report = transfer_weights(backbone, tmp_path / "c.safetensors")
    weights, given = backbone.state_dict(), classifier.state_dict()
    for name, value in weights.items():
        if "pos_embed" not in name:
            assert torch.equal(value, given[name]), name
    assert {"head.weight", "head.bias"} <= set(report.unused)
    assert base == "v1" or len(report.unused) == 2
    if base == "v1":
        assert {"stages.3.cls_token.weight", "stages.3.pos_embed.weight[0]"} <= set(report.unused)
        assert len(report.resized) == 4
        first = weights["stages.0.pos_embed.weight"]
        assert first.shape == (1, 32 * 32, 8)
        # Bilinear interpolation keeps the mean of a smooth field near.
        assert float(first.mean()) == pytest.approx(float(given["stages.0.pos_embed.weight"].mean()), abs=0.01)
        assert "left out: " in report.summary
        assert "resized: stages.0.pos_embed.weight" in report.summary


def test_weights_of_another_model_are_refused_and_change_nothing(tmp_path):
    from ablations.model import build_model

    save_weights(build_model(arm_cell("pico", "v1", "v2", Accuracy()).arm_config), tmp_path / "c.safetensors")
    network = build_dense_network(cell_of("detection", arm="v1+cffn"), 3)
    backbone: Any = backbone_of(network)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(InputError, match=r"does not fit the model: it lacks stages.0.blocks.0.mlp.dwconv"):
        transfer_weights(backbone, tmp_path / "c.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_backbone_begins_from_no_other_file_than_the_record_names(tmp_path):
    from ablations.files import file_digest
    from ablations.measure.network import load_initial
    from ablations.model import build_model

    file = tmp_path / "c.safetensors"
    save_weights(build_model(arm_cell("pico", "v1+cffn", "v2", Accuracy()).arm_config, seed=1), file)
    digest = file_digest(file)
    cell = cell_of("detection", arm="v1+cffn", init=digest)
    model = build_model(cell.arm_config)
    assert load_initial(model, cell, Setting(weights=file))["sha256"] == digest
    save_weights(build_model(arm_cell("pico", "v1+cffn", "v2", Accuracy()).arm_config, seed=2), file)
    with pytest.raises(InputError, match=r"c.safetensors' was replaced by another while it was loaded"):
        load_initial(model, cell, Setting(weights=file))


def test_a_classifier_of_a_study_is_trained_where_its_weights_are_gone(folder, tmp_path, monkeypatch):
    from ablations import studies
    from ablations.runner import classifiers

    text = """
[[grid]]
measurement = "accuracy"
recipe = "smoke"
variants = ["pico"]
arms = ["v1+ope"]
bases = ["v2"]
train_images = 100
seed = [0, 1]
"""
    study = studies.parse_study(text, "digits", "digits.toml")
    monkeypatch.setattr(classifiers, "find_study", lambda name: study)
    cell = cell_of("segmentation", init="digits", seed=1)
    run_cells([cell], study="mine", results=tmp_path / "runs", data_dir=folder)
    assert not list((tmp_path / "runs").glob("claims/*.lease"))
    (weights,) = (tmp_path / "runs" / "weights").iterdir()
    (record,) = read_records(tmp_path / "runs").records
    from ablations.files import file_digest

    assert record["result"]["init_file"]["sha256"] == file_digest(weights)
    written = weights.stat().st_mtime_ns
    other = cell_of("segmentation", init="digits", seed=1, epochs=1)
    run_cells([other], study="mine", results=tmp_path / "runs", data_dir=folder)
    assert weights.stat().st_mtime_ns == written, "it is there, and not trained again"
    waiting = tmp_path / "others"
    (waiting / "weights").mkdir(parents=True)
    lease = open_lease(waiting / "claims" / f"{classifiers.classifier_of(cell).key}.lease").acquire()

    def finish() -> None:
        (waiting / "weights" / weights.name).write_bytes(weights.read_bytes())
        lease.lock.release()

    timer = Timer(1.5, finish)
    timer.start()
    monkeypatch.setattr(Accuracy, "run", lambda *_: pytest.fail("another process trains it"))
    run_cells([cell], study="mine", results=waiting, data_dir=folder)
    timer.join()
    (again,) = read_records(waiting).records
    assert again["result"]["init_file"] == record["result"]["init_file"]
    with pytest.raises(
        InputError, match=r"^init='digits' is not possible; allowed: a study with a classifier of pico v1"
    ):
        run_cells(
            [cell_of("segmentation", arm="v1", init="digits")], study="mine", results=tmp_path / "runs", data_dir=folder
        )


# The community's code ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_checkpoint_of_torchvision_s_retinanet_has_the_ap_of_torchvision_s_own_path(make_coco):
    """Made-up images, and a RetinaNet of torchvision's that was trained on them a little."""
    import contextlib
    import io

    from PIL import Image
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    from torchvision.models import resnet18
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7
    from torchvision.transforms.v2 import functional as F

    from ablations.heads.detection import build_retinanet
    from ablations.training.detection import Detection as DetectionTask

    root = make_coco(train=6, val=5)
    torch.manual_seed(2)
    backbone = _resnet_fpn_extractor(
        resnet18(norm_layer=nn.Identity), 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(512, 256)
    )
    theirs = RetinaNet(backbone, 3, min_size=64, max_size=128, detections_per_img=100, score_thresh=0.01)
    data: DenseData = load_objects(Detection(data="made-up"), root.parent)
    task = DetectionTask(data, replace(OF_MEASUREMENT["detection"], data="made-up", batch_size=3))
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=3e-4)
    for epoch in range(1, 9):
        for images, targets in task.batches(epoch, first_step=0, ranks=ALONE, workers=0):
            loss = task.loss(theirs, images, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    class Body(nn.Module):
        """The extractor's body as a backbone of ours: four maps."""

        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            maps = list(self.body(x).values())
            return [maps[0], *maps]

    ours = build_retinanet(
        Body(theirs.backbone.body), [64, 128, 256, 512], 3, min_size=64, max_size=128, score_thresh=0.01
    )
    renamed = {
        name.replace("backbone.body.", "backbone.body.body."): value for name, value in theirs.state_dict().items()
    }
    ours.load_state_dict(renamed)
    scores = task.evaluate(ours)

    # torchvision's references/detection: boxes as x, y, width, height, into pycocotools.
    expected, found = COCO(), []
    theirs.eval()
    with contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
        expected = COCO(str(root / "annotations" / "instances_val2017.json"))
        categories = sorted(expected.getCatIds())
        for number in expected.getImgIds():
            path = root / "val2017" / expected.loadImgs(number)[0]["file_name"]
            with Image.open(path) as image:
                (output,) = theirs([F.pil_to_tensor(image).float() / 255])
            left, top, right, bottom = output["boxes"].unbind(1)
            boxes = torch.stack([left, top, right - left, bottom - top], dim=1).tolist()
            found += [
                {"image_id": number, "category_id": categories[label], "bbox": box, "score": score}
                for box, label, score in zip(boxes, output["labels"].tolist(), output["scores"].tolist(), strict=True)
            ]
        evaluation = COCOeval(expected, expected.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert scores["ap50"] > 0.05, "it learned something, so the comparison is of more than zeros"
    assert scores["ap"] == pytest.approx(evaluation.stats[0], abs=1e-4)
    assert scores["ap50"] == pytest.approx(evaluation.stats[1], abs=1e-4)


# The loop can fit ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("measurement", OF_MEASUREMENT)
def test_twenty_images_are_fitted(make_coco, make_ade20k, measurement):
    conditions = OF_MEASUREMENT[measurement]
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
        lambda: build_dense_network(cell, len(data.classes)), replace(data, validation=data.train), conditions
    )
    score = "ap50" if measurement == "detection" else "miou"
    assert result[score] >= 0.95
    assert result["constant_ap50" if measurement == "detection" else "constant_miou"] < 0.5
