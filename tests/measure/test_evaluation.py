"""Measurement `evaluation` by its command: which weights a file of others' is taken for, and what is said of it."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from ablations import cli
from ablations import model as model_module
from ablations.cells import arm_cell
from ablations.config import PVTConfig, build_config
from ablations.errors import InputError
from ablations.measure import Evaluation
from ablations.measure.measurement import Setting
from ablations.model import build_model
from ablations.model.pvt import PVT
from ablations.records import load_records

Evaluate = Callable[..., tuple[int, str]]


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture) -> Evaluate:
    """`evaluate(content, *flags)` evaluates what a file holds, of two classes; returns the exit code and stderr."""
    for place in ("cat", "dog"):
        (tmp_path / "pets/val" / place).mkdir(parents=True)
        Image.effect_noise((40, 40), 90).save(tmp_path / "pets/val" / place / "0.png")

    def call(content: object, *flags: str) -> tuple[int, str]:
        torch.save(content, tmp_path / "weights.pth")
        where = ["--checkpoint", str(tmp_path / "weights.pth"), "--data-dir", str(tmp_path), "--data", "pets"]
        how = ["--variant", "pico", "--resolutions", "32", "--results", str(tmp_path / "runs"), *flags]
        code = cli.main(["evaluate", *where, *how])
        return code, capsys.readouterr().err

    return call


def two_classes(bias: float) -> dict[str, torch.Tensor]:
    """Weights of a PVT v2 that takes every image for a dog if the bias is positive, else for a cat."""
    model = build_model(build_config("pico", "v1+ope+cffn", num_classes=2))
    torch.nn.init.constant_(model.head.bias, 0)
    model.head.bias.data[1] = 100 * bias
    return model.state_dict()


@pytest.mark.slow
def test_the_average_is_taken_and_said_and_the_raw_weights_on_request(evaluate: Evaluate, tmp_path: Path) -> None:
    content = {"state_dict": two_classes(-1), "state_dict_ema": two_classes(1)}
    code, said = evaluate(content, "--num-classes", "2")
    assert code == 0
    assert "note: weights.pth: took state_dict_ema, and not state_dict; see --raw-weights\n" in said
    code, said = evaluate(content, "--num-classes", "2", "--raw-weights")
    assert code == 0
    assert "note: weights.pth: took state_dict, and not state_dict_ema; see --raw-weights\n" in said
    assert sorted(load_records(tmp_path / "runs")["raw_weights"]) == [False, True]


def test_one_set_of_weights_needs_no_word(evaluate: Evaluate) -> None:
    code, said = evaluate({"model": two_classes(1)}, "--num-classes", "2")
    assert (code, "note:" in said) == (0, False)


def test_a_head_of_other_classes_names_the_flag_and_no_python_argument(evaluate: Evaluate) -> None:
    code, said = evaluate({"model": two_classes(1)}, "--num-classes", "5")
    assert code == 2
    assert said.endswith("; a model of 2 classes has its head (--num-classes 2)\n")
    assert said.count("\n") == 1
    assert "=True" not in said


def test_weights_that_were_replaced_meanwhile_are_not_evaluated(tmp_path: Path) -> None:
    conditions = Evaluation(checkpoint="0" * 64, data="pets", num_classes=2, img_size=32, resolution=32)
    cell = arm_cell("pico", "v1+ope+cffn", "v2", conditions)
    torch.save(build_model(cell.arm_config).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match="was replaced by another while it was evaluated"):
        conditions.run(cell, Setting(weights=tmp_path / "weights.pth", data_dir=tmp_path))


def test_weights_that_were_replaced_amid_a_command_leave_no_result(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, build = tmp_path / "weights.pth", model_module.build_model

    def build_after_another_wrote(config: PVTConfig) -> PVT:
        torch.save(two_classes(-1), weights)
        return build(config)

    monkeypatch.setattr(model_module, "build_model", build_after_another_wrote)
    code, said = evaluate(two_classes(1), "--num-classes", "2")
    assert code == 1
    assert "was replaced by another while it was evaluated" in said
    assert load_records(tmp_path / "runs").empty


def test_what_is_scored_are_the_bytes_of_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, count in (("cat", 1), ("dog", 2)):
        (tmp_path / "pets/val" / place).mkdir(parents=True)
        for number in range(count):
            Image.effect_noise((40, 40), 90).save(tmp_path / "pets/val" / place / f"{number}.png")
    dogs, cats = tmp_path / "dogs.pth", tmp_path / "cats.pth"
    torch.save(two_classes(1), dogs)
    torch.save(two_classes(-1), cats)
    weights = Path(shutil.copy(dogs, tmp_path / "weights.pth"))
    digest = hashlib.sha256(dogs.read_bytes()).hexdigest()
    conditions = Evaluation(checkpoint=digest, data="pets", num_classes=2, img_size=32, resolution=32)
    cell = arm_cell("pico", "v1+ope+cffn", "v2", conditions)
    build = model_module.build_model

    def build_while_another_writes(config: PVTConfig) -> PVT:
        weights.write_bytes(cats.read_bytes())  # into the same file, as a training that saves again may
        return build(config)

    monkeypatch.setattr(model_module, "build_model", build_while_another_writes)
    assert conditions.run(cell, Setting(weights=weights, data_dir=tmp_path))["top1"] == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="was replaced by another while it was evaluated"):
        conditions.run(cell, Setting(weights=weights, data_dir=tmp_path))
