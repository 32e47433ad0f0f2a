"""A portfolio of 20 symbols over a year of minutes with 20,000 trades, beside its runs alone.

`python -m benchmarks.portfolio [SYMBOLS]`: generated candles in files, a crossover of means on each
symbol. Each way is a process of its own, which says its processor time and the most memory it had;
that of a process which only compiles is taken off. Ratios are to the lone runs together.
"""

import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from rich.console import Console
from rich.table import Table

import backtest_kit as bk
from backtest_kit._arrays import simulation
from benchmarks.managed import crossing

YEAR = 525_600
START = 1_672_531_200_000
SLOW = 160
RULES = {
    "plain": {},
    "managed": {"trailing_stop": 0.6, "take_profits": ((0.5, 50),), "entries": ((0.3, 1.0),)},
}


def generate(folder, symbols):
    """Write a year of minutes of each symbol: a random walk, with wicks."""
    rng = np.random.default_rng(0)
    time_ = START + np.arange(YEAR, dtype=np.int64) * 60_000
    for symbol in symbols:
        close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 4e-4, YEAR))), 4)
        opening = np.concatenate((close[:1], close[:-1]))
        wick = 1 + np.abs(rng.normal(0, 2e-4, (2, YEAR)))
        columns = {
            "timestamp": time_,
            "open": opening,
            "high": np.maximum(opening, close) * wick[0],
            "low": np.minimum(opening, close) / wick[1],
            "close": close,
            "volume": rng.gamma(2.0, 3.0, YEAR),
        }
        parquet.write_table(pa.table(columns), folder / f"{symbol}.parquet")


def get_signals(rule):
    def found(candles):
        turned = crossing(candles, 20, SLOW)
        return bk.Signals.bracket(turned > 0, 1.0, 0.8, 400, **RULES[rule])

    return found


def play(folder, symbols, way, rule, share):
    """Return the processor time and the trades of one way; each takes `share` percent of equity."""
    begin, end = (
        datetime.fromtimestamp((START + minutes * 60_000) / 1000, UTC)
        for minutes in (1440, YEAR - 1440)
    )
    with bk.Engine() as engine:
        engine.set_config(
            exit_trigger="wick",
            min_take_profit_distance_percent=0.0,
            min_stop_loss_distance_percent=0.0,
            max_signal_lifetime_minutes=400,
        )
        bk.add_exchange(bk.exchanges.ParquetExchange(folder, exchange_name="files"))
        bk.add_frame(frame_name="year", interval="1m", start_date=begin, end_date=end)
        bk.add_account(account_name="a", currency="USDT", balance=1e6, default_percent=share)
        bk.add_strategy(
            strategy_name="s", interval="1m", get_signals=get_signals(rule), warmup=SLOW + 1
        )
        names = {"exchange_name": "files", "frame_name": "year"}
        simulation.compile_kernel()
        began, trades = time.process_time(), 0
        if way == "alone":
            for symbol in symbols:
                trades += len(bk.Backtest.run_sync(symbol, strategy_name="s", **names))
        elif way == "portfolio":
            trades = len(bk.Portfolio.run_sync({"s": symbols}, account_name="a", **names).trades)
        return time.process_time() - began, trades


def main():
    count = int(sys.argv[1]) if sys.argv[1:] else 20
    symbols = [f"S{i}" for i in range(count)]
    table = Table(title=f"{count} symbols, {YEAR:,} minutes each", title_justify="left")
    for column in (
        "Rule",
        "Share of equity",
        "Way",
        "Trades",
        "Processor time",
        "Ratio",
        "Most memory",
    ):
        table.add_column(column, justify="left" if column in ("Rule", "Way") else "right")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        generate(folder, symbols)
        for rule, share in itertools.product(RULES, (40 / count, 200 / count)):
            told = {}
            for way in ("nothing", "alone", "portfolio"):
                command = [sys.executable, "-m", "benchmarks.portfolio", "--one", place, way, rule]
                command.append(str(share))
                done = subprocess.run([*command, *symbols], check=True, capture_output=True)
                told[way] = json.loads(done.stdout)
            for way in ("alone", "portfolio"):
                took, trades, most = told[way]
                ratio, more = took / told["alone"][0], (most - told["nothing"][2]) / 1024
                table.add_row(
                    rule,
                    f"{share:.0f} %",
                    way,
                    f"{trades:,}",
                    f"{took:.1f} s",
                    f"{ratio:.2f}",
                    f"{more:.0f} MB",
                )
                print(rule, share, way, trades, took, ratio, more, file=sys.stderr, flush=True)
    Console(width=100).print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _, _, place, way, rule, share, *symbols = sys.argv
        figures = play(Path(place), symbols, way, rule, float(share))
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sys.stdout.write(json.dumps([*figures, most]))
    else:
        main()
