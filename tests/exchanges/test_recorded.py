"""Exchanges over files and frames: every layout gives the same candles."""

import asyncio
import gzip
import zipfile
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import backtest_kit as bk
from backtest_kit._reports.data_check import convert, inspect
from backtest_kit._values.candles import COLUMNS
from backtest_kit.exchanges._parts import read_file
from markets import MINUTE, START, market

ROWS = [list(row) for row in market(11, 300)]
CANDLES = bk.Candles(*zip(*ROWS, strict=True))


def ask(exchange, interval="1m", since=START, limit=400, symbol="BTCUSDT"):
    return asyncio.run(exchange.get_candles(symbol, interval, since, limit))


def kline(row, unit):
    t = row[0] * unit
    return f"{t},{row[1]},{row[2]},{row[3]},{row[4]},{row[5]},{t + 60_000 * unit - 1},1,1,1,1,0"


VISION_HEAD = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)


def layouts(folder):
    ms = "\n".join(kline(row, 1) for row in ROWS) + "\n"
    us = "\n".join(kline(row, 1000) for row in ROWS) + "\n"
    iso = "".join(
        f"{row[5]},{row[4]},{row[3]},{row[2]},{row[1]},"
        f"{datetime.fromtimestamp(row[0] / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}\n"
        for row in ROWS
    )
    seconds = "Time,Open,High,Low,Close,Volume\n" + "".join(
        ",".join(map(str, [row[0] // 1000, *row[1:]])) + "\n" for row in ROWS
    )
    (folder / "ms.csv").write_text(ms)
    (folder / "us.csv").write_text(us)
    (folder / "head.csv").write_text(VISION_HEAD + us)
    (folder / "iso.csv").write_text("volume,close,low,high,open,Date\n" + iso)
    (folder / "seconds.csv").write_text(seconds)
    with gzip.open(folder / "ms.csv.gz", "wt") as stream:
        stream.write(ms)
    with zipfile.ZipFile(folder / "us.zip", "w") as archive:
        archive.writestr("BTCUSDT-1m-2025-01.csv", us)
    return sorted(folder.iterdir())


def test_every_csv_layout_gives_the_same_candles(tmp_path):
    files = layouts(tmp_path)
    assert len(files) == 7
    for path in files:
        assert ask(bk.exchanges.CsvExchange(path)) == CANDLES, path.name


@pytest.mark.parametrize("kind", ["int", "ms", "us", "zone", "small groups"])
def test_every_parquet_layout_gives_the_same_candles(tmp_path, kind):
    times = {
        "ms": pa.array(CANDLES.timestamp).cast(pa.timestamp("ms")),
        "us": pa.array(CANDLES.timestamp * 1000).cast(pa.timestamp("us")),
        "zone": pa.array(CANDLES.timestamp).cast(pa.timestamp("ms", "UTC")),
    }.get(kind, pa.array(CANDLES.timestamp))
    table = pa.table(dict(zip(COLUMNS, (times, *CANDLES.columns()[1:]), strict=True)))
    path = tmp_path / "BTCUSDT.parquet"
    pq.write_table(table, path, row_group_size=37 if kind == "small groups" else 1000)
    exchange = bk.exchanges.ParquetExchange(path)
    assert ask(exchange) == CANDLES
    assert ask(exchange, since=START + 100 * MINUTE, limit=50) == ask(
        bk.exchanges.FrameExchange(ROWS), since=START + 100 * MINUTE, limit=50
    )
    assert exchange.data_range("BTCUSDT") == (ROWS[0][0], ROWS[-1][0] + MINUTE)


def test_frames(tmp_path):
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    pandas = pd.DataFrame(ROWS, columns=COLUMNS)
    polars = pl.DataFrame(ROWS, schema=list(COLUMNS), orient="row")
    for frame in (pandas, polars, CANDLES, ROWS, {"BTCUSDT": pandas}):
        assert ask(bk.exchanges.FrameExchange(frame)) == CANDLES
    with pytest.raises(bk.UnknownNameError, match="no frame of 'BTCUSD'; did you mean 'BTCUSDT'"):
        ask(bk.exchanges.FrameExchange({"BTCUSDT": pandas}), symbol="BTCUSD")


def test_a_folder_is_searched_by_symbol_and_files_are_joined(tmp_path):
    pd = pytest.importorskip("pandas")
    for name, part in (
        ("BTCUSDT-1m-b", CANDLES[150:]),
        ("BTCUSDT-1m-a", CANDLES[:150]),
        ("BTCUSD", CANDLES[:50]),
    ):
        pq.write_table(
            pa.table(dict(zip(COLUMNS, part.columns(), strict=True))), tmp_path / f"{name}.parquet"
        )
        frame = pd.DataFrame(dict(zip(COLUMNS, part.columns(), strict=True)))
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    for kind in (bk.exchanges.ParquetExchange, bk.exchanges.CsvExchange):
        assert ask(kind(tmp_path)) == CANDLES
        assert ask(kind(tmp_path), symbol="BTC/USDT") == CANDLES
        assert ask(kind(tmp_path), symbol="BTCUSD") == CANDLES[:50]
        with pytest.raises(bk.DataRangeError, match="file of ETHUSDT"):
            ask(kind(tmp_path), symbol="ETHUSDT")


def test_longer_intervals_are_made_of_whole_buckets_only():
    exchange = bk.exchanges.FrameExchange(CANDLES[:298])
    end = exchange.data_range("X")[1]
    made = ask(exchange, "5m")
    assert made == CANDLES[:298].resample("5m")[: len(made)]
    assert int(made.timestamp[-1]) + 5 * MINUTE <= end
    with pytest.raises(bk.DataError, match="5m candles, of which 1m can't be made"):
        ask(bk.exchanges.FrameExchange(CANDLES.resample("5m")), "1m")


def test_few_candles_between_gaps_are_resampled():
    places = (0, 1, 2, 3, 62, 69, 130, 160, 200, 201, 202)
    rows = [[START + i * MINUTE, *ROWS[i][1:]] for i in places]
    exchange = bk.exchanges.FrameExchange(rows)
    seven = ask(exchange, "15m", START + 60 * MINUTE, 1)
    assert (seven.open[0], seven.close[0]) == (rows[4][1], rows[5][4])
    thirty = ask(exchange, "15m", START + 120 * MINUTE, 4)
    assert ((thirty.timestamp - START) // MINUTE).tolist() == [120, 150]


def test_a_range_off_the_grid_holds_the_buckets_that_open_in_it():
    for exchange in (bk.exchanges.FrameExchange(CANDLES), bk.exchanges.SyntheticExchange()):
        whole = ask(exchange, "5m", START + 5 * MINUTE, 2)
        assert ((whole.timestamp - START) // MINUTE).tolist() == [5, 10]
        assert ask(exchange, "5m", START + MINUTE, 2) == whole


def test_a_frame_that_grew_a_thousandfold_is_taken():
    n = 400_000
    price = np.round(4 * np.exp(np.minimum(np.arange(n) / 150_000, 1.0) * np.log(8_000)), 2)
    times = START + np.arange(n) * MINUTE
    grown = bk.Candles(times, price, price, price, price, np.ones(n))
    assert ask(bk.exchanges.FrameExchange(grown)) == grown[:400]


def test_the_synthetic_market_does_not_depend_on_how_it_is_asked():
    def fresh():
        return bk.exchanges.SyntheticExchange(seed=3)

    since = START + 1000 * MINUTE
    whole = ask(fresh(), since=since, limit=6000)
    other = fresh()
    ask(other, since=since + 90 * 1440 * MINUTE, limit=10)
    parts = [ask(other, since=since + i * MINUTE, limit=1000) for i in (5000, 0, 3000)]
    assert [whole[5000:], whole[:1000], whole[3000:4000]] == parts
    assert ask(fresh(), "1h", since=START, limit=48) == ask(
        fresh(), since=START, limit=48 * 60
    ).resample("1h")
    assert whole != ask(bk.exchanges.SyntheticExchange(seed=4), since=since, limit=6000)
    assert whole != ask(fresh(), since=since, limit=6000, symbol="ETHUSDT")
    assert np.array_equal(whole.open[1:], whole.close[:-1])


def test_import_writes_what_was_read_and_refuses_what_is_wrong(tmp_path):
    source = tmp_path / "a.csv"
    source.write_text("\n".join(kline(row, 1) for row in ROWS))
    target = tmp_path / "out" / "a.parquet"
    assert convert(source, target) == len(ROWS)
    assert ask(bk.exchanges.ParquetExchange(target)) == CANDLES
    with pytest.raises(bk.DataError, match="exists; use --force"):
        convert(source, target)
    spoiled = [*ROWS[:5], ROWS[3], *ROWS[5:]]
    source.write_text("\n".join(kline(row, 1) for row in spoiled))
    before = target.read_bytes()
    with pytest.raises(bk.BadCandlesError, match="candle 5"):
        convert(source, target, force=True)
    assert target.read_bytes() == before
    assert [p.name for p in target.parent.iterdir()] == ["a.parquet"]


def report_of(tmp_path, rows):
    path = tmp_path / "x.csv"
    path.write_text("\n".join(kline(row, 1) for row in rows))
    return inspect(path)


def test_check_counts_gaps_duplicates_and_order(tmp_path):
    rows = [list(row) for row in market(5, 200, gaps=False, quiet=False)]
    del rows[50:60]
    rows[100][5] = 0.0
    report = report_of(tmp_path, rows)
    assert (report.rows, report.interval, report.missing, report.zero_volumes) == (190, "1m", 10, 1)
    assert (report.gaps[0].start, report.gaps[0].count) == (START + 50 * MINUTE, 10)
    assert report.usable
    twice = report_of(tmp_path, [*rows[:20], rows[10], *rows[20:]])
    assert (twice.duplicates, twice.out_of_order, twice.usable) == (1, 1, False)


def calm(n=300):
    rng = np.random.default_rng(1)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.0005, n))), 2)
    return [
        [START + i * MINUTE, c, c + 0.05, c - 0.05, c, 1.0] for i, c in enumerate(close.tolist())
    ]


def test_a_bad_print_and_a_split_inside_a_bar_are_suspicious(tmp_path):
    assert report_of(tmp_path, calm()).suspicions == ()
    rows = calm()
    rows[120][2] *= 100
    found = report_of(tmp_path, rows).suspicions
    assert [(s.kind, s.timestamp) for s in found] == [("bad print", START + 120 * MINUTE)]
    rows = calm()
    for i, row in enumerate(rows):
        if i > 200:
            row[1:5] = [x / 7 for x in row[1:5]]
    rows[200][3] = rows[200][4] = rows[200][4] / 7
    found = report_of(tmp_path, rows).suspicions
    assert [(s.kind, s.timestamp) for s in found] == [("split", START + 200 * MINUTE)]
    assert found[0].ratio == pytest.approx(1 / 7, rel=0.02)


def test_reading_a_file_of_an_unknown_kind(tmp_path):
    path = tmp_path / "a.xlsx"
    path.write_text("x")
    with pytest.raises(bk.DataError, match=r"expected a \.parquet"):
        read_file(path)
