"""What runs return shows itself: figures, pages, notebooks."""

import asyncio
import gc
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from unittest import mock

import msgspec
import numpy as np
import pandas as pd
import pytest

import backtest_kit as bk
from backtest_kit._reports.backtest import BacktestData
from backtest_kit._reports.notebook import curve_svg, sparkline
from backtest_kit._values.candles import COLUMNS
from markets import MINUTE, market

ROWS = market(5, 3000, gaps=False)


def up(candles, every=7):
    side = (candles.timestamp // (5 * MINUTE) % every == 0).astype(np.int8)
    return bk.Signals.bracket(side, 0.8, 0.6, 30)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "BTCUSDT.parquet"
    pd.DataFrame(ROWS, columns=COLUMNS).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def result(path):
    return bk.backtest(path, up, interval="5m", balance=500.0)


def test_a_result_is_a_figure_and_a_page_with_its_candles(result, tmp_path):
    pytest.importorskip("bokeh", reason="needs the extra report")
    from bokeh.models import ColumnDataSource

    sources = {s.name: s.data for s in result.plot().select({"type": ColumnDataSource})}
    bodies = len(sources["candles_up"]["x"]) + len(sources["candles_down"]["x"])
    assert bodies > len(ROWS) / 60
    assert len(sources["long_entries"]["x"]) == len(result.trades) > 20
    page = result.report(tmp_path / "deep" / "page.html")
    assert page == tmp_path / "deep" / "page.html"
    assert '"packed":' in page.read_text()
    assert "Buy and hold" in page.read_text()


def test_the_candles_come_from_the_data_not_from_what_a_later_run_registered(result):
    first = result.sensitivity()
    assert first.buy_and_hold == pytest.approx(
        (ROWS[-1][4] / next(r[1] for r in ROWS if r[0] >= result.since) - 1) * 100, rel=0.01
    )
    with bk.Engine():
        bk.add_exchange(bk.exchanges.SyntheticExchange(seed=1, exchange_name="data"))
        assert result.sensitivity() == first


def test_a_result_whose_candles_are_gone_has_none():
    gone = False

    def get_candles(symbol, interval, since, limit):
        if gone:
            raise OSError("unplugged")
        return [row for row in ROWS if row[0] >= since][:limit]

    mine = bk.ExchangeSchema(exchange_name="mine", get_candles=get_candles)
    span = {"start": "2024-01-01T18:00", "end": "2024-01-02"}
    fetch = {"get_candles_retry_count": 0}
    result = bk.backtest(mine, up, symbol="X", interval="5m", **span, **fetch)
    assert result.sensitivity().buy_and_hold is not None
    gone = True
    gc.collect()  # the engine, with the candles that it keeps
    assert result.sensitivity().buy_and_hold is None


def test_a_missing_extra_is_said_in_one_line(result, tmp_path):
    with mock.patch.dict(sys.modules, {"bokeh": None}):
        for show in (result.plot, lambda: result.report(tmp_path / "x.html")):
            with pytest.raises(bk.BacktestKitError, match=r"^[^\n]*backtest-kit\[report\][^\n]*$"):
                show()


def test_a_result_is_its_data_however_it_was_read(result):
    again = msgspec.json.decode(msgspec.json.encode(result), type=BacktestData)
    assert result == again
    assert again == result
    assert result != msgspec.structs.replace(again, frames=1)


def test_the_balance_scales_the_equity_and_nothing_else(path, result):
    usual = bk.backtest(path, up, interval="5m")
    assert usual.equity["equity"][0] == 10_000
    assert usual.equity["equity"] / 10_000 == pytest.approx(result.equity["equity"] / 500)
    assert usual.statistics == result.statistics
    assert usual.statistics.compounded_pnl == pytest.approx(
        (usual.equity["equity"][-1] / 10_000 - 1) * 100
    )
    for wrong in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(bk.ArgumentError, match="balance"):
            bk.backtest(path, up, interval="5m", balance=wrong)


def test_a_shell_shows_one_line(result):
    shown = repr(result)
    assert shown.startswith("<BacktestResult: up on BTCUSDT, 2024-01-01T")
    assert len(shown) < 150


def test_a_notebook_shows_figures_and_a_curve(result):
    html = result._repr_html_()
    (svg,) = re.findall(r"<svg.*?</svg>", html)
    assert len(ET.fromstring(svg).findall("path")) == 2
    assert f"{result.statistics.compounded_pnl:,.2f} %" in html
    assert "http" not in html
    empty = msgspec.structs.replace(result, signals=(), strategy_name="<script>")
    assert "<script>" not in empty._repr_html_()


def test_a_curve_ends_where_its_values_end():
    at, values = np.array([0, 50, 100]), np.array([0.0, 2.0, -2.0])
    path = ET.fromstring(curve_svg(at, values, "l")).findall("path")[1].get("d")
    assert path == "M0.0 75.0H360.0V0.0H720.0V150.0"
    assert sparkline(at, values, 4) == "▅▅█▁"
    assert sparkline(at, np.zeros(3), 3) == "▁▁▁"
    assert sparkline(at[:0], values[:0]) == ""


def test_a_comparison_shows_itself(path, tmp_path):
    pytest.importorskip("bokeh", reason="needs the extra report")

    def often(every):
        def get_signals(candles):
            return up(candles, every)

        return get_signals

    schemas = [
        bk.StrategySchema(strategy_name=f"up(every={n})", interval="5m", get_signals=often(n))
        for n in (7, 9, 11)
    ]
    ranking = bk.compare(path, schemas)
    assert len(ranking.plot().renderers) >= 3
    assert '"curves":[{' in ranking.report(tmp_path / "walk.html").read_text()
    assert ranking.plateau().strategy_name == ranking.best_strategy
    assert ranking.verdict.sentence[:20] in ranking._repr_html_()


def test_a_live_run_shows_itself(tmp_path):
    pytest.importorskip("bokeh", reason="needs the extra report")
    with bk.Engine() as engine:
        engine.set_config(state_dir=str(tmp_path / "state"))
        bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in ROWS]))
        bk.add_strategy(strategy_name="up", interval="5m", get_signals=up, warmup=1)
        start = pd.Timestamp(ROWS[60][0], unit="ms", tz="UTC").to_pydatetime()
        end = pd.Timestamp(ROWS[400][0], unit="ms", tz="UTC").to_pydatetime()
        clock = bk.VirtualClock(start=start, end=end)

        async def play():
            names = {"strategy_name": "up", "exchange_name": "frame", "clock": clock}
            async for _ in bk.Live.run("X", **names):
                pass

        asyncio.run(play())
        data = bk.Live.get_data("X", strategy_name="up")
    assert len(data.signals) > 1
    assert len(data.plot().children) == 2
    assert isinstance(data.report(tmp_path / "live.html"), Path)
