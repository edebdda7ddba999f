"""Detection and segmentation: the tables of each data set."""

from collections.abc import Callable

import pandas as pd

from ablations.analysis.dense import DENSE_CONDITIONS, detection_values, segmentation_values
from ablations.measure.metrics import METRICS
from ablations.report.accuracy import CLAIMS, COMPARED, SEEDS, claim_columns, ends_text, pairing_note, seeds_text
from ablations.report.figures import FigureSpec
from ablations.report.tables import ARM, Table, TableColumn, metric_column

OF_TASK = ("data", "head", "variant", "base", "init")
"""The conditions that head what is said of a training."""

POINTS = METRICS["ap"].divisor


def _main_columns(metric: str) -> tuple[TableColumn, ...]:
    """Returns the columns of the main score: its mean over seeds, and the interval."""
    return (
        TableColumn("Arm or model", ARM.show),
        TableColumn("n", seeds_text),
        metric_column(metric, f"{metric}_mean"),
        TableColumn("95 % interval, seeds", lambda row: ends_text(row, metric, ".2f")),
    )


def _score_columns(*metrics: str) -> tuple[TableColumn, ...]:
    """Returns a column for each score that is a mean over seeds."""
    return tuple(TableColumn(METRICS[each].title, each, ".1f", METRICS[each].divisor) for each in metrics)


TABLES: tuple[Table, ...] = (
    Table(
        name="detection",
        measurement="detection",
        title="How well does each arm detect objects?",
        values=detection_values,
        conditions=DENSE_CONDITIONS["detection"],
        titled_by=OF_TASK,
        columns=(
            *_main_columns("ap"),
            *_score_columns("ap50", "ap75", "ap_small", "ap_medium", "ap_large", "mask_ap"),
            TableColumn("AP50 of constant boxes, %", "constant_ap50", ".1f", POINTS),
            *claim_columns("ap_difference", "Against v1, points"),
        ),
        about=(
            "AP on validation images as COCO computes it, after training a detector on each arm. A detector from "
            "scratch needs about ten thousand images before its AP says something about the backbone: a few hundred, "
            "as BCCD has, show that the pipeline learns, and are no evidence about COCO. Constant boxes are the same "
            f"in every image. {SEEDS} {COMPARED} {CLAIMS}"
        ),
        note=lambda values: pairing_note(values, "ap_difference"),
    ),
    Table(
        name="segmentation",
        measurement="segmentation",
        title="How well does each arm segment images?",
        values=segmentation_values,
        conditions=DENSE_CONDITIONS["segmentation"],
        titled_by=OF_TASK,
        columns=(
            *_main_columns("miou"),
            *_score_columns("pixel_accuracy"),
            TableColumn("mIoU of one class everywhere, %", "constant_miou", ".1f", POINTS),
            *claim_columns("miou_difference", "Against v1, points"),
        ),
        about=(
            "mIoU on validation images at their original sizes, from all pixels' confusions added up, after training a "
            f"segmentation network on each arm. {SEEDS} {COMPARED} {CLAIMS}"
        ),
        note=lambda values: pairing_note(values, "miou_difference"),
    ),
)
"""One table a task; each data set, head and way to begin is a section of it."""

FIGURES: dict[str, Callable[[pd.DataFrame], list[FigureSpec]]] = {}
