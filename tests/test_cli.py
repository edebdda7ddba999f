"""The command line as people meet it: help, lists, plans, refusals, exit codes."""

import json
import re
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from PIL import Image

from ablations import cli
from ablations.commands import COMMANDS
from ablations.commands.cost_memory_speed import NAMED_MODELS_TABLES
from ablations.commands.help import GROUPS
from ablations.commands.list import List
from ablations.commands.measuring_command import NOT_PRINTED_OF_PAPER, MeasuringCommand
from ablations.config import ARMS, PUBLISHED_MODELS, build_config
from ablations.cost import count_macs, count_params
from ablations.flags import flag_of, meanings_of
from ablations.measure import cost
from ablations.model import build_model
from ablations.model.checkpoint import read_description, save_weights
from ablations.recipes import RECIPES, recipe_values
from ablations.report.build import TABLES
from ablations.studies import find_study, list_studies
from ablations.units import parse_duration


def call(capsys, *arguments):
    """Returns (exit code, what was printed, what was complained)."""
    try:
        code = cli.main(list(arguments))
    except SystemExit as leaving:
        code = leaving.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_help_names_every_command(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0
    for command in COMMANDS:
        assert command in out


def flags_in(text):
    """Returns the flags that a help text explains, in order."""
    return re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_all_of_a_command_s_flags_are_in_its_whole_help(capsys, command):
    code, out, _ = call(capsys, command, "--help-all")
    assert code == 0
    names = [each.name for each in fields(COMMANDS[command]) if not each.metadata.get("positional")]
    assert sorted(flag.replace("--no-", "--") for flag in flags_in(out)) == sorted(map(flag_of, names))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_short_help_has_ten_flags_at_most_and_says_how_many_more_there_are(capsys, command):
    code, out, _ = call(capsys, command, "--help")
    assert code == 0
    shown, every = flags_in(out), flags_in(call(capsys, command, "--help-all")[1])
    assert len(shown) <= 10
    assert set(shown) <= set(every)
    if len(shown) < len(every):
        assert out.splitlines()[-1] == f"{len(every) - len(shown)} more flags: run_ablation.py {command} --help-all"


def test_the_help_of_a_training_begins_with_what_most_need_by_group(capsys):
    out = call(capsys, "accuracy", "--help")[1]
    groups = {part.partition("\n")[0].rstrip(":"): flags_in(part) for part in out.split("\n\n")}
    assert {title: flags for title, flags in groups.items() if flags} == {
        "models": ["--toggles", "--arms", "--variants"],
        "data": ["--data", "--data-dir"],
        "recipe": ["--recipe", "--epochs"],
        "run": ["--seeds", "--jobs", "--results"],
    }


def test_every_name_of_the_help_s_layout_is_a_flag_s():
    names = {each.name for command in COMMANDS.values() for each in fields(command)}
    assert {name for group in GROUPS.values() for name in group} <= names
    assert any(command.FIRST for command in COMMANDS.values())
    for command in COMMANDS.values():
        assert set(command.FIRST) <= {each.name for each in fields(command)}


@pytest.mark.parametrize(
    ("flag", "commands"),
    [
        ("force", {"run", "memory"}),
        ("data_dir", {"run", "accuracy", "detect", "segment", "evaluate", "benchmark-epoch"}),
        ("model", {"cost", "memory", "accuracy", "detect", "segment"}),
        ("label", {"cost", "memory", "accuracy", "detect", "segment"}),
        ("jobs", {"run", "accuracy", "detect", "segment"}),
        ("seed", set()),
    ],
)
def test_a_flag_is_only_where_it_means_something(flag, commands):
    having = {name for name, command in COMMANDS.items() if flag in {each.name for each in fields(command)}}
    assert having == commands


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_has_a_help_text(command):
    texts = meanings_of(COMMANDS[command])
    assert [each.name for each in fields(COMMANDS[command]) if not texts.get(each.name)] == []


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("flag", ["--recipe {}", "--recipe={}"])
def test_a_recipe_s_defaults_show_in_its_help_and_are_what_is_trained_by(capsys, monkeypatch, name, flag):
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
def test_a_training_prints_what_it_was_trained_by_and_a_baseline_stands_in_its_table(capsys, tmp_path):
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


def test_tensorboard_is_refused_before_anything_is_trained_where_it_is_not_installed(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # whether it is or not
    code, _, err = call(capsys, "accuracy", "--tensorboard", "--results", str(tmp_path / "runs"))
    assert (code, err) == (2, "error: tensorboard=True needs the package tensorboard, which is not installed\n")
    assert not (tmp_path / "runs").exists()


def test_list_names_arms_and_studies(capsys):
    code, out, _ = call(capsys, "list")
    assert code == 0
    for name in (*ARMS, *list_studies(), "fashion-mnist", "pico", "large"):
        assert name in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "quik"],
            f"study='quik' is not possible; allowed: {', '.join(list_studies())} (did you mean 'quick'?)",
        ),
        (["--arms", "v1+op"], "arm='v1+op'"),
        (["cost", "--variants", "b7"], "variant='b7'"),
        (["cost", "--bases", "v3"], "base='v3'"),
        (["cost", "--resolutions", "22x"], "resolution='22x' is not possible; allowed: pixels such as 224"),
        (["cost", "--resolutions", "31"], "resolution=31 is not possible; allowed: 32 to 65536 pixels a side"),
        (["cost", "--pool-size", "0", "--arms", "v1+lsra"], "pool_size=0"),
        (["cost", "--no-such-flag"], "flag='--no-such-flag' is not possible; allowed: those that run_ablation.py cost"),
        (["cost", "b2"], "flag='b2' is not possible"),
        (["nonsense"], "command='nonsense' is not possible; allowed: run, cost, counters, memory"),
        (["cost", "--resolutions", "99999999999999999999"], "allowed: 32 to 65536 pixels"),
        (["cost", "--arms"], "arms=() is not possible; allowed: one or more values"),
        (["cost", "--resolutions"], "resolutions=() is not possible; allowed: one or more values"),
        (["cost", "--model"], "model=() is not possible; allowed: one or more values"),
        (["memory", "--modes"], "modes=() is not possible; allowed: one or more values"),
        (["memory", "--budget", "24XB"], "budget='24XB' is not possible; allowed: a number and a unit"),
        (["memory", "--budget", "1MiB", "--arms", "v1"], "budget='1048576B' is not possible; allowed: "),
        (["memory", "--budget", "1GiB", "--dry-run"], "dry_run=True is not possible; allowed: no such flag beside"),
        (["memory", "--verify"], "verify=True is not possible; allowed: False without --budget"),
        (["memory", "--checkpointing", "5", "--modes", "inference"], "checkpointing='5' is not possible"),
        (["speed", "--versus", "keras"], "versus='keras' is not possible; allowed: timm, transformers"),
        (["speed", "--versus", "timm", "--arms", "v1"], "arm='v1' is not possible; allowed: v1+ope+cffn, "),
        (["report", "--check", "--html"], "html=True is not possible; allowed: none with --check"),
        (["evaluate", "--checkpoint", "nowhere.pth"], "checkpoint='nowhere.pth' is not possible; allowed: a file"),
        (["cost", "--model", "timm:resnet81"], "model='resnet81' is not possible; allowed: one of"),
        (["cost", "--model", "timm:resnet18?nonsense=3"], "model='timm:resnet18' cannot be built with {'nonsense': 3}"),
        (["cost", "--model", "resnet18"], "model='resnet18' is not possible; allowed: timm:NAME, transformers:NAME"),
        (["speed", "--model", "timm:resnet18"], "flag='--model' is not possible"),
        (["cost", "--model", "pvt:b2/v1"], "model='pvt:b2/v1' is not possible; allowed: pvt:VARIANT/ARM/BASE"),
        (["cost", "--model", "mine.py"], "model='mine.py' is not possible; allowed: a file and its function"),
        (
            ["cost", "--model", "mine.py:build"],
            "model='mine.py:build' is not possible; allowed: a Python file that exi",
        ),
        (["cost", "--model", "timm:resnet18", "--resolutions", "0"], "resolution=0 is not possible; allowed: 1 to"),
        (["cost", "--model", "baselines:cpvt_s", "--heads", "fcos"], "allowed: timm:NAME, FILE.py:FUNCTION or an arm"),
        (["cost", "--heads", "yolo"], "'yolo'"),
        (["closed-form", "--resolutions", "31"], "resolution=31 is not possible; allowed: 32 to 65536 pixels a side"),
        (["closed-form", "--resolutions"], "resolutions=() is not possible; allowed: one or more values"),
        (["benchmark-count", "--repeats", "5"], "repeats=5 is not possible; allowed: 6 or more"),
        (["speed", "--repeats", "5"], "repeats=5 is not possible; allowed: 6 or more"),
        (["benchmark-count", "--variant", "b9"], "variant='b9'"),
        (["benchmark-count", "--resolution", "31"], "resolution=31 is not possible; allowed: 32 to 65536 pixels"),
        (["report", "--dry-run"], "--dry-run"),
        (["accuracy", "--weight-decay", "nan"], "weight_decay=nan"),
        (["accuracy", "--train-images", "55"], "train_images=55 is not possible; allowed: 0 for all, or a multiple"),
        (["accuracy", "--epochs", "many"], "epochs='many' is not possible; allowed: a whole number"),
        (["accuracy", "--base-lr", "x"], "base_lr='x' is not possible; allowed: a number"),
        (["accuracy", "--epochs"], "argument --epochs: expected one argument"),
        (["accuracy", "--data", "no/such/folder"], "data='no/such/folder' is not possible; allowed: an image folder"),
        (["accuracy", "--data", "a/b", "--data-dir", "c"], "data='a/b' is not possible; allowed: the name of a folder"),
        (["memory", "--modes", "train"], "'train'"),
        (["speed", "--repeats", "many"], "many"),
        (["accuracy", "--epochs", "0"], "epochs=0"),
        (["accuracy", "--data", "nowhere"], "nowhere"),
        (["accuracy", "--recipe", "papper"], "papper"),
        (["accuracy", "--recipe", "paper", "--data", "digits", "--batch-size", "33"], "batch_size=33 is not possible"),
        (["accuracy", "--jobs", "0"], "jobs=0 is not possible; allowed: 1 to "),
        (["accuracy", "--jobs", "1000"], "jobs=1000 is not possible; allowed: 1 to "),
        (
            ["accuracy", "--model", "timm:vit_tiny_patch16_224"],
            "resolution=32 is not possible; allowed: a size that timm:vit_tiny_patch16_224 takes",
        ),
        (["accuracy", "--loading", "streaming", "--rand-augment", "rand"], "loading='streaming' is not possible"),
        (["run", "--time-budget", "soon"], "time_budget='soon' is not possible; allowed: a number with s, min or h"),
        (["report", "--results", "no/such/folder"], "results='no/such/folder'"),
        (["power"], "--difference"),
        (["power", "--difference", "0"], "difference=0.0 is not possible; allowed: more than 0 and less than 100"),
        (["power", "--difference", "1", "--power", "1"], "power=1.0 is not possible; allowed: more than 0 and less"),
        (["power", "--difference", "1", "--results", "no/such"], "results='no/such'"),
        (
            ["cost", "--set", "stage_norm=some", "--arms", "v1"],
            "stage_norm='some' is not possible; allowed: last, every",
        ),
        (["cost", "--set", "norm=every", "--arms", "v1"], "set='norm' is not possible; allowed: position_embedding"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2
    # What is trained by is printed before it is looked whether the data are there.
    assert out == "" or arguments[0] == "accuracy"
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["acuracy"], "accuracy"),
        (["quick"], "run quick"),
        (["cost", "--arm", "v1"], "--arms"),
        (["accuracy", "--lr", "0.1"], "--base-lr"),
        (["accuracy", "--seed", "0"], "--seeds"),
        (["accuracy", "--data_dir", "data"], "--data-dir"),
        (["memory", "--resolution=64"], "--resolutions"),
        (["speed", "--batchsize", "2"], "--batch-size"),
        (["cost", "--arms", "v1+op"], "v1+ope"),
        (["cost", "--arms", "PVTv2-B2-Lin"], "PVTv2-B2-Li"),
        (["cost", "--variants", "nanno"], "nano"),
        (["cost", "--bases", "publshed"], "published"),
        (["cost", "--model", "PVTv2-B22"], "PVTv2-B2"),
        (["run", "quik"], "quick"),
        (["run", "quick", "--arms", "v1+op"], "v1+ope"),
        (["run", "quick", "--measurements", "sped"], "speed"),
        (["accuracy", "--data", "Fashion-MNIT"], "fashion-mnist"),
        (["accuracy", "--recipe", "papr"], "paper"),
        (["memory", "--modes", "train"], "training"),
        (["evaluate", "--checkpoint", "w.pth", "--arm", "v1+op"], "v1+ope"),
    ],
    ids=str,
)
def test_what_is_mistyped_gets_the_nearest_name(capsys, tmp_path, monkeypatch, arguments, nearest):
    monkeypatch.chdir(tmp_path)
    torch.save({}, tmp_path / "w.pth")
    code, out, err = call(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith(f" (did you mean {nearest!r}?)\n")


# Published models by their names.


def models_of(*arguments):
    """Returns the variant, the arm and the base of each cell of a command, each once."""
    cells = cli.parse(list(arguments)).cells()
    return list(dict.fromkeys((cell.model.variant, cell.model.arm, cell.model.base) for cell in cells))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("PVTv1-Small", ("b2", "v1", "published")),
        ("PVTv1-Large", ("b4", "v1", "published")),
        ("PVTv2-B0", ("b0", "v1+ope+cffn", "published")),
        ("PVTv2-B2-Li", ("b2", "v1+ope+cffn+lsra", "published")),
        ("pvt_v2_b5_li", ("b5", "v1+ope+cffn+lsra", "published")),
    ],
)
def test_a_published_model_names_variant_arm_and_base(name, model):
    for command in (["cost"], ["memory", "--predict"], ["speed"], ["accuracy"]):
        assert models_of(*command, "--arms", name) == [model]
    assert models_of("cost", "--model", name) == [model]
    assert models_of("cost", "--arms", name, "--variants", model[0], "--bases", "published") == [model]


def test_published_models_stand_beside_arms():
    assert models_of("cost", "--arms", "v1+ope", "PVTv2-B0", "PVTv1-Tiny", "v1") == [
        ("b2", "v1+ope", "v2"),
        ("b2", "v1", "v2"),
        ("b0", "v1+ope+cffn", "published"),
        ("b1", "v1", "published"),
    ]


def test_published_models_choose_among_a_study_s_cells():
    cells = cli.parse(["run", "paper", "--arms", "PVTv2-B2", "PVTv1-Small", "--resolutions", "224"]).cells()
    assert {cell.source for cell in cells} == {"pvt:b2/v1+ope+cffn/published", "pvt:b2/v1/published"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "PVTv2-B2", "--variants", "b0"], "variants=('b0',) is not possible; allowed: none beside PVTv2-B2"),
        (["--arms", "PVTv2-B2", "--bases", "v2"], "bases=('v2',) is not possible; allowed: none beside PVTv2-B2"),
        (["--arms", "PVTv2-B2", "--set", "stage_norm=last"], "set=('stage_norm=last',) is not possible"),
        (["--arms", "v2"], "v2 names a base; PVT v2 is arm v1+ope+cffn, PVT v2-Li arm v1+ope+cffn+lsra"),
        (["--arms", "v2+lsra"], "arm='v2+lsra' is not possible: v2 names a base"),
    ],
)
def test_what_a_published_model_s_name_fixes_is_not_chosen_beside_it(capsys, arguments, message):
    code, out, err = call(capsys, "cost", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_every_published_model_is_listed(capsys):
    out = call(capsys, "list")[1]
    for name, (variant, arm) in PUBLISHED_MODELS.items():
        assert re.search(rf"^  {name} +variant {variant}, arm {re.escape(arm)}, base published$", out, re.MULTILINE)
    assert {"PVTv1-Tiny", "PVTv2-B0", "PVTv2-B2", "PVTv2-B2-Li"} <= PUBLISHED_MODELS.keys()


def test_one_base_is_every_command_s_default(tmp_path):
    torch.save({}, tmp_path / "w.pth")
    evaluate = ["evaluate", "--checkpoint", str(tmp_path / "w.pth")]
    for command in (["cost", "--variants", "b2"], ["memory"], ["speed"], ["accuracy"], evaluate):
        assert {base for _, _, base in models_of(*command)} == {"v2"}
    assert cli.parse(["benchmark-count"]).model.base == "v2"


def test_a_folder_of_images_may_be_given_by_its_path(tmp_path, monkeypatch):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / "train" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "pets", "./pets", "pets/"):
        command = cli.parse(["accuracy", "--data", str(path), "--arms", "v1"])
        assert (command.data, command.data_dir) == ("pets", tmp_path)
        (cell,) = command.cells()
        assert (cell.conditions.data, cell.conditions.num_classes) == ("pets", 2)
        assert str(tmp_path) not in json.dumps(cell.describe())


def test_a_fault_of_ours_shows_its_traceback_on_request(capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("ours")

    monkeypatch.setattr(List, "run", broken)
    code, _, err = call(capsys, "list")
    assert code == 1
    assert "RuntimeError('ours')" in err
    assert "Traceback" not in err
    assert "Traceback" in call(capsys, "list", "--debug")[2]


def test_a_package_that_is_not_installed_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "ablations.analysis.comparison", raising=False)
    code, _, err = call(capsys, "compare", "--results", "results")
    assert code == 2
    assert "error: package 'pandas' is not installed here: `make install`" in err


def test_dry_run_prints_the_plan_and_what_is_done(capsys, tmp_path):
    arguments = ["cost", "--variants", "pico", "--resolutions", "32", "64x32", "--results", str(tmp_path / "out")]
    code, out, _ = call(capsys, *arguments, "--dry-run")
    assert code == 0
    assert out.splitlines()[-1] == "16 cells, 0 done"
    assert not (tmp_path / "out").exists()
    assert call(capsys, *arguments)[0] == 0
    assert call(capsys, *arguments, "--dry-run")[1].splitlines()[-1] == "16 cells, 16 done"


def plan(capsys, *arguments):
    """Returns what would be measured, one line a cell."""
    code, out, _ = call(capsys, "cost", *arguments, "--dry-run")
    assert code == 0
    *lines, total = out.splitlines()
    assert total == f"{len(lines)} cells, 0 done"
    return [line.removeprefix("missing  cost ") for line in lines]


def test_the_cost_without_flags_is_the_paper_s(capsys, tmp_path):
    lines = plan(capsys, "--results", str(tmp_path / "out"))
    assert lines == [cell.label.removeprefix("cost ") for cell in find_study("paper").cells()]
    assert "timm:resnet18" in lines
    assert "b2 v1+lsra base=v1 resolution=(800, 1280) head=retinanet" in lines
    assert not (tmp_path / "out").exists()


def test_what_is_named_is_what_is_counted(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    assert plan(capsys, "--model", "timm:resnet18") == ["timm:resnet18"]
    assert plan(capsys, "--model", "mine.py:build", "--heads", "fcos") == ["mine.py:build head=fcos"]
    both = plan(capsys, "--model", "timm:resnet18", "pvt:b0/v1/v1", "--arms", "v1+ope")
    assert both == ["timm:resnet18", "b0 v1 base=v1", "b2 v1+ope base=v2"]
    assert plan(capsys, "--model", "timm:resnet18", "--variants", "pico")[1:] == [f"pico {a} base=v2" for a in ARMS]
    assert plan(capsys, "--model", "pvt:b2/v1/v2", "--arms", "v1") == ["b2 v1 base=v2"]  # once
    assert plan(capsys, "--bases", "v1") == [f"b2 {arm} base=v1" for arm in ARMS]
    assert plan(capsys, "--pool-size", "3", "--arms", "v1") == ["b2 v1 base=v2 pool_size=3"]
    assert plan(capsys, "--resolutions", "64")[:2] == [
        "b2 v1 base=v2 resolution=64",
        "b2 v1+ope base=v2 resolution=64",
    ]
    sizes = ["--resolutions", "64", "224x96", "--heads", "classifier", "retinanet"]
    assert plan(capsys, "--model", "baselines:cpvt_s", *sizes) == [
        f"baselines:cpvt_s{size}{head}"
        for head in ("", " head=retinanet")
        for size in (" resolution=64", " resolution=(224, 96)")
    ]


@pytest.mark.slow
def test_a_model_of_one_s_own_stands_in_a_table_with_others(capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from torch import nn\ndef build():\n    return nn.Conv2d(3, 1000, 10)\n")
    models = [f"{path}:build", "timm:resnet18", "timm:swin_tiny_patch4_window7_224"]
    arguments = ["cost", "--model", *models, "--resolutions", "64", "--results", str(tmp_path / "out")]
    code, out, _ = call(capsys, *arguments, "--breakdown")
    assert code == 0
    assert "3 cells measured in" in out
    for model in ("mine.py:build", *models[1:]):
        assert model in out
    assert str(tmp_path / "mine.py") not in out
    assert "0.301" in out  # 3 * 10 * 10 * 1000 + 1000 parameters, in M
    assert "Input height (64) doesn't match model (224)" in out
    assert "layer1" in out
    assert call(capsys, "report", "--check", "--results", str(tmp_path / "out"))[0] == 0


def test_a_model_of_one_s_own_has_a_name_for_people(capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from torch import nn\ndef build():\n    return nn.Conv2d(3, 1000, 10)\n")
    asked = ["cost", "--model", f"{path}:build", "--resolutions", "64", "--results", str(tmp_path / "out")]
    code, out, _ = call(capsys, *asked, "--label", "Mine (wide)")
    assert (code, "Mine (wide)" in out, "mine.py" in out) == (0, True, False)
    (record,) = (json.loads(file.read_text()) for file in (tmp_path / "out" / "records" / "cost").iterdir())
    assert record["model"] == "Mine (wide)"
    assert len(record["file_sha256"]) == 64
    texts = [file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert not any(str(tmp_path).encode() in text for text in texts)
    for labels, message in (
        (["one", "two"], "label=('one', 'two') is not possible; allowed: 1 names, one for each FILE.py:FUNCTION"),
        (["PVTv2-B2"], "label='PVTv2-B2' is not possible; allowed: up to 40 letters"),
        (["timm:resnet18"], "label='timm:resnet18' is not possible"),
        (["a|b"], "label='a|b' is not possible"),
    ):
        code, _, err = call(capsys, *asked, "--label", *labels)
        assert (code, message in err) == (2, True)


def test_why_a_cell_failed_names_no_folder(capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import pathlib, torch\nclass Net(torch.nn.Linear):\n    def forward(self, x):\n"
        "        raise OSError(2, 'No such file', str(pathlib.Path(__file__).parent / 'w.pt'))\n"
        "def build():\n    return Net(1, 1)\n"
    )
    code, _, _ = call(capsys, "cost", "--model", f"{path}:build", "--results", str(tmp_path / "out"))
    assert code == 1
    (record,) = (json.loads(file.read_text()) for file in (tmp_path / "out" / "records" / "cost").iterdir())
    assert "'w.pt'" in record["failure"]
    assert str(tmp_path) not in record["failure"]


def run_script(*arguments):
    command = [sys.executable, "-X", "importtime", "run_ablation.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_the_closed_form_of_everything_needs_no_torch():
    done = run_script("closed-form")
    header, *rows = [line.split(",") for line in done.stdout.splitlines()]
    assert header == ["variant", "base", "arm", "resolution", "params", "macs"]
    assert len(rows) == 8 * 6 * 3 * 10
    assert len({tuple(row[:4]) for row in rows}) == len(rows)
    assert {row[0] for row in rows} == {f"b{size}" for size in range(6)}
    (small,) = [row for row in rows if row[:4] == ["b2", "v1", "v1", "224"]]
    assert [f"{int(small[4]) / 1e6:.2f}", f"{int(small[5]) / 1e9:.2f}"] == ["24.49", "3.82"]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "ablations" in imported
    assert imported & {"torch", "timm", "transformers", "pandas", "matplotlib"} == set()
    assert done.stderr.splitlines()[-1].startswith("1,440 counts in ")


def test_the_closed_form_takes_resolutions(capsys):
    code, out, err = call(capsys, "closed-form", "--resolutions", "64x96", "512")
    rows = [line.split(",") for line in out.splitlines()[1:]]
    assert code == 0
    assert len(rows) == 8 * 6 * 3 * 2
    assert {row[3] for row in rows} == {"64x96", "512"}
    config = build_config("b4", "v1+lsra", "v1")
    expected = ["b4", "v1", "v1+lsra", "64x96", str(count_params(config)), str(count_macs(config, (64, 96)))]
    assert expected in rows
    assert err.startswith("288 counts in ")


@pytest.mark.slow
def test_the_benchmark_of_the_count_prints_a_ratio(capsys):
    arguments = ["--variant", "pico", "--resolution", "64", "--repeats", "6"]
    code, out, err = call(capsys, "benchmark-count", *arguments)
    assert (code, err) == (0, "")
    head, ours, theirs, counts, beside, ratio = out.splitlines()
    macs = f"{count_macs(build_config('pico', 'v1+ope+cffn'), 64):,}"
    assert counts == f"MACs: closed form {macs}, trace {macs}, fvcore {macs}"
    assert beside.startswith("fvcore counts beside them: ")
    assert "layer_norm" in beside
    assert head == "pico v1+ope+cffn at 64 px, 6 repeats of each interleaved"
    assert ours.startswith("trace on meta")
    assert theirs.startswith("fvcore, real")
    number = r"\d+\.\d\d"
    line = rf"fvcore takes {number} times as long as the trace \(95 % interval {number} to {number}\)"
    assert re.fullmatch(line, ratio)


def test_a_measurement_prints_its_table_and_where_the_files_are(capsys, tmp_path):
    code, out, _ = call(capsys, "cost", "--variants", "pico", "--resolutions", "32", "--results", str(tmp_path))
    assert code == 0
    for arm in ARMS:
        assert arm in out
    assert "8 cells measured" in out
    assert str(tmp_path / "tables") in out
    records = [json.loads(path.read_text()) for path in (tmp_path / "records" / "cost").glob("*.json")]
    assert {record["arm"] for record in records} == set(ARMS)
    assert call(capsys, "report", "--check", "--results", str(tmp_path))[0] == 0


@pytest.mark.slow
def test_the_report_is_a_page_too(capsys, tmp_path):
    asked = ["cost", "--variants", "pico", "--resolutions", "32", "--results", str(tmp_path)]
    assert call(capsys, *asked)[0] == 0
    code, out, _ = call(capsys, "report", "--html", "--results", str(tmp_path))
    assert code == 0
    assert out.splitlines()[-1] == str(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert "What each change does" in page


def test_failed_cells_set_the_exit_code(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "count_macs", lambda config, resolution: 1)
    code, _, err = call(capsys, "cost", "--variants", "pico", "--arms", "v1", "--results", str(tmp_path))
    assert code == 1
    assert "failed: cost pico v1" in err


def test_a_spent_time_budget_says_how_to_go_on(capsys, tmp_path):
    arguments = ["cost", "--variants", "pico", "--resolutions", "32", "--results", str(tmp_path)]
    assert call(capsys, *arguments, "--arms", "v1")[0] == 0
    code, out, err = call(capsys, *arguments, "--time-budget", "0s")
    assert code == 0
    assert "0 cells measured in " in out
    assert " s, 1 were there, 7 left for a next run" in out
    assert f"resume with: run_ablation.py {' '.join(arguments)} --time-budget 0s" in err


def test_the_table_that_answers_is_printed_and_the_others_are_named(capsys, tmp_path):
    arguments = ["cost", "--variants", "b2", "--arms", "v1", "v1+ope", "--bases", "published"]
    code, out, _ = call(capsys, *arguments, "--results", str(tmp_path))
    assert code == 0
    assert re.findall(r"^# (.*)", out, re.MULTILINE) == ["Parameters and MACs"]
    named = re.search(rf"^more by `report --all`, in {re.escape(str(tmp_path))}/tables: (.*)$", out, re.MULTILINE)
    assert call(capsys, "report", "--all", "--no-figures", "--results", str(tmp_path))[0] == 0
    assert {"cumulative.md", "parts.md"} <= set(named[1].split(", "))
    assert {path.name for path in (tmp_path / "tables").glob("*.md")} >= set(named[1].split(", "))


def test_every_table_that_answers_a_command_is_one_of_the_report_s():
    known = {table.name for table in TABLES}
    measuring = [command for command in COMMANDS.values() if issubclass(command, MeasuringCommand)]
    main = {name for command in measuring for name in command.TABLES}
    assert main
    assert main | set(NAMED_MODELS_TABLES) | set(NOT_PRINTED_OF_PAPER) <= known


@pytest.mark.parametrize("text", ["90s", "1.5min", "0.025h"])
def test_durations(text):
    assert parse_duration(text) == 90


def test_the_script_runs_from_a_shell():
    done = subprocess.run([sys.executable, "run_ablation.py", "list"], capture_output=True, text=True, check=True)
    assert "v1+ope+cffn+lsra" in done.stdout


@pytest.mark.slow
def test_memory_is_predicted_for_a_device_that_is_not_there(capsys, tmp_path):
    sizes = ["--resolutions", "32", "64", "--modes", "inference", "--device", "cuda"]
    code, out, _ = call(
        capsys,
        *("memory", "--predict", "--variants", "pico", "--arms", "v1", "v1+lsra"),
        *sizes,
        "--results",
        str(tmp_path),
    )
    assert code == 0
    assert "memory_growth.md" in out
    assert "Predicted from shapes alone" in out
    code, out, _ = call(capsys, "memory", "--predict", "--model", "timm:resnet18", *sizes, "--results", str(tmp_path))
    assert code == 0
    assert "| `timm:resnet18` |" in out


def test_predictions_go_further_by_default(capsys, tmp_path):
    code, out, _ = call(capsys, "memory", "--predict", "--arms", "v1", "--dry-run", "--results", str(tmp_path))
    assert (code, out.count("resolution=4096"), out.count("method=predicted")) == (0, 4, 20)


def test_a_report_names_the_records_that_it_leaves_out(capsys, tmp_path):
    arms = ("v1", "v1+ope")
    call(capsys, "cost", "--variants", "pico", "--arms", *arms, "--resolutions", "32", "--results", str(tmp_path))
    path = next((tmp_path / "records" / "cost").iterdir())
    path.write_text("{")
    code, _, err = call(capsys, "report", "--results", str(tmp_path))
    first, *others = err.splitlines()
    assert (code, first) == (1, f"damaged, and left out: records/cost/{path.name}: not JSON")
    assert others
    assert all(line.startswith("left as it was: ") for line in others)


def test_a_budget_is_answered_and_verified(capsys):
    asked = ["memory", "--budget", "4MiB", "--variants", "pico", "--arms", "v1", "--modes", "training"]
    code, out, _ = call(capsys, *asked, "--resolutions", "32", "--verify")
    assert code == 0
    assert "# What fits into 4.0 MiB" in out
    answer = re.search(r"^\| v1 +\| +(\d+) \(([\d.]+) MiB\) \| +(\d+) \(([\d.]+) MiB\) \|$", out, re.MULTILINE)
    side, of_side, batch, of_batch = map(float, answer.groups())
    assert side % 32 == 0
    assert max(of_side, of_batch) <= 4
    assert f"at {side:.0f} px, batch 1: predicted {of_side} MiB, measured {of_side} MiB: fits" in out
    assert f"at 32 px, batch {batch:.0f}: predicted {of_batch} MiB, measured {of_batch} MiB: fits" in out


@pytest.mark.slow
def test_a_budget_is_answered_for_models_that_refuse_sizes(capsys):
    models = ["--model", "timm:vit_tiny_patch16_224", "timm:resnet18"]
    sizes = ["--resolutions", "224", "256", "--modes", "inference"]
    code, out, _ = call(capsys, "memory", "--budget", "1GiB", *models, *sizes)
    assert code == 0
    vit, resnet = (re.findall(r"(?<=\| )[^|]+", line) for line in out.splitlines() if line.startswith("| timm"))
    assert [answer.strip() == "-" for answer in vit[1:]] == [True, False, True]
    assert all(re.match(r" *\d+ \([\d.]+ MiB\)", answer) for answer in resnet[1:])
    assert "timm:vit_tiny_patch16_224 refuses a size on the way" in out


def test_what_is_not_verified_is_no_success(capsys, monkeypatch):
    monkeypatch.setattr("ablations.measure.budget.available_memory", lambda device: 2**20)
    asked = ["memory", "--budget", "4MiB", "--variants", "pico", "--arms", "v1", "--modes", "training"]
    code, out, _ = call(capsys, *asked, "--resolutions", "32", "--verify")
    assert code == 1
    assert "not verified: not run: predicted to need" in out


@pytest.mark.slow
def test_models_are_timed_beside_libraries(capsys, tmp_path):
    sizes = ["--resolutions", "32", "--batch-size", "1", "--repeats", "6", "--modes", "inference"]
    code, out, _ = call(
        capsys, "speed", "--versus", "timm", "transformers", "--variants", "pico", *sizes, "--results", str(tmp_path)
    )
    assert code == 0
    assert call(capsys, "report", "--all", "--no-figures", "--results", str(tmp_path))[0] == 0
    shares = (tmp_path / "tables" / "speed_operators.md").read_text()
    beside, shares = ([line for line in text.splitlines() if line.startswith("| pico")] for text in (out, shares))
    models = ["pico v1+ope+cffn, 32 px, batch 1", "pico v1+ope+cffn+lsra, 32 px, batch 1"]
    assert [row.split("|")[1].strip() for row in beside] == models
    assert all(len(re.findall(r"\d \([\d.]+ to [\d.]+\)", row)) == 4 for row in beside)
    assert [[cell.strip() for cell in row.split("|")[1:3]] for row in shares] == [
        [model, implementation] for model in models for implementation in ("ours", "timm", "transformers")
    ]
    code, out, err = call(capsys, "cost", "--variants", "pico", "--resolutions", "32", "--results", str(tmp_path))
    assert (code, "# Parameters and MACs" in out, "error" in err) == (0, True, False)


@pytest.fixture
def weights_and_images(tmp_path):
    """A checkpoint of pico for two classes that always answers the second, and a folder of three images."""
    model = build_model(build_config("pico", "v1+ope+cffn", num_classes=2))
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 1.0]))
    save_weights(model, tmp_path / "pico.pth")
    for number, name in enumerate(("cat", "dog", "dog")):
        path = tmp_path / "data" / "pets" / "val" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 50), (80 * number, 9, 9)).save(path)
    return tmp_path


def test_finished_weights_are_evaluated_at_several_resolutions(capsys, weights_and_images):
    folder = weights_and_images
    command = ["evaluate", "--checkpoint", str(folder / "pico.pth"), "--variant", "pico", "--num-classes", "2"]
    where = ["--data", "pets", "--data-dir", str(folder / "data"), "--results", str(folder / "runs")]
    code, out, _ = call(capsys, *command, *where, "--resolutions", "32", "64")
    assert code == 0
    (row,) = (line for line in out.splitlines() if line.startswith("| `v1+ope+cffn"))
    assert row.count("66.67") == 2
    assert "0 cells measured" in call(capsys, *command, *where, "--resolutions", "32", "64")[1]
    (record,) = (
        json.loads(path.read_text())
        for path in (folder / "runs" / "records" / "evaluation").glob("*.json")
        if json.loads(path.read_text())["conditions"]["resolution"] == 32
    )
    assert (record["result"]["n_images"], record["result"]["skipped"]) == (3, [])
    code, _, err = call(capsys, *command, *where, "--arm", "v1+ope")
    assert code == 2
    assert err.startswith("error: ")
    assert "v1+ope" in err
    code, _, err = call(capsys, *command, *where[:3], "elsewhere", *where[4:])
    assert code == 2
    assert err.startswith("error: elsewhere/pets is missing or has no class folders; allowed: ")


def read_records(results, measurement):
    return [json.loads(path.read_text()) for path in (results / "records" / measurement).glob("*.json")]


def test_weights_that_were_trained_here_need_no_other_word(capsys, tmp_path):
    asked = "accuracy --recipe smoke --variants pico --arms v1+lsra --bases v1 --set stage_norm=every --save-weights"
    sizes = "--train-images 100 --batch-size 20 --eval-resolutions 48"
    assert call(capsys, *asked.split(), *sizes.split(), "--results", str(tmp_path))[0] == 0
    (trained,) = read_records(tmp_path, "accuracy")
    (weights,) = (tmp_path / "weights").iterdir()
    told = read_description(weights)
    assert told["model"] == {"variant": "pico", "arm": "v1+lsra", "base": "v1"}
    assert (told["config"], told["recipe"]) == (trained["config"], trained["conditions"])
    assert (told["num_classes"], told["class_names"], told["data"]) == (10, list("0123456789"), "digits")
    assert str(tmp_path).encode() not in weights.read_bytes()

    evaluate = ["evaluate", "--checkpoint", str(weights), "--results", str(tmp_path)]
    assert call(capsys, *evaluate)[0] == 0  # the data are known, too
    (record,) = read_records(tmp_path, "evaluation")
    assert record["config"] == trained["config"] | {"drop_path_rate": 0.0}
    assert (record["conditions"]["data"], record["conditions"]["resolution"]) == ("digits", 32)
    # The layout of the weights in memory decides the order of additions.
    one_image = 1 / trained["result"]["n_eval_images"]
    assert record["result"]["top1"] == pytest.approx(trained["result"]["top1"], abs=1.01 * one_image)
    assert record["result"]["loss"] == pytest.approx(trained["result"]["eval_loss"], rel=1e-4)
    again = call(capsys, *evaluate, "--data", "digits", "--resolutions", "32", "48")[1]
    assert "1 cell measured" in again
    (larger,) = (each for each in read_records(tmp_path, "evaluation") if each["conditions"]["resolution"] == 48)
    assert larger["result"]["top1"] == pytest.approx(
        trained["result"]["top1_by_resolution"]["48"], abs=1.01 * one_image
    )

    for flags, message in (
        (["--arm", "v1"], "arm='v1' is not possible; allowed: v1+lsra, which the weights in "),
        (["--base", "v2"], "base='v2' is not possible; allowed: v1, which the weights in "),
        (["--variant", "b0"], "variant='b0' is not possible; allowed: pico, which the weights in "),
        (["--arm", "PVTv2-B0"], "variant='b0' is not possible; allowed: pico, "),
        (["--num-classes", "7"], "num_classes=7 is not possible; allowed: 10, "),
        (["--img-size", "64"], "img_size=64 is not possible; allowed: 32, "),
    ):
        code, out, err = call(capsys, *evaluate, *flags)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err
    agreeing = ["--arm", "v1+lsra", "--variant", "pico", "--base", "v1", "--dry-run"]
    assert call(capsys, *evaluate, *agreeing)[1].endswith("1 cells, 1 done\n")


def test_weights_of_a_model_that_is_no_arm_are_not_evaluated(capsys, tmp_path):
    save_weights({"weight": torch.zeros(1)}, tmp_path / "w.safetensors", {"model": "timm:resnet18", "recipe": {}})
    code, _, err = call(capsys, "evaluate", "--checkpoint", str(tmp_path / "w.safetensors"))
    message = "checkpoint='w.safetensors' is not possible; allowed: weights of an arm; these are of timm:resnet18"
    assert (code, err) == (2, f"error: {message}\n")


def test_records_are_packed_unpacked_merged_and_moved_aside(capsys, tmp_path):
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    asked = ["cost", "--variants", "pico", "--resolutions", "32"]
    assert call(capsys, *asked, "--arms", "v1", "--results", here)[0] == 0
    assert call(capsys, *asked, "--arms", "v1+ope", "v1+cffn", "--results", there)[0] == 0
    assert call(capsys, "records", "pack", "--results", there)[:2] == (0, "cost             2 records\n")
    assert call(capsys, "records", "merge", there, "--results", here)[:2] == (0, f"2 records copied to {here}\n")
    assert call(capsys, *asked, "--arms", "v1", "v1+ope", "v1+cffn", "--results", here, "--dry-run")[1].endswith(
        "3 done\n"
    )
    code, out, _ = call(capsys, "records", "drop", "--where", "arm=v1+ope", "measurement=cost", "--results", here)
    assert (code, "moved to" in out) == (0, True)
    assert call(capsys, "records", "drop", "--where", "arm=v1+ope", "--results", here)[1] == "no such record\n"
    for arguments, message in (
        (["pack", there], "folders=("),
        (["merge"], "folders=() is not possible; allowed: one or more"),
        (["drop"], "where=() is not possible; allowed: one or more"),
        (["drop", "--where", "colour=red", "--results", here], "where='colour' is not possible"),
        (["pack", "--results", str(tmp_path / "none")], "results="),
    ):
        code, out, err = call(capsys, "records", *arguments)
        assert (code, out) == (2, "")
        assert message in err


def test_a_study_file_of_ones_own_runs(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[[grid]]\nmeasurement = "cost"\nvariants = ["pico"]\nresolution = 32\narms = ["v1", "v1+lsra"]\n')
    code, out, _ = call(capsys, "run", str(path), "--results", str(tmp_path / "out"))
    assert (code, "2 cells measured" in out) == (0, True)
    path.write_text('[[grid]]\nmeasurement = "cost"\nvariant = ["pico"]\n')
    code, out, err = call(capsys, "run", str(path), "--results", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert err.startswith("error: mine.toml, grid 1: key='variant' is not possible; allowed: measurement, variants")
