"""The commands detect and segment, their studies, and what the report makes of their records."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from ablations.analysis.dense import dense_values
from ablations.cells import Cell, arm_cell, build_cell
from ablations.cli import main, parse
from ablations.config import CUMULATIVE
from ablations.errors import InputError
from ablations.measure import Accuracy, Detection, Segmentation
from ablations.records import load_records, write_record
from ablations.report.dense import TABLES
from ablations.report.examples import find_examples, render_examples
from ablations.report.tables import render_markdown
from ablations.studies import find_study, parse_study

ENVIRONMENT = {"device_name": "Imaginary CPU", "torch": "2.8.0", "threads": 1, "commit": "0123abc"}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (
            "detect --arms v1 --heads retinanet fcos --seeds 0 1",
            {("retinanet", 0), ("retinanet", 1), ("fcos", 0), ("fcos", 1)},
        ),
        ("segment --arms v1 --seeds 3", {("semantic_fpn", 3)}),
    ],
)
def test_heads_and_seeds_make_cells(words, names):
    cells = parse(words.split()).cells()
    assert {(cell.conditions.head, cell.conditions.seed) for cell in cells} == names
    assert {(cell.model.variant, cell.model.base) for cell in cells} == {("nano", "v2")}


def test_a_recipe_s_fields_are_the_flags_defaults():
    (cell,) = parse("detect --variants b2 --arms v1+ope+cffn --bases published --recipe coco-1x".split()).cells()
    conditions = cell.conditions
    assert (conditions.resolution, conditions.long_side, conditions.pyramid_width) == (800, 1333, 256)
    assert (conditions.batch_size, conditions.epochs, conditions.decay_epochs) == (16, 12, (8, 11))
    assert (conditions.base_lr, conditions.weight_decay, conditions.warmup_steps) == (1e-4, 1e-4, 500)
    (cell,) = parse("segment --variants b2 --arms v1 --recipe ade20k-40k --batch-size 16".split()).cells()
    conditions = cell.conditions
    assert (conditions.iterations, conditions.batch_size, conditions.short_side) == (40_000, 16, 512)
    assert (conditions.num_classes, conditions.first_label, conditions.void_label) == (150, 1, 0)
    with pytest.raises(InputError, match="recipe='coco-2x' is not possible; allowed: small, coco-1x"):
        parse("detect --recipe coco-2x".split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("detect --heads semantic_fpn", "heads='semantic_fpn' is not possible; allowed: retinanet, mask_rcnn, fcos"),
        ("detect --pyramid-width 48", "pyramid_width=48 is not possible; allowed: a multiple of 32"),
        ("detect --base-lr 0", "base_lr=0.0 is not possible; allowed: more than 0"),
        ("detect --resolution 2000", "long_side=1333 is not possible; allowed: resolution, 2000, to"),
        ("detect --decay-epochs 11 8", "decay_epochs=(11, 8) is not possible; allowed: epochs of 1 or more, rising"),
        ("detect --init nowhere.pth", "init='nowhere.pth' is not possible; allowed: a file of weights"),
        ("segment --data mine", "num_classes=0 is not possible; allowed: 2 to 255, the number of classes of mine"),
        ("segment --min-scale 3", "min_scale=3.0 is not possible; allowed: more than 0, up to max_scale, 2.0"),
        ("segment --max-class-share 0", "max_class_share=0.0 is not possible; allowed: more than 0, up to 1"),
        ("segment --data bccd", "data='bccd' is not possible; allowed: ade20k, camvid, or a folder; bccd has no annot"),
        (
            "detect --data camvid",
            "data='camvid' is not possible; allowed: coco, voc2012, bccd, or a folder; camvid",
        ),
        ("detect --data nothing", "data='nothing' is not possible; allowed: coco, voc2012, bccd, or a folder"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, capsys, words, message):
    code = main([*words.split(), "--arms", "v1", "--data-dir", str(tmp_path), "--results", str(tmp_path / "runs")])
    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


def test_weights_that_do_not_fit_are_refused_before_anything_is_trained(tmp_path, capsys, make_coco):
    from ablations.model import build_model
    from ablations.model.checkpoint import save_weights

    save_weights(build_model(arm_cell("pico", "v1", "v2", Accuracy()).arm_config), tmp_path / "c.safetensors")
    root = make_coco()
    words = f"detect --variants pico --arms v1+cffn --data made-up --data-dir {root.parent} --pyramid-width 32"
    code = main([*words.split(), "--init", str(tmp_path / "c.safetensors"), "--results", str(tmp_path / "runs")])
    assert code == 2
    assert "does not fit the model: it lacks stages.0.blocks.0.mlp.dwconv" in capsys.readouterr().err


def test_list_names_sets_layouts_and_recipes(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for words in ("coco-1x", "ade20k-40k", "camvid", "bccd", "ImageSets/Main", "instances_{train,val}2017.json"):
        assert words in said


@pytest.mark.parametrize(("name", "kind", "arms"), [("camvid", Segmentation, 8), ("bccd", Detection, 3)])
def test_the_studies_are_what_their_heads_say(name, kind, arms):
    study = find_study(name)
    cells = study.cells()
    assert {type(cell.conditions) for cell in cells} == {kind}
    assert len({cell.arm for cell in cells}) == arms
    assert study.seeds() == (6 if name == "camvid" else 3)
    if name == "camvid":
        first = study.grids[0]
        assert {cell.arm for cell in first} == set(CUMULATIVE)
        assert {cell.conditions.init for cell in study.grids[1]} == {"imagenette"}
        # At 26 s an epoch and two cells at a time, the first part ends within six hours.
        assert len(first) * first[0].conditions.epochs * 26 / 2 <= 6 * 3600


def test_a_study_s_grid_takes_the_recipes_of_its_measurement():
    text = '[[grid]]\nmeasurement = "detection"\nrecipe = "{}"\narms = ["v1"]\n'
    (cell,) = parse_study(text.format("coco-1x"), "mine", "mine.toml").cells()
    assert cell.conditions.decay == "steps"
    with pytest.raises(
        InputError, match=r"mine\.toml, grid 1: recipe='paper' is not possible; allowed: small, coco-1x"
    ):
        parse_study(text.format("paper"), "mine", "mine.toml")


# Records and the report ----------------------------------------------------------------------------------------------


def result_of(cell: Cell, score: float) -> dict[str, Any]:
    shared = {"n_images": 87, "n_train_images": 205, "left_out": {}, "history": [], "init_file": {}}
    if isinstance(cell.conditions, Detection):
        names = ("ap50", "ap75", "ap_small", "ap_medium", "ap_large")
        return shared | {"ap": score, **dict.fromkeys(names, score + 0.1), "constant_ap50": 0.02, "n_objects": 900}
    return shared | {"miou": score, "pixel_accuracy": score + 0.2, "constant_miou": 0.03}


def write(results: Path, cell: Cell, score: float) -> None:
    write_record(
        results,
        cell,
        study="mine",
        result=result_of(cell, score),
        failure=None,
        environment=ENVIRONMENT,
        started="2026-01-01T00:00:00+00:00",
        duration_s=9.0,
        declared_seeds=6,
    )


@pytest.fixture
def dense_records(tmp_path: Path) -> pd.DataFrame:
    """Six seeds of two arms and a baseline on BCCD and CamVid; a trial that no table is to show."""
    for conditions in (Detection(), Segmentation()):
        for seed in range(6):
            for arm, gain in (("v1", 0.0), ("v1+ope+cffn", 0.05)):
                cell = arm_cell("nano", arm, "v2", replace(conditions, seed=seed), pool_size=4)
                write(tmp_path, cell, 0.30 + gain + 0.01 * seed + (0.001 * seed if gain else 0))
            other = build_cell("timm:resnet18", replace(conditions, seed=seed))
            write(tmp_path, other, 0.28 + 0.01 * seed)
        write(tmp_path, arm_cell("nano", "v1", "v2", replace(conditions, tuning_images=20), pool_size=4), 0.9)
    return load_records(tmp_path)


@pytest.mark.parametrize(("measurement", "main"), [("detection", "ap"), ("segmentation", "miou")])
def test_arms_are_compared_seed_by_seed_and_trials_are_left_out(dense_records, measurement, main):
    values = dense_values(dense_records, measurement).set_index(["arm"])
    arm = values.loc["v1+ope+cffn"]
    assert arm["n_seeds"] == 6
    assert arm[f"{main}_mean"] == pytest.approx(0.35 + 0.011 * 2.5)
    assert arm[f"{main}_difference_mean"] == pytest.approx(0.05 + 0.001 * 2.5)
    assert arm[f"{main}_difference_low"] < arm[f"{main}_difference_mean"] < arm[f"{main}_difference_high"]
    assert bool(arm[f"{main}_difference_resolved"])
    assert bool(arm[f"{main}_difference_paired"]), "another model beside them changes nothing"
    assert values[f"{main}_mean"].max() < 0.5, "the trial is not among them"


def test_another_head_is_no_other_recipe(capsys, tmp_path):
    command = parse(["detect", "--data", "bccd", "--arms", "v1", "--results", str(tmp_path)])
    (cell,) = command.cells()
    for head, is_said in (("fcos", False), ("retinanet", True)):
        write(tmp_path, replace(cell, conditions=replace(cell.conditions, head=head, epochs=2)), 0.3)
        command.begin([cell])
        assert ("by another recipe (epochs=2); tables keep" in capsys.readouterr().err) is is_said


def test_tables_name_the_data_and_say_what_bccd_is_no_evidence_of(dense_records):
    texts = {table.name: render_markdown(table, table.values(dense_records)) for table in TABLES}
    assert "bccd, retinanet, nano, base v2" in texts["detection"]
    assert "no evidence about COCO" in texts["detection"]
    assert "camvid, semantic_fpn, nano, base v2" in texts["segmentation"]
    assert "AP50 of constant boxes" in texts["detection"]
    for text in texts.values():
        assert "resolved" in text
        assert "**" not in text, "the best of noisy means is not claimed"
        assert "timm:resnet18" in text


def test_ap_and_miou_stand_in_the_comparison_of_their_model(dense_records, tmp_path):
    from ablations.analysis.comparison import comparison_values
    from ablations.report.comparison import COMPARISON

    accuracy = {"top1": 0.8, "eval_loss": 0.5, "n_eval_images": 100, "n_train_images": 1000, "history": []}
    for seed in range(2):
        for arm in ("v1", "v1+ope+cffn"):
            cell = arm_cell("nano", arm, "v2", Accuracy(seed=seed), pool_size=4)
            write_record(
                tmp_path,
                cell,
                study="mine",
                result=accuracy | {"top1": 0.8 + 0.01 * seed},
                failure=None,
                environment=ENVIRONMENT,
                started="2026-01-01T00:00:00+00:00",
                duration_s=9.0,
            )
    values = comparison_values(load_records(tmp_path)).set_index("arm")
    assert values.loc["v1", "ap_mean"] == pytest.approx(0.325)
    assert values.loc["v1+ope+cffn", "miou_mean"] == pytest.approx(0.3775)
    assert values["ap_of"].iloc[0].startswith("detection, ")
    text = render_markdown(COMPARISON, values.reset_index())
    assert "mIoU, %" in text
    assert "AP, %" in text
    score = re.search(r"\| (32\.50 \(.*?, n = (\d)\)) \|", text)
    assert score is not None
    assert int(score[2]) == values.loc["v1", "ap_n"] > 1


def test_the_paper_s_ap_stands_in_table_6_and_ours_only_where_it_was_measured_on_coco(paper_records, tmp_path):
    from ablations.analysis.paper import table6_values

    values = table6_values(paper_records)
    published = values[values["base"] == "published"].set_index("arm")
    assert published["reported_ap_percent"].dropna().to_dict() == {
        "v1": 40.4,
        "v1+ope": 42.2,
        "v1+ope+cffn": 44.6,
        "v1+ope+cffn+lsra": 43.6,
    }
    assert "ap_on_coco" not in values
    from ablations.dense_recipes import CocoOneTimes

    on_coco = Detection(**vars(CocoOneTimes()))
    write(tmp_path, arm_cell("b2", "v1+ope+cffn", "published", on_coco), 0.441)
    write(tmp_path, arm_cell("b2", "v1", "published", Detection()), 0.9)  # of BCCD
    values = table6_values(pd.concat([paper_records, load_records(tmp_path)], ignore_index=True))
    ours = values[values["base"] == "published"].set_index("arm")["ap_on_coco"].dropna()
    assert ours.to_dict() == {"v1+ope+cffn": 0.441}


def test_the_page_shows_what_was_found_beside_the_truth(tmp_path):
    from ablations.records.folder import read_records

    cell = arm_cell("nano", "v1", "v2", Detection())
    write(tmp_path, cell, 0.3)
    assert find_examples(tmp_path, read_records(tmp_path).records) == {}
    (tmp_path / "examples").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "examples" / f"{cell.file_name}.png")
    found = find_examples(tmp_path, read_records(tmp_path).records)
    assert list(found) == ["detection on bccd, retinanet: nano v1, base v2"]
    assert 'src="data:image/png;base64,' in render_examples(found)


def test_no_image_of_a_data_set_is_committed():
    root = Path(__file__).parents[2]
    assert "/results/examples/" in (root / ".gitignore").read_text().splitlines()
    assert not list((root / "results" / "examples").glob("*"))
