"""Searches with the money of an account, and against a benchmark."""

import logging
import os
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import backtest_kit as bk
from markets import START, market

optuna = pytest.importorskip("optuna", reason="searches need Optuna: the extra optuna")

BEGIN = datetime.fromtimestamp(START / 1000, UTC)
ROWS = [list(row) for row in market(5, 4000, gaps=False)]
SPACE = {"every": range(20, 60), "percent": [0.6, 0.8, 1.0]}


def crossing(every, percent):
    def get_signals(candles):
        place = candles.timestamp // 60_000
        side = np.where(place % every, 0, 1 - 2 * (place % 7 < 3))
        return bk.Signals.bracket(side, percent, 0.7, 30)

    return {"interval": "1m", "get_signals": get_signals, "warmup": 1, "sizing_name": "half"}


def registered(balance=1_000.0):
    bk.add_exchange(bk.exchanges.FrameExchange(ROWS))
    end = BEGIN + timedelta(minutes=3500)
    bk.add_frame(frame_name="f", interval="1m", start_date=BEGIN, end_date=end)
    bk.add_account(account_name="main", currency="USDT", balance=balance)
    bk.add_sizing(sizing_name="half", method="equity-percentage", equity_percentage=50.0)


def find(factory=crossing, *, balance=1_000.0, symbols="A", trials=6, **options):
    with bk.Engine():
        registered(balance)
        names = {"exchange_name": "frame", "frame_name": "f"}
        options = {"account_name": "main", "metric": "account_growth"} | options
        return bk.search(factory, symbols, **names, parameters=SPACE, trials=trials, **options)


def test_values_are_those_of_portfolios_of_each_strategy():
    symbols = ["A", "B"]
    found = find(symbols=symbols, metric=("account_calmar", "account_max_drawdown_percent"))
    assert found.finished == 6
    assert found.data.account.balance == 1_000.0
    with bk.Engine():
        registered()
        for trial in found.front:
            bk.add_strategy(trial.strategy)
            played = bk.Portfolio.run_sync(
                {trial.strategy.strategy_name: symbols},
                exchange_name="frame", frame_name="f", account_name="main",
            ).statistics  # fmt: skip
            assert trial.values == (played.calmar_ratio, -played.max_drawdown_percent)
            (row,) = [
                r for r in found.data.ranking if r.strategy_name == trial.strategy.strategy_name
            ]
            assert row.account == played
    assert "## Account" in found.get_report()


def test_what_the_account_must_keep_to():
    free = [row.account.max_drawdown_percent for row in find(trials=8).data.ranking]
    most = float(np.median(free))
    found = find(trials=8, constraints=bk.Constraints(max_account_drawdown_percent=most))
    assert 0 < found.infeasible < found.finished == 8
    assert all(row.account.max_drawdown_percent <= most for row in found.data.ranking)
    assert found.best.strategy.name == found.data.best_strategy


def test_a_pruner_sees_what_shorter_runs_came_to():
    found = find(trials=8, pruner=optuna.pruners.NopPruner())
    for trial in found.study.trials:
        assert trial.intermediate_values.keys() == {1, 3}
    (first, *_) = found.study.trials
    with bk.Engine():
        registered()
        bk.add_strategy(strategy_name="s", **crossing(**first.params))
        end = BEGIN + timedelta(minutes=350)
        bk.add_frame(frame_name="tenth", interval="1m", start_date=BEGIN, end_date=end)
        played = bk.Portfolio.run_sync(
            {"s": ["A"]}, exchange_name="frame", frame_name="tenth", account_name="main"
        ).statistics
    assert first.intermediate_values[1] == played.growth_percent


@pytest.mark.slow
@pytest.mark.parametrize("prune", [False, True])
def test_executors_and_resuming_find_what_one_process_finds(tmp_path, prune):
    options = {"trials": 8, "batch": 4}
    if prune:
        options["pruner"] = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=1, reduction_factor=2
        )
    alone = find(**options)
    there = find(executor="processes", **options)
    assert there.data == alone.data
    assert [t.params for t in there.study.trials] == [t.params for t in alone.study.trials]
    find(**(options | {"trials": 4}), store=tmp_path)
    again = find(**options, store=tmp_path)
    assert again.data.ranking == alone.data.ranking
    assert again.pruned == alone.pruned
    assert (alone.pruned > 0) == prune


def test_another_account_is_another_study(tmp_path):
    find(trials=1, store=tmp_path)
    with pytest.raises(bk.RegistrationError, match="was begun with other code"):
        find(trials=1, store=tmp_path, balance=2_000.0)
    with pytest.raises(bk.RegistrationError, match="was begun with other code"):
        find(trials=1, store=tmp_path, account_name=None, metric="sharpe_ratio")


@pytest.mark.parametrize("benchmark", ["hold", "random"])
def test_a_search_is_tested_against_a_benchmark_as_a_walk_is(benchmark):
    found = find(benchmark=benchmark, account_name=None, metric="sharpe_ratio")
    assert found.data.test.benchmark == benchmark
    with bk.Engine():
        registered()
        names = []
        for trial in found.study.trials:
            schema = crossing(**trial.params)
            name = f"crossing(every={trial.params['every']}, percent={trial.params['percent']})"
            if name not in names:
                bk.add_strategy(strategy_name=name, **schema)
                names.append(name)
        bk.add_walker(
            walker_name="crossing", exchange_name="frame", frame_name="f", strategies=names,
            benchmark=benchmark,
        )  # fmt: skip
        bk.Walker.run_sync("A", walker_name="crossing")
        walked = bk.Walker.get_data("A", walker_name="crossing")
    assert found.data.ranking == walked.ranking
    assert found.data.test == walked.test
    assert found.data.verdict == walked.verdict
    assert found.data.benchmarks == walked.benchmarks


def test_what_the_factory_reads_beside_is_named_where_results_are_kept(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setenv("LEVEL", "0.7")

    def reads(every, percent):
        def get_signals(candles):
            place = candles.timestamp // 60_000
            stop = float(os.environ["LEVEL"])
            return bk.Signals.bracket((place % every == 0).astype(np.int8), percent, stop, 30)

        return {"interval": "1m", "get_signals": get_signals, "warmup": 1}

    caplog.set_level(logging.WARNING, "backtest_kit")
    found = find(reads, trials=2, store=tmp_path)
    (read,) = found.data.unseen
    assert read.startswith("environment variable 'LEVEL' in ")
    (told,) = [r.getMessage() for r in caplog.records if "LEVEL" in r.getMessage()]
    assert told.endswith("after a change, take another store")
    assert "LEVEL" in found.get_report()
    assert find(reads, trials=2).data.unseen == (), "nothing is kept"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"account_name": None}, "metric='account_growth' needs an account_name"),
        (
            {"metric": "account_grow"},
            "unknown metric 'account_grow'; did you mean 'account_growth'",
        ),
        ({"benchmark": "hodl"}, "benchmark='hodl' must be 0, 'hold' or 'random'"),
        (
            {
                "account_name": None,
                "metric": "avg_pnl",
                "constraints": bk.Constraints(max_account_drawdown_percent=5),
            },
            "max_account_drawdown_percent needs an account_name",
        ),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(bk.RegistrationError, match=message):
        find(**options)
    with pytest.raises(bk.UnknownNameError, match="unknown account 'none'"):
        find(account_name="none")
