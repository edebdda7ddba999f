"""The numbers of the tables, computed from records.

Functions take the base of `load_records` and return one row for each row of a table, behind the conditions that it
was measured under. Values keep the records' units, which their column names carry (`latency_s`, `peak_memory_bytes`);
`top1` and its differences are fractions.
"""

import pandas as pd

from ablations.analysis.grouping import (
    compare_with_reference,
    join_groups,
    split_by_conditions,
)


def memory_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the peak memory of each arm and resolution, its change against v1 in percent, and what goes with it.

    Where memory ran out there is no peak, and `out_of_memory` says what was asked for and what was free.
    """
    groups = split_by_conditions(records, "memory")
    parts = ["parameter_bytes", "input_bytes", "resident_peak_bytes", "out_of_memory"]
    return join_groups((group, compare_with_reference(group.rows, ["peak_memory_bytes"], parts)) for group in groups)


def speed_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the median latency of each arm, its interquartile range, throughput and speed relative to v1.

    `share_of_peak` is of the MACs a second that matrix products reach; an older record has none.
    """
    tables = []
    beside_v1 = records[records["reference"] == "v1"] if "reference" in records else records
    for group in split_by_conditions(beside_v1, "speed"):
        rows = group.rows.reindex(columns=[*group.rows, *{"macs_per_s", "peak_macs_per_s"} - set(group.rows)])
        table = rows[["arm", "latency_s"]].assign(latency_iqr_s=rows["latency_s"] * rows["iqr_over_median"])
        others = ["noisy", "throughput_img_per_s", "relative_speed", "relative_speed_low", "relative_speed_high"]
        share = rows["macs_per_s"] / rows["peak_macs_per_s"]
        tables.append((group, table.join(rows[others]).assign(share_of_peak=share)))
    return join_groups(tables)
