"""The whole measurement, on digits: it learns, it repeats, and it leaves what it should."""

import json
import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms.v2.functional import to_pil_image

from ablations.cells import arm_cell
from ablations.config import ARMS, build_config
from ablations.data.loading import load_data, load_eval_images
from ablations.data.splits import Data, StreamingData
from ablations.data.stream import stream_eval
from ablations.errors import InputError
from ablations.measure import Accuracy
from ablations.measure.measurement import Setting
from ablations.measure.network import build_network
from ablations.model import build_model
from ablations.model.checkpoint import load_weights
from ablations.records.bits import pack_bits
from ablations.training import classification, tasks, train
from ablations.training.accuracy import _at_side, measure_accuracy
from ablations.training.batches import Batch
from ablations.training.classification import evaluate
from ablations.training.distributed import Ranks
from ablations.training.loop import Diverged, Training
from ablations.training.train import Files

BRIEF = Accuracy(epochs=2, batch_size=50, train_images=200, warmup_epochs=0.5)
TIMES = ("seconds", "wait_s", "train_s", "train_img_per_s", "wait_fraction")


def build_pico(arm: str = "v1+ope+cffn", **overrides: Any) -> nn.Module:
    return build_model(build_config("pico", arm, "v2", **{"num_classes": 10, "img_size": 32, **overrides}))


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    history = [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in result["history"]]
    return {name: value for name, value in result.items() if name not in TIMES} | {"history": history}


class Linear(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))


def test_a_pvt_learns_digits_in_two_epochs(monkeypatch):
    monkeypatch.setattr(train, "TELL_EVERY_S", 0.0)
    conditions = Accuracy(epochs=2, batch_size=32, base_lr=3e-3, warmup_epochs=0.5, eval_every=1)
    told: list[tuple[float, str]] = []
    result = measure_accuracy(build_pico, conditions, Setting(tell=lambda *how_far: told.append(how_far)))
    assert result["top1"] > 0.3  # chance is 0.1
    assert result["eval_loss"] < math.log(10)
    assert (result["n_eval_images"], result["n_train_images"]) == (360, 1437)
    assert result["largest_class_share"] == 37 / 360
    assert (result["skipped"], result["peak_lr"]) == ([], 3e-3)
    first, last = result["history"]
    assert (first["epoch"], last["epoch"]) == (1, 2)
    assert last["loss"] < first["loss"]
    assert last["lr"] < 1.1 * 0.01 * 3e-3
    assert result["train_s"] == first["seconds"] + last["seconds"]
    assert result["train_img_per_s"] == 2 * 44 * 32 / result["train_s"]  # 44 whole batches of 32 in 1,437
    assert result["wait_fraction"] == (first["wait_s"] + last["wait_s"]) / result["train_s"]
    assert 0 < result["wait_fraction"] < 1
    assert len(told) == 88
    assert told[0] == (1 / 88, "epoch 1/2 step 1/44")
    words = f"epoch 2/2 loss {first['loss']:.3f} lr {first['lr']:.1e} {44 * 32 / first['seconds']:.0f} img/s"
    assert told[50] == (51 / 88, f"{words} {first['wait_s'] / first['seconds']:.0%} waiting top-1 {first['top1']:.1%}")
    json.dumps(result, allow_nan=False)  # plain values


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    def measure(seed: int) -> dict[str, Any]:
        conditions = replace(BRIEF, seed=seed, mixup=0.8, random_erasing=0.5, epochs=1)
        return measure_accuracy(lambda: build_pico(drop_path_rate=0.3), conditions, Setting())

    torch.manual_seed(1)
    first = without_times(measure(0))
    torch.manual_seed(2)
    assert without_times(measure(0)) == first
    assert without_times(measure(1))["history"] != first["history"]


def test_the_callers_random_state_is_left_as_it_was():
    def draw() -> tuple[list[float], float]:
        return torch.rand(3).tolist(), np.random.rand()  # noqa: NPY002, timm's mixup draws from it

    def begin() -> None:
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002

    begin()
    expected = draw()
    begin()
    measure_accuracy(Linear, replace(BRIEF, mixup=0.8), Setting())
    assert draw() == expected


def test_the_weights_begin_with_the_seed():
    built = []

    def build() -> nn.Module:
        built.append(build_pico())
        return built[-1]

    measure_accuracy(build, replace(BRIEF, epochs=1, seed=5, base_lr=1e-12), Setting())
    torch.manual_seed(5)
    for own, expected in zip(built[0].parameters(), build_pico().parameters(), strict=True):
        torch.testing.assert_close(own, expected)


@pytest.mark.slow
def test_bf16_trains_too():
    result = measure_accuracy(build_pico, replace(BRIEF, epochs=1, precision="bf16"), Setting())
    plain = measure_accuracy(build_pico, replace(BRIEF, epochs=1), Setting())
    assert result["history"][0]["loss"] != plain["history"][0]["loss"]
    assert result["history"][0]["loss"] == pytest.approx(plain["history"][0]["loss"], rel=0.05)


def test_a_recipe_that_cannot_be_trained_and_wrong_data_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"warmup_epochs=2\.0"):
        measure_accuracy(Linear, replace(BRIEF, warmup_epochs=2.0), Setting())
    with pytest.raises(InputError, match="data='nowhere'"):
        measure_accuracy(Linear, replace(BRIEF, data="nowhere"), Setting(data_dir=tmp_path))


def test_batch_norm_is_refused_where_processes_would_not_share_it():
    def build() -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(3), Linear())

    with pytest.raises(InputError, match="processes=2 is not possible; allowed: 1 for a model with batch norm on a C"):
        measure_accuracy(build, BRIEF, Setting(ranks=Ranks(0, 2)))
    assert measure_accuracy(build, replace(BRIEF, epochs=1), Setting())["top1"] > 0


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_the_weights_that_were_evaluated_are_kept_and_load(tmp_path, ema_decay: float):
    conditions = replace(BRIEF, epochs=1, ema_decay=ema_decay)
    built = []

    def build() -> nn.Module:
        built.append(build_pico("v1+cffn"))
        return built[-1]

    files = Files(checkpoint=tmp_path / "c.pt", log=tmp_path / "l.jsonl", weights=tmp_path / "new" / "w.safetensors")
    result = measure_accuracy(build, conditions, Setting(files=files))
    fresh = build_pico("v1+cffn")
    load_weights(fresh, tmp_path / "new" / "w.safetensors")
    scores = evaluate(fresh, load_data(conditions, None), conditions)
    # The layout of the weights in memory decides the order of additions.
    assert scores["top1"] == pytest.approx(result["top1"], abs=1 / 360 + 1e-9)
    assert scores["loss"] == pytest.approx(result["eval_loss"], rel=1e-5)
    images = torch.rand(2, 3, 32, 32)
    same = torch.allclose(fresh.eval()(images), built[0].eval()(images), atol=1e-5)
    assert same == (ema_decay == 0.0)


def test_without_files_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measure_accuracy(Linear, replace(BRIEF, epochs=1), Setting())
    assert list(tmp_path.iterdir()) == []


def test_the_log_has_a_line_an_epoch_as_the_history_has(tmp_path):
    files = Files(checkpoint=tmp_path / "c.pt", log=tmp_path / "l.jsonl")
    result = measure_accuracy(Linear, replace(BRIEF, epochs=3), Setting(files=files))
    assert [json.loads(line) for line in files.log.read_text().splitlines()] == result["history"]
    assert len(result["history"]) == 3


def test_the_real_fashion_mnist_is_learned(shared_data):
    conditions = Accuracy(
        data="fashion-mnist", train_images=2000, epochs=2, batch_size=50, base_lr=1e-3, warmup_epochs=0.5
    )
    result = measure_accuracy(Linear, conditions, Setting(data_dir=shared_data))
    assert result["top1"] > 0.4
    assert result["n_eval_images"] == 10_000


def test_weights_that_the_last_step_broke_are_a_divergence(monkeypatch):
    class Breaks(Linear):
        """Trains as usual, and answers nothing when it is evaluated."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (1.0 if self.training else math.nan)

    with pytest.raises(Diverged, match="the loss is nan at step 8"):
        measure_accuracy(Breaks, BRIEF, Setting())


def test_mixing_pairs_needs_an_even_number_of_images():
    with pytest.raises(InputError, match="batch_size=1437 is not possible; allowed: an even number"):
        measure_accuracy(Linear, Accuracy(epochs=1, batch_size=2000, mixup=0.8), Setting())


def test_a_signal_during_the_evaluation_ends_it_and_the_training_is_kept(tmp_path, monkeypatch):
    files = Files(checkpoint=tmp_path / "one.pt", log=tmp_path / "one.jsonl")
    evaluated = Training.evaluate

    def interrupt(training: Training) -> dict[str, Any]:
        signal.raise_signal(signal.SIGINT)
        return evaluated(training)

    monkeypatch.setattr(Training, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure_accuracy(Linear, BRIEF, Setting(files=files))
    monkeypatch.setattr(Training, "evaluate", evaluated)
    monkeypatch.setattr(Training, "_take_step", None)  # no step is left
    result = measure_accuracy(Linear, BRIEF, Setting(files=files))
    assert [entry["epoch"] for entry in result["history"]] == [1, 2]


ONE_STEP = Accuracy(epochs=1, batch_size=50, train_images=50, warmup_epochs=0.0, num_classes=10)


def test_a_batch_of_more_than_all_training_images_is_said_once(capsys):
    tasks.say_smaller.cache_clear()
    for seed in (0, 1):
        measure_accuracy(build_pico, replace(ONE_STEP, batch_size=64, seed=seed), Setting())
    assert capsys.readouterr().err == "note: batch_size=64, but each step has all 50 training images\n"
    measure_accuracy(build_pico, ONE_STEP, Setting())
    assert capsys.readouterr().err == ""


def answer(model: nn.Module, images: torch.Tensor, data: Data, batch_size: int) -> list[bool]:
    """Returns which images (N, C, S, S), as bytes, a model answers correctly, worked out batch by batch."""
    model.to(memory_format=torch.channels_last).eval()
    shown = ((images - data.mean[:, None, None]) / data.std[:, None, None]).expand(-1, 3, -1, -1)
    with torch.inference_mode():
        logits = [
            model(batch.contiguous(memory_format=torch.channels_last)).argmax(dim=1)
            for batch in shown.split(batch_size)
        ]
    return (torch.cat(logits) == data.eval_labels).tolist()


def write_noise(root: Path) -> None:
    noise = torch.Generator().manual_seed(0)
    for split, count in (("train", 4), ("val", 6)):
        for label in range(2):
            (root / split / str(label)).mkdir(parents=True)
            for index in range(count):
                levels = torch.randint(256, (3, 9, 8), generator=noise, dtype=torch.uint8)
                to_pil_image(levels).resize((60, 50)).save(root / split / str(label) / f"{index}.png")


@pytest.mark.parametrize(("name", "loading"), [("digits", "in-memory"), ("own", "in-memory"), ("own", "streaming")])
def test_correct_bits_and_other_resolutions_are_those_of_the_trained_model_evaluated_by_hand(tmp_path, name, loading):
    conditions = replace(ONE_STEP, data=name, loading=loading, eval_resolutions=(48, 32), base_lr=1e-2)
    if name == "own":
        write_noise(tmp_path / "own")
        conditions = replace(conditions, num_classes=2, train_images=8, batch_size=4)
    classes = conditions.num_classes
    weights = tmp_path / "w.safetensors"
    files = Files(checkpoint=tmp_path / "c.pt", log=tmp_path / "l.jsonl", weights=weights)
    result = measure_accuracy(
        lambda: build_pico(num_classes=classes), conditions, Setting(data_dir=tmp_path, workers=0, files=files)
    )
    model = build_pico(num_classes=classes)
    load_weights(model, weights)
    data = load_data(conditions, tmp_path)
    found = {}
    for side in (32, 48):
        elsewhere = replace(conditions, resolution=side)
        images = load_eval_images(elsewhere, tmp_path)
        if isinstance(data, StreamingData):
            indices = torch.arange(len(data.eval_labels))
            images = torch.cat([shown for shown, _ in stream_eval(data, elsewhere, indices, 1)])
        found[side] = answer(model, images, data, conditions.batch_size)
    assert result["correct"] == pack_bits(found[32])
    assert result["n_eval_images"] == len(found[32])
    assert result["top1"] == sum(found[32]) / len(found[32])
    expected = {str(side): sum(found[side]) / len(found[side]) for side in (48, 32)}
    assert result["top1_by_resolution"] == expected


def test_with_tuning_images_the_validation_images_are_not_scored(monkeypatch):
    scored = []
    batches_of = classification.eval_batches

    def spy(data: Data, *given: Any, **others: Any) -> Iterator[Batch]:
        scored.append(data.eval_labels)
        return batches_of(data, *given, **others)

    monkeypatch.setattr(classification, "eval_batches", spy)
    conditions = replace(ONE_STEP, epochs=2, eval_every=1, tuning_images=100, eval_resolutions=(40,))
    result = measure_accuracy(build_pico, conditions, Setting())
    tuning = load_data(conditions, None).eval_labels
    assert len(scored) == 3, "after an epoch, at the end, and at another resolution"
    assert all(torch.equal(labels, tuning) for labels in scored)
    assert (result["n_eval_images"], result["n_train_images"]) == (100, 50)


def test_a_larger_side_takes_a_smaller_batch_and_never_none():
    trained = replace(ONE_STEP, resolution=64, batch_size=32)
    sizes = {side: _at_side(trained, side).batch_size for side in (48, 64, 128, 160, 1024)}
    assert sizes == {48: 32, 64: 32, 128: 8, 160: 5, 1024: 1}
    assert _at_side(trained, 160).resolution == 160


def test_arms_with_equal_seeds_begin_with_the_weights_that_they_share():
    cells = [arm_cell(variant="pico", arm=arm, base="v2", conditions=replace(ONE_STEP, seed=3)) for arm in ARMS]
    states = [build_network(cell).state_dict() for cell in cells]
    other = build_network(replace(cells[0], conditions=replace(ONE_STEP, seed=4))).state_dict()
    first = states[0]
    for state in states[1:]:
        shared = [name for name in first if name in state and first[name].shape == state[name].shape]
        assert len(shared) > 20
        assert all(torch.equal(first[name], state[name]) for name in shared)
    drawn = [name for name in first if first[name].float().std() > 0]
    assert drawn
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
