"""The lives of a backtest's signals, one after another: followed to their ends, and told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from backtest_kit._backtest.strategy_caller import StrategyCaller
from backtest_kit._engine.asking import ask_manage, manage_failed
from backtest_kit._engine.run import Run
from backtest_kit._rules import transitions as step
from backtest_kit._rules.actions import act_in_turn, position_of
from backtest_kit._rules.asking import data_end, is_due, next_due_after
from backtest_kit._rules.bars import Bar, Bars
from backtest_kit._rules.fast_forward import compared, first_touch, scheduled_until
from backtest_kit._rules.managed import (
    Holding,
    Managed,
    close_managed,
    open_managed,
    search,
    step_managed,
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
from backtest_kit._values.events import PartialEvent
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
        self._manages = run.strategy.manage is not None
        self._manage_interval = INTERVALS[run.strategy.manage_interval]

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
        await self._run.publish(step.opened(row, when, _price(bars, when)))
        return await self._hold(row, bars, exits=False)

    async def _ahead(self, expiry: int, when: int) -> Bars:
        """Return bars up to the end of a filled signal's life, or a part where it has none."""
        if expiry == NEVER:
            expiry = when + self._run.config.candles_per_chunk * self._step
        return await self.bars(when, expiry)

    async def _wait(self, row: SignalRow, bars: Bars) -> Ended:
        """Follow a waiting signal."""
        run = self._run
        when, outcome, exits = await self._until_filled(row, bars)
        if isinstance(outcome, Cancel):
            return await self._cancel(row, bars, when, outcome.reason, exits=exits)
        filled = outcome.row
        if not await run.risk_allows(filled, filled.price_open, when, reserve=True):
            return await self._cancel(row, bars, when, "risk", exits=exits)
        opened = step.opened(filled, when, _price(bars, when))
        run.record.add(opened)
        await run.publish(opened)
        bars = await self._ahead(expires_at(filled), when)
        if outcome.close is not None and not row.is_managed:
            return await self._close(filled, bars, when, outcome.close, exits=exits)
        return await self._hold(filled, bars, exits=exits)

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

    async def _hold(self, row: SignalRow, bars: Bars, *, exits: bool) -> Ended:
        """Follow a filled signal; `exits`: a row at the step of its fill says that it is to end."""
        run, config = self._run, self._run.config
        assert row.pending_at is not None
        when = row.pending_at
        walks = run.wants("on_tick", "on_active", "on_move")
        holding: Holding | None = None
        close: Close | None = None
        if row.is_managed or self._manages:
            holding, close = open_managed(row, bars.bar(when), config)
            await self._tell(None, holding, close, when, bars)
        if close is None and exits:
            close = Close("closed", bars.bar(when).fill)
        after = told = when
        asked_at: int | None = None
        fired, by_hand = 0, False
        while close is None:
            until = self._next_manage(after, asked_at)
            found, ahead = self._next(row, holding, after, until, bars, walks=walks)
            exit_at = await self._exit(row, after, bars, found)
            if holding is not None and exit_at is not None and exit_at != found:
                _, ahead = search(holding, bars, after, config, exit_at)
            if self._manages and holding is not None and ahead is not None:
                before = found if exit_at is None else exit_at
                before = bars.stop if before is None else before
                ahead = with_extremes(ahead, holding, bars, after, before, config)
            holding = ahead
            exits, at = exit_at is not None, found if exit_at is None else exit_at
            entry = row.price_open if holding is None else holding.effective_entry
            if not walks:
                before = bars.stop if at is None else at
                fired = await self._milestones(row, bars, told, before, fired, entry)
            if at is None:
                after = told = bars.stop - self._step
                expiry = expires_at(row) if holding is None else holding.expires_at
                more = None if after >= min(expiry, self._end) else await self._ahead(expiry, after)
                if more is None or more.stop <= bars.stop:
                    when = max(row.pending_at, bars.last)
                    close = Close("end_of_data", bars.bar(when).fill)
                else:
                    bars = more
                continue
            when = after = at
            bar = bars.bar(when)
            known = holding
            if holding is None:
                close = pending_step(row, bar, config)
            else:
                holding, close = step_managed(holding, bar, config)
                await self._tell(known, holding, close, when, bars)
                entry = holding.effective_entry
            if close is not None:
                break
            revenue = revenue_percent(row.position, entry, bar.price)
            if walks and not exits:
                await run.publish(step.active(row, when, bar.price, revenue))
            levels, fired = crossed(revenue, fired)
            for level in levels:
                await self._milestone(
                    step.milestone(row, run.mode, when, bar.price, level, revenue)
                )
            told = when
            if walks and holding is not None:
                moved = step.moved(known, holding, when, bar.price)
                if moved is not None:
                    await run.publish(moved)
            if exits:
                close = Close("closed", bar.fill)
                break
            if holding is not None and self._asks_manage(when, asked_at):
                asked_at = when
                holding, close = await self._manage(holding, bar)
                by_hand = close is not None
                await self._pace()
            elif walks:
                await self._pace()
        return await self._close(row, bars, when, close, holding, exits=exits or by_hand)

    def _next_manage(self, after: int, asked_at: int | None) -> int:
        """Return the next step at which `manage` may be due, in milliseconds."""
        if not self._manages:
            return NEVER
        at_close = self._run.config.ask_at == "close"
        return next_due_after(after, asked_at, self._manage_interval, self._step, at_close=at_close)

    def _asks_manage(self, when: int, asked_at: int | None) -> bool:
        """Say whether `manage` is asked at a step, but not where the data end with the frame."""
        at_close = self._run.config.ask_at == "close"
        return (
            self._manages
            and when != self._end
            and is_due(when, asked_at, self._manage_interval, at_close)
        )

    async def _manage(self, holding: Holding, bar: Bar) -> Managed:
        """Ask `manage` about a position, and do what it answers, in order."""
        run = self._run
        actions = await ask_manage(run, position_of(holding, bar), bar.when)
        done, refused = act_in_turn(holding, actions, bar, run.config, "manage")
        for each in done:
            for tick in step.acted(each, bar.when, bar.price):
                await run.publish(tick)
        for error in refused:
            await manage_failed(run, error)
        managed = done[-1].managed if done else Managed(holding, None)
        if managed.holding.minutes != holding.minutes:
            run.risk_gate.extend(managed.holding.expires_at)
        return managed

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

    async def _tell(
        self, before: Holding | None, after: Holding, close: Close | None, when: int, bars: Bars
    ) -> None:
        """Tell what a step did to a managed position; of its opening step, also that it moved."""
        run, price = self._run, _price(bars, when)
        for tick in step.happened(before, after, when, price, closes=close is not None):
            await run.publish(tick)
        if before is None and close is None and run.wants("on_tick", "on_move"):
            moved = step.moved(None, after, when, price)
            if moved is not None:
                await run.publish(moved)

    async def _milestones(
        self, row: SignalRow, bars: Bars, after: int, before: int, fired: int, entry: float
    ) -> int:
        events, fired = step.milestones(row, self._run.mode, bars, after, before, fired, entry)
        for event in events:
            await self._milestone(event)
        return fired

    async def _milestone(self, event: PartialEvent) -> None:
        self._run.record.add(event)
        await self._run.publish(event)

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
                holding = close_managed(holding, when, reason, close.price)
            tick = step.closed_managed(holding, when, price, reason, run.config, close.note)
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
