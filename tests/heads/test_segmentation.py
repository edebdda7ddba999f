"""Semantic FPN: whole on small images, and its cost against sums worked out here and against the paper's Table 5."""

from collections.abc import Callable
from math import ceil

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablations.config import build_config
from ablations.errors import InputError
from ablations.heads.segmentation import SemanticFPN
from ablations.measure.macs import trace_macs
from ablations.model import build_model
from ablations.paper import load_paper_table

STRIDES = (4, 8, 16, 32)
CONVS = (1, 1, 2, 3)  # of each level on its way to stride 4


class PooledImage(nn.Module):
    """A backbone without parameters or MACs: the image itself, averaged."""

    channels = (3, 3, 3, 3)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(x, stride, ceil_mode=True) for stride in STRIDES]


class Maps(nn.Module):
    """A PVT as a backbone."""

    def __init__(self, variant: str, arm: str, **sizes: int) -> None:
        super().__init__()
        self.model = build_model(build_config(variant, arm, num_classes=0, pooling="average", **sizes))
        self.channels = self.model.config.embed_dims

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(x, intermediates_only=True)


def count_params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters() -> None:
    laterals = 4 * ((3 + 1) * 256 + (9 * 256 + 1) * 256)
    # A level's first convolution takes 256 channels, the others 128; each has a norm and no bias.
    branches = 4 * 9 * 256 * 128 + (sum(CONVS) - 4) * 9 * 128 * 128 + sum(CONVS) * 2 * 128
    assert count_params(SemanticFPN(PooledImage(), PooledImage.channels)) == laterals + branches + (128 + 1) * 150


@pytest.mark.parametrize("size", [(64, 96), (45, 71)])
def test_macs(size: tuple[int, int]) -> None:
    places = [ceil(size[0] / stride) * ceil(size[1] / stride) for stride in STRIDES]
    laterals = (3 + 9 * 256) * 256 * sum(places)
    # The second convolution of stride 16 is at stride 8, the two later ones of stride 32 at 16 and 8.
    branches = 9 * 128 * (256 * sum(places) + 128 * (places[1] + places[2] + places[1]))
    expected = laterals + branches + 128 * 150 * places[0]
    assert trace_macs(SemanticFPN(PooledImage(), PooledImage.channels), (2, 3, *size)).total == 2 * expected


def test_every_level_climbs_to_stride_4_by_the_sizes_of_the_levels_between() -> None:
    network = SemanticFPN(PooledImage(), PooledImage.channels)
    seen: list[list[tuple[int, ...]]] = [[] for _ in STRIDES]

    def note(level: int) -> Callable[..., None]:
        return lambda module, inputs, output: seen[level].append(tuple(output.shape[2:]))

    for level, branch in enumerate(network.branches):
        for conv in branch.convs:
            conv.register_forward_hook(note(level))
        branch.register_forward_hook(note(level))
    with torch.no_grad():
        network(torch.randn(1, 3, 45, 71))
    p2, p3, p4, p5 = (12, 18), (6, 9), (3, 5), (2, 3)
    assert seen == [[p2, p2], [p3, p2], [p4, p3, p2], [p5, p4, p3, p2]]


def test_levels_are_summed() -> None:
    network = SemanticFPN(PooledImage(), PooledImage.channels, num_classes=4).eval()
    image = torch.randn(1, 3, 64, 64)

    def logits_of(*levels: int) -> Tensor:
        with torch.no_grad():
            for level, branch in enumerate(network.branches):
                norm = branch.convs[-1][1]
                norm.weight.fill_(level in levels)  # a ReLU comes after it: 0 is silence
            return network(image) - network.head.bias[:, None, None]

    alone = [logits_of(level) for level in range(4)]
    assert all(logits.abs().max() > 1e-3 for logits in alone)
    torch.testing.assert_close(logits_of(0, 1, 2, 3), sum(alone))


@pytest.mark.parametrize("arm", ["v1", "v1+ope+cffn", "v1+ope+cffn+lsra"])
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (45, 71)])
def test_logits_have_the_image_s_size(arm: str, size: tuple[int, int]) -> None:
    backbone = Maps("pico", arm, stem_stride=4)
    network = SemanticFPN(backbone, backbone.channels, num_classes=6).eval()
    with torch.no_grad():
        logits = network(torch.rand(2, 3, *size))
    assert logits.shape == (2, 6, *size)
    assert logits.isfinite().all()


def test_a_training_step_reaches_every_parameter() -> None:
    backbone = Maps("pico", "v1+ope+cffn", stem_stride=4)
    network = SemanticFPN(backbone, backbone.channels, num_classes=6).train()
    loss = F.cross_entropy(network(torch.rand(1, 3, 32, 64)), torch.randint(6, (1, 32, 64)))
    loss.backward()
    assert [path for path, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("channels", [(3, 3, 3), (3, 3, 3, 3, 3), (3, 3, 3, 0)])
def test_channels_that_are_not_four_widths_are_refused(channels: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="channels="):
        SemanticFPN(PooledImage(), channels)


@pytest.mark.parametrize(
    ("name", "variant", "arm"),
    [
        ("PVTv1-Small", "small", "v1"),
        ("PVTv2-B2", "b2", "v1+ope+cffn"),
        ("PVTv2-B2-Li", "b2", "v1+ope+cffn+lsra"),
    ],
)
def test_table_5(name: str, variant: str, arm: str) -> None:
    with torch.device("meta"):
        backbone = Maps(variant, arm)
        network = SemanticFPN(backbone, backbone.channels)
    check_table_5(name, network)


@pytest.mark.parametrize(("name", "model"), [("ResNet18", "resnet18"), ("ResNet50", "resnet50")])
def test_table_5_has_resnets_with_a_stem_of_three_convolutions(name: str, model: str) -> None:
    def build(**stem: str | int) -> SemanticFPN:
        with torch.device("meta"):
            backbone = timm.create_model(model, features_only=True, out_indices=(1, 2, 3, 4), **stem)
            return SemanticFPN(backbone, backbone.feature_info.channels())

    deep = build(stem_type="deep", stem_width=32)
    check_table_5(name, deep)
    # At 256 x 256: three 3x3 convolutions, to 32, 32 and 64 channels, in the place of a 7x7 one to 64.
    added = 9 * (3 * 32 + 32 * 32 + 32 * 64) - 49 * 3 * 64
    shape = (1, 3, 512, 512)
    assert trace_macs(deep, shape).total - trace_macs(build(), shape).total == 256**2 * added


def check_table_5(name: str, network: SemanticFPN) -> None:
    row = load_paper_table("table5_ade20k").set_index("backbone").loc[name]
    assert count_params(network) / 1e6 == pytest.approx(row["params_m"], abs=0.06)
    # The paper's counter also takes biases, norms and ReLUs, which are less than 0.5 % here.
    assert trace_macs(network, (1, 3, 512, 512)).total / 1e9 == pytest.approx(row["gflops_512"], rel=0.005)
