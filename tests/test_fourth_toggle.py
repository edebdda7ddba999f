"""A fourth toggle, as CONTRIBUTING says: a file with its module and its cost, and an entry in the registry."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import pytest
import torch

from ablations.analysis.effects import effect_values
from ablations.cells import address, arm_cell
from ablations.config import (
    ARMS,
    BASES,
    PAPER_TOGGLES,
    PVT_V1,
    TOGGLES,
    VARIANTS,
    PVTConfig,
    Toggle,
    arms_of,
    as_pair,
    build_config,
)
from ablations.cost import count_macs, count_params, has_closed_form, module_costs
from ablations.errors import InputError
from ablations.measure import Accuracy, Cost
from ablations.measure.macs import trace_macs
from ablations.measure.process import worker_processes
from ablations.model import build_model
from ablations.records import load_records
from ablations.records.folder import read_records
from ablations.report.contents import list_figures, list_values
from ablations.report.images import drawing, figure_digest
from ablations.report.tables import render_csv
from ablations.runner import needs
from ablations.runner import run as runner
from ablations.studies import find_study

RESULTS = Path(__file__).parents[1] / "results"

FILE = '''
"""Slot `norm`, toggle `rms`: a norm without a mean and a bias."""

from collections.abc import Callable, Iterator

from ablations.config import PVTConfig
from ablations.cost import ModuleCost


def build_rms_norm(config: PVTConfig, stage: int):
    from torch import nn

    return nn.RMSNorm(config.embed_dims[stage], eps=1e-6)


def rms_norm_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    yield ModuleCost("", config.embed_dims[stage], 0)
'''

FOUR = (*PAPER_TOGGLES, "rms")
RMS = Toggle(
    title="RMS norm",
    slot="norm",
    builder="fourth_toggle:build_rms_norm",
    cost="fourth_toggle:rms_norm_cost",
)


@pytest.fixture(scope="module", autouse=True)
def existing() -> dict[tuple[str, str, str], PVTConfig]:
    """The configs of all arms before there is a fourth toggle."""
    return {
        (variant, arm, base): build_config(variant, arm, base) for variant in VARIANTS for arm in ARMS for base in BASES
    }


@dataclass(frozen=True)
class Made:
    """What records give: the CSV text of each table and the digest of each figure, by name."""

    tables: dict[str, str]
    figures: dict[str, str]


def make(results: Path) -> Made:
    """Returns what the report makes of a folder's records; of memory, nano's alone, for the others take a minute."""
    records = load_records(results)
    records = records[(records["measurement"] != "memory") | (records["variant"] == "nano")]
    failures: dict[str, str] = {}
    values = list_values(records, failures)
    with drawing():
        figures = {spec.name: figure_digest(spec.draw()) for spec in list_figures(records)}
    assert failures == {}
    return Made({table.name: render_csv(each) for table, each in values.items()}, figures)


@pytest.fixture(scope="module", autouse=True)
def fourth_toggle(existing: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("model")
    (folder / "fourth_toggle.py").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setitem(TOGGLES, "rms", RMS)
        yield
    assert tuple(TOGGLES) == PAPER_TOGGLES


def test_sixteen_arms_appear_fewest_toggles_first() -> None:
    arms = arms_of(FOUR)
    expected = ["+".join(["v1", *chosen]) for count in range(5) for chosen in combinations(FOUR, count)]
    assert list(arms) == expected
    assert len(arms) == len(set(arms)) == 2 ** len(FOUR)
    assert arms[:5] == ("v1", "v1+ope", "v1+cffn", "v1+lsra", "v1+rms")
    assert tuple(arm for arm in arms if "rms" not in arm) == ARMS == arms_of(PAPER_TOGGLES)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("arm", arms_of(PAPER_TOGGLES))
def test_every_count_of_every_arm_is_traced(arm: str, base: str) -> None:
    """Of an arm and of the same with the fourth toggle: params and MACs, module by module, as the closed form says."""
    for each in (arm, f"{arm}+rms"):
        config = build_config("pico", each, base)
        assert config.toggles == tuple(each.split("+")[1:])
        assert has_closed_form(config)
        with torch.device("meta"):
            model = build_model(config)
        params = {
            name: sum(weights.numel() for weights in module.parameters(recurse=False))
            for name, module in model.named_modules()
        }
        for size in (32, (40, 56)):
            traced = trace_macs(model, (1, 3, *as_pair(size)))
            rows = module_costs(config, size)
            assert count_macs(config, size) == traced.total
            assert {row.name: row.macs for row in rows if row.macs} == traced.by_module
            assert {row.name: row.params for row in rows} == {
                name: count for name, count in params.items() if count or name in {row.name for row in rows}
            }
        assert count_params(config) == sum(params.values())
    # Two biases a block are all that it has less, where it changes nothing else: `published` has another base for v1.
    blocks = sum(2 * dim * depth for dim, depth in zip(config.embed_dims, config.depths, strict=True))
    if base != "published" or arm != PVT_V1:
        assert count_params(replace(config, toggles=config.toggles[:-1])) - count_params(config) == blocks
        assert replace(config, toggles=config.toggles[:-1]) == build_config("pico", arm, base)


def test_the_model_has_the_norm_where_the_slot_is_and_nowhere_else() -> None:
    model = build_model(build_config("pico", "v1+rms", "v2"))
    names = {name for name, module in model.named_modules() if isinstance(module, torch.nn.RMSNorm)}
    assert names == {f"stages.{stage}.blocks.0.{norm}" for stage in range(4) for norm in ("norm1", "norm2")}
    model(torch.zeros(2, 3, 32, 40)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_arms_share_starts_equal() -> None:
    with_it, without = (
        dict(build_model(build_config("pico", arm), seed=1).named_parameters()) for arm in ("v1+rms", "v1+ope")
    )
    shared = [name for name, value in with_it.items() if name in without and without[name].shape == value.shape]
    assert [name for name in shared if not torch.equal(with_it[name], without[name])] == []
    assert len(shared) > 50


def test_without_a_closed_form_the_trace_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOGGLES, "rms", Toggle(title=RMS.title, slot=RMS.slot, builder=RMS.builder))
    config = build_config("pico", "v1+rms", "v2")
    assert not has_closed_form(config)
    assert has_closed_form(build_config("pico", "v1+ope", "v2"))
    with torch.device("meta"):
        traced = trace_macs(build_model(config), (1, 3, 32, 32))
    assert traced.total == count_macs(build_config("pico", "v1", "v2"), 32)
    with pytest.raises(
        InputError, match=r"^toggles=\('rms',\) is not possible; allowed: toggles with a closed-form cost"
    ):
        count_macs(config, 32)
    with pytest.raises(InputError, match="the one in slot norm has none"):
        count_params(config)


def test_existing_arms_are_what_they_were(existing: dict[tuple[str, str, str], PVTConfig]) -> None:
    assert {names: build_config(*names) for names in existing} == existing
    with pytest.raises(InputError, match=r"^arm='v1\+rms\+ope' is not possible"):
        build_config("pico", "v1+rms+ope")


def test_every_committed_record_keeps_its_key_and_config() -> None:
    described = ("measurement", "variant", "arm", "base", "config", "conditions")
    of_arms = [record for record in read_records(RESULTS).records if record.get("arm")]
    assert len(of_arms) > 500
    for record in of_arms:
        config = PVTConfig(**record["config"])
        assert json.loads(json.dumps(asdict(config))) == record["config"]
        assert config.toggles == tuple(record["arm"].split("+")[1:])
        description = {name: record[name] for name in described} | {"config": json.loads(json.dumps(asdict(config)))}
        assert address(description) == record["key"]


def test_effects_of_a_made_up_study_are_as_constructed(tmp_path: Path, write_cell: Callable[..., Path]) -> None:
    adds = {"ope": 2.0, "cffn": 4.0, "lsra": -1.0, "rms": 0.5}
    for arm in arms_of(FOUR):
        own = arm.split("+")[1:]
        points = 50 + sum(adds[name] for name in own) + ("ope" in own and "rms" in own)
        for seed in range(3):
            cell = arm_cell("pico", arm, "v2", Accuracy(seed=seed))
            result = {"top1": (points + seed) / 100, "n_eval_images": 100, "n_train_images": 100}
            write_cell(tmp_path, cell, result)
    values = effect_values(load_records(tmp_path), "accuracy").set_index("effect")
    values = values[values["toggles"] == ", ".join(FOUR)]
    assert len(values) == 2 ** len(FOUR) - 1
    # A point where both are on adds half a point to each main effect, and half as their interaction.
    expected = {**adds, "ope": 2.5, "rms": 1.0, "ope:rms": 0.5}
    assert {effect: round(100 * mean, 9) + 0.0 for effect, mean in values["top1_effect_mean"].items()} == {
        effect: expected.get(effect, 0.0) for effect in values.index
    }


STUDY = """
toggles = ["rms"]

[[grid]]
measurement = "memory"
variants = ["pico"]
resolution = 32

[[grid]]
measurement = "accuracy"
variants = ["pico"]
recipe = "small"
epochs = 1
train_images = 100
"""


@pytest.mark.slow
def test_worker_processes_know_the_toggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is measured in processes of its own, and trainings go side by side in two: neither registered it."""
    for module in (needs, runner):
        monkeypatch.setattr(module, "available_cores", lambda: 2)
    (tmp_path / "mine.toml").write_text(STUDY)
    study = find_study(str(tmp_path / "mine.toml"))
    summary = runner.run_cells(study.cells(), study=study.name, results=tmp_path, jobs=2)
    assert (summary.measured, summary.failed) == (4, [])
    records = load_records(tmp_path)
    assert set(records["arm"]) == {"v1", "v1+rms"}
    # Two biases a block are all that it has less, in each of the blocks' two norms.
    memory = records[records["measurement"] == "memory"].set_index("arm")["parameter_bytes"]
    assert memory["v1"] - memory["v1+rms"] == 4 * 2 * (8 + 16 + 32 + 64)


def test_pools_of_workers_know_the_toggle() -> None:
    with worker_processes(1) as pool:
        assert pool.submit(arms_of, FOUR).result() == arms_of(FOUR)


def without_columns_of(toggle: str, text: str) -> str:
    """A CSV without the columns that a toggle has for itself, as the table of orders has one for each toggle."""
    rows = list(csv.reader(io.StringIO(text)))
    kept = [place for place, name in enumerate(rows[0]) if not name.endswith(f"_{toggle}")]
    if len(kept) == len(rows[0]):
        return text
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([[row[place] for place in kept] for row in rows])
    return written.getvalue()


@pytest.mark.slow
def test_committed_tables_and_figures_stay_as_they_are(tmp_path: Path, write_cell: Callable[..., Path]) -> None:
    """Beside all sixteen arms in conditions of their own, and with the eight new ones among committed arms.

    Every line of a committed table is there, byte for byte and in its order, and what came between is of the new
    arms. Every committed figure shows the same, but that in which pico's new arms have a panel.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(TOGGLES, "rms")
        committed = make(RESULTS)
    results = tmp_path / "results"
    shutil.copytree(RESULTS / "records", results / "records")
    for arm in arms_of(FOUR):
        for resolution in (32, 64):
            write_cell(results, arm_cell("pico", arm, "v2", Cost(resolution=resolution)))
        for seed in range(2):
            conditions = Accuracy(data="cifar10", epochs=3, batch_size=32, base_lr=5e-3, seed=seed)
            write_cell(results, arm_cell("pico", arm, "v2", conditions))
    among = load_records(RESULTS, "cost").query("variant == 'nano' and base == 'v2' and arm == 'v1'")
    assert len(among)
    for resolution in among["resolution"]:
        for arm in set(arms_of(FOUR)) - set(ARMS):
            write_cell(results, arm_cell("nano", arm, "v2", Cost(resolution=int(resolution))))
    made = make(results)
    for name, text in committed.tables.items():
        old, new = text.splitlines(), without_columns_of("rms", made.tables[name]).splitlines()
        kept = set(old)
        assert [line for line in new if line in kept] == old, name
        assert [line for line in new if line not in kept and not re.search(r"\b(pico|rms)\b", line)] == [], name
    assert any("rms" in line and "nano" in line for line in made.tables["effects_cost"].splitlines())
    # A figure's title says what tells its study from the others, so another data set's records may change it.
    figures = {name: digest for name, digest in committed.figures.items() if "digits" not in name}
    changed = {name for name, digest in figures.items() if made.figures.get(name) != digest}
    assert changed == {"macs_by_resolution_pico_v2_classifier"}  # it has a panel more
    assert len(committed.tables) > 20
    assert len(committed.figures) > 10
