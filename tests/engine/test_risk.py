"""Risk profiles: shared in simulated time, check and reserve as one step."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

import backtest_kit as bk
from command import PATIENCE

START = datetime(2024, 1, 1, tzinfo=UTC)
SYMBOLS = ("AAA", "BBB", "CCC")


async def play(symbols, names, delay=0):
    async def one(symbol):
        found = []
        async for tick in bk.Backtest.run(symbol, **names):
            found.append(tick)
            if delay:
                await asyncio.sleep(0)
        return found

    found = await asyncio.gather(*(one(symbol) for symbol in symbols))
    return dict(zip(symbols, found, strict=True))


def setup(limit, lifetime=30, validations=None, **strategy):
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    bk.add_frame(
        frame_name="f", interval="1m", start_date=START, end_date=START + timedelta(hours=20)
    )
    checks = []

    async def slots(check):
        await asyncio.sleep(0)
        checks.append(check)
        return f"{limit} positions are open" if check.active_count >= limit else None

    bk.add_risk(risk_name="book", validations=validations or [slots])

    async def get_signal(symbol, when):
        p = await bk.get_average_price(symbol)
        return bk.Signal(
            position="long",
            price_take_profit=p * 1.05,
            price_stop_loss=p * 0.95,
            minute_estimated_time=lifetime,
        )

    bk.add_strategy(
        **(
            {"strategy_name": "s", "interval": "5m", "get_signal": get_signal, "risk_name": "book"}
            | strategy
        )
    )
    return checks


NAMES = {"strategy_name": "s", "exchange_name": "synthetic", "frame_name": "f"}


def overlap(trades):
    """The greatest number of positions open at one instant."""
    edges = [(t.signal.pending_at, 1) for t in trades] + [(t.close_timestamp, -1) for t in trades]
    most = open_now = 0
    for _, change in sorted(edges):
        open_now += change
        most = max(most, open_now)
    return most


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_the_limit_holds_across_symbols_in_simulated_time(limit):
    checks = setup(limit)
    found = await play(SYMBOLS, NAMES)
    trades = [t for ticks in found.values() for t in ticks]
    assert overlap(trades) == limit
    times = [check.timestamp for check in checks]
    assert times == sorted(times), "the profile is asked in the order of simulated time"
    for check in checks:
        assert len(check.active_positions) == check.active_count
        assert all(
            p.symbol in SYMBOLS and p.opened_at <= check.timestamp for p in check.active_positions
        )


async def test_the_outcome_does_not_depend_on_how_fast_each_run_is_computed():
    setup(1)
    first = await play(SYMBOLS, NAMES)
    bk.listen_signal(lambda tick: None)
    assert await play(SYMBOLS, NAMES) == first


async def test_at_one_instant_only_one_takes_the_last_slot():
    checks = setup(1, lifetime=1200)
    found = await play(SYMBOLS, NAMES)
    first = [check for check in checks if check.timestamp == checks[0].timestamp]
    assert [(check.symbol, check.active_count) for check in first] == [
        ("AAA", 0),
        ("BBB", 1),
        ("CCC", 1),
    ]
    assert overlap([t for ticks in found.values() for t in ticks]) == 1


async def test_rejections_are_events_with_their_reason():
    setup(1)
    events = []
    bk.listen_risk(events.append)
    await play(SYMBOLS, NAMES)
    assert events
    assert {e.reason for e in events} == {"1 positions are open"}
    data = bk.Risk.get_data(strategy_name="s")
    assert data.rejected == len(events)
    assert data.reasons[0].count == len(events)


async def test_one_run_after_another_starts_clean():
    checks = setup(1)
    await play(SYMBOLS[:1], NAMES)
    checks.clear()
    await play(SYMBOLS[1:2], NAMES)
    assert checks
    assert all(check.active_count == 0 for check in checks)


async def test_several_profiles_must_all_agree_and_a_refusal_frees_what_was_reserved():
    verdicts = []

    def second(check):
        verdicts.append(check)
        if len(verdicts) <= 3:
            raise ValueError("not yet")

    checks = setup(1, risk_name=["book", "late"])
    bk.add_risk(risk_name="late", validations=[second])
    found = await play(SYMBOLS[:1], NAMES)
    assert len(checks) > 4
    assert all(check.active_count == 0 for check in checks)
    reasons = [e.reason for e in bk.Risk.get_data(strategy_name="s").rejections]
    assert reasons == ["not yet"] * 3
    assert found["AAA"]


@pytest.mark.parametrize(
    ("answer", "reason"), [("too hot", "too hot"), (False, "returned False"), (3, "returned 3")]
)
async def test_what_a_check_may_return(answer, reason):
    setup(1, validations=[lambda check: answer])
    found = await play(SYMBOLS[:1], NAMES)
    assert not found["AAA"]
    assert reason in bk.Risk.get_data(strategy_name="s").rejections[0].reason


class TooLargeError(KeyError):
    """An error of one's own, whatever it is derived from."""


def raising(error):
    def check(question):
        raise error

    return check


async def fails(question):
    return question.nothing


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (raising(ValueError("too late")), "too late"),
        (raising(RuntimeError("too late")), "too late"),
        (raising(Exception("too late")), "too late"),
        (raising(AssertionError("too late")), "too late"),
        (raising(TooLargeError()), "TooLargeError"),
    ],
)
async def test_a_check_rejects_by_raising(check, reason):
    setup(1, validations=[check])
    errors = []
    bk.listen_error(errors.append)
    assert not (await play(SYMBOLS[:1], NAMES))["AAA"]
    assert bk.Risk.get_data(strategy_name="s").rejections[0].reason == reason
    assert not errors


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (raising(KeyError("AAA")), "check raised KeyError: 'AAA'"),
        (raising(ZeroDivisionError("division")), "check raised ZeroDivisionError: division"),
        (raising(bk.DataError("no candles")), "check raised DataError: no candles"),
        (raising(json.JSONDecodeError("x", "", 0)), "check raised JSONDecodeError"),
        (fails, "fails raised AttributeError: 'RiskCheck' object has no attribute 'nothing'"),
    ],
)
async def test_a_check_that_fails_rejects_and_is_an_error_event(check, reason):
    setup(1, validations=[check])
    errors = []
    bk.listen_error(errors.append)
    assert not (await play(SYMBOLS[:1], NAMES))["AAA"]
    rejections = bk.Risk.get_data(strategy_name="s").rejections
    assert len(errors) == len(rejections) > 10
    assert all(rejection.reason.startswith(reason) for rejection in rejections)
    (where,) = {event.where for event in errors}
    assert where == f"check {check.__name__} of risk profile 'book'"
    assert {event.when for event in errors} == {rejection.timestamp for rejection in rejections}
    assert bk.Backtest.get_data("AAA", strategy_name="s").error_count == len(errors)


async def test_a_refused_activation_cancels_the_scheduled_signal():
    calls = []

    def first_only(check):
        calls.append(check)
        return None if len(calls) == 1 else "no more"

    async def get_signal(symbol, when):
        p = await bk.get_average_price(symbol)
        return bk.Signal(
            position="long",
            price_open=p * 0.9999,
            price_take_profit=p * 1.05,
            price_stop_loss=p * 0.95,
            minute_estimated_time=30,
        )

    setup(1, validations=[first_only], get_signal=get_signal)
    assert not (await play(SYMBOLS[:1], NAMES))["AAA"]
    data = bk.Schedule.get_data(strategy_name="s")
    assert data.signals[0].reason == "risk"
    assert calls[1].price == data.signals[0].signal.price_open


async def test_a_consumer_that_holds_a_run_does_not_block_another():
    setup(3)
    held = bk.Backtest.run("AAA", **NAMES)
    await anext(held)
    found = await asyncio.wait_for(play(SYMBOLS[1:2], NAMES), PATIENCE)
    assert found["BBB"]
    await held.aclose()
