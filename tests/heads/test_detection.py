"""The paper's detectors: whole on small images, their costs against sums worked out here and against the paper."""

from collections.abc import Callable
from math import ceil

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablations.config import build_config
from ablations.errors import InputError
from ablations.heads.detection import build_fcos, build_mask_rcnn, build_retinanet, dense_part
from ablations.measure.macs import trace_macs
from ablations.model import PVT, build_model
from ablations.paper import load_paper_table

BUILDERS = {"retinanet": build_retinanet, "fcos": build_fcos, "mask_rcnn": build_mask_rcnn}
EXTRA_LEVELS = {"retinanet": ["p6", "p7"], "fcos": ["p6", "p7"], "mask_rcnn": ["pool"]}


class PooledImage(nn.Module):
    """A backbone without parameters or MACs: the image's first channel, averaged and repeated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = [width] * 4

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [F.avg_pool2d(x[:, :1], stride, ceil_mode=True) for stride in (4, 8, 16, 32)]
        return [feature_map.repeat(1, self.channels[0], 1, 1) for feature_map in maps]


class Maps(nn.Module):
    """A PVT as a backbone."""

    def __init__(self, model: PVT) -> None:
        super().__init__()
        self.model = model
        self.channels = model.config.embed_dims

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(x, intermediates_only=True)


def pvt(variant: str, arm: str = "v1+ope+cffn", **sizes: int) -> Maps:
    return Maps(build_model(build_config(variant, arm, num_classes=0, pooling="average", **sizes)))


def small(name: str) -> nn.Module:
    """A detector that leaves images of 64 pixels as they are and reports even what it is unsure of."""
    torch.manual_seed(0)
    backbone = pvt("pico", stem_stride=4)
    detector = BUILDERS[name](backbone, backbone.channels)
    detector.transform.min_size, detector.transform.max_size = (64,), 96
    (detector.roi_heads if name == "mask_rcnn" else detector).score_thresh = 0.0
    return detector


def count_params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def conv(in_width: int, out_width: int, kernel: int = 3) -> int:
    """A convolution's parameters; a fully connected layer's with a kernel of 1."""
    return (kernel**2 * in_width + 1) * out_width


def pyramid(channels: list[int]) -> int:
    """A pyramid's parameters: for each map a lateral and an output convolution."""
    return sum(conv(channel, 256, 1) + conv(256, 256) for channel in channels)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        # Two towers of four; nine anchors, each with 80 classes and four sides.
        (
            build_retinanet,
            pyramid([7] * 3) + conv(7, 256) + 9 * conv(256, 256) + conv(256, 9 * 80) + conv(256, 9 * 4),
        ),
        # A weight and a bias of group norm beside each of the eight; 80 classes, four sides, a centerness.
        (
            build_fcos,
            pyramid([7] * 3) + 10 * conv(256, 256) + 8 * 2 * 256 + conv(256, 80) + conv(256, 4) + conv(256, 1),
        ),
        # Proposals from three anchors; boxes from two layers of 1024; masks from four convolutions and a last one
        # that is transposed. The background is the 81st class.
        (
            build_mask_rcnn,
            pyramid([7] * 4)
            + conv(256, 256)
            + conv(256, 3, 1)
            + conv(256, 3 * 4, 1)
            + conv(7 * 7 * 256, 1024, 1)
            + conv(1024, 1024, 1)
            + conv(1024, 81, 1)
            + conv(1024, 81 * 4, 1)
            + 4 * conv(256, 256)
            + conv(256, 256, 2)
            + conv(256, 81, 1),
        ),
    ],
)
def test_parameters(build: Callable[..., nn.Module], expected: int) -> None:
    backbone = PooledImage(7)
    assert count_params(build(backbone, backbone.channels)) == expected


@pytest.mark.parametrize(("build", "anchors"), [(build_retinanet, 9), (build_fcos, 1)])
@pytest.mark.parametrize("size", [(64, 96), (45, 131)])
def test_dense_part_answers_at_every_place_of_five_levels(
    build: Callable[..., nn.Module], anchors: int, size: tuple[int, int]
) -> None:
    backbone = PooledImage(7)
    detector = build(backbone, backbone.channels, num_classes=5)
    part = dense_part(detector)
    assert part.head is detector.head
    assert part.backbone is detector.backbone
    levels = [(ceil(size[0] / stride), ceil(size[1] / stride)) for stride in (8, 16, 32, 64, 128)]
    places = [height * width for height, width in levels]
    with torch.no_grad():
        outputs = part(torch.randn(2, 3, *size))
    assert outputs["cls_logits"].shape == (2, anchors * sum(places), 5)
    assert outputs["bbox_regression"].shape == (2, anchors * sum(places), 4)
    outputs_per_place = anchors * (5 + 4) + (1 if build is build_fcos else 0)
    head = (8 * 256 + outputs_per_place) * 9 * 256 * sum(places)
    lateral = (7 + 9 * 256) * 256 * sum(places[:3])
    extra = 9 * ((7 if build is build_retinanet else 256) * places[3] + 256 * places[4]) * 256
    assert trace_macs(part, (2, 3, *size)).total == 2 * (head + lateral + extra)


def test_only_one_stage_has_a_dense_part() -> None:
    backbone = PooledImage(7)
    with pytest.raises(InputError, match="MaskRCNN has no dense part; allowed: RetinaNet, FCOS"):
        dense_part(build_mask_rcnn(backbone, backbone.channels))


@pytest.mark.parametrize("channels", [[7] * 3, [7] * 5, [7, 7, 7, 0]])
@pytest.mark.parametrize("build", BUILDERS.values())
def test_channels_that_are_not_four_widths_are_refused(build: Callable[..., nn.Module], channels: list[int]) -> None:
    with pytest.raises(InputError, match="channels="):
        build(PooledImage(7), channels)


@pytest.mark.parametrize("width", [7, 256])
def test_p6_is_made_of_c5_in_retinanet_and_of_p5_in_fcos(width: int) -> None:
    backbone = PooledImage(width)
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        retinanet = build_retinanet(backbone, backbone.channels).backbone
        torch.testing.assert_close(retinanet(image)["p6"], retinanet.fpn.extra_blocks.p6(backbone(image)[3]))
        fcos = build_fcos(backbone, backbone.channels).backbone
        torch.testing.assert_close(fcos(image)["p6"], fcos.fpn.extra_blocks.p6(fcos(image)["2"]))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "mask_rcnn")) for name in BUILDERS]
)
def test_detections_in_a_image(name: str) -> None:
    detector = small(name).eval()
    with torch.no_grad():
        (found,) = detector([torch.rand(3, 64, 80)])
    boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
    assert 0 < len(boxes) <= 100
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([80, 64, 80, 64])).all()
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    assert ((scores > 0) & (scores < 1)).all()
    first = 1 if name == "mask_rcnn" else 0  # 0 is the background there
    assert ((labels >= first) & (labels < first + 80)).all()
    if name == "mask_rcnn":
        assert found["masks"].shape == (len(boxes), 1, 64, 80)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "mask_rcnn")) for name in BUILDERS]
)
def test_a_training_step_reaches_every_parameter(name: str) -> None:
    detector = small(name).train()
    target = {
        "boxes": torch.tensor([[4.0, 8.0, 36.0, 40.0], [0.0, 0.0, 79.0, 63.0]]),
        "labels": torch.tensor([7, 79]),
        "masks": torch.ones(2, 64, 80, dtype=torch.uint8),
    }
    losses = detector([torch.rand(3, 64, 80)], [target])
    assert {"retinanet": 2, "fcos": 3, "mask_rcnn": 5}[name] == len(losses)
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert [path for path, parameter in detector.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", BUILDERS)
def test_levels_of_the_pyramid(name: str) -> None:
    maps = small(name).backbone(torch.randn(1, 3, 64, 64))
    finest = 4 if name == "mask_rcnn" else 8
    assert list(maps)[len(maps) - len(EXTRA_LEVELS[name]) :] == EXTRA_LEVELS[name]
    assert [tuple(level.shape) for level in maps.values()] == [
        (1, 256, ceil(64 / (finest * 2**i)), ceil(64 / (finest * 2**i))) for i in range(5)
    ]


@pytest.mark.parametrize("row", load_paper_table("table6_ablation").to_dict("records"), ids=lambda row: row["setting"])
def test_table_6(row: dict) -> None:
    changes = [short for short in ("ope", "cffn", "lsra") if row[short]]
    with torch.device("meta"):
        backbone = pvt("b2", "+".join(["v1", *changes]))
        detector = build_retinanet(backbone, backbone.channels)
    # The paper's counter also takes biases, norms and ReLUs, which are less than 0.4 % here.
    assert count_params(detector) / 1e6 == pytest.approx(row["retinanet_params_m"], abs=0.05)
    macs = trace_macs(dense_part(detector), (1, 3, 800, 1280)).total
    assert macs / 1e9 == pytest.approx(row["retinanet_gflops_1280x800"], rel=0.004)


def test_table_4_resnet50() -> None:
    with torch.device("meta"):
        backbone = timm.create_model("resnet50", features_only=True, out_indices=(1, 2, 3, 4))
        detector = build_fcos(backbone, backbone.feature_info.channels())
    row = load_paper_table("table4_detectors").query("detector == 'ATSS' and backbone == 'ResNet50'").iloc[0]
    assert trace_macs(dense_part(detector), (1, 3, 800, 1280)).total / 1e9 == pytest.approx(
        row["gflops_1280x800"], rel=0.004
    )


def test_table_3_leaves_out_what_mmdetection_freezes() -> None:
    with torch.device("meta"):
        backbone = timm.create_model("resnet50", features_only=True, out_indices=(1, 2, 3, 4))
        frozen = sum(count_params(backbone[name]) for name in ("conv1", "bn1", "layer1"))
        detectors = [build(backbone, backbone.feature_info.channels()) for build in (build_retinanet, build_mask_rcnn)]
    row = load_paper_table("table3_coco").set_index("backbone").loc["ResNet50"]
    reported = [row["retinanet_params_m"], row["maskrcnn_params_m"]]
    assert [round((count_params(detector) - frozen) / 1e6, 1) for detector in detectors] == reported
