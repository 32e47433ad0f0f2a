"""The page of a backtest with managed positions in a real browser."""

from datetime import UTC, datetime

import numpy as np
import pytest

import backtest_kit as bk

pytest.importorskip("bokeh", reason="needs the extra report")

pytestmark = pytest.mark.slow
#: Charts draw in the next frame.
TWO_FRAMES = "() => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))"


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Four days of longs and shorts that trail, take parts and are averaged, and their page."""

    def get_signals(candles):
        turn = candles.timestamp // 60_000 // 90
        begins = np.diff(turn, prepend=-1) != 0
        side = np.where(begins, np.where(turn % 2, 1, -1), 0)
        how = {"take_profits": ((0.2, 40), (0.3, 30)), "entries": ((0.15, 1.0),)}
        return bk.Signals.bracket(
            side, 0.8, None, 80, trailing_stop=0.3, trailing_activate_percent=0.1, **how
        )

    with bk.Engine() as engine:
        engine.set_config(
            require_stop_loss=False,
            min_take_profit_distance_percent=0.0,
            percent_fee=0.02,
            percent_slippage=0.01,
        )
        bk.add_exchange(bk.exchanges.SyntheticExchange(seed=3))
        start, end = (datetime(2024, 1, day, tzinfo=UTC) for day in (2, 6))
        bk.add_frame(frame_name="f", interval="1m", start_date=start, end_date=end)
        bk.add_strategy(strategy_name="s", interval="1m", get_signals=get_signals, warmup=20)
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic", frame_name="f")
        data = bk.Backtest.get_data("X", strategy_name="s")
        path = tmp_path_factory.mktemp("pages") / "managed.html"
        return data, data.sensitivity(), data.report(path)


@pytest.fixture(scope="module")
def page(open_page, result):
    return open_page(result[2])


def details(page):
    """The lines below opened rows: what was filled, when, at which price, why."""
    lines = page.locator(".listing tr.detail")
    return [line.locator("td").all_inner_texts() for line in lines.all()]


def test_a_trade_with_several_fills_opens(page, result, look):
    signals = result[0].signals
    several = [i for i, tick in enumerate(signals[:100]) if tick.fills]
    assert len(several) > 10
    buttons = page.locator(".listing .opener")
    assert buttons.count() == len(several)
    assert details(page) == []
    first = page.get_by_role("button", name=f"Fills of trade {several[0] + 1}", exact=True)
    chosen = page.locator("tr[aria-current]").count()  # perhaps by an earlier test
    first.click()
    legs = signals[several[0]].legs
    shown = details(page)
    assert [line[3].split()[0] for line in shown] == [leg.kind for leg in legs]
    prices = [line[4] or line[5] for line in shown]
    expected = [f"{leg.price:.8g}" for leg in legs]
    assert [float(price.replace(",", "")) for price in prices] == [float(x) for x in expected]
    assert page.locator("tr[aria-current]").count() == chosen, "opening it does not choose it"
    assert first.get_attribute("aria-expanded") == "true"
    page.locator("#trades").scroll_into_view_if_needed()
    look(page, "managed-fills")
    first.press("Enter")
    assert details(page) == []
    assert first.get_attribute("aria-expanded") == "false"


def test_the_chart_has_each_fill_and_the_way_of_the_stop(page, result, look):
    signals = result[0].signals
    between = [leg for tick in signals for leg in tick.fills[1:-1]]
    for name, kind in (("more_entries", "entry"), ("part_exits", "exit")):
        legs = [leg for leg in between if leg.kind == kind]
        assert len(legs) > 5
        drawn = page.evaluate(f"chart.sources.{name}.data")
        assert drawn == {"x": [leg.timestamp for leg in legs], "y": [leg.price for leg in legs]}
    paths = page.evaluate("chart.sources.stops.data")
    trailed = [tick for tick in signals if tick.close_reason == "trailing_stop"]
    ends = {x[-1]: y[-1] for x, y in zip(paths["xs"], paths["ys"], strict=True)}
    assert len(trailed) > 10
    for tick in trailed:  # it closed at its stop, or at the market behind it
        side = 1 if tick.signal.position == "long" else -1
        assert side * tick.legs[-1].price <= side * ends[tick.close_timestamp]
    row = signals.index(trailed[3])
    page.evaluate(f"choose({row}, true)")
    page.evaluate(TWO_FRAMES)
    assert len(np.unique(look(page, "managed-trade").reshape(-1, 3), axis=0)) > 50
    assert "fills" in page.locator("#trade").inner_text() or not trailed[3].fills


def test_what_was_missing_comes_first_and_rules_have_a_row_each(page, result):
    data, depends, _ = result
    doubts = page.locator(".doubts").inner_text()
    assert f"{len(data.signals)} had no stop, 0 no target, 0 no end" in doubts
    rows = page.locator("#contributions tbody tr").all()
    assert len(rows) == len(depends.rules) == 3
    shown = [row.locator("td").all_inner_texts()[3] for row in rows]
    assert [float(text.rstrip(" %")) for text in shown] == [
        pytest.approx(row.contributed, abs=0.005) for row in depends.rules
    ]
