"""The help: it names every command and explains every flag, and the short one has ten at most."""

import re
from dataclasses import fields

import pytest

from ablations.commands import COMMANDS
from ablations.commands.help import GROUPS
from ablations.flags import flag_of, meanings_of


def test_help_names_every_command(call, capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0
    for command in COMMANDS:
        assert command in out


def flags_in(text):
    """Returns the flags that a help text explains, in order."""
    return re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_all_of_a_command_s_flags_are_in_its_whole_help(call, capsys, command):
    code, out, _ = call(capsys, command, "--help-all")
    assert code == 0
    names = [each.name for each in fields(COMMANDS[command]) if not each.metadata.get("positional")]
    assert sorted(flag.replace("--no-", "--") for flag in flags_in(out)) == sorted(map(flag_of, names))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_short_help_has_ten_flags_at_most_and_says_how_many_more_there_are(call, capsys, command):
    code, out, _ = call(capsys, command, "--help")
    assert code == 0
    shown, every = flags_in(out), flags_in(call(capsys, command, "--help-all")[1])
    assert len(shown) <= 10
    assert set(shown) <= set(every)
    if len(shown) < len(every):
        assert out.splitlines()[-1] == f"{len(every) - len(shown)} more flags: run_ablation.py {command} --help-all"


def test_the_help_of_a_training_begins_with_what_most_need_by_group(call, capsys):
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


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_has_a_help_text(command):
    texts = meanings_of(COMMANDS[command])
    assert [each.name for each in fields(COMMANDS[command]) if not texts.get(each.name)] == []
