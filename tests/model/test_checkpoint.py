"""Checkpoints: every format in and the two out, what is refused and how, and that nothing but tensors is ever read."""

import argparse
import pickle
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from timm.models.pvt_v2 import PyramidVisionTransformerV2, checkpoint_filter_fn
from torch import Tensor, nn
from transformers import (
    PvtConfig,
    PvtForImageClassification,
    PvtModel,
    PvtV2Config,
    PvtV2ForImageClassification,
    PvtV2Model,
)

from ablations.cells import as_plain
from ablations.config import ARMS, PVT_V2, build_config
from ablations.errors import InputError
from ablations.model import PVT, build_model
from ablations.model.checkpoint import (
    FORMATS,
    Format,
    LoadReport,
    export_weights,
    load_model,
    load_weights,
    read_description,
    rename_weights,
    save_weights,
)

V2 = "v1+ope+cffn"
V2_LI = "v1+ope+cffn+lsra"

DIMS, DEPTHS, HEADS, RATIOS = (8, 16, 32, 64), (2, 1, 1, 1), (1, 2, 4, 8), (4, 4, 4, 4)

Randomise = Callable[[nn.Module], nn.Module]


def small_model(arm: str = V2, base: str = "published", **overrides: Any) -> PVT:
    """A model of the published shape, strides and P, but small."""
    sizes = {"depths": DEPTHS, "stem_stride": 4, "pool_size": 7, "img_size": 64, "num_classes": 10}
    return build_model(build_config("pico", arm, base, **(sizes | overrides)))


def timm_model(linear: bool = False) -> nn.Module:
    return PyramidVisionTransformerV2(
        num_classes=10, depths=DEPTHS, embed_dims=DIMS, num_heads=HEADS, mlp_ratios=RATIOS, linear=linear
    )


def transformers_v1_config() -> PvtConfig:
    return PvtConfig(
        image_size=64, depths=DEPTHS, hidden_sizes=DIMS, num_attention_heads=HEADS, mlp_ratios=RATIOS, num_labels=10
    )


def transformers_v2_config(linear: bool = False) -> PvtV2Config:
    return PvtV2Config(
        depths=DEPTHS,
        hidden_sizes=DIMS,
        num_attention_heads=HEADS,
        mlp_ratios=RATIOS,
        num_labels=10,
        linear_attention=linear,
    )


def released_shapes(arm: str) -> dict[str, tuple[int, ...]]:
    """The keys and shapes of the released code's model, written down from its sources."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    in_chans = (3, *DIMS)
    for number, (dim, depth, ratio, sr_ratio) in enumerate(zip(DIMS, DEPTHS, RATIOS, (8, 4, 2, 1), strict=True), 1):
        kernel = (4 if number == 1 else 2) if arm == "v1" else (7 if number == 1 else 3)
        add(f"patch_embed{number}.proj", dim, in_chans[number - 1], kernel, kernel)
        add(f"patch_embed{number}.norm", dim)
        if arm == "v1":
            side = 64 // 2 ** (number + 1)
            shapes[f"pos_embed{number}"] = (1, side**2 + (number == 4), dim)
        for block in range(depth):
            name = f"block{number}.{block}"
            add(f"{name}.norm1", dim)
            add(f"{name}.attn.q", dim, dim)
            add(f"{name}.attn.kv", 2 * dim, dim)
            add(f"{name}.attn.proj", dim, dim)
            if sr_ratio > 1 or arm == V2_LI:
                side = 1 if arm == V2_LI else sr_ratio
                add(f"{name}.attn.sr", dim, dim, side, side)
                add(f"{name}.attn.norm", dim)
            add(f"{name}.norm2", dim)
            add(f"{name}.mlp.fc1", ratio * dim, dim)
            if arm != "v1":
                add(f"{name}.mlp.dwconv.dwconv", ratio * dim, 1, 3, 3)
            add(f"{name}.mlp.fc2", dim, ratio * dim)
        if arm != "v1":
            add(f"norm{number}", dim)
    if arm == "v1":
        add("norm", DIMS[-1])
        shapes["cls_token"] = (1, 1, DIMS[-1])
    add("head", 10, DIMS[-1])
    return shapes


def assert_equal_weights(model: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(dict(model.state_dict()), dict(other.state_dict()), rtol=0, atol=0)


def refusal(model: PVT, source: Any, **options: bool) -> str:
    """The message of the InputError that loading raises; the model's weights must be as before."""
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(InputError) as excinfo:
        load_weights(model, source, **options)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    message = str(excinfo.value)
    assert "\n" not in message
    return message


# The formats.


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("base", ["v1", "v2"])
@pytest.mark.parametrize("arm", ARMS)
def test_own_format_by_file(randomise: Randomise, tmp_path: Path, arm: str, base: str, suffix: str) -> None:
    model = randomise(small_model(arm, base))
    path = tmp_path / "new folder" / f"weights{suffix}"
    save_weights(model, path)
    other = small_model(arm, base)
    assert load_weights(other, path) == LoadReport(format="this project's", kept=(), unused=())
    assert_equal_weights(other, model)


def test_files_are_what_their_suffix_says(tmp_path: Path) -> None:
    model = small_model()
    save_weights(model, tmp_path / "weights.safetensors")
    assert set(safetensors.torch.load_file(tmp_path / "weights.safetensors")) == set(model.state_dict())
    save_weights(model.to(memory_format=torch.channels_last), tmp_path / "other.safetensors")
    save_weights(model, str(tmp_path / "weights.pth"))
    assert set(torch.load(tmp_path / "weights.pth", weights_only=True)) == set(model.state_dict())


@pytest.mark.parametrize(
    ("arm", "name"), [("v1", "the released PVT v1"), (V2, "the released PVT v2"), (V2_LI, "the released PVT v2")]
)
def test_released_format_out_and_in(randomise: Randomise, tmp_path: Path, arm: str, name: str) -> None:
    model = randomise(small_model(arm))
    exported = export_weights(model, "released")
    assert {key: tuple(tensor.shape) for key, tensor in exported.items()} == released_shapes(arm)
    save_weights(exported, tmp_path / "pvt.pth")
    other = small_model(arm)
    assert load_weights(other, tmp_path / "pvt.pth") == LoadReport(format=name, kept=(), unused=())
    assert_equal_weights(other, model)


def test_released_v1_keys_mean_what_they_say() -> None:
    given = {key: torch.randn(shape) for key, shape in released_shapes("v1").items()}
    model = small_model("v1")
    load_weights(model, given)
    last = model.stages[3]
    assert torch.equal(last.cls_token.weight, given["cls_token"])
    assert torch.equal(last.pos_embed.weight, given["pos_embed4"])
    assert torch.equal(last.norm.weight, given["norm.weight"])
    assert torch.equal(model.stages[0].pos_embed.weight, given["pos_embed1"])
    assert torch.equal(model.stages[0].blocks[1].attn.sr.weight, given["block1.1.attn.sr.weight"])
    assert torch.equal(model.stages[2].blocks[0].mlp.fc2.bias, given["block3.0.mlp.fc2.bias"])


@pytest.mark.parametrize(("arm", "linear"), [(V2, False), (V2_LI, True)])
def test_timms_format_out_and_in(randomise: Randomise, arm: str, linear: bool) -> None:
    model = randomise(small_model(arm))
    theirs = timm_model(linear).eval()
    theirs.load_state_dict(export_weights(model, "timm"), strict=True)
    x = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(theirs(x), model(x), rtol=1e-4, atol=1e-5)
    other = small_model(arm)
    assert load_weights(other, theirs.state_dict()) == LoadReport(format="timm's PVT v2", kept=(), unused=())
    assert_equal_weights(other, model)


@pytest.mark.parametrize(("arm", "linear"), [(V2, False), (V2_LI, True)])
def test_timm_reads_the_exported_released_format(randomise: Randomise, arm: str, linear: bool) -> None:
    model = randomise(small_model(arm))
    theirs = timm_model(linear)
    theirs.load_state_dict(checkpoint_filter_fn(export_weights(model, "released"), theirs), strict=True)
    torch.testing.assert_close(dict(theirs.state_dict()), export_weights(model, "timm"), rtol=0, atol=0)


@pytest.mark.parametrize(("arm", "linear"), [(V2, False), (V2_LI, True)])
def test_transformers_v2_format(randomise: Randomise, arm: str, linear: bool) -> None:
    theirs = randomise(PvtV2ForImageClassification(transformers_v2_config(linear)))
    model = small_model(arm)
    assert load_weights(model, theirs.state_dict()) == LoadReport(
        "transformers' PvtV2", kept=(), unused=(), place="pvt_v2."
    )
    attention = theirs.pvt_v2.encoder.layers[1].blocks[0].attention
    key_and_value = model.stages[1].blocks[0].attn.kv.weight
    assert torch.equal(key_and_value, torch.cat([attention.key.weight, attention.value.weight]))


def test_transformers_v1_format(randomise: Randomise) -> None:
    theirs = randomise(PvtForImageClassification(transformers_v1_config()))
    model = small_model("v1")
    assert load_weights(model, theirs.state_dict()) == LoadReport("transformers' Pvt", kept=(), unused=(), place="pvt.")
    attention = theirs.pvt.encoder.block[1][0].attention.self
    assert torch.equal(model.stages[1].blocks[0].attn.kv.bias, torch.cat([attention.key.bias, attention.value.bias]))


@pytest.mark.parametrize(
    ("arm", "theirs"),
    [(V2, lambda: PvtV2Model(transformers_v2_config())), ("v1", lambda: PvtModel(transformers_v1_config()))],
)
def test_transformers_backbone_has_no_head(arm: str, theirs: Callable[[], nn.Module]) -> None:
    model = small_model(arm)
    state = theirs().state_dict()
    message = refusal(model, state)
    assert "classifier.weight is absent in the checkpoint and (10, 64) in the model" in message
    assert message.endswith("; it has no head")
    assert load_weights(model, state, skip_head=True).kept == ("head.weight", "head.bias")
    headless = small_model(arm, num_classes=0)
    assert load_weights(headless, state).kept == ()


@pytest.mark.parametrize("format", FORMATS)
def test_no_two_weights_share_a_name(format: Format) -> None:
    for arm, base in ((V2_LI, "v2"), ("v1", "v1"), (V2, "v1")):
        names = [name for key in small_model(arm, base).state_dict() for name in format.keys(key)]
        assert len(set(names)) == len(names)


# Wrappers and types.


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def compiled_in_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.replace("stages.1.", "stages.1._orig_mod."): tensor for key, tensor in state.items()}


LIGHTNING = {"epoch": 3, "loops": {}, "hyper_parameters": {"lr": 0.1}, "optimizer_states": [{"state": {}}]}

WRAPPERS: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Any]], str]] = {
    "plain": (lambda state: state, ""),
    "model": (lambda state: {"model": state, "epoch": 3}, "model"),
    "state_dict": (lambda state: {"state_dict": state, "optimizer": {"lr": 0.1}}, "state_dict"),
    "nested": (lambda state: {"state_dict": {"model": state}}, "state_dict.model"),
    "any name": (lambda state: {"best": {"weights": state}}, "best.weights"),
    "DDP": (lambda state: prefixed("module.", state), "module."),
    "compiled": (lambda state: {"model": prefixed("module._orig_mod.", state)}, "model: module."),
    "compiled in part": (compiled_in_part, ""),
    "Lightning": (lambda state: LIGHTNING | {"state_dict": prefixed("model.net.", state)}, "state_dict: model.net."),
    "EMA": (
        lambda state: {"averaged": prefixed("module.", state) | {"n_averaged": torch.ones(())}},
        "averaged: module.",
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", [None, "weights.pth", "weights.safetensors", "c0ffee"])
def test_weights_are_found_under_any_wrapper_and_name_of_the_file(
    randomise: Randomise, tmp_path: Path, wrapper: str, name: str | None
) -> None:
    wrap, place = WRAPPERS[wrapper]
    model = randomise(small_model("v1"))
    source: Any = wrap(dict(model.state_dict()))
    if name:
        torch.save(source, tmp_path / name)
        source = tmp_path / name
    other = small_model("v1")
    unused = ("n_averaged",) if wrapper == "EMA" else ()
    assert load_weights(other, source) == LoadReport("this project's", kept=(), unused=unused, place=place)
    assert_equal_weights(other, model)


@pytest.mark.parametrize("name", ["weights.pth", "blob", "WEIGHTS.SafeTensors"])
def test_safetensors_are_known_by_their_content(randomise: Randomise, tmp_path: Path, name: str) -> None:
    model = randomise(small_model())
    save_weights(model, tmp_path / "weights.safetensors", {"recipe": "a recipe"})
    (tmp_path / "weights.safetensors").rename(tmp_path / name)
    other = small_model()
    load_weights(other, tmp_path / name)
    assert_equal_weights(other, model)
    assert read_description(tmp_path / name) == {"recipe": "a recipe"}


def test_a_detectors_backbone_is_found_beside_what_stands_on_it(randomise: Randomise) -> None:
    model = randomise(small_model(num_classes=0))
    state = prefixed("detector.backbone.", export_weights(model, "released"))
    state |= {"neck.conv.weight": torch.zeros(3), "bbox_head.weight": torch.zeros(3)}
    other = small_model(num_classes=0)
    assert load_weights(other, {"meta": {"epoch": 12}, "state_dict": state}) == LoadReport(
        "the released PVT v2",
        kept=(),
        unused=("neck.conv.weight", "bbox_head.weight"),
        place="state_dict: detector.backbone.",
    )
    assert_equal_weights(other, model)


AVERAGES: dict[str, Callable[[dict, dict], dict]] = {
    "timm": lambda raw, average: {"state_dict": raw, "state_dict_ema": average},
    "average first": lambda raw, average: {"ema": average, "model": raw},
    "in one dict": lambda raw, average: {
        "state_dict": prefixed("model.", raw) | prefixed("model_ema.module.", average)
    },
    "student and teacher": lambda raw, average: {"student": raw, "teacher": average},
}


@pytest.mark.parametrize("name", AVERAGES)
def test_of_raw_and_averaged_weights_either_is_taken_and_both_are_named(randomise: Randomise, name: str) -> None:
    raw, average = (randomise(small_model()) for _ in range(2))
    nn.init.zeros_(raw.head.bias)
    content = AVERAGES[name](dict(raw.state_dict()), dict(average.state_dict()))
    reports = []
    for wanted, model in ((True, raw), (False, average)):
        other = small_model()
        reports.append(load_weights(other, content, raw=wanted))
        assert_equal_weights(other, model)
    assert (reports[0].place, *reports[0].others) == (*reports[1].others, reports[1].place)


def test_raw_weights_that_are_not_there_are_refused() -> None:
    state = {"model_ema": dict(small_model().state_dict())}
    with pytest.raises(InputError, match=r"raw_weights=True is not possible; allowed: False: .* alone, in model_ema$"):
        load_weights(small_model(), state, raw=True)


def test_arguments_and_statistics_beside_the_weights_are_read_and_ignored(randomise: Randomise, tmp_path: Path) -> None:
    model = randomise(small_model())
    beside = {
        "args": argparse.Namespace(lr=0.1, device=torch.device("cpu"), out=Path("out"), seeds=defaultdict(list)),
        "metric": np.float64(71.5),
        "best": np.float32(0.5),
        "counts": np.arange(3),
        "shape": torch.Size([2]),
        "groups": OrderedDict(a=1),
    }
    for legacy in (True, False):
        torch.save(
            beside | {"model": model.state_dict()}, tmp_path / "all.pth", _use_new_zipfile_serialization=not legacy
        )
        other = small_model()
        load_weights(other, tmp_path / "all.pth")
        assert_equal_weights(other, model)


def test_a_class_that_is_not_here_has_a_placeholder(
    randomise: Randomise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self, values: list[float]) -> None:
            self.values = np.array(values)

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = package.__name__, "HistoryBuffer"
    package.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    model = randomise(small_model())
    with monkeypatch.context() as patch:
        for name in ("mmengine", "mmengine.logging", package.__name__):
            patch.setitem(sys.modules, name, package)
        torch.save({"message_hub": HistoryBuffer([1.0]), "state_dict": model.state_dict()}, tmp_path / "mm.pth")
    other = small_model()
    load_weights(other, tmp_path / "mm.pth")
    assert_equal_weights(other, model)


def test_wrappers_in_a_circle_or_without_an_end_hold_no_weights() -> None:
    circle: dict[str, Any] = {}
    circle["model"] = circle
    deep: dict[str, Any] = dict(small_model().state_dict())
    for _ in range(100):
        deep = {"model": deep}
    for content in (circle, deep):
        assert "is in no known format" in refusal(small_model(), content)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda tensor: tensor.to(torch.int8), "int8, strided, on cpu"),
        (lambda tensor: tensor.to(torch.complex64), "complex64, strided, on cpu"),
        (lambda tensor: tensor.to_sparse(), "float32, sparse_coo, on cpu"),
        (lambda tensor: tensor.to("meta"), "float32, strided, on meta"),
    ],
)
def test_weights_that_are_no_plain_floats_are_refused(change: Callable[[Tensor], Tensor], kind: str) -> None:
    state = dict(small_model().state_dict())
    state["head.bias"] = change(state["head.bias"])
    assert refusal(small_model(), state) == f"checkpoint has head.bias as {kind}; allowed: plain floats"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_precisions_are_cast(dtype: torch.dtype) -> None:
    state = {key: tensor.to(dtype) for key, tensor in small_model().state_dict().items()}
    other = small_model()
    load_weights(other, state)
    assert torch.equal(other.head.weight, state["head.weight"].float())


def test_weights_keep_the_models_dtype(randomise: Randomise) -> None:
    model = randomise(small_model())
    half = {key: tensor.half() for key, tensor in model.state_dict().items()}
    other = small_model()
    load_weights(other, half)
    assert {tensor.dtype for tensor in other.state_dict().values()} == {torch.float32}
    expected = {key: tensor.float() for key, tensor in half.items()}
    torch.testing.assert_close(dict(other.state_dict()), expected, rtol=0, atol=0)


# What does not fit.


def test_head_of_another_size_is_left_out_on_request_only(randomise: Randomise) -> None:
    state = export_weights(randomise(small_model(num_classes=1000)), "released")
    model = small_model(num_classes=10)
    for strict in (True, False):
        message = refusal(model, state, strict=strict)
        assert "head.weight is (1000, 64) in the checkpoint and (10, 64) in the model" in message
        assert "head.bias is (1000,) in the checkpoint and (10,) in the model" in message
        assert message.endswith("; a model of 1000 classes has its head (--num-classes 1000)")
    own_head = model.head.weight.clone()
    report = load_weights(model, state, skip_head=True)
    assert report.kept == report.unused == ("head.weight", "head.bias")
    assert torch.equal(model.head.weight, own_head)
    assert torch.equal(model.stages[3].norm.bias, state["norm4.bias"])


def test_head_of_the_same_size_can_be_left_out_too(randomise: Randomise) -> None:
    state = randomise(timm_model()).state_dict()
    model = small_model()
    own_head = model.head.weight.clone()
    load_weights(model, state, skip_head=True)
    assert torch.equal(model.head.weight, own_head)


def test_model_without_a_head() -> None:
    state = dict(timm_model().state_dict())
    model = small_model(num_classes=0)
    message = refusal(model, state)
    assert "head.weight is (10, 64) in the checkpoint and absent in the model" in message
    assert message.endswith("; a model of 10 classes has its head (--num-classes 10)")
    assert load_weights(model, state, skip_head=True) == LoadReport(
        format="timm's PVT v2", kept=(), unused=("head.weight", "head.bias")
    )


def test_missing_unexpected_and_misshaped_keys_are_named_with_shapes() -> None:
    state = dict(timm_model().state_dict())
    del state["stages.2.blocks.0.attn.q.weight"]
    state["stages.0.gamma"] = torch.zeros(8)
    model = small_model()
    message = refusal(model, state)
    assert message.startswith("checkpoint in timm's PVT v2 format does not fit the model, of arm v1+ope+cffn: ")
    assert "stages.2.blocks.0.attn.q.weight is absent in the checkpoint and (32, 32) in the model" in message
    assert "stages.0.gamma is (8,) in the checkpoint and absent in the model" in message
    assert "--num-classes" not in message

    report = load_weights(model, state, strict=False)
    assert report.kept == ("stages.2.blocks.0.attn.q.weight",)
    assert report.unused == ("stages.0.gamma",)
    assert torch.equal(model.stages[0].patch_embed.proj.weight, state["patch_embed.proj.weight"])

    state["stages.1.norm.weight"] = torch.zeros(17)
    assert "stages.1.norm.weight is (17,) in the checkpoint and (16,) in the model" in refusal(
        model, state, strict=False
    )


def test_half_of_a_stacked_weight_is_not_loaded() -> None:
    state = dict(PvtV2ForImageClassification(transformers_v2_config()).state_dict())
    missing = "encoder.layers.0.blocks.1.attention.value.bias"
    del state[f"pvt_v2.{missing}"]
    model = small_model()
    assert f"{missing} is absent in the checkpoint and (8,) in the model" in refusal(model, state)
    before = model.stages[0].blocks[1].attn.kv.bias.clone()
    report = load_weights(model, state, strict=False)
    assert report.kept == ("stages.0.blocks.1.attn.kv.bias",)
    assert report.unused == ("encoder.layers.0.blocks.1.attention.key.bias",)
    assert torch.equal(model.stages[0].blocks[1].attn.kv.bias, before)


def test_another_size_of_model_names_some_keys_and_counts_the_rest() -> None:
    state = dict(small_model("v1", embed_dims=(16, 16, 32, 64)).state_dict())
    message = refusal(small_model("v1"), state)
    assert (
        "stages.0.patch_embed.proj.weight is (16, 3, 4, 4) in the checkpoint and (8, 3, 4, 4) in the model" in message
    )
    changed = sum(
        one.shape != other.shape
        for one, other in zip(state.values(), small_model("v1").state_dict().values(), strict=True)
    )
    named = message.count(" in the model")
    assert 0 < named < changed
    # No way out is named: head and grid are not what is wrong.
    assert message.endswith(f"; and {changed - named} more")


def test_another_arm_is_refused_by_its_name() -> None:
    message = refusal(small_model("v1"), timm_model().state_dict())
    assert "timm's PVT v2 format does not fit the model, of arm v1: " in message
    assert "--img-size" not in message


def test_weights_of_a_known_size_are_refused_with_the_models_that_have_it() -> None:
    for variant, arm, base in (("pico", "v1+ope", "v2"), ("nano", "v1+cffn", "v1")):
        model = build_model(build_config(variant, arm, base, num_classes=10, img_size=32))
        other = build_model(build_config("b0", PVT_V2, "v2", num_classes=10, img_size=32))
        message = refusal(other, model.state_dict())
        start = "checkpoint in this project's format does not fit the model, of arm v1+ope+cffn, but has as many "
        assert message.startswith(f"{start}parameters as {variant} {arm} base={base}: ")


def test_position_embedding_of_another_grid_is_refused_with_the_way_out() -> None:
    state = export_weights(small_model("v1", img_size=64), "released")
    model = small_model("v1", img_size=96)
    for strict in (True, False):
        message = refusal(model, state, strict=strict)
        assert "pos_embed1 is (1, 256, 8) in the checkpoint and (1, 576, 8) in the model" in message
        assert "pos_embed4 is (1, 5, 64) in the checkpoint and (1, 10, 64) in the model" in message
        assert message.endswith("; a model built for the checkpoint's image size (--img-size) takes other sizes too")
    both = refusal(small_model("v1", img_size=96, num_classes=7), state)
    assert "head.weight is (10, 64)" in both
    assert "--num-classes 10" in both
    assert "--img-size" in both


VIT = {"cls_token": torch.zeros(1, 1, 8), "patch_embed.proj.weight": torch.zeros(8, 3, 16, 16)}


@pytest.mark.parametrize("state", [{}, VIT, {"model": {}}, {"head.weight": torch.zeros(10, 64)}])
def test_unknown_format_is_refused(state: dict[str, Tensor]) -> None:
    message = refusal(small_model(), state)
    assert "is in no known format; allowed: this project's" in message
    assert all(format.name in message for format in FORMATS)


# Files that are none.


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_objects_are_never_loaded(tmp_path: Path, legacy: bool) -> None:
    marker, path = tmp_path / "marker", tmp_path / "weights.pth"
    state = dict(small_model().state_dict()) | {"extra": Malicious(marker)}
    torch.save({"model": state}, path, _use_new_zipfile_serialization=not legacy)
    torch.load(path, weights_only=False)
    assert marker.exists(), "the pickle does nothing; the test would prove nothing"
    marker.unlink()
    message = refusal(small_model(), path)
    assert repr(str(path)) in message
    assert "pickled objects are never loaded" in message
    assert not marker.exists()


def test_plain_pickle_is_never_loaded(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(Malicious(marker)))
    assert "is not a file of tensors" in refusal(small_model(), path)
    assert not marker.exists()


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 13\n"


def write_half(path: Path) -> None:
    save_weights(small_model(), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_half_header(path: Path) -> None:
    path.write_bytes(safetensors.torch.save(dict(small_model().state_dict()))[:400])


def write_half_legacy(path: Path) -> None:
    torch.save(small_model().state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("absent.pth", lambda path: None, "is not a file that exists"),
        ("absent.safetensors", lambda path: None, "is not a file that exists"),
        ("folder", Path.mkdir, "is not a file that exists"),
        ("empty.pth", Path.touch, "is empty"),
        ("empty.safetensors", Path.touch, "is empty"),
        ("text.pth", lambda path: path.write_text("PVT\n"), "is not a file of tensors"),
        ("text.safetensors", lambda path: path.write_text("not eight bytes of length"), "is not a file of tensors"),
        ("bytes.pth", lambda path: path.write_bytes(bytes(range(256)) * 16), "is not a file of tensors"),
        ("half.pth", write_half, "is cut off"),
        ("half.safetensors", write_half, "is cut off"),
        ("half-header.bin", lambda path: write_half_header(path), "is cut off"),
        ("half-legacy.pth", lambda path: write_half_legacy(path), "is cut off"),
        ("pointer.safetensors", lambda path: path.write_text(POINTER), "is a pointer of Git LFS and no weights"),
        ("pointer.pth", lambda path: path.write_text(POINTER), "is a pointer of Git LFS and no weights"),
        ("page.pth", lambda path: path.write_text("<!DOCTYPE html>"), "is not a file of tensors"),
        ("object.pth", lambda path: torch.save({"a": Fraction(1, 2)}, path), "it holds a fractions.Fraction; allowed"),
    ],
)
def test_file_that_is_no_checkpoint_is_refused(
    tmp_path: Path, name: str, write: Callable[[Path], Any], message: str
) -> None:
    path = tmp_path / name
    write(path)
    refused = refusal(small_model(), path)
    assert refused.startswith(f"checkpoint {str(path)!r} ")
    assert message in refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "checkpoint is a Tensor; allowed: a state dict"),
        ([torch.zeros(3)], "checkpoint is a list; allowed: a state dict"),
        ({"model": [torch.zeros(3)]}, "checkpoint with 0 tensors (...) is in no known format; allowed: this"),
        ({"epoch": 3, "patch_embed1.proj.weight": torch.zeros(3)}, "proj.weight is (3,) in the checkpoint"),
        ({3: torch.zeros(3)}, "checkpoint with 0 tensors (...) is in no known format; allowed: this"),
    ],
)
def test_content_that_is_no_state_dict_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert message in refusal(small_model(), path)


# What cannot be exported.


@pytest.mark.parametrize(
    ("format", "arm", "base", "overrides", "message"),
    [
        *(("released", arm, "v2", {}, f"arm={arm!r} is not possible; allowed: v1, v1+ope+cffn, v1+ope+cffn+lsra in the "
           "released format") for arm in ARMS if arm not in ("v1", V2, V2_LI)),
        *(("timm", arm, "published", {}, f"arm={arm!r} is not possible; allowed: v1+ope+cffn, v1+ope+cffn+lsra in the "
           "timm format") for arm in ARMS if arm not in (V2, V2_LI)),
        ("released", "v1", "v2", {}, "position_embedding='none' is not possible; allowed: 'learned' in the released"),
        ("released", V2, "v1", {}, "position_embedding='learned' is not possible; allowed: 'none' in the released"),
        ("timm", V2, "v2", {"pooling": "class_token"}, "pooling='class_token' is not possible; allowed: 'average'"),
        ("timm", V2, "v2", {"stage_norm": "last"}, "stage_norm='last' is not possible; allowed: 'every'"),
        ("timm", V2_LI, "v2", {}, "ffn_relu=False is not possible; allowed: True in the timm format"),
        ("released", V2, "published", {"ffn_relu": True}, "ffn_relu=True is not possible; allowed: False"),
        ("released", V2_LI, "published", {"pool_size": 2}, "pool_size=2 is not possible; allowed: 7 in the released"),
        ("timm", V2, "published", {"stem_stride": 2}, "stem_stride=2 is not possible; allowed: 4 in the timm format"),
        ("onnx", V2, "published", {}, "format='onnx' is not possible; allowed: released, timm"),
    ],
)  # fmt: skip
def test_what_a_format_cannot_express_is_not_exported(
    format: str, arm: str, base: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as excinfo:
        export_weights(small_model(arm, base, **overrides), format)
    assert str(excinfo.value).startswith(message)


def test_fields_without_effect_do_not_hinder_export() -> None:
    export_weights(small_model(V2, pool_size=2, conv_init="default", qkv_bias=False), "timm")


# What weights say of themselves.

DESCRIBED: dict[str, Any] = {
    "model": {"variant": "pico", "arm": "v1+ope", "base": "v1"},
    "num_classes": 3,
    "class_names": ["ant", "b\u00e9e", "cat"],
    "data": "pets",
    "recipe": {"epochs": 2, "base_lr": 0.003, "eval_resolutions": [48]},
}


def test_weights_know_what_they_are(tmp_path: Path) -> None:
    model = build_model(build_config("pico", "v1+ope", "v1", num_classes=3, img_size=(64, 32)), seed=1).eval()
    description = DESCRIBED | {"config": as_plain(model.config)}
    path = tmp_path / "weights.safetensors"
    save_weights(model, path, description)
    assert read_description(path) == description
    loaded = load_model(path)
    assert loaded.config == model.config
    x = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(x), model(x))


def test_weights_that_do_not_know_what_they_are(tmp_path: Path) -> None:
    for name in ("weights.safetensors", "weights.pth"):
        save_weights(small_model(), tmp_path / name)
        assert read_description(tmp_path / name) == {}
        with pytest.raises(InputError, match="does not say which arm it is of"):
            load_model(tmp_path / name)
    (tmp_path / "text.safetensors").write_bytes(b"not eight bytes of length")
    assert read_description(tmp_path / "text.safetensors") == {}  # whatever its name is
    for content, message in ((b"", "is empty"), (b"\x09" + bytes(7) + b"{nothing}", "is not a file of tensors")):
        (tmp_path / "damaged.safetensors").write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_description(tmp_path / "damaged.safetensors")
    safetensors.torch.save_file({"weight": torch.zeros(1)}, tmp_path / "foreign.safetensors", {"recipe": "soup"})
    with pytest.raises(InputError, match="has metadata that are no JSON"):
        read_description(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize(
    ("arm", "format"), [("v1", "released"), (V2, "released"), (V2_LI, "released"), (V2, "timm"), (V2_LI, "timm")]
)
def test_weights_are_renamed_from_every_format_that_is_written(arm: str, format: str) -> None:
    model = small_model(arm)
    exported = {f"module.{key}": tensor for key, tensor in export_weights(model, format).items()}
    renamed = rename_weights(exported | {"more": torch.zeros(1)}, model)
    assert set(renamed) == {*model.state_dict(), "more"}
    assert all(torch.equal(renamed[key], tensor) for key, tensor in model.state_dict().items())
