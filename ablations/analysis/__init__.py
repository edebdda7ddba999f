"""From records to numbers: DataFrames of what tables and figures show. No torch, no drawing, no formatting."""
