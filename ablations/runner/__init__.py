"""From cells to records: which are missing, what they need, who computes them, how they are recorded."""

from ablations.runner.needs import default_jobs
from ablations.runner.run import Summary, run_cells

__all__ = ["Summary", "default_jobs", "run_cells"]
