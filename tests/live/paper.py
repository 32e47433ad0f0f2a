"""Portfolios played live on paper, over recorded candles."""

import asyncio
from typing import NamedTuple

import backtest_kit as bk
from backtest_kit._values.time import to_datetime
from backtest_kit.testing import MemoryAdapter
from markets import MINUTE, START
from portfolios import EXPECTED, end_of, register
from properties.test_live_equals_backtest import Killed


class Paper(NamedTuple):
    """What live runs have told, in order, and what their account had at the end."""

    told: list
    balance: float
    held: dict
    tally: object
    wrong: list
    shown: list
    data: object = None


def names_of(world):
    return [(name, symbol) for name, symbols in world.runs.items() for symbol in symbols]


def paper(world, adapter=None, *, slow=None, reports=False):
    """Play a world live, on a clock over its candles, with one account.

    The balance is `None` where the process was killed by `adapter`.
    """
    told, events, shown, wrong = [], [], [], []
    with bk.Engine() as engine:
        register(engine, world, told=told, events=events, shown=shown, wrong=wrong, slow=slow)
        bk.use_persist_adapter(MemoryAdapter() if adapter is None else adapter)
        # a backtest opens nothing at its last instant, and closes what is open there
        clock = bk.VirtualClock(to_datetime(START), to_datetime(end_of(world)))

        async def one(name, symbol):
            live = bk.Live.run(
                symbol, strategy_name=name, exchange_name="e", account_name="main", clock=clock
            )
            async for _ in live:
                pass

        async def main():
            runs = asyncio.gather(*(one(*run) for run in names_of(world)))
            while "main" not in engine.live_accounts:
                await asyncio.sleep(0)
            account = engine.live_accounts["main"].shared
            await runs
            return account, await bk.Live.get_account("main") if reports else None

        try:
            account, data = asyncio.run(main())
        except Killed:
            return Paper(told, None, {}, None, wrong, shown)
        for record in engine.records.all():
            unexpected = [
                kind
                for kind in record.error_kinds
                if not any(known in str(kind) for known in EXPECTED)
            ]
            assert not unexpected, unexpected
    return Paper(told, account.books.balance, account.books.held, account.tally, wrong, shown, data)


__all__ = ["MINUTE", "Paper", "paper"]
