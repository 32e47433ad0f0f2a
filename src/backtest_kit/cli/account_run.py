"""Accounts of the command line: their options, and the backtests that share one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import click
import msgspec

from backtest_kit._backtest.account_session import AccountSession
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.register import add_frame
from backtest_kit._pages.portfolio_page import portfolio_page
from backtest_kit._reports.portfolio import portfolio_report
from backtest_kit._reports.portfolio_data import PortfolioData
from backtest_kit._reports.run_folder import keep_portfolio
from backtest_kit._reports.table import file_name, write
from backtest_kit._values.account_schemas import AccountSchema
from backtest_kit._values.errors import RegistrationError
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, StrategySchema
from backtest_kit.cli.account_summary import show_account
from backtest_kit.cli.options import F
from backtest_kit.cli.pages import PAGE
from backtest_kit.cli.terminal import Console

#: The name of an account that the command line makes.
_NAME = "account"
_CURRENCY: Final = "USDT"
#: The parameters that its options come as; all but the last are fields of an account.
ACCOUNT_OPTIONS: Final = ("balance", "currency", "leverage", "sizing")


class Money(NamedTuple):
    """What the command line says of an account; `sizing` is a name."""

    balance: float | None
    currency: str
    leverage: float
    sizing: str | None


def account_options(what: str) -> Callable[[F], F]:
    """Return the options of an account: `balance` (for `what`) `currency`, `leverage`, `sizing`."""
    options = (
        click.option(
            "--balance",
            type=float,
            help=what,
        ),
        click.option(
            "--currency", default=_CURRENCY, show_default=True, help="The account's currency."
        ),
        click.option(
            "--leverage", type=float, default=1.0, show_default=True, help="With --balance."
        ),
        click.option(
            "--sizing", metavar="NAME", help="A sizing that FILE registers, for all strategies."
        ),
    )

    def added(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return added


def chosen_account(engine: Engine, money: Money) -> AccountSchema | None:
    """Return the account that the command line describes; `None` without a balance.

    Raises:
        click.UsageError: it can't be; the message names the option.
        UnknownNameError: the file registers no such sizing.
    """
    if money.balance is None:
        if (money.currency, money.leverage, money.sizing) != (_CURRENCY, 1, None):
            raise click.UsageError(
                "--currency, --leverage and --sizing are for an account; give --balance"
            )
        return None
    try:
        account = AccountSchema(
            account_name=_NAME,
            currency=money.currency,
            balance=money.balance,
            leverage=money.leverage,
        )
    except RegistrationError as error:
        raise click.UsageError(_of_options(str(error), money.leverage)) from None
    if money.sizing is not None:
        engine.sizings.get(money.sizing)
    return account


def add_chosen_account(engine: Engine, money: Money) -> str | None:
    """Register the account that the command line describes, and let all strategies be sized by it.

    Return its name; `None` without a balance. Raises as `chosen_account`.
    """
    account = chosen_account(engine, money)
    if account is None:
        return None
    engine.accounts.add(account)
    for strategy in engine.strategies.list():
        engine.strategies.add(sized(strategy, money), replace=True)
    return account.name


def _of_options(text: str, leverage: float) -> str:
    """Return what is wrong with an account in terms of the options that it comes from."""
    text = text.partition(": ")[2]
    field = text.partition("=")[0]
    if field in ACCOUNT_OPTIONS:
        return f"{text} (--{field})"
    margin = AccountSchema(account_name=_NAME, currency=_CURRENCY, balance=1.0).maintenance_percent
    return (
        f"--leverage {leverage:g} must be below {100 / margin:g}: the collateral of a position has "
        f"to be more than its maintenance margin, {margin:g} % of its value"
    )


def sized(strategy: StrategySchema, money: Money) -> StrategySchema:
    """Return a strategy with the sizing of the command line, if that names one."""
    if money.sizing is None:
        return strategy
    return msgspec.structs.replace(strategy, sizing_name=money.sizing)


def account_session(
    engine: Engine,
    exchange: ExchangeSchema,
    jobs: Sequence[tuple[str, StrategySchema, FrameSchema]],
    money: Money,
) -> AccountSession | None:
    """Return the runs of some jobs on one account; `None` without a balance.

    They go from the earliest start to the latest end of their frames, in the order of strategies.
    """
    account = chosen_account(engine, money)
    if account is None:
        return None
    frames = {frame.name: frame for _, _, frame in jobs}
    first, *others = frames.values()
    frame = first
    if others:
        name = " and ".join(frames)
        start, end = (f(getattr(x, d) for x in frames.values()) for f, d in _ENDS)
        add_frame(frame_name=name, interval=first.interval, start_date=start, end_date=end)
        frame = engine.frames.get(name)
    strategies = {strategy.name: sized(strategy, money) for _, strategy, _ in jobs}
    symbols = dict.fromkeys(symbol for symbol, _, _ in jobs)
    runs = [(strategy, symbol) for strategy in strategies.values() for symbol in symbols]
    return AccountSession(engine, runs, exchange, frame, account)


_ENDS = ((min, "start_date"), (max, "end_date"))


def print_account(
    data: PortfolioData | None, engine: Engine, output: Path, console: Console
) -> None:
    """Print what an account came to, and keep its report in the folder `output`."""
    if data is None:
        return
    show_account(data, console)
    name = file_name(data.account.name, data.exchange_name, str(engine.clock.wall_ms()))
    path = write(portfolio_report(data), output / "portfolio", name)
    console.print(f"account: {path}", soft_wrap=True, highlight=False)


def keep_account(
    data: PortfolioData, root: Path, started_at: int, source: str, *, html: bool
) -> Path:
    """Write what an account came to into a folder of its own; see `keep_portfolio`."""
    more = {PAGE: portfolio_page(data).encode()} if html else None
    return keep_portfolio(data, root, started_at, source, more)
