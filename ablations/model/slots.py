"""What fills the slots of the model: the modules of toggles, from a reader's file too, or PVT v1's own."""

import torch
from torch import nn

from ablations.config import PVTConfig, Toggle
from ablations.errors import InputError, refuse
from ablations.model.initial_weights import generator_of
from ablations.toggle_files import find_function


def build_slot(slot: str, config: PVTConfig, stage: int, seed: int | None, path: str) -> nn.Module:
    """Returns the module that fills a slot of SLOTS in a stage (from 0): a toggle's, or PVT v1's own.

    That of a toggle from a file is built on the CPU, under a generator of the seed and the module's name, `path`: so
    what its constructor draws depends on nothing else.
    """
    alternative = config.alternative(slot)
    if not isinstance(alternative, Toggle) or not alternative.file:
        return find_function(alternative.builder)(config, stage)
    device = torch.get_default_device()
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(generator_of(seed, path, torch.Size()).initial_seed())
        if device.type != "cuda":
            return build_from_file(alternative, config, stage)
        with torch.device("cpu"):
            return build_from_file(alternative, config, stage).to(device)


def build_from_file(toggle: Toggle, config: PVTConfig, stage: int) -> nn.Module:
    """Returns the module of a toggle from a file; raises InputError for what is none, or if it cannot be built."""
    if not toggle.path:
        raise refuse("toggle", toggle.title, "one whose file is named by --toggles")
    module = find_function(toggle.builder)(config, stage)
    if not isinstance(module, nn.Module):
        raise InputError(f"{toggle.file}: build returns a {type(module).__name__}; allowed: a torch.nn.Module")
    return module
