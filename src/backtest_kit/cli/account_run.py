"""Backtests of the command line with the money of an account."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from backtest_kit._backtest.account_session import AccountSession
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.register import add_frame
from backtest_kit._pages.portfolio_page import portfolio_page
from backtest_kit._reports.portfolio_data import PortfolioData
from backtest_kit._reports.run_folder import keep_portfolio
from backtest_kit._values.account_schemas import AccountSchema
from backtest_kit._values.errors import RegistrationError
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, StrategySchema
from backtest_kit.cli.pages import PAGE

#: The name of an account that the command line makes.
_NAME = "account"


class Money(NamedTuple):
    """What the command line says of an account; `sizing` is a name."""

    balance: float | None
    currency: str
    leverage: float
    sizing: str | None


def account_options(command: Any) -> Any:
    """Add the options of an account, which come as `balance`, `currency`, `leverage`, `sizing`."""
    options = (
        click.option(
            "--balance",
            type=float,
            help="Play with this much money: all strategies and symbols on one account.",
        ),
        click.option(
            "--currency", default="USDT", show_default=True, help="The account's currency."
        ),
        click.option(
            "--leverage", type=float, default=1.0, show_default=True, help="With --balance."
        ),
        click.option(
            "--sizing", metavar="NAME", help="A sizing that FILE registers, for all strategies."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def account_session(
    engine: Engine,
    exchange: ExchangeSchema,
    jobs: Sequence[tuple[str, StrategySchema, FrameSchema]],
    money: Money,
) -> AccountSession | None:
    """Return the runs of some jobs on one account; `None` without a balance.

    They go from the earliest start to the latest end of their frames, in the order of strategies.
    """
    if money.balance is None:
        if money.sizing is not None or money.leverage != 1:
            raise click.UsageError("--sizing and --leverage are for an account; give --balance")
        return None
    try:
        account = AccountSchema(
            account_name=_NAME,
            currency=money.currency,
            balance=money.balance,
            leverage=money.leverage,
        )
    except RegistrationError as error:
        raise click.UsageError(str(error).partition(": ")[2]) from None
    if money.sizing is not None:
        engine.sizings.get(money.sizing)
    frames = {frame.name: frame for _, _, frame in jobs}
    first, *others = frames.values()
    frame = first
    if others:
        name = " and ".join(frames)
        start, end = (f(getattr(x, d) for x in frames.values()) for f, d in _ENDS)
        add_frame(frame_name=name, interval=first.interval, start_date=start, end_date=end)
        frame = engine.frames.get(name)
    strategies = {strategy.name: strategy for _, strategy, _ in jobs}
    symbols = dict.fromkeys(symbol for symbol, _, _ in jobs)
    if money.sizing is not None:
        strategies = {
            name: msgspec.structs.replace(strategy, sizing_name=money.sizing)
            for name, strategy in strategies.items()
        }
    runs = [(strategy, symbol) for strategy in strategies.values() for symbol in symbols]
    return AccountSession(engine, runs, exchange, frame, account)


_ENDS = ((min, "start_date"), (max, "end_date"))


def keep_account(
    data: PortfolioData, root: Path, started_at: int, source: str, *, html: bool
) -> Path:
    """Write what an account came to into a folder of its own; see `keep_portfolio`."""
    more = {PAGE: portfolio_page(data).encode()} if html else None
    return keep_portfolio(data, root, started_at, source, more)
