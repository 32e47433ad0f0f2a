"""What must not matter to managed positions, and what must mirror."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._arrays.job import SignalRows
from backtest_kit._arrays.simulation import Simulation
from backtest_kit._rules.bars import Bars
from backtest_kit._values.config import Config
from markets import MINUTE, START, market
from positions import (
    by_the_rules,
    candles,
    config_of,
    plays,
    row_of,
    without_moves,
)

COLUMNS = (
    *("side", "scheduled_at", "pending_at", "closed_at", "reason", "ambiguous", "price_open"),
    *("price_close", "pnl", "average_price"),
)
seeds = st.integers(0, 2**32)
asks = st.sampled_from(["close", "elapsed"])
triggers = st.sampled_from(["vwap", "wick"])


def bars_of(seed, minutes=500):
    _, o, h, low, c, _ = (np.array(x) for x in zip(*market(seed, minutes, gaps=False), strict=True))
    return Bars(START + MINUTE, c, c, o, h, low)


def simulated(bars, config, side, *levels, **how):
    """The columns of the trades that bracket signals at each minute make."""
    signals = bk.Signals.bracket(side, *levels, **how)
    timeline = range(bars.first, bars.stop, MINUTE)
    simulation = Simulation()
    simulation.run(bars, SignalRows(signals, START, "1m", timeline, config))
    table = simulation.table()
    assert not table.invalid
    return [getattr(table, name).tolist() for name in COLUMNS]


def same(one, other):
    return repr(one) == repr(other)  # NaN is the same as NaN


def sides(seed, bars, often=0.05):
    rng = np.random.default_rng([seed, 3])
    n = len(bars.price)
    return np.where(rng.random(n) < 0.5, 1, -1) * (rng.random(n) < often)


def config_for(trigger, ask_at, **more):
    return Config(
        exit_trigger=trigger,
        ask_at=ask_at,
        avg_price_candles_count=1,
        min_stop_loss_distance_percent=0.0,
        max_stop_loss_distance_percent=0.0,
        min_take_profit_distance_percent=0.0,
        **more,
    )


FAR = [
    {"trailing_stop": bk.TrailingStop(99.0, 99.0)},
    {"trailing_stop": bk.TrailingStop(99.0)},
    {"breakeven_percent": 99.0},
    {"take_profits": ((98.0, 50.0), (99.0, 50.0))},
    {"stop_losses": ((98.0, 40.0),)},
    {"entries": ((97.0, 1.0), (98.0, 2.0))},
]


@given(seeds, triggers, asks, st.sampled_from(FAR))
def test_what_nothing_reaches_changes_no_bit(seed, trigger, ask_at, how):
    bars = bars_of(seed)
    config = config_for(trigger, ask_at, require_stop_loss=False)
    # levels lie before target and stop, so that there are none here
    far = {"take_profits", "stop_losses", "entries"} & {*how}
    levels = (None, None, 60) if far else (2.0, 1.0, 60)
    side = sides(seed, bars)
    plain = simulated(bars, config, side, *levels)
    assert same(simulated(bars, config, side, *levels, **how), plain)


@given(seeds, triggers, asks)
def test_a_level_that_is_not_there_is_one_that_nothing_reaches(seed, trigger, ask_at):
    bars = bars_of(seed)
    config = config_for(trigger, ask_at, require_stop_loss=False, max_signal_lifetime_minutes=90)
    long_only = np.abs(sides(seed, bars))
    far = simulated(bars, config, long_only, 1e6, 99.99, 90)
    assert same(simulated(bars, config, long_only, None, None, None), far)


@given(seeds, triggers, asks)
def test_columns_that_never_say_exit_change_no_bit(seed, trigger, ask_at):
    bars, config = bars_of(seed), config_for(trigger, ask_at)
    side, never = sides(seed, bars), np.zeros(len(bars.price), dtype=np.bool_)
    plain = simulated(bars, config, side, 2.0, 1.0, 60)
    found = simulated(bars, config, side, 2.0, 1.0, 60, exit_long=never, exit_short=never)
    assert same(found, plain)


def flipping(seed, bars):
    """A column of sides that alternate, as a crossover's do."""
    rng = np.random.default_rng([seed, 4])
    side = np.zeros(len(bars.price), dtype=np.int8)
    at = np.flatnonzero(rng.random(len(side)) < 0.05)
    side[at] = np.where(np.arange(len(at)) % 2, 1, -1)
    return side


@given(seeds, triggers, asks)
def test_a_crossover_that_is_always_in_the_market_equals_a_loop_by_hand(seed, trigger, ask_at):
    bars = bars_of(seed)
    unlimited = {"require_stop_loss": False, "max_signal_lifetime_minutes": 0}
    config = config_for(trigger, ask_at, percent_fee=0.0, percent_slippage=0.0, **unlimited)
    side = flipping(seed, bars)
    by_hand, held = [], None
    for i in range(len(side)):
        if side[i] and (held is None or side[i] != side[held]):
            if held is not None:
                by_hand.append((held, i, float(bars.fill[held]), float(bars.fill[i])))
            held = None if i == len(side) - 1 else i
    if held is not None:
        by_hand.append((held, len(side) - 1, float(bars.fill[held]), float(bars.fill[-1])))
    exits = {"exit_long": side < 0, "exit_short": side > 0}
    trades = simulated(bars, config, side, None, None, None, **exits)
    found = dict(zip(COLUMNS, trades, strict=True))
    rows = [
        [(t - bars.first) // MINUTE for t in found[name]] for name in ("pending_at", "closed_at")
    ]
    assert [*zip(*rows, found["price_open"], found["price_close"], strict=True)] == by_hand
    stopped = simulated(bars, config, side, None, 0.6, None, **exits)
    assert stopped[COLUMNS.index("pending_at")] == found["pending_at"]


def mirrored_bars(bars, k):
    columns = (k / x for x in (bars.price, bars.fill, bars.open, bars.low, bars.high))
    return Bars(bars.first, *columns)


@given(plays)
def test_longs_become_shorts_where_prices_are_turned_over(play):
    play = play | {"position": "long", "grid": 1e-6, "costs": False, "entries": ()}
    bars, config = candles(play), config_of(play)
    bars = msgspec.structs.replace(bars, fill=bars.price)
    row, k = row_of(play, bars), 10_000.0

    def won(x):
        return x / (1 + x / 100)

    def lost(x):
        return x / (1 - x / 100)

    trailing = row.trailing_stop
    other = msgspec.structs.replace(
        row,
        position="short",
        price_open=k / row.price_open,
        price_take_profit=None if row.price_take_profit is None else k / row.price_take_profit,
        price_stop_loss=None if row.price_stop_loss is None else k / row.price_stop_loss,
        trailing_stop=trailing
        and bk.TrailingStop(lost(trailing.percent), won(trailing.activate_percent)),
        breakeven_percent=row.breakeven_percent and won(row.breakeven_percent),
        take_profits=tuple((won(x), share) for x, share in row.take_profits),
        stop_losses=tuple((lost(x), share) for x, share in row.stop_losses),
    )
    long = without_moves(by_the_rules(play, row, bars, config, search=True))
    short = without_moves(by_the_rules(play, other, mirrored_bars(bars, k), config, search=True))
    assert [(fact[0], fact[1]) for fact in short] == [(fact[0], fact[1]) for fact in long]
    ended, mirrored = long[-1], short[-1]
    assert mirrored[2] == ended[2]
    reasons = [leg[-2] for leg in ended[-1]]
    assert [leg[-2] for leg in mirrored[-1]] == reasons
    if len(reasons) == 2:
        gain = 1 + ended[4] / 100
        assert gain == pytest.approx(1 / (1 - mirrored[4] / 100), rel=1e-9)


@given(plays, st.floats(0.1, 4.0), st.floats(0.1, 4.0))
def test_an_ambiguous_candle_is_one_of_its_two_orders(play, up, down):
    play = play | {"wick": True, "waited": False, "trailing": None, "breakeven": None, "life": None}
    first = 100.0
    whole = ([first, first], [first, first + up], [first, first - down], [first, first])
    high, low = first + up, first - down

    def bars(opens, highs, lows, closes):
        columns = (np.array(x, dtype=np.float64) for x in (closes, closes, opens, highs, lows))
        return Bars(MINUTE, *columns)

    low_first = bars(
        [first, first, low, high],
        [first, first, high, high],
        [first, low, low, first],
        [first, low, high, first],
    )
    high_first = bars(
        [first, first, high, low],
        [first, high, high, first],
        [first, first, low, low],
        [first, high, low, first],
    )

    def facts(bars, *, loss_first):
        how = play | {"loss_first": loss_first}
        found = by_the_rules(how, row_of(how, bars), bars, config_of(how), search=False)
        return repr([leg[0:1] + leg[2:6] for leg in found[-1][-1]] + [found[-1][2:5]])

    opens, highs, lows, closes = whole
    settings = {facts(bars(opens, highs, lows, closes), loss_first=x) for x in (True, False)}
    orders = {facts(b, loss_first=True) for b in (low_first, high_first)}
    assert settings == orders
