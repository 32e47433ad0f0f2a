"""Trials of accounts from tables of trades: to the last bit what playing them in turns gives."""

import asyncio
from contextlib import contextmanager, nullcontext
from unittest import mock

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._arrays import pay, simulate, simulation
from backtest_kit._backtest import paid_tables
from backtest_kit._backtest.account_session import AccountSession
from backtest_kit._backtest.array_table import columns_of as outcome_of
from backtest_kit._backtest.array_table import costs_of, doubts_of
from backtest_kit._engine.account import Tally
from backtest_kit._values.time import to_datetime
from effort import examples
from markets import MINUTE, START
from portfolios import SYMBOLS, columns_of, rows_of, worlds


@contextmanager
def in_python():
    """Nothing is compiled."""
    with (
        mock.patch.object(paid_tables, "_payer", return_value=pay.pay),
        mock.patch.object(simulation, "simulator", return_value=simulate.simulate),
    ):
        yield


#: Data that reach beyond the longest life.
longer = st.builds(
    lambda world, rate: world._replace(
        minutes=600, ask_rate=rate, config=world.config | {"max_signal_lifetime_minutes": 120}
    ),
    worlds,
    st.sampled_from([0.05, 0.3, 1.0]),
)
#: Each strategy on a symbol of its own, since columns know nothing of their symbol; often an
#: account that refuses nothing.
two = st.builds(
    lambda world, easy: world._replace(
        runs={"r": ["C"], "s": ["A"]},
        ask_rate=0.3,
        rules=world.rules if easy is None else dict.fromkeys(SYMBOLS, easy),
        account=world.account
        | (
            {"leverage": 2.5, "balance": 1e3, "on_cash_shortage": "reduce"}
            if easy is not None
            else {}
        ),
    ),
    longer,
    st.sampled_from([{}, {}, {"quantity_step": 0.001}, None]),
)
#: One run, over data that are loaded at once or in parts.
one = st.builds(
    lambda world, minutes: world._replace(
        runs={"s": ["A"]},
        minutes=minutes,
        config=world.config | {"candles_per_chunk": 1000},
    ),
    longer,
    st.sampled_from([600, 600, 2500]),
)


def sessions(world, engine, *, ends):
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
            get_signals=columns_of(world, name, symbol, ends=ends),
            warmup=1,
            sizing_name=None if sizing is None else f"of-{name}",
        )
    runs = [(engine.strategies.get(name), symbol) for name, (symbol,) in world.runs.items()]
    given = (engine.exchanges.get("e"), engine.frames.get("f"), engine.accounts.get("main"))
    return [AccountSession(engine, runs, *given, is_trial=True) for _ in range(2)]


@given(two, st.booleans())
@examples(40)
def test_tables_pay_as_turns_do(world, compiled):
    """In plain Python, and compiled where Numba is installed."""
    assert not paid_and_played(world, compiled, ends=True).refusals


@given(one, st.booleans(), st.booleans())
@examples(60)
def test_a_lone_run_is_paid_as_in_turns(world, compiled, ends):
    """Whatever is refused, reduced, rounded or liquidated."""
    paid_and_played(world, compiled, ends=ends, always=True)


def paid_and_played(world, compiled, *, ends, always=False):
    """Check that both give the same; return what was counted where turns were not needed."""

    async def both():
        paid, played = sessions(world, engine, ends=ends)
        with nullcontext() if compiled else in_python():
            done = await paid.play_tables()
        await played.play()
        return done, paid, played

    with bk.Engine() as engine:
        done, paid, played = asyncio.run(both())
    assert done or not always
    event(f"from tables: {done}")
    if not done:
        return Tally()
    tally = played.account.tally
    for kind, counts in (("refused", tally.refusals), ("skipped", tally.skips)):
        for reason in counts:
            event(f"{kind}: {reason}")
    event(f"liquidated: {bool(played.account.fills.columns().liquidated.any())}")
    event(f"reduced: {bool(tally.reductions)}")
    assert paid.statistics == played.statistics
    for one, other in zip(paid.records, played.records, strict=True):
        for mine, theirs in zip(outcome_of(one), outcome_of(other), strict=True):
            assert np.array_equal(mine, theirs)
        assert doubts_of(one) == doubts_of(other)
        assert np.array_equal(costs_of(one), costs_of(other))
        same = "calls", "complete", "until", "error_count", "warming"
        assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same]
    return tally
