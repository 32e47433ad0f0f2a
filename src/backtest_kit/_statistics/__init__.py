"""Figures of closed trades and of comparisons: pure functions over arrays."""
