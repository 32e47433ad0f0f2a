"""Entries at random, with the exits of given trades: one draw after another, through `simulate`.

In a draw each trade is entered once, in random order, at an instant that the others leave free.
The frame is gone around as a circle: a draw begins anywhere in it, and goes on at its beginning
where it ends, so that every step is as likely as any other. The time that is left, less what the
trades still to come lasted as they were, is shared out at random before each (the spacings of
uniform points), so that as many trades fit in as there were.

This is plain Python; the kernel is the same function, compiled.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest_kit._arrays.layout import (
    ASKS_FROM,
    CLOSE,
    ENDED,
    FILLED,
    FRAME,
    PAID,
    Columns,
    Rules,
    Work,
)
from backtest_kit._arrays.paying import Account
from backtest_kit._arrays.simulate import simulate
from backtest_kit._values.candles import Floats, Ints

#: Of the whole numbers found for a trade of a draw, in steps of the bars: entry and close.
OPENED, CLOSED_AT = range(2)
#: Of its prices: the mean of all entries, and of all exits.
BOUGHT, SOLD = range(2)
#: A step at which nothing was entered.
NOT_ENTERED: Final = -1


class Entries(NamedTuple):
    """The trades to enter, shape (N,), and the draws.

    `side` is +1 or -1; `goal`, `stop`, `trailing`, `activation` and `breakeven` are percents (NaN:
    not used), `minutes` lifetimes (NaN: that of the settings), `held` how many steps each lasted.
    `ladder` is the number of each one's levels, whose flat pairs lie between two `offsets` (shape
    (ladders + 1, 3)) in `profits`, `losses` and `entries`.

    `order` is the order of the trades in each draw, shape (draws, N), `parts` uniform numbers that
    share out the time, and `begin` where the draw begins, among `places`: the steps at which may be
    entered, ascending.
    """

    side: npt.NDArray[np.int8]
    goal: Floats
    stop: Floats
    minutes: Floats
    trailing: Floats
    activation: Floats
    breakeven: Floats
    held: Floats
    ladder: Ints
    offsets: Ints
    profits: Floats
    losses: Floats
    entries: Floats
    order: Ints
    parts: Floats
    begin: Ints
    places: Ints


class Row(NamedTuple):
    """The one row of signals that is simulated at a time: what the columns show, to be written."""

    side: npt.NDArray[np.int8]
    goal: Floats
    stop: Floats
    minutes: Floats
    trailing: Floats
    activation: Floats
    breakeven: Floats


def enter_at_random(
    columns: Columns,
    rules: Rules,
    work: Work,
    row: Row,
    given: Entries,
    room: tuple[Ints, Ints, Floats],
    nobody: Account,
    steps: Ints,
    prices: Floats,
) -> None:
    """Write entry and close of each trade in each draw: `steps` and `prices`, (2, draws, N).

    In the place that each has among the given ones. `room` is `state`, `whole` and `real` of
    `simulate`, for one trade, `nobody` an account of none.
    """
    state, whole, real = room
    places = given.places
    draws, count = given.order.shape
    whole_frame = places[-1] - places[0] + 1 == len(places)
    ladder: int = 0
    of_trade, own = with_levels(columns, work, given, ladder)
    for d in range(draws):
        place, left, coming = given.begin[d], float(len(places)), given.held.sum()
        for j in range(count):
            i = given.order[d, j]
            gap = int(max(left - coming, 0.0) * given.parts[d, j])
            place = (place + gap) % len(places)
            if given.ladder[i] != ladder:
                ladder = int(given.ladder[i])
                of_trade, own = with_levels(columns, work, given, ladder)
            row.side[0], row.goal[0], row.stop[0] = given.side[i], given.goal[i], given.stop[i]
            row.minutes[0], row.trailing[0] = given.minutes[i], given.trailing[i]
            row.activation[0], row.breakeven[0] = given.activation[i], given.breakeven[i]
            found = 0
            for again in range(2):  # from there, else from the beginning of the frame
                state[FRAME] = state[ASKS_FROM] = 0 if again else places[place]
                found = simulate(of_trade, rules, state, whole, real, own, nobody)
                if found:
                    break
            if not found:
                steps[OPENED, d, i] = steps[CLOSED_AT, d, i] = NOT_ENTERED
                prices[BOUGHT, d, i] = prices[SOLD, d, i] = np.nan
                continue
            opened, closed = whole[FILLED, 0] - rules.epoch, whole[ENDED, 0] - rules.epoch
            steps[OPENED, d, i], steps[CLOSED_AT, d, i] = opened, closed
            prices[BOUGHT, d, i], prices[SOLD, d, i] = real[PAID, 0], real[CLOSE, 0]
            if whole_frame:
                first, after = opened - places[0], closed - places[0]
            else:
                first, after = np.searchsorted(places, opened), np.searchsorted(places, closed)
            lasted = max(after - first, 1)
            place = (first + lasted) % len(places)
            left, coming = left - gap - lasted, coming - given.held[i]


def with_levels(columns: Columns, work: Work, given: Entries, ladder: int) -> tuple[Columns, Work]:
    """Return the same, with the levels of one ladder and room for them."""
    a, b = given.offsets[ladder], given.offsets[ladder + 1]
    of_trade = Columns(
        columns.price,
        columns.fill,
        columns.open,
        columns.high,
        columns.low,
        columns.side,
        columns.goal,
        columns.stop,
        columns.minutes,
        columns.entry,
        columns.touch_low,
        columns.touch_high,
        columns.next_open,
        columns.trailing,
        columns.activation,
        columns.breakeven,
        given.profits[a[0] : b[0]],
        given.losses[a[1] : b[1]],
        given.entries[a[2] : b[2]],
        columns.exit_long,
        columns.exit_short,
    )
    own = Work(
        work.trade,
        work.prices,
        work.state,
        work.profits[: b[0] - a[0]],
        work.losses[: b[1] - a[1]],
        work.entries[: b[2] - a[2]],
        work.legs,
        work.steps,
        work.all_legs,
        work.all_steps,
    )
    return of_trade, own
