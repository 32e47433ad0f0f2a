"""Trades of an account that were found over arrays, and are paid when their turns come."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from backtest_kit._backtest.array_results import ArrayResults
from backtest_kit._backtest.paid_legs import PaidLegs
from backtest_kit._engine.account_gate import AccountGate
from backtest_kit._engine.run import Run
from backtest_kit._engine.turns import ACTIVATES, CLOSES, HOLDS, OPENS
from backtest_kit._rules import transitions
from backtest_kit._rules.asking import free_from
from backtest_kit._values.results import TickCancelled, TickClosed
from backtest_kit._values.signal import SignalRow


class Paid(NamedTuple):
    """What became of a trade: its result, or from when on its strategy may be asked again (ms).

    `follows`: it is filled, and is to be followed from then on, since the account may change how it
    lives.
    """

    tick: TickClosed | TickCancelled | None
    refused_at: int | None = None
    follows: bool = False


async def on_account(
    run: Run, account: AccountGate, tick: TickClosed | TickCancelled, found: ArrayResults
) -> Paid:
    """Let an account pay the trade that was `found` last, fill by fill, or refuse it."""
    row, bars = tick.signal, found.bars
    waits = row.pending_at != row.scheduled_at
    proposed = row
    if waits:
        assert row.price_limit is not None
        proposed = msgspec.structs.replace(row, pending_at=None, price_open=row.price_limit)
    await account.wait(row.scheduled_at, OPENS)
    if await account.admit(proposed, row.scheduled_at) is not None:
        return Paid(None, row.scheduled_at)
    if isinstance(tick, TickCancelled):
        await account.wait(tick.close_timestamp, ACTIVATES)
        return Paid(tick)
    when = row.pending_at
    assert when is not None
    if waits:
        await account.wait(when, ACTIVATES)
        refused = await account.admit(row, when)
        if refused is not None:
            price = float(bars.price[bars.row(when)])
            run.record.add(transitions.cancelled(proposed, when, price, refused))
            run.record.until = max(run.record.until, when)
            reverses = found.says_exit(row.side, when)
            return Paid(None, free_from(when, refused, run.config, reverses=reverses))
    account.bars = bars
    account.paid_until = when
    if tick.signal.price_stop_loss is None and _may_be_liquidated(row, account):
        return Paid(None, follows=True)
    if tick.fills:
        return await _fill_by_fill(run, account, tick, when)
    account.enter_first(row, when)
    if tick.close_timestamp != when:
        await account.wait(tick.close_timestamp, CLOSES)
    account.fill(None, tick.pnl.price_close, tick.close_timestamp, enters=False)
    return Paid(account.closed(tick, tick.close_timestamp))


def _may_be_liquidated(row: SignalRow, account: AccountGate) -> bool:
    """Say whether a position without a stop has one at its liquidation price."""
    return row.side < 0 or account.terms.leverage > 1


async def _fill_by_fill(run: Run, account: AccountGate, tick: TickClosed, opened: int) -> Paid:
    """Let an account pay a trade of several fills, as far as each of them comes about."""
    if not account.rounds and all(leg.kind == "exit" for leg in tick.fills[1:]):
        return await _parts(account, tick, opened)
    legs = PaidLegs(tick, account.opening(opened), run.config)
    for when, fills in legs.steps:
        if when != opened:
            closes = any(leg.kind == "exit" for leg in fills)
            await account.wait(when, CLOSES if closes else HOLDS)
            paid = legs.fill(fills, account.account.books.free)
        else:  # at the step of the first entry, which is not in the books yet
            paid = legs.fill(fills, legs.free)
        if paid is None:
            account.paid_until = when
            return Paid(None, follows=True)
        if when == opened:
            account.enter_first(tick.signal, when)
        for fill in paid:
            account.fill(fill.amount, fill.price, when, enters=fill.enters)
    return Paid(account.closed(legs.closed(), tick.close_timestamp))


async def _parts(account: AccountGate, tick: TickClosed, opened: int) -> Paid:
    """Let an account pay a trade that enters once, and leaves in parts: nothing hangs on cash."""
    account.enter_first(tick.signal, opened)
    entered, last = account.money(0).quantity, tick.fills[-1]
    for leg in tick.fills[1:]:
        if leg.timestamp != opened:
            await account.wait(leg.timestamp, CLOSES)
        amount = None if leg is last else leg.quantity * entered
        account.fill(amount, leg.price, leg.timestamp, enters=False)
    return Paid(account.closed(tick, tick.close_timestamp))
