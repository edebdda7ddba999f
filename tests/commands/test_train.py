"""The commands `accuracy`, `detect` and `segment`: their recipes, cells and refusals, and what they say first."""

import json
import sys
from dataclasses import replace

import pytest

from ablations import cli
from ablations.cells import arm_cell
from ablations.cli import main, parse
from ablations.errors import InputError
from ablations.flags import flag_of
from ablations.measure import Accuracy
from ablations.recipes import RECIPES, recipe_values


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("flag", ["--recipe {}", "--recipe={}"])
def test_a_recipe_s_defaults_show_in_its_help_and_are_what_is_trained_by(call, capsys, monkeypatch, name, flag):
    monkeypatch.setenv("COLUMNS", "1000")  # no word is broken at a hyphen
    arguments = flag.format(name).split()
    _, out, _ = call(capsys, "accuracy", *arguments, "--help-all")
    shown = " ".join(out.split())
    values = recipe_values(name)
    command = cli.parse(["accuracy", *arguments])
    for field, value in values.items():
        option = shown.partition(f"{flag_of(field)} ")[2].partition(" --")[0]
        assert f"(default: {value!r})" in option.replace(f"(default: {value})", f"(default: {value!r})")
        assert getattr(command, field) == value


def test_what_is_given_beats_the_recipe_wherever_it_stands():
    given = ["--epochs", "3", "--drop-path-rate", "0.2", "--mixup", "0"]
    for arguments in ([*given, "--recipe", "paper"], ["--recipe", "paper", *given]):
        training = cli.parse(["accuracy", *arguments, "--data", "digits"]).conditions
        changed = {name: value for name, value in recipe_values("paper").items() if getattr(training, name) != value}
        assert changed == {"data": "imagenet", "epochs": 300, "drop_path_rate": None, "mixup": 0.8}
        assert (training.epochs, training.drop_path_rate, training.mixup) == (3, 0.2, 0.0)


@pytest.mark.parametrize(
    ("words", "there", "missing"),
    [
        ("segment --data mine --num-classes 3 --void-label 0", ["void_label=0"], ["first_label", "seed"]),
        ("accuracy --label-smoothing 0", ["label_smoothing=0.0", "min_lr_ratio=0.01"], ["mixup", "train_images"]),
        ("accuracy --recipe paper --data imagenet", ["mixup=0.8", "rand_augment=rand-m9-mstd0.5-inc1"], ["ema_decay"]),
    ],
)
def test_a_training_says_first_what_is_set_and_no_name_is_cut_in_two(capsys, monkeypatch, words, there, missing):
    monkeypatch.setenv("COLUMNS", "40")
    command = cli.parse([*words.split(), "--arms", "v1", "--seeds", "0", "1"])
    command.begin(command.cells())
    out = capsys.readouterr().out
    assert out.startswith("recipe: ")
    assert " ".join(out.split()).count("; all else is 0, off or empty total batch ") == 1
    assert set(there) <= set(out.replace(";", "").split())
    assert [name for name in missing if f"{name}=" in out] == []


def test_a_training_says_by_which_other_recipe_the_folder_has_such_models(capsys, quick_results):
    said = {}
    pico = "--variants pico"
    as_quick = f"{pico} --epochs 3 --batch-size 32 --base-lr 5e-3"
    for words in (f"{pico} --epochs 2", as_quick, f"{pico} --data fashion-mnist", "--variants nano"):
        command = cli.parse(["accuracy", *words.split(), "--results", str(quick_results)])
        command.begin(command.cells())
        said[words] = capsys.readouterr().err
    found = f"{quick_results} has trainings of such a model by another recipe (epochs=3 batch_size=32 base_lr=0.005)"
    assert said.pop(f"{pico} --epochs 2") == f"note: {found}; tables keep the two apart\n"
    assert set(said.values()) == {""}


def test_a_command_s_cells_have_the_data_s_classes_and_what_the_recipe_leaves_to_the_variant(tmp_path):
    for name in ("cat", "dog", "cow"):
        (tmp_path / "pets" / "train" / name).mkdir(parents=True)
    asked = ["accuracy", "--recipe", "paper", "--data", "pets", "--data-dir", str(tmp_path), "--arms", "v1"]
    cells = cli.parse([*asked, "--variants", "b0", "b4", "--seeds", "1", "2"]).cells()
    assert [(cell.model.variant, cell.conditions.seed) for cell in cells] == [
        ("b0", 1),
        ("b0", 2),
        ("b4", 1),
        ("b4", 2),
    ]
    assert {cell.conditions.num_classes for cell in cells} == {3}
    assert [(cell.conditions.clip_grad_norm, cell.conditions.drop_path_rate) for cell in cells[1:3]] == [
        (0.0, 0.1),
        (1.0, 0.3),
    ]


@pytest.mark.parametrize(
    ("data", "classes"), [("digits", 10), ("fashion-mnist", 10), ("cifar10", 10), ("cifar100", 100)]
)
def test_the_built_in_data_sets_have_their_classes(data, classes):
    (cell,) = cli.parse(["accuracy", "--data", data, "--arms", "v1"]).cells()
    assert cell.conditions.num_classes == classes


def test_models_are_trained_instead_of_arms_or_beside_named_ones():
    alone = cli.parse(["accuracy", "--model", "timm:resnet18"]).cells()
    assert [cell.label for cell in alone] == ["accuracy timm:resnet18"]
    beside = cli.parse(["accuracy", "--model", "timm:resnet18", "--arms", "v1"]).cells()
    assert [cell.name for cell in beside] == ["timm:resnet18", "nano v1"]


@pytest.mark.slow
def test_a_training_prints_what_it_was_trained_by_and_a_baseline_stands_in_its_table(call, capsys, tmp_path):
    arguments = ["accuracy", "--recipe", "smoke", "--train-images", "20", "--batch-size", "10", "--model"]
    models = ["timm:resnet18", "pvt:pico/v1/v2"]
    code, out, err = call(capsys, *arguments, *models, "--results", str(tmp_path))
    assert code == 0, err
    assert "epochs=1" in out
    assert "batch_size=10" in out
    assert "total batch 10, peak learning rate 0.003" in out
    assert "2 cells measured" in out
    records = [json.loads(path.read_text()) for path in (tmp_path / "records" / "accuracy").glob("*.json")]
    assert {record.get("model", record.get("arm")) for record in records} == {"timm:resnet18", "v1"}


def test_tensorboard_is_refused_before_anything_is_trained_where_it_is_not_installed(
    call, capsys, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # whether it is or not
    code, _, err = call(capsys, "accuracy", "--tensorboard", "--results", str(tmp_path / "runs"))
    assert (code, err) == (2, "error: tensorboard=True needs the package tensorboard, which is not installed\n")
    assert not (tmp_path / "runs").exists()


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


def test_another_head_is_no_other_recipe(write_dense, capsys, tmp_path):
    command = parse(["detect", "--data", "bccd", "--arms", "v1", "--results", str(tmp_path)])
    (cell,) = command.cells()
    for head, is_said in (("fcos", False), ("retinanet", True)):
        write_dense(tmp_path, replace(cell, conditions=replace(cell.conditions, head=head, epochs=2)), 0.3)
        command.begin([cell])
        assert ("by another recipe (epochs=2); tables keep" in capsys.readouterr().err) is is_said
