"""The report of a walk: short for however many strategies, whole all the same, and plain."""

import io
import json
import logging
import re
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import backtest_kit as bk
from backtest_kit._pages.walk_page import walk_page
from backtest_kit._reports.benchmarks import benchmark_lines
from backtest_kit._reports.walker import (
    test_lines as lines_of_the_test,
)
from backtest_kit._reports.walker import (
    walker_report,
    warming_lines,
    worth_text,
)
from backtest_kit._reports.windows import forward_lines
from backtest_kit._statistics.benchmarks import HOLD, RANDOM, BenchmarkRow
from backtest_kit._statistics.figures import summarize
from backtest_kit._statistics.overfitting import Overfitting
from backtest_kit._statistics.ranking import RankRow, WalkerData, rank
from backtest_kit._statistics.trial_result import TradeColumns, TrialResult
from backtest_kit._statistics.verdict import Verdict
from backtest_kit._statistics.walk_forward import walk_forward
from backtest_kit._values.schemas import WalkerSchema
from backtest_kit._values.time import to_datetime
from backtest_kit._values.windows import TrainTestSplit
from backtest_kit.cli.walk_tables import abbreviations, ranking_table
from markets import MINUTE, START, market

ROW = re.compile(r"^\| \d* \| (s\d+) \|", re.MULTILINE)
DETAILS = re.compile(
    r"<details>\n<summary>([0-9,]+) more</summary>\n\n(.*?)\n\n</details>", re.DOTALL
)

HOUR = 60 * MINUTE
#: Two windows, each trained in one hour and tested in the next.
HOURS = [
    TrainTestSplit(
        train_since=2 * i * HOUR,
        train_until=(2 * i + 1) * HOUR,
        test_since=(2 * i + 1) * HOUR,
        test_until=(2 * i + 2) * HOUR,
    )
    for i in range(2)
]


def schema_of(names, **more):
    fields = {"walker_name": "w", "exchange_name": "e", "frame_name": "f", "strategies": names}
    return WalkerSchema(**fields | more)


@pytest.fixture(scope="module")
def row():
    trial = TrialResult(strategy_name="s", symbols=("X",), error="no")
    return rank(schema_of(["s"]), ("X",), [trial]).ranking[0]


def walk_of(rows, **more):
    fields = {
        "walker_name": "w",
        "symbols": ("X",),
        "exchange_name": "e",
        "frame_name": "f",
        "metric": "sharpe_ratio",
        "since": START,
        "until": START + MINUTE,
        "total_strategies": len(rows),
        "strategies_tested": len(rows),
        "complete": True,
        "best_strategy": None,
        "best_metric": None,
        "ranking": tuple(rows),
        "trials": len(rows),
        "verdict": Verdict(kind="noise", names=(), sentence="Nothing.", trials=1),
        "overfitting": None,
    }
    return WalkerData(**fields | more)


@given(count=st.integers(1, 130))
def test_the_first_fifty_and_the_folded_are_the_whole_ranking(row, count):
    rows = [msgspec.structs.replace(row, rank=i, strategy_name=f"s{i}") for i in range(count)]
    report = walker_report(walk_of(rows))
    ranking = report.split("## Ranking")[1].split("## All metrics")[0]
    assert ROW.findall(ranking) == [each.strategy_name for each in rows]
    seen = DETAILS.sub("", ranking)
    assert len(ROW.findall(seen)) == min(count, 50)
    folded = [summary for summary, _ in DETAILS.findall(report)]
    assert folded == [str(count - 50)] * 2 * (count > 50), "the ranking, and those that failed"
    counted = walker_report(walk_of(rows), folded=False)
    assert "<details>" not in counted
    assert counted.count(f"And {count - 50} more") == 2 * (count > 50)
    assert len(ROW.findall(counted)) == min(count, 50)


def test_errors_of_many_strategies_are_a_few_lines(row):
    raised = msgspec.structs.replace(row, error=None, error_count=2, first_error="ValueError: no")
    rows = [msgspec.structs.replace(raised, strategy_name=f"s{i}") for i in range(40)]
    text = worth_text(walk_of(rows))
    assert text.count("2 errors, the first ValueError: no") == 5
    assert "- Errors in all: 80, of 40 of 40 strategies." in text


def test_warming_up_is_one_line(row):
    def asked(name, warming, calls=1):
        return msgspec.structs.replace(row, strategy_name=name, warming=warming, calls=calls)

    rows = [asked(f"s{i}", 10 * i) for i in range(30)]
    assert warming_lines(walk_of(rows)) == [
        (
            "Warming up: 10 to 290 steps at the start, until the data reached back far enough "
            "(29 of 30 strategies)."
        )
    ]
    never = [asked(f"n{i}", 99, calls=0) for i in range(7)]
    assert warming_lines(walk_of(never)) == [
        (
            "Never asked, since the data never reached back far enough: n0, n1, n2, n3, n4 and 2 "
            "more (7 of 7 strategies)."
        )
    ]
    assert warming_lines(walk_of([row])) == []


def test_a_walk_tells_of_warming_up_once(caplog):
    def asks(limit):
        def get_signal(symbol, when):
            bk.candles(symbol, "1m", limit)

        return get_signal

    caplog.set_level(logging.INFO, "backtest_kit")
    with bk.Engine():
        bk.add_exchange(bk.exchanges.FrameExchange(market(4, 300, gaps=False)))
        begin = to_datetime(START)
        bk.add_frame(
            frame_name="f", interval="1m", start_date=begin, end_date=begin + timedelta(hours=4)
        )
        names = [f"asks {limit}" for limit in (20, 60, 120)]
        for name in names:
            limit = int(name.split()[1])
            bk.add_strategy(strategy_name=name, interval="1m", get_signal=asks(limit))
        bk.add_walker(walker_name="w", exchange_name="frame", frame_name="f", strategies=names)
        bk.Walker.run_sync("X", walker_name="w")
        report = bk.Walker.get_report("X", walker_name="w")
    told = [record.getMessage() for record in caplog.records if "warming" in record.getMessage()]
    assert told == ["w on X: warming up: 20 to 120 steps, of 3 of 3 strategies"]
    assert report.count("Warming up: 20 to 120 steps at the start") == 1


def losing(row: RankRow, total: float) -> RankRow:
    trades = np.full(40, total / 40)
    trial = trial_of("s", trades, np.arange(40) * MINUTE)
    ranked = rank(schema_of(["s"]), ("X",), [trial]).ranking[0]
    return msgspec.structs.replace(row, error=None, statistics=ranked.statistics)


def trial_of(name, r, closed):
    opened = closed - MINUTE
    columns = (r.tobytes(), opened.tobytes(), closed.tobytes(), np.zeros(len(r), "<i8").tobytes())
    until = int(closed[-1]) + MINUTE
    statistics = summarize(r, opened, closed, (0, until))
    return TrialResult(
        strategy_name=name,
        symbols=("X",),
        since=0,
        until=until,
        statistics=statistics,
        by_symbol=(statistics,),
        trades=TradeColumns(*columns),
        calls=1,
    )


@pytest.mark.parametrize(("total", "said"), [(-1.0, True), (0.0, True), (1.0, False)])
def test_the_chance_of_overfitting_is_no_comfort_where_all_lose(row, total, said):
    odds = Overfitting(probability=0.0, combinations=12_870, sampled=False, median_logit=1.0)
    rows = [losing(row, -2.0), losing(row, total)]
    text = worth_text(walk_of(rows, overfitting=odds))
    assert ("Every strategy loses" in text) == said
    assert ("About 0.5 is picking at random" in text) != said


def test_means_of_windows_stand_beside_means_and_totals_by_themselves():
    """Ten wins of 1 % a minute in sample; out of sample, two windows of different profits."""
    closed = np.arange(1, 241) * MINUTE
    r = np.ones(240)
    r[60:120], r[180:240] = 0.5, 0.25
    data = walk_forward([trial_of("s", r, closed)], HOURS, "total_pnl", seed=1)
    inside = [window.in_sample for window in data.windows]
    outside = [window.out_of_sample for window in data.windows]
    _, means, together, *_ = forward_lines(data)
    assert means == (
        f"Mean of the windows, total_pnl: {np.mean(inside):.3f} in sample (2 windows of 1 h), "
        f"{np.mean(outside):.3f} out of sample (2 windows of 1 h; those with 30 trades count)."
    )
    total = data.statistics.total_pnl
    assert total == pytest.approx(sum(outside)), "the sum of the windows, and not their mean"
    assert together.startswith(
        f"Out of sample, all test windows together, total_pnl: {total:.3f} over "
    )


def test_every_figure_beside_the_sentence_is_in_every_form_of_a_ranking():
    """Markdown, terminal (within 100 columns), page, table and JSON."""
    rng = np.random.default_rng(3)
    opened = START + np.arange(60) * 20 * MINUTE
    trials = []
    for i in range(3):
        r = rng.normal(0.2, 1, 60)
        span = (START, int(opened[-1]) + 20 * MINUTE)
        trials.append(
            TrialResult(
                strategy_name=f"crossover(fast={i})",
                symbols=("X",),
                since=span[0],
                until=span[1],
                statistics=summarize(r, opened, opened + MINUTE, span),
                trades=TradeColumns.of(r, opened, opened + MINUTE, stop_loss=1.0),
            )
        )
    data = rank(schema_of([one.strategy_name for one in trials]), ("X",), trials)
    best = data.ranking[0]
    report = walker_report(data)
    console = Console(width=100, file=io.StringIO())
    console.print(ranking_table(data))
    screen = console.file.getvalue()
    assert all(f"crossover(fast={i})" in screen for i in range(3)), "nothing is cut"
    assert "95 % interval" in screen
    assert abbreviations(data, wide=True).startswith("95 % interval: as if nothing had been chosen")
    assert abbreviations(data, wide=False).startswith("Adj. p: ")
    page = walk_page(data)
    ends = best.selection_interval
    assert f"95 %: {ends.lower:.3f} to {ends.upper:.3f}, corrected for the choice" in page
    for text in (report, page):
        assert "The interval is not corrected for a strategy" in text
    for value in (best.adjusted_p_value, best.deflated_sharpe, best.probabilistic_sharpe):
        assert f"{value:.3f}" in report
        assert f"{value:.3f}" in screen
        assert json.dumps(value) in page
    assert all(title in page for title in ('"PSR"', '"Trades needed"', '"Adjusted p"'))
    needed = f"{best.minimum_trades:,.0f}"
    assert f"| {needed} |" in report
    assert needed in screen
    for text in (report, page):
        assert "reality check p = " in text
        assert "superior predictive ability p = " in text
        assert "independent trials" in text
        assert "Probability of backtest overfitting: " in text
    columns = data.table().columns
    known = msgspec.json.decode(msgspec.json.encode(data))
    for name in ("adjusted_p_value", "deflated_sharpe", "probabilistic_sharpe", "minimum_trades"):
        assert name in columns
        assert known["ranking"][0][name] == getattr(best, name)
    for name in ("reality_check", "superior_ability", "effective_trials"):
        assert known["test"][name] == getattr(data.test, name)
    assert known["overfitting"]["probability"] == data.overfitting.probability


def test_figures_say_for_how_many_trials_they_are(row):
    report = walker_report(walk_of([row]))
    assert "| Adjusted p | Deflated Sharpe | PSR | Trades | Trades needed |" in report
    assert "The interval is not corrected for a strategy's having been chosen." in report
    assert "Trades needed: for a deflated Sharpe ratio of 0.95." in report


def test_a_walk_forward_that_never_traded_has_no_figures_of_nothing():
    """Two windows that lose: it stands aside in both, and no mean or profit a day is shown."""
    closed = np.arange(1, 241) * MINUTE
    one = trial_of("s", np.where(closed // MINUTE % 2, -1.0, 0.5), closed)
    lines = forward_lines(walk_forward([one], HOURS, "total_pnl", seed=1, least=0.0))
    assert lines[0].startswith("Walking forward never traded")
    assert lines[1].startswith("Had it always traded the best")
    assert lines[2:] == ["The best of 2 train windows: one and the same strategy."]
    lines = forward_lines(walk_forward([one], HOURS, "total_pnl", seed=1))
    assert lines[-1] == "2 windows chose one and the same strategy."


def test_what_benchmarks_say_does_not_flatter_the_best(row):
    hold = BenchmarkRow(kind="hold", name=HOLD, metric_value=0.1, total_pnl=5.0, trades=1, draws=0)
    at_random = BenchmarkRow(
        kind="random",
        name=RANDOM,
        metric_value=0.1,
        percentile_95=0.2,
        share_below=0.995,
        total_pnl=1.0,
        trades=40,
        draws=200,
    )
    good = msgspec.structs.replace(row, metric_value=0.1, error=None)
    data = msgspec.structs.replace(walk_of([good, good, row]), benchmarks=(hold, at_random))
    page = walk_page(data, [])
    assert page.count(f'"name":"benchmark: {HOLD}"') == 1
    assert page.count(f'"name":"benchmark: {RANDOM}, median"') == 1
    held, drawn = benchmark_lines(data)
    assert held == "Buying and holding earned 5.00 % after costs."
    assert drawn.endswith("; the best beats 99.5 % of them, but was chosen out of 2.")
    alone = msgspec.structs.replace(walk_of([good, row]), benchmarks=(at_random,))
    assert benchmark_lines(alone)[0].endswith("; the best beats 99.5 % of them.")


def test_bins_are_told_as_a_length_of_time():
    opened = START + np.arange(60) * 4 * 60 * MINUTE
    r = np.random.default_rng(1).normal(0, 1, 60)
    columns = TradeColumns.of(r, opened, opened + 241 * MINUTE, stop_loss=1.0)
    span = (START, int(columns.closed_at[-1]))
    one = TrialResult(
        strategy_name="s",
        symbols=("X",),
        since=span[0],
        until=span[1],
        statistics=summarize(r, opened, columns.closed_at, span),
        trades=columns,
    )
    line, luck, *_ = lines_of_the_test(rank(schema_of(["s"]), ("X",), [one]))
    assert luck.startswith("How often luck does as well as the one known trial, by its trades")
    assert line == (
        "Tested against no profit, on 59 bins of time of 4 h 4 min each, resampled one by one."
    )
    idle = msgspec.structs.replace(one, strategy_name="idle", trades=TradeColumns.of([], [], []))
    data = rank(schema_of(["s", "idle"]), ("X",), [one, idle])
    assert lines_of_the_test(data)[0] == line, "one that can't be judged is no trial of the test"
    data = rank(schema_of(["s"]), ("X",), [one], tried=3)
    assert lines_of_the_test(data)[0].endswith(
        " The 3 trials that can be judged count as about 3.0 independent trials."
    )
