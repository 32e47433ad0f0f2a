"""Nothing to find beside what a walk is compared with: its benchmark, the ledger, windows of it."""

import functools
from datetime import timedelta

import numpy as np

from backtest_kit._rules.bars import Bars
from backtest_kit._statistics.against import Against
from backtest_kit._statistics.benchmarks import Market, hold_profits
from backtest_kit._statistics.figures import sharpe_ratio, summarize
from backtest_kit._statistics.ranking import SEED
from backtest_kit._statistics.trial_result import TradeColumns, TrialResult
from backtest_kit._statistics.walk_forward import walk_forward
from backtest_kit._statistics.worth import worth_choosing
from backtest_kit._values.config import Config
from backtest_kit._values.windows import Windows
from benchmarks.calibration.markets import DAY, YEAR, named, normal
from benchmarks.calibration.measure import Count, claims

DAYS = YEAR[1] // DAY
#: Bars of a day.
BARS = 6
STEP = DAY // BARS
#: Percent a day that the market rises, and the deviation of a day.
RISE, DAILY = 0.2, 3.0
#: Trials of the ledger beside those of a walk.
LEDGER = 100
WINDOWS = Windows(train=timedelta(days=90), test=timedelta(days=30))


def rising(rng):
    """A market that rises, in percent of its first price, and the prices at the ends of days."""
    moves = rng.normal(RISE / BARS, DAILY / np.sqrt(BARS), DAYS * BARS)
    price = 1000 * (1 + np.concatenate(([0.0], np.cumsum(moves))) / 100)
    bars = Bars(0, price, price, price, price, price, step=STEP)
    config = Config(base_interval="4h", percent_fee=0.0, percent_slippage=0.0)
    return Market(bars, range(0, DAYS * DAY + STEP, STEP), config), price[::BARS]


def twice_half_of_the_time(rng, count, price, bought=0):
    """Each day hold with twice the money or not at all, as a coin falls: on average, as holding.

    In percent of the price on the day on which what is held is bought, as holding is counted.
    """
    days, found = np.diff(price) / price[bought] * 100, []
    for tossed in rng.random((count, DAYS)) < 0.5:
        opened = np.flatnonzero(tossed) * DAY
        found.append(TradeColumns.of(2 * days[tossed], opened, opened + DAY, stop_loss=1.0))
    return named(found)


def against_holding(rng, count):
    market, price = rising(rng)

    def held(name, edges):
        return hold_profits(market, edges)

    of = twice_half_of_the_time(rng, count, price)
    return claims(of, benchmark="hold", benchmark_bins=held)


def best_of_the_ledger(rng, count, *, stored):
    """The walk has the best of all that were tried; the others are in the ledger."""
    of = normal(rng, count + LEDGER)
    order = sorted(of, key=lambda name: -sharpe_ratio(of[name].r))
    walked = {name: of[name] for name in order[:count]}
    if stored:
        return claims(walked, others=[of[name] for name in order[count:]])
    return claims(walked, unknown=LEDGER)


def trials_of(of):
    return [
        TrialResult(
            strategy_name=name,
            symbols=("X",),
            until=YEAR[1],
            statistics=summarize(each.r, each.opened_at, each.closed_at, YEAR),
            trades=each,
        )
        for name, each in of.items()
    ]


def forward(of, *, rule, against=None):
    """Whether the sentence on the stitched test windows says that something was earned."""
    spans = WINDOWS.spans(*YEAR)
    worth = worth_choosing("sharpe_ratio", SEED, against=against) if rule else None
    found = walk_forward(trials_of(of), spans, "sharpe_ratio", SEED, worth=worth, against=against)
    return found.outcome == "earned"


def walking_forward(rng, count, *, rule):
    return forward(normal(rng, count, trades=600), rule=rule)


def walking_forward_beside_holding(rng, count):
    market, price = rising(rng)
    begin = WINDOWS.spans(*YEAR)[0].test_since // DAY
    of = twice_half_of_the_time(rng, count, price, begin)
    return forward(of, rule=False, against=Against("hold", [market], SEED))


#: What is counted, by the name of its row: whether a walk of so many strategies claims something.
COMPARED = {
    "against holding: twice the money, half of the time": against_holding,
    "the best beside 100 of the ledger, with trades": functools.partial(
        best_of_the_ledger, stored=True
    ),
    "the best beside 100 of the ledger, by number": functools.partial(
        best_of_the_ledger, stored=False
    ),
    "walking forward, always trading the best": functools.partial(walking_forward, rule=False),
    "walking forward, by the rule": functools.partial(walking_forward, rule=True),
    "walking forward, against holding": walking_forward_beside_holding,
}


def count_compared(walk, strategies, walks, seed=6):
    rng = np.random.default_rng([seed, strategies])
    return Count(sum(walk(rng, strategies) for _ in range(walks)), walks)
