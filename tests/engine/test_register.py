"""Registering: what is unknown is told, and what takes a name's place leaves runs alone."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import backtest_kit as bk
from backtest_kit.testing import MemoryAdapter
from markets import START, market

BEGIN = datetime.fromtimestamp(START / 1000, UTC) + timedelta(minutes=30)
END = BEGIN + timedelta(hours=4)
RUN = {"strategy_name": "s", "exchange_name": "frame", "frame_name": "f"}


def proposal(symbol, percent=1.0, minutes=20):
    price = bk.average_price(symbol)
    return bk.Signal(
        position="long",
        price_take_profit=price * (1 + percent / 100),
        price_stop_loss=price * (1 - percent / 100),
        minute_estimated_time=minutes,
    )


def trader(minutes):
    return lambda symbol, when: proposal(symbol, minutes=minutes)


def register(seed=1, minutes=20, **how):
    bk.add_exchange(bk.exchanges.FrameExchange(market(seed, 400, gaps=False)), **how)
    bk.add_frame(frame_name="f", interval="1m", start_date=BEGIN, end_date=END, **how)
    bk.add_strategy(strategy_name="s", interval="5m", get_signal=trader(minutes), **how)


def trades(results):
    return [(r.signal.scheduled_at, r.signal.price_open, r.close_timestamp) for r in results]


def alone(**options):
    with bk.Engine():
        register(**options)
        return trades(bk.Backtest.run_sync("X", **RUN))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: bk.add_strategy(strategy_name="s", risk="r"), "no field 'risk'.*risk_name"),
        (lambda: bk.add_frame(frame_name="f", start="now"), "no field 'start'.*start_date"),
        (lambda: bk.add_risk(risk_name="r", validation=[]), "no field 'validation'.*validations"),
        (lambda: bk.add_sizing(sizing_name="z", methods="?"), "no field 'methods'.*method"),
        (lambda: bk.add_walker(walker_name="w", strategy=[]), "no field 'strategy'.*strategies"),
        (lambda: bk.strategy("s", interval="1m", risk="r")(print), "no field 'risk'.*risk_name"),
        (lambda: bk.exchange("e", page_limits=1)(print), "no field 'page_limits'.*page_limit"),
        (
            lambda: bk.add_exchange(bk.exchanges.FrameExchange(market(1, 9)), page_limit=5),
            "has a page_limit of its own",
        ),
    ],
)
def test_an_unknown_keyword_is_told_with_the_one_there_is(call, text):
    with pytest.raises(bk.RegistrationError, match=text):
        call()


def test_an_unknown_setting_is_told_with_the_one_there_is():
    with pytest.raises(bk.ConfigError, match=r"percent_fees.*percent_fee"):
        bk.set_config(percent_fees=0.1)


def test_what_replaces_stands_in_its_place_and_is_what_runs():
    register()
    bk.add_strategy(strategy_name="later", interval="1m", get_signal=print)
    with pytest.raises(bk.RegistrationError, match=r"'s' already exists.*replace=True"):
        bk.add_strategy(strategy_name="s", interval="5m", get_signal=trader(7))
    first = trades(bk.Backtest.run_sync("X", **RUN))
    register(seed=2, minutes=7, replace=True)
    assert [s.name for s in bk.list_strategies()] == ["s", "later"]
    assert trades(bk.Backtest.run_sync("X", **RUN)) == alone(seed=2, minutes=7) != first
    assert first == alone()


def test_a_decorator_replaces():
    @bk.strategy("s", interval="1m")
    def one(symbol, when):
        return None

    @bk.strategy("s", interval="5m", replace=True)
    def other(symbol, when):
        return None

    @bk.exchange("e", replace=True)
    @bk.exchange("e")
    def candles(symbol, interval, since, limit):
        return []

    assert [(s.interval, s.get_signal) for s in bk.list_strategies()] == [("5m", other)]
    with pytest.raises(bk.RegistrationError, match="'e' already exists"):
        bk.exchange("e")(candles)


async def test_a_backtest_under_way_keeps_what_it_began_with():
    bk.set_config(candles_per_chunk=1000)
    register()
    results = []
    async for result in bk.Backtest.run("X", **RUN):
        results.append(result)
        if len(results) == 2:
            register(seed=2, minutes=7, replace=True)
    assert trades(results) == alone()
    assert len(results) > 2


@pytest.mark.parametrize("rows", [400, 3000])
async def test_candles_of_two_exchanges_of_one_name_never_mix(rows):
    """Also where the run that began first loads more after the name was taken over."""
    end = BEGIN + timedelta(minutes=rows - 100)

    def candles(seed):
        return bk.exchanges.FrameExchange(market(seed, rows, gaps=False))

    async def run():
        return [r async for r in bk.Backtest.run("X", **RUN)]

    expected = []
    for seed in (1, 2):
        with bk.Engine() as engine:
            engine.set_config(candles_per_chunk=1000)
            register()
            bk.add_frame(
                frame_name="f", interval="1m", start_date=BEGIN, end_date=end, replace=True
            )
            bk.add_exchange(candles(seed), replace=True)
            expected.append(trades(await run()))
    bk.set_config(candles_per_chunk=1000)
    register()
    bk.add_exchange(candles(1), replace=True)
    bk.add_frame(frame_name="f", interval="1m", start_date=BEGIN, end_date=end, replace=True)
    old, new = [], []
    async for result in bk.Backtest.run("X", **RUN):
        old.append(result)
        if len(old) == 1:
            bk.add_exchange(candles(2), replace=True)
            new = await run()
    assert trades(new) == expected[1] != expected[0]
    assert trades(old) == expected[0]


async def test_a_walk_under_way_keeps_strategies_and_risk_profiles():
    async def walk(meanwhile):
        register()
        bk.add_risk(risk_name="r", validations=[])
        bk.add_strategy(strategy_name="t", interval="5m", get_signal=trader(9), risk_name="r")
        bk.add_walker(walker_name="w", exchange_name="frame", frame_name="f", strategies=["s", "t"])
        found = []
        async for contract in bk.Walker.run("X", walker_name="w"):
            found.append((contract.strategy_name, contract.statistics))
            meanwhile()
        return found

    def replace():
        register(seed=2, minutes=7, replace=True)
        bk.add_risk(risk_name="r", validations=[lambda check: "no"], replace=True)
        bk.add_strategy(strategy_name="t", interval="5m", get_signal=print, replace=True)

    with bk.Engine():
        calm = await walk(lambda: None)
    with bk.Engine():
        assert await walk(replace) == calm
    assert all(statistics.total_signals for _, statistics in calm)


def test_a_run_tells_the_callbacks_of_the_risk_profile_it_began_with():
    told = {"old": 0, "new": 0}

    def count(which):
        def on_allowed(event):
            told[which] += 1

        return {"on_allowed": on_allowed}

    register()
    bk.add_risk(risk_name="r", validations=[], callbacks=count("old"))
    bk.add_strategy(
        strategy_name="s", interval="5m", get_signal=trader(5), risk_name="r", replace=True
    )

    async def run():
        async for _ in bk.Backtest.run("X", **RUN):
            bk.add_risk(risk_name="r", validations=[], callbacks=count("new"), replace=True)

    asyncio.run(run())
    assert told["old"] > 1
    assert told["new"] == 0


async def test_a_live_run_under_way_keeps_what_it_began_with():
    async def live(meanwhile):
        bk.use_persist_adapter(MemoryAdapter())
        register()
        found, clock = [], bk.VirtualClock(BEGIN, END)
        names = {"strategy_name": "s", "exchange_name": "frame", "clock": clock}
        async for result in bk.Live.run("X", **names):
            found.append(result)
            meanwhile()
        return found

    with bk.Engine():
        calm = await live(lambda: None)
    with bk.Engine():
        assert await live(lambda: register(seed=2, minutes=7, replace=True)) == calm
    assert len(calm) > 2
