"""Walks: in order, from clean state, failures skipped, stopped inside a strategy, ranked."""

import asyncio
import gc
import tracemalloc
import weakref
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit._backtest.array_session import Span
from backtest_kit._engine.engine import current_engine
from backtest_kit._reports.backtest import statistics_of
from backtest_kit._statistics.ranking import rank
from command import PATIENCE
from markets import START, market

BEGIN = datetime.fromtimestamp(START / 1000, UTC) + timedelta(minutes=30)


def register(minutes=1200, **strategies):
    """Register a market, a frame, and strategies that differ in how often they ask."""
    bk.set_config(fill_price="average")  # the market leaps, and brackets are around that price
    bk.add_exchange(bk.exchanges.FrameExchange(market(1, minutes + 60, gaps=False)))
    bk.add_frame(
        frame_name="f",
        interval="1m",
        start_date=BEGIN,
        end_date=BEGIN + timedelta(minutes=minutes - 60),
    )
    for name, options in strategies.items():
        bk.add_strategy(strategy_name=name, **({"interval": "5m"} | options))


def trader(side="long", minutes=20, percent=1.0):
    def get_signal(symbol, when):
        price = bk.average_price(symbol)
        up = 1 if side == "long" else -1
        return bk.Signal(
            position=side,
            price_take_profit=price * (1 + up * percent / 100),
            price_stop_loss=price * (1 - up * percent / 100),
            minute_estimated_time=minutes,
        )

    return {"get_signal": get_signal}


def fails(symbol, when):
    raise RuntimeError("no idea")


def walker(names, **fields):
    bk.add_walker(
        walker_name="w", exchange_name="frame", frame_name="f", strategies=names, **fields
    )


def alone(name, symbol="X"):
    return bk.Backtest.run_sync(symbol, strategy_name=name, exchange_name="frame", frame_name="f")


def test_contracts_come_in_order_with_the_figures_of_whole_backtests():
    register(a=trader(), b=trader("short"), c=trader(minutes=3), d={"get_signal": fails})
    told = {"walker": [], "progress": [], "complete": [], "done": [], "calls": [], "errors": []}
    bk.listen_walker(told["walker"].append)
    bk.listen_walker_progress(told["progress"].append)
    bk.listen_walker_complete(told["complete"].append)
    bk.listen_done_walker(told["done"].append)
    bk.listen_error(told["errors"].append)
    names = ("on_strategy_start", "on_strategy_complete", "on_strategy_error", "on_complete")
    calls = told["calls"]
    walker(
        ["c", "d", "a", "b"],
        metric="total_pnl",
        callbacks={n: lambda *args, n=n: calls.append((n, *args)) for n in names},
    )
    contracts = bk.Walker.run_sync("X", walker_name="w")
    assert [c.strategy_name for c in contracts] == ["c", "d", "a", "b"]
    assert [c.strategies_tested for c in contracts] == [1, 2, 3, 4]
    best = None
    for contract in contracts:
        if contract.strategy_name == "d":
            assert contract.statistics is None
            assert contract.metric_value is None
            assert "raised at each of its" in contract.error
            assert "RuntimeError: no idea" in contract.error
        else:
            record = bk.Backtest.get_data
            trades = alone(contract.strategy_name)
            data = record("X", strategy_name=contract.strategy_name)
            assert contract.statistics == statistics_of(trades, (data.since, data.until))
            assert contract.metric_value == contract.statistics.total_pnl
            if best is None or contract.metric_value > best[0]:
                best = (contract.metric_value, contract.strategy_name)
        assert (contract.best_metric, contract.best_strategy) == best
    assert told["walker"] == contracts
    assert [p.progress for p in told["progress"]] == [0.25, 0.5, 0.75, 1.0]
    (results,) = told["complete"]
    assert results == bk.Walker.get_data("X", walker_name="w")
    assert len(told["done"]) == 1
    assert [(e.where, e.strategy_name) for e in told["errors"] if e.where == "walker"] == [
        ("walker", "d")
    ]
    assert [call[:3] for call in calls if call[0] == "on_strategy_start"] == [
        ("on_strategy_start", name, "X") for name in ("c", "d", "a", "b")
    ]
    done = [call for call in calls if call[0] == "on_strategy_complete"]
    assert [(call[1], call[3], call[4]) for call in done] == [
        (c.strategy_name, c.statistics, c.metric_value) for c in contracts if c.error is None
    ]
    ((_, name, _, error),) = [call for call in calls if call[0] == "on_strategy_error"]
    assert (name, type(error)) == ("d", bk.StrategyFailedError)
    assert calls[-1] == ("on_complete", results)


def test_the_ranking_is_by_the_metric_ties_to_the_earlier_none_last():
    register(
        low=trader("short"),
        idle={"get_signal": lambda symbol, when: None},
        twin=trader(minutes=7),
        first=trader(minutes=7),
        broken={"get_signal": fails},
    )
    walker(["low", "idle", "first", "broken", "twin"], metric="total_pnl")
    contracts = bk.Walker.run_sync("X", walker_name="w")
    data = bk.Walker.get_data("X", walker_name="w")
    values = {c.strategy_name: c.metric_value for c in contracts}
    order = (
        ["first", "twin", "low"] if values["first"] > values["low"] else ["low", "first", "twin"]
    )
    assert [row.strategy_name for row in data.ranking] == [*order, "idle", "broken"]
    assert [row.rank for row in data.ranking] == [1, 2, 3, None, None]
    assert data.best_strategy == order[0] == contracts[-1].best_strategy
    assert data.best_metric == values[order[0]]
    report = bk.Walker.get_report("X", walker_name="w")
    for text in ("## What it is worth", "## Ranking by total_pnl", "## Strategies that failed"):
        assert text in report


def test_strategies_of_a_walk_share_neither_risk_nor_records():
    """Each alone has the one slot there is; side by side they would not."""
    seen = []

    def one(check):
        seen.append(check.active_count)
        return "one at most" if check.active_count else None

    register(
        a=trader(minutes=30) | {"risk_name": "book"}, b=trader(minutes=30) | {"risk_name": "book"}
    )
    bk.add_risk(risk_name="book", validations=[one])
    walker(["a", "b"])
    first, second = bk.Walker.run_sync("X", walker_name="w")
    assert first.statistics == second.statistics
    assert set(seen) == {0}
    with pytest.raises(bk.UnknownNameError):
        bk.Backtest.get_data("X", strategy_name="a")


def test_several_symbols_are_pooled_and_shown_for_each():
    register(a=trader(), b=trader("short"))
    walker(["a", "b"], metric="avg_pnl")
    bk.Walker.run_sync(["X", "Y"], walker_name="w")
    data = bk.Walker.get_data(["X", "Y"], walker_name="w")
    for row in data.ranking:
        trades = [alone(row.strategy_name, symbol) for symbol in ("X", "Y")]
        assert [s.total_signals for s in row.by_symbol] == [len(t) for t in trades]
        pooled = [t.pnl.pnl_percentage for each in trades for t in each]
        assert row.metric_value == pytest.approx(sum(pooled) / len(pooled))
        assert row.metric_by_symbol == tuple(s.avg_pnl for s in row.by_symbol)
    assert "## By symbol" in bk.Walker.get_report(["X", "Y"], walker_name="w")
    with pytest.raises(bk.UnknownNameError, match="existing walks: w X Y"):
        bk.Walker.get_data("X", walker_name="w")


def test_positions_of_several_symbols_share_the_book_of_their_strategy():
    register(a=trader(minutes=30) | {"risk_name": "book"})
    bk.add_risk(risk_name="book", validations=[lambda check: "one" if check.active_count else None])
    walker(["a"])
    (contract,) = bk.Walker.run_sync(["X", "Y"], walker_name="w")
    data = bk.Walker.get_data(["X", "Y"], walker_name="w")
    assert contract.statistics.exposure_percent < 100
    alone_count = len(alone("a", "X"))
    assert sum(s.total_signals for s in data.ranking[0].by_symbol) < 2 * alone_count


@pytest.mark.parametrize("how", ["stop", "stop by name", "cancel", "break"])
def test_stopping_ends_inside_the_strategy_and_keeps_what_is_finished(how):
    asked = []

    async def slow(symbol, when):
        asked.append(when)
        await asyncio.sleep(0.001)

    register(minutes=20_000, a=trader(), slow={"get_signal": slow}, never=trader())
    walker(["a", "slow", "never"])
    complete, started = [], []
    bk.listen_walker_complete(complete.append)

    async def by_break():
        async for contract in bk.Walker.run("X", walker_name="w"):
            started.append(contract.strategy_name)
            break

    async def main():
        if how == "break":
            await by_break()
            return
        task = bk.Walker.background("X", walker_name="w")
        while len(asked) < 5:
            await asyncio.sleep(0.001)
        if how == "stop":
            task.stop()
        elif how == "cancel":
            task.cancel()
        else:
            bk.Walker.stop("X", walker_name="w")
        try:
            await asyncio.wait_for(task, PATIENCE)
        except asyncio.CancelledError:
            assert how == "cancel"

    asyncio.run(main())
    assert len(asked) < 1000, "inside the running backtest, not after it"
    data = bk.Walker.get_data("X", walker_name="w")
    assert [row.strategy_name for row in data.ranking] == ["a"]
    assert (data.strategies_tested, data.total_strategies, data.complete) == (1, 3, False)
    assert complete == [data]
    assert "did not reach its end" in bk.Walker.get_report("X", walker_name="w")


def test_strategies_that_all_fail_or_never_trade_are_a_report_that_says_so():
    register(a={"get_signal": fails}, b={"get_signal": lambda symbol, when: None})
    walker(["a", "b"])
    contracts = bk.Walker.run_sync("X", walker_name="w")
    assert [c.best_strategy for c in contracts] == [None, None]
    report = bk.Walker.get_report("X", walker_name="w")
    assert "Too few trades to say anything" in report
    assert "failed" in report


def test_errors_now_and_then_are_no_failure_but_shown():
    calls = []

    def shaky(symbol, when):
        calls.append(when)
        if len(calls) % 3 == 0:
            raise ValueError("sometimes")
        return trader()["get_signal"](symbol, when)

    register(a={"get_signal": shaky})
    walker(["a"])
    (contract,) = bk.Walker.run_sync("X", walker_name="w")
    assert contract.error is None
    row = bk.Walker.get_data("X", walker_name="w").ranking[0]
    assert row.error_count == len(calls) // 3
    assert row.first_error.startswith("ValueError: sometimes (")
    assert row.first_error.endswith(': raise ValueError("sometimes"))')
    assert "errors, the first ValueError: sometimes" in bk.Walker.get_report("X", walker_name="w")


def test_data_that_can_not_be_had_fail_one_strategy_after_another():
    register(a=trader(), b=trader())

    async def down(*arguments):
        raise ConnectionError("down")

    bk.set_config(get_candles_retry_count=0)
    bk.add_exchange(exchange_name="down", get_candles=down)
    bk.add_walker(walker_name="w", exchange_name="down", frame_name="f", strategies=["a", "b"])
    contracts = bk.Walker.run_sync("X", walker_name="w")
    assert ["ConnectionError: down" in c.error for c in contracts] == [True, True]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"strategies": []}, "strategies is empty"),
        ({"strategies": "ab"}, "must be a list of names"),
        ({"strategies": ["a", "b", "a"]}, "'a' twice"),
        ({"strategies": ["a", 3]}, "3, which is no name"),
        ({"strategies": ["a"], "metric": "sharp_ratio"}, "did you mean 'sharpe_ratio'"),
        ({"strategies": ["a"], "callbacks": {"on_end": print}}, "on_end"),
    ],
)
def test_what_can_not_be_registered(fields, text):
    with pytest.raises(bk.RegistrationError, match=text):
        bk.add_walker(walker_name="w", exchange_name="frame", frame_name="f", **fields)


def test_names_are_checked_before_anything_runs():
    register(a=trader() | {"risk_name": "none"}, b=trader())
    walker(["b", "zz"])
    with pytest.raises(bk.UnknownNameError, match="unknown strategy 'zz'"):
        bk.Walker.run_sync("X", walker_name="w")
    bk.add_walker(walker_name="r", exchange_name="frame", frame_name="f", strategies=["a"])
    with pytest.raises(bk.UnknownNameError, match="unknown risk 'none'"):
        bk.Walker.run_sync("X", walker_name="r")
    with pytest.raises(bk.UnknownNameError, match="unknown walker 'v'"):
        bk.Walker.run_sync("X", walker_name="v")
    for symbol in ("", [], ["X", ""], ["X", "X"]):
        with pytest.raises(ValueError, match="symbol="):
            bk.Walker.run_sync(symbol, walker_name="w")
    assert bk.list_walkers()[0].walker_name == "w"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_strategies():
    """Of each strategy its figures are kept, 32 bytes a trade; a kept result would take 500."""
    names = [f"s{i}" for i in range(6)]
    register(minutes=3000, **{name: trader(minutes=2 + i % 5) for i, name in enumerate(names)})
    walker(names)
    alone(names[0])
    bk.Walker.run_sync("X", walker_name="w")  # the candles are there, and what is imported late
    bk.Backtest.get_data("X", strategy_name=names[0])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        contracts = bk.Walker.run_sync("X", walker_name="w")
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    trades = sum(c.statistics.total_signals for c in contracts)
    assert trades > 2_500
    assert after - before < 100 * trades


def test_a_walk_frees_the_one_before_it():
    """At once: nothing that is wrong in a trial may keep it until the collector comes round."""

    def arrays(candles):
        near = np.where(candles.close > candles.open, 0.01, 1.0)  # too near: invalid
        return bk.Signals.bracket(np.ones(len(candles)), near, 1.0, 20)

    register(
        steps=trader(),
        arrays={"interval": "5m", "get_signals": arrays, "warmup": 2},
        fails={"get_signal": fails},
    )
    walker(["steps", "arrays", "fails"])
    gc.collect()
    gc.disable()
    try:
        walked = []
        for _ in range(2):
            bk.Walker.run_sync("X", walker_name="w")
            walked.append(weakref.ref(current_engine().walks["w", ("X",)]))
        assert [walk() is None for walk in walked] == [True, False]
        spans = [kept for kept in gc.get_objects() if isinstance(kept, Span)]
        assert not spans, "of a trial its columns are kept"
    finally:
        gc.enable()


def test_windows_are_walked_forward_and_reported():
    register(minutes=4000, a=trader(minutes=5), b=trader("short", minutes=5))
    windows = bk.Windows(train=timedelta(hours=20), test=timedelta(hours=10))
    walker(["a", "b"], windows=windows, metric="avg_pnl")
    bk.Walker.run_sync("X", walker_name="w")
    data = bk.Walker.get_data("X", walker_name="w")
    first = data.walk_forward.windows[0]
    assert first.train_since == round(BEGIN.timestamp() * 1000)
    assert first.test_since - first.train_since == 20 * 3_600_000
    assert len(data.walk_forward.windows) == 4
    # what one window says of a strategy is what a backtest over it says
    closed = [
        tick for tick in alone(first.strategy_name) if tick.close_timestamp <= first.train_until
    ]
    assert first.in_sample == pytest.approx(
        sum(tick.pnl.pnl_percentage for tick in closed) / len(closed)
    )
    report = bk.Walker.get_report("X", walker_name="w")
    assert "## Walk-forward" in report
    assert "The best of 4 train windows: " in report


def test_a_walk_stopped_as_a_strategy_starts_does_not_run_it():
    register(a=trader(), b=trader())

    def on_start(name, symbol):
        if name == "b":
            bk.Walker.stop("X", walker_name="w")

    walker(["a", "b"], callbacks={"on_strategy_start": on_start})
    assert [c.strategy_name for c in bk.Walker.run_sync("X", walker_name="w")] == ["a"]
    assert not bk.Walker.get_data("X", walker_name="w").complete


def test_windows_that_do_not_fit_are_refused():
    register(minutes=400, a=trader())
    walker(["a"], windows=bk.Windows(train=timedelta(hours=20), test=timedelta(hours=10)))
    with pytest.raises(bk.RegistrationError, match="not one window of 20:00:00 to train"):
        bk.Walker.run_sync("X", walker_name="w")


def test_a_walk_is_ranked_once_until_there_are_more_results(tmp_path, monkeypatch):
    ranked = []

    def counted(*arguments, **more):
        ranked.append(len(arguments[2]))
        return rank(*arguments, **more)

    monkeypatch.setattr("backtest_kit._walker.walk.rank", counted)
    register(200, a=trader(), b=trader("short"))
    walker(["a", "b"])

    async def walk():
        async for _ in bk.Walker.run("X", walker_name="w"):
            bk.Walker.get_data("X", walker_name="w")
            bk.Walker.get_report("X", walker_name="w")

    asyncio.run(walk())
    data = bk.Walker.get_data("X", walker_name="w")
    report = bk.Walker.get_report("X", walker_name="w")
    assert bk.Walker.dump("X", walker_name="w", path=tmp_path).read_text() == report
    assert data == bk.Walker.get_data("X", walker_name="w")
    assert ranked == [1, 2]
