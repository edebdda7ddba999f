"""What each toggle does: tables and figures of effects, cumulative ablation, confounders and trade-offs."""

import pandas as pd

from ablations.report import sheets
from ablations.report.confounder_tables import CONFOUNDER_TABLES
from ablations.report.effect_tables import EFFECT_TABLES
from ablations.report.figures import FigureSpec
from ablations.report.tradeoff_tables import TRADEOFF_TABLES

TABLES = (*EFFECT_TABLES, *CONFOUNDER_TABLES, *TRADEOFF_TABLES)


def list_figures(records: pd.DataFrame) -> list[FigureSpec]:
    """Returns the figures that the records give."""
    return [spec for kind in (sheets._effects, sheets._cumulative, sheets._tradeoff) for spec in kind(records)]
