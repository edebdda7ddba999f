"""Our variants in timm's hands: built, cut, trained, saved and evaluated as its scripts do it, through its API."""

import copy
import os
import re
import sys
from argparse import Namespace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.data import Mixup, create_dataset, create_loader, resolve_data_config
from timm.layers import apply_test_time_pool
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models import group_parameters, load_checkpoint, resume_checkpoint, save_for_hf
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, CheckpointSaver, ModelEmaV3, accuracy, dispatch_clip_grad, random_seed
from torch import Tensor, nn

from ablations.config import ARMS, VARIANTS, build_config
from ablations.errors import InputError
from ablations.model import PVT, build_model, timm_registry
from ablations.model.checkpoint import export_weights, save_weights

EVERY_ARM_IN_BOTH_BASES = pytest.mark.parametrize(("arm", "base"), list(product(ARMS, ("v1", "v2"))))
BOTH_POOLINGS = pytest.mark.parametrize(("base", "pool"), [("v1", "token"), ("v2", "avg")])


def create_pico(**options: Any) -> PVT:
    torch.manual_seed(0)
    return timm.create_model("ablation_pvt_pico", **options)


def images(side: int = 32, batch_size: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(batch_size, channels, side, side, generator=torch.Generator().manual_seed(1))


# The registry.


def test_timm_lists_every_variant_and_nothing_else_of_ours() -> None:
    names = {f"ablation_pvt_{variant}" for variant in VARIANTS}
    assert set(timm.list_models("ablation_pvt*")) == names
    assert set(timm.list_models(module="timm_registry")) == names
    assert timm.list_models("ablation_pvt*", pretrained=True) == []
    assert set(timm_registry.__all__) == names
    assert all(callable(getattr(timm_registry, name)) for name in names)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_the_parameters_of_build_model(variant: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"ablation_pvt_{variant}")
        expected = build_model(build_config(variant))
    assert isinstance(model, PVT)
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (model, expected)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("variant", "side"), [("pico", 32), ("nano", 32), ("b0", 224), ("b2", 224)])
def test_pretrained_cfg_is_true_of_the_model(variant: str, side: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"ablation_pvt_{variant}")
        features = model.forward_features(torch.empty(1, *model.pretrained_cfg["input_size"]))
    cfg = model.pretrained_cfg
    assert model.default_cfg is cfg
    assert cfg["architecture"] == f"ablation_pvt_{variant}"
    assert cfg["input_size"] == (3, side, side)
    assert cfg["pool_size"] == tuple(features.shape[2:]) == (side // 32 if side == 224 else 2,) * 2
    assert (cfg["crop_pct"], cfg["interpolation"], cfg["num_classes"]) == (0.875, "bicubic", 1000)
    assert (cfg["mean"], cfg["std"]) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()
    first = model.get_submodule(cfg["first_conv"])
    assert isinstance(first, nn.Conv2d)
    assert first.in_channels == 3
    assert next(module for module in model.modules() if isinstance(module, nn.Conv2d)) is first


@pytest.mark.parametrize("img_size", [None, (100, 70)])
@EVERY_ARM_IN_BOTH_BASES
def test_default_cfgs_are_as_timm_s_own_test_wants_them(arm: str, base: str, img_size: Any) -> None:
    """timm's test of every model's default_cfg; with a class token, features are tokens, as in its ViTs."""
    options = {"arm": arm, "base": base} | ({"img_size": img_size} if img_size else {})
    model = create_pico(**options).eval()
    weights, cfg = model.state_dict(), model.default_cfg
    for name in (cfg["classifier"], cfg["first_conv"]):
        assert f"{name}.weight" in weights
    x = torch.randn(1, *cfg["input_size"])
    features = model.forward_features(x)
    assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)
    if cfg["pool_size"] is None:
        assert features.shape[-1] == model.num_features
        assert base == "v1"
    else:
        assert tuple(features.shape) == (1, model.num_features, *cfg["pool_size"])
    model.reset_classifier(0)
    assert model(x).shape == (1, model.num_features)
    model.reset_classifier(0, "")
    assert model(x).shape == features.shape
    assert create_pico(**options, num_classes=0, global_pool="").eval()(x).shape == features.shape


@EVERY_ARM_IN_BOTH_BASES
def test_weights_and_outputs_are_those_of_build_model(arm: str, base: str) -> None:
    model = create_pico(arm=arm, base=base, num_classes=7, drop_path_rate=0.3)
    torch.manual_seed(0)
    expected = build_model(build_config("pico", arm, base, num_classes=7, drop_path_rate=0.3))
    assert model.config == expected.config
    assert list(model.state_dict()) == list(expected.state_dict())
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)
    results = []
    for one in (model, expected):
        torch.manual_seed(2)
        logits = one.train()(images(48))  # with the same paths dropped
        logits.square().sum().backward()
        results.append([logits, one.eval()(images(48)), *(parameter.grad for parameter in one.parameters())])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_defaults_are_those_of_build_config() -> None:
    assert create_pico().config == build_config("pico")


def test_options_reach_the_model() -> None:
    model = create_pico(
        arm="v1", num_classes=5, in_chans=1, img_size=(64, 96), drop_rate=0.5, drop_path_rate=0.2, attention="explicit"
    )
    wanted = {"num_classes": 5, "in_chans": 1, "img_size": (64, 96), "drop_path_rate": 0.2, "attention": "explicit"}
    assert model.config == build_config("pico", "v1", **wanted)
    assert (model.num_classes, model.in_chans) == (5, 1)
    assert model(images(64, channels=1)).shape == (2, 5)
    assert model.head_drop.p == 0.5
    assert next(create_pico(dtype=torch.float64).parameters()).dtype == torch.float64
    assert next(create_pico(device="meta").parameters()).device.type == "meta"


def test_loaders_get_the_size_that_the_model_is_made_for() -> None:
    model = create_pico(img_size=64)
    config = resolve_data_config(model=model)
    assert config["input_size"] == (3, 64, 64)
    assert (config["crop_pct"], config["interpolation"]) == (0.875, "bicubic")
    assert model.pretrained_cfg["pool_size"] == (4, 4)
    assert create_pico().pretrained_cfg["input_size"] == (3, 32, 32)
    overlaid = create_pico(img_size=64, pretrained_cfg_overlay={"input_size": (3, 96, 96), "crop_pct": 1.0})
    config = resolve_data_config(model=overlaid)
    assert (config["input_size"], config["crop_pct"]) == ((3, 96, 96), 1.0)


def test_a_given_pretrained_cfg_decides_classes_and_channels() -> None:
    cfg = {"input_size": (1, 32, 32), "num_classes": 3, "classifier": "head"}
    model = create_pico(pretrained_cfg=cfg)
    assert (model.num_classes, model.in_chans) == (3, 1)
    larger = create_pico(pretrained_cfg=cfg, img_size=64)
    assert (larger.in_chans, larger.pretrained_cfg["input_size"]) == (1, (1, 64, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arm": "v1+opt"}, "arm='v1+opt' is not possible; allowed: v1, v1+ope"),
        ({"base": "v3"}, "base='v3' is not possible; allowed: published, v1, v2"),
        ({"arms": "v1"}, "option='arms' is not possible; allowed: arm, base, drop_rate, global_pool"),
        ({"linear_sra": True}, "option='linear_sra' is not possible; allowed: arm"),
        ({"drop_block_rate": 0.1}, "option='drop_block_rate' is not possible"),
        ({"drop_rate": 1.0}, "drop_rate=1.0 is not possible; allowed: 0 or more and less than 1"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0 is not possible"),
        ({"img_size": 16}, "img_size=16 is not possible; allowed: 32 to"),
        ({"num_classes": -1}, "num_classes=-1 is not possible"),
        ({"global_pool": "token"}, "global_pool='token' is not possible; allowed: 'avg'"),
        ({"global_pool": "avg", "base": "v1"}, "global_pool='avg' is not possible; allowed: 'token'"),
        ({"global_pool": ""}, "global_pool='' is not possible; allowed: 'avg'"),
        (
            {"features_only": True, "out_indices": (0, 4)},
            "indices=(0, 4) is not possible; allowed: some of 0 to 3 in a list",
        ),
        ({"features_only": True, "out_indices": 5}, "indices=5 is not possible"),
        ({"features_only": True, "out_indices": ()}, "indices=() is not possible"),
        ({"features_only": True, "feature_cls": "hook"}, "feature_cls='hook' is not possible; allowed: 'getter'"),
        ({"pretrained": True}, "pretrained=True is not possible: ablation_pvt_pico has no pretrained weights"),
    ],
)
def test_what_is_not_possible_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        create_pico(**options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


# The head.


@BOTH_POOLINGS
def test_head_can_be_left_out_replaced_and_unpooled(base: str, pool: str) -> None:
    x = images()
    model = create_pico(base=base, num_classes=10).eval()
    assert model.num_features == model.head_hidden_size == 64
    assert model.global_pool == pool
    features = model.forward_features(x)
    pooled = features[:, 0] if pool == "token" else features.mean((2, 3))
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), pooled)
    torch.testing.assert_close(model(x), pooled @ model.head.weight.T + model.head.bias)

    model.reset_classifier(0)
    assert model.num_classes == model.config.num_classes == 0
    torch.testing.assert_close(model(x), pooled)
    model.reset_classifier(0, "")
    assert torch.equal(model(x), features)
    headless = create_pico(base=base, num_classes=0, global_pool="").eval()
    headless.load_state_dict(model.state_dict())
    assert torch.equal(headless(x), features)

    with pytest.raises(InputError, match="global_pool=''"):
        model.reset_classifier(3)
    assert (model.num_classes, model.global_pool) == (0, "")
    model.double().reset_classifier(3, pool)
    head = model.get_classifier()
    assert head is model.head
    assert (head.weight.shape, head.weight.dtype) == ((3, 64), torch.float64)
    assert head.weight.std().item() == pytest.approx(0.02, rel=0.2)  # 192 numbers: four standard errors
    assert not head.bias.any()
    assert model(x.double()).shape == (2, 3)


def test_dropout_stands_before_the_head_alone() -> None:
    model = create_pico(num_classes=0, drop_rate=0.75)
    x = images()
    kept = model.eval()(x)
    dropped = model.train()(x)
    zeros = dropped == 0
    assert 64 < zeros.sum() < 128  # 96 of 128 expected, with a standard deviation of 4.9
    torch.testing.assert_close(dropped[~zeros], 4 * kept[~zeros])


def test_pooling_at_test_time_has_windows_of_the_training_map() -> None:
    model = create_pico(num_classes=4).eval()
    weight, bias = model.head.weight, model.head.bias
    x = images(64)
    features = model.forward_features(x)  # 4 x 4; in training 2 x 2
    pooled, applied = apply_test_time_pool(model, {"input_size": (3, 64, 64)})
    assert applied
    windows = [features[:, :, i : i + 2, j : j + 2].mean((2, 3)) for i, j in product(range(3), repeat=2)]
    logits = torch.stack(windows) @ weight.T + bias
    torch.testing.assert_close(pooled(x), (logits.mean(0) + logits.amax(0)) / 2)


# Maps.


@BOTH_POOLINGS
def test_features_only_gives_the_maps_of_the_stages(base: str, pool: str) -> None:
    extractor = create_pico(base=base, features_only=True).eval()
    assert extractor.feature_info.channels() == [8, 16, 32, 64]
    assert extractor.feature_info.reduction() == [2, 4, 8, 16]
    x = images(64)
    maps = extractor(x)
    assert [tuple(one.shape) for one in maps] == [(2, 8, 32, 32), (2, 16, 16, 16), (2, 32, 8, 8), (2, 64, 4, 4)]
    expected = create_pico(base=base).eval().forward_intermediates(x, intermediates_only=True)
    torch.testing.assert_close(maps, expected, rtol=0, atol=0)
    assert "classifier" not in extractor.pretrained_cfg
    # What is left is all used, which distributed training asks for.
    sum(one.sum() for one in extractor.train()(x)).backward()
    without = [name for name, parameter in extractor.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize(
    ("out_indices", "stages"), [((0,), [0]), ((2, 0), [2, 0]), ((-3,), [1]), (2, [2, 3]), ([0, 3], [0, 3])]
)
@BOTH_POOLINGS
def test_features_only_drops_the_stages_after_the_last_wanted(
    base: str, pool: str, out_indices: Any, stages: list[int]
) -> None:
    extractor = create_pico(base=base, features_only=True, out_indices=out_indices).eval()
    x = images()
    every = create_pico(base=base).eval().forward_intermediates(x, intermediates_only=True)
    torch.testing.assert_close(extractor(x), [every[stage] for stage in stages], rtol=0, atol=0)
    assert extractor.feature_info.channels() == [(8, 16, 32, 64)[stage] for stage in stages]
    left = {name.split(".")[2] for name in extractor.state_dict()}
    assert left == {str(stage) for stage in range(max(stages) + 1)}


def test_a_shortened_model_is_a_model() -> None:
    model = create_pico(base="v1").eval()
    x = images()
    second = model.forward_intermediates(x, indices=[1], intermediates_only=True)[0]
    assert model.prune_intermediate_layers([1]) == [1]
    assert torch.equal(model(x), second)
    last, maps = model.forward_intermediates(x)
    assert torch.equal(last, second)
    assert [one.shape[1] for one in maps] == [8, 16]
    assert model.num_features == 16
    model.reset_classifier(3, "avg")
    torch.testing.assert_close(model(x), second.mean((2, 3)) @ model.head.weight.T + model.head.bias)
    with pytest.raises(InputError, match=r"indices=\[2\] is not possible; allowed: some of 0 to 1 in a list"):
        model.forward_intermediates(x, indices=[2])
    with pytest.raises(InputError, match="output_fmt='NLC'"):
        model.forward_intermediates(x, output_fmt="NLC")


# Checkpointed gradients, layer decay, weight decay, the compiler.


def gradients(model: nn.Module) -> tuple[dict[str, Tensor], int]:
    """The gradients of one step, and the bytes that were kept for it beside the parameters."""
    own = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(3)
    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(images(64)).square().sum()
        forward = sum(kept.values())
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}, forward


@BOTH_POOLINGS
def test_checkpointed_gradients_are_the_same_and_keep_less(base: str, pool: str) -> None:
    model = create_pico(base=base, drop_path_rate=0.5, depths=(1, 2, 2, 1)).train()
    names = list(model.state_dict())
    plain, plain_bytes = gradients(model)
    model.set_grad_checkpointing()
    again, again_bytes = gradients(copy.deepcopy(model))
    torch.testing.assert_close(again, plain, rtol=0, atol=0)
    assert again_bytes < plain_bytes / 2
    assert list(model.state_dict()) == names
    model.set_grad_checkpointing(False)
    assert gradients(model)[1] == plain_bytes


@pytest.mark.parametrize("base", ["v1", "v2"])
def test_every_checkpointed_stage_keeps_less(base: str) -> None:
    model = create_pico(base=base, drop_path_rate=0.5, depths=(1, 2, 2, 1)).train()
    plain, kept = gradients(model)
    kept_of = {}
    for stages in ([0], [1], [2], [3], [0, 1], [1, 2, 3], []):
        model.set_grad_checkpointing(False)
        model.set_grad_checkpointing(True, stages)
        assert [stage.grad_checkpointing for stage in model.stages] == [number in stages for number in range(4)]
        again, kept_of[tuple(stages)] = gradients(model)
        torch.testing.assert_close(again, plain, rtol=0, atol=0)
    saved = {stages: kept - rest for stages, rest in kept_of.items()}
    assert all(saved[(stage,)] > 0 for stage in range(4))
    assert saved[()] == 0
    assert saved[(0, 1)] == saved[(0,)] + saved[(1,)]
    assert saved[(1, 2, 3)] == saved[(1,)] + saved[(2,)] + saved[(3,)]


def test_layers_are_the_stem_the_blocks_and_the_head() -> None:
    model = create_pico(arm="v1", base="v1", stage_norm="every", depths=(1, 2, 1, 1))
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(layers) == {name for name, _ in model.named_parameters()}
    expected = {
        "stages.0.patch_embed.proj.weight": 0,
        "stages.0.pos_embed.weight": 0,
        "stages.0.blocks.0.attn.q.weight": 1,
        "stages.0.norm.weight": 1,
        "stages.1.patch_embed.norm.bias": 2,
        "stages.1.pos_embed.weight": 2,
        "stages.1.blocks.0.mlp.fc1.weight": 2,
        "stages.1.blocks.1.mlp.fc1.weight": 3,
        "stages.1.norm.bias": 3,
        "stages.2.patch_embed.proj.weight": 4,
        "stages.2.blocks.0.norm1.weight": 4,
        "stages.3.cls_token.weight": 5,
        "stages.3.blocks.0.norm1.weight": 5,
        "stages.3.norm.weight": 5,
        "head.weight": 6,
        "head.bias": 6,
    }
    assert {name: layers[name] for name in expected} == expected
    coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert {name: coarse[name] for name in ("stages.0.patch_embed.proj.weight", "stages.0.norm.weight")} == {
        "stages.0.patch_embed.proj.weight": 0,
        "stages.0.norm.weight": 1,
    }
    assert [coarse[f"stages.{stage}.blocks.0.norm1.weight"] for stage in range(4)] == [1, 2, 3, 4]
    assert coarse["head.weight"] == 5


def test_every_later_layer_learns_faster() -> None:
    with torch.device("meta"):
        model = timm.create_model("ablation_pvt_b2")
    optimizer = create_optimizer_v2(model, "sgd", lr=1.0, weight_decay=0.05, layer_decay=0.5)
    scales = {
        name: group["lr_scale"]
        for name, parameter in model.named_parameters()
        for group in optimizer.param_groups
        if any(parameter is one for one in group["params"])
    }
    # A stem, 3 + 4 + 6 + 3 blocks, a head.
    assert sorted(set(scales.values())) == [0.5**layer for layer in range(17, -1, -1)]
    assert scales["head.weight"] == 1.0
    assert scales["stages.3.blocks.2.norm1.weight"] == 0.5
    assert scales["stages.0.patch_embed.proj.weight"] == 0.5**17


def test_weight_decay_spares_the_class_token_norms_and_biases() -> None:
    model = create_pico(arm="v1")
    optimizer = create_optimizer_v2(model, "adamw", weight_decay=0.05)
    spared = [id(one) for group in optimizer.param_groups if not group["weight_decay"] for one in group["params"]]
    names = {name for name, parameter in model.named_parameters() if id(parameter) in spared}
    assert names == {
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() == 1 or name.endswith("cls_token.weight")
    }


@pytest.mark.slow
def test_compiles_with_checkpointed_gradients() -> None:
    model = create_pico(base="v1").train()
    model.set_grad_checkpointing()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images()), model(images()))
    torch._dynamo.reset()


# Weights in files.


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_build_model_load_from_a_file(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(5)
    trained = build_model(build_config("pico", "v1+ope", "v2", num_classes=10)).eval()
    save_weights(trained, tmp_path / f"weights{suffix}")
    path = str(tmp_path / f"weights{suffix}")
    loaded = create_pico(arm="v1+ope", base="v2", num_classes=10, checkpoint_path=path).eval()
    assert torch.equal(loaded(images()), trained(images()))
    with pytest.raises(RuntimeError, match=r"size mismatch for head\.weight"):
        create_pico(arm="v1+ope", base="v2", num_classes=3, checkpoint_path=path)


def test_weights_of_another_task_are_adapted(tmp_path: Path) -> None:
    trained = create_pico(num_classes=10)
    save_weights(trained, tmp_path / "weights.pth")
    source = {"file": str(tmp_path / "weights.pth"), "num_classes": 10}
    torch.manual_seed(6)
    grey = timm.create_model(
        "ablation_pvt_pico", pretrained=True, pretrained_cfg_overlay=source, num_classes=4, in_chans=1
    )
    weights, adapted = trained.state_dict(), grey.state_dict()
    first = "stages.0.patch_embed.proj.weight"
    torch.testing.assert_close(adapted[first], weights[first].sum(1, keepdim=True))
    assert adapted["head.weight"].shape == (4, 64)
    others = [name for name in weights if name != first and not name.startswith("head.")]
    assert all(torch.equal(adapted[name], weights[name]) for name in others)
    extractor = create_pico(pretrained=True, pretrained_cfg_overlay=source, features_only=True)
    assert torch.equal(extractor.state_dict()[f"model.{first}"], weights[first])


FOREIGN = pytest.mark.parametrize(
    ("arm", "format"),
    [
        ("v1", "released"),
        ("v1+ope+cffn", "released"),
        ("v1+ope+cffn", "timm"),
        ("v1+ope+cffn+lsra", "released"),
        ("v1+ope+cffn+lsra", "timm"),
    ],
)


@FOREIGN
def test_weights_under_other_keys_load_as_ours(tmp_path: Path, arm: str, format: str) -> None:
    size = {"stem_stride": 4, "pool_size": 7, "img_size": 64}
    trained = build_model(build_config("pico", arm, "published", num_classes=10, **size), seed=5).eval()
    path = str(tmp_path / "weights.pth")
    torch.save({"state_dict": export_weights(trained, format)}, path)
    x = images(64)
    source = {"file": path, "num_classes": 10}
    for where in (
        {"checkpoint_path": path, "num_classes": 10},
        {"checkpoint_path": path, "num_classes": 10, "pretrained": True},
        {"pretrained": True, "pretrained_cfg_overlay": source},
    ):
        assert torch.equal(create_pico(arm=arm, **size, **where).eval()(x), trained(x))
    adapted = create_pico(arm=arm, **size, pretrained=True, pretrained_cfg_overlay=source, num_classes=4)
    blocks = [name for name in trained.state_dict() if not name.startswith("head.")]
    assert all(torch.equal(adapted.state_dict()[name], trained.state_dict()[name]) for name in blocks)
    with pytest.raises(RuntimeError, match=r"^Error\(s\) in loading state_dict for PVT"):
        create_pico(arm="v1+cffn", **size, num_classes=10, checkpoint_path=path)


class Trap:
    """Runs a command where it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": create_pico().state_dict(), "trap": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(RuntimeError, match="weights_only=True blocked"):
        create_pico(checkpoint_path=str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


@BOTH_POOLINGS
def test_a_saved_model_folder_makes_the_same_model(tmp_path: Path, base: str, pool: str) -> None:
    model = create_pico(arm="v1+lsra", base=base, img_size=(64, 64)).eval()
    model.reset_classifier(3)
    save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert again.config == model.config
    assert torch.equal(again(images(64)), model(images(64)))


# The scripts.


def test_the_command_of_the_docstring_lets_a_script_see_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = re.search(r'python -c "(.+)"', timm_registry.__doc__ or "")
    assert command
    (tmp_path / "script.py").write_text(
        "import argparse, json, pathlib, timm, timm.utils\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--model')\n"
        "parser.add_argument('--model-kwargs', nargs='*', default={}, action=timm.utils.ParseKwargs)\n"
        "parser.add_argument('--out')\n"
        "if __name__ == '__main__':\n"
        "    args = parser.parse_args()\n"
        "    model = timm.create_model(args.model, in_chans=3, num_classes=None, drop_rate=0.0, drop_path_rate=None,\n"
        "        drop_block_rate=None, global_pool=None, bn_momentum=None, bn_eps=None, scriptable=False,\n"
        "        checkpoint_path='', **args.model_kwargs)\n"
        "    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}\n"
        "    pathlib.Path(args.out).write_text(json.dumps(shapes))\n"
    )
    out = tmp_path / "shapes.json"
    given = ["--model", "ablation_pvt_pico", "--model-kwargs", "arm=v1+ope", "base=v1", "img_size=64", "--out"]
    monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path / "script.py"), *given, str(out)])
    exec(command[1], {})
    expected = build_model(build_config("pico", "v1+ope", "v1", img_size=64)).state_dict()
    assert out.read_text() == str({name: list(value.shape) for name, value in expected.items()}).replace("'", '"')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image folder of two classes, dark and light, that a network learns to tell in a few steps."""
    generator = torch.Generator().manual_seed(0)
    for split, (label, level) in product(("train", "validation"), enumerate((40, 180))):
        place = tmp_path / "data" / split / f"class{label}"
        place.mkdir(parents=True)
        for index in range(8):
            noise = torch.randint(60, (40, 48, 3), generator=generator)
            Image.fromarray((level + noise).to(torch.uint8).numpy()).save(place / f"{index}.png")
    return tmp_path / "data"


def evaluate(model: nn.Module, loader: Any) -> float:
    top1 = AverageMeter()
    model.eval()
    with torch.inference_mode():
        for images, labels in loader:
            top1.update(accuracy(model(images), labels, topk=(1,))[0].item(), len(labels))
    return top1.avg


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # timm's data sets leave images open
@pytest.mark.parametrize(("arm", "base"), [("v1", "v1"), ("v1+ope+cffn", "v2")])
def test_trains_resumes_and_validates_as_timms_scripts_do(tmp_path: Path, folder: Path, arm: str, base: str) -> None:
    random_seed(0)
    model = create_pico(arm=arm, base=base, num_classes=2, drop_rate=0.0, drop_path_rate=0.1)
    model.set_grad_checkpointing()
    config = resolve_data_config({}, model=model)
    options = {
        **{name: config[name] for name in ("input_size", "interpolation", "mean", "std")},
        **{"batch_size": 8, "use_prefetcher": False, "num_workers": 0, "persistent_workers": False},
        "device": torch.device("cpu"),
    }
    loader = create_loader(
        create_dataset("", root=folder, split="train", is_training=True),
        is_training=True,
        re_prob=0.25,
        **options,
    )
    validation = create_dataset("", root=folder, split="validation")
    validation = create_loader(validation, crop_pct=config["crop_pct"], **options)
    assert next(iter(validation))[0].shape == (8, 3, 32, 32)

    optimizer = create_optimizer_v2(model, "adamw", lr=3e-3, weight_decay=0.05, layer_decay=0.9)
    scheduler, epochs = create_scheduler_v2(optimizer, "cosine", num_epochs=4, warmup_epochs=1, warmup_lr=1e-4)
    assert epochs == 4
    average = ModelEmaV3(model, decay=0.5)
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=2)
    saver = CheckpointSaver(
        model, optimizer, args=Namespace(model="ablation_pvt_pico"), model_ema=average, checkpoint_dir=str(tmp_path)
    )
    updates = 0
    for epoch in range(epochs):
        mixed = epoch == 0
        loss_of = SoftTargetCrossEntropy() if mixed else LabelSmoothingCrossEntropy(0.1)
        model.train()
        for images, labels in loader:
            if mixed:
                images, labels = mixup(images, labels)
            optimizer.zero_grad()
            loss_of(model(images), labels).backward()
            dispatch_clip_grad(model.parameters(), value=1.0, mode="norm")
            optimizer.step()
            updates += 1
            average.update(model, step=updates)
            scheduler.step_update(num_updates=updates)
        scheduler.step(epoch + 1)
        saver.save_checkpoint(epoch, metric=evaluate(model, validation))
    trained = evaluate(model, validation)
    assert trained == 100.0

    last = str(tmp_path / "last.pth.tar")
    resumed = create_pico(arm=arm, base=base, num_classes=2)
    its_optimizer = create_optimizer_v2(resumed, "adamw", lr=3e-3, weight_decay=0.05, layer_decay=0.9)
    assert resume_checkpoint(resumed, last, its_optimizer, log_info=False) == epochs
    torch.testing.assert_close(resumed.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(its_optimizer.state_dict()["state"], optimizer.state_dict()["state"], rtol=0, atol=0)
    assert evaluate(resumed, validation) == trained

    load_checkpoint(resumed, last, use_ema=True)
    torch.testing.assert_close(resumed.state_dict(), average.module.state_dict(), rtol=0, atol=0)
    assert evaluate(resumed, validation) == evaluate(average, validation)
