"""The numbers of the tables, from records whose numbers are known."""

import math
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from ablations.report.values import (
    accuracy_values,
    cost_values,
    cumulative_values,
    paper_cumulative,
)

from ablations.cells import Cell, arm_cell, build_cell
from ablations.config import ARMS, CUMULATIVE
from ablations.measure import Accuracy, Cost
from ablations.records import load_records

CELL = arm_cell(variant="pico", arm="v1", base="v2", conditions=Cost())


def test_costs_change_against_v1_at_the_same_resolution(tmp_path, write_cell):
    for arm, resolution, params, macs in (
        ("v1", 64, 100, 1000),
        ("v1+ope", 64, 110, 900),
        ("v1", 128, 100, 4000),
        ("v1+ope", 128, 110, 5000),
    ):
        cell = replace(CELL.of(arm=arm), conditions=Cost(resolution=resolution))
        write_cell(tmp_path, cell, {"params": params, "macs": macs, "macs_traced": macs, "breakdown": {}})
    values = cost_values(load_records(tmp_path))
    assert list(zip(values["resolution"], values["arm"], strict=True)) == [
        ("64", "v1"),
        ("64", "v1+ope"),
        ("128", "v1"),
        ("128", "v1+ope"),
    ]
    assert list(values["params_change_percent"]) == pytest.approx([0, 10, 0, 10])
    assert list(values["macs_change_percent"]) == pytest.approx([0, -10, 0, 25])


def write_top1(tmp_path, write_cell, arm, top1_by_seed, **conditions):
    for seed, top1 in top1_by_seed.items():
        cell = replace(CELL.of(arm=arm), conditions=Accuracy(seed=seed, **conditions))
        write_cell(tmp_path, cell, {"top1": top1, "n_eval_images": 100, "n_train_images": 1000})


def test_accuracies_are_compared_by_paired_seeds(tmp_path, write_cell):
    write_top1(tmp_path, write_cell, "v1", {0: 0.50, 1: 0.60, 2: 0.70})
    write_top1(tmp_path, write_cell, "v1+ope", {0: 0.53, 1: 0.64, 2: 0.75})
    write_top1(tmp_path, write_cell, "v1+cffn", {1: 0.61})
    write_top1(tmp_path, write_cell, "v1+lsra", {5: 0.61})
    values = accuracy_values(load_records(tmp_path)).set_index("arm")
    assert list(values.index) == ["v1", "v1+ope", "v1+cffn", "v1+lsra"]
    assert list(values["n_seeds"]) == [3, 3, 1, 1]
    assert list(values["n_pairs"]) == [0, 3, 1, 0]
    assert list(values["top1_mean"]) == pytest.approx([0.60, 0.64, 0.61, 0.61])
    # Differences 0.03, 0.04, 0.05: their deviation is 0.01, and t is 4.303 for three of them.
    ope = values.loc["v1+ope"]
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) * 0.01 / math.sqrt(3)
    assert ope["top1_difference_mean"] == pytest.approx(0.04)
    assert ope["top1_difference_low"] == pytest.approx(0.04 - half)
    assert ope["top1_difference_high"] == pytest.approx(0.04 + half)
    assert bool(ope["difference_is_resolved"])
    # The spread of v1 itself, 0.10, is far wider than what the pairs leave.
    assert values.loc["v1", "top1_high"] - values.loc["v1", "top1_low"] > 0.4
    assert values.loc[["v1+cffn", "v1+lsra"], "top1_difference_low"].isna().all()
    assert not values.loc[["v1", "v1+cffn", "v1+lsra"], "difference_is_resolved"].any()


@pytest.fixture
def with_models(tmp_path, write_cell):
    """Two arms with three seeds each, a model with two of them and one more, another model with another recipe."""
    write_top1(tmp_path, write_cell, "v1", {0: 0.50, 1: 0.60, 2: 0.70})
    write_top1(tmp_path, write_cell, "v1+ope", {0: 0.53, 1: 0.64, 2: 0.75})
    result = {"n_eval_images": 100, "n_train_images": 1000}
    for seed, top1 in {0: 0.60, 1: 0.80, 5: 0.10}.items():
        write_cell(tmp_path, build_cell(model="timm:resnet18", conditions=Accuracy(seed=seed)), result | {"top1": top1})
    other = build_cell(model="timm:resnet34", conditions=Accuracy(epochs=50))
    write_cell(tmp_path, other, result | {"top1": 0.9})
    return load_records(tmp_path)


def test_other_models_stand_behind_the_arms(with_models):
    values = accuracy_values(with_models)
    assert list(values["arm"].fillna(values["model"])) == ["v1", "v1+ope", "timm:resnet18", "timm:resnet34"]
    assert values["model"].isna().tolist() == [True, True, False, False]
    row = values.iloc[2]
    assert (row["n_seeds"], row["n_pairs"], row["base"]) == (3, 2, "v2")
    assert row["top1_mean"] == pytest.approx(0.5)
    assert row["top1_difference_mean"] == pytest.approx((0.10 + 0.20) / 2)
    # The other recipe is a group of its own, with nothing to be paired with.
    assert (values["epochs"][3], values["n_pairs"][3]) == (50, 0)
    assert pd.isna(values["base"][3])


def test_without_other_models_there_is_no_column_of_them(with_models):
    assert "model" not in accuracy_values(with_models[with_models["arm"].notna()])


def test_what_an_arm_is_worth_does_not_depend_on_other_models(with_models):
    arms = with_models[with_models["arm"].notna()]
    own, both = accuracy_values(arms), accuracy_values(with_models).iloc[:2]
    pd.testing.assert_base_equal(own, both[list(own)].astype(own.dtypes))


MIXES: dict[str, tuple[Callable, Cell, Cell, dict, str]] = {
    "a recipe": (
        accuracy_values,
        replace(CELL, conditions=Accuracy()),
        replace(CELL, conditions=Accuracy(seed=1, mixup=0.8)),
        {},
        "mixup",
    ),
    "the threads of a training": (
        accuracy_values,
        replace(CELL, conditions=Accuracy()),
        replace(CELL, conditions=Accuracy(seed=1)),
        {"threads": 1},
        "threads",
    ),
    "the torch of a training": (
        accuracy_values,
        replace(CELL, conditions=Accuracy()),
        replace(CELL, conditions=Accuracy(seed=1)),
        {"torch": "2.9.0"},
        "torch",
    ),
    "a head": (
        cost_values,
        CELL,
        replace(CELL.of(arm="v1+ope"), conditions=Cost(head="fcos")),
        {},
        "head",
    ),
}


@pytest.mark.parametrize("mix", MIXES)
def test_a_planted_mix_is_split(tmp_path, write_cell, mix):
    values_of, one, other, environment, condition = MIXES[mix]
    write_cell(tmp_path, one)
    write_cell(tmp_path, other, **environment)
    values = values_of(load_records(tmp_path))
    assert len(values) == 2
    assert values[condition].nunique() == 2
    differences = [name for name in values if name.endswith(("_change_percent", "_difference_mean"))]
    assert (values[differences].fillna(0) == 0).all(axis=None)  # nothing is compared across


def test_recipes_are_never_averaged(tmp_path, write_cell):
    write_top1(tmp_path, write_cell, "v1", {0: 0.5, 1: 0.5})
    write_top1(tmp_path, write_cell, "v1", {0: 0.9, 1: 0.9}, epochs=50)
    values = accuracy_values(load_records(tmp_path))
    assert dict(zip(values["epochs"], values["top1_mean"], strict=True)) == {20: 0.5, 50: 0.9}


def test_the_cumulative_has_the_steps_that_the_paper_has(tmp_path, write_cell):
    for conditions in (Cost(), Cost(resolution=(800, 1280)), Cost(resolution=512), Cost(head="retinanet")):
        for arm in ARMS:
            write_cell(tmp_path, arm_cell(variant="b2", arm=arm, base="published", conditions=conditions))
    values = cumulative_values(load_records(tmp_path))
    # Detectors and other sizes are left out: what the paper prints for the cumulative's backbones is at 224 px.
    assert list(values["resolution"]) == ["224"] * 4
    assert list(values["head"]) == ["classifier"] * 4
    assert list(values["arm"]) == list(CUMULATIVE)
    assert list(values["params_step"][1:] / 1e6) == pytest.approx([0.68, 0.19, -2.81], abs=0.005)
    assert list(values["paper_retinanet_params_step_m"][1:]) == pytest.approx([0.7, 0.2, -2.8])
    assert list(values["macs"].round(-6)) == [3_816_000_000, 3_938_000_000, 4_027_000_000, 3_889_000_000]
    assert list(values["macs_step"][1:]) == list(values["macs"].astype(int).diff()[1:])
    assert list(values["paper_gflops"].dropna()) == [3.8, 4.0, 3.9]


def test_a_cumulative_with_a_missing_arm_has_no_step_over_it(tmp_path, write_cell):
    for arm in ("v1", "v1+ope+cffn", "v1+ope+cffn+lsra"):
        write_cell(tmp_path, arm_cell(variant="b2", arm=arm, base="published", conditions=Cost()))
    values = cumulative_values(load_records(tmp_path)).set_index("arm")
    assert list(values.index) == ["v1", "v1+ope+cffn", "v1+ope+cffn+lsra"]
    assert list(values["params_step"].isna()) == [True, True, False]


def test_the_papers_cumulative_is_the_papers():
    paper = paper_cumulative()
    assert tuple(paper.index) == CUMULATIVE
    assert list(paper["paper_top1_percent"]) == [79.8, 81.1, 82.0, 82.1]
    assert list(paper["paper_retinanet_params_step_m"][1:]) == pytest.approx([0.7, 0.2, -2.8])
    assert list(paper["paper_params_m"].dropna()) == [24.5, 25.4, 22.6]


@pytest.mark.parametrize("values", [cost_values, cumulative_values, accuracy_values])
def test_no_records_make_no_values(tmp_path, values):
    assert values(load_records(tmp_path)).empty
