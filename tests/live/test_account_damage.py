"""Accounts of live runs whose documents are damaged, gone or older copies."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

import backtest_kit as bk
from backtest_kit._live.stored_accounts import (
    accept_account,
    account_names,
    add_to_account,
    stored_account,
)
from backtest_kit._reports.portfolio import portfolio_report
from backtest_kit.testing import MemoryAdapter
from live.money import LONG, WICK, account, live, rows, stored
from live.world import T0, Plain, Stage, clock, flat, running
from markets import MINUTE

RUN_Y, ACCOUNT, ASIDE = ("run", "venue/s/Y"), ("account", "main"), "run.corrupt"


def process(documents, plan, since, until, *symbols, market=None):
    """Be one process, which runs symbols from minute `since` to `until` after `T0`."""
    with bk.Engine():
        stage = Stage(flat() if market is None else market, start=T0 + since * MINUTE, **WICK)
        stage.adapter = MemoryAdapter(documents)
        bk.use_persist_adapter(stage.adapter)
        account()

        async def get_signal(symbol, when):
            minute = (round(when.timestamp() * 1000) - T0) // MINUTE
            found = plan.get((symbol, minute))
            return None if found is None else LONG | {"minute_estimated_time": 900} | found

        bk.add_strategy(strategy_name="s", interval="1m", get_signal=get_signal, replace=True)
        refused, failed = [], {}
        bk.listen_risk(refused.append)

        async def main():
            tasks = {symbol: live(symbol) for symbol in symbols}
            async with running(*tasks.values()):
                await stage.world.until(T0 + until * MINUTE)
                for symbol, task in tasks.items():
                    if task.status != "running":
                        with pytest.raises(bk.StateError) as raised:
                            await task
                        failed[symbol] = str(raised.value)
                shared = bk._engine.engine.current_engine().live_accounts["main"].shared
                return shared.books.balance, {k: v.basis for k, v in shared.books.held.items()}

        balance, held = stage.world.run(main())
    told = [(t.symbol, t.action) for t in stage.told if t.action in ("opened", "added", "closed")]
    return SimpleNamespace(
        documents=stage.adapter.documents,
        told=told,
        refused=refused,
        failed=failed,
        balance=balance,
        held=held,
        errors=stage.error_texts("account"),
    )


def cut(documents, name=RUN_Y):
    """Damage a document; return what it was."""
    good = documents[name]
    documents[name] = good[:-20] + b"X" * 20
    return good


@pytest.fixture
def begun():
    """What a process has left: Y holds for 900 of 1,000, and X, which has traded, for 50."""
    plan = {("Y", 0): {"cost": 900.0}, ("X", 1): {"cost": 50.0, "entries": [(3.0, 0.5)]}}
    return process({}, plan, 0, 3, "X", "Y").documents


def damage(documents, how):
    if how == "damaged":
        return cut(documents)
    return documents.pop(RUN_Y)


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_run_whose_document_is_damaged_is_not_read_as_one_that_holds_nothing(begun, how):
    """Nothing is entered, also not once more; exits go on; a good copy brings all of it back."""
    good = damage(begun, how)
    plan = {("Z", 5): {"cost": 900.0}, ("Z", 6): {"cost": 1.0}}
    now = process(begun, plan, 4, 9, "X", "Z", market=rows({6: 96.0, 8: 89.0}))
    assert now.told == [("X", "closed")]
    assert {event.reason for event in now.refused} == {"cash"}
    assert len(now.refused) == 3  # two signals, and X's further entry
    for text in (*now.errors, *(event.detail for event in now.refused)):
        assert "s on Y (venue)" in text
        assert "backtest-kit account main --accept" in text
    assert len(now.errors) == 1

    now.documents[RUN_Y] = good
    later = process(now.documents, {("Z", 12): {"cost": 900.0}}, 10, 14, "X", "Y", "Z")
    assert later.failed == {}
    assert later.told == [("Z", "opened")]
    money = {s: state["account"]["money"] for s, state in stored(later_adapter(later)).items()}
    assert money["Y"]["cost"] == 900.0
    assert money["Z"]["reduced"]
    parts = [state["account"] for state in stored(later_adapter(later)).values()]
    assert sorted(part["order"] for part in parts) == [0, 1, 2]


def later_adapter(process):
    return SimpleNamespace(documents=process.documents)


def test_a_good_copy_that_is_put_back_while_runs_go_on_is_not_read_by_halves(begun):
    good = cut(begun)
    with bk.Engine():
        stage = Stage(flat(), start=T0 + 4 * MINUTE, **WICK)
        stage.adapter = MemoryAdapter(begun)
        bk.use_persist_adapter(stage.adapter)
        account()

        async def main():
            async with running(live("X")):
                await stage.world.until(T0 + 5 * MINUTE)
                stage.adapter.documents[RUN_Y] = good
                # its process finds it only when it takes the state anew
                with pytest.raises(bk.StateError, match="s on Y"):
                    await live("Y")

        stage.world.run(main())
    assert process(stage.adapter.documents, {}, 7, 9, "X", "Y").failed == {}


def test_an_account_is_not_begun_anew_where_all_its_runs_are_damaged(begun):
    cut(begun)
    cut(begun, ("run", "venue/s/X"))
    before = msgspec.json.decode(begun[ACCOUNT])["data"]
    now = process(begun, {("Z", 5): {"cost": 10.0}}, 4, 7, "Z")
    after = msgspec.json.decode(now.documents[ACCOUNT])["data"]
    assert now.told == []
    assert after["since"] == before["since"]
    assert {**after["places"]} == before["places"] | {"venue/s/Z": 2}


def test_a_run_that_begins_anew_takes_its_place_and_says_what_is_lost(begun):
    cut(begun)
    now = process(begun, {}, 4, 6, "X")
    for name in [name for name in now.documents if name[0] == ASIDE]:
        del now.documents[name]  # as the message offers
    later = process(now.documents, {("Y", 8): {"cost": 10.0}}, 7, 10, "X", "Y")
    assert later.failed == {}
    assert later.told == [("Y", "opened")]
    assert any("s on Y begins with nothing" in text for text in later.errors)
    assert stored(later_adapter(later))["Y"]["account"]["order"] in (0, 1)


def test_what_is_stored_can_be_looked_at_and_accepted_as_it_is(begun):
    adapter = Plain()
    adapter.documents = begun
    whole = stored_account(adapter, "main")
    assert whole.problems == ()
    cut(begun)
    found = stored_account(adapter, "main")
    assert "s on Y (venue): run venue/s/Y can't be read" in found.problems[0]
    with pytest.raises(bk.StateError, match="s on Y"):
        add_to_account(adapter, "main", -1.0, "", 1)
    add_to_account(adapter, "main", 1.0, "", 1)
    accept_account(adapter, "main")
    found = stored_account(adapter, "main")
    assert found.problems == ()
    assert found.balance == pytest.approx(1001 - 0.05)
    now = process(begun, {("X", 5): None, ("Z", 5): {"cost": 100.0}}, 4, 7, "X", "Z")
    assert now.told == [("Z", "opened")]


def test_all_that_is_free_can_be_taken_out_as_it_is_shown():
    adapter = Plain()
    plan = {("X", 0): {"cost": 700.1}, ("Y", 0): {"cost": 100.7}}
    adapter.documents = process({}, plan, 0, 3, "X", "Y").documents
    free = stored_account(adapter, "main").free
    shown = round(free, 6)
    assert free < shown  # by rounding
    add_to_account(adapter, "main", -shown, "", 1)
    assert stored_account(adapter, "main").free == 0


@pytest.mark.parametrize("gone", [True, False])
def test_a_damaged_document_of_an_account_stays_refused(begun, gone):
    """Also in the next process, when it has been moved aside, and nothing else is left of it."""
    cut(begun, ACCOUNT)
    now = process_that_fails(begun)
    assert "account 'main' is damaged" in now
    if gone:
        for name in [name for name in begun if name[0] in ("run", "journal", "heartbeat")]:
            del begun[name]
    again = process_that_fails(begun)
    assert ("put a good copy back" in again) or ("is gone: what it began with" in again)


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_who_looks_at_an_account_without_its_document_is_told_why_it_is_not_there(begun, how):
    adapter = Plain()
    if how == "damaged":
        cut(begun, ACCOUNT)
    else:
        del begun[ACCOUNT]
    told = process_that_fails(begun)
    adapter.documents = begun
    assert account_names(adapter) == ["main"]
    for look in (stored_account, accept_account):
        with pytest.raises(bk.StateError) as raised:
            look(adapter, "main")
        assert str(raised.value) in told.replace(" (Input data was truncated)", "")
    with pytest.raises(bk.UnknownNameError, match="there are: main"):
        stored_account(adapter, "other")


def process_that_fails(documents):
    with bk.Engine():
        stage = Stage(flat(), start=T0 + 4 * MINUTE, **WICK)
        stage.adapter = MemoryAdapter(documents)
        bk.use_persist_adapter(stage.adapter)
        account()

        async def main():
            with pytest.raises(bk.StateError) as raised:
                await live("X")
            return str(raised.value)

        text = stage.world.run(main())
    documents.update(stage.adapter.documents)
    return text


def test_an_older_copy_of_an_account_is_noticed_until_it_is_accepted(begun):
    adapter = Plain()
    adapter.documents, old = begun, begun[ACCOUNT]
    add_to_account(adapter, "main", 500.0, "", 1)
    now = process(begun, {("X", 5): None}, 4, 6, "X")
    assert now.balance == pytest.approx(1500 - 0.95)

    adapter.documents = now.documents
    adapter.documents[ACCOUNT] = old
    plan = {("Z", 8): {"cost": 10.0}}
    later = process(now.documents, plan, 7, 10, "X", "Z", market=rows({9: 89.0}))
    assert later.told == [("X", "closed")]
    assert "is an older copy of account 'main'" in later.refused[0].detail
    adapter.documents = later.documents
    found = stored_account(adapter, "main")
    assert "is an older copy" in found.problems[0]
    for amount in (500.0, -1.0):
        with pytest.raises(bk.StateError, match="is an older copy"):
            add_to_account(adapter, "main", amount, "", 1)
    accept_account(adapter, "main")
    add_to_account(adapter, "main", 500.0, "again", 1)
    assert stored_account(adapter, "main").problems == ()
    last = process(adapter.documents, {("Z", 12): {"cost": 10.0}}, 11, 14, "Z")
    assert last.told == [("Z", "opened")]


def trading(symbols, until, **more):
    """Replay a strategy that trades all the time; return what its account came to."""
    bk.set_config(**WICK)
    bk.add_exchange(bk.exchanges.FrameExchange(flat(3000), exchange_name="venue", **more))
    bk.add_strategy(
        strategy_name="s",
        interval="1m",
        get_signal=lambda symbol, when: LONG | {"minute_estimated_time": 2, "cost": 100.0},
    )
    account()

    async def main():
        await asyncio.gather(*(live(symbol, clock=clock(50, until)) for symbol in symbols))

    asyncio.run(main())


def test_a_report_says_what_of_the_journal_is_lost():
    adapter = MemoryAdapter()
    bk.use_persist_adapter(adapter)
    trading("XY", 400)
    whole = asyncio.run(bk.Live.get_account("main"))
    assert whole.problems == ()
    page = min(name for name in adapter.documents if name[0] == "journal")
    del adapter.documents[page]
    found = asyncio.run(bk.Live.get_account("main"))
    lost, differs = found.problems
    assert "venue/s/X" in lost
    ends, wanted = (f"{data.curve.balance[-1]:,.2f}" for data in (found, whole))
    assert f"ends with a balance of {ends}, and {wanted} is stored" in differs
    text = portfolio_report(found)
    assert "some of what was traded is missing from it" in text
    assert msgspec.json.decode(found.to_json())["problems"] == [*found.problems]


@pytest.mark.parametrize("alone", [False, True])
def test_a_report_does_without_candles_that_no_trade_needs(alone):
    """X is refused by the exchange, and was never traded."""
    stage = Stage(flat(), **WICK)
    get_candles = stage.venue.get_candles

    async def refuses(symbol, interval, since, limit):
        if symbol == "X":
            raise bk.ExchangeRefusedError("no such symbol")
        return await get_candles(symbol, interval, since, limit)

    def get_market(symbol):
        if symbol == "X" and stage.world.now > T0 + 2 * MINUTE:
            raise ValueError("no such symbol")

    bk.add_exchange(exchange_name="venue", get_candles=refuses, get_market=get_market, replace=True)
    bk.add_strategy(
        strategy_name="s",
        interval="1m",
        get_signal=lambda symbol, when: LONG | {"minute_estimated_time": 2, "cost": 100.0},
        replace=True,
    )
    account()

    async def main():
        tasks = [live("X"), *([] if alone else [live("Y")])]
        async with running(*tasks):
            await stage.world.until(T0 + 5 * MINUTE)
            return await bk.Live.get_account("main")

    found = stage.world.run(main())
    assert any("Without X, which was not traded: " in text for text in found.problems)
    assert any("get_market for X raised" in text for text in found.problems)
    assert found.statistics.total_trades == (0 if alone else 2)
    assert (found.statistics.benchmark_growth_percent or 0.0) == pytest.approx(0.0)


def shared_account():
    return bk._engine.engine.current_engine().live_accounts["main"]


@pytest.mark.parametrize("how", ["fails", "cancelled"])
def test_what_ends_one_run_while_it_reads_its_account_leaves_nothing_to_the_next(begun, how):
    """X and Y start together; what X has read by then counts once."""
    with bk.Engine():
        stage = Stage(flat(), start=T0 + 4 * MINUTE, **WICK)
        stage.adapter = MemoryAdapter(begun)
        bk.use_persist_adapter(stage.adapter)
        account()
        read, reads, tasks = stage.adapter.read, [], {}

        async def disturbed(kind, key):
            if kind == "journal" and key == "venue/s/Y/000000":
                reads.append(key)
                if how == "fails" and len(reads) > 2:  # but for its own run, which reads it first
                    raise OSError("input/output error")
                if len(reads) == 3:
                    tasks["X"].cancel()
            return await read(kind, key)

        stage.adapter.read = disturbed

        async def main():
            tasks.update({symbol: live(symbol) for symbol in "XY"})
            async with running(*tasks.values()):
                await stage.world.until(T0 + 6 * MINUTE)
                left = [symbol for symbol in "XY" if tasks[symbol].status == "running"]
                found = shared_account()
                places = {key.symbol: place for key, place in found.places.items()}
                return left, places, found.shared.trades, sorted(found.shared.members)

        left, places, trades, members = stage.world.run(main())
    assert len(reads) > 2
    assert left == (["X", "Y"] if how == "fails" else ["Y"])
    assert (places, trades, members) == ({"X": 0, "Y": 1}, 2, [0, 1])
    assert bool(stage.error_texts("journal")) == (how == "fails")


def test_a_place_that_could_not_be_stored_is_stored_when_its_run_starts_again(begun):
    with bk.Engine():
        stage = Stage(flat(), start=T0 + 4 * MINUTE, **WICK)
        stage.adapter = MemoryAdapter(begun)
        bk.use_persist_adapter(stage.adapter)
        account()
        write, full = stage.adapter.write, [True]

        async def fails(kind, key, content):
            if kind == "account" and full:
                raise OSError("disk full")
            await write(kind, key, content)

        stage.adapter.write = fails

        async def main():
            async with running(live("X")):
                await stage.world.until(T0 + 5 * MINUTE)
                with pytest.raises(bk.StateError, match="disk full"):
                    await live("Z")
                full.clear()
                async with running(live("Z")):
                    await stage.world.until(T0 + 6 * MINUTE)
                    return msgspec.json.decode(stage.adapter.documents[ACCOUNT])["data"]

        assert stage.world.run(main())["places"] == {"venue/s/X": 0, "venue/s/Y": 1, "venue/s/Z": 2}


def test_a_run_that_was_refused_at_its_start_has_no_share_of_the_default_size():
    stage = Stage(flat(), **WICK)
    stage.adapter = MemoryAdapter()
    bk.use_persist_adapter(stage.adapter)
    account()
    bk.add_exchange(
        exchange_name="venue",
        get_candles=stage.venue.get_candles,
        get_market=lambda symbol: bk.Market(base=symbol, quote="EUR" if symbol == "Z" else "USDT"),
        replace=True,
    )

    async def main():
        async with running(live("X")):
            await stage.world.until(T0 + MINUTE)
            for _ in range(2):
                with pytest.raises(bk.ArgumentError, match="EUR"):
                    await live("Z")
            found = shared_account()
            return len(found.shared.members), [key.symbol for key in found.places]

    assert stage.world.run(main()) == (1, ["X"])


def test_a_run_that_begins_anew_keeps_its_place_where_its_first_start_fails(begun):
    begun.pop(RUN_Y)
    process(begun, {}, 4, 5, "X")  # which finds that it is gone
    with bk.Engine():
        stage = Stage(flat(), start=T0 + 6 * MINUTE, **WICK)
        stage.adapter = MemoryAdapter({k: v for k, v in begun.items() if k[0] != ASIDE})
        bk.use_persist_adapter(stage.adapter)
        account()
        quotes = iter(["USDT", "EUR", "USDT"])
        bk.add_exchange(
            exchange_name="venue",
            get_candles=stage.venue.get_candles,
            get_market=lambda symbol: bk.Market(base=symbol, quote=next(quotes)),
            replace=True,
        )

        async def main():
            async with running(live("X")):
                await stage.world.until(T0 + 7 * MINUTE)
                with pytest.raises(bk.ArgumentError, match="EUR"):
                    await live("Y")
                async with running(live("Y")):
                    await stage.world.until(T0 + 8 * MINUTE)
                    found = shared_account()
                    return {key.symbol: place for key, place in found.places.items()}

        assert stage.world.run(main()) == {"X": 0, "Y": 1}
