"""The config: what it refuses and with which words, what bases and arms set, and the sizes of the paper."""

import csv
from dataclasses import FrozenInstanceError, replace
from importlib.resources import files

import pytest

from ablations.baselines.registry import MODELS
from ablations.config import (
    ARMS,
    BASES,
    CONFOUNDERS,
    PAPER_TOGGLES,
    PUBLISHED_MODELS,
    PVT_V1,
    PVT_V2,
    PVT_V2_LI,
    TOGGLES,
    VARIANT_ALIASES,
    VARIANTS,
    PVTConfig,
    arm_name,
    arm_toggles,
    arms_of,
    as_pair,
    base_confounders,
    build_config,
    published_model,
    variant_name,
)
from ablations.errors import InputError

V1_CONFOUNDERS = {
    "position_embedding": "learned",
    "pooling": "class_token",
    "stage_norm": "last",
    "conv_init": "default",
    "ffn_relu": False,
}
V2_CONFOUNDERS = {
    "position_embedding": "none",
    "pooling": "average",
    "stage_norm": "every",
    "conv_init": "fan_out",
    "ffn_relu": False,
}


def message_of(excinfo: pytest.ExceptionInfo[InputError]) -> str:
    message = str(excinfo.value)
    assert "\n" not in message
    return message


FOUR = "4 whole numbers of 1 or more, one a stage"
SIDES = "32 to 65536 pixels a side, as one whole number or (height, width)"
REFUSED = [
    *(
        (field, value, FOUR)
        for field in ("embed_dims", "depths", "num_heads", "mlp_ratios", "sr_ratios")
        for value in ((8, 8, 8), (8, 8, 8, 8, 8), (8, 8, 8, 0), (8, 8, 8, 8.0), (True, 1, 1, 1), "8888", 8, None)
    ),
    *(("num_classes", value, "a whole number of 0 or more") for value in (-1, 10.0, "10", None, True)),
    *(("in_chans", value, "a whole number of 1 or more") for value in (0, 3.0, True)),
    *(("stem_stride", value, "a whole number of 2 or more") for value in (1, 0, 4.0)),
    *(("pool_size", value, "a whole number of 1 or more") for value in (0, -7, 7.0)),
    *(("drop_path_rate", value, "0 or more and less than 1") for value in (-0.1, 1, 1.5, float("nan"), "0.1", None)),
    *(("img_size", value, SIDES) for value in (31, (31, 64), (64, 31), (64,), (64, 64, 64), 64.0, "64", None, True)),
    ("num_heads", (3, 2, 4, 8), "in stage 1 a divisor of its embed_dims, 8"),
    ("num_heads", (1, 2, 4, 7), "in stage 4 a divisor of its embed_dims, 64"),
    ("position_embedding", "sinusoidal", "learned, none"),
    ("pooling", "avg", "class_token, average"),
    ("stage_norm", "all", "last, every"),
    ("conv_init", "fan_in", "default, fan_out"),
    ("attention", "flash", "fused, explicit"),
    ("attention", None, "fused, explicit"),
    *((field, value, "True or False") for field in ("qkv_bias", "ffn_relu") for value in (1, 0, "yes", None)),
]


@pytest.mark.parametrize(("field", "value", "allowed"), REFUSED)
def test_impossible_value_is_refused_by_field_value_and_what_is_allowed(
    field: str, value: object, allowed: str
) -> None:
    with pytest.raises(InputError) as excinfo:
        build_config("pico", **{field: value})
    message = message_of(excinfo)
    assert message.startswith(f"{field}={value!r} is not possible; allowed: {allowed}")


@pytest.mark.parametrize(
    ("toggles", "message"),
    [
        ("ope", "toggles='ope' is not possible; allowed: some of ope, cffn, lsra"),
        (("ope", "cfn"), "toggle='cfn' is not possible; allowed: ope, cffn, lsra"),
        (("cffn", "ope"), "toggles=('cffn', 'ope') is not possible; allowed: each once, in the order ope, cffn, lsra"),
        (("ope", "ope"), "toggles=('ope', 'ope') is not possible; allowed: each once, in the order ope, cffn, lsra"),
    ],
)
def test_toggles_that_are_no_setting_are_refused(toggles: object, message: str) -> None:
    with pytest.raises(InputError) as excinfo:
        PVTConfig(**VARIANTS["pico"] | V2_CONFOUNDERS | {"toggles": toggles})
    assert message_of(excinfo).startswith(message)


def test_two_toggles_of_one_slot_are_no_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOGGLES, "other", replace(TOGGLES["lsra"], title="Another attention"))
    assert arms_of(["ope", "lsra", "other"]) == ("v1", "v1+ope", "v1+lsra", "v1+other", "v1+ope+lsra", "v1+ope+other")
    with pytest.raises(InputError, match=r"lsra or other: both replace the slot attn$"):
        PVTConfig(**VARIANTS["pico"] | V2_CONFOUNDERS | {"toggles": ("lsra", "other")})
    with pytest.raises(InputError, match=r"^arm='v1\+lsra\+other' is not possible"):
        build_config("pico", "v1+lsra+other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "b6"}, "variant='b6' is not possible; allowed: pico, nano, b0"),
        ({"variant": "smal"}, "(did you mean 'small'?)"),
        ({"arm": "v2"}, "arm='v2' is not possible: v2 names a base; PVT v2 is arm v1+ope+cffn"),
        ({"arm": "v1+ope+cfn"}, "(did you mean 'v1+ope+cffn'?)"),
        ({"arm": "v1+cffn+ope"}, "allowed: v1+ope+cffn, each toggle once and in this order"),
        ({"arm": "v1+lsra+lsra"}, "allowed: v1+lsra, each toggle once and in this order"),
        ({"base": "v3"}, "base='v3' is not possible; allowed: published, v1, v2"),
        ({"image_size": 64}, "field='image_size' is not possible; allowed: "),
        ({"image_size": 64}, "(did you mean 'img_size'?)"),
        ({"toggles": ("lsra",)}, "toggles=('lsra',) is not possible beside arm='v1+ope+cffn', which sets it"),
        ({"arm": "v1", "ffn_relu": True}, "ffn_relu=True is not possible; allowed: False without toggle cffn"),
    ],
)
def test_unknown_name_or_contradiction_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InputError) as excinfo:
        build_config(**arguments)
    assert message in message_of(excinfo)


def test_input_error_is_a_value_error() -> None:
    assert issubclass(InputError, ValueError)


def test_arms_are_all_settings_of_the_toggles() -> None:
    settings = [arm_toggles(arm) for arm in ARMS]
    assert len(set(settings)) == len(settings) == 2 ** len(PAPER_TOGGLES)
    assert settings == sorted(settings, key=len)
    for arm, toggles in zip(ARMS, settings, strict=True):
        assert build_config("pico", arm).toggles == toggles
        assert arm_name(toggles) == arm


def test_arms_of_some_toggles_are_theirs_alone_in_the_order_of_the_registry() -> None:
    assert arms_of([]) == ("v1",)
    assert arms_of(["lsra", "ope"]) == ("v1", "v1+ope", "v1+lsra", "v1+ope+lsra")
    assert {PVT_V1, PVT_V2, PVT_V2_LI} <= set(ARMS)
    with pytest.raises(InputError, match=r"^toggle='opa' is not possible; allowed: ope, cffn, lsra"):
        arms_of(["ope", "opa"])


@pytest.mark.parametrize("arm", ARMS)
def test_bases_set_the_confounders(arm: str) -> None:
    relu = arm == "v1+cffn+lsra" or arm == "v1+ope+cffn+lsra"
    expected = {
        "v1": V1_CONFOUNDERS,
        "v2": V2_CONFOUNDERS,
        "published": V1_CONFOUNDERS if arm == "v1" else V2_CONFOUNDERS | {"ffn_relu": relu},
    }
    assert set(expected) == set(BASES)
    for base, confounders in expected.items():
        assert set(confounders) == set(CONFOUNDERS)
        assert base_confounders(base, arm) == confounders
        config = build_config("pico", arm, base)
        assert {confounder: getattr(config, confounder) for confounder in CONFOUNDERS} == confounders


def test_a_confounder_can_be_changed_by_itself() -> None:
    changed = build_config("pico", "v1", "v1", pooling="average")
    assert changed.pooling == "average"
    assert changed.position_embedding == "learned"
    assert changed.num_prefix_tokens(3) == 0


@pytest.mark.parametrize(("alias", "variant"), [("tiny", "b1"), ("small", "b2"), ("medium", "b3"), ("large", "b4")])
def test_names_of_v1_stand_for_variants(alias: str, variant: str) -> None:
    assert VARIANT_ALIASES[alias] == variant_name(alias) == variant_name(variant) == variant
    assert build_config(alias, "v1") == build_config(variant, "v1")


def _sizes_in_the_paper() -> list[tuple[str, dict[str, tuple[int, ...]]]]:
    columns = {
        "channels": "embed_dims",
        "depths": "depths",
        "heads": "num_heads",
        "ffn_expansion": "mlp_ratios",
        "sr_ratios": "sr_ratios",
    }
    with (files("ablations.paper") / "table1_architecture.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [
        (
            row["model"],
            {field: tuple(map(int, row[name].split("-"))) for name, field in columns.items() if row[name]},
        )
        for row in rows
    ]


@pytest.mark.parametrize(("model", "sizes"), _sizes_in_the_paper())
def test_variants_are_the_papers(model: str, sizes: dict[str, tuple[int, ...]]) -> None:
    config = build_config(model.split("-")[1].lower())
    assert {field: getattr(config, field) for field in sizes} == sizes
    assert (config.stem_stride, config.pool_size, config.img_size, config.num_classes) == (4, 7, 224, 1000)


@pytest.mark.parametrize("variant", ["pico", "nano"])
def test_variants_for_small_images_have_a_small_stem(variant: str) -> None:
    config = build_config(variant)
    assert (config.stem_stride, config.img_size) == (2, 32)
    assert config.stage_sizes(32) == [(16, 16), (8, 8), (4, 4), (2, 2)]


def test_config_is_frozen_and_hashable() -> None:
    config = build_config("pico", depths=[1, 2, 1, 1])
    assert config.depths == (1, 2, 1, 1)
    assert hash(config) == hash(build_config("pico", depths=(1, 2, 1, 1)))
    with pytest.raises(FrozenInstanceError):
        config.num_classes = 10  # type: ignore[misc]


def test_drop_path_rates_rise_linearly_over_all_blocks() -> None:
    rates = build_config("pico", depths=(1, 2, 1, 2), drop_path_rate=0.5).drop_path_rates()
    assert [len(stage) for stage in rates] == [1, 2, 1, 2]
    flat = [rate for stage in rates for rate in stage]
    assert flat == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert {type(rate) for rate in flat} == {float}


def test_smallest_side_leaves_no_reduced_map_empty() -> None:
    assert build_config("b2").smallest_side == 32
    # The first stage's tokens are 4 pixels wide, and 16 of them make one key.
    wide = build_config("b2", sr_ratios=(16, 4, 2, 1))
    assert wide.smallest_side == 64
    with pytest.raises(InputError, match=r"^resolution=48 is not possible; allowed: 64 to 65536 pixels a side"):
        wide.stage_sizes(48)


def test_stage_sizes_round_up_with_overlap_and_down_without() -> None:
    assert build_config("b2", "v1+ope").stage_sizes((33, 100)) == [(9, 25), (5, 13), (3, 7), (2, 4)]
    assert build_config("b2", "v1").stage_sizes((33, 100)) == [(8, 25), (4, 12), (2, 6), (1, 3)]
    assert as_pair(7) == (7, 7)


def test_prefix_tokens_and_norms_by_stage() -> None:
    v1, v2 = build_config("pico", "v1", "v1"), build_config("pico", "v1", "v2")
    assert [v1.num_prefix_tokens(stage) for stage in range(4)] == [0, 0, 0, 1]
    assert [v2.num_prefix_tokens(stage) for stage in range(4)] == [0, 0, 0, 0]
    assert [v1.has_stage_norm(stage) for stage in range(4)] == [False, False, False, True]
    assert [v2.has_stage_norm(stage) for stage in range(4)] == [True] * 4


def test_published_models_are_those_of_the_baselines_too():
    named = {name: source for name, source in MODELS.items() if source.startswith("pvt:")}
    assert len(named) > 9
    for name, source in named.items():
        variant, arm = PUBLISHED_MODELS[name]
        assert source == f"pvt:{variant}/{arm}/published"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("PVTv2-B2-Li", ("b2", "v1+ope+cffn+lsra")),
        ("pvtv1-medium", ("b3", "v1")),
        ("pvt_v2_b0", ("b0", "v1+ope+cffn")),
        ("PVTv2-pico", None),
        ("v2", None),
    ],
)
def test_published_models_by_name(name, model):
    assert published_model(name) == model
