"""Random accounts for tests: books kept in a plain loop, minute by minute, and their fills."""

import numpy as np

from backtest_kit._engine.record import RunRecord
from backtest_kit._pages.results import portfolio_result
from backtest_kit._reports.backtest import backtest_data
from backtest_kit._reports.portfolio_data import portfolio_data
from backtest_kit._statistics.equity import AccountCounts
from backtest_kit._statistics.equity_trades import trade_sums
from backtest_kit._values.account_schemas import AccountSchema
from backtest_kit._values.config import Config
from backtest_kit._values.equity_curve import Marks
from backtest_kit._values.fills import Fills
from backtest_kit._values.results import ProfitLoss, TickClosed
from backtest_kit._values.signal import SignalRow

MINUTE = 60_000
DAY = 1440 * MINUTE
#: 2024-01-01, a Monday.
START = 1_704_067_200_000


class Position:
    def __init__(self, side, trade):
        self.side, self.trade, self.quantity, self.basis = side, trade, 0.0, 0.0


class World:
    """Runs on one account that trade at random, and what the loop says of each minute.

    `step` is the base interval in minutes; the last symbol's data begin late.
    """

    def __init__(
        self,
        seed,
        minutes=400,
        step=1,
        start=START,
        leverage=1.0,
        runs=(("a", "X"), ("b", "X"), ("a", "Y")),
        fee=0.001,
        slippage=0.0005,
        money=1.0,
        activity=0.1,
        wildness=0.02,
        dip=None,
    ):
        rng = np.random.default_rng(seed)
        self.runs, self.leverage, self.fee, self.balance = runs, leverage, fee, 10_000.0 * money
        self.symbols = [symbol for _, symbol in runs]
        count = minutes // step + 1
        self.timestamp = start + np.arange(count, dtype=np.int64) * step * MINUTE
        names = [*dict.fromkeys(self.symbols)]
        self.prices = {
            name: 100.0 * np.exp(np.cumsum(rng.normal(0, wildness, count))) for name in names
        }
        if len(names) > 1:
            self.prices[names[-1]][: rng.integers(0, count // 4 + 1)] = np.nan
        self.rows, self.equity, self.wallet, self.held = [], [], [], []
        self.realised = np.zeros((len(runs), 2))
        self.by_run = []
        wallet, trades = self.balance, 0
        held = [None] * len(runs)
        for i, now in enumerate(self.timestamp.tolist()):
            for run, symbol in enumerate(self.symbols):
                price = self.prices[symbol][i]
                if np.isnan(price) or rng.random() > activity:
                    continue
                for _ in range(rng.integers(1, 4)):
                    position = held[run]
                    raw = price * (1 + rng.normal(0, wildness / 4))
                    if position is None:
                        position = held[run] = Position(rng.choice((1, -1)), trades)
                        trades += 1
                    enter = not position.quantity or rng.random() < 0.3
                    slipped = raw * (1 + slippage * position.side * (1 if enter else -1))
                    if enter:
                        cost = money * rng.uniform(10, 2000)
                        q, k, profit, paid = cost / slipped, cost, 0.0, fee * cost
                        lost = False
                    else:
                        whole = rng.random() < 0.6
                        q = position.quantity if whole else position.quantity * rng.uniform(0, 0.9)
                        k = position.basis if whole else position.basis * q / position.quantity
                        profit = position.side * (q * slipped - k)
                        paid = fee * k
                        lost = profit - paid < -k / leverage
                        if lost:
                            profit, paid = -k / leverage, 0.0
                    sign = 1 if enter else -1
                    position.quantity += sign * q
                    position.basis += sign * k
                    wallet += profit - paid
                    self.realised[run, int(position.side < 0)] += profit - paid
                    self.rows.append(
                        (
                            *(now, run, position.trade, position.side, sign * q, sign * k),
                            *(profit - paid, paid, q * abs(slipped - raw), profit),
                            *(q * slipped, lost),
                        )
                    )
                    if not position.quantity:
                        held[run] = None
            open_profit = np.zeros((len(runs), 2))
            value = 0.0
            for run, position in enumerate(held):
                if position is not None:
                    worth = position.quantity * self.prices[self.symbols[run]][i]
                    gain = position.side * (worth - position.basis)
                    least = -position.basis / leverage
                    open_profit[run, int(position.side < 0)] = max(gain, least)
                    value += worth
            self.equity.append(wallet + open_profit.sum())
            self.wallet.append(wallet)
            self.held.append(value)
            self.by_run.append(self.realised + open_profit)

    @property
    def marks(self):
        return Marks(timestamp=self.timestamp, prices=self.prices)

    @property
    def fills(self):
        return fills_of(self.rows)


def fills_of(rows):
    columns = [*zip(*rows, strict=True)] or [()] * 12
    kinds = [np.int64] * 3 + [np.int8] + [np.float64] * 7 + [np.bool_]
    return Fills(
        **{
            name: np.array(column, dtype=kind)
            for name, column, kind in zip(Fills.__struct_fields__, columns, kinds, strict=True)
        }
    )


def portfolio_of(world, note="", events=(), days_per_year=365, traded_days=None, **more):
    """What a report is made of, with text of users in `note` wherever it can stand."""
    record_names = [(f"{strategy}{note}", f"{symbol}{note}") for strategy, symbol in world.runs]
    fills = world.fills
    trades = trade_sums(fills)
    closed = np.flatnonzero(trades.closed_at >= 0)
    ticks = [
        tick_of(
            *record_names[trades.run[i]], trades.side[i], trades.opened_at[i], trades.closed_at[i]
        )
        for i in closed[np.argsort(trades.last[closed])]
    ]
    prices = {f"{symbol}{note}": price for symbol, price in world.prices.items()}
    account = AccountSchema(
        account_name=f"main{note}",
        currency=f"USDT{note}",
        balance=world.balance,
        leverage=world.leverage,
        days_per_year=days_per_year,
    )
    runs = []
    for strategy, symbol in record_names:
        record = RunRecord(
            symbol=symbol,
            strategy_name=strategy,
            exchange_name=f"e{note}",
            frame_name="f",
            mode="backtest",
            config=Config(),
            since=int(world.timestamp[0]),
            until=int(world.timestamp[-1]),
        )
        for tick in ticks:
            if (tick.strategy_name, tick.symbol) == (strategy, symbol):
                record.add(tick)
        record.complete = not note
        runs.append(backtest_data(record))
    marks = Marks(timestamp=world.timestamp, prices=prices, traded_days=traded_days)
    return portfolio_result(
        portfolio_data(account, runs, ticks, fills, marks, AccountCounts(**more), refusals=events)
    )


def tick_of(strategy, symbol, side, opened, closed, reason="take_profit"):
    row = SignalRow(
        id="1",
        symbol=symbol,
        strategy_name=strategy,
        exchange_name="e",
        position="long" if side > 0 else "short",
        price_open=100.0,
        price_take_profit=110.0,
        price_stop_loss=90.0,
        minute_estimated_time=600,
        scheduled_at=int(opened),
        pending_at=int(opened),
        note="",
    )
    return TickClosed(
        symbol=symbol,
        strategy_name=strategy,
        exchange_name="e",
        timestamp=int(closed),
        current_price=101.0,
        signal=row,
        close_reason=reason,
        close_timestamp=int(closed),
        pnl=ProfitLoss(1.0, 100.0, 101.0),
    )
