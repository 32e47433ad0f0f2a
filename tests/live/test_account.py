"""Live runs on paper by the wall clock: what is shared, refused, undone and kept."""

import asyncio

import msgspec
import pytest

import backtest_kit as bk
from backtest_kit._live.stored_accounts import add_to_account, stored_account
from backtest_kit.testing import MemoryAdapter
from live.money import DAY, LONG, WICK, account, at, live, play, rows, stored
from live.world import T0, Plain, Stage, flat, running
from markets import MINUTE


def test_two_symbols_share_the_cash_and_what_they_store_adds_up():
    account()
    stage = Stage(rows({2: 105.0}), answer=at(T0, cost=700.0), percent_fee=0.1, **WICK)
    balance, held = play(stage, T0 + 6 * MINUTE, "X", "Y")
    opened = {t.symbol: t.money for t in stage.told if t.action == "opened"}
    assert opened["X"].cost == 700.0
    assert opened["Y"].reduced
    assert opened["Y"].cost == pytest.approx((1000 - 0.7 - 700) / 1.001)
    closed = [t.money for t in stage.told if t.action == "closed"]
    assert balance == pytest.approx(1000 + sum(money.profit for money in closed))
    assert not held
    parts = [state["account"] for state in stored(stage.adapter).values()]
    assert [part["order"] for part in parts] == [0, 1]
    assert sum(part["profit"] for part in parts) == pytest.approx(balance - 1000)
    assert max(parts, key=lambda part: part["booked"])["left"] == balance


def test_what_can_not_be_stored_has_not_been_paid():
    account()
    stage = Stage(flat(), answer=at(T0, T0 + MINUTE, cost=700.0), **WICK)
    write, failed = stage.adapter.write, []

    async def fails_once(kind, key, content):
        if kind == "run" and b'"opened"' in bytes(content) and not failed:
            failed.append(key)
            raise OSError("disk full")
        await write(kind, key, content)

    stage.adapter.write = fails_once
    balance, held = play(stage, T0 + 90_000, "X", "Y")
    assert failed
    assert sum(x.basis for x in held.values()) <= 1000
    assert balance == pytest.approx(1000 - 0.001 * sum(x.basis for x in held.values()))
    opened = [t for t in stage.told if t.action == "opened"]
    assert len(opened) == len(held) == 2
    assert {t.money.equity_before for t in opened} <= {1000.0, 999.3}


def test_a_position_of_a_run_that_has_ended_keeps_its_collateral():
    account()
    stage = Stage(rows({1: 100.0, 3: 102.0}), answer=at(T0, T0 + 4 * MINUTE, cost=800.0), **WICK)

    async def main():
        one = live("X", strategy_name="s")
        async with running(one):
            await stage.world.until(T0 + 90_000)
        two = live("Y")
        async with running(two):
            await stage.world.until(T0 + 5 * MINUTE)

    stage.world.run(main())
    first, second = [t for t in stage.told if t.action == "opened"]
    assert (first.symbol, second.symbol) == ("X", "Y")
    assert second.money.reduced
    assert second.money.cost == pytest.approx((1000 - 0.8 - 800) / 1.001)
    # X is worth the close that it saw last
    assert second.money.equity_before == pytest.approx(1000 - 0.8)


@pytest.mark.parametrize(
    "changes",
    [{"balance": 900.0}, {"currency": "EUR"}, {"leverage": 2.0}, {"maintenance_percent": 1.0}],
    ids=lambda changes: next(iter(changes)),
)
def test_an_account_that_is_not_the_stored_one_is_refused_and_nothing_is_lost(changes):
    account()
    stage = Stage(flat(), answer=at(T0), **WICK)
    play(stage, T0 + 90_000, "X")
    before = stored(stage.adapter)["X"]["account"]
    (name, value), *_ = changes.items()
    with bk.Engine():
        bk.use_persist_adapter(stage.adapter)
        bk.add_exchange(exchange_name="venue", get_candles=stage.venue.get_candles)
        bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)
        account(**changes)

        async def main():
            with pytest.raises(bk.StateError, match="account 'main' was begun with") as raised:
                await live()
            assert f"{name}={before and getattr_of(name)!r}, and not {value!r}" in str(raised.value)
            account()
            with pytest.raises(bk.StateError, match="belongs to account 'main'"):
                await live(account_name=None)

        asyncio.run(main())
    assert stored(stage.adapter)["X"]["account"] == before


def getattr_of(name):
    return {"balance": 1000.0, "currency": "USDT", "leverage": 1.0, "maintenance_percent": 0.5}[
        name
    ]


def test_a_position_that_was_opened_without_money_can_not_join():
    account()
    stage = Stage(flat(), answer=at(T0), **WICK)

    async def main():
        async with running(stage.task()):
            await stage.world.until(T0 + 90_000)
        with pytest.raises(bk.StateError, match="let it close before it joins account 'main'"):
            await live()
        await stage.world.until(T0 + 2 * MINUTE)
        async with running(stage.task()):
            await stage.world.until(T0 + 5 * MINUTE)
        async with running(live()):
            await stage.world.until(T0 + 6 * MINUTE)

    stage.world.run(main())
    assert stored(stage.adapter)["X"]["account"]["profit"] == 0


def test_another_currency_ends_the_run_at_its_start():
    account()
    stage = Stage(flat(), **WICK)
    bk.add_exchange(
        exchange_name="venue",
        get_candles=stage.venue.get_candles,
        get_market=lambda symbol: bk.Market(base="X", quote="EUR"),
        replace=True,
    )

    async def main():
        with pytest.raises(bk.ArgumentError, match="X on exchange 'venue' is quoted in EUR"):
            await live()

    stage.world.run(main())


def test_rules_that_can_not_be_had_at_the_start_are_asked_for_again():
    account()
    stage = Stage(flat(), answer=at(T0, T0 + 2 * MINUTE, cost=333.3), **WICK)

    def get_market(symbol):
        if stage.world.now < T0 + MINUTE:
            raise ConnectionError("503")
        return bk.Market(base="X", quote="USDT", quantity_step=1.0)

    bk.add_exchange(
        exchange_name="venue",
        get_candles=stage.venue.get_candles,
        get_market=get_market,
        replace=True,
    )
    _, held = play(stage, T0 + 3 * MINUTE, "X")
    (opened,) = [t for t in stage.told if t.action == "opened"]
    assert opened.timestamp == T0 + 2 * MINUTE
    assert opened.money.quantity == 3.0
    assert [x.quantity for x in held.values()] == [3.0]
    assert any("get_market for X raised" in text for text in stage.error_texts("market"))


def test_a_slow_strategy_holds_up_the_others_for_seconds_at_most():
    account()

    def answer(when, price):
        return LONG | {"minute_estimated_time": 30, "cost": 100.0} if when == T0 else None

    stage = Stage(flat(), answer=answer, **WICK)
    ask = bk._engine.engine.current_engine().strategies.get("s").get_signal

    async def slow(symbol, when):
        if symbol == "X":
            await asyncio.sleep(55)
        return await ask(symbol, when)

    bk.add_strategy(strategy_name="s", interval="1m", get_signal=slow, replace=True)
    told_at = {}
    bk.listen_signal_live(lambda t: told_at.setdefault((t.symbol, t.action), stage.world.now))
    play(stage, T0 + 59_000, "X", "Y")
    assert told_at["Y", "opened"] - T0 < 15_000
    assert told_at["X", "opened"] - T0 > 55_000


def test_a_command_to_open_what_can_not_be_paid_is_refused_with_the_figures():
    account(on_cash_shortage="refuse")
    stage = Stage(flat(), **WICK)

    async def main():
        async with running(live()):
            await stage.world.until(T0 + 30_000)
            sent = await bk.Live.send(
                "X",
                strategy_name="s",
                action="open",
                signal=LONG | {"minute_estimated_time": 9, "cost": 5000.0},
            )
            return await bk.Live.answer(sent)

    answer = stage.world.run(main())
    assert answer.outcome == "refused"
    assert "refused by the account (main: cash, a cost of 5000 USDT needs" in answer.reason
    assert stored(stage.adapter)["X"]["account"]["refusals"] == {"cash": 1}


def test_the_equity_is_kept_at_the_ends_of_days():
    account()
    midnight = (T0 // DAY + 1) * DAY
    late = midnight - 3 * MINUTE
    market = [
        (row[0] - T0 + late, *row[1:]) for row in rows({1: 100.0, 2: 101.0, 3: 104.0, 4: 103.0})
    ]
    answer = at(late, cost=500.0, minute_estimated_time=60)
    stage = Stage(market, start=late, answer=answer, **WICK)
    play(stage, midnight + 2 * MINUTE, "X")
    (key,) = [key for kind, key in stage.adapter.documents if kind == "account"]
    closes = msgspec.json.decode(stage.adapter.documents["account", key])["data"]["closes"]
    assert closes == {"2024-01-01": pytest.approx(1000 - 0.5 + 500 * 0.04)}


@pytest.mark.parametrize("over", [1, 2])
def test_a_day_that_has_ended_before_a_restart_is_kept_too(over):
    """The process was away at midnight, or at the two steps after it."""
    account()
    midnight = (T0 // DAY + 1) * DAY
    late = midnight - 5 * MINUTE
    market = [(row[0] - T0 + late, *row[1:]) for row in rows({2: 101.0})]
    stage = Stage(market, start=late, answer=at(late, cost=500.0, minute_estimated_time=60), **WICK)
    stops = midnight - (2 * MINUTE if over == 1 else 0)

    async def main():
        async with running(live()):
            await stage.world.until(stops + 30_000)
        await stage.world.until(midnight + over * MINUTE + 20_000)
        async with running(live()):
            await stage.world.until(midnight + 4 * MINUTE)

    stage.world.run(main())
    closes = msgspec.json.decode(stage.adapter.documents["account", "main"])["data"]["closes"]
    assert closes == {"2024-01-01": pytest.approx(1000 - 0.5 + 500 * 0.01)}


@pytest.mark.parametrize("since", [-1, 0, 1])
def test_a_day_that_was_over_before_an_account_began_has_no_equity(since):
    """Midnight belongs to the day that ends, but not where the account begins with it."""
    account()
    midnight = (T0 // DAY + 1) * DAY
    begins = midnight + since * MINUTE
    stage = Stage([(row[0] - T0 + begins, *row[1:]) for row in flat()], start=begins, **WICK)
    play(stage, midnight + 5 * MINUTE, "X", "Y")
    closes = msgspec.json.decode(stage.adapter.documents["account", "main"])["data"]["closes"]
    assert [*closes] == ([] if since >= 0 else ["2024-01-01"])


def test_values_that_are_replaced_while_runs_go_on_wait_for_their_end():
    account()
    stage = Stage(flat(), **WICK)

    async def main():
        async with running(live()):
            await stage.world.until(T0 + 30_000)
            for name, value, was in (("default_percent", 50.0, None), ("balance", 5.0, 1000.0)):
                account(**{name: value})
                with pytest.raises(bk.StateError) as raised:
                    await live("Y")
                assert f"in use with {name}={was!r}, and not {value!r}" in str(raised.value)
            account()
            async with running(live("Y")):
                await stage.world.until(T0 + 2 * MINUTE)

    stage.world.run(main())
    assert {tick.symbol for tick in stage.told} == {"X", "Y"}


@pytest.mark.parametrize("field", ["account_name", "currency"])
def test_a_name_that_no_file_can_hold_is_refused(field):
    with pytest.raises(bk.RegistrationError, match=r"'\\ud800' can't be written"):
        account(**{field: "\ud800"})


def test_an_account_that_is_begun_while_it_is_looked_for_is_found():
    account()
    stage = Stage(flat(), **WICK)
    play(stage, T0 + 30_000, "X")

    class Late(Plain):
        asked = 0

        def read(self, kind, key):
            self.asked += kind == "account"
            return None if kind == "account" and self.asked == 1 else super().read(kind, key)

    adapter = Late()
    adapter.documents = stage.adapter.documents
    assert stored_account(adapter, "main").balance == 1000.0
    with pytest.raises(bk.UnknownNameError, match=r"no account 'other' .*there are: main"):
        stored_account(adapter, "other")


def test_what_is_free_is_not_what_rounding_leaves():
    account()
    stage = Stage(flat(), answer=at(T0, cost=5000.0), percent_fee=0.3, **WICK)
    play(stage, T0 + 90_000, "X")
    adapter = Plain()
    adapter.documents = stage.adapter.documents
    found = stored_account(adapter, "main")
    assert 0 < abs(found.balance - found.collateral) < 1e-9
    assert found.free == 0.0


def test_what_is_added_by_hand_is_there_at_the_next_start():
    account()
    stage = Stage(flat(), answer=at(T0, T0 + 5 * MINUTE, cost=5000.0), **WICK)
    play(stage, T0 + 4 * MINUTE, "X")

    class Blocking:
        def __init__(self, adapter):
            self.adapter = adapter

        def __getattr__(self, name):
            method = getattr(self.adapter, name)
            return lambda *arguments: asyncio.run(method(*arguments))

    with pytest.raises(bk.ArgumentError, match="are free"):
        add_to_account(Blocking(stage.adapter), "main", -2000.0, "", 1)
    add_to_account(Blocking(stage.adapter), "main", 500.0, "saved", 1)
    play(stage, T0 + 6 * MINUTE, "X")
    first, second = [t.money.cost for t in stage.told if t.action == "opened"]
    assert first == pytest.approx(1000 / 1.001)
    assert second == pytest.approx((1500 - 2 * 0.001 * first) / 1.001)
    data = asyncio.run(bk.Live.get_account("main"))
    assert data.added == 500.0
    assert "500.00 USDT were added by hand" in bk._reports.portfolio.portfolio_report(data)


def test_an_account_whose_document_is_gone_is_refused():
    account()
    stage = Stage(flat(), answer=at(T0), **WICK)
    play(stage, T0 + 90_000, "X")
    del stage.adapter.documents["account", "main"]
    again = MemoryAdapter(stage.adapter.documents)
    with bk.Engine():
        bk.use_persist_adapter(again)
        bk.add_exchange(exchange_name="venue", get_candles=stage.venue.get_candles)
        bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)
        account()

        async def main():
            with pytest.raises(bk.StateError, match="what it began with is not known"):
                await live()

        asyncio.run(main())
