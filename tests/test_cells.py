"""Cells, their names and their addresses."""

import json
import os
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from ablations.cells import LONGEST_NAME, address, arm_cell, build_cell, file_name, split_file_model
from ablations.conditions import field_docstrings
from ablations.config import build_config
from ablations.errors import InputError
from ablations.measure import MEASUREMENTS, Accuracy, Cost, Memory, Speed

CELL = arm_cell(variant="pico", arm="v1", base="v2", conditions=Accuracy())


def test_the_address_depends_on_everything_that_is_measured():
    others = [
        CELL.of(variant="nano"),
        CELL.of(arm="v1+ope"),
        CELL.of(base="v1"),
        CELL.of(base="published", arm="v1+ope"),
        CELL.of(overrides=(("attention", "explicit"),)),
        CELL.of(overrides=(("pool_size", 3),)),
        CELL.of(overrides=(("stage_norm", "last"),)),
        *(replace(CELL, conditions=replace(Accuracy(), **{name: value})) for name, value in CHANGED.items()),
        replace(CELL, conditions=Memory()),
        replace(CELL, conditions=Speed()),
        replace(CELL, conditions=Cost()),
    ]
    assert set(CHANGED) | {"rand_augment", "initial_weights"} == set(vars(Accuracy())), "a condition without a test"
    streaming = replace(Accuracy(), loading="streaming", rand_augment="rand-m9")  # which needs the other
    others.append(replace(CELL, conditions=streaming))
    assert len({CELL.key, *(cell.key for cell in others)}) == 1 + len(others)
    assert CELL.key == replace(CELL).key


CHANGED = {
    "data": "fashion-mnist",
    "num_classes": 11,
    "init": "digits",
    "resolution": 64,
    "train_images": 100,
    "epochs": 30,
    "batch_size": 7,
    "base_lr": 0.5,
    "weight_decay": 0.5,
    "warmup_epochs": 1.0,
    "label_smoothing": 0.5,
    "drop_path_rate": 0.5,
    "loading": "streaming",
    "cooldown_epochs": 3,
    "lr_base_size": 512,
    "warmup_lr_ratio": 0.5,
    "min_lr_ratio": 0.5,
    "clip_grad_norm": 5.0,
    "mixup": 0.5,
    "cutmix": 0.5,
    "min_crop_scale": 0.5,
    "random_erasing": 0.5,
    "aug_repeats": 2,
    "ema_decay": 0.5,
    "eval_every": 2,
    "skip_unreadable": True,
    "compiled": True,
    "precision": "bf16",
    "device": "cuda",
    "seed": 5,
    "tuning_images": 100,
    "eval_resolutions": (48, 96),
}


def test_overrides_are_what_differs_from_the_names():
    same = CELL.of(overrides=(("pool_size", 2), ("stage_norm", "every"), ("attention", None)))
    assert same == CELL  # pico's own P and base v2's norms
    changed = CELL.of(overrides=(("stage_norm", "last"), ("pool_size", 4)))
    assert changed.model.overrides == (("pool_size", 4), ("stage_norm", "last"))
    assert (changed.config.stage_norm, changed.config.pool_size) == ("last", 4)
    assert "stage_norm=last" in changed.label
    with pytest.raises(InputError, match=r"^field='in_chans' is not possible; allowed: attention, pool_size"):
        CELL.of(overrides=(("in_chans", 1),))


def test_the_scheme_of_initial_weights_is_in_the_key_at_its_default_too():
    description = CELL.describe()
    older = description | {"conditions": {k: v for k, v in description["conditions"].items() if k != "initial_weights"}}
    assert address(older) != CELL.key
    assert build_cell("timm:resnet18", Accuracy()).conditions.initial_weights == "in_order"
    with pytest.raises(InputError, match=r"^initial_weights=.in_order. is not possible; allowed: by_name for an arm"):
        replace(CELL, conditions=Accuracy(initial_weights="in_order"))


def test_every_condition_of_every_measurement_is_described():
    for kind in MEASUREMENTS.values():
        meanings = field_docstrings(kind)
        assert [each.name for each in fields(kind) if not meanings.get(each.name)] == []


def test_whole_numbers_of_a_real_condition_are_the_same_cell():
    assert (
        arm_cell("pico", "v1", "v2", Accuracy(warmup_epochs=1)).key
        == arm_cell("pico", "v1", "v2", Accuracy(warmup_epochs=1.0)).key
    )


def test_what_the_conditions_set_cannot_be_overridden():
    with pytest.raises(InputError, match=r"^pooling='class_token' is not possible; allowed: average, which cost sets"):
        arm_cell("pico", "v1", "v2", Cost(head="retinanet"), pooling="class_token")


def test_files_of_one_name_in_two_folders_are_two_models(tmp_path):
    cells = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"# {name}")
        cells.append(build_cell(f"{tmp_path / name / 'mine.py'}:build", Cost()))
    assert cells[0] != cells[1]
    assert cells[0].key != cells[1].key


def test_arms_alone_are_timed_and_evaluated():
    with pytest.raises(InputError, match=r"^model='timm:resnet18' is not possible; allowed: an arm: speed"):
        build_cell("timm:resnet18", Speed())


def test_the_published_name_of_a_variant_is_the_same_cell():
    assert CELL.of(variant="small").key == CELL.of(variant="b2").key


def test_accuracy_builds_the_model_for_its_data():
    cell = replace(CELL, conditions=Accuracy(resolution=64, num_classes=37, drop_path_rate=0.2))
    assert (cell.config.img_size, cell.config.num_classes, cell.config.drop_path_rate) == (64, 37, 0.2)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (Cost(resolution=16), "resolution=16 is not possible; allowed: 32 to 65536 pixels"),
        (Speed(repeats=5), "repeats=5"),
        (Memory(batch_size=0), "batch_size=0"),
        (Memory(mode="train"), "mode='train' is not possible; allowed: inference, training"),
        (Memory(checkpointing="1"), "checkpointing='1' is not possible; allowed: none where mode is inference"),
        *(
            (
                Memory(mode="training", checkpointing=text),
                re.escape(f"checkpointing={text!r} is not possible; allowed: none, or"),
            )
            for text in ("", "0", "5", "2+1", "1+1", "1,2", "all")
        ),
        (Accuracy(epochs=0), "epochs=0"),
        (Accuracy(base_lr=0.0), "base_lr=0.0"),
        (Accuracy(weight_decay=-1.0), "weight_decay=-1.0"),
        (Accuracy(warmup_epochs=30.0), "warmup_epochs=30.0 is not possible; allowed: .* less than epochs"),
        (Accuracy(label_smoothing=1.0), "label_smoothing=1.0"),
        (Accuracy(train_images=-1), "train_images=-1"),
        (Accuracy(seed=-1), "seed=-1"),
        (Accuracy(num_classes=1), "num_classes=1"),
        (Accuracy(precision="fp8"), "precision='fp8'"),
        (Memory(device="tpu"), "device='tpu'"),
        (
            Cost(head="yolo"),
            "head='yolo' is not possible; allowed: classifier, retinanet, mask_rcnn, fcos, semantic_fpn",
        ),
    ],
    ids=repr,
)
def test_impossible_conditions_are_refused(conditions, message):
    with pytest.raises(InputError, match=message):
        arm_cell(variant="pico", arm="v1", base="v2", conditions=conditions)


def test_a_field_at_its_default_does_not_count_so_a_new_one_moves_no_record():
    description = CELL.describe()
    older = description | {"config": {k: v for k, v in description["config"].items() if k != "attention"}}
    older["conditions"] = {k: v for k, v in description["conditions"].items() if k != "drop_path_rate"}
    assert address(older) == CELL.key
    assert address(json.loads(json.dumps(description))) == CELL.key


@pytest.mark.parametrize(
    ("variant", "arm", "resolution", "key"),
    [
        ("b2", "v1+cffn", 224, "fdc5cf0ffbc9ef29"),
        ("b2", "v1+ope", (800, 1280), "02b3a74ca045fb28"),
    ],
)
def test_an_address_never_changes(variant, arm, resolution, key):
    cell = arm_cell(variant=variant, arm=arm, base="published", conditions=Cost(resolution=resolution))
    assert cell.key == key
    assert cell.file_name == f"{variant}_published_{arm.replace('+', '-')}_{key}"


def test_the_head_and_the_size_of_a_cost_count():
    changed = {"head": "fcos", "resolution": 64}
    assert set(changed) == set(vars(Cost())), "a condition without a test"
    for cell in (replace(CELL, conditions=Cost()), build_cell(model="timm:resnet18", conditions=Cost())):
        others = [replace(cell, conditions=replace(Cost(), **{name: value})) for name, value in changed.items()]
        assert len({cell.key, *(other.key for other in others)}) == 3


@pytest.mark.parametrize("base", ["v1", "v2"])
def test_below_a_head_a_backbone_has_no_classifier_and_no_class_token(base):
    cell = arm_cell(variant="pico", arm="v1", base=base, conditions=Cost(head="retinanet"))
    assert cell.config == build_config("pico", "v1", base, num_classes=0, pooling="average")
    assert replace(cell, conditions=Cost()).config == build_config("pico", "v1", base)


@pytest.mark.parametrize("variant", ["b2", "small"])
def test_an_arm_s_name_makes_its_cell(variant):
    conditions = Cost(resolution=(64, 96), head="fcos")
    by_hand = arm_cell(variant="b2", arm="v1+ope", base="published", conditions=conditions)
    by_name = build_cell(f"pvt:{variant}/v1+ope/published", conditions)
    assert by_name == by_hand
    assert by_name.key == by_hand.key


@pytest.mark.parametrize(
    ("model", "file_name"),
    [
        ("timm:resnet18", "timm-resnet18"),
        ("timm:vit_small_patch16_224?dynamic_img_size=True", "timm-vit-small-patch16-224-dynamic-img-size-True"),
        ("transformers:cvt-13", "transformers-cvt-13"),
    ],
)
def test_a_model_s_cell_says_what_it_is(model, file_name):
    cell = build_cell(model, Cost(resolution=(64, 96), head="fcos"))
    assert cell == build_cell(model=model, conditions=Cost(resolution=(64, 96), head="fcos"))
    conditions = {"resolution": [64, 96], "head": "fcos"}
    assert cell.describe() == {"measurement": "cost", "model": model, "conditions": conditions}
    assert cell.label == f"cost {model} resolution=(64, 96) head=fcos"
    assert cell.file_name == f"{file_name}_{cell.key}"
    assert cell.key == address(json.loads(json.dumps(cell.describe())))
    assert cell.key != build_cell(f"{model}x", cell.conditions).key


def test_a_model_from_a_file_is_another_when_the_file_changes(tmp_path):
    path = tmp_path / "mine.py"
    keys = []
    for text in ("build = 1\n", "build = 2\n", "build = 1\n"):
        path.write_text(text)
        keys.append(build_cell(f"{path}:build", Cost()).key)
    assert keys[0] == keys[2] != keys[1]
    cell = build_cell(f"{path}:build", Cost())
    # Of the text itself: printf 'build = 1\n' | sha256sum
    assert cell.describe()["file_sha256"] == "76d37fa679d496631db63b268ca54faff8e036b0fc6011c834d0c71b8d712b08"
    assert cell.source == f"{path}:build"
    assert str(tmp_path) not in json.dumps(cell.describe()) + cell.label + cell.name
    assert cell.file_name == f"mine.py-build_{cell.key}"


def test_a_file_s_name_may_hold_colons(tmp_path):
    path = tmp_path / "my:nets.py"
    path.write_text("")
    assert split_file_model(f"{path}:build") == (path, "build")
    assert split_file_model("timm:resnet18") is None


SOURCES = "timm:NAME, transformers:NAME, baselines:NAME, pvt:VARIANT/ARM/BASE, FILE.py:FUNCTION, or a"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("", f"model='' is not possible; allowed: {SOURCES}"),
        ("resnet18", f"model='resnet18' is not possible; allowed: {SOURCES}"),
        ("keras:resnet18", f"model='keras:resnet18' is not possible; allowed: {SOURCES}"),
        ("timm:", f"model='timm:' is not possible; allowed: {SOURCES}"),
        ("mine.txt:build", f"model='mine.txt:build' is not possible; allowed: {SOURCES}"),
        ("mine.py", "model='mine.py' is not possible; allowed: a file and its function that returns a module"),
        ("no/mine.py:build", "model='no/mine.py:build' is not possible; allowed: a Python file that exists"),
        ("pvt:b2/v1", "model='pvt:b2/v1' is not possible; allowed: pvt:VARIANT/ARM/BASE, such as pvt:b2/v1+ope/"),
        ("pvt:b2/v1/v1/v1", "model='pvt:b2/v1/v1/v1' is not possible; allowed: pvt:VARIANT/ARM/BASE"),
        ("pvt:b7/v1/v1", "variant='b7' is not possible; allowed: pico, nano, b0"),
        ("pvt:b2/v2/v1", "arm='v2' is not possible: v2 names a base; PVT v2 is arm v1+ope+cffn"),
        ("pvt:b2/v1/v3", "base='v3' is not possible; allowed: published, v1, v2"),
    ],
)
def test_a_name_that_no_source_has_is_refused_in_one_line(model, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        build_cell(model, Cost())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("resolution", [0, -1, 2**16 + 1, (224, 0)])
def test_a_model_may_be_given_any_size_that_there_is(resolution):
    with pytest.raises(InputError, match=r"resolution=.* is not possible; allowed: 1 to 65536 pixels a side"):
        build_cell(model="timm:resnet18", conditions=Cost(resolution=resolution))
    assert build_cell(model="timm:resnet18", conditions=Cost(resolution=(1, 2**16))).conditions.resolution == (1, 65536)


@pytest.mark.parametrize("name", ["x" * 5000, "timm:" + "y/" * 300, "a\nb", "m\udcff.py:build"])
def test_names_of_files_are_short_and_plain(name):
    written = file_name({"model": name}, "0" * 16)
    assert len(written) <= LONGEST_NAME + 17
    assert written.isascii()
    assert written.isprintable()
    assert "/" not in written


def test_a_file_whose_name_is_no_unicode_has_a_name_that_can_be_written(tmp_path):
    path = tmp_path / os.fsdecode(b"net\xff\n.py")
    path.write_text("")
    cell = build_cell(f"{path}:build", Cost())
    assert cell.name == r"net\udcff\n.py:build"
    assert Path(cell.source.rpartition(":")[0]) == path
