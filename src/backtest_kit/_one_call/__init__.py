"""`bk.backtest` and `bk.compare`: from data and a strategy to a result, in one call."""
