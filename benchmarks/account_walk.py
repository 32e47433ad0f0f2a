"""A walk over parameters with the money of an account, beside the same walk without one.

`python -m benchmarks.account_walk [CANDLES]`: a file of minutes, else a synthetic year. Each rule
of managed positions is walked over the means of the crossover of `benchmarks.arrays`: as it is, on
an account that pays each trade, in a market of whole steps, and on an account that refuses about
half of them. Over one symbol, and with fewer strategies over three that share the account. The
ratios are of processor times in one process, to those as it is.
"""

import sys
import time
from datetime import UTC, datetime

import numpy as np
from rich.console import Console
from rich.table import Table

import backtest_kit as bk
from backtest_kit._arrays import simulation
from benchmarks.arrays import GOAL, LIFE, MANAGED, STOP, market
from benchmarks.managed import crossing

RULES = {"plain": {}, **MANAGED}
MEANS = [(fast, slow) for fast in (10, 20, 40) for slow in (100, 160, 240, 320)]
SYMBOLS = (["X"], ["X", "Y", "Z"])
REPEATS = 3


def means_of(symbols):
    """Return the means of the strategies that are walked over some symbols."""
    return MEANS[:: len(symbols)]


def strategy(rule, means, *, costs=None):
    """Return a strategy; of each two rows one asks for each of the `costs`."""

    def get_signals(candles):
        turned = crossing(candles, *means)
        cost = None if costs is None else np.where(candles.timestamp // 60_000 % 2, *costs)
        return bk.Signals.bracket(turned > 0, GOAL, STOP, LIFE, cost=cost, **RULES[rule])

    return get_signals


def walk(candles, symbols, rule, *, account, step=None, costs=None):
    """Return the shortest processor time of some walks in seconds, and how many trades they had."""
    begin, end = (
        datetime.fromtimestamp(int(at) / 1000, UTC)
        for at in (candles.timestamp[640], candles.timestamp[-2 * LIFE])
    )
    times, trades = [], 0

    def get_market(symbol):
        return None if step is None else bk.Market(base=symbol, quote="USDT", quantity_step=step)

    for _ in range(REPEATS):
        with bk.Engine() as engine:
            engine.set_config(
                exit_trigger="wick",
                min_take_profit_distance_percent=0.0,
                min_stop_loss_distance_percent=0.0,
                max_signal_lifetime_minutes=LIFE,
            )
            exchange = bk.exchanges.FrameExchange(candles)
            bk.add_exchange(
                exchange_name="frame",
                get_candles=exchange.get_candles,
                data_range=exchange.data_range,
                get_market=get_market,
                intervals=["1m"],
            )
            bk.add_frame(frame_name="year", interval="1m", start_date=begin, end_date=end)
            bk.add_account(
                account_name="a",
                currency="USDT",
                balance=1e6,
                default_percent=10.0,
                leverage=3.0,
                on_cash_shortage="refuse",
            )
            pairs = means_of(symbols)
            names = [f"{fast}-{slow}" for fast, slow in pairs]
            for name, means in zip(names, pairs, strict=True):
                bk.add_strategy(
                    strategy_name=name,
                    interval="1m",
                    get_signals=strategy(rule, means, costs=costs),
                    warmup=400,
                )
            bk.add_walker(
                walker_name="w",
                exchange_name="frame",
                frame_name="year",
                strategies=names,
                account_name="a" if account else None,
            )
            began = time.process_time()
            rows = bk.Walker.run_sync(symbols, walker_name="w")
            times.append(time.process_time() - began)
            trades = sum(row.statistics.total_signals for row in rows)
    return min(times), trades


def compare(candles, symbols):
    """Return the table of a walk over some symbols that share an account."""
    count = len(means_of(symbols))
    title = f"{count} strategies over {len(candles):,} minutes of {len(symbols)} symbols"
    table = Table(title=title, title_justify="left")
    for column in ("Rule", "Trades", "Without", "With", "Ratio", "In whole steps", "Half refused"):
        table.add_column(column, justify="left" if column == "Rule" else "right")
    for rule in RULES:
        given = candles, symbols, rule
        alone, trades = walk(*given, account=False)
        paid, same = walk(*given, account=True)
        assert same == trades, f"{rule}: {same} trades with an account"
        stepped, _ = walk(*given, account=True, step=0.001)
        refused, _ = walk(*given, account=True, costs=(1e5, 1e8))
        ratios = (f"{each / alone:.2f}" for each in (paid, stepped, refused))
        cells = f"{trades:,}", f"{alone:.2f} s", f"{paid:.2f} s", *ratios
        table.add_row(rule, *cells)
        print(rule, *cells, file=sys.stderr, flush=True)
    return table


def main():
    candles = bk.read_candles(sys.argv[1], interval="1m") if sys.argv[1:] else market()
    simulation.compile_kernel()
    for symbols in SYMBOLS:
        Console(width=120).print(compare(candles, symbols))


if __name__ == "__main__":
    main()
