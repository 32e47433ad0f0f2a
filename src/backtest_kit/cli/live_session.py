"""A session of live runs: what is shown, what Ctrl-C and SIGTERM do, how it ends."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec
from rich.live import Live as LiveDisplay

from backtest_kit._data.base import run_config
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.task import close_exchange, exhaust
from backtest_kit._live.account import LiveAccount
from backtest_kit._live.account_data import account_data
from backtest_kit._live.clocks import VirtualClock
from backtest_kit._live.health import health
from backtest_kit._live.live import Live
from backtest_kit._reports.live import live_data, live_report
from backtest_kit._reports.portfolio_data import PortfolioData, money
from backtest_kit._reports.table import file_name, write, write_bytes
from backtest_kit._values.clock import wall_ms
from backtest_kit._values.errors import BacktestKitError
from backtest_kit._values.events import PartialEvent
from backtest_kit._values.results import Tick, TickActive, TickIdle, TickWaiting
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import INTERVALS, MINUTE
from backtest_kit.cli.account_run import print_account
from backtest_kit.cli.background_output import BackgroundStream
from backtest_kit.cli.exit_codes import FAILED
from backtest_kit.cli.health_server import serve_health
from backtest_kit.cli.live_table import OTHER_LINES, LiveTable, transition_line
from backtest_kit.cli.systemd import notify, watchdog_seconds
from backtest_kit.cli.terminal import Console

#: Seconds between two renderings of the table.
_REFRESH: Final = 0.5
#: Seconds between two looks whether there is room for a line.
_ROOM: Final = 0.02


class Job(NamedTuple):
    """A run to start; without a clock by the wall clock, without an account in percent alone."""

    symbol: str
    strategy_name: str
    clock: VirtualClock | None
    account_name: str | None = None


def run_session(
    engine: Engine,
    exchange: ExchangeSchema,
    jobs: list[Job],
    output: Path,
    *,
    as_json: bool,
    address: tuple[str, int] | None = None,
) -> int:
    """Run jobs side by side until they end or are stopped; return the exit code.

    `address`: where to serve their health.
    """
    session = _Session(engine, exchange, jobs, output, as_json=as_json)
    served = nullcontext() if address is None else serve_health(address, lambda: health(engine))
    with served:
        code = asyncio.run(session.run())
    print_account(session.account, engine, output, Console())
    return code


class _Session:
    def __init__(
        self,
        engine: Engine,
        exchange: ExchangeSchema,
        jobs: list[Job],
        output: Path,
        *,
        as_json: bool,
    ) -> None:
        self._engine = engine
        self._folder = output
        self._exchange = exchange
        self._jobs = jobs
        self._as_json = as_json
        self._recorded = any(job.clock is not None for job in jobs)
        self._table = LiveTable(engine.config.schedule_await_minutes, recorded=self._recorded)
        self._tasks: list[asyncio.Task[None]] = []
        self._told_of: set[asyncio.Task[None]] = set()
        self._signals: list[signal.Signals] = []
        self._unread = False
        #: What the account of the runs has come to, once they have ended; for JSON, `None`.
        self.account: PortfolioData | None = None
        self._live_account: LiveAccount | None = None
        self._shown = not as_json and sys.stdout.isatty()
        #: What is printed; `None` where nobody else writes it.
        self._output = sys.stdout if isinstance(sys.stdout, BackgroundStream) else None

    def records(self) -> list[RunRecord]:
        """Return what the runs have found; a run that could not begin has nothing."""
        wanted = {(job.symbol, job.strategy_name) for job in self._jobs}
        return [
            record
            for record in self._engine.records.all()
            if record.mode == "live" and (record.symbol, record.strategy_name) in wanted
        ]

    async def run(self) -> int:
        """Start the runs, show them, and wait for their end."""
        for channel in ("signal_live", "partial_profit", "partial_loss"):
            self._engine.bus.listen(channel, self._told)
        for job in self._jobs:
            names = (job.symbol, job.strategy_name, self._exchange.name)
            self._table.add(*names, self._base(job.symbol))
            self._tasks.append(asyncio.create_task(self._one(job)))
        watchdog = asyncio.create_task(self._watchdog())
        try:
            with _handlers(self._on_signal), self._display() as refresh:
                notify("READY=1")
                outcome = await self._wait(refresh)
            code = self._end(outcome)
            self._report()  # before candles are asked for, which may take long
            await self._account()
        finally:
            notify("STOPPING=1")
            watchdog.cancel()
            await close_exchange(self._exchange)
        return code

    def _report(self) -> None:
        """Keep the reports of the runs, and say where."""
        for record in self.records():
            if not record.until:
                continue  # it could not begin
            data = live_data(record)
            name = file_name(data.symbol, data.strategy_name, data.exchange_name)
            write_bytes(msgspec.json.encode(data), self._folder / "live", name, ".json")
            path = write(live_report(data), self._folder / "live", name)
            if not self._as_json:
                click.echo(f"report: {path}")

    async def _account(self) -> None:
        """Make what the account of the runs has come to, unless it is to stop at once."""
        name = self._jobs[0].account_name
        if name is None or self._as_json or len(self._signals) > 1:
            return
        _say("fetching candles for the report of the account")
        try:
            self.account = await account_data(self._engine, name)
        except BacktestKitError as error:
            _say(f"account: {error}")

    def _base(self, symbol: str) -> int:
        try:
            return INTERVALS[run_config(self._engine.config, self._exchange, symbol).base_interval]
        except BacktestKitError:  # the run itself will say so
            return MINUTE

    async def _watchdog(self) -> None:
        """Give systemd a sign of life for as long as the event loop turns.

        An exchange that is down does not end it: a restart would not help.
        """
        every = watchdog_seconds()
        while every is not None:
            notify("WATCHDOG=1")
            await self._engine.clock.sleep(every / 2)

    async def _one(self, job: Job) -> None:
        results = Live.run(
            job.symbol,
            strategy_name=job.strategy_name,
            exchange_name=self._exchange.name,
            account_name=job.account_name,
            clock=job.clock,
        )
        await exhaust(results)

    async def _wait(self, refresh: Callable[[], None]) -> list[BaseException | None]:
        gathered = asyncio.gather(*self._tasks, return_exceptions=True)
        while not gathered.done():
            refresh()
            self._tell_closed()
            if self._signals:
                self._stop()  # also those that have only now begun
            await asyncio.wait([gathered], timeout=_REFRESH)
            if not gathered.done():
                self._tell_failures()
        refresh()
        return gathered.result()

    def _tell_failures(self) -> None:
        """Print which runs have failed while others go on."""
        for job, task in zip(self._jobs, self._tasks, strict=True):
            if (
                task.done()
                and not task.cancelled()
                and task.exception()
                and task not in self._told_of
            ):
                self._told_of.add(task)
                text = f"{job.strategy_name} {job.symbol} does not run: {task.exception()}"
                self._table.note(text, self._now())
                _say(text)

    def _end(self, outcome: list[BaseException | None]) -> int:
        """Say how it ended, and return the exit code."""
        failed = [isinstance(error, Exception) for error in outcome]
        failures = {
            str(error): f"{job.strategy_name} {job.symbol}"
            for job, task, error in zip(self._jobs, self._tasks, outcome, strict=True)
            if isinstance(error, Exception) and task not in self._told_of
        }
        for text, who in failures.items():
            _say(text if len(failures) == 1 and sum(failed) > 1 else f"{who}: {text}")
        if len(self._signals) > 1:
            active = sum(record.signal is not None for record in self.records())
            _say(f"stopped at once; the state is safe, {_count(active, 'signal')} will be followed")
            return 128 + self._signals[1]
        if any(failed):
            return FAILED
        if self._signals:
            _say("stopped: nothing is open")
        elif self._recorded:
            _say("the replay has ended")
            if any(record.always_raised for record in self.records()):
                _say("a strategy raised at every call; its report says where")
                return FAILED
        return 0

    def _on_signal(self, number: int) -> None:
        """First: wind down. Second: stop at once."""
        self._signals.append(signal.Signals(number))
        notify("STOPPING=1")
        if len(self._signals) > 1:
            for task in self._tasks:
                task.cancel()
            return
        open_ = [
            f"{record.strategy_name} {record.symbol}"
            for record in self.records()
            if record.signal is not None and record.signal.pending_at is not None
        ]
        waits = f"waiting for {', '.join(open_)} to close" if open_ else "nothing is open"
        text = f"stopping: {waits}; once more stops at once"
        self._table.note(text, self._now())
        if not self._shown:
            _say(text)
        self._stop()

    def _stop(self) -> None:
        for stop in [*self._engine.live.running.values()]:
            stop()

    def _find_account(self) -> None:
        """Keep hold of the account of the runs: it is gone from the engine once they have ended."""
        found = self._engine.live_accounts.get(self._jobs[0].account_name or "")
        if isinstance(found, LiveAccount):
            self._live_account = found

    async def _told(self, event: Tick | PartialEvent) -> None:
        self._find_account()
        if isinstance(event, PartialEvent):
            if self._as_json:
                await self._print(_json(event))
            return
        self._table.update(event)
        if isinstance(event, TickIdle | TickWaiting | TickActive):
            return
        if self._as_json:
            await self._print(_json(event))
        elif not self._shown:
            await self._print(transition_line(event))

    async def _print(self, line: str) -> None:
        """Print a line, once there is room for it; if the output is closed, say so and go on.

        A run that waits for nobody does not wait for this listener either.
        """
        output = self._output
        while output is not None and not output.has_room and not self._signals:
            await self._engine.clock.sleep(_ROOM)
        if not self._unread:
            click.echo(line)
        self._tell_closed()

    def _tell_closed(self) -> None:
        if self._output is not None and self._output.is_broken and not self._unread:
            self._unread = True
            _say("the output is closed; the runs go on without it")

    def _now(self) -> int:
        """Return the time that the table shows; in a replay, that of its newest step."""
        if not self._recorded:
            return wall_ms()
        begun = [record.until for record in self.records() if record.until]
        return max(begun or [job.clock.start for job in self._jobs if job.clock is not None])

    @contextmanager
    def _display(self) -> Iterator[Callable[[], None]]:
        """Show the table on a terminal; in a pipe nothing."""
        if not self._shown:
            yield self._health
            return
        console = Console()

        def render() -> Any:
            self._health()
            return self._table.render(self._now(), max(console.height - OTHER_LINES, 1))

        with LiveDisplay(render(), console=console, auto_refresh=False) as display:

            def refresh() -> None:
                # only the newest is of interest, once somebody has read the one before
                if self._output is None or self._output.is_idle:
                    display.update(render(), refresh=True)

            yield refresh

    def _health(self) -> None:
        self._table.done = replayed(self._jobs, self.records())
        self._find_account()
        account = self._live_account
        if account is not None and math.isfinite(equity := account.equity(self._now())):
            self._table.account = f"{money(equity)} {account.schema.currency}"
        for record in self.records():
            kinds = [*record.error_kinds.values()]
            self._table.feed(
                record.symbol,
                record.strategy_name,
                record.exchange_name,
                last_step=record.until or None,
                missed=record.missed,
                errors=record.error_count,
                last_error=kinds[-1].message if kinds else None,
            )


def replayed(jobs: Sequence[Job], records: Sequence[RunRecord]) -> float | None:
    """Return how much of the recorded time the runs have been through, 0 to 1."""
    until = {(record.symbol, record.strategy_name): record.until for record in records}
    whole = done = 0
    for job in jobs:
        if job.clock is None:
            return None
        start, end = job.clock.start, job.clock.end
        whole += end - start
        done += max(until.get((job.symbol, job.strategy_name), 0) - start, 0)
    return min(done / whole, 1.0) if whole else None


@contextmanager
def _handlers(received: Callable[[int], None]) -> Iterator[None]:
    """Pass SIGINT and SIGTERM to `received`, in the event loop."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        # not loop.add_signal_handler, which Windows has not
        signal.signal(number, lambda got, _: loop.call_soon_threadsafe(received, got))
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # one that was not set from Python
                signal.signal(number, handler)


def _json(event: Tick | PartialEvent) -> str:
    line = msgspec.to_builtins(event)
    if isinstance(event, PartialEvent):
        line["action"] = "milestone"
    line["transition_id"] = event.transition_id  # type: ignore[union-attr]
    return msgspec.json.encode(line).decode()


def _say(text: str) -> None:
    click.echo(f"backtest-kit: {text}", err=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
