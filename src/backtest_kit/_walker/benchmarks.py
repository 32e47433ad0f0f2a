"""What the strategies of a walk are compared with, on the candles that they ran on."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from backtest_kit._arrays.draws import compile_draws
from backtest_kit._backtest.array_session import load_kernel
from backtest_kit._data.base import run_config, timeline_of
from backtest_kit._data.market import MarketView
from backtest_kit._engine.engine import describe
from backtest_kit._statistics.against import BIN_DRAWS
from backtest_kit._statistics.benchmarks import (
    DRAWS,
    HOLD,
    RANDOM,
    BenchmarkRow,
    Market,
    benchmark_rows,
    hold_profits,
    random_profits,
)
from backtest_kit._statistics.family import BenchmarkBins
from backtest_kit._statistics.ranking import SEED
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.errors import BacktestKitError, DataError
from backtest_kit._values.schemas import METRICS, Benchmark
from backtest_kit._values.time import MINUTE
from backtest_kit._walker.trial import TrialSetup

#: Entries that Python draws as soon as the kernel is loaded.
_WORTHWHILE: Final = 10_000
#: Without Numba: entries that are drawn, ten seconds of them, and draws whatever that takes.
_PLAIN_ENTRIES: Final = 60_000
_LEAST_DRAWS: Final = 20


async def load_markets(setup: TrialSetup) -> list[Market]:
    """Return the market of each symbol over the frame, and on to the end of the longest life.

    Raises:
        BacktestKitError: the candles can't be had.
    """
    found = []
    for symbol in setup.symbols:
        config = run_config(setup.engine.config, setup.exchange, symbol)
        timeline = timeline_of(setup.frame, config)
        end = timeline[-1] + config.max_signal_lifetime_minutes * MINUTE
        view = MarketView(setup.engine.store, setup.exchange, config, timeline[-1])
        try:
            bars = await view.bars(symbol, timeline[0], end)
        except DataError:  # perhaps of what lies behind the frame
            bars = await view.bars(symbol, timeline[0], timeline[-1])
        found.append(Market(bars, timeline, config))
    return found


async def markets_for(setup: TrialSetup, benchmark: Benchmark) -> list[Market]:
    """Return the markets of the benchmark that strategies are tested against.

    None where that is 0, and, with a warning, where the candles can't be had.
    """
    if benchmark == 0:
        return []
    try:
        return await load_markets(setup)
    except BacktestKitError as error:  # which each trial will raise, and report
        setup.engine.logger.warning("no benchmark: %s", describe(error))
        return []


def bins_against(
    setup: TrialSetup,
    markets: Sequence[Market],
    benchmark: Benchmark,
    results: Sequence[TrialResult],
) -> BenchmarkBins | None:
    """Return what the strategies of these results are tested against; `None`: against 0."""
    if not markets:
        return None
    if benchmark == "random":
        prepare_draws(setup, sum(result.trades.count for result in results) * BIN_DRAWS)
    return benchmark_bins(markets, benchmark, results)


async def compared_with(
    setup: TrialSetup, results: Sequence[TrialResult], name: str
) -> tuple[BenchmarkRow, ...]:
    """Return the rows of a ranking by a metric that nobody registered.

    None where no strategy has figures: the candles can't be had either.
    """
    good = [result for result in results if result.statistics is not None]
    if not good:
        return ()
    best = best_of(good, name)
    try:
        markets = await load_markets(setup)
    except BacktestKitError as error:
        why = describe(error)
        return (
            BenchmarkRow(kind="hold", name=HOLD, error=why),
            BenchmarkRow(kind="random", name=RANDOM, error=why),
        )
    trades = 0 if best is None else best.trades.count

    def compute() -> tuple[BenchmarkRow, ...]:
        prepare_draws(setup, trades * DRAWS)
        if name in METRICS:
            return benchmark_rows(markets, best, name, SEED, _draws(trades))
        # figures of trades: what an account would have made of them is not played
        rows = benchmark_rows(markets, best, "total_pnl", SEED, _draws(trades))
        none = {"metric_value": None, "percentile_95": None, "share_below": None}
        return tuple(msgspec.structs.replace(row, **none) for row in rows)

    return await asyncio.to_thread(compute)


def best_of(results: Sequence[TrialResult], name: str) -> TrialResult | None:
    """Return the best result by a metric, of equal ones the earlier; `None`: none has it."""
    values = [(result.metric(name), result) for result in results]
    known = [(value, result) for value, result in values if value is not None]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def _draws(trades: int) -> int:
    """Return how often to draw: less without Numba, which draws fifty times as fast.

    It depends on what is installed, not on what is loaded, so that figures don't.
    """
    if importlib.util.find_spec("numba") is not None:
        return DRAWS
    return min(DRAWS, max(_LEAST_DRAWS, _PLAIN_ENTRIES // max(trades, 1)))


def prepare_draws(setup: TrialSetup, entries: int) -> None:
    """Load the compiled kernel where so many random entries are worth it."""
    if entries >= _WORTHWHILE:
        load_kernel(setup.engine)
        compile_draws(setup.engine.logger)


def benchmark_bins(
    markets: Sequence[Market], benchmark: Benchmark, results: Sequence[TrialResult]
) -> BenchmarkBins | None:
    """Return the function that `rank` takes for a walk's benchmark; `None` where that is 0."""
    if benchmark == 0:
        return None
    known: Mapping[str, TrialResult] = {result.strategy_name: result for result in results}
    found: dict[tuple[str, bytes], Floats] = {}

    def bins(strategy_name: str, edges: Ints) -> Floats:
        key = (strategy_name if benchmark == "random" else "", edges.tobytes())
        if key not in found:
            if benchmark == "hold":
                found[key] = np.sum([hold_profits(market, edges) for market in markets], axis=0)
            else:
                trial = known[strategy_name]
                trades = trial.trades
                held = trades.closed_at - trades.opened_at
                taken = trades.symbol, held, trial.brackets
                found[key] = random_profits(markets, *taken, edges, SEED, BIN_DRAWS)
        return found[key]

    return bins
