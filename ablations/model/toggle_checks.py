"""What a toggle from a file must keep to, tried on small models before anything is measured.

Each check is one line for the reader who wrote the file: it says which of the slot's promises is broken, and where.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ablations.config import BASES, NUM_STAGES, TOGGLES, PVTConfig, Toggle, arm_name, build_config
from ablations.errors import InputError, first_line
from ablations.model.pvt import build_model
from ablations.model.slots import build_from_file
from ablations.toggle_files import find_function

IMAGES = 2
"""Images of the batch that a module is tried on."""

SIDE = (32, 64)
"""Height and width in pixels of these: no square, so that a map that is turned over is seen."""

OF_X_ALONE = ("patch_embed", "norm", "pool")
"""Slots whose modules are not given the map's size."""

TRIED = "pico"
"""The variant that toggles are tried in."""


def check_toggles(names: Iterable[str]) -> None:
    """Raises InputError for the first toggle from a file that breaks a promise of its slot; others are left alone."""
    for name in dict.fromkeys(names):
        if TOGGLES[name].file:
            _Trial(name, TOGGLES[name]).check()


@dataclass(frozen=True)
class _Trial:
    """A toggle from a file, by its name, while it is tried."""

    name: str
    toggle: Toggle

    def check(self) -> None:
        for base in (base for base in BASES if base != "published"):
            config = build_config(TRIED, arm_name([self.name]), base, img_size=SIDE)
            for stage in range(NUM_STAGES) if self.toggle.slot != "pool" else (NUM_STAGES - 1,):
                self.check_stage(config, stage)
        config = build_config(TRIED, arm_name([self.name]), "v1", img_size=SIDE)
        one, other = (build_model(config, seed=0).state_dict() for _ in range(2))
        for key, value in one.items():
            if not torch.equal(value, other[key]):
                raise self.broken(f"gives {key} other values when it is built twice with one seed; draw them by torch")

    def broken(self, what: str) -> InputError:
        return InputError(f"toggle {self.name} ({self.toggle.file}, slot {self.toggle.slot}) {what}")

    def attempt(self, words: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except InputError:
            raise
        except Exception as error:
            raise self.broken(f"{words}: {first_line(error)}") from error

    def check_stage(self, config: PVTConfig, stage: int) -> None:
        """Tries the module of one stage on shapes alone, and then on numbers."""
        toggle, prefix, where = self.toggle, config.num_prefix_tokens(stage), f"in stage {stage + 1}"
        with_token = ", where a class token stands before the map's tokens" if prefix else ""
        with torch.device("meta"):
            module = self.attempt(f"cannot be built {where}", lambda: build_from_file(toggle, config, stage))
        self.check_forward(module)
        for key, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.device.type != "meta":
                what = f"puts {key} on {tensor.device}, not on the default device; leave out `device` where it is made"
                raise self.broken(what)
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            module = build_from_file(toggle, config, stage).eval()
            given, size, shape = _example(toggle.slot, config, stage)
            words = f"fails {where} on {tuple(given.shape)}{with_token}"
            with torch.no_grad():
                output = self.attempt(words, lambda: _call(toggle.slot, module, given, size))
        self.check_output(output, given, size, shape, f"{where}{with_token}", prefix)
        with torch.device("meta"), torch.no_grad():
            module, given = module.to("meta"), given.to("meta")
            words = f"makes a tensor {where} on another device than its input's; use `device=x.device`"
            self.attempt(words, lambda: _call(toggle.slot, module, given, size))
        if cost := toggle.cost:
            words = f"has a cost that fails {where}"
            rows = self.attempt(words, lambda: list(find_function(cost)(config, stage, size)))
            counted, built = sum(row.params for row in rows), sum(each.numel() for each in module.parameters())
            if counted != built:
                raise self.broken(f"has a cost of {counted} parameters {where}; the module has {built}")

    def check_forward(self, module: nn.Module) -> None:
        wanted = ("x",) if self.toggle.slot in OF_X_ALONE else ("x", "size")
        signature = inspect.signature(module.forward)
        try:
            signature.bind(*wanted)
        except TypeError:
            meaning = "" if len(wanted) == 1 else ", where size is the map's (height, width)"
            what = f"has a module with forward{signature}; allowed: forward({', '.join(wanted)}){meaning}"
            raise self.broken(what) from None

    def check_output(
        self, output: Any, given: Tensor, size: tuple[int, int], shape: tuple[int, ...], where: str, prefix: int
    ) -> None:
        if self.toggle.slot == "patch_embed":
            is_pair = isinstance(output, tuple) and len(output) == 2 and isinstance(output[0], Tensor)
            if not is_pair or tuple(map(int, output[1])) != size:
                got = tuple(output[1]) if is_pair else type(output).__name__
                allowed = f"tokens and (height, width), here {size}, as stride and rounds_up say"
                raise self.broken(f"returns {got} {where}; allowed: {allowed}")
            output = output[0]
        if not isinstance(output, Tensor) or tuple(output.shape) != shape:
            got = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            if prefix and got == (shape[0], shape[1] - prefix, shape[2]):
                raise self.broken(f"ignores the class token: it returns {got} {where}, not {shape}")
            raise self.broken(f"returns {got} for {tuple(given.shape)} {where}; allowed: {shape}")
        if output.dtype != given.dtype:
            raise self.broken(f"returns {output.dtype} {where}; allowed: {given.dtype}, as its input")
        if not output.isfinite().all():
            raise self.broken(f"returns numbers that are not finite {where}")


def _example(slot: str, config: PVTConfig, stage: int) -> tuple[Tensor, tuple[int, int], tuple[int, ...]]:
    """Returns an input of a slot's module, its map's size, and the shape of the output."""
    size, dim = config.stage_sizes(SIDE)[stage], config.embed_dims[stage]
    generator = torch.Generator().manual_seed(stage)
    if slot == "pool":
        given = torch.randn((IMAGES, dim, *size), generator=generator).contiguous(memory_format=torch.channels_last)
        return given, size, (IMAGES, dim)
    tokens = (IMAGES, config.num_prefix_tokens(stage) + size[0] * size[1], dim)
    if slot == "patch_embed":
        before = SIDE if stage == 0 else config.stage_sizes(SIDE)[stage - 1]
        shape = (IMAGES, (config.in_chans, *config.embed_dims)[stage], *before)
        given = torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
        return given, size, (IMAGES, size[0] * size[1], dim)
    return torch.randn(tokens, generator=generator), size, tokens


def _call(slot: str, module: nn.Module, given: Tensor, size: tuple[int, int]) -> Any:
    return module(given) if slot in OF_X_ALONE else module(given, size)
