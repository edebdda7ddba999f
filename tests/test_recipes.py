"""Recipes: what each of them is, what they refuse, and what is left to the model."""

from dataclasses import fields, replace

import pytest

from ablations.cells import arm_cell, build_cell
from ablations.conditions import field_docstrings
from ablations.errors import InputError
from ablations.measure import Accuracy
from ablations.recipes import RECIPES, Paper, Recipe, Small, Smoke, as_released, recipe_values


def test_the_paper_s_recipe_is_the_released_one():
    # DESIGN, section 3: "Official recipe".
    assert vars(Paper()) == {
        "data": "imagenet",
        "resolution": 224,
        "loading": "streaming",
        "epochs": 300,
        "cooldown_epochs": 10,
        "batch_size": 1024,
        "base_lr": 5e-4,
        "lr_base_size": 512,
        "weight_decay": 0.05,
        "warmup_epochs": 5.0,
        "warmup_lr_ratio": 0.001,
        "min_lr_ratio": 0.01,
        "clip_grad_norm": None,
        "drop_path_rate": None,
        "label_smoothing": 0.1,
        "mixup": 0.8,
        "cutmix": 1.0,
        "min_crop_scale": 0.08,
        "rand_augment": "rand-m9-mstd0.5-inc1",
        "random_erasing": 0.25,
        "aug_repeats": 3,
        "ema_decay": 0.0,
        "eval_every": 0,
    }


def test_the_paper_s_rates_are_absolute_as_released():
    recipe = Paper()
    assert recipe.peak_lr == pytest.approx(1e-3)
    assert recipe.peak_lr * recipe.warmup_lr_ratio == pytest.approx(1e-6)
    assert recipe.peak_lr * recipe.min_lr_ratio == pytest.approx(1e-5)
    assert recipe.total_epochs == 310


@pytest.mark.parametrize(("batch_size", "peak"), [(512, 5e-4), (1024, 1e-3), (128, 1.25e-4)])
def test_the_peak_is_scaled_with_the_batch_where_a_batch_is_named(batch_size, peak):
    assert replace(Paper(), batch_size=batch_size).peak_lr == pytest.approx(peak)
    assert replace(Small(), batch_size=batch_size).peak_lr == Small().base_lr


def test_small_and_smoke_train_small_images_whole():
    assert vars(Small()) == vars(Recipe())
    changed = {name for name, value in vars(Smoke()).items() if value != vars(Small())[name]}
    assert changed == {"epochs", "batch_size", "warmup_epochs"}
    off = (Small().mixup, Small().cutmix, Small().random_erasing, Small().rand_augment, Small().aug_repeats)
    assert off == (0, 0, 0, "", 1)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_trained_and_says_where_it_is_from(name):
    recipe = RECIPES[name]()
    recipe.check()
    assert recipe_values(name) == vars(recipe)
    assert "Expect" in type(recipe).__doc__


@pytest.mark.parametrize("kind", [Recipe, Accuracy])
def test_every_field_says_what_it_means(kind):
    assert {field.name for field in fields(kind)} - field_docstrings(kind).keys() == set()


def test_an_unknown_recipe_is_named_with_those_there_are():
    with pytest.raises(InputError, match=r"recipe='papper' is not possible; allowed: small, smoke, paper .*'paper'"):
        recipe_values("papper")


DEEP = {"clip_grad_norm": 1.0, "drop_path_rate": 0.3}
SHALLOW = {"clip_grad_norm": 0.0, "drop_path_rate": 0.1}


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        *((name, SHALLOW) for name in ("b0", "b1", "b2", "tiny", "small", "pico", "nano")),
        *((name, DEEP) for name in ("b3", "b4", "b5", "medium", "large")),
    ],
)
def test_what_the_paper_s_recipe_leaves_open_a_variant_s_cell_has_as_released(variant, expected):
    cell = arm_cell(variant=variant, arm="v1", base="published", conditions=Accuracy(**recipe_values("paper")))
    assert {name: getattr(cell.conditions, name) for name in expected} == expected
    assert cell.config.drop_path_rate == expected["drop_path_rate"]


def test_what_is_given_is_not_resolved():
    conditions = replace(Accuracy(**recipe_values("paper")), clip_grad_norm=5.0, drop_path_rate=0.0)
    for cell in (
        arm_cell(variant="b4", arm="v1", base="published", conditions=conditions),
        build_cell(model="timm:resnet18", conditions=conditions),
    ):
        assert (cell.conditions.clip_grad_norm, cell.conditions.drop_path_rate) == (5.0, 0.0)


def test_a_model_that_is_no_arm_has_what_the_small_ones_have():
    cell = build_cell(model="timm:resnet18", conditions=Accuracy(**recipe_values("paper")))
    assert {name: getattr(cell.conditions, name) for name in SHALLOW} == SHALLOW == as_released("timm:resnet18")


def test_a_resolved_cell_is_the_one_that_gives_the_values_itself():
    left_open = Accuracy(**recipe_values("paper"))
    given = replace(left_open, **DEEP)
    cells = [arm_cell(variant="b3", arm="v1", base="v2", conditions=each) for each in (left_open, given)]
    assert cells[0] == cells[1]
    assert cells[0].key == cells[1].key


NAN = float("nan")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base_lr": 0.0}, "base_lr=0.0 is not possible; allowed: more than 0"),
        ({"base_lr": NAN}, "base_lr=nan"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0 is not possible; allowed: 0 or more and less than 1"),
        ({"label_smoothing": NAN}, "label_smoothing=nan"),
        ({"ema_decay": 1.0}, "ema_decay=1.0 is not possible; allowed: 0 or more and less than 1"),
        ({"ema_decay": -0.1}, "ema_decay=-0.1"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0 is not possible; allowed: 0 or more and less than 1"),
        ({"warmup_lr_ratio": 1.1}, "warmup_lr_ratio=1.1 is not possible; allowed: 0 to 1"),
        ({"min_lr_ratio": -0.1}, "min_lr_ratio=-0.1 is not possible; allowed: 0 to 1"),
        ({"random_erasing": 1.5}, "random_erasing=1.5 is not possible; allowed: 0 to 1"),
        ({"min_crop_scale": 0.0}, "min_crop_scale=0.0 is not possible; allowed: more than 0, up to 1"),
        ({"min_crop_scale": 1.01}, "min_crop_scale=1.01 is not possible"),
        ({"warmup_epochs": 20.0}, "warmup_epochs=20.0 is not possible; allowed: 0 or more and less than epochs, 20"),
        ({"warmup_epochs": -1.0}, "warmup_epochs=-1.0"),
        ({"mixup": 0.2, "batch_size": 33}, "batch_size=33 is not possible; allowed: an even number with mixup or"),
        ({"cutmix": 0.2, "batch_size": 33}, "batch_size=33 is not possible"),
        ({"rand_augment": "rand-m9"}, "rand_augment='rand-m9' is not possible; allowed: nothing for in-memory"),
    ],
    ids=repr,
)
def test_a_recipe_that_cannot_be_trained_is_refused(changed, message):
    with pytest.raises(InputError) as caught:
        replace(Recipe(), **changed).check()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_size": 33},
        {"mixup": 0.2, "batch_size": 34},
        {"rand_augment": "rand-m9", "loading": "streaming"},
        {
            "min_crop_scale": 1.0,
            "warmup_lr_ratio": 1.0,
            "min_lr_ratio": 0.0,
            "random_erasing": 1.0,
            "warmup_epochs": 0.0,
        },
        {"clip_grad_norm": None, "drop_path_rate": None},
    ],
    ids=repr,
)
def test_the_borders_of_what_can_be_trained(changed):
    replace(Recipe(), **changed).check()
