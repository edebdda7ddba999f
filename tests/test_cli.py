"""The command line as people meet it: help, lists, plans, refusals, exit codes."""

import json
import subprocess
import sys

import pytest

from ablations import cli, runner
from ablations.config import ARMS
from ablations.design import STUDIES


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
    for command in ("run", "cost", "memory", "speed", "accuracy", "report", "list"):
        assert command in out


@pytest.mark.parametrize("command", ["run", "cost", "memory", "speed", "accuracy", "report", "list"])
def test_every_command_has_help(capsys, command):
    code, out, _ = call(capsys, command, "--help")
    assert code == 0
    assert "--debug" in out


def test_list_names_arms_and_studies(capsys):
    code, out, _ = call(capsys, "list")
    assert code == 0
    for name in (*ARMS, *STUDIES, "fashion-mnist", "pico", "large"):
        assert name in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quik"], "study='quik' is not possible; allowed: quick"),
        (["--arms", "v1+op"], "arm='v1+op'"),
        (["cost", "--variants", "b7"], "variant='b7'"),
        (["cost", "--frames", "v3"], "frame='v3'"),
        (["cost", "--resolutions", "22x"], "resolution='22x' is not possible; allowed: pixels such as 224"),
        (["cost", "--resolutions", "31"], "resolution=31 is not possible; allowed: 32 to 65536 pixels a side"),
        (["cost", "--pool-size", "0", "--arms", "v1+lsra"], "pool_size=0"),
        (["cost", "--no-such-flag"], "--no-such-flag"),
        (["nonsense"], "nonsense"),
        (["cost", "--resolutions", "99999999999999999999"], "allowed: 32 to 65536 pixels"),
        (["cost", "--arms"], "arms=() is not possible; allowed: one or more of v1"),
        (["cost", "--resolutions"], "nothing to measure"),
        (["report", "--dry-run"], "--dry-run"),
        (["accuracy", "--weight-decay", "nan"], "weight_decay=nan"),
        (["accuracy", "--train-images", "55"], "train_images=55 is not possible; allowed: 0 for all, or a multiple"),
        (["accuracy", "--num-classes", "7"], "num_classes=7 is not possible; allowed: 10, which digits has"),
        (["memory", "--modes", "train"], "'train'"),
        (["speed", "--repeats", "many"], "many"),
        (["accuracy", "--epochs", "0"], "epochs=0"),
        (["accuracy", "--data", "nowhere"], "nowhere"),
        (["run", "--time-budget", "soon"], "time_budget='soon' is not possible; allowed: a number with s, min or h"),
        (["report", "--results", "no/such/folder"], "results='no/such/folder'"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_ours_shows_its_traceback_on_request(capsys, monkeypatch):
    def broken():
        raise RuntimeError("ours")

    monkeypatch.setattr(cli, "_list", broken)
    code, _, err = call(capsys, "list")
    assert code == 1
    assert "RuntimeError('ours')" in err
    assert "Traceback" not in err
    assert "Traceback" in call(capsys, "list", "--debug")[2]


def test_dry_run_prints_the_plan_and_what_is_done(capsys, tmp_path):
    arguments = ["cost", "--variants", "pico", "--resolutions", "32", "64x32", "--results", str(tmp_path / "out")]
    code, out, _ = call(capsys, *arguments, "--dry-run")
    assert code == 0
    assert out.splitlines()[-1] == "16 cells, 0 done"
    assert not (tmp_path / "out").exists()
    assert call(capsys, *arguments)[0] == 0
    assert call(capsys, *arguments, "--dry-run")[1].splitlines()[-1] == "16 cells, 16 done"


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


def test_failed_cells_set_the_exit_code(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(runner.cost, "count_macs", lambda config, resolution: 1)
    code, _, err = call(capsys, "cost", "--variants", "pico", "--arms", "v1", "--results", str(tmp_path))
    assert code == 1
    assert "failed: cost pico v1" in err


def test_a_spent_time_budget_says_how_to_go_on(capsys, tmp_path):
    arguments = ["cost", "--variants", "pico", "--resolutions", "32", "--results", str(tmp_path)]
    assert call(capsys, *arguments, "--arms", "v1")[0] == 0
    code, out, err = call(capsys, *arguments, "--time-budget", "0s")
    assert code == 0
    assert "0 cells measured, 1 were there, 7 left for a next run" in out
    assert f"go on with: run_ablation.py {' '.join(arguments)} --time-budget 0s" in err


def test_both_tables_of_the_cost_are_printed(capsys, tmp_path):
    arguments = ["cost", "--variants", "b2", "--arms", "v1", "v1+ope", "--frames", "published"]
    code, out, _ = call(capsys, *arguments, "--results", str(tmp_path))
    assert code == 0
    assert "# Parameters and multiply-adds" in out
    assert "# The paper's ladder" in out


@pytest.mark.parametrize("text", ["90s", "1.5min", "0.025h"])
def test_durations(text):
    assert cli.parse_duration(text) == 90


def test_the_script_runs_from_a_shell():
    done = subprocess.run([sys.executable, "run_ablation.py", "list"], capture_output=True, text=True, check=True)
    assert "v1+ope+cffn+lsra" in done.stdout
