"""A market that is a fair game, traded with wide stops through the engine itself."""

import numpy as np

import backtest_kit as bk

HOUR = 3_600_000
#: Inner steps of a candle, and the deviation of the market in a day, percent.
STEPS, DAILY = 12, 2.5


def fair_market(rng, hours=365 * 24, rise=0.0):
    """Hourly candles of prices whose expected change is 0, or `rise` percent a day."""
    deviation = DAILY / 100 / np.sqrt(24 * STEPS)
    moves = rng.standard_normal((hours, STEPS)) * deviation - deviation**2 / 2
    moves += rise / 100 / (24 * STEPS)
    path = 1000 * np.exp(np.cumsum(moves.ravel())).reshape(hours, STEPS)
    first = np.concatenate(([1000.0], path[:-1, -1]))
    whole = np.column_stack((first, path))
    times = 1_672_531_200_000 + np.arange(hours) * HOUR
    volume = np.ones(hours)
    return bk.Candles(times, first, whole.max(axis=1), whole.min(axis=1), path[:, -1], volume)


def wide_stop(seed, take_profit=1.0, stop_loss=20.0):
    """Enter at random, win 1 % or lose 20 %, for ten days at the most."""

    def get_signals(candles):
        # a number for each candle that depends on its own time alone
        mixed = (candles.timestamp // HOUR * (2 * seed + 1) * 2_654_435_761) % 1009
        entries = (mixed < 100).astype(np.int8)
        return bk.Signals.bracket(entries, take_profit, stop_loss, minute_estimated_time=14_400)

    return {"interval": "1h", "get_signals": get_signals, "warmup": 1}


def narrow_stop(seed):
    """Enter at random, win or lose 2 %."""
    return wide_stop(seed, 2.0, 2.0)


def rising_walk(rng, strategies):
    """Return the sentence of a walk over a market that rises, against random entries.

    Its strategies enter at random, and so rise with the market, as random entries do.
    """
    return bk.compare(
        fair_market(rng, rise=0.3),
        bk.grid(narrow_stop, seed=[int(n) for n in rng.integers(0, 2**20, strategies)]),
        symbol="UP",
        benchmark="random",
        percent_fee=0.0,
        percent_slippage=0.0,
        max_signal_lifetime_minutes=14_400,
    )


def fair_walk(rng, strategies):
    """Return the sentence of a walk through the engine over a market of its own."""
    return bk.compare(
        fair_market(rng),
        bk.grid(wide_stop, seed=[int(n) for n in rng.integers(0, 2**20, strategies)]),
        symbol="FAIR",
        percent_fee=0.0,
        percent_slippage=0.0,
        max_signal_lifetime_minutes=14_400,
    )
