"""Flags that several commands have."""

import json
from dataclasses import fields

import pytest

from ablations import cli
from ablations.commands import COMMANDS


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


def test_a_folder_without_records_names_those_here_that_have_some(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare"]) == 2
    assert capsys.readouterr().err.endswith("allowed: a folder that holds records\n")
    for folder in ("mine", "runs_\x07", "code"):
        (tmp_path / folder / "records" / "cost").mkdir(parents=True)
    (tmp_path / "mine" / "records" / "cost.jsonl").touch()
    (tmp_path / "runs_\x07" / "records" / "cost" / "a.json").touch()
    (tmp_path / "code" / "records" / "module.py").touch()
    assert cli.main(["compare"]) == 2
    assert capsys.readouterr().err.endswith("a folder that holds records; here: mine, runs_\\x07\n")
