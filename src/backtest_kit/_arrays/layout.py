"""What a simulation reads and writes: columns, rules as numbers, and where each number stands.

Time is counted in steps: step k of the bars is the instant at which its base candle k closes.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest_kit._rules.holding import Numbers
from backtest_kit._rules.management import Limits
from backtest_kit._values.candles import Floats, Ints

#: Of `state`: where to go on (frame, first frame that may be asked), and what was counted: calls,
#: those without a row, the invalid signals and the step of the first, the frames held; and how
#: many legs were written.
FRAME, ASKS_FROM, CALLS, UNANSWERED, INVALID, FIRST_INVALID, HELD, WRITTEN_LEGS = range(8)
#: Of the whole numbers of a trade; instants in steps since the epoch, `ASKED` the calls so far,
#: `LEGS` those written, which are none for one entry and one exit.
ROW, SCHEDULED, FILLED, ENDED, REASON, AMBIGUOUS, ASKED, LEGS = range(8)
#: Of its numbers; `LIMIT` is what the signal asked for, NaN without. `PAID` is the mean price of
#: all entries, `WHOLE_COST` their cost relative to the first.
ENTRY, GOAL, STOP, CLOSE, LIMIT, PAID, WHOLE_COST = range(7)
#: Of a trade under way, in whole numbers: the row that said it, steps of the bars at which it was
#: proposed, filled and came to its end so far, why it ended (see `life`), whether that is
#: ambiguous, how many steps it lives, two flags (it is filled at once, it is managed), and how many
#: of its legs were noted.
(
    OF_ROW,
    PROPOSED_AT,
    FILLED_AT,
    ENDED_AT,
    ENDED_BY,
    IS_AMBIGUOUS,
    LASTS,
    IS_IMMEDIATE,
    IS_MANAGED,
    NOTED,
) = range(10)
#: Of its prices and percents, and the amount that an account pays.
(
    SIDE_OF,
    AIM,
    STOP_AT,
    ASKED_PRICE,
    ENTERED_AT,
    CLOSED_FOR,
    TRAILED_BY,
    TRAILED_FROM,
    BREAKEVEN_FROM,
    AMOUNT,
) = range(10)
#: How many of each there are.
TRADE: Final = 10
PRICES: Final = 10
#: A step that never comes.
NO_STEP: Final = 2**62


class Rules(NamedTuple):
    """When to ask, and the settings; lengths in steps, lifetimes of signals in minutes.

    Frame i is step `start + i * step`; `until` bounds the frames to play. Asked at every `hop`-th
    (see `Stride`), the row moves on by `rows` and `rest` steps. The row at step k is
    `(epoch + k) // interval - base`, `epoch` being the step that step 0 is since the epoch.
    `free` is 1 where the step of a close is not asked, else 0. `last` is the last step at which the
    market is open. `managed`: rows may say how a position is managed.
    """

    relative: bool
    start: int
    step: int
    frames: int
    until: int
    hop: int
    phase: int
    rows: int
    rest: int
    epoch: int
    interval: int
    base: int
    first_row: int
    free: int
    wick: bool
    stop_first: bool
    wait: int
    minutes: int
    limits: Limits
    last: int
    managed: bool


class Columns(NamedTuple):
    """The market and the signals; a column of length 1 holds for all rows.

    Trigger "vwap" sees flat candles at the average price. `touch_low` and `touch_high` are what a
    search compares with levels: lows and highs, beyond every level where the market is closed.
    `next_open` is as in `Bars`, empty where the market never closes.

    How positions are managed is as in `Management`. `exit_long` and `exit_short` are the steps at
    which a row says so, ascending.
    """

    price: Floats
    fill: Floats
    open: Floats
    high: Floats
    low: Floats
    side: npt.NDArray[np.int8]
    goal: Floats
    stop: Floats
    minutes: Floats
    entry: Floats
    touch_low: Floats
    touch_high: Floats
    next_open: Ints
    trailing: Floats
    activation: Floats
    breakeven: Floats
    profits: Floats
    losses: Floats
    entries: Floats
    exit_long: Ints
    exit_short: Ints


class Work(NamedTuple):
    """Room for one trade under way, `trade` and `prices`, and for how it is managed.

    `state` and `legs` as `holding` lays them out, its levels; `steps` are those of its legs.
    `all_legs` and `all_steps` take the legs of all trades.
    """

    trade: MutableSequence[int] | Ints
    prices: Numbers
    state: Numbers
    profits: Numbers
    losses: Numbers
    entries: Numbers
    legs: Numbers
    steps: MutableSequence[int] | Ints
    all_legs: Floats
    all_steps: Ints
