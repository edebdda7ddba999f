"""Measurements of any module: multiply-adds, peak memory, time, and the machine they were taken on."""
