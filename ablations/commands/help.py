"""The help: its headings, which flags stand beneath each, and the list of all commands."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ablations.commands import COMMANDS
from ablations.dense_recipes import DetectionRecipe, SegmentationRecipe
from ablations.flags import HELP_ALL, Layout, describe_flags
from ablations.recipes import Recipe

PROG = "run_ablation.py"

ABOUT = "Honest ablations of the Pyramid Vision Transformer, v1 to v2."

GROUPS: dict[str, tuple[str, ...]] = {
    "models": tuple(
        """
        study measurements checkpoint toggles arms arm variants variant bases base
        model label set pool_size attention heads tools versus init
        img_size num_classes raw_weights
        """.split()
    ),
    "data": tuple(
        """
        data data_dir loading train_images tuning_images skip_unreadable skip_faulty
        first_label void_label
        resolution resolutions eval_resolutions protocol
        """.split()
    ),
    "conditions": (),
    "recipe": (
        "recipe",
        *dict.fromkeys(each.name for kind in (Recipe, DetectionRecipe, SegmentationRecipe) for each in fields(kind)),
    ),
    "run": tuple(
        """
        results seeds devices device precision compiled dry_run time_budget jobs
        workers force save_weights tensorboard breakdown verbose debug
        """.split()
    ),
    "workers": tuple(
        "launcher gpus_per_worker cpus_per_worker per_gpu time partition account constraint profile".split()
    ),
}
"""The headings of the commands' help, and their flags; the first that has a flag shows it."""


def describe_commands() -> str:
    """Returns the help of all commands together."""
    lines = [f"  {name:17}{command.__doc__.splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROG} COMMAND [FLAGS]",
            "",
            f"{ABOUT} Without a command it runs the study `quick`.",
            "",
            *lines,
            "",
            f"COMMAND --help shows a command's commonest flags, COMMAND {HELP_ALL} all of them.",
        ]
    )


def describe_command(name: str, defaults: Mapping[str, Any], *, everything: bool) -> str:
    """Returns the help of one command: its commonest flags, or `everything`."""
    command, layout = COMMANDS[name], Layout()
    if command.FIRST:
        # Elsewhere than in a training no flag is a recipe's, whatever its name.
        groups = {title: names for title, names in GROUPS.items() if title != "recipe" or defaults}
        layout = Layout(groups=groups, rest="conditions", first=command.FIRST)
    return describe_flags(command, f"{PROG} {name}", layout, defaults, everything=everything)
