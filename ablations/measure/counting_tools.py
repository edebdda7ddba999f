"""Other people's counters of FLOPs and MACs, each called as its front page says, and nets of one layer to try them on.

They agree neither in the unit nor in what they count: torch counts FLOPs, two a MAC; fvcore and thop say FLOPs and
count MACs; ptflops, calflops (of two numbers, the one here) and torchinfo say MACs or multiply-adds.
"""

import copy
import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablations.cells import Cell
from ablations.measure.counters import Tool
from ablations.measure.macs import copy_to_meta
from ablations.measure.network import build_network_on, input_shape
from ablations.model.attention import explicit_attention


def _count_with_torch(model: nn.Module, images: Tensor) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops() / 2


def _count_with_fvcore(model: nn.Module, images: Tensor) -> float:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, images)
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


def _count_with_ptflops(model: nn.Module, images: Tensor, backend: str = "pytorch") -> float:
    from ptflops import get_model_complexity_info

    size = tuple(images.shape[1:])
    macs, _ = get_model_complexity_info(
        model, size, as_strings=False, print_per_layer_stat=False, verbose=False, backend=backend
    )
    if macs is None:
        raise RuntimeError("ptflops has printed an error and counts nothing")
    return float(macs)


def _count_with_thop(model: nn.Module, images: Tensor) -> float:
    from thop import profile

    return profile(model, (images,), verbose=False)[0]


def _count_with_calflops(model: nn.Module, images: Tensor) -> float:
    from calflops import calculate_flops

    _, macs, _ = calculate_flops(model, args=[images], print_results=False, output_as_string=False)
    return macs


def _count_with_torchinfo(model: nn.Module, images: Tensor) -> float:
    from torchinfo import summary

    return summary(model, input_data=images, verbose=0).total_mult_adds


COUNT: dict[Tool, Callable[[nn.Module, Tensor], float]] = {
    "torch-meta": lambda model, images: _count_with_torch(copy_to_meta(model), images.to("meta")),
    "torch": _count_with_torch,
    "fvcore": _count_with_fvcore,
    "ptflops": _count_with_ptflops,
    "ptflops-aten": partial(_count_with_ptflops, backend="aten"),
    "thop": _count_with_thop,
    "calflops": _count_with_calflops,
    "torchinfo": _count_with_torchinfo,
}


def count_with_tool(tool: Tool, model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Returns the MACs that a tool counts of a copy of `model` in evaluation mode on a float32 input of `input_shape`.

    What it prints and warns of is dropped. A tool may leave functions of torch replaced, so call this in a process of
    its own.
    """
    twin = copy.deepcopy(model).eval()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        return round(COUNT[tool](twin, torch.zeros(input_shape)))


class LayerNet(nn.Module):
    """A net of one layer, its input's shape, and what a count is divided by: its MACs, or values where it has none.

    Values are those that come out; of a pool, those that go in.
    """

    def __init__(self, layer: Callable[[Tensor], Tensor], input_shape: tuple[int, ...], amount: int) -> None:
        super().__init__()
        self.layer, self.input_shape, self.amount = layer, input_shape, amount
        self.unused = nn.Parameter(torch.zeros(1))  # some tools take no net without a parameter

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


TOKENS = (1, 2, 49, 8)
"""Images, heads, tokens, channels of a head."""


def layer_nets() -> dict[str, LayerNet]:
    """Returns the nets by what their layer is, those with MACs first; a bias is beside a layer that is counted."""
    heads, tokens, channels = TOKENS[1:]
    products = 2 * heads * tokens**2 * channels
    maps, sequence = (1, channels, 14, 14), (1, tokens, channels)
    values = prod(sequence)
    return {
        "convolution": LayerNet(nn.Conv2d(channels, 16, 3, padding=1, bias=False), maps, 14**2 * 16 * channels * 9),
        "depth-wise convolution": LayerNet(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False), maps, 14**2 * channels * 9
        ),
        "linear layer": LayerNet(nn.Linear(channels, 16, bias=False), sequence, tokens * channels * 16),
        "fused attention": LayerNet(lambda x: F.scaled_dot_product_attention(x, x, x), TOKENS, products),
        "explicit attention": LayerNet(lambda x: explicit_attention(x, x, x), TOKENS, products),
        "bias": LayerNet(nn.Linear(channels, 16), sequence, tokens * 16),
        "layer norm": LayerNet(nn.LayerNorm(channels), sequence, values),
        "GELU": LayerNet(nn.GELU(), sequence, values),
        "ReLU": LayerNet(nn.ReLU(), sequence, values),
        "adaptive pool": LayerNet(nn.AdaptiveAvgPool2d(7), maps, prod(maps)),
        "mean": LayerNet(lambda x: x.mean(1), sequence, values),
        "addition": LayerNet(lambda x: x + x, sequence, values),
        "bilinear interpolation": LayerNet(lambda x: F.interpolate(x, (7, 7), mode="bilinear"), maps, channels * 7**2),
    }


def count_cell(cell: Cell) -> dict[str, Any]:
    """Returns what a cell's tool counts of its model and of nets of one layer: a MAC, or a value where one has none.

    1 is the true count of the nets in WITH_MACS, and 0 of the others.
    """
    tool = cell.conditions.tool
    macs = count_with_tool(tool, build_network_on("cpu", cell), input_shape(cell))
    layers = {name: count_with_tool(tool, net, net.input_shape) / net.amount for name, net in layer_nets().items()}
    layers["bias"] -= layers["linear layer"] * TOKENS[-1]
    return {"macs_counted": macs, "counted_of_layers": layers}
