"""From cells to networks: every head on an arm and on a model of timm's, and what of it a trace can count."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ablations.baselines.build import build_baseline
from ablations.cells import Cell, arm_cell, build_cell
from ablations.cost import count_macs, count_params
from ablations.errors import InputError
from ablations.files import file_digest
from ablations.heads.detection import build_fcos, build_mask_rcnn, build_retinanet
from ablations.heads.segmentation import SemanticFPN
from ablations.measure import Accuracy, Cost, Memory
from ablations.measure.cost import Head
from ablations.measure.macs import trace_macs
from ablations.measure.measurement import Setting
from ablations.measure.network import HEADS, StageMaps, build_network, check_builds, load_initial, traceable_part
from ablations.model import PVT, build_model
from ablations.model.checkpoint import save_weights

PICO = "pvt:pico/v1+ope+cffn/v2"
RESNET = "timm:resnet18"
WIDTHS = {PICO: (8, 16, 32, 64), RESNET: (64, 128, 256, 512)}
STRIDES = {PICO: (2, 4, 8, 16), RESNET: (4, 8, 16, 32)}


def on_meta(cell: Cell) -> nn.Module:
    with torch.device("meta"):
        return build_network(cell).eval()


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def dense_part(model: str, head: Head) -> nn.Module:
    part = traceable_part(on_meta(build_cell(model, Cost(head=head))), head)
    assert part is not None
    return part


@pytest.mark.parametrize("model", WIDTHS)
@pytest.mark.parametrize(("head", "anchors"), [("retinanet", 9), ("fcos", 1)])
def test_a_detector_answers_at_every_place_of_five_levels(model: str, head: Head, anchors: int) -> None:
    answers = dense_part(model, head)(torch.empty(2, 3, 128, 64, device="meta"))
    strides = [*STRIDES[model][1:], 2 * STRIDES[model][3], 4 * STRIDES[model][3]]
    places = sum(-(-128 // stride) * -(-64 // stride) for stride in strides)
    assert answers["cls_logits"].shape == (2, anchors * places, 80)
    assert answers["bbox_regression"].shape == (2, anchors * places, 4)


@pytest.mark.parametrize("model", WIDTHS)
def test_semantic_fpn_answers_for_every_pixel(model: str) -> None:
    logits = dense_part(model, "semantic_fpn")(torch.empty(2, 3, 128, 64, device="meta"))
    assert logits.shape == (2, 150, 128, 64)


@pytest.mark.parametrize("model", [PICO, RESNET])
def test_a_classifier_is_traced_whole(model: str) -> None:
    network = on_meta(build_cell(model, Cost()))
    assert traceable_part(network, "classifier") is network
    assert network(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 1000)


@pytest.mark.parametrize("arm", ["v1", "v1+ope+cffn+lsra"])
@pytest.mark.parametrize("base", ["v1", "v2"])
def test_a_retinanet_is_its_backbone_and_what_stands_on_it(arm: str, base: str) -> None:
    cell = arm_cell(variant="pico", arm=arm, base=base, conditions=Cost(head="retinanet", resolution=64))
    network = on_meta(cell)
    widths = WIDTHS[PICO][1:]
    conv = 256 * 9 * 256 + 256
    laterals = sum(width * 256 + 256 for width in widths) + 3 * conv
    extra = (64 * 9 * 256 + 256) + conv  # P6 from C5, P7 from P6
    towers = 8 * conv + 9 * (80 + 4) * (256 * 9 + 1)
    assert parameters(network) == count_params(cell.config) + laterals + extra + towers

    places = [16**2, 8**2, 4**2, 2**2, 1]  # of levels 3 to 7: pico's stem has stride 2
    lateral_macs = sum(place * (width + 9 * 256) * 256 for place, width in zip(places, widths, strict=False))
    extra_macs = 9 * 256 * (64 * places[3] + 256 * places[4])
    tower_macs = sum(places) * 9 * 256 * (8 * 256 + 9 * (80 + 4))
    part = traceable_part(network, "retinanet")
    assert part is not None
    assert trace_macs(part, (1, 3, 64, 64)).total == (
        count_macs(cell.config, 64) + lateral_macs + extra_macs + tower_macs
    )


@pytest.mark.parametrize("head", HEADS)
def test_an_arm_and_its_head_have_no_parameters_beside_their_own(head: Head) -> None:
    builders = {
        "retinanet": build_retinanet,
        "fcos": build_fcos,
        "mask_rcnn": build_mask_rcnn,
        "semantic_fpn": SemanticFPN,
    }
    cell = arm_cell(variant="pico", arm="v1+cffn", base="v1", conditions=Cost(head=head))
    with torch.device("meta"):
        alone = builders[head](nn.Identity(), WIDTHS[PICO])
    assert parameters(on_meta(cell)) == count_params(cell.config) + parameters(alone)


@pytest.mark.parametrize("model", WIDTHS)
def test_no_size_decides_the_work_of_a_mask_rcnn(model: str) -> None:
    network = on_meta(build_cell(model, Cost(head="mask_rcnn")))
    with torch.device("meta"):
        assert parameters(network) > parameters(build_mask_rcnn(nn.Identity(), WIDTHS[model]))
    assert traceable_part(network, "mask_rcnn") is None


def test_an_arm_as_a_backbone_gives_the_maps_of_its_stages() -> None:
    cell = arm_cell(variant="b2", arm="v1", base="v1", conditions=Cost(head="fcos"))
    network = on_meta(cell)
    (stages,) = [module for module in network.modules() if isinstance(module, StageMaps)]
    maps = stages(torch.empty(2, 3, 64, 96, device="meta"))
    widths = (64, 128, 320, 512)
    assert [tuple(each.shape) for each in maps] == [
        (2, width, 64 // stride, 96 // stride) for width, stride in zip(widths, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(("conditions", "classes"), [(Memory(), 1000), (Accuracy(num_classes=7), 7), (Cost(), 1000)])
def test_all_but_a_cost_with_a_head_measures_the_classifier(conditions: Accuracy | Memory | Cost, classes: int) -> None:
    network = on_meta(arm_cell(variant="pico", arm="v1", base="v2", conditions=conditions))
    assert isinstance(network, PVT)
    assert network.config.num_classes == classes


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("model", ["baselines:cpvt_ti", "transformers:cvt-13"])
def test_a_head_needs_maps(head: Head, model: str) -> None:
    with pytest.raises(
        InputError, match=f"model='{model}' is not possible; allowed: timm:NAME, FILE.py:FUNCTION or an arm"
    ):
        on_meta(build_cell(model, Cost(head=head)))


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_a_baseline_that_is_trained_has_the_classes_and_the_drop_path_of_the_conditions(rate: float) -> None:
    cell = build_cell("timm:resnet18", Accuracy(num_classes=7, drop_path_rate=rate))
    network = build_network(cell)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    dropped = [module.drop_prob for module in network.modules() if type(module).__name__ == "DropPath"]
    assert max(dropped, default=0.0) == rate


def test_trying_a_baseline_draws_nothing_so_its_weights_are_the_seed_s() -> None:
    cell = build_cell("timm:resnet18", Accuracy())
    torch.manual_seed(3)
    network = build_network(cell)
    after = torch.rand(1)
    torch.manual_seed(3)
    alone = build_baseline("timm:resnet18", num_classes=10)
    assert torch.equal(after, torch.rand(1))
    for one, other in zip(network.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "baselines:cpvt_ti",
            r"model='baselines:cpvt_ti' is not possible; allowed: one that returns \(B, 10\) logits in "
            r"evaluation, not \(2, 1000\)",
        ),
        (
            "timm:vit_tiny_patch16_224",
            "resolution=32 is not possible; allowed: a size that timm:vit_tiny_patch16_224 takes",
        ),
    ],
)
def test_a_baseline_that_cannot_be_trained_on_the_data_is_refused(model: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_network(build_cell(model, Accuracy()))
    assert "\n" not in str(caught.value)


def from_file(tmp_path: Path, expression: str, forward: str = "return self.net(x)") -> str:
    """Writes a file whose model runs a module on images; returns the model's name."""
    text = f"""
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = {expression}

    def forward(self, x):
        {forward}

def build():
    return Net()
"""
    (tmp_path / "mine.py").write_text(text)
    return f"{tmp_path / 'mine.py'}:build"


POOLED = "nn.Sequential(nn.Conv2d({}, 8, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))"


def count(name: str, resolution: int = 64) -> dict[str, Any]:
    cell = build_cell(name, Cost(resolution=resolution))
    check_builds([cell])
    return cell.conditions.run(cell, None)


@pytest.mark.parametrize(("channels", "in_chans"), [(3, 3), (1, 1), (4, 4)])
def test_a_files_model_is_asked_for_its_channels(tmp_path: Path, channels: int, in_chans: int) -> None:
    assert count(from_file(tmp_path, POOLED.format(channels)))["macs"] == 16 * 16 * 16 * in_chans * 8 + 80


def test_timms_models_are_told_their_channels() -> None:
    one, three = (count(f"timm:resnet18?in_chans={channels}")["macs"] for channels in (1, 3))
    assert three - one == 2 * 32 * 32 * 49 * 64


@pytest.mark.parametrize("resolution", [32, 64])
def test_lazy_layers_are_made_for_the_size(tmp_path: Path, resolution: int) -> None:
    lazy = "nn.Sequential(nn.LazyConv2d(8, 4, 4), nn.Flatten(), nn.LazyLinear(10))"
    counted = count(from_file(tmp_path, lazy), resolution)
    places = (resolution // 4) ** 2
    assert (counted["macs"], counted["params"]) == (places * (48 * 8 + 80), 48 * 8 + 8 + places * 80 + 10)


def test_a_size_is_refused_only_where_the_model_takes_another(tmp_path: Path) -> None:
    name = from_file(tmp_path, POOLED.format(3), "assert x.shape[-1] == 96, 'no'\n        return self.net(x)")
    assert count(name, 96)["macs"] > 0
    assert count(name, 64)["refused"] == "AssertionError: no"
    broken = from_file(tmp_path, POOLED.format(3), "raise ValueError('a bug')")
    with pytest.raises(ValueError, match="a bug"):
        count(broken)


def test_a_backbone_begins_from_no_other_file_than_the_record_names(dense_cell, tmp_path):
    file = tmp_path / "c.safetensors"
    save_weights(build_model(arm_cell("pico", "v1+cffn", "v2", Accuracy()).arm_config, seed=1), file)
    digest = file_digest(file)
    cell = dense_cell("detection", arm="v1+cffn", init=digest)
    model = build_model(cell.arm_config)
    assert load_initial(model, cell, Setting(weights=file))["sha256"] == digest
    save_weights(build_model(arm_cell("pico", "v1+cffn", "v2", Accuracy()).arm_config, seed=2), file)
    with pytest.raises(InputError, match=r"c.safetensors' was replaced by another while it was loaded"):
        load_initial(model, cell, Setting(weights=file))
