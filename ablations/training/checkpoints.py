"""Checkpoints of a training on its way: written whole or not at all, and read without unpickling anything."""

import sys
from pathlib import Path
from typing import Any

import torch

from ablations.errors import InputError, first_line, refuse
from ablations.files import written_whole


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a state of tensors and plain values; a kill at any moment leaves the old file or the new one.

    Raises InputError where the file cannot be written.
    """
    try:
        with written_whole(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch's writer raises the second where a disk is full
        raise refuse("checkpoint", str(path), f"a file that can be written ({first_line(error)})") from error


SET_BY_HAND = {"threads", "processes"}
"""What a user can set as it was, unlike code, libraries, machine and data."""


def load_checkpoint(
    path: Path, made_by: dict[str, Any], shapes: dict[str, torch.Size] | None = None
) -> dict[str, Any] | None:
    """Returns the state that `save_checkpoint` wrote, in main memory, or None where there is none to go on from.

    A file that is damaged, or of a model of other `shapes` by name, or that was written where numbers might differ, by
    other code or on another kind of machine, is not gone on from; a warning says so. Where nothing but SET_BY_HAND
    differs, raises InputError, so that the file is not lost.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        others = [name for name, value in made_by.items() if state["made_by"][name] != value]
    except Exception as error:  # a damaged file fails in every way that a reader can
        _warn(f"{path} is damaged ({first_line(error)})")
        return None
    if others and set(others) <= SET_BY_HAND:
        was, is_now = (
            " and ".join(f"{name}={source[name]}" for name in others) for source in (state["made_by"], made_by)
        )
        raise InputError(f"{path} was written with {was}, and this is {is_now}: go on as then, or remove it")
    if others:
        was, is_now = (", ".join(str(source[name]) for name in others) for source in (state["made_by"], made_by))
        _warn(f"{path} was written with another {' and '.join(others)} ({was}; now {is_now})")
        return None
    if shapes is not None and {name: value.shape for name, value in state["model"].items()} != shapes:
        _warn(f"{path} is of another model")
        return None
    return state


def _warn(fact: str) -> None:
    print(f"warning: {fact}; that training starts anew", file=sys.stderr)
