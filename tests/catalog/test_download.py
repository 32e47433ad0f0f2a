"""Downloads against servers that misbehave: what is in the catalog is what the venue has."""

import asyncio
import contextlib
import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("ccxt", reason="needs ccxt")

import backtest_kit as bk
from backtest_kit._catalog.catalog import Catalog
from backtest_kit._catalog.layout import SeriesKey
from backtest_kit._values.clock import Clock
from backtest_kit._values.time import to_datetime
from catalog.archive_server import ArchiveServer
from effort import examples
from exchanges import ccxt_server as binance
from exchanges.ccxt_server import BinanceServer, status

MINUTE, DAY = 60_000, 86_400_000
#: 2024-01-28T00:00Z, four days before a border of months.
BEGIN = 1_706_400_000_000
NOW = BEGIN + 9 * DAY + 90 * MINUTE + 13_000
KEY = SeriesKey("binance", "BTC/USDT", "1m")


class Patient(Clock):
    """The clock of NOW, on which pauses take no time."""

    def __init__(self):
        self.paused = 0.0

    def wall_ms(self):
        return NOW

    def monotonic(self):
        return asyncio.get_running_loop().time() + self.paused

    async def sleep(self, seconds):
        self.paused += seconds
        await asyncio.sleep(0)


def rows(since, until, holes=()):
    rng = np.random.default_rng(5)
    found, price = [], 40_000.0
    for t in range(since, until, MINUTE):
        price = round(price * (1 + rng.normal(0, 0.0005)), 2)
        if not any(a <= t < b for a, b in holes):
            found.append((t, price, price + 2, price - 2, price + 1, round(rng.gamma(2), 3)))
    return found


#: Listed at noon of the second day, with an outage of a day and a half later on.
OUTAGE = (BEGIN + 5 * DAY + 100 * MINUTE, BEGIN + 6 * DAY + 800 * MINUTE)
LISTED = BEGIN + DAY + DAY // 2
ROWS = rows(LISTED, BEGIN + 10 * DAY, [OUTAGE])
CLOSED = [row for row in ROWS if row[0] + MINUTE <= NOW]


@contextlib.contextmanager
def venue(**config):
    with BinanceServer(ROWS, lambda: NOW) as server, bk.Engine() as engine:
        engine.clock = Patient()
        engine.set_config(get_candles_retry_delay_ms=100, **config)
        yield server


def fetch(server, folder, start=BEGIN, end=None, source="venue", **more):
    end = None if end is None else to_datetime(end)
    return bk.data.download(
        server.exchange("binance"),
        "BTC/USDT",
        start=to_datetime(start),
        end=end,
        catalog=folder,
        source=source,
        **more,
    )


def stored(folder):
    catalog = Catalog(folder)
    parts = [catalog.read(KEY, month).candles for month in catalog.months(KEY)]
    return [row for part in parts for row in zip(*part.columns(), strict=True)]


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.parquet")}


def test_all_that_the_venue_has_is_there_and_its_gaps_are_known(tmp_path):
    with venue() as server:
        found = fetch(server, tmp_path)
        assert stored(tmp_path) == CLOSED
        assert found.whole
        (series,) = found.series
        assert series.rows == len(CLOSED)
        assert series.gaps == 2  # before it was listed, and the outage
        assert series.missing == (LISTED - BEGIN + OUTAGE[1] - OUTAGE[0]) // MINUTE
        # nothing that is there is asked for again
        server.asked.clear()
        again = fetch(server, tmp_path)
        assert again.series[0].rows == 0
        assert len(server.asked) <= 1
        assert len(again.to_pandas()) == 1
    summary = bk.data.describe(tmp_path)[0]
    assert (summary.rows, summary.first) == (len(CLOSED), LISTED)
    assert summary.end == CLOSED[-1][0] + MINUTE


def test_years_before_a_symbol_was_listed_cost_little(tmp_path):
    with venue() as server:
        assert fetch(server, tmp_path, start=BEGIN - 3650 * DAY).whole
        assert len(server.asked) < 40
    assert stored(tmp_path) == CLOSED


FAULTS = {
    "busy": status(429, "slow down", Retry_After="3"),
    "down": status(503),
    "dropped": binance.drop,
    "cut off": binance.cut_off,
    "a page of HTML": binance.page,
}
faults = st.lists(
    st.tuples(st.sampled_from([*FAULTS]), st.integers(1, 3), st.integers(0, 12)), max_size=4
)


@examples(5)
@given(faults, st.integers(600, 1000))
def test_faults_that_pass_leave_no_trace(tmp_path_factory, struck, most):
    folder = tmp_path_factory.mktemp("catalog")
    with venue(get_candles_retry_count=12) as server:
        server.most = most  # shorter pages than were asked for
        for kind, times, _ in struck:
            server.fault(FAULTS[kind], times=times)
        since = BEGIN + 3 * DAY + DAY // 2  # over the border of the months, and the outage
        found = fetch(server, folder, start=since)
    assert found.whole, found.series[0].problems
    assert stored(folder) == [row for row in CLOSED if row[0] >= since]


@pytest.mark.parametrize(("interval", "gone"), [("1d", 0), ("1m", 0), ("1m", 400), ("1m", -1)])
def test_a_page_that_is_one_candle_short_is_asked_for_again(interval, gone, tmp_path):
    struck = []

    def short(server, handler, query):
        page = server.klines(query)
        if query["interval"] == interval and not struck:
            struck.append(page.pop(gone))
        server.answer(handler, page)

    with venue() as server:
        server.fault(short)
        found = fetch(server, tmp_path, start=BEGIN + 3 * DAY)
        pages = [query for _, query in server.asked if query["interval"] == "1m"]
    assert struck
    assert found.whole
    assert stored(tmp_path) == [row for row in CLOSED if row[0] >= BEGIN + 3 * DAY]
    assert len(pages) < 25  # not everything is asked for twice


def test_a_venue_that_stays_down_is_given_up(tmp_path):
    with venue(get_candles_retry_count=1) as server:
        server.fault(status(503))
        found = fetch(server, tmp_path, start=BEGIN - 3650 * DAY)
        assert len(server.asked) < 10
    (problem,) = found.series[0].problems
    assert "503" in problem.message
    assert problem.since == BEGIN - 3650 * DAY
    assert stored(tmp_path) == []


def test_a_symbol_that_the_venue_does_not_know_is_asked_for_once(tmp_path):
    with venue() as server:
        found = bk.data.download(
            server.exchange("binance"),
            "NO/USDT",
            start="2014-01-01",
            catalog=tmp_path,
            source="venue",
        )
        assert not server.asked
    assert "NO/USDT" in found.series[0].problems[0].message


def test_a_damaged_file_is_a_problem_of_its_series(tmp_path):
    with venue() as server:
        both = ["BTC/USDT", "ETH/USDT"]
        exchange = server.exchange("binance")
        more = {"catalog": tmp_path, "source": "venue"}
        bk.data.download(exchange, both, start=to_datetime(BEGIN + 7 * DAY), **more)
        (path,) = (tmp_path / KEY.folder).glob("*.parquet")
        path.write_bytes(path.read_bytes()[:-5])
        found = bk.data.download(exchange, both, start=to_datetime(BEGIN + 6 * DAY), **more)
    one, other = found.series
    assert path.name in one.problems[0].message
    assert not other.problems
    assert other.rows


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path, monkeypatch):
    with venue() as server:
        fetch(server, tmp_path, end=BEGIN + 3 * DAY)
        before = files(tmp_path)
        write = os.write

        def full(handle, content):
            if len(content) > 1:  # the lock is no file of the catalog
                write(handle, content[: len(content) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(handle, content)

        with monkeypatch.context() as patch:
            patch.setattr("backtest_kit._catalog.catalog.os.write", full)
            with pytest.raises(OSError, match="No space left"):
                fetch(server, tmp_path)
        assert files(tmp_path) == before
        assert not [*tmp_path.rglob("*.tmp")]
        assert fetch(server, tmp_path).whole
    assert stored(tmp_path) == CLOSED


def test_what_could_not_be_had_is_told_and_the_rest_is_there(tmp_path):
    with venue(get_candles_retry_count=1) as server:
        hole = BEGIN + 3 * DAY

        def strikes(now, path, query):
            return (
                path.endswith("/klines")
                and query["interval"] == "1m"
                and (hole <= int(query["startTime"]) < hole + 60_000 * MINUTE)
                and int(query["startTime"]) < hole + 10_000 * MINUTE
            )

        fault = binance.Fault(status(503))
        fault.strikes = strikes
        server.faults.append(fault)
        found = fetch(server, tmp_path)
        assert not found.whole
        problems = found.series[0].problems
        assert "503" in problems[0].message
        gone = [(p.since, p.until) for p in problems]
        assert stored(tmp_path) == [r for r in CLOSED if not any(a <= r[0] < b for a, b in gone)]
        server.faults.clear()
        assert fetch(server, tmp_path).whole
    assert stored(tmp_path) == CLOSED


def test_several_symbols_and_one_that_fails(tmp_path):
    with venue() as server:
        found = bk.data.download(
            server.exchange("binance"),
            ["BTC/USDT", "NO/USDT", "ETH/USDT"],
            start=to_datetime(BEGIN + 8 * DAY),
            catalog=tmp_path,
            source="venue",
        )
    assert [bool(series.problems) for series in found.series] == [False, True, False]
    assert "NO/USDT" in found.series[1].problems[0].message
    assert [s.symbol for s in bk.data.describe(tmp_path)] == ["BTC/USDT", "ETH/USDT"]


def test_an_update_brings_all_series_up_to_now(tmp_path):
    with venue() as server:
        fetch(server, tmp_path, end=BEGIN + 4 * DAY)
        assert len(stored(tmp_path)) < len(CLOSED)
        names = {"binance": server.exchange("binance")}
        assert bk.data.update(tmp_path, source="venue", exchanges_by_name=names).whole
    assert stored(tmp_path) == CLOSED


def test_a_candle_that_is_told_differently_is_a_revision(tmp_path):
    changed = [list(row) for row in ROWS]
    changed[2000][4] += 1.0
    with venue() as server, ArchiveServer(changed, BEGIN + 5 * DAY, 0) as archive:
        fetch(server, tmp_path, end=BEGIN + 3 * DAY)
        found = fetch(server, tmp_path, source="auto", archive=archive.address)
        (revision,) = found.series[0].revisions
        assert revision.timestamp == ROWS[2000][0]
        assert revision.told[3] == ROWS[2000][4] + 1.0
        names = {"binance": server.exchange("binance")}
        assert bk.data.update(tmp_path, source="venue", exchanges_by_name=names).whole
    assert stored(tmp_path) == CLOSED
    assert bk.data.describe(tmp_path)[0].revisions == 1


@pytest.mark.parametrize("layout", [{}, {"micro": True}, {"head": True}])
def test_the_archive_gives_the_same_as_the_venue(layout, tmp_path):
    border = BEGIN + 4 * DAY  # the first of February
    with (
        venue() as server,
        ArchiveServer(ROWS, border, BEGIN + 8 * DAY, **layout) as archive,
    ):
        fetch(server, tmp_path / "venue")
        server.asked.clear()
        found = fetch(server, tmp_path / "both", source="auto", archive=archive.address)
        assert found.whole
        asked = {int(query["startTime"]) for _, query in server.asked}
        assert min(asked) >= BEGIN + 8 * DAY  # the rest alone
    assert stored(tmp_path / "both") == stored(tmp_path / "venue") == CLOSED
    assert any("monthly" in path for path in archive.asked)
    assert any("daily" in path for path in archive.asked)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda content: content[:-7], "SHA-256"),
        (lambda content: content[:50] + b"x" + content[51:], "SHA-256"),
    ],
)
def test_a_damaged_file_of_the_archive_is_asked_for_again(change, text, tmp_path):
    with venue() as server, ArchiveServer(ROWS, BEGIN + 4 * DAY, 0) as archive:
        name = "BTCUSDT-1m-2024-01.zip"
        archive.faults[name] = [(200, {}, change)] * 2
        end = BEGIN + 4 * DAY
        found = fetch(server, tmp_path, end=end, source="archive", archive=archive.address)
        assert found.whole
        archive.faults[name] = [(200, {}, change)] * 9
        other = tmp_path / "other"
        found = fetch(server, other, end=end, source="archive", archive=archive.address)
        assert text in found.series[0].problems[0].message
        assert name in found.series[0].problems[0].message
    assert stored(tmp_path) == [row for row in CLOSED if row[0] < end]
    assert stored(other) == []


def test_a_zip_that_is_cut_short_is_asked_for_again_without_a_checksum_too(tmp_path):
    with venue() as server, ArchiveServer(ROWS, BEGIN + 4 * DAY, 0) as archive:
        name = "BTCUSDT-1m-2024-01.zip"
        archive.faults[name] = [(200, {}, lambda content: content[: len(content) // 2])]
        archive.faults[f"{name}.CHECKSUM"] = [(404, {}, lambda content: b"")] * 9
        end = BEGIN + 4 * DAY
        assert fetch(server, tmp_path, end=end, source="archive", archive=archive.address).whole
        assert [path.endswith(name) for path in archive.asked].count(True) == 2
    assert stored(tmp_path) == [row for row in CLOSED if row[0] < end]


def test_an_archive_that_is_busy_is_waited_for(tmp_path):
    with venue() as server, ArchiveServer(ROWS, BEGIN + 4 * DAY, 0) as archive:
        busy = [(429, {"Retry-After": "7"}, lambda c: c), (503, {}, lambda c: c)]
        archive.faults["BTCUSDT-1m-2024-01.zip"] = busy
        end = BEGIN + 4 * DAY
        assert fetch(server, tmp_path, end=end, source="archive", archive=archive.address).whole


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"exchange": "binanse"}, "did you mean 'binance'"),
        ({"exchange": 7}, "must be an exchange"),
        ({"interval": "7m"}, "unknown interval '7m'"),
        ({"symbols": []}, "must name one or several"),
        ({"symbols": ["A", "A"]}, "each once"),
        ({"start": "2030-01-01"}, "lies in the future"),
        ({"end": "2030-01-01"}, "lies in the future"),
        ({"end": "2020-01-01"}, "nothing from"),
        ({"catalog": "nothing://x"}, "nothing://x"),
    ],
)
def test_a_mistake_says_what_is_wrong(how, text, tmp_path):
    given = {"exchange": "binance", "symbols": "BTC/USDT", "start": "2024-01-01"}
    given |= {"catalog": tmp_path, **how}
    with bk.Engine() as engine:
        engine.clock = Patient()
        with pytest.raises(bk.BacktestKitError, match=text):
            bk.data.download(given.pop("exchange"), given.pop("symbols"), **given)


def test_two_downloads_into_one_catalog(tmp_path):
    with venue() as server:
        errors = []

        def progress(key, there, wanted):
            if not errors:
                with pytest.raises(bk.RegistrationError, match="another download") as error:
                    fetch(server, tmp_path)
                errors.append(error)

        assert fetch(server, tmp_path, progress=progress).whole
        assert errors
