"""Windows run for themselves are lone backtests; benchmarks stand beside, and never win."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit._engine.engine import current_engine
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.profit import profit
from backtest_kit._statistics.benchmarks import Market, hold_profits, random_profits
from backtest_kit._statistics.choosing import OwnRuns
from backtest_kit._statistics.figures import metric
from backtest_kit._values.config import Config
from backtest_kit._values.windows import Window
from backtest_kit._walker.benchmarks import benchmark_bins, compared_with, load_markets
from markets import MINUTE, START, market

BEGIN = datetime.fromtimestamp(START / 1000, UTC) + timedelta(minutes=30)
HOUR = 60 * MINUTE
WINDOWS = bk.Windows(
    train=timedelta(hours=12), test=timedelta(hours=6), embargo=timedelta(minutes=7), fresh=True
)


class Counting:
    """Keeps how often it was asked: its answers depend on when the run began."""

    def __init__(self):
        self.asked = 0

    def get_signal(self, symbol, when):
        self.asked += 1
        price = bk.average_price(symbol)
        side = "long" if self.asked % 3 else "short"
        up = 1 if side == "long" else -1
        return bk.Signal(
            position=side,
            price_take_profit=price * (1 + up * 0.012),
            price_stop_loss=price * (1 - up * 0.008),
            minute_estimated_time=5 + self.asked % 20,
        )


def every(count):
    def get_signals(candles):
        side = np.where(candles.timestamp // (5 * MINUTE) % count == 0, 1, 0)
        return bk.Signals.bracket(side, 1.0, 0.7, 30)

    return get_signals


def register(windows=None, hours=40, **walker):
    bk.set_config(fill_price="average", percent_fee=0.02)
    rows = market(1, hours * 60 + 90, gaps=False)
    bk.add_exchange(bk.exchanges.FrameExchange(rows, exchange_name="e"))
    end = BEGIN + timedelta(hours=hours) - timedelta(minutes=1)
    bk.add_frame(frame_name="f", interval="1m", start_date=BEGIN, end_date=end)
    bk.add_strategy(strategy_name="counting", interval="5m", make=Counting)
    for count in (3, 4):
        bk.add_strategy(
            strategy_name=f"every {count}", interval="5m", get_signals=every(count), warmup=1
        )
    names = ["counting", "every 3", "every 4"]
    bk.add_walker(
        **{
            "walker_name": "w",
            "exchange_name": "e",
            "frame_name": "f",
            "strategies": names,
            "windows": windows,
            "metric": "avg_pnl",
        }
        | walker
    )
    return names


def walked():
    bk.Walker.run_sync("X", walker_name="w")
    return bk.Walker.get_data("X", walker_name="w")


@pytest.mark.parametrize(
    "windows",
    [WINDOWS, bk.Windows(combinatorial=(4, 2), fresh=True, purge=timedelta(minutes=45))],
    ids=["forward", "combinatorial"],
)
def test_a_window_that_is_run_for_itself_is_a_lone_backtest_over_it(windows):
    register(windows)
    data = walked()
    line = current_engine().frames.get("f").timeline
    parts = windows.parts(line)
    assert len(parts) > 4
    for trial in data.trials_kept:
        assert [Window(run.since, run.until) for run in trial.window_runs] == parts
        for part in parts:
            bk.add_frame(
                frame_name="alone",
                interval="1m",
                start_date=datetime.fromtimestamp(part.since / 1000, UTC),
                end_date=datetime.fromtimestamp(part.until / 1000 - 60, UTC),
                replace=True,
            )
            alone = bk.Backtest.run_sync(
                "X", strategy_name=trial.strategy_name, exchange_name="e", frame_name="alone"
            )
            trades = OwnRuns([trial]).one(0, part)
            assert OwnRuns([trial]).brackets(0, [part]).count == len(trades.r)
            assert trades.r.tolist() == [tick.pnl.pnl_percentage for tick in alone]
            assert trades.opened.tolist() == [tick.signal.pending_at for tick in alone]
            assert trades.closed.tolist() == [tick.close_timestamp for tick in alone]


def test_both_figures_are_shown_and_what_is_chosen_has_its_own_runs_figures():
    register(changed(WINDOWS, min_metric=-50.0))
    data = walked()
    forward = data.walk_forward
    assert forward.fresh.windows != forward.windows, "the state crosses no border"
    trials = {trial.strategy_name: trial for trial in data.trials_kept}
    for window in forward.fresh.windows:
        assert window.aside is None
        test = Window(window.test_since, window.test_until)
        own = OwnRuns([trials[window.strategy_name]]).one(0, test)
        assert window.out_of_sample_trades + window.overlapping == len(own.r)
    report = bk.Walker.get_report("X", walker_name="w")
    assert forward.sentence in report
    assert "With each window run for itself, from clean state: avg_pnl" in report


def changed(windows, **changes):
    fields = {name: getattr(windows, name) for name in windows.__struct_fields__}
    return bk.Windows(**(fields | changes))


def test_a_run_of_a_window_that_fails_is_told_and_the_rest_counts():
    class Failing(Counting):
        def get_signal(self, symbol, when):
            if when >= BEGIN + timedelta(hours=18) and self.asked == 0:
                raise RuntimeError("began too late")
            return super().get_signal(symbol, when)

    register(changed(WINDOWS, min_metric=-50.0))
    bk.add_strategy(strategy_name="counting", interval="5m", make=Failing, replace=True)
    data = walked()
    failed = data.walk_forward.fresh.failed
    assert failed
    assert all("counting from 2024-01-0" in text for text in failed)
    assert "began too late" in failed[0]
    assert f"Runs of single windows that failed: {len(failed)}" in bk.Walker.get_report(
        "X", walker_name="w"
    )


def test_it_stands_aside_where_nothing_is_good_enough_and_that_counts():
    register(changed(WINDOWS, fresh=False, min_metric=99.0))
    data = walked()
    forward = data.walk_forward
    assert {window.aside for window in forward.windows} == {"below min_metric"}
    assert forward.stood_aside == len(forward.windows)
    assert forward.outcome == "stood aside"
    assert forward.statistics.total_signals == 0
    assert forward.always.statistics.total_signals > 30
    report = bk.Walker.get_report("X", walker_name="w")
    assert "(stood aside: below min_metric)" in report
    assert "Had it always traded the best: avg_pnl" in report


def test_groups_that_were_tested_are_reported():
    register(bk.Windows(combinatorial=(6, 2)))
    crossed = walked().cross_validation
    assert (len(crossed.splits), len(crossed.paths)) == (15, 5)
    report = bk.Walker.get_report("X", walker_name="w")
    assert "## Cross-validation" in report
    assert "6 groups, 15 splits, 5 paths" in report


@pytest.mark.parametrize("name", ["avg_pnl", "total_pnl", "sharpe_ratio"])
def test_benchmarks_stand_beside_a_ranking_and_never_win(name):
    names = register(metric=name)
    data = walked()
    hold, random = data.benchmarks
    assert (hold.kind, random.kind) == ("hold", "random")
    assert {row.strategy_name for row in data.ranking} == set(names)
    assert data.trials == data.strategies_tested == len(names)
    assert data.best_strategy in names
    best = data.ranking[0].statistics
    assert hold.trades == random.trades == best.total_signals
    assert random.metric_value <= random.percentile_95
    assert 0 <= random.share_below <= 1
    report = bk.Walker.get_report("X", walker_name="w")
    assert "| benchmark: buy and hold |" in report
    assert "| benchmark: random entries, median |" in report
    assert bk.Walker.get_data("X", walker_name="w") == data


async def test_holding_adds_up_to_one_trade_and_bins_to_the_whole():
    register()
    setup, trials = await ran()
    (one,) = markets = await load_markets(setup)
    bars, line, config = one
    bought, sold = bars.fill[bars.row(line[0])], bars.fill[bars.row(line[-1])]
    whole = profit("long", bought, sold, config.percent_fee, config.percent_slippage)
    for count in (1, 2, 7, 500):
        edges = np.linspace(line[0], line[-1], count + 1).astype(np.int64)
        parts = hold_profits(one, edges)
        assert parts.shape == (count,)
        assert parts.sum() == pytest.approx(whole)
        for trial in trials:
            t = trial.trades
            given = markets, t.symbol, t.closed_at - t.opened_at, trial.brackets
            of_one = random_profits(*given, edges, 3, 20)
            assert of_one.sum() == pytest.approx(random_profits(*given, edges[[0, -1]], 3, 20)[0])
    hold = benchmark_bins(markets, "hold", trials)
    random = benchmark_bins(markets, "random", trials)
    assert (hold("counting", edges) == hold("every 3", edges)).all()
    assert (random("counting", edges) != random("every 3", edges)).any()
    assert benchmark_bins(markets, 0, trials) is None


async def ran():
    walk = current_engine().walks
    async for _ in bk.Walker.run("X", walker_name="w"):
        pass
    found = walk["w", ("X",)]
    return found._setup, found.results


async def test_a_copy_of_the_best_changes_no_draw():
    register()
    setup, trials = await ran()
    rows = await compared_with(setup, trials, "avg_pnl")
    assert rows == await compared_with(setup, [*trials, trials[0]], "avg_pnl")
    best = max(trials, key=lambda trial: metric(trial.statistics, "avg_pnl"))
    assert rows == await compared_with(setup, [best], "avg_pnl")


def test_a_walk_whose_strategies_all_fail_has_no_benchmarks():
    def fails(symbol, when):
        raise RuntimeError("no idea")

    register()
    for name in ("counting", "every 3", "every 4"):
        bk.add_strategy(strategy_name=name, interval="5m", get_signal=fails, replace=True)
    assert walked().benchmarks == ()


def test_a_market_without_an_average_price_at_first_can_be_held():
    close = np.array([np.nan, 100.0, 110.0, 121.0])
    bars = Bars(START + MINUTE, close, close, close, close, close)
    line = range(START + MINUTE, START + 5 * MINUTE, MINUTE)
    config = Config(percent_fee=0.0, percent_slippage=0.0)
    edges = np.array([line[0], line[2], line[3]])
    assert hold_profits(Market(bars, line, config), edges).tolist() == pytest.approx([10.0, 11.0])


@pytest.mark.parametrize("benchmark", ["hold", "random"])
def test_a_walk_is_tested_against_its_benchmark(benchmark):
    register(benchmark=benchmark)
    against = walked()
    bk.add_walker(
        walker_name="w",
        exchange_name="e",
        frame_name="f",
        strategies=["counting", "every 3", "every 4"],
        metric="avg_pnl",
        replace=True,
    )
    assert walked().test != against.test
    assert against.best_strategy == walked().best_strategy
