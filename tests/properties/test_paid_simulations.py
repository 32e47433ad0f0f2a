"""Trials of accounts from tables of trades: to the last bit what playing them in turns gives."""

import asyncio
from contextlib import contextmanager, nullcontext
from unittest import mock

import numpy as np
from hypothesis import event, find, given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._arrays import shared_simulation, simulate, simulation, together
from backtest_kit._backtest.account_session import AccountSession
from backtest_kit._backtest.array_table import columns_of as outcome_of
from backtest_kit._backtest.array_table import costs_of, doubts_of
from backtest_kit._values.time import to_datetime
from effort import examples
from markets import MINUTE, START
from portfolios import SYMBOLS, columns_of, rows_of, worlds


@contextmanager
def in_python():
    """Nothing is compiled."""
    with (
        mock.patch.object(shared_simulation, "_function", return_value=together.play_together),
        mock.patch.object(simulation, "simulator", return_value=simulate.simulate),
    ):
        yield


#: Data that reach beyond the longest life.
longer = st.builds(
    lambda world, rate, finest: world._replace(
        minutes=600,
        ask_rate=rate,
        config=world.config | {"max_signal_lifetime_minutes": 120},
        # more steps in a quantity than fit into an integer of 64 bits
        rules={key: {"quantity_step": 1e-18} for key in SYMBOLS} if finest else world.rules,
    ),
    worlds,
    st.sampled_from([0.05, 0.3, 1.0]),
    st.sampled_from([False, False, False, True]),
)
#: Each strategy on a symbol of its own, since columns know nothing of their symbol.
several = st.builds(
    lambda world, runs: world._replace(runs=runs),
    longer,
    st.sampled_from([{"r": ["C"], "s": ["A"]}, {"s": ["B"], "r": ["A"], "t": ["C"]}]),
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
    # where there are prices before it, or none yet
    begin = START + [30, 30, 2, 0, -20][world.seed % 5] * MINUTE
    end = START + world.minutes * 3 // 4 * MINUTE
    bk.add_frame(
        frame_name="f", interval="1m", start_date=to_datetime(begin), end_date=to_datetime(end)
    )
    bk.add_account(account_name="main", currency="USDT", **world.account)
    for name, (symbol,) in world.runs.items():
        sizing = world.sizings.get(name)
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


@given(several, st.booleans(), st.booleans())
@examples(40)
def test_runs_that_share_an_account_are_paid_as_in_turns(world, compiled, ends):
    """In plain Python, and compiled where Numba is installed."""
    paid_and_played(world, compiled, ends=ends)


@given(one, st.booleans(), st.booleans())
@examples(40)
def test_a_lone_run_is_paid_as_in_turns(world, compiled, ends):
    paid_and_played(world, compiled, ends=ends)


def paid_and_played(world, compiled, *, ends):
    """Check that both give the same, whatever is refused, reduced, rounded or liquidated."""

    async def both():
        paid, played = sessions(world, engine, ends=ends)
        with nullcontext() if compiled else in_python():
            done = await paid.play_tables()
        await played.play()
        return done, paid, played

    with bk.Engine() as engine:
        done, paid, played = asyncio.run(both())
    assert done
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
        same = "calls", "complete", "until", "error_count", "warming", "warm_at"
        assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same]


def test_more_steps_than_fit_are_played_in_turns():
    world = find(several, lambda world: world.interval == "1m")
    with bk.Engine() as engine, mock.patch.object(shared_simulation, "_MOST_STEPS", 100):
        assert not asyncio.run(sessions(world, engine, ends=True)[0].play_tables())
