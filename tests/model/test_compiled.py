"""Cells are compiled independently: each for its own sizes alone, whatever was compiled before in the process."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager

from ablations.config import build_config
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


@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler")
def test_kernels_of_the_second_size_train() -> None:
    for side in SIDES:
        model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.Flatten(2), nn.LayerNorm((side // 4) ** 2))
        images = torch.randn(2, 3, side, side)
        expected = model(images)
        compile_alone(model)
        torch.testing.assert_close(model(images), expected, atol=1e-4, rtol=1e-4)
        take_training_step(model, side)
