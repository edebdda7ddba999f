"""The same weights give the same numbers as timm's PVT v2 and transformers' PVT v1 and v2.

Float32 numbers may differ by 1e-5 of the largest: the order of sums differs, and the difference was 2e-6 at most. The
float64 runs allow 1e-12, so that nothing but rounding can hide: LayerNorm's other eps, 1e-6 for 1e-5, makes 5e-6.
"""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import PvtConfig, PvtForImageClassification, PvtV2Config, PvtV2ForImageClassification

from ablations.config import build_config
from ablations.model import build_model
from ablations.model.checkpoint import load_weights

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}

V2 = "v1+ope+cffn"
V2_LI = "v1+ope+cffn+lsra"

Randomise = Callable[[nn.Module], nn.Module]


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """The largest difference is rounding, against the largest number."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert (actual - expected).abs().max() <= TOLERANCE[actual.dtype] * expected.abs().max()


def images(size: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)


@torch.no_grad()
def assert_like_timm(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    features, maps = ours.forward_intermediates(x)
    their_features, their_maps = theirs.forward_intermediates(x)
    for one, other in zip(maps, their_maps, strict=True):
        assert_close(one, other)
    assert_close(features, their_features)
    assert_close(ours.forward_head(features), theirs.forward_head(their_features))


@pytest.mark.parametrize(
    ("name", "variant", "arm", "attention"),
    [
        *(("pvt_v2_b0", "b0", V2, attention) for attention in ("fused", "explicit")),
        ("pvt_v2_b2_li", "b2", V2_LI, "fused"),
        pytest.param("pvt_v2_b2_li", "b2", V2_LI, "explicit", marks=pytest.mark.slow),
        *(
            pytest.param("pvt_v2_b2", "b2", V2, attention, marks=pytest.mark.slow)
            for attention in ("fused", "explicit")
        ),
    ],
)
def test_v2_gives_timms_numbers(randomise: Randomise, name: str, variant: str, arm: str, attention: str) -> None:
    theirs = randomise(timm.create_model(name))
    ours = build_model(build_config(variant, arm, attention=attention)).eval()
    load_weights(ours, theirs.state_dict())
    for size in ((224, 224), (160, 256), (97, 130), (32, 32)):
        assert_like_timm(ours, theirs, images(size))
    assert_like_timm(ours.double(), theirs.double(), images((64, 97), torch.float64))


@torch.no_grad()
def test_methods_return_what_timms_do(randomise: Randomise) -> None:
    theirs = randomise(timm.create_model("pvt_v2_b0"))
    ours = build_model(build_config("b0", V2)).eval()
    load_weights(ours, theirs.state_dict())
    x = images((256, 320))
    assert_close(ours(x), theirs(x))
    features = ours.forward_features(x)
    assert_close(features, theirs.forward_features(x))
    assert_close(ours.forward_head(features, pre_logits=True), theirs.forward_head(features, pre_logits=True))
    for indices in (None, [1, 3], [-1], 2):
        maps = ours.forward_intermediates(x, indices=indices, intermediates_only=True)
        their_maps = theirs.forward_intermediates(x, indices=indices, intermediates_only=True)
        for one, other in zip(maps, their_maps, strict=True):
            assert_close(one, other)


def set_released_eps(model: nn.Module) -> nn.Module:
    """Gives transformers' model the released code's eps, 1e-5, in patch embedding and after the spatial reduction."""
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) and ("patch_embedding" in name or ".attention." in name):
            module.eps = 1e-5
    return model


@pytest.mark.parametrize("attention", ["fused", pytest.param("explicit", marks=pytest.mark.slow)])
@pytest.mark.parametrize("arm", [V2, V2_LI])
def test_v2_gives_transformers_numbers(randomise: Randomise, arm: str, attention: str) -> None:
    # PvtV2Config's defaults are b0.
    reference = PvtV2ForImageClassification(PvtV2Config(linear_attention=arm == V2_LI, num_labels=1000))
    theirs = set_released_eps(randomise(reference))
    ours = build_model(build_config("b0", arm, attention=attention)).eval()
    load_weights(ours, theirs.state_dict())
    for size, dtype in (
        ((224, 224), torch.float32),
        ((256, 320), torch.float32),
        ((97, 130), torch.float32),
        ((97, 130), torch.float64),
    ):
        x = images(size, dtype)
        with torch.no_grad():
            output = theirs.to(dtype)(x, output_hidden_states=True)
            assert_close(ours.to(dtype)(x), output.logits)
            maps = ours.forward_intermediates(x, intermediates_only=True)
        for one, other in zip(maps, output.hidden_states, strict=True):
            assert_close(one, other)


@pytest.mark.parametrize("attention", ["fused", pytest.param("explicit", marks=pytest.mark.slow)])
def test_v1_gives_transformers_numbers_at_224(randomise: Randomise, attention: str) -> None:
    # PvtConfig's defaults are tiny; 224 is the only size where transformers' position embeddings work.
    theirs = set_released_eps(randomise(PvtForImageClassification(PvtConfig(num_labels=1000))))
    ours = build_model(build_config("tiny", "v1", attention=attention)).eval()
    load_weights(ours, theirs.state_dict())
    for dtype in (torch.float32, torch.float64):
        x = images((224, 224), dtype)
        with torch.no_grad():
            output = theirs.to(dtype)(x, output_hidden_states=True)
            features = ours.to(dtype).forward_features(x)
            assert_close(features, output.hidden_states[-1])
            assert_close(ours.forward_head(features), output.logits)


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "variant", "arm", "params"),
    [
        ("pvt_v2_b0", "b0", V2, 3_666_760),
        ("pvt_v2_b1", "b1", V2, 14_009_000),
        ("pvt_v2_b2", "b2", V2, 25_362_856),
        ("pvt_v2_b3", "b3", V2, 45_238_696),
        ("pvt_v2_b4", "b4", V2, 62_556_072),
        ("pvt_v2_b5", "b5", V2, 81_956_008),
        ("pvt_v2_b2_li", "b2", V2_LI, 22_553_512),
    ],
)
def test_v2_has_timms_parameters(name: str, variant: str, arm: str, params: int) -> None:
    with torch.device("meta"):
        ours, theirs = build_model(build_config(variant, arm)), timm.create_model(name)
    assert count_parameters(ours) == count_parameters(theirs) == params


@pytest.mark.parametrize(
    ("variant", "depths", "params"),
    [
        ("tiny", [2, 2, 2, 2], 13_229_288),
        ("small", [3, 4, 6, 3], 24_485_864),
        ("medium", [3, 4, 18, 3], 44_208_104),
        ("large", [3, 8, 27, 3], 61_369_320),
    ],
)
def test_v1_has_transformers_parameters(variant: str, depths: list[int], params: int) -> None:
    with torch.device("meta"):
        ours = build_model(build_config(variant, "v1"))
        theirs = PvtForImageClassification(PvtConfig(depths=depths, num_labels=1000))
    assert count_parameters(ours) == count_parameters(theirs) == params
