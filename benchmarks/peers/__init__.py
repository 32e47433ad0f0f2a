"""Other frameworks on the same candles: first the same trades, then the times.

`python -m benchmarks.peers` in an environment with the dependency group `peers` and
`backtest-kit[numba]`; `--also PYTHON` names the interpreter of one with `peers-nautilus` (which
wants an older pandas). What is installed in neither is left out, and named. Each row is measured
in a process of its own.

The strategy is the crossover of two means, 20 and 100, with take profit, stop loss and a lifetime.
The candles are flat (open, high, low and close are one price, the volume is 1), since frameworks
fill at different prices inside a candle; then all enter at the close of the candle with the signal
and leave at the first close at or beyond take profit or stop loss, or 240 candles later. After the
candle that closed a trade, the next one may open. No costs. Prices are multiples of 0.25, so that
sums are exact and each framework computes means its own way. Trades are compared by candle of entry
and of exit before a time is shown.

vectorbt has no time stop: its functions to adjust stops set both to 0 at the age. They keep it from
its Rust engine, so it is also measured without a lifetime, against ours without one.

Sweeps: `bk.Walker` over `bk.grid`, whose statistics of each set are part of the time; in vectorbt
the means once for each window and `Portfolio.from_signals` with a hundred columns a call (with
Rust one column a call is faster, so that is shown too), up to its records of trades. Its memory
grows with the columns of a call. backtesting.py and nautilus_trader run set by set: three sets are
measured, and 100 and 1,000 extrapolated. `optimize` of backtesting.py, which spreads sets over
processes, isn't measured: all here runs in one process.
"""
