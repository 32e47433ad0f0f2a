"""The lives of a backtest's signals, one after another: followed to their ends, and told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from backtest_kit._backtest.managing import Managing
from backtest_kit._backtest.strategy_caller import StrategyCaller
from backtest_kit._backtest.telling import tell_fills, tell_milestone, tell_milestones
from backtest_kit._engine.run import Run
from backtest_kit._engine.turns import ACTIVATES, CLOSES
from backtest_kit._rules import transitions as step
from backtest_kit._rules.asking import data_end
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.fast_forward import compared, first_touch, scheduled_until
from backtest_kit._rules.managed import (
    Holding,
    close_managed,
    open_managed,
    search,
    with_extremes,
)
from backtest_kit._rules.profit import crossed, revenue_percent
from backtest_kit._rules.steps import (
    Activation,
    Cancel,
    Close,
    pending_step,
    scheduled_step,
    timeout_at,
)
from backtest_kit._values.results import CancelReason, CloseReason, TickClosed
from backtest_kit._values.signal import NEVER, SignalRow, expires_at
from backtest_kit._values.time import INTERVALS


class Ended(NamedTuple):
    """How a life ended; `closed` is `None` where it was never filled.

    `reverses`: at that step a row said that nothing should be on its side, or `manage` closed it.
    """

    when: int
    reason: CloseReason | CancelReason
    closed: TickClosed | None
    reverses: bool = False


class Lives:
    """Follows the signals of one run, over arrays, or step by step where steps have listeners.

    `pace` is awaited after each step that was told of.
    """

    def __init__(
        self,
        run: Run,
        timeline: range,
        caller: StrategyCaller,
        pace: Callable[[], Awaitable[None]],
    ) -> None:
        self._run = run
        self._caller = caller
        self._pace = pace
        self._step = INTERVALS[run.config.base_interval]
        self._end = data_end(timeline, self._step, run.config)
        self._managing = Managing(run, self._step, self._end)

    async def bars(self, when: int, until: int) -> Bars:
        """Return the market from `when` to `until` at least, or to where the data end."""
        bars = await self._run.view.bars(self._run.symbol, when, min(until, self._end))
        return bars.until(self._end)

    async def follow(self, row: SignalRow, when: int) -> Ended:
        """Tell that a signal waits or opens at `when`, and follow it to its end."""
        if row.pending_at is None:
            bars = await self.bars(when, timeout_at(row, self._run.config) + self._step)
            await self._run.publish(step.scheduled(row, when, _price(bars, when)))
            return await self._wait(row, bars)
        bars = await self._ahead(expires_at(row), when)
        return await self._hold(row, bars, exits=False)

    async def resume(self, row: SignalRow) -> Ended:
        """Follow a signal that has been filled, from its fill on."""
        when = row.pending_at
        assert when is not None
        bars = await self._ahead(expires_at(row), when)
        waited = row.scheduled_at != when
        exits = waited and await self._exit(row, when - self._step, bars, when) is not None
        return await self._hold(row, bars, exits=exits)

    async def _ahead(self, expiry: int, when: int, since: int | None = None) -> Bars:
        """Return bars up to the end of a filled signal's life, or a part where it has none.

        They begin at `since`, if given, else at `when`.
        """
        if expiry == NEVER:
            expiry = when + self._run.config.candles_per_chunk * self._step
        return await self.bars(when if since is None else since, expiry)

    async def _more(self, bars: Bars, expiry: int, since: int) -> Bars | None:
        """Return bars from `since` on that go on behind these; `None`: life or data end first."""
        after = bars.stop - self._step
        if after >= min(expiry, self._end):
            return None
        more = await self._ahead(expiry, after, since)
        return more if more.stop > bars.stop else None

    async def _wait(self, row: SignalRow, bars: Bars) -> Ended:
        """Follow a waiting signal."""
        run = self._run
        when, outcome, exits = await self._until_filled(row, bars)
        if run.account is not None:
            await run.account.wait(when, ACTIVATES)
        if isinstance(outcome, Cancel):
            return await self._cancel(row, bars, when, outcome.reason, exits=exits)
        filled = outcome.row
        if not await run.risk_allows(filled, filled.price_open, when, reserve=True):
            return await self._cancel(row, bars, when, "risk", exits=exits)
        if run.account is not None:
            refused = await run.account.admit(filled, when)
            if refused is not None:
                run.risk_gate.cancel_reservation()
                return await self._cancel(row, bars, when, refused, exits=exits)
        return await self._hold(filled, bars, exits=exits, close=outcome.close)

    async def _until_filled(
        self, row: SignalRow, bars: Bars
    ) -> tuple[int, Activation | Cancel, bool]:
        """Return the step at which a waiting signal turns, how, and if a row said exit there."""
        run, after = self._run, row.scheduled_at
        over = max(bars.last, after), Cancel("end_of_data"), False
        if not run.wants("on_tick"):
            found = scheduled_until(row, bars, after, run.config)
            exit_at = await self._exit(row, after, bars, None if found is None else found[0])
            if exit_at is not None and (found is None or exit_at < found[0]):
                return exit_at, Cancel("exit"), True
            return over if found is None else (*found, exit_at is not None)
        for when in bars.steps_after(after):
            bar = bars.bar(when)
            outcome = scheduled_step(row, bar, run.config)
            exits = await self._exit(row, when - self._step, bars, when) is not None
            if outcome is not None or exits:
                return when, outcome or Cancel("exit"), exits
            await run.publish(step.waiting(row, when, bar.price))
            await self._pace()
        return over

    async def _exit(self, row: SignalRow, after: int, bars: Bars, upto: int | None) -> int | None:
        """Return the first step after `after` at which a row says exit, up to `upto`."""
        if not self._caller.has_exits:
            return None
        last = bars.stop - self._step if upto is None else upto
        return await self._caller.exit_between(row.side, after, last, bars)

    async def _open(
        self, row: SignalRow, bars: Bars, when: int, close: Close | None
    ) -> tuple[Holding | None, Close | None]:
        """Tell that a signal is filled; return its position, and how the same candle closes it.

        In an account every position is followed as a managed one, since it may be liquidated.
        """
        run, account = self._run, self._run.account
        holding: Holding | None = None
        opened = step.opened(row, when, _price(bars, when))
        if row.is_managed or self._managing.is_used or account is not None:
            opening = None if account is None else account.opening(when)
            holding, close = open_managed(row, bars.bar(when), run.config, opening)
            if account is not None:
                account.book(None, holding, when)
                account.bars = bars
                opened = msgspec.structs.replace(opened, money=account.money(0))
        if row.scheduled_at != when:
            run.record.add(opened)
        await run.publish(opened)
        if holding is not None:
            await tell_fills(run, None, holding, close, when, _price(bars, when))
        return holding, close

    async def _hold(
        self, row: SignalRow, bars: Bars, *, exits: bool, close: Close | None = None
    ) -> Ended:
        """Follow a filled signal from its fill.

        `exits`: a row at that step says that it is to end; `close`: so does the candle.
        """
        run, config, account = self._run, self._run.config, self._run.account
        assert row.pending_at is not None
        when = row.pending_at
        walks = run.wants("on_active") or run.wants_moves
        holding, close = await self._open(row, bars, when, close)
        if row.scheduled_at != when:
            bars = await self._ahead(expires_at(row), when)
        if account is not None:
            account.bars = bars
        if close is None and exits:
            close = Close("closed", bars.bar(when).fill)
        after = told = when
        asked_at: int | None = None
        fired, by_hand = 0, False
        while close is None:
            until = self._managing.next_after(after, asked_at)
            found, ahead = self._next(row, holding, after, until, bars, walks=walks)
            exit_at = await self._exit(row, after, bars, found)
            if holding is not None and exit_at is not None and exit_at != found:
                _, ahead = search(holding, bars, after, config, exit_at)
            if self._managing.is_used and holding is not None and ahead is not None:
                before = found if exit_at is None else exit_at
                before = bars.stop if before is None else before
                ahead = with_extremes(ahead, holding, bars, after, before, config)
            holding = ahead
            exits, at = exit_at is not None, found if exit_at is None else exit_at
            entry = row.price_open if holding is None else holding.effective_entry
            if not walks:
                before = bars.stop if at is None else at
                fired = await tell_milestones(run, row, bars, told, before, fired, entry)
            expiry = expires_at(row) if holding is None else holding.expires_at
            if at is None:
                if account is not None:  # what is loaded here others may still be marked by
                    await account.wait(max(bars.last, row.pending_at), CLOSES)
                after = told = bars.stop - self._step
                more = await self._more(bars, expiry, after)
                if more is None:
                    when = max(row.pending_at, bars.last)
                    close = Close("end_of_data", bars.bar(when).fill)
                else:
                    bars = more
                    if account is not None:
                        account.bars = bars
                continue
            when = after = at
            ends = closes = False
            if account is not None and when == bars.last:
                # what the last step of all does is done among those that close
                await account.wait(when, CLOSES)
                more = await self._more(bars, expiry, when)
                ends = more is None
                if more is not None:
                    bars = account.bars = more
            bar = bars.bar(when)
            known = holding
            if holding is None:
                close = pending_step(row, bar, config)
            else:
                before_exits = holding.exits_acted
                holding, close = await self._managing.step(holding, bar, ends=exits or ends)
                closes = ends or holding.exits_acted != before_exits
                await tell_fills(run, known, holding, close, when, bar.price)
                entry = holding.effective_entry
            if close is not None:
                break
            revenue = revenue_percent(row.position, entry, bar.price)
            if walks and not exits:
                await run.publish(step.active(row, when, bar.price, revenue))
            levels, fired = crossed(revenue, fired)
            for level in levels:
                event = step.milestone(row, run.mode, when, bar.price, level, revenue)
                await tell_milestone(run, event)
            told = when
            if walks and holding is not None:
                moved = step.moved(known, holding, when, bar.price)
                if moved is not None:
                    await run.publish(moved)
            if exits:
                close = Close("closed", bar.fill)
                break
            if holding is not None and self._managing.is_asked(when, asked_at):
                asked_at = when
                holding, close = await self._managing.ask(holding, bar, closes=closes)
                by_hand = close is not None
                await self._pace()
            elif walks:
                await self._pace()
        return await self._close(row, bars, when, close, holding, exits=exits or by_hand)

    def _next(
        self,
        row: SignalRow,
        holding: Holding | None,
        after: int,
        until: int,
        bars: Bars,
        *,
        walks: bool,
    ) -> tuple[int | None, Holding | None]:
        """Return the next step to look at (`None`: the bars end first), the position before it.

        `until` (ms) at the latest.
        """
        if walks or until <= after + self._step:
            return next(iter(bars.steps_after(after)), None), holding
        if holding is not None:
            return search(holding, bars, after, self._run.config, until)
        lower, upper = (row.stop, row.target) if row.side > 0 else (row.target, row.stop)
        low, high = compared(bars, self._run.config)
        return first_touch(bars, after, expires_at(row), low, high, lower, upper), None

    async def _close(
        self,
        row: SignalRow,
        bars: Bars,
        when: int,
        close: Close,
        holding: Holding | None = None,
        *,
        exits: bool,
    ) -> Ended:
        run, price, reason = self._run, _price(bars, when), close.reason
        if holding is None:
            tick = step.closed(row, when, price, close, run.config)
        else:
            if holding.is_held:
                known, holding = holding, close_managed(holding, when, reason, close.price)
                if run.account is not None:
                    run.account.book(known, holding, when)
            tick = step.closed_managed(holding, when, price, reason, run.config, close.note)
            if run.account is not None:
                tick = run.account.closed(tick, when)
        run.record.add(tick)
        run.record.until = max(run.record.until, when)
        run.risk_gate.close_position(when)
        await run.publish(tick)
        return Ended(when, reason, tick, exits)

    async def _cancel(
        self, row: SignalRow, bars: Bars, when: int, reason: CancelReason, *, exits: bool
    ) -> Ended:
        run = self._run
        tick = step.cancelled(row, when, _price(bars, when), reason)
        run.record.add(tick)
        run.record.until = max(run.record.until, when)
        await run.publish(tick)
        return Ended(when, reason, None, exits)


def _price(bars: Bars, when: int) -> float:
    return float(bars.price[bars.row(when)])
