"""One live run from its start to its end: its steps, its consumer, and who is told of what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from backtest_kit._engine.ambient import current_moment
from backtest_kit._engine.pacer import Pacer
from backtest_kit._engine.run import Run
from backtest_kit._live.account_gate import live_gate
from backtest_kit._live.clocks import WOKEN, Ticker
from backtest_kit._live.driver import MinuteDriver
from backtest_kit._live.health import begin_telling, end_telling, run_health
from backtest_kit._live.ledger import PATIENCE, Ledger
from backtest_kit._live.transitions import LiveTick
from backtest_kit._state.adapter import finish
from backtest_kit._state.documents import Transition
from backtest_kit._state.owner import StateOwner
from backtest_kit._values.clock import yield_to_others
from backtest_kit._values.errors import ListenerBehindError, StateError
from backtest_kit._values.events import ListenerHealth, RunHealth

#: Seconds between two looks at who is still to be told, where a replay waits for it.
_LOOK: Final = 0.2
#: Seconds for which the end of a run waits once more for listeners that were late before.
_LAST_PATIENCE: Final = 1.0
#: Turns of the event loop in which a consumer that does nothing else has taken a result.
_PROMPT_TURNS: Final = 16


class LiveRun:
    """One live run; `results` may be iterated once.

    The steps are done by a task of their own: by the wall clock they go on while the consumer is
    busy. On a virtual clock (`recorded`) there are no minutes to miss, and each step waits until
    listeners, callbacks and the consumer have been told of the one before, as a backtest does; but
    not any more once it has been asked to stop.
    """

    def __init__(self, run: Run, ticker: Ticker, owner: StateOwner, *, recorded: bool) -> None:
        self.run = run
        self.ledger = Ledger(run, owner, recorded=recorded)
        self._ticker = ticker
        pacer = self._pacer = Pacer(run.engine.bus, lambda: not run.waits or run.stopping)
        self._driver = MinuteDriver(run, ticker, self.ledger, owner, pacer, recorded=recorded)
        self._recorded = recorded
        self._began = 0
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The consumer has left the loop over the results: the run ends, tidily.
        self._left = False
        self._has_told = False

    def stop(self) -> None:
        """Take no new signals; cancel a waiting one, and follow an open position to its close.

        May be called from any thread.
        """
        self.run.stopping = True
        if self._loop is None or self._loop is _current_loop():
            self._stop_now()
        else:
            self._loop.call_soon_threadsafe(self._stop_now)

    def _stop_now(self) -> None:
        self._wake.set()
        self._driver.interrupt()

    @property
    def callbacks_lag(self) -> ListenerHealth | None:
        """How far behind its callbacks are; `None` where the run waits for them."""
        return None if self.ledger.callbacks is None else self.ledger.callbacks.health

    def health(self, now: int) -> RunHealth:
        """Return how it is at `now` (ms); from any thread."""
        return run_health(
            self.run.record,
            self._began,
            now,
            delay=self.run.config.step_delay_ms,
            outbox=len(self.ledger.state.outbox),
            unheard=self.ledger.unheard,
            recorded=self._recorded,
        )

    async def results(self) -> AsyncGenerator[LiveTick, None]:
        """Yield opened, closed and cancelled signals; listeners are told of the other results."""
        ledger = self.ledger
        self._loop = asyncio.get_running_loop()
        steps = asyncio.ensure_future(self._steps())
        steps.add_done_callback(lambda _: ledger.notify())
        heard = None
        try:
            while True:
                changed, over = ledger.changed, steps.done()
                found = await self._next_result()
                if found is not None:
                    heard, tick = found
                    yield tick
                    ledger.received(heard)
                elif over:
                    break
                else:
                    await changed.wait()
            await steps  # raises what ended it
        except GeneratorExit:
            self._left = True
            if heard is not None:
                ledger.received(heard)
            raise
        finally:
            try:
                if not steps.done():
                    steps.cancel()
                    await finish(asyncio.ensure_future(asyncio.wait([steps])))
            finally:
                if steps.done() and not steps.cancelled():
                    steps.exception()  # it has been raised, or nobody is there to hear it

    async def _next_result(self) -> tuple[Transition, LiveTick] | None:
        try:
            return await self.ledger.next_result()
        except StateError as error:  # the next transition tries again
            self.run.error("state", error)
            return None

    async def _steps(self) -> None:
        """Enter the state, do the steps, and give the state back."""
        run, ledger = self.run, self.ledger
        entered = cancelled = False
        run.risk_gate.join(None)
        account = live_gate(run)
        try:
            if account is not None:
                account.arrive()
            await yield_to_others()  # runs started together all enter before any goes on
            await ledger.enter(self.stop)
            entered = True
            self._began = run.engine.clock.wall_ms()
            run.engine.live_runs[ledger.key] = self
            if not self._recorded:
                begin_telling(run.engine)
            run.engine.records.add(run.record)
            run.begin()
            in_order = ledger.state.session is None
            at = await ledger.resume()
            await self._driver.begin_after(at, ended_before=self._began if in_order else None)
            await self._follow_clock()
        except asyncio.CancelledError:
            cancelled = not self._left
            if cancelled:
                raise
        finally:
            run.end()
            run.look_at_candles()
            if entered:
                run.engine.live_runs.pop(ledger.key, None)
                end_telling(run.engine)
                await ledger.leave(self._driver.at, cancelled=cancelled)
            else:
                run.risk_gate.leave()
            if account is not None:
                account.leave()
            late = not cancelled and await self._settle(_LAST_PATIENCE)
            run.done()
            if not cancelled:
                for each in await self._settle(_LAST_PATIENCE if late else PATIENCE):
                    text = f"has not heard {each.behind:,} events of runs that have ended"
                    run.engine.tell_behind(each.name, text)

    async def _follow_clock(self) -> None:
        """Do a step whenever the clock says so, until the end of the run."""
        outside = current_moment.set(None)
        run, ledger, driver = self.run, self.ledger, self._driver
        try:
            while True:
                if run.waits:
                    await self._wait_for_consumer()
                ledger.settle_soon()
                if run.stopping:
                    self._wake.clear()
                    row = ledger.signal
                    if row is None:
                        return
                    if row.pending_at is None and await driver.drop(row):
                        continue
                when = await self._ticker.next(driver.at, driver.tried, self._wake)
                if when is None:
                    return
                if when != WOKEN:
                    await driver.minute(when)
                    if self._pacer.due:
                        await self._pacer.yield_now()
        finally:
            current_moment.reset(outside)

    async def _wait_for_consumer(self) -> None:
        gate, account = self.run.risk_gate, live_gate(self.run)
        for _ in range(_PROMPT_TURNS):
            if await self.ledger.caught_up(0):
                return
            await yield_to_others()
        if account is not None and await self.ledger.caught_up(_LOOK):
            return  # without it the others would find other money than in a backtest
        gate.pause()  # the consumer holds it: others don't wait
        if account is not None:
            account.pause()
            self._tell_paused(account.schema.account_name)
        while not self.run.stopping and not await self.ledger.caught_up(_LOOK):
            pass
        gate.resume()
        if account is not None:
            account.resume()

    def _tell_paused(self, account_name: str) -> None:
        """Say once that the others of its account go on without this run."""
        if not self._has_told:
            self._has_told = True
            text = (
                f"a result was not taken, or a callback not done, after {_LOOK:g} s: the other "
                f"runs of account {account_name!r} go on meanwhile, and this replay may not be "
                "the backtest"
            )
            self.run.error("account", ListenerBehindError(text))

    async def _settle(self, patience: float) -> list[ListenerHealth]:
        """Wait for listeners, but not for ever; return who has something left."""
        run, bus = self.run, self.run.engine.bus
        while run.waits and not run.stopping and not self._left and await bus.settle(_LOOK):
            pass
        return await bus.settle(patience)


def _current_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
