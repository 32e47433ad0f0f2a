"""Live runs of managed positions on a virtual clock: the trades of the reference and of backtests.

Also where they are killed at any write, and where steps were missed.
"""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
import reference
from backtest_kit._values.time import INTERVALS, to_datetime
from effort import DEEP, examples
from markets import MINUTE, START, Case, cases, deciding, managed, market, script
from positions import as_answer, as_mapping, facts_of, seen_of
from properties.test_live_equals_backtest import Killed, Mortal, end_of
from properties.test_manage_equals_reference import how
from properties.test_manage_equals_reference import settings as manage_settings
from properties.test_managed_backtests import (
    LEVELS,
    TOLD,
    brackets,
    play,
    rows_of_signals,
    settings,
)

EVERY = (*TOLD, "on_move")
#: Where in the rest of the time a process ends, and how many minutes are missed then.
OUTAGES = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 40)), min_size=1, max_size=4)


class Process:
    """One process: a fresh engine on the state that earlier ones left."""

    def __init__(self, case, rows, documents, strategy, lives=None):
        self.case, self.rows, self.strategy = case, rows, strategy
        self.adapter = Mortal(documents, lives)
        self.told = []

    def run(self, since, until):
        """Play from `since` to `until`; say whether that was survived."""
        with bk.Engine() as engine:
            engine.set_config(**self.case.config)
            bk.use_persist_adapter(self.adapter)
            bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in self.rows]))
            callbacks = dict.fromkeys(EVERY, self.told.append)
            bk.add_strategy(
                strategy_name="s",
                interval=self.case.interval,
                callbacks=callbacks,
                **self.strategy(),
            )
            clock = bk.VirtualClock(to_datetime(since), to_datetime(until))

            async def main():
                run = bk.Live.run("X", strategy_name="s", exchange_name="frame", clock=clock)
                async for _ in run:
                    pass

            try:
                asyncio.run(main())
            except Killed:
                return False
            unexpected = [
                kind
                for record in engine.records.select(mode="live")
                for kind in record.error_kinds
                if kind[0] != "manage"
                and not any(
                    word in kind[1]
                    for word in ("SignalError", "DataRange", "Suspicious", "MissedSteps")
                )
            ]
            assert not unexpected, unexpected
            return True


def once_each(told, *, manages=False):
    """The transitions, each once, as the reference writes them."""
    found = {}
    for event, fact in zip(told, facts_of(told, manages=manages), strict=True):
        known = found.setdefault(event.transition_id, fact)
        assert repr(known) == repr(fact), "told again with another content"
    return [*found.values()]


def managing(case, how):
    """The strategy of `asked_of` with a `manage`; what it wants, and what it was given."""
    proposals = managed(script(case.seed, case.ask_rate, case.coarse), case.seed, how["some"])
    decide = deciding(case.seed, how["rate"], case.coarse)
    given = []

    def get_signal(symbol, when):
        return as_mapping(proposals(int(when.timestamp() * 1000), bk.average_price(symbol)))

    def manage(position, when):
        t, seen = int(when.timestamp() * 1000), seen_of(position)
        given.append(("seen", t, *seen.values()))
        return as_answer(decide(t, seen))

    async def manage_async(position, when):
        await bk.get_average_price(position.signal.symbol)
        return manage(position, when)

    asked = {
        "get_signal": get_signal,
        "manage": manage_async if how["is_async"] else manage,
        "manage_interval": how["interval"],
    }
    return proposals, decide, given, lambda: asked


def asked_of(case):
    proposals = managed(script(case.seed, case.ask_rate, case.coarse), case.seed)

    def get_signal(symbol, when):
        return as_mapping(proposals(int(when.timestamp() * 1000), bk.average_price(symbol)))

    return proposals, lambda: {"get_signal": get_signal}


def expected(case, rows, proposals, missed=(), **manage):
    found = reference.backtest(
        rows,
        START,
        end_of(case),
        MINUTE,
        INTERVALS[case.interval],
        proposals,
        case.config,
        live=True,
        missed=missed,
        **manage,
    )
    return [fact for fact in found if fact[1] <= end_of(case)]


def with_settings(case, more):
    case = case._replace(config=case.config | more)
    return case, market(case.seed, case.minutes, coarse=case.coarse)


def killed_and_restarted(case, rows, strategy, deaths):
    """Play to the end, dying at the n-th write of each life; return what was told."""
    documents, told = {}, []
    for lives in [*deaths, None]:
        process = Process(case, rows, documents, strategy, lives)
        survived = process.run(START, end_of(case))
        told += process.told
        if survived:
            return told
    raise AssertionError("the last life has no end")


@given(cases, settings)
def test_live_equals_the_reference(case, more):
    case, rows = with_settings(case, more)
    proposals, strategy = asked_of(case)
    told = killed_and_restarted(case, rows, strategy, [])
    assert once_each(told) == expected(case, rows, proposals)
    assert len(told) == len(once_each(told))


@pytest.mark.slow
@given(cases, settings, st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_kills_at_any_write_lose_and_double_nothing(case, more, deaths):
    case, rows = with_settings(case, more)
    proposals, strategy = asked_of(case)
    told = killed_and_restarted(case, rows, strategy, deaths)
    assert once_each(told) == expected(case, rows, proposals)


@given(cases, settings, OUTAGES)
def test_missed_steps_are_followed_as_they_would_have_been(case, more, outages):
    """Nothing is asked in them; an open position goes on as if somebody had looked."""
    case, rows = with_settings(case, more)
    proposals, strategy = asked_of(case)
    told, missed = with_outages(case, rows, strategy, outages)
    assert once_each(told) == expected(case, rows, proposals, missed)


def array_strategy(case, levels, trails, exits):
    interval = INTERVALS[case.interval]
    columns = rows_of_signals(case, interval)

    def get_signals(candles):
        return brackets(columns(candles.timestamp + interval), levels, trails, exits)

    return lambda: {"get_signals": get_signals, "warmup": 2}


def compare_with_backtest(case, more, levels, trails, deaths=()):
    if case.interval not in ("1m", "3m", "5m", "15m"):
        case = case._replace(interval="15m")
    case, rows = with_settings(case._replace(frame="1m"), more)
    strategy = array_strategy(case, levels, trails, exits=True)
    # without a limit to lives, a backtest's data end with its frame, and those of live don't
    length = 0.75 if case.config["max_signal_lifetime_minutes"] else 1.0
    found = play(case, rows, step_by_step=True, length=length, **strategy())
    wanted = [fact for fact in found if fact[1] <= end_of(case)]
    told = once_each(killed_and_restarted(case, rows, strategy, deaths))
    assert told == wanted


@examples(20)
@given(cases, settings, LEVELS, st.booleans())
def test_array_strategies_with_exits_live_equal_their_backtests(case, more, levels, trails):
    compare_with_backtest(case, more, levels, trails)


@pytest.mark.slow
@examples(20)
@given(cases, settings, LEVELS, st.booleans(), st.lists(st.integers(0, 60), max_size=6))
def test_array_strategies_with_exits_killed_equal_their_backtests(
    case, more, levels, trails, deaths
):
    compare_with_backtest(case, more, levels, trails, deaths)


def with_outages(case, rows, strategy, outages):
    """Play to the end with steps missed; return what was told, and which steps those were."""
    last, documents, told, missed = end_of(case), {}, [], set()
    since = START
    for cut, minutes in sorted(outages):
        mark = since + int(cut * (last - since)) // MINUTE * MINUTE
        process = Process(case, rows, documents, strategy)
        assert process.run(since, mark)
        told += process.told
        since = min(mark + (1 + minutes) * MINUTE, last)
        missed |= set(range(mark + MINUTE, since, MINUTE))
        if since == last:
            break
    process = Process(case, rows, documents, strategy)
    assert process.run(since, last)
    return told + process.told, missed


def compare_manage(case, how, more, deaths, outages):
    case, rows = with_settings(case, more)
    proposals, decide, given, strategy = managing(case, how)
    if outages:
        told, missed = with_outages(case, rows, strategy, outages)
    else:
        told, missed = killed_and_restarted(case, rows, strategy, deaths), set()
    asked = {"manage": decide, "manage_interval": INTERVALS[how["interval"]]}
    wanted = expected(case, rows, proposals, missed, **asked)
    seen = [fact for fact in wanted if fact[0] == "seen"]
    assert [*dict.fromkeys(given)] == seen, "what it is given, also once more after a kill"
    others = [fact for fact in wanted if fact[0] not in ("seen", "refused")]
    assert once_each(told, manages=True) == others


@given(cases, how, manage_settings, st.just([]) | OUTAGES)
def test_manage_live_equals_the_reference(case, how, more, outages):
    compare_manage(case, how, more, [], outages)


@pytest.mark.slow
@examples(25)
@given(cases, how, manage_settings, st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_manage_killed_equals_the_reference(case, how, more, deaths):
    compare_manage(case, how, more, deaths, [])


BUSY = Case(
    5,
    40,
    "1m",
    "1m",
    1.0,
    False,
    {
        "exit_trigger": "wick",
        "fill_price": "market",
        "ask_at": "close",
        "ambiguous_candle": "stop_loss_first",
        "schedule_await_minutes": 30,
        "avg_price_candles_count": 1,
        "min_take_profit_distance_percent": 0.0,
        "min_stop_loss_distance_percent": 0.0,
        "max_stop_loss_distance_percent": 0.0,
        "max_signal_lifetime_minutes": 120,
        "percent_slippage": 0.0,
        "percent_fee": 0.0,
        "require_stop_loss": False,
        "max_entries": 8,
    },
)


def test_killed_at_writes_of_a_busy_half_hour(record_property):
    """A stop that follows each candle, and `manage` at each step: none is done twice."""
    rows = market(BUSY.seed, BUSY.minutes)
    decide = deciding(BUSY.seed, 0.3)
    how = {"trailing_stop": (0.3, 0.0), "entries": ((0.2, 1.0),), "take_profits": ((0.4, 30.0),)}

    def proposals(t, price):
        side = "long" if t // MINUTE % 2 else "short"
        bare = dict.fromkeys(("price_take_profit", "price_stop_loss", "minute_estimated_time"))
        return {"position": side} | bare | how

    strategy = {
        "get_signal": lambda symbol, when: as_mapping(proposals(when.timestamp() * 1000, 0)),
        "manage": lambda position, when: as_answer(
            decide(int(when.timestamp() * 1000), seen_of(position))
        ),
    }
    calm = once_each(killed_and_restarted(BUSY, rows, lambda: strategy, []), manages=True)
    assert {fact[0] for fact in calm} == {"opened", "moved", "added", "part", "closed"}
    points, every = 0, 3 if DEEP else 7
    while True:
        process = Process(BUSY, rows, documents := {}, lambda: strategy, points)
        survived = process.run(START, end_of(BUSY))
        told = process.told
        if survived:
            break
        process = Process(BUSY, rows, documents, lambda: strategy)
        assert process.run(START, end_of(BUSY))
        assert once_each(told + process.told, manages=True) == calm, points
        points += every
    assert points > 100
    record_property("measured", f"{points // every} kills of a busy managed position, none noticed")
