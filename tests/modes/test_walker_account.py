"""Walks with the money of an account."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit._values.schemas import ACCOUNT_METRICS
from markets import START, market

BEGIN = datetime.fromtimestamp(START / 1000, UTC)
FIELDS = ("growth_percent", "cagr_percent", "sharpe_ratio", "sortino_ratio", "calmar_ratio")


def crossing(every):
    def get_signals(candles):
        place = candles.timestamp // 60_000
        return bk.Signals.bracket(np.where(place % every, 0, 1 - 2 * (place % 7 < 3)), 0.8, 0.6, 30)

    return get_signals


def register(metric, **more):
    rows = [list(row) for row in market(5, 4000, gaps=False)]
    bk.add_exchange(bk.exchanges.FrameExchange(rows))
    end = BEGIN + timedelta(minutes=3500)
    bk.add_frame(frame_name="f", interval="1m", start_date=BEGIN, end_date=end)
    bk.add_account(account_name="main", currency="USDT", balance=1_000.0)
    bk.add_sizing(sizing_name="half", method="equity-percentage", equity_percentage=50.0)
    for every in (11, 17, 29):
        bk.add_strategy(
            strategy_name=f"s{every}",
            interval="1m",
            get_signals=crossing(every),
            warmup=1,
            sizing_name="half" if every == 29 else None,
        )
    bk.add_walker(
        walker_name="w",
        exchange_name="frame",
        frame_name="f",
        strategies=["s11", "s17", "s29"],
        metric=metric,
        account_name="main",
        **more,
    )


def walk(symbols, **how):
    bk.Walker.run_sync(symbols, walker_name="w", **how)
    return bk.Walker.get_data(symbols, walker_name="w")


def test_the_metrics_are_those_of_portfolios_of_each_strategy(engine):
    register("account_calmar")
    data = walk(["A", "B"])
    trials = {trial.strategy_name: trial for trial in engine.walks["w", ("A", "B")].results}
    for name in ("s11", "s17", "s29"):
        found = bk.Portfolio.run_sync(
            {name: ["A", "B"]}, exchange_name="frame", frame_name="f", account_name="main"
        ).statistics
        values = [getattr(found, field) for field in FIELDS] + [-found.max_drawdown_percent]
        assert [trials[name].metric(metric) for metric in ACCOUNT_METRICS] == values
        assert trials[name].account == found
    ranked = [row.metric_value for row in data.ranking]
    assert ranked == sorted((trials[name].account.calmar_ratio for name in trials), reverse=True)
    assert data.best_metric == ranked[0]
    assert all(row.metric_by_symbol == (None, None) for row in data.ranking)
    assert "account_calmar" in bk.Walker.get_report(["A", "B"], walker_name="w")
    assert [row.metric_value for row in data.benchmarks] == [None, None]
    assert all(row.total_pnl is not None for row in data.benchmarks)


def test_each_strategy_begins_with_the_balance_and_keeps_its_percents():
    register("sharpe_ratio")
    alone = walk("A")
    bk.add_walker(
        walker_name="w", exchange_name="frame", frame_name="f",
        strategies=["s11", "s17", "s29"], replace=True,
    )  # fmt: skip
    assert walk("A").ranking == alone.ranking
    with pytest.raises(bk.UnknownNameError):  # a trial is no portfolio of the user's
        bk.Portfolio.get_data(account_name="main")


@pytest.mark.slow
def test_workers_find_the_same():
    pytest.importorskip("cloudpickle")
    register("account_growth")
    here = walk("A")
    assert walk("A", executor="processes") == here


def test_what_is_wrong_is_told():
    register("account_growth")
    with pytest.raises(bk.RegistrationError, match=r"metric='account_sharpe' needs an account"):
        bk.add_walker(
            walker_name="x", exchange_name="frame", frame_name="f", strategies=["s11"],
            metric="account_sharpe",
        )  # fmt: skip
    bk.add_walker(
        walker_name="y", exchange_name="frame", frame_name="f", strategies=["s11"],
        account_name="none",
    )  # fmt: skip
    with pytest.raises(bk.UnknownNameError, match="unknown account 'none'"):
        bk.Walker.run_sync("A", walker_name="y")
