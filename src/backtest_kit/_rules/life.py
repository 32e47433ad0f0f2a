"""The rules of a signal's life: one step, as a function of numbers.

The only statement of these rules. Steps call it as Python, the kernel as what Numba compiles of it;
searches over arrays only find the step at which to ask it. `side` is +1 for long and -1 for short;
multiplying both sides of a comparison by it mirrors the long rule exactly, since negating a float
never rounds.

Of the market at a step: `average` is the average price, `fill` the price at which a fill can be
had, `open_`, `high` and `low` the base candle that closed at it. With `wick` the candle is compared
with the levels, else the average price. A target or a stop that is not there is infinite.
"""

from __future__ import annotations

from typing import Final

from backtest_kit._values.results import REASONS

#: How a signal ends: the codes of `REASONS`.
(
    TAKE_PROFIT,
    STOP_LOSS,
    TIME_EXPIRED,
    END_OF_DATA,
    TRAILING_STOP,
    BREAKEVEN,
    CLOSED,
    TIMEOUT,
    CANCELLED_END_OF_DATA,
    PRICE_REJECT,
    CANCELLED_EXIT,
) = range(len(REASONS))
#: It goes on as it is.
UNCHANGED: Final = -1
#: A scheduled signal is filled.
ACTIVATED: Final = -2
#: It is filled, and stopped out by the same candle.
ACTIVATED_AND_STOPPED: Final = -3


def opens_now(side: float, limit: float, fill: float) -> bool:
    """Say whether a signal is filled at once: it has no limit (NaN), or the market has reached it.

    A limit order is not filled worse than the market that it meets, so it is filled at `fill`.
    """
    return not side * fill > side * limit


def scheduled_step(
    side: float,
    limit: float,
    take_profit: float,
    stop_loss: float,
    expired: bool,
    average: float,
    fill: float,
    open_: float,
    high: float,
    low: float,
    wick: bool,
) -> tuple[int, float]:
    """Return what becomes of a scheduled signal at a step, and the price it is filled at."""
    if not wick:
        if expired:
            return TIMEOUT, limit
        if side * average <= side * stop_loss:
            return PRICE_REJECT, limit
        if side * average > side * limit:
            return UNCHANGED, limit
        if not side * stop_loss < side * fill < side * take_profit:
            return PRICE_REJECT, limit
        # a loop that polls buys at the market
        return ACTIVATED, (fill if side * fill > side * limit else limit)
    if side * open_ <= side * stop_loss:
        return PRICE_REJECT, limit
    worst = low if side > 0 else high
    if side * worst <= side * limit:
        if side * worst <= side * stop_loss:
            return ACTIVATED_AND_STOPPED, limit
        return ACTIVATED, limit
    return (TIMEOUT if expired else UNCHANGED), limit


def pending_step(
    side: float,
    take_profit: float,
    stop_loss: float,
    expired: bool,
    average: float,
    fill: float,
    open_: float,
    high: float,
    low: float,
    wick: bool,
    stop_first: bool,
) -> tuple[int, float, bool]:
    """Return why a filled signal closes at a step, at which price, and if ambiguously.

    A candle that reaches both levels is ambiguous, unless its open decides; `stop_first` says what
    it is taken for. Favourable overshoot is never credited, unfavourable always charged.
    """
    if not wick:
        if expired:
            return TIME_EXPIRED, fill, False
        if side * average >= side * take_profit:
            return TAKE_PROFIT, (fill if side * fill < side * take_profit else take_profit), False
        if side * average <= side * stop_loss:
            return STOP_LOSS, (fill if side * fill < side * stop_loss else stop_loss), False
        return UNCHANGED, fill, False
    if side * open_ <= side * stop_loss:
        return STOP_LOSS, open_, False
    if side * open_ >= side * take_profit:
        return TAKE_PROFIT, take_profit, False
    if side > 0:
        profits, stops = high >= take_profit, low <= stop_loss
    else:
        profits, stops = low <= take_profit, high >= stop_loss
    if stops and (stop_first or not profits):
        return STOP_LOSS, stop_loss, profits
    if profits:
        return TAKE_PROFIT, take_profit, stops
    return (TIME_EXPIRED if expired else UNCHANGED), fill, False
