"""What a terminal shows of an account."""

from __future__ import annotations

from rich.text import Text

from backtest_kit._reports.notebook import sparkline
from backtest_kit._reports.portfolio import summary_lines
from backtest_kit._reports.portfolio_data import PortfolioData, doubts
from backtest_kit.cli.terminal import Console


def show_account(data: PortfolioData, console: Console) -> None:
    """Print what an account came to: its doubts, its curve, and its figures beside holding."""
    for line in doubts(data):
        console.print(Text(line, style="bold red"), soft_wrap=True)
    lines = [("Equity", sparkline(data.curve.timestamp, data.curve.equity)), *summary_lines(data)]
    for name, value in lines:
        console.print(Text(f"{name:<20} ", "dim") + Text(value), soft_wrap=True, highlight=False)
