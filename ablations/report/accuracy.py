"""Accuracy after training, and of finished weights: tables and figures."""

import pandas as pd

from ablations.report import sheets
from ablations.report.arm_tables import ARM_TABLES
from ablations.report.evaluation_tables import EVALUATION_TABLES
from ablations.report.figures import FigureSpec

TABLES = (*(table for table in ARM_TABLES if table.name == "accuracy"), *EVALUATION_TABLES)


def list_figures(records: pd.DataFrame) -> list[FigureSpec]:
    """Returns the figures that the records give."""
    kinds = (sheets._accuracy, sheets._learning, sheets._accuracy_by_epoch, sheets._evaluation)
    return [spec for kind in kinds for spec in kind(records)]
