"""The other frameworks. Each function returns what runs all sets, and what makes trades of it."""

import functools
import gc

import numpy as np

from benchmarks.peers.rules import CASH, FIRST, LIFE, MINUTE, SLOW, STOP, pairs, trailing, turned

COLUMNS = 100  # sets in one call of vectorbt; more don't fit everywhere


@functools.cache
def time_stop(life):
    """Both stops 0 from an age on: any price is at or beyond one of them."""
    from numba import njit

    @njit
    def stop(c, life):
        return (0.0 if c.init_i >= 0 and c.i - c.init_i >= life else c.curr_stop), c.curr_trail

    @njit
    def goal(c, life):
        return 0.0 if c.init_i >= 0 and c.i - c.init_i >= life else c.curr_stop

    return {
        "adjust_sl_func_nb": stop,
        "adjust_sl_args": (life,),
        "adjust_tp_func_nb": goal,
        "adjust_tp_args": (life,),
    }


def vectorbt(close, sets, life, engine="numba", columns=COLUMNS):
    """`vbt.MA` once for each window, and `Portfolio.from_signals` with a column for each set."""
    import vectorbt as vbt

    vbt.settings["engine"] = engine

    column = close[:, np.newaxis]
    limit = time_stop(life) if life == LIFE else {}

    def some(these):
        windows = sorted({window for one in these for window in one[:2]})
        means = vbt.MA.run(close, windows).ma.to_numpy()
        of = {window: means[:, i] for i, window in enumerate(windows)}
        entries = np.empty((len(close), len(these)), dtype=bool, order="F")
        for i, (fast, slow, _) in enumerate(these):
            entries[:, i] = turned(of[fast], of[slow])
        portfolio = vbt.Portfolio.from_signals(
            column,
            entries,
            False,
            open=column,
            high=column,
            low=column,
            tp_stop=np.array([[one[2] / 100 for one in these]]),
            sl_stop=STOP / 100,
            size=1.0,
            init_cash=CASH,
            freq="1min",
            **limit,
        )
        return portfolio.trades.records

    def run():
        found = []
        for i in range(0, len(sets), columns):
            if i and i % COLUMNS == 0:
                gc.collect()  # portfolios are in cycles, and large
            found.append(some(sets[i : i + columns]))
        return found

    def trades(batches):
        found = []
        for i, records in enumerate(batches):
            done = records[records["status"] == 1]
            for column in range(len(sets[i * columns : (i + 1) * columns])):
                own = done[done["col"] == column]
                found.append(pairs(own["entry_idx"].to_numpy(), own["exit_idx"].to_numpy()))
        return found

    return run, trades


def vectorbt_one_by_one(close, sets, life):
    return vectorbt(close, sets, life, columns=1)


def vectorbt_rust(close, sets, life):
    return vectorbt(close, sets, life, "rust")


def vectorbt_rust_one_by_one(close, sets, life):
    return vectorbt(close, sets, life, "rust", columns=1)


def at_each_bar(closes, fast, slow):
    """Whether the fast mean has come to lie above the slow one with the last close."""
    return (
        closes[-fast:].mean() > closes[1:].mean()
        and closes[-fast - 1 : -1].mean() <= closes[:-1].mean()
    )


def backtesting(close, sets, life, prepared=True):
    import pandas as pd
    from backtesting import Backtest, Strategy

    volume = np.ones(len(close))
    frame = pd.DataFrame(
        {"Open": close, "High": close, "Low": close, "Close": close, "Volume": volume},
        index=pd.to_datetime(FIRST + MINUTE * np.arange(len(close)), unit="ms"),
    )

    class Crossover(Strategy):
        fast, slow, goal = sets[0]

        def init(self):
            if prepared:
                means = trailing(close, self.fast), trailing(close, self.slow)
                self.side = self.I(turned, *means, plot=False)

        def next(self):
            row = len(self.data) - 1
            if self.trades:
                trade = self.trades[-1]
                if row - trade.entry_bar >= life:
                    trade.sl = trade.tp = None  # else the next candle may reach them first
                    trade.close()
                return
            if prepared:
                if self.side[-1] != 1:
                    return
            elif row < SLOW or not at_each_bar(
                np.asarray(self.data.Close[-self.slow - 1 :]), self.fast, self.slow
            ):
                return
            if self.closed_trades and self.closed_trades[-1].exit_bar == row:
                return
            price = self.data.Close[-1]
            self.buy(size=1, tp=price * (1 + self.goal / 100), sl=price * (1 - STOP / 100))

    def run():
        test, found = Backtest(frame, Crossover, cash=CASH, trade_on_close=True), []
        for fast, slow, goal in sets:
            trades = test.run(fast=fast, slow=slow, goal=goal)["_trades"]
            found.append(pairs(trades["EntryBar"].to_numpy(), trades["ExitBar"].to_numpy()))
        return found

    return run, list


def backtesting_at_each_bar(close, sets, life):
    return backtesting(close, sets, life, prepared=False)


def nautilus_trader(close, sets, life):
    """Signals are looked up, made with the means of whole arrays: that is in its favour."""
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
    first = FIRST + MINUTE
    frame = pd.DataFrame(
        dict.fromkeys(("open", "high", "low", "close"), close) | {"volume": np.ones(len(close))},
        index=pd.to_datetime(first + MINUTE * np.arange(len(close)), unit="ms", utc=True),
    )
    bars = BarDataWrangler(kind, instrument).process(frame)

    class Crossover(Strategy):
        def __init__(self, fast, slow, goal):
            super().__init__()
            self.side = turned(trailing(close, fast), trailing(close, slow))
            self.goal, self.row, self.entered, self.left = goal, -1, -1, -1
            self.trades = []

        def on_start(self):
            self.subscribe_bars(kind)

        def on_bar(self, bar):
            self.row += 1
            if self.entered >= 0:
                if self.row - self.entered >= life:
                    self.cancel_all_orders(instrument.id)
                    self.close_all_positions(instrument.id)
                return
            if not self.side[self.row] or self.left == self.row:
                return
            price = float(bar.close)
            # levels are on a grid of 0.01, as prices are: the same closes reach them
            goal = np.ceil(price * (1 + self.goal / 100) * 100 - 1e-6) / 100
            stop = np.floor(price * (1 - STOP / 100) * 100 + 1e-6) / 100
            orders = self.order_factory.bracket(
                instrument.id,
                OrderSide.BUY,
                Quantity(0.001, 6),
                tp_price=Price(goal, 2),
                sl_trigger_price=Price(stop, 2),
            )
            self.submit_order_list(orders)
            self.entered = self.row

        def on_position_closed(self, event):
            rows = [(t // 1_000_000 - first) // MINUTE for t in (event.ts_opened, event.ts_closed)]
            self.left, self.entered = rows[1], -1
            self.trades.append(rows)

    def one_run(one):
        quiet = BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True))
        engine = BacktestEngine(config=quiet)
        engine.add_venue(
            venue=Venue("BINANCE"),
            oms_type=OmsType.NETTING,
            account_type=AccountType.MARGIN,
            frozen_account=True,
            starting_balances=[Money(int(CASH), USDT)],
        )
        engine.add_instrument(instrument)
        engine.add_data(bars)
        strategy = Crossover(*one)
        engine.add_strategy(strategy)
        engine.run()
        engine.dispose()
        return pairs(*np.array(strategy.trades, dtype=np.int64).reshape(-1, 2).T)

    return lambda: [one_run(one) for one in sets], list
