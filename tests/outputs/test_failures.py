"""What went wrong is said first, with the user's own line, wherever a person looks."""

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import backtest_kit as bk
from backtest_kit._values.places import place_of
from command import COMMAND, kept, one_line, run_here

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = ("--symbol", "X", "--from", "2024-01-01", "--to", "2024-01-02")
RAISES = """
import backtest_kit as bk
bk.add_exchange(bk.exchanges.SyntheticExchange())

@bk.strategy("s", interval="1h")
def s(symbol, when):
    return half(when)

def half(when):
    return when.hour / 0
"""
LINE = "s.py:10: return when.hour / 0"


@pytest.fixture
def raises(tmp_path):
    (tmp_path / "s.py").write_text(RAISES)
    return tmp_path


def test_a_strategy_that_always_raises_ends_a_backtest_with_its_line(raises, caplog):
    with caplog.at_level("ERROR"):
        result = run_here("backtest", "s.py", *DAY, cwd=raises)
    assert result.returncode == 1
    said = f"raised at each of its 25 calls, first with ZeroDivisionError: division by zero ({LINE}"
    assert said in result.stdout
    assert "Sharpe" not in result.stdout
    report = kept(raises)[-1].read_text()
    title, first = report.split("\n\n")[:2]
    assert title == "# Backtest of s on X"
    assert said in first
    assert "n/a" not in report
    assert caplog.messages[0] == (
        f"get_signal of s X synthetic: ZeroDivisionError: division by zero ({LINE})"
    )
    (data,) = json.loads(run_here("backtest", "s.py", *DAY, "--json", cwd=raises).stdout)
    place = {"file": "s.py", "line": 10, "code": "return when.hour / 0"}
    assert (data["raised"], data["calls"], data["errors"][0]["place"]) == (25, 25, place)


@pytest.mark.slow
def test_a_walk_and_a_replay_name_it_too(raises):
    walk = run_here("walk", "s.py", *DAY, cwd=raises)
    assert walk.returncode == 1
    assert LINE in " ".join(walk.stdout.split())
    assert "too few trades" not in walk.stdout.lower()
    report = kept(raises)[-1].read_text()
    assert "**The strategy failed: StrategyFailedError: strategy 's' raised at each of" in report
    candles = [f"{1704067200000 + i * 60000},100,101,99,100,1" for i in range(200)]
    (raises / "c.csv").write_text("\n".join(candles))
    live = run_here("live", "s.py", "--symbol", "X", "--replay", "c.csv", cwd=raises)
    assert live.returncode == 1
    report = next((raises / "dump" / "live").glob("*.md")).read_text()
    assert LINE in report


def test_the_whole_traceback_where_it_is_asked_for(raises, caplog):
    for words, expected in ((), False), (("--traceback",), True):
        caplog.clear()
        with caplog.at_level("ERROR"):
            run_here("backtest", "s.py", *DAY, *words, cwd=raises)
        assert ("in half" in caplog.text) is expected


def test_a_run_that_fails_says_why_before_anything_else():
    def get_candles(symbol, interval, since, limit):
        if since > 1704067200000 + 5000 * 60_000:
            raise ConnectionError("the line is cut")
        return [[since + i * 60_000, 100, 100, 100, 100, 1] for i in range(limit)]

    bk.add_exchange(exchange_name="e", get_candles=get_candles)
    end = START + timedelta(days=30)
    bk.add_frame(frame_name="f", interval="1m", start_date=START, end_date=end)
    bk.add_strategy(strategy_name="s", interval="1h", get_signal=lambda symbol, when: None)
    with pytest.raises(bk.FetchError):
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="e", frame_name="f")
    data = bk.Backtest.get_data("X", strategy_name="s")
    assert data.ended_by.startswith("FetchError: ")
    assert not data.complete
    text = bk.Backtest.get_report("X", strategy_name="s")
    assert text.split("\n\n")[1].startswith("**The run failed at 2024-01-")
    assert "the line is cut" in text.split("\n\n")[1]
    assert "Errors: none" not in text
    assert "n/a" not in text
    assert msgspec.json.decode(msgspec.json.encode(data), type=type(data)) == data


def test_every_kind_of_user_code_is_named_by_its_line(caplog):
    """Callbacks and listeners: the event holds the line, and so does the log."""
    heard = []
    bk.listen_error(heard.append)

    def on_idle(tick):
        raise KeyError("on_idle")

    bk.add_exchange(bk.exchanges.SyntheticExchange())
    end = START + timedelta(hours=2)
    bk.add_frame(frame_name="f", interval="1m", start_date=START, end_date=end)
    bk.add_strategy(
        strategy_name="s",
        interval="1h",
        get_signal=lambda symbol, when: None,
        callbacks={"on_idle": on_idle},
    )

    @bk.listen_signal
    def listener(event):
        raise OSError("listener")

    with caplog.at_level("ERROR"):
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic", frame_name="f")
    lines = {(type(event.error), event.place.code) for event in heard}
    assert lines == {
        (KeyError, 'raise KeyError("on_idle")'),
        (OSError, 'raise OSError("listener")'),
    }
    assert all(event.place.file.endswith("test_failures.py") for event in heard)
    assert 'raise KeyError("on_idle")' in caplog.text


def test_an_error_of_the_library_is_placed_where_it_was_called():
    with pytest.raises(bk.ContextError) as caught:
        bk.candles("X", "1m", 5)
    assert place_of(caught.value).code == 'bk.candles("X", "1m", 5)'
    assert place_of(ValueError("was never raised")) is None


def test_a_mistake_of_registration_names_the_file_and_line_of_the_call(tmp_path):
    (tmp_path / "neighbour.py").write_text(
        'import backtest_kit as bk\n\nbk.add_strategy(strategy_name="n", interval="7m")\n'
    )
    (tmp_path / "s.py").write_text("import neighbour\n")
    one_line(
        run_here("backtest", "s.py", "--symbol", "X", cwd=tmp_path),
        "neighbour.py:3: RegistrationError: ",
        '(bk.add_strategy(strategy_name="n", interval="7m"))',
    )
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    with pytest.raises(bk.RegistrationError, match=r"already exists, from .*test_failures\.py:\d+"):
        bk.add_exchange(bk.exchanges.SyntheticExchange())


OWN_RUN = """
from datetime import UTC, datetime
import backtest_kit as bk
bk.add_exchange(bk.exchanges.SyntheticExchange())
bk.add_frame(frame_name="hour", interval="1m", start_date=datetime(2023, 1, 1, tzinfo=UTC),
             end_date=datetime(2023, 1, 3, tzinfo=UTC))

@bk.strategy("s", interval="1h")
async def s(symbol, when):
    print("asked")
    p = await bk.get_average_price(symbol)
    return bk.Signal(position="long", price_take_profit=p * 1.02, price_stop_loss=p * 0.98,
                     minute_estimated_time=30)

names = dict(strategy_name="s", exchange_name="synthetic", frame_name="hour")
print(len(bk.Backtest.run_sync("X", **names)))
"""


def test_runs_made_while_a_file_is_loaded_are_in_no_report(tmp_path):
    (tmp_path / "own.py").write_text(OWN_RUN)
    candles = [f"{1704067200000 + i * 60000},100,101,99,100,1" for i in range(600)]
    (tmp_path / "c.csv").write_text("\n".join(candles))
    words = ("own.py", "--symbol", "X", "--data", "c.csv")
    (data,) = json.loads(run_here("backtest", *words, "--json", cwd=tmp_path).stdout)
    assert (data["since"], data["until"]) == (1704067500000, 1704103200000)
    assert data["exchange_name"] == "data"
    assert kept(tmp_path, "heat.md") == []
    shown = run_here("backtest", *words, cwd=tmp_path)
    assert "X: 2024-01-01T00:05Z to 2024-01-01T10:00Z\n" in shown.stdout
    assert "asked" not in shown.stdout.split("X: ")[0]
    assert "made runs of its own while it was loaded" in shown.stderr
    walk = json.loads(run_here("walk", *words, "--json", cwd=tmp_path).stdout)
    assert walk["ranking"][0]["statistics"]["total_signals"] == len(data["signals"]) > 5
    asked = run_here("backtest", "own.py", "--symbol", "X", "--frame", "hour", cwd=tmp_path)
    assert "X: 2023-01-01T00:00Z to 2023-01-03T00:00Z (frame 'hour')\n" in asked.stdout


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    (tmp_path / "own.py").write_text(OWN_RUN)
    (tmp_path / "c.csv").write_text("0,1,1,1,1,1\n60000,1,1,1,1,1\n")
    for words in (
        ["demo"],
        ["backtest", "own.py", "--symbol", "X", "--json"],
        ["data", "check", "c.csv", "--json"],
        ["--help"],
    ):
        process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # with a buffer, as it is for people: little output is written at the very end
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
        process.stdout.close()
        told = process.communicate(timeout=100)[1].decode()
        assert "Traceback" not in told
        assert "Broken" not in told
        assert "BrokenPipe" not in told
    assert kept(tmp_path), "the report is there all the same"


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_table_of_trades_keeps_its_dates(width, tmp_path):
    import io

    from rich.console import Console

    from backtest_kit.cli.terminal import show

    (tmp_path / "own.py").write_text(OWN_RUN)
    result = run_here("backtest", "own.py", "--symbol", "X", "--json", cwd=tmp_path)
    (data,) = msgspec.json.decode(result.stdout, type=list[type_of_data()])
    console = Console(width=width, file=io.StringIO())
    show(data, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for tick in data.signals[-20:]:
        opened = datetime.fromtimestamp(tick.signal.pending_at / 1000, UTC)
        (line,) = (row for row in text.splitlines() if f"{opened:%Y-%m-%dT%H:%MZ}" in row[:25])
        closed = datetime.fromtimestamp(tick.close_timestamp / 1000, UTC)
        assert f"{closed:%Y-%m-%dT%H:%MZ}" in line


def type_of_data():
    from backtest_kit._reports.backtest import BacktestData

    return BacktestData


def test_several_symbols_have_a_sum(tmp_path):
    (tmp_path / "own.py").write_text(OWN_RUN)
    result = run_here("backtest", "own.py", "--symbol", "A", "--symbol", "B", cwd=tmp_path)
    for text in ("Trades of s on A", "Trades of s on B", "s, all symbols", "Together"):
        assert text in result.stdout


def test_a_replay_shows_how_far_it_is():
    from backtest_kit.cli.live_session import Job, replayed
    from backtest_kit.cli.live_table import LiveTable

    clock = bk.VirtualClock(START, START + timedelta(hours=10))
    jobs = [Job("A", "s", clock), Job("B", "s", clock)]
    assert replayed(jobs, []) == 0
    half: Any = SimpleNamespace(symbol="A", strategy_name="s", until=clock.start + 18_000_000)
    assert replayed(jobs, [half]) == 0.25
    ended: Any = SimpleNamespace(symbol="B", strategy_name="s", until=clock.end)
    assert replayed(jobs, [half, ended]) == 0.75
    assert replayed([*jobs, Job("C", "s", None)], [half]) is None
    table = LiveTable(recorded=True)
    table.done = 0.75
    assert "75% done" in table.render(clock.end).summary.plain


def test_one_symbol_has_none(tmp_path):
    (tmp_path / "own.py").write_text(OWN_RUN)
    assert "Together" not in run_here("backtest", "own.py", "--symbol", "A", cwd=tmp_path).stdout
