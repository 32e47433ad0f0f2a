"""Pages of a year of minutes with about a thousand trades: size, time to open, frames of a pan.

`python -m benchmarks.pages` (needs the extra report, and the group browser with a Chromium for
what happens in it). Times are in seconds on this machine; frames are those of a browser that draws
at most 60 in a second.
"""

import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import backtest_kit as bk
from backtest_kit._engine.task import run_blocking
from backtest_kit._pages.backtest_page import backtest_page
from backtest_kit._pages.market import market_of, sensitivity_of

START, YEAR = datetime(2023, 1, 1, tzinfo=UTC), 525_600
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
#: Count the lengths of frames (ms) while the chart is dragged and zoomed.
MEASURE = """() => new Promise((done) => {
    const frames = [];
    const [from, until] = chart.full;
    let last = performance.now();
    let i = 0;
    const tick = (now) => {
        frames.push(now - last);
        last = now;
        const width = (until - from) / 2 ** (1 + (i % 60) / 6);
        const start = from + ((until - from - width) * i) / 240;
        chart.range.setv({ start, end: start + width });
        if (++i < 240) requestAnimationFrame(tick); else done(frames.slice(2));
    };
    requestAnimationFrame(tick);
})"""


def market():
    """A random year of minutes in cents."""
    rng = np.random.default_rng(1)
    close = np.round(30_000 * np.exp(np.cumsum(rng.normal(0, 6e-4, YEAR))), 2)
    opening = np.concatenate(([30_000.0], close[:-1]))
    reach = np.abs(rng.normal(0, 3e-4, (2, YEAR)))
    high = np.round(np.maximum(opening, close) * (1 + reach[0]), 2)
    low = np.round(np.minimum(opening, close) * (1 - reach[1]), 2)
    t = int(START.timestamp() * 1000) + np.arange(YEAR) * 60_000
    return bk.Candles(t, opening, high, low, close, np.ones(YEAR))


def get_signals(candles):
    turn = candles.timestamp // 60_000 // 500
    begins = np.diff(turn, prepend=-1) != 0
    return bk.Signals.bracket(np.where(begins, np.where(turn % 2, 1, -1), 0), 1.5, 1.0, 480)


def page():
    """Return the page, and what was measured of its making."""
    with bk.Engine() as engine:
        bk.add_exchange(bk.exchanges.FrameExchange(market()))
        span = {"start_date": START + timedelta(days=1), "end_date": START + timedelta(days=364)}
        bk.add_frame(frame_name="year", interval="1m", **span)
        bk.add_strategy(strategy_name="s", interval="1m", get_signals=get_signals, warmup=10)
        names = {"strategy_name": "s", "exchange_name": "frame", "frame_name": "year"}
        bk.Backtest.run_sync("X", **names)
        data = bk.Backtest.get_data("X", strategy_name="s")
        began = time.perf_counter()
        made = run_blocking(lambda: market_of(engine, engine.exchanges.get("frame"), data))
        depends = sensitivity_of(data, made)
        replayed = time.perf_counter()
        text = backtest_page(data, made.candles, depends)
        rows = [
            ("trades", f"{len(data.signals):,}"),
            ("candles", f"{len(made.candles):,}"),
            ("replays (9 runs of the proposals)", f"{replayed - began:.2f} s"),
            ("making the page", f"{time.perf_counter() - replayed:.2f} s"),
            ("size of the page", f"{len(text.encode()) / 1e6:.2f} MB"),
        ]
    return text, rows


def opened(path):
    """Open the page in Chromium; return what was measured."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*OPTIONS])
        times = []
        for _ in range(3):
            tab = browser.new_page(viewport={"width": 1280, "height": 1000})
            began = time.perf_counter()
            tab.goto(path.as_uri())
            tab.wait_for_selector("html[data-ready]")
            times.append(time.perf_counter() - began)
        frames = np.array(tab.evaluate(MEASURE))
        browser.close()
    late = f"{np.median(frames):.0f} / {np.percentile(frames, 95):.0f} / {frames.max():.0f} ms"
    return [
        ("opening it (best of 3)", f"{min(times):.2f} s"),
        ("frame while panning and zooming: median / 95 % / longest", late),
    ]


def main():
    text, rows = page()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(text, "utf-8")
        rows += opened(path)
    table = Table("What", "Measured", title="A page of a year of minutes", title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
