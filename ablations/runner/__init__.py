"""From cells to records: which are missing, what they need, who computes them, how they are recorded."""

from ablations.runner.run import Keep, Summary, run_cells

__all__ = ["Keep", "Summary", "run_cells"]
