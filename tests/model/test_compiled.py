"""Cells are compiled independently: each for its own sizes alone, whatever was compiled before in the process."""

import shutil
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.debugging import aot_eager
from torch._functorch.aot_autograd import make_boxed_func

from ablations.cells import Cell, arm_cell
from ablations.config import build_config
from ablations.measure import Speed
from ablations.model import build_model
from ablations.model.compiled import compile_alone

SIDES = (32, 64)


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def take_training_step(model: nn.Module, side: int) -> None:
    model(torch.randn(2, 3, side, side)).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@pytest.fixture
def compiled_inputs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The inputs of every graph that is compiled; instead of a kernel each gets torch's own operators."""
    seen: list[Any] = []

    def note_inputs(graph: Any, inputs: list[Any]) -> Any:
        seen.extend(inputs)
        return aot_eager(graph, inputs)

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **how: compile_with(*args, backend=note_inputs, **how))
    return seen


def symbolic(inputs: list[Any]) -> bool:
    """Whether any input is a symbolic size, or a tensor that has one."""
    sizes = [size for each in inputs for size in (each.shape if isinstance(each, Tensor) else [each])]
    assert sizes
    return any(isinstance(size, torch.SymInt) for size in sizes)


def small_pvt(side: int) -> nn.Module:
    return build_model(build_config("pico", "v1+cffn+lsra", "v2", num_classes=10, img_size=side, depths=(1, 1, 1, 1)))


@pytest.mark.slow
def test_all_sizes_are_static_and_every_one_trains(compiled_inputs: list[Any]) -> None:
    for side in SIDES:
        compiled_inputs.clear()
        model = small_pvt(side)
        compile_alone(model)
        take_training_step(model, side)
        assert not symbolic(compiled_inputs)


@pytest.mark.slow
def test_left_alone_torch_takes_symbolic_sizes(compiled_inputs: list[Any]) -> None:
    model = small_pvt(SIDES[0])
    model.compile()
    found = []
    for side in SIDES:
        compiled_inputs.clear()
        take_training_step(model, side)
        found.append(symbolic(compiled_inputs))
    assert found == [False, True]


@pytest.fixture
def compiled_graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The text of every graph that is compiled, with its inputs' sizes, strides and types, and of its backward pass."""
    seen: list[str] = []

    def note(graph: Any, inputs: list[Any]) -> Any:
        tensors = [each for each in inputs if isinstance(each, Tensor)]
        seen.append(f"{graph.code}{[(each.shape, each.stride(), each.dtype) for each in tensors]}")
        return make_boxed_func(graph.forward)

    compile_with, backend = torch.compile, aot_autograd(fw_compiler=note, bw_compiler=note)
    monkeypatch.setattr(torch, "compile", lambda *args, **how: compile_with(*args, backend=backend, **how))
    return seen


def compiled_cell(arm: str, mode: Literal["inference", "training"], resolution: int, **more: Any) -> Cell:
    return arm_cell("pico", arm, "v2", Speed(mode=mode, resolution=resolution, batch_size=2, compiled=True, **more))


def take_steps(cell: Cell) -> None:
    """Takes the steps of a cell's models, interleaved as when they are timed."""
    own, others = cell.conditions._steps(cell)
    for _ in range(2):
        for step in (own, *others.values()):
            step()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_a_cell_compiles_the_same_graphs_whatever_was_compiled_before(
    compiled_graphs: list[str], mode: Literal["inference", "training"]
) -> None:
    cell = compiled_cell("v1+ope+cffn+lsra", mode, 64)
    take_steps(cell)
    alone = list(compiled_graphs)
    assert len(alone) == (2 if mode == "inference" else 4)  # its own and v1's, with their backward passes
    for before in (
        compiled_cell("v1+ope+cffn+lsra", mode, 32),
        compiled_cell("v1+ope+cffn+lsra", "inference", 96),
        compiled_cell("v1+cffn", "training", 64, precision="bf16"),
    ):
        take_steps(before)
        compiled_graphs.clear()
        take_steps(cell)
        assert compiled_graphs == alone


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler")
def test_kernels_of_the_second_size_train() -> None:
    for side in SIDES:
        model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.Flatten(2), nn.LayerNorm((side // 4) ** 2))
        images = torch.randn(2, 3, side, side)
        expected = model(images)
        compile_alone(model)
        torch.testing.assert_close(model(images), expected, atol=1e-4, rtol=1e-4)
        take_training_step(model, side)
