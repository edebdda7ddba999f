"""Every table of the report, in its order."""

from ablations.report.arm_tables import ARM_TABLES
from ablations.report.confounder_tables import CONFOUNDER_TABLES
from ablations.report.cost_tables import COST_TABLES
from ablations.report.effect_tables import EFFECT_TABLES
from ablations.report.evaluation_tables import EVALUATION_TABLES
from ablations.report.tables import Table
from ablations.report.tradeoff_tables import TRADEOFF_TABLES

TABLES: tuple[Table, ...] = (
    *COST_TABLES,
    *ARM_TABLES,
    *EVALUATION_TABLES,
    *EFFECT_TABLES,
    *CONFOUNDER_TABLES,
    *TRADEOFF_TABLES,
)
