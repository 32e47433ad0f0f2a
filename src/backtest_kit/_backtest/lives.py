"""The lives of a backtest's signals, one after another: followed to their ends, and told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from backtest_kit._backtest.strategy_caller import StrategyCaller
from backtest_kit._engine.run import Run
from backtest_kit._rules import transitions as step
from backtest_kit._rules.asking import data_end
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.fast_forward import compared, first_touch, scheduled_until
from backtest_kit._rules.managed import (
    Holding,
    close_managed,
    open_managed,
    search,
    step_managed,
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

    `exits`: at that step a row said that nothing should be on its side.
    """

    when: int
    reason: CloseReason | CancelReason
    closed: TickClosed | None
    exits: bool = False


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
        bars = await self._ahead(row, when)
        await self._run.publish(step.opened(row, when, _price(bars, when)))
        return await self._hold(row, bars, exits=False)

    async def _ahead(self, row: SignalRow, when: int) -> Bars:
        """Return bars up to the end of a filled signal's life, or a part where it has none."""
        expiry = expires_at(row)
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
        bars = await self._ahead(filled, when)
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
        if row.is_managed:
            holding, close = open_managed(row, bars.bar(when), config)
            await self._tell(None, holding, close, when, bars)
        if close is None and exits:
            close = Close("closed", bars.bar(when).fill)
        after = told = when
        fired = 0
        while close is None:
            found, ahead = self._next(row, holding, after, bars, walks=walks)
            exit_at = await self._exit(row, after, bars, found)
            if holding is not None and exit_at is not None and exit_at != found:
                _, ahead = search(holding, bars, after, config, exit_at)
            holding = ahead
            exits, at = exit_at is not None, found if exit_at is None else exit_at
            entry = row.price_open if holding is None else holding.effective_entry
            if not walks:
                before = bars.stop if at is None else at
                fired = await self._milestones(row, bars, told, before, fired, entry)
            if at is None:
                after = told = bars.stop - self._step
                more = (
                    None
                    if after >= min(expires_at(row), self._end)
                    else (await self._ahead(row, after))
                )
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
            elif walks:
                await self._pace()
        return await self._close(row, bars, when, close, holding, exits=exits)

    def _next(
        self, row: SignalRow, holding: Holding | None, after: int, bars: Bars, *, walks: bool
    ) -> tuple[int | None, Holding | None]:
        """Return the next step to look at (`None`: the bars end first), the position before it."""
        if walks:
            return next(iter(bars.steps_after(after)), None), holding
        if holding is not None:
            return search(holding, bars, after, self._run.config)
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
            tick = step.closed_managed(holding, when, price, reason, run.config)
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
