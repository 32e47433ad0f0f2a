"""`bk.compare`: several strategies over some candles, ranked."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from backtest_kit._engine.engine import current_engine
from backtest_kit._one_call.backtest import When, own_engine
from backtest_kit._one_call.inputs import DATA, add_data, frame_of, strategy_of, symbol_of
from backtest_kit._one_call.progress import progress
from backtest_kit._pages.results import WalkResult
from backtest_kit._values.account_schemas import AccountSchema
from backtest_kit._values.config import Settings
from backtest_kit._values.errors import RegistrationError
from backtest_kit._values.schemas import AccountMetric, Benchmark, Metric, WalkerSchema
from backtest_kit._values.time import Interval
from backtest_kit._values.windows import Windows
from backtest_kit._walker.runner import Workers
from backtest_kit._walker.walker import Walker

#: The name of the walk.
_NAME = "compare"


def compare(
    data: str | PathLike[str] | Any,
    strategies: Sequence[Any],
    *,
    symbol: str | Sequence[str] | None = None,
    metric: Metric | AccountMetric = "sharpe_ratio",
    interval: Interval | None = None,
    start: When | None = None,
    end: When | None = None,
    windows: Windows | None = None,
    benchmark: Benchmark = 0,
    account: AccountSchema | str | None = None,
    executor: Workers | None = None,
    store: str | Path | None = None,
    **settings: Unpack[Settings],
) -> WalkResult:
    """Backtest several strategies over some candles, and return what `Walker.get_data` returns.

    `strategies` are those of `bk.grid`, or any mix of what `bk.backtest` takes; `metric`,
    `windows`, `benchmark`, `executor` and `store` are those of a walk. With several symbols, each
    strategy runs over all of them, by default over the time that all have. With an `account`, an
    `AccountSchema` or the name of a registered one, each strategy plays with its money, all symbols
    together. The rest is as in `bk.backtest`:

        ranking = bk.compare("BTCUSDT.parquet", bk.grid(crossover, fast=[10, 20], slow=[50, 100]))

    Raises:
        RegistrationError: an argument is none of these, or two strategies have one name.
        UnknownNameError: no such account is registered.
        ConfigError: an unknown setting, or a value out of range.
        DataError: the candles can't be had.
    """
    if isinstance(strategies, str) or not isinstance(strategies, Sequence) or not strategies:
        raise RegistrationError(
            f"strategies={strategies!r} must be several, as a list or from bk.grid"
        )
    outside = current_engine()
    if isinstance(account, str):
        account = outside.accounts.get(account)
    elif account is not None and not isinstance(account, AccountSchema):
        raise RegistrationError(
            f"account={account!r} must be the name of a registered account, or a bk.AccountSchema"
        )
    with own_engine(outside, settings) as engine:
        exchange = add_data(engine, data)
        if symbol is None or isinstance(symbol, str):
            symbols = [symbol_of(data, symbol)]
        else:
            symbols = [*symbol]
        schemas = [strategy_of(outside, strategy, interval) for strategy in strategies]
        for schema in schemas:
            engine.strategies.add(schema)
        engine.frames.add(frame_of(engine, exchange, symbols, schemas, start, end))
        if account is not None:
            engine.accounts.add(account)
        engine.walkers.add(
            WalkerSchema(
                walker_name=_NAME,
                exchange_name=exchange.name,
                frame_name=DATA,
                strategies=[schema.name for schema in schemas],
                metric=metric,
                windows=windows,
                benchmark=benchmark,
                account_name=None if account is None else account.name,
            )
        )
        with progress(engine, "walker_progress", ", ".join(symbols), "strategies"):
            Walker.run_sync(symbols, walker_name=_NAME, executor=executor, store=store)
        return Walker.get_data(symbols, walker_name=_NAME)
