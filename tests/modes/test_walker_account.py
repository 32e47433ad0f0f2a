"""Walks with the money of an account."""

import io
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit._backtest.account_session import AccountSession
from backtest_kit._reports.walk_accounts import account_rows
from backtest_kit._reports.walker import rank_cells
from backtest_kit._statistics.ranking import WalkerData
from backtest_kit._values.schemas import ACCOUNT_METRICS
from backtest_kit.cli.terminal import Console
from backtest_kit.cli.walk_tables import money_table, ranking_table
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
    report = bk.Walker.get_report(["A", "B"], walker_name="w")
    assert "account_calmar" in report
    assert "Each strategy begins with 1,000.00 USDT, leverage 1; all symbols share it." in report
    assert "## By symbol, sum of percents" in report
    best = trials[data.best_strategy].account
    (told,) = [
        line
        for line in report.splitlines()
        if line.startswith(f"| {data.best_strategy} | {best.final_equity:,.2f}")
    ]
    assert f"| {best.max_drawdown_percent:.2f} |" in told
    table = data.table()
    assert table["account_final_equity"][0] == best.final_equity
    assert np.isnan(table["account_final_equity"][-1]), "nobody played the benchmarks"
    assert msgspec.json.decode(msgspec.json.encode(data), type=WalkerData) == data
    assert [row.metric_value for row in data.benchmarks] == [None, None]
    assert all(row.total_pnl is not None for row in data.benchmarks)


def test_each_strategy_begins_with_the_balance_and_keeps_its_percents():
    register("sharpe_ratio")
    alone = walk("A")
    bk.add_walker(
        walker_name="w", exchange_name="frame", frame_name="f",
        strategies=["s11", "s17", "s29"], replace=True,
    )  # fmt: skip
    plain = walk("A")
    assert all(row.account is not None for row in alone.ranking)
    without = tuple(msgspec.structs.replace(row, account=None) for row in alone.ranking)
    assert plain.ranking == without
    assert (plain.account, alone.account.balance) == (None, 1_000.0)
    with pytest.raises(bk.UnknownNameError):  # a trial is no portfolio of the user's
        bk.Portfolio.get_data(account_name="main")


@pytest.mark.slow
def test_workers_find_the_same():
    pytest.importorskip("cloudpickle")
    register("account_growth")
    here = walk("A")
    assert walk("A", executor="processes") == here


def test_trials_over_arrays_wait_for_no_turns(monkeypatch):
    """That they come to the same is a property of its own."""
    register("account_growth")
    times = {"start_date": BEGIN + timedelta(hours=1), "end_date": BEGIN + timedelta(hours=40)}
    bk.add_frame(frame_name="f", interval="1m", replace=True, **times)

    async def play(self, tell=None):
        raise AssertionError("it has been played in turns")

    monkeypatch.setattr(AccountSession, "play", play)
    data = walk(["A", "B"])
    assert [row.error for row in data.ranking] == [None] * 3


def test_compare_plays_with_an_account_as_a_walk_does():
    register("account_growth")
    walked = walk(["A", "B"])
    rows = [list(row) for row in market(5, 4000, gaps=False)]
    how = {"symbol": ["A", "B"], "metric": "account_growth", "end": BEGIN + timedelta(minutes=3500)}
    names = ["s11", "s17", "s29"]
    data = bk.exchanges.FrameExchange(rows)
    compared = bk.compare(data, names, start=BEGIN, account="main", **how)
    assert compared.ranking == walked.ranking
    schema = bk.AccountSchema(account_name="other", currency="USDT", balance=1_000.0)
    assert bk.compare(data, names, start=BEGIN, account=schema, **how).ranking == walked.ranking
    with pytest.raises(
        bk.RegistrationError, match=r"account=1000 must be the name of a registered"
    ):
        bk.compare(data, names, account=1000, **how)
    with pytest.raises(bk.UnknownNameError, match="unknown account 'min'; did you mean 'main'"):
        bk.compare(data, names, account="min", **how)
    with pytest.raises(bk.RegistrationError, match="metric='account_growth' needs an account"):
        bk.compare(data, names, **how)


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("metric", ["annualized_sharpe_ratio", "account_max_drawdown_percent"])
def test_no_figure_is_cut_or_broken_on_a_terminal(width, metric):
    with bk.Engine():
        register(metric)
        data = walk("A")
    renamed = [
        msgspec.structs.replace(row, strategy_name=f"{row.strategy_name}(" + "x" * 40)
        for row in data.ranking
    ]
    data = msgspec.structs.replace(data, ranking=tuple(renamed))
    console = Console(width=width, file=io.StringIO())
    console.print(ranking_table(data, wide=width >= 100))
    console.print(money_table(data))
    lines = console.file.getvalue().splitlines()
    for row, money in zip(data.ranking, account_rows(data), strict=True):
        _, name, value, interval, *others = rank_cells(row)
        if width < 100:
            others = [others[0], others[1], others[3]]  # adjusted p, DSR, trades
        elif metric == "annualized_sharpe_ratio":
            others = [*interval.split(), *others]
        (line,) = (x.split() for x in lines if name[:8] in x and x.split()[0].isdigit())
        assert line[2:] == [value, *others]
        (line,) = (x.split() for x in lines if x.lstrip().startswith(name[:8]))
        assert line[1:] == [money[at] for at in (1, 2, 4, 6, 7)]


def test_its_page_shows_what_the_money_came_to(tmp_path):
    pytest.importorskip("bokeh")
    register("account_growth")
    page = walk("A").report(tmp_path / "walk.html").read_text()
    assert "What the money came to" in page
    assert "Final equity of the best" in page


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
