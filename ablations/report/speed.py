"""Speed: its tables and figures."""

import pandas as pd

from ablations.report import sheets
from ablations.report.figures import FigureSpec
from ablations.report.speed_tables import SPEED_TABLES

TABLES = SPEED_TABLES


def list_figures(records: pd.DataFrame) -> list[FigureSpec]:
    """Returns the figures that the records give."""
    kinds = (sheets._speed, sheets._libraries, sheets._operator_times, sheets._throughput)
    return [spec for kind in kinds for spec in kind(records)]
