"""From records to numbers: DataFrames of what tables and figures show. No torch, no drawing, no formatting.

A function `..._values` takes the DataFrame of `load_records` and returns a row for each row of one table of the report,
behind the conditions that it was measured or trained under.
"""
