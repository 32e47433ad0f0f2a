"""Strategies without any skill, of the shapes that mislead tests; each walk is drawn anew.

A function takes a random generator and a number of strategies, and returns their trades of a year.
Where nothing else is said, trades follow each other and have a stop at one deviation: the less the
one more loss that each strategy is given, the harder it is to keep the bound.
"""

import functools

import numpy as np

from backtest_kit._statistics.trial_result import TradeColumns

DAY = 86_400_000
YEAR = (0, 365 * DAY)
MINUTE = 60_000


def in_turn(r, stop=1.0, years=1):
    """Trades one after another, each of which takes half of its share of the time."""
    share = years * YEAR[1] // len(r)
    opened = np.arange(len(r)) * share
    return TradeColumns.of(r, opened, opened + share // 2, stop_loss=stop)


def named(columns):
    return {f"s{i:03}": each for i, each in enumerate(columns)}


def normal(rng, count, trades=300):
    return named(in_turn(r) for r in rng.standard_normal((count, trades)))


def fat_tails(rng, count, trades=300):
    return named(in_turn(r) for r in rng.standard_t(3, (count, trades)))


def copies(rng, count, correlation, trades=300):
    shared, own = np.sqrt(correlation), np.sqrt(1 - correlation)
    base = rng.standard_normal(trades)
    return named(in_turn(shared * base + own * r) for r in rng.standard_normal((count, trades)))


def beside_copies(rng, count, among=500):
    near = copies(rng, among, 0.99)
    return normal(rng, count) | {f"copy of {name}": each for name, each in near.items()}


def unequal(rng, count):
    """From 10 to 5,000 trades of an hour each, at random times; many overlap."""
    found = []
    for trades in np.exp(rng.uniform(np.log(10), np.log(5000), count)).astype(int):
        closed = np.sort(rng.integers(DAY, YEAR[1], trades))
        r = rng.standard_normal(trades)
        found.append(TradeColumns.of(r, closed - DAY // 24, closed, stop_loss=1.0))
    return named(found)


def rare_losses(rng, count, loss, trades):
    """Win about 1, lose `loss`, as often as makes the mean 0."""
    lost = rng.random((count, trades)) < 1 / (1 + loss)
    wins = rng.uniform(0.8, 1.2, (count, trades))
    return named(in_turn(r, stop=loss) for r in np.where(lost, -float(loss), wins))


def autoregressive(rng, count, trades, a=0.5):
    noise = rng.standard_normal((trades + 50, count))
    r = np.zeros_like(noise)
    for i in range(1, len(r)):
        r[i] = a * r[i - 1] + noise[i]
    return named(in_turn(each) for each in r[50:].T)


def overlapping(rng, count, trades, deep=3):
    """A trade begins every hour of a market's own time, and lasts `deep` of them."""
    hour = YEAR[1] // (trades + deep)
    opened = np.arange(trades)
    found = []
    for moves in rng.standard_normal((count, trades + deep)) / np.sqrt(deep):
        price = np.concatenate(([0.0], np.cumsum(moves)))
        r = price[opened + deep] - price[opened]
        found.append(TradeColumns.of(r, opened * hour, (opened + deep) * hour, stop_loss=1.0))
    return named(found)


def pooled(rng, count, trades, symbols=5, correlation=0.7):
    """Several markets that move together, on each of which a strategy trades by itself."""
    steps, each = 2000, trades // symbols
    tick, slot = YEAR[1] // steps, steps // each
    found = []
    for _ in range(count):
        common = rng.standard_normal(steps)
        moves = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * rng.standard_normal(
            (symbols, steps)
        )
        price = np.concatenate((np.zeros((symbols, 1)), np.cumsum(moves, axis=1)), axis=1)
        held = slot // 2
        opened = np.arange(each) * slot + rng.integers(0, slot - held, (symbols, each))
        r = np.take_along_axis(price, opened + held, 1) - np.take_along_axis(price, opened, 1)
        order = np.argsort(opened.ravel(), kind="stable")
        at, profit = opened.ravel()[order], r.ravel()[order] / np.sqrt(held)
        symbol = np.repeat(np.arange(symbols), each)[order]
        found.append(
            TradeColumns.of(profit, at * tick, (at + held) * tick, symbol=symbol, stop_loss=1.0)
        )
    return named(found)


@functools.cache
def closes(path):
    """The closes of a year of minutes, without the gaps."""
    import pyarrow.parquet as pq

    return np.asarray(pq.read_table(path, columns=["close"])["close"], dtype=np.float64)


def random_entries(rng, count, path, trades=300, held=240):
    """Random entries in real minutes, held for four hours, less what these make on average."""
    price = closes(path)
    every = (price[held:] / price[:-held] - 1) * 100
    minutes = YEAR[1] // len(price)
    found = []
    for _ in range(count):
        at = np.sort(rng.choice(len(every) // held, trades, replace=False)) * held
        at = at + rng.integers(0, held)
        at = at[at < len(every)]
        r = every[at] - every.mean()
        found.append(TradeColumns.of(r, at * minutes, (at + held) * minutes, stop_loss=np.nan))
    return named(found)


NULLS = {
    "independent, normal": normal,
    "t with 3 degrees of freedom": fat_tails,
    "near-copies, correlation 0.9": functools.partial(copies, correlation=0.9),
    "near-copies, correlation 0.99": functools.partial(copies, correlation=0.99),
    "independent beside 500 near-copies of one": beside_copies,
    "10 to 5,000 trades": unequal,
    **{
        f"win 1 or lose {loss}, {trades} trades": functools.partial(
            rare_losses, loss=loss, trades=trades
        )
        for loss in (5, 10, 20, 40)
        for trades in (40, 200)
    },
    "AR(1) 0.5, 60 trades": functools.partial(autoregressive, trades=60),
    "AR(1) 0.5, 300 trades": functools.partial(autoregressive, trades=300),
    "overlapping, 60 trades": functools.partial(overlapping, trades=60, deep=2),
    "overlapping, 300 trades": functools.partial(overlapping, trades=300, deep=5),
    "five correlated symbols pooled, 60 trades": functools.partial(pooled, trades=60),
    "five correlated symbols pooled, 300 trades": functools.partial(pooled, trades=300),
}
