"""A year of minutes with each rule of managed positions, beside the same signals without any.

`python -m benchmarks.managed [CANDLES]`: a file of minutes, else a synthetic year. The strategy is
the crossover of two means of `benchmarks.arrays`. Each rule is played four ways: compiled, in plain
arrays, by the fast-forward (a callback waits for closes), and step by step (one waits for moves).
All four find the same trades, legs included, before a time is shown; ratios are to the plain
signals, of the same way, per trade. Nothing about the figures is asserted.
"""

import sys
import threading
import time
from datetime import UTC, datetime

import numpy as np
from rich.console import Console
from rich.table import Table

import backtest_kit as bk
from backtest_kit._arrays import simulation
from benchmarks.arrays import FAST, GOAL, LIFE, MANAGED, SLOW, STOP, market

RULES = {"plain": {}, **MANAGED, "rows that say exit": None, "no levels, rows that say exit": None}
WAYS = {"kernel": 7, "arrays": 3, "fast-forward": 3, "steps": 1}


def crossing(candles, fast=FAST, slow=SLOW):
    """1 where the fast mean comes to lie above the slow one, -1 where below."""
    above = bk.trailing_mean(candles.close, fast) > bk.trailing_mean(candles.close, slow)
    turned = np.zeros(len(above), dtype=np.int8)
    turned[slow:] = above[slow:].astype(np.int8) - above[slow - 1 : -1]
    return turned


def strategy(rule):
    def get_signals(candles):
        turned = crossing(candles)
        if RULES[rule] is not None:
            return bk.Signals.bracket(turned > 0, GOAL, STOP, LIFE, **RULES[rule])
        exits = {"exit_long": turned < 0, "exit_short": turned > 0}
        if rule.startswith("no"):
            return bk.Signals.bracket(turned, None, None, None, **exits)
        return bk.Signals.bracket(turned > 0, GOAL, STOP, LIFE, **exits)

    return get_signals


def play(candles, rule, way, repeats):
    """Return the shortest processor time of some in seconds, and the trades."""
    callbacks = {"fast-forward": {"on_close": str}, "steps": {"on_move": str}}.get(way)
    begin, end = (
        datetime.fromtimestamp(int(at) / 1000, UTC)
        for at in (candles.timestamp[2 * SLOW], candles.timestamp[-2 * LIFE])
    )
    free = rule.startswith("no")
    ready = simulation.kernel_ready
    simulation.kernel_ready = ready if way == "kernel" else threading.Event()
    try:
        times, found = [], []
        for _ in range(repeats):
            with bk.Engine() as engine:
                engine.set_config(
                    exit_trigger="wick",
                    min_take_profit_distance_percent=0.0,
                    min_stop_loss_distance_percent=0.0,
                    require_stop_loss=not free,
                    max_signal_lifetime_minutes=0 if free else LIFE,
                )
                bk.add_exchange(bk.exchanges.FrameExchange(candles))
                bk.add_frame(frame_name="year", interval="1m", start_date=begin, end_date=end)
                bk.add_strategy(
                    strategy_name="s",
                    interval="1m",
                    get_signals=strategy(rule),
                    warmup=SLOW + 1,
                    callbacks=callbacks,
                )
                names = {"strategy_name": "s", "exchange_name": "frame", "frame_name": "year"}
                began = time.process_time()
                result = bk.Backtest.run_sync("X", **names)
                times.append(time.process_time() - began)
                found = [*result]
        return min(times), found
    finally:
        simulation.kernel_ready = ready


def main():
    candles = bk.read_candles(sys.argv[1], interval="1m") if sys.argv[1:] else market()
    simulation.compile_kernel()
    table = Table(title="managed positions: a year of minutes", title_justify="left")
    for column in ("Rule", "Trades", "Legs", *WAYS):
        table.add_column(column, justify="left" if column == "Rule" else "right")
    plain = {}
    for rule in RULES:
        cells, trades = [], None
        for way, repeats in WAYS.items():
            took, found = play(candles, rule, way, repeats)
            assert trades is None or found == trades, f"{rule}: {way} differs"
            trades = found
            each = took / len(found)
            plain.setdefault(way, each)
            unit = f"{took * 1e3:.0f} ms" if took < 1 else f"{took:.1f} s"
            cells.append(f"{unit} ({each / plain[way]:.2f})")
            print(f"{rule}: {way} {cells[-1]}", file=sys.stderr, flush=True)
        legs = sum(len(tick.legs) for tick in trades)
        table.add_row(rule, f"{len(trades):,}", f"{legs:,}", *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
