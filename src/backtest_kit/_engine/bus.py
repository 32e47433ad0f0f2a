"""Events: channels, and one ordered queue per listener.

A listener is called by a task of its own, so that it can neither stop the engine nor another
listener; its calls keep their order and never overlap. What it raises goes to the error channel.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Literal, get_args

from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.guard import call_user_code
from backtest_kit._values.clock import Clock

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
    "risk",
    "partial_profit",
    "partial_loss",
]
#: Seconds between two looks at a queue that is too long.
_POLL: Final = 0.0005

_inside: ContextVar[tuple[Subscription, ...]] = ContextVar("inside", default=())


class Subscription:
    """One listener with its queue."""

    __slots__ = (
        "_fail",
        "_function",
        "_items",
        "_once",
        "_predicate",
        "_task",
        "active",
        "channel",
    )

    def __init__(
        self,
        channel: Channel,
        function: Callable[[Any], Any],
        predicate: Callable[[Any], bool] | None,
        fail: Callable[[Subscription, BaseException, Moment | None], None],
        *,
        once: bool,
    ) -> None:
        self.channel = channel
        self.active = True
        self._function = function
        self._predicate = predicate
        self._fail = fail
        self._once = once
        self._items: deque[tuple[Any, Moment | None]] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, event: object) -> None:
        """Queue an event, with the moment at which it was emitted."""
        self._items.append((event, current_moment.get()))
        self._wake()

    @property
    def behind(self) -> int:
        """Number of events that wait or are being handled."""
        return len(self._items) + (self._task is not None)

    def _wake(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def drained(self, limit: int, clock: Clock) -> None:
        """Wait until at most `limit` events are left."""
        while self.behind > limit:
            self._wake()
            task = self._task
            if task is not None and limit == 0 and task.get_loop() is asyncio.get_running_loop():
                await asyncio.wait([task])
            else:
                await clock.sleep(_POLL)

    async def _work(self) -> None:
        _inside.set((*_inside.get(), self))
        try:
            while self._items and self.active:
                event, when = self._items.popleft()
                current_moment.set(when)
                try:
                    await self._handle(event)
                except Exception as error:  # noqa: BLE001 - a listener never stops the engine
                    self._fail(self, error, when)
            if not self.active:
                self._items.clear()
        finally:
            self._task = None

    async def _handle(self, event: object) -> None:
        if self._predicate is not None and not self._predicate(event):
            return
        if self._once:
            self.active = False
        await call_user_code(self._function, event)


class Bus:
    """The channels of one engine."""

    def __init__(
        self,
        fail: Callable[[Subscription, BaseException, Moment | None], None],
        clock: Callable[[], Clock],
    ) -> None:
        self._channels: dict[str, list[Subscription]] = {name: [] for name in get_args(Channel)}
        self._fail = fail
        self._clock = clock

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
        subscription = Subscription(channel, function, predicate, self._fail, once=once)
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

    def emit(self, event: object, *channels: Channel) -> None:
        """Queue an event for every listener of these channels."""
        for channel in channels:
            for subscription in tuple(self._channels[channel]):
                if subscription.active:
                    subscription.put(event)
                else:
                    self._channels[channel].remove(subscription)

    async def drain(self, limit: int = 0) -> None:
        """Wait until no listener is more than `limit` events behind.

        A listener that itself waits for this (it has started a run) is not waited for.
        """
        caller = _inside.get()
        while True:
            late = [
                subscription
                for subscriptions in self._channels.values()
                for subscription in subscriptions
                if subscription not in caller and subscription.behind > limit
            ]
            if not late:
                return
            for subscription in late:
                await subscription.drained(limit, self._clock())
