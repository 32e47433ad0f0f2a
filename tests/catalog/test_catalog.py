"""A catalog: what goes in comes out, whole at every moment, and readable by others."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._catalog.catalog import Catalog
from backtest_kit._catalog.layout import Month, SeriesKey, key_of_folder, months
from backtest_kit._catalog.month import EMPTY, merged
from backtest_kit._catalog.spans import missing, union, within
from backtest_kit._values.time import to_ms
from markets import MINUTE, START, market

KEY = SeriesKey("binance", "BTC/USDT", "1m")
JANUARY = Month(2024, 1)
spans = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda s: tuple(sorted(s))), max_size=6
)


def candles(rows):
    return bk.Candles(*(np.array(column) for column in zip(*rows, strict=True)))


def same(one, other):
    pairs = zip(one.columns(), other.columns(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


ROWS = market(3, 300)


@given(spans, st.tuples(st.integers(0, 50), st.integers(0, 50)))
def test_spans_are_sets_of_instants(given, frame):
    since, until = sorted(frame)
    points = {t for a, b in given for t in range(a, b)}
    assert {t for a, b in union(given) for t in range(a, b)} == points
    gone = {t for a, b in missing(given, since, until) for t in range(a, b)}
    assert gone == set(range(since, until)) - points
    cut = {t for a, b in within(given, since, until) for t in range(a, b)}
    assert cut == points & set(range(since, until))
    assert union(union(given)) == union(given)


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_name_has_a_folder_of_its_own(exchange, symbol):
    key = SeriesKey(exchange, symbol, "1h")
    assert key_of_folder(key.folder) == key
    assert len(Path(key.folder).parts) == 3


@given(st.integers(0, 2**41), st.integers(0, 2**37))
def test_months_cover_a_span(since, length):
    found = months(since, since + length + 1)
    assert found[0].first <= since < found[0].end
    assert found[-1].first <= since + length < found[-1].end
    assert all(a.end == b.first for a, b in itertools.pairwise(found))


@given(st.lists(st.integers(1, 299), max_size=5), st.randoms())
def test_parts_in_any_order_give_the_whole(cuts, order):
    edges = sorted({0, *cuts, 300})
    parts = [(START + a * MINUTE, START + b * MINUTE) for a, b in itertools.pairwise(edges)]
    order.shuffle(parts)
    data = EMPTY
    for since, until in parts:
        rows = [row for row in ROWS if since <= row[0] < until]
        data = merged(data, candles(rows) if rows else EMPTY.candles, (since, until))
    assert same(data.candles, candles(ROWS))
    assert data.covered == ((START, START + 300 * MINUTE),)
    assert not data.revisions
    assert data.duplicates == 0


def test_what_is_told_twice_is_kept_as_it_was_and_reported():
    whole = merged(EMPTY, candles(ROWS), (START, START + 300 * MINUTE))
    changed = [*ROWS[50]]
    changed[5] += 1.0
    again = merged(whole, candles([ROWS[49], tuple(changed)]), (ROWS[49][0], ROWS[50][0] + MINUTE))
    assert same(again.candles, whole.candles)
    assert again.duplicates == 2
    (revision,) = again.revisions
    assert revision.timestamp == ROWS[50][0]
    assert (revision.kept[4], revision.told[4]) == (ROWS[50][5], changed[5])
    once_more = merged(again, candles([tuple(changed)]), (ROWS[50][0], ROWS[50][0] + MINUTE))
    assert once_more.revisions == again.revisions


def filled(tmp_path, rows=ROWS):
    catalog = Catalog(tmp_path / "catalog")
    span = (START, START + 300 * MINUTE)
    passport = catalog.write(KEY, JANUARY, merged(EMPTY, candles(rows), span), "venue", START)
    return catalog, passport


def test_a_month_is_read_back(tmp_path):
    catalog, passport = filled(tmp_path)
    assert catalog.series() == [KEY]
    assert catalog.months(KEY) == [JANUARY]
    data = catalog.read(KEY, JANUARY)
    assert same(data.candles, candles(ROWS))
    assert catalog.covered(KEY, JANUARY) == data.covered == ((START, START + 300 * MINUTE),)
    assert catalog.passport(KEY, JANUARY) == passport
    assert passport.rows + passport.missing == 300
    assert catalog.read(KEY, Month(2024, 2)) == EMPTY
    assert catalog.passport(KEY, Month(2024, 2)) is None


def test_a_passport_that_is_gone_or_damaged_is_made_again(tmp_path):
    catalog, passport = filled(tmp_path)
    (path,) = (tmp_path / "catalog").rglob("_*.json")
    told = json.loads(path.read_text())
    assert told["gaps"] == passport.gaps
    for damage in (path.unlink, lambda: path.write_text("{")):
        damage()
        again = catalog.passport(KEY, JANUARY)
        assert (again.content, again.missing) == (passport.content, passport.missing)


def test_damage_is_an_error_that_names_the_file(tmp_path):
    catalog, _ = filled(tmp_path)
    (path,) = (tmp_path / "catalog").rglob("2024-01.parquet")
    path.write_bytes(path.read_bytes()[:-10])
    for read in (catalog.read, catalog.covered, catalog.passport):
        with pytest.raises(bk.BadCandlesError, match=r"2024-01\.parquet"):
            read(KEY, JANUARY)


def test_the_same_data_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        filled(tmp_path / name)
    one, other = (next((tmp_path / n).rglob("*.parquet")).read_bytes() for n in ("a", "b"))
    assert one == other


def test_pandas_polars_and_duckdb_read_it_as_it_is(tmp_path):
    catalog, _ = filled(tmp_path)
    catalog.write(
        SeriesKey("binance", "ETH/USDT", "1m"),
        JANUARY,
        merged(EMPTY, candles(ROWS[:100]), (START, START + 100 * MINUTE)),
        "venue",
        START,
    )
    frame = pd.read_parquet(tmp_path / "catalog")
    assert dict(frame.groupby("symbol", observed=True).size()) == {
        "BTC/USDT": len(ROWS),
        "ETH/USDT": 100,
    }
    glob = str(tmp_path / "catalog" / "**" / "*.parquet")
    assert pl.read_parquet(glob, hive_partitioning=True).height == len(ROWS) + 100
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb")
    source = f"read_parquet('{glob}', hive_partitioning=true)"
    query = f"select count(*), epoch_ms(min(timestamp)) from {source}"
    ((count, first),) = duckdb.sql(query).fetchall()
    assert count == len(ROWS) + 100
    assert first == ROWS[0][0]


def test_an_exchange_reads_it(tmp_path):
    filled(tmp_path)
    exchange = bk.exchanges.CatalogExchange(tmp_path / "catalog")
    assert exchange.exchange_name == "binance"
    assert exchange.data_range("BTC/USDT") == (ROWS[0][0], ROWS[-1][0] + MINUTE)
    with bk.Engine():
        whole = bk.read_candles(exchange, symbol="BTC/USDT")
    assert same(whole, candles(ROWS))
    with pytest.raises(bk.DataRangeError, match=r"did you mean 'BTC/USDT'"):
        exchange.series("BTC/USDC")
    with pytest.raises(bk.RegistrationError, match="no candles of 'kraken'"):
        bk.exchanges.CatalogExchange(tmp_path / "catalog", "kraken")
    with pytest.raises(bk.RegistrationError, match="has candles of nothing"):
        bk.exchanges.CatalogExchange(tmp_path / "nowhere")


def test_a_series_is_read_across_months(tmp_path):
    catalog = Catalog(tmp_path)
    border = to_ms(pd.Timestamp("2024-02-01", tz="UTC").to_pydatetime())
    rows = [(border + (i - 50) * MINUTE, 1.0, 1.0, 1.0, 1.0, 1.0) for i in range(100)]
    for month, part in ((JANUARY, rows[:50]), (Month(2024, 2), rows[50:])):
        span = (part[0][0], part[-1][0] + MINUTE)
        catalog.write(KEY, month, merged(EMPTY, candles(part), span), "venue", START)
    series = bk.exchanges.CatalogExchange(tmp_path).series("BTC/USDT")
    assert same(series.read(0, 2**60), candles(rows))
    assert same(series.read(border - MINUTE, border + MINUTE), candles(rows[49:51]))
    assert len(series.read(border + 60 * MINUTE, border + 70 * MINUTE)) == 0


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_an_object_store_is_an_address_too(scheme, tmp_path):
    if scheme == "memory":
        pytest.importorskip("fsspec", reason="needs fsspec")
    catalog = Catalog(f"{scheme}://{tmp_path}")
    catalog.write(KEY, JANUARY, merged(EMPTY, candles(ROWS), (START, START + MINUTE)), "v", START)
    assert same(catalog.read(KEY, JANUARY).candles, candles(ROWS))
    assert catalog.series() == [KEY]
    exchange = bk.exchanges.CatalogExchange(f"{scheme}://{tmp_path}")
    assert same(exchange.series("BTC/USDT").read(0, 2**60), candles(ROWS))


def test_an_address_that_nobody_knows():
    with pytest.raises(bk.RegistrationError, match="nothing://"):
        Catalog("nothing://bucket")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        filled(tmp_path)
