"""`bk.Live`: run a strategy minute by minute, and read its results."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

from backtest_kit._data.base import check_interval, run_config, step_at
from backtest_kit._data.market import MarketView
from backtest_kit._engine.engine import current_engine
from backtest_kit._engine.fresh import begin
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.risk import RiskGate
from backtest_kit._engine.run import Run
from backtest_kit._engine.task import RunTask, exhaust
from backtest_kit._live.account_data import account_data
from backtest_kit._live.account_gate import LiveGate
from backtest_kit._live.clocks import VirtualClock, VirtualTicker, WallTicker
from backtest_kit._live.ledger import PATIENCE as LISTENERS_PATIENCE
from backtest_kit._live.live_run import LiveRun
from backtest_kit._live.sending import answer, find_run, new_command, send
from backtest_kit._live.transitions import LiveTick
from backtest_kit._pages.results import LiveResult, PortfolioResult, live_result, portfolio_result
from backtest_kit._reports.live import live_data, live_report
from backtest_kit._reports.table import file_name, write
from backtest_kit._state.adapter import PersistAdapter, check_adapter_shape
from backtest_kit._state.commands import Command
from backtest_kit._values.commands import CommandName, order_of
from backtest_kit._values.errors import ArgumentError, RegistrationError, UnknownNameError
from backtest_kit._values.events import CommandEvent
from backtest_kit._values.schemas import SignalLike
from backtest_kit._values.time import INTERVALS

#: Seconds that a run waits before a risk check for another run that is behind.
PATIENCE = 10.0


class Live:
    """Live runs on the current engine; see `Backtest` for what the methods share.

    The open signal of each run, and all its transitions, are stored under the setting `state_dir`
    (or by the adapter of `use_persist_adapter`): a run that is killed continues from there when it
    is started again.
    """

    @staticmethod
    def run(
        symbol: str,
        *,
        strategy_name: str,
        exchange_name: str,
        account_name: str | None = None,
        clock: VirtualClock | None = None,
    ) -> AsyncGenerator[LiveTick, None]:
        """Return an async generator of opened, closed and cancelled results.

        It ends only where `clock` does. Results that may not have been delivered before a crash
        come first, with the same `transition_id` as then. `account_name`: it trades on paper with
        the money of this account, which its runs share, and which is kept with the state.

        Raises:
            UnknownNameError: nothing is registered under one of the names.
            StateError: (while iterating) the state is damaged, can't be used, or is in use.
            ExchangeRefusedError: (while iterating) the exchange refuses the symbol or the key.
            DataError: (while iterating, with `clock`) the recorded candles can't be read.
        """
        return _prepare(symbol, strategy_name, exchange_name, account_name, clock).results()

    @staticmethod
    def background(
        symbol: str,
        *,
        strategy_name: str,
        exchange_name: str,
        account_name: str | None = None,
        clock: VirtualClock | None = None,
    ) -> RunTask[None]:
        """Start a live run as a task; an error that ends it is emitted on the exit channel.

        `task.stop()` takes no new signals, cancels one that waits for its entry price, follows an
        open position to its close, and then ends the run; `task.cancel()` ends it at once, with its
        state stored.

        Raises:
            UnknownNameError: nothing is registered under one of the names.
            RuntimeError: no event loop is running.
        """
        live = _prepare(symbol, strategy_name, exchange_name, account_name, clock)

        async def work() -> None:
            try:
                await exhaust(live.results())
            except Exception as error:
                await live.run.failed("live", error, LISTENERS_PATIENCE)
                raise

        return RunTask(work(), live.stop)

    @staticmethod
    def stop(symbol: str, *, strategy_name: str, exchange_name: str | None = None) -> None:
        """Stop a run of this engine as `RunTask.stop` does, whoever started it.

        Raises:
            UnknownNameError: no such live run.
        """
        running = current_engine().live.running
        found = [
            stop
            for key, stop in running.items()
            if (key.symbol, key.strategy_name) == (symbol, strategy_name)
            and exchange_name in (None, key.exchange_name)
        ]
        if not found:
            there = "; ".join(f"{key.strategy_name} {key.symbol}" for key in running) or "nothing"
            raise UnknownNameError(
                f"{strategy_name} on {symbol} does not run live (running: {there})"
            )
        for stop in found:
            stop()

    @staticmethod
    async def send(
        symbol: str,
        *,
        strategy_name: str,
        action: CommandName,
        exchange_name: str | None = None,
        share: float | None = None,
        note: str | None = None,
        price: float | None = None,
        size: float | None = None,
        signal: SignalLike | None = None,
        when_running: bool = False,
        command_id: str | None = None,
    ) -> Command:
        """Send a command to a live run, of this process or of another on the same state.

        The run reads it at its next step, does it once, and tells what came of it as a
        `CommandEvent`. `action` is one of

        - `close`: `share` percent (100) of what is held, at the market, with a `note`
        - `cancel` the signal that waits for its entry price
        - `move-stop`, `move-target` to `price`
        - `add`: enter once more, `size` times (1.0) the first entry's cost
        - `open` a whole `signal`
        - `pause`: no new signals, until `resume`; what lives goes on; kept over restarts

        Once this returns the command is stored, and survives whatever is killed. Sent twice under
        one `command_id` it is done once. `when_running`: keep it for a run that does not run now.
        Without `exchange_name` the only stored run with these names is meant.

        Raises:
            ArgumentError: the action is unknown, lacks a field, has one too many, or is infinite,
                or another command waits under this `command_id`.
            UnknownNameError: no such run is stored, or several are.
            NotRunningError: it does not run.
            StateError: the state can't be read or written.
        """
        given = {"share": share, "note": note, "price": price, "size": size, "signal": signal}
        order = order_of(action, given)
        engine = current_engine()
        owner, now = engine.live, engine.clock.wall_ms()
        key = await find_run(owner.adapter, symbol, strategy_name, exchange_name)
        command = new_command(key, order, command_id, now, keep=when_running)
        runs_here = key in owner.running
        await send(owner.adapter, command, now, runs_here=runs_here, when_running=when_running)
        owner.sent_to.add(key)
        return command

    @staticmethod
    async def answer(command: Command) -> CommandEvent:
        """Wait until a run has done or refused a command, and return what came of it.

        Not for callbacks that are part of a step, which would wait for themselves.

        Raises:
            ArgumentError: another command had this id; this one is not done.
            NotRunningError: the run does not run; the command is kept.
            StateError: the state can't be read.
        """
        engine = current_engine()
        owner = engine.live
        return await answer(
            owner.adapter, command, engine.clock, lambda: command.run in owner.running
        )

    @staticmethod
    def get_data(
        symbol: str, *, strategy_name: str, exchange_name: str | None = None
    ) -> LiveResult:
        """Return all that the run has done since its state began, also in earlier processes.

        Raises:
            UnknownNameError: no such live run in this process, or several (then name the exchange).
        """
        return live_result(live_data(_record(symbol, strategy_name, exchange_name)))

    @staticmethod
    def get_report(symbol: str, *, strategy_name: str, exchange_name: str | None = None) -> str:
        """Return `get_data` as Markdown; raises as `get_data`."""
        return live_report(live_data(_record(symbol, strategy_name, exchange_name)))

    @staticmethod
    async def get_account(account_name: str) -> PortfolioResult:
        """Return what all runs on an account have come to since it began, also those that ended.

        Its curve is made of what is stored and of candles, which the exchange is asked for.

        Raises:
            UnknownNameError: no live run on this account is stored.
            StateError: the state can't be read, or is damaged.
            DataError: the candles can't be had.
        """
        return portfolio_result(await account_data(current_engine(), account_name))

    @staticmethod
    def dump(
        symbol: str,
        *,
        strategy_name: str,
        exchange_name: str | None = None,
        path: str | Path = "./dump/live",
    ) -> Path:
        """Write the report into the folder `path` and return the file's path.

        Raises:
            UnknownNameError: as `get_data`.
            OSError: the file can't be written.
        """
        record = _record(symbol, strategy_name, exchange_name)
        name = file_name(symbol, strategy_name, record.exchange_name)
        return write(live_report(live_data(record)), path, name)


def use_persist_adapter(adapter: PersistAdapter) -> None:
    """Keep live state in `adapter` instead of files under `state_dir`, on the current engine.

    Raises:
        RegistrationError: it lacks a method, or a live run uses the present one.
    """
    engine = current_engine()
    check_adapter_shape(adapter)
    if engine.live.running:
        raise RegistrationError("a live run uses the present adapter: stop it first")
    engine.adapter = adapter


def _prepare(
    symbol: str,
    strategy_name: str,
    exchange_name: str,
    account_name: str | None,
    clock: VirtualClock | None,
) -> LiveRun:
    engine = current_engine()
    if not isinstance(symbol, str) or not symbol:
        raise ArgumentError(f"symbol={symbol!r} must be a non-empty string")
    if clock is not None and not isinstance(clock, VirtualClock):
        raise TypeError(f"clock={clock!r} must be a VirtualClock, or None for the wall clock")
    strategy = engine.strategies.get(strategy_name)
    exchange = engine.exchanges.get(exchange_name)
    account = None if account_name is None else engine.accounts.get(account_name)
    sized = strategy.sizing_name
    sizing = None if sized is None else engine.sizings.get(sized)
    risks = [engine.risks.get(name) for name in strategy.risk_names]
    config = run_config(engine.config, exchange, symbol)
    check_interval(strategy, config)
    base = INTERVALS[config.base_interval]
    record = RunRecord(
        symbol=symbol,
        strategy_name=strategy_name,
        exchange_name=exchange_name,
        frame_name=None,
        mode="live",
        config=config,
        since=0,
        until=0,
    )
    record.strategy = strategy
    begun, recorded = begin(strategy), clock is not None
    run = Run(
        engine,
        mode="live",
        symbol=symbol,
        begun=begun,
        exchange=exchange,
        frame_name=None,
        view=MarketView(
            engine.feed if clock is None else engine.store,
            exchange,
            config,
            0 if clock is None else clock.end,
        ),
        record=record,
        risk_gate=RiskGate(
            engine.live_books,
            risks,
            (symbol, strategy_name, exchange_name),
            engine.logger,
            # beside an account, whose runs wait for each other, nobody is waited for for ever
            patience=None if recorded and account is None else PATIENCE,
            step_at=step_at(exchange, config),
            account=account_name,
        ),
        account=None
        if account is None
        else LiveGate(account, sizing, None if clock is None else clock.start),
        waits=recorded,
    )
    if clock is not None:
        return LiveRun(run, VirtualTicker(clock, base), engine.live, recorded=True)
    clock_error = partial(run.error, "clock")
    ticker = WallTicker(engine.clock, config.step_delay_ms, clock_error, base)
    return LiveRun(run, ticker, engine.live, recorded=False)


def _record(symbol: str, strategy_name: str, exchange_name: str | None) -> RunRecord:
    return current_engine().records.one(
        mode="live", symbol=symbol, strategy_name=strategy_name, exchange_name=exchange_name
    )
