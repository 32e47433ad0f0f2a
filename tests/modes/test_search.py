"""Searches with Optuna: repeatable, resumable, and no kinder to luck than a walk."""

import logging
import os
import random
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import backtest_kit as bk
from command import PATIENCE
from markets import START, market

optuna = pytest.importorskip("optuna", reason="searches need Optuna: the extra optuna")

BEGIN = datetime.fromtimestamp(START / 1000, UTC) + timedelta(hours=5)
SPACE = {"minutes": range(2, 40), "percent": optuna.distributions.FloatDistribution(0.6, 2)}


def hold(minutes, percent, side="long"):
    up = 1 if side == "long" else -1

    def get_signal(symbol, when):
        price = bk.average_price(symbol)
        return bk.Signal(
            position=side,
            price_take_profit=price * (1 + up * percent / 100),
            price_stop_loss=price * (1 - up * percent / 100),
            minute_estimated_time=minutes,
        )

    return {"interval": "5m", "get_signal": get_signal}


def begin(seed_of_market=5, hours=20):
    """Register the candles and the frame of `find` in the engine of this context."""
    bk.add_exchange(bk.exchanges.FrameExchange(market(seed_of_market, 900 + 60 * hours)))
    end = BEGIN + timedelta(hours=hours)
    bk.add_frame(frame_name="f", interval="1m", start_date=BEGIN, end_date=end)


def find(
    factory=hold, *, seed_of_market=5, hours=20, parameters=SPACE, trials=8, symbol="X", **options
):
    with bk.Engine():
        begin(seed_of_market, hours)
        return bk.search(
            factory,
            symbol,
            exchange_name="frame",
            frame_name="f",
            parameters=parameters,
            trials=trials,
            **options,
        )


def history(result):
    """What was tried and what came of it, without what a kill left behind."""
    state = optuna.trial.TrialState
    return [
        (trial.params, trial.values, trial.state.name, trial.intermediate_values)
        for trial in result.study.trials
        if trial.state in (state.COMPLETE, state.PRUNED) or "why" in trial.user_attrs
    ]


def pruner():
    return optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1)


def test_the_same_seed_finds_the_same_and_values_are_those_of_backtests():
    first, again = find(seed=3), find(seed=3)
    assert history(first) == history(again)
    assert history(first) != history(find(seed=4))
    assert first.data == again.data
    assert first.finished == 8
    best = first.best
    with bk.Engine():
        begin()
        bk.add_strategy(best.strategy)
        names = {"strategy_name": best.strategy.name, "exchange_name": "frame", "frame_name": "f"}
        bk.Backtest.run_sync("X", **names)
        alone = bk.Backtest.get_data("X", **names).statistics
    assert best.values == (alone.sharpe_ratio,)
    assert best.parameters.keys() == SPACE.keys()
    assert f"percent={best.parameters['percent']!r}" in first.get_report()


@pytest.mark.slow
@pytest.mark.parametrize("prune", [False, True])
def test_a_search_goes_on_as_it_would_have(prune, tmp_path):
    def part(trials, store):
        return find(trials=trials, store=store, pruner=pruner() if prune else None)

    whole = part(9, tmp_path / "whole")
    for trials in (1, 5):
        part(trials, tmp_path / "parts")
    parts = part(9, tmp_path / "parts")
    assert history(parts) == history(whole)
    assert parts.data == whole.data
    assert (parts.pruned > 0) == prune
    assert part(9, tmp_path / "parts").data == whole.data, "all there is was done"


@pytest.mark.slow
def test_what_was_pruned_was_seen_to_be_worse_and_counts(tmp_path):
    result = find(trials=20, store=tmp_path, pruner=pruner())
    assert result.pruned > 0
    assert result.finished + result.pruned + result.failed == 20
    assert result.data.strategies_tested <= result.finished
    assert result.data.trials >= result.finished + result.pruned - 1
    pruned = [t for t in result.study.trials if t.state == optuna.trial.TrialState.PRUNED]
    assert len(pruned) == result.pruned
    assert all(trial.intermediate_values for trial in pruned)


@pytest.mark.slow
def test_what_another_search_tried_counts_by_its_trades(tmp_path):
    def short(seed):
        # held for a few minutes, so that each has the trades that it takes to be judged
        space = SPACE | {"minutes": range(2, 6)}
        options = {"trials": 2, "store": tmp_path, "seed": seed, "study_name": f"s{seed}"}
        return find(parameters=space, **options).data

    first, second = short(1), short(2)
    assert (first.trials, first.test.known_trials, first.test.unknown_trials) == (2, 2, 0)
    assert (second.trials, second.test.known_trials, second.test.unknown_trials) == (4, 4, 0)


@pytest.mark.slow
def test_several_metrics_give_the_front_that_nothing_beats():
    result = find(trials=25, metric=("win_rate", "total_pnl"))
    every = [tuple(t.values) for t in result.study.trials if t.values is not None]
    beaten = {
        a
        for a in every
        if any(b != a and all(y >= x for x, y in zip(a, b, strict=True)) for b in every)
    }
    assert {found.values for found in result.front} == set(every) - beaten
    assert [found.values[0] for found in result.front] == sorted(
        (found.values[0] for found in result.front), reverse=True
    )
    assert "## Pareto front" in result.get_report()


@pytest.mark.parametrize(
    "sampler",
    [
        optuna.samplers.RandomSampler,
        lambda seed: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
        optuna.samplers.NSGAIISampler(seed=1, population_size=4),
    ],
    ids=["a class", "a function", "an instance"],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_any_sampler_will_do(sampler):
    result = find(sampler=sampler)
    assert result.finished == 8
    assert len({str(trial.params) for trial in result.study.trials}) > 1


def halving():
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)


@pytest.mark.slow
@pytest.mark.parametrize("prune", [None, halving])
def test_executors_find_what_one_process_finds(prune):
    options = {"trials": 12, "batch": 4, "pruner": prune and prune()}
    alone, workers = find(**options), find(executor="processes", **options)
    assert history(workers) == history(alone)
    assert workers.data == alone.data
    assert (alone.pruned > 0) == (prune is not None)
    assert history(alone) != history(find(trials=12, pruner=prune and prune()))


def test_an_executor_that_runs_no_more_is_no_failure_of_a_strategy():
    with ThreadPoolExecutor(1) as executor:
        pass
    with pytest.raises(RuntimeError, match="after shutdown"):
        find(executor=executor)


def test_the_metric_of_a_part_is_that_of_the_trades_closed_by_then():
    found = find(trials=2, pruner=optuna.pruners.NopPruner())
    trial = found.study.trials[-1]
    with bk.Engine():
        begin()
        bk.add_strategy(strategy_name="s", **hold(**trial.params))
        closed = bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
    assert trial.intermediate_values.keys() == set(range(1, 10))
    for part, value in trial.intermediate_values.items():
        until = START + 5 * 3_600_000 + part * 2 * 3_600_000
        made = [c.pnl.pnl_percentage for c in closed if c.close_timestamp <= until]
        assert value == pytest.approx(np.mean(made) / np.std(made, ddof=1), rel=1e-9)


def test_what_breaks_a_constraint_is_not_the_best(tmp_path):
    free = [row.statistics for row in find(trials=15).data.ranking]
    losses = int(np.median([s.loss_count for s in free]))
    drawdown = float(np.median([s.max_drawdown_percent for s in free])) * 1.2
    limits = bk.Constraints(min_trades=3, min_losses=losses, max_drawdown_percent=drawdown)
    found = find(trials=15, constraints=limits)

    def keeps(s):
        enough = s.total_signals >= 3 and s.loss_count >= losses
        return enough and s.max_drawdown_percent <= drawdown

    assert {keeps(s) for s in free} == {True, False}, "both were tried"
    assert all(keeps(row.statistics) for row in found.data.ranking)
    assert 0 < found.infeasible < found.finished == 15
    assert keeps(next(r.statistics for r in found.data.ranking if r.rank == 1))
    assert found.best.strategy.name == found.data.best_strategy
    assert f"({found.infeasible} of them broke a constraint)" in found.get_report()
    # also of a trial that is not ranked the trades are known, and count; with a store, once
    test = found.data.test
    assert test.unknown_trials == 0
    assert test.known_trials > len(
        [r for r in found.data.ranking if r.adjusted_p_value is not None]
    )
    stored = find(trials=15, constraints=limits, store=tmp_path)
    assert (stored.data.test, stored.data.verdict) == (test, found.data.verdict)


def test_where_all_break_a_constraint_the_sentence_says_so():
    found = find(trials=4, constraints=bk.Constraints(min_trades=10**6))
    assert found.infeasible == found.finished == 4
    assert found.best is None
    assert "Nothing to rank: each trial that finished broke a constraint." in found.get_report()


@pytest.mark.parametrize(
    "wrong", [{"min_trades": -1}, {"min_losses": 1.5}, {"max_drawdown_percent": 0}]
)
def test_constraints_that_make_no_sense(wrong):
    (name,) = wrong
    with pytest.raises(bk.RegistrationError, match=f"constraints: {name}="):
        bk.Constraints(**wrong)


def test_lists_and_symbols_and_combinations_that_are_left_out():
    def picky(minutes, side):
        return None if minutes == 20 and side == "long" else hold(minutes, 1.0, side)

    space = {"minutes": [10, 20], "side": ["long", "short"]}
    sampler = optuna.samplers.BruteForceSampler
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        result = find(picky, parameters=space, trials=4, symbol=["X", "Y"], sampler=sampler)
    assert (result.finished, result.failed) == (3, 1)
    assert len(result.data.ranking) == 3
    assert result.data.symbols == ("X", "Y")


def test_a_strategy_that_fails_or_never_trades_is_skipped():
    def shaky(minutes, percent):
        def never(symbol, when):
            if minutes % 2:
                raise RuntimeError("an odd number")

        return {"interval": "5m", "get_signal": never}

    result = find(shaky, trials=6)
    assert result.failed == 6
    assert result.best is None
    assert result.data.ranking == ()
    assert "Nothing." in result.get_report()
    reasons = {trial.user_attrs["why"].split(":")[0] for trial in result.study.trials}
    assert reasons <= {"StrategyFailedError", "BacktestKitError"}


def other(minutes, percent):
    return hold(minutes, percent + 1)


def test_a_study_of_something_else_is_refused(tmp_path):
    find(trials=2, store=tmp_path)
    changes = [
        {"seed_of_market": 6},
        {"parameters": SPACE | {"minutes": range(3, 40)}},
        {"symbol": "Y"},
        {"seed": 1},
        {"metric": "avg_pnl"},
        {"batch": 2},
        {"constraints": bk.Constraints(min_losses=1)},
        {"factory": other, "study_name": "hold"},
    ]
    for change in changes:
        with pytest.raises(bk.RegistrationError, match="was begun with other code, candles"):
            find(**({"trials": 2, "store": tmp_path} | change))
    assert find(trials=3, store=tmp_path).finished == 3


def risky(minutes, percent):
    return hold(minutes, percent) | {"risk_name": "r"}


def test_another_risk_profile_is_another_study(tmp_path):
    def found(most):
        with bk.Engine():
            begin(hours=9)
            bk.add_risk(risk_name="r", validations=[lambda check: None if most > 1 else "no"])
            return bk.search(
                risky,
                "X",
                exchange_name="frame",
                frame_name="f",
                parameters=SPACE,
                trials=2,
                store=tmp_path,
            )

    found(5)
    with pytest.raises(bk.RegistrationError, match="was begun with other code"):
        found(6)
    found(5)


def test_a_store_that_can_not_be_used_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(bk.StateError, match=r"optuna\.db can't be used"):
        find(store=tmp_path / "file")
    (tmp_path / "optuna.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(bk.StateError, match=r"optuna\.db can't be used"):
        find(store=tmp_path)


INTERRUPTED = """
import os, signal, sys, time
sys.path.insert(0, {tests!r})
import optuna
from modes.test_search import find

seen = []

class Slow(optuna.samplers.RandomSampler):
    def sample_independent(self, *arguments):
        seen.append(1)
        if len(seen) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        if len(seen) >= 4:
            time.sleep(0.3)
        return super().sample_independent(*arguments)

try:
    find(trials=50, sampler=lambda seed: Slow(seed=seed))
except KeyboardInterrupt:
    print(len(seen))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_an_interrupt_between_trials_is_heeded(tmp_path, request):
    script = tmp_path / "search.py"
    script.write_text(INTERRUPTED.format(tests=str(request.config.rootpath / "tests")))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 8


MISTAKES = {
    "unknown metric 'sharp'": {"metric": "sharp"},
    "each once": {"metric": ("avg_pnl", "avg_pnl")},
    "parameters is empty": {"parameters": {}},
    "minutes='abc' must be a range": {"parameters": {"minutes": "abc"}},
    r"minutes=range\(3, 3\) must be a range": {"parameters": {"minutes": range(3, 3)}},
    "must list numbers, strings": {"parameters": {"minutes": [[1], [2]]}},
    "takes a single metric": {"metric": ("avg_pnl", "win_rate"), "pruner": pruner()},
    "batch=0 must be a whole number": {"batch": 0},
    "unexpected keyword argument 'hours'": {"parameters": {"hours": [1, 2]}},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message):
    with pytest.raises(bk.RegistrationError, match=message):
        find(**MISTAKES[message])


def test_what_fails_is_told_once_and_by_nobody_else(caplog):
    asked = []

    def sometimes(minutes):
        def get_signal(symbol, when):
            asked.append(minutes)
            raise ValueError("not today")

        return hold(minutes, 1) if minutes == 5 else {"interval": "5m", "get_signal": get_signal}

    optuna.logging.enable_propagation()
    try:
        with caplog.at_level(logging.INFO):
            found = find(sometimes, parameters={"minutes": [5, 7]}, trials=8)
    finally:
        optuna.logging.disable_propagation()
    assert found.failed > 1
    texts = [record.getMessage() for record in caplog.records if record.levelname != "INFO"]
    (told,) = [text for text in texts if text.startswith("search")]
    assert told.count("StrategyFailedError") == 1
    assert "{'minutes': 7}: strategy 'sometimes(minutes=7)' raised at each of its" in told
    assert f"its {len(asked):,} calls" in told, "it was run once"
    assert not [text for text in texts if "Trial" in text]


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(bk.BacktestKitError, match=r"pip install 'backtest-kit\[optuna\]'"):
        find()


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from modes.test_search import find, history
print(history(find(trials=8, store=sys.argv[1], batch={batch})))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "most"), [(1, 2), (4, 1)])
def test_killed_at_any_moment_it_finds_the_same(tmp_path, request, batch, most):
    script = tmp_path / "search.py"
    script.write_text(SCRIPT.format(tests=str(request.config.rootpath / "tests"), batch=batch))
    (tmp_path / "__init__.py").touch()

    def start(store):
        return subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / store)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finished():
        if not (tmp_path / "parts" / "walks.db").exists():
            return 0
        with closing(sqlite3.connect(tmp_path / "parts" / "walks.db")) as file, file:
            names = {name for (name,) in file.execute("SELECT name FROM sqlite_master")}
            trials = "SELECT COUNT(*) FROM trials"
            return file.execute(trials).fetchone()[0] if "trials" in names else 0

    whole, told = start("whole").communicate()
    assert whole, told
    rng = random.Random(3)
    kills = 0
    while True:
        process = start("parts")
        wanted = finished() + rng.choice([1, 2])
        while process.poll() is None and finished() < wanted:
            time.sleep(0.005)
        if kills < most and process.poll() is None:
            time.sleep(rng.uniform(0, 0.05))  # somewhere within the next trial
            process.kill()
            process.communicate()
            kills += 1
            continue
        out, told = process.communicate()
        break
    assert out == whole, told
    assert kills >= 1
