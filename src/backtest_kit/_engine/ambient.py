"""Functions for strategies, listeners and callbacks, which read the market at the current step.

One context variable, `current_moment`, holds a fresh immutable `Moment` for each step. Never
`yield` to a consumer while it is set: the consumer would see it as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Protocol, TypeVar

import msgspec

from backtest_kit._values.candles import Candles
from backtest_kit._values.config import Config
from backtest_kit._values.errors import ContextError
from backtest_kit._values.events import Mode
from backtest_kit._values.time import to_datetime
from backtest_kit._values.user_code import CandlesNotLoaded

T = TypeVar("T")


class View(Protocol):
    """The market as one run sees it: candles that open at or after `when` can't be reached."""

    def window(self, symbol: str, interval: str, limit: int, when: int) -> Candles: ...
    async def window_async(self, symbol: str, interval: str, limit: int, when: int) -> Candles: ...
    def average_price(self, symbol: str, when: int) -> float: ...
    def fill_price(self, symbol: str, when: int) -> float: ...
    async def average_price_async(self, symbol: str, when: int) -> float: ...
    async def provide(self, symbol: str, interval: str, limit: int, when: int) -> object: ...
    async def format(self, what: str, symbol: str, value: float) -> str: ...


class Run(Protocol):
    """The run that a moment belongs to, as far as user code can ask about it."""

    @property
    def view(self) -> View: ...
    @property
    def engine(self) -> object: ...
    @property
    def config(self) -> Config: ...
    @property
    def symbol(self) -> str: ...
    @property
    def mode(self) -> Mode: ...
    @property
    def strategy_name(self) -> str: ...
    @property
    def exchange_name(self) -> str: ...
    @property
    def frame_name(self) -> str | None: ...
    @property
    def waits(self) -> bool: ...


class Moment(msgspec.Struct, frozen=True, gc=False):
    """One instant of one run."""

    run: Run
    when: int


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What `get_context` returns; `when` is an aware UTC datetime.

    With `paper` (the setting, or `backtest-kit live --paper`), callbacks must not place orders.
    """

    engine: Any
    symbol: str
    strategy_name: str
    exchange_name: str
    frame_name: str | None
    mode: Mode
    when: datetime
    paper: bool


current_moment: ContextVar[Moment | None] = ContextVar("current_moment", default=None)
#: In a thread of a listener or callback: the event loop on which the market may be read.
market_loop: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("market_loop", default=None)


def moment_of(caller: str) -> Moment:
    """Return the current moment; raises ContextError, naming `caller`, outside a run."""
    now = current_moment.get()
    if now is None:
        raise ContextError(
            f"{caller}() works only while a strategy runs: inside get_signal, a listener, a risk "
            "check or a callback; elsewhere, as in a notebook, read_candles(data) returns candles"
        )
    return now


async def get_candles(symbol: str, interval: str, limit: int) -> Candles:
    """Return the last `limit` candles of `interval` that have closed by now, oldest first.

    Raises:
        ContextError: called outside a run.
        ValueError: unknown interval, or `limit` is not a whole number of 1 or more.
        DataRangeError: the data begin later than the first candle asked for.
    """
    now = moment_of("get_candles")
    return await now.run.view.window_async(symbol, interval, limit, now.when)


async def get_average_price(symbol: str) -> float:
    """Return the average price now: volume-weighted typical price of the last closed 1m candles.

    Raises:
        ContextError: called outside a run.
        DataRangeError: there are not enough candles yet.
    """
    now = moment_of("get_average_price")
    return await now.run.view.average_price_async(symbol, now.when)


def candles(symbol: str, interval: str, limit: int) -> Candles:
    """Return the same as `get_candles`, for sync code.

    If the candles are not loaded yet, the call of the strategy is abandoned, they are fetched, and
    the strategy is called again from its beginning: don't put side effects before this.

    Raises:
        ContextError, ValueError, DataRangeError: as `get_candles`.
    """
    now = moment_of("candles")
    return _read(now.run.view, lambda view: view.window(symbol, interval, limit, now.when))


def average_price(symbol: str) -> float:
    """Return the same as `get_average_price`, for sync code."""
    now = moment_of("average_price")
    return _read(now.run.view, lambda view: view.average_price(symbol, now.when))


def fill_price(symbol: str) -> float:
    """Return the price at which a fill can be had now; raises as `average_price`."""
    now = moment_of("fill_price")
    return _read(now.run.view, lambda view: view.fill_price(symbol, now.when))


def _read(view: View, read: Callable[[View], T]) -> T:
    """Read the market: from a thread on its event loop, which also loads what is not there."""
    loop = market_loop.get()
    if loop is None or _loop_runs():  # or: a backtest that a listener's thread has started
        return read(view)

    async def loaded() -> T:
        while True:
            try:
                return read(view)
            except CandlesNotLoaded as missing:
                await view.provide(*missing.request)

    reading = loaded()
    try:
        return asyncio.run_coroutine_threadsafe(reading, loop).result()
    except RuntimeError:  # where the loop has been closed, it has not begun
        reading.close()
        raise


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def get_date() -> datetime:
    """Return the instant of the current step, an aware UTC datetime; raises ContextError."""
    return to_datetime(moment_of("get_date").when)


def get_mode() -> Mode:
    """Return "backtest" or "live"; raises ContextError."""
    return moment_of("get_mode").run.mode


def get_context() -> Context:
    """Return the names, the mode and the instant of the current step; raises ContextError."""
    now = moment_of("get_context")
    run = now.run
    return Context(
        engine=run.engine,
        symbol=run.symbol,
        strategy_name=run.strategy_name,
        exchange_name=run.exchange_name,
        frame_name=run.frame_name,
        mode=run.mode,
        when=to_datetime(now.when),
        paper=run.config.paper,
    )


async def format_price(symbol: str, price: float) -> str:
    """Return a price as the exchange writes it."""
    return await moment_of("format_price").run.view.format("price", symbol, price)


async def format_quantity(symbol: str, quantity: float) -> str:
    """Return a quantity as the exchange writes it."""
    return await moment_of("format_quantity").run.view.format("quantity", symbol, quantity)
