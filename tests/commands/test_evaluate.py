"""The command `evaluate`: weights from elsewhere, and those that were trained here."""

import json

import pytest
import torch
from PIL import Image

from ablations.config import build_config
from ablations.model import build_model
from ablations.model.checkpoint import read_description, save_weights


@pytest.fixture
def weights_and_images(tmp_path):
    """A checkpoint of pico for two classes that always answers the second, and a folder of three images."""
    model = build_model(build_config("pico", "v1+ope+cffn", num_classes=2))
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 1.0]))
    save_weights(model, tmp_path / "pico.pth")
    for number, name in enumerate(("cat", "dog", "dog")):
        path = tmp_path / "data" / "pets" / "val" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 50), (80 * number, 9, 9)).save(path)
    return tmp_path


@pytest.mark.slow
def test_finished_weights_are_evaluated_at_several_resolutions(call, capsys, weights_and_images, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folder = weights_and_images
    command = ["evaluate", "--checkpoint", str(folder / "pico.pth"), "--variant", "pico", "--num-classes", "2"]
    where = ["--data", "pets", "--data-dir", str(folder / "data"), "--results", str(folder / "runs")]
    code, out, _ = call(capsys, *command, *where, "--resolutions", "32", "64")
    assert code == 0
    (row,) = (line for line in out.splitlines() if line.startswith("`v1+ope+cffn"))
    assert row.count("66.67") == 2
    assert "0 cells measured" in call(capsys, *command, *where, "--resolutions", "32", "64")[1]
    (record,) = (
        json.loads(path.read_text())
        for path in (folder / "runs" / "records" / "evaluation").glob("*.json")
        if json.loads(path.read_text())["conditions"]["resolution"] == 32
    )
    assert (record["result"]["n_images"], record["result"]["skipped"]) == (3, [])
    code, _, err = call(capsys, *command, *where, "--arm", "v1+ope")
    assert code == 2
    assert err.startswith("error: ")
    assert "v1+ope" in err
    code, _, err = call(capsys, *command, *where[:3], "elsewhere", *where[4:])
    assert code == 2
    assert err.startswith("error: elsewhere/pets is missing or has no class folders; allowed: ")


def read_records(results, measurement):
    return [json.loads(path.read_text()) for path in (results / "records" / measurement).glob("*.json")]


@pytest.mark.slow
def test_weights_that_were_trained_here_need_no_other_word(call, capsys, tmp_path):
    asked = "accuracy --recipe smoke --variants pico --arms v1+lsra --bases v1 --set stage_norm=every --save-weights"
    sizes = "--train-images 100 --batch-size 20 --eval-resolutions 48"
    assert call(capsys, *asked.split(), *sizes.split(), "--results", str(tmp_path))[0] == 0
    (trained,) = read_records(tmp_path, "accuracy")
    (weights,) = (tmp_path / "weights").iterdir()
    told = read_description(weights)
    assert told["model"] == {"variant": "pico", "arm": "v1+lsra", "base": "v1"}
    assert (told["config"], told["recipe"]) == (trained["config"], trained["conditions"])
    assert (told["num_classes"], told["class_names"], told["data"]) == (10, list("0123456789"), "digits")
    assert str(tmp_path).encode() not in weights.read_bytes()

    evaluate = ["evaluate", "--checkpoint", str(weights), "--results", str(tmp_path)]
    assert call(capsys, *evaluate)[0] == 0  # the data are known, too
    (record,) = read_records(tmp_path, "evaluation")
    assert record["config"] == trained["config"] | {"drop_path_rate": 0.0}
    assert (record["conditions"]["data"], record["conditions"]["resolution"]) == ("digits", 32)
    # The layout of the weights in memory decides the order of additions.
    one_image = 1 / trained["result"]["n_eval_images"]
    assert record["result"]["top1"] == pytest.approx(trained["result"]["top1"], abs=1.01 * one_image)
    assert record["result"]["loss"] == pytest.approx(trained["result"]["eval_loss"], rel=1e-4)
    again = call(capsys, *evaluate, "--data", "digits", "--resolutions", "32", "48")[1]
    assert "1 cell measured" in again
    (larger,) = (each for each in read_records(tmp_path, "evaluation") if each["conditions"]["resolution"] == 48)
    assert larger["result"]["top1"] == pytest.approx(
        trained["result"]["top1_by_resolution"]["48"], abs=1.01 * one_image
    )

    for flags, message in (
        (["--arm", "v1"], "arm='v1' is not possible; allowed: v1+lsra, which the weights in "),
        (["--base", "v2"], "base='v2' is not possible; allowed: v1, which the weights in "),
        (["--variant", "b0"], "variant='b0' is not possible; allowed: pico, which the weights in "),
        (["--arm", "PVTv2-B0"], "variant='b0' is not possible; allowed: pico, "),
        (["--num-classes", "7"], "num_classes=7 is not possible; allowed: 10, "),
        (["--img-size", "64"], "img_size=64 is not possible; allowed: 32, "),
    ):
        code, out, err = call(capsys, *evaluate, *flags)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err
    agreeing = ["--arm", "v1+lsra", "--variant", "pico", "--base", "v1", "--dry-run"]
    assert call(capsys, *evaluate, *agreeing)[1].endswith("1 cell, 1 done\n")


def test_weights_of_a_model_that_is_no_arm_are_not_evaluated(call, capsys, tmp_path):
    save_weights({"weight": torch.zeros(1)}, tmp_path / "w.safetensors", {"model": "timm:resnet18", "recipe": {}})
    code, _, err = call(capsys, "evaluate", "--checkpoint", str(tmp_path / "w.safetensors"))
    message = "checkpoint='w.safetensors' is not possible; allowed: weights of an arm; these are of timm:resnet18"
    assert (code, err) == (2, f"error: {message}\n")
