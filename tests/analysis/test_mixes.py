"""What was measured otherwise, or is no arm, changes no number of the arms that it stands beside."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from ablations.analysis.accuracy import accuracy_values, cumulative_accuracy_values
from ablations.analysis.confounders import base_gain_values, confounder_values
from ablations.analysis.effects import effect_values, order_values, power_values, shapley_values, step_values
from ablations.analysis.tradeoffs import tradeoff_values
from ablations.cells import arm_cell, build_cell
from ablations.config import ARMS
from ablations.measure import Accuracy
from ablations.records import load_records

SUMMARIES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "accuracy": accuracy_values,
    "effects": partial(effect_values, measurement="accuracy"),
    "steps": step_values,
    "orders": order_values,
    "shapley": partial(shapley_values, measurement="accuracy"),
    "cumulative": cumulative_accuracy_values,
    "confounders": partial(confounder_values, measurement="accuracy"),
    "base gains": base_gain_values,
    "trade-offs": tradeoff_values,
    "power": partial(power_values, difference=0.01),
}

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_cell: Write) -> Path:
    """Eight arms in two bases, each with three seeds."""
    folder = tmp_path_factory.mktemp("alone")
    write_trained(folder, write_cell, range(3))
    return folder


def write_trained(folder: Path, write_cell: Write, seeds: range, **conditions: float) -> None:
    for arm in ARMS:
        for base in ("v1", "v2"):
            for seed in seeds:
                cell = arm_cell("pico", arm, base, Accuracy(seed=seed, **conditions))
                top1 = 0.6 + 0.01 * len(arm) + 0.002 * (seed % 3) * len(base + arm)
                write_cell(folder, cell, {"top1": top1, "n_eval_images": 100, "n_train_images": 1000})


@pytest.fixture(scope="module")
def alone(folder: Path) -> pd.DataFrame:
    return load_records(folder)


@pytest.fixture(scope="module")
def two_recipes(folder: Path, tmp_path_factory: pytest.TempPathFactory, write_cell: Write) -> pd.DataFrame:
    """The same beside another recipe, whose seeds are other ones: all could be taken together unnoticed."""
    both = tmp_path_factory.mktemp("both") / "results"
    shutil.copytree(folder, both)
    write_trained(both, write_cell, range(3, 6), cutmix=1.0)
    return load_records(both)


@pytest.mark.parametrize("what", SUMMARIES)
def test_recipes_are_never_taken_together(alone: pd.DataFrame, two_recipes: pd.DataFrame, what: str) -> None:
    own, both = (SUMMARIES[what](records) for records in (alone, two_recipes))
    assert len(both) == 2 * len(own) > 0
    assert set(both["cutmix"]) == {0, 1}
    counts = [name for name in both if name == "n_seeds" or name.endswith("_n")]
    assert both[counts].max().max() == 3
    pd.testing.assert_frame_equal(both[both["cutmix"] == 0].reset_index(drop=True), own, check_dtype=False)


@pytest.fixture(scope="module")
def with_a_model(folder: Path, tmp_path_factory: pytest.TempPathFactory, write_cell: Write) -> pd.DataFrame:
    """The same beside a model that is no arm, trained alike."""
    both = tmp_path_factory.mktemp("both") / "results"
    shutil.copytree(folder, both)
    for seed in range(3):
        model = build_cell(model="timm:resnet18", conditions=Accuracy(seed=seed))
        write_cell(both, model, {"top1": 0.99, "n_eval_images": 100, "n_train_images": 1000})
    return load_records(both)


@pytest.mark.parametrize("what", [name for name in SUMMARIES if name != "accuracy"])
def test_models_that_are_no_arms_change_nothing(alone: pd.DataFrame, with_a_model: pd.DataFrame, what: str) -> None:
    pd.testing.assert_frame_equal(SUMMARIES[what](with_a_model), SUMMARIES[what](alone))


@pytest.fixture
def with_models(tmp_path, write_cell, write_top1) -> pd.DataFrame:
    """Two arms with three seeds, a model with two of them and one more, and one of another recipe."""
    for arm, top1 in (("v1", (0.50, 0.60, 0.70)), ("v1+ope", (0.53, 0.64, 0.75))):
        for seed, value in enumerate(top1):
            write_top1(arm, seed, value)
    for seed, value in ((0, 0.60), (1, 0.80), (5, 0.10)):
        write_top1("timm:resnet18", seed, value)
    write_top1("timm:resnet34", 0, 0.9, epochs=50)
    return load_records(tmp_path)


def test_other_models_stand_behind_the_arms(with_models):
    values = accuracy_values(with_models)
    assert list(values["arm"].fillna(values["model"])) == ["v1", "v1+ope", "timm:resnet18", "timm:resnet34"]
    assert values["model"].isna().tolist() == [True, True, False, False]
    model, other = values.iloc[2], values.iloc[3]
    assert (model["n_seeds"], model["base"], model["top1_mean"]) == (3, "v2", pytest.approx(0.5))
    assert model["top1_difference_mean"] == pytest.approx(0.5 - 0.6)
    # The other recipe is a group of its own, with nothing to be compared with.
    assert (other["epochs"], other["top1_difference_n"]) == (50, 0)
    assert pd.isna(other["base"])


def test_what_an_arm_reaches_does_not_depend_on_other_models(with_models):
    arms = with_models[with_models["arm"].notna()]
    own, both = accuracy_values(arms), accuracy_values(with_models).iloc[:2]
    assert "model" not in own
    # A model is one more comparison of the family.
    kept = [name for name in own if name not in ("top1_difference_p_holm", "machines")]
    pd.testing.assert_frame_equal(own[kept], both[kept], check_dtype=False)
    assert both["top1_difference_p_holm"].iloc[1] == pytest.approx(2 * own["top1_difference_p_holm"].iloc[1])
