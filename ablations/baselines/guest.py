"""A user's file as a guest: it is run so that it finds its neighbours, and leaves the process as it was."""

import importlib.util
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, library, nn
from torch._C import _len_torch_function_stack
from torch._library.custom_ops import OPDEF_TO_LIB
from torch.overrides import _pop_mode, _push_mode
from torch.utils._pytree import tree_leaves

from ablations.errors import InputError, refuse
from ablations.files import file_digest
from ablations.toggle_files import is_neighbour

PACKAGE = "model_files"
"""What the outermost package around a user's file is called while it runs, whatever its folder is called."""

_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
    *(
        (partial(getattr, torch.backends.cudnn, name), partial(setattr, torch.backends.cudnn, name))
        for name in ("enabled", "benchmark", "deterministic")
    ),
    (partial(getattr, torch.backends.mkldnn, "enabled"), partial(setattr, torch.backends.mkldnn, "enabled")),
)
"""What of torch holds for the whole process, as it is read and as it is set."""

_PRECISIONS = tuple(
    place
    for place in product(("generic", "cuda", "mkldnn"), ("all", "conv", "rnn", "matmul"))
    if hasattr(torch._C, "_get_fp32_precision_getter")
)
"""What may have a precision of its own for products of float32, since torch 2.9: backends, and operators of each."""

_GENERATORS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (torch.get_rng_state, torch.set_rng_state),
)


@contextmanager
def state_kept() -> Iterator[None]:
    """Leaves the process as it was: torch's settings and generators, arguments, environment, folder, signals."""
    with _torch_kept():
        arguments, environment, folder = sys.argv, dict(os.environ), Path.cwd()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            sys.argv = arguments
            if environment != os.environ:
                os.environ.clear()
                os.environ.update(environment)
            os.chdir(folder)
            with suppress(ValueError):  # in a thread no file has changed them either
                for number, handler in handlers.items():
                    signal.signal(number, handler)


@contextmanager
def _torch_kept() -> Iterator[None]:
    settings = [(write, read, read()) for read, write in _SETTINGS]
    generators = [(write, read()) for read, write in _GENERATORS]
    device, products = _default_device(), _product_precisions()
    try:
        yield
    finally:
        if _default_device() != device:
            _set_default_device(device)
        for write, read, value in settings:
            if read() != value:
                write(value)
        for write, value in generators:
            write(value)
        if _product_precisions() != products:
            overall, rounded, each = products
            if overall:
                torch.set_float32_matmul_precision(overall)
            if rounded is not None:
                torch.backends.cudnn.allow_tf32 = rounded
            for place, value in each.items():
                torch._C._set_fp32_precision_setter(*place, value)


def _product_precisions() -> tuple[str | None, bool | None, dict[tuple[str, str], str]]:
    """Returns torch's precision of matrix products, whether cuDNN rounds to TF32, and the precisions of single kinds.

    The first two are None where torch has no answer because those of single kinds contradict it.
    """
    each = {place: _answer(torch._C._get_fp32_precision_getter, *place) for place in _PRECISIONS}
    known = {place: value for place, value in each.items() if value is not None}
    return _answer(torch.get_float32_matmul_precision), _answer(lambda: torch.backends.cudnn.allow_tf32), known


def _answer(question: Callable[..., Any], *given: str) -> Any:
    """Returns what torch answers; None where it has no answer."""
    try:
        return question(*given)
    except RuntimeError:
        return None


def _default_device() -> torch.device | None:
    """Returns what `torch.set_default_device` has set, whatever device contexts there are."""
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return context.device if context else None


def _set_default_device(device: torch.device | None) -> None:
    """As torch's own, within a device context too: torch 2.8 takes a default back only where nothing lies above it."""
    above = [_pop_mode() for _ in range(_len_torch_function_stack() - 1)]
    try:
        torch.set_default_device(device)
    finally:
        for mode in reversed(above):
            _push_mode(mode)


def run_file(path: Path, function: str, pick: Callable[..., str], arguments: dict[str, Any]) -> Any:
    """Returns what a function of a file returns for `arguments`, run with none on its command line.

    The file may import what lies beside it, relatively too: the folders with an `__init__.py` around it are its
    packages. What it imported from there is forgotten, because another folder may have modules of the same names.
    Where one that it ran registered operators with torch, all are kept and not run again as long as they are what they
    were: to register an operator again would destroy the one that models built before hold. `pick` chooses among the
    functions that there are, by their names.
    """
    given, path = path, path.resolve()
    packages = _packages(path.parent)
    places = [str(path.parent), str(packages[0].parent)]
    known, operators = set(sys.modules), _operators()
    kept = _KEPT.pop(path.parent, None)
    with state_kept():
        sys.path[:0] = places
        sys.argv = [str(path)]
        try:
            if kept and kept.is_current():
                sys.modules |= kept.modules
            name = PACKAGE
            for folder in packages:
                name = PACKAGE if folder == packages[0] else f"{name}.{folder.name}"
                _run_package(name, folder)
            module = _load(f"{name}.{path.stem}", path)
            functions = {key: value for key, value in vars(module).items() if key[0] != "_" and callable(value)}
            found = functions[pick(function, functions)]
            if isinstance(found, nn.Module):
                raise InputError(
                    f"function of {given}: {function} is a {type(found).__name__}; allowed: a function that returns it"
                )
            return found(**arguments)
        finally:
            for place in places:
                sys.path.remove(place)
            own = [each for each in set(sys.modules) - known if _is_of_file(each, packages[0])]
            modules = {each: sys.modules.pop(each) for each in own}
            if kept or operators != _operators():
                _KEPT[path.parent] = _Kept(modules)


class _Kept:
    """Modules of a user's folder, as they were run."""

    def __init__(self, modules: dict[str, ModuleType]) -> None:
        self.modules = modules
        files = {Path(file) for module in modules.values() if (file := getattr(module, "__file__", None))}
        self.digests = {file: file_digest(file) for file in files}

    def is_current(self) -> bool:
        """Whether all their files are what they were."""
        return all(file.is_file() and file_digest(file) == digest for file, digest in self.digests.items())


_KEPT: dict[Path, _Kept] = {}
"""By folder, what registered operators with torch there, and what ran beside it."""


def _operators() -> tuple[set[str], dict[str, Any]]:
    """Returns the names of the operators that torch has registered, and what holds those of functions."""
    return set(library._defs), dict(OPDEF_TO_LIB)


def _is_of_file(module: str, folder: Path) -> bool:
    """Whether an imported module is a user's file, a package around it or from the outermost of these, `folder`."""
    return module.partition(".")[0] == PACKAGE or is_neighbour(module, folder)


def _packages(folder: Path) -> list[Path]:
    """Returns the folders of packages around a file, the outermost first: at least its own."""
    packages = [folder]
    while (packages[0] / "__init__.py").is_file() and (packages[0].parent / "__init__.py").is_file():
        packages.insert(0, packages[0].parent)
    return packages


def _run_package(name: str, folder: Path) -> None:
    start = folder / "__init__.py"
    if name in sys.modules:
        return
    if start.is_file():
        _load(name, start, [str(folder)])
    else:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package


def _load(name: str, path: Path, places: list[str] | None = None) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=places)
    if spec is None or spec.loader is None:
        raise refuse("model", str(path), "a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look their annotations up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns a model without what compiles it or shares it among devices: cells have conditions for that."""
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module  # type: ignore[assignment]
    model._compiled_call_impl = None
    for name, child in list(model.named_children()):
        if (plain := unwrapped(child)) is not child:
            setattr(model, name, plain)
    return model


def answering_logits(model: nn.Module) -> nn.Module:
    """Returns the model, which from now on answers with what `logits_of` finds in its answers, where it finds any."""
    model.register_forward_hook(_take_logits)
    return model


def _take_logits(model: nn.Module, images: Any, answer: Any) -> Tensor | None:
    return logits_of(answer)  # None leaves the answer as it is


def logits_of(answer: Any) -> Tensor | None:
    """Returns the logits in what a model answers; None where there are none.

    They are the answer itself; its `.logits`; in a dict `logits`, else `out`, else the only tensor; of a tuple or list
    the first, for what follows is auxiliary.
    """
    if isinstance(answer, Tensor):
        return answer
    if isinstance(getattr(answer, "logits", None), Tensor):
        return answer.logits
    if isinstance(answer, Mapping):
        tensors = {name: value for name, value in answer.items() if isinstance(value, Tensor)}
        only = next(iter(tensors.values())) if len(tensors) == 1 else None
        return tensors.get("logits", tensors.get("out", only))
    if isinstance(answer, tuple | list) and answer:
        return logits_of(answer[0])
    return None


def unregistered_tensors(model: nn.Module) -> list[Tensor]:
    """Returns the tensors that modules keep beside their parameters and buffers."""
    own = [
        value
        for module in model.modules()
        for name, value in vars(module).items()
        if name not in ("_parameters", "_buffers", "_modules") and isinstance(value, Tensor | list | tuple | dict)
    ]
    return [leaf for leaf in tree_leaves(own) if isinstance(leaf, Tensor) and not isinstance(leaf, nn.Parameter)]
