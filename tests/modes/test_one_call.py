"""`bk.backtest` and `bk.compare`: from data to a result, and nothing is left behind."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import backtest_kit as bk
from backtest_kit._values.candles import COLUMNS
from backtest_kit._values.time import to_datetime
from markets import MINUTE, START, market

ROWS = market(5, 3000, gaps=False)
NAMES = {"strategy_name": "up", "exchange_name": "frame", "frame_name": "f"}


def up(candles):
    """Buy at the close of each seventh candle."""
    side = (candles.timestamp // (5 * MINUTE) % 7 == 0).astype(np.int8)
    return bk.Signals.bracket(side, 0.8, 0.6, 30)


def up_asked(symbol, when):
    """The same, asked one step at a time."""
    candles = bk.candles(symbol, "5m", 1)
    return up(candles).row(0, candles.close[-1])


class UpMade:
    """The same, made anew for each run."""

    def get_signal(self, symbol, when):
        return up_asked(symbol, when)


def trades(result):
    return [(t.signal.pending_at, t.close_timestamp, t.pnl) for t in result.signals]


def registered(**settings):
    """The same backtest by hand."""
    with bk.Engine() as engine:
        engine.set_config(**settings)
        bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in ROWS]))
        bk.add_strategy(strategy_name="up", interval="5m", get_signals=up, warmup=1)
        first = START + 5 * MINUTE
        bk.add_frame(
            frame_name="f",
            interval="1m",
            start_date=to_datetime(first),
            end_date=to_datetime(ROWS[-1][0] + MINUTE),
        )
        bk.Backtest.run_sync("X", **NAMES)
        return bk.Backtest.get_data("X", strategy_name="up")


UP = bk.StrategySchema(strategy_name="up", interval="5m", get_signals=up, warmup=1)


@pytest.fixture
def files(tmp_path):
    columns = dict(zip(COLUMNS, map(list, zip(*ROWS, strict=True)), strict=True))
    parquet, csv = tmp_path / "BTC-1m.parquet", tmp_path / "BTC-1m.csv"
    pq.write_table(pa.table(columns), parquet)
    pd.DataFrame(columns).to_csv(csv, index=False)
    return {
        "parquet": parquet,
        "text": str(parquet),
        "csv": csv,
        "pandas": pd.DataFrame(columns),
        "polars": pl.DataFrame(columns),
        "rows": [list(row) for row in ROWS],
        "candles": bk.Candles(*(np.array(column) for column in columns.values())),
        "exchange": bk.exchanges.FrameExchange([list(row) for row in ROWS]),
    }


def test_every_kind_of_data_gives_the_trades_of_a_registered_run(files):
    expected = registered()
    assert len(expected.signals) > 20
    for kind, data in files.items():
        result = bk.backtest(data, UP, symbol="X")
        assert trades(result) == trades(expected), kind
        assert result.statistics == expected.statistics


def test_a_symbol_is_that_of_the_file(files):
    assert bk.backtest(files["csv"], UP).symbol == "BTC"
    with pytest.raises(bk.RegistrationError, match="which symbol"):
        bk.backtest(files["exchange"], UP)


def test_every_kind_of_strategy_gives_the_same(files):
    data = files["candles"]

    async def up_async(symbol, when):
        return up_asked(symbol, when)

    with bk.Engine():
        bk.strategy("decorated", interval="5m")(up_asked)
        bk.strategy("class", interval="5m")(UpMade)
        ways = [up_asked, "decorated", UpMade, "class"]
        found = [trades(bk.backtest(data, way)) for way in ways]
    ways = [up_asked, up_async, UpMade, lambda: UpMade()]
    found += [trades(bk.backtest(data, way, interval="5m")) for way in ways]
    assert len(found[0]) > 20
    assert all(one == found[0] for one in found)
    # 200 candles of warm-up are needed where nothing is said of it
    later = START + 200 * 5 * MINUTE
    arrays = trades(bk.backtest(data, up, interval="5m"))
    assert arrays[0][0] >= later
    since = trades(bk.backtest(data, up_asked, interval="5m", start=to_datetime(later)))
    assert arrays == since


def test_settings_are_on_top_of_the_present_ones(files):
    with bk.Engine():
        bk.set_config(percent_fee=0.0)
        result = bk.backtest(files["candles"], UP, symbol="X", percent_slippage=0.0)
    assert (result.percent_fee, result.percent_slippage) == (0.0, 0.0)
    assert result.statistics == registered(percent_fee=0.0, percent_slippage=0.0).statistics


def test_nothing_is_left_behind_and_a_second_call_is_a_fresh_one(files):
    with bk.Engine() as engine:
        first, second = (bk.backtest(files["candles"], UP, symbol="X") for _ in range(2))
        assert first == second
        assert not (engine.exchanges.list())
        assert not (engine.strategies.list())
        assert not (engine.frames.list())
        assert not engine.records.all()


def test_it_works_inside_a_running_loop(files):
    async def main():
        return bk.backtest(files["candles"], UP, symbol="X")

    assert asyncio.run(main()) == bk.backtest(files["candles"], UP, symbol="X")


@pytest.mark.parametrize(
    "start", ["2024-01-01", date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), None]
)
def test_a_range_may_be_given_in_several_ways(files, start):
    result = bk.backtest(files["candles"], UP, symbol="X", start=start, end="2024-01-02T00:00")
    assert result.since == (START + 5 * MINUTE if start is None else START)
    assert result.signals[-1].signal.pending_at <= START + 1440 * MINUTE


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ({"data": "nowhere.csv"}, bk.RegistrationError, "'nowhere.csv' does not exist"),
        ({"data": 7}, bk.BadCandlesError, "expected candles, got int"),
        ({"strategy": 7}, bk.RegistrationError, "strategy=7 must be"),
        ({"strategy": "none"}, bk.UnknownNameError, "unknown strategy 'none'"),
        ({"strategy": up}, bk.RegistrationError, "'up' needs interval="),
        ({"strategy": lambda a, b, c: 1, "interval": "5m"}, bk.RegistrationError, "3 arguments"),
        ({"interval": "7m"}, bk.RegistrationError, "unknown interval '7m'"),
        ({"start": "soon"}, ValueError, "start='soon' is no ISO 8601"),
        ({"start": 5}, TypeError, "start=5 must be"),
        ({"start": datetime(2024, 1, 1)}, ValueError, "naive"),
        ({"start": "2025-01-01"}, bk.RegistrationError, "nothing from 2025-01-01"),
        ({"percent_fees": 1}, bk.ConfigError, "did you mean 'percent_fee'"),
    ],
)
def test_a_mistake_says_what_is_wrong(how, error, text, files):
    given = {"data": files["candles"], "strategy": UP, "symbol": "X"} | how
    with pytest.raises(error, match=text):
        bk.backtest(given.pop("data"), given.pop("strategy"), **given)


def hold(every):
    def get_signals(candles):
        side = (candles.timestamp // (5 * MINUTE) % every == 0).astype(np.int8)
        return bk.Signals.bracket(side, 0.8, 0.6, 30)

    return {"interval": "5m", "get_signals": get_signals, "warmup": 1}


def test_a_comparison_is_a_walk(files):
    with bk.Engine():
        ranking = bk.compare(
            files["candles"], bk.grid(hold, every=[5, 7]), symbol="X", metric="total_pnl"
        )
        again = bk.compare(
            files["candles"], bk.grid(hold, every=[5, 7]), symbol="X", metric="total_pnl"
        )
        bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in ROWS]))
        bk.add_frame(
            frame_name="data",
            interval="1m",
            start_date=to_datetime(START + 5 * MINUTE),
            end_date=to_datetime(ROWS[-1][0] + MINUTE),
        )
        bk.add_walker(
            walker_name="compare",
            exchange_name="frame",
            frame_name="data",
            strategies=["hold(every=5)", "hold(every=7)"],
            metric="total_pnl",
        )
        bk.Walker.run_sync("X", walker_name="compare")
        walked = bk.Walker.get_data("X", walker_name="compare")
    assert ranking == again
    assert ranking.ranking == walked.ranking
    assert (ranking.since, ranking.until) == (walked.since, walked.until)
    assert ranking.ranking[0].statistics.total_signals > 10


def test_a_comparison_over_several_symbols_takes_the_time_that_all_have(files):
    frames = {"A": [list(row) for row in ROWS], "B": [list(row) for row in ROWS[500:2000]]}
    ranking = bk.compare(
        bk.exchanges.FrameExchange(frames), [UP, up_asked], symbol=["A", "B"], interval="5m"
    )
    assert ranking.since == ROWS[500][0] + 5 * MINUTE
    assert ranking.until == ROWS[1999][0] + MINUTE
    for bad in ([], "up", None):
        with pytest.raises(bk.RegistrationError, match="must be several"):
            bk.compare(files["candles"], bad)


def test_results_are_tables(files):
    result = bk.backtest(files["candles"], UP, symbol="X")
    frame, other = result.to_pandas(), result.trades.to_polars()
    assert len(frame) == len(other) == len(result.trades) == len(result.signals)
    assert str(frame["opened_at"].dtype).startswith("datetime64")
    assert frame["opened_at"].dt.tz
    assert [t.close_timestamp for t in result.signals] == [*result.trades["closed_at"]]
    assert frame["closed_at"].iloc[-1].timestamp() * 1000 == result.signals[-1].close_timestamp
    assert other["closed_at"][-1].timestamp() * 1000 == result.signals[-1].close_timestamp
    equity = result.equity
    assert len(equity) == len(result.signals) + 1
    assert equity["total_pnl"][-1] == pytest.approx(result.statistics.total_pnl)
    assert equity["drawdown_percent"].max() == pytest.approx(result.statistics.max_drawdown_percent)
    values = result.statistics.to_pandas().set_index("statistic")["value"]
    assert values["total_signals"] == len(result.signals)


def test_a_ranking_is_a_table(files):
    with bk.Engine():
        ranking = bk.compare(files["candles"], bk.grid(hold, every=[5, 7]), symbol="X")
    whole = ranking.to_pandas()
    assert [*whole["strategy_name"]][-2:] == ["buy and hold", "random entries"]
    assert [*whole["benchmark"]] == [False] * len(ranking.ranking) + [True, True]
    frame = whole[~whole["benchmark"]]
    assert [*frame["strategy_name"]] == [row.strategy_name for row in ranking.ranking]
    assert [*frame["total_pnl"]] == [row.statistics.total_pnl for row in ranking.ranking]
    assert ranking.to_polars()["rank"].to_list()[:2] == [1, 2]


def test_a_table_is_read_back_from_parquet(files, tmp_path):
    result = bk.backtest(files["candles"], UP, symbol="X")
    read = pd.read_parquet(result.trades.to_parquet(tmp_path / "trades.parquet"))
    pd.testing.assert_frame_equal(
        read, result.to_pandas(), check_dtype=False, check_index_type=False
    )


def test_what_a_notebook_shows_is_escaped(files):
    name = "<script>alert(1)</script>"
    schema = bk.StrategySchema(strategy_name=name, interval="5m", get_signals=up, warmup=1)
    result = bk.backtest(files["candles"], schema, symbol="<b>X")
    shown = result._repr_html_() + result.trades._repr_html_() + files["candles"]._repr_html_()
    assert "<script" not in shown
    assert "<b>X" not in shown
    assert "&lt;script&gt;" in shown


def test_candles_are_read_outside_of_a_run(files):
    whole = bk.read_candles(files["parquet"])
    assert [tuple(row) for row in zip(*whole.columns(), strict=True)] == ROWS
    part = bk.read_candles(files["csv"], interval="5m", start="2024-01-01T01:00", end="2024-01-02")
    expected = whole[60:1440].resample("5m")
    for one, other in zip(part.columns(), expected.columns(), strict=True):
        assert (one == other).all()
    holes = [row for i, row in enumerate(ROWS) if not 50 <= i < 80]
    assert len(bk.read_candles([list(row) for row in holes])) == len(ROWS) - 30
    for start, end in (("2020-01-01", "2020-01-02"), ("2024-01-02", "2024-01-01")):
        with pytest.raises(bk.RegistrationError, match="there is nothing from"):
            bk.read_candles(files["candles"], start=start, end=end)
    with pytest.raises(bk.ContextError, match="read_candles"):
        bk.candles("X", "1m", 1)


SLOW = """
import time
import backtest_kit as bk

def slow(symbol, when):
    time.sleep(0.02)

market = bk.exchanges.SyntheticExchange(seed=1)
result = bk.backtest(
    market, slow, symbol="X", interval="15m", start="2024-01-01", end="2024-01-01T12:00"
)
"""


def test_a_notebook_shows_how_far_a_run_has_come():
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SLOW)])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    (bar,) = notebook.cells[0].outputs
    assert 'slow on X <progress value="721" max="721">' in bar["data"]["text/html"]


def test_a_pipe_is_left_alone():
    done = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_terminal_shows_a_bar():
    leader, follower = os.openpty()
    done = subprocess.Popen([sys.executable, "-c", SLOW], stderr=follower, stdin=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            shown += os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
    assert done.wait() == 0
    assert b"slow on X" in shown
    assert b"721/721" in shown
