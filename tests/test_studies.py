"""Studies: which cells they hold, in which order, and how to choose among them."""

from dataclasses import replace

import pytest

from ablations.baselines.equal import has_baseline
from ablations.baselines.registry import EQUAL_MODELS, MODELS
from ablations.config import ARMS, BASES
from ablations.design import Accuracy, Cell, Cost, Memory, ModelCell, Speed, build_cell
from ablations.errors import InputError
from ablations.studies import CUMULATIVE, SCALES, STUDIES, Grid, NamedModels, find_study, on_devices, select, vary

CELL = Cell(variant="pico", arm="v1", base="v2", conditions=Accuracy())


def test_vary_takes_every_combination():
    sizes = [(c.mode, c.resolution) for c in vary(Memory(), mode=("inference", "training"), resolution=(32, 64))]
    assert sizes == [("inference", 32), ("inference", 64), ("training", 32), ("training", 64)]


def test_arms_vary_fastest_so_that_an_interrupted_study_holds_comparisons():
    cells = list(Grid(variants=("pico",), conditions=vary(Accuracy(), seed=(0, 1))).cells())
    assert [cell.arm for cell in cells[:8]] == list(ARMS)
    assert {cell.conditions.seed for cell in cells[:8]} == {0}


@pytest.mark.parametrize("name", sorted(STUDIES.keys() - {"fashion-mnist-long", "imagenette-small"}))
def test_studies_hold_all_eight_arms_of_every_measurement(name):
    cells = find_study(name).cells()
    assert len({cell.key for cell in cells}) == len(cells)
    # Libraries do not have all arms.
    cells = [cell for cell in cells if getattr(cell.conditions, "reference", "v1") == "v1"]
    for measurement in {cell.measurement for cell in cells}:
        arms = {cell.arm for cell in cells if cell.measurement == measurement and isinstance(cell, Cell)}
        assert arms == set(ARMS)


def test_quick_has_every_measurement_and_seeds_enough_for_an_interval():
    cells = find_study("quick").cells()
    assert {cell.measurement for cell in cells} == {"cost", "memory", "speed", "accuracy"}
    assert len({cell.conditions.seed for cell in cells if isinstance(cell.conditions, Accuracy)}) >= 3


def test_select_keeps_cells_that_lack_the_field():
    cells = find_study("quick").cells()
    chosen = select(cells, seed=(1,), arm=("v1", "v1+ope"))
    assert {cell.arm for cell in chosen} == {"v1", "v1+ope"}
    assert {getattr(cell.conditions, "seed", None) for cell in chosen} == {None, 1}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"arm": ("v2",)}, "arm='v2' is not possible; allowed: v1, v1"),
        ({"seed": (99,)}, "seed=99 is not possible; allowed: 0, 1, 2"),
        ({"measurement": ("sped",)}, "measurement='sped'"),
    ],
)
def test_select_refuses_what_no_cell_has(wanted, message):
    with pytest.raises(InputError, match=message):
        select(find_study("quick").cells(), **wanted)


def test_select_among_arms_leaves_models_that_are_none():
    cells = select(find_study("paper").cells(), arm=("v1+lsra",), head=("classifier",), resolution=(224,))
    assert [cell.label for cell in cells if isinstance(cell, Cell)] == ["cost b2 v1+lsra base=published"]
    assert "cost timm:resnet18" in [cell.label for cell in cells]
    assert {(cell.conditions.head, cell.conditions.resolution) for cell in cells} == {("classifier", 224)}


def test_cells_are_placed_on_devices_where_they_depend_on_one():
    cells = [replace(CELL, conditions=conditions) for conditions in (Cost(), Memory(), Speed())]
    placed = on_devices(cells, ("cpu", "cuda"))
    assert [(c.measurement, getattr(c.conditions, "device", None)) for c in placed] == [
        ("cost", None),
        ("memory", "cpu"),
        ("speed", "cpu"),
        ("memory", "cuda"),
        ("speed", "cuda"),
    ]


def test_models_are_taken_with_every_condition_and_arms_among_them_are_cells():
    conditions = vary(Cost(), resolution=(32, 64))
    cells = list(NamedModels(models=("timm:resnet18", "pvt:pico/v1/v2"), conditions=conditions).cells())
    assert cells == [
        *(ModelCell(model="timm:resnet18", conditions=each) for each in conditions),
        *(Cell(variant="pico", arm="v1", base="v2", conditions=each) for each in conditions),
    ]


def test_a_cell_in_two_grids_is_measured_once():
    arms = Grid(variants=("b2",), bases=("published",), conditions=(Cost(),))
    study = replace(
        find_study("quick"), grids=(NamedModels(models=("pvt:small/v1/published",), conditions=(Cost(),)), arms)
    )
    assert [cell.arm for cell in study.cells()] == list(ARMS)


def paper_cells(head, resolution):
    conditions = Cost(head=head, resolution=resolution)
    return [cell for cell in find_study("paper").cells() if cell.conditions == conditions]


def test_the_paper_s_study_has_every_column_of_its_tables():
    dense = 16  # rows of Tables 3 and 5
    scales = 8 + 3  # arms and baselines drawn against the size of the input
    assert (
        len(paper_cells("classifier", 224)) == 39 + (8 - 3) + 8
    )  # Table 2, arms without a row, baselines without a row
    assert len(paper_cells("classifier", 240)) == 2  # CrossViT takes no others
    assert {len(paper_cells("classifier", size)) for size in SCALES[1:]} == {scales}
    assert len(paper_cells("retinanet", (800, 1280))) == dense + 3 * 8 - 3  # Table 3, arms x bases, three in both
    assert len(paper_cells("mask_rcnn", (800, 1280))) == dense
    assert len(paper_cells("fcos", (800, 1280))) == 4
    assert len(paper_cells("semantic_fpn", 512)) == dense
    assert len(find_study("paper").cells()) == 39 + 5 + 8 + 2 + 9 * scales + 37 + 16 + 4 + 16


def test_the_paper_s_study_has_table_6_and_its_figure_4():
    keys = {cell.key for cell in find_study("paper").cells()}
    for base in BASES:
        for arm in CUMULATIVE if base == "published" else ARMS:
            conditions = Cost(head="retinanet", resolution=(800, 1280))
            assert Cell(variant="b2", arm=arm, base=base, conditions=conditions).key in keys
    for name in ("ViT-S/16", "ViT-S/32", "PVTv1-Small", "ResNet50", "PVTv2-B2-Li"):
        for side in (224, 512, 1024, 2048):
            assert build_cell(MODELS[name], Cost(resolution=side)).key in keys


def test_an_unknown_study_is_refused():
    with pytest.raises(InputError, match=r"study='papers' is not possible; allowed: .* \(did you mean 'paper'\?\)"):
        find_study("papers")


def test_the_memory_of_every_library_s_model_stands_beside_an_arm_s():
    cells = find_study("memory").cells()
    keys = {cell.key for cell in cells}
    predicted = []
    for library, models in EQUAL_MODELS.items():
        for (variant, arm), model in models.items():
            for cell in [cell for cell in cells if cell.name == model]:
                conditions = replace(cell.conditions, channels_last=True)
                own = Cell(variant=variant, arm=arm, base="published", conditions=conditions)
                assert own.key in keys
                assert has_baseline(own.config, library, conditions.resolution)
                if conditions.method == "predicted" and not cell.conditions.channels_last:
                    predicted.append((library, variant, arm, conditions.mode, conditions.resolution))
    # Two variants, two modes: two arms at four sizes of both libraries, and v1 at one of transformers.
    assert len(set(predicted)) == len(predicted) == 2 * 2 * (2 * 2 * 4 + 1)


@pytest.mark.parametrize("name", ["speed", "gpu"])
def test_what_is_timed_beside_libraries_they_have(name):
    cells = [cell for cell in find_study(name).cells() if getattr(cell.conditions, "reference", "v1") != "v1"]
    assert {cell.arm for cell in cells} == {"v1", "v1+ope+cffn", "v1+ope+cffn+lsra"}
    for cell in cells:
        for library in cell.conditions.reference.split("+"):
            assert has_baseline(cell.config, library, cell.conditions.resolution)
