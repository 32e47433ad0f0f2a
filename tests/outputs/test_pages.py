"""HTML pages without a browser: what user text can do, and figures that pages have alone."""

import json
import re
import sys
from html.parser import HTMLParser
from importlib.resources import files
from unittest import mock

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("bokeh", reason="needs the extra report")

from bokeh.embed import file_html
from bokeh.models import ColumnDataSource

import backtest_kit as bk
from backtest_kit._engine.record import RunRecord
from backtest_kit._pages.backtest_page import backtest_page
from backtest_kit._pages.candle_data import packed_candles
from backtest_kit._pages.charts import drawdowns
from backtest_kit._pages.colors import DARK, LIGHT
from backtest_kit._pages.figure import backtest_figure
from backtest_kit._pages.live_page import live_page
from backtest_kit._pages.months import monthly
from backtest_kit._pages.page import json_text, markdown, table
from backtest_kit._pages.walk_page import walk_page
from backtest_kit._reports.backtest import backtest_data
from backtest_kit._reports.live import live_data
from backtest_kit._statistics.plateau import Plateau, grid_points, plateau
from backtest_kit._statistics.ranking import rank
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.events import ErrorEvent
from backtest_kit._values.results import ProfitLoss, TickClosed
from backtest_kit._values.schemas import WalkerSchema
from backtest_kit._values.signal import SignalRow
from command import one_line, run_here
from effort import examples

START, HOUR = 1_704_067_200_000, 3_600_000
PIECES = [
    "</script>",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="x',
    "'",
    "&lt;",
    "<!--",
    "]]>",
    "\u2028",
    "\u2029",
    "$$x$$",
    "[a](javascript:alert(1))",
    "![b](http://example.com/b.png)",
    "<http://example.com>",
    "\\",
    "`",
    "\n# t\n",
    "\x00",
    "\ud7ff",
    "é",
]
nasty = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=4).map("".join)
names = nasty.map(lambda text: f"n{text}")


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.found, self.scripts, self._script = [], [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        if self._script:
            self.scripts[-1] += data


def closed(symbol, strategy, note):
    row = SignalRow(
        id="1",
        symbol=symbol,
        strategy_name=strategy,
        exchange_name="e",
        position="long",
        price_open=100.0,
        price_take_profit=110.0,
        price_stop_loss=90.0,
        minute_estimated_time=600,
        scheduled_at=START,
        pending_at=START,
        note=note,
    )
    return TickClosed(
        symbol=symbol,
        strategy_name=strategy,
        exchange_name="e",
        timestamp=START + HOUR,
        current_price=101.0,
        signal=row,
        close_reason="take_profit",
        close_timestamp=START + HOUR,
        pnl=ProfitLoss(1.0, 100.0, 101.0),
    )


def record_of(symbol, strategy, note, mode="backtest"):
    record = RunRecord(
        symbol=symbol,
        strategy_name=strategy,
        exchange_name="e",
        frame_name=strategy,
        mode=mode,
        config=bk.get_config(),
        since=START,
        until=START + 3 * HOUR,
    )
    record.add(closed(symbol, strategy, note))
    error = ValueError(note)
    record.error(ErrorEvent(where="get_signal", error=error, symbol=symbol, when=START))
    return record


def walk_of(values, metric="sharpe_ratio"):
    """A walk over strategies of names with these metrics, without any trades."""
    trials = [TrialResult(strategy_name=name, symbols=("X",), error=name) for name in values]
    strategies = [*values] or ["none"]
    names = {"exchange_name": "e", "frame_name": "f"}
    schema = WalkerSchema(walker_name="w", strategies=strategies, metric=metric, **names)
    data = rank(schema, ("X",), trials)
    rows = [msgspec.structs.replace(r, metric_value=values[r.strategy_name]) for r in data.ranking]
    rows.sort(key=lambda row: -(-np.inf if row.metric_value is None else row.metric_value))
    return msgspec.structs.replace(data, ranking=tuple(rows))


def pages_of(symbol, strategy, note):
    """The three pages, with text of users wherever it can stand."""
    data = backtest_data(record_of(symbol, strategy, note))
    yield backtest_page(data)
    yield live_page([live_data(record_of(symbol, strategy, note, mode="live"))])
    walk = walk_of({strategy: 1.0, f"{strategy}(a=1)": 0.5, f"{strategy}(a=2)": 0.2})
    yield walk_page(msgspec.structs.replace(walk, walker_name=note or "w", symbols=(symbol,)))


@pytest.fixture(scope="module")
def harmless():
    """The elements of the pages where all text of users is plain.

    Without Bokeh's script and charts, which hold no text of users, and take their time.
    """
    place = "backtest_kit._pages.page"
    with (
        mock.patch(f"{place}._bokeh", return_value="0"),
        mock.patch(f"{place}._json_item", return_value={}),
    ):
        yield [Elements(page).found for page in pages_of("X", "s", "note")]


@examples(10)
@given(symbol=names, strategy=names, note=nasty)
def test_text_of_users_is_only_text(harmless, symbol, strategy, note):
    for plain, page in zip(harmless, pages_of(symbol, strategy, note), strict=True):
        elements = Elements(page)
        kinds = {tag for tag, _ in elements.found}
        assert kinds <= {tag for tag, _ in plain} | {"p", "ul", "ol", "li", "strong", "em", "table"}
        events = [a for _, attributes in elements.found for a in attributes if a.startswith("on")]
        assert events == []
        assert not kinds & {"img", "a href", "iframe", "object", "embed", "form"}
        assert len(elements.scripts) == 6
        for text in elements.scripts[:2]:
            json.loads(text)
            assert not re.search("[<>\u2028\u2029]", text)


@given(nasty)
def test_json_in_a_script_is_the_same_text(text):
    safe = json_text({"a": text})
    assert not re.search("[<>&\u2028\u2029]", safe)
    assert json.loads(safe) == {"a": text}


@given(nasty)
def test_markdown_and_tables_hold_text(text):
    shown = Elements(markdown(f"- {text}") + table((text,), [(text,)]))
    assert {tag for tag, _ in shown.found} <= {
        *("p", "ul", "ol", "li", "strong", "em", "table", "thead", "tbody", "tr", "th", "td"),
    }


def test_a_page_without_bokeh_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bokeh", None)
    data = backtest_data(record_of("X", "s", ""))
    with pytest.raises(bk.BacktestKitError, match=r"pip install 'backtest-kit\[report\]'"):
        backtest_page(data)
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(data))
    done = run_here("report", "a.json", "--html", "a.html", cwd=tmp_path)
    one_line(done, "HTML reports need Bokeh")


def test_report_makes_the_page_of_a_file(tmp_path):
    found = {
        "backtest": backtest_data(record_of("X", "s", "")),
        "live": live_data(record_of("X", "s", "", mode="live")),
        "walk": walk_of({"s(a=1)": 1.0, "s(a=2)": None}),
    }
    for name, data in found.items():
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(data))
        page = f"pages/{name}.html"
        assert run_here("report", f"{name}.json", "--html", page, cwd=tmp_path).returncode == 0
        assert (tmp_path / page).read_text("utf-8").startswith("<!doctype html>")


def test_the_page_of_a_long_walk_has_every_row_and_opens_few():
    walk = walk_of({f"s{i}": 1.0 - i / 1000 for i in range(120)})
    page = walk_page(walk)
    data = json.loads(Elements(page).scripts[0])
    assert [row["name"] for row in data["rows"]] == [row.strategy_name for row in walk.ranking]
    failed = page.split('id="failed"')[1]
    seen, folded = failed.split("<details><summary>70 more</summary>")
    assert seen.count("<tr>") == 1 + 50
    assert folded.split("</details>")[0].count("<tr>") == 1 + 70
    text = (files("backtest_kit._pages") / "assets" / "walk.js").read_text()
    assert "{ page: 50 }" in text, "so many rows of the ranking at a time"


def test_a_page_without_a_trade():
    record = record_of("X", "s", "")
    record._closed.clear()
    text = backtest_page(backtest_data(record))
    assert "Too few trades to say anything about the strategy: 0." in text


def test_figures_hold_candles_and_trades():
    t = START + np.arange(4000) * 60_000
    price = 100 + np.sin(np.arange(4000) / 50)
    candles = bk.Candles(t, price, price + 1, price - 1, price + 0.1, price)
    data = backtest_data(record_of("X", "s", ""))
    figure = backtest_figure(data, candles)
    sources = {source.name: source.data for source in figure.select({"type": ColumnDataSource})}
    hours = candles.resample("3m")
    assert len(sources["candles_up"]["x"]) + len(sources["candles_down"]["x"]) == len(hours)
    assert sources["paths"] == {"x0": [START], "y0": [100], "x1": [START + HOUR], "y1": [101]}
    assert [*sources["long_entries"]["x"]] == [START]
    assert [*sources["exits_take_profit"]["y"]] == [101]
    assert len(sources["short_entries"]["x"]) == len(sources["exits_stop_loss"]["x"]) == 0
    for shown in (figure, backtest_figure(data)):
        assert "<!DOCTYPE html>" in file_html(shown, "inline")


def test_plateau_is_what_is_left_one_step_away():
    values = {
        f"s(a={a}, b={b})": 10 - abs(a - 2) - abs(b - 20) / 5 for a in (1, 2, 4) for b in (10, 20)
    }
    found = plateau(walk_of(values))
    left = {(n.parameter, n.moved): n.share for n in found.neighbours}
    assert left == {("a", 1): 0.9, ("a", 4): 0.8, ("b", 10): 0.8}
    assert (found.least_share, found.mean_share) == (0.8, pytest.approx(2.5 / 3))
    assert msgspec.json.decode(found.to_json(), type=Plateau) == found


def test_parameters_are_read_from_names_of_a_grid_alone():
    names = [
        "s(a=1, b='x')",
        "s(a=10, b='y')",
        "s(a=2, b=None)",
        "other(c=1)",
        "plain",
        "f(x)",
        "s(",
    ]
    points = grid_points(walk_of({name: -i for i, name in enumerate(names)}))
    assert [point.parameters for point in points] == [
        {"a": 1, "b": "'x'"},
        {"a": 10, "b": "'y'"},
        {"a": 2, "b": "None"},
    ]
    assert plateau(walk_of({"plain": 1.0})) is None


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=30))
def test_months_and_drawdowns_add_up(profits):
    at = START + np.arange(len(profits)) * 400 * HOUR
    months = monthly(at, np.array(profits))
    assert sum(month.trades for month in months) == len(profits)
    assert sum(month.total for month in months) == pytest.approx(sum(profits), abs=1e-9)
    peak = equity = 1.0
    for profit, shown in zip(profits, drawdowns(np.array(profits)).tolist(), strict=True):
        equity *= 1 + profit / 100
        peak = max(peak, equity)
        assert shown == pytest.approx((equity / peak - 1) * 100, abs=1e-9)


def test_candles_that_are_too_many_are_thinned(monkeypatch):
    monkeypatch.setattr("backtest_kit._pages.candle_data.MOST_CANDLES", 100)
    t = START + np.arange(600) * 60_000
    price = 100 + np.arange(600) / 7
    packed = packed_candles(bk.Candles(t, price, price + 1, price - 1, price, price))
    assert (packed["step"], packed["rows"]) == (15 * 60_000, 40)
    assert packed["ladder"][0] == 30 * 60_000


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_text_stands_out_from_its_background(colors):
    def luminance(name):
        parts = [int(colors[name][i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return np.dot(linear, (0.2126, 0.7152, 0.0722))

    for text in ("text", "muted", "accent", "up", "down", "warn"):
        for background in ("page", "surface"):
            one, other = sorted((luminance(text), luminance(background)))
            assert (other + 0.05) / (one + 0.05) >= 4.5, (text, background)
