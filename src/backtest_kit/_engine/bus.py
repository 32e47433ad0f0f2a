"""Events: channels, and one ordered queue per listener.

A listener is called by a task of its own, so that it can neither stop the engine nor another
listener; its calls keep their order and never overlap. What it raises goes to the error channel.
Backtests wait for listeners that are far behind (`Pacer`), live runs by the wall clock for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Literal, get_args

from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.backlog import Backlog
from backtest_kit._engine.guard import call_user_code
from backtest_kit._engine.threads import CallThread, name_of
from backtest_kit._values.clock import Clock
from backtest_kit._values.events import ListenerHealth

Channel = Literal[
    "signal",
    "signal_backtest",
    "signal_live",
    "error",
    "exit",
    "done_backtest",
    "done_live",
    "done_walker",
    "backtest_progress",
    "walker_progress",
    "walker",
    "walker_complete",
    "performance",
    "health",
    "risk",
    "partial_profit",
    "partial_loss",
    "partial",
    "added",
    "moved",
    "command",
]
#: Of a result, by its `action`: the channel of its kind, where there is one.
CHANNELS_OF: Final[dict[str, tuple[Channel]]] = {
    "partial": ("partial",),
    "added": ("added",),
    "moved": ("moved",),
}
#: Seconds between two looks at a queue that is too long.
_POLL: Final = 0.0005

_inside: ContextVar[tuple[Subscription, ...]] = ContextVar("inside", default=())


class Subscription:
    """One listener with its queue.

    Who emits an event waits for the listeners (backtests and walks, replays), or never does (live
    runs by the wall clock). What nobody waits for is bounded, and sync functions are called with it
    in a thread: one that blocks holds up nothing but itself.
    """

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_bus",
        "_function",
        "_items",
        "_once",
        "_predicate",
        "_task",
        "_thread",
        "_waited",
        "active",
        "channel",
        "name",
    )

    def __init__(
        self,
        bus: Bus,
        channel: Channel,
        function: Callable[[Any], Any],
        predicate: Callable[[Any], bool] | None,
        *,
        once: bool,
    ) -> None:
        self.channel = channel
        self.name = f"{name_of(function)} of {channel}"
        self.active = True
        self._bus = bus
        self._function = function
        self._predicate = predicate
        self._once = once
        self._items: deque[tuple[Any, Moment | None]] = deque()
        self._backlog = Backlog()
        self._waited = False
        self._task: asyncio.Task[None] | None = None
        self._thread = CallThread(f"listener {self.name}")

    def put(self, event: object, *, waited: bool) -> None:
        """Queue an event, with the moment at which it was emitted."""
        if waited:
            self._items.append((event, current_moment.get()))
        else:
            now = self._now()
            self._backlog.add(event, current_moment.get(), now)
            text = self._backlog.complaint(now)
            if text is not None:
                self._bus.tell_behind(self, text)
        self._wake()

    @property
    def behind(self) -> int:
        """Number of events that somebody waits for, and that wait or are being handled."""
        return len(self._items) + self._waited

    @property
    def lag(self) -> ListenerHealth:
        """How far behind it is with events that nobody waits for."""
        return ListenerHealth(
            name=self.name,
            behind=self._backlog.behind,
            dropped=self._backlog.dropped,
            busy_seconds=self._backlog.busy(self._now()),
        )

    def _now(self) -> float:
        return self._bus.clock().wall_ms() / 1000  # may be asked for from any thread

    def _wake(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def drained(self, limit: int, clock: Clock, unless: Callable[[], bool]) -> None:
        """Wait until at most `limit` events that somebody waits for are left."""
        while self.behind > limit and not unless():
            self._wake()
            task = self._task
            if task is not None and limit == 0 and task.get_loop() is asyncio.get_running_loop():
                await asyncio.wait([task])
            else:
                await clock.sleep(_POLL)

    def unfinished(self) -> asyncio.Task[None] | None:
        """Return the task that tells what waits, if anything does, on this event loop."""
        if self._backlog.behind == 0 and self.behind == 0:
            return None
        task = self._task
        here = task is not None and task.get_loop() is asyncio.get_running_loop()
        return task if here and task is not None and not task.done() else None

    async def _work(self) -> None:
        _inside.set((*_inside.get(), self))
        try:
            while self.active and (self._items or self._backlog):
                self._waited = bool(self._items)
                if self._waited:
                    event, when = self._items.popleft()
                else:
                    event, when = self._backlog.take(self._now())
                current_moment.set(when)
                try:
                    await self._handle(event)
                except Exception as error:  # noqa: BLE001 - a listener never stops the engine
                    self._bus.fail(self, error, when)
                if self._waited:
                    self._waited = False
                else:
                    self._backlog.told()
            if not self.active:
                self._items.clear()
                self._backlog.clear()
        finally:
            if not self._waited:
                self._backlog.told()
            self._waited = False
            self._task = None

    async def _handle(self, event: object) -> None:
        away = not self._waited and self._bus.clock().waits_for_threads
        call = self._thread.call if away else call_user_code
        if self._predicate is not None and not await call(self._predicate, event):
            return
        if self._once:
            self.active = False
        await call(self._function, event)


class Bus:
    """The channels of one engine."""

    def __init__(
        self,
        fail: Callable[[Subscription, BaseException, Moment | None], None],
        tell_behind: Callable[[Subscription, str], None],
        clock: Callable[[], Clock],
    ) -> None:
        self._channels: dict[str, list[Subscription]] = {name: [] for name in get_args(Channel)}
        self.fail = fail
        self.tell_behind = tell_behind
        self.clock = clock

    def listen(
        self,
        channel: Channel,
        function: Callable[[Any], Any],
        predicate: Callable[[Any], bool] | None = None,
        *,
        once: bool = False,
    ) -> Callable[[], None]:
        """Call `function` with each event of a channel; return a function that unsubscribes it.

        Raises:
            TypeError: `function` or `predicate` can't be called.
        """
        for what in (function, predicate):
            if what is not None and not callable(what):
                raise TypeError(f"a listener must be a function, not {what!r}")
        subscription = Subscription(self, channel, function, predicate, once=once)
        self._channels[channel].append(subscription)

        def unsubscribe() -> None:
            subscription.active = False
            if subscription in self._channels[channel]:
                self._channels[channel].remove(subscription)

        return unsubscribe

    def wanted(self, *channels: Channel) -> bool:
        """Say whether one of these has a listener; if not, the event need not be built."""
        for channel in channels:  # noqa: SIM110 - `any` takes three times as long
            if self._channels[channel]:
                return True
        return False

    def emit(self, event: object, *channels: Channel, waited: bool = True) -> None:
        """Queue an event for the listeners of these channels; `waited`: the caller will `drain`."""
        for channel in channels:
            for subscription in tuple(self._channels[channel]):
                if subscription.active:
                    subscription.put(event, waited=waited)
                else:
                    self._channels[channel].remove(subscription)

    async def drain(self, limit: int = 0, unless: Callable[[], bool] = lambda: False) -> None:
        """Wait until no listener is more than `limit` events behind that somebody waits for.

        A listener that itself waits for this (it has started a run) is not waited for. Above a
        limit of 0, `unless` ends the waiting.
        """
        while not unless():
            late = [each for each in self._others() if each.behind > limit]
            if not late:
                return
            for subscription in late:
                await subscription.drained(limit, self.clock(), unless)

    async def settle(self, patience: float) -> list[ListenerHealth]:
        """Wait until all events have been told, for `patience` seconds at most; return who has not.

        The caller, if it is a listener, is left out.
        """
        try:
            async with asyncio.timeout(patience):
                while tasks := [task for each in self._others() if (task := each.unfinished())]:
                    await asyncio.wait(tasks)
        except TimeoutError:
            pass
        return [each.lag for each in self._others() if each.unfinished() is not None]

    def lags(self) -> list[ListenerHealth]:
        """Return how far behind each listener is with events of live runs."""
        return [each.lag for each in self._all()]

    def _all(self) -> list[Subscription]:
        return [each for subscriptions in [*self._channels.values()] for each in [*subscriptions]]

    def _others(self) -> list[Subscription]:
        caller = _inside.get()
        return [each for each in self._all() if each not in caller]
