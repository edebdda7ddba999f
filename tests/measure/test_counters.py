"""What other people's tools count: of nets of one layer, of whole arms, and where a tool is missing or fails."""

import sys
from dataclasses import replace
from typing import Any

import pytest

from ablations.cells import Cell, arm_cell
from ablations.errors import InputError
from ablations.measure import Counters, counters
from ablations.measure.counters import TOOLS, WITH_MACS
from ablations.measure.counting_tools import COUNT, layer_nets
from ablations.measure.macs import trace_macs
from ablations.measure.measurement import Setting
from ablations.measure.network import input_shape, meta_network

CELL = arm_cell("pico", "v1+ope+cffn+lsra", "v2", Counters(resolution=64))

ALL_PRODUCTS = {"convolution": 1, "depth-wise convolution": 1, "linear layer": 1}
EXPLICIT = {"explicit attention": 1}
LAYERS: dict[str, dict[str, float]] = {
    "torch-meta": {**ALL_PRODUCTS, **EXPLICIT, "fused attention": 1},
    "torch": {**ALL_PRODUCTS, **EXPLICIT},
    "fvcore": {**ALL_PRODUCTS, **EXPLICIT, "layer norm": 5, "adaptive pool": 1, "bilinear interpolation": 4},
    "ptflops": {
        **ALL_PRODUCTS,
        **{"bias": 1, "layer norm": 1, "bilinear interpolation": 1},
        # It has both a hook on the module and one on the function that the module calls.
        **{"GELU": 2, "ReLU": 2, "adaptive pool": 2},
    },
    "ptflops-aten": {**ALL_PRODUCTS, **EXPLICIT, "bias": 1},
    # A pool of kernel 2 x 2: five operations for each of the values that come out, a fourth of those that go in.
    "thop": {**ALL_PRODUCTS, "layer norm": 4, "adaptive pool": 5 / 4},
    "calflops": ALL_PRODUCTS,
    # It multiplies the parameters of layers that are no convolutions by the images alone, not by the 49 tokens.
    "torchinfo": {
        **{"convolution": 1, "depth-wise convolution": 1},
        **{"linear layer": 1 / 49, "bias": 1 / 49, "layer norm": 2 / 49},
    },
}
"""What each tool of the pinned versions counts of nets of one layer, where that is not nothing."""


def measure(cell: Cell) -> dict[str, Any]:
    return cell.conditions.run(cell, Setting())


@pytest.fixture(scope="module", params=TOOLS)
def counted(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A tool, and what it counts of an arm with fused and with explicit attention."""
    cell = replace(CELL, conditions=replace(CELL.conditions, tool=request.param))
    return request.param, measure(cell), measure(cell.of(overrides=(("attention", "explicit"),)))


def test_every_tool_has_a_way_to_count():
    assert tuple(COUNT) == TOOLS
    assert set(LAYERS) == set(TOOLS)


def test_layers_with_macs_are_those_that_the_trace_counts():
    for name, net in layer_nets().items():
        traced = trace_macs(net, net.input_shape).total
        if name in WITH_MACS:
            assert traced == net.amount, name
        elif name != "bias":
            assert traced == 0, name


@pytest.mark.slow
def test_of_one_layer_each_tool_counts_what_it_counts(counted):
    tool, fused, _ = counted
    layers = fused["counted_of_layers"]
    assert layers == pytest.approx(dict.fromkeys(layers, 0.0) | LAYERS[tool], abs=1e-9)


def test_what_it_counts_of_layers_gives_what_it_counts_of_an_arm(counted):
    tool, *both = counted
    if tool == "torchinfo":  # what it leaves out of a linear layer is another share for another number of tokens
        assert all(result["macs_counted"] < 0.8 * result["macs"] for result in both)
        return
    for kernel, result in zip(("fused", "explicit"), both, strict=True):
        explained = explain(result["counted_of_layers"], kernel)
        assert result["macs_counted"] == pytest.approx(explained, rel=1e-3), kernel
        assert result["macs"] == trace_macs(meta_network(CELL), input_shape(CELL)).total


def explain(layers: dict[str, float], kernel: str) -> float:
    """The count of CELL that a tool's counts of single layers give."""
    network, shape = meta_network(CELL), input_shape(CELL)
    traced = trace_macs(network, shape)
    convolutions = traced.by_operator["convolution"]
    linear = sum(count for name, count in traced.by_operator.items() if name in ("addmm", "mm"))
    attention = traced.total - convolutions - linear
    amounts = {
        "convolution": convolutions,
        "linear layer": linear,
        f"{kernel} attention": attention,
        "bias": count_values_with_bias(network, shape),
        "layer norm": traced.other_values["layer_norm"],
        "GELU": traced.other_values["activation"],
        "ReLU": traced.other_values.get("relu", 0),
        "adaptive pool": traced.other_values["pool"],
    }
    return sum(layers[name] * amount for name, amount in amounts.items())


def count_values_with_bias(network: Any, shape: tuple[int, ...]) -> int:
    import torch
    from torch import nn

    sizes: list[int] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None
    ]
    network(torch.zeros(shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return sum(sizes)


def test_a_tool_leaves_this_process_as_it_was():
    import torch.nn.functional as functional

    before = functional.linear, functional.gelu
    measure(replace(CELL, conditions=replace(CELL.conditions, tool="ptflops")))
    assert (functional.linear, functional.gelu) == before
    assert "ptflops" not in sys.modules


def test_a_tool_that_is_not_installed_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(counters, "find_spec", lambda name: None if name == "thop" else object())
    cell = replace(CELL, conditions=replace(CELL.conditions, tool="thop"))
    Counters.check_needs([CELL], Setting())
    with pytest.raises(InputError, match=r"^tool='thop' is not possible; allowed: one that is installed; `pip install"):
        Counters.check_needs([CELL, cell], Setting())
