"""Records: what came of each measured cell, written whole or not at all, and read as a table. Needs no torch.

A record describes itself: names, config, conditions, outcome, result with raw samples, environment, time taken. Its key
is the address of its cell, so a cell is measured once; its digest covers all that it says. A run writes one JSON file a
record, `records/MEASUREMENT/NAME_KEY.json`. `pack_records` puts them into one file a measurement,
`records/MEASUREMENT.jsonl`. Both forms are read, mixed; a file of its own counts more than a packed line of the same
key.
"""

from ablations.records.columns import describe_columns
from ablations.records.record_file import write_record
from ablations.records.table import load_records

__all__ = ["describe_columns", "load_records", "write_record"]
