"""`data repair`: what comes out keeps the rules, and the list says all that was changed."""

import csv
import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._reports.data_check import inspect
from backtest_kit._reports.data_repair import repair
from backtest_kit.exchanges._parts import read_file
from command import kept, one_line, run_here
from markets import MINUTE, START, market

ROWS = [list(row) for row in market(11, 300, gaps=False)]
ALL = {"drop_bad": True, "dedupe": True, "sort": True}
#: Ways to break a row of text cells, all of which must be found.
DAMAGE = {
    "word": lambda cells: [*cells[:2], "abc", *cells[3:]],
    "empty": lambda cells: [*cells[:4], "", cells[5]],
    "nan": lambda cells: [*cells[:5], "nan"],
    "negative": lambda cells: [cells[0], "-1", *cells[2:]],
    "zero": lambda cells: [*cells[:3], "0", *cells[4:]],
    "crossed": lambda cells: [cells[0], cells[1], cells[3], cells[2], *cells[4:]],
    "outside": lambda cells: [*cells[:4], str(float(cells[2]) * 2), cells[5]],
    "open outside": lambda cells: [cells[0], str(float(cells[3]) / 2), *cells[2:]],
    "print": lambda cells: [cells[0], *(str(float(x) * 5000) for x in cells[1:5]), cells[5]],
    "no time": lambda cells: ["n/a", *cells[1:]],
    "off the grid": lambda cells: [str(int(cells[0]) + 1), *cells[1:]],
    "short": lambda cells: cells[:4],
    "long": lambda cells: [*cells, "1", "2"],
    "volume": lambda cells: [*cells[:5], "-3"],
}


def written(path, rows):
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    return path


def cells_of(rows):
    return [[repr(x) for x in row] for row in rows]


def candles(rows):
    return bk.Candles(*zip(*rows, strict=True))


@given(
    seed=st.integers(0, 2**16),
    damaged=st.dictionaries(st.integers(5, 294), st.sampled_from([*DAMAGE]), max_size=12),
    twice=st.sets(st.integers(5, 294), max_size=6),
    shuffled=st.booleans(),
    header=st.booleans(),
)
def test_what_is_left_is_what_was_good(tmp_path_factory, seed, damaged, twice, shuffled, header):
    folder = tmp_path_factory.mktemp("r")
    good = [row for i, row in enumerate(ROWS) if i not in damaged]
    rows = cells_of(ROWS)
    for i, way in damaged.items():
        rows[i] = DAMAGE[way](rows[i])
    again = sorted(twice - damaged.keys())
    rows += [rows[i] for i in again]
    if shuffled:
        middle = rows[5:]
        random.Random(seed).shuffle(middle)
        rows[5:] = middle
    head = [["timestamp", "open", "high", "low", "close", "volume"]] if header else []
    source = written(folder / "in.csv", head + rows)
    before = source.read_bytes()
    done = repair(source, folder / "out.parquet", **ALL)
    assert read_file(folder / "out.parquet").candles == candles(good)
    assert inspect(folder / "out.parquet").usable
    assert source.read_bytes() == before
    assert (done.dropped, done.duplicates) == (len(damaged), len(again))
    assert (done.rows, done.written) == (len(rows), len(good))
    for change in done.changes:  # each is named by its row in the file
        if change.kind == "dropped" and change.values:
            assert repr(change.timestamp) == rows[change.row][0]
        elif change.kind == "dropped":
            assert change.text.split(",")[1:4] == rows[change.row][1:4]
    with (folder / "out.parquet.changes.csv").open() as stream:
        listed = [*csv.DictReader(stream)]
    assert [(one["change"], int(one["row"])) for one in listed] == [
        (change.kind, change.row) for change in done.changes
    ]


@pytest.mark.parametrize(
    ("left_out", "message"),
    [("drop_bad", "--drop-bad"), ("dedupe", "--dedupe"), ("sort", "--sort")],
)
def test_nothing_is_mended_that_was_not_asked_for(left_out, message, tmp_path):
    rows = cells_of(ROWS)
    rows[20][1] = "-1"
    rows[40], rows[41] = rows[41], rows[40]
    rows.insert(60, rows[59])
    source = written(tmp_path / "in.csv", rows)
    with pytest.raises(bk.BadCandlesError, match=message):
        repair(source, tmp_path / "out.parquet", **ALL | {left_out: False})
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    done = repair(source, tmp_path / "out.parquet", **ALL)
    assert (done.dropped, done.duplicates, done.moved) == (1, 1, 1)


def test_of_two_with_one_time_the_last_stays(tmp_path):
    rows = [list(row) for row in ROWS]
    final = [*rows[50][:4], rows[50][4], rows[50][5] + 5.0]
    rows.insert(51, final)
    source = written(tmp_path / "in.csv", cells_of(rows))
    done = repair(source, tmp_path / "out.csv", dedupe=True)
    assert read_file(tmp_path / "out.csv").candles[50].volume == final[5]
    (change,) = done.changes
    assert (change.row, change.reason) == (50, "another with this time comes later")


def test_prints_that_hide_each_other_are_all_dropped(tmp_path):
    rows = [list(row) for row in ROWS]
    for i in (100, 101, 102, 103):
        rows[i][1:5] = [x * 5000 for x in rows[i][1:5]]
    source = written(tmp_path / "in.csv", cells_of(rows))
    done = repair(source, tmp_path / "out.parquet", drop_bad=True)
    assert [change.row for change in done.changes] == [100, 101, 102, 103]


def test_a_newest_first_file_names_its_own_rows(tmp_path):
    rows = cells_of(ROWS[::-1])
    rows[7][1] = "-1"
    source = written(tmp_path / "in.csv", rows)
    done = repair(source, tmp_path / "out.parquet", drop_bad=True)
    assert [change.row for change in done.changes] == [7]
    assert (done.moved, done.written) == (0, 299)


def test_the_source_is_never_overwritten(tmp_path):
    source = written(tmp_path / "in.csv", cells_of(ROWS))
    (tmp_path / "link.csv").symlink_to(source)
    (tmp_path / "hard.csv").hardlink_to(source)
    for name in ("in.csv", "link.csv", "hard.csv"):
        with pytest.raises(bk.DataError, match="never overwritten"):
            repair(source, tmp_path / name, force=True)
    repair(source, tmp_path / "out.csv")
    with pytest.raises(bk.DataError, match="--force"):
        repair(source, tmp_path / "out.csv")
    repair(source, tmp_path / "out.csv", force=True)
    assert read_file(tmp_path / "out.csv").candles == candles(ROWS)


def test_a_parquet_file_is_mended_too(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [np.array(column) for column in zip(*ROWS, strict=True)]
    columns[4][9] = np.nan
    order = np.random.default_rng(1).permutation(len(ROWS))
    names = ("timestamp", "open", "high", "low", "close", "volume")
    table = pa.table({n: c[order] for n, c in zip(names, columns, strict=True)})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=40)
    done = repair(tmp_path / "in.parquet", tmp_path / "out.parquet", **ALL)
    assert read_file(tmp_path / "out.parquet").candles == candles(ROWS[:9] + ROWS[10:])
    assert [change.timestamp for change in done.changes if change.kind == "dropped"] == [
        START + 9 * MINUTE
    ]


def test_the_command(tmp_path):
    rows = cells_of(ROWS)
    rows[20] = DAMAGE["word"](rows[20])
    rows.insert(60, rows[59])
    written(tmp_path / "in.csv", rows)
    bad = run_here("data", "repair", "in.csv", "out.parquet", "--dedupe", cwd=tmp_path)
    one_line(bad, "in.csv", "abc", code=1)
    words = ("data", "repair", "in.csv", "out.parquet", "--drop-bad", "--dedupe", "--sort")
    done = run_here(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dropped: row 20 " in done.stdout
    assert "299 of 301 candles of 1m written to out.parquet: 1 dropped" in done.stdout
    assert "listed in out.parquet.changes.csv" in done.stdout
    one_line(run_here(*words, cwd=tmp_path), "use --force", code=1)
    again = json.loads(run_here(*words, "--force", "--json", cwd=tmp_path).stdout)
    assert (again["dropped"], again["duplicates"]) == (1, 1)
    named = (tmp_path / "x.csv", "when;o;h;l;c\n")
    local = "".join(f"0{i}.02.2024 12:00;1,5;1,6;1,4;1,5\n" for i in range(1, 9))
    named[0].write_text(named[1] + local)
    options = ("--columns", "timestamp=when", "--timezone", "Europe/Berlin", "--interval", "1d")
    off = run_here("data", "repair", "x.csv", "y.csv", *options, cwd=tmp_path)
    one_line(off, "not on the grid of 86400 s", "--drop-bad", code=1)
    shown = run_here("data", "check", "x.csv", "--columns", "timestamp=when", cwd=tmp_path)
    assert "times without a zone are taken as UTC" in shown.stdout
    assert "no volume" in shown.stdout
    one_line(
        run_here("data", "check", "x.csv", "--columns", "when", cwd=tmp_path), "must be OURS=THEIRS"
    )


def test_gaps_are_the_same_in_a_check_and_in_every_report(tmp_path):
    """Missing base candles, each once: not those of the hours that a strategy reads besides."""
    rows = [
        row
        for i, row in enumerate(market(3, 1500, gaps=False))
        if i == 0 or (i % 97 and i // 60 != 9)
    ]
    written(tmp_path / "x.csv", cells_of([list(row) for row in rows]))
    (tmp_path / "s.py").write_text(
        "import backtest_kit as bk\n"
        '@bk.strategy("s", interval="15m")\n'
        "async def s(symbol, when):\n"
        '    await bk.get_candles(symbol, "1h", 3)\n'
        '    await bk.get_candles(symbol, "5m", 3)\n'
    )
    here = {"cwd": tmp_path}
    check = json.loads(run_here("data", "check", "x.csv", "--json", **here).stdout)
    assert check["missing"] > 60
    words = ("s.py", "--symbol", "X", "--data", "x.csv", "--json")
    (data,) = json.loads(run_here("backtest", *words, **here).stdout)
    walk = json.loads(run_here("walk", *words, **here).stdout)
    assert data["gaps_filled"] == check["missing"] == walk["ranking"][0]["gaps_filled"]
    report = kept(tmp_path)[0].read_text()
    assert f"{check['missing']} missing candles" in report
