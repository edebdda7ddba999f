"""The README: its code runs, its commands are understood, its tables are the committed ones."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import gmean

from ablations import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^ *(?:\$ )?python run_ablation\.py(.*)$", README, re.MULTILINE)
TARGETS = re.findall(r"^ *(?:\$ )?make ([a-z-]+)", README, re.MULTILINE)


@pytest.mark.parametrize("code", CODE)
def test_python_blocks_run(code):
    exec(code, {})


def test_there_is_something_to_test():
    assert CODE
    assert len(COMMANDS) >= 5
    assert {"reproduce", "test"} <= set(TARGETS)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands_are_understood(arguments):
    command = cli.parse(shlex.split(arguments))
    if hasattr(command, "cells") and not hasattr(command, "checkpoint"):  # that file is the reader's
        assert command.cells()


@pytest.mark.parametrize("target", TARGETS)
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_rows_of_tables_are_rows_of_the_committed_tables():
    shown = re.findall(r"^(\| (?:v1|PVT|\+|- ).*)$", README, re.MULTILINE)
    committed = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "results" / "tables").glob("*.md"))
    assert shown
    assert [row for row in shown if row not in committed] == []


def test_geometric_means_are_the_committed_ones():
    table = (ROOT / "results" / "tables" / "speed_libraries.md").read_text(encoding="utf-8")
    ratio = r"([\d.]+) times as fast"
    claim = re.search(
        rf"inference was, .*? {ratio} as the faster library in the default layout and {ratio} as the fastest in either layout; "
        r"training was ([\d.]+) and ([\d.]+) times as fast",
        " ".join(README.split()),
    )
    assert claim is not None
    shown = {"inference": claim.groups()[:2], "training": claim.groups()[2:]}
    for mode, claimed in shown.items():
        note = re.search(rf"## {mode}, cpu, float32, P = 7\n.*?\n(One [^|]*?)\n", table, re.DOTALL)
        assert note is not None
        assert "Geometric mean of 13 rows" in note[1]
        assert tuple(re.findall(rf"{ratio} as the fast", note[1])) == claimed


def test_what_is_said_of_speed_beside_libraries_is_in_its_table():
    values = pd.read_csv(ROOT / "results" / "tables" / "speed_libraries.csv")
    libraries = [column for column in values if re.fullmatch(r"(timm|transformers)\w*_ratio", column)]
    strictest = values[libraries].idxmin(axis="columns")
    values["low"], values["high"] = (
        [values[f"{name}_{end}"][place] for place, name in strictest.items()] for end in ("low", "high")
    )
    others = values[values["pool_size"] == 7]
    modes = [others[others["mode"] == mode] for mode in ("inference", "training")]
    large, small = (
        [f"{gmean(rows['ratio'][(rows['pixels'] > 224**2) == is_large]):.2f}" for rows in modes]
        for is_large in (True, False)
    )
    above = [sum(rows["low"] > 1) for rows in modes]
    below = [sum(rows["high"] < 1) for rows in modes]
    (nano,) = values.query("pool_size == 2 and mode == 'training' and arm == 'v1+ope+cffn'").to_dict("records")
    faster = min(("timm_ratio", "transformers_ratio"), key=nano.__getitem__)
    ratio, low, high = (f"{nano[f'{faster}{end}']:.2f}" for end in ("", "_low", "_high"))
    text = " ".join(README.split())
    for claim in (
        f"inference is {large[0]} and training {large[1]} times as fast as the faster library",
        f"up to 224 px {small[0]} and {small[1]} times",
        f"{above[0]} of the 13 rows of inference and {above[1]} of the 13 of training have an interval above 1",
        f"and {below[1]} of training has it below",
        f"trains as fast as the libraries' ({ratio}, 95 % interval {low} to {high})",
        f"{values['noisy'].sum()} of the {len(values)} rows are marked noisy",
    ):
        assert claim in text
    assert below[0] == 0


def test_shares_of_the_peak_are_the_committed_ones():
    table = (ROOT / "results" / "tables" / "speed_operators.md").read_text(encoding="utf-8")
    inference = table.partition("## inference")[2].partition("## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in inference.splitlines()]
    (row,) = (row for row in rows if row[0].startswith("b2 v1+ope+cffn, 224 px") and row[1] == "ours")
    reached, at_floor = row[-2:]
    claim = re.search(r"ran\s+at ([\d.]+) %\s+of the rate of.*?would be ([\d.]+) %", README, re.DOTALL)
    assert claim is not None
    assert claim.groups() == (reached, at_floor)


def test_the_budget_s_answers_are_what_the_command_prints(capsys):
    (arguments,) = (command for command in COMMANDS if "--budget 24GiB" in command)
    rows = re.findall(r"^    (\| v1.*)$", README, re.MULTILINE)
    assert len(rows) == 2
    assert cli.main(shlex.split(arguments)) == 0
    out = capsys.readouterr().out
    assert [row for row in rows if row not in out.partition("explicit attention")[2]] == []


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
