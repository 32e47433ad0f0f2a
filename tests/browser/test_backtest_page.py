"""The page of a backtest in a real browser."""

import re
from datetime import UTC, datetime

import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit._engine.task import run_blocking
from backtest_kit.exchanges import SyntheticExchange

pytest.importorskip("bokeh", reason="needs the extra report")

from backtest_kit._pages.backtest_page import backtest_page
from backtest_kit._pages.market import market_of, sensitivity_of

NASTY = "<img src=x onerror=alert(1)></script><b>$$\\frac{1}{2}$$ \u2028 'quoted'"
#: Charts draw in the next frame.
TWO_FRAMES = "() => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))"
DAYS, DAY = 5, 86_400_000


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def backtest():
    """A backtest of five days with some trades, and its candles."""
    with bk.Engine() as engine:
        engine.set_config(percent_fee=0.02, percent_slippage=0.01)
        bk.add_exchange(SyntheticExchange(seed=3))
        frame = {"start_date": datetime(2024, 1, 2, tzinfo=UTC)}
        frame["end_date"] = datetime(2024, 1, 2 + DAYS, tzinfo=UTC)
        bk.add_frame(frame_name="days", interval="1m", **frame)

        def get_signals(candles):
            turn = candles.timestamp // 60_000 // 90
            begins = np.diff(turn, prepend=-1) != 0
            side = np.where(begins, np.where(turn % 2, 1, -1), 0)
            return bk.Signals.bracket(side, 0.8, 0.6, 180)

        bk.add_strategy(strategy_name=NASTY, interval="1m", get_signals=get_signals, warmup=20)
        names = {"strategy_name": NASTY, "exchange_name": "synthetic", "frame_name": "days"}
        bk.Backtest.run_sync("BTCUSDT", **names)
        data = bk.Backtest.get_data("BTCUSDT", strategy_name=NASTY)
        exchange = engine.exchanges.get("synthetic")
        market = run_blocking(lambda: market_of(engine, exchange, data))
        return data, market.candles, sensitivity_of(data, market)


@pytest.fixture(scope="module")
def page_file(backtest, tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "backtest.html"
    path.write_text(backtest_page(*backtest), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def wide(open_page, page_file):
    """The page on a wide screen, in light colours; tests leave it as they like."""
    return open_page(page_file)


def colors(picture):
    """How many colours a picture has; a chart that drew nothing has a few."""
    return len(np.unique(picture.astype(np.int32) @ [65536, 256, 1]))


def profits(page):
    texts = page.locator(".listing tbody tr td:nth-child(9)").all_inner_texts()
    return [float(text.rstrip(" %")) for text in texts]


def test_charts_are_drawn(wide, look, place, backtest):
    wide.evaluate("chart.showSpan(0)")
    wide.evaluate(TWO_FRAMES)
    look(wide, "backtest")
    box = place(wide, "price")
    tall, width = box["height"], box["width"]
    for name, top, share in (("prices", 0, 0.6), ("curve", 0.62, 0.2), ("drawdown", 0.86, 0.1)):
        clip = {
            "x": box["x"],
            "y": box["y"] + top * tall,
            "width": width - 70,
            "height": share * tall,
        }
        assert colors(look(wide, f"backtest-{name}", full_page=True, clip=clip)) > 20
    assert wide.evaluate("chart.sources.paths.data.x0.length") == len(backtest[0].signals) > 30


@pytest.mark.parametrize("name", ["histogram", "slippage", "delay"])
def test_smaller_charts_are_drawn(wide, look, place, name):
    box = place(wide, name)
    clip = {**box, "x": box["x"] + 60, "width": box["width"] - 60, "height": box["height"] - 50}
    assert colors(look(wide, f"backtest-{name}", full_page=True, clip=clip)) > 8


def test_candles_are_those_of_the_market(wide, backtest):
    candles = backtest[1]
    for name in ("open", "high", "low", "close"):
        assert wide.evaluate(f"Array.from(chart.base.{name})") == getattr(candles, name).tolist()
    assert wide.evaluate("Array.from(chart.base.x)") == candles.timestamp.tolist()


def test_thinned_candles_are_resampled_ones(wide, backtest):
    whole = backtest[1].resample("1h")
    for name in ("open", "high", "low", "close"):
        drawn = wide.evaluate(f"Array.from(chart.level(3_600_000).{name})")
        assert drawn == getattr(whole, name).tolist()


def test_table_sorts_by_mouse_and_by_keyboard(wide, backtest):
    made = [round(tick.pnl.pnl_percentage, 3) for tick in backtest[0].signals]
    assert profits(wide) == made[:100]
    head = wide.locator(".listing th button", has_text=re.compile("^Profit$"))
    head.click()
    assert profits(wide) == sorted(made)[:100]
    head.focus()
    wide.keyboard.press("Enter")
    assert profits(wide) == sorted(made, reverse=True)[:100]
    assert wide.locator("th[aria-sort=descending]").inner_text().startswith("Profit")
    wide.locator(".listing th button", has_text="#").click()


def test_click_on_a_row_shows_its_trade(wide, look, backtest):
    wide.locator(".listing tbody tr").nth(6).click()
    trade = backtest[0].signals[6]
    start, end = wide.evaluate("[chart.range.start, chart.range.end]")
    assert start < trade.signal.pending_at < trade.close_timestamp < end < start + DAY
    assert wide.locator("#trade").inner_text().startswith("Trade 7")
    assert wide.evaluate("chart.sources.chosen.data.left") == [trade.signal.pending_at]
    wide.evaluate(TWO_FRAMES)
    assert colors(look(wide, "backtest-trade")) > 50


def test_click_on_a_trade_marks_its_row(wide):
    wide.locator(".listing tbody tr").nth(3).press("Enter")
    place = wide.evaluate(
        """() => {
        const frame = document.getElementById("price").getBoundingClientRect();
        const share = (range, value) => (value - range.start) / (range.end - range.start);
        const [x, y] = [share(chart.range, trades.opened[3]), share(chart.prices, trades.entry[3])];
        const box = chart.view.frame.bbox;
        return [frame.left + box.left + x * box.width, frame.top + box.bottom - y * box.height];
    }"""
    )
    wide.locator("#price").press("n")
    wide.locator("#price").press("p")
    wide.locator(".listing tbody tr").nth(9).press("Enter")
    assert wide.locator("tr[aria-current]").get_attribute("data-row") == "9"
    wide.evaluate("chart.show(3)")
    wide.evaluate(TWO_FRAMES)
    wide.mouse.click(*place)
    assert wide.locator("tr[aria-current]").get_attribute("data-row") == "3"
    wide.locator("#price").press("n")
    assert wide.locator("tr[aria-current]").get_attribute("data-row") == "4"


def test_zooming_in_draws_shorter_candles(wide):
    wide.evaluate("chart.showSpan(0)")
    far = wide.evaluate("chart.drawn.step")
    wide.get_by_role("button", name="Show a day").click()
    wide.get_by_role("button", name="Zoom in").click()
    wide.evaluate(TWO_FRAMES)
    assert wide.evaluate("chart.drawn.step") < far
    assert wide.evaluate("chart.sources.candles_up.data.x.length") > 100


def test_names_are_text(wide):
    assert wide.locator("h1").text_content() == f"{NASTY} on BTCUSDT"
    assert wide.locator("h1 *").count() == 0
    assert wide.locator("img").count() == 0


def test_dark_follows_the_system_and_the_button(open_page, look, page_file):
    narrow = {"width": 390, "height": 844}
    page = open_page(page_file, viewport=narrow, color_scheme="dark")
    page.locator("#prices").scroll_into_view_if_needed()
    dark = look(page, "backtest-narrow-dark")
    assert colors(dark) > 50
    page.get_by_role("button", name="Light").click()
    page.locator("#prices").scroll_into_view_if_needed()
    light = look(page, "backtest-narrow-light")
    assert dark.mean() < 60 < 200 < light.mean()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    touch = "getComputedStyle(chart.view.canvas_view.events_el).touchAction"
    assert page.evaluate(touch) == "pan-y"
