"""One managed position at a time: the rules give what the slow reference gives, to the last bit.

The markets are coarse, so that levels are met exactly, and several at a time.
"""

from hypothesis import given

import reference_positions
from backtest_kit._rules.managed import (
    levels_of,
)
from backtest_kit._values.config import Config
from positions import MINUTE, by_the_rules, candles, config_of, plays, row_of, without_moves


def by_the_reference(play, row, bars, config):
    signal = {
        "position": row.position,
        "price_take_profit": row.price_take_profit,
        "price_stop_loss": row.price_stop_loss,
        "minute_estimated_time": play["life"],
        "trailing_stop": play["trailing"],
        "breakeven_percent": play["breakeven"],
        "take_profits": play["profits"],
        "stop_losses": play["losses"],
        "entries": play["entries"],
    }
    settings = {name: getattr(config, name) for name in Config.__struct_fields__}

    def seen(k):
        bar = bars.bar(MINUTE * (k + 1))
        return bar.when, bar.price, bar.fill, (0, bar.open, bar.high, bar.low, bar.fill, 1.0)

    t, p, market, candle = seen(0)
    position = reference_positions.Position(signal, t, row.price_open, p, settings)
    position.opening(t, p, market, candle, waited=play["waited"])
    for k in range(1, len(bars.price)):
        if position.over:
            break
        t, p, market, candle = seen(k)
        expired = play["life"] is not None and t - MINUTE >= play["life"] * MINUTE
        position.step(t, p, market, candle, expired=expired)
    if not position.over:
        position.close(t, market, "end_of_data", False)
    return position.told


@given(plays)
def test_the_rules_step_by_step_equal_the_reference(play):
    bars, config = candles(play), config_of(play)
    row = row_of(play, bars)
    expected = by_the_reference(play, row, bars, config)
    assert by_the_rules(play, row, bars, config, search=False) == expected


@given(plays)
def test_a_search_finds_every_step_at_which_something_happens(play):
    bars, config = candles(play), config_of(play)
    row = row_of(play, bars)
    expected = by_the_reference(play, row, bars, config)
    found = by_the_rules(play, row, bars, config, search=True)
    # several moves of a stop between two acts are one
    assert without_moves(found) == without_moves(expected)


def test_levels_are_measured_from_the_fill():
    play = {"seed": 1, "grid": 0.25, "restless": 1.0, "position": "short", "waited": False}
    play |= {"target": None, "stop": None, "trailing": None, "life": None, "breakeven": None}
    play |= {"profits": ((1.0, 50.0),), "losses": (), "entries": ((2.0, 1.5),)}
    row = row_of(play, candles(play))
    levels = levels_of(row)
    assert levels.profits == [row.price_open * (1 - 1.0 / 100), 50.0]
    assert levels.entries == [row.price_open * (1 + 2.0 / 100), 1.5]
