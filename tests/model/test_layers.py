from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ablations.model.layers import Linear

PRODUCTS = {"mm", "addmm", "add_"}


class OperatorLog(TorchDispatchMode):
    """Names the products and additions that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_the_librarys(bias: bool) -> None:
    own = Linear(5, 3, bias=bias)
    library = nn.Linear(5, 3, bias=bias)
    library.load_state_dict(own.state_dict())
    tokens = torch.randn(2, 7, 5)
    results = []
    for layer in (own, library):
        x = tokens.clone().requires_grad_()
        output = layer(x)
        output.square().sum().backward()
        results.append((output, x.grad, *(parameter.grad for parameter in layer.parameters())))
    torch.testing.assert_close(*results)
    assert len(results[0]) == (4 if bias else 3)


@pytest.mark.parametrize(
    ("dtype", "autocast", "device", "expected"),
    [
        (torch.float32, False, "cpu", ["mm", "add_"]),
        (torch.float64, False, "cpu", ["addmm"]),
        (torch.bfloat16, False, "cpu", ["addmm"]),
        (torch.float32, True, "cpu", ["addmm"]),
        (torch.float32, False, "meta", ["addmm"]),
    ],
)
def test_the_bias_comes_after_the_product_only_in_float32_on_a_cpu(dtype, autocast, device, expected) -> None:
    layer = Linear(4, 8, dtype=dtype, device=device)
    x = torch.randn(2, 6, 4, dtype=dtype, device=device, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext(), OperatorLog() as log:
        layer(x)
    assert log.names == expected
