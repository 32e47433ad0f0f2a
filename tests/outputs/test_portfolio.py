"""What an account shows of itself: tables, JSON, Markdown, the page, the terminal."""

import io
import json
import pickle
import re
from datetime import datetime
from html.parser import HTMLParser
from unittest import mock

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._reports.portfolio import portfolio_report, summary_lines
from backtest_kit._reports.portfolio_data import doubts
from backtest_kit._statistics.equity import AccountStatistics
from backtest_kit._values.events import RiskEvent
from backtest_kit.cli.account_summary import show_account
from backtest_kit.cli.terminal import Console
from effort import examples
from equity_world import START, World, portfolio_of, tick_of

MONTHS = 70 * 1440


def event(note, reason="cash"):
    tick = tick_of(f"a{note}", f"X{note}", 1, START, START)
    return RiskEvent(
        symbol=tick.symbol,
        strategy_name=tick.strategy_name,
        exchange_name="e",
        mode="backtest",
        risk_name="main",
        signal=tick.signal,
        price=100.0,
        timestamp=START,
        active_count=0,
        reason=reason,
        detail=f"12 needed, 3 free{note}",
    )


@pytest.fixture(scope="module")
def result():
    world = World(5, minutes=MONTHS, step=240, leverage=2.0)
    counts = {"refusals": {"size": 1, "cash": 3}, "skips": {"cash": 1}, "reductions": 4}
    return portfolio_of(world, events=[event("")], not_charged=12.5, **counts)


def test_trades_are_in_money_and_in_the_order_of_closing(result):
    table = result.table()
    assert len(table) == result.statistics.total_trades == len(result.trades) > 20
    assert (np.diff(table["closed_at"]) >= 0).all()
    for i, tick in enumerate(result.trades):
        assert table["strategy_name"][i] == tick.strategy_name
        assert table["symbol"][i] == tick.symbol
        assert table["position"][i] == tick.signal.position
        assert table["opened_at"][i] == tick.signal.pending_at
        assert table["close_reason"][i] == "take_profit"
    assert table["profit_percent"] == pytest.approx(table["profit"] / table["cost"] * 100)
    assert {"profit", "fees", "liquidated"} <= {*result.to_pandas().columns}


def test_trades_have_what_the_books_say_of_them(result):
    money = bk.Money(
        quantity=1.0,
        cost=100.0,
        first_cost=100.0,
        fees=0.2,
        slippage=0.1,
        profit=5.0,
        profit_percent=5.0,
        equity_before=900.0,
        equity_after=905.0,
        reduced=True,
        not_charged=3.0,
    )
    first = msgspec.structs.replace(result.trades[0], money=money)
    told = msgspec.structs.replace(result, trades=(first, *result.trades[1:]))
    table = told.table()
    assert (table["equity_before"][0], table["equity_after"][0]) == (900.0, 905.0)
    assert (table["reduced"][0], table["not_charged"][0]) == (True, 3.0)
    assert not table["reduced"][1]
    assert np.isnan(table["equity_after"][1])
    assert "| take_profit (reduced) |" in portfolio_report(told)


def test_profits_are_those_of_the_runs(result):
    by_strategy = {part.name: part.profit for part in result.parts if part.kind == "strategy"}
    assert result.profits[0] + result.profits[2] == pytest.approx(by_strategy["a"])
    assert result.profits[1] == pytest.approx(by_strategy["b"])
    assert result.names == (("a", "X"), ("b", "X"), ("a", "Y"))


def test_returns_are_indexed_by_dates(result):
    pd = pytest.importorskip("pandas")
    returns, held = result.returns(), result.benchmark_returns()
    assert returns.index.tz is None
    assert returns.index[0] == pd.Timestamp("2024-01-01")
    assert (returns.index == held.index).all()
    assert len(returns) == result.statistics.days == 70
    final = result.statistics.balance * (1 + returns).prod()
    assert final == pytest.approx(result.statistics.final_equity)
    assert result.benchmark[-1] == pytest.approx(result.statistics.balance * (1 + held).prod())


def test_the_monthly_table_compounds_days(result):
    pd = pytest.importorskip("pandas")
    months, returns = result.monthly(), result.returns()
    assert months.index.tolist() == [2024]
    assert [*months.columns[:2], months.columns[-1]] == ["Jan", "Feb", "Year"]
    assert months.loc[2024, "Feb"] == pytest.approx(((1 + returns["2024-02"]).prod() - 1) * 100)
    assert months.loc[2024, "Year"] == pytest.approx(result.statistics.growth_percent)
    assert months.loc[2024].isna().sum() == 9
    assert isinstance(months, pd.DataFrame)


def test_json_holds_all_and_a_thinned_curve(result):
    long = portfolio_of(World(6, minutes=5 * 1440, runs=(("a", "X"),), activity=0.01))
    found = json.loads(long.to_json())
    curve = found["curve"]
    assert {len(column) for column in curve.values()} == {len(curve["timestamp"])}
    assert 1000 < len(curve["timestamp"]) <= 2002 < len(long.curve)
    assert max(curve["equity"]) == long.curve.equity.max()
    assert min(curve["equity"]) == long.curve.equity.min()
    assert found["returns"]["2024-01-02"] == long.daily.returns[1]
    assert found["monthly"]["2024"][1] is None
    assert found["runs"][0]["signals"] == []
    assert len(found["trades"]) == long.statistics.total_trades
    read = msgspec.convert(found["statistics"], AccountStatistics)
    assert read == long.statistics
    assert json.loads(result.to_json())["refusals"][0]["detail"] == "12 needed, 3 free"


def test_a_result_compares_and_travels(result):
    again = pickle.loads(pickle.dumps(result))
    assert again == result
    assert again != portfolio_of(World(5, minutes=1440, step=240))
    assert repr(result).startswith("<PortfolioResult: main, 3 runs, 2024-01-01T00:00Z to ")
    with pytest.raises(AttributeError):
        result.since = 0


def test_the_report_says_what_came_out_and_what_to_trust(result):
    text = portfolio_report(result)
    s = result.statistics
    assert text.startswith("# Account main\n")
    for line in (
        "10,000.00 USDT, leverage 2",
        "Runs: a on X, b on X, a on Y",
        "funding of perpetual futures, interest on what is borrowed",
        "margin tiers and cross margin",
        "Short positions cost fees alone",
        "12.50 USDT, were not charged",
        "reduced for want of cash: 4",
        "### a on Y",
        f"| b | {result.profits[1]:,.2f} |  |",
        "| refused | cash | 3 |",
        "| skipped | cash | 1 |",
        "12 needed, 3 free",
        f"| Growth | {s.growth_percent:,.2f} % |",
        f"| 2024 | {result.months()[1][0, 0]:.2f} |",
    ):
        assert line in text, line
    trades = text.split("## Trades")[1]
    assert trades.count("\n| 2024-") == s.total_trades


def test_nothing_is_said_to_be_left_out_that_does_not_concern_it():
    world = World(1, minutes=1440, step=60, activity=0.0)
    text = portfolio_report(portfolio_of(world))
    assert "Not modelled" not in text
    assert "## Trades" not in text
    assert "Refused" not in text


def test_markets_are_told(result):
    known = bk.Market(base="X", quote="USDT", quantity_step=0.1, taker_percent=0.05)
    told = msgspec.structs.replace(result, markets={"X": known, "Y": None})
    text = portfolio_report(told)
    assert "The exchange says nothing of Y: sizes are not rounded" in text
    assert "What Y is quoted in is not known, and was taken for USDT." in text
    assert "Sizes follow today's rules of X, also in the past." in text
    assert "Fees of X are taker 0.05 % there; the assumed ones count." in text


def test_what_nobody_should_miss_stands_first(result):
    runs = [
        msgspec.structs.replace(result.runs[0], complete=False, data_ended_at=START),
        msgspec.structs.replace(result.runs[1], complete=False, data_ended_at=START),
        msgspec.structs.replace(result.runs[2], complete=False, error_count=2),
    ]
    s = msgspec.structs.replace(result.statistics, ruined=True, liquidations=3)
    lines = doubts(msgspec.structs.replace(result, runs=tuple(runs), statistics=s))
    assert lines == [
        "The account was ruined: its equity fell to 0 or below.",
        "The data of X ended at 2024-01-01T00:00Z, before the frame did.",
        "a on Y did not reach its end.",
        "2 errors happened; see how far to trust this.",
        "3 positions were liquidated.",
    ]
    failed = msgspec.structs.replace(result.runs[0], ended_by="DataError: gone")
    told = msgspec.structs.replace(result, runs=(failed, *result.runs[1:]))
    assert doubts(told) == ["a on X failed: DataError: gone"]


def test_the_terminal_shows_the_curve_and_the_figures(result):
    out = io.StringIO()
    show_account(result, Console(file=out, width=200))
    lines = out.getvalue().splitlines()
    assert any(line.startswith("Final equity") and "USDT, from 10,000.00" in line for line in lines)
    assert any("3 refused: cash, 1 refused: size, 1 skipped: cash" in line for line in lines)
    assert re.search("[▁▂▃▄▅▆▇█]{60}", out.getvalue())
    drawdown = dict(summary_lines(result))["Drawdown"]
    began = datetime.fromisoformat(drawdown[:16]).timestamp()
    assert began <= datetime.fromisoformat(drawdown.split(" to ")[1][:16]).timestamp()


def test_a_notebook_shows_figures_and_the_curve(result):
    html = result._repr_html_()
    assert "<svg" in html
    assert "Account main" in html
    assert "final equity" in html.lower()


nasty = st.lists(
    st.sampled_from(
        [
            "</script>",
            "<img src=x onerror=alert(1)>",
            '"',
            "'",
            "&lt;",
            "<!--",
            "\u2028",
            "$$x$$",
            "[a](javascript:alert(1))",
            "|",
            "`",
            "*b*",
            "\n# t\n",
            "é",
        ]
    ),
    max_size=4,
).map("".join)


@examples(5)
@given(nasty)
def test_text_of_users_is_only_text(note):
    pytest.importorskip("bokeh", reason="needs the extra report")
    from backtest_kit._pages.portfolio_page import portfolio_page

    place = "backtest_kit._pages.page"
    world = World(5, minutes=2 * 1440, step=240)
    with (
        mock.patch(f"{place}._bokeh", return_value="0"),
        mock.patch(f"{place}._json_item", return_value={}),
    ):
        page = portfolio_page(
            portfolio_of(world, note, [event(note)], skips={f"cash{note}": 1, "x": 1})
        )
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, attributes))
    parser.feed(page)
    kinds = [tag for tag, _ in found]
    assert not {*kinds} & {"img", "iframe", "object", "embed", "form"}
    assert not [name for _, names in found for name, _ in names if name.startswith("on")]
    assert [names for tag, names in found if tag == "a"] == [[("class", "skip"), ("href", "#main")]]
    assert kinds.count("script") == 6
    for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL):
        json.loads(text)
        assert not re.search("[<>\u2028\u2029]", text)


def test_the_page_and_the_figure(result, tmp_path):
    pytest.importorskip("bokeh", reason="needs the extra report")
    from bokeh.embed import file_html
    from bokeh.models import ColumnDataSource

    path = result.report(tmp_path / "pages" / "account.html")
    text = path.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    for words in ("Who earned it", "Returns by month", "Correlations", "Refused and skipped"):
        assert words in text
    figure = result.plot()
    sources = [source.data for source in figure.select({"type": ColumnDataSource})]
    highest = max(float(np.max(data["y"])) for data in sources if "y" in data)
    assert highest >= result.curve.equity.max()
    assert "<!DOCTYPE html>" in file_html(figure, "inline")
