"""Peak memory: its tables and figures."""

import pandas as pd

from ablations.report import sheets
from ablations.report.figures import FigureSpec
from ablations.report.memory_tables import MEMORY_TABLES

TABLES = MEMORY_TABLES


def list_figures(records: pd.DataFrame) -> list[FigureSpec]:
    """Returns the figures that the records give."""
    return [*sheets._memory(records), *sheets._memory_of_models(records)]
