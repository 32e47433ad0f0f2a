"""The first ten trades of a shared account by hand, beside what the command line says of them.

The account of the test is arithmetic on plain numbers, from the formulas of the specification, one
minute of candles after the other. Nothing of the engine's is called but to read the candles.
"""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

import backtest_kit as bk
from command import run_here

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
MINUTE = 60_000
BALANCE, LEVERAGE, FEE, SLIPPAGE = 10_000.0, 2.0, 0.001, 0.001
#: Of each strategy: which way it goes after an hour's move, every how many candles of 15 minutes it
#: is in the market for one, percents to its target and its stop, minutes that it waits for them.
STRATEGIES = {"trend": (1, 8, 0.9, 0.7, 300), "revert": (-1, 12, 0.6, 0.8, 200)}
FILE = """
import numpy as np
import backtest_kit as bk

{exchange}
bk.add_sizing(sizing_name="risk", method="fixed-percentage", risk_percentage=0.4)


def after_an_hour(sign, every, target, stop, minutes):
    def get_signals(candles):
        number = candles.timestamp // 900_000 + 1
        side = np.zeros(len(candles), dtype=np.int8)
        side[4:] = sign * np.sign(candles.close[4:] - candles.close[:-4])
        return bk.Signals.bracket(side * (number % every == 0), target, stop, minutes)
    return get_signals


for name, terms in {strategies}.items():
    bk.add_strategy(
        strategy_name=name,
        interval="15m",
        get_signals=after_an_hour(*terms),
        warmup=5,
        sizing_name="risk" if name == "trend" else None,
    )
"""
SETTINGS = ("exit_trigger=wick", "fill_price=market", "ask_at=close")


@dataclass
class Run:
    """One run: its candles by the instant at which they close, and what it holds."""

    strategy: str
    symbol: str
    rows: dict
    side: int = 0
    opened: int = 0
    entry: float = 0.0
    target: float = 0.0
    stop: float = 0.0
    quantity: float = 0.0
    cost: float = 0.0
    equity: float = 0.0
    reduced: bool = False

    def exit_at(self, t):
        """The price at which the candle that closes at `t` ends the position, or `None`."""
        opening, high, low, close = self.rows[t]
        worst, best = (low, high) if self.side > 0 else (high, low)
        if self.side * opening <= self.side * self.stop:
            return opening
        if self.side * worst <= self.side * self.stop:
            return self.stop
        if self.side * best >= self.side * self.target:
            return self.target
        return close if t - self.opened >= STRATEGIES[self.strategy][4] * MINUTE else None

    def proposed(self, t):
        """The side that the strategy is for at `t`; 0: none."""
        sign, every, *_ = STRATEGIES[self.strategy]
        if t // MINUTE % 15 or t // (15 * MINUTE) % every:
            return 0
        move = self.rows[t][3] - self.rows[t - 60 * MINUTE][3]
        return sign * ((move > 0) - (move < 0))


def by_hand(rows, first, count):
    """Return the first trades from the instant `first` on, in the order in which they closed."""
    runs = [Run(strategy, symbol, rows[symbol]) for strategy in STRATEGIES for symbol in SYMBOLS]
    wallet, trades, t = BALANCE, [], first
    while len(trades) < count:
        for run in runs:  # what closes
            price = run.exit_at(t) if run.side else None
            if price is None:
                continue
            paid = price * (1 - run.side * SLIPPAGE)
            gain = run.side * (run.quantity * paid - run.cost)
            wallet += max(gain - FEE * run.cost, -run.cost / LEVERAGE)
            fees = 2 * FEE * run.cost
            trades.append(
                {
                    "run": (run.strategy, run.symbol),
                    "times": (run.opened, t),
                    "prices": (run.entry, price),
                    "reduced": run.reduced,
                    "money": (run.quantity, run.cost, fees, gain - fees, run.equity),
                }
            )
            run.side = 0
        equity = wallet + sum(
            run.side * (run.quantity * run.rows[t][3] - run.cost) for run in runs if run.side
        )
        for run in runs:  # what opens
            side = 0 if run.side else run.proposed(t)
            if side:
                x = run.rows[t][3]
                paid = x * (1 + side * SLIPPAGE)
                _, _, target, stop, _ = STRATEGIES[run.strategy]
                run.target, run.stop = x * (1 + side * target / 100), x * (1 - side * stop / 100)
                if run.strategy == "trend":
                    cost = equity * 0.004 / abs(x - run.stop) * paid
                else:
                    cost = equity / len(runs) / (1 / LEVERAGE + FEE)
                free = wallet - sum(other.cost / LEVERAGE for other in runs if other.side)
                run.reduced = cost / LEVERAGE + FEE * cost > free
                if run.reduced:
                    cost = free / (1 / LEVERAGE + FEE)
                if cost < 1e-8:  # nothing is left
                    continue
                run.side, run.opened, run.entry, run.equity = side, t, x, equity
                run.quantity, run.cost = cost / paid, cost
                wallet -= FEE * cost
        t += MINUTE
    return trades


def by_instant(timestamp, *prices):
    """Return the prices of candles by the instant at which they close."""
    return {t + MINUTE: row for t, *row in zip(timestamp, *prices, strict=True)}


def check(folder, exchange, rows, data, start, end):
    """Compare the command's first ten trades with those by hand."""
    file = folder / "mine.py"
    file.write_text(FILE.format(exchange=exchange, strategies=repr(STRATEGIES)))
    done = run_here(
        *("backtest", file, *data, "--json", "--from", f"{start:%Y-%m-%dT%H:%M}"),
        *("--to", f"{end:%Y-%m-%dT%H:%M}", "--balance", BALANCE, "--leverage", LEVERAGE),
        *(word for symbol in SYMBOLS for word in ("--symbol", symbol)),
        *(word for setting in SETTINGS for word in ("--set", setting)),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout)
    wanted = by_hand(rows, int(start.timestamp() * 1000), 10)
    assert {trade["run"][0] for trade in wanted} == {*STRATEGIES}
    assert {trade["run"][1] for trade in wanted} == {*SYMBOLS}
    assert any(trade["reduced"] for trade in wanted)
    for trade, tick in zip(wanted, account["trades"][:10], strict=True):
        money, signal = tick["money"], tick["signal"]
        assert (tick["strategy_name"], tick["symbol"]) == trade["run"]
        assert (signal["pending_at"], tick["close_timestamp"]) == trade["times"]
        pnl = tick["pnl"]
        assert (pnl["price_open"], pnl["price_close"]) == pytest.approx(trade["prices"], rel=1e-12)
        assert bool(money.get("reduced")) == trade["reduced"]
        names = ("quantity", "cost", "fees", "profit", "equity_before")
        found = tuple(money[name] for name in names)
        assert found == pytest.approx(trade["money"], rel=1e-9, abs=1e-9 * BALANCE)
    return account


def test_the_first_ten_trades_over_generated_candles(tmp_path):
    start, end = datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 4, tzinfo=UTC)
    market, since = bk.exchanges.SyntheticExchange(seed=5), int(start.timestamp() * 1000)
    rows = {}
    for symbol in SYMBOLS:
        page = asyncio.run(market.get_candles(symbol, "1m", since - 61 * MINUTE, 1_000))
        columns = (page.timestamp, page.open, page.high, page.low, page.close)
        rows[symbol] = by_instant(*(column.tolist() for column in columns))
    exchange = "bk.add_exchange(bk.exchanges.SyntheticExchange(seed=5))"
    check(tmp_path, exchange, rows, (), start, end)


def test_the_first_ten_trades_of_march_and_april(real_data, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet files need pyarrow")
    start, end = datetime(2026, 3, 24, tzinfo=UTC), datetime(2026, 4, 22, tzinfo=UTC)
    rows = {}
    for symbol in SYMBOLS:
        path = real_data / f"{symbol}-1m-2026-03_2026-04.parquet"
        (tmp_path / f"{symbol}.parquet").symlink_to(path)
        names = ["timestamp", "open", "high", "low", "close"]
        early = [("timestamp", "<", int(start.timestamp() * 1000) + 3 * 86_400_000)]
        table = parquet.read_table(path, columns=names, filters=early).to_pydict()
        rows[symbol] = by_instant(*(table[name] for name in names))
    account = check(tmp_path, "", rows, ("--data", tmp_path), start, end)
    assert len(account["trades"]) > 500
