"""What every command that measures does: plans, tables, exit codes, and how to go on."""

import json
import re

import pytest

from ablations.commands import COMMANDS
from ablations.commands.cost_memory_speed import NAMED_MODELS_TABLES
from ablations.commands.measuring_command import NOT_PRINTED_OF_PAPER, MeasuringCommand
from ablations.config import ARMS
from ablations.measure import cost
from ablations.report.build import TABLES


@pytest.mark.slow
def test_dry_run_prints_the_plan_and_what_is_done(call, capsys, tmp_path):
    arguments = ["cost", "--variants", "pico", "--resolutions", "32", "64x32", "--results", str(tmp_path / "out")]
    code, out, _ = call(capsys, *arguments, "--dry-run")
    assert code == 0
    assert out.splitlines()[-1] == "16 cells, 0 done"
    assert not (tmp_path / "out").exists()
    assert call(capsys, *arguments)[0] == 0
    assert call(capsys, *arguments, "--dry-run")[1].splitlines()[-1] == "16 cells, 16 done"


def test_why_a_cell_failed_names_no_folder(call, capsys, tmp_path):
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


@pytest.mark.slow
def test_a_measurement_prints_its_table_and_where_the_files_are(call, capsys, tmp_path):
    code, out, _ = call(capsys, "cost", "--variants", "pico", "--resolutions", "32", "--results", str(tmp_path))
    assert code == 0
    for arm in ARMS:
        assert arm in out
    assert "8 cells measured" in out
    assert str(tmp_path / "tables") in out
    records = [json.loads(path.read_text()) for path in (tmp_path / "records" / "cost").glob("*.json")]
    assert {record["arm"] for record in records} == set(ARMS)
    assert call(capsys, "report", "--check", "--results", str(tmp_path))[0] == 0


def test_failed_cells_set_the_exit_code(call, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "count_macs", lambda config, resolution: 1)
    code, _, err = call(capsys, "cost", "--variants", "pico", "--arms", "v1", "--results", str(tmp_path))
    assert code == 1
    assert "failed: cost pico v1" in err


@pytest.mark.slow
def test_a_spent_time_budget_says_how_to_go_on(call, capsys, tmp_path):
    arguments = ["cost", "--variants", "pico", "--resolutions", "32", "--results", str(tmp_path)]
    assert call(capsys, *arguments, "--arms", "v1")[0] == 0
    code, out, err = call(capsys, *arguments, "--time-budget", "0s")
    assert code == 0
    assert "0 cells measured in " in out
    assert " s, 1 were there, 7 left for a next run" in out
    assert f"resume with: run_ablation.py {' '.join(arguments)} --time-budget 0s" in err


@pytest.mark.slow
def test_the_table_that_answers_is_printed_and_the_others_are_named(call, capsys, tmp_path):
    arguments = ["cost", "--variants", "b2", "--arms", "v1", "v1+ope", "--bases", "published"]
    code, out, _ = call(capsys, *arguments, "--results", str(tmp_path))
    assert code == 0
    titles = {table.title for table in TABLES}
    assert [line for line in out.splitlines() if line in titles] == ["Parameters and MACs"]
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
