"""Parameters and MACs: their tables and figures."""

import pandas as pd

from ablations.report import sheets
from ablations.report.arm_tables import ARM_TABLES
from ablations.report.cost_tables import COST_TABLES
from ablations.report.figures import FigureSpec

TABLES = (*COST_TABLES, *(table for table in ARM_TABLES if table.measurement == "cost"))


def list_figures(records: pd.DataFrame) -> list[FigureSpec]:
    """Returns the figures that the records give."""
    kinds = (sheets._backbones, sheets._scaling, sheets._parts, sheets._operators, sheets._complexity, sheets._cost)
    return [spec for kind in (*kinds, sheets._macs_by_resolution) for spec in kind(records)]
