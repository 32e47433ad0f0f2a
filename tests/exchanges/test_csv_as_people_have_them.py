"""Files of candles in the wild: every kind is read as the same candles, or says what it needs."""

import asyncio
import csv
import gzip
import io
import zipfile
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._reports.data_check import inspect
from backtest_kit._values.candles import COLUMNS
from backtest_kit.exchanges._layout import NAIVE, NO_VOLUME, layout
from backtest_kit.exchanges._parts import read_file
from markets import MINUTE, market

#: 2024-01-23: no figure of the day is a month. Two decimals, as most files have.
BEGIN = int(datetime(2024, 1, 23, 22, 0, tzinfo=UTC).timestamp() * 1000)
ROWS = [
    [BEGIN + i * MINUTE, *(round(x, 2) for x in row[1:])]
    for i, row in enumerate(market(11, 200, gaps=False))
]
CANDLES = bk.Candles(*zip(*ROWS, strict=True))
CALM = bk.Candles(*CANDLES.columns()[:5], np.zeros(len(ROWS)))
ISO, EU, US, DOTS = "%Y-%m-%d %H:%M", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M", "%Y.%m.%d %H:%M"


def at(row, form, zone=UTC):
    return datetime.fromtimestamp(row[0] / 1000, zone).strftime(form)


def text(rows, *, head=(), separator=",", decimal=".", quote=csv.QUOTE_MINIMAL, end="\n"):
    """Return rows of cells as a CSV file of that dialect."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, quoting=quote, lineterminator=end)
    for line in head:
        writer.writerow(line)
    for row in rows:
        writer.writerow([repr(x).replace(".", decimal) if isinstance(x, float) else x for x in row])
    return stream.getvalue()


def dated(form, *, columns=6, reverse=False):
    rows = [[at(row, form), *row[1:columns]] for row in ROWS]
    return rows[::-1] if reverse else rows


def cdd():
    head = "https://www.CryptoDataDownload.com\n"
    rows = [
        [r[0], at(r, "%Y-%m-%d %H:%M:%S"), "BTC/USDT", *r[1:5], r[5], 123456.5, 7]
        for r in reversed(ROWS)
    ]
    names = "unix,date,symbol,open,high,low,close,Volume BTC,Volume USDT,tradecount"
    return head + names + "\n" + text(rows)


def old_cdd():
    names = ["Unix Timestamp", "Date", "Symbol", "Open", "High", "Low", "Close", "Volume"]
    rows = [[f"{r[0] / 1000:.1f}", at(r, ISO), "BTCUSD", *r[1:]] for r in reversed(ROWS)]
    return "https://www.CryptoDataDownload.com\n" + text(rows, head=[names])


def mt5():
    names = "<DATE> <TIME> <OPEN> <HIGH> <LOW> <CLOSE> <TICKVOL> <VOL> <SPREAD>"
    rows = [[at(r, "%Y.%m.%d"), at(r, "%H:%M:%S"), *r[1:], 0, 12] for r in ROWS]
    return names.replace(" ", "\t") + "\n" + text(rows, separator="\t")


def mt4():
    return text([[at(r, "%Y.%m.%d"), at(r, "%H:%M"), *r[1:]] for r in ROWS], end="\r\n")


def stooq():
    names = "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
    rows = [["X", 1, at(r, "%Y%m%d"), at(r, "%H%M%S"), *r[1:], 0] for r in ROWS]
    return names + text(rows)


def histdata():
    rows = [[at(r, "%Y%m%d %H%M%S"), *r[1:5], 0] for r in ROWS]
    return text(rows, separator=";")


def dukascopy():
    names = ["Gmt time", "Open", "High", "Low", "Close", "Volume"]
    return text(dated("%d.%m.%Y %H:%M:%S.000"), head=[names])


def dukascopy_local():
    names = ["Local time", "Open", "High", "Low", "Close", "Volume"]
    zone = ZoneInfo("Europe/Berlin")
    rows = [[at(r, "%d.%m.%Y %H:%M:%S.000 GMT%z", zone), *r[1:]] for r in ROWS]
    return text(rows, head=[names])


def kraken():
    return text([[r[0] // 1000, *r[1:], 3] for r in ROWS])


LETTERS = ["t", "o", "h", "l", "c", "v"]
CAPITALS = ["Date", "Open", "High", "Low", "Close", "Volume"]
FILES = {
    "cryptodatadownload": cdd(),
    "cryptodatadownload, old": old_cdd(),
    "metatrader 5": mt5(),
    "metatrader 4": mt4(),
    "stooq": stooq(),
    "dukascopy": dukascopy(),
    "dukascopy, local": dukascopy_local(),
    "kraken": kraken(),
    "letters": text(ROWS, head=[LETTERS]),
    "letters, ns": text([[r[0] * 10**6, *r[1:]] for r in ROWS], head=[LETTERS]),
    "capitals, us": text([[r[0] * 1000, *r[1:]] for r in ROWS], head=[CAPITALS]),
    "capitals, s": text([[r[0] // 1000, *r[1:]] for r in ROWS], head=[CAPITALS]),
    "tabs": text(dated(ISO), head=[CAPITALS], separator="\t"),
    "pipes": text(dated(ISO), head=[CAPITALS], separator="|"),
    "excel, german": text(dated(EU), head=[CAPITALS], separator=";", decimal=","),
    "excel, german, quoted": text(
        dated(EU), head=[CAPITALS], decimal=",", quote=csv.QUOTE_ALL, end="\r\n"
    ),
    "excel, american": text(dated("%m/%d/%Y %I:%M %p"), head=[CAPITALS]),
    "slashes, british": text(dated("%d/%m/%Y %H:%M"), head=[CAPITALS]),
    "newest first": text(dated(ISO, reverse=True), head=[CAPITALS]),
    "date and time": text(
        [[at(r, "%Y-%m-%d"), at(r, "%H:%M"), *r[1:]] for r in ROWS],
        head=[["Date", "Time", *CAPITALS[1:]]],
    ),
    "pandas": text([[i, *r] for i, r in enumerate(ROWS)], head=[["", *COLUMNS]]),
    "pandas, index": text(dated("%Y-%m-%d %H:%M:%S+00:00"), head=[["", *COLUMNS[1:]]]),
    "quoted": text(dated(ISO), head=[CAPITALS], quote=csv.QUOTE_ALL),
    "banner": "\nMy broker\nAccount 123, EUR\n\n" + text(dated(ISO), head=[CAPITALS]),
    "sep=": "sep=;\n" + text(dated(ISO), head=[CAPITALS], separator=";"),
    "separator at the end": text([[*r, ""] for r in ROWS], head=[CAPITALS]),
    "blank lines at the end": text(ROWS, head=[CAPITALS]) + "\n\n",
}


def exchange(path, **options):
    return bk.exchanges.CsvExchange(path, **options)


def all_of(found):
    first, end = found.data_range("X")
    step = bk.exchanges.CsvExchange.intervals(found, "X")[0]
    return asyncio.run(found.get_candles("X", step, first, (end - first) // MINUTE))


@pytest.mark.parametrize("name", [*FILES])
def test_every_kind_of_file_gives_the_same_candles(name, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(FILES[name])
    assert all_of(exchange(path)) == CANDLES
    assert inspect(path).usable


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["metatrader 5", "excel, german", "letters"])
def test_every_encoding(name, encoding, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(FILES[name].encode(encoding))
    assert all_of(exchange(path)) == CANDLES


def test_packed_files(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(FILES["metatrader 5"].encode("utf-16")))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("b.csv", FILES["excel, german"])
    (tmp_path / "c.tsv").write_text(FILES["tabs"])
    for path in sorted(tmp_path.iterdir()):
        assert all_of(exchange(path)) == CANDLES


@pytest.mark.parametrize(
    "content",
    [
        text([r[:5] for r in ROWS], head=[LETTERS[:5]]),
        text([r[:5] for r in ROWS]),
        text([[at(r, "%Y.%m.%d"), at(r, "%H:%M"), *r[1:5]] for r in ROWS]),
        histdata(),
    ],
    ids=["header", "no header", "metatrader 4", "histdata, zeros"],
)
def test_no_volume_is_told(content, tmp_path, caplog):
    path = tmp_path / "x.csv"
    path.write_text(content)
    found = exchange(path)
    with caplog.at_level("WARNING"):
        assert all_of(found) == CALM
    absent = content != histdata()
    assert (NO_VOLUME in found.notes("X")) is absent
    assert (NO_VOLUME in inspect(path).notes) is absent
    assert (NO_VOLUME in caplog.text) is absent


NAMES = ["when", "first", "top", "bottom", "last", "amount"]


def test_columns_can_be_named(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(text(ROWS, head=[NAMES]))
    with pytest.raises(bk.BadCandlesError, match=r"no column a time, open, .*--columns"):
        all_of(exchange(path))
    columns = dict(zip(COLUMNS, NAMES, strict=True))
    assert all_of(exchange(path, columns=columns)) == CANDLES
    swapped = [[at(r, "%H:%M"), r[4], r[3], r[2], r[1], r[5], at(r, "%Y-%m-%d")] for r in ROWS]
    path.write_text(text(swapped))
    by_number = {"timestamp": "7+1", "open": "5", "high": "4", "low": "3", "close": "2"}
    assert all_of(exchange(path, columns=by_number | {"volume": "6"})) == CANDLES
    with pytest.raises(bk.BadCandlesError, match="no column '9'"):
        all_of(exchange(path, columns=by_number | {"volume": "9"}))
    with pytest.raises(bk.ConfigError, match="no column 'opne'; did you mean 'open'"):
        exchange(path, columns={"opne": "o"})


def test_a_date_that_may_be_another_is_an_error_that_names_the_option(tmp_path):
    early = [[r[0] - 19 * 86_400_000, *r[1:]] for r in ROWS]  # from the 4th of January
    path = tmp_path / "x.csv"
    expected = bk.Candles(*zip(*early, strict=True))
    for form, order in ((US, "mdy"), ("%d/%m/%Y %H:%M", "dmy")):
        path.write_text(text([[at(r, form), *r[1:]] for r in early], head=[CAPITALS]))
        with pytest.raises(bk.BadCandlesError, match=r"day/month or month/day.*--date-format"):
            all_of(exchange(path))
        assert all_of(exchange(path, date_format=order)) == expected
        assert all_of(exchange(path, date_format=form)) == expected
    short = "%d/%m/%y %H:%M"
    path.write_text(text([[at(r, short), *r[1:]] for r in early], head=[CAPITALS]))
    with pytest.raises(bk.BadCandlesError, match="--date-format"):
        all_of(exchange(path))
    assert all_of(exchange(path, date_format="dmy")) == expected
    assert all_of(exchange(path, date_format=short)) == expected
    months = "%b %d %Y %I:%M:%S.%f %p"
    path.write_text(text([[at(r, months), *r[1:]] for r in early], head=[CAPITALS]))
    with pytest.raises(bk.BadCandlesError, match="neither a number nor a date"):
        all_of(exchange(path))
    assert all_of(exchange(path, date_format=months)) == expected
    with pytest.raises(bk.ConfigError, match="dmy, mdy, ymd"):
        exchange(path, date_format="d.m.y")


def hours(begin, count):
    """Rows of hours from a UTC datetime."""
    start = int(begin.timestamp() * 1000)
    return [[start + i * 60 * MINUTE, 10.0, 11.0, 9.0, 10.5, 2.0] for i in range(count)]


def test_local_times(tmp_path):
    zone, path = ZoneInfo("America/New_York"), tmp_path / "x.csv"
    path.write_text(text([[at(r, ISO, zone), *r[1:]] for r in ROWS], head=[CAPITALS]))
    assert all_of(exchange(path, timezone="America/New_York")) == CANDLES
    assert NAIVE in inspect(path).notes
    assert inspect(path, given=layout(None, "America/New_York", None, "raise")).notes == ()
    with pytest.raises(bk.ConfigError, match="'Europe/Berlim' is no time zone"):
        exchange(path, timezone="Europe/Berlim")


@pytest.mark.parametrize("reverse", [False, True])
def test_an_hour_that_is_there_twice_is_a_choice(reverse, tmp_path):
    zone, path = ZoneInfo("Europe/Berlin"), tmp_path / "x.csv"
    rows = hours(datetime(2024, 10, 26, 20, tzinfo=UTC), 12)  # clocks go back at 01:00 UTC
    written = [[at(r, ISO, zone), *r[1:]] for r in rows]
    path.write_text(text(written[::-1] if reverse else written, head=[CAPITALS]))
    with pytest.raises(bk.BadCandlesError, match=r"2024-10-27T02:00.*twice.*--ambiguous-time"):
        all_of(exchange(path, timezone="Europe/Berlin"))
    right = exchange(path, timezone="Europe/Berlin", ambiguous_time="in_order")
    assert all_of(right) == bk.Candles(*zip(*rows, strict=True))
    one = [row for row in rows if row[0] != rows[5][0]]  # only one of the two is there
    path.write_text(text([[at(r, ISO, zone), *r[1:]] for r in one], head=[CAPITALS]))
    earlier = all_of(exchange(path, timezone="Europe/Berlin", ambiguous_time="earlier"))
    later = all_of(exchange(path, timezone="Europe/Berlin", ambiguous_time="later"))
    assert earlier == bk.Candles(*zip(*one, strict=True))
    assert (later.timestamp - earlier.timestamp).tolist() == [0] * 4 + [3_600_000] + [0] * 6


def test_an_hour_that_is_not_there_is_an_error(tmp_path):
    path = tmp_path / "x.csv"
    rows = hours(datetime(2024, 3, 30, 23, tzinfo=UTC), 8)
    path.write_text(text([[at(r, ISO), *r[1:]] for r in rows], head=[CAPITALS]))
    with pytest.raises(bk.BadCandlesError, match=r"2024-03-31T02:00.*does not have.*--timezone"):
        all_of(exchange(path, timezone="Europe/Berlin"))


def test_dates_belong_to_no_zone(tmp_path):
    path = tmp_path / "x.csv"
    days = [[f"{d}/01/2024", 10.0, 11.0, 9.0, 10.5, 2.0] for d in range(2, 30)]
    path.write_text(text(days, head=[CAPITALS]))
    found = exchange(path, timezone="Europe/Berlin")
    assert found.data_range("X")[0] == int(datetime(2024, 1, 2, tzinfo=UTC).timestamp() * 1000)
    assert found.intervals("X")[0] == "1d"


def test_what_is_no_date_is_named(tmp_path):
    path = tmp_path / "x.csv"
    for wrong in ("2024-01-23 25:00", "2024-02-30 10:00", "2024-13-01 10:00", "yesterday"):
        rows = dated(ISO)
        rows[7][0] = wrong
        path.write_text(text(rows, head=[CAPITALS]))
        with pytest.raises(bk.BadCandlesError, match=f"candle 7 has the time '{wrong}'"):
            all_of(exchange(path))
    rows = dated(ISO)
    rows[7][0] += "+01:00"
    path.write_text(text(rows, head=[CAPITALS]))
    with pytest.raises(bk.BadCandlesError, match="some times have a zone"):
        all_of(exchange(path))


def test_another_way_of_reading_is_other_content(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(FILES["tabs"])
    assert exchange(path).content_digest() == exchange(path).content_digest()
    other = exchange(path, timezone="Europe/Berlin")
    assert exchange(path).content_digest() != other.content_digest()


def tables():
    """Tables as pandas, yfinance and others leave them in Parquet and Feather."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(ROWS, columns=["timestamp", *CAPITALS[1:]])
    times = pd.to_datetime(frame.pop("timestamp"), unit="ms")
    local = times.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    yahoo = frame.copy()
    yahoo.columns = pd.MultiIndex.from_product([frame.columns, ["BTC-USD"]])
    by_ticker = frame.copy()
    by_ticker.columns = pd.MultiIndex.from_product([["BTC-USD"], frame.columns])
    letters = pd.DataFrame(ROWS, columns=LETTERS)
    return {
        "index": frame.set_index(pd.DatetimeIndex(times)),
        "named index": frame.set_index(pd.DatetimeIndex(times, name="Datetime")),
        "index with a zone": frame.set_index(pd.DatetimeIndex(local, name="Date")),
        "capitals": frame.assign(Timestamp=times),
        "letters": letters,
        "seconds": letters.assign(t=letters.t // 1000),
        "nanoseconds": letters.assign(t=letters.t * 10**6),
        "text": letters.assign(t=[at(r, "%d.%m.%Y %H:%M") for r in ROWS]),
        "yfinance": yahoo.set_index(pd.DatetimeIndex(local, name="Datetime")),
        "yfinance by ticker": by_ticker.set_index(pd.DatetimeIndex(local, name="Datetime")),
        "newest first": letters.iloc[::-1],
    }


@pytest.mark.parametrize("kind", ["parquet", "small groups", "feather", "frame", "polars"])
def test_tables_with_an_index_or_other_names(kind, tmp_path):
    pl = pytest.importorskip("polars")
    for name, frame in tables().items():
        if kind == "frame":
            found = bk.exchanges.FrameExchange(frame)
        elif kind == "polars":
            if "yfinance" in name:
                continue
            found = bk.exchanges.FrameExchange(pl.from_pandas(frame.reset_index()))
        elif kind == "feather":
            path = tmp_path / "x.feather"
            pyarrow.feather.write_feather(pa.Table.from_pandas(frame), path)
            found = bk.exchanges.ParquetExchange(path)
            assert read_file(path).candles == CANDLES
        else:
            path = tmp_path / "x.parquet"
            table = pa.Table.from_pandas(frame)
            pq.write_table(table, path, row_group_size=37 if kind == "small groups" else 1000)
            found = bk.exchanges.ParquetExchange(path)
            assert read_file(path).candles == CANDLES
        assert all_of(found) == CANDLES, name


def test_two_symbols_in_one_table_are_refused(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame([[*r, *r[1:]] for r in ROWS])
    columns = [(name, who) for who in ("AAA", "BBB") for name in CAPITALS[1:]]
    frame = frame.set_index(0)
    frame.columns = pd.MultiIndex.from_tuples(columns)
    with pytest.raises(bk.BadCandlesError, match="AAA, BBB; give each a file of its own"):
        bk.exchanges.FrameExchange(frame)


def test_tables_in_a_local_time(tmp_path):
    zone, path = ZoneInfo("Europe/Berlin"), tmp_path / "x.parquet"
    local = [datetime.fromtimestamp(r[0] / 1000, zone).replace(tzinfo=None) for r in ROWS]
    columns = dict(zip(LETTERS, (pa.array(local), *CANDLES.columns()[1:]), strict=True))
    pq.write_table(pa.table(columns), path)
    found = bk.exchanges.ParquetExchange(path, timezone="Europe/Berlin")
    assert all_of(found) == CANDLES
    assert bk.exchanges.ParquetExchange(path).notes("X") == (NAIVE,)
    del columns["v"]
    pq.write_table(pa.table(columns), path)
    found = bk.exchanges.ParquetExchange(path, timezone="Europe/Berlin")
    assert all_of(found) == CALM
    assert found.notes("X") == (NO_VOLUME,)


@given(
    seed=st.integers(0, 2**16),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    comma=st.booleans(),
    form=st.sampled_from([ISO, EU, DOTS, "%Y%m%d %H%M%S", "%Y/%m/%d %H:%M:%S", "ms", "s", "ns"]),
    head=st.sampled_from([None, LETTERS, CAPITALS, [name.upper() for name in COLUMNS]]),
    order=st.permutations(range(6)),
    banner=st.sampled_from(["", "Export\n", "Broker: X\nSymbol; EUR,USD\n\n"]),
    quote=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    reverse=st.booleans(),
    whole=st.booleans(),
)
def test_what_is_written_in_any_dialect_is_read_back(
    tmp_path_factory, seed, separator, comma, form, head, order, banner, quote, end, encoding,
    reverse, whole,
):  # fmt: skip
    rows = [
        [BEGIN + i * MINUTE, *(float(round(x)) if whole else round(x, 3) for x in row[1:])]
        for i, row in enumerate(market(seed, 30, gaps=False))
    ]
    expected = bk.Candles(*zip(*rows, strict=True))
    units = {"ms": 1, "s": 1 / 1000, "ns": 10**6}
    cells = [
        [round(r[0] * units[form]) if form in units else at(r, form), *r[1:]]
        for r in (rows[::-1] if reverse else rows)
    ]
    if head is not None:
        cells, head = [[r[i] for i in order] for r in cells], [head[i] for i in order]
    elif banner:
        banner = ""
    decimal = "," if comma and not (separator == "," and quote == csv.QUOTE_NONNUMERIC) else "."
    content = banner + text(
        cells, head=[head] if head else (), separator=separator, decimal=decimal, quote=quote,
        end=end,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("d") / "x.csv"
    path.write_bytes(content.encode(encoding))
    assert read_file(path).candles == expected
