"""How much of the paper's first step is the base, from records whose numbers are known."""

import math

import pytest

from ablations.analysis.confounders import PUBLISHED_STEP, confounder_values
from ablations.cells import arm_cell
from ablations.config import ARMS, BASES, build_config
from ablations.cost import count_macs, count_params
from ablations.measure import Cost
from ablations.records import load_records

T_5 = 2.570581835636314
"""The 97.5 % quantile of Student's t with five degrees of freedom."""


@pytest.fixture
def write_costs(tmp_path, write_cell):
    """`write_costs(models)` writes the true counts of b2's models, each an arm and a base."""

    def write(models):
        for arm, base in models:
            write_cell(tmp_path, arm_cell("b2", arm, base, Cost()))

    return write


def test_the_published_step_is_the_base_and_ope(tmp_path, write_costs):
    write_costs([(arm, base) for arm in ARMS for base in BASES])
    values = confounder_values(load_records(tmp_path), "cost").set_index("part")
    step, base_first, ope_then, ope_first, base_then, relu = values["params_part"]
    # 0.68 M more, where OPE by itself has 1.07 M: position embeddings and the class token go.
    assert step == 682_432
    assert step == base_first + ope_then == ope_first + base_then
    assert ope_then == ope_first == 1_071_296
    assert relu == 0
    old, new = (build_config("b2", "v1", base) for base in ("v1", "v2"))
    assert base_first == count_params(new) - count_params(old)
    base = values.loc["base, at v1"]
    assert base["macs_part"] == count_macs(new, 224) - count_macs(old, 224)
    assert base["params_part_percent"] == pytest.approx(100 * base_first / count_params(old))
    assert base["params_share_percent"] == pytest.approx(100 * base_first / step)
    assert values.loc[PUBLISHED_STEP, "params_share_percent"] == 100


def test_a_model_that_two_bases_share_stands_for_both(tmp_path, write_costs):
    # The published v1+ope is that of base v2, and v1 of base v1 is the published one.
    write_costs([("v1", "published"), ("v1", "v2"), ("v1+ope", "v2")])
    values = confounder_values(load_records(tmp_path), "cost")
    assert list(values["part"]) == [PUBLISHED_STEP, "base, at v1", "ope, in base v2"]
    assert list(values["params_part"]) == [682_432, -388_864, 1_071_296]


def test_without_another_base_nothing_is_the_base_s(tmp_path, write_costs):
    write_costs([(arm, "published") for arm in ARMS])
    assert confounder_values(load_records(tmp_path), "cost").empty


def test_the_base_s_part_of_accuracy_is_paired(tmp_path, write_top1):
    # Seeds differ by 5 points, their differences by hundredths of -1, 0 and 1, twice: a variance of 4 / 5 of their
    # square.
    for seed, hundredths in enumerate((-1, 0, 1) * 2):
        shared = 0.5 + 0.05 * seed
        write_top1("v1", seed, shared, base="published")
        write_top1("v1", seed, shared + 0.03 + 0.01 * hundredths)
        write_top1("v1+ope", seed, shared + 0.038 + 0.02 * hundredths)
    write_top1("v1+ope", 6, 0.9)
    values = confounder_values(load_records(tmp_path), "accuracy").set_index("part")
    assert list(values.index) == [PUBLISHED_STEP, "base, at v1", "ope, in base v2"]
    assert list(values["top1_part_n"]) == [6, 6, 6]
    assert list(values["top1_part_mean"]) == pytest.approx([0.038, 0.03, 0.008])
    half = 0.01 * T_5 * math.sqrt(4 / 5 / 6)
    widths = values["top1_part_high"] - values["top1_part_mean"]
    assert list(widths) == pytest.approx([2 * half, half, half])
    assert list(values["top1_part_resolved"]) == [True, True, False]
