"""Measurements of any module: MACs, peak memory, time, and the machine they were taken on."""
