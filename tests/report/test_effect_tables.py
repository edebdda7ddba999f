"""The tables of effects: words and numbers that are worked out here, and what they say where there is no answer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from ablations.design import Accuracy, Cell, Cost, Memory

from ablations.config import ARMS, build_config
from ablations.cost import count_macs, count_params
from ablations.records import load_records
from ablations.report.confounder_tables import CONFOUNDER_TABLES
from ablations.report.effect_tables import EFFECT_TABLES
from ablations.report.tables import list_sections, render_markdown
from ablations.report.tradeoff_tables import TRADEOFF_TABLES

CELL = Cell(variant="pico", arm="v1", base="v2", conditions=Accuracy())
BY_NAME = {table.name: table for table in (*EFFECT_TABLES, *CONFOUNDER_TABLES, *TRADEOFF_TABLES)}

Rows = dict[str, list[str]]


def read_rows(name: str, records: pd.DataFrame) -> Rows:
    """The cells of a table's first section by the first cell of their row; the headings' is the first."""
    table = BY_NAME[name]
    return {first: cells for first, *cells in list_sections(table, table.values(records))[0].lines}


def caption_of(name: str, records: pd.DataFrame) -> str:
    return list_sections(BY_NAME[name], BY_NAME[name].values(records))[0].caption


def planted(arm: str) -> float:
    """Points of an arm: ope adds 2, cffn adds 4, and both together 2 less than that."""
    ope, cffn = "ope" in arm.split("+"), "cffn" in arm.split("+")
    return 50 + 2 * ope + 4 * cffn - 2 * ope * cffn


def write_top1(
    results: Path, write_cell: Callable[..., Path], points: dict[tuple[str, str, int], float], **other: float
) -> pd.DataFrame:
    """Writes accuracies in points by arm, base and seed, and returns them as records."""
    for (arm, base, seed), value in points.items():
        cell = replace(CELL, arm=arm, base=base, conditions=Accuracy(seed=seed))
        write_cell(results, cell, {"top1": value / 100, "n_eval_images": 1000, "n_train_images": 2000, **other})
    return load_records(results)


def two_seeds() -> dict[tuple[str, str, int], float]:
    """Planted points, a better second seed, and noise of one arm that is 0 in the mean."""
    noise = {("v1+lsra", 0): 0.1, ("v1+lsra", 1): -0.1}
    return {(arm, "v2", seed): planted(arm) + 3 * seed + noise.get((arm, seed), 0) for arm in ARMS for seed in (0, 1)}


@pytest.fixture
def records(tmp_path, write_cell) -> pd.DataFrame:
    return write_top1(tmp_path, write_cell, two_seeds())


def test_effects_are_those_that_were_planted(records):
    rows = read_rows("effects_accuracy", records)
    assert rows["Effect"] == ["Points of top-1", "95 % interval", "p", "p by Holm, of seven", "After Holm"]
    # ope adds 2 without cffn and 0 with it; the interaction is half of the difference.
    assert {effect: cells[0] for effect, cells in list(rows.items())[1:]} == {
        "ope": "+1.00",
        "cffn": "+3.00",
        "lsra": "+0.00",
        "ope x cffn": "-1.00",
        "ope x lsra": "+0.00",
        "cffn x lsra": "+0.00",
        "ope x cffn x lsra": "+0.00",
    }
    # Against its block's mean one arm lies off by 0.1, so the residuals' squares add up to 2 * 0.1², less what the
    # seven effects take of it in each seed: nothing, as it is 0 in the mean. A seed's block takes an eighth.
    variance = 2 * 0.1**2 * (1 - 1 / 8) / 7
    half = 2.364624 * 2 * (variance / 16) ** 0.5  # t of 7 degrees; an effect is twice a coefficient
    assert rows["cffn"][1] == f"{3 - half:+.2f} to {3 + half:+.2f}"
    assert rows["cffn"][2:] == ["< 0.001", "< 0.001", "resolved"]
    assert rows["lsra"][1:] == [f"{-half:+.2f} to {half:+.2f}, unresolved", "1.000", "1.000", "unresolved"]


def test_the_number_of_seeds_and_what_is_assumed_are_said(tmp_path, write_cell):
    points = {**two_seeds(), ("v1", "v2", 2): 50.0}
    records = write_top1(tmp_path, write_cell, points)
    caption = caption_of("effects_accuracy", records)
    assert caption.startswith(
        "n = 2 seeds, each with all eight arms. 1 left out, for arms that they lack. Degrees of freedom: 7. Conditions:"
    )
    about = BY_NAME["effects_accuracy"].about
    for words in ("7 (n - 1) degrees", "the same in every seed", "n - 1 degrees", "p by Holm", "all seven"):
        assert words in about
    for name in ("steps_accuracy", "orders_accuracy", "shapley_accuracy"):
        assert caption_of(name, records).startswith("n = 2 seeds, each with all eight arms. 1 left out")


@pytest.mark.parametrize("name", ["effects_accuracy", "steps_accuracy", "orders_accuracy", "shapley_accuracy"])
def test_one_seed_has_no_interval_and_the_tables_say_so(name, tmp_path, write_cell):
    records = write_top1(tmp_path, write_cell, {(arm, "v2", 0): planted(arm) for arm in ARMS})
    rows = read_rows(name, records)
    assert caption_of(name, records).startswith("n = 1 seed, so there is no interval. Conditions:")
    text = render_markdown(BY_NAME[name], BY_NAME[name].values(records))
    assert text.count("none: one seed") == (len(rows) - 1) * (3 if name == "orders_accuracy" else 1)
    assert "p by Holm, of seven" not in next(iter(rows.values()))


def test_seeds_that_never_have_all_arms_give_no_number(tmp_path, write_cell):
    points = {(arm, "v2", place % 2): planted(arm) for place, arm in enumerate(ARMS)}
    records = write_top1(tmp_path, write_cell, points)
    assert caption_of("effects_accuracy", records).startswith("No seed has all eight arms.")
    assert set(map(tuple, read_rows("effects_accuracy", records).values())) == {()}


def test_the_published_base_is_no_factorial(tmp_path, write_cell):
    records = write_top1(tmp_path, write_cell, {(arm, "published", 0): planted(arm) for arm in ARMS})
    for name in ("effects_accuracy", "steps_accuracy", "orders_accuracy", "shapley_accuracy"):
        assert BY_NAME[name].values(records).empty
        assert "Base published is left out" in BY_NAME[name].about
    assert len(read_rows("cumulative_steps", records)) == 5


def test_steps_orders_and_shapley_values_agree(records):
    steps = read_rows("steps_accuracy", records)
    assert len(steps) == 1 + 12
    assert [steps[f"+ope at {arm}"][0] for arm in ("v1", "v1+cffn", "v1+lsra", "v1+cffn+lsra")] == [
        *("+2.00", "+0.00", "+2.00", "+0.00")
    ]
    # Two seeds that add the same have an interval of no width, and that resolves nothing.
    assert steps["+ope at v1"][1] == "+2.00 to +2.00, unresolved"
    orders = read_rows("orders_accuracy", records)
    assert [cell.split()[0] for cell in orders["ope, cffn, lsra"]] == ["+2.00", "+2.00", "+0.00"]
    assert [cell.split()[0] for cell in orders["cffn, ope, lsra"]] == ["+0.00", "+4.00", "+0.00"]
    shapley = read_rows("shapley_accuracy", records)
    # ope adds 2 where it comes before cffn, in three of six orders.
    assert [shapley[change][0] for change in ("ope", "cffn", "lsra")] == ["+1.00", "+3.00", "+0.00"]
    assert [shapley[change][2] for change in ("ope", "cffn")] == ["+0.00 to +2.00", "+2.00 to +4.00"]


def test_the_cumulative_has_our_steps_beside_the_papers(records):
    rows = read_rows("cumulative_steps", records)
    assert rows["Arm"][-3:] == ["Step, points", "95 % interval of the step", "Paper's step, points"]
    config = build_config("pico", "v1", "v2", num_classes=10)
    assert rows["v1"][:2] == ["2", f"{count_params(config) / 1e6:.5f}"]
    assert rows["v1"][3] == "51.50"
    assert rows["v1"][5:] == ["-", "-", "-"]
    assert [rows[arm][5] for arm in ("v1+ope", "v1+ope+cffn", "v1+ope+cffn+lsra")] == ["+2.00", "+2.00", "+0.00"]
    assert [cells[-1] for cells in rows.values()][1:] == ["-", "+1.3", "+0.9", "+0.1"]


def test_steps_between_unlike_numbers_of_seeds_say_how_many_pairs(tmp_path, write_cell):
    points = {("v1", "v2", 0): 50.0, ("v1+ope", "v2", 0): 52.0, ("v1+ope", "v2", 1): 53.0}
    rows = read_rows("cumulative_steps", write_top1(tmp_path, write_cell, points))
    assert rows["v1+ope"][5:7] == ["+2.00 (n = 1)", "none: one seed"]


def test_costs_that_only_add_have_no_rows_of_zeros(quick_records):
    rows = read_rows("effects_cost", quick_records)
    assert list(rows) == ["Effect", "ope", "cffn", "lsra"]
    v1, ope = (build_config("nano", arm, "v2") for arm in ("v1", "v1+ope"))
    for cell, count in zip(rows["ope"], (count_params, lambda config: count_macs(config, 32)), strict=True):
        percent = 100 * (count(ope) / count(v1) - 1)
        assert cell.endswith(f" ({percent:+.1f} %)")
    assert rows["ope"][0].startswith(f"+{(count_params(ope) - count_params(v1)) / 1e6:.5f}")
    assert caption_of("effects_cost", quick_records).startswith("All interactions are exactly 0: in any order")


def test_an_interaction_of_costs_is_listed(tmp_path, write_cell):
    for arm in ARMS:
        both = {"ope", "cffn"} <= set(arm.split("+"))
        for resolution, more in ((64, 0), (96, 8_000_000)):
            result = {"params": 1_000_000, "macs": 100_000_000 + more * both, "breakdown": {}}
            write_cell(tmp_path, replace(CELL, arm=arm, conditions=Cost(resolution=resolution)), result)
    records = load_records(tmp_path)
    # 8 M more where both are on: each adds 4 in the mean, and half of the 8 is the interaction.
    assert read_rows("effects_cost", records) == {
        "Effect": ["Parameters, M", "64 px: MACs, G", "96 px: MACs, G"],
        "ope": ["0 (+0.0 %)", "0 (+0.0 %)", "+0.004000 (+4.0 %)"],
        "cffn": ["0 (+0.0 %)", "0 (+0.0 %)", "+0.004000 (+4.0 %)"],
        "lsra": ["0 (+0.0 %)", "0 (+0.0 %)", "0 (+0.0 %)"],
        "ope x cffn": ["0 (+0.0 %)", "0 (+0.0 %)", "+0.004000 (+4.0 %)"],
    }
    assert caption_of("effects_cost", records).startswith("Interactions that are not listed are exactly 0.")


def test_memory_has_shapley_values_where_it_interacts(tmp_path, write_cell):
    for mode in ("inference", "training"):
        for arm in ARMS:
            changes = set(arm.split("+"))
            more = 40 * (mode == "training" and {"ope", "cffn"} <= changes) + 10 * ("lsra" in changes)
            result = {"peak_memory_bytes": (100 + more) * 2**20, "memory_method": "tracked_storages"}
            write_cell(tmp_path, replace(CELL, arm=arm, conditions=Memory(resolution=64, mode=mode)), result)
    records = load_records(tmp_path)
    table = BY_NAME["shapley_memory"]
    (section,) = list_sections(table, table.values(records))
    assert "training" in section.title
    # Half of the 40 falls to each of the two, which add nothing or all of it.
    assert section.lines == [
        ["Change", "64 px: % of v1"],
        ["ope", "+20.0 (+0.0 to +40.0)"],
        ["cffn", "+20.0 (+0.0 to +40.0)"],
        ["lsra", "+10.0 (+10.0 to +10.0)"],
    ]
    effects = list_sections(BY_NAME["effects_memory"], BY_NAME["effects_memory"].values(records))
    assert [len(section.lines) - 1 for section in effects] == [3, 4]
    assert effects[1].lines[1] == ["ope", "+20.00 (+20.0 %)"]
    assert effects[1].caption.startswith("One training step: forward, backward and AdamW with its state. Interactions")


def test_the_bases_share_of_the_published_step(quick_records):
    rows = read_rows("confounders_cost", quick_records)
    assert list(rows) == [
        "Part",
        "published step to v1+ope",
        "base, at v1",
        "ope, in base v2",
        "ReLU, at v1+ope+cffn+lsra",
    ]
    v1, old, ope = (
        count_params(build_config("b2", arm, base)) for arm, base in (("v1", "v2"), ("v1", "v1"), ("v1+ope", "v2"))
    )
    share = 100 * (v1 - old) / (ope - old)
    assert rows["base, at v1"][:2] == [
        f"{(v1 - old) / 1e6:+.4f} ({100 * (v1 / old - 1):+.1f} %)",
        f"{share:+.0f}",
    ]
    assert rows["ope, in base v2"][1] == f"{100 - share:+.0f}"


def test_the_bases_part_of_the_published_gain(tmp_path, write_cell):
    models = {("v1", "published"): (50.0, 51.0, 52.0), ("v1", "v2"): (51.0, 52.0, 53.3), ("v1+ope", "published"): (55,)}
    points = {(*model, seed): value for model, values in models.items() for seed, value in enumerate(values)}
    rows = read_rows("confounders_accuracy", write_top1(tmp_path, write_cell, points))
    assert rows["Part"] == ["n", "Points of top-1", "95 % interval"]
    assert rows["published step to v1+ope"] == ["1", "+5.00", "none: one seed"]
    # 1, 1 and 1.3 points: a deviation of 0.1732, and t of 2 degrees is 4.3027.
    half = 4.302653 * 0.1732 / 3**0.5
    assert rows["base, at v1"] == ["3", "+1.10", f"{1.1 - half:+.2f} to {1.1 + half:+.2f}"]
    assert rows["ope, in base v2"] == ["1", "+4.00", "none: one seed"]


def test_prices_fronts_and_what_beats_an_arm(tmp_path, write_cell):
    points = {
        **{("v1", "v2", seed): value for seed, value in enumerate((50.0, 60.0, 70.0))},
        **{("v1+cffn", "v2", seed): value for seed, value in enumerate((52.9, 63.0, 73.1))},
        **{("v1+ope+cffn", "v2", seed): value for seed, value in enumerate((52.0, 63.0, 72.0))},
    }
    records = write_top1(tmp_path, write_cell, points)
    rows = read_rows("tradeoff_params", records)
    params = {arm: count_params(build_config("pico", arm, "v2", num_classes=10)) for arm in ("v1", "v1+cffn")}
    added = 100 * (params["v1+cffn"] / params["v1"] - 1)
    half = 4.302653 * 0.1 / 3**0.5
    assert rows["v1"][3:] == ["-", "-", "-", "-", "on it"]
    assert rows["v1+cffn"] == [
        *("3", "63.00", f"{params['v1+cffn'] / 1e6:.5f}", f"{added:+.1f}"),
        *("+3.00", f"{3 - half:+.2f} to {3 + half:+.2f}"),
        f"{added / 3:+.2f} ({added / (3 + half):+.2f} to {added / (3 - half):+.2f})",
        "on it",
    ]
    assert rows["v1+ope+cffn"][-1] == "below v1+cffn, unresolved"
    assert BY_NAME["tradeoff_latency_s"].values(records).empty


def test_one_arm_is_no_tradeoff(tmp_path, write_cell):
    records = write_top1(tmp_path, write_cell, {("v1", "v2", 0): 50.0})
    assert all(BY_NAME[name].values(records).empty for name in BY_NAME if name.startswith("tradeoff"))


def test_no_records_make_no_tables(tmp_path):
    assert [name for name, table in BY_NAME.items() if not table.values(load_records(tmp_path)).empty] == []
