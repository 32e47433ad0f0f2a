"""The pages of a walk and of live runs in a real browser."""

from datetime import timedelta

import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit._engine.record import RunRecord
from backtest_kit._reports.live import live_data
from backtest_kit._statistics.trial_result import TradeColumns, TrialResult
from backtest_kit._values.results import ProfitLoss, TickClosed
from backtest_kit._values.schemas import WalkerSchema

pytest.importorskip("bokeh", reason="needs the extra report")

from backtest_kit._pages.live_page import live_page
from backtest_kit._pages.walk_page import walk_page
from backtest_kit._statistics.figures import summarize
from backtest_kit._statistics.ranking import rank
from backtest_kit._values.signal import SignalRow

START, HOUR = 1_704_067_200_000, 3_600_000
NASTY = "<script>alert(1)</script>"


pytestmark = pytest.mark.slow


def trial(name, mean, seed):
    """A trial of 200 trades, two hours apart."""
    r = np.random.default_rng(seed).normal(mean, 1, 200)
    opened = START + np.arange(200) * 2 * HOUR
    closed, symbols = opened + HOUR, np.zeros(200, np.int64)
    span = (START, START + 400 * HOUR)
    return TrialResult(
        strategy_name=name,
        symbols=("X",),
        since=span[0],
        until=span[1],
        statistics=summarize(r, opened, closed, span),
        trades=TradeColumns(*(column.tobytes() for column in (r, opened, closed, symbols))),
        complete=True,
    )


@pytest.fixture(scope="module")
def walk_file(tmp_path_factory):
    names = [f"s(a={a}, b={b})" for a in (1, 2, 3) for b in (10, 20, 30)] + [NASTY]
    trials = [trial(name, 0.15 - 0.01 * i, i) for i, name in enumerate(names)]
    windows = bk.Windows(train=timedelta(hours=120), test=timedelta(hours=70))
    schema = WalkerSchema(
        walker_name=NASTY,
        strategies=names,
        exchange_name="e",
        frame_name="f",
        metric="sharpe_ratio",
        windows=windows,
    )
    data = rank(schema, ("X",), trials, timeline=range(START, START + 400 * HOUR, HOUR))
    path = tmp_path_factory.mktemp("pages") / "walk.html"
    path.write_text(walk_page(data, trials), encoding="utf-8")
    return path


def closed(i):
    """A trade of five hours, of which every third one lost."""
    row = SignalRow(
        id=str(i),
        symbol=NASTY,
        strategy_name="s",
        exchange_name="e",
        position="long" if i % 2 else "short",
        price_open=100.0,
        price_take_profit=110.0,
        price_stop_loss=90.0,
        minute_estimated_time=600,
        scheduled_at=START + i * 8 * HOUR,
        pending_at=START + (i * 8 + i % 2) * HOUR,
        note=NASTY,
    )
    end = START + (i * 8 + 6) * HOUR
    return TickClosed(
        symbol=NASTY,
        strategy_name="s",
        exchange_name="e",
        timestamp=end,
        current_price=101.0,
        signal=row,
        close_reason="take_profit" if i % 3 else "stop_loss",
        close_timestamp=end,
        pnl=ProfitLoss(1.0 if i % 3 else -1.2, 100.0, 101.0),
    )


@pytest.fixture(scope="module")
def live_file(tmp_path_factory):
    record = RunRecord(
        symbol=NASTY,
        strategy_name="s",
        exchange_name="e",
        frame_name=None,
        mode="live",
        config=bk.get_config(),
        since=START,
        until=START + 101 * HOUR,
    )
    for i in range(12):
        record.add(closed(i))
    record.signal = closed(12).signal
    path = tmp_path_factory.mktemp("pages") / "live.html"
    path.write_text(live_page([live_data(record)]), encoding="utf-8")
    return path


def colors(picture):
    return len(np.unique(picture.astype(np.int32) @ [65536, 256, 1]))


def picture_of(page, look, box, name):
    clip = {**box, "width": box["width"] - 60, "height": box["height"] - 40}
    return look(page, name, full_page=True, clip=clip)


def test_walk(open_page, look, place, walk_file):
    page = open_page(walk_file)
    look(page, "walk", full_page=True)
    assert colors(picture_of(page, look, place(page, "curves"), "walk-curves")) > 20
    assert colors(picture_of(page, look, place(page, "windows"), "walk-windows")) > 8
    assert page.locator("h1").text_content() == NASTY
    assert page.locator("table.grid td").count() == 9
    best = page.locator("table.grid td[aria-current]")
    assert best.get_attribute("title").startswith(page.locator(".value").first.inner_text())
    page.locator(".listing tbody tr").nth(2).click()
    chosen = page.locator(".listing tbody tr").nth(2).locator("td").nth(1).inner_text()
    assert page.locator("#curve").inner_text() == chosen
    assert page.evaluate("model('chosen').data.y.length") == 202


def test_live(open_page, look, place, live_file):
    page = open_page(live_file, viewport={"width": 390, "height": 844}, color_scheme="dark")
    look(page, "live-narrow-dark", full_page=True)
    assert colors(picture_of(page, look, place(page, "timeline"), "live-timeline")) > 8
    assert page.locator(".listing tbody tr").count() == 12
    assert page.locator("h1").text_content() == f"s on {NASTY}"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("#runs td", has_text="short at 100 since").count() == 1
