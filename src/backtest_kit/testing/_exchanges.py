"""Checks that every exchange must pass, and an exchange that fails on command."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeVar

from backtest_kit._values.candle_rules import check_candles
from backtest_kit._values.candles import Candles, read_candles
from backtest_kit._values.errors import BacktestKitError
from backtest_kit._values.time import MINUTE, interval_ms, iso
from backtest_kit._values.user_code import call_once
from backtest_kit.testing._time import SimulatedTime, milliseconds

T = TypeVar("T")
Fault = Literal["hang", "fail", "empty", "shuffled", "late"]
#: Candles that a check asks for at once.
_COUNT: Final = 60
_FAR_FUTURE: Final = 4_102_444_800_000  # 2100
_FOREVER: Final = 1e9


class FaultyExchange:
    """An exchange that knows only candles that have closed, and misbehaves on command.

    `candles` are 1m candles of any symbol, ascending, in any shape that `get_candles` may return;
    longer intervals are made of them. `faults` are (since, until, kind), in milliseconds of the
    true time: within them a request hangs, fails, or is answered with nothing ("empty"), with rows
    before `since` and out of order ("shuffled"), or without the newest candle ("late"). Each
    answer takes `delay_ms`. `requests` are (symbol, interval, true time in milliseconds).
    """

    def __init__(
        self,
        time: SimulatedTime,
        candles: object,
        faults: Sequence[tuple[int, int, Fault]] = (),
        delay_ms: int = 0,
        exchange_name: str = "faulty",
    ) -> None:
        self.time, self.faults, self.delay = time, list(faults), delay_ms
        self.exchange_name = exchange_name
        self.requests: list[tuple[str, str, int]] = []
        #: Candles handed out so far.
        self.fetched = 0
        self._candles = {MINUTE: read_candles(candles)}

    async def get_candles(self, symbol: str, interval: str, since: int, limit: int) -> Candles:
        """Return the candles of the range that have closed, unless a fault says otherwise."""
        now, step = self.time.now, interval_ms(interval)
        self.requests.append((symbol, interval, now))
        await self.time.sleep(self.delay / 1000)
        fault = next((kind for a, b, kind in self.faults if a <= now < b), None)
        if fault == "hang":
            await self.time.sleep(_FOREVER)
        if fault == "fail":
            raise ConnectionError("503 Service Unavailable")
        until = min(since + limit * step, now // step * step)
        if fault == "late":
            until -= step
        if fault == "empty":
            return self._range(interval, 0, 0)
        if fault == "shuffled":
            some = self._range(interval, since - 2 * step, until)
            return Candles(*(column[::-1] for column in some.columns()))
        found = self._range(interval, since, until)
        self.fetched += len(found)
        return found

    def _range(self, interval: str, since: int, until: int) -> Candles:
        step = interval_ms(interval)
        if step not in self._candles:
            minutes = self._candles[MINUTE]
            end = (int(minutes.timestamp[-1]) + MINUTE) // step * step  # whole ones only
            whole = minutes[: int(minutes.timestamp.searchsorted(end))]
            self._candles[step] = whole.resample(interval)
        candles = self._candles[step]
        begin, end = candles.timestamp.searchsorted((since, max(since, until)))
        return candles[int(begin) : int(end)]


def check_exchange(exchange: Any, symbol: str, since: datetime | int, interval: str = "1m") -> None:
    """Run all checks; see `EXCHANGE_CHECKS`.

    Raises:
        AssertionError: a check failed; the message says what was expected.
    """
    for check in EXCHANGE_CHECKS:
        check(exchange, symbol, since, interval)


def candles_keep_the_rules(
    exchange: Any, symbol: str, since: datetime | int, interval: str = "1m"
) -> None:
    """There are candles, ascending and on the grid, with values that can be true."""
    (answer,) = _answers(exchange, [(symbol, interval, milliseconds(since), _COUNT)])
    assert len(answer), f"no {interval} candles of {symbol} from {iso(milliseconds(since))}"


def pages_agree(exchange: Any, symbol: str, since: datetime | int, interval: str = "1m") -> None:
    """A range has the same candles, whether it is asked for at once or in pages, and again."""
    start, step, half = milliseconds(since), interval_ms(interval), _COUNT // 2
    whole = (symbol, interval, start, _COUNT)
    pages = [(symbol, interval, start + i * half * step, half) for i in range(2)]
    one, first, second, again = _answers(exchange, [whole, *pages, whole])
    assert [*first, *second] == [*one], "two pages differ from the same range asked for at once"
    assert [*again] == [*one], "the same question has another answer the second time"


def questions_at_once_get_their_own_answers(
    exchange: Any, symbol: str, since: datetime | int, interval: str = "1m"
) -> None:
    """Several ranges asked for at the same time are answered as one after the other."""
    start, step = milliseconds(since), interval_ms(interval)
    questions = [(symbol, interval, start + i * 7 * step, _COUNT // 4) for i in range(6)]
    alone = _answers(exchange, questions)
    together = _answers(exchange, questions, at_once=True)
    assert [[*a] for a in together] == [[*a] for a in alone], "answers given at once are mixed up"


def after_the_end_there_is_nothing(
    exchange: Any, symbol: str, since: datetime | int, interval: str = "1m"
) -> None:
    """A range after the data is no error; it is empty where `data_range` says that they end."""
    (after,) = _answers(exchange, [(symbol, interval, _FAR_FUTURE, _COUNT)])
    data_range = getattr(exchange, "data_range", None)
    if data_range is not None and data_range(symbol) is not None:
        assert not len(after), "there are candles in the year 2100, after the end of the data"


def prices_and_quantities_are_text(
    exchange: Any, symbol: str, since: datetime | int, interval: str = "1m"
) -> None:
    """`format_price` and `format_quantity`, if there are any, return a number as text."""
    for name in ("format_price", "format_quantity"):
        function = getattr(exchange, name, None)
        if function is None:
            continue
        work = functools.partial(call_once, function, symbol, 1234.5678)
        text = asyncio.run(_closing(exchange, work))
        assert isinstance(text, str), f"{name} returns {text!r}, which is no text"
        assert float(text) > 0, f"{name} makes {text!r} of 1234.5678"


#: All checks. Each takes an exchange (an object or an `ExchangeSchema`), a symbol, an instant from
#: which on there are at least 60 candles (an aware datetime, or milliseconds), and the interval.
EXCHANGE_CHECKS: Final = (
    candles_keep_the_rules,
    pages_agree,
    questions_at_once_get_their_own_answers,
    after_the_end_there_is_nothing,
    prices_and_quantities_are_text,
)
Question = tuple[str, str, int, int]


def _answers(
    exchange: Any, questions: Sequence[Question], *, at_once: bool = False
) -> list[Candles]:
    """Return the answers to questions, checked, and cut to the ranges as the engine does."""

    async def ask(question: Question) -> Candles:
        symbol, interval, since, limit = question
        candles = read_candles(await call_once(exchange.get_candles, *question))
        step = interval_ms(interval)
        try:
            check_candles(candles, step)
        except BacktestKitError as error:
            raise AssertionError(f"{symbol} {interval} from {iso(since)}: {error}") from error
        begin, end = candles.timestamp.searchsorted((since, since + limit * step))
        return candles[int(begin) : int(end)]

    async def all_of_them() -> list[Candles]:
        if at_once:
            return list(await asyncio.gather(*map(ask, questions)))
        return [await ask(question) for question in questions]

    return asyncio.run(_closing(exchange, all_of_them))


async def _closing(exchange: Any, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do something with an exchange, and close its connections as a command does at its end."""
    try:
        return await work()
    finally:
        close = getattr(exchange, "close", None)
        if close is not None:
            await call_once(close)
