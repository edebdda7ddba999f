"""The closed form against a trace on `meta`, module by module, and against the published sizes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ablations.config import ARMS, VARIANTS, as_pair, build_config
from ablations.cost import (
    count_macs,
    count_params,
    find_crossover,
    linear_sra_formula,
    module_costs,
    sra_formula,
)
from ablations.errors import InputError
from ablations.measure.macs import trace_macs
from ablations.model import build_model

SIZES = [224, (256, 320), (333, 200), (33, 64)]


def traced(config, size):
    """Returns the model, and {module: MACs of its own} by the trace, with torch's own total as ""."""
    shape = (1, config.in_chans, *as_pair(size))
    with torch.device("meta"):
        model = build_model(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(shape, device="meta"))
    return trace_macs(model, shape).by_module | {"": counter.get_total_flops() // 2}, model


@pytest.mark.parametrize("base", ["v1", "v2", pytest.param("published", marks=pytest.mark.slow)])
@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize(
    ("variant", "attention"), [("pico", "explicit"), pytest.param("b0", "fused", marks=pytest.mark.slow)]
)
def test_every_arm_and_base_equals_the_trace(variant, attention, arm, base):
    config = build_config(variant, arm, base, attention=attention)
    for size in SIZES:
        own, model = traced(config, size)
        assert count_macs(config, size) == own[""]
        rows = {row.name: row.macs for row in module_costs(config, size)}
        assert {name: macs for name, macs in rows.items() if macs} == {
            name: macs for name, macs in own.items() if macs and name
        }
    assert count_params(config) == sum(weights.numel() for weights in model.parameters())
    by_module = {
        name: sum(weights.numel() for weights in module.parameters(recurse=False))
        for name, module in model.named_modules()
    }
    assert {row.name: row.params for row in module_costs(config, 224) if row.params} == {
        name: count for name, count in by_module.items() if count
    }


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (max(sizes["depths"]) > 6))
        for name, sizes in VARIANTS.items()
        if name not in ("pico", "b0")
    ],
)
@pytest.mark.parametrize(("arm", "base"), [("v1", "v1"), ("v1+ope+cffn+lsra", "v2")])
def test_every_variant_equals_the_trace(variant, arm, base):
    config = build_config(variant, arm, base, num_classes=7, in_chans=1)
    own, model = traced(config, (96, 160))
    assert count_macs(config, (96, 160)) == own[""]
    assert count_params(config) == sum(weights.numel() for weights in model.parameters())


@pytest.mark.parametrize(
    "overrides",
    [{"pool_size": 3}, {"stem_stride": 2}, {"qkv_bias": False}, {"num_classes": 0}, {"img_size": (96, 64)}],
    ids=str,
)
@pytest.mark.parametrize("arm", ["v1", "v1+cffn+lsra"])
def test_every_field_that_costs_is_counted(arm, overrides):
    config = build_config("pico", arm, "v1", **overrides)
    own, model = traced(config, (100, 70))
    assert count_macs(config, (100, 70)) == own[""]
    assert count_params(config) == sum(weights.numel() for weights in model.parameters())


@pytest.mark.parametrize(
    ("variant", "arm", "params_m", "macs_g"),
    [
        ("tiny", "v1", 13.23, 1.93),
        ("small", "v1", 24.49, 3.82),
        ("medium", "v1", 44.21, 6.66),
        ("large", "v1", 61.37, 9.81),
        ("b0", "v1+ope+cffn", 3.67, 0.57),
        ("b1", "v1+ope+cffn", 14.01, 2.11),
        ("b2", "v1+ope+cffn", 25.36, 4.03),
        ("b3", "v1+ope+cffn", 45.24, 6.90),
        ("b4", "v1+ope+cffn", 62.56, 10.10),
        ("b5", "v1+ope+cffn", 81.96, 11.72),
        ("b2", "v1+ope+cffn+lsra", 22.55, 3.89),
    ],
)
def test_published_sizes(variant, arm, params_m, macs_g):
    config = build_config(variant, arm, "published")
    assert round(count_params(config) / 1e6, 2) == params_m
    assert round(count_macs(config, 224) / 1e9, 2) == macs_g


def test_attention_worked_out_by_hand():
    # b2's first stage at 64 px: 16 x 16 = 256 tokens of 64 channels; R = 8 leaves 4 of them, P = 7 makes 49.
    sra = {row.name: row for row in module_costs(build_config("b2", "v1", "v2"), 64)}
    linear = {row.name: row for row in module_costs(build_config("b2", "v1+lsra", "v2"), 64)}
    name = "stages.0.blocks.0.attn"
    assert sra[name].macs == 2 * 256 * 4 * 64
    assert linear[name].macs == 2 * 256 * 49 * 64
    assert sra[f"{name}.sr"].macs == 256 * 64 * 64  # hw·c², whatever R is
    assert linear[f"{name}.sr"].macs == 49 * 64 * 64
    assert sra[f"{name}.sr"].params == 8 * 8 * 64 * 64 + 64


def test_the_class_token_attends_and_is_attended_to():
    # pico's last stage at 32 px has 2 x 2 tokens of 64 channels, and with the class token 5 queries and 5 keys.
    rows = {row.name: row for row in module_costs(build_config("pico", "v1", "v1"), 32)}
    assert rows["stages.3.blocks.0.attn"].macs == 2 * 5 * 5 * 64
    assert rows["stages.3.cls_token"].params == 64
    assert rows["stages.3.pos_embed"].params == 5 * 64


def test_too_small_an_input_is_refused():
    with pytest.raises(InputError, match=r"resolution=31 .* 32 to 65536 pixels"):
        count_macs(build_config("b0"), 31)


def test_the_paper_s_formulas_beside_the_layer():
    # b2's first stage at 224 px: 56 x 56 tokens of 64 channels, R = 8, P = 7.
    products, reduction = sra_formula(56, 56, 64, 8)
    assert products == 2 * 3136**2 * 64 / 64
    assert reduction == 3136 * 64**2 * 64
    assert linear_sra_formula(56, 56, 64, 7) == 2 * 3136 * 49 * 64
    sra = {row.name: row.macs for row in module_costs(build_config("b2", "v1", "v2"), 224)}
    linear = {row.name: row.macs for row in module_costs(build_config("b2", "v1+lsra", "v2"), 224)}
    name = "stages.0.blocks.0.attn"
    assert sra[name] == products
    assert sra[f"{name}.sr"] == reduction / 64  # the paper's has R² where the layer has none
    assert linear[name] == linear_sra_formula(56, 56, 64, 7)


def test_the_crossover_is_where_linear_sra_is_cheaper_from_then_on():
    sra, linear = (build_config("b2", arm) for arm in ("v1+ope+cffn", "v1+ope+cffn+lsra"))
    sides = range(32, 320, 8)
    cheaper = [side for side in sides if count_macs(linear, side) < count_macs(sra, side)]
    dearer = [side for side in sides if side not in cheaper]
    crossover = find_crossover(sra, linear, sides)
    assert crossover in cheaper
    assert max(dearer) == crossover - 8
    assert 192 <= crossover <= 224
    assert find_crossover(sra, linear, [32, 64, 128]) is None
    assert find_crossover(sra, linear, [512, 1024]) == 512
    assert find_crossover(sra, sra, [512, 1024]) is None
