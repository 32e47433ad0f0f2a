"""Backtests: the driver over a frame, and the path over arrays."""
