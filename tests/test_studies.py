"""Studies: which cells they hold, in which order, and how to choose among them."""

import re
from dataclasses import replace

import pytest

from ablations.baselines.equal import check_has_baseline
from ablations.baselines.registry import EQUAL_MODELS, MODELS
from ablations.cells import Cell, arm_cell, build_cell
from ablations.config import ARMS, BASES, CUMULATIVE, PVTConfig
from ablations.errors import InputError
from ablations.measure import MEASUREMENTS, Accuracy, Cost, Detection, Memory, Segmentation, Speed
from ablations.studies import find_study, list_studies, on_devices, parse_study, select, vary

CELL = arm_cell(variant="pico", arm="v1", base="v2", conditions=Accuracy())


def test_vary_takes_every_combination():
    sizes = [(c.mode, c.resolution) for c in vary(Memory(), mode=("inference", "training"), resolution=(32, 64))]
    assert sizes == [("inference", 32), ("inference", 64), ("training", 32), ("training", 64)]


def cells_of(text: str) -> list[Cell]:
    return parse_study(text, "mine", "mine.toml").cells()


GRID = """
[[grid]]
measurement = "accuracy"
variants = ["pico", "nano"]
seed = [1, 0]
"""


def test_arms_vary_fastest_and_seeds_slowest_so_that_an_interrupted_study_holds_comparisons():
    cells = cells_of(GRID + GRID.replace("accuracy", "cost").replace("seed = [1, 0]", "") + GRID.replace("v2", "v1"))
    assert [cell.arm for cell in cells[: len(ARMS)]] == list(ARMS)
    trainings = [cell for cell in cells if cell.conditions.trains]
    assert [cell.conditions.seed for cell in trainings] == [0] * 16 + [1] * 16
    assert {cell.measurement for cell in cells[32:]} == {"cost"}


@pytest.mark.parametrize("name", list_studies())
def test_a_study_says_its_question_and_its_time_and_holds_each_cell_once(name):
    study = find_study(name)
    assert study.question.endswith((".", "?"))
    assert re.search(r"minute|hour", study.time)
    cells = study.cells()
    assert len({cell.key for cell in cells}) == len(cells) > 0


def test_toggles_of_a_study_give_its_arms():
    text = 'toggles = ["ope", "lsra"]\n[[grid]]\nmeasurement = "cost"\nvariants = ["pico"]\n'
    assert [cell.arm for cell in cells_of(text)] == ["v1", "v1+ope", "v1+lsra", "v1+ope+lsra"]


def test_a_grid_combines_lists_in_the_order_of_its_keys():
    text = (
        '[[grid]]\nmeasurement = "memory"\narms = ["v1"]\n'
        'mode = ["inference", "training"]\nresolution = [64, "64x96"]\n'
    )
    cells = cells_of(text)
    assert [(cell.conditions.mode, cell.conditions.resolution) for cell in cells] == [
        *(("inference", size) for size in (64, (64, 96))),
        *(("training", size) for size in (64, (64, 96))),
    ]


def test_a_grid_changes_single_confounders_and_starts_from_a_recipe():
    text = (
        '[[grid]]\nmeasurement = "accuracy"\narms = ["v1"]\nbases = ["v1"]\nvariants = ["pico"]\nrecipe = "smoke"\n'
        'stage_norm = ["every", "last"]\nepochs = 2\neval_resolutions = [48, 64]\n'
    )
    changed, own = cells_of(text)
    assert (changed.config.stage_norm, own.config.stage_norm) == ("every", "last")
    assert own == arm_cell("pico", "v1", "v1", own.conditions)
    assert (own.conditions.epochs, own.conditions.batch_size) == (2, 128)
    assert own.conditions.eval_resolutions == (48, 64)


FAULTS = {
    "x = ": "mine.toml: not TOML: ",
    'colour = "red"\n[[grid]]\n': (
        "mine.toml: key='colour' is not possible; allowed: question, time, portable, toggles, grid"
    ),
    "portable = 1\n[[grid]]\n": "mine.toml: portable=1 is not possible; allowed: true or false",
    'toggles = ["opa"]\n[[grid]]\n': "mine.toml: toggle='opa' is not possible; allowed: ope, cffn, lsra (did you mean",
    "": "mine.toml: grid=None is not possible; allowed: one [[grid]] or more",
    "[[grid]]\n": (
        "mine.toml, grid 1: measurement='' is not possible; allowed: cost, memory, speed, accuracy, evaluation"
    ),
    f"{GRID}[[grid]]\nmeasurement = 'costs'\n": "mine.toml, grid 2: measurement='costs' is not possible",
    f"{GRID}epoch = 3\n": "mine.toml, grid 1: key='epoch' is not possible; allowed: ",
    f"{GRID}epochs = 3.5\n": "mine.toml, grid 1: epochs=3.5 is not possible; allowed: a whole number",
    f"{GRID}epochs = true\n": "mine.toml, grid 1: epochs=True is not possible; allowed: a whole number",
    f"{GRID}base_lr = 'high'\n": "mine.toml, grid 1: base_lr='high' is not possible; allowed: a number",
    f"{GRID}base_lr = nan\n": "mine.toml, grid 1: base_lr=nan is not possible; allowed: a finite number",
    f"{GRID}epochs = 0\n": "mine.toml, grid 1: epochs=0 is not possible; allowed: 1 or more",
    f"{GRID}precision = 'fp8'\n": "mine.toml, grid 1: precision='fp8' is not possible; allowed: float32, bf16",
    f"{GRID}compiled = 'yes'\n": "mine.toml, grid 1: compiled='yes' is not possible; allowed: true or false",
    f"{GRID}eval_resolutions = 48\n": (
        "mine.toml, grid 1: eval_resolutions=48 is not possible; allowed: a list of whole"
    ),
    f"{GRID}resolution = 'big'\n": "mine.toml, grid 1: resolution='big' is not possible; allowed: pixels such as 224",
    f"{GRID}arms = ['v2']\n": "mine.toml, grid 1: arm='v2' is not possible: v2 names a base",
    f"{GRID}stage_norm = 'some'\n": "mine.toml, grid 1: stage_norm='some' is not possible; allowed: last, every",
    f"{GRID}recipe = 'big'\n": "mine.toml, grid 1: recipe='big' is not possible; allowed: small, smoke, paper",
    f"{GRID}bases = []\n": "mine.toml, grid 1: bases=[] is not possible; allowed: one value or more",
    f"{GRID}epochs = []\n": "mine.toml, grid 1: epochs=[] is not possible; allowed: one value or more",
    f"{GRID}arms = [['v1']]\n": "mine.toml, grid 1: arms=[['v1']] is not possible; allowed: names as texts",
    f"{GRID}resolution = '64x128'\n": "mine.toml, grid 1: resolution='64x128' is not possible; allowed: one side",
    f"{GRID}eval_resolutions = [16]\n": "mine.toml, grid 1: eval_resolutions=16 is not possible; allowed: 32 to",
    "grid = [1]\n": "mine.toml, grid 1: grid=1 is not possible; allowed: a table, under [[grid]]",
    "[[grid]]\nmeasurement = 'evaluation'\n": "mine.toml, grid 1: measurement='evaluation' is not possible; allow",
    f"{GRID}models = ['timm:resnet18']\n": (
        "mine.toml, grid 1: variants=['pico', 'nano'] is not possible; allowed: no such"
    ),
    "[[grid]]\nmeasurement = 'cost'\nmodels = ['resnet18']\n": "mine.toml, grid 1: model='resnet18' is not possible",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_one_line_with_the_file_the_grid_the_key_and_what_is_allowed(text):
    with pytest.raises(InputError) as caught:
        cells_of(text)
    assert str(caught.value).startswith(FAULTS[text])
    assert "\n" not in str(caught.value)


def test_a_study_of_ones_own_is_found_by_its_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GRID)
    assert find_study(str(path)).name == "mine"
    with pytest.raises(
        InputError, match=r"^study='.*none.toml' is not possible; allowed: a file that exists, or one of"
    ):
        find_study(str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match=r"^study='quik' is not possible; .*did you mean 'quick'"):
        find_study("quik")


def test_quick_measures_one_model_in_every_way_beside_counts_of_the_paper_s():
    cells = find_study("quick").cells()
    own = [cell for cell in cells if cell.model.variant != "b2"]
    assert {cell.measurement for cell in own} == {"cost", "memory", "speed", "accuracy"}
    assert {cell.measurement for cell in cells if cell not in own} == {"cost"}
    for arm in ARMS:
        models = {replace(cell.config, attention="fused") for cell in own if cell.arm == arm}
        assert len(models) == 1
    sizes = {kind: {c.conditions.resolution for c in own if c.measurement == kind} for kind in MEASUREMENTS}
    assert sizes["accuracy"] < sizes["speed"] <= sizes["memory"] <= sizes["cost"]
    assert len({cell.conditions.seed for cell in own if cell.conditions.trains}) >= 6
    digits = {cell.key for cell in find_study("digits").cells()}
    assert {cell.key for cell in own if cell.conditions.trains} < digits


def trained_models(cells: list[Cell]) -> set[tuple[PVTConfig, int]]:
    return {(cell.config, cell.conditions.resolution) for cell in cells}


def test_the_comparison_measures_every_model_that_the_accuracy_studies_train():
    trained = {
        model
        for name in ("digits", "fashion-mnist", "imagenette")
        for model in trained_models(find_study(name).cells())
    }
    kinds: dict[str, list[Cell]] = {}
    for cell in find_study("comparison").cells():
        kinds.setdefault(f"{cell.measurement} {getattr(cell.conditions, 'mode', '')}", []).append(cell)
    assert list(kinds) == ["cost ", "memory inference", "memory training", "speed inference", "speed training"]
    for cells in kinds.values():
        measured = trained_models([cell for cell in cells if cell.config.attention == "fused"])
        assert trained < measured
        assert {config for config, _ in trained} == {config for config, _ in measured}


def test_select_keeps_cells_that_lack_the_field():
    cells = find_study("quick").cells()
    chosen = select(cells, seed=(1,), arm=("v1", "v1+ope"))
    assert {cell.arm for cell in chosen} == {"v1", "v1+ope"}
    assert {getattr(cell.conditions, "seed", None) for cell in chosen} == {None, 1}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"arm": ("v2",)}, "arm='v2' is not possible; allowed: v1, v1"),
        ({"seed": (99,)}, "seed=99 is not possible; allowed: 0, 1, 2, 3, 4, 5"),
        ({"measurement": ("sped",)}, "measurement='sped'"),
    ],
)
def test_select_refuses_what_no_cell_has(wanted, message):
    with pytest.raises(InputError, match=message):
        select(find_study("quick").cells(), **wanted)


def test_select_among_arms_leaves_models_that_are_none():
    cells = select(find_study("paper").cells(), arm=("v1+lsra",), head=("classifier",), resolution=(224,))
    assert [cell.label for cell in cells if cell.config] == ["cost b2 v1+lsra base=published"]
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
    text = '[[grid]]\nmeasurement = "cost"\nmodels = ["timm:resnet18", "pvt:pico/v1/v2"]\nresolution = [32, 64]\n'
    conditions = vary(Cost(), resolution=(32, 64))
    assert cells_of(text) == [
        *(build_cell("timm:resnet18", each) for each in conditions),
        *(arm_cell("pico", "v1", "v2", each) for each in conditions),
    ]


def test_a_cell_in_two_grids_is_measured_once():
    named = '[[grid]]\nmeasurement = "cost"\nmodels = ["pvt:small/v1/published"]\n'
    arms = '[[grid]]\nmeasurement = "cost"\nbases = ["published"]\n'
    assert [cell.arm for cell in cells_of(named + arms)] == list(ARMS)


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
    sizes = (320, 448, 512, 640, 800, 1024, 1280, 1600, 2048)
    assert {len(paper_cells("classifier", size)) for size in sizes} == {scales}
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
            assert arm_cell(variant="b2", arm=arm, base=base, conditions=conditions).key in keys
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
                own = arm_cell(variant=variant, arm=arm, base="published", conditions=conditions)
                assert own.key in keys
                check_has_baseline(own.config, library, conditions.resolution)
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
            check_has_baseline(cell.config, library, cell.conditions.resolution)


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
