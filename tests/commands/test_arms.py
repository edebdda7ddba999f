"""Which arms and models a command is about: published models by their names, and names for people."""

import json

import pytest
import torch

from ablations import cli


def models_of(*arguments):
    """Returns the variant, the arm and the base of each cell of a command, each once."""
    cells = cli.parse(list(arguments)).cells()
    return list(dict.fromkeys((cell.model.variant, cell.model.arm, cell.model.base) for cell in cells))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("PVTv1-Small", ("b2", "v1", "published")),
        ("PVTv1-Large", ("b4", "v1", "published")),
        ("PVTv2-B0", ("b0", "v1+ope+cffn", "published")),
        ("PVTv2-B2-Li", ("b2", "v1+ope+cffn+lsra", "published")),
        ("pvt_v2_b5_li", ("b5", "v1+ope+cffn+lsra", "published")),
    ],
)
def test_a_published_model_names_variant_arm_and_base(name, model):
    for command in (["cost"], ["memory", "--predict"], ["speed"], ["accuracy"]):
        assert models_of(*command, "--arms", name) == [model]
    assert models_of("cost", "--model", name) == [model]
    assert models_of("cost", "--arms", name, "--variants", model[0], "--bases", "published") == [model]


def test_published_models_stand_beside_arms():
    assert models_of("cost", "--arms", "v1+ope", "PVTv2-B0", "PVTv1-Tiny", "v1") == [
        ("b2", "v1+ope", "v2"),
        ("b2", "v1", "v2"),
        ("b0", "v1+ope+cffn", "published"),
        ("b1", "v1", "published"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "PVTv2-B2", "--variants", "b0"], "variants=('b0',) is not possible; allowed: none beside PVTv2-B2"),
        (["--arms", "PVTv2-B2", "--bases", "v2"], "bases=('v2',) is not possible; allowed: none beside PVTv2-B2"),
        (["--arms", "PVTv2-B2", "--set", "stage_norm=last"], "set=('stage_norm=last',) is not possible"),
        (["--arms", "v2"], "v2 names a base; PVT v2 is arm v1+ope+cffn, PVT v2-Li arm v1+ope+cffn+lsra"),
        (["--arms", "v2+lsra"], "arm='v2+lsra' is not possible: v2 names a base"),
    ],
)
def test_what_a_published_model_s_name_fixes_is_not_chosen_beside_it(call, capsys, arguments, message):
    code, out, err = call(capsys, "cost", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_one_base_is_every_command_s_default(tmp_path):
    torch.save({}, tmp_path / "w.pth")
    evaluate = ["evaluate", "--checkpoint", str(tmp_path / "w.pth")]
    for command in (["cost", "--variants", "b2"], ["memory"], ["speed"], ["accuracy"], evaluate):
        assert {base for _, _, base in models_of(*command)} == {"v2"}
    assert cli.parse(["benchmark-count"]).model.base == "v2"


def test_a_model_of_one_s_own_has_a_name_for_people(call, capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from torch import nn\ndef build():\n    return nn.Conv2d(3, 1000, 10)\n")
    asked = ["cost", "--model", f"{path}:build", "--resolutions", "64", "--results", str(tmp_path / "out")]
    code, out, _ = call(capsys, *asked, "--label", "Mine (wide)")
    assert (code, "Mine (wide)" in out, "mine.py" in out) == (0, True, False)
    (record,) = (json.loads(file.read_text()) for file in (tmp_path / "out" / "records" / "cost").iterdir())
    assert record["model"] == "Mine (wide)"
    assert len(record["file_sha256"]) == 64
    texts = [file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert not any(str(tmp_path).encode() in text for text in texts)
    for labels, message in (
        (["one", "two"], "label=('one', 'two') is not possible; allowed: 1 names, one for each FILE.py:FUNCTION"),
        (["PVTv2-B2"], "label='PVTv2-B2' is not possible; allowed: up to 40 letters"),
        (["timm:resnet18"], "label='timm:resnet18' is not possible"),
        (["a|b"], "label='a|b' is not possible"),
    ):
        code, _, err = call(capsys, *asked, "--label", *labels)
        assert (code, message in err) == (2, True)
