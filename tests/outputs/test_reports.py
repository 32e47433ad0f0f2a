"""Reports: the figures agree with a second count, and the Markdown renders."""

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit._reports.table import markdown_table, write
from markdown_tables import tables

START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = {"exchange_name": "synthetic", "frame_name": "f"}


@pytest.fixture
def played():
    """Three symbols through a strategy that opens, schedules and is refused."""
    bk.set_config(min_take_profit_distance_percent=0, exit_trigger="wick")
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    bk.add_frame(
        frame_name="f", interval="1m", start_date=START, end_date=START + timedelta(days=4)
    )

    def every_other(check):
        return "odd | hour\nrefused" if check.timestamp // 3_600_000 % 2 else None

    bk.add_risk(risk_name="r", validations=[every_other])

    @bk.strategy("s", interval="15m", risk_name="r")
    async def s(symbol, when):
        p = await bk.get_average_price(symbol)
        entry = p * (0.99 if when.hour % 3 == 0 else 0.9995) if when.minute < 30 else None
        return bk.Signal(
            position="long",
            price_open=entry,
            price_take_profit=p * 1.02,
            price_stop_loss=p * 0.97,
            minute_estimated_time=40,
            note="a|b\nc ü",
        )

    return {x: bk.Backtest.run_sync(x, strategy_name="s", **NAMES) for x in ("AAA", "BBB", "CCC")}


def test_the_backtest_report_shows_every_trade(played):
    text = bk.Backtest.get_report("AAA", strategy_name="s")
    statistics, reasons, trades = tables(text)
    assert len(trades) == len(played["AAA"]) + 1
    assert {len(row) for row in trades} == {11}
    assert trades[1][-1] == "a\\|b c ü".replace("\\|", "|")
    assert len(statistics) == 23
    assert sum(int(row[1]) for row in reasons[1:]) == len(played["AAA"])
    for words in (
        "Gaps filled: none",
        "fee 0.1 % per side",
        "slippage 0.1 %",
        "ambiguous closes:",
        "because the data ended: ",
        "Errors: none",
        "2024-01-01T00:00Z to 2024-01-05",
    ):
        assert words in text


def test_get_data_can_not_be_changed_and_is_json_both_ways(played):
    data = bk.Backtest.get_data("AAA", strategy_name="s")
    assert data.signals == tuple(played["AAA"])
    with pytest.raises(AttributeError):
        data.signals = ()
    text = msgspec.json.encode(data)
    assert msgspec.json.decode(text, type=type(data)) == data


def test_heat_pools_all_trades(played):
    data = bk.Heat.get_data(strategy_name="s")
    pooled = np.array([t.pnl.pnl_percentage for ticks in played.values() for t in ticks])
    assert data.portfolio.total_signals == len(pooled)
    assert data.portfolio.sharpe_ratio == pytest.approx(pooled.mean() / pooled.std(ddof=1))
    sharpes = [row.statistics.sharpe_ratio for row in data.rows]
    assert sharpes == sorted(sharpes, reverse=True)
    (table,) = tables(bk.Heat.get_report(strategy_name="s"))
    assert [row[0] for row in table[1:]] == [*(r.symbol for r in data.rows), "**Portfolio**"]


def test_schedule_counts_every_signal_once(played):
    data = bk.Schedule.get_data("AAA", strategy_name="s")
    assert data.scheduled == data.activated + data.cancelled == len(data.signals) > 10
    assert data.activation_rate + data.cancellation_rate == pytest.approx(100)
    assert sum(data.reasons.values()) == data.cancelled
    waits = [
        (s.ended_at - s.signal.scheduled_at) / 60_000 for s in data.signals if s.reason is None
    ]
    assert data.wait_until_activation.mean == pytest.approx(np.mean(waits))
    assert data.wait_until_activation.maximum == max(waits)
    assert len(tables(bk.Schedule.get_report("AAA", strategy_name="s"))[-1]) == data.scheduled + 1


def test_risk_by_reason(played):
    data = bk.Risk.get_data(strategy_name="s")
    assert data.rejected == len(data.rejections) > 5
    assert [(r.risk_name, r.reason) for r in data.reasons] == [("r", "odd | hour\nrefused")]
    by_reason, one_by_one = tables(bk.Risk.get_report(strategy_name="s"))
    assert by_reason[1] == ["r", "odd | hour refused", str(data.rejected)]
    assert len(one_by_one) == data.rejected + 1


def test_performance_adds_up(played):
    data = bk.Performance.get_data("AAA", strategy_name="s")
    metrics = {m.metric_type: m for m in data.metrics}
    run = bk.Backtest.get_data("AAA", strategy_name="s")
    assert metrics["backtest_timeframe"].count == run.calls
    assert metrics["backtest_total"].total >= metrics["backtest_timeframe"].total
    for m in data.metrics:
        assert m.minimum <= m.median <= m.p95 <= m.p99 <= m.maximum
        assert m.mean == pytest.approx(m.total / m.count)


def test_partial_milestones_of_a_market_that_doubles():
    def get_candles(symbol, interval, since, limit):
        rows = []
        for t in range(since, since + limit * 60_000, 60_000):
            p = 100 * 1.01 ** ((t - int(START.timestamp() * 1000)) / 60_000)
            rows.append([t, p, p, p, p, 1.0])
        return rows

    bk.add_exchange(exchange_name="up", get_candles=get_candles)
    bk.add_frame(frame_name="f", interval="1m", start_date=START, end_date=START)
    bk.add_strategy(
        strategy_name="s",
        interval="1m",
        get_signal=lambda symbol, when: bk.Signal(
            position="long", price_take_profit=1000, price_stop_loss=85, minute_estimated_time=90
        ),
    )
    bk.Backtest.run_sync("X", strategy_name="s", exchange_name="up", frame_name="f")
    data = bk.Partial.get_data(strategy_name="s")
    assert [e.level for e in data.events] == list(range(10, 101, 10))
    for event in data.events:
        assert event.revenue_percent >= event.level > event.revenue_percent - 3
    assert "+100 %" in bk.Partial.get_report(strategy_name="s")


def test_a_run_without_trades_renders_without_a_made_up_figure():
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    bk.add_frame(frame_name="f", interval="1m", start_date=START, end_date=START)
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)
    bk.Backtest.run_sync("X", strategy_name="s", **NAMES)
    text = bk.Backtest.get_report("X", strategy_name="s")
    assert "Too few trades" in text
    assert "nan" not in text.lower().replace("finance", "")
    assert dict(row[:2] for row in tables(text)[0])["Sharpe ratio"] == "n/a"
    for report in (bk.Heat, bk.Schedule, bk.Partial, bk.Risk, bk.Performance):
        assert report.get_report("X", strategy_name="s").startswith("# ")


def test_dump_writes_what_get_report_returns_inside_its_folder(played, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = bk.Backtest.dump("AAA", strategy_name="s")
    assert path.parent.resolve() == tmp_path / "dump" / "backtest"
    assert path.read_text() == bk.Backtest.get_report("AAA", strategy_name="s")
    for kind in ("heat", "schedule", "partial", "performance", "risk"):
        report = getattr(bk, kind.title())
        assert report.dump("AAA", strategy_name="s").parent.name == kind


@pytest.mark.parametrize("name", ["../../etc/x", "BTC/USDT:USDT", "..", ".hidden", "ü" * 90, "a b"])
def test_names_never_leave_the_folder_nor_collide(name, tmp_path):
    paths = {write("x", tmp_path / "d", n) for n in (name, name + "%2F", name.replace("/", "-"))}
    assert {path.resolve().parent for path in paths} == {(tmp_path / "d").resolve()}
    assert len(paths) == len({name, name + "%2F", name.replace("/", "-")})


def test_dump_says_when_it_can_not_write(played, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        bk.Backtest.dump("AAA", strategy_name="s", path=tmp_path / "file")


def test_equal_rows_stay_and_cells_are_escaped():
    text = markdown_table(("a", "b"), [("x|y", 1.0), ("x|y", 1.0), (None, "\n")])
    assert tables(text) == [[["a", "b"], ["x|y", "1.00"], ["x|y", "1.00"], ["n/a", ""]]]


def test_looking_back_at_what_never_ran_names_what_did(played):
    with pytest.raises(
        bk.UnknownNameError, match=r"no run of backtest ZZZ s yet.*AAA s synthetic f"
    ):
        bk.Backtest.get_data("ZZZ", strategy_name="s")
    bk.add_frame(frame_name="g", interval="1h", start_date=START, end_date=START)
    bk.Backtest.run_sync("AAA", strategy_name="s", exchange_name="synthetic", frame_name="g")
    with pytest.raises(bk.UnknownNameError, match="give exchange_name and frame_name"):
        bk.Backtest.get_data("AAA", strategy_name="s")
    assert bk.Backtest.get_data("AAA", strategy_name="s", frame_name="g").total_frames == 1
