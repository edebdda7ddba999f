"""Traced MACs of nets so small that the answer stands in the test."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ablations.config import build_config
from ablations.measure.macs import FORMULAS, UncountedOperator, trace_macs
from ablations.model import build_model

aten = torch.ops.aten


class Apply(nn.Module):
    """A module that is one function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@torch.library.custom_op("ablations_test::mystery", mutates_args=())
def mystery(x: Tensor) -> Tensor:
    return x * x


mystery.register_fake(torch.empty_like)


@pytest.mark.parametrize(
    ("module", "input_shape", "expected"),
    [
        (nn.Linear(8, 16), (2, 5, 8), 2 * 5 * 8 * 16),
        (nn.Linear(8, 16, bias=False), (3, 8), 3 * 8 * 16),
        # 9 x 9 becomes 5 x 5; a window of 3 x 3 over 8 / 4 channels for each of 16.
        (nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4), (2, 8, 9, 9), 2 * 5 * 5 * 16 * 9 * 2),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (1, 8, 4, 6), 4 * 6 * 8 * 9),
        # Every one of 3 x 3 inputs goes to 2 x 2 outputs.
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 3, 3), 3 * 3 * 4 * 6 * 4),
        (Apply(lambda x: x @ x.transpose(-2, -1)), (2, 3, 5, 7), 2 * 3 * 5 * 7 * 5),
        (Apply(lambda x: torch.einsum("bnc,bmc->bnm", x, x)), (2, 5, 7), 2 * 5 * 7 * 5),
        # 5 queries of width 8, the first 3 tokens as keys and as values: two products.
        (
            Apply(lambda x: F.scaled_dot_product_attention(x, x[:, :, :3], x[:, :, :3])),
            (2, 4, 5, 8),
            2 * 2 * 4 * 5 * 3 * 8,
        ),
        (nn.Sequential(nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.GELU(), nn.Flatten(), nn.Softmax(1)), (1, 3, 8, 8), 0),
        (Apply(lambda x: F.interpolate(F.adaptive_avg_pool2d(x, 3), (5, 5), mode="bilinear").mean()), (1, 3, 8, 8), 0),
        (Apply(lambda x: F.pad(x, (1, 1)).relu_().zero_()), (1, 3, 8, 8), 0),
    ],
)
def test_one_layer(module: nn.Module, input_shape: tuple[int, ...], expected: int) -> None:
    assert trace_macs(module, input_shape).total == expected


@pytest.mark.parametrize(
    "kernel",
    [
        lambda q, k, v: aten._scaled_dot_product_flash_attention_for_cpu(q, k, v),
        lambda q, k, v: aten._scaled_dot_product_flash_attention(q, k, v),
        lambda q, k, v: aten._scaled_dot_product_efficient_attention(q, k, v, None, False),
        lambda q, k, v: aten._scaled_dot_product_cudnn_attention(q, k, v, None, False),
        lambda q, k, v: aten._scaled_dot_product_attention_math(q, k, v),
    ],
    ids=["cpu", "flash", "efficient", "cudnn", "math"],
)
def test_every_attention_kernel_counts_the_same(kernel: Callable[..., tuple]) -> None:
    module = Apply(lambda x: kernel(x, x[:, :, :3], x[:, :, :3])[0])
    assert trace_macs(module, (2, 4, 5, 8)).total == 2 * 2 * 4 * 5 * 3 * 8


def test_formulas_hold_for_the_attention_that_really_runs_on_the_cpu() -> None:
    q, kv = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 3, 8)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        F.scaled_dot_product_attention(q, kv, kv)
    assert counter.get_total_flops() == 2 * (2 * 2 * 4 * 5 * 3 * 8)


def test_unknown_operator_is_an_error_that_names_it() -> None:
    with pytest.raises(UncountedOperator, match=r"ablations_test\.mystery"):
        trace_macs(nn.Sequential(nn.Linear(4, 4), Apply(lambda x: mystery(x))), (1, 4))


def test_work_belongs_to_the_module_that_does_it() -> None:
    shared = nn.Linear(4, 4)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([shared, nn.Sequential(nn.ReLU(), shared)])
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return self.head(x @ x.T @ x)

    traced = trace_macs(Net(), (3, 4))
    # The shared layer runs twice and is counted where `named_modules` has it; the two products are the root's own.
    assert traced.by_module == {"layers.0": 2 * 3 * 4 * 4, "": 2 * 3 * 4 * 3, "head": 3 * 4 * 2}
    assert traced.total == sum(traced.by_module.values())


def test_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    before = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    trace_macs(model, (2, 4))
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is tensor and tensor.equal(values) for name, (tensor, values) in before.items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("attention", ["fused", "explicit"])
@pytest.mark.parametrize("arm", ["v1", "v1+ope+cffn", "v1+ope+cffn+lsra"])
def test_pvt_module_by_module(arm: str, attention: str) -> None:
    model = build_model(build_config("pico", arm, attention=attention)).eval()
    expected: dict[str, int] = {}

    def count(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            # A weight's row meets the input once for every number that comes out.
            expected[path] = output.numel() * module.weight[0].numel()
            if path.endswith("attn.kv"):
                attention_path = path.removesuffix(".kv")
                queries = expected[f"{attention_path}.q"] // module.in_features
                # Every query number meets every key, and every value as well.
                expected[attention_path] = 2 * queries * output.shape[1]

        return hook

    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    hooks = [module.register_forward_hook(count(path)) for path, module in layers]
    with torch.no_grad():
        model(torch.randn(1, 3, 40, 32))
    for hook in hooks:
        hook.remove()
    assert trace_macs(model, (1, 3, 40, 32)).by_module == expected
    assert trace_macs(model, (2, 3, 40, 32)).total == 2 * sum(expected.values())


def test_shapes_that_depend_on_numbers_are_never_taken_from_memory() -> None:
    few, many = torch.tensor([True, False, False, False]), torch.tensor([True, True, True, False])

    def product(x: Tensor) -> Tensor:
        return x[: len(few[few])] @ x[: len(few[few])].T

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x[: int(few.sum())], x[: int(many.sum())]
        assert (few[few].shape, many[many].shape) == ((1,), (3,))
        return a @ a.T, b @ b.T

    assert trace_macs(Apply(product), (4, 4)).total == 4
    assert trace_macs(Apply(both), (4, 4)).total == 1 * 1 * 4 + 3 * 3 * 4


def test_work_after_an_exception_that_the_model_catches_is_its_own() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fails = Fails()

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.fails(x)
            except ValueError:
                return x @ x

    assert trace_macs(Net(), (4, 4)).by_module == {"": 4 * 4 * 4}


def test_work_by_operator_and_values_of_other_layers() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5)
    )
    traced = trace_macs(net, (2, 3, 4, 4))
    assert traced.by_operator == {"convolution": 2 * 16 * 3 * 4, "addmm": 2 * 16 * 5}
    assert traced.other_values == {"batch_norm": 2 * 4 * 16, "relu": 2 * 4 * 16, "pool": 2 * 4 * 16}


class Odd(nn.Module):
    """A classifier by a convolution of 4 x 4 patches and a linear layer, with something odd between."""

    def __init__(self, between: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.patch, self.head, self.between = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 10), between
        self.kept, self.listed = torch.linspace(0, 1, 16), [torch.ones(16)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.between(self, self.patch(x).flatten(2).mT).mean(1))


def marked(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.profiler.record_function("here"):
        return x


ODD: dict[str, tuple[Callable, bool]] = {
    "made in forward": (lambda _, x: x + torch.arange(x.shape[1]).float()[None, :, None], False),
    "kept beside the buffers": (lambda net, x: x * net.kept + net.listed[0], False),
    "marked for the profiler": (marked, False),
    "asked for a number": (lambda _, x: x if x.sum().item() < 1e9 else 2 * x, True),
    "through NumPy": (lambda _, x: x + torch.from_numpy(x.numpy() * 0), True),
}


@pytest.mark.parametrize("name", ODD)
def test_what_does_not_run_on_shapes_is_counted_on_numbers_and_says_so(name: str) -> None:
    between, needs_numbers = ODD[name]
    traced = trace_macs(Odd(between), (1, 3, 64, 64))
    assert traced.total == 16 * 16 * 48 * 16 + 16 * 10
    assert traced.on_real_tensors == needs_numbers


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("normalise", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weight_norm_is_free(normalise: Callable[[nn.Module], nn.Module]) -> None:
    assert trace_macs(normalise(nn.Conv2d(3, 16, 4, 4)), (1, 3, 64, 64)).total == 16 * 16 * 48 * 16


def test_products_with_vectors_count() -> None:
    class Products(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            matrix, vector = x[0], x[0, 0]
            return matrix.mv(vector).sum() + vector.dot(vector) + torch.addmv(vector, matrix, vector).sum()

    assert trace_macs(Products(), (1, 5, 5)).total == 25 + 5 + 25
