"""Equal pairs: which there are, that they give the same numbers, and that unequal ones are found out.

In float64 nothing but rounding can hide: another LayerNorm eps makes 5e-6, a weight that is not loaded far more.
"""

from contextlib import nullcontext
from functools import cache
from typing import Any, cast

import pytest
import timm.models.pvt_v2
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ablations.baselines.equal import build_equal, check_equal, check_has_baseline
from ablations.baselines.registry import ARMS_OF_LIBRARIES
from ablations.config import ARMS, AttentionKernel, PVTConfig, build_config
from ablations.errors import InputError
from ablations.measure.predict import predict_peak_memory
from ablations.model import PVT, build_model
from ablations.model.pvt import DropPath

V2 = "v1+ope+cffn"
V2_LI = "v1+ope+cffn+lsra"

V1_SIZES = {"stem_stride": 4, "img_size": 64}


def build_random(config: PVTConfig) -> PVT:
    """A model of which no weight is 0 or 1, as fresh norms, biases and tokens are."""
    model = build_model(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("library", ARMS_OF_LIBRARIES)
def test_the_arms_that_each_library_has(library: str) -> None:
    expected = {"timm": {V2, V2_LI}, "transformers": {"v1", V2, V2_LI}}[library]
    assert set(ARMS_OF_LIBRARIES[library]) == expected
    for variant in ("b0", "b2", "b5"):
        for arm in ARMS:
            refusal = nullcontext() if arm in expected else pytest.raises(InputError, match="arm=")
            with refusal:
                check_has_baseline(build_config(variant, arm), library, 224)


PAIRS: list[tuple[str, str, str, dict[str, Any], tuple[int, int]]] = [
    *(
        (library, variant, arm, {}, (64, 96))
        for library in ARMS_OF_LIBRARIES
        for variant, arm in (("nano", V2), ("pico", V2_LI))
    ),
    *((library, "b0", V2_LI, {"num_classes": 10}, (64, 64)) for library in ARMS_OF_LIBRARIES),
    ("timm", "pico", V2, {"stem_stride": 4, "in_chans": 1, "qkv_bias": False}, (97, 70)),
    ("transformers", "pico", V2, {"stem_stride": 3, "in_chans": 1, "qkv_bias": False}, (97, 70)),
    ("transformers", "pico", V2_LI, {"pool_size": 7, "attention": "explicit"}, (64, 64)),
    ("transformers", "nano", "v1", V1_SIZES, (64, 64)),
    ("transformers", "pico", "v1", {"stem_stride": 4, "img_size": 70, "num_classes": 0}, (70, 70)),
]


@pytest.mark.parametrize(("library", "variant", "arm", "overrides", "size"), PAIRS)
def test_a_pair_gives_the_same_numbers(
    library: str, variant: str, arm: str, overrides: dict[str, Any], size: tuple[int, int]
) -> None:
    own = build_random(build_config(variant, arm, **overrides))
    shape = (2, own.config.in_chans, *size)
    assert check_equal(own, build_equal(own, library), shape) <= 1e-5
    own.double()
    baseline = build_equal(own, library)
    assert check_equal(own, baseline, shape) <= 1e-12
    assert baseline(torch.zeros(shape).double()).shape == (2, own.config.num_classes or own.config.embed_dims[-1])


@pytest.mark.parametrize(("library", "arm"), [("timm", V2), ("transformers", V2_LI), ("transformers", "v1")])
def test_a_pair_trains_alike(library: str, arm: str) -> None:
    sizes = V1_SIZES if arm == "v1" else {}
    own = build_random(build_config("pico", arm, num_classes=5, **sizes)).double()
    baseline = build_equal(own, library)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    losses: list[list[float]] = []
    for model in (own, baseline):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses.append([])
        for _ in range(3):
            loss = nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 4]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    # The baseline learned by itself: its weights are copies.
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert losses[0][0] != pytest.approx(losses[0][-1], rel=1e-3)


@pytest.mark.parametrize(("library", "arm"), [("timm", V2), ("transformers", V2), ("transformers", "v1")])
def test_a_baseline_drops_as_many_paths(library: str, arm: str) -> None:
    own = build_model(build_config("nano", arm, drop_path_rate=0.3, stem_stride=4))
    baseline = build_equal(own, library)
    rates = [module.rate for module in own.modules() if isinstance(module, DropPath)]
    assert rates[::2] == rates[1::2]  # one for each of a block's two branches
    # So has timm; transformers has one for both. Neither has one of rate 0.
    theirs = [module.drop_prob for module in baseline.modules() if type(module).__name__.endswith("DropPath")]
    assert theirs[:: 2 if library == "timm" else 1] == pytest.approx(rates[2::2])


@pytest.mark.parametrize("library", ARMS_OF_LIBRARIES)
def test_a_baseline_takes_its_models_mode_and_dtype(library: str) -> None:
    own = build_model(build_config("pico", V2))
    assert build_equal(own, library).training
    baseline = build_equal(own.double().eval(), library)
    assert not any(module.training for module in baseline.modules())
    assert {parameter.dtype for parameter in baseline.parameters()} == {torch.float64}


@pytest.mark.parametrize("library", ARMS_OF_LIBRARIES)
def test_shapes_alone_are_enough(library: str) -> None:
    with torch.device("meta"):
        own = build_model(build_config("nano", V2_LI, drop_path_rate=0.1))
        baseline = build_equal(own, library)
        counts = []
        for model in (own, baseline):
            with FlopCounterMode(display=False) as counter:
                assert model(torch.empty(1, 3, 64, 64)).shape == (1, 1000)
            counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("own_attention", ["fused", "explicit"])
def test_timm_attends_by_its_faster_way(own_attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm.models.pvt_v2, "use_fused_attn", lambda: False)
    fused = nn.functional.scaled_dot_product_attention
    calls = []

    def attend(*args: Tensor, **options: Any) -> Tensor:
        calls.append(args)
        return fused(*args, **options)

    own = build_model(build_config("pico", V2, attention=own_attention))
    baselines = {library: build_equal(own, library) for library in ARMS_OF_LIBRARIES}
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attend)
    baselines["transformers"](torch.zeros(1, 3, 32, 32))
    assert len(calls) == 0
    baselines["timm"](torch.zeros(1, 3, 32, 32))
    assert len(calls) == sum(own.config.depths)


@pytest.mark.parametrize("library", ARMS_OF_LIBRARIES)
def test_channels_last_changes_the_layout_alone(library: str) -> None:
    own = build_random(build_config("pico", V2))
    for channels_last in (False, True):
        baseline = build_equal(own, library, channels_last=channels_last)
        dense = [module.weight for module in baseline.modules() if isinstance(module, nn.Conv2d) and module.groups == 1]
        assert {weight.is_contiguous(memory_format=torch.channels_last) for weight in dense} == {channels_last}
        assert check_equal(own, baseline, (2, 3, 64, 64)) <= 1e-5


class Multiple(nn.Module):
    """Gives its images back, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def test_the_difference_is_of_the_baselines_largest() -> None:
    assert check_equal(Multiple(2.0), Multiple(2.0), (1, 3, 8, 8)) == 0
    assert check_equal(Multiple(2.0 + 1e-4), Multiple(2.0), (1, 3, 8, 8)) == pytest.approx(5e-5)


@pytest.mark.parametrize("factor", [1.0002, -1.0, 0.0, float("nan"), float("inf")])
def test_another_models_numbers_are_found_out(factor: float) -> None:
    with pytest.raises(RuntimeError, match="outputs differ"):
        check_equal(Multiple(factor), Multiple(1.0), (1, 3, 8, 8))


def test_one_changed_weight_is_found_out() -> None:
    own = build_random(build_config("pico", V2))
    baseline = build_equal(own, "timm")
    with torch.no_grad():
        own.stages[0].blocks[0].attn.norm.bias[0] += 1.0
    with pytest.raises(RuntimeError, match="outputs differ"):
        check_equal(own, baseline, (1, 3, 64, 64))


def test_outputs_of_another_shape_are_found_out() -> None:
    with pytest.raises(RuntimeError, match="outputs are"):
        check_equal(Multiple(1.0), nn.Sequential(Multiple(1.0), nn.Flatten()), (1, 3, 8, 8))


@pytest.mark.parametrize(
    ("library", "config", "resolution", "message"),
    [
        ("jax", build_config("b0", V2), 224, "library='jax' .* timm, transformers"),
        ("timm", build_config("b0", "v1"), 224, r"arm='v1' .* v1\+ope\+cffn, v1\+ope\+cffn\+lsra, which timm has"),
        ("transformers", build_config("b0", "v1+lsra"), 224, r"arm='v1\+lsra' .* v1, v1\+ope\+cffn"),
        ("timm", build_config("b0", V2_LI, "v2"), 224, "ffn_relu=False .* True beside timm"),
        ("timm", build_config("b0", V2, pooling="class_token"), 224, "pooling='class_token' .* 'average'"),
        ("transformers", build_config("b0", V2, "v1"), 224, "position_embedding='learned' .* 'none'"),
        ("transformers", build_config("b0", "v1", "v2"), 224, "position_embedding='none' .* 'learned'"),
        ("transformers", build_config("b0", "v1"), 256, "resolution=256 .* 224 beside transformers"),
        ("transformers", build_config("b0", "v1"), (224, 256), r"resolution=\(224, 256\) .* 224"),
        ("transformers", build_config("b0", "v1", img_size=(64, 96)), (64, 96), r"img_size=\(64, 96\) .* a square"),
        ("transformers", build_config("nano", "v1"), 32, "stem_stride=2 .* 4 beside transformers"),
        ("timm", build_config("b0", V2), 16, "resolution=16 .* 32 to"),
    ],
)
def test_what_has_no_baseline_is_refused(library: str, config: PVTConfig, resolution: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_has_baseline(config, library, resolution)


def test_nothing_is_built_that_has_no_baseline() -> None:
    with pytest.raises(InputError, match="arm='v1'"):
        build_equal(build_model(build_config("pico", "v1")), "timm")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize(
    ("library", "arm"), [(library, arm) for library, arms in ARMS_OF_LIBRARIES.items() for arm in arms]
)
def test_ours_needs_no_more_memory_than_its_baseline(library: str, arm: str, mode: str, device: str) -> None:
    with torch.device("meta"):
        own = build_model(build_config("pico", arm, stem_stride=4, img_size=128))
        baseline = build_equal(own, library).to("meta")
    peaks = [
        predict_peak_memory(
            model, (2, 3, 128, 128), mode=mode, precision="float32", device=device, channels_last=model is own
        )["peak_memory_bytes"]
        for model in (own, baseline)
    ]
    assert peaks[0] <= peaks[1]


STEPS = 100

FAST: dict[str, Any] = {"library": None, "attention": "fused", "channels_last": True, "fused_optimizer": True}
PLAIN: dict[str, Any] = {"attention": "explicit", "channels_last": False, "fused_optimizer": False}


@cache
def loss_curve(
    arm: str, library: str | None, attention: AttentionKernel, channels_last: bool, fused_optimizer: bool
) -> list[float]:
    """The losses of 100 steps of pico at 32 px, in float64: images, labels and first weights are always the same."""
    torch.manual_seed(0)
    config = build_config("pico", arm, num_classes=10, attention=attention)
    model: nn.Module = build_model(config).double()
    batches = torch.randn(STEPS, 2, 3, 32, 32, dtype=torch.float64)
    labels = torch.randint(10, (STEPS, 2))
    if library:
        model = build_equal(cast(PVT, model), library)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.train().to(memory_format=layout)
    # With foreach off, too, it is the loop over parameters that the other two are faster ways of.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused_optimizer, foreach=False)
    losses = []
    for images, truth in zip(batches, labels, strict=True):
        loss = F.cross_entropy(model(images.contiguous(memory_format=layout)), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("arm", "other"),
    [
        *((V2, {name: value}) for name, value in PLAIN.items()),
        (V2, {"library": "timm"}),
        (V2_LI, PLAIN),
    ],
)
@pytest.mark.slow
def test_the_fast_and_the_plain_path_train_alike_for_a_hundred_steps(arm: str, other: dict[str, Any]) -> None:
    fast = loss_curve(arm, **FAST)
    assert fast[0] != pytest.approx(fast[-1], rel=1e-3)  # it did learn something
    # Rounding, 1e-16 in one step, grows in a hundred, for AdamW divides by the size of gradients however small.
    assert loss_curve(arm, **FAST | other) == pytest.approx(fast, rel=1e-6)
