"""Detection and segmentation: the tables of each data set."""

from functools import partial

from ablations.analysis.dense import DENSE_CONDITIONS, dense_values
from ablations.measure.metrics import METRICS
from ablations.report.accuracy import ARM_OR_MODEL, CLAIMS, COMPARED, SEEDS, claim_columns, pairing_note, seed_columns
from ablations.report.tables import POINTS, Table, TableColumn


def _score_columns(*metrics: str) -> tuple[TableColumn, ...]:
    """Returns a column for each score that is a mean over seeds."""
    return tuple(TableColumn(METRICS[each].title, each, ".1f", METRICS[each].divisor) for each in metrics)


def _task_table(task: str, main: str, scores: tuple[TableColumn, ...], title: str, about: str) -> Table:
    """Returns the table of a task, with other scores beside its main one."""
    return Table(
        name=task,
        measurement=task,
        title=title,
        values=partial(dense_values, measurement=task),
        conditions=DENSE_CONDITIONS[task],
        titled_by=("data", "head", "variant", "base", "init"),
        columns=(
            ARM_OR_MODEL,
            *seed_columns(main),
            *scores,
            *claim_columns(f"{main}_difference", "Against v1, points"),
        ),
        about=about,
        note=pairing_note,
    )


TABLES = (
    _task_table(
        "detection",
        "ap",
        (
            *_score_columns("ap50", "ap75", "ap_small", "ap_medium", "ap_large", "mask_ap"),
            TableColumn("AP50 of constant boxes, %", "constant_ap50", ".1f", POINTS),
        ),
        title="How well does each arm detect objects?",
        about=(
            "AP on validation images as COCO computes it, after training a detector on each arm. A detector from "
            "scratch needs about ten thousand images before its AP says something about the backbone: a few hundred, "
            "as BCCD has, show that the pipeline learns, and are no evidence about COCO. Constant boxes are the same "
            f"in every image. {SEEDS} {COMPARED} {CLAIMS}"
        ),
    ),
    _task_table(
        "segmentation",
        "miou",
        (
            *_score_columns("pixel_accuracy"),
            TableColumn("mIoU of one class everywhere, %", "constant_miou", ".1f", POINTS),
        ),
        title="How well does each arm segment images?",
        about=(
            "mIoU on validation images at their original sizes, from all pixels' confusions added up, after training a "
            f"segmentation network on each arm. {SEEDS} {COMPARED} {CLAIMS}"
        ),
    ),
)
"""One table a task; each data set, head and way to begin is a section of it."""

FIGURES = ()
