"""Accounts of live runs by the wall clock, where something goes wrong with one of their runs."""

import asyncio

import pytest

import backtest_kit as bk
from backtest_kit.testing import MemoryAdapter
from live.money import LONG, WICK, account, live, rows, stored
from live.world import T0, Stage, clock, flat, running
from markets import MINUTE


def proposing(stage, plan, **more):
    """Let the strategy propose by plan: a proposal for each symbol and minute after `T0`."""

    async def get_signal(symbol, when):
        minute = (round(when.timestamp() * 1000) - T0) // MINUTE
        found = plan.get((symbol, minute))
        return None if found is None else LONG | {"minute_estimated_time": 100} | found

    bk.add_strategy(strategy_name="s", interval="1m", get_signal=get_signal, replace=True, **more)


def books():
    return bk._engine.engine.current_engine().live_accounts["main"].shared.books


def gained(adapter):
    """What the runs have stored that they gained."""
    parts = [state["account"] for state in stored(adapter).values()]
    return sum(part["profit"] + (part["money"] or {"profit": 0.0})["profit"] for part in parts)


def told(stage, *actions):
    return [(t.symbol, t.action) for t in stage.told if t.action in actions]


def test_a_run_that_ends_takes_back_nothing_that_others_have_gained():
    """X has skipped an entry, which changed no money; Y trades; then X is cancelled."""
    account()
    stage = Stage(rows({3: 96.0, 8: 96.5}), **WICK)
    proposing(
        stage,
        {
            ("X", 0): {"cost": 800.0, "entries": [(3.0, 1.0)]},
            ("Y", 6): {"cost": 100.0, "minute_estimated_time": 2},
        },
    )

    async def main():
        x, y = live("X"), live("Y")
        async with running(x, y):
            await stage.world.until(T0 + 9 * MINUTE)
            before = books().balance
            x.cancel()
            await asyncio.sleep(1)
            return before, books().balance

    before, after = stage.world.run(main())
    assert ("Y", "closed") in told(stage, "closed")
    assert before == after == pytest.approx(1000 + gained(stage.adapter), abs=1e-9)


def test_a_write_that_fails_takes_back_nothing_that_others_did_meanwhile():
    """X enters once more after Y's close at the same instant, and can't store it."""
    account()
    stage = Stage(rows({3: 96.0}), **WICK)
    proposing(
        stage,
        {
            ("X", 0): {"cost": 200.0, "entries": [(3.0, 1.0)]},
            ("Y", 0): {"cost": 400.0, "price_stop_loss": 97.0},
        },
    )
    write, failed = stage.adapter.write, []

    async def fails_once(kind, key, content):
        if kind == "run" and b'"added"' in bytes(content) and not failed:
            failed.append(key)
            raise OSError("disk full")
        await write(kind, key, content)

    stage.adapter.write = fails_once

    async def main():
        async with running(live("X"), live("Y")):
            await stage.world.until(T0 + 5 * MINUTE)
            return books().balance, {k: v.basis for k, v in books().held.items()}

    balance, held = stage.world.run(main())
    assert failed
    assert balance == pytest.approx(1000 + gained(stage.adapter), abs=1e-9)
    assert [*held] == [0]
    assert told(stage, "closed", "added") == [("Y", "closed"), ("X", "added")]


def test_a_level_that_was_skipped_is_not_tried_again_after_a_restart():
    account()
    stage = Stage(rows({3: 96.0}), **WICK)
    proposing(
        stage,
        {
            ("X", 0): {"cost": 500.0, "entries": [(3.0, 0.9)]},
            ("Y", 0): {"cost": 400.0, "minute_estimated_time": 6},
        },
    )

    async def main():
        async with running(live("X"), live("Y")):
            await stage.world.until(T0 + 8 * MINUTE + 30_000)
            documents = dict(stage.adapter.documents)  # as a kill leaves them
        stage.adapter.documents.clear()
        stage.adapter.documents.update(documents)
        async with running(live("X"), live("Y")):
            await stage.world.until(T0 + 12 * MINUTE)

    stage.world.run(main())
    assert told(stage, "added", "closed") == [("Y", "closed")]
    assert stored(stage.adapter)["X"]["account"]["skips"] == {"cash": 1}


def test_what_was_counted_at_a_step_that_stored_nothing_is_in_the_next_write():
    account()
    stage = Stage(flat(), **WICK)
    proposing(stage, {("X", 0): {"cost": 500.0}})

    async def main():
        async with running(live("X")):
            await stage.world.until(T0 + 3 * MINUTE + 30_000)
            (gate,) = bk._engine.engine.current_engine().live_accounts["main"].gates
            gate._count(skips={"cash": 2})

    stage.world.run(main())
    part = stored(stage.adapter)["X"]["account"]
    assert part["skips"] == {"cash": 2}
    assert part["left"] == 1000 - 0.5


@pytest.mark.parametrize("hangs", ["size", "risk"])
def test_what_hangs_at_an_entry_does_not_hold_up_the_exits_of_others(hangs):
    account()
    stage = Stage(rows({5: 99.9, 8: 89.0}), **WICK)

    async def size(of, signal):
        if signal.symbol == "X":
            await asyncio.sleep(30 * 60)
        return 100.0

    async def check(asked):
        if asked.symbol == "X" and stage.world.now > T0 + 3 * MINUTE:
            await asyncio.sleep(30 * 60)

    bk.add_sizing(sizing_name="z", method="function", size=size)
    bk.add_risk(risk_name="r", validations=[check])
    # what waits is asked about at its activation
    late = {"price_open": 99.95} if hangs == "risk" else {}
    plan = {("Y", 0): {}, ("X", 2): {"price_stop_loss": 85.0, **late}}
    proposing(stage, plan, **{"sizing_name": "z"} if hangs == "size" else {"risk_name": "r"})
    told_at = {}
    bk.listen_signal_live(lambda t: told_at.setdefault((t.symbol, t.action), stage.world.now))

    async def main():
        async with running(live("Y"), live("X")):
            await stage.world.until(T0 + 20 * MINUTE)

    stage.world.run(main())
    assert told_at["Y", "closed"] < T0 + 8 * MINUTE + 15_000
    assert ("X", "opened") not in told_at
    assert stage.error_texts("sizing" if hangs == "size" else "risk")


def test_a_market_that_is_not_answered_for_holds_up_nobody():
    """X begins without the rules of its market, and enters nothing until they are there."""
    account()
    stage = Stage(rows({4: 89.0}), **WICK)

    async def get_market(symbol):
        if symbol == "X" and stage.world.now < T0 + 5 * MINUTE:
            await asyncio.sleep(30 * 60)
        return bk.Market(base=symbol, quote="USDT", quantity_step=1.0)

    get_candles = stage.venue.get_candles
    bk.add_exchange(
        exchange_name="venue", get_candles=get_candles, get_market=get_market, replace=True
    )
    low = {"price_stop_loss": 80.0, "cost": 150.0}
    plan = {("Y", 0): {"cost": 100.0}, ("X", 1): low, ("X", 6): low}
    proposing(stage, plan)
    told_at = {}
    bk.listen_signal_live(lambda t: told_at.setdefault((t.symbol, t.action), stage.world.now))

    async def main():
        async with running(live("X"), live("Y")):
            await stage.world.until(T0 + 8 * MINUTE)

    stage.world.run(main())
    assert told_at["Y", "opened"] < T0 + 5_000
    assert told_at["Y", "closed"] < T0 + 4 * MINUTE + 5_000
    assert told_at["X", "opened"] > T0 + 6 * MINUTE
    (opened,) = [t for t in stage.told if (t.symbol, t.action) == ("X", "opened")]
    assert opened.money.quantity == 1.0
    assert any("has not answered" in text for text in stage.error_texts("market"))


def test_a_signal_that_waits_for_the_rules_of_its_market_takes_one_slot():
    """Started again, X reaches its entry price while its market can't be had; one may be open."""
    account()
    stage = Stage(rows({2: 99.0}), **WICK)

    def get_market(symbol):
        if T0 + MINUTE < stage.world.now < T0 + 5 * MINUTE:
            raise ConnectionError("503")
        return bk.Market(base=symbol, quote="USDT")

    def one(asked):
        if asked.active_count:
            raise ValueError("one is enough")

    bk.add_exchange(
        exchange_name="venue",
        get_candles=stage.venue.get_candles,
        get_market=get_market,
        replace=True,
    )
    bk.add_risk(risk_name="r", validations=[one])
    short = {"cost": 100.0, "minute_estimated_time": 3}
    plan = {("X", 0): {"price_open": 99.5, **short}, ("Y", 6): short}
    proposing(stage, plan, risk_name="r")

    async def main():
        for minute in (1.5, 8):
            async with running(live("X"), live("Y")):
                await stage.world.until(T0 + round(minute * MINUTE))

    stage.world.run(main())
    assert stage.error_texts("feed")
    assert told(stage, "opened", "closed") == [("X", "opened"), ("X", "closed"), ("Y", "opened")]


def test_two_accounts_that_share_a_risk_profile_do_not_wait_for_each_other(monkeypatch):
    """Started again in another order, each had what the other waited for."""
    monkeypatch.setattr("backtest_kit._live.live.PATIENCE", None)  # a circle would never end
    stage = Stage(flat(), **WICK)
    bk.add_exchange(bk.exchanges.FrameExchange(flat()))
    bk.add_risk(risk_name="r", validations=[lambda asked: None])

    def get_signal(symbol, when):
        return LONG | {"minute_estimated_time": 2, "cost": 100.0}

    bk.add_strategy(
        strategy_name="s", interval="1m", get_signal=get_signal, risk_name="r", replace=True
    )
    for name in ("a", "b"):
        account(account_name=name)

    async def play(symbols, since, until):
        names = {"exchange_name": "frame", "clock": clock(since, until)}
        tasks = [live(symbol, account_name=symbol[0], **names) for symbol in symbols]
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)

    async def main():
        await play(["a1", "a2", "b1", "b2"], 50, 51)
        await play(["a2", "b1", "b2", "a1"], 52, 60)

    asyncio.run(main())
    opened = {t.symbol for t in stage.told if t.action == "opened"}
    assert opened == {"a1", "a2", "b1", "b2"}


def taken(how):
    """Replay X and Y, whose cash is short; return what was opened, and the errors."""
    opened, errors = [], []
    with bk.Engine():
        bk.use_persist_adapter(MemoryAdapter())
        bk.set_config(**WICK)
        bk.add_exchange(bk.exchanges.FrameExchange(flat()))
        bk.listen_error(errors.append)
        account()

        def get_signal(symbol, when):
            return LONG | {"minute_estimated_time": 3 if symbol == "X" else 4, "cost": 700.0}

        bk.add_strategy(strategy_name="s", interval="1m", get_signal=get_signal)

        def run(symbol):
            names = {"strategy_name": "s", "exchange_name": "frame", "account_name": "main"}
            return bk.Live.run(symbol, **names, clock=clock(50, 100))

        async def take(results, symbol):
            async for tick in results:
                if tick.action == "opened":
                    opened.append((symbol, tick.timestamp, tick.money.cost))
                if how == "consumer" and symbol == "X":
                    await asyncio.sleep(0.001)

        async def main():
            x, y = run("X"), run("Y")
            if how == "held":  # nobody takes what X has, until Y is over
                first = asyncio.ensure_future(anext(x))
                await take(y, "Y")
                await first
                await take(x, "X")
            else:
                await asyncio.gather(take(x, "X"), take(y, "Y"))

        asyncio.run(main())
    return sorted(opened), errors


def test_a_consumer_that_takes_a_little_longer_changes_no_trade_of_a_replay(monkeypatch):
    monkeypatch.setattr("backtest_kit._live.live_run._LOOK", 30)  # the machine may be slow
    assert taken("consumer") == taken("")


def test_a_replay_that_is_held_by_its_consumer_says_so_once(monkeypatch):
    monkeypatch.setattr("backtest_kit._live.live_run._LOOK", 0.01)
    opened, errors = taken("held")
    assert {symbol for symbol, *_ in opened} == {"X", "Y"}
    (event,) = errors
    assert event.symbol == "X"
    assert "the other runs of account 'main' go on" in str(event.error)


def test_nobody_waits_for_a_run_that_can_not_store_what_it_does():
    account()
    stage = Stage(flat(), **WICK)
    trades = {("Y", minute): {"cost": 100.0, "minute_estimated_time": 1} for minute in (3, 6, 9)}
    proposing(stage, trades | {("X", 0): {"cost": 100.0, "minute_estimated_time": 4}})
    write = stage.adapter.write

    async def fails(kind, key, content):
        if kind == "run" and key.endswith("X") and stage.world.now > T0 + 3 * MINUTE:
            raise OSError("quota")
        await write(kind, key, content)

    stage.adapter.write = fails
    late = []
    bk.listen_signal_live(
        lambda t: late.append(stage.world.now - t.timestamp) if t.symbol == "Y" else None
    )

    async def main():
        async with running(live("X"), live("Y")):
            await stage.world.until(T0 + 12 * MINUTE)

    stage.world.run(main())
    assert len(told(stage, "opened")) == 4
    assert stage.error_texts("state")
    assert sum(each > 5_000 for each in late) <= 1  # at the step at which it begins to fail
