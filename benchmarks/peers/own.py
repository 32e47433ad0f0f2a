"""Our own runs. Each function returns what runs all sets, and what makes trades of its result."""

import asyncio
from datetime import UTC, datetime, timedelta

import numpy as np

import backtest_kit as bk
from backtest_kit._walker.trial import TrialSetup, run_trial
from benchmarks.peers.rules import ENDLESS, FIRST, MINUTE, SLOW, STOP, pairs, turned


def engine_of(close):
    engine = bk.Engine()
    rows, begin = len(close), datetime.fromtimestamp(FIRST / 1000, UTC)
    times = FIRST + MINUTE * np.arange(rows)
    with engine:
        bk.set_config(
            avg_price_candles_count=1,
            percent_slippage=0.0,
            percent_fee=0.0,
            max_signal_lifetime_minutes=ENDLESS,
            ask_at="elapsed",  # after the candle that closed a trade, as in the others
        )
        candles = bk.Candles(times, close, close, close, close, np.ones(rows))
        bk.add_exchange(bk.exchanges.FrameExchange(candles))
        bk.add_frame(
            frame_name="all",
            interval="1m",
            start_date=begin + timedelta(minutes=SLOW + 1),
            end_date=begin + timedelta(minutes=rows),
        )
    return engine


def arrays(fast, slow, goal, life):
    def get_signals(candles):
        close = candles.close
        side = turned(bk.trailing_mean(close, fast), bk.trailing_mean(close, slow))
        return bk.Signals.bracket(side.view(np.int8), goal, STOP, life)

    return get_signals


def means_at_each_bar(fast, slow, goal, life):
    """The last closes are looked at anew at each minute that is asked for."""

    def get_signal(symbol, when):
        closes = bk.candles(symbol, "1m", slow + 1).close
        if not (
            closes[-fast:].mean() > closes[1:].mean()
            and closes[-fast - 1 : -1].mean() <= closes[:-1].mean()
        ):
            return None
        return long(float(closes[-1]), goal, life)

    return get_signal


def running_sums(fast, slow, goal, life):
    """Sums are carried from minute to minute, and made anew after those of an open trade."""
    step = timedelta(minutes=1)
    then, short, large, above = None, 0.0, 0.0, False

    def get_signal(symbol, when):
        nonlocal then, short, large, above
        closes = bk.candles(symbol, "1m", slow + 1).close
        last = closes.item(-1)
        if then is not None and when - then == step:
            before = above
            short += last - closes.item(-1 - fast)
            large += last - closes.item(0)
        else:
            short, large = float(closes[-fast:].sum()), float(closes[1:].sum())
            before = closes[-fast - 1 : -1].mean() > closes[:-1].mean()
        then, above = when, short / fast > large / slow
        return long(last, goal, life) if above and not before else None

    return get_signal


def long(price, goal, life):
    return bk.Signal(
        position="long",
        price_take_profit=price * (1 + goal / 100),
        price_stop_loss=price * (1 - STOP / 100),
        minute_estimated_time=life,
    )


def rows_of(opened_at, closed_at):
    first = FIRST + MINUTE  # the candle that has closed at a step began a minute earlier
    return pairs((opened_at - first) // MINUTE, (closed_at - first) // MINUTE)


def schema_of(make, one, life):
    fields = {"strategy_name": "own", "interval": "1m"}
    if make is arrays:
        return bk.StrategySchema(**fields, warmup=SLOW + 1, get_signals=make(*one, life=life))
    return bk.StrategySchema(**fields, get_signal=make(*one, life))


def backtest(close, sets, life, make):
    engine, (only,) = engine_of(close), sets
    engine.strategies.add(schema_of(make, only, life))

    def run():
        with engine:
            return bk.Backtest.run_sync(
                "X", strategy_name="own", exchange_name="frame", frame_name="all"
            )

    def trades(found):
        times = np.array([(t.signal.pending_at, t.close_timestamp) for t in found])
        return [rows_of(*times.reshape(-1, 2).T)]

    return run, trades


def with_arrays(close, sets, life):
    return backtest(close, sets, life, arrays)


def with_means(close, sets, life):
    return backtest(close, sets, life, means_at_each_bar)


def with_sums(close, sets, life):
    return backtest(close, sets, life, running_sums)


def trial_of(engine, one, life):
    exchange, frame = engine.exchanges.get("frame"), engine.frames.get("all")
    setup = TrialSetup(engine, ("X",), exchange, frame)
    return asyncio.run(run_trial(setup, schema_of(arrays, one, life)))


def trial(close, sets, life):
    engine, (only,) = engine_of(close), sets

    def trades(found):
        return [rows_of(found.trades.opened_at, found.trades.closed_at)]

    return lambda: trial_of(engine, only, life), trades


def walk(close, sets, life):
    """`bk.Walker` over `bk.grid`; its trades are those of a trial of each set, counts compared."""
    engine = engine_of(close)

    def make(index):
        return {
            "interval": "1m",
            "warmup": SLOW + 1,
            "get_signals": arrays(*sets[index], life=life),
        }

    with engine:
        names = bk.grid(make, index=range(len(sets)))
        bk.add_walker(walker_name="w", exchange_name="frame", frame_name="all", strategies=names)

    def run():
        with engine:
            return bk.Walker.run_sync("X", walker_name="w")

    def trades(contracts):
        found = [trial_of(engine, one, life).trades for one in sets]
        counts = {c.strategy_name: c.statistics.total_signals for c in contracts}
        assert [counts[name] for name in names] == [len(each.opened_at) for each in found]
        return [rows_of(each.opened_at, each.closed_at) for each in found]

    return run, trades
