"""Trials of accounts from tables of trades: to the last bit what playing them in turns gives."""

import asyncio
from contextlib import nullcontext
from unittest import mock

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._arrays import pay
from backtest_kit._backtest import paid_tables
from backtest_kit._backtest.account_session import AccountSession
from backtest_kit._backtest.array_table import columns_of as outcome_of
from backtest_kit._values.time import to_datetime
from effort import examples
from markets import MINUTE, START
from portfolios import SYMBOLS, columns_of, rows_of, worlds


def plain(logger):
    return pay.pay


#: Each strategy on a symbol of its own, since columns know nothing of their symbol; data that
#: reach beyond the longest life, and often an account that refuses nothing.
lone = st.builds(
    lambda world, runs, easy: world._replace(
        runs=runs,
        minutes=600,
        ask_rate=0.3,
        config=world.config | {"max_signal_lifetime_minutes": 120},
        rules=world.rules if easy is None else dict.fromkeys(SYMBOLS, easy),
        account=world.account
        | (
            {"leverage": 2.5, "balance": 1e3, "on_cash_shortage": "reduce"}
            if easy is not None
            else {}
        ),
    ),
    worlds,
    st.sampled_from([{"s": ["A"]}, {"r": ["C"], "s": ["A"]}]),
    st.sampled_from([{}, {}, {"quantity_step": 0.001}, None]),
)


def sessions(world, engine):
    """Return two sessions for the same runs."""
    engine.set_config(**world.config)
    files = {
        symbol: bk.exchanges.FrameExchange([list(row) for row in rows_of(world, symbol)])
        for symbol in SYMBOLS
    }

    async def get_candles(symbol, interval, since, limit):
        return await files[symbol].get_candles(symbol, interval, since, limit)

    bk.add_exchange(
        exchange_name="e",
        get_candles=get_candles,
        get_market=lambda symbol: bk.Market(base=symbol, quote="USDT", **world.rules[symbol]),
        data_range=lambda _: (START, START + world.minutes * MINUTE),
        intervals=["1m", "3m", "5m"],
    )
    # where there are prices before it
    begin, end = START + 30 * MINUTE, START + world.minutes * 3 // 4 * MINUTE
    bk.add_frame(
        frame_name="f", interval="1m", start_date=to_datetime(begin), end_date=to_datetime(end)
    )
    bk.add_account(account_name="main", currency="USDT", **world.account)
    for name, (symbol,) in world.runs.items():
        sizing = world.sizings[name]
        if sizing is not None:
            bk.add_sizing(sizing_name=f"of-{name}", **sizing)
        bk.add_strategy(
            strategy_name=name,
            interval=world.interval,
            get_signals=columns_of(world, name, symbol, ends=True),
            warmup=1,
            sizing_name=None if sizing is None else f"of-{name}",
        )
    runs = [(engine.strategies.get(name), symbol) for name, (symbol,) in world.runs.items()]
    given = (engine.exchanges.get("e"), engine.frames.get("f"), engine.accounts.get("main"))
    return [AccountSession(engine, runs, *given, is_trial=True) for _ in range(2)]


@given(lone, st.booleans())
@examples(40)
def test_tables_pay_as_turns_do(world, compiled):
    """In plain Python, and compiled where Numba is installed."""

    async def both():
        paid, played = sessions(world, engine)
        with nullcontext() if compiled else mock.patch.object(paid_tables, "_payer", plain):
            done = await paid.play_tables()
        await played.play()
        return done, paid, played

    with bk.Engine() as engine:
        done, paid, played = asyncio.run(both())
    event(f"from tables: {done}")
    if not done:
        return
    assert not played.account.tally.refusals
    assert paid.statistics == played.statistics
    for one, other in zip(paid.records, played.records, strict=True):
        for mine, theirs in zip(outcome_of(one), outcome_of(other), strict=True):
            assert np.array_equal(mine, theirs)
        assert (one.calls, one.complete, one.until) == (other.calls, other.complete, other.until)
