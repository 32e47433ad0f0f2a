"""Bokeh figures for notebooks and pages of one's own, to show, change and save as one likes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backtest_kit._pages.candle_data import spacing_of
from backtest_kit._pages.charts import curve_chart, drawdown_chart, held_curve
from backtest_kit._pages.live_charts import timeline_chart, total_chart
from backtest_kit._pages.page import require_bokeh
from backtest_kit._pages.price_chart import EXITS, price_chart
from backtest_kit._pages.trade_data import trade_columns
from backtest_kit._pages.walk_charts import curves_chart
from backtest_kit._reports.backtest import BacktestData
from backtest_kit._reports.live import LiveData
from backtest_kit._reports.trades import outcomes_of
from backtest_kit._statistics.ranking import WalkerData
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.candles import Candles, regroup
from backtest_kit._values.time import INTERVALS

if TYPE_CHECKING:
    from bokeh.models import Column
    from bokeh.plotting import figure as Figure  # noqa: N812 - it is a class

#: A figure has no script that thins candles by zoom level: it holds at most about this many.
_MOST_CANDLES: Final = 3000


def backtest_figure(data: BacktestData, candles: Candles | None = None) -> Column:
    """Return a Bokeh column: candles with trades (with `candles`), curve of profit, drawdown.

    Candles are those of an interval that leaves at most 3,000 of them. Names are not in it: Bokeh
    reads formulas into text.

    Raises:
        BacktestKitError: Bokeh is missing.
    """
    require_bokeh()
    from bokeh.layouts import column

    span = (data.since, max(data.until, data.since + 1))
    profits, _, closed_at = outcomes_of(data.signals)
    shown, held = [], None
    prices: Figure | None = None
    if candles is not None and len(candles):
        prices = price_chart(*span)
        held = held_curve(candles)
        _fill(prices, data, _thinned(candles))
        shown.append(prices)
    shown += [
        curve_chart(span, closed_at, profits, held, prices),
        drawdown_chart(span, closed_at, profits),
    ]
    return column(*shown, sizing_mode="stretch_width")


def walk_figure(data: WalkerData, trials: Sequence[TrialResult]) -> Figure:
    """Return a Bokeh figure: the sums of profits of all strategies, the best in a thick line.

    Raises:
        BacktestKitError: Bokeh is missing.
    """
    require_bokeh()
    end = max(data.until, data.since + 1)
    curves = {
        trial.strategy_name: (
            np.array([data.since, *trial.trades.closed_at, end], dtype=np.float64),
            np.concatenate(([0.0], total := np.cumsum(trial.trades.r), total[-1:])),
        )
        for trial in trials
        if trial.trades.count
    }
    reach = [float(f(y)) for _, y in curves.values() for f in (np.min, np.max)] or [0.0]
    plot = curves_chart((data.since, end), (min(reach), max(reach)))
    sources = _sources(plot)
    best = curves.pop(data.best_strategy or "", None)
    sources["others"].data = {
        "xs": [x for x, _ in curves.values()],
        "ys": [y for _, y in curves.values()],
    }
    if best is not None:
        sources["best"].data = {"x": best[0], "y": best[1]}
    return plot


def live_figure(runs: Sequence[LiveData]) -> Column:
    """Return a Bokeh column: when runs held what, a lane for each, and the sum of profits.

    Raises:
        BacktestKitError: Bokeh is missing.
    """
    require_bokeh()
    from bokeh.layouts import column

    span = (min(run.since for run in runs), max(run.until for run in runs))
    span = (span[0], max(span[1], span[0] + 1))
    closed = sorted((t for run in runs for t in run.signals), key=lambda t: t.close_timestamp)
    profits, _, at = outcomes_of(closed)
    lanes = timeline_chart(runs, span, 70 + 34 * len(runs))
    return column(lanes, total_chart(span, at, profits), sizing_mode="stretch_width")


def _thinned(candles: Candles) -> Candles:
    step = spacing_of(candles)
    for longer in sorted(INTERVALS.values()):
        if len(candles) <= _MOST_CANDLES:
            break
        if longer > step and longer % step == 0:
            candles, step = regroup(candles, longer), longer
    return candles


def _fill(plot: Figure, data: BacktestData, candles: Candles) -> None:
    """Put candles and trades where the page's script would put them."""
    from bokeh.models import VBar

    sources, step = _sources(plot), spacing_of(candles)
    t, o, h, low, c, _ = candles.columns()
    for name, rows in (("candles_up", c >= o), ("candles_down", c < o)):
        columns = {"x": t + step / 2, "open": o, "high": h, "low": low, "close": c}
        sources[name].data = {key: values[rows] for key, values in columns.items()}
    for body in plot.select({"type": VBar}):
        body.update(width=step * 0.7)
    margin = (float(h.max()) - float(low.min())) * 0.06 or 1.0
    plot.y_range.update(start=float(low.min()) - margin, end=float(h.max()) + margin)
    trades = {name: np.array(values) for name, values in trade_columns(data.signals).items()}
    entry, exit_ = trades["entry"], trades["exit"]
    for name, of in (("profit_zones", "goal"), ("loss_zones", "stop")):
        level = trades[of].astype(np.float64)  # NaN where there is none
        sources[name].data = {
            "left": trades["opened"],
            "right": trades["closed"],
            "bottom": np.fmin(entry, level),
            "top": np.fmax(entry, level),
        }
    sources["paths"].data = {
        "x0": trades["opened"],
        "y0": entry,
        "x1": trades["closed"],
        "y1": exit_,
    }
    long = trades["long"].astype(np.bool_)
    for name, rows in (("long_entries", long), ("short_entries", ~long)):
        sources[name].data = {"x": trades["opened"][rows], "y": entry[rows]}
    for reason in EXITS:
        rows = trades["reason"] == reason
        sources[f"exits_{reason}"].data = {"x": trades["closed"][rows], "y": exit_[rows]}


def _sources(plot: Figure) -> dict[str, Any]:
    from bokeh.models import ColumnDataSource

    return {str(source.name): source for source in plot.select({"type": ColumnDataSource})}
