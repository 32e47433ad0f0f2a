"""What comes out of an account: time and memory of its curve and statistics.

`python -m benchmarks.account`: 20 symbols over a year of minutes with 20,000 fills, as ratios of
one pass over that many numbers.
"""

import time
import tracemalloc

import numpy as np
from rich.console import Console
from rich.table import Table

from backtest_kit._statistics.equity import AccountCounts
from backtest_kit._statistics.equity_curve import equity_curve
from backtest_kit._statistics.equity_outcome import account_outcome
from backtest_kit._values.equity_curve import Marks
from backtest_kit._values.fills import Fills
from backtest_kit._values.time import MINUTE

SYMBOLS = 20
FILLS = 20_000
YEAR = 525_600
START = 1_672_531_200_000


def best(function):
    """Return the shortest of three times in seconds."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def market(rng):
    """Return the marks of all symbols, random walks from 100."""
    return Marks(
        timestamp=START + np.arange(YEAR + 1, dtype=np.int64) * MINUTE,
        prices={
            f"S{i}": 100 * np.exp(np.cumsum(rng.normal(0, 5e-4, YEAR + 1))) for i in range(SYMBOLS)
        },
    )


def trading(rng, marks, symbols):
    """Return fills of trades of one entry and one exit, evenly over the runs."""
    each = FILLS // len(symbols) // 2
    rows = []
    for run, symbol in enumerate(symbols):
        at = np.sort(rng.choice(YEAR, 2 * each, replace=False))
        price = marks.prices[symbol][at]
        side = rng.choice((1, -1), each)
        quantity = rng.uniform(1, 5, each)
        cost, value = quantity * price[0::2], quantity * price[1::2]
        rows += [
            {
                "timestamp": marks.timestamp[at[part::2]],
                "run": np.full(each, run),
                "trade": run * each + np.arange(each),
                "side": side,
                "quantity": quantity * (1 - 2 * part),
                "basis": cost * (1 - 2 * part),
                "fee": cost * 1e-3,
                "slippage": cost * 1e-3,
                "profit": side * (value - cost) * part,
                "value": value if part else cost,
                "liquidated": np.zeros(each, dtype=np.bool_),
            }
            for part in (0, 1)
        ]
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    order = np.argsort(columns["timestamp"], kind="stable")
    columns["balance"] = columns["profit"] - columns["fee"]
    kinds = {"side": np.int8, "run": np.int64, "trade": np.int64}
    return Fills(
        **{
            name: values[order].astype(kinds.get(name)) if name in kinds else values[order]
            for name, values in columns.items()
        }
    )


def main():
    rng = np.random.default_rng(0)
    marks = market(rng)
    symbols = [*marks.prices]
    fills = trading(rng, marks, symbols)
    runs = [("s", symbol) for symbol in symbols]
    balance = 1e6

    def add():
        total = np.zeros(YEAR + 1)
        for price in marks.prices.values():
            total += price
        return total

    base = best(add)
    rows = {
        "curve": lambda: equity_curve(fills, symbols, marks, balance, 1.0),
        "all": lambda: account_outcome(runs, fills, marks, AccountCounts(), balance=balance),
    }
    table = Table(title=f"{SYMBOLS} symbols, {YEAR:,} minutes, {FILLS:,} fills")
    for name in ("", "seconds", "times one pass", "MB above the marks"):
        table.add_column(name, justify="right")
    for name, function in rows.items():
        seconds = best(function)
        tracemalloc.start()
        function()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        table.add_row(name, f"{seconds:.2f}", f"{seconds / base:.0f}", f"{peak / 1e6:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
