"""The README: its code runs, its commands are understood, and its numbers are those of the records.

With ABLATIONS_UPDATE_README=1 the numbers between its markers are written anew instead of compared.
"""

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ablations import cli
from ablations.analysis.speed import speed_values
from ablations.commands import parse
from ablations.config import ARMS
from ablations.records import load_records
from ablations.report.tables import four_figures
from ablations.studies import parse_study

ROOT = Path(__file__).parents[1]
MANUAL = ROOT / "ablations" / "README.md"
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", MANUAL)}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in DOCUMENTS.items()}
README = TEXTS["README.md"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
MOST_WORDS = 900

READERS_FILES = ("my_study.toml", "model.safetensors")
"""What a command may name and only its reader has."""


def find_all(pattern: str) -> list[str]:
    return list(dict.fromkeys(match for text in TEXTS.values() for match in re.findall(pattern, text, re.MULTILINE)))


def costs() -> str:
    """Returns what each arm of b2 in base v2 costs: parameters, MACs and predicted memory."""
    records = load_records(ROOT / "results")
    of_b2 = records.query("variant == 'b2' and base == 'v2' and resolution in ('224', '1024')")
    counts = of_b2.query("measurement == 'cost' and head == 'classifier'").set_index(["arm", "resolution"])
    usual = (
        "device == 'cpu' and precision == 'float32' and batch_size == 1 and channels_last and checkpointing == 'none'"
    )
    predicted = of_b2.query(f"measurement == 'memory' and method == 'predicted' and mode == 'inference' and {usual}")
    peaks = predicted[predicted["resolution"] == "1024"].set_index(["arm", "attention"])["peak_memory_bytes"] / 2**20
    rows = [["Arm", "Parameters, M", "GMACs, 224 px", "GMACs, 1024 px", "Memory, fused", "Memory, explicit"]]
    for arm in ARMS:
        macs = [four_figures(counts.loc[(arm, side), "macs"] / 1e9) for side in ("224", "1024")]
        memory = [four_figures(peaks[(arm, kernel)]) for kernel in ("fused", "explicit")]
        rows.append([arm, four_figures(counts.loc[(arm, "224"), "params"] / 1e6), *macs, *memory])
    return "\n".join("|".join(["", *row, ""]) for row in [rows[0], ["---", *["--:"] * 5], *rows[1:]])


def speed() -> str:
    """Returns the speed of each toggle by itself in nano at 96 px, training."""
    values = speed_values(load_records(ROOT / "results", measurement="speed"))
    timed = values.query("variant == 'nano' and base == 'v2' and resolution == '96' and mode == 'training'")
    timed = timed.set_index("arm")
    words = []
    for arm in ("v1+ope", "v1+cffn", "v1+lsra"):
        ratio, low, high = (timed.loc[arm, f"relative_speed{end}"] for end in ("", "_low", "_high"))
        unresolved = ", unresolved" if low <= 1 <= high else ""
        words.append(f"{arm} {ratio:.2f} ({low:.2f} to {high:.2f}{unresolved})")
    return f"- **Speed** of nano's training at 96 px on our CPU, v1 = 1, 95 % interval: {'; '.join(words)}."


NUMBERS: dict[str, Callable[[], str]] = {"costs": costs, "speed": speed}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_those_of_the_records(name):
    marked = re.compile(rf"(<!-- numbers: {name} -->\n)(.*?)(<!-- end -->)", re.DOTALL)
    expected = NUMBERS[name]() + "\n"
    if os.environ.get("ABLATIONS_UPDATE_README") == "1":
        path = DOCUMENTS["README.md"]
        text = path.read_text(encoding="utf-8")
        path.write_text(marked.sub(lambda match: match[1] + expected + match[3], text), encoding="utf-8")
        return
    found = marked.search(README)
    assert found is not None
    assert found[2] == expected


def test_every_marked_number_is_tested():
    assert re.findall(r"<!-- numbers: (\w+) -->", README) == list(NUMBERS)


def test_what_is_said_of_toggles_is_what_the_records_say():
    records = load_records(ROOT / "results", measurement="cost")
    counts = records.query("variant == 'b2' and base == 'v2' and head == 'classifier'").set_index(["arm", "resolution"])

    def change(arm: str, metric: str, side: str) -> str:
        percent = 100 * (counts.loc[(arm, side), metric] / counts.loc[("v1", side), metric] - 1)
        return f"{abs(percent):.0f} %"

    text = " ".join(README.split())
    lsra = [change("v1+lsra", "macs", side) for side in ("224", "1024")]
    cffn, ope = ([change(arm, metric, "224") for metric in ("params", "macs")] for arm in ("v1+cffn", "v1+ope"))
    for claim in (
        f"saves {change('v1+lsra', 'params', '224')} of the parameters",
        f"{lsra[0]} fewer at 224 px, {lsra[1]} fewer at 1024 px",
        f"**CFFN** adds {cffn[0]} of parameters and {cffn[1]} of MACs at 224 px",
        f"**OPE** adds {ope[0]} and {ope[1]}",
    ):
        assert claim in text


def test_table_6_is_reproduced_as_closely_as_is_said():
    values = pd.read_csv(ROOT / "results" / "tables" / "table6_ablation.csv")
    furthest = values[[name for name in values if name.endswith("difference_percent")]].abs().max().max()
    claim = re.search(r"Table 6\]\([^)]*\) within ([\d.]+) %", " ".join(README.split()))
    assert claim is not None
    assert f"{furthest:.1f}" == claim[1]


def test_the_costs_shown_are_what_the_command_prints(tmp_path, capsys):
    (arguments,) = (command for command in find_all(r"^ *\$ python run_ablation\.py(.*)$") if " cost " in command)
    assert cli.main([*shlex.split(arguments), "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    shown = re.findall(r"^    (\| (?:Arm|v1).*MACs.*|\| v1.*%\) \|.*)$", README, re.MULTILINE)
    assert shown
    assert [row for row in shown if row not in out] == []


def test_the_budgets_answers_are_what_the_command_prints(capsys):
    (arguments,) = (command for command in find_all(r"^ *\$ python run_ablation\.py(.*)$") if "--budget" in command)
    rows = re.findall(r"^    (\| v1.*GiB.*)$", README, re.MULTILINE)
    assert len(rows) == 2
    assert cli.main(shlex.split(arguments)) == 0
    out = capsys.readouterr().out
    assert [row for row in rows if row not in out] == []


def test_the_readme_is_short():
    assert len(README.split()) <= MOST_WORDS


def test_there_is_something_to_test():
    assert find_all(r"```python\n")
    assert find_all(r"```toml\n")
    assert len(find_all(r"^ *(?:\$ )?python run_ablation\.py(.*)$")) >= 5
    assert "make test" in README


@pytest.mark.parametrize("code", find_all(r"```python\n((?:.*\n)*?)```"))
def test_python_blocks_run(code, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(code, {})


@pytest.mark.parametrize("study", find_all(r"```toml\n((?:.*\n)*?)```"))
def test_studies_are_understood(study):
    assert parse_study(study, "example", "example.toml").cells()


@pytest.mark.parametrize("arguments", find_all(r"^ *(?:\$ )?python run_ablation\.py(.*)$"))
def test_commands_are_understood(arguments):
    command = parse(shlex.split(arguments))
    if hasattr(command, "cells") and not any(file in arguments for file in READERS_FILES):
        assert command.cells()


@pytest.mark.parametrize("target", find_all(r"^ *(?:\$ )?make ([a-z-]+)"))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "link"), [(name, link) for name, text in TEXTS.items() for link in re.findall(r"\]\(([^)#]+)\)", text)]
)
def test_links_lead_somewhere(name, link):
    assert link.startswith("https://") or (DOCUMENTS[name].parent / link).exists()


@pytest.mark.parametrize("name", TEXTS)
def test_code_that_is_named_exists(name):
    start = DOCUMENTS[name].parent
    for path in re.findall(r"`((?:ablations|tests|[a-z_]+)/[\w/]+\.(?:py|toml|csv))`", TEXTS[name]):
        assert (ROOT / path).exists() or (start / path).exists(), path
