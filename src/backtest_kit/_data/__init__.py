"""Candles from an exchange to what a run can see at an instant."""
