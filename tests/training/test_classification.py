"""Evaluation of models whose answers are known."""

import math

import pytest
import torch
from torch import nn

from ablations.data.splits import InMemoryData
from ablations.measure import Accuracy
from ablations.training.classification import evaluate
from ablations.training.distributed import Ranks


class ReadsTheAnswer(nn.Module):
    """Answers with the level of the image's first pixel, as sure as `scale` says; keeps what it was shown."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        answers = x[:, 0, 0, 0].round().long()
        self.seen += answers.tolist()
        return self.scale * nn.functional.one_hot(answers, 10).float()


def make_data(answers: list[int], labels: list[int]) -> InMemoryData:
    images = torch.zeros(len(answers), 1, 32, 32, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(answers)
    targets = torch.tensor(labels)
    return InMemoryData(
        train_images=images[:0],
        train_labels=targets[:0],
        eval_images=images,
        eval_labels=targets,
        mean=torch.zeros(1),
        std=torch.ones(1),
        may_flip=True,
    )


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_every_image_is_counted_once_in_batches_of_any_size(batch_size):
    answers = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    labels = [0, 1, 2, 3, 4, 5, 6, 0, 0, 0]
    model = ReadsTheAnswer(scale=2.0)
    scores = evaluate(model, make_data(answers, labels), Accuracy(batch_size=batch_size))
    assert model.seen == answers
    # Cross-entropy of one logit of 2 among ten: log(e² + 9), less 2 where the answer is right.
    loss = math.log(math.exp(2) + 9) - 2 * 0.7
    assert scores.pop("correct").tolist() == [True] * 7 + [False] * 3
    assert scores == {"top1": 0.7, "loss": pytest.approx(loss, rel=1e-6), "n_images": 10}


def test_the_loss_is_not_smoothed():
    scores = evaluate(ReadsTheAnswer(scale=100.0), make_data([3], [3]), Accuracy(label_smoothing=0.5))
    assert scores["loss"] < 1e-6


class SumsUp(Ranks):
    """One of two processes, which keeps what it would add up with the other's."""

    def __init__(self, rank: int, count: int, given: list[torch.Tensor]) -> None:
        super().__init__(rank, count)
        object.__setattr__(self, "given", given)

    def add(self, values: torch.Tensor) -> torch.Tensor:
        self.given.append(values.clone())
        return values


@pytest.mark.parametrize("batch_size", [3, 5, 10])
def test_the_shares_of_two_processes_are_the_scores_of_all_images(batch_size):
    answers, labels = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5, 6, 0, 0, 0]
    data, conditions = make_data(answers, labels), Accuracy(batch_size=batch_size)
    shares: list[list[torch.Tensor]] = [[], []]
    for rank, given in enumerate(shares):
        evaluate(ReadsTheAnswer(scale=2.0), data, conditions, ranks=SumsUp(rank, 2, given))
    correct, loss = (one + other for one, other in zip(*shares, strict=True))
    scores = evaluate(ReadsTheAnswer(scale=2.0), data, conditions)
    assert correct.tolist() == scores["correct"].tolist()
    assert loss.item() / len(labels) == pytest.approx(scores["loss"], rel=1e-9)
