"""Files that are broken, odd or large: one clear error with file and row, or the candles."""

import asyncio
import gzip
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import backtest_kit as bk
from backtest_kit._reports.data_check import inspect
from backtest_kit._values.candle_rules import check_candles
from backtest_kit._values.candles import COLUMNS
from backtest_kit.exchanges import _parquet
from markets import MINUTE, START, market

ROWS = [list(row) for row in market(11, 300, gaps=False)]
CANDLES = bk.Candles(*zip(*ROWS, strict=True))
PLAIN = "".join(",".join(map(repr, row)) + "\n" for row in ROWS)
HEAD = "timestamp,open,high,low,close,volume\n"


def ask(exchange, since=START, limit=400):
    return asyncio.run(exchange.get_candles("BTCUSDT", "1m", since, limit))


def parquet(path, columns, **options):
    pq.write_table(pa.table(dict(zip(COLUMNS, columns, strict=True))), path, **options)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + PLAIN.replace(repr(ROWS[5][1]), "abc", 1), r"c\.csv: .*Row #7.*'abc'"),
        (HEAD + PLAIN + "1,2\n", r"c\.csv: .*Row #302"),
        (HEAD + PLAIN.replace(repr(ROWS[5][0]), "", 1), r"c\.csv: candle 5 has no time"),
        (HEAD + PLAIN.replace(repr(ROWS[5][1]), "-1", 1), r"c\.csv: candle 5 .*0 or less"),
        (HEAD, r"c\.csv has fewer than two candles"),
        ("", r"c\.csv: the first line has 1 columns"),
        ("time,open,high,low,close\n", r"c\.csv has fewer than two candles"),
        ("time,open,high,low\n", r"c\.csv: the first line has 4 columns; expected 6, or 5"),
        ("a,open,high,low,close,volume\n" + PLAIN, r"c\.csv has no column a time"),
    ],
)
def test_a_broken_csv_file_is_named_with_its_row(tmp_path, text, message):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(bk.BadCandlesError, match=message):
        ask(bk.exchanges.CsvExchange(tmp_path / "c.csv"))


@pytest.mark.parametrize(
    "text",
    [
        "Timestamp, Open , HIGH, low, close, volume\n" + PLAIN,
        "\ufeff" + HEAD + PLAIN,
        (HEAD + PLAIN).replace("\n", "\r\n"),
        "".join(
            ",".join(map(repr, [r[0] * 1000 ** (i > 99), *r[1:]])) + "\n"
            for i, r in enumerate(ROWS)
        ),
    ],
    ids=["blanks in the header", "byte order mark", "crlf", "from ms to us on the way"],
)
def test_odd_csv_files_are_read(tmp_path, text):
    (tmp_path / "c.csv").write_bytes(text.encode())
    assert ask(bk.exchanges.CsvExchange(tmp_path / "c.csv")) == CANDLES


def test_damaged_archives_are_named(tmp_path):
    packed = bytearray(gzip.compress(PLAIN.encode()))
    packed[500:600] = bytes(100)
    (tmp_path / "a.csv.gz").write_bytes(packed)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(PLAIN.encode())[:3000])
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c.csv", PLAIN)
    packed = bytearray((tmp_path / "c.zip").read_bytes())
    packed[100:200] = bytes(100)
    (tmp_path / "c.zip").write_bytes(packed)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(bk.BadCandlesError, match=rf"{path.name} can't be read"):
            inspect(path)


def test_a_broken_row_of_a_parquet_file_is_named(tmp_path):
    columns = [column.copy() for column in CANDLES.columns()]
    columns[2][150] = np.nan
    path = parquet(tmp_path / "nan.parquet", columns, row_group_size=100)
    exchange = bk.exchanges.ParquetExchange(path)
    assert ask(exchange, limit=100) == CANDLES[:100]
    with pytest.raises(bk.BadCandlesError, match=r"nan\.parquet: candle 150 .*not finite"):
        ask(exchange)
    columns = [column.copy() for column in CANDLES.columns()]
    columns[0][[150, 151]] = columns[0][[151, 150]]
    path = parquet(tmp_path / "order.parquet", columns, row_group_size=100)
    with pytest.raises(bk.BadCandlesError, match=r"order\.parquet: candle 151 .*not after"):
        ask(bk.exchanges.ParquetExchange(path))


def test_a_damaged_page_of_a_parquet_file_is_named(tmp_path):
    path = parquet(tmp_path / "page.parquet", CANDLES.columns(), compression="snappy")
    packed = bytearray(path.read_bytes())
    packed[100:400] = bytes(300)
    path.write_bytes(packed)
    with pytest.raises(bk.BadCandlesError, match=r"page\.parquet, row group 0"):
        ask(bk.exchanges.ParquetExchange(path))


def test_a_time_that_is_missing_from_a_parquet_file_is_named(tmp_path):
    times = pa.array([None if i == 3 else row[0] for i, row in enumerate(ROWS)], pa.int64())
    path = parquet(tmp_path / "null.parquet", (times, *CANDLES.columns()[1:]))
    with pytest.raises(bk.BadCandlesError, match=r"null\.parquet, row group 0"):
        ask(bk.exchanges.ParquetExchange(path))


def test_the_interval_is_not_guessed_from_a_first_small_row_group(tmp_path):
    gappy = [ROWS[0], *ROWS[3:]]
    path = parquet(tmp_path / "g.parquet", zip(*gappy, strict=True), row_group_size=2)
    assert ask(bk.exchanges.ParquetExchange(path)) == bk.Candles(*zip(*gappy, strict=True))


def test_a_sequential_reader_holds_a_bounded_number_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(_parquet, "KEPT_ROWS", 100)
    path = parquet(tmp_path / "m.parquet", CANDLES.columns(), row_group_size=30)
    exchange = bk.exchanges.ParquetExchange(path)
    series = exchange.series("BTCUSDT")
    for start in range(0, 300, 20):
        assert ask(exchange, START + start * MINUTE, 20) == CANDLES[start : start + 20]
        assert 0 < sum(len(group) for group in series._groups.values()) <= 100


def test_the_synthetic_market_keeps_the_rules_in_bounded_memory():
    exchange = bk.exchanges.SyntheticExchange(seed=5)
    for year in range(10):
        since = START + year * 365 * 1440 * MINUTE
        candles = ask(exchange, since, 50_000)
        assert candles.timestamp.tolist() == list(range(since, since + 50_000 * MINUTE, MINUTE))
        check_candles(candles, MINUTE)
        for column in candles.columns()[1:5]:
            assert np.array_equal(column, np.round(column, 2))
        assert len(exchange._days) <= 128
