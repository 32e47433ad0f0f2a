"""`bk.Portfolio`, and backtests on an account: what users call, and what they are told."""

import asyncio
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import backtest_kit as bk
from markets import MINUTE, START

BEGIN = datetime.fromtimestamp(START / 1000, UTC)
SYMBOLS = ["A", "B"]


def flat(prices):
    """Candles without wicks at these closes, one a minute."""
    close = np.array(prices, dtype=np.float64)
    open_ = np.concatenate((close[:1], close[:-1]))
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    time = START + MINUTE * np.arange(len(close))
    return np.column_stack((time, open_, high, low, close, np.ones(len(close))))


def minute_of(when):
    return (int(when.timestamp() * 1000) - START) // MINUTE


def register(
    prices, proposals, minutes=None, market=None, account=(), strategy=(), candles=flat, **config
):
    """An exchange of these closes by symbol, and a strategy "s" that proposes at these minutes."""
    rows = {symbol: candles(closes) for symbol, closes in prices.items()}
    minutes = minutes or max(map(len, rows.values())) - 1

    def get_candles(symbol, interval, since, limit):
        found = rows[symbol]
        return found[(found[:, 0] >= since) & (found[:, 0] < since + limit * MINUTE)]

    bk.set_config(
        avg_price_candles_count=1,
        percent_slippage=0.0,
        min_take_profit_distance_percent=0.0,
        **{"exit_trigger": "wick", "percent_fee": 0.1} | config,
    )
    bk.add_exchange(
        exchange_name="e",
        get_candles=get_candles,
        get_market=market,
        intervals=["1m"],
        data_range=lambda symbol: (START, START + MINUTE * len(rows[symbol])),
    )
    end = BEGIN + timedelta(minutes=minutes)
    bk.add_frame(frame_name="f", interval="1m", start_date=BEGIN, end_date=end)
    bk.add_account(
        **{"account_name": "main", "currency": "USDT", "balance": 1_000.0} | dict(account)
    )

    bk.add_strategy(
        strategy_name="s",
        interval="1m",
        get_signal=lambda symbol, when: proposals.get((symbol, minute_of(when))),
        **dict(strategy),
    )


def long(goal, stop, minutes=600, **more):
    return bk.Signal(
        position="long",
        price_take_profit=goal,
        price_stop_loss=stop,
        minute_estimated_time=minutes,
        **more,
    )


PLACE = {"exchange_name": "e", "frame_name": "f", "account_name": "main"}
RUNS = {"s": SYMBOLS}
#: A rises from 100 to 110 at minute 5 and stays; B is at 50 throughout.
TWO = {"A": [100] * 4 + [110] * 6, "B": [50.0] * 10}


def test_equity_is_taken_after_what_closes_and_before_what_opens():
    register(
        TWO,
        {
            ("A", 2): long(110, 90, cost=500.0),
            ("B", 5): long(60, 45, quantity=None),
        },
        account={"default_percent": 50.0},
    )
    result = bk.Portfolio.run_sync({"s": ["B", "A"]}, **PLACE)
    a, b = result.trades
    # A closes at minute 5: 5 pieces that cost 100 each bring 110, and both fees are 0.1 % of 500
    assert (a.symbol, a.close_reason, a.close_timestamp) == ("A", "take_profit", START + 5 * MINUTE)
    assert a.money.profit == pytest.approx(50 - 1.0)
    assert a.money.equity_before == 1_000.0
    assert a.money.equity_after == pytest.approx(1_049.0)
    # B, named first, opens at that minute with half of the equity after it
    assert b.signal.pending_at == START + 5 * MINUTE
    assert b.money.equity_before == pytest.approx(1_049.0)
    assert b.money.cost == pytest.approx(524.5)
    assert b.money.quantity == pytest.approx(10.49)
    assert result.statistics.final_equity == pytest.approx(1_049.0 - 2 * 0.5245)
    assert result.curve.equity[-1] == pytest.approx(result.statistics.final_equity)


def test_cash_is_what_is_left_after_what_was_named_before():
    proposals = {(symbol, 2): long(120, 90) for symbol in SYMBOLS}
    events = []
    bk.listen_risk(events.append)
    register(TWO | {"B": [100.0] * 10}, proposals, account={"default_percent": 70.0})
    result = bk.Portfolio.run_sync(RUNS, **PLACE)
    by = {tick.symbol: tick.money for tick in result.trades}
    assert (by["A"].cost, by["A"].reduced) == (pytest.approx(700.0), False)
    assert (by["B"].cost, by["B"].reduced) == (pytest.approx((300 - 0.7) / 1.001), True)
    assert result.statistics.reductions == 1
    bk.add_account(
        account_name="main", currency="USDT", balance=1_000, default_percent=70,
        on_cash_shortage="refuse", replace=True,
    )  # fmt: skip
    result = bk.Portfolio.run_sync(RUNS, **PLACE)
    assert [tick.symbol for tick in result.trades] == ["A"]
    assert dict(result.statistics.refusals) == {"cash": 1}
    (event,) = events
    assert (event.risk_name, event.reason) == ("main", "cash")
    assert event.detail == "a cost of 700 USDT needs 700.7, 299.3 are free"
    assert bk.Portfolio.get_data(account_name="main") == result


def test_a_run_of_one_symbol_grows_by_the_product_of_its_percents():
    rng = np.random.default_rng(4)
    prices = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.004, 300))), 2)
    proposals = {
        ("A", m): long(prices[m - 1] * 1.02, prices[m - 1] * 0.98, 20) for m in range(3, 290, 7)
    }
    register({"A": prices}, proposals)
    names = {"strategy_name": "s", "exchange_name": "e", "frame_name": "f"}
    alone = bk.Backtest.run_sync("A", **names)
    trades = bk.Backtest.run_sync("A", account_name="main", **names)
    assert len(trades) > 10
    assert [t.pnl for t in trades] == [t.pnl for t in alone]
    assert all(t.money is None for t in alone)
    assert '"money"' not in alone[0].to_json()
    assert bk.tick_from_json(trades[0].to_json()) == trades[0]
    growth = np.prod([1 + t.pnl.pnl_percentage / 100 / 1.001 for t in trades])
    result = bk.Portfolio.get_data(account_name="main")
    assert result.statistics.final_equity == pytest.approx(1_000 * growth)
    assert result.statistics.total_trades == len(trades)
    for tick in trades:
        assert tick.money.profit == pytest.approx(tick.pnl.pnl_percentage / 100 * tick.money.cost)
    assert bk.Backtest.get_data("A", strategy_name="s").statistics.total_signals == len(trades)


def test_a_position_without_a_stop_is_liquidated():
    fall = {"A": [100] * 4 + [95, 92, 85, 80] + [80] * 4}
    register(
        fall,
        {("A", 2): long(120, None, cost=2_000.0)},
        account={"leverage": 10.0},
        require_stop_loss=False,
        exit_trigger="vwap",
    )
    result = bk.Portfolio.run_sync({"s": ["A"]}, **PLACE)
    (tick,) = result.trades
    # 100 * (1 - 1/10) / (1 - 0.005) = 90.45: closed at 85, and no more is lost than 200
    assert (tick.close_reason, tick.pnl.price_close) == ("liquidation", 85.0)
    assert tick.money.liquidated
    assert tick.money.profit == pytest.approx(-200 - 2.0)
    assert tick.money.not_charged == pytest.approx(300 + 2 - 200)
    assert result.statistics.liquidations == 1
    assert result.statistics.not_charged == pytest.approx(102.0)


@pytest.mark.parametrize("listens", [False, True])
def test_who_reverses_is_asked_again_where_what_waited_is_refused(listens):
    def get_signals(candles):
        minute = (candles.timestamp - START) // MINUTE + 1
        buys, sells = minute == 2, minute == 3
        return bk.Signals(
            np.where(buys, 1, np.where(sells, -1, 0)),
            np.where(buys, 105.0, 85.0),
            np.where(buys, 85.0, 105.0),
            30.0,
            np.where(buys, 95.0, np.nan),
            exit_long=sells,
            cost=np.where(buys, 2_000.0, 100.0),
        )

    register(
        {"A": [100.0, 100.0, 94.0, 94.0, 94.0, 94.0]},
        {},
        account={"on_cash_shortage": "refuse"},
        ask_at="elapsed",
    )
    bk.add_strategy(
        strategy_name="s", interval="1m", get_signals=get_signals, warmup=1, replace=True
    )
    if listens:  # it is stepped through
        bk.listen_signal(lambda tick: None)
    (trade,) = bk.Portfolio.run_sync({"s": ["A"]}, **PLACE).trades
    opened = trade.signal.position, trade.signal.pending_at
    # what waits at 95 is filled on the candle whose row says that nothing should be long
    assert opened == ("short", START + 3 * MINUTE)
    assert bk.Portfolio.get_data(account_name="main").statistics.refusals == {"cash": 1}
    assert bk.Backtest.get_data("A", strategy_name="s").calls == 3


def test_what_the_data_end_closes_before_equity_is_taken():
    """Its averaging entry at that step as well, though alone it would close nothing."""
    register(
        {"A": [100.0] * 6 + [98.0], "B": [50.0] * 9},
        {("A", 2): long(120, 80, cost=100.0, entries=((1.0, 1.0),)), ("B", 7): long(60, 45)},
        account={"default_percent": 50.0},
    )
    result = bk.Portfolio.run_sync({"s": ["B", "A"]}, **PLACE)
    a, b = result.trades
    assert (a.close_reason, a.close_timestamp) == ("end_of_data", b.signal.pending_at)
    assert [leg.price for leg in a.legs] == [100.0, 99.0, 98.0]
    assert b.money.equity_before == pytest.approx(a.money.equity_after)
    assert b.money.equity_before == pytest.approx(1_000 + a.money.profit)


def test_a_stop_beyond_the_liquidation_price_is_refused():
    register(TWO, {("A", 2): long(120, 90, cost=100.0)}, account={"leverage": 10.0})
    result = bk.Portfolio.run_sync(RUNS, **PLACE)
    assert not result.trades
    (event,) = result.refusals
    assert event.reason == "liquidation"
    assert "at or beyond the liquidation price 90.452261" in event.detail


@pytest.mark.parametrize(
    ("rules", "cost", "outcome"),
    [
        ({"quantity_step": 0.3}, 500.0, 4.8),
        ({"min_notional": 600.0}, 500.0, "minimum"),
        ({"quantity_step": 1_000.0}, 500.0, "minimum"),
        ({"min_quantity": 20.0}, 5_000.0, "cash"),
    ],
)
def test_the_rules_of_the_market(rules, cost, outcome):
    asked = []

    async def get_market(symbol):
        asked.append(symbol)
        return bk.Market(base=symbol, quote="USDT", **rules)

    register(TWO, {("A", 2): long(110, 90, cost=cost)}, market=get_market)
    result = bk.Portfolio.run_sync({"s": ["A"]}, **PLACE)
    assert asked == ["A"]
    if isinstance(outcome, str):
        assert [event.reason for event in result.refusals] == [outcome]
    else:
        assert result.trades[0].money.quantity == outcome


def sized(sizing, position=None, prices=None, minute=40, **account):
    prices = prices or {"A": [100.0 + (i % 2) for i in range(60)]}
    register(prices, {("A", minute): position or long(200, 96)}, account=account)
    bk.add_sizing(sizing_name="z", **sizing)
    bk.add_strategy(
        strategy_name="s", interval="1m", get_signal=bk.list_strategies()[0].get_signal,
        sizing_name="z", replace=True,
    )  # fmt: skip
    return bk.Portfolio.run_sync({"s": ["A"]}, **PLACE)


def test_sizings_act():
    money = sized({"method": "fixed-cost", "cost": 123.0}).trades[0].money
    assert money.cost == pytest.approx(123.0)


@pytest.mark.parametrize(
    ("sizing", "cost"),
    [
        ({"method": "equity-percentage", "equity_percentage": 25}, 250.0),
        # 1 % of 1,000 over the distance from 101 to 96
        ({"method": "fixed-percentage"}, 101 * 10 / 5.0),
        ({"method": "fixed-percentage", "max_position_size": 1.5}, 1.5 * 101),
        ({"method": "fixed-percentage", "min_position_size": 3.0}, 3.0 * 101),
        ({"method": "fixed-percentage", "max_position_percentage": 10}, 100.0),
        # prices alternate by 1: that is the true range
        ({"method": "atr-based"}, 101 * 10 / 2.0),
        # fewer candles than a period, fewer trades than needed, no days: the default size
        ({"method": "atr-based", "atr_period": 50}, 400.0),
        ({"method": "kelly-criterion"}, 400.0),
        ({"method": "volatility-target", "target_percentage": 20}, 400.0),
        ({"method": "function", "size": lambda account, row: account.free / 10}, 100.0),
    ],
)
def test_each_method(sizing, cost):
    result = sized(sizing, default_percent=40.0)
    assert result.trades[0].money.cost == pytest.approx(cost)


def test_a_sizing_function_sees_the_account_and_may_fail():
    seen, errors = [], []
    bk.listen_error(errors.append)

    async def size(account, row):
        seen.append((account, row))
        raise ValueError("no idea")

    result = sized({"method": "function", "size": size})
    assert not result.trades
    assert [event.reason for event in result.refusals] == ["size"]
    assert [(e.where, str(e.error)) for e in errors] == [("sizing", "no idea")]
    ((account, row),) = seen
    assert (account.equity, account.free, account.positions) == (1_000.0, 1_000.0, ())
    assert row.price_open == 101.0


@pytest.mark.parametrize("answer", [None, "100 USDT", [100.0]])
def test_what_a_sizing_function_returns_is_a_number(answer):
    errors = []
    bk.listen_error(errors.append)
    result = sized({"method": "function", "size": lambda account, signal: answer})
    assert [event.reason for event in result.refusals] == ["size"]
    (error,) = errors
    assert f"returned {answer!r}; return a cost in USDT, as a number" in str(error.error)


def test_kelly_counts_the_closed_trades_of_the_strategy():
    prices = {"A": [100.0, 100.0] + [102.0, 100.0, 99.0, 100.0] * 12}
    proposals = {("A", m): long(101.5, 99.5, 10) for m in range(2, 46, 4)}
    register(prices, proposals)
    bk.add_sizing(
        sizing_name="z", method="kelly-criterion", min_trades=4, kelly_multiplier=0.5,
        max_position_percentage=100,
    )  # fmt: skip
    bk.add_strategy(
        strategy_name="s", interval="1m", get_signal=bk.list_strategies()[0].get_signal,
        sizing_name="z", replace=True,
    )  # fmt: skip
    trades = bk.Portfolio.run_sync({"s": ["A"]}, **PLACE).trades
    for i in range(4, len(trades)):
        r = [t.pnl.pnl_percentage for t in trades[:i]]
        wins, losses = [x for x in r if x > 0], [-x for x in r if x < 0]
        if not losses:
            continue
        ratio, w = np.mean(wins) / np.mean(losses), len(wins) / len(r)
        share = max(0, w - (1 - w) / ratio) * 0.5
        money = trades[i].money
        assert money.cost == pytest.approx(min(share, 1 / 1.001) * money.equity_before)


def test_runs_share_their_risk_profiles():
    proposals = {(symbol, 2): long(120, 40, cost=10.0) for symbol in SYMBOLS}
    register(TWO, proposals, max_stop_loss_distance_percent=0)
    bk.add_risk(
        risk_name="one",
        validations=[lambda check: "full" if check.active_count else None],
    )
    bk.add_strategy(
        strategy_name="s", interval="1m", get_signal=bk.list_strategies()[0].get_signal,
        risk_name="one", replace=True,
    )  # fmt: skip
    result = bk.Portfolio.run_sync({"s": ["B", "A"]}, **PLACE)
    assert [tick.symbol for tick in result.trades] == ["B"]
    # what an account refuses gives its slot back
    proposals["B", 2] = long(120, 40, quantity=1e9)
    bk.add_account(
        account_name="main", currency="USDT", balance=1_000.0, on_cash_shortage="refuse",
        replace=True,
    )  # fmt: skip
    result = bk.Portfolio.run_sync({"s": ["B", "A"]}, **PLACE)
    assert [tick.symbol for tick in result.trades] == ["A"]


def test_results_come_as_they_happen_and_a_task_returns_the_whole():
    proposals = {("A", 2): long(110, 90), ("B", 3): long(60, 45, 2)}
    register(TWO, proposals)

    async def work():
        told = [tick async for tick in bk.Portfolio.run(RUNS, **PLACE)]
        result = await bk.Portfolio.background(RUNS, **PLACE)
        results = bk.Portfolio.run(RUNS, **PLACE)
        first = await anext(results)
        await results.aclose()  # a consumer that has seen enough
        return told, result, first

    told, result, first = asyncio.run(work())
    assert len(told) == 2
    assert (*told,) == result.trades
    assert first == told[0]
    assert [tick.close_timestamp for tick in told] == sorted(t.close_timestamp for t in told)


def test_a_consumer_that_leaves_ends_the_runs_wherever_they_are():
    proposals = {(symbol, m): long(100, 40, 1) for symbol in SYMBOLS for m in range(2, 9, 2)}
    register({"A": [50.0] * 12, "B": [50.0] * 12}, proposals)

    async def work(count):
        results = bk.Portfolio.run(RUNS, **PLACE)
        told = [await anext(results) for _ in range(count)]
        await results.aclose()
        assert len(asyncio.all_tasks()) == 1
        return told

    whole = asyncio.run(work(8))
    ended = bk.Portfolio.run_sync(RUNS, **PLACE)
    for count in range(8):
        assert asyncio.run(work(count)) == whole[:count]
        if count:
            found = bk.Portfolio.get_data(account_name="main")
            assert [*found.trades[:count]] == whole[:count]
            before = found.curve.timestamp < whole[count - 1].close_timestamp
            assert before.any()
            curve = found.curve.equity[before]
            assert curve.tolist() == ended.curve.equity[: len(curve)].tolist()


def test_the_report_is_written(tmp_path):
    register(TWO, {("A", 2): long(110, 90)})
    bk.Portfolio.run_sync(RUNS, **PLACE)
    path = bk.Portfolio.dump(account_name="main", path=tmp_path)
    assert path.read_text() == bk.Portfolio.get_report(account_name="main")
    assert "1,000" in path.read_text()


@pytest.mark.parametrize(
    ("runs", "error", "text"),
    [
        ({}, bk.ArgumentError, "runs names no strategy; name one, with at least one symbol"),
        ({"s": []}, bk.ArgumentError, r"runs\['s'\] names no symbol; name at least one, or leave"),
        ({"s": "A"}, bk.ArgumentError, r"runs\['s'\]='A' must be a list of symbols"),
        ({"s": ["A", "A"]}, bk.ArgumentError, "names 's' on 'A' twice; name each run once"),
        ({"s": [""]}, bk.ArgumentError, "which is no symbol"),
        (["s"], bk.ArgumentError, "must be a mapping from strategies to lists of symbols"),
        ({"t": ["A"]}, bk.UnknownNameError, "unknown strategy 't'"),
    ],
)
def test_what_is_wrong_with_the_runs_is_told(runs, error, text):
    register(TWO, {})
    with pytest.raises(error, match=text):
        bk.Portfolio.run_sync(runs, **PLACE)


def test_an_unknown_account_or_sizing_is_told():
    register(TWO, {})
    with pytest.raises(bk.UnknownNameError, match=r"unknown account 'mine'.*main"):
        bk.Portfolio.run_sync(RUNS, **PLACE | {"account_name": "mine"})
    with pytest.raises(bk.UnknownNameError, match="no runs on account 'main' have ended yet"):
        bk.Portfolio.get_data(account_name="main")
    bk.add_strategy(strategy_name="t", interval="1m", get_signal=print, sizing_name="none")
    with pytest.raises(bk.UnknownNameError, match="unknown sizing 'none'"):
        bk.Portfolio.run_sync({"t": ["A"]}, **PLACE)


def test_another_currency_is_refused_at_the_start():
    register(TWO, {}, market=lambda symbol: bk.Market(base="A", quote="EUR"))
    text = "account 'main' is in USDT, and A on exchange 'e' is quoted in EUR"
    with pytest.raises(bk.ArgumentError, match=text):
        bk.Portfolio.run_sync(RUNS, **PLACE)


def test_what_is_no_market_is_told():
    register(TWO, {}, market=lambda symbol: {"base": "A"})
    with pytest.raises(bk.ArgumentError, match=r"get_market of exchange 'e' returned .* for A"):
        bk.Portfolio.run_sync(RUNS, **PLACE)


def test_markets_that_cant_be_had_are_told_with_their_place():
    def unknown(symbol):
        raise KeyError(symbol)

    register(TWO, {}, market=unknown)
    with pytest.raises(bk.FetchError, match=r"get_market for A raised KeyError: 'A' \(.*py:\d+"):
        bk.Portfolio.run_sync(RUNS, **PLACE)


def test_a_market_that_cant_be_is_told_with_its_place():
    register(TWO, {}, market=lambda symbol: bk.Market(base="A", quote="USDT", quantity_step=0.0))
    with pytest.raises(bk.ArgumentError, match=r"get_market for A: Market: quantity_step=0\.0"):
        bk.Portfolio.run_sync(RUNS, **PLACE)


def test_what_closed_before_the_candles_failed_is_kept():
    register(TWO, {("A", 2): long(110, 90)})
    exchange = bk.list_exchanges()[0]

    def failing(symbol, interval, since, limit):
        if symbol == "B":
            raise bk.ExchangeRefusedError("no such symbol")
        return exchange.get_candles(symbol, interval, since, limit)

    bk.add_exchange(exchange_name="e", get_candles=failing, intervals=["1m"], replace=True)
    with pytest.raises(bk.ExchangeRefusedError, match="no such symbol"):
        bk.Portfolio.run_sync(RUNS, **PLACE)
    assert "no such symbol" in bk.Backtest.get_report("B", strategy_name="s")
