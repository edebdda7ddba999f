"""Fixtures of the analysis's tests: accuracies whose numbers are known."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.cells import arm_cell, build_cell
from ablations.config import ARMS
from ablations.measure import Accuracy

Write = Callable[..., Path]


@pytest.fixture
def write_top1(tmp_path: Path, write_cell: Write) -> Write:
    """`write_top1(arm, seed, top1, base="v2", changed=(), result=None, **conditions)` writes an accuracy of pico.

    Instead of an arm it takes the name of any model. What is not said is the same for all.
    """
    v1 = arm_cell("pico", "v1", "v2", Accuracy())

    def write(
        arm: str,
        seed: int,
        top1: float,
        base: str = "v2",
        changed: tuple[tuple[str, Any], ...] = (),
        result: dict[str, Any] | None = None,
        **conditions: Any,
    ) -> Path:
        trained = Accuracy(seed=seed, **conditions)
        if arm.startswith("v1"):
            cell = replace(v1.of(arm=arm, base=base, overrides=changed), conditions=trained)
        else:
            cell = build_cell(model=arm, conditions=trained)
        counts = {"n_eval_images": 100, "n_train_images": 1000}
        outcome = {"top1": top1, "history": [{"epoch": 1, "loss": 1.0}]} | counts | (result or {})
        return write_cell(tmp_path, cell, outcome)

    return write


@pytest.fixture(scope="session")
def means() -> dict[str, float]:
    """The arms' mean accuracies that `write_factorial` plants.

    Their effects are worked out in test_effects: 4.5, 7, 1, -0.5, 0.5, 1 and 0.5 points.
    """
    return dict(zip(ARMS, (0.61, 0.66, 0.68, 0.61, 0.71, 0.66, 0.69, 0.74), strict=True))


@pytest.fixture
def write_factorial(write_top1: Write, means: dict[str, float]) -> Callable[..., None]:
    """`write_factorial(arms=ARMS, **conditions)` writes six seeds of each arm.

    Seeds are -1, 0, 1, -1, 0 and 1 hundredth off the arm's mean, those of v1 the other way round. So no mean changes,
    and what differs between seeds is v1 alone.
    """

    def write(arms: Iterable[str] = ARMS, **conditions: Any) -> None:
        for arm in arms:
            for seed, hundredths in enumerate((-1, 0, 1) * 2):
                off = -hundredths if arm == "v1" else hundredths
                write_top1(arm, seed, means[arm] + off / 100, **conditions)

    return write
