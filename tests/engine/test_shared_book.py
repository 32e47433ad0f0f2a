"""Runs that share risk profiles: never overbooked, and the same outcome at any speed.

The engine's own count is never asked: what was open is recounted minute by minute from the trades.
"""

import asyncio
import contextlib
import logging
import random
from datetime import timedelta
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._values.signal import expires_at
from backtest_kit._values.time import INTERVALS, to_datetime
from backtest_kit.testing import LeapingEventLoop
from effort import examples
from markets import MINUTE, START, market, script

MINUTES = 240


class Plan(NamedTuple):
    """One run: its market, its frame in minutes, its strategy and its profiles."""

    seed: int
    first: int
    length: int
    frame: str
    interval: str
    rate: float
    profiles: tuple[str, ...]


plans = st.builds(
    Plan,
    seed=st.integers(0, 2**32),
    first=st.integers(0, 60),
    length=st.integers(60, 150),
    frame=st.sampled_from(["1m", "5m"]),
    interval=st.sampled_from(["1m", "3m"]),
    rate=st.sampled_from([0.3, 1.0]),
    profiles=st.sampled_from([("p",), ("q",), ("p", "q"), ("q", "p")]),
)
limits = st.fixed_dictionaries({"p": st.integers(1, 2), "q": st.integers(1, 2)})
seeds = st.integers(0, 2**32)


class Runs:
    """Backtests by plans in an engine of their own, where a request and a call take a while.

    `delays`: the seed of how long each takes, up to 20 ms of a loop's time; `None` for no time.
    """

    def __init__(self, plans, limits, delays=None):
        self.plans, self.limits = plans, limits
        self.chance = None if delays is None else random.Random(delays)
        self.rows = {
            f"S{i}": market(plan.seed, MINUTES, gaps=False) for i, plan in enumerate(plans)
        }

    async def pause(self):
        if self.chance is not None:
            await asyncio.sleep(self.chance.choice([0, 0, 0.001, 0.02]))

    async def get_candles(self, symbol, interval, since, limit):
        await self.pause()
        until = since + limit * INTERVALS[interval]
        return [list(row) for row in self.rows[symbol] if since <= row[0] < until]

    def register(self):
        bk.set_config(get_candles_retry_delay_ms=0, max_stop_loss_distance_percent=0)
        bk.add_exchange(exchange_name="slow", get_candles=self.get_candles)
        for name, limit in self.limits.items():
            bk.add_risk(risk_name=name, validations=[self.at_most(limit)])
        for i, plan in enumerate(self.plans):
            bk.add_frame(
                frame_name=f"f{i}",
                interval=plan.frame,
                start_date=to_datetime(START + (20 + plan.first) * MINUTE),
                end_date=to_datetime(START + (20 + plan.first + plan.length) * MINUTE),
            )
            bk.add_strategy(
                strategy_name=f"s{i}",
                interval=plan.interval,
                get_signal=self.strategy(plan),
                risk_name=list(plan.profiles),
            )

    def at_most(self, limit):
        async def check(question):
            await self.pause()
            return f"{limit} are open" if question.active_count >= limit else None

        return check

    def strategy(self, plan):
        answer = script(plan.seed, plan.rate)

        async def get_signal(symbol, when):
            await self.pause()
            return answer(round(when.timestamp() * 1000), await bk.get_average_price(symbol))

        return get_signal

    def names(self, i):
        return {"strategy_name": f"s{i}", "exchange_name": "slow", "frame_name": f"f{i}"}

    async def consume(self, i, start=0.0, hold=0.0):
        """Return the trades of a run begun after `start` s and held at each for `hold` s."""
        if start:
            await asyncio.sleep(start)
        found = []
        async for tick in bk.Backtest.run(f"S{i}", **self.names(i)):
            found.append(tick)
            if hold:
                await asyncio.sleep(hold)
        return found

    async def background(self, i):
        await bk.Backtest.background(f"S{i}", **self.names(i))
        return [*bk.Backtest.get_data(f"S{i}", strategy_name=f"s{i}").signals]

    @contextlib.asynccontextmanager
    async def kept(self):
        """Keep the books by a run that has closed one position, earlier than all others begin."""
        bk.add_frame(
            frame_name="early",
            interval="1m",
            start_date=to_datetime(START + 10 * MINUTE),
            end_date=to_datetime(START + 20 * MINUTE),
        )
        signal = bk.Signal(
            position="long", price_take_profit=1000.0, price_stop_loss=1.0, minute_estimated_time=1
        )
        bk.add_strategy(
            strategy_name="keeper",
            interval="1m",
            get_signal=lambda symbol, when: signal,
            risk_name=list(self.limits),
        )
        names = {"strategy_name": "keeper", "exchange_name": "slow", "frame_name": "early"}
        async with contextlib.aclosing(bk.Backtest.run("S0", **names)) as held:
            await anext(held)
            yield

    def play(self, work):
        """Return what a coroutine function returns, in virtual time and a fresh engine."""
        with bk.Engine(), asyncio.Runner(loop_factory=LeapingEventLoop) as runner:
            self.register()
            return runner.run(work())

    def together(self, how=None):
        """Return the trades of all runs, begun in one turn of the event loop."""

        async def work():
            count = range(len(self.plans))
            return await asyncio.gather(*((how or self.consume)(i) for i in count))

        return self.play(work)

    def most(self, trades, profile):
        """Return the most positions of a profile that were open in one minute."""
        mine = [
            (trade.signal.pending_at, trade.close_timestamp)
            for plan, found in zip(self.plans, trades, strict=True)
            if profile in plan.profiles
            for trade in found
        ]
        minutes = range(START, START + MINUTES * MINUTE, MINUTE)
        return max(sum(a <= t < b for a, b in mine) for t in minutes)


@pytest.mark.slow
@examples(15)
@given(st.lists(plans, min_size=2, max_size=4), limits, seeds)
def test_runs_begun_together_have_one_outcome_at_any_speed(plans, limits, delays):
    expected = Runs(plans, limits).together()
    slow = Runs(plans, limits, delays)
    assert slow.together() == expected
    assert slow.together(slow.background) == expected
    for profile, limit in limits.items():
        assert slow.most(expected, profile) <= limit


@given(
    st.lists(plans, min_size=2, max_size=4),
    limits,
    seeds,
    st.lists(st.sampled_from([0.0, 0.003, 0.02, 0.1]), min_size=4, max_size=4),
    st.lists(st.sampled_from([0.0, 0.0, 0.002, 0.05]), min_size=4, max_size=4),
)
def test_no_profile_is_overbooked_whenever_runs_begin_and_however_they_are_held(
    plans, limits, delays, starts, holds
):
    runs = Runs(plans, limits, delays)

    async def work():
        async with runs.kept():
            return await asyncio.gather(
                *(runs.consume(i, starts[i], holds[i]) for i in range(len(plans)))
            )

    trades = runs.play(work)
    for profile, limit in limits.items():
        assert runs.most(trades, profile) <= limit


def begun_late(plans, delays, starts):
    """The trades of a run in the background, and of one begun so many seconds after it."""
    runs = Runs(plans, {"p": 1}, delays)

    async def work():
        first = asyncio.ensure_future(runs.background(0))
        await asyncio.sleep(starts)
        if first.done():
            return None
        return [*await asyncio.gather(runs.background(1), first)][::-1]

    return runs.play(work)


def beside(plans, given_trades):
    """The trades of the second run, by a profile that knows the first one's trades."""
    runs = Runs(plans, {"p": 1})
    taken = [(trade.signal.pending_at, trade.close_timestamp) for trade in given_trades]

    def check(question):
        row, when = question.signal, question.timestamp
        end = when + 1 if row.pending_at is None else expires_at(row)
        return "taken" if any(a < end and when < b for a, b in taken if a < b) else None

    runs.at_most = lambda limit: check

    async def work():
        return await runs.background(1)

    return runs.play(work)


def alone(plan):
    """The trades of a run that is begun alone."""
    runs = Runs([plan], {"p": 1})
    (found,) = runs.together()
    return found


shared = plans.map(lambda plan: plan._replace(profiles=("p",)))


@pytest.mark.slow
@given(shared, shared, seeds, st.lists(st.floats(0.0005, 0.2), min_size=1, max_size=2))
def test_when_a_late_run_begins_does_not_matter(first, second, delays, starts):
    """It is as begun together, or goes on beside what the first has opened: nothing in between."""
    late = [begun_late([first, second], delays, start) for start in starts]
    outcomes = [outcome for outcome in late if outcome is not None]
    assume(outcomes)
    given_trades = alone(first)
    possible = [
        [given_trades, beside([first, second], given_trades)],
        Runs([first, second], {"p": 1}).together(),
    ]
    for outcome in outcomes:
        assert outcome in possible


BUSY = Plan(seed=3, first=0, length=150, frame="1m", interval="1m", rate=1.0, profiles=("p",))
"""It proposes as often as it can."""


def test_a_run_begun_a_moment_later_does_not_overbook_and_says_so_once(caplog):
    plans = [BUSY, BUSY._replace(seed=4)]
    runs = Runs(plans, {"p": 1}, delays=1)
    with caplog.at_level(logging.WARNING, "backtest_kit"):
        late = begun_late(plans, 1, 0.05)
        assert all(late), "both have traded"
        assert runs.most(late, "p") == 1
        (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert "s1 on S1 was started when other runs" in warning
        assert "(p)" in warning
        caplog.clear()
        assert runs.together() != late
        assert "WARNING" not in {record.levelname for record in caplog.records}


def test_a_late_run_is_refused_what_would_still_be_open_when_another_opened():
    """At its own instant nothing is open, but the first run opens before its life is over."""
    hour = timedelta(hours=1)
    asked = []

    def one(question):
        asked.append((question.signal.symbol, question.timestamp, question.active_positions))
        return "one is open" if question.active_count else None

    def answer(opens, lifetime):
        def get_signal(symbol, when):
            price = bk.average_price(symbol)
            if when - start != opens * hour:
                return None
            return bk.Signal(
                position="long",
                price_take_profit=price * 1.2,
                price_stop_loss=price * 0.9,
                minute_estimated_time=lifetime,
            )

        return get_signal

    start = to_datetime(START)
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    bk.add_frame(frame_name="f", interval="1h", start_date=start, end_date=start + 9 * hour)
    bk.add_risk(risk_name="p", validations=[one])
    for name, *signal in (("first", 4, 60), ("long", 2, 121), ("short", 2, 120), ("next", 5, 60)):
        bk.add_strategy(
            strategy_name=name, interval="1h", get_signal=answer(*signal), risk_name="p"
        )

    async def run(name):
        names = {"exchange_name": "synthetic", "frame_name": "f"}
        return [tick async for tick in bk.Backtest.run(name, strategy_name=name, **names)]

    async def work():
        held = bk.Backtest.run(
            "first", strategy_name="first", exchange_name="synthetic", frame_name="f"
        )
        await anext(held)
        found = [len(await run(name)) for name in ("long", "short", "next")]
        await held.aclose()
        return found

    assert asyncio.run(work()) == [0, 1, 1]
    at = {name: START + h * 60 * MINUTE for name, h in (("long", 2), ("first", 4))}
    counted = [
        [p.symbol for p in active]
        for symbol, when, active in asked
        if symbol == "long" and when == at["long"]
    ]
    assert counted == [[], ["first"]], "asked for its own instant, then for the later opening"


def test_a_cancelled_run_counts_for_the_longest_life_of_what_it_held():
    runs = Runs([BUSY], {"p": 1})

    async def hang(tick):
        if tick.symbol == "held":
            await asyncio.Event().wait()

    def answer(symbol, when):
        return bk.Signal(
            position="long",
            price_take_profit=1000.0,
            price_stop_loss=1.0,
            minute_estimated_time=40 if symbol == "held" else 10,
        )

    async def work():
        runs.rows |= dict.fromkeys(("held", "other"), runs.rows["S0"])
        bk.add_strategy(
            strategy_name="s",
            interval="1m",
            get_signal=answer,
            risk_name="p",
            callbacks={"on_open": hang},
        )
        names = {"strategy_name": "s", "exchange_name": "slow", "frame_name": "f0"}
        held, other = (bk.Backtest.background(symbol, **names) for symbol in ("held", "other"))
        await asyncio.sleep(1)
        assert other.status == "running", "it waits for the one that is ahead in order"
        held.cancel()
        await other
        return bk.Backtest.get_data("other", strategy_name="s").signals[0].signal.pending_at

    assert runs.play(work) == START + 60 * MINUTE, "40 minutes after the first step"
