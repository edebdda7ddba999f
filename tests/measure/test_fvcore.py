"""Three counts of MACs: closed form, traced, and fvcore's; and what fvcore's says beside."""

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablations.config import ARMS, BASES, VARIANTS, Size, as_pair, build_config
from ablations.cost import count_macs, module_costs
from ablations.errors import InputError
from ablations.measure import fvcore_count
from ablations.measure.fvcore_count import FREE, FvcoreCount, count_with_fvcore
from ablations.measure.macs import UncountedOperator, trace_macs
from ablations.model import PVT, build_model

aten = torch.ops.aten

ROOT = Path(__file__).parents[2]

SIZES: tuple[Size, ...] = (224, (256, 320), (333, 200), (800, 1280), 1024)
CELLS = tuple(product(BASES, ARMS, SIZES))


class Apply(nn.Module):
    """A module that is one function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class SelfAttention(nn.Module):
    """torch's own, of 8 channels in 2 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@torch.library.custom_op("ablations_test::enigma", mutates_args=())
def enigma(x: Tensor) -> Tensor:
    return x * x


enigma.register_fake(torch.empty_like)


def build_on_meta(variant: str, arm: str, base: str, **overrides: object) -> PVT:
    with torch.device("meta"):
        return build_model(build_config(variant, arm, base, **overrides))


def input_shape(size: Size) -> tuple[int, ...]:
    return (1, 3, *as_pair(size))


def closed_form(model: PVT, size: Size) -> dict[str, int]:
    """The MACs of `ablations.cost`, under fvcore's names for the operators."""
    counts = {"conv": 0, "linear": 0, "attention": 0}
    for row in module_costs(model.config, size):
        convolution = row.name.endswith(("patch_embed.proj", "attn.sr", "mlp.dwconv"))
        counts["conv" if convolution else "attention" if row.name.endswith(".attn") else "linear"] += row.macs
    return counts


def assert_three_counts_agree(variant: str, cells: Sequence[tuple[str, str, Size]], **overrides: object) -> None:
    models: dict[tuple[str, str], PVT] = {}
    for base, arm, size in cells:
        if (base, arm) not in models:
            models[base, arm] = build_on_meta(variant, arm, base, **overrides)
        model = models[base, arm]
        counted = count_with_fvcore(model, input_shape(size)).products
        traced = trace_macs(model, input_shape(size))
        cell = (variant, arm, base, size)
        assert (cell, counted) == (cell, closed_form(model, size))
        assert (cell, traced.by_operator["convolution"]) == (cell, counted["conv"])
        assert (cell, traced.total) == (cell, sum(counted.values()))
        assert (cell, traced.total) == (cell, count_macs(model.config, size))


PART = CELLS[::3]


def test_every_two_of_base_arm_and_size_meet_in_a_part() -> None:
    assert {cell[:2] for cell in PART} == set(product(BASES, ARMS))
    assert {cell[1:] for cell in PART} == set(product(ARMS, SIZES))
    assert {(base, size) for base, _, size in PART} == set(product(BASES, SIZES))


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_three_counts_agree(base: str) -> None:
    assert_three_counts_agree("pico", [cell for cell in PART if cell[0] == base])


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_three_counts_agree_everywhere(variant: str, base: str) -> None:
    """With two blocks a stage at most: the others equal the second. Base, arm and size decide which operators run."""
    depths = tuple(min(depth, 2) for depth in build_config(variant).depths)
    assert_three_counts_agree(variant, [cell for cell in CELLS if cell[0] == base], depths=depths)


@pytest.mark.slow
@pytest.mark.parametrize("variant", [name for name in VARIANTS if max(build_config(name).depths) > 2])
def test_three_counts_agree_with_all_blocks(variant: str) -> None:
    assert_three_counts_agree(variant, [CELLS[0], CELLS[-1]])


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("attention", ["fused", "explicit"])
def test_what_fvcore_adds_and_skips(attention: str, device: str) -> None:
    config = build_config("pico", "v1+cffn+lsra", "v1", attention=attention)
    counted = count_with_fvcore(build_model(config), (1, 3, 48, 64), device)
    tokens = [24 * 32, 12 * 16, 6 * 8, 3 * 4]
    pooled = config.pool_size**2
    # In each stage a norm after the patches, one of the pooled tokens, and two more in its only block. At the end there
    # is one more, and the class token has its part in three.
    norms = [(3 * n + pooled) * dim for n, dim in zip(tokens, config.embed_dims, strict=True)]
    norms[-1] += (2 + 1 + tokens[-1]) * config.embed_dims[-1]
    maps = sum(n * dim for n, dim in zip(tokens, config.embed_dims, strict=True))
    assert counted.others == {
        "layer_norm": 5 * sum(norms),
        "adaptive_avg_pool2d": maps,
        "upsample_bilinear2d": 4 * maps,  # every stage's position embeddings are made for 32 x 32 pixels
    }
    # In each of the four blocks one GELU after the pool and one after the depth-wise convolution.
    assert counted.skipped["gelu"] == 8
    assert counted.skipped.get("softmax", 0) == (4 if attention == "explicit" else 0)
    assert "scaled_dot_product_attention" not in counted.skipped


@pytest.mark.parametrize("base", ["v1", *(pytest.param(base, marks=pytest.mark.slow) for base in ("v2", "published"))])
@pytest.mark.parametrize("arm", ["v1", "v1+ope+cffn+lsra"])
def test_fused_and_explicit_attention_give_the_same_products(arm: str, base: str) -> None:
    fused = count_with_fvcore(build_on_meta("pico", arm, base, attention="fused"), (2, 3, 64, 48)).products
    explicit = count_with_fvcore(build_on_meta("pico", arm, base, attention="explicit"), (2, 3, 64, 48)).products
    assert fused.pop("attention") == explicit.pop("matmul") > 0
    assert fused == explicit


@pytest.mark.parametrize("attention", ["fused", "explicit"])
def test_real_tensors_and_meta_give_the_same(attention: str) -> None:
    model = build_model(build_config("pico", "v1+ope+lsra", "v1", attention=attention))
    one, two = (count_with_fvcore(model, (batch, 3, 40, 56)) for batch in (1, 2))
    real = count_with_fvcore(model, (2, 3, 40, 56), device="cpu")
    assert real == two
    assert two.products == {name: 2 * count for name, count in one.products.items()}


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(
    ("module", "shape", "products", "others"),
    [
        (nn.Linear(8, 16), (2, 5, 8), {"linear": 2 * 5 * 8 * 16}, {}),
        # 9 x 9 becomes 5 x 5; a window of 3 x 3 over 8 / 4 channels for each of 16.
        (nn.Conv2d(8, 16, 3, 2, 1, groups=4), (2, 8, 9, 9), {"conv": 2 * 5 * 5 * 16 * 9 * 2}, {}),
        (nn.Conv2d(4, 6, (2, 3)), (1, 4, 5, 5), {"conv": 4 * 3 * 6 * 4 * 6}, {}),
        # A kernel of 4 x 4 and every second place of 8 x 8, given as plain numbers.
        (Apply(lambda x: F.conv2d(x, x[:1, :, :4, :4], stride=2)), (1, 3, 8, 8), {"conv": 3 * 3 * 3 * 16}, {}),
        # One matrix meets five, and a vector one.
        (Apply(lambda x: x[:1] @ x), (5, 8, 8), {"matmul": 5 * 8 * 8 * 8}, {}),
        (Apply(lambda x: x @ x[0]), (6, 8), {"matmul": 6 * 8}, {}),
        (
            Apply(lambda x: torch.einsum("bhnd, bhmd -> bhnm", x, x)),
            (2, 3, 123, 77),
            {"einsum": 6 * 123 * 123 * 77},
            {},
        ),
        (Apply(lambda x: torch.einsum("ab,bc->c", x, x)), (7, 7), {"einsum": 7 * 7}, {}),
        (Apply(lambda x: torch.einsum("ab,ab->ab", x, x)), (7, 7), {}, {}),
        # 4 heads of 5 queries, 2 heads of 3 keys of width 8 and values of width 6.
        (
            Apply(lambda x: F.scaled_dot_product_attention(x, x[:, :2, :3], x[:, :2, :3, :6], enable_gqa=True)),
            (2, 4, 5, 8),
            {"attention": 2 * 4 * 5 * 3 * (8 + 6)},
            {},
        ),
        (SelfAttention(), (2, 5, 8), {"linear": 2 * 5 * 4 * 8 * 8, "attention": 2 * 2 * 5 * 5 * 8}, {}),
        (nn.BatchNorm2d(4), (2, 4, 3, 3), {}, {"batch_norm": 2 * 72}),
        (nn.GroupNorm(2, 4), (2, 4, 3, 3), {}, {"group_norm": 5 * 72}),
        (nn.LayerNorm(4, elementwise_affine=False), (3, 4), {}, {"layer_norm": 4 * 12}),
        (nn.AdaptiveAvgPool2d(1), (1, 4, 3, 3), {}, {"adaptive_avg_pool2d": 36}),
        (nn.Upsample(scale_factor=2), (1, 4, 3, 3), {}, {"upsample_nearest2d": 4 * 36}),
        (nn.Upsample(scale_factor=2, mode="bilinear"), (1, 4, 3, 3), {}, {"upsample_bilinear2d": 4 * 4 * 36}),
        (nn.Sequential(nn.MaxPool2d(2), nn.Hardswish(), nn.Dropout(), nn.Softmax(1)), (1, 4, 4, 4), {}, {}),
    ],
)
def test_one_layer(
    module: nn.Module, shape: tuple[int, ...], products: dict[str, int], others: dict[str, int], device: str
) -> None:
    counted = count_with_fvcore(module, shape, device)
    assert (counted.products, counted.others) == (products, others)


@pytest.mark.parametrize(
    "kernel",
    [
        lambda q, k, v: aten._scaled_dot_product_flash_attention_for_cpu(q, k, v),
        lambda q, k, v: aten._scaled_dot_product_efficient_attention(q, k, v, None, False),
        lambda q, k, v: aten._scaled_dot_product_attention_math(q, k, v),
    ],
    ids=["cpu", "efficient", "math"],
)
def test_attention_kernels_count_the_same(kernel: Callable[..., tuple]) -> None:
    module = Apply(lambda x: kernel(x, x[:, :, :3], x[:, :, :3])[0])
    assert count_with_fvcore(module, (2, 4, 5, 8)).products == {"attention": 2 * 2 * 4 * 5 * 3 * 8}


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x @ x


@torch.jit.script_if_tracing
def scripted(x: Tensor) -> Tensor:
    return x @ x


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: enigma(x), "ablations_test::enigma"),
        (lambda x: torch.baddbmm(x[None], x[None], x[None]), "aten::baddbmm"),
        (lambda x: torch.dot(x[0], x[0]), "aten::dot"),
        (lambda x: torch.einsum("ab,bc,cd->ad", x, x, x), r"aten::einsum.*ab,bc,cd->ad"),
        (Squared.apply, r"prim::PythonOp\.Squared"),
    ],
    ids=["custom", "baddbmm", "dot", "einsum", "autograd"],
)
def test_unknown_operator_is_an_error_that_names_it(function: Callable[[Tensor], Tensor], named: str) -> None:
    with pytest.raises(UncountedOperator, match=named):
        count_with_fvcore(nn.Sequential(nn.Linear(4, 4), Apply(function)), (4, 4))


def test_scripted_function_is_not_looked_into() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has given up scripts
        with pytest.raises(UncountedOperator, match="prim::CallFunction"):
            count_with_fvcore(Apply(scripted), (4, 4))


def test_count_that_no_table_has_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fvcore_count, "OTHERS", frozenset())
    with pytest.raises(UncountedOperator, match="layer_norm"):
        count_with_fvcore(nn.LayerNorm(4), (3, 4))


def test_operators_known_to_be_free_exist_and_are_no_products() -> None:
    assert [name for name in FREE if not hasattr(aten, name)] == []
    products = "mm bmm addmm baddbmm matmul linear convolution _convolution einsum dot mv inner bilinear lstm"
    assert [name for name in products.split() if fvcore_count._is_free(f"aten::{name}")] == []


def test_what_cannot_be_traced_is_the_users_mistake() -> None:
    depends_on_numbers = Apply(lambda x: x if bool(x.sum() == 0) else x @ x)
    with pytest.raises(InputError, match=r"^fvcore cannot trace a Apply on 'meta': .+$"):
        count_with_fvcore(depends_on_numbers, (4, 4))
    assert count_with_fvcore(depends_on_numbers, (4, 4), device="cpu").products == {}
    with pytest.raises(InputError, match="cannot trace"):
        count_with_fvcore(nn.Linear(4, 4), (3, 5))
    with pytest.raises(InputError, match=r"^input shape="):  # the model's own words
        count_with_fvcore(build_on_meta("pico", "v1", "v1"), (1, 3, 8, 8))
    with pytest.raises(InputError, match="device='cuda'"):
        count_with_fvcore(nn.Linear(4, 4), (3, 4), device="cuda")


def test_missing_fvcore_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fvcore.nn", None)
    with pytest.raises(InputError, match="fvcore cannot be imported"):
        count_with_fvcore(nn.Linear(4, 4), (3, 4))


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(
    fails: bool, device: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    last = Apply(lambda x: x @ x if fails else x + 1)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Identity(), last).train()
    before = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    random, filters, levels = torch.get_rng_state(), list(warnings.filters), logger_levels()
    if fails:
        with pytest.raises(InputError):
            count_with_fvcore(model, (2, 4), device)
    else:
        assert count_with_fvcore(model, (2, 4), device).skipped == {"add": 1}
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is tensor and tensor.equal(values) for name, (tensor, values) in before.items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.get_rng_state().equal(random)
    assert (list(warnings.filters), logger_levels()) == (filters, levels)
    assert torch.is_grad_enabled()
    assert not torch.jit.is_tracing()
    assert not torch.overrides._get_current_function_mode_stack()
    assert (caplog.records, capfd.readouterr()) == ([], ("", ""))


def logger_levels() -> dict[str, int]:
    return {name: logging.getLogger(name).level for name in ("", "fvcore", "fvcore.nn", "fvcore.nn.jit_analysis")}


@pytest.mark.slow
def test_fvcore_is_imported_late_and_in_silence() -> None:
    program = (
        "import sys, torch, warnings\n"
        "from ablations.measure.fvcore_count import count_with_fvcore\n"
        "assert 'fvcore' not in sys.modules\n"
        "warnings.simplefilter('error')\n"
        "print(count_with_fvcore(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.GELU()), (1, 2)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(FvcoreCount(products={"linear": 6}, others={}, skipped={"gelu": 1}))
    assert "gelu" not in ran.stderr  # fvcore would log that it does not know it
