"""What a backtest tells of a position: its fills, what was decided about it, its milestones."""

from __future__ import annotations

from collections.abc import Iterable

from backtest_kit._engine.run import Run
from backtest_kit._rules import transitions as step
from backtest_kit._rules.actions import Done
from backtest_kit._rules.bars import Bar, Bars
from backtest_kit._rules.managed import Holding
from backtest_kit._rules.steps import Close
from backtest_kit._values.events import PartialEvent
from backtest_kit._values.results import TickAdded, TickMoved, TickPartial
from backtest_kit._values.signal import SignalRow


async def tell_fills(
    run: Run, before: Holding | None, after: Holding, close: Close | None, when: int, price: float
) -> None:
    """Tell what a candle did to a managed position; of its opening step, also that it moved."""
    ticks = step.happened(before, after, when, price, closes=close is not None)
    await _tell(run, ticks, 1 if before is None else len(before.times))
    if before is None and close is None and run.wants_moves:
        moved = step.moved(None, after, when, price)
        if moved is not None:
            await run.publish(moved)


async def tell_actions(run: Run, done: Iterable[Done], bar: Bar) -> None:
    """Tell what actions have done to a position, but for a close of all."""
    for each in done:
        await _tell(run, step.acted(each, bar.when, bar.price), len(each.before.times))


async def _tell(run: Run, ticks: Iterable[TickAdded | TickPartial | TickMoved], first: int) -> None:
    """Tell of fills number `first` and later, with their money; of a move as it is."""
    for tick in ticks if run.account is None else run.account.with_money(ticks, first):
        await run.publish(tick)


async def tell_milestones(
    run: Run, row: SignalRow, bars: Bars, after: int, before: int, fired: int, entry: float
) -> int:
    """Tell the milestones of the steps in (`after`, `before`); see `transitions.milestones`."""
    events, fired = step.milestones(row, run.mode, bars, after, before, fired, entry)
    for event in events:
        await tell_milestone(run, event)
    return fired


async def tell_milestone(run: Run, event: PartialEvent) -> None:
    """Tell one milestone, and enter it into the record."""
    run.record.add(event)
    await run.publish(event)
