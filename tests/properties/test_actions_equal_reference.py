"""Actions on one managed position at a time, at random steps: rules, search and the reference."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import reference_positions
from backtest_kit._rules import managed, transitions
from backtest_kit._rules.actions import act_in_turn, position_of
from backtest_kit._rules.managed import close_managed, open_managed, step_managed, with_extremes
from backtest_kit._values.config import Config
from markets import deciding
from positions import (
    KINDS,
    MINUTE,
    candles,
    config_of,
    ended,
    happened,
    plays,
    row_of,
    seen_of,
    without_moves,
)

often = st.sampled_from([0.1, 0.5, 1.0])


def settings_of(play):
    config = config_of(play)
    changes = {"allow_wider_stop": play["seed"] % 2 == 0, "max_entries": 3}
    return Config(**{**{n: getattr(config, n) for n in Config.__struct_fields__}, **changes})


def by_the_reference(play, row, bars, config, decide, times):
    signal = {
        "position": row.position,
        "price_take_profit": row.price_take_profit,
        "price_stop_loss": row.price_stop_loss,
        "minute_estimated_time": row.minute_estimated_time,
        "trailing_stop": play["trailing"],
        "breakeven_percent": play["breakeven"],
        "take_profits": play["profits"],
        "stop_losses": play["losses"],
        "entries": play["entries"],
    }
    settings = {name: getattr(config, name) for name in Config.__struct_fields__}
    bar = bars.bar(MINUTE)

    def candle(bar):
        return (0, bar.open, bar.high, bar.low, bar.close, 1.0)

    position = reference_positions.Position(signal, MINUTE, row.price_open, bar.price, settings)
    position.life = row.minute_estimated_time
    position.opening(MINUTE, bar.price, bar.fill, candle(bar), waited=play["waited"])
    for t in range(2 * MINUTE, bars.stop, MINUTE):
        if position.over:
            break
        bar = bars.bar(t)
        position.step(t, bar.price, bar.fill, candle(bar), expired=position.expired(t))
        if position.over or t not in times:
            continue
        seen = position.seen(t, bar.price, bar.close)
        position.told.append(("seen", t, *seen.values()))
        for what, value in decide(t, seen):
            position.act(t, bar.price, bar.fill, what, value)
    if not position.over:
        position.close(bars.last, bars.bar(bars.last).fill, "end_of_data", False)
    return position.told


def by_the_rules(play, row, bars, config, decide, times, *, search):
    told = []
    holding, close = open_managed(row, bars.bar(MINUTE), config)
    told += happened(None, holding, MINUTE, close)
    when = MINUTE
    while close is None:
        until = min((t for t in times if t > when), default=bars.stop)
        found, ahead = (when + MINUTE if when + MINUTE < bars.stop else None), holding
        if search:
            found, ahead = managed.search(holding, bars, when, config, until)
            before = bars.stop if found is None else found
            ahead = with_extremes(ahead, holding, bars, when, before, config)
        holding = ahead
        if found is None:
            when = bars.last
            holding = close_managed(holding, when, "end_of_data", bars.bar(when).fill)
            return [*told, ended(holding, when, "end_of_data", config)]
        when, bar = found, bars.bar(found)
        before, (holding, close) = holding, step_managed(holding, bar, config)
        told += happened(before, holding, when, close)
        if close is not None or when not in times:
            continue
        seen = seen_of(position_of(holding, bar))
        told.append(("seen", when, *seen.values()))
        actions = [KINDS[what](value) for what, value in decide(when, seen)]
        done, _ = act_in_turn(holding, actions, bar, config, "manage")
        for each in done:
            told += acted(each, when)
            holding, close = each.managed
    return [*told, ended(holding, when, close.reason, config)]


def acted(done, when):
    for tick in transitions.acted(done, when, 0.0):
        match tick.action:
            case "added":
                yield "added", when, tick.price, tick.size, tick.effective_entry, tick.reason, False
            case "partial":
                yield "part", when, tick.price, tick.share, tick.reason, False
            case "moved":
                yield "moved", when, tick.before, tick.after, tick.reason


def case_of(play, rate):
    bars, config = candles(play), settings_of(play)
    rng = np.random.default_rng([play["seed"], 2])
    steps = range(2 * MINUTE, bars.stop, MINUTE)
    times = {t for t in steps if rng.random() < rng.choice([0.05, 0.3])}
    return row_of(play, bars), bars, config, deciding(play["seed"], rate), times


@given(plays, often)
def test_actions_step_by_step_equal_the_reference(play, rate):
    case = case_of(play, rate)
    expected = by_the_reference(play, *case)
    assert by_the_rules(play, *case, search=False) == expected


@given(plays, often)
def test_between_two_asks_steps_may_be_searched(play, rate):
    case = case_of(play, rate)
    expected = by_the_reference(play, *case)
    assert without_moves(by_the_rules(play, *case, search=True)) == without_moves(expected)


@given(plays, often)
def test_what_is_entered_is_what_is_closed(play, rate):
    told = by_the_rules(play, *case_of(play, rate), search=True)
    legs = told[-1][-1]
    entered = math.fsum(leg[3] for leg in legs if leg[0] == "entry")
    closed = math.fsum(leg[3] for leg in legs if leg[0] == "exit")
    assert math.isclose(entered, closed, rel_tol=1e-12)
