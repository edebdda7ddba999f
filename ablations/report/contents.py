"""Every table of the report, in its order."""

from ablations.report.arm_tables import ARM_TABLES
from ablations.report.cost_tables import COST_TABLES
from ablations.report.tables import Table

TABLES: tuple[Table, ...] = (*COST_TABLES, *ARM_TABLES)
