"""The fills of a managed trade that was found over arrays, as an account pays them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Final, NamedTuple

from backtest_kit._rules import holding as at
from backtest_kit._rules import transitions
from backtest_kit._rules.managed import Holding, Opening, levels_of
from backtest_kit._rules.management import flat, limits_of
from backtest_kit._values.config import Config
from backtest_kit._values.results import LEG_REASONS, Leg, TickClosed

_CODES: Final = {reason: float(code) for code, reason in enumerate(LEG_REASONS)}


class Fill(NamedTuple):
    """A fill in the base asset: `amount` is `None` where all that is held is closed."""

    enters: bool
    amount: float | None
    price: float


class PaidLegs:
    """A trade that goes on as it was found, as long as each of its fills comes about.

    Instants and prices are known. How much each fills is asked of the rules, with what is free
    then; where one does not fill, what comes after it is not known any more.
    """

    def __init__(self, tick: TickClosed, opening: Opening, config: Config) -> None:
        self._tick, self._config = tick, config
        self._row = row = tick.signal
        self._state = [0.0] * at.SIZE
        self._legs = [0.0] * (at.WIDTH * len(tick.fills))
        self._levels = flat(row.take_profits), flat(row.stop_losses)
        self._hangs_on_entry = row.trailing_stop is not None or row.breakeven_percent is not None
        limits = limits_of(config)
        levels = float(row.side), row.price_open, row.target, row.stop, row.price_open
        how = math.nan, math.nan, math.nan, limits.slippage, limits.fee
        at.open_position(self._state, self._legs, *levels, *how)
        at.open_account(self._state, *opening)

    @property
    def steps(self) -> Iterator[tuple[int, list[Leg]]]:
        """The steps at which anything is filled, in ms, beside the first entry."""
        for when, legs in groupby(self._tick.fills, lambda leg: leg.timestamp):
            found = [*legs]
            yield when, found[1:] if when == self._row.pending_at else found

    @property
    def free(self) -> float:
        """What is free after the fills so far, as the position knows it."""
        return self._state[at.FREE]

    def fill(self, legs: list[Leg], free: float) -> list[Fill] | None:
        """Return what the fills of a step are, of an account of which `free` is free.

        `None`: one of them does not come about, or another way.
        """
        self._state[at.FREE] = free
        found: list[Fill] = []
        for leg in legs:
            if not self._filled(leg):
                return None
            last = at.WIDTH * (int(self._state[at.FILLS]) - 1)
            amount = at.amount_of(self._state, abs(self._legs[last + at.QUANTITY]))
            rest = leg is self._tick.fills[-1]
            found.append(Fill(leg.kind == "entry", None if rest else amount, leg.price))
        return found

    def _filled(self, leg: Leg) -> bool:
        state, legs, price = self._state, self._legs, leg.price
        reason, ambiguous = _CODES[leg.reason], float(leg.ambiguous)
        if leg is self._tick.fills[-1]:
            if not self._takes_all(leg):
                return False
            at.close_rest(state, legs, reason, price, ambiguous)
            return True
        if leg.kind == "entry":
            size = self._row.entries[int(state[at.NEXT_ENTRY])][1]
            state[at.NEXT_ENTRY] += 1
            if state[at.STEP] and self._hangs_on_entry:  # which it moves otherwise, rounded
                return False
            size = at.payable(state, price, size)
            if size > 0:
                at.enter(state, legs, reason, price, size, price, ambiguous)
            return size > 0
        gains = leg.reason == "take_profit_level"
        levels, place = self._levels[not gains], at.NEXT_PROFIT if gains else at.NEXT_LOSS
        i = 2 * int(state[place])
        state[place] += 1
        quantity = at.share_of(state, levels, i)
        if quantity >= state[at.HELD]:
            return False
        quantity = at.closable(state, quantity)
        if quantity > 0:
            at.leave(state, legs, reason, price, quantity, ambiguous)
        return quantity > 0

    def _takes_all(self, leg: Leg) -> bool:
        """Say whether the last exit surely closes all, also if more was left by rounding.

        It may have been a level of a ladder that closed what was left.
        """
        state, gains = self._state, leg.reason == "take_profit"
        if not state[at.STEP] or not (gains or leg.reason == "stop_loss"):
            return True
        levels, place = self._levels[not gains], at.NEXT_PROFIT if gains else at.NEXT_LOSS
        i = 2 * int(state[place])
        return i >= len(levels) or at.share_of(state, levels, i) >= state[at.HELD]

    def closed(self) -> TickClosed:
        """Return the result: as it was found, but for what was rounded to the market's steps."""
        tick = self._tick
        if not self._state[at.STEP]:
            return tick
        when, times = tick.close_timestamp, tuple(leg.timestamp for leg in tick.fills)
        holding = Holding(
            self._row, levels_of(self._row), tuple(self._state), tuple(self._legs), times,
            self._row.minute_estimated_time, when, when,
        )  # fmt: skip
        place = when, tick.current_price, tick.close_reason
        return transitions.closed_managed(holding, *place, self._config)
