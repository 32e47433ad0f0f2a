"""Candles from an exchange into a catalog, and what is in it."""

from backtest_kit.data._download import download, update
from backtest_kit.data._fill import Progress
from backtest_kit.data._listing import describe
from backtest_kit.data._outcome import Download, Problem, SeriesDownload, SeriesSummary

__all__ = [
    "Download",
    "Problem",
    "Progress",
    "SeriesDownload",
    "SeriesSummary",
    "describe",
    "download",
    "update",
]
