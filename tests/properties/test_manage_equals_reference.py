"""Backtests that ask `manage`: steps, fast-forward and the reference agree to the last bit.

What `manage` wants is random, and some of it is not allowed. What it is given is compared as well.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
import reference
from backtest_kit._values.time import INTERVALS, to_datetime
from markets import MINUTE, START, cases, deciding, managed, market, script, spiked
from positions import as_answer, as_mapping, facts_of, seen_of

TOLD = (
    *("on_open", "on_schedule", "on_cancel", "on_close", "on_partial", "on_add"),
    *("on_partial_profit", "on_partial_loss", "on_manage_error"),
)
how = st.fixed_dictionaries(
    {
        "interval": st.sampled_from(["1m", "1m", "3m", "5m", "15m", "1h"]),
        "rate": st.sampled_from([0.03, 0.3, 1.0]),
        "is_async": st.booleans(),
        "some": st.sampled_from([0.0, 0.5, 1.0]),
    }
)
settings = st.fixed_dictionaries(
    {
        "require_stop_loss": st.booleans(),
        "max_entries": st.sampled_from([2, 8]),
        "suspicious_candle": st.sampled_from(["hold", "accept"]),
        "allow_wider_stop": st.booleans(),
    }
)


def play(case, rows, how, proposals, decide, *, step_by_step):
    """Run a case on a new engine; return what was told, as the reference writes it."""
    told = []
    names = (*TOLD, "on_move") if step_by_step else TOLD

    def get_signal(symbol, when):
        return as_mapping(proposals(int(when.timestamp() * 1000), bk.average_price(symbol)))

    def manage(position, when):
        t, seen = int(when.timestamp() * 1000), seen_of(position)
        told.append(("seen", t, *seen.values()))
        return as_answer(decide(t, seen))

    async def manage_async(position, when):
        await bk.get_average_price(position.signal.symbol)
        return manage(position, when)

    with bk.Engine() as engine:
        engine.set_config(**case.config)
        bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in rows]))
        bk.add_frame(
            frame_name="f",
            interval=case.frame,
            start_date=to_datetime(START),
            end_date=to_datetime(START + int(case.minutes * 0.75) * MINUTE),
        )
        bk.add_strategy(
            strategy_name="s",
            interval=case.interval,
            get_signal=get_signal,
            manage=manage_async if how["is_async"] else manage,
            manage_interval=how["interval"],
            callbacks=dict.fromkeys(names, told.append),
        )
        try:
            bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
        except (bk.ConfigError, bk.DataRangeError):  # as in the tests of plain signals
            return None
        record = engine.records.select(mode="backtest")[0]
        known = ("SignalError", "DataRange", "SuspiciousCandle", "ActionError", "manage raises")
        unexpected = [k for k in record.error_kinds if not any(x in str(k) for x in known)]
        assert not unexpected, unexpected
    facts = []
    for x in told:
        facts += [x] if isinstance(x, tuple) else facts_of([x], manages=True)
    return facts


def compare(case, how, more, *, step_by_step):
    case = case._replace(config=case.config | more)
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    if case.seed % 2:
        rows = spiked(rows, case.seed)
    proposals = managed(script(case.seed, case.ask_rate, case.coarse), case.seed, how["some"])
    decide = deciding(case.seed, how["rate"], case.coarse)
    found = play(case, rows, how, proposals, decide, step_by_step=step_by_step)
    if found is None:
        return
    expected = reference.backtest(
        rows,
        START,
        START + int(case.minutes * 0.75) * MINUTE,
        INTERVALS[case.frame],
        INTERVALS[case.interval],
        proposals,
        case.config,
        manage=decide,
        manage_interval=INTERVALS[how["interval"]],
    )
    if not step_by_step:
        expected = [fact for fact in expected if fact[0] != "moved"]
    assert found == expected


@given(cases, how, settings)
def test_fast_forward_with_manage_equals_the_reference(case, how, more):
    compare(case, how, more, step_by_step=False)


@given(cases, how, settings)
def test_steps_with_manage_equal_the_reference(case, how, more):
    compare(case, how, more, step_by_step=True)


def columns(seed, interval, rate):
    """What is said at the close of each candle: sides, distances, exits; by its time alone."""

    def said(closes_at):
        draws = np.random.default_rng([seed, 5]).random((6, 997))[:, closes_at // interval % 997]
        often = 0.1 + 0.5 * np.random.default_rng([seed, 6]).random()
        side = np.where(draws[0] < 0.5, 1, -1) * (draws[1] < rate)
        levels = (np.where(draws[i] < 0.3, np.nan, 0.6 + 2 * draws[i]) for i in (2, 3))
        trailing = np.where(draws[4] < 0.5, np.nan, draws[4])
        exits = draws[5] < often, draws[4] < often
        return side, *levels, trailing, *exits

    return said


@given(cases, st.sampled_from(["1m", "5m", "15m"]), st.booleans())
def test_exit_columns_are_a_manage_that_closes(case, interval, trails):
    said = columns(case.seed, INTERVALS[interval], case.ask_rate)
    rows = market(case.seed, case.minutes, coarse=case.coarse, gaps=False)

    def signals(candles, *, by_column):
        t = candles.timestamp + INTERVALS[interval]
        side, up, down, trailing, exit_long, exit_short = said(t)
        more = {"trailing_stop": trailing, "trailing_activate_percent": 0.2} if trails else {}
        if by_column:
            more |= {"exit_long": exit_long, "exit_short": exit_short}
        else:  # no row opens what it closes
            side = side * ~np.where(side > 0, exit_long, exit_short)
        return bk.Signals.bracket(side, up, down, 20, **more)

    def manage(position, when):
        *_, exit_long, exit_short = said(np.array([int(when.timestamp() * 1000)]))
        long = position.signal.position == "long"
        return bk.Close() if (exit_long if long else exit_short)[0] else None

    def closed(**how):
        with bk.Engine() as engine:
            # what is said behind the last whole candle is said by nobody
            more = {"require_stop_loss": False, "max_signal_lifetime_minutes": 60}
            engine.set_config(**(case.config | more | {"ask_at": "close"}))
            bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in rows]))
            end = START + case.minutes * 3 // 4 * MINUTE
            begin = START + 30 * MINUTE
            dates = {"start_date": to_datetime(begin), "end_date": to_datetime(end)}
            bk.add_frame(frame_name="f", interval="1m", **dates)
            bk.add_strategy(strategy_name="s", interval=interval, warmup=1, **how)
            names = {"strategy_name": "s", "exchange_name": "frame", "frame_name": "f"}
            return [*bk.Backtest.run_sync("X", **names)]

    by_column = closed(get_signals=lambda candles: signals(candles, by_column=True))
    by_hand = closed(
        get_signals=lambda candles: signals(candles, by_column=False),
        manage=manage,
        manage_interval=interval,
    )
    assert by_hand == by_column
