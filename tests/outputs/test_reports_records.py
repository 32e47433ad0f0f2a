"""Reports of records written by hand: every figure is counted a second time, in plain Python."""

import math
import statistics
from pathlib import Path

import msgspec
import pytest
from markdown_it import MarkdownIt

import backtest_kit as bk
from backtest_kit._data.market import CandleCount, SeriesGaps
from backtest_kit._data.series import Gap
from backtest_kit._engine.record import RunRecord, Waited
from backtest_kit._reports.backtest import BacktestData, backtest_data, backtest_report
from backtest_kit._reports.heat import HeatData, heat_data, heat_report
from backtest_kit._reports.partial import PartialData, partial_data, partial_report
from backtest_kit._reports.performance import (
    PerformanceData,
    performance_data,
    performance_report,
)
from backtest_kit._reports.risk import RiskData, risk_data, risk_report
from backtest_kit._reports.schedule import ScheduleData, schedule_data, schedule_report
from backtest_kit._reports.table import markdown_table, minutes, number, price, write
from backtest_kit._values.config import Config
from backtest_kit._values.events import ErrorEvent, PartialEvent, RiskEvent
from backtest_kit._values.results import ProfitLoss, TickCancelled, TickClosed
from backtest_kit._values.signal import SignalRow

MINUTE = 60_000
T0 = 1_704_067_200_000  # 2024-01-01
DAY = 1440 * MINUTE
KINDS = [
    (lambda records: backtest_data(records[0]), backtest_report, BacktestData),
    (heat_data, heat_report, HeatData),
    (schedule_data, schedule_report, ScheduleData),
    (partial_data, partial_report, PartialData),
    (performance_data, performance_report, PerformanceData),
    (risk_data, risk_report, RiskData),
]


def record(symbol="BTCUSDT", frame="f", exchange="mem", mode="backtest", **config):
    made = RunRecord(
        symbol=symbol,
        strategy_name="s",
        exchange_name=exchange,
        frame_name=frame,
        mode=mode,
        config=Config(base_interval="1m", **config),
        since=T0,
        until=T0 + DAY,
        total_frames=1440,
    )
    made.frames = made.calls = 1440
    made.complete = True
    return made


def row(at=0, symbol="BTCUSDT", note="", identity="x", filled=True):
    return SignalRow(
        id=identity,
        symbol=symbol,
        strategy_name="s",
        exchange_name="mem",
        position="long",
        price_open=100.0,
        price_take_profit=110.0,
        price_stop_loss=90.0,
        minute_estimated_time=60,
        scheduled_at=T0 + at * MINUTE,
        pending_at=T0 + at * MINUTE if filled else None,
        note=note,
    )


def closed(pnl, at=0, lasts=10, reason="take_profit", ambiguous=False, **of_row):
    signal = row(at, **of_row)
    return TickClosed(
        symbol=signal.symbol,
        strategy_name="s",
        exchange_name="mem",
        timestamp=signal.pending_at + lasts * MINUTE,
        current_price=100.0,
        signal=signal,
        close_reason=reason,
        close_timestamp=signal.pending_at + lasts * MINUTE,
        pnl=ProfitLoss(pnl, 100.0, 100.0 + pnl),
        ambiguous=ambiguous,
    )


def waited(at, wait, reason=None):
    signal, end = row(at, filled=reason is None), T0 + (at + wait) * MINUTE
    if reason is None:
        return Waited(signal, end, None)
    names = {"symbol": signal.symbol, "strategy_name": "s", "exchange_name": "mem"}
    cancelled = TickCancelled(
        **names, timestamp=end, current_price=1.0, signal=signal, reason=reason, close_timestamp=end
    )
    return Waited(signal, end, cancelled)


def milestone(level, at, symbol="BTCUSDT"):
    return PartialEvent(
        symbol=symbol,
        strategy_name="s",
        exchange_name="mem",
        mode="backtest",
        signal=row(at, symbol=symbol),
        level=level,
        revenue_percent=level + 0.5,
        current_price=101.0,
        timestamp=T0 + (at + 1) * MINUTE,
    )


def refusal(reason, at=0, risk_name="r"):
    return RiskEvent(
        symbol="BTCUSDT",
        strategy_name="s",
        exchange_name="mem",
        mode="backtest",
        risk_name=risk_name,
        signal=row(at),
        price=100.0,
        timestamp=T0 + at * MINUTE,
        active_count=1,
        reason=reason,
    )


def full():
    """A record with something of everything, and text that is hard on Markdown."""
    made = record(exit_trigger="wick")
    note = "a|b\r\n| c | \rd ü 漢 \\| `x|y` <entry>\n\n# no heading"
    made._closed = [
        closed(2.0, 0, note=note),
        closed(-1.0, 20, reason="stop_loss", ambiguous=True, note=note),
        closed(-1.0, 40, reason="stop_loss", note=note),
        closed(0.5, 60, reason="end_of_data"),
    ]
    made._waited = [waited(0, 5), waited(9, 120, "timeout"), waited(200, 7, "price_reject")]
    made.partials = [milestone(10, 0), milestone(20, 0), milestone(-10, 20)]
    for refused in (refusal(note), refusal(note, 5), refusal("full", 9, "q")):
        made.reject(refused)
    made.risk_allowed = 4
    made.gaps = (
        SeriesGaps("BTCUSDT", "1m", 83, (Gap(T0 + MINUTE, 3), Gap(T0 + 9 * MINUTE, 80))),
        SeriesGaps("BTCUSDT", "1h", 1, (Gap(T0, 1),)),
    )
    made.candles = CandleCount(1440, 83, made.gaps[0].gaps)
    made.error(ErrorEvent(where="get_signal", error=ValueError(note), when=T0 + MINUTE))
    for duration in (4.0, 1.0, 3.0, 2.0):
        made.timing("backtest_signal").add(duration)
    return made


def parsed(text):
    """(headings, tables): what a real parser sees; a table is a list of rows of cell texts."""
    headings, tables, kind = [], [], None
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        assert token.type != "html_block", token.content
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("heading_open", "th_open", "td_open", "paragraph_open"):
            kind = token.type
        elif token.type == "inline":
            assert not [c for c in token.children if c.type == "html_inline"], token.content
            words = "".join(c.content for c in token.children)
            if kind == "heading_open":
                headings.append(words)
            elif kind in ("th_open", "td_open"):
                tables[-1][-1].append(words)
    return headings, tables


def shape(text):
    return [(len(table), {len(cells) for cells in table}) for table in parsed(text)[1]]


def test_statistics_reach_the_backtest_report_as_counted_by_hand():
    data = backtest_data(full())
    pnl = [2.0, -1.0, -1.0, 0.5]
    s = data.statistics
    assert (s.total_signals, s.win_count, s.loss_count, s.win_rate) == (4, 2, 2, 50.0)
    assert s.total_pnl == pytest.approx(sum(pnl))
    assert s.sharpe_ratio == pytest.approx(statistics.mean(pnl) / statistics.stdev(pnl))
    assert s.max_drawdown_percent == pytest.approx((1 - 0.99 * 0.99) * 100)
    assert s.exposure_percent == pytest.approx(4 * 10 / 1440 * 100)
    shown = {cells[0]: cells[1] for cells in parsed(backtest_report(data))[1][0]}
    assert shown["Sharpe ratio"] == f"{s.sharpe_ratio:.3f}"
    assert shown["Max drawdown"] == "1.99 %"
    assert (data.ambiguous_closes, data.end_of_data_closes, data.gaps_filled) == (1, 1, 83)


def test_the_backtest_report_renders_whatever_notes_and_errors_hold():
    text = backtest_report(backtest_data(full()))
    headings, (_, reasons, trades) = parsed(text)
    assert headings == [
        "Backtest of s on BTCUSDT",
        "How far to trust this",
        "Statistics",
        "Why signals closed",
        "Trades",
    ]
    assert shape(text) == [(23, {3}), (4, {3}), (5, {11})]
    assert reasons[1:] == [
        ["stop_loss", "2", "-1.000 %"],
        ["take_profit", "1", "2.000 %"],
        ["end_of_data", "1", "0.500 %"],
    ]
    assert trades[1] == [
        "2024-01-01T00:00Z",
        "2024-01-01T00:10Z",
        "long",
        "100",
        "102",
        "110",
        "90",
        "2.000 %",
        "take_profit (on a missing candle)",
        "10",
        "a|b | c | d ü 漢 \\| x|y <entry> # no heading",
    ]
    assert trades[2][8] == "stop_loss (ambiguous) (on a missing candle)"


def test_how_far_to_trust_says_what_was_filled_assumed_and_went_wrong():
    text = backtest_report(backtest_data(full()))
    for words in (
        "**Too few trades** to say anything about the strategy: 4.",
        "BTCUSDT 1m, 5.764 %: 83 missing candles in 2 gaps: 2024-01-01T00:09Z (80), 2024-01-01",
        "Read with gaps filled: BTCUSDT 1h, 1 missing candle in 1 gap: 2024-01-01T00:00Z (1).",
        "low and high, stop_loss_first; ambiguous closes: 1.",
        "Signals closed because the data ended: 1.",
        "Errors: 1.",
        "1 x get_signal, first at 2024-01-01T00:01Z: ValueError: a|b",
    ):
        assert words in text
    assert "did not reach its end" not in text
    assert "data ended before" not in text


def test_thirty_trades_are_not_called_too_few():
    for n in (29, 30):
        made = record()
        made._closed = [closed(1.0 + i % 3, i * 20) for i in range(n)]
        assert ("Too few trades" in backtest_report(backtest_data(made))) == (n < 30)


def test_a_run_that_did_not_end_says_so():
    stopped = record()
    stopped.complete = False
    assert "did not reach its end" in backtest_report(backtest_data(stopped))
    stopped.data_ended_at = T0 + 99 * MINUTE
    text = backtest_report(backtest_data(stopped))
    assert "The data ended before the frame did**, at 2024-01-01T01:39Z" in text


def test_errors_and_gaps_that_are_not_listed_are_counted():
    made = record()
    for i in range(130):
        for _ in range(2):
            made.error(ErrorEvent(where=f"listener {i}", error=KeyError("k")))
    gaps = tuple(Gap(T0 + i * 10 * MINUTE, 1 + i) for i in range(7))
    made.candles = CandleCount(1440, 28, gaps)
    text = backtest_report(backtest_data(made))
    assert "Errors: 260." in text
    assert text.count("  - 2 x listener") == 10
    assert "  - 240 more of other kinds" in text
    assert "28 missing candles in 7 gaps" in text
    assert "and 2 more." in text


def test_identical_trades_and_all_of_many_stay():
    made = record()
    made._closed = [closed(1.0)] * 3 + [closed(-0.5, 20 + i % 5) for i in range(1500)]
    _, (_, _, trades) = parsed(backtest_report(backtest_data(made)))
    assert len(trades) == 1 + 1503
    assert trades[1] == trades[2] == trades[3]


def test_heat_pools_trades_in_order_of_closing_and_puts_no_ratio_last():
    a, b, c = record("A"), record("B"), record("C")
    a._closed = [closed(4.0, 0, symbol="A"), closed(-3.0, 40, symbol="A")]
    b._closed = [closed(-2.0, 20, symbol="B"), closed(5.0, 60, symbol="B")]
    c._closed = [closed(1.0, 80, symbol="C")]
    data = heat_data([c, a, b])
    pooled = [4.0, -2.0, -3.0, 5.0, 1.0]
    assert data.portfolio.sharpe_ratio == pytest.approx(
        statistics.mean(pooled) / statistics.stdev(pooled)
    )
    assert data.portfolio.max_drawdown_percent == pytest.approx((1 - 0.98 * 0.97) * 100)
    assert [r.symbol for r in data.rows] == ["B", "A", "C"]
    assert data.rows[-1].statistics.sharpe_ratio is None
    _, (table,) = parsed(heat_report(data))
    assert [cells[:4] for cells in table[1:]] == [
        ["B", "mem", "f", "2"],
        ["A", "mem", "f", "2"],
        ["C", "mem", "f", "1"],
        ["Portfolio", "", "", "5"],
    ]


def test_schedule_rates_and_waits():
    made = record()
    made._waited = [
        waited(0, 2),
        waited(10, 3),
        waited(20, 10),
        *(waited(100 * i, 120, "timeout") for i in range(1, 6)),
        waited(900, 30, "price_reject"),
    ]
    data = schedule_data([made])
    assert (data.scheduled, data.activated, data.cancelled) == (9, 3, 6)
    assert data.activation_rate == pytest.approx(100 / 3)
    assert data.cancellation_rate == pytest.approx(200 / 3)
    assert data.reasons == {"timeout": 5, "price_reject": 1}
    filled, dropped = data.wait_until_activation, data.wait_until_cancellation
    assert (filled.count, filled.mean, filled.median, filled.maximum) == (3, 5.0, 3.0, 10.0)
    assert (dropped.count, dropped.mean, dropped.median) == (6, 105.0, 120.0)
    assert shape(schedule_report(data)) == [(4, {6}), (3, {2}), (10, {9})]


def test_all_cancelled_is_one_hundred_percent_and_not_more():
    made = record()
    made._waited = [waited(i, 5, "timeout") for i in range(7)]
    data = schedule_data([made, made])
    assert (data.cancellation_rate, data.activation_rate) == (100.0, 0.0)


def test_partial_counts_signals_even_where_a_strategy_gives_all_the_same_id():
    made, other = record(), record(frame="g")
    made.partials = [milestone(10, 0), milestone(20, 0), milestone(10, 30), milestone(-10, 50)]
    other.partials = [milestone(10, 0)]
    data = partial_data([made, other])
    assert {level.level: level.count for level in data.levels} == {20: 1, 10: 3, -10: 1}
    assert data.signals == 4
    assert [e.frame_name for e in data.events] == ["f"] * 4 + ["g"]
    text = partial_report(data)
    assert "4 signals reached a milestone" in text
    levels, events = parsed(text)[1]
    assert levels[1:] == [["+20 %", "1"], ["+10 %", "3"], ["-10 %", "1"]]
    assert [cells[2] for cells in events[1:]] == ["f"] * 4 + ["g"]


def test_rows_of_runs_told_together_say_their_frame():
    first, second = full(), full()
    second.frame_name = "g"
    both = [first, second]
    for text, column in (
        (heat_report(heat_data(both)), "Frame"),
        (schedule_report(schedule_data(both)), "Frame"),
        (partial_report(partial_data(both)), "Frame"),
        (risk_report(risk_data(both)), "Frame"),
    ):
        table = parsed(text)[1][-1]
        at = table[0].index(column)
        assert {cells[at] for cells in table[1:]} - {""} == {"f", "g"}
    assert performance_data(both).frame_names == ("f", "g")
    assert "Frames: f, g." in performance_report(performance_data(both))


def test_risk_by_profile_and_reason():
    data = risk_data([full()])
    assert (data.allowed, data.rejected) == (4, 3)
    assert [(r.risk_name, r.count) for r in data.reasons] == [("r", 2), ("q", 1)]
    text = risk_report(data)
    assert shape(text) == [(3, {3}), (4, {8})]
    assert parsed(text)[0] == ["Risk refusals of s on BTCUSDT", "By reason", "One by one"]


def interpolated(values, percent):
    values, at = sorted(values), (len(values) - 1) * percent / 100
    low = values[math.floor(at)]
    return low + (values[math.ceil(at)] - low) * (at - math.floor(at))


def test_performance_percentiles_are_interpolated_over_all_runs():
    one, two = record(), record(frame="g")
    durations = [[7.0, 1.0, 2.5], [10.0, 0.5, 3.0, 4.0]]
    for made, some in zip((one, two), durations, strict=True):
        for duration in some:
            made.timing("backtest_signal").add(duration)
    one.timing("backtest_timeframe").add(50.0, 100)
    one.timing("live_tick")  # asked for, never measured
    signal, frames = performance_data([one, two]).metrics
    everything = durations[0] + durations[1]
    assert (signal.count, signal.samples, signal.total) == (7, 7, 28.0)
    assert (signal.mean, signal.minimum, signal.maximum) == (4.0, 0.5, 10.0)
    for figure, percent in ((signal.median, 50), (signal.p95, 95), (signal.p99, 99)):
        assert figure == pytest.approx(interpolated(everything, percent))
    assert (frames.count, frames.samples, frames.mean, frames.maximum) == (100, 1, 0.5, 0.5)
    assert shape(performance_report(performance_data([one, two]))) == [(3, {10})]


@pytest.mark.parametrize(("data_of", "report", "kind"), KINDS, ids=[k.__name__ for *_, k in KINDS])
class TestEveryKind:
    def test_renders_without_a_run_having_found_anything(self, data_of, report, kind):
        text = report(data_of([record()]))
        headings, tables = parsed(text)
        assert headings[0].endswith(("on BTCUSDT", "of s"))
        assert all(len({len(cells) for cells in table}) == 1 for table in tables)
        assert not {"nan", "inf", "None"} & set(text.replace("|", " ").split())

    def test_is_json_both_ways(self, data_of, report, kind):
        data = data_of([full()])
        assert msgspec.json.decode(msgspec.json.encode(data), type=kind) == data

    def test_keeps_no_list_of_the_record(self, data_of, report, kind):
        made = full()
        data = data_of([made])
        before = msgspec.json.encode(data)
        made.closed.clear()
        made.waited.clear()
        made.partials.clear()
        made.rejections.clear()
        made.error(ErrorEvent(where="get_signal", error=ValueError()))
        made.timing("backtest_signal").add(99.0)
        assert msgspec.json.encode(data) == before
        assert not [f for f in data.__struct_fields__ if isinstance(getattr(data, f), list)]

    def test_a_name_can_not_add_headings_or_tags(self, data_of, report, kind):
        made = record()
        made.strategy_name, made.symbol = "s\n# x <b>", "B|T\nC"
        headings, _ = parsed(report(data_of([made])))
        assert "s # x <b>" in headings[0]
        assert "x <b>" not in headings


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00001234, "0.00001234"),
        (1e-8, "0.00000001"),
        (0.1 + 0.2, "0.3"),
        (27000.1, "27000.1"),
        (100.0, "100"),
        (12345678901.5, "12345678901.5"),
    ],
)
def test_prices_have_no_noise_and_no_exponent(value, text):
    assert price(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        (0, "0.0 min"),
        (0.4, "0.4 min"),
        (59.6, "1 h"),
        (80, "1 h 20 min"),
        (2 * 1440 + 3 * 60 + 5, "2 d 3 h"),
    ],
)
def test_durations_as_people_say_them(value, text):
    assert minutes(value) == text


def test_numbers():
    assert number(None, 2, " %") == "n/a"
    assert number(-0.0001, 2, " %") == "0.00 %"
    assert number(-1234.567, 1) == "-1,234.6"


def test_numbers_are_aligned_right_and_words_left():
    text = markdown_table(("n", "w", "p"), [(1, "a", "1.5 %"), (2, "3", "n/a")])
    cells = [t for t in MarkdownIt().enable("table").parse(text) if t.type == "td_open"]
    styles = [cell.attrs.get("style") for cell in cells]
    assert styles == ["text-align:right", None, "text-align:right"] * 2


def test_different_names_are_different_files_in_the_folder(tmp_path):
    names = ["a/b", "a-b", "a%2Fb", "a b", "a~b", "..", "../x", ".", "~", "é", "e\u0301"]
    names += ["x" * 300, "x" * 301, "a\nb", "a\\b", "C:x"]
    paths = [write(name, tmp_path / "d", name) for name in names]
    assert len(set(paths)) == len(names)
    for name, path in zip(names, paths, strict=True):
        assert path.resolve().parent == (tmp_path / "d").resolve()
        assert path.read_text() == name
        assert set(path.name) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-%"
        )
    assert sorted((tmp_path / "d").iterdir()) == sorted(paths), "no temporary file is left"


def test_a_file_that_can_not_be_replaced_stays_and_nothing_is_left(tmp_path, monkeypatch):
    path = write("old", tmp_path, "r")

    def refuse(self, target):
        raise PermissionError("no")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(PermissionError):
            write("new", tmp_path, "r")
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_look_back_filters_and_dumps(engine, tmp_path):
    for symbol, frame, mode in (
        ("A", "f", "backtest"),
        ("A", "g", "backtest"),
        ("B/C", "f", "backtest"),
        ("A", "f", "live"),
    ):
        made = record(symbol, frame, mode=mode)
        made._closed = [closed(1.0, symbol=symbol)] * (5 if mode == "live" else 1)
        engine.records.add(made)
    heat = bk.Heat.get_data(strategy_name="s")
    assert [(r.symbol, r.frame_name) for r in heat.rows] == [("A", "f"), ("A", "g"), ("B/C", "f")]
    assert heat.portfolio.total_signals == 3
    assert len(bk.Heat.get_data(strategy_name="s", frame_name="f").rows) == 2
    assert bk.Heat.get_data(strategy_name="s", mode="live").portfolio.total_signals == 5
    assert len(bk.Heat.get_data("B/C", strategy_name="s").rows) == 1
    with pytest.raises(bk.UnknownNameError, match="no run of backtest s other"):
        bk.Heat.get_data(strategy_name="s", exchange_name="other")
    paths = [
        bk.Heat.dump(strategy_name="s", path=tmp_path),
        bk.Heat.dump(strategy_name="s", mode="live", path=tmp_path),
        bk.Heat.dump("B/C", strategy_name="s", path=tmp_path),
    ]
    assert len(set(paths)) == 3
    assert {path.parent for path in paths} == {tmp_path}
    assert paths[1].read_text() == bk.Heat.get_report(strategy_name="s", mode="live")
