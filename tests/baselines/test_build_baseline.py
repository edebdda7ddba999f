"""Models by name: from timm, from transformers, of this project, and from a user's file."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from ablations.baselines.build import CVT_DEPTHS, OWN, build_baseline, build_baseline_backbone, check_baseline
from ablations.baselines.registry import ARMS_OF_LIBRARIES, EQUAL_MODELS
from ablations.config import build_config
from ablations.cost import count_macs, count_params
from ablations.errors import InputError
from ablations.measure.macs import trace_macs

CONV = "from torch import nn\ndef build():\n    return nn.Conv2d(3, 4, 5)\n"


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build_baseline(name)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def refusal(name: str) -> str:
    """What is said of a model that cannot be built: one line."""
    with pytest.raises(InputError) as caught:
        on_meta(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_of_timm_s_takes_timm_s_options() -> None:
    plain, small = on_meta("timm:resnet18"), on_meta("timm:resnet18?num_classes=7,output_stride=16,stem_type=deep")
    assert (plain.num_classes, small.num_classes) == (1000, 7)
    assert plain.fc.out_features == 1000
    assert isinstance(plain.conv1, nn.Conv2d)
    assert isinstance(small.conv1, nn.Sequential)  # a word that is no literal is text
    maps = [model.forward_features(torch.empty(1, 3, 64, 64, device="meta")).shape[2:] for model in (plain, small)]
    assert maps == [(2, 2), (4, 4)]


def test_a_dynamic_model_takes_other_sizes() -> None:
    name = "timm:vit_small_patch32_224"
    assert on_meta(f"{name}?dynamic_img_size=True")(torch.empty(1, 3, 96, 64, device="meta")).shape == (1, 1000)
    with pytest.raises(AssertionError, match="height"):
        on_meta(name)(torch.empty(1, 3, 96, 64, device="meta"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet18?nonsense=3", "model='timm:resnet18' cannot be built with {'nonsense': 3}: TypeError: "),
        ("timm:resnet18?num_classes", "model options='num_classes' is not possible; allowed: name=value, "),
        ("timm:resnet18?=3", "model options='=3' is not possible; allowed: name=value"),
        ("timm:resnet18?output_stride=7", "model='timm:resnet18' cannot be built with {'output_stride': 7}: Assert"),
        ("transformers:cvt-12", "model='cvt-12' is not possible; allowed: cvt-13, cvt-21, pvt_b0, pvt_b1, pvt_b2,"),
        (
            "baselines:cpvt_t",
            "model='cpvt_t' is not possible; allowed: t2t_vit_t_14, t2t_vit_t_19, t2t_vit_t_24, cpvt_ti,",
        ),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(name: str, message: str) -> None:
    assert refusal(name).startswith(message)


def test_an_unknown_name_of_timm_s_lists_the_nearest_and_how_many_there_are() -> None:
    many = len(timm.list_models())
    assert many > 500
    expected = f"model='resnet81' is not possible; allowed: one of {many} names; nearest: "
    assert refusal("timm:resnet81").startswith(expected)
    assert "resnet18" in refusal("timm:resnet81").removeprefix(expected).split(", ")
    assert refusal("timm:!").endswith(f"one of {many} names; nearest: none")


@pytest.mark.parametrize("name", ["timm:resnet81", "transformers:cvt-12", "baselines:cpvt_t"])
def test_unknown_names_are_found_before_anything_is_built(name: str) -> None:
    with pytest.raises(InputError, match="model="):
        check_baseline(name)


@pytest.mark.parametrize(
    "name", ["timm:resnet18?num_classes=2", "transformers:cvt-13", "baselines:cpvt_ti", "my.py:build"]
)
def test_known_names_pass(name: str) -> None:
    check_baseline(name)


@pytest.mark.parametrize(("name", "blocks"), [("cvt-13", 13), ("cvt-21", 21)])
def test_cvt_has_as_many_blocks_as_its_name_says_and_a_classifier(name: str, blocks: int) -> None:
    assert sum(CVT_DEPTHS[name]) == blocks
    model = on_meta(f"transformers:{name}")
    assert sum(type(module).__name__ == "CvtLayer" for module in model.modules()) == blocks
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 1000)


@pytest.mark.parametrize("library", EQUAL_MODELS)
@pytest.mark.slow
def test_the_equal_models_of_libraries_are_equal_in_size(library: str) -> None:
    assert {arm for _, arm in EQUAL_MODELS[library]} == set(ARMS_OF_LIBRARIES[library])
    for (variant, arm), name in EQUAL_MODELS[library].items():
        check_baseline(name)
        if variant not in ("b0", "b2"):
            continue
        config = build_config(variant, arm)
        model = on_meta(name)
        assert parameters(model) == count_params(config)
        assert trace_macs(model, (1, 3, 224, 224)).total == count_macs(config, 224)
        assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)


def test_a_pvt_of_transformers_that_nobody_has_is_refused() -> None:
    assert refusal("transformers:pvt_v2_b6").startswith("model='pvt_v2_b6' is not possible; allowed: cvt-13")


@pytest.mark.slow
def test_baselines_of_this_project() -> None:
    assert set(OWN) == {
        *("t2t_vit_t_14", "t2t_vit_t_19", "t2t_vit_t_24", "cpvt_ti", "cpvt_s", "localvit_t", "localvit_s")
    }
    for name, builder in OWN.items():
        model = on_meta(f"baselines:{name}")
        assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)
        with torch.device("meta"):
            module, _, function = builder.partition(":")
        assert type(model) is type(getattr(import_module(module), function)())


def test_models_are_built_where_the_default_device_is() -> None:
    devices = {p.device.type for name in ("timm:resnet18", "baselines:cpvt_ti") for p in on_meta(name).parameters()}
    assert devices == {"meta"}


def write(folder: Path, text: str) -> str:
    """A user's file with that text; returns the name of the model that its `build` returns."""
    path = folder / "mine.py"
    path.write_text(text)
    return f"{path}:build"


def test_a_user_s_function_returns_the_model(tmp_path: Path) -> None:
    model = on_meta(write(tmp_path, CONV))
    assert isinstance(model, nn.Conv2d)
    assert parameters(model) == 3 * 4 * 5 * 5 + 4
    assert model.weight.device.type == "cpu"  # it may compute something from its weights
    assert parameters(build_baseline(write(tmp_path, CONV.replace("4, 5", "40, 5")))) == 40 * (3 * 5 * 5 + 1)


def test_a_user_s_class_is_a_function_too(tmp_path: Path) -> None:
    text = "from torch import nn\nclass build(nn.Conv2d):\n    def __init__(self):\n        super().__init__(3, 2, 1)\n"
    assert parameters(on_meta(write(tmp_path, text))) == 2 * 3 + 2


def test_a_user_s_file_imports_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("WIDTH = 6\n")
    name = write(tmp_path, "import neighbour_of_mine\n" + CONV.replace("4, 5", "neighbour_of_mine.WIDTH, 5"))
    assert parameters(on_meta(name)) == 6 * (3 * 5 * 5 + 1)


def test_a_user_s_file_may_have_dataclasses_with_postponed_annotations(tmp_path: Path) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    text += "@dataclass\nclass Shape:\n    width: int = 9\n" + CONV.replace("4, 5", "Shape().width, 5")
    assert parameters(on_meta(write(tmp_path, text))) == 9 * (3 * 5 * 5 + 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def build():\n    return 3\n", "returns a int; allowed: a torch.nn.Module"),
        ("def build():\n    return None\n", "returns a NoneType; allowed: a torch.nn.Module"),
        ("def build():\n    raise RuntimeError('no\\nluck')\n", "cannot be built: RuntimeError: no"),
        ("def build(depth):\n    return depth\n", "cannot be built: TypeError: build() missing 1 required positional"),
        ("import no_such_module\n", "cannot be built: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def build(:\n", "cannot be built: SyntaxError: "),
        ("1 / 0\n", "cannot be built: ZeroDivisionError: division by zero"),
    ],
    ids=str,
)
def test_a_user_s_file_that_gives_no_model(tmp_path: Path, text: str, message: str) -> None:
    name = write(tmp_path, text)
    said = refusal(name)
    assert said.startswith(f"model={name!r} {message}")


def test_a_model_in_the_place_of_a_function(tmp_path: Path) -> None:
    name = write(tmp_path, f"{CONV}build = build()\n")
    path = name.rpartition(":")[0]
    assert refusal(name) == f"function of {path}: build is a Conv2d; allowed: a function that returns it"


def test_a_file_that_leaves_python_is_refused(tmp_path: Path) -> None:
    name = write(tmp_path, "import sys\nsys.exit(7)\n")
    assert refusal(name) == f"model={name!r} cannot be built: SystemExit: 7"


def test_neighbours_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    widths = []
    for width in (4, 8):
        folder = tmp_path / str(width)
        folder.mkdir()
        (folder / "layers.py").write_text(f"from torch import nn\ndef layer(): return nn.Linear(3, {width})\n")
        (folder / "mine.py").write_text("def build():\n    import layers\n    return layers.layer()\n")
        widths.append(build_baseline(f"{folder}/mine.py:build").out_features)
    assert widths == [4, 8]
    assert "layers" not in sys.modules


def test_a_function_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    name = write(tmp_path, "build = 3\ndef built(): ...\ndef other(): ...\ndef _private(): ...\n")
    path = name.rpartition(":")[0]
    expected = f"function of {path}='build' is not possible; allowed: built, other (did you mean 'built'?)"
    assert refusal(name) == expected
    assert refusal(f"{path}:").startswith(f"function of {path}='' is not possible; allowed: built, other")


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("timm:resnet18", (64, 128, 256, 512)),
        ("timm:swin_tiny_patch4_window7_224?dynamic_img_size=True", (96, 192, 384, 768)),
    ],
)
def test_a_backbone_gives_four_maps(name: str, widths: tuple[int, ...]) -> None:
    with torch.device("meta"):
        backbone, channels = build_baseline_backbone(name)
        maps = backbone.eval()(torch.empty(2, 3, 224, 448))
    assert channels == widths
    assert [tuple(each.shape) for each in maps] == [
        (2, width, 224 // stride, 448 // stride) for width, stride in zip(widths, (4, 8, 16, 32), strict=True)
    ]


def test_a_backbone_has_no_classifier() -> None:
    with torch.device("meta"):
        backbone, _ = build_baseline_backbone("timm:resnet18")
    classifier = 512 * 1000 + 1000
    assert parameters(backbone) == parameters(on_meta("timm:resnet18")) - classifier


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:vit_small_patch16_224", "allowed: one with maps at strides (4, 8, 16, 32); this one's are (16,)"),
        (
            "baselines:cpvt_ti",
            "allowed: timm:NAME, FILE.py:FUNCTION or an arm: other heads than the classifier stand on those alone",
        ),
        ("timm:tiny_vit_21m_224?nonsense=1", "cannot be built with {'features_only': True, 'nonsense': 1}: TypeError"),
    ],
)
def test_what_has_no_such_maps_is_refused(name: str, message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError) as caught:
        build_baseline_backbone(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


MAPS = """
from torch import nn

class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = (3, 4, 4, 4), (4, 6, 2, 2), (6, 8, 2, 2), (8, 10, {last}, {last})
        self.convs = nn.ModuleList(nn.Conv2d(*each) for each in sizes)

    def forward(self, x):
        maps = []
        for conv in self.convs:
            x = conv(x)
            maps.append(x)
        return maps

def build():
    return Maps()
"""


def test_a_users_own_backbone_takes_a_head_if_it_has_the_maps(tmp_path: Path) -> None:
    backbone, channels = build_baseline_backbone(write(tmp_path, MAPS.format(last=2)))
    assert channels == (4, 6, 8, 10)
    assert [tuple(each.shape) for each in backbone(torch.zeros(1, 3, 64, 32))] == [
        (1, 4, 16, 8),
        (1, 6, 8, 4),
        (1, 8, 4, 2),
        (1, 10, 2, 1),
    ]


def test_a_users_own_backbone_without_the_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at strides \(4, 8, 16, 32\); at 256 px this one's are .*\(1, 10, 4, 4\)"):
        build_baseline_backbone(write(tmp_path, MAPS.format(last=4)))
    with pytest.raises(InputError, match=r"at 256 px this one's are \[\(4, 252, 252\)\]"):
        build_baseline_backbone(write(tmp_path, CONV))
    with pytest.raises(InputError, match="gives no maps: TypeError"):
        build_baseline_backbone(write(tmp_path, CONV.replace("nn.Conv2d(3, 4, 5)", "nn.Bilinear(3, 3, 3)")))
