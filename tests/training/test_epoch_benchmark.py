"""The benchmark of an epoch: both sides do the same work, all of it in its round, and the ratio is printed."""

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.transforms.v2.functional import to_pil_image

from ablations import cli
from ablations.baselines.equal import build_equal
from ablations.cells import arm_cell
from ablations.commands.benchmarks import BenchmarkEpoch
from ablations.data.loading import load_data
from ablations.errors import InputError
from ablations.measure import Accuracy
from ablations.model import build_model
from ablations.training.epoch_benchmark import OwnSide, TimmSide, benchmark_epoch
from ablations.training.loop import Training

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # timm leaves images' files open

CONDITIONS = Accuracy(data="squares", num_classes=2, resolution=72, batch_size=4, epochs=3)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a folder of eleven random images for training, two batches of four, in two classes."""
    directory = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    for split, images in (("train", 11), ("val", 2)):
        for number in range(images):
            folder = directory / "squares" / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            levels = torch.randint(256, (3, 80, 90), dtype=torch.uint8, generator=generator)
            to_pil_image(levels).save(folder / f"{number}.png")
    return directory


def build_pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    cell = arm_cell(variant="pico", arm="v1+ope+cffn", base="published", conditions=CONDITIONS)
    model = build_model(cell.config)
    return model, build_equal(model, "timm")


def start_timm(squares: Path, workers: int) -> TimmSide:
    folder = squares / "squares" / "train"
    return TimmSide(build_pair()[1], folder, CONDITIONS, flip=True, workers=workers, channels_last=False)


@pytest.mark.slow
def test_both_sides_take_the_same_steps_and_all_parts_are_timed(squares):
    model, baseline = build_pair()
    before = [weight.clone() for weight in model.parameters()]
    times = benchmark_epoch(model, baseline, CONDITIONS, squares, steps=3, workers=0)
    assert times.loss_difference < 1e-4
    assert times.steps_per_epoch == 2
    for rounds in (times.whole, times.step, times.images):
        assert len(rounds.ours) == len(rounds.timms) == 3
        assert rounds.images == 4
        assert rounds.relative_speed.low <= rounds.relative_speed.median <= rounds.relative_speed.high
    assert 0 < times.ours_waiting < 1
    assert 0 < times.timms_waiting < 1
    assert all((old != new).any() for old, new in zip(before, model.parameters(), strict=True))


def test_other_weights_are_not_compared(squares):
    model, baseline = build_pair()
    nn.init.normal_(baseline.get_parameter("head.weight"))
    with pytest.raises(RuntimeError, match="losses differ"):
        benchmark_epoch(model, baseline, CONDITIONS, squares, steps=2, workers=0)


def test_our_rounds_are_the_training_that_runs_through(squares):
    data = load_data(CONDITIONS, squares)
    models = [build_pair()[0] for _ in range(2)]
    whole, side = Training(models[0], data, CONDITIONS), OwnSide(models[1], data, CONDITIONS)
    whole.run()
    waited = [side.train(steps) for steps in (1, 3, 2)]  # over the ends of epochs
    assert side.step == whole.step == 6
    assert [entry["loss"] for entry in side.history] == [entry["loss"] for entry in whole.history]
    for ours, expected in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(ours, expected)
    assert sum(waited) == pytest.approx(sum(entry["wait_s"] for entry in side.history))


def test_timms_loader_rests_between_rounds_and_has_made_what_it_makes_ahead(squares):
    side = start_timm(squares, workers=1)
    side.train(1)
    assert side.collated.value == 2  # one taken, one ahead: the epoch has no more
    side.train(1)
    assert side.collated.value == 2
    side.read(3)
    made = side.collated.value
    assert made == 6  # the second epoch, and the third, of which one was taken
    time.sleep(0.05)
    assert side.collated.value == made
    assert side.step == 2


def test_timms_side_learns_one_batch(squares):
    side = start_timm(squares, workers=0)
    batch = torch.randn(4, 3, 72, 72, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1])
    first = side.take_step(*batch)
    side.repeat(batch, 5)
    assert side.take_step(*batch) < first
    assert side.step == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 64}, "resolution=64 is not possible; allowed: more than 64 pixels"),
        ({"batch_size": 12}, "batch_size=12 is not possible; allowed: 11 or less"),
        ({"loading": "streaming"}, "loading='streaming'"),
        ({"mixup": 0.8}, r"mixup=0\.8 is not possible; allowed: 0 here"),
        ({"drop_path_rate": 0.1}, r"drop_path_rate=0\.1"),
        ({"aug_repeats": 3}, "aug_repeats=3"),
    ],
)
def test_what_would_not_be_the_same_work_is_refused(squares, change, message):
    model, baseline = build_pair()
    with pytest.raises(InputError, match=message):
        benchmark_epoch(model, baseline, replace(CONDITIONS, **change), squares, steps=2, workers=0)


@pytest.mark.slow
def test_the_command_prints_a_ratio(capsys):
    arguments = "--variant pico --data digits --resolution 72 --batch-size 8 --steps 2 --workers 0".split()
    assert cli.main(["benchmark-epoch", *arguments]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    head, plan, losses, _, *rows, waiting = printed.out.splitlines()
    assert head.startswith("pico v1+ope+cffn on digits at 72 px, batches of 8, float32, on ")
    assert plan.startswith("2 rounds of 1 interleaved steps of each, of 179 in an epoch; timm's channels-first")
    assert losses.startswith("losses of 3 steps on one batch differ by ")
    number = r"\d+\.\d\d"
    for name, row in zip(("epoch", "step alone", "images alone"), rows, strict=True):
        rates = r"\s+\d+\.\d img/s" * 2
        assert re.fullmatch(rf"{name}{rates}\s+{number} \(range {number} to {number}, n = 2\)", row)
    assert re.fullmatch(r"waiting for images: ours \d+\.\d% of the time, timm \d+\.\d%", waiting)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--steps 1", "steps=1 is not possible; allowed: 2 or more, or 0 for an epoch"),
        ("--workers -1", "workers=-1 is not possible; allowed: 0 or more"),
        ("--data nowhere", "data='nowhere' is not possible"),
        ("--data digits --resolution 64", "resolution=64 is not possible; allowed: more than 64 pixels"),
        ("--data digits --batch-size 0", "batch_size=0 is not possible; allowed: 1 or more"),
        ("--data digits --variant b9", "variant='b9'"),
        ("--data digits --variant pico --resolution 72 --batch-size 1438", "allowed: 1437 or less, the training"),
        pytest.param(
            "--data digits --device cuda",
            "device='cuda' is not possible",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA"),
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert cli.main(["benchmark-epoch", *arguments.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err


def test_imagenette_is_the_default_where_it_is(tmp_path):
    assert BenchmarkEpoch(data_dir=tmp_path).conditions.data == "digits"
    for name in "ab":
        (tmp_path / "imagenette224" / "train" / name).mkdir(parents=True)
    conditions = BenchmarkEpoch(data_dir=tmp_path).conditions
    assert (conditions.data, conditions.num_classes) == ("imagenette224", 2)
