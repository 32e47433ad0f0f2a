"""Trades of an account that were found over arrays, and are paid when their turns come."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from backtest_kit._engine.account_gate import AccountGate
from backtest_kit._engine.run import Run
from backtest_kit._engine.turns import ACTIVATES, CLOSES, OPENS
from backtest_kit._rules import transitions
from backtest_kit._rules.asking import free_from
from backtest_kit._rules.bars import Bars
from backtest_kit._values.results import TickCancelled, TickClosed


class Paid(NamedTuple):
    """What became of a trade: its result, or from when on its strategy may be asked again (ms)."""

    tick: TickClosed | TickCancelled | None
    refused_at: int | None = None


async def on_account(
    run: Run, account: AccountGate, tick: TickClosed | TickCancelled, bars: Bars
) -> Paid:
    """Let an account pay a trade that enters once and leaves once, or refuse it."""
    row = tick.signal
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
            return Paid(None, free_from(when, refused, run.config))
    account.bars = bars
    account.open_plain(row, when)
    if tick.close_timestamp != when:
        await account.wait(tick.close_timestamp, CLOSES)
    account.close_plain(tick.pnl.price_close, tick.close_timestamp)
    return Paid(account.closed(tick, tick.close_timestamp))
