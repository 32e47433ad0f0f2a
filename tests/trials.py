"""Results of trials over random trades."""

import numpy as np

from backtest_kit._statistics.figures import summarize
from backtest_kit._statistics.trial_result import TradeColumns, TrialResult

DAY = 86_400_000
HOUR = 3_600_000
QUARTER = HOUR // 4


def trial(name, seed, *, days=60, rate=4, edge=0.0, until=None, symbols=1):
    """Random trades on a grid, one at a time per symbol; an `edge` up to the day `until`."""
    rng = np.random.default_rng([seed, 3])
    rows = []
    for symbol in range(symbols):
        at = 0
        while at < days * DAY:
            at += int(rng.integers(0, 2 * DAY // rate) // QUARTER) * QUARTER
            end = at + int(rng.integers(QUARTER, 5 * HOUR) // QUARTER) * QUARTER
            better = edge if until is None or at < until * DAY else -edge
            rows.append((end, symbol, at, float(rng.normal(better, 1))))
            at = end
    rows.sort()
    closed, symbol, opened = (np.array([row[i] for row in rows], "<i8") for i in range(3))
    r = np.array([row[3] for row in rows])
    columns = (column.tobytes() for column in (r, opened, closed, symbol))
    return TrialResult(
        strategy_name=name,
        symbols=tuple("XYZ"[:symbols]),
        since=0,
        until=days * DAY,
        statistics=summarize(r, opened, closed, (0, days * DAY)),
        trades=TradeColumns(*columns),
    )
