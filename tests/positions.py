"""One random managed position at a time, followed by the rules, for property tests.

The markets are coarse, so that levels are met exactly, and several at a time.
"""

import numpy as np
import pytest
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._rules import holding as at
from backtest_kit._rules import managed, transitions
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.managed import (
    close_managed,
    open_managed,
    step_managed,
)
from backtest_kit._values.config import Config
from backtest_kit._values.signal import SignalRow, TrailingStop

MINUTE = 60_000
NAMES = {"symbol": "X", "strategy_name": "s", "exchange_name": "e"}

plays = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "position": st.sampled_from(["long", "short"]),
        "wick": st.booleans(),
        "loss_first": st.booleans(),
        "waited": st.booleans(),
        "costs": st.booleans(),
        "grid": st.sampled_from([0.25, 0.5, 1e-6]),
        "restless": st.sampled_from([0.3, 1.0, 3.0]),
        "trailing": st.sampled_from([None, (0.5, 0.0), (1.0, 0.0), (1.0, 1.5), (3.0, 0.5)]),
        "breakeven": st.sampled_from([None, 0.5, 1.0, 2.0]),
        "profits": st.sampled_from(
            [(), ((1.0, 50.0),), ((0.5, 25.0), (1.0, 25.0)), ((0.5, 40.0), (1.5, 60.0))]
        ),
        "losses": st.sampled_from([(), ((1.0, 30.0),), ((0.5, 50.0), (1.0, 50.0))]),
        "entries": st.sampled_from([(), ((1.0, 1.0),), ((0.5, 1.0), (1.0, 2.0), (1.5, 0.3))]),
        "target": st.sampled_from([None, 2.0, 4.0]),
        "stop": st.sampled_from([None, 2.0, 3.0]),
        "life": st.sampled_from([3, 20, 60, None]),
    }
)


def candles(play, length=60):
    """Bars and rows around 100, in steps of the grid."""
    rng = np.random.default_rng(play["seed"])
    grid, scale = play["grid"], play["restless"]

    def rounded(x):
        return np.round(x / grid) * grid

    moves = rng.normal(0, 0.4 * scale, length)
    close = rounded(100 + np.cumsum(moves))
    gaps = np.where(rng.random(length) < 0.2, rng.normal(0, scale, length), 0)
    open_ = rounded(np.concatenate(([100.0], close[:-1])) + gaps)
    reach = np.abs(rng.normal(0, 0.6 * scale, (2, length)))
    high = rounded(np.maximum(open_, close) + reach[0])
    low = rounded(np.minimum(open_, close) - reach[1])
    average = rounded(close + rng.normal(0, 0.3 * scale, length))
    fill = np.where(rng.random() < 0.5, close, average)
    return Bars(MINUTE, average, fill, open_, high, low)


def config_of(play):
    return Config(
        exit_trigger="wick" if play["wick"] else "vwap",
        ambiguous_candle="stop_loss_first" if play["loss_first"] else "take_profit_first",
        percent_fee=0.1 if play["costs"] else 0.0,
        percent_slippage=0.1 if play["costs"] else 0.0,
    )


def row_of(play, bars):
    side = 1 if play["position"] == "long" else -1
    target, stop, trailing = play["target"], play["stop"], play["trailing"]
    first = bars.bar(MINUTE)
    # what waited is filled on the way to the candle's worst price
    price = (first.low + first.high) / 2 if play["waited"] else first.fill
    return SignalRow(
        id="x",
        **NAMES,
        position=play["position"],
        price_open=price,
        price_take_profit=None if target is None else price * (1 + side * target / 100),
        price_stop_loss=None if stop is None else price * (1 - side * stop / 100),
        minute_estimated_time=play["life"],
        scheduled_at=0 if play["waited"] else MINUTE,
        pending_at=MINUTE,
        trailing_stop=None if trailing is None else TrailingStop(*trailing),
        breakeven_percent=play["breakeven"],
        take_profits=play["profits"],
        stop_losses=play["losses"],
        entries=play["entries"],
    )


def by_the_rules(play, row, bars, config, *, search):
    told = []
    before, closed = open_managed(row, bars.bar(MINUTE), config)
    told += happened(None, before, MINUTE, closed)
    when = MINUTE
    while closed is None:
        if search:
            found, before = managed.search(before, bars, when, config)
        else:
            found = when + MINUTE if when + MINUTE < bars.stop else None
        if found is None:
            when = bars.last
            end = close_managed(before, when, "end_of_data", bars.bar(when).fill)
            told.append(ended(end, when, "end_of_data", config))
            return told
        when = found
        after, closed = step_managed(before, bars.bar(when), config)
        told += happened(before, after, when, closed)
        before = after
    told.append(ended(before, when, closed.reason, config))
    return told


def happened(before, after, when, closed):
    """What a step did, but for the close, as the reference tells it."""
    for tick in transitions.happened(before, after, when, 0.0, closes=closed is not None):
        if tick.action == "added":
            how = tick.price, tick.size, tick.effective_entry
        else:
            how = tick.price, tick.share
        name = "added" if tick.action == "added" else "part"
        yield name, when, *how, tick.reason, tick.ambiguous
    tick = transitions.moved(before, after, when, 0.0)
    if tick is not None:
        yield "moved", when, tick.before, tick.after, tick.reason


def ended(holding, when, reason, config):
    tick = transitions.closed_managed(holding, when, 0.0, reason, config)
    assert holding.state[at.HELD] == 0.0
    for kind in ("entry", "exit"):
        shares = sum(leg.share for leg in tick.legs if leg.kind == kind)
        assert shares == pytest.approx(100.0, abs=1e-9)
    quantities = [leg.quantity if leg.kind == "entry" else -leg.quantity for leg in tick.legs]
    assert min(np.cumsum(quantities)) >= -1e-12 * holding.state[at.ENTERED]
    legs = tuple(
        (leg.kind, leg.timestamp, leg.price, leg.quantity, leg.share, leg.reason, leg.ambiguous)
        for leg in tick.legs
    )
    paid, got = tick.pnl.price_open, tick.pnl.price_close
    profit = tick.pnl.pnl_percentage
    return "closed", when, reason, got, profit, tick.ambiguous, paid, tick.cost, legs


def without_moves(facts):
    return [fact for fact in facts if fact[0] != "moved"]


def facts_of(told):
    """Results as the reference writes them."""
    for x in told:
        if isinstance(x, bk.PartialEvent):
            yield "partial", x.timestamp, x.level
            continue
        match x.action:
            case "opened" | "scheduled":
                yield x.action, x.timestamp, x.signal.price_open
            case "cancelled":
                yield x.action, x.timestamp, x.reason
            case "added":
                how = x.price, x.size, x.effective_entry
                yield x.action, x.timestamp, *how, x.reason, x.ambiguous
            case "partial":
                yield "part", x.timestamp, x.price, x.share, x.reason, x.ambiguous
            case "moved":
                yield x.action, x.timestamp, x.before, x.after, x.reason
            case "closed":
                close = x.pnl.price_close, x.pnl.pnl_percentage
                plain = x.action, x.timestamp, x.close_reason, *close, x.ambiguous
                if not x.signal.is_managed:
                    yield plain
                    continue
                legs = tuple(
                    (y.kind, y.timestamp, y.price, y.quantity, y.share, y.reason, y.ambiguous)
                    for y in x.legs
                )
                yield *plain, x.pnl.price_open, x.cost, legs


def as_mapping(proposal):
    """A proposal as a strategy returns it."""
    if proposal is None or "trailing_stop" not in proposal:
        return proposal
    percent, activate = proposal["trailing_stop"]
    trailing = {"percent": percent, "activate_percent": activate}
    return proposal | {"trailing_stop": trailing}
