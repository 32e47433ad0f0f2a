"""`python -m backtest_kit`."""

from backtest_kit.cli import main

main()
