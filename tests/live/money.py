"""Live runs on paper by the wall clock that the tests of accounts have in common."""

import msgspec

import backtest_kit as bk
from live.world import flat, running
from markets import MINUTE

WICK = {"exit_trigger": "wick", "avg_price_candles_count": 1, "percent_slippage": 0.0}
LONG = {"position": "long", "price_take_profit": 110.0, "price_stop_loss": 90.0}
DAY = 24 * 60 * MINUTE


def account(**changes):
    fields = {"account_name": "main", "currency": "USDT", "balance": 1000.0} | changes
    bk.add_account(**fields, replace=True)


def live(symbol="X", **changes):
    names = {"strategy_name": "s", "exchange_name": "venue", "account_name": "main"} | changes
    return bk.Live.background(symbol, **names)


def at(*times, **proposal):
    """Propose at instants."""
    return lambda when, price: (
        LONG | {"minute_estimated_time": 3} | proposal if when in times else None
    )


def rows(closes, minutes=300):
    """A market that is flat at 100 but for some closes, by the minute after `T0`."""
    found, price = [], 100.0
    for i, row in enumerate(flat(minutes)):
        opening, price = price, closes.get(i - 99, price)
        low, high = sorted((opening, price))
        found.append((row[0], opening, high, low, price, 1.0))
    return found


def play(stage, until, *symbols, **changes):
    """Run symbols together until a time; return the account's balance, and what it holds."""

    async def main():
        tasks = [live(symbol, **changes) for symbol in symbols]
        async with running(*tasks):
            await stage.world.until(until)
            for task in tasks:
                assert task.status == "running", await task
            shared = bk._engine.engine.current_engine().live_accounts["main"].shared
            return shared.books.balance, dict(shared.books.held)

    return stage.world.run(main())


def stored(adapter):
    """The documents of the runs, by symbol."""
    found = {}
    for (kind, key), content in adapter.documents.items():
        if kind == "run":
            found[key.rpartition("/")[2]] = msgspec.json.decode(content)["data"]
    return found
