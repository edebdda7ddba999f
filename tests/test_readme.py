"""The README: its code runs, its commands are understood, and its numbers are those of the records.

`run_ablation.py report --results results --readme README.md` writes the numbers between its markers anew.
"""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from ablations import cli
from ablations.cli import parse
from ablations.records import load_records
from ablations.report.readme import rewrite_numbers
from ablations.skeletons import render_skeleton
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


def test_numbers_are_those_of_the_records():
    assert rewrite_numbers(README, load_records(ROOT / "results")) == README
    assert len(re.findall(r"<!-- numbers: ", README)) >= 3


def test_table_6_is_reproduced_as_closely_as_is_said():
    values = pd.read_csv(ROOT / "results" / "tables" / "table6_ablation.csv")
    furthest = values[[name for name in values if name.endswith("difference_percent")]].abs().max().max()
    claim = re.search(r"Counts are exact and within ([\d.]+) % of \[the paper's Table 6\]", " ".join(README.split()))
    assert claim is not None
    assert f"{furthest:.1f}" == claim[1]


def test_the_trained_models_are_as_small_as_is_said():
    values = pd.read_csv(ROOT / "results" / "tables" / "comparison.csv")
    claim = re.search(r"are of models below (\d+) M parameters after (\d+) epochs", " ".join(README.split()))
    assert claim is not None
    trained = values[values["top1_mean"].notna()]
    assert trained["params"].max() < int(claim[1]) * 1e6
    assert set(trained["epochs"]) == {int(claim[2])}


SHOWN = re.findall(r"^    \$ python run_ablation\.py (.*)\n((?:    [^.].*\n)+)", README, re.MULTILINE)
"""The commands of the README and what it shows of their output, before an ellipsis."""


def test_five_commands_show_three_lines_each():
    assert len({command.split()[0] for command, _ in SHOWN}) == 5
    assert [len(lines.splitlines()) for _, lines in SHOWN] == [3] * 5


@pytest.mark.slow
@pytest.mark.parametrize(("command", "lines"), SHOWN, ids=[command.split()[0] for command, _ in SHOWN])
def test_the_output_shown_is_what_the_command_prints(command, lines, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    arguments = shlex.split(command)
    own = [] if {"--results", "--budget"} & {*arguments} else ["--results", str(tmp_path)]
    assert cli.main([*arguments, *own]) == 0
    printed = iter(capsys.readouterr().out.splitlines())
    assert [line for line in lines.splitlines() if line.removeprefix("    ") not in printed] == []


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


OWN_TOGGLE = "my_attention.py"
"""What `new-toggle attention` prints, in the manual."""


@pytest.fixture(scope="module")
def folder_of_own_toggle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / OWN_TOGGLE).write_text(render_skeleton("attention"), encoding="utf-8")
    return folder


@pytest.mark.parametrize("arguments", find_all(r"^ *(?:\$ )?python run_ablation\.py(.*)$"))
def test_commands_are_understood(arguments, folder_of_own_toggle, monkeypatch):
    words, _, file = arguments.partition(" > ")
    if OWN_TOGGLE in arguments:
        monkeypatch.chdir(folder_of_own_toggle)
        assert file in ("", OWN_TOGGLE)
    command = parse(shlex.split(words))
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
