"""Training step by step: losses and steps worked out by hand, pairing, divergence, the moving average."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ablations.data.loading import load_data
from ablations.data.splits import InMemoryData
from ablations.errors import InputError
from ablations.measure import Accuracy
from ablations.training import resume
from ablations.training.distributed import Ranks
from ablations.training.loop import Diverged, Training
from ablations.training.resume import Saver, Stopped

BRIEF = Accuracy(epochs=2, batch_size=50, train_images=200, warmup_epochs=0.5)


class Linear(nn.Sequential):
    """Classifies pixels, and keeps the images that it was trained on."""

    def __init__(self, width: int = 10) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 32 * 32, width), nn.Linear(width, 10))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(x.clone())
        return super().forward(x)


class Breaks(Linear):
    """Gives logits that are no numbers from its third step on."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        return logits * math.nan if len(self.seen) >= 3 else logits


class Bias(nn.Module):
    """The same logits for every image: `scale` times its parameter, which begins at 2 / scale for class 0."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.bias = nn.Parameter(torch.tensor([2.0 / scale, *[0.0] * 9]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.scale * self.bias).expand(len(x), -1)


def trained(model: nn.Module, conditions: Accuracy, data: InMemoryData | None = None) -> Training:
    """Returns a whole training, on digits where no data are given."""
    training = Training(model, data or digits(conditions), conditions)
    training.run()
    return training


def digits(conditions: Accuracy) -> InMemoryData:
    data = load_data(conditions, None)
    assert isinstance(data, InMemoryData)
    return data


def test_two_models_see_the_same_images_in_the_same_order():
    torch.manual_seed(0)
    narrow, wide = Linear(3), Linear(30)
    trained(narrow, BRIEF)
    trained(nn.Sequential(wide, nn.Dropout(0.5)), BRIEF)  # draws random numbers of its own
    assert len(narrow.seen) == len(wide.seen) == 8
    assert all(torch.equal(one, other) for one, other in zip(narrow.seen, wide.seen, strict=True))
    assert not torch.equal(narrow.seen[0], narrow.seen[4]), "two epochs must differ"


def test_two_models_see_the_same_mixtures_which_differ_from_step_to_step():
    conditions = replace(BRIEF, mixup=0.8, cutmix=1.0, epochs=1)
    torch.manual_seed(0)
    narrow, wide, plain = Linear(3), Linear(30), Linear(3)
    trained(narrow, conditions)
    trained(nn.Sequential(wide, nn.Dropout(0.5)), conditions)
    trained(plain, replace(BRIEF, epochs=1))
    assert all(torch.equal(one, other) for one, other in zip(narrow.seen, wide.seen, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(narrow.seen, plain.seen, strict=True))
    # How much of the other image there is, is drawn anew: the mirror's share, by least squares, in each step.
    shares = [
        ((own - shown) * (own - own.flip(0))).sum() / (own - own.flip(0)).square().sum()
        for shown, own in zip(narrow.seen, plain.seen, strict=True)
    ]
    assert len({round(share.item(), 3) for share in shares}) == 4
    assert all(-0.01 <= share <= 1.01 for share in shares)


ONE_STEP = Accuracy(epochs=1, batch_size=50, train_images=50, warmup_epochs=0.0, base_lr=0.01, label_smoothing=0.3)


def all_of_class_0(conditions: Accuracy = ONE_STEP) -> InMemoryData:
    data = digits(conditions)
    return replace(data, train_labels=torch.zeros_like(data.train_labels))


def test_the_loss_is_smoothed():
    (entry,) = trained(Bias(), ONE_STEP, all_of_class_0()).history
    # -log p is z - 2 for class 0 and z for the others, z = log(e² + 9); 0.3 of the weight goes to all ten alike.
    z = math.log(math.exp(2) + 9)
    assert entry["loss"] == pytest.approx(0.7 * (z - 2) + 0.3 * (z - 0.2), rel=1e-6)
    assert entry["lr"] == 0.01
    # The gradient of each logit is its probability less its target.
    right, wrong = math.exp(2 - z) - 0.73, math.exp(-z) - 0.03
    assert entry["grad_norm"] == pytest.approx(math.sqrt(right**2 + 9 * wrong**2), rel=1e-4)


@pytest.mark.parametrize(("limit", "expected"), [(1.0, 1.0), (0.25, 0.25), (0.0, None)])
def test_a_step_is_adamws_and_its_gradient_is_clipped_at_the_limit(limit: float, expected: float | None):
    model = Bias(scale=1000.0)
    before = model.bias.detach().clone()
    training = trained(model, replace(ONE_STEP, clip_grad_norm=limit), all_of_class_0())
    # Unclipped, the gradient is 1000 times the difference of probabilities, which are some hundredths at least.
    assert model.bias.grad is not None
    norm, recorded = model.bias.grad.norm().item(), training.history[0]["grad_norm"]
    assert recorded > 10, "the norm is recorded before it is clipped"
    assert norm == pytest.approx(expected or recorded, rel=1e-4)
    # AdamW's first step is the rate in each gradient's direction, whatever its size: class 0 up, the others down.
    moved = model.bias.detach() - before
    torch.testing.assert_close(moved, torch.tensor([0.01, *[-0.01] * 9]), rtol=1e-3, atol=0)


def test_a_loss_that_is_not_finite_ends_the_run_with_step_rate_and_norm():
    conditions = replace(BRIEF, epochs=4, warmup_epochs=2.0, base_lr=1.0)
    training = Training(Breaks(), digits(conditions), conditions)
    with pytest.raises(Diverged, match=r"the loss is nan at step 3, learning rate 0\.258, gradient norm nan") as caught:
        training.run()
    # 8 steps of warm-up from 0.01 to 1: the third runs at 0.01 + 2 * 0.99 / 8.
    assert caught.value.step == 3
    assert caught.value.lr == pytest.approx(0.2575)
    assert math.isnan(caught.value.loss)
    assert math.isnan(caught.value.grad_norm)
    assert training.history == []
    assert not isinstance(caught.value, InputError)


def test_steps_are_counted_over_all_epochs():
    class BreaksLater(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (math.inf if len(self.seen) >= 7 else 1)

    with pytest.raises(Diverged, match="at step 7") as caught:
        trained(BreaksLater(), BRIEF)
    assert caught.value.step == 7


def test_the_moving_average_is_evaluated_and_the_model_trained():
    conditions = replace(ONE_STEP, ema_decay=0.75)
    model = Bias()
    training = trained(model, conditions, all_of_class_0())
    before, after = Bias().bias.detach(), model.bias.detach()
    average = dict(training.trained.named_parameters())["bias"].detach()
    torch.testing.assert_close(average, 0.75 * before + 0.25 * after)
    assert training.trained is not model
    assert not torch.equal(average, after)
    assert trained(Bias(), ONE_STEP, all_of_class_0()).trained is not None
    # It is what evaluation sees.
    of_model = Training(model, all_of_class_0(), ONE_STEP).evaluate()
    assert training.evaluate()["loss"] != of_model["loss"]


def test_the_last_epochs_are_at_the_lowest_rate():
    training = trained(Linear(3), replace(BRIEF, cooldown_epochs=2))
    assert [entry["epoch"] for entry in training.history] == [1, 2, 3, 4]
    lowest = pytest.approx(0.01 * 3e-3)
    assert [entry["lr"] for entry in training.history[2:]] == [lowest, lowest]
    assert training.step == 16


@pytest.mark.parametrize(("every", "expected"), [(0, []), (1, [1, 2, 3]), (2, [2]), (3, [3])])
def test_evaluations_on_the_way_come_every_so_often_and_change_nothing(every: int, expected: list[int]):
    conditions = replace(BRIEF, epochs=4, eval_every=every)
    torch.manual_seed(0)
    dropping = nn.Sequential(Linear(5), nn.Dropout(0.5))
    training = trained(dropping, conditions)
    assert [entry["epoch"] for entry in training.history if "top1" in entry] == expected
    torch.manual_seed(0)
    plain = trained(nn.Sequential(Linear(5), nn.Dropout(0.5)), replace(conditions, eval_every=0))
    losses = [[entry["loss"] for entry in each.history] for each in (training, plain)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("batch_size", "count", "allowed"), [(50, 2, 4), (50, 4, 8), (64, 3, 6)])
def test_batches_that_processes_cannot_share_are_refused(batch_size: int, count: int, allowed: int):
    conditions = replace(BRIEF, batch_size=batch_size)
    with pytest.raises(InputError, match=f"batch_size={batch_size} is not possible; allowed: a multiple of {allowed}"):
        Training(Linear(), digits(conditions), conditions, ranks=Ranks(0, count))


def test_a_saver_that_was_asked_saves_after_the_step_and_says_how_to_resume(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "CHECKPOINT_EVERY_S", math.inf)
    training = Training(Linear(3), digits(BRIEF), BRIEF)
    saver = Saver(tmp_path / "one.pt", {})

    def ask(training: Training) -> None:
        if training.step == 6:
            saver._asked = True

    with pytest.raises(Stopped) as caught:
        training.run(progress=ask, save=saver.save_if_due)
    words = "stopped in epoch 2 of 2, after 2 of its steps; a checkpoint is saved; rerun the same command to resume"
    assert str(caught.value) == words
    assert isinstance(caught.value, KeyboardInterrupt), "what catches errors lets it pass"
    assert (tmp_path / "one.pt").is_file()


@pytest.mark.parametrize(("seconds", "expected"), [(math.inf, 0), (0.0, 8)])
def test_a_checkpoint_is_written_every_so_often(tmp_path, monkeypatch, seconds: float, expected: int):
    monkeypatch.setattr(resume, "CHECKPOINT_EVERY_S", seconds)
    written = []
    monkeypatch.setattr(resume, "save_checkpoint", lambda path, state: written.append(state["step"]))
    Training(Linear(3), digits(BRIEF), BRIEF).run(save=Saver(tmp_path / "one.pt", {}).save_if_due)
    assert written == [*range(1, expected + 1)]


@pytest.mark.parametrize("wrong", ["step", "history", "optimizer", "average", "generators", "model"])
def test_a_state_that_does_not_suit_a_training_starts_it_anew(tmp_path, capsys, monkeypatch, wrong):
    state = trained(Bias(), ONE_STEP).state()
    others = {"step": 7, "history": [{}], "optimizer": {}, "average": {"weight": 1}, "generators": [], "model": {}}
    training = Training(Bias(), digits(ONE_STEP), replace(ONE_STEP, ema_decay=0.5))
    before = resume.state_digest(training.state())
    saver = resume.Saver(tmp_path / "one.pt", {})
    monkeypatch.setattr(resume, "load_checkpoint", lambda *_: state | {wrong: others[wrong]})
    saver.restore(training)
    assert resume.state_digest(training.state()) == before
    assert "does not suit it" in capsys.readouterr().err
