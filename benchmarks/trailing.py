"""The trailing stop beside those of vectorbt and backtesting.py: are the trades the same?

`python -m benchmarks.trailing CANDLES [INTERPRETER ...]`; the interpreters are those that have the
other libraries (`pip install --group peers` in an environment of its own); what none has is left
out, and said. CANDLES is a file of minutes. Entries are where the mean of 20 closes rises above
that of 100, computed once for all, so that the stop alone is compared. No costs, no target.

Which rules can be made the same, and which can't, is in `docs/benchmarks.md`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PERCENTS = (0.5, 2.0, 5.0)
STEPS = {"1h": 3_600_000, "1m": 60_000}


def vectorbt(c, percent):
    """`sl_trail`: from the high of the candles since the entry."""
    import vectorbt as vbt

    side = c["side"]
    portfolio = vbt.Portfolio.from_signals(
        c["close"],
        side > 0,
        False,
        short_entries=side < 0,
        short_exits=False,
        open=c["open"],
        high=c["high"],
        low=c["low"],
        sl_stop=percent / 100,
        sl_trail=True,
        size=1.0,
        init_cash=1e12,
        upon_opposite_entry="ignore",
        freq="1min",
    )
    records = portfolio.trades.records
    done = records[records["status"] == 1]
    names = ("entry_idx", "exit_idx", "entry_price", "exit_price")
    return [done[name].to_numpy() for name in names]


def backtesting(c, percent):
    """A stop that `next` moves after each candle, to a distance of its high, or low."""
    import pandas as pd
    from backtesting import Backtest, Strategy

    side, factor = c["side"], percent / 100

    class Trailing(Strategy):
        def init(self):
            pass

        def next(self):
            at = len(self.data) - 1
            if self.trades:
                (trade,) = self.trades
                if trade.is_long:
                    trade.sl = max(trade.sl, self.data.High[-1] * (1 - factor))
                else:
                    trade.sl = min(trade.sl, self.data.Low[-1] * (1 + factor))
            elif side[at]:
                price = self.data.Close[-1]
                order = self.buy if side[at] > 0 else self.sell
                order(size=1, sl=price * (1 - side[at] * factor))

    frame = pd.DataFrame(
        {name.capitalize(): c[name] for name in ("open", "high", "low", "close")},
        index=pd.to_datetime(c["time"], unit="ms"),
    )
    run = Backtest(frame, Trailing, cash=1e12, trade_on_close=True)
    found = run.run()["_trades"]
    names = ("EntryBar", "ExitBar", "EntryPrice", "ExitPrice")
    return [found[name].to_numpy() for name in names]


OTHERS = {"vectorbt": vectorbt, "backtesting": backtesting}
#: What is asked again at the candle of a close: vectorbt makes one order a candle.
ASK_AT = {"vectorbt": "elapsed", "backtesting": "close"}


def own(c, percent, interval, ask_at):
    """Ours: candle of entry and of exit, prices, and how often a candle closed at its open."""
    import backtest_kit as bk

    step, first = STEPS[interval], int(c["time"][0])

    def get_signals(candles):
        side = c["side"][(candles.timestamp - first) // step]
        return bk.Signals.bracket(side, None, None, None, trailing_stop=percent)

    candles = bk.Candles(*(c[name] for name in ("time", "open", "high", "low", "close", "volume")))
    strategy = bk.StrategySchema(
        strategy_name="trailing", interval=interval, get_signals=get_signals, warmup=1
    )
    result = bk.backtest(
        candles,
        strategy,
        percent_fee=0.0,
        percent_slippage=0.0,
        max_signal_lifetime_minutes=0,
        require_stop_loss=False,
        exit_trigger="wick",
        ask_at=ask_at,
    )
    trades = result.trades
    done = trades["close_reason"] == "trailing_stop"
    bars = ((trades[name][done] - first) // step - 1 for name in ("opened_at", "closed_at"))
    return [*bars, trades["price_open"][done], trades["price_close"][done]]


def candles_of(path, interval):
    """The candles of a file, gaps filled flat, with the side of an entry at each close."""
    import backtest_kit as bk

    found = bk.read_candles(path, interval=interval)
    step, t = STEPS[interval], found.timestamp
    time = np.arange(t[0], t[-1] + 1, step)
    place = np.searchsorted(t, time, side="right") - 1
    there = t[place] == time
    close = found.close[place]
    c = {"time": time, "close": close}
    for name in ("open", "high", "low"):
        c[name] = np.where(there, getattr(found, name)[place], close)
    c["volume"] = np.where(there, found.volume[place], 0.0)
    above = bk.trailing_mean(close, 20) > bk.trailing_mean(close, 100)
    c["side"] = np.zeros(len(time), dtype=np.int8)
    c["side"][100:] = above[100:].astype(np.int8) - above[99:-1]
    return c


def interpreter_with(module, interpreters):
    code = f"import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)"
    for python in interpreters:
        if not subprocess.run([python, "-c", code], check=False).returncode:
            return python
    return None


def compare(path, interpreters):
    print(f"{'library':12} {'candles':8} {'percent':>7} {'ours':>7} {'theirs':>7} {'same':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for interval in STEPS:
            c = candles_of(path, interval)
            file = Path(folder) / f"{interval}.npz"
            np.savez(file, **c)
            for name in OTHERS:
                python = interpreter_with(name, interpreters)
                if python is None:
                    print(f"{name:12} not installed, left out")
                    continue
                for percent in PERCENTS:
                    job = [__file__, "--theirs", name, str(file), str(percent)]
                    command = [python, *job]
                    done = subprocess.run(command, check=False, capture_output=True, text=True)
                    if done.returncode:
                        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
                    theirs = [np.array(x) for x in json.loads(done.stdout.splitlines()[-1])]
                    mine = own(c, percent, interval, ASK_AT[name])
                    report(name, interval, percent, mine, theirs, c)


def report(name, interval, percent, mine, theirs, c):
    """Print how many trades are the same, and the first that is not."""
    last = len(c["time"]) - 1
    theirs = [column[theirs[1] < last] for column in theirs]
    mine = [column[mine[1] < last] for column in mine]
    by_entry = {row[0]: row for row in zip(*theirs, strict=True)}
    same, first = 0, None
    for row in zip(*mine, strict=True):
        other = by_entry.get(row[0])
        if other is not None and row[1] == other[1] and np.allclose(row, other, rtol=1e-9):
            same += 1
        elif first is None:
            first = row, other
    counts = f"{len(mine[0]):7} {len(theirs[0]):7} {same:7}"
    print(f"{name:12} {interval:8} {percent:7} {counts}", flush=True)
    if first is not None:
        print("   first that differs: ours", *first[0], "theirs", *(first[1] or ["none"]))


def main():
    if sys.argv[1:2] == ["--theirs"]:
        name, file, percent = sys.argv[2:]
        with np.load(file) as kept:
            found = OTHERS[name]({key: kept[key] for key in kept.files}, float(percent))
        print(json.dumps([column.tolist() for column in found]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("candles", type=Path)
    parser.add_argument("interpreters", nargs="*", default=[sys.executable])
    given = parser.parse_args()
    compare(given.candles, given.interpreters)


if __name__ == "__main__":
    main()
