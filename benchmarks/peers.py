"""Other frameworks on the same candles: first the same trades, then the times, in one run.

`python -m benchmarks.peers` in an environment of its own: the dependency group `peers` (or
`peers-nautilus`, which wants an older pandas), and `backtest-kit[numba]`. What is not installed
is left out, and named.

The candles are flat (open, high, low and close are one price, the volume is 1), since frameworks
fill at different prices inside a candle; then all enter at the close of the candle with the signal
and leave at the first close at or beyond take profit or stop loss. The trades are compared by
candle of entry and exit. No costs. Each one computes the crossover's means itself, by the same
function, from candles in memory.
"""

import asyncio
import importlib.metadata
import time
from datetime import UTC, datetime, timedelta

import numpy as np
from rich.console import Console
from rich.table import Table

import backtest_kit as bk
from backtest_kit._trial import run_trial

MINUTES = 525_600
FIRST = datetime(2023, 1, 1, tzinfo=UTC)
GOAL, STOP, SLOW = 1.0, 0.8, 100


def crossing(close):
    """1 where the mean of 20 comes to lie above that of 100."""
    above = bk.trailing_mean(close, 20) > bk.trailing_mean(close, SLOW)
    side = np.zeros(len(close), dtype=np.int8)
    side[1:] = above[1:] & ~above[:-1]
    side[:SLOW] = 0
    return side


def market():
    """Flat candles; a few before the first frame, for the means."""
    source = bk.exchanges.SyntheticExchange(seed=1)
    since = int(FIRST.timestamp() * 1000)
    prices = asyncio.run(source.get_candles("X", "1m", since, MINUTES)).close
    t = since + 60_000 * np.arange(MINUTES)
    return bk.Candles(t, prices, prices, prices, prices, np.ones(MINUTES))


def setup(engine, candles):
    """Register the crossover; return what runs it, as a trial of a walk and as a backtest."""
    engine.set_config(
        avg_price_candles_count=1,
        percent_slippage=0.0,
        percent_fee=0.0,
        max_signal_lifetime_minutes=2 * MINUTES,
    )
    bk.add_exchange(bk.exchanges.FrameExchange(candles))
    bk.add_frame(
        frame_name="year",
        interval="1m",
        start_date=FIRST + timedelta(minutes=SLOW + 1),
        end_date=FIRST + timedelta(minutes=MINUTES),
    )
    bk.add_strategy(
        strategy_name="crossover",
        interval="1m",
        warmup=SLOW + 1,
        get_signals=lambda c: bk.Signals.bracket(crossing(c.close), GOAL, STOP, 2 * MINUTES),
    )
    schema, frame = engine.strategies.get("crossover"), engine.frames.get("year")
    exchange = engine.exchanges.get("frame")
    first = int(candles.timestamp[0]) + 60_000

    def trial():
        trades = asyncio.run(run_trial(engine, schema, ["X"], exchange, frame)).trades
        return (trades.opened_at - first) // 60_000, (trades.closed_at - first) // 60_000

    def backtest():
        with engine:
            found = bk.Backtest.run_sync(
                "X", strategy_name="crossover", exchange_name="frame", frame_name="year"
            )
        times = np.array([(t.signal.pending_at, t.close_timestamp) for t in found])
        return tuple((times.T - first) // 60_000)

    return trial, backtest


def vectorbt(candles):
    import vectorbt as vbt

    close = candles.close

    def run():
        entries = crossing(close) == 1
        portfolio = vbt.Portfolio.from_signals(
            close,
            entries,
            np.zeros(len(close), dtype=bool),
            open=close,
            high=close,
            low=close,
            tp_stop=GOAL / 100,
            sl_stop=STOP / 100,
            size=1.0,
            init_cash=1e9,
            freq="1min",
        )
        trades = portfolio.trades.records
        closed = trades[trades["status"] == 1]
        return closed["entry_idx"].to_numpy(), closed["exit_idx"].to_numpy()

    return run


def backtesting(candles):
    import pandas as pd
    from backtesting import Backtest, Strategy

    close = candles.close
    frame = pd.DataFrame(
        {"Open": close, "High": close, "Low": close, "Close": close, "Volume": candles.volume},
        index=pd.to_datetime(candles.timestamp, unit="ms"),
    )

    class Crossover(Strategy):
        def init(self):
            self.side = self.I(crossing, close, plot=False)

        def next(self):
            if self.side[-1] != 1 or self.position:
                return
            if self.closed_trades and self.closed_trades[-1].exit_bar == len(self.data) - 1:
                return  # as ours: the next signal comes after the candle that closed the last
            price = self.data.Close[-1]
            self.buy(size=1, tp=price * (1 + GOAL / 100), sl=price * (1 - STOP / 100))

    def run():
        test = Backtest(frame, Crossover, cash=1e9, trade_on_close=True)
        trades = test.run()["_trades"]
        return trades["EntryBar"].to_numpy(), trades["ExitBar"].to_numpy()

    return run


def nautilus_trader(candles):
    import pandas as pd
    from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
    from nautilus_trader.config import LoggingConfig
    from nautilus_trader.model.currencies import USDT
    from nautilus_trader.model.data import BarType
    from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
    from nautilus_trader.model.identifiers import Venue
    from nautilus_trader.model.objects import Money, Price, Quantity
    from nautilus_trader.persistence.wranglers import BarDataWrangler
    from nautilus_trader.test_kit.providers import TestInstrumentProvider
    from nautilus_trader.trading.strategy import Strategy

    instrument = TestInstrumentProvider.btcusdt_binance()
    kind = BarType.from_str(f"{instrument.id}-1-MINUTE-LAST-EXTERNAL")
    close = candles.close
    names = ("open", "high", "low", "close", "volume")
    frame = pd.DataFrame(
        {name: getattr(candles, name) for name in names},
        index=pd.to_datetime(candles.timestamp + 60_000, unit="ms", utc=True),
    )
    bars = BarDataWrangler(kind, instrument).process(frame)
    first = int(candles.timestamp[0]) + 60_000

    class Crossover(Strategy):
        def __init__(self):
            super().__init__()
            self.side, self.row, self.left, self.trades = crossing(close), -1, -1, []

        def on_start(self):
            self.subscribe_bars(kind)

        def on_bar(self, bar):
            self.row += 1
            if self.side[self.row] != 1 or self.left == self.row:
                return  # as ours: the next signal comes after the candle that closed the last
            if not self.portfolio.is_flat(instrument.id):
                return
            price = float(bar.close)
            # levels are on a grid of 0.01, as prices are: the same closes reach them
            goal = np.ceil(price * (1 + GOAL / 100) * 100 - 1e-6) / 100
            stop = np.floor(price * (1 - STOP / 100) * 100 + 1e-6) / 100
            orders = self.order_factory.bracket(
                instrument.id,
                OrderSide.BUY,
                Quantity(0.001, 6),
                tp_price=Price(goal, 2),
                sl_trigger_price=Price(stop, 2),
            )
            self.submit_order_list(orders)

        def on_position_closed(self, event):
            rows = [(t // 1_000_000 - first) // 60_000 for t in (event.ts_opened, event.ts_closed)]
            self.left = rows[1]
            self.trades.append(rows)

    def run():
        quiet = BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True))
        engine = BacktestEngine(config=quiet)
        engine.add_venue(
            venue=Venue("BINANCE"),
            oms_type=OmsType.NETTING,
            account_type=AccountType.MARGIN,
            frozen_account=True,
            starting_balances=[Money(1_000_000_000, USDT)],
        )
        engine.add_instrument(instrument)
        engine.add_data(bars)
        strategy = Crossover()
        engine.add_strategy(strategy)
        engine.run()
        engine.dispose()
        return tuple(np.array(strategy.trades).T)

    return run


def same(own, other):
    """Compare trades by candle of entry and exit; one that is open at the end counts for none."""
    own, other = (
        [pair for pair in zip(*map(np.ndarray.tolist, t), strict=True) if pair[1] < MINUTES - 1]
        for t in (own, other)
    )
    for mine, theirs in zip(own, other, strict=False):
        assert mine == theirs, f"we trade {mine}, they {theirs}"
    assert len(own) == len(other), f"we have {len(own)} trades, they {len(other)}"
    return len(own)


def best(function, repeats):
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def main():
    candles = market()
    engine = bk.Engine()
    with engine:
        trial, backtest = setup(engine, candles)
    own = trial()
    count = same(own, backtest())
    table = Table(title=f"{count:,} equal trades in {MINUTES:,} candles", title_justify="left")
    for name in ("Framework", "Time", "Times as long as a trial"):
        table.add_column(name, justify="left" if name == "Framework" else "right")
    base = best(trial, 10)
    table.add_row("backtest-kit, a trial of a walk", f"{base * 1e3:,.1f} ms", "1 (baseline)")
    again = best(backtest, 5)
    table.add_row("backtest-kit, a backtest", f"{again * 1e3:,.1f} ms", f"{again / base:,.1f}")
    peers = (("vectorbt", vectorbt, 5), ("backtesting", backtesting, 1))
    for name, make, repeats in (*peers, ("nautilus_trader", nautilus_trader, 1)):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            table.add_row(f"{name}: not installed", "", "")
            continue
        run = make(candles)
        same(own, run())
        seconds = best(run, repeats)
        table.add_row(f"{name} {version}", f"{seconds * 1e3:,.1f} ms", f"{seconds / base:,.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
