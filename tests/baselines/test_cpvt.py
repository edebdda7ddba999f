"""CPVT: has the published size, and knows positions by its generator alone."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from ablations.baselines.cpvt import CPVT, cpvt_s, cpvt_ti
from ablations.measure.macs import trace_macs

EVERY_MODEL = pytest.mark.parametrize(
    ("build", "deit", "dim"), [(cpvt_ti, "deit_tiny_patch16_224", 192), (cpvt_s, "deit_small_patch16_224", 384)]
)

# Parameters in M: the paper's table of models. Later papers' tables (Wu et al., below, and CSWin's) report 23 for S,
# which no count gives: 21.98 M; with a generator after each of the first five blocks 21.99 M.
PUBLISHED_PARAMETERS = {"cpvt_ti": 6, "cpvt_s": 22}
# MACs in G: Wu et al., "Rethinking and Improving Relative Position Encoding for Vision Transformer" (2021),
# Table 5: 1,262 M and 4,616 M with several generators, 1 M and 3 M over DeiT's, by a counter that gives DeiT 0.6 %
# and 0.3 % more than convolutions and matrix products. CSWin's tables (Dong et al., 2021) report 4.6 G for S.
PUBLISHED_MACS = {"cpvt_ti": 1.3, "cpvt_s": 4.6}

Build = Callable[..., CPVT]
Photographs = Callable[..., Tensor]


def on_meta(build: Callable[..., nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def shuffled_patches(images: Tensor, order: Tensor) -> Tensor:
    """The images with their patches of 16 x 16 px in another order."""
    patches = nn.functional.unfold(images, kernel_size=16, stride=16)[:, :, order]
    return nn.functional.fold(patches, images.shape[2:], kernel_size=16, stride=16)


@EVERY_MODEL
def test_parameters_are_the_published(build: Build, deit: str, dim: int) -> None:
    count = count_parameters(on_meta(build))
    embedding, generator = 197 * dim, 9 * dim + dim  # the paper leaves the generator's bias out: 1,728 for Ti
    assert count == count_parameters(on_meta(lambda: timm.create_model(deit))) - embedding + generator
    assert round(count / 1e6) == PUBLISHED_PARAMETERS[build.__name__]


@EVERY_MODEL
def test_macs_are_the_published(build: Build, deit: str, dim: int) -> None:
    shape = (1, 3, 224, 224)
    traced = trace_macs(on_meta(build), shape).total
    of_deit = trace_macs(on_meta(lambda: timm.create_model(deit)), shape).total
    assert traced == of_deit + 14 * 14 * 9 * dim  # 0.34 M for Ti, as the paper says
    assert round(traced / 1e9, 1) == PUBLISHED_MACS[build.__name__]


def test_only_the_generator_knows_where_a_patch_is(photographs: Photographs) -> None:
    torch.manual_seed(0)
    model = cpvt_ti(num_classes=5).double().eval()
    images = photographs(96, 64).double()
    shuffled = shuffled_patches(images, torch.randperm(24))
    with torch.no_grad():
        change = (model(images) - model(shuffled)).abs().max()
        for parameter in model.position.parameters():
            parameter.zero_()
        change_without = (model(images) - model(shuffled)).abs().max()
    assert change > 1e-6
    assert change_without < 1e-12


def test_the_generator_stands_after_the_first_block_and_the_class_token_passes_by(photographs: Photographs) -> None:
    torch.manual_seed(0)
    model, order, seen = cpvt_ti(num_classes=5), [], {}

    def record(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple, output: Tensor) -> None:
            order.append(name)
            seen[name] = (inputs[0], output.clone())  # the residual is added to the convolution's own output

        return hook

    parts = {"first block": model.first_block, "generator": model.position, "conv": model.position.conv.proj}
    for name, module in {**parts, "second block": model.blocks[0]}.items():
        module.register_forward_hook(record(name))
    with torch.no_grad():
        model(photographs())
    assert order == ["first block", "conv", "generator", "second block"]
    before, after = seen["generator"]
    assert before.shape == (2, 197, 192)
    assert torch.equal(before[:, 0], after[:, 0])
    feature_map, encoding = seen["conv"]
    assert feature_map.shape == (2, 192, 14, 14)
    expected = before[:, 1:] + encoding.flatten(2).transpose(1, 2)
    torch.testing.assert_close(after[:, 1:], expected)
