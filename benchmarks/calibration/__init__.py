"""How often a walk claims something where nothing is, and finds what is there.

`make calibration`, or `python -m benchmarks.calibration [--walks N] [--minutes FILE.parquet]`,
writes docs/calibration.md. Everything is seeded: the same release gives the same page. A part of
it is a test (tests/core/test_calibration.py).
"""
