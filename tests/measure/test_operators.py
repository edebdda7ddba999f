"""Operators of small steps: what each is, what it takes at least, and how long it took, worked out by hand."""

import gc
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, library, nn

from ablations.config import build_config
from ablations.errors import InputError
from ablations.measure import operators
from ablations.measure.kinds import kind_of
from ablations.measure.operators import count_roofline, measure_operators
from ablations.measure.step import build_step
from ablations.model import build_model

FLOAT = 4  # bytes


def floors_of(step: Any, macs_per_s: float = 1.0, bytes_per_s: float = 1.0) -> dict[str, dict[str, Any]]:
    counted = count_roofline(step, macs_per_s=macs_per_s, bytes_per_s={1: bytes_per_s})
    assert counted["uncounted"] == []
    return {row["kind"]: row for row in counted["roofline"]}


@pytest.mark.parametrize(
    ("operator", "shapes", "kind"),
    [
        ("addmm", [[4], [5, 6], [6, 4]], "matrix products"),
        ("bmm", [], "matrix products"),  # explicit attention's too
        ("mkldnn_convolution", [[2, 8, 5, 5], [16, 8, 3, 3], [16]], "convolutions"),
        ("mkldnn_convolution", [[2, 8, 5, 5], [8, 1, 3, 3], [8]], "depth-wise convolutions"),
        ("convolution", [[2, 1, 5, 5], [8, 1, 3, 3], [8]], "convolutions"),  # of grey images
        ("convolution_backward", [[2, 8, 5, 5], [2, 8, 5, 5], [8, 1, 3, 3]], "depth-wise convolutions"),
        ("convolution_backward", [[2, 16, 5, 5], [2, 8, 5, 5], [16, 8, 3, 3]], "convolutions"),
        ("cudnn_convolution", [], "convolutions"),
        ("_scaled_dot_product_efficient_attention_backward", [], "attention"),
        ("_softmax", [], "attention"),
        ("_log_softmax", [], "other"),  # the loss
        ("native_layer_norm_backward", [], "normalisation"),
        ("gelu_backward", [], "activations"),
        ("add_", [], "additions and sums"),
        ("copy_", [], "copies"),
        ("_fused_adamw_", [], "optimizer"),
        ("view", [], "other"),
        ("nobody_knows", [], "other"),
    ],
)
def test_kinds(operator: str, shapes: list[list[int]], kind: str) -> None:
    assert kind_of(operator, shapes) == kind


class Small(nn.Module):
    """A depth-wise convolution, a GELU and a linear layer on images (2, 3, 4, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.activation = nn.GELU()
        self.linear = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.activation(self.convolution(x)))


VALUES = 2 * 3 * 4 * 6
DEPTH_WISE = 9 * VALUES
LINEAR = 5 * VALUES


def infer(model: nn.Module, *inputs: Tensor) -> Any:
    def step() -> None:
        with torch.inference_mode():
            model(*inputs)

    return step


def test_macs_bytes_and_bounds_of_a_forward_pass() -> None:
    model, images = Small(), torch.randn(2, 3, 4, 6)
    moved = {
        "matrix products": FLOAT * (VALUES + 6 * 5 + 5 + LINEAR // 6),
        "depth-wise convolutions": FLOAT * (VALUES + 3 * 9 + 3 + VALUES),
        "activations": FLOAT * 2 * VALUES,
    }
    macs = {"matrix products": LINEAR, "depth-wise convolutions": DEPTH_WISE, "activations": 0}
    found = floors_of(infer(model, images), macs_per_s=10.0, bytes_per_s=100.0)
    assert {kind: (row["calls"], row["macs"], row["bytes"]) for kind, row in found.items()} == {
        kind: (1, macs[kind], moved[kind]) for kind in moved
    }
    # 72 and 130 s of MACs beside 12 s of bytes; the activation has bytes alone.
    assert found["matrix products"]["bound_s"] == pytest.approx(LINEAR / 10)
    assert found["depth-wise convolutions"]["bound_s"] == pytest.approx(DEPTH_WISE / 10)
    assert found["activations"]["bound_s"] == pytest.approx(moved["activations"] / 100)
    slow_memory = floors_of(infer(model, images), macs_per_s=1e9, bytes_per_s=2.0)
    assert {kind: row["bound_s"] for kind, row in slow_memory.items()} == {kind: moved[kind] / 2 for kind in moved}


def test_the_larger_of_the_two_counts_for_each_call() -> None:
    long, square = torch.randn(1, 100), torch.randn(10, 10)

    def step() -> None:
        torch.mm(square, square)  # 1,000 MACs, 1,200 bytes
        torch.mm(long, long.T)  # 100 MACs, 804 bytes

    row = floors_of(step, macs_per_s=1.0, bytes_per_s=2.0)["matrix products"]
    assert (row["calls"], row["macs"], row["bytes"]) == (2, 1100, FLOAT * (3 * 100 + 2 * 100 + 1))
    assert row["bound_s"] == pytest.approx(1000 + 402)


@pytest.mark.parametrize(("values", "seconds"), [(5, 2.0), (10, 4.0), (12, 4.8), (13, 10.4), (1000, 800.0)])
def test_bytes_move_at_the_rate_of_the_largest_copy_that_moves_no_more(values: int, seconds: float) -> None:
    x = torch.ones(values)  # a copy of it moves 8 bytes a value
    counted = count_roofline(x.clone, macs_per_s=1.0, bytes_per_s={104: 10.0, 80: 20.0})
    assert [row["bound_s"] for row in counted["roofline"]] == [seconds]


@pytest.mark.parametrize("input_has_gradient", [False, True])
def test_macs_of_a_backward_pass(input_has_gradient: bool) -> None:
    model = Small()
    images = torch.randn(2, 3, 4, 6, requires_grad=input_has_gradient)
    found = floors_of(lambda: model(images).sum().backward())
    assert found["matrix products"]["macs"] == 3 * LINEAR
    assert found["depth-wise convolutions"]["macs"] == (2 + input_has_gradient) * DEPTH_WISE
    assert found["activations"]["calls"] == 2


def test_a_whole_convolution_has_its_channels() -> None:
    convolution, images = nn.Conv2d(3, 8, 2, stride=2), torch.randn(2, 3, 4, 6, requires_grad=True)
    found = floors_of(lambda: convolution(images).sum().backward())
    assert found["convolutions"]["macs"] == 3 * (2 * 8 * 2 * 3) * (3 * 2 * 2)


@pytest.mark.parametrize("backward", [False, True])
def test_fused_attention_multiplies_twice_forward_and_five_times_backward(backward: bool) -> None:
    query = torch.randn(1, 2, 3, 4, requires_grad=backward)
    key, value = torch.randn(2, 1, 2, 5, 4, requires_grad=backward).unbind()

    def step() -> None:
        out = F.scaled_dot_product_attention(query, key, value)
        if backward:
            out.sum().backward()

    assert floors_of(step)["attention"]["macs"] == 2 * 3 * 5 * 4 * (2 + 5 * backward)


def test_explicit_attention_is_matrix_products_and_a_softmax() -> None:
    query, key = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    found = floors_of(lambda: (query @ key.mT).softmax(-1) @ key)
    assert found["matrix products"]["macs"] == 2 * 2 * 3 * 5 * 4
    assert (found["attention"]["macs"], found["attention"]["bytes"]) == (0, FLOAT * 2 * (2 * 3 * 5))


ROW, TABLE = torch.ones(4), torch.ones(1000, 4)


@pytest.mark.parametrize(
    ("step", "values"),
    [
        (lambda: TABLE.view(-1).unflatten(0, (4, 1000)).T.expand(2, 1000, 4), 0),
        (lambda: torch.empty(1000), 0),
        (lambda: TABLE + ROW.expand(1000, 4), 4000 + 4 + 4000),  # the row lies there once
        (lambda: TABLE.clone().add_(ROW), 2 * 4000 + 4000 + 4 + 4000),
        (lambda: torch.empty(1000, 4).copy_(TABLE), 2 * 4000),
        (lambda: torch.empty(1000, 4).zero_(), 4000),
        (lambda: torch.ones_like(TABLE), 4000),
        (lambda: torch.cat([TABLE, TABLE]), 2 * 8000),
        (lambda: torch.mul(TABLE, TABLE, out=torch.empty(1000, 4)), 3 * 4000),
    ],
    ids=["views", "empty", "expanded", "in place", "copy", "zeros", "like", "list", "out"],
)
def test_bytes_of_tensors_that_are_read_and_written(step: Any, values: int) -> None:
    assert sum(row["bytes"] for row in floors_of(step).values()) == FLOAT * values


def test_an_optimizer_reads_four_values_a_parameter_and_writes_three() -> None:
    parameter = nn.Parameter(torch.ones(10_000))
    optimizer = torch.optim.AdamW([parameter], fused=True)
    parameter.grad = torch.ones(10_000)
    optimizer.step()
    row = floors_of(optimizer.step)["optimizer"]
    assert 0 <= row["bytes"] - FLOAT * 7 * 10_000 < 100  # beside them the number of the step


@library.custom_op("example::double", mutates_args=())
def double(x: Tensor) -> Tensor:
    return x * 2


def test_an_unknown_operator_is_named_and_counts_with_its_bytes() -> None:
    x = torch.ones(10)
    counted = count_roofline(lambda: double(x).relu(), macs_per_s=1.0, bytes_per_s={1: 8.0})
    assert counted["uncounted"] == ["example::double"]
    rows = {row["kind"]: row for row in counted["roofline"]}
    assert rows["other"] == {"kind": "other", "calls": 1, "macs": 0, "bytes": 80, "bound_s": 10.0}
    assert rows["activations"]["bytes"] == 80


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("attention", ["fused", "explicit"])
@pytest.mark.parametrize("arm", ["v1", "v1+ope+cffn+lsra"])
def test_all_of_a_pvt_is_counted(arm: str, attention: str, mode: str) -> None:
    model = build_model(build_config("pico", arm, attention=attention))
    step = build_step(model, (1, 3, 32, 32), mode=mode, precision="bf16", device="cpu")
    found = floors_of(step)
    assert ("optimizer" in found) == (mode == "training")
    assert ("depth-wise convolutions" in found) == ("cffn" in arm)
    assert all(row["bytes"] > 0 for row in found.values())
    assert {kind for kind, row in found.items() if row["macs"]} >= {"matrix products", "convolutions"}


def event(name: str, microseconds: float, parent: Any = None, shapes: Any = ()) -> SimpleNamespace:
    return SimpleNamespace(
        name=name, self_cpu_time_total=microseconds, input_shapes=shapes, cpu_parent=parent, self_device_time_total=0
    )


def operators_of(step: Any, device: str = "cpu", repeats: int = 1) -> dict[str, Any]:
    return measure_operators({"only": step}, device, repeats)["only"]


def test_steps_are_profiled_interleaved_and_without_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def profile(step: Any, _: torch.device) -> tuple[list[SimpleNamespace], float]:
        seen.append(step())
        assert not gc.isenabled()
        return [event(f"aten::{seen[-1]}", 1e6 * len(seen))], 10.0

    monkeypatch.setattr(operators, "_profile", profile)
    measured = measure_operators({"ours": lambda: "mm", "theirs": lambda: "gelu"}, "cpu", repeats=3)
    assert seen == ["mm", "gelu"] * 3
    assert gc.isenabled()
    rows = {name: [(row["operator"], row["seconds"]) for row in each["operators"]] for name, each in measured.items()}
    assert rows == {"ours": [("mm", pytest.approx(3))], "theirs": [("gelu", pytest.approx(4))]}
    assert [each["step_overhead_s"] for each in measured.values()] == [pytest.approx(7), pytest.approx(6)]


def test_medians_of_the_steps_and_what_is_between_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    def profiled(slow: float) -> tuple[list[SimpleNamespace], float]:
        optimizer = event("Optimizer.step#AdamW.step", 5000)
        foreach = event("aten::_foreach_add_", 2, optimizer)
        events = [
            event("aten::addmm", 100 * slow),
            event("aten::addmm", 200 * slow),
            event("aten::mm", 400),
            event("aten::convolution_backward", 50, shapes=[[1, 8, 4, 4], [1, 8, 4, 4], [8, 1, 3, 3]]),
            event("aten::convolution_backward", 60, shapes=[[1, 8, 4, 4], [1, 4, 4, 4], [8, 4, 3, 3]]),
            event("autograd::engine::evaluate_function: AddmmBackward0", 70),
            optimizer,
            foreach,
            event("aten::add_", 3, foreach),
            event("aten::add_", 4),
            event("aten::detach", 0.0),
        ]
        return events, 1e-6 * (300 * slow + 519 + 1000 * slow)

    steps = iter([profiled(1.0), profiled(9.0), profiled(2.0)])
    monkeypatch.setattr(operators, "_profile", lambda step, place: next(steps))
    measured = operators_of(lambda: None, repeats=3)
    assert measured["step_overhead_s"] == pytest.approx(2000e-6)
    assert measured["step_overhead_samples"] == pytest.approx([1000e-6, 9000e-6, 2000e-6])
    assert measured["operators"][0]["samples"] == pytest.approx([300e-6, 2700e-6, 600e-6])
    rows = [(row["kind"], row["operator"], row["calls"], round(1e6 * row["seconds"])) for row in measured["operators"]]
    assert rows == [
        ("matrix products", "addmm", 2, 600),
        ("matrix products", "mm", 1, 400),
        ("convolutions", "convolution_backward", 1, 60),
        ("depth-wise convolutions", "convolution_backward", 1, 50),
        ("additions and sums", "add_", 1, 4),
        ("optimizer", "add_", 1, 3),
        ("optimizer", "_foreach_add_", 1, 2),
    ]


def test_an_operator_of_some_steps_counts_as_none_in_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([[event("aten::mm", 5), event("aten::mm", 5)], [event("aten::mm", 4), event("aten::add", 3)], []])
    monkeypatch.setattr(operators, "_profile", lambda step, place: (next(steps), 1.0))
    (row,) = operators_of(lambda: None, repeats=3)["operators"]
    assert (row["operator"], row["calls"], row["seconds"]) == ("mm", 2, pytest.approx(4e-6))
    assert row["samples"] == pytest.approx([10e-6, 4e-6, 0])


def test_a_real_step_has_its_operators() -> None:
    step = infer(Small(), torch.randn(2, 3, 4, 6))
    measured = operators_of(step, repeats=2)
    kinds = {row["operator"]: row["kind"] for row in measured["operators"]}
    assert kinds["addmm"] == "matrix products"
    assert kinds["gelu"] == "activations"
    assert kinds["convolution"] == "depth-wise convolutions"
    assert all(
        len(row["samples"]) == 2 and row["calls"] == 1 for row in measured["operators"] if row["kind"] != "other"
    )
    # What operators take of a step by themselves is never more than the step.
    assert measured["step_overhead_s"] > 0


def test_a_real_training_step_has_an_optimizer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(4 * 3 * 5, 2))
    step = build_step(model, (2, 3, 4, 6), mode="training", precision="float32", device="cpu")
    kinds = {row["operator"]: row["kind"] for row in operators_of(step)["operators"]}
    assert kinds["_fused_adamw_"] == "optimizer"
    assert kinds["convolution_backward"] == "convolutions"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_times_kernels() -> None:
    x = torch.randn(4096, 4096, device="cuda")
    (row,) = operators_of(lambda: x @ x, device="cuda", repeats=3)["operators"]
    assert (row["kind"], row["operator"], row["calls"]) == ("matrix products", "mm", 1)
    assert row["seconds"] > 0


def test_unknown_device_is_refused() -> None:
    with pytest.raises(InputError, match="device='tpu'"):
        measure_operators({}, "tpu")
